"""Threads that do for an event loop what blocks.

A step is handed over with one entry in a queue, and its end with one wake-up of the loop. An executor of `concurrent.futures`
behind `asyncio.wrap_future` does the same with two futures, their conditions and callbacks, for 50 µs more: a tenth of a look-up.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

from memlab.middleware.chain import settle


class Workers:
    """Up to *limit* threads, begun when they are needed; with a limit of one, steps are done in the order of `run`."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._steps: SimpleQueue[_Step | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards what follows
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._is_shut = False
        _ALL.add(self)

    async def run(self, work: Callable[[], None]) -> None:
        """Do *work* in a thread and wait for its end; when cancelled, until it has ended or is sure never to begin.

        What has begun is finished even when nobody waits for it any more; only then may its caller go: its place in the pool is
        taken until then, and the cache trusts that a call which has ended has no further effect.

        Raises:
            RuntimeError: the workers are shut.
        """
        step = _Step(work, asyncio.get_running_loop())
        self._hand_over(step)
        try:
            await step.wait()
        except asyncio.CancelledError:
            if not step.claim() and not step.has_ended:
                await settle(step.wait())
            raise
        if step.error is not None:
            raise step.error

    def shut(self) -> None:
        """Finish what was handed over, and take nothing more; a second call does nothing."""
        with self._lock:
            threads, self._threads = self._threads, []
            self._is_shut = True
        for _ in threads:
            self._steps.put(None)
        for thread in threads:
            thread.join()

    def _hand_over(self, step: _Step) -> None:
        with self._lock:
            if self._is_shut:
                raise RuntimeError("the workers are shut")
            self._unfinished += 1
            if self._unfinished > len(self._threads) < self._limit:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._steps.put(step)

    def _work(self) -> None:
        while (step := self._steps.get()) is not None:
            if step.claim():
                step.do()
            with self._lock:
                self._unfinished -= 1
            step.report()
            del step  # its work holds what it read, until the next one comes


class _Step:
    """One piece of work between an event loop and a thread; what is not said otherwise belongs to the loop."""

    __slots__ = ("_loop", "_unclaimed", "_waiting", "_work", "error", "has_ended")

    def __init__(self, work: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.error: BaseException | None = None
        self.has_ended = False
        self._work = work
        self._loop = loop
        self._waiting: list[asyncio.Future[None]] = []
        self._unclaimed = [True]

    def claim(self) -> bool:
        """Return whether the caller may decide what becomes of it: the first of thread and loop; a list gives its item once."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False

    def do(self) -> None:
        """Do the work, in the thread that claimed it."""
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  it is raised where it is waited for
            self.error = error

    def report(self) -> None:
        """Tell the loop, from the thread, that it has ended."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there
            self._loop.call_soon_threadsafe(self._end)

    def wait(self) -> asyncio.Future[None]:
        """Return a future of its end."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        return future

    def _end(self) -> None:
        self.has_ended = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


_ALL: weakref.WeakSet[Workers] = weakref.WeakSet()


@atexit.register
def _shut_all() -> None:
    """Let work under way end before the interpreter does: a thread that is cut off in the middle of a query ends in SIGSEGV."""
    for workers in list(_ALL):
        workers.shut()
