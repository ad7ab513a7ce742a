"""How a cost grows with the store: a power law fitted to measurements of several sizes, with what it does not explain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import special

from memlab.errors import validation
from memlab.measure.stats import CONFIDENCE, Floats, Interval


class PowerLaw(msgspec.Struct, frozen=True, kw_only=True):
    """cost = factor × size ** exponent, by least squares over the logarithms.

    Attributes:
        exponent: 0 for a cost that does not grow, 1 for one that grows as the store does. The interval is that of the repeats
            alone: how far the sizes lie from one line is told by *misfit*.
        factor: cost of a store of one; None where there is no exponent.
        steps: exponents between neighbouring sizes, in rising order: equal where a power law holds.
        misfit: the largest factor, 1 or more, between a measured cost and the fitted one; 1 for two sizes, which always fit.
        held_out: what the smaller sizes predict for the largest, over what was measured there; None from fewer than three.
        smallest, largest: sizes that were measured; the law says nothing beyond.
    """

    exponent: Interval
    factor: float | None = None
    steps: tuple[float, ...] = ()
    misfit: float | None = None
    held_out: float | None = None
    smallest: int | None = None
    largest: int | None = None

    def at(self, size: int) -> float:
        """Return the cost at a size between the smallest and the largest that were measured.

        Raises:
            MemlabError: VALIDATION `bounds`: outside, or nothing was fitted.
        """
        if self.factor is None or self.exponent.value is None or self.smallest is None or self.largest is None:
            raise validation("bounds", "nothing was fitted: a power law needs two sizes or more")
        if not self.smallest <= size <= self.largest:
            raise validation("bounds", f"size {size:,} lies outside what was measured, {self.smallest:,} to {self.largest:,}")
        return float(self.factor * size**self.exponent.value)


def power_law(sizes: Sequence[int], costs: Sequence[npt.ArrayLike]) -> PowerLaw:
    """Return the power law of costs that were measured on stores of several sizes.

    The exponent is a weighted sum of the mean logarithms of each size; its standard error adds up their variances over the
    repeats, and its interval is that of Student's t with the degrees of freedom of Welch and Satterthwaite.

    Args:
        sizes: above 0, each once.
        costs: for each size, one figure for each repeat, such as its median; above 0.
    Returns:
        No exponent from fewer than two sizes, no interval where a size has fewer than two repeats.
    Raises:
        MemlabError: VALIDATION `shape`: not as many lists of costs as sizes, or a size twice.
    Source: Satterthwaite 1946, doi 10.2307/3002019.

    >>> round(power_law([10, 1000], [[2.0, 2.0], [20.0, 20.0]]).exponent.value, 6)
    0.5
    """
    if len(sizes) != len(costs) or len(set(sizes)) != len(sizes):
        raise validation("shape", f"a power law needs costs for each of its sizes, once: {len(sizes)} sizes, {len(costs)} costs")
    known = sorted((size, np.log(_positive(cost))) for size, cost in zip(sizes, costs, strict=True) if len(_positive(cost)))
    if len(known) < 2:
        return PowerLaw(exponent=Interval(None, n=len(known), note=f"too few: {len(known)} sizes, 2 needed"))
    x = np.log(np.array([size for size, _ in known], np.float64))
    y = np.array([cost.mean() for _, cost in known])
    slope, level = _line(x, y)
    fitted = level + slope * x
    return PowerLaw(
        exponent=_with_interval(slope, x, [cost for _, cost in known]),
        factor=math.exp(level),
        steps=tuple((np.diff(y) / np.diff(x)).tolist()),
        misfit=math.exp(float(np.abs(y - fitted).max())),
        held_out=_held_out(x, y),
        smallest=known[0][0],
        largest=known[-1][0],
    )


def _positive(costs: npt.ArrayLike) -> Floats:
    values = np.asarray(costs, dtype=np.float64)
    return values[np.isfinite(values) & (values > 0)]


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Return slope and level of the least-squares line."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    return slope, float(y.mean() - slope * x.mean())


def _with_interval(slope: float, x: Floats, logs: Sequence[Floats]) -> Interval:
    repeats = min(len(one) for one in logs)
    if repeats < 2:
        return Interval(slope, n=repeats, note=f"too few repeats: {repeats} of 2")
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    parts = np.array([weight**2 * one.var(ddof=1) / len(one) for weight, one in zip(weights, logs, strict=True)])
    variance = float(parts.sum())
    if not variance:
        return Interval(slope, slope, slope, repeats)
    freedom = variance**2 / float(sum(part**2 / (len(one) - 1) for part, one in zip(parts, logs, strict=True)))
    half = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return Interval(slope, slope - half, slope + half, repeats)


def _held_out(x: Floats, y: Floats) -> float | None:
    if len(x) < 3:
        return None
    slope, level = _line(x[:-1], y[:-1])
    return math.exp(level + slope * float(x[-1]) - float(y[-1]))
