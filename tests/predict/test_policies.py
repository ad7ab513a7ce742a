"""Policies without stack distances, against plain replays and against the real cache."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.experiment.cached import measured_hit_ratio
from memlab.predict.policies import POLICIES, Endings, replay
from memlab.settings import CacheSettings
from tests.predict import plain

traces = st.lists(st.integers(0, 30), min_size=1, max_size=300)
sizes = st.integers(1, 25)
PLAIN = {"fifo": plain.fifo, "sieve": plain.sieve, "s3_fifo": plain.s3_fifo}


@pytest.mark.parametrize("policy", PLAIN)
@given(trace=traces, size=sizes)
def test_hits_are_those_of_a_plain_replay(policy, trace, size):
    """Access by access, for any size."""
    found = replay(np.array(trace), 31, policy, size)
    assert found.tolist() == PLAIN[policy](trace, size)


@pytest.mark.parametrize("policy", PLAIN)
@given(trace=traces, size=sizes, ttl=st.one_of(st.none(), st.integers(1, 60)), every=st.integers(2, 9), seed=st.integers(0, 99))
def test_writes_and_age_too(policy, trace, size, ttl, every, seed):
    """What is written leaves at once, what is too old when it is asked for; access by access."""
    keys = np.array(trace)
    chance = np.random.default_rng(seed)
    at = np.cumsum(chance.integers(0, 5, len(keys)))
    written = np.flatnonzero(chance.integers(0, every, len(keys)) == 0)  # before these accesses, the key of another
    target = chance.integers(0, 31, len(written))
    stale_at = np.array(
        [
            min((when for when, what in zip(written, target, strict=True) if what == key and when > place), default=len(keys))
            for place, key in enumerate(trace)
        ]
    )
    endings = Endings.of(keys, at, stale_at, None if ttl is None else np.full(len(keys), ttl))
    found = replay(keys, 31, policy, size, endings=endings)
    assert found.tolist() == PLAIN[policy](trace, size, at=at.tolist(), ttl=ttl, stale_at=stale_at.tolist())


@pytest.mark.parametrize("policy", PLAIN)
def test_a_skewed_trace_too(policy):
    """Long enough that every queue turns over many times."""
    trace = np.random.default_rng(3).zipf(1.1, 4_000) % 300
    for size in (3, 10, 40, 150):
        assert replay(trace, 300, policy, size).tolist() == PLAIN[policy](trace.tolist(), size)


@pytest.mark.parametrize("policy", [one for one in POLICIES if one != "lru"])
def test_a_cache_for_all_keys_misses_each_once(policy):
    """Whatever the policy, nothing leaves."""
    trace = np.random.default_rng(1).integers(0, 50, 2_000)
    expected = [key not in trace[:position] for position, key in enumerate(trace.tolist())]
    size = 50 if policy != "s3_fifo" else 60
    assert (~replay(trace, 50, policy, size)).tolist() == expected


@pytest.mark.parametrize("size", [50, 200, 800])
def test_w_tinylfu_is_that_of_the_real_cache(size):
    """The same policy, in the way that the cache uses it: hash seeds differ, so means of some runs are within a point."""
    trace = np.random.default_rng(5).zipf(1.15, 30_000) % 3_000
    settings = CacheSettings(policy="w_tinylfu", max_entries=size, max_bytes=None)
    predicted = np.mean([replay(trace, 3_000, "w_tinylfu", size).mean() for _ in range(8)])
    measured = np.mean([measured_hit_ratio(trace.tolist(), settings) for _ in range(4)])
    assert predicted == pytest.approx(measured, abs=0.01)
