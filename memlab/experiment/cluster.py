"""The workers of a dask cluster as benches: one measurement at a time on each host.

    dask scheduler
    dask worker ADDRESS --nworkers 1 --nthreads 1 --resources bench=1       on each host that measures

A point travels as its notebook and parameters and comes back as the files of its run; hosts share no disk, but conversations and
traces must lie at the same place on each. A worker that is lost loses only the point that it had: dask gives it to another.

Further workers on a host that measures never work beside a measurement, which they would disturb: before the first point they
fill the databases that the points begin with, several at once, and after the last one they execute the notebook that sums up.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
from distributed import Client, Nanny, Scheduler, SpecCluster, get_worker, wait
from distributed.scheduler import KilledWorker

from memlab.errors import MemlabError, internal, not_found, validation
from memlab.experiment import results, sweep
from memlab.experiment.comparison import corpus_of, filled
from memlab.experiment.executor import Bench, Executor, one_line
from memlab.experiment.load import run_in_own_loop
from memlab.experiment.quiet import quiet
from memlab.measure import host
from memlab.workload.spec import Workload

RESOURCE = "bench"
_FILLING_S = 900.0  # for all databases that points begin with, at most
_SUMMARY_S = 600.0  # for the notebook that sums up, at most
_UNWANTED = ("cancelled", "released", "forgotten")


class Cluster:
    """A dask cluster.

    Args:
        address: of its scheduler, such as `tcp://10.0.0.1:8786`; None: one of its own, on this host.
        jobs: workers of one of its own: one measures, the others prepare and sum up.
        timeout_s: how long it is waited for.
    Raises:
        MemlabError: NOT_FOUND `cluster`: nobody answers.
    """

    def __init__(self, address: str | None = None, *, jobs: int = 1, timeout_s: float = 10.0) -> None:
        self._own = _local(jobs) if address is None else None
        if self._own is not None:
            address = str(self._own.scheduler_address)
        try:
            self._client = Client(address, timeout=timeout_s, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise not_found(
                "cluster",
                f"no dask scheduler answers at '{address}': {one_line(str(error)) or 'no answer'}; start `dask scheduler`",
            ) from None

    @property
    def dashboard(self) -> str:
        """Where a browser shows what the workers do."""
        return str(self._client.dashboard_link)

    @contextlib.contextmanager
    def benches(self, sweep: sweep.Sweep, points: Sequence[sweep.Point]) -> Iterator[Sequence[Bench]]:
        """Give a bench for each host that measures, once its further workers have filled what the points begin with.

        Args:
            points: those that are to be measured.
        Raises:
            MemlabError: VALIDATION `cluster`: no worker offers the resource, two on one host do, a worker's code, conversations
                or traces are others; `hosts`: unlike hosts.
        """
        workers = {address: one["host"] for address, one in self._workers().items() if one["resources"].get(RESOURCE)}
        if not workers:
            raise validation(
                "cluster", "no worker of the cluster measures; start one on a host with `dask worker ADDRESS --resources bench=1`"
            )
        twice = sorted({where for where in workers.values() if list(workers.values()).count(where) > 1})
        if twice:
            raise validation("cluster", f"{twice[0]} has two workers that offer {RESOURCE}; one measures on a host at a time")
        wanted = _Files.of(sweep)
        seen = self._client.run(_look, sweep.experiment, wanted, workers=list(workers))
        _refuse_others(seen, _look(sweep.experiment, wanted))
        token = uuid.uuid4().hex[:12]
        one = next(iter(seen.values()))
        self._prepare(sweep, points, token, workers)
        benches = [RemoteBench(self._client, token, one) for _ in workers]
        try:
            yield benches
        finally:
            for bench in benches:
                bench.close()
            with contextlib.suppress(OSError, TimeoutError):
                self._client.run(_clear, token, workers=list(self._workers()))

    def _workers(self) -> dict[str, Any]:
        return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    def _prepare(self, sweep: sweep.Sweep, points: Sequence[sweep.Point], token: str, measuring: Mapping[str, str]) -> None:
        """Let further workers fill the databases that points begin with, where the benches of their hosts look for them.

        Whatever goes wrong with one is left to the first point that needs it.
        """
        if not sweep.shares_database:
            return
        traffic = {msgspec.json.encode((point.workload.corpus, point.workload.writes)): point.workload for point in points}
        folders = self._client.run(_make_prepared, token, workers=list(measuring))
        filling = []
        for bench, where in measuring.items():
            further = [address for address in self._further() if self._workers()[address]["host"] == where]
            filling += [
                self._client.submit(_fill, one, sweep.seed, sweep.data, folders[bench], workers=further, pure=False)
                for one in traffic.values()
                if further
            ]
        if filling:
            with self._client.as_current(), contextlib.suppress(TimeoutError):
                wait(filling, timeout=_FILLING_S)
            self._client.cancel(filling)

    def _further(self) -> list[str]:
        return [address for address, one in self._workers().items() if not one["resources"].get(RESOURCE)]

    def sum_up(self, sweep: sweep.Sweep, params: Path, folder: Path) -> Path | None:
        """Execute the notebook that sums a finished sweep up, on a further worker of a cluster of its own.

        Args:
            params: the file that *sweep* was loaded from, as it is.
            folder: of results, on this host.
        Returns:
            `summary.ipynb` in the folder of the experiment; None where the sweep has no such notebook.
        Raises:
            MemlabError: INTERNAL `notebook`: it failed; it then stands there with its error.
        """
        notebook = sweep.notebook.with_name(f"{sweep.notebook.stem}-summary.ipynb")
        if not notebook.is_file():
            return None
        out = folder / sweep.experiment / "summary.ipynb"
        parameters = {"params": str(params.resolve()), "folder": str(folder.resolve())}
        if sweep.data is not None:
            parameters["data"] = str(sweep.data.resolve())
        told = self._client.submit(_execute, notebook, parameters, out, workers=self._further() or None, pure=False).result()
        if told is not None:
            raise internal("notebook", f"'{notebook.name}' failed: {told}; see {out}")
        return out

    def close(self) -> None:
        """Leave the cluster, which stays unless it is its own."""
        self._client.close()
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()


def _local(jobs: int) -> SpecCluster:
    where = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    worker = {"nthreads": 1, "silence_logs": logging.ERROR, **where}
    further = {f"further-{number}": {"cls": Nanny, "options": worker} for number in range(1, jobs)}
    return SpecCluster(
        scheduler={"cls": Scheduler, "options": where},
        workers={RESOURCE: {"cls": Nanny, "options": {**worker, "resources": {RESOURCE: 1}}}, **further},
        silence_logs=logging.ERROR,
    )


class _Files(msgspec.Struct, frozen=True):
    """What points read beside the notebook, by path."""

    data: str | None
    traces: tuple[str, ...]

    @classmethod
    def of(cls, made: sweep.Sweep) -> _Files:
        traces = {str(Path(path).resolve()) for point in made.points() for path in point.workload.files.values()}
        return cls(None if made.data is None else str(made.data.resolve()), tuple(sorted(traces)))


class _Seen(msgspec.Struct, frozen=True):
    """A worker's host and what it would measure with."""

    host: dict[str, Any]
    libraries: dict[str, str]
    code: str
    digests: tuple[str, ...]


class RemoteBench(Bench):
    """A bench on any worker that is free."""

    def __init__(self, client: Client, token: str, seen: _Seen) -> None:
        self._client = client
        self._token = token
        self._seen = seen
        self._future: Any = None
        self._draft = Path()

    @property
    def host(self) -> dict[str, Any]:
        """The host that measures; all of a sweep are equal."""
        return self._seen.host

    @property
    def libraries(self) -> dict[str, str]:
        """The versions of its libraries."""
        return self._seen.libraries

    def begin(self, notebook: Path, draft: Path, parameters: Mapping[str, Any], timeout_s: float) -> None:
        """Give a point to the cluster."""
        self._draft = draft
        self._future = self._client.submit(
            _measure,
            notebook.name,
            notebook.read_bytes(),
            dict(parameters),
            timeout_s,
            self._token,
            resources={RESOURCE: 1},
            pure=False,
            key=f"{draft.parent.name}-{uuid.uuid4().hex}",
        )

    def poll(self, wait_s: float) -> tuple[bool, str | None]:
        """Wait a little for it; unpack what it brought."""
        try:
            with self._client.as_current():
                wait([self._future], timeout=wait_s)
        except TimeoutError:
            return False, None
        future, self._future = self._future, None
        try:
            error, packed = future.result()
        except KilledWorker:
            return True, "every worker that measured it was lost; see the workers' logs"
        except Exception as failure:  # noqa: BLE001  whatever a worker raises fails its point alone
            return True, f"the worker failed: {one_line(f'{type(failure).__name__}: {failure}')}"
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(self._draft, filter="data")
        return True, error

    def close(self) -> None:
        """Give up what runs; its worker notices."""
        if self._future is not None:
            self._future.cancel()
            self._future = None


# --- on the workers ------------------------------------------------------------------------------------------------


def _look(experiment: str, files: _Files) -> _Seen:
    digests = []
    for path in files.traces:
        digests.append(_digest_or_reason(sweep.file_digest, path))
    if files.data is not None:
        digests.append(_digest_or_reason(sweep.data_digest, files.data))
    return _Seen(host.host(), host.libraries(), results.code_version(experiment), tuple(digests))


def _digest_or_reason(digest: Any, path: str) -> str:
    try:
        return str(digest(Path(path)))
    except MemlabError as error:
        return str(error)


def _refuse_others(seen: Mapping[str, _Seen], here: _Seen) -> None:
    for address, one in seen.items():
        if one.code != here.code or one.libraries != here.libraries:
            raise validation(
                "cluster",
                f"the worker {address} has other code or libraries than this host ({one.code} against {here.code}); "
                "install the same memlab there and start it again",
            )
        for theirs, ours in zip(one.digests, here.digests, strict=True):
            if theirs != ours:
                raise validation("cluster", f"the worker {address} does not read the same conversations or traces: {theirs}")
    hosts = {one.host["id"]: one.host for one in seen.values()}
    if len(hosts) > 1:
        told = "; ".join(f"{one['cpu']}, {one['cores']} cores, {one['memory_gib']} GiB" for one in hosts.values())
        raise validation("hosts", f"the workers that measure are on unlike hosts, which cannot be compared: {told}")


def _make_prepared(token: str, dask_worker: Any) -> str:  # dask gives what has this name
    folder = _prepared(dask_worker, token)
    folder.mkdir(exist_ok=True)
    return str(folder)


def _fill(traffic: Workload, seed: int, data: Path | None, folder: str) -> None:
    with quiet():
        run_in_own_loop(filled(corpus_of(traffic, seed, data), Path(folder)))


def _execute(notebook: Path, parameters: dict[str, Any], out: Path) -> str | None:
    with contextlib.closing(Executor()) as executor:
        executor.submit(notebook, out, parameters, _SUMMARY_S)
        ended, error = False, None
        while not ended:
            ended, error = executor.poll(0.5)
        return error


def _prepared(worker: Any, token: str) -> Path:
    return Path(worker.local_directory) / f"memlab-{token}"


def _measure(name: str, notebook: bytes, parameters: dict[str, Any], timeout_s: float, token: str) -> tuple[str | None, bytes]:
    """Measure a point on this worker; return in a line why it failed, and the files of its run as a tar archive."""
    worker = get_worker()
    key = worker.get_current_task()
    prepared = _prepared(worker, token)
    prepared.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="memlab-point-", dir=worker.local_directory) as folder,
        contextlib.closing(Bench(prepared)) as bench,
    ):
        source, draft = Path(folder) / name, Path(folder) / "run"
        source.write_bytes(notebook)
        draft.mkdir()
        bench.begin(source, draft, parameters, timeout_s)
        ended, error = False, None
        while not ended:
            ended, error = bench.poll(0.5)
            task = worker.state.tasks.get(key)
            if not ended and (task is None or task.state in _UNWANTED):
                return "given up", b""
        for leftover in draft.glob("databases-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(draft, arcname=".")
        return error, packed.getvalue()


def _clear(token: str, dask_worker: Any) -> None:  # dask gives what has this name
    shutil.rmtree(_prepared(dask_worker, token), ignore_errors=True)
