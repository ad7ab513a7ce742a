"""How throughput grows with concurrency, and where it stops: the Universal Scalability Law, fitted on a few limits.

    X(n) = rate * n / (1 + contention * (n - 1) + coherency * n * (n - 1))

Contention is the share that must go one at a time; coherency is what each pair costs for being there together, and makes
throughput fall again.

Source: Gunther 2007, Guerrilla Capacity Planning, ch. 5-6; Gunther 2008, arXiv:0808.1431.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from memlab.errors import validation

_FEWEST = 3  # limits, for three constants
_NEVER = 1e-9  # a coherency below this has no peak that anyone could reach


@dataclasses.dataclass(frozen=True)
class Scalability:
    """A fitted law.

    Attributes:
        rate_per_s: throughput of one at a time.
        contention, coherency: 0 or more.
        checked: lowest and highest limit that it was fitted between.
    """

    rate_per_s: float
    contention: float
    coherency: float
    checked: tuple[int, int]

    @classmethod
    def fit(cls, limits: Sequence[int], throughput_per_s: Sequence[float]) -> Scalability:
        """Return the law that is closest to measured throughputs, by relative error, with no constant below 0.

        n / X(n) is linear in three constants, so there is one best fit.

        Args:
            limits, throughput_per_s: of each measurement; three different limits or more, repeats welcome.
        Raises:
            MemlabError: VALIDATION `fit`: too few limits, or throughputs that are not above 0.

        >>> law = Scalability.fit([1, 2, 4, 8], [100, 190.476190, 347.826087, 592.592593])
        >>> round(law.rate_per_s), round(law.contention, 3), round(law.coherency, 3)
        (100, 0.05, 0.0)
        """
        n, x = np.asarray(limits, dtype=np.float64), np.asarray(throughput_per_s, dtype=np.float64)
        if len(np.unique(n)) < _FEWEST or n.min() < 1:
            raise validation("fit", f"{len(np.unique(n))} different limits; three or more, of 1 or more, fit")
        if len(n) != len(x) or not np.isfinite(x).all() or (x <= 0).any():
            raise validation("fit", "every limit needs a throughput above 0")
        # Divided by n / X, a residual is a relative error.
        design = np.stack([np.ones_like(n), n - 1, n * (n - 1)], axis=1) / (n / x)[:, None]
        alone, contention, coherency = nnls(design, np.ones_like(n))[0].tolist()
        if alone <= 0:
            raise validation("fit", "these throughputs grow faster than their limits: the law does not describe them")
        return cls(1 / alone, contention / alone, coherency / alone, (int(n.min()), int(n.max())))

    def throughput_per_s(self, limit: int) -> float:
        """Return the throughput at a limit.

        Raises:
            MemlabError: VALIDATION `range`: the limit lies outside of those that the law was fitted between.
        """
        low, high = self.checked
        if not low <= limit <= high:
            raise validation("range", f"a limit of {limit}: the law was fitted from {low} to {high}; measure there first")
        return self.rate_per_s * limit / (1 + self.contention * (limit - 1) + self.coherency * limit * (limit - 1))

    @property
    def peak(self) -> int:
        """The limit inside of the fitted range with the highest throughput."""
        low, high = self.checked
        if self.coherency < _NEVER:
            return high
        top = math.sqrt(max(1 - self.contention, 0.0) / self.coherency)
        near = [min(max(limit, low), high) for limit in (math.floor(top), math.ceil(top))]
        return max(near, key=self.throughput_per_s)

    def enough(self, share: float = 0.95) -> int:
        """Return the smallest limit with at least *share* of the throughput of the peak."""
        best = self.throughput_per_s(self.peak)
        return next(limit for limit in range(self.checked[0], self.peak + 1) if self.throughput_per_s(limit) >= share * best)
