"""What a trace is like, by hand and where the law is known."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.predict import traffic
from memlab.workload import arrivals
from memlab.workload.popularity import Zipf
from memlab.workload.trace import load


def test_figures_by_hand():
    """Keys a b a a c: two of five repeat, two of three keys come once, and the hottest takes three."""
    told = traffic.summary(pl.DataFrame({"key": [1, 2, 1, 1, 3], "answer_bytes": [10, 20, 30, 40, 50]}))
    assert told["calls"] == 5
    assert told["reuse"] == {"repeat_ratio": 0.4, "once_ratio": 2 / 3, "p50_distance": 0.5, "p90_distance": 0.9}
    assert (told["popularity"]["keys"], told["popularity"]["hottest_hundredth"]) == (3, 0.6)
    assert told["answer_bytes"] == 30
    assert "arrivals" not in told and "mix" not in told


def test_a_mix_by_hand():
    """Shares by operation; popularity looks at reads alone."""
    told = traffic.summary(
        pl.DataFrame({"operation": ["a", "b", "a", "a"], "reads": [True, False, True, True], "key": [1, 9, 1, 1]})
    )
    assert told["mix"] == {"a": 0.75, "b": 0.25}
    assert told["read_ratio"] == 0.75
    assert told["popularity"]["keys"] == 1
    assert told["popularity"]["zipf_exponent"] is None


@pytest.mark.parametrize("exponent", [0.0, 0.6, 0.9, 1.2])
def test_the_exponent_is_found_again(exponent):
    """Drawn by Zipf's law with many uses a key, within a twentieth."""
    keys = Zipf(500, exponent, seed=1).draw(200_000, np.random.default_rng(2))
    counts = np.unique(keys, return_counts=True)[1]
    assert traffic.zipf_exponent(counts) == pytest.approx(exponent, abs=0.05)


@given(st.lists(st.integers(1, 1_000), min_size=2, max_size=40))
def test_the_exponent_is_the_likeliest(counts):
    """No neighbour on either side is likelier."""
    ranks, ordered = np.arange(1, len(counts) + 1), np.sort(counts)[::-1]

    def likelihood(exponent):
        return float(ordered @ (-exponent * np.log(ranks)) - ordered.sum() * np.log((ranks**-exponent).sum()))

    found = traffic.zipf_exponent(np.array(counts))
    assert found <= 1e-9 or likelihood(found) >= likelihood(found - 1e-3) - 1e-9 * ordered.sum()
    assert found >= 10 - 1e-9 or likelihood(found) >= likelihood(found + 1e-3) - 1e-9 * ordered.sum()


def test_dispersion_of_known_arrivals():
    """Even arrivals do not vary, Poisson ones vary as much as their mean, too short a trace says nothing."""
    even = (arrivals.constant(20, 100) * 1e9).round().astype(np.int64)
    poisson = (arrivals.poisson(20, 2_000, seed=3) * 1e9).astype(np.int64)
    assert traffic.dispersion(even) == 0
    assert traffic.dispersion(poisson) == pytest.approx(1, abs=0.1)
    assert traffic.dispersion(even[:100]) is None


def test_one_moment_has_no_rate():
    """All calls at once: no rate, no peak, no dispersion, and nothing to draw."""
    frame = pl.DataFrame({"at_ns": [5, 5]})
    assert traffic.summary(frame)["arrivals"] == {"duration_s": 0.0, "rate_per_s": None, "peak_per_s": None, "dispersion": None}
    assert traffic.arrivals(frame) is None


def test_what_is_drawn_holds_every_access():
    """Shares by rank fall and begin with the hottest key; rates times the length of their parts are all calls."""
    keys = Zipf(50, 1.0, seed=1).draw(1_000, np.random.default_rng(1))
    frame = pl.DataFrame({"key": keys, "at_ns": np.arange(1_000) * 10_000_000})
    shares, rates = traffic.popularity(frame), traffic.arrivals(frame)
    assert shares["share"].is_sorted(descending=True)
    assert shares["share"][0] == np.bincount(keys).max() / 1_000
    assert shares["share"].sum() == pytest.approx(1)
    assert rates["rate_per_s"].sum() * 9.99 / len(rates) == pytest.approx(1_000)


def test_real_arrivals_are_as_described(shared_data):
    """azure-llm-conv: 19,366 in 3,502 s, 16 in the fullest second, index of dispersion 1.4."""
    path = shared_data / "traces" / "azure-llm-conv.parquet"
    if not path.is_file():
        pytest.skip(f"NOT TESTED ON REAL DATA: no {path}")
    told = traffic.summary(load(path).frame)
    assert told["calls"] == 19_366
    assert told["arrivals"]["rate_per_s"] == pytest.approx(5.5, abs=0.05)
    assert told["arrivals"]["peak_per_s"] == 16
    assert told["arrivals"]["dispersion"] == pytest.approx(1.4, abs=0.05)
