"""How much work runs at once: a place for each group, first come, first served, and a bounded wait.

Whoever cannot be answered in time is refused before the work, and not after it. First come, first served, under more load than
there is room for, makes everyone wait until the deadline is near; each is then executed, and is late. All work is done and
none of it counts, and it stays so when the load has fallen to what was carried before (Bronson, Aghayev, Charapko, Zhu 2021,
"Metastable failures in distributed systems", HotOS). So a member must have as much time left as groups of late took.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from memlab.errors import MemlabError, timeout
from memlab.measure.clock import SYSTEM, Clock
from memlab.middleware.chain import GroupHandler, Outcome, too_late, too_little_time
from memlab.middleware.gradient import Gradient2
from memlab.operations.registry import lookup
from memlab.settings import PoolSettings
from memlab.values import Request

_RECENT = 16  # groups by which the usual time is known
_FEWEST = 4  # of them, before anything is said


class Pool:
    """Admits `limit` groups at a time; the others wait in line, `acquire_timeout_s` at most.

    A group that waited longer is refused: every member gets TIMEOUT `pool_full`. A member whose deadline passed meanwhile, or
    will have passed in the time that groups of late took, is taken out of its group and gets TIMEOUT `deadline`. A place is
    given back when the group has ended, not when its callers have gone. Belongs to one event loop at a time.
    """

    def __init__(self, settings: PoolSettings, clock: Clock = SYSTEM) -> None:
        self._limit = settings.limit
        self._gradient = Gradient2(settings.limit) if settings.adaptive else None
        if self._gradient is not None:
            self._limit = self._gradient.limit
        self._timeout_s = settings.acquire_timeout_s
        self._clock = clock
        self._line: deque[asyncio.Future[bool]] = deque()
        self._in_use = 0
        self._waiting = 0
        self._max_waiting = 0
        self._acquired = 0
        self._refused = 0
        self._expired = 0
        self._wait_ns = 0
        self._took = {"read": _Recent(), "write": _Recent()}

    def __call__(self, inner: GroupHandler) -> Admission:
        """Return *inner*, executed by `limit` groups at once at most."""
        return Admission(self, inner)

    def has_room(self) -> bool:
        """Return whether a group that came now would not have to wait."""
        return self._in_use < self._limit  # then nobody stands in line either

    async def admit(self, inner: GroupHandler, requests: Sequence[Request]) -> list[Outcome]:
        """Execute a group when there is a place for it."""
        if self.has_room():
            self._in_use += 1
        elif not await self._wait():
            self._refused += 1
            return [self._full() for _ in requests]
        self._acquired += 1
        started = self._clock.monotonic_ns()
        try:
            return await self._execute(inner, requests)
        finally:
            if self._gradient is not None:
                ended = self._clock.monotonic_ns()
                self._limit = self._gradient.update(ended - started, self._in_use, ended)
            self._give_back()

    def statistics(self) -> dict[str, float | int]:
        """Return how it stands and what it did, in groups; `expired` counts calls; the waits are those of acquired places."""
        return {
            "limit": self._limit,
            "in_use": self._in_use,
            "waiting": self._waiting,
            "max_waiting": self._max_waiting,
            "acquired": self._acquired,
            "refused": self._refused,
            "expired": self._expired,
            "wait_time_total_ms": self._wait_ns / 1e6,
            "wait_time_mean_ms": self._wait_ns / 1e6 / self._acquired if self._acquired else 0.0,
        }

    async def _execute(self, inner: GroupHandler, requests: Sequence[Request]) -> list[Outcome]:
        now = self._clock.monotonic_ns()
        if len(requests) == 1:  # nobody waits with it, and what travels alone takes any time
            late = requests[0].deadline_ns is not None and now >= requests[0].deadline_ns
            self._expired += late
            return [too_late(requests[0])] if late else await inner(requests)
        took = self._took["read" if lookup(requests[0].operation).reads else "write"]
        ends = now + took.usual()
        in_time = [request.deadline_ns is None or ends < request.deadline_ns for request in requests]
        if not any(in_time):
            # One goes in any case: it tells how long a group takes now.
            longest = max(range(len(requests)), key=lambda place: requests[place].deadline_ns or 0)
            in_time[longest] = now < (requests[longest].deadline_ns or 0)
        kept = [request for request, good in zip(requests, in_time, strict=True) if good]
        self._expired += len(requests) - len(kept)
        outcomes = iter(await inner(kept) if kept else ())
        if kept:
            took.add(self._clock.monotonic_ns() - now)
        return [
            next(outcomes) if good else (too_late if now >= (request.deadline_ns or 0) else too_little_time)(request)
            for request, good in zip(requests, in_time, strict=True)
        ]

    async def _wait(self) -> bool:
        """Stand in line; return whether a place was given, which then counts as in use."""
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(self._timeout_s, _give_up, place)
        started = self._clock.monotonic_ns()
        self._line.append(place)
        self._waiting += 1
        self._max_waiting = max(self._max_waiting, self._waiting)
        try:
            given = await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self._give_back()  # given in the very moment of the cancellation: it goes to the next in line
            raise
        finally:
            timer.cancel()
            self._waiting -= 1
            while self._line and self._line[0].done():  # else the line grows while places stay taken
                self._line.popleft()
        if given:
            self._wait_ns += self._clock.monotonic_ns() - started
        return given

    def _give_back(self) -> None:
        """Hand the place to the first who still waits for one; and more, or none, where the limit has changed."""
        self._in_use -= 1
        while self._line and self._in_use < self._limit:
            place = self._line.popleft()
            if not place.done():
                place.set_result(True)
                self._in_use += 1

    def _full(self) -> MemlabError:
        return timeout(
            "pool_full",
            f"no place in the pool within {self._timeout_s:g} s: all {self._limit} are in use; try again later, "
            "raise pool.limit, or send less",
            limit=self._limit,
        )


class _Recent:
    """How long the last groups of one kind took."""

    def __init__(self) -> None:
        self._took: deque[int] = deque(maxlen=_RECENT)

    def add(self, took_ns: int) -> None:
        self._took.append(took_ns)

    def usual(self) -> int:
        """Return the nanoseconds that three of four kept within; 0 where too little is known."""
        return sorted(self._took)[len(self._took) * 3 // 4] if len(self._took) >= _FEWEST else 0


class Admission:
    """A group handler behind a pool; it tells whether there is room, so that a batch need not stand in line half full."""

    def __init__(self, places: Pool, inner: GroupHandler) -> None:
        self._places = places
        self._inner = inner
        self.has_room = places.has_room

    async def __call__(self, requests: Sequence[Request]) -> list[Outcome]:
        """Execute a group when there is a place for it."""
        return await self._places.admit(self._inner, requests)


def _give_up(place: asyncio.Future[bool]) -> None:
    if not place.done():
        place.set_result(False)


def pool(settings: PoolSettings, clock: Clock = SYSTEM) -> Pool:
    """Return the middleware that limits how many groups run at once."""
    return Pool(settings, clock)
