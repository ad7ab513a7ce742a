"""Drives one lane of calls on an engine, and writes down what became of each.

In an open loop calls are sent when they are due, whatever became of the earlier ones, and response time counts from the due
time: a stall is charged to everyone it delayed. In a closed loop each client waits for its answer before it asks again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import itertools
import selectors
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from memlab.errors import ErrorType, MemlabError
from memlab.measure.clock import SYSTEM, Clock
from memlab.measure.recorder import Outcome, Sample
from memlab.operations.registry import lookup
from memlab.values import Response
from memlab.workload.arrivals import Offsets
from memlab.workload.mix import Call

T = TypeVar("T")

_LEAD_NS = 2_000_000  # between setting up and the first call
# Calls sent in a row by a driver that is behind, before answers get a turn. Once a turn the loop waits for Python's lock, 5 ms
# for each thread of the engine that wants it: with 32 in a turn, who is behind could not catch up with 3,000 a second.
_YIELD_EVERY = 128
_PATIENCE_S = 1.0  # beyond the deadline, for an engine that does not keep it
_LOOK_S = 0.1  # between two looks at whether to stop, for a driver that has nothing to send


class Execute(Protocol):
    """The part of an engine that a driver calls."""

    async def __call__(
        self, operation: str, parameters: Mapping[str, Any] | None = None, *, session: str, deadline_s: float | None = None
    ) -> Response: ...


class Counter(Protocol):
    """Told what is in flight; see `measure.in_flight.InFlight`."""

    def expect(self, due_ns: npt.NDArray[np.int64] | None, start_ns: int, end_ns: int) -> None: ...
    def sent(self) -> None: ...
    def finished(self) -> None: ...
    def cut(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Lane:
    """What is sent to one engine in one go.

    Attributes:
        calls: in the order of sending; at their end they begin again.
        due_s: when each is due; None for a closed loop.
        clients: of a closed loop.
        warm_up_s: from the beginning; samples of calls due before it are marked.
        duration_s: measured time after that.
        deadline_s: from when a call is due; later answers are of no use.
        max_outstanding: calls awaited at once in an open loop; more are refused by the driver, and count as such.
        judged: positions in *calls* whose answers are kept.
        ramp_s: over which the clients of a closed loop begin, evenly; 0 for all at once.
    """

    calls: Sequence[Call]
    due_s: Offsets | None
    clients: int = 1
    warm_up_s: float = 0.0
    duration_s: float = 1.0
    deadline_s: float = 5.0
    max_outstanding: int = 20_000
    judged: frozenset[int] = frozenset()
    ramp_s: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """One call with what became of it.

    Attributes:
        position: in the lane's calls.
        value: the answer, of judged calls alone; for a sink, of all.
    """

    position: int
    sample: Sample
    value: Any = None


@dataclasses.dataclass(frozen=True)
class Driven:
    """What a lane brought.

    Attributes:
        sent: in the order of answers; empty where a sink took them.
        start_ns, end_ns: the measured time.
        cut_short: it was told to stop before its end.
    """

    sent: list[Sent]
    start_ns: int
    end_ns: int
    cut_short: bool = False


Sink: TypeAlias = Callable[[Sent], object]


async def drive(
    execute: Execute,
    lane: Lane,
    counter: Counter,
    *,
    setting: str = "candidate",
    repeat: int = 0,
    clock: Clock = SYSTEM,
    sink: Sink | None = None,
    stop: asyncio.Event | None = None,
) -> Driven:
    """Send a lane's calls and return every one with its outcome.

    Args:
        counter: told of calls and answers, for Little's law.
        setting, repeat: for the samples.
        sink: takes each call when it is answered; without one they are kept in memory.
        stop: once set, nothing more is sent, and what was sent is waited for.
    Raises:
        Exception: whatever *execute* raises beside `MemlabError`; nothing goes on then.
    """
    return await _Driver(execute, lane, counter, setting, repeat, clock, sink, stop).run()


class _Driver:
    def __init__(
        self,
        execute: Execute,
        lane: Lane,
        counter: Counter,
        setting: str,
        repeat: int,
        clock: Clock,
        sink: Sink | None,
        stop: asyncio.Event | None,
    ) -> None:
        self._execute = execute
        self._lane = lane
        self._counter = counter
        self._setting = setting
        self._repeat = repeat
        self._now = clock.monotonic_ns
        self._reads = {name: lookup(name).reads for name in {call.operation for call in lane.calls}}
        self._deadline_ns = round(lane.deadline_s * 1e9)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent: list[Sent] = []
        self._sink = sink
        self._take: Sink = sink if sink is not None else self._sent.append
        self._stop = stop
        self._cut = False
        self._giving_up = False
        self._failure: Exception | None = None
        self._origin = self._now() + _LEAD_NS
        self._start = self._origin + round(lane.warm_up_s * 1e9)
        self._end = self._start + round(lane.duration_s * 1e9)

    async def run(self) -> Driven:
        due_s = self._lane.due_s
        due_ns = None if due_s is None else self._origin + np.round(due_s * 1e9).astype(np.int64)
        self._counter.expect(due_ns, self._start, self._end)
        try:
            if due_ns is not None:
                await self._send_when_due(due_ns.tolist())
            else:
                await self._send_in_turn()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._lane.deadline_s + _PATIENCE_S)
        finally:
            self._giving_up = True
            for task in self._tasks:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._failure is not None:
            raise self._failure
        return Driven(self._sent, self._start, self._end, self._cut)

    def _is_over(self) -> bool:
        """Return whether nothing more is to be sent: something broke, or somebody said stop."""
        if self._stop is not None and self._stop.is_set() and not self._cut:
            self._cut = True
            self._end = max(min(self._end, self._now()), self._start)
            self._counter.cut()
        return self._cut or self._failure is not None

    async def _wait_until(self, moment_ns: int) -> None:
        while (wait := moment_ns - self._now()) > 0 and not self._is_over():  # noqa: ASYNC110  its end is not an event's
            await asyncio.sleep(min(wait * 1e-9, _LOOK_S))

    async def _send_when_due(self, due_ns: list[int]) -> None:
        distinct = len(self._lane.calls)
        for number, due in enumerate(due_ns):
            if due > self._now():
                await self._wait_until(due)
            elif number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            if self._is_over():
                return
            position = number % distinct
            if len(self._tasks) >= self._lane.max_outstanding:
                self._finish(position, due, self._now(), "refused", "driver_full")
            else:
                self._begin(self._ask(position, due))

    async def _send_in_turn(self) -> None:
        await self._wait_until(self._origin)
        positions = itertools.cycle(range(len(self._lane.calls)))
        clients = self._lane.clients
        for number in range(clients):
            if self._lane.ramp_s:
                await self._wait_until(self._origin + round(self._lane.ramp_s * 1e9 * number / clients))
            self._begin(self._ask_in_turn(positions))
        await self._wait_until(self._end)

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_in_turn(self, positions: Iterator[int]) -> None:
        while (now := self._now()) < self._end and not self._is_over():
            self._counter.sent()
            await self._ask(next(positions), now)
            await asyncio.sleep(0)  # an answer from memory never suspends, and would keep the other clients waiting

    async def _ask(self, position: int, due: int) -> None:
        call = self._lane.calls[position]
        started = self._now()
        left = due + self._deadline_ns - started
        if left <= 0:
            self._finish(position, due, started, "timeout", "sent_late")
            return
        try:
            response = await self._execute(call.operation, call.parameters, session=call.session, deadline_s=left * 1e-9)
        except MemlabError as error:
            self._finish(position, due, started, outcome_of(error), error.reason)
        except asyncio.CancelledError:
            if not self._giving_up:
                raise
            # Nobody waits any longer. A read is then merely late; a write may still happen.
            self._finish(position, due, started, "timeout" if self._reads[call.operation] else "unknown", "gave_up")
        except Exception as error:  # noqa: BLE001  raised by run(), once
            self._failure = self._failure or error
        else:
            self._finish(position, due, started, "ok", None, response)

    def _finish(
        self, position: int, due: int, started: int, outcome: Outcome, error: str | None, response: Response | None = None
    ) -> None:
        finished = self._now()
        self._counter.finished()
        call = self._lane.calls[position]
        sample = Sample(
            operation=call.operation,
            session=call.label,
            intended_ns=due,
            started_ns=started,
            finished_ns=finished,
            outcome=outcome,
            error=error,
            cached=response is not None and response.cached,
            batch_size=1 if response is None else response.batch_size,
            setting=self._setting,
            repeat=self._repeat,
            warm_up=due < self._start,
            phases=None if response is None else response.phases,
        )
        keeps = self._sink is not None or position in self._lane.judged
        self._take(Sent(position, sample, response.value if response is not None and keeps else None))


def outcome_of(error: MemlabError) -> Outcome:
    """Return how a failed call counts: all but `ok` are failures."""
    if error.reason == "outcome_unknown":
        return "unknown"
    if error.type is ErrorType.TIMEOUT:
        return "timeout" if error.reason == "deadline" else "refused"
    return "error"


@dataclasses.dataclass(frozen=True)
class DriverCost:
    """What the driver itself costs, measured against an engine that does nothing.

    Attributes:
        call_us: of one call, in microseconds of the driver's thread.
        rate_per_s: calls that it can send at most.
    """

    call_us: float
    rate_per_s: float


async def driver_cost(call: Call, counter: Counter, *, calls: int = 2_000, clock: Clock = SYSTEM) -> DriverCost:
    """Return the driver's own cost: *calls* that are all due at once, answered at once."""
    answer = Response(None)

    async def nothing(
        operation: str, parameters: Mapping[str, Any] | None = None, *, session: str, deadline_s: float | None = None
    ) -> Response:
        return answer

    lane = Lane([call] * calls, np.zeros(calls), duration_s=0.001)
    driven = await drive(nothing, lane, counter, clock=clock)
    took_ns = driven.sent[-1].sample.finished_ns - driven.sent[0].sample.started_ns
    call_us = max(took_ns, 1) / 1e3 / calls
    return DriverCost(call_us, 1e6 / call_us)


def run_in_own_loop(coroutine: Coroutine[Any, Any, T], on_interrupt: Callable[[], object] | None = None) -> T:
    """Run *coroutine* on a loop of its own in a thread of its own, and return its result.

    A notebook's kernel has a loop already. And asyncio's usual selector rounds waits up to whole milliseconds, which would
    delay every call of an open loop by half a millisecond; `select` takes microseconds.

    Args:
        on_interrupt: called in the loop at the first Ctrl-C, which then only asks the coroutine to come to its end; a second one
            cancels it, as the first does without this.
    """
    result: Future[T] = Future()
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:

            async def main() -> T:
                task = asyncio.ensure_future(coroutine)
                ready.set_result((asyncio.get_running_loop(), task))
                return await task

            try:
                result.set_result(runner.run(main()))
            except BaseException as error:  # noqa: BLE001  handed to the thread that waits
                result.set_exception(error)

    thread = threading.Thread(target=work, name="memlab-driver")
    thread.start()
    try:
        try:
            return _wait_for(result)
        except KeyboardInterrupt:
            if on_interrupt is None or result.done():
                raise
            ready.result()[0].call_soon_threadsafe(on_interrupt)
            return _wait_for(result)
    except BaseException:
        if not result.done():  # Ctrl-C: let the loop close what it opened
            loop, task = ready.result()
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()


def _wait_for(result: Future[T]) -> T:
    """Return the result when it is there. A thread that waits without an end may never learn of a Ctrl-C."""
    while not result.done():
        concurrent.futures.wait([result], timeout=_LOOK_S)
    return result.result()
