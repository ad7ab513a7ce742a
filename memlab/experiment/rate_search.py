"""Searches for the highest rate that a yes-or-no trial passes, and says how surely it knows.

Each trial is asked at the median of what is believed so far, and its answer weighs the belief: probabilistic bisection (Horstein
1963, doi 10.1109/TIT.1963.1057832; Waeber, Frazier, Henderson 2013, doi 10.1137/120861898). How sharply trials turn from
passing to failing is not known beforehand, so it is learnt beside the rate, and a share of trials is allowed to be wrong for no
reason (Kontsevich and Tyler 1999, doi 10.1016/S0042-6989(98)00285-5). The interval holds 95 % of the belief.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import numpy as np

from memlab.measure.stats import CONFIDENCE, Floats, Interval

_STEPS = 2_000  # of the grid of rates
_SLOPES = (0.01, 0.02, 0.05, 0.1, 0.2)  # in which part of a rate passing turns to failing
_SLOPE_BELIEF = (0.3, 0.3, 0.2, 0.12, 0.08)  # a queue's p99 turns sharply near its capacity
_LAPSE = 0.03  # share of trials that pass or fail for no reason of the rate


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One rate that was tried.

    Attributes:
        beyond_ratio: share of calls that failed, or took longer than the target.
    """

    rate_per_s: float
    passed: bool
    samples: int = 0
    beyond_ratio: float | None = None
    p99_ms: float | None = None


class RateSearch:
    """What is believed of the highest rate, and which to ask next.

    Args:
        low, high: between which it is looked for, above 0.
        start: the first rate asked; doubled while trials pass, halved while they fail, until one does the other.
        tolerance: the search is over when the interval's ends differ by this share of the rate.
        most: trials at most.

    >>> search = RateSearch(1, 10_000, start=100)
    >>> while not search.is_over:
    ...     rate = search.next_rate()
    ...     search.tell(Trial(rate_per_s=rate, passed=rate < 730))
    >>> 690 < search.estimate().value < 770
    True
    """

    def __init__(self, low: float, high: float, *, start: float, tolerance: float = 0.1, most: int = 40) -> None:
        self._rates = np.exp(np.linspace(math.log(low), math.log(high), _STEPS))
        self._belief = np.tile(np.array(_SLOPE_BELIEF) / _STEPS, (_STEPS, 1))
        self._ends = float(self._rates[0]), float(self._rates[-1])
        self._start = float(np.clip(start, *self._ends))
        self._tolerance = tolerance
        self._most = most
        self.trials: list[Trial] = []

    @property
    def _has_both(self) -> bool:
        return len({trial.passed for trial in self.trials}) == 2

    @property
    def is_sure(self) -> bool:
        """Whether the interval is as narrow as was asked."""
        found = self.estimate()
        if not self._has_both or found.value is None or found.low is None or found.high is None:
            return False
        return found.high - found.low <= self._tolerance * found.value

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be asked."""
        if len(self.trials) >= self._most or self.is_sure:
            return True
        if not self.trials or self._has_both:
            return False
        last = self.trials[-1].rate_per_s
        lowest, highest = self._ends
        return last >= highest if self.trials[-1].passed else last <= lowest

    def next_rate(self) -> float:
        """Return the rate to be tried next."""
        if not self.trials:
            return self._start
        if not self._has_both:
            factor = 2.0 if self.trials[-1].passed else 0.5
            return float(np.clip(self.trials[-1].rate_per_s * factor, *self._ends))
        return self._quantile(0.5)

    def tell(self, trial: Trial) -> None:
        """Weigh the belief with what a trial showed."""
        self.trials.append(trial)
        distance = (np.log(self._rates)[:, None] - math.log(trial.rate_per_s)) / np.array(_SLOPES)[None, :]
        passes = _LAPSE + (1 - 2 * _LAPSE) / (1 + np.exp(-np.clip(distance, -50, 50)))
        self._belief *= passes if trial.passed else 1 - passes
        self._belief /= self._belief.sum()

    def estimate(self) -> Interval:
        """Return the rate with its 95 % credible interval; no value before a trial passed and another failed."""
        n = len(self.trials)
        if not self._has_both:
            if not self.trials:
                return Interval(None, note="nothing was tried")
            end = self.trials[-1].rate_per_s
            return Interval(
                None,
                n=n,
                note=f"every rate {'up to' if self.trials[-1].passed else 'down to'} {end:,.4g}/s "
                f"{'passed' if self.trials[-1].passed else 'failed'}",
            )
        tail = (1 - CONFIDENCE) / 2
        return Interval(self._quantile(0.5), self._quantile(tail), self._quantile(1 - tail), n)

    def _quantile(self, q: float) -> float:
        reached: Floats = np.cumsum(self._belief.sum(axis=1))
        return float(self._rates[min(int(np.searchsorted(reached, q)), _STEPS - 1)])

    def to_dict(self) -> dict[str, Any]:
        """Return rate_per_s, low, high, note, converged and the trials as plain values."""
        found = self.estimate()
        return {
            "rate_per_s": found.value,
            "low": found.low,
            "high": found.high,
            "note": found.note,
            "converged": self.is_sure,
            "trials": msgspec.to_builtins(self.trials),
        }


async def search(
    ask: Callable[[float], Awaitable[Trial]], seeker: RateSearch, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Try rates until the search is over, or somebody says stop; the trial that was cut short does not count."""
    while not seeker.is_over and not stopped():
        trial = await ask(seeker.next_rate())
        if not stopped():
            seeker.tell(trial)
