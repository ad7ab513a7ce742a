"""Which question is asked next."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.workload.popularity import Replayed, Zipf


@given(st.integers(1, 500), st.floats(0, 3), st.integers(0, 1000))
def test_zipf_draws_known_items_and_repeats_by_seed(items, exponent, seed):
    """Every choice is an item; the same seeds choose the same."""
    zipf = Zipf(items, exponent, seed)
    drawn = zipf.draw(200, np.random.default_rng(seed))
    assert ((drawn >= 0) & (drawn < items)).all()
    assert np.array_equal(drawn, Zipf(items, exponent, seed).draw(200, np.random.default_rng(seed)))


def test_zipf_follows_its_law():
    """With exponent 1 the second item is asked for half as often as the first, the tenth a tenth."""
    drawn = Zipf(100, 1.0, seed=1).draw(200_000, np.random.default_rng(2))
    counts = np.sort(np.bincount(drawn, minlength=100))[::-1]
    assert counts[1] / counts[0] == pytest.approx(1 / 2, rel=0.05)
    assert counts[9] / counts[0] == pytest.approx(1 / 10, rel=0.1)


def test_which_items_are_popular_is_the_seeds():
    """Another seed makes other items popular; the draws of two repeats agree on which are."""
    one = np.bincount(Zipf(50, 1.2, 1).draw(5_000, np.random.default_rng(1)), minlength=50).argmax()
    again = np.bincount(Zipf(50, 1.2, 1).draw(5_000, np.random.default_rng(2)), minlength=50).argmax()
    others = {
        int(np.bincount(Zipf(50, 1.2, seed).draw(5_000, np.random.default_rng(1)), minlength=50).argmax()) for seed in range(9)
    }
    assert one == again
    assert len(others) > 3


def test_a_trace_names_items_by_first_appearance():
    """Keys become items in the order in which they are first met, and are asked for in the order of the trace."""
    keys = np.array([70, 7, 70, 700, 7])
    drawn = Replayed(keys, 10).draw(10, np.random.default_rng(0))
    start = int(np.random.default_rng(0).integers(5))
    assert drawn.tolist() == [[0, 1, 0, 2, 1][(start + place) % 5] for place in range(10)]
    assert Replayed(keys, 2).draw(5, np.random.default_rng(0)).max() <= 1
