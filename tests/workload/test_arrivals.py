"""When calls are due."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.workload import arrivals
from memlab.workload.trace import load

rates = st.floats(1.0, 500.0)
durations = st.floats(0.5, 10.0)


@given(rates, durations)
def test_constant_arrivals_keep_their_distance(rate, duration):
    """As many as the rate says, evenly, from the beginning."""
    at = arrivals.constant(rate, duration)
    assert len(at) == round(rate * duration)
    assert np.allclose(np.diff(at), 1 / rate)


@given(rates, durations, st.integers(0, 2**31))
def test_poisson_arrivals_are_a_seeds(rate, duration, seed):
    """In order, inside the time, the same for the same seed, about as many as the rate says."""
    at = arrivals.poisson(rate, duration, seed)
    assert np.array_equal(at, arrivals.poisson(rate, duration, seed))
    assert (np.diff(at) >= 0).all()
    assert ((at >= 0) & (at < duration)).all()
    assert abs(len(at) - rate * duration) <= 6 * np.sqrt(rate * duration) + 1


def test_poisson_gaps_are_exponential():
    """Mean and spread of the gaps are both one over the rate; counts in a second vary as much as their mean."""
    at = arrivals.poisson(50.0, 2_000.0, seed=1)
    gaps = np.diff(at)
    assert gaps.mean() == pytest.approx(0.02, rel=0.02)
    assert gaps.std() == pytest.approx(0.02, rel=0.03)
    counts = np.histogram(at, bins=2_000, range=(0, 2_000))[0]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.1)


def test_a_trace_is_replayed_at_another_rate():
    """Stretched to a rate its mean is that rate and its bursts stay: twice as fast, gaps are halved."""
    trace = np.array([0.0, 1.0, 1.1, 1.2, 5.0, 9.0])
    native = arrivals.replay(trace, 40.0, seed=1)
    faster = arrivals.replay(trace, 20.0, seed=1, rate_per_s=2 * 5 / 9)
    assert np.allclose(native / 2, faster)


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=30), st.floats(0.1, 200.0), st.integers(0, 2**31))
def test_replayed_arrivals_are_in_order_and_inside(gaps, duration, seed):
    """However short the trace: it goes round its end; arrivals ascend from 0 and stay below the duration."""
    trace = np.concatenate([[0.0], np.cumsum(gaps)])
    at = arrivals.replay(trace, duration, seed)
    assert (np.diff(at) >= 0).all()
    assert ((at >= 0) & (at < duration)).all()
    period = trace[-1] * len(trace) / (len(trace) - 1)
    assert abs(len(at) - duration / period * len(trace)) <= len(trace) + 1


def test_the_real_trace_keeps_its_bursts(shared_data):
    """Arrivals of a conversation service at twice their rate: as many a second, as uneven as they were (about 1.4)."""
    trace = load(shared_data / "traces" / "azure-llm-conv.parquet").offsets()
    native = len(trace) / trace[-1]
    at = arrivals.replay(trace, trace[-1] / 2, seed=1, rate_per_s=2 * native)
    assert len(at) / (trace[-1] / 2) == pytest.approx(2 * native, rel=0.01)
    counts = np.histogram(at, bins=int(at[-1] * 2))[0]
    assert counts.var() / counts.mean() > 1.2
