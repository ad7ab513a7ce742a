"""The law is found again where it was planted, and answers inside of its range alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.errors import MemlabError
from memlab.predict.scalability import Scalability

LIMITS = [1, 2, 4, 8, 16, 32]


def planted(limits, contention=0.05, coherency=0.002, rate=100.0):
    n = np.asarray(limits, dtype=float)
    return rate * n / (1 + contention * (n - 1) + coherency * n * (n - 1))


def test_what_was_planted_is_found_on_limits_that_were_not_seen():
    """By Gunther's own example of a peak: sqrt((1 - 0.05) / 0.002) = 21.8."""
    law = Scalability.fit(LIMITS, planted(LIMITS))
    assert (law.rate_per_s, law.contention, law.coherency) == pytest.approx((100, 0.05, 0.002))
    for unseen in (3, 6, 12, 24):
        assert law.throughput_per_s(unseen) == pytest.approx(float(planted(unseen)))
    assert law.peak == 22
    assert law.enough(0.95) == min(n for n in range(1, 33) if planted(n) >= 0.95 * planted(22))


def test_it_is_close_where_measurements_are_noisy():
    """Five percent of noise leave the median of unseen limits within five."""
    chance = np.random.default_rng(4)
    repeated = LIMITS * 5
    law = Scalability.fit(repeated, planted(repeated) * chance.normal(1, 0.05, len(repeated)))
    errors = [abs(law.throughput_per_s(n) / planted(n) - 1) for n in range(1, 33)]
    assert np.median(errors) < 0.05


def test_a_law_without_coherency_has_its_peak_at_the_end():
    """Throughput that only levels off is highest at the highest limit; flat throughput is enough at 1."""
    assert Scalability.fit(LIMITS, planted(LIMITS, 0.1, 0.0)).peak == 32
    flat = Scalability.fit(LIMITS, [500.0] * 6)
    assert flat.contention == pytest.approx(1.0)
    assert flat.enough() == 1


def test_falling_throughput_is_best_at_one():
    """Where every further place costs, one is the peak."""
    law = Scalability.fit(LIMITS, [500.0 / (1 + 0.05 * (n - 1)) for n in LIMITS])
    assert law.peak == 1 == law.enough()


@given(st.floats(0.0, 1.5), st.floats(0.0, 0.05), st.floats(1.0, 1e5))
def test_no_constant_is_below_zero_and_the_fit_is_exact(contention, coherency, rate):
    """Whatever law is planted."""
    law = Scalability.fit(LIMITS, planted(LIMITS, contention, coherency, rate))
    assert law.contention >= 0 and law.coherency >= 0
    assert [law.throughput_per_s(n) for n in LIMITS] == pytest.approx(
        planted(LIMITS, contention, coherency, rate).tolist(), rel=1e-4
    )
    assert 1 <= law.enough() <= law.peak <= 32


@pytest.mark.parametrize(
    ("limits", "rates", "told"),
    [([1, 2], [1, 2], "different limits"), ([1, 2, 4], [1, 0, 2], "above 0"), ([0, 1, 2], [1, 1, 1], "of 1 or more")],
)
def test_what_cannot_be_fitted_is_refused(limits, rates, told):
    """Too few limits, or no throughput."""
    with pytest.raises(MemlabError, match=told):
        Scalability.fit(limits, rates)


def test_it_refuses_beyond_what_was_measured():
    """33 was not."""
    with pytest.raises(MemlabError, match="fitted from 1 to 32") as caught:
        Scalability.fit(LIMITS, planted(LIMITS)).throughput_per_s(33)
    assert caught.value.reason == "range"
