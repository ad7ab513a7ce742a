"""A limit that follows what calls take: it grows while they take what they usually do, and shrinks when they queue below.

Source: Netflix concurrency-limits, Gradient2Limit; the idea is that of TCP Vegas (Brakmo, Peterson 1995, doi 10.1109/49.464716):
a time that rises above its long average tells of a queue that cannot be seen.
"""

from __future__ import annotations

_TOLERANCE = 1.5  # times the usual time that are still no queue
_ROOM = 4.0  # places that the limit tries to add at each step
_SMOOTHING = 0.2
_LONG = 600  # calls that the long average remembers
_WARM_UP = 10
_FALLS = 0.95  # of a long average that is far above what calls take now: the load has gone
_STEEPEST = 0.5


class Gradient2:
    """Decides how many may run at once.

    Args:
        most: the limit never exceeds it, and is never below 1.
        initial: where it begins.
    """

    def __init__(self, most: int, initial: int | None = None) -> None:
        self._most = most
        self._limit = float(min(initial if initial is not None else 4, most))
        self._long_ns = 0.0
        self._seen = 0

    @property
    def limit(self) -> int:
        """The limit now."""
        return int(self._limit)

    def update(self, took_ns: int, in_use: int) -> int:
        """Take note that a call took so long while so many ran, itself included; return the limit from now on.

        A limit that is not half used is no limit, so it stays.
        """
        self._seen += 1
        weight = 1 / self._seen if self._seen <= _WARM_UP else 2 / (_LONG + 1)
        self._long_ns += (took_ns - self._long_ns) * weight
        if self._long_ns > 2 * took_ns:
            self._long_ns *= _FALLS
        if 2 * in_use < self._limit:
            return self.limit
        gradient = max(_STEEPEST, min(1.0, _TOLERANCE * max(self._long_ns, 1.0) / max(took_ns, 1)))
        wanted = self._limit * gradient + _ROOM
        self._limit = min(max(self._limit * (1 - _SMOOTHING) + wanted * _SMOOTHING, 1.0), float(self._most))
        return self.limit
