"""How long the parts of a group took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from memlab.measure import clock


class Phases(dict[str, int]):
    """Nanoseconds by phase."""

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the time spent inside to phase *name*."""
        started = clock.monotonic_ns()
        try:
            yield
        finally:
            self[name] = self.get(name, 0) + clock.monotonic_ns() - started
