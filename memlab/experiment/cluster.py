"""The workers of a dask cluster as benches: one measurement at a time on each host.

    dask scheduler
    dask worker ADDRESS --nworkers 1 --nthreads 1 --resources bench=1       on each host that measures

A point travels as its notebook and parameters and comes back as the files of its run; hosts share no disk, but conversations and
traces must lie at the same place on each. A worker that is lost loses only the point that it had: dask gives it to another.
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

from memlab.errors import MemlabError, not_found, validation
from memlab.experiment import results, sweep
from memlab.experiment.executor import Bench, one_line
from memlab.measure import host

RESOURCE = "bench"
LOCAL = "local"
_UNWANTED = ("cancelled", "released", "forgotten")


class Cluster:
    """A dask cluster.

    Args:
        address: of its scheduler, such as `tcp://10.0.0.1:8786`; or `local`: one of its own, on this host, with one worker.
        timeout_s: how long it is waited for.
    Raises:
        MemlabError: NOT_FOUND `cluster`: nobody answers.
    """

    def __init__(self, address: str, timeout_s: float = 10.0) -> None:
        self._own = _local() if address == LOCAL else None
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
    def benches(self, sweep: sweep.Sweep) -> Iterator[Sequence[Bench]]:
        """Give a bench for each host that measures.

        Raises:
            MemlabError: VALIDATION `cluster`: no worker offers the resource, two on one host do, a worker's code, conversations
                or traces are others; `hosts`: unlike hosts.
        """
        workers = {
            address: one["host"]
            for address, one in self._client.scheduler_info(n_workers=-1)["workers"].items()
            if one["resources"].get(RESOURCE)
        }
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
        benches = [RemoteBench(self._client, token, one) for _ in workers]
        try:
            yield benches
        finally:
            for bench in benches:
                bench.close()
            with contextlib.suppress(OSError, TimeoutError):
                self._client.run(_clear, token, workers=list(self._client.scheduler_info(n_workers=-1)["workers"]))

    def close(self) -> None:
        """Leave the cluster, which stays unless it is its own."""
        self._client.close()
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()


def _local() -> SpecCluster:
    where = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    worker = {"nthreads": 1, "resources": {RESOURCE: 1}, "silence_logs": logging.ERROR, **where}
    return SpecCluster(
        scheduler={"cls": Scheduler, "options": where},
        workers={RESOURCE: {"cls": Nanny, "options": worker}},
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
