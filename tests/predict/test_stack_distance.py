"""How far back an access reaches, by hand and against plain replays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.predict import stack_distance
from memlab.predict.stack_distance import NEVER, distinct_between, previous_accesses, stack_distances
from tests.predict import plain

traces = st.lists(st.integers(0, 12), min_size=1, max_size=120)
SIZES = (1, 2, 3, 5, 8, 13)


def test_distances_by_hand():
    """a b c b a a: b reaches over c; a over c and b; then over nothing."""
    assert stack_distances(np.array([1, 2, 3, 2, 1, 1])).tolist() == [NEVER, NEVER, NEVER, 1, 2, 0]


def test_a_write_by_hand():
    """a b c, a write to b, d, a: d took b's place, so a lies two deep and not three."""
    keys = np.array([1, 2, 3, 4, 1])
    assert stack_distances(keys)[4] == 3
    assert stack_distances(keys, np.array([9, 3, 9, 9, 9]))[4] == 2


def test_what_was_written_is_missed_at_any_size():
    """a, a write to a, a."""
    assert stack_distances(np.array([1, 1, 1]), np.array([1, 9, 9])).tolist() == [NEVER, NEVER, 0]


@given(traces)
def test_distances_are_those_of_a_list(trace):
    """Moving each key to the front of a list says the same."""
    listed, expected = [], []
    for key in trace:
        expected.append(listed.index(key) if key in listed else NEVER)
        if key in listed:
            listed.remove(key)
        listed.insert(0, key)
    assert stack_distances(np.array(trace)).tolist() == expected


@given(traces, st.randoms(use_true_random=False), st.sampled_from([1, 3, 32, 256]))
def test_writes_are_those_of_a_replay(trace, chance, block):
    """At every size the hits are those of a cache that drops what is written, whatever the length of a block."""
    stale_at = [chance.choice([position + chance.randint(1, 20), len(trace)]) for position in range(len(trace))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack_distance, "_BLOCK", block)
        distances = stack_distances(np.array(trace), np.array(stale_at))
    for size in SIZES:
        assert (distances < size).tolist() == plain.lru(trace, size, stale_at=stale_at)


@pytest.mark.parametrize("part", [2, 64, 1 << 15])
def test_long_traces_are_sorted_in_parts(part, monkeypatch):
    """Whatever fits into the processor's cache, the distances are the same as those by counting."""
    monkeypatch.setattr(stack_distance, "_IN_CACHE", part)
    keys = np.random.default_rng(part).zipf(1.3, 3_000) % 500
    before = previous_accesses(keys)
    expected = [len(set(keys[last + 1 : now])) if last >= 0 else NEVER for now, last in enumerate(before)]
    assert stack_distances(keys).tolist() == expected


@given(traces, st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), min_size=1, max_size=20))
def test_keys_in_a_range_are_counted_once(trace, ranges):
    """As many as a set of them holds."""
    low = np.array([min(pair[0], len(trace)) for pair in ranges])
    high = np.maximum(low, [min(pair[1], len(trace)) for pair in ranges])
    found = distinct_between(previous_accesses(np.array(trace)), low, high)
    assert found.tolist() == [len(set(trace[start:end])) for start, end in zip(low, high, strict=True)]
