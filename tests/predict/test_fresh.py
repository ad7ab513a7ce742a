"""A time to live, against a plain replay."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memlab.predict.fresh import Ageing
from memlab.predict.stack_distance import stack_distances
from tests.predict import plain

steps = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), min_size=1, max_size=120)


def test_an_answer_ages_from_when_it_was_fetched():
    """Fetched at 0 for 10: served at 4 and 9, fetched again at 10, served at 19."""
    keys, at = np.zeros(5, dtype=np.int64), np.array([0, 4, 9, 10, 19])
    assert Ageing(keys, at, 10).hits(stack_distances(keys), 1).tolist() == [False, True, True, False, True]


@given(steps, st.integers(1, 25), st.booleans())
def test_hits_are_those_of_a_replay(trace, ttl, written):
    """At every size, with writes and without."""
    keys, at = [key for key, _ in trace], np.cumsum([gap for _, gap in trace])
    stale_at = [position + 1 + 3 * key for position, key in enumerate(keys)] if written else None
    distances = stack_distances(np.array(keys), None if stale_at is None else np.array(stale_at))
    ageing = Ageing(np.array(keys), at, ttl)
    for size in (1, 2, 3, 5, 9):
        assert ageing.hits(distances, size).tolist() == plain.lru(keys, size, at=at, ttl=ttl, stale_at=stale_at)


def test_each_answer_may_have_a_time_of_its_own():
    """Of two keys fetched at 0, the one that lives for 5 is too old at 6."""
    keys, at = np.array([1, 2, 1, 2]), np.array([0, 0, 6, 6])
    assert Ageing(keys, at, np.array([5, 50, 5, 50])).hits(stack_distances(keys), 2).tolist() == [False, False, False, True]
