"""Runs: kept whole or not at all, found again, and never compared across hosts.

    results/<experiment>/<key>/run.json          parameters, settings, seed, code version, libraries, host, times, status, summary
    results/<experiment>/<key>/samples.parquet   every call; closed.parquet beside it where a closed loop was measured too
    results/<experiment>/<key>/notebook.ipynb    as executed

A run is made in a hidden folder beside its place and renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import polars as pl

from memlab.errors import internal, nearest, not_found, permission, validation
from memlab.measure import host

Status = Literal["done", "failed"]
FILE = "run.json"
SUMMARY = "summary.json"
"""What a point's notebook leaves in its folder `out`; it then stands in run.json."""
_PARTIAL = ".partial"
_OLD = ".old"
_PACKAGE = Path(__file__).resolve().parents[1]
# What decides a measurement: the engine, the traffic, the instruments. Documents and charts are not among them.
_DECIDING = ("storage", "operations", "middleware", "workload", "measure", "embedders")
_DECIDING_FILES = (
    "engine.py",
    "experiment/load.py",
    "experiment/comparison.py",
    "experiment/exact.py",
    "experiment/summary.py",
)
# What decides the runs of one experiment beside that, so that a change of one instrument does not make all runs old.
_LOAD = ("experiment/load_run.py", "experiment/load_summary.py", "experiment/oracle.py")
_LANES = ("experiment/lanes.py",)
_OPERATIONS = ("operation_costs", "operation_store", "operation_summary", "discovery_costs", "cold_start", "forking")
_DECIDING_OF = {
    "07-invalidation": ("experiment/invalidation.py",),
    "08-warm-up": ("experiment/warm_up.py", "experiment/warm_up_process.py", "experiment/forking.py"),
    "09-paging": ("experiment/paging.py", "experiment/paging_process.py", "experiment/forking.py"),
    "10-operations": tuple(f"experiment/{name}.py" for name in _OPERATIONS),
    "11-workflows": ("experiment/workflow_costs.py", "experiment/operation_store.py"),
    "12-driver": ("experiment/driver_proof.py", "experiment/stall.py"),
    "12-load": (*_LOAD, "experiment/load_point.py"),
    "12-rate": (*_LOAD, "experiment/rate_search.py", "experiment/rate_trial.py"),
    "13-isolation": ("experiment/isolation.py", "experiment/oracle.py"),
    "14-leaks": ("experiment/leak.py", "experiment/load_run.py", "experiment/oracle.py"),
    "15-memory": ("experiment/footprint.py", "experiment/footprint_process.py"),
    "16-profile": ("experiment/profiling.py", "experiment/profiled_work.py", "experiment/load_run.py"),
    "17-compare": (*_LOAD, "experiment/run_comparison.py", "experiment/noise.py"),
    "20-miss-ratio": (
        "experiment/cached.py",
        "experiment/curves.py",
        *(f"predict/{name}.py" for name in ("miss_ratio", "policies", "sampling", "stack_distance", "fresh")),
    ),
    "21-batch-window": (*_LANES, "experiment/batching.py", "experiment/batching_summary.py", "predict/group_commit.py"),
    "22-pool-limit": (*_LANES, "experiment/pooling.py", "predict/queueing.py", "predict/scalability.py"),
    "23-index": ("experiment/indexing.py", "predict/pareto.py"),
    "24-tune": ("experiment/tune.py", "experiment/tune_grid.py", "experiment/warm_start.py"),
    "bench": ("experiment/speed.py",),
    "load": _LOAD,
    "trace": (
        *_LOAD,
        *(f"experiment/{name}.py" for name in ("replay", "trace_study")),
        *(f"predict/{name}.py" for name in ("fresh", "miss_ratio", "policies", "sampling", "stack_distance", "traffic")),
    ),
}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One measured point.

    Attributes:
        key: hash of everything that decides it; the name of its folder.
        parameters: its place in the grid.
        settings: reference and candidate, in full.
        data: name and digest of the conversations; None for generated ones.
        code_version: digest of the sources that measured it and the versions of the libraries under them.
        started, finished: ISO 8601, UTC.
        error: one line, where the status is `failed`.
        summary: see `summary.summarise`; empty where it failed.
        folder: where it is kept.
    """

    experiment: str
    key: str
    question: str = ""
    parameters: dict[str, Any]
    settings: dict[str, Any]
    seed: int
    repeats: int
    size: str
    workload: dict[str, Any]
    data: dict[str, str] | None = None
    code_version: str
    libraries: dict[str, str]
    host: dict[str, Any]
    started: str
    finished: str
    status: Status
    error: str | None = None
    summary: dict[str, Any] = {}
    folder: Path = Path()

    @property
    def id(self) -> str:
        """`<experiment>/<key>`: what a figure in a document carries."""
        return f"{self.experiment}/{self.key}"

    @property
    def notebook(self) -> Path:
        """The notebook as executed."""
        return self.folder / "notebook.ipynb"

    @property
    def is_current(self) -> bool:
        """Whether the code that measured it is the code as it is now."""
        return self.code_version == code_version(self.experiment)

    def samples(self) -> pl.DataFrame:
        """Return every call, in the columns of samples.parquet."""
        return _read_samples(self.folder / "samples.parquet")

    def closed_samples(self) -> pl.DataFrame | None:
        """Return every call of the closed loop beside the open one; None where there was none."""
        path = self.folder / "closed.parquet"
        return _read_samples(path) if path.is_file() else None

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in run.json."""
        plain = msgspec.structs.asdict(self)
        del plain["folder"]
        return {"id": self.id, **plain}


def code_version(experiment: str = "") -> str:
    """Return a digest of the sources that decide a measurement, and of the libraries' versions, as this process began with.

    Args:
        experiment: whose own instruments count too; its smoke size is the same experiment.
    """
    return _version_at_first(experiment.partition(".")[0])


@functools.cache
def _version_at_first(experiment: str) -> str:
    return _code_version(experiment)


def code_changed(experiment: str = "") -> bool:
    """Return whether the sources were edited since this process first asked for their version."""
    return _code_version(experiment.partition(".")[0]) != code_version(experiment)


def _code_version(experiment: str = "") -> str:
    digest = hashlib.sha256()
    folders = [path for name in _DECIDING for path in (_PACKAGE / name).rglob("*") if path.suffix in (".py", ".sql")]
    files = [_PACKAGE / name for name in (*_DECIDING_FILES, *_DECIDING_OF.get(experiment, ()))]
    for path in sorted({*folders, *files}):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(json.dumps(host.libraries(), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the key of a run that *facts* decide; the order of their names does not matter."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def load(folder: Path) -> Run:
    """Return the run that a folder keeps.

    Raises:
        MemlabError: NOT_FOUND `run`: there is none; VALIDATION `run`: its run.json is damaged or another program's.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise not_found("run", f"no run in '{folder}'; memlab sweep makes them") from None
    except (OSError, ValueError) as error:
        raise validation("run", f"'{path}' cannot be read: {error}; remove its folder and sweep again") from None
    try:
        run = msgspec.convert(values, Run, strict=True)
    except msgspec.ValidationError as error:
        raise validation("run", f"'{path}' is not a run of this version: {error}; remove its folder and sweep again") from None
    return msgspec.structs.replace(run, folder=folder)


def find(results: str | Path, run_id: str) -> Run:
    """Return the run `<experiment>/<key>`.

    Raises:
        MemlabError: NOT_FOUND `run`, with the nearest id that there is.
    """
    experiment, _, key = run_id.partition("/")
    folder = Path(results) / experiment / key
    if not key or not (folder / FILE).is_file():
        known = [f"{path.parent.parent.name}/{path.parent.name}" for path in Path(results).glob(f"*/[!.]*/{FILE}")]
        raise not_found("run", f"no run '{run_id}' in '{results}'{nearest(run_id, known) if known else ''}")
    return load(folder)


def runs(
    results: str | Path,
    experiment: str,
    *,
    status: Status | None = "done",
    size: str | None = None,
    current: bool = True,
    host_id: str | None = None,
) -> list[Run]:
    """Return the runs of an experiment, by time of finishing.

    Args:
        status: only such; None for all.
        size: only `quick` or `smoke` ones; None for all.
        current: only those that the code as it is now measured.
        host_id: only those of this host; None for all, which must then be of one.
    Raises:
        MemlabError: VALIDATION `hosts`: they come from unlike hosts.
    """
    folders = sorted(path.parent for path in (Path(results) / experiment).glob(f"[!.]*/{FILE}"))
    found = [
        run
        for run in map(load, folders)
        if (status is None or run.status == status)
        and (size is None or run.size == size)
        and (not current or run.is_current)
        and (host_id is None or run.host["id"] == host_id)
    ]
    refuse_unlike_hosts(found)
    return sorted(found, key=lambda run: run.finished)


def refuse_unlike_hosts(found: Iterable[Run]) -> None:
    """Raise VALIDATION `hosts` where runs were made on unlike hosts: their figures must not stand in one comparison."""
    hosts = {run.host["id"]: run.host for run in found}
    if len(hosts) > 1:
        told = "; ".join(f"{one['cpu']}, {one['cores']} cores, {one['memory_gib']} GiB ({name})" for name, one in hosts.items())
        raise validation(
            "hosts", f"these runs come from {len(hosts)} unlike hosts, which cannot be compared: {told}; sweep into a new folder"
        )


def frame(found: Sequence[Run]) -> pl.DataFrame:
    """Return one row a run: its grid values, its ratios and figures with their intervals, for charts and tables."""
    return pl.DataFrame([_row(run) for run in found], infer_schema_length=None)


_FIGURES = ("p50", "p95", "mean", "throughput")
_MEASURES = (
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "mean_ms",
    "throughput_per_s",
    "hit_ratio",
    "mean_batch_size",
    "recall_at_10",
    "failure_ratio",
)


def _row(run: Run) -> dict[str, Any]:
    summary = run.summary
    row: dict[str, Any] = {"run": run.id, **run.parameters}
    row |= {"finding": summary["finding"], "null": summary["null"], "suspect": bool(summary["suspect"])}
    for prefix, lane in (("", summary), ("closed_", summary["closed"])):
        for figure in _FIGURES:
            row |= _interval(f"{prefix}ratio_{figure}", lane and lane["ratio"][figure])
            row[f"{prefix}verdict_{figure}"] = lane and lane["verdict"][figure]
        for setting in ("reference", "candidate"):
            for measure in _MEASURES:
                row |= _interval(f"{prefix}{setting}_{measure}", lane and lane[setting][measure])
    return row


def _interval(name: str, interval: Mapping[str, Any] | None) -> dict[str, float | None]:
    parts = interval or {"value": None, "low": None, "high": None}
    return {name: parts["value"], f"{name}_low": parts["low"], f"{name}_high": parts["high"]}


def _read_samples(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise not_found("run", f"no samples at '{path}'") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise validation("run", f"'{path}' cannot be read: {str(error).splitlines()[0]}") from None


def write_point(out: str | Path | None, summary: Mapping[str, Any], frames: Mapping[str, pl.DataFrame] | None = None) -> None:
    """Write what a point of a sweep brought where a folder is given: each frame as `<name>.parquet`, and summary.json last.

    Args:
        out: existing folder; None keeps nothing.
    """
    if out is None:
        return
    for name, one in (frames or {}).items():
        one.write_parquet(Path(out) / f"{name}.parquet")
    (Path(out) / SUMMARY).write_text(json.dumps(summary, indent=1, allow_nan=False), encoding="utf-8")


# --- keeping -------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where runs are kept.

    Attributes:
        folder: of this host.
        put: what to do with a run that is newly kept there, which it returns.
    """

    folder: Path
    put: Callable[[Run], Run]


@contextlib.contextmanager
def at(address: str | Path, experiment: str | None = None) -> Iterator[Place]:
    """Give the folder of an address: that folder itself, or for an fsspec address (`s3://…`, `memory://…`) a copy of its runs.

    A run that is put is copied to the address, its run.json last: a run that was not copied whole is not there.

    Args:
        experiment: whose runs are wanted; None for all.
    Raises:
        MemlabError: VALIDATION `results`: no such kind of address, or it needs a package; PERMISSION `results`: no answer.
    """
    if "://" not in str(address):
        yield Place(Path(address), lambda run: run)
        return
    from memlab.experiment.remote import Remote

    remote = Remote(str(address))
    with tempfile.TemporaryDirectory(prefix="memlab-results-") as folder:
        remote.fetch(Path(folder), experiment)
        yield Place(Path(folder), remote.put)


@contextlib.contextmanager
def locked(results: Path, experiment: str) -> Iterator[None]:
    """Hold an experiment's folder for one sweep at a time; remove what killed sweeps left half-done.

    The folder of results is made where it is missing.

    Raises:
        MemlabError: PERMISSION `locked`: another sweep runs; `results`: it cannot be written; INTERNAL `disk_full`.
    """
    place = results / experiment
    with writing(results):
        results.mkdir(parents=True, exist_ok=True)
        file = (results / f".{experiment}.lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise permission(
                "locked", f"another sweep writes to '{place}'; wait for it, or give another folder with --results"
            ) from None
        for left in [*place.glob(f".*{_PARTIAL}"), *place.glob(f".*{_OLD}")]:
            shutil.rmtree(left, ignore_errors=True)
        yield


@contextlib.contextmanager
def draft(results: Path, experiment: str, key: str) -> Iterator[Path]:
    """Give an empty folder in which a run is made; what `keep` did not take is gone afterwards."""
    folder = results / experiment / f".{key}{_PARTIAL}"
    with writing(results):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(made: Path, run: Run, results: Path) -> Run:
    """Put a run that was made in a draft to its place, whole, and return it with its folder.

    Raises:
        MemlabError: INTERNAL `disk_full`, PERMISSION `results`: nothing of it is there then.
    """
    place = results / run.experiment / run.key
    with writing(results):
        (made / FILE).write_text(json.dumps(run.to_dict(), indent=1, allow_nan=False), encoding="utf-8")
        for path in made.iterdir():
            _sync(path)
        _sync(made)
        old = place.with_name(f".{run.key}{_OLD}")
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        made.rename(place)
        _sync(place.parent)
        shutil.rmtree(old, ignore_errors=True)
    return msgspec.structs.replace(run, folder=place)


@contextlib.contextmanager
def writing(results: Path) -> Iterator[None]:
    """Turn what the operating system says of a folder that cannot be written into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(results) from error
        said = (error.strerror or str(error)).lower()
        raise permission(
            "results", f"results folder '{results}' cannot be written: {said}; give another one with --results"
        ) from error


def disk_full(results: Path) -> Exception:
    """Return the error of a full disk."""
    return internal(
        "disk_full",
        f"no space left for results in '{results}'; free some or give another folder with --results; what was done is kept",
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
