"""Opens storage, assembles the chain, offers `execute`: the one path of every request."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import structlog

import memlab.operations  # noqa: F401  declares every operation
from memlab.embedders import Embedder, HashingEmbedder
from memlab.errors import MemlabError, internal, validation
from memlab.hooks import Hooks
from memlab.measure import clock
from memlab.middleware.batch import batch
from memlab.middleware.cache import cache
from memlab.middleware.chain import Handler, Outcome, alone, chain, too_late
from memlab.middleware.observe import Recorder, observe
from memlab.middleware.pool import pool
from memlab.middleware.resident import resident
from memlab.middleware.workers import Workers
from memlab.operations.registry import lookup
from memlab.settings import Settings
from memlab.storage.calls import Call, Keyed
from memlab.storage.phases import Phases
from memlab.storage.store import Storage
from memlab.storage.writing import Prepared
from memlab.values import DEFAULT_SESSION, Request, Response

log = structlog.get_logger(__name__)

UNLIMITED_READERS = 32  # threads that read where no pool limits them
MAX_KEY_LENGTH = 128


class Engine:
    """Executes operations on one storage through the middleware that its settings name.

    Args:
        storage: open storage. Several engines may share one; a cache hears only of its own engine's writes, so an engine with a
            cache must then be the only one that writes.
        settings: middleware whose section is None is absent.
        recorder: told of every request that `execute` finished.
    """

    def __init__(self, storage: Storage, settings: Settings | None = None, recorder: Recorder | None = None) -> None:
        self.storage = storage
        self.settings = settings if settings is not None else storage.settings
        self._owns_storage = False
        readers = self.settings.pool.limit if self.settings.pool else UNLIMITED_READERS
        self._readers = Workers(readers, "memlab-read")
        self._writer = Workers(1, "memlab-write")
        self._closing = threading.Lock()
        self._closed = False  # further calls are refused
        self._is_shut = False  # workers and storage are released
        self._in_flight = 0
        self._drained: asyncio.Future[None] | None = None
        self._parts: dict[str, Any] = {"observe": observe(recorder)}
        if self.settings.cache is not None:
            self._parts["cache"] = cache(self.settings.cache)
        self._parts["resident"] = resident(self._peek)
        if self.settings.batch is not None:
            self._parts["batch"] = batch(self.settings.batch)
        if self.settings.pool is not None:
            self._parts["pool"] = pool(self.settings.pool)
        self._handle: Handler = chain(
            self.run,
            outside=[self._parts[name] for name in ("observe", "cache", "resident") if name in self._parts],
            seam=self._parts.get("batch", alone),
            inside=[self._parts["pool"]] if "pool" in self._parts else [],
        )

    @classmethod
    def open(
        cls,
        path: str | Path,
        settings: Settings | None = None,
        embedder: Embedder | None = None,
        *,
        create: bool = True,
        recorder: Recorder | None = None,
        hooks: Hooks | None = None,
    ) -> Engine:
        """Open or create the database at *path*; `close` ends it.

        Args:
            embedder: default: `HashingEmbedder()`.
            create: make the database when there is none.
            hooks: the user's own models; default: none.
        Raises:
            MemlabError: see `Storage`.
        """
        settings = settings if settings is not None else Settings()
        storage = Storage.open(path, settings, embedder or HashingEmbedder(), create=create, hooks=hooks)
        engine = cls(storage, settings, recorder)
        engine._owns_storage = True
        return engine

    async def execute(
        self,
        operation: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        session: str = DEFAULT_SESSION,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> Response:
        """Execute one operation and return its answer.

        Args:
            operation: `layer.name`, as `memlab operations` lists them.
            parameters: by name, as the operation declares them.
            session: whose memory; `session.create` opens one.
            idempotency_key: for writes: up to 128 characters; repeats under one key take effect once.
            deadline_s: seconds from now after which the answer is of no use; the call is then refused with TIMEOUT.
        Raises:
            MemlabError: of one of the five types; nothing was changed unless the reason is `outcome_unknown`.
        """
        if self._closed:
            raise _closed()
        declared = lookup(operation)
        if not isinstance(session, str):
            raise validation("type", f"a session is text, not {type(session).__name__}")
        if idempotency_key is not None:
            _check_key(declared.name, declared.reads, idempotency_key)
        request = Request(
            declared.name,
            declared.validate(parameters if parameters is not None else {}),
            session,
            idempotency_key,
            None if deadline_s is None else clock.monotonic_ns() + _nanoseconds(deadline_s),
        )
        self._in_flight += 1
        try:
            return await self._handle(request)
        finally:
            self._in_flight -= 1
            if not self._in_flight and self._drained is not None and not self._drained.done():
                self._drained.set_result(None)

    async def run(self, requests: Sequence[Request]) -> list[Outcome]:
        """Execute a group, all reads or all writes, in a worker thread; one outcome for each, errors as values."""
        group = _Group(self.storage, requests)
        declared = [lookup(request.operation) for request in requests]
        try:
            if declared[0].reads:
                await self._readers.run(group.read)
            else:
                if any(one.cost == "job" for one in declared):  # what a job looks through does not keep the writer waiting
                    await self._readers.run(group.prepare)
                await self._writer.run(group.write)
        except RuntimeError:  # the workers are shut: the engine was closed while these waited
            return [_closed() for _ in requests]
        return group.outcomes()

    def _peek(self, request: Request) -> Response | None:
        """Answer from memory alone, or return None."""
        declared = lookup(request.operation)
        if not inspect.isgeneratorfunction(declared.plan):
            self.storage.indexes.code(request.session)  # an unknown session is NOT_FOUND for every operation
            return Response(declared.start(request.parameters))
        answer = self.storage.resident(_call(request))
        return None if answer is None else Response(answer[0])

    def statistics(self) -> dict[str, Any]:
        """Return the counts of every part that is on: observe, cache, batch, pool, storage."""
        return {name: part.statistics() for name, part in self._parts.items()} | {"storage": self.storage.statistics()}

    def clear_cache(self) -> None:
        """Forget every cached answer."""
        if "cache" in self._parts:
            self._parts["cache"].clear()

    async def drain(self) -> None:
        """Refuse further calls, and wait until those on their way are answered."""
        self._closed = True
        if self._in_flight:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    async def aclose(self) -> None:
        """Let calls on their way be answered, then close; for async code."""
        await self.drain()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Finish what runs, save the indexes, close the database; a second call does nothing.

        Calls that still wait in a batch or for the pool are refused with VALIDATION `closed`; `aclose` lets them finish.
        """
        with self._closing:
            if self._is_shut:
                return
            self._closed = self._is_shut = True
        self._readers.shut()
        self._writer.shut()
        if self._owns_storage:
            self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Group:
    """Requests that are executed together, step by step, in worker threads."""

    def __init__(self, storage: Storage, requests: Sequence[Request]) -> None:
        self._storage = storage
        self._requests = requests
        self._phases = Phases()
        self._prepared: Prepared | None = None
        self._late: set[int] = set()
        self._answers: list[Any] = []
        self._failure: MemlabError | Exception | None = None

    def read(self) -> None:
        """Answer reads."""
        self._attempt(lambda: self._storage.read(self._calls(), self._phases))

    def prepare(self) -> None:
        """Do for writes what does not need the writer."""
        try:
            self._prepared = self._storage.prepare(self._calls(), self._phases)
        except Exception as error:  # noqa: BLE001  told apart in `outcomes`
            self._failure = error

    def write(self) -> None:
        """Execute writes, prepared or not."""
        if self._prepared is None:
            self.prepare()
        prepared = self._prepared
        if prepared is not None:
            self._attempt(lambda: self._storage.write(prepared, self._phases))

    def outcomes(self) -> list[Outcome]:
        """Return one outcome for each request, errors as values."""
        if isinstance(self._failure, MemlabError):
            return [self._failure.copy() for _ in self._requests]
        if self._failure is not None:
            log.error("bug", operations=sorted({request.operation for request in self._requests}), exc_info=self._failure)
            kind = type(self._failure).__name__
            return [
                internal("bug", f"{request.operation} failed inside memlab: {kind}; the log holds the trace")
                for request in self._requests
            ]
        answers = iter(self._answers)
        phases = dict(self._phases)
        outcomes: list[Outcome] = []
        for place, request in enumerate(self._requests):
            answer = too_late(request) if place in self._late else next(answers)
            is_error = isinstance(answer, MemlabError)
            outcomes.append(answer if is_error else Response(answer, batch_size=len(self._requests), phases=phases))
        return outcomes

    def _calls(self) -> list[Call]:
        now = clock.monotonic_ns()
        deadlines = [request.deadline_ns for request in self._requests]
        self._late = {place for place, deadline in enumerate(deadlines) if deadline is not None and deadline < now}
        return [_call(request) for place, request in enumerate(self._requests) if place not in self._late]

    def _attempt(self, work: Callable[[], list[Any]]) -> None:
        try:
            self._answers = work()
        except Exception as error:  # noqa: BLE001  told apart in `outcomes`
            self._failure = error


def _call(request: Request) -> Call:
    declared = lookup(request.operation)
    parameters = request.parameters
    keyed = None
    if request.idempotency_key is not None:
        digest = hashlib.blake2b(
            msgspec.json.encode(parameters, enc_hook=_plain, order="deterministic"), digest_size=16
        ).hexdigest()
        keyed = Keyed(declared.name, request.idempotency_key, digest, declared.result_type)
    return Call(request.session, lambda: declared.start(parameters), keyed)


def _closed() -> MemlabError:
    return validation("closed", "this engine is closed; open it again with Engine.open")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    raise TypeError(type(value).__name__)


def _check_key(operation: str, reads: bool, key: object) -> None:
    if reads:
        raise validation("idempotency_key", f"{operation} only reads; an idempotency key is for writes")
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isprintable() or not key.isascii():
        raise validation(
            "idempotency_key", f"{operation}: an idempotency key is 1 to {MAX_KEY_LENGTH} printable ASCII characters"
        )


def _nanoseconds(seconds: object) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e9:
        shown = f"{seconds:g}" if isinstance(seconds, float) else f"a {type(seconds).__name__}"
        raise validation("deadline", f"deadline_s is {shown}; give a number of seconds above 0 and below 1e9")
    return int(seconds * 1e9)
