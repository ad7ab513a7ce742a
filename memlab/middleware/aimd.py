"""A window that follows an objective: it grows by steps while calls are answered in time, and is cut when too many are late.

A long window makes large groups, and few calls into storage; what it may cost is told as a time that 95 of 100 calls keep.

Source: additive increase, multiplicative decrease: Chiu, Jain 1989, doi 10.1016/0169-7552(89)90019-6. On batches under a latency
objective: Clipper, Crankshaw et al., NSDI 2017, section 4.3, which adds to the size of a batch and cuts it by a tenth; here the
window is what is set, as calls wait for it also where no group becomes full.
"""

from __future__ import annotations

from collections.abc import Sequence

_STEPS = 16  # from nothing to the longest window
_CUT = 0.75
_CALLS = 20  # between two steps
_LATE = 1  # of them that may be: 5 %, so that the objective is one for p95


class Aimd:
    """Decides how long calls wait for company.

    Args:
        most_s: the window never exceeds it, and is never below a sixteenth of it: without any window nothing gathers.
        objective_s: from arrival to answer; what 95 of 100 calls are to keep.
    """

    def __init__(self, most_s: float, objective_s: float) -> None:
        self._most_s = most_s
        self._step_s = most_s / _STEPS
        self._objective_s = objective_s
        self._window_s = self._step_s
        self._since_s = float("-inf")
        self._calls = 0
        self._late = 0
        self._waited = False

    @property
    def window_s(self) -> float:
        """The window now."""
        return self._window_s

    def update(self, arrived_s: Sequence[float], now_s: float, *, waited: bool, expired: int = 0) -> float:
        """Take note of a group that ended; return the window from now on.

        A group of whom one came before the last change says nothing of it: so one cause is answered once. A window that no group
        waited for is none, so it does not grow.

        Args:
            arrived_s: when its calls came, ascending, not empty.
            waited: it left because its oldest call had waited for the window.
            expired: how many of them were given up before they were executed: late, whatever the objective.
        """
        if arrived_s[0] < self._since_s:
            return self._window_s
        latest_s = now_s - self._objective_s
        self._calls += len(arrived_s)
        self._late += max(sum(at_s < latest_s for at_s in arrived_s), expired)
        self._waited = self._waited or waited
        if self._late > max(_LATE, self._calls * _LATE / _CALLS):
            self._change(max(self._window_s * _CUT, self._step_s), now_s)
        elif self._calls >= _CALLS:
            grown = min(self._window_s + self._step_s, self._most_s) if self._waited else self._window_s
            self._change(grown, now_s)
        return self._window_s

    def _change(self, window_s: float, now_s: float) -> None:
        if window_s != self._window_s:
            self._since_s = now_s
        self._window_s = window_s
        self._calls = self._late = 0
        self._waited = False
