"""The slope of a series: known lines are found, and an interval over alike neighbours is as wide as it must be."""

import numpy as np
import pytest

from memlab.errors import MemlabError
from memlab.measure.trend import trend


def alike(count, rho, seed, spread=1.0):
    """Noise whose neighbours correlate with *rho*."""
    chance = np.random.default_rng(seed)
    noise = np.empty(count)
    noise[0] = chance.normal()
    for place in range(1, count):
        noise[place] = rho * noise[place - 1] + np.sqrt(1 - rho * rho) * chance.normal()
    return spread * noise


def test_a_line_is_its_own_slope():
    """Without noise the slope is exact and its interval nothing."""
    found = trend(np.arange(20.0), 3.0 * np.arange(20.0) + 7)
    assert found.slope.value == pytest.approx(3.0)
    assert found.slope.high - found.slope.low < 1e-9
    assert found.theil_sen.value == pytest.approx(3.0)


def test_the_interval_is_that_of_a_textbook():
    """Five-times-two points worked out by hand: slope 1, residuals ±1 in turn, which are not alike."""
    x = np.arange(10.0)
    found = trend(x, x + np.tile([1.0, -1.0], 5))
    assert found.autocorrelation == 0.0
    assert found.effective == 10
    assert found.slope.value == pytest.approx(1 - 5 / 82.5)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_interval_holds_the_truth_as_often_as_it_says(rho):
    """200 series of 200 looks without any slope: nine intervals of ten hold nought, also where neighbours are alike."""
    times = np.arange(200.0)
    found = [trend(times, alike(200, rho, seed)).slope for seed in range(200)]
    assert sum(one.holds(0.0) for one in found) >= 180


def test_alike_neighbours_widen_the_interval():
    """A correlation of 0.8 makes nine looks worth about one."""
    times = np.arange(2_000.0)
    found = trend(times, alike(2_000, 0.8, 1))
    assert found.autocorrelation == pytest.approx(0.8, abs=0.05)
    assert found.effective == pytest.approx(2_000 / 9, rel=0.3)


def test_outliers_move_the_line_and_not_its_cross_check():
    """Theil and Sen's slope stays where one look in ten is wild."""
    values = 2.0 * np.arange(100.0)
    values[::10] += np.linspace(0, 4_000, 10)
    found = trend(np.arange(100.0), values)
    assert found.theil_sen.value == pytest.approx(2.0, rel=0.1)
    assert found.slope.value > 2.5


@pytest.mark.parametrize(("times", "note"), [(np.arange(5.0), "too few"), (np.zeros(20), "one time")])
def test_what_says_nothing_has_no_slope(times, note):
    """Few looks, or all at once."""
    found = trend(times, np.ones(len(times)))
    assert found.slope.value is None
    assert note in found.slope.note


def test_unlike_lengths_are_refused():
    with pytest.raises(MemlabError, match="as many times as values"):
        trend([1, 2], [1])
