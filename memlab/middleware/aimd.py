"""A window that follows an objective: it grows by steps while calls are answered in time, and is cut when too many are late.

A long window makes large groups, and few calls into storage; what it may cost is told as a time that 95 of 100 calls keep. Where
calls are late for want of throughput a shorter window does not help, as small groups carry less: the window stays at its least.

Source: additive increase, multiplicative decrease: Chiu, Jain 1989, doi 10.1016/0169-7552(89)90019-6. On batches under a latency
objective: Clipper, Crankshaw et al., NSDI 2017, section 4.3, which adds to the size of a batch and cuts it by a tenth; here the
window is what is set, as calls wait for it also where no group becomes full.
"""

from __future__ import annotations

from collections.abc import Sequence

_STEPS = 16  # from nothing to the longest window
_CUT = 0.75
_CALLS = 20  # that earn a step by being in time
_COST = 19  # in-time calls that pay for a late one: 5 % may be late, so that the objective is one for p95
_MOST_OWED = 400


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
        self._account = 0  # earned by calls in time, less what late ones cost
        self._waited = False

    @property
    def window_s(self) -> float:
        """The window now."""
        return self._window_s

    def update(self, arrived_s: Sequence[float], now_s: float, *, waited: bool, expired: int = 0) -> float:
        """Take note of a group that ended; return the window from now on.

        What calls in time have earned buys a step, what late ones cost has to be earned again before: a stall that made a whole
        group late is one cause and cuts the window once, but it is paid for call by call. A group of whom one came before the
        last change says nothing of it. A window that no group waited for is none, so it does not grow.

        Args:
            arrived_s: when its calls came, not empty; in any order, as a read that stood behind a write joins its lane late.
            waited: it left because its oldest call had waited for the window.
            expired: how many of them were given up before they were executed: late, whatever the objective.
        """
        if min(arrived_s) < self._since_s:
            return self._window_s
        latest_s = now_s - self._objective_s
        late = max(sum(at_s < latest_s for at_s in arrived_s), expired)
        self._account = max(self._account + len(arrived_s) - late - _COST * late, -_MOST_OWED)
        self._waited = self._waited or waited
        if late and self._account < -_COST:
            self._change(max(self._window_s * _CUT, self._step_s), now_s)
        elif self._account >= _CALLS:
            self._account = 0
            if self._waited:
                self._change(min(self._window_s + self._step_s, self._most_s), now_s)
        return self._window_s

    def _change(self, window_s: float, now_s: float) -> None:
        if window_s != self._window_s:
            self._since_s = now_s
        self._window_s = window_s
        self._waited = False
