"""Waiting calls become groups: one vector search and one row fetch for many readers, one transaction for many writers.

Reads wait in one lane, writes in another, of all sessions and operations together. What takes long, reads declared `complex`
and every `job`, travels alone: others would wait for it.

Order. Writes are executed in the order of submission, one group at a time. A read starts only after every write of its
session that was submitted before it has ended, so it sees them; it does not hold up later writes and may see those too.
Stricter, a write waiting for the earlier reads of its session, would cut the calls of one busy session into runs of a few
reads between two writes; this way they still meet in large groups. A job that writes begins as a read does, and nothing waits
for it: who wants to see what it did waits for its answer.

When a lane sends. A group is sent when `limit` calls wait, and otherwise
- adaptive: at once when the lane has nothing in flight; while it has, when that returns or `window_ms` after the oldest
  waiting call arrived, whichever is first. With `window_ms` 0 only the return counts.
- not adaptive: `window_ms` after the oldest waiting call arrived. With 0 as if adaptive.
Reads have several groups in flight, writes one. Where a pool says that it has no room, a group of reads in flight is waited
for longer than the window: a group that stands in the pool's line could not grow any more. "At once" is the next turn of the
event loop, so that callers who wake together travel together.

With an objective the window is not `window_ms` but follows what calls take, up to that (`aimd`), for each lane of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from memlab.errors import MemlabError, internal
from memlab.measure.clock import SYSTEM, Clock
from memlab.middleware.aimd import Aimd
from memlab.middleware.chain import GroupHandler, Handler, Outcome, settle, too_late
from memlab.operations.registry import Operation, lookup
from memlab.settings import BatchSettings
from memlab.values import Request, Response


class Batch:
    """Gathers waiting calls into groups of at most `limit` and hands each caller its own answer or error.

    A call that is cancelled while it waits is dropped. Once it is sent, its group goes on for the others: a cancelled reader
    leaves at once, a cancelled writer when the group has ended, because until then its write may still take effect. A call
    whose deadline has passed when its group is made up gets TIMEOUT `deadline` and is not executed.

    Belongs to one event loop at a time.
    """

    def __init__(self, settings: BatchSettings, clock: Clock = SYSTEM) -> None:
        self._settings = settings
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}
        self._counts = {"read": _Counts(settings), "write": _Counts(settings)}

    def __call__(self, inner: GroupHandler) -> Handler:
        """Return a handler of single calls over *inner*, which executes groups."""
        kinds = self._kinds
        junction: _Junction | None = None

        async def handle(request: Request) -> Response:
            nonlocal junction
            loop = asyncio.get_running_loop()
            if junction is None or junction.loop is not loop:
                junction = _Junction(loop, inner, self._settings, self._clock, self._counts)
            kind = kinds.get(request.operation)
            if kind is None:
                kind = kinds[request.operation] = _kind_of(lookup(request.operation))
            call = _Call(request, loop, kind)
            if kind.is_held_up_for:
                junction.write(call)
            else:
                junction.read(call)
            try:
                outcome = await call.outcome
            except asyncio.CancelledError:
                if call.group is not None and not kind.reads:
                    await settle(call.group)
                raise
            if isinstance(outcome, Response):
                return outcome
            raise outcome

        return handle

    def statistics(self) -> dict[str, float | int]:
        """Return groups, calls and group sizes, in all and by lane, and the window of each as it stands.

        `expired` and `dropped` calls were never executed.
        """
        lanes = self._counts
        groups, calls = sum(lane.groups for lane in lanes.values()), sum(lane.calls for lane in lanes.values())
        found: dict[str, float | int] = {
            "groups": groups,
            "calls": calls,
            "mean_size": calls / groups if groups else 0.0,
            "max_size": max(lane.max_size for lane in lanes.values()),
            "expired": sum(lane.expired for lane in lanes.values()),
            "dropped": sum(lane.dropped for lane in lanes.values()),
        }
        for name, lane in lanes.items():
            found[f"{name}_groups"] = lane.groups
            found[f"{name}_calls"] = lane.calls
            found[f"{name}_mean_size"] = lane.calls / lane.groups if lane.groups else 0.0
            found[f"{name}_max_size"] = lane.max_size
            found[f"{name}_window_ms"] = lane.window_s * 1e3
        return found


class _Kind(msgspec.Struct, frozen=True):
    """How an operation travels.

    Attributes:
        alone: not in a group.
        is_held_up_for: later reads of its session wait for it.
    """

    reads: bool
    alone: bool
    is_held_up_for: bool


def _kind_of(operation: Operation) -> _Kind:
    is_job = operation.cost == "job"
    return _Kind(operation.reads, is_job or (operation.reads and operation.cost == "complex"), not (operation.reads or is_job))


class _Counts:
    __slots__ = ("calls", "dropped", "expired", "groups", "max_size", "window_s")

    def __init__(self, settings: BatchSettings) -> None:
        self.groups = 0
        self.calls = 0
        self.max_size = 0
        self.expired = 0
        self.dropped = 0
        self.window_s = settings.window_ms / 1e3


class _Call:
    """One waiting call; its outcome is set, never raised into, so that nobody has to fetch the error of a caller who left."""

    __slots__ = ("arrived", "followers", "group", "kind", "outcome", "request")

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop, kind: _Kind) -> None:
        self.request = request
        self.kind = kind
        self.arrived = loop.time()
        self.outcome: asyncio.Future[Response | BaseException] = loop.create_future()
        self.group: asyncio.Task[None] | None = None
        self.followers: list[_Call] = []


class _Junction:
    """The lanes of one event loop, and which reads wait behind which write."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        inner: GroupHandler,
        settings: BatchSettings,
        clock: Clock,
        counts: dict[str, _Counts],
    ) -> None:
        self.loop = loop
        self._last_write: dict[str, _Call] = {}
        self._reads = _Lane(self, inner, settings, clock, counts["read"], one_at_a_time=False)
        self._writes = _Lane(self, inner, settings, clock, counts["write"], one_at_a_time=True)
        single = dataclasses.replace(settings, limit=1, objective_ms=None)
        self._lone_reads = _Lane(self, inner, single, clock, counts["read"], one_at_a_time=False)
        self._lone_writes = _Lane(self, inner, single, clock, counts["write"], one_at_a_time=False)

    def read(self, call: _Call) -> None:
        write = self._last_write.get(call.request.session)
        if write is None:
            self._start(call)
        else:
            write.followers.append(call)

    def _start(self, call: _Call) -> None:
        if not call.kind.alone:
            self._reads.add(call)
        else:
            (self._lone_reads if call.kind.reads else self._lone_writes).add(call)

    def write(self, call: _Call) -> None:
        self._last_write[call.request.session] = call
        self._writes.add(call)

    def ended(self, calls: Sequence[_Call]) -> None:
        """Let go the reads that waited behind these calls.

        A write that was dropped or expired stays in its group for this: the reads behind it wait for the writes before it.
        """
        for call in calls:
            if self._last_write.get(call.request.session) is call:
                del self._last_write[call.request.session]
            for follower in call.followers:
                self._start(follower)


class _Lane:
    """Calls that wait to be sent together."""

    def __init__(
        self,
        junction: _Junction,
        inner: GroupHandler,
        settings: BatchSettings,
        clock: Clock,
        counts: _Counts,
        *,
        one_at_a_time: bool,
    ) -> None:
        self._junction = junction
        self._loop = junction.loop
        self._inner = inner
        self._has_room: Callable[[], bool] = getattr(inner, "has_room", _always)
        self._clock = clock
        self._counts = counts
        self._limit = settings.limit
        self._window_s = settings.window_ms / 1e3
        self._aimd: Aimd | None = None
        if settings.objective_ms is not None:
            self._aimd = Aimd(self._window_s, settings.objective_ms / 1e3)
            self._window_s = counts.window_s = self._aimd.window_s
        self._goes_when_idle = settings.adaptive or not settings.window_ms
        self._one_at_a_time = one_at_a_time
        self._waiting: deque[_Call] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._next: asyncio.Handle | None = None
        self._next_is_now = False
        self._is_held = False

    def add(self, call: _Call) -> None:
        self._waiting.append(call)
        self._arrange()

    def _arrange(self) -> None:
        """Send what is due, and see to it that the rest is sent in time."""
        if self._one_at_a_time and self._in_flight:
            return  # its return arranges the rest
        while len(self._waiting) >= self._limit:
            self._send()
            if self._one_at_a_time and self._in_flight:
                return
        if not self._waiting:
            return
        if self._goes_when_idle and not self._in_flight:
            if not self._next_is_now:
                self._cancel_next()
                self._next = self._loop.call_soon(self._due)
                self._next_is_now = True
        elif self._next is None and self._window_s and not self._is_held:
            self._next = self._loop.call_at(self._waiting[0].arrived + self._window_s, self._due)

    def _due(self) -> None:
        waited = not self._next_is_now
        self._next = None
        self._next_is_now = False
        if self._in_flight and not self._has_room():
            self._is_held = True
            return
        if self._waiting and not (self._one_at_a_time and self._in_flight):
            self._send(waited=waited)
        self._arrange()

    def _cancel_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
            self._next_is_now = False

    def _send(self, *, waited: bool = False) -> None:
        """Make up a group of the oldest calls that still want to be executed, and send it.

        Args:
            waited: for its window.
        """
        self._cancel_next()
        taken: list[_Call] = []
        members: list[_Call] = []
        expired = 0
        now = self._clock.monotonic_ns()
        while self._waiting and len(members) < self._limit:
            call = self._waiting.popleft()
            taken.append(call)
            deadline = call.request.deadline_ns
            if call.outcome.done():
                self._counts.dropped += 1
            elif deadline is not None and now >= deadline:
                expired += 1
                call.outcome.set_result(too_late(call.request))
            else:
                members.append(call)
        self._counts.expired += expired
        if not members:
            self._follow(taken, waited, expired)
            self._junction.ended(taken)
            return
        self._counts.groups += 1
        self._counts.calls += len(members)
        self._counts.max_size = max(self._counts.max_size, len(members))
        task = self._loop.create_task(self._execute(members, taken, waited, expired))
        self._in_flight.add(task)
        for call in members:
            call.group = task

    def _follow(self, taken: list[_Call], waited: bool, expired: int) -> None:
        """Let the window follow what calls took that have ended."""
        if self._aimd is not None and taken:
            arrived_s = [call.arrived for call in taken]
            self._window_s = self._aimd.update(arrived_s, self._loop.time(), waited=waited, expired=expired)
            self._counts.window_s = self._window_s

    async def _execute(self, members: list[_Call], taken: list[_Call], waited: bool, expired: int) -> None:
        try:
            outcomes: Sequence[Outcome | BaseException] = await self._inner([call.request for call in members])
            if len(outcomes) != len(members):
                raise internal("bug", f"a group of {len(members)} calls came back with {len(outcomes)} outcomes")
            for call, outcome in zip(members, outcomes, strict=True):
                _deliver(call, outcome, len(members))
        except asyncio.CancelledError:  # the event loop is ending
            for call in members:
                call.outcome.cancel()
            raise
        except Exception as error:  # noqa: BLE001  every member gets it
            for call in members:
                _deliver(call, error.copy() if isinstance(error, MemlabError) else error, len(members))
        finally:
            self._in_flight.discard(asyncio.current_task())
            self._is_held = False
            self._follow(taken, waited, expired)
            self._junction.ended(taken)
            self._arrange()


def _always() -> bool:
    return True


def _deliver(call: _Call, outcome: Outcome | BaseException, batch_size: int) -> None:
    if call.outcome.done():
        return
    if isinstance(outcome, Response) and outcome.batch_size != batch_size:
        outcome = msgspec.structs.replace(outcome, batch_size=batch_size)
    call.outcome.set_result(outcome)


def batch(settings: BatchSettings, clock: Clock = SYSTEM) -> Batch:
    """Return the seam that coalesces waiting calls."""
    return Batch(settings, clock)
