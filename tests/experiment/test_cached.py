"""A trace through the real cache."""

import asyncio

import numpy as np
import pytest

from memlab.errors import MemlabError
from memlab.experiment.cached import beside_measured, measured_hit_ratio
from memlab.predict.miss_ratio import Accesses, miss_ratio_curve
from memlab.settings import CacheSettings


def settings(size, **more):
    return CacheSettings(max_entries=size, max_bytes=None, **more)


def test_hits_by_hand():
    """a b a c b with two entries: only the second a hits; with three, b as well."""
    assert measured_hit_ratio([1, 2, 1, 3, 2], settings(2)) == 0.2
    assert measured_hit_ratio([1, 2, 1, 3, 2], settings(3)) == 0.4


def test_writes_and_age_by_hand():
    """A write makes its own key stale, and an answer is too old when its time has passed."""
    assert measured_hit_ratio([1, 2, 1, 1, 2], settings(9), is_read=[True, True, False, True, True]) == 0.25
    assert measured_hit_ratio([1, 1, 1], settings(9, ttl_s=2e-9), at_ns=[0, 1, 2]) == 1 / 3


def test_it_runs_where_a_loop_runs_already():
    """As in a notebook."""

    async def inside():
        return measured_hit_ratio([1, 1], settings(1))

    assert asyncio.run(inside()) == 0.5


def test_a_curve_beside_what_is_measured():
    """Two rows a size, as a chart draws them; a policy that the cache does not have is refused."""
    keys = np.array([1, 2, 1, 3, 2])
    frame = beside_measured(miss_ratio_curve(Accesses(keys), [2, 3]), keys)
    assert frame["what"].to_list() == ["predicted", "predicted", "measured", "measured"]
    assert frame["hit_ratio"].to_list() == [0.2, 0.4, 0.2, 0.4]
    with pytest.raises(MemlabError, match="no policy 'sieve'"):
        beside_measured(miss_ratio_curve(Accesses(keys), [2], policy="sieve"), keys)
