"""Statistics: numbers worked out by hand, then properties, then what they promise of chance."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special
from scipy import stats as scipy_stats

from memlab.errors import MemlabError
from memlab.measure import stats
from memlab.measure.stats import Interval

times = st.lists(st.floats(0.001, 1e6), min_size=20, max_size=300)


def test_percentile_by_hand():
    """The p50 of 1 … 100 is 50; B(100, ½) has 2.5 % below 40 and above 60, so the interval runs from the 40th to the 61st."""
    assert stats.percentile(range(1, 101), 0.5) == Interval(50.0, 40.0, 61.0, 100)


def test_percentile_is_the_smallest_sample_that_reaches_the_share():
    """No sample between two is invented: the p90 of 1 … 100 is the 90th, the p95 of 1 … 200 the 190th."""
    assert stats.percentile(range(1, 101), 0.9).value == 90.0
    assert stats.percentile(range(1, 201), 0.95).value == 190.0


@pytest.mark.parametrize(("q", "fewest"), [(0.5, 20), (0.95, 200), (0.99, 1000)])
def test_percentiles_of_too_few_samples_are_not_given(q, fewest):
    """Below 200 samples there is no p95, below 1,000 no p99; the note says so."""
    short = stats.percentile(range(fewest - 1), q)
    assert short.value is None
    assert short.low is None
    assert "too few" in short.note
    assert str(fewest) in short.note
    assert stats.percentile(range(fewest), q).value is not None


@given(times, st.sampled_from([0.25, 0.5]))
def test_percentile_lies_in_its_interval_and_among_the_samples(samples, q):
    """low ≤ value ≤ high, all of them samples, in whatever order they came."""
    found = stats.percentile(samples, q)
    assume(found.value is not None)
    assert found.low <= found.value <= found.high
    assert {found.low, found.value, found.high} <= set(samples)
    assert found == stats.percentile(samples[::-1], q)


@given(st.integers(0, 2**32), st.integers(1000, 3000), st.floats(0.0, 3.0))
def test_percentiles_are_in_order(seed, count, spread):
    """p50 ≤ p95 ≤ p99 ≤ the longest."""
    samples = np.random.default_rng(seed).lognormal(0.0, spread, count)
    p50, p95, p99 = (stats.percentile(samples, q).value for q in (0.5, 0.95, 0.99))
    assert p50 <= p95 <= p99 <= max(samples)


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_percentile_intervals_hold_the_truth_as_often_as_they_say(q):
    """Of 400 exponential samples of 400 the interval holds the true quantile in 95 % of the cases, or a little more."""
    chance = np.random.default_rng(1)
    truth = -math.log(1 - q)
    held = sum(stats.percentile(chance.exponential(size=400), q).holds(truth) for _ in range(400))
    assert 0.93 <= held / 400 <= 1.0


def test_quantiles_agree_with_scipy():
    """The binomial and Student quantiles made here are those of scipy."""
    for n in (20, 333, 5_000):
        for q in (0.5, 0.95, 0.99):
            for p in (0.025, 0.975):
                assert stats._binomial_quantile(p, n, q) == int(scipy_stats.binom.ppf(p, n, q))
    for degrees in range(1, 40):
        assert stats._student_quantile(0.95, degrees) == pytest.approx(special.stdtrit(degrees, 0.975), rel=1e-6)


def test_share_by_hand():
    """Wilson's interval of 5 in 10 is 0.2366 to 0.7634; none in 100 may still be 3.7 %."""
    half = stats.share(5, 10)
    assert half.low == pytest.approx(0.2366, abs=1e-4)
    assert half.high == pytest.approx(0.7634, abs=1e-4)
    none = stats.share(0, 100)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.037, abs=1e-3)
    assert stats.share(0, 0).value is None


@given(st.integers(0, 500), st.integers(1, 500))
def test_share_stays_a_share(hits, more):
    """0 ≤ low ≤ value ≤ high ≤ 1."""
    found = stats.share(hits, hits + more)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_quotient_by_hand():
    """Repeats weigh by what they hold: 90 of 100 and 0 of 20 are 0.75."""
    assert stats.quotient([90, 0], [100, 20]).value == pytest.approx(0.75)


def test_too_few_repeats_have_no_interval():
    """Four repeats give a value and no interval; no repeats give nothing."""
    few = stats.quotient([1.0] * 4, [2.0] * 4)
    assert (few.value, few.low, few.high) == (0.5, None, None)
    assert "4 of 5" in few.note
    assert stats.quotient([], []).value is None
    assert stats.mean([]).value is None


def test_an_empty_denominator_is_too_few_and_no_number():
    """Where nothing was counted there is nothing to divide by."""
    nothing = stats.quotient([0.0] * 5, [0.0] * 5)
    assert nothing.value is None
    assert "too few" in nothing.note
    assert stats.quotient([1.0, 0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0, 1.0]).low is None


def test_five_repeats_reach_from_the_worst_to_the_best():
    """Five repeats can tell no more than their range; their bootstrap reaches about so far."""
    found = stats.quotient([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5)
    assert found.value == pytest.approx(3.0)
    assert 1.0 <= found.low <= 1.4
    assert 4.6 <= found.high <= 5.0


def test_ratio_by_hand():
    """Twice as slow in every repeat is a ratio of 2 for whatever figure, without doubt."""
    slow = [np.arange(1, 101) * 2.0] * 5
    fast = [np.arange(1, 101) * 1.0] * 5
    for figure in (0.5, 0.95, "mean"):
        assert stats.ratio(fast, slow, figure) == Interval(2.0, 2.0, 2.0, 5)
        assert stats.ratio(slow, fast, figure).value == 0.5


def test_ratio_pools_samples_and_never_averages_percentiles():
    """A repeat with a thousand samples outweighs one with twenty."""
    reference = [np.ones(1000), np.full(20, 100.0)]
    candidate = [np.ones(1000), np.full(20, 1.0)]
    assert stats.ratio(reference, candidate, 0.5).value == 1.0


def test_ratio_refuses_what_is_not_paired():
    """Each repeat of the one ran beside a repeat of the other, or they cannot be compared."""
    with pytest.raises(MemlabError, match="5 of the reference, 4 of the candidate") as caught:
        stats.ratio([[1.0]] * 5, [[1.0]] * 4, 0.5)
    assert caught.value.reason == "shape"


def test_ratio_of_too_few_samples_is_not_given():
    """A p95 that neither side could show is no ratio either."""
    few = [np.ones(30)] * 5
    assert stats.ratio(few, few, 0.95).value is None
    assert stats.ratio(few, few, 0.5).value == 1.0
    assert stats.ratio([np.ones(100), []], [np.ones(100)] * 2, 0.5).value is None


@given(st.lists(st.lists(st.floats(0.1, 100), min_size=4, max_size=9), min_size=5, max_size=5), st.floats(0.1, 10))
def test_scaling_the_candidate_scales_the_ratio(groups, factor):
    """A change of unit on one side is a factor of the ratio and both its ends."""
    plain = stats.ratio(groups, groups, "mean")
    scaled = stats.ratio(groups, [[value * factor for value in group] for group in groups], "mean")
    assert scaled.value == pytest.approx(plain.value * factor)
    assert scaled.low == pytest.approx(plain.low * factor)
    assert scaled.high == pytest.approx(plain.high * factor)


@pytest.mark.parametrize("repeats", [5, 8])
def test_equals_rarely_differ(repeats):
    """Planted null data: where both settings are one, and repeats differ as they do on a shared host, at most one comparison in
    ten says otherwise."""
    chance = np.random.default_rng(7)

    def measured():
        return [np.exp(chance.normal(0, 0.5, 60) + chance.normal(0, 0.1)) for _ in range(repeats)]

    verdicts = [stats.verdict(stats.ratio(measured(), measured(), "mean"), smaller_is_better=True) for _ in range(200)]
    assert verdicts.count("no difference seen") >= 180


def test_a_planted_difference_is_seen():
    """A candidate that takes 30 % less is better in nearly every comparison."""
    chance = np.random.default_rng(7)

    def measured(factor):
        return [factor * np.exp(chance.normal(0, 0.5, 100) + chance.normal(0, 0.05)) for _ in range(5)]

    verdicts = [stats.verdict(stats.ratio(measured(1.0), measured(0.7), "mean"), smaller_is_better=True) for _ in range(60)]
    assert verdicts.count("better") >= 55


@pytest.mark.parametrize(
    ("interval", "smaller_is_better", "floor", "expected"),
    [
        (Interval(0.8, 0.7, 0.9, 5), True, 1.0, "better"),
        (Interval(0.8, 0.7, 0.9, 5), False, 1.0, "worse"),
        (Interval(1.3, 1.1, 1.5, 5), True, 1.0, "worse"),
        (Interval(1.3, 1.1, 1.5, 5), False, 1.0, "better"),
        (Interval(0.8, 0.7, 1.0, 5), True, 1.0, "no difference seen"),
        (Interval(0.8, 0.7, 0.9, 5), True, 1.3, "no difference seen"),
        (Interval(1.3, 1.1, 1.5, 5), True, 1.4, "no difference seen"),
        (Interval(0.8, None, None, 4, "too few repeats"), True, 1.0, "too few"),
        (Interval(None, None, None, 5, "too few"), True, 1.0, "too few"),
    ],
)
def test_verdict(interval, smaller_is_better, floor, expected):
    """An interval that holds 1, or a ratio below the noise floor, is no difference; without an interval nothing is said."""
    assert stats.verdict(interval, smaller_is_better=smaller_is_better, floor=floor) == expected


def test_littles_law_by_hand():
    """100 answers a second of 20 ms are 2 in flight."""
    law = stats.littles_law([2.0] * 5, [100.0] * 5, [0.02] * 5)
    assert law.holds is True
    assert (law.in_flight, law.expected) == (2.0, 2.0)
    assert law.to_dict()["ratio"] == 1.0


def test_littles_law_fails_where_calls_are_missing():
    """Three in flight where two are told of: a quarter of the calls was never recorded, or counted from the wrong time."""
    law = stats.littles_law([3.0] * 5, [100.0] * 5, [0.02] * 5)
    assert law.holds is False


def test_littles_law_is_open_where_chance_could_explain_it():
    """Beyond 5 %, but with an interval that reaches into it, or with none: not said."""
    assert stats.littles_law([2.0, 2.4, 1.9, 2.6, 1.9], [100.0] * 5, [0.02] * 5).holds is None
    assert stats.littles_law([2.4], [100.0], [0.02]).holds is None
    assert stats.littles_law([math.nan] * 5, [100.0] * 5, [0.02] * 5).holds is None


def test_recall_at_k_by_hand():
    """One of two found is a half; the order does not matter."""
    found = np.array([[3, 9, 5], [1, 2, 7]])
    truth = np.array([[3, 4, 8], [2, 1, 9]])
    assert stats.recall_at_k(found, truth, 2) == 0.75
    assert stats.recall_at_k(truth, truth, 3) == 1.0


def test_recall_counts_what_exists():
    """A query with one true answer is complete with it; one without any is left out; -1 finds nothing."""
    found = np.array([[3, -1], [-1, -1], [5, 6]])
    truth = np.array([[3, -1], [-1, -1], [8, 9]])
    assert stats.recall_at_k(found, truth, 2) == 0.5
    assert math.isnan(stats.recall_at_k(found[1:2], truth[1:2], 2))


@pytest.mark.parametrize(
    ("found", "truth", "k"), [((2, 3), (3, 3), 2), ((2, 1), (2, 3), 2), ((2, 3), (2, 1), 2), ((2, 3), (2, 3), 0)]
)
def test_recall_refuses_other_shapes(found, truth, k):
    """Tables of unlike length, or rows shorter than k, are refused."""
    with pytest.raises(MemlabError) as caught:
        stats.recall_at_k(np.zeros(found, dtype=np.int64), np.zeros(truth, dtype=np.int64), k)
    assert caught.value.reason == "shape"
