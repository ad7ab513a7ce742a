from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from memlab.measure import clock


def test_the_moment_is_utc_and_between_two_wall_readings() -> None:
    """now() is a UTC moment, and agrees with wall_ns()."""
    before, shown, after = clock.wall_ns(), clock.now(), clock.wall_ns()
    assert shown.tzinfo is UTC
    assert clock.moment(before) <= shown <= clock.moment(after)


def test_a_moment_is_exact_to_the_microsecond() -> None:
    """No float stands between nanoseconds and the moment."""
    wall = 1_795_387_200_123_456_789
    assert clock.moment(wall) - clock.moment(0) == timedelta(microseconds=wall // 1000)


def test_the_monotonic_clock_never_goes_back() -> None:
    """Successive readings are ordered."""
    readings = [clock.monotonic_ns() for _ in range(100)]
    assert readings == sorted(readings)


def test_a_manual_clock_moves_only_when_told() -> None:
    """Both of its clocks advance together; only the wall clock can be set."""
    manual = clock.ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    assert manual.now() == datetime(2026, 3, 1, tzinfo=UTC)
    manual.advance(2.5, ns=1)
    assert manual.monotonic_ns() == 2_500_000_001
    assert manual.now() == datetime(2026, 3, 1, 0, 0, 2, 500000, tzinfo=UTC)
    manual.set_wall(datetime(2020, 1, 1, tzinfo=UTC))
    assert manual.now() == datetime(2020, 1, 1, tzinfo=UTC)
    assert manual.monotonic_ns() == 2_500_000_001
    with pytest.raises(ValueError, match="only goes on"):
        manual.advance(-1)


def test_the_system_clock_is_the_modules_clock() -> None:
    """A part that takes a Clock reads the same clocks as one that calls the module."""
    system: clock.Clock = clock.SYSTEM
    assert clock.monotonic_ns() <= system.monotonic_ns() <= clock.monotonic_ns()
    assert abs(system.now() - clock.now()) < timedelta(minutes=1)
