"""What samples say, and how surely: percentiles, ratios and shares with 95 % intervals, or "too few".

Two sources of chance are kept apart. Inside a run, percentiles get distribution-free intervals from order statistics. Between
settings, whole repeats are resampled: raw samples of one run share its luck and would promise more than they know.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from memlab.errors import validation

Floats: TypeAlias = npt.NDArray[np.float64]
Verdict: TypeAlias = Literal["better", "worse", "no difference seen", "too few"]
Statistic: TypeAlias = Callable[[Floats], Floats]
"""Values of a figure for ways to draw repeats: (draws, repeats) weights to (draws,) values."""

CONFIDENCE = 0.95
FEWEST_REPEATS = 5
_LITTLE_TOLERANCE = 0.05
_EXACT_DRAWS = 2_000
_TOO_FEW = "too few"
_NORMAL = NormalDist()


class Interval(msgspec.Struct, frozen=True):
    """A figure with its 95 % interval.

    Attributes:
        value: None where there are too few samples to say.
        low, high: None where no interval can be given.
        n: raw samples of a percentile; repeats of everything else.
        note: why something is missing.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return its fields as plain values."""
        return msgspec.structs.asdict(self)

    def holds(self, value: float) -> bool:
        """Return whether *value* lies inside; never where there is no interval."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high


def fewest_samples(q: float) -> int:
    """Return how many samples a percentile needs: ten must lie beyond it.

    >>> fewest_samples(0.5), fewest_samples(0.95), fewest_samples(0.99)
    (20, 200, 1000)
    """
    return math.ceil(round(10 / (1 - q), 6))


def percentile(samples: npt.ArrayLike, q: float) -> Interval:
    """Return the *q* quantile with its distribution-free interval.

    The value is the smallest sample that at least a share *q* of all does not exceed; the interval runs between two order
    statistics chosen by the binomial distribution. It holds for independent samples; queues make neighbours alike, so
    settings are compared by `ratio`, over repeats.

    Args:
        samples: any order, any unit.
        q: in (0, 1).
    Returns:
        No value below `fewest_samples(q)`.
    Source: David and Nagaraja 2003, Order Statistics, section 7.1.

    >>> percentile(range(1, 101), 0.5)
    Interval(value=50.0, low=40.0, high=61.0, n=100, note=None)
    """
    if not 0 < q < 1:
        raise validation("bounds", f"a percentile lies between 0 and 1, not {q}")
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(ordered)
    if n < fewest_samples(q):
        return Interval(None, n=n, note=f"{_TOO_FEW}: {n} samples, {fewest_samples(q)} needed")
    low, high = _binomial_quantile((1 - CONFIDENCE) / 2, n, q), _binomial_quantile((1 + CONFIDENCE) / 2, n, q) + 1
    return Interval(float(ordered[_rank(q, n)]), float(ordered[max(low, 1) - 1]), float(ordered[min(high, n) - 1]), n)


def share(hits: int, n: int) -> Interval:
    """Return a share of independent trials with Wilson's interval (1927, doi 10.1080/01621459.1927.10502953).

    >>> share(0, 100).high < 0.04
    True
    """
    if n == 0:
        return Interval(None, note=f"{_TOO_FEW}: nothing was tried")
    z = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
    value = hits / n
    centre, half = value + z * z / (2 * n), z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return Interval(value, 0.0 if hits == 0 else max(low, 0.0), 1.0 if hits == n else min(high, 1.0), n)


def over_repeats(repeats: int, statistic: Statistic, *, seed: int = 0) -> Interval:
    """Return a figure of several repeats with the interval of a bootstrap that draws whole repeats.

    The percentile bootstrap is too narrow for a handful of repeats; its tails are widened to those of the t distribution
    (Hesterberg 2015, doi 10.1080/00031305.2015.1089789, section 5.4.1). Up to six repeats every draw is enumerated.

    Args:
        repeats: how many there are.
        statistic: the figure under given weights of the repeats.
        seed: of the draws, where they are too many to enumerate.
    Returns:
        No interval below five repeats; no value where the figure is not finite.
    """
    if repeats == 0:
        return Interval(None, note=f"{_TOO_FEW}: no repeats")
    value = float(statistic(np.ones((1, repeats)))[0])
    if not math.isfinite(value):
        return Interval(None, n=repeats, note=f"{_TOO_FEW}: a repeat has no samples")
    if repeats < FEWEST_REPEATS:
        return Interval(value, n=repeats, note=f"{_TOO_FEW} repeats: {repeats} of {FEWEST_REPEATS}")
    weights, chances = _draws(repeats, seed)
    values = statistic(weights)
    finite = np.isfinite(values)
    if not finite.all():
        return Interval(value, n=repeats, note=f"{_TOO_FEW}: a repeat has no samples")
    tail = widened_tail(repeats)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(chances[order])
    # The distribution has steps; the outer side of a step is taken, so that five repeats of nothing rarely differ.
    below = max(int(np.searchsorted(reached, tail)) - 1, 0)
    above = min(int(np.searchsorted(reached, 1 - tail)) + 1, len(order) - 1)
    return Interval(value, min(float(values[order[below]]), value), max(float(values[order[above]]), value), repeats)


def widened_tail(repeats: int) -> float:
    """Return which tail of a bootstrap over so many repeats, two or more, is the 2.5 % of a t interval (Hesterberg 2015).

    >>> round(widened_tail(5), 4), round(widened_tail(1000), 4)
    (0.001, 0.0248)
    """
    return _NORMAL.cdf(-math.sqrt(repeats / (repeats - 1)) * _student_quantile(CONFIDENCE, repeats - 1))


def mean(groups: Sequence[npt.ArrayLike]) -> Interval:
    """Return the mean of all samples, its interval over repeats; *groups* holds one repeat's samples each."""
    return over_repeats(len(groups), _mean_of(groups))


def quotient(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """Return the sum of the *numerators* over that of the *denominators*, one of each a repeat: a rate, a share, a mean.

    >>> quotient([10, 20, 10, 20, 15], [1.0] * 5).value
    15.0
    """
    return over_repeats(len(numerators), _quotient_of(numerators, denominators))


def ratio(reference: Sequence[npt.ArrayLike], candidate: Sequence[npt.ArrayLike], statistic: float | Literal["mean"]) -> Interval:
    """Return candidate over reference for a percentile or the mean, paired by repeat.

    Args:
        reference, candidate: one array of samples a repeat; repeat i of both ran side by side.
        statistic: a quantile in (0, 1), or `mean`.
    Raises:
        MemlabError: VALIDATION, reason `shape`: the settings have unlike numbers of repeats.

    >>> five = [[1.0, 2.0, 3.0]] * 5
    >>> ratio(five, [[2.0, 4.0, 6.0]] * 5, "mean")
    Interval(value=2.0, low=2.0, high=2.0, n=5, note=None)
    """
    if len(reference) != len(candidate):
        raise validation("shape", f"paired repeats: {len(reference)} of the reference, {len(candidate)} of the candidate")
    groups = [np.asarray(group, dtype=np.float64) for group in (*reference, *candidate)]
    if any(len(group) == 0 for group in groups):
        return Interval(None, n=len(reference), note=f"{_TOO_FEW}: a repeat has no samples")
    below, above = groups[: len(reference)], groups[len(reference) :]
    if statistic == "mean":
        return over_repeats(len(reference), _over(_mean_of(above), _mean_of(below)))
    fewest = min(sum(map(len, below)), sum(map(len, above)))
    if fewest < fewest_samples(statistic):
        note = f"{_TOO_FEW}: {fewest} samples, {fewest_samples(statistic)} needed"
        return Interval(None, n=len(reference), note=note)
    return over_repeats(len(reference), _over(_percentile_of(above, statistic), _percentile_of(below, statistic)))


def rate_ratio(
    reference: tuple[Sequence[float], Sequence[float]], candidate: tuple[Sequence[float], Sequence[float]]
) -> Interval:
    """Return candidate over reference for a rate, paired by repeat: each a pair (counts, seconds) with one entry a repeat."""
    return over_repeats(len(reference[0]), _over(_quotient_of(*candidate), _quotient_of(*reference)))


def verdict(interval: Interval, *, smaller_is_better: bool, floor: float = 1.0) -> Verdict:
    """Return what a ratio says of the candidate.

    Args:
        interval: candidate over reference.
        smaller_is_better: true of times, false of rates.
        floor: smallest ratio, 1 or more, that this host can show: what its A/A comparison reached.

    >>> verdict(Interval(0.8, 0.7, 0.9, 5), smaller_is_better=True)
    'better'
    >>> verdict(Interval(0.8, 0.7, 1.1, 5), smaller_is_better=True)
    'no difference seen'
    """
    if interval.value is None or interval.low is None or interval.high is None:
        return "too few"
    if interval.holds(1.0) or 1 / floor <= interval.value <= floor:
        return "no difference seen"
    return "better" if (interval.value < 1.0) == smaller_is_better else "worse"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for having been looked at together (Holm 1979, jstor 4615733), in their order.

    Whoever calls those below 5 % different is wrong about any of them in one family of twenty at most.

    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        reached = max(reached, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = reached
    return adjusted


class LittlesLaw(msgspec.Struct, frozen=True):
    """Mean in flight against throughput times mean response time.

    Attributes:
        in_flight: mean of a counter sampled on its own clock.
        expected: throughput times mean response time.
        ratio: in_flight over expected, with its interval over repeats.
        holds: within 5 %; None where the interval is too wide, or missing, to say that it does not.
    """

    in_flight: float | None
    expected: float | None
    ratio: Interval
    holds: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: in_flight, expected, ratio, low, high, holds."""
        return {
            "in_flight": self.in_flight,
            "expected": self.expected,
            "ratio": self.ratio.value,
            "low": self.ratio.low,
            "high": self.ratio.high,
            "holds": self.holds,
        }


def littles_law(in_flight: Sequence[float], throughput_per_s: Sequence[float], response_s: Sequence[float]) -> LittlesLaw:
    """Return whether what was seen in flight is what the response times say.

    Args:
        in_flight: mean of the sampled counter, one a repeat; nan where nothing was sampled.
        throughput_per_s, response_s: of the same repeats; response time from the intended start.
    Source: Little 1961, doi 10.1287/opre.9.3.383.

    >>> littles_law([2.0], [100.0], [0.02]).holds
    True
    """
    expected = [rate * response for rate, response in zip(throughput_per_s, response_s, strict=True)]
    seen = quotient(in_flight, expected)
    if seen.value is None:
        return LittlesLaw(None, None, seen, None)
    holds: bool | None = abs(seen.value - 1) <= _LITTLE_TOLERANCE
    if not holds:
        beyond = seen.low is not None and seen.low > 1 + _LITTLE_TOLERANCE
        below = seen.high is not None and seen.high < 1 - _LITTLE_TOLERANCE
        holds = False if beyond or below else None
    return LittlesLaw(float(np.mean(in_flight)), float(np.mean(expected)), seen, holds)


def recall_at_k(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], k: int) -> float:
    """Return the mean share of the true top *k* that a search found.

    Args:
        found: ids per query, best first; (n_queries, >= k) int64, -1 where empty.
        truth: ids from exact search; same layout as *found*. A query with fewer than *k* true answers counts by those it has,
            one without any is left out.
        k: list length compared, 1 or more.
    Returns:
        recall@k, a ratio in [0, 1]; nan where no query has an answer.
    Raises:
        MemlabError: VALIDATION, reason `shape`: row counts differ, or a row is shorter than *k*.
    Source: Aumüller, Bernhardsson, Faithfull 2019, doi 10.1016/j.is.2019.02.006.

    >>> recall_at_k(np.array([[3, 9]]), np.array([[3, 4]]), k=2)
    0.5
    """
    if k < 1 or found.ndim != 2 or truth.ndim != 2 or len(found) != len(truth) or min(found.shape[1], truth.shape[1]) < k:
        raise validation(
            "shape", f"recall@{k} compares two tables of as many rows with {k} or more columns, not {found.shape}, {truth.shape}"
        )
    true = truth[:, :k]
    wanted = (true >= 0).sum(axis=1)
    hits = ((true[:, :, None] == found[:, None, :k]) & (true >= 0)[:, :, None]).any(axis=2).sum(axis=1)
    asked = wanted > 0
    return float((hits[asked] / wanted[asked]).mean()) if asked.any() else math.nan


def _rank(q: float, n: int) -> int:
    """Return the position, from 0, of the *q* quantile among *n* ordered samples."""
    return max(math.ceil(round(q * n, 9)), 1) - 1


def _binomial_quantile(p: float, n: int, q: float) -> int:
    """Return the smallest k with P(B <= k) >= p for B binomial (n, q)."""
    spread = math.sqrt(n * q * (1 - q))
    first = max(0, math.floor(n * q - 12 * spread))
    last = min(n, math.ceil(n * q + 12 * spread))
    k = np.arange(first, last + 1)
    logs = _log_factorials(n)
    chances = np.exp(logs[n] - logs[k] - logs[n - k] + k * math.log(q) + (n - k) * math.log1p(-q))
    return first + int(np.searchsorted(np.cumsum(chances), p))


@functools.lru_cache(maxsize=8)
def _log_factorials(n: int) -> Floats:
    """Return ln k! for k = 0 … n."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


def _student_quantile(confidence: float, degrees: int) -> float:
    """Return t with P(-t <= T <= t) = *confidence* for Student's T, by bisection of its closed form for whole degrees.

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4. (scipy has it, and takes 0.6 s to import: as long as all else here.)
    """
    low, high = 0.0, 1e6
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, degrees) < confidence else (low, middle)
    return high


def _student_within(t: float, degrees: int) -> float:
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for step in range(1 + odd, degrees, 2):
        total += term
        term *= step / (step + 1) * cosine * cosine
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def _draws(repeats: int, seed: int) -> tuple[Floats, Floats]:
    """Return how often each repeat is drawn, (draws, repeats), and the chance of every draw."""
    if math.comb(2 * repeats - 1, repeats) <= _EXACT_DRAWS:
        counts = np.array(
            [
                np.bincount(chosen, minlength=repeats)
                for chosen in itertools.combinations_with_replacement(range(repeats), repeats)
            ],
            dtype=np.float64,
        )
        logs = _log_factorials(repeats)
        return counts, np.exp(logs[-1] - logs[counts.astype(np.int64)].sum(axis=1) - repeats * math.log(repeats))
    draws = np.random.default_rng(seed).multinomial(repeats, [1 / repeats] * repeats, size=_EXACT_DRAWS)
    return draws.astype(np.float64), np.full(_EXACT_DRAWS, 1 / _EXACT_DRAWS)


def _mean_of(groups: Sequence[npt.ArrayLike]) -> Statistic:
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    return _quotient_of([float(array.sum()) for array in arrays], [float(len(array)) for array in arrays])


def _quotient_of(numerators: Sequence[float], denominators: Sequence[float]) -> Statistic:
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)

    def value(weights: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Floats = (weights @ above) / (weights @ below)
        return result

    return value


def _percentile_of(groups: Sequence[Floats], q: float) -> Statistic:
    """Return the percentile of the samples of all drawn repeats together: percentiles are never averaged."""
    samples = np.concatenate(groups)
    order = np.argsort(samples, kind="stable")
    samples = samples[order]
    repeat = np.repeat(np.arange(len(groups)), [len(group) for group in groups])[order]
    sizes = np.array([len(group) for group in groups], dtype=np.float64)

    def value(weights: Floats) -> Floats:
        values = np.empty(len(weights))
        for draw, weight in enumerate(weights):
            wanted = _rank(q, int(weight @ sizes)) + 1
            values[draw] = samples[np.searchsorted(np.cumsum(weight[repeat]), wanted)]
        return values

    return value


def _over(above: Statistic, below: Statistic) -> Statistic:
    def value(weights: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Floats = above(weights) / below(weights)
        return result

    return value
