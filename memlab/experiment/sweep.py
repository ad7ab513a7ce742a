"""Walks a grid: a params file names a notebook, a grid and repeats, and every point of the grid becomes one run.

Everything is checked before anything is measured. A point is one papermill run in a process of its own; points that are
done are not measured again, those that failed are tried again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
import yaml
from msgspec import Meta

from memlab.errors import MemlabError, internal, nearest, not_found, validation
from memlab.experiment import results
from memlab.experiment.comparison import corpus_of
from memlab.experiment.executor import Bench, one_line
from memlab.experiment.point import import_papermill
from memlab.experiment.results import Run
from memlab.measure import clock, host, stats
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.spec import Workload

GIVEN_TO_NOTEBOOKS = ("point", "workload", "seed", "repeats", "size", "data", "out")
_MAY_LACK = ("repeats", "data")  # a notebook that repeats nothing, such as one long look for a leak; or takes no conversations
_MOST_POINTS = 1_000
_FREE_BYTES = 128 << 20  # below this a point is not begun
_OVERHEAD_S = 7.0  # of a point: interpreter, kernel, imports, corpus, databases

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Values = Annotated[list[Any], Meta(min_length=1)]


class _Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A params file, as written."""

    notebook: str
    experiment: Name | None = None
    question: str = ""
    size: Literal["quick", "smoke"] = "quick"
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 1
    repeats: Annotated[int, Meta(ge=1, le=1_000)] = 5
    reference: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    grid: dict[str, Values] | list[dict[str, Values]] = {}
    parameters: dict[str, Any] = {}
    workload: dict[str, Any] = {}
    point_s: Annotated[float, Meta(gt=0.0, le=604_800.0)] | None = None


@dataclasses.dataclass(frozen=True)
class Point:
    """One place in the grid.

    Attributes:
        values: what the grid says of it, by dotted key.
        parameters: further parameters of the notebook.
    """

    values: Mapping[str, Any]
    reference: Settings
    candidate: Settings
    workload: Workload
    parameters: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The values as a person would write them."""
        return ", ".join(f"{key}={_shown(value)}" for key, value in self.values.items()) or "the only point"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a sweep brought.

    Attributes:
        done: measured now.
        reused: done before.
        failed: tried now, in vain; their notebooks hold the error.
    """

    done: list[Run]
    reused: list[Run]
    failed: list[Run]

    def summary(self) -> str:
        """Return a line for people, and one for each failed point."""
        counts = f"{len(self.done)} measured, {len(self.reused)} done before, {len(self.failed)} failed"
        return "\n".join([counts, *(f"failed: {run.error}; see {run.notebook}" for run in self.failed)])


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A params file, checked.

    Attributes:
        experiment: names the folder of its runs.
        folder: of the params file; paths in it count from there.
        notebook: that measures a point.
        settings: of every candidate, over the defaults; the grid's values go on top.
        grid: products of values by dotted key.
        data: folder of real conversations, or None.
        point_s: about how long a point takes, where the workload's times do not say it.
        repeated: whether the notebook repeats what it measures; one that counts something else has no parameter `repeats`.
        shares_database: whether points of one corpus begin with copies of one database, as those do that take conversations.
    """

    experiment: str
    question: str
    folder: Path
    notebook: Path
    size: Literal["quick", "smoke"]
    seed: int
    repeats: int
    reference: Mapping[str, Any]
    settings: Mapping[str, Any]
    grid: tuple[Mapping[str, Sequence[Any]], ...]
    parameters: Mapping[str, Any]
    workload: Mapping[str, Any]
    data: Path | None = None
    point_s: float | None = None
    repeated: bool = True
    shares_database: bool = False

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = (), *, data: str | Path | None = None) -> Sweep:
        """Read a params file and check all that it says.

        Args:
            overrides: `key=value`, or `key=value,value` for a key of the grid; a setting that is not in the grid joins it.
            data: folder of real conversations in place of the generated corpus.
        Raises:
            MemlabError: VALIDATION: the file, a key, a type, a bound or the notebook does not fit; one line says what would.
        """
        path = Path(path)
        params = _with_overrides(_read(path), overrides)
        made = spec.decode(_Params, params, "params")
        grid = tuple(made.grid) if isinstance(made.grid, list) else (made.grid,)
        sweep = cls(
            experiment=made.experiment or path.stem,
            question=made.question,
            folder=path.parent,
            notebook=path.parent / made.notebook,
            size=made.size,
            seed=made.seed,
            repeats=made.repeats,
            reference=made.reference,
            settings=made.settings,
            grid=grid,
            parameters=made.parameters,
            workload=made.workload,
            data=None if data is None else Path(data),
            point_s=made.point_s,
            repeated="repeats" in (names := _notebook_parameters(path.parent / made.notebook)),
            shares_database="data" in names,
        )
        sweep.check()
        return sweep

    def check(self) -> None:
        """Raise VALIDATION where anything in it does not fit; nothing is written."""
        if self.repeated and self.size == "quick" and self.repeats < stats.FEWEST_REPEATS:
            raise validation(
                "params",
                f"repeats = {self.repeats}: a quick sweep makes findings and needs {stats.FEWEST_REPEATS} or more; "
                "or say size: smoke",
            )
        self._check_notebook()
        self.points()
        if self.data is not None:
            data_digest(self.data)

    def _check_notebook(self) -> None:
        names = _notebook_parameters(self.notebook)
        if self.data is not None and "data" not in names:
            raise validation("notebook", f"'{self.notebook}' takes no conversations: it has no parameter data")
        missing = [name for name in GIVEN_TO_NOTEBOOKS if name not in names and name not in _MAY_LACK]
        if missing:
            raise validation(
                "notebook",
                f"'{self.notebook}' has no parameter {', '.join(missing)} in its cell tagged parameters; "
                f"a point's notebook has {', '.join(GIVEN_TO_NOTEBOOKS)}",
            )
        for name in self.parameters:
            if name in GIVEN_TO_NOTEBOOKS:
                raise validation("params", f"params.parameters: '{name}' is what the sweep itself gives to a notebook")
            if name not in names:
                raise validation(
                    "unknown_parameter",
                    f"params.parameters: '{self.notebook.name}' has no parameter '{name}'{nearest(name, names)}",
                )

    def points(self) -> list[Point]:
        """Return every place of the grid, once.

        Raises:
            MemlabError: VALIDATION: an unknown key, a value that does not fit, too many points.
        """
        reference = _settings(self.reference, "reference")
        count = sum(functools.reduce(lambda size, values: size * len(values), block.values(), 1) for block in self.grid)
        if count > _MOST_POINTS:
            raise validation("params", f"params.grid has {count:,} points; at most {_MOST_POINTS:,} fit into one sweep")
        found: dict[str, Point] = {}
        for block in self.grid:
            for key in block:
                _check_grid_key(key)
            for chosen in itertools.product(*block.values()):
                values = dict(zip(block, chosen, strict=True))
                traffic = spec.workload(_merged(self.workload, _under(values, "workload")))
                point = Point(
                    values,
                    reference,
                    _settings({**self.settings, **_settings_of(values)}, "grid"),
                    traffic.resolved(self.folder),
                    self.parameters,
                )
                found.setdefault(json.dumps(values, sort_keys=True, default=str), point)
        return list(found.values())

    def key(self, point: Point) -> str:
        """Return the key of a point's run: a hash of everything that decides it."""
        plain = point.workload.to_dict()
        files = {name: file_digest(Path(path)) for name, path in point.workload.files.items()}
        for name in files:
            section, _, field = name.partition(".")
            plain[section][field] = None  # where a trace lies decides nothing; what it holds does
        return results.key_of(
            {
                "values": dict(point.values),
                "parameters": dict(point.parameters),
                "settings": {"reference": point.reference.to_dict(), "candidate": point.candidate.to_dict()},
                "seed": self.seed,
                "repeats": self.repeats,
                "size": self.size,
                "workload": plain,
                "files": files,
                "data": None if self.data is None else data_digest(self.data),
                "notebook": _notebook_digest(self.notebook),
                "code": results.code_version(self.experiment),
            }
        )

    def runs(self, folder: str | Path) -> list[Run]:
        """Return the runs of exactly its points, in their order.

        Raises:
            MemlabError: NOT_FOUND `run`, naming the points that are not done; VALIDATION `hosts`.
        """
        found, missing = self.state(folder)
        if missing:
            raise not_found(
                "run",
                f"{self.experiment}: {len(missing)} of {len(missing) + len(found)} points are not measured by the code as it is: "
                f"{'; '.join(missing[:5])}{' …' if len(missing) > 5 else ''}; sweep it first",
            )
        results.refuse_unlike_hosts(found)
        return found

    def state(self, folder: str | Path) -> tuple[list[Run], list[str]]:
        """Return the runs that the code as it is made of its points, and what the others are called."""
        made = [(point, _done(Path(folder), self, point)) for point in self.points()]
        return [run for _, run in made if run is not None], [point.label for point, run in made if run is None]

    def with_settings(self, settings: Settings | Mapping[str, Any]) -> Sweep:
        """Return it with other settings of the candidate."""
        given = settings.to_dict() if isinstance(settings, Settings) else dict(settings)
        return dataclasses.replace(self, settings=given)

    def expected_s(self, point: Point) -> float:
        """Return about how many seconds a point takes."""
        if self.point_s is not None:
            return _OVERHEAD_S + self.point_s
        traffic = point.workload
        lane = traffic.warm_up_s + traffic.duration_s
        beside = traffic.beside.warm_up_s + traffic.beside.duration_s if traffic.beside else 0.0
        loading = 0.0 if self.data is not None else traffic.corpus.events / 5_000
        return _OVERHEAD_S + loading + 2 * ((self.repeats + 1) * lane + self.repeats * beside)


# --- params files --------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = [one.as_posix() for one in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise validation("params", f"no params file '{path}'{nearest(path.as_posix(), near) if near else ''}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise validation("params", f"params file '{path}' cannot be read: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise validation("params", f"params file '{path}' is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise validation("params", f"params file '{path}' holds no table; it needs one with a notebook and a grid")
    return values


def _with_overrides(params: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    changed = dict(params)
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key or not text.strip():
            raise validation("params", f"-p {override}: say key=value, such as -p cache.max_entries=100,1000")
        try:
            values = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError:
            raise validation("params", f"-p {override}: '{text}' is no list of YAML values") from None
        _override(changed, key, values)
    return changed


def _override(params: dict[str, Any], key: str, values: list[Any]) -> None:
    """Put *values* where *key* belongs: into the grid, or to a field of the file."""
    grid = params.get("grid") or {}
    blocks = grid if isinstance(grid, list) else [grid]
    if any(isinstance(block, dict) and key in block for block in blocks):
        params["grid"] = [{**block, key: values} if key in block else block for block in blocks]
        return
    section, _, rest = key.partition(".")
    fields = _Params.__struct_fields__
    if section in fields and section != "grid":
        if len(values) != 1:
            if section == "workload" and rest:
                params["grid"] = [{**block, key: values} for block in blocks]
                return
            raise validation("params", f"-p {key} takes one value, not {len(values)}")
        if rest:
            _put(params, key.split("."), values[0], key)
        else:
            params[key] = values[0]
        return
    _check_grid_key(key)
    params["grid"] = [{**block, key: values} for block in blocks]


def _put(params: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    """Put a value to a place of the params file, copying the tables on the way."""
    if path[0] in ("reference", "settings"):
        path = [path[0], ".".join(path[1:])]
    elif path[:2] in (["workload", "mix"], ["workload", "parameters"]):
        path = [*path[:2], ".".join(path[2:4]), *path[4:]]  # an operation's name has a dot
    inner = params
    for name in path[:-1]:
        below = inner.get(name) or {}
        if not isinstance(below, dict):
            raise validation("params", f"-p {key}: {name} is no table")
        inner[name] = inner = dict(below)
    inner[path[-1]] = value


@functools.cache
def _grid_keys() -> tuple[str, ...]:
    """Return every dotted key that a grid may hold, but for those with names of operations in them."""
    settings = Settings().to_dict()
    workload = Workload(beside=spec.BesideSpec()).to_dict()
    del workload["mix"], workload["parameters"]
    found = list(settings)
    for prefix, tables in (("", settings), ("workload.", workload)):
        for name, table in tables.items():
            found += [f"{prefix}{name}.{field}" for field in table] if isinstance(table, dict) else [f"{prefix}{name}"]
    return tuple(dict.fromkeys(found))


def _check_grid_key(key: str) -> None:
    """Raise VALIDATION where a key is no setting and no field of the workload; values are checked when points are made."""
    if key in _grid_keys() or re.match(r"^workload\.(mix|parameters)\.", key):
        return
    known = [*_grid_keys(), *(name for name in _Params.__struct_fields__ if name != "grid")]
    raise validation("params", f"params: no setting or field '{key}'{nearest(key, known)}")


def _settings(values: Mapping[str, Any], where: str) -> Settings:
    try:
        return Settings.of(values)
    except MemlabError as error:
        raise validation("settings", f"params.{where}: {error.text}") from None


def _settings_of(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith("workload.")}


def _under(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    return {key.removeprefix(f"{section}."): value for key, value in values.items() if key.startswith(f"{section}.")}


def _merged(workload: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the workload with the grid's values in place."""
    merged: dict[str, Any] = {"workload": dict(workload)}
    for key, value in changes.items():
        _put(merged, ["workload", *key.split(".")], value, key)
    return dict(merged["workload"])


def _shown(value: Any) -> str:
    return "off" if value is None else str(value)


# --- notebooks and data ---------------------------------------------------------------------------------------------


def _notebook_parameters(path: Path) -> dict[str, Any]:
    """Return the parameters that a notebook declares."""
    _read_notebook(path)
    try:
        found: dict[str, Any] = import_papermill().inspect_notebook(str(path))
    except (ValueError, KeyError, AttributeError) as error:
        raise validation("notebook", f"'{path}' cannot be read: {one_line(str(error))}") from None
    if not found:
        raise validation("notebook", f"'{path}' has no cell tagged parameters")
    return found


def _notebook_digest(path: Path) -> str:
    """Return a digest of a notebook's code; outputs and prose decide nothing."""
    code = ["".join(cell.get("source", "")) for cell in _read_notebook(path)["cells"] if cell.get("cell_type") == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def _read_notebook(path: Path) -> dict[str, Any]:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise validation("notebook", f"no notebook '{path}'; paths in a params file count from its folder") from None
    except (OSError, ValueError) as error:
        raise validation("notebook", f"'{path}' is no notebook: {error}") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise validation("notebook", f"'{path}' is no notebook: it has no cells")
    return notebook


def data_digest(data: Path) -> str:
    """Return a digest of conversations, which are checked on the way."""
    return corpus_of(Workload(), 0, data).digest()


def file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise validation("data", f"trace '{path}' cannot be read: {(error.strerror or str(error)).lower()}") from None


# --- running -------------------------------------------------------------------------------------------------------


class Progress:
    """Told how a sweep goes; this one says nothing."""

    def begin(self, reused: Sequence[Run], expected_s: Sequence[float]) -> None:
        """Take what was done before, and about how long each of the others takes."""

    def update(self, running_s: Sequence[float]) -> None:
        """Take for how long the points that are measured now have been."""

    def finish(self, point: Point, run: Run, took_s: float) -> None:
        """Take a finished point."""

    def end(self) -> None:
        """Leave the stage."""


class Cluster(Protocol):
    """Other hosts that measure; see `cluster.Cluster`."""

    def benches(self, sweep: Sweep, points: Sequence[Point]) -> AbstractContextManager[Sequence[Bench]]:
        """Give the places where *points* of *sweep* are measured, all on equal hosts with the code as it is here."""


def run(
    sweep: Sweep,
    folder: str | Path,
    *,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Measure every point that is not done, and keep each as a run.

    Args:
        folder: that keeps the results of all experiments, or an fsspec address of one; see `results.at`.
        cluster: measures in place of this host.
    Raises:
        MemlabError: PERMISSION, INTERNAL `disk_full`: results cannot be kept; INTERNAL `code_changed`: memlab was edited
            meanwhile; VALIDATION `hosts`: they were made elsewhere; `cluster`: its workers do not fit.
        KeyboardInterrupt: with a line that says what is kept; no half-done run is left.
    """
    told = progress or Progress()
    points = sweep.points()
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(results.at(folder, sweep.experiment))
        stack.enter_context(results.locked(kept.folder, sweep.experiment))
        reused = {place: run for place, point in enumerate(points) if (run := _done(kept.folder, sweep, point)) is not None}
        waiting = [points[place] for place in range(len(points)) if place not in reused]
        if cluster is None:
            benches = _here(sweep, kept.folder, stack) if waiting else []
        else:
            benches = list(stack.enter_context(cluster.benches(sweep, waiting))) if waiting else []
        _refuse_other_host(reused.values(), benches, folder)
        outcome = Outcome([], list(reused.values()), [])
        told.begin(outcome.reused, [sweep.expected_s(point) for point in waiting])
        try:
            _measure_all(sweep, kept, waiting, benches, outcome, told)
        except KeyboardInterrupt:
            done = len(outcome.done) + len(outcome.reused)
            raise KeyboardInterrupt(
                f"interrupted; {done} of {len(points)} points of {sweep.experiment} are done and kept; "
                "the same command goes on from there"
            ) from None
        finally:
            told.end()
    return outcome


def _here(sweep: Sweep, folder: Path, stack: contextlib.ExitStack) -> list[Bench]:
    prepared = stack.enter_context(results.draft(folder, sweep.experiment, "prepared"))
    return [stack.enter_context(contextlib.closing(Bench(prepared)))]


def _measure_all(
    sweep: Sweep, kept: results.Place, points: Sequence[Point], benches: Sequence[Bench], outcome: Outcome, told: Progress
) -> None:
    waiting, idle = list(points), list(benches)
    running: list[_Running] = []
    with contextlib.ExitStack() as stack:
        while waiting or running:
            while waiting and idle:
                running.append(_Running(sweep, waiting.pop(0), kept, idle.pop(), stack))
            for one in list(running):
                finished = one.poll(0.2 / len(running))
                if finished is not None:
                    running.remove(one)
                    idle.append(one.bench)
                    (outcome.done if finished.status == "done" else outcome.failed).append(finished)
                    told.finish(one.point, finished, one.took_s)
            told.update([one.took_s for one in running])


def _done(folder: Path, sweep: Sweep, point: Point) -> Run | None:
    place = folder / sweep.experiment / sweep.key(point)
    if not (place / results.FILE).is_file():
        return None
    found = results.load(place)
    return found if found.status == "done" else None


def _refuse_other_host(found: Iterable[Run], benches: Sequence[Bench], folder: str | Path) -> None:
    measuring = {bench.host["id"] for bench in benches} or {host.host()["id"]}
    for run in found:
        if run.host["id"] not in measuring:
            raise validation(
                "hosts",
                f"'{folder}' holds runs of another host ({run.host['cpu']}, {run.host['cores']} cores), which cannot be compared "
                "with new ones; give another folder with --results",
            )


class _Running:
    """One point while it is measured: a notebook on a bench, and the draft of its run."""

    def __init__(self, sweep: Sweep, point: Point, kept: results.Place, bench: Bench, stack: contextlib.ExitStack) -> None:
        self.point = point
        self.bench = bench
        self._sweep = sweep
        self._kept = kept
        folder = kept.folder
        self._started = clock.now()
        self._started_ns = clock.monotonic_ns()
        with results.writing(folder):
            if shutil.disk_usage(folder).free < _FREE_BYTES:
                raise results.disk_full(folder)
        self._draft = stack.enter_context(results.draft(folder, sweep.experiment, sweep.key(point)))
        parameters = {
            **point.parameters,
            "point": {
                "values": dict(point.values),
                "reference": point.reference.to_dict(),
                "candidate": point.candidate.to_dict(),
            },
            "workload": point.workload.resolved(Path.cwd()).to_dict(),
            "seed": sweep.seed,
            "repeats": sweep.repeats,
            "size": sweep.size,
            "data": None if sweep.data is None else str(sweep.data.resolve()),
            "out": None,  # the bench says where
        }
        known = _notebook_parameters(sweep.notebook)
        parameters = {name: value for name, value in parameters.items() if name in known}
        timeout_s = 120 + (10 if sweep.point_s is None else 4) * sweep.expected_s(point)
        bench.begin(sweep.notebook, self._draft, parameters, timeout_s)

    @property
    def took_s(self) -> float:
        """Seconds since it began."""
        return (clock.monotonic_ns() - self._started_ns) / 1e9

    def poll(self, wait_s: float) -> Run | None:
        """Wait a little; return the run, kept, when its notebook has ended."""
        ended, error = self.bench.poll(wait_s)
        if not ended:
            return None
        summary: dict[str, Any] = {}
        if error is None:
            try:
                summary = json.loads((self._draft / results.SUMMARY).read_text(encoding="utf-8"))
                (self._draft / results.SUMMARY).unlink()  # it stands in run.json
            except (OSError, ValueError) as problem:
                error = f"the notebook left no summary.json in its folder `out`: {problem}"
        if results.code_changed(self._sweep.experiment):
            raise internal(
                "code_changed",
                f"memlab's own sources were edited while {self.point.label} was measured; what was done before is kept, and the "
                "same command measures the rest",
            )
        if error is not None and re.search("no space left|disk is full|quota exceeded", error, re.IGNORECASE):
            raise results.disk_full(self._kept.folder)
        for leftover in self._draft.glob("databases-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        made = run_of(
            self._sweep, self.point, self.bench, started=self._started, finished=clock.now(), summary=summary, error=error
        )
        return self._kept.put(results.keep(self._draft, made, self._kept.folder))


def run_of(
    sweep: Sweep,
    point: Point,
    bench: Bench | None = None,
    *,
    started: datetime,
    finished: datetime,
    summary: Mapping[str, Any],
    error: str | None = None,
) -> Run:
    """Return what is kept of a point that was measured just now, on a *bench* or by this process."""
    return Run(
        experiment=sweep.experiment,
        key=sweep.key(point),
        question=sweep.question,
        parameters=dict(point.values),
        settings={"reference": point.reference.to_dict(), "candidate": point.candidate.to_dict()},
        seed=sweep.seed,
        repeats=sweep.repeats,
        size=sweep.size,
        workload=spec.workload(_merged(sweep.workload, _under(point.values, "workload"))).to_dict(),
        data=None if sweep.data is None else {"name": sweep.data.resolve().name, "digest": data_digest(sweep.data)},
        code_version=results.code_version(sweep.experiment),
        libraries=host.libraries() if bench is None else bench.libraries,
        host=host.host() if bench is None else bench.host,
        started=started.isoformat(),
        finished=finished.isoformat(),
        status="done" if error is None else "failed",
        error=None if error is None else f"{point.label}: {error}",
        summary=dict(summary),
    )
