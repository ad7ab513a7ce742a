"""A loop whose time passes at once: waiting moves its clock, so that hours of traffic take milliseconds, and exact ones."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from memlab.measure.clock import ManualClock


class _Selector(selectors.SelectSelector):
    """Lets time pass instead of waiting."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout:
            self.clock.advance(ns=max(round(timeout * 1e9), 1))
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: ManualClock) -> None:
        self._virtual = clock
        super().__init__(_Selector(clock))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.monotonic_ns() / 1e9


def run(coroutine: Coroutine[Any, Any, Any], clock: ManualClock) -> Any:
    """Run *coroutine* in virtual time, which *clock* tells."""
    with asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(coroutine)


@pytest.fixture
def run_virtually():
    """`run_virtually(coroutine, clock)`."""
    return run
