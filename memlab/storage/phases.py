"""How long the parts of a group took."""

from __future__ import annotations

from types import TracebackType

from memlab.measure import clock


class Phases(dict[str, int]):
    """Nanoseconds by phase."""

    def time(self, name: str) -> _Phase:
        """Add the time spent inside to phase *name*."""
        return _Phase(self, name)


class _Phase:
    # A class, as the lock's two sides: a search enters a dozen of them, and a generator costs three times as much.
    __slots__ = ("_name", "_phases", "_started")

    def __init__(self, phases: Phases, name: str) -> None:
        self._phases = phases
        self._name = name

    def __enter__(self) -> None:
        self._started = clock.monotonic_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._phases[self._name] = self._phases.get(self._name, 0) + clock.monotonic_ns() - self._started
