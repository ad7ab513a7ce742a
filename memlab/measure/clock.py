"""The only place that reads a clock.

Durations are integer nanoseconds of a clock that never jumps; moments are UTC with their zone. Code that must be tested
under passing time takes a `Clock`; everything else calls the functions of this module.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def monotonic_ns() -> int:
    """Return nanoseconds of a clock that never goes back; only differences mean something."""
    return time.perf_counter_ns()


def wall_ns() -> int:
    """Return nanoseconds since 1970-01-01 UTC; it may jump when the host's clock is set."""
    return time.time_ns()


def now() -> datetime:
    """Return the current moment, UTC, microseconds."""
    return moment(time.time_ns())


def moment(wall_ns: int) -> datetime:
    """Return the moment that is *wall_ns* after 1970-01-01 UTC, cut to microseconds.

    >>> moment(1_500_000_000)
    datetime.datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=datetime.timezone.utc)
    """
    # Integer arithmetic: datetime.fromtimestamp takes a float, which is off by a microsecond now and then.
    return _EPOCH + timedelta(microseconds=wall_ns // 1000)


class Clock(Protocol):
    """What a part that must be tested under passing time asks of its clock."""

    def monotonic_ns(self) -> int:
        """Return nanoseconds of a clock that never goes back."""
        ...

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970-01-01 UTC."""
        ...

    def now(self) -> datetime:
        """Return the current moment, UTC."""
        ...


class SystemClock:
    """The host's clocks."""

    def monotonic_ns(self) -> int:
        """Return nanoseconds of a clock that never goes back."""
        return time.perf_counter_ns()

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()

    def now(self) -> datetime:
        """Return the current moment, UTC."""
        return moment(time.time_ns())


class ManualClock:
    """A clock that stands still until it is told to go on; safe to use from many threads.

    >>> clock = ManualClock()
    >>> before = clock.monotonic_ns()
    >>> clock.advance(seconds=1.5)
    >>> clock.monotonic_ns() - before
    1500000000
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._lock = threading.Lock()
        self._monotonic_ns = 0
        self._wall_ns = (start - _EPOCH) // timedelta(microseconds=1) * 1000

    def monotonic_ns(self) -> int:
        """Return nanoseconds advanced so far."""
        with self._lock:
            return self._monotonic_ns

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970-01-01 UTC."""
        with self._lock:
            return self._wall_ns

    def now(self) -> datetime:
        """Return the moment the clock shows, UTC."""
        return moment(self.wall_ns())

    def advance(self, seconds: float = 0.0, *, ns: int = 0) -> None:
        """Let time pass: both clocks go on by *seconds* and *ns* together."""
        step = round(seconds * 1_000_000_000) + ns
        if step < 0:
            raise ValueError("time only goes on; to set the wall clock back, use set_wall")
        with self._lock:
            self._monotonic_ns += step
            self._wall_ns += step

    def set_wall(self, to: datetime) -> None:
        """Set the wall clock, forwards or back, as an administrator may; the monotonic clock does not notice."""
        with self._lock:
            self._wall_ns = (to - _EPOCH) // timedelta(microseconds=1) * 1000


SYSTEM: Clock = SystemClock()
