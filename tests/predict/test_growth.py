"""A power law is found where one was planted, its interval is the one worked out by hand, and what it misses is told."""

import math

import numpy as np
import pytest

from memlab.errors import MemlabError
from memlab.predict.growth import power_law

SIZES = [1_000, 10_000, 100_000]


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, -0.2])
def test_a_planted_exponent_is_found(exponent):
    """c n^e on three sizes gives e, no misfit, and a right prediction of the largest."""
    law = power_law(SIZES, [[0.3 * size**exponent] * 5 for size in SIZES])
    assert law.exponent.value == pytest.approx(exponent, abs=1e-9)
    assert law.factor == pytest.approx(0.3)
    assert law.misfit == pytest.approx(1.0)
    assert law.held_out == pytest.approx(1.0)
    assert law.steps == pytest.approx((exponent, exponent), abs=1e-9)
    assert law.at(5_000) == pytest.approx(0.3 * 5_000**exponent)


def test_the_interval_is_that_of_the_hand():
    """Sizes e and e^3, logarithms 0 ± 1 and 2 ± 1: slope 1, weights ∓1/2, each mean's variance 1, so error √(1/2), 2 degrees."""
    costs = [[math.exp(-1), math.exp(1)], [math.exp(1), math.exp(3)]]
    law = power_law([10, 1_000], costs)
    spread = math.log(1_000) - math.log(10)
    error = math.sqrt(2) / spread  # variances 2/2 = 1 at either end
    assert law.exponent.value == pytest.approx(2 / spread)
    assert law.exponent.high - law.exponent.value == pytest.approx(4.302653 * error, rel=1e-6)  # t, 2 degrees of freedom
    assert law.exponent.value - law.exponent.low == pytest.approx(4.302653 * error, rel=1e-6)


def test_one_noisy_end_alone_has_its_own_degrees_of_freedom():
    """With all variance at one size the interval has that size's repeats less one: 2."""
    law = power_law([10, 100], [[1.0, 1.0, 1.0], [math.exp(1), math.exp(2), math.exp(3)]])
    error = math.sqrt(1 / 3) / math.log(10)
    assert law.exponent.high - law.exponent.value == pytest.approx(4.302653 * error, rel=1e-6)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 400 noisy series with one true exponent, about 95 % of the intervals hold it."""
    chance = np.random.default_rng(1)
    held = sum(
        power_law(SIZES, [0.1 * size**0.4 * np.exp(chance.normal(0, 0.1, 5)) for size in SIZES]).exponent.holds(0.4)
        for _ in range(400)
    )
    assert 0.92 <= held / 400 <= 0.985


def test_what_is_no_power_law_is_told():
    """Flat, then linear: the exponent alone would mislead; steps, misfit and the held-out size say so."""
    law = power_law(SIZES, [[1.0] * 5, [1.0] * 5, [10.0] * 5])
    assert law.exponent.value == pytest.approx(0.5)
    assert law.steps == pytest.approx((0.0, 1.0), abs=1e-9)
    assert law.misfit == pytest.approx(10 ** (1 / 3))
    assert law.held_out == pytest.approx(0.1)


def test_too_little_says_so():
    """One size gives no exponent, one repeat no interval; sizes without a cost count as not measured."""
    assert power_law([1_000], [[1.0]]).exponent.value is None
    assert power_law([1_000, 10_000], [[1.0], []]).exponent.value is None
    single = power_law([1_000, 10_000], [[1.0], [10.0]]).exponent
    assert single.value == pytest.approx(1.0)
    assert single.low is None


def test_it_refuses_to_answer_beyond_what_was_measured():
    """Outside the sizes, and where nothing was fitted."""
    law = power_law(SIZES, [[1.0] * 2] * 3)
    with pytest.raises(MemlabError, match="outside"):
        law.at(1_000_000)
    with pytest.raises(MemlabError, match="nothing was fitted"):
        power_law([10], [[1.0]]).at(10)


def test_unlike_lengths_are_refused():
    with pytest.raises(MemlabError, match="once"):
        power_law([10, 10], [[1.0], [1.0]])
