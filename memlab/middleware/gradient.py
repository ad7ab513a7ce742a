"""A limit that follows what calls take: it grows while they take what they usually do, and shrinks when they queue below.

Source: Netflix concurrency-limits, Gradient2Limit behind WindowedLimit; the idea is that of TCP Vegas (Brakmo, Peterson 1995,
doi 10.1109/49.464716): a time that rises above its long average tells of a queue that cannot be seen. Two things differ. The room
for growth is the root of the limit, as in the library's first GradientLimit: four places, its later default, are for limits of
twenty and more. And what calls take while all places are taken is no news of what they usually take: it says what the limit does.
Were it to enter the long average, that would follow a slow rise, and the limit would grow to its most under any lasting load.
"""

from __future__ import annotations

import math

_TOLERANCE = 1.5  # times the usual time that are still no queue
_SMOOTHING = 0.2
_LONG = 600  # windows that the long average remembers
_WARM_UP = 10  # windows that it begins with, whatever the load; until then the limit stays where it began
_FALLS = 0.95  # of a long average that is far above what calls take now: the load has gone
_STEEPEST = 0.5
_WINDOW_NS = 100_000_000  # of calls that are looked at together
_FEWEST = 10  # calls in a window
_INITIAL = 4


class Gradient2:
    """Decides how many may run at once.

    Args:
        most: the limit never exceeds it, and is never below 1.
        initial: where it begins.
    """

    def __init__(self, most: int, initial: int = _INITIAL) -> None:
        self._most = most
        self._limit = float(min(initial, most))
        self._long_ns = 0.0
        self._windows = 0
        self._calls = self._took_ns = self._most_in_use = self._began_ns = 0  # of the window

    @property
    def limit(self) -> int:
        """The limit now."""
        return int(self._limit)

    def update(self, took_ns: int, in_use: int, now_ns: int) -> int:
        """Take note that a call which ends now took so long while so many ran, itself included; return the limit from now on.

        It moves at the end of a window, by the mean of its calls: one call says more of itself than of the load.
        """
        if not self._calls:
            self._began_ns = now_ns
        self._calls += 1
        self._took_ns += took_ns
        self._most_in_use = max(self._most_in_use, in_use)
        if self._calls >= _FEWEST and now_ns - self._began_ns >= _WINDOW_NS:
            self._close(self._took_ns / self._calls, self._most_in_use)
            self._calls = self._took_ns = self._most_in_use = 0
        return self.limit

    def _close(self, short_ns: float, in_use: int) -> None:
        """Move the long average, and the limit; one that is not half used is no limit, so it stays."""
        self._windows += 1
        warming_up = self._windows <= _WARM_UP
        if warming_up or in_use < self.limit or short_ns < self._long_ns:
            self._long_ns += (short_ns - self._long_ns) * (1 / self._windows if warming_up else 2 / (_LONG + 1))
        if self._long_ns > 2 * short_ns:
            self._long_ns *= _FALLS
        if warming_up or 2 * in_use < self._limit:
            return
        gradient = max(_STEEPEST, min(1.0, _TOLERANCE * max(self._long_ns, 1.0) / max(short_ns, 1.0)))
        wanted = self._limit * gradient + math.sqrt(self._limit)
        self._limit = min(max(self._limit * (1 - _SMOOTHING) + wanted * _SMOOTHING, 1.0), float(self._most))
