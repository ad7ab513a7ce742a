"""The slope of a series whose neighbours are alike, with an interval that knows it."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from memlab.errors import validation
from memlab.measure.stats import CONFIDENCE, Floats, Interval

FEWEST = 10
_LEAST_EFFECTIVE = 3.0  # samples that are left when alikeness is discounted, below which a line says nothing


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted line.

    Attributes:
        slope: in units of the values for one unit of the times, with its 95 % interval.
        theil_sen: the median of all pairwise slopes with the interval of its ranks, as a cross-check; neighbours count as unlike.
        autocorrelation: of neighbouring residuals, lag one.
        effective: how many independent samples the series is worth.
    """

    slope: Interval
    theil_sen: Interval
    autocorrelation: float
    effective: float


def trend(times: npt.ArrayLike, values: npt.ArrayLike) -> Trend:
    """Return the slope of *values* over *times*.

    The least-squares slope's standard error is widened to the effective sample size n (1 - r) / (1 + r), r the lag-one
    autocorrelation of the residuals, never below nought.

    Args:
        times: ascending, evenly spaced or nearly.
    Raises:
        MemlabError: VALIDATION `shape`: unlike lengths.
    Source: Santer et al. 2000, doi 10.1029/1999JD901105; Sen 1968, doi 10.1080/01621459.1968.10480934.
    """
    x, y = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise validation("shape", f"a trend needs as many times as values, not {x.shape} and {y.shape}")
    n = len(x)
    if n < FEWEST:
        few = Interval(None, n=n, note=f"too few: {n} samples, {FEWEST} needed")
        return Trend(slope=few, theil_sen=few, autocorrelation=0.0, effective=float(n))
    centred = x - x.mean()
    spread = float(centred @ centred)
    if not spread:
        flat = Interval(None, n=n, note="all samples are of one time")
        return Trend(slope=flat, theil_sen=flat, autocorrelation=0.0, effective=1.0)
    slope = float(centred @ (y - y.mean())) / spread
    residuals = y - y.mean() - slope * centred
    alike = _autocorrelation(residuals)
    effective = n * (1 - alike) / (1 + alike)
    return Trend(
        slope=_interval(slope, residuals, spread, n, effective),
        theil_sen=_theil_sen(x, y),
        autocorrelation=alike,
        effective=effective,
    )


def _interval(slope: float, residuals: Floats, spread: float, n: int, effective: float) -> Interval:
    from scipy.stats import t

    if effective < _LEAST_EFFECTIVE:
        return Interval(slope, n=n, note=f"too few: neighbours are so alike that {n} samples are worth {effective:.1f}")
    error = math.sqrt(float(residuals @ residuals) / (effective - 2) / spread)
    half = float(t.ppf((1 + CONFIDENCE) / 2, effective - 2)) * error
    return Interval(slope, slope - half, slope + half, n)


def _autocorrelation(residuals: Floats) -> float:
    """Return the lag-one autocorrelation, corrected for the bias of short series (Kendall 1954), in [0, 0.999]."""
    total = float(residuals @ residuals)
    if not total:
        return 0.0
    seen = float(residuals[:-1] @ residuals[1:]) / total
    return min(max(seen + (1 + 4 * seen) / len(residuals), 0.0), 0.999)


def _theil_sen(x: Floats, y: Floats) -> Interval:
    from scipy.stats import theilslopes

    step = max(len(x) // 1_000, 1)  # all pairs of a long series would take its square
    found = theilslopes(y[::step], x[::step], alpha=CONFIDENCE)
    return Interval(float(found.slope), float(found.low_slope), float(found.high_slope), len(x))
