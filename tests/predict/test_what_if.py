"""Predictions of whole settings: hits from the traffic, misses through the lane, and never without how far they were off."""

import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.predict.group_commit import BatchModel, Rule, ServiceTime, simulate
from memlab.predict.what_if import FIGURES, Choice, Pieces, Play, missed_by, table


def lane(fixed_s=0.002, per_call_s=0.0001):
    """A lane whose groups take exactly that."""
    sizes = [1, 8, 64]
    return BatchModel(ServiceTime.fit(sizes, [fixed_s + per_call_s * size for size in sizes]))


def play(rate, seconds, distinct, seed=0):
    chance = np.random.default_rng(seed)
    at_s = np.sort(chance.random(int(rate * seconds)) * seconds)
    return Play(at_s, chance.integers(distinct, size=len(at_s)), np.ones(len(at_s), bool))


PIECES = Pieces({"flat": lane(), "ivf": lane(0.001)}, np.array([1e-4]))


def test_without_a_cache_it_is_the_lane_alone():
    """Every question goes through the lane: the response times are those that the lane's own simulation gives."""
    asked = play(100, 4, 50)
    (row,) = table(PIECES, [asked], [Choice(None, 0.0, 1, "flat")]).to_dicts()
    alone = simulate(asked.at_s, Rule(0.0, 64), lambda size, idle_s: 0.002 + 0.0001 * size)
    assert row["hit_ratio"] == 0.0
    assert row["mean_ms"] == pytest.approx(alone.response_s.mean() * 1e3)
    assert row["p95_ms"] == pytest.approx(np.quantile(alone.response_s, 0.95) * 1e3)


def test_a_cache_that_holds_all_answers_all_but_the_first():
    """Every key misses once; the rest are answered in the time of a hit."""
    asked = play(200, 4, 20)
    (row,) = table(PIECES, [asked], [Choice(20, None, 4, "flat")]).to_dicts()
    assert row["hit_ratio"] == pytest.approx(1 - 20 / len(asked.keys))
    assert row["p50_ms"] == pytest.approx(0.1)
    small = table(PIECES, [asked], [Choice(size, None, 4, "flat") for size in (None, 5, 10, 20)])
    assert small["hit_ratio"].is_sorted()


def test_a_cache_stays_warm_from_play_to_play():
    """What the warm-up asked is there; what only warms up does not count."""
    first = play(100, 1, 10)
    warm = Play(first.at_s, first.keys, np.zeros(len(first.keys), bool))
    (row,) = table(PIECES, [warm, play(100, 1, 10, seed=1)], [Choice(10, None, 1, "ivf")]).to_dicts()
    assert row["hit_ratio"] == 1.0


def test_a_lane_that_cannot_keep_up_has_no_response_time():
    """More questions than calls alone can answer: null, not a number; a batch of them can."""
    asked = play(2_000, 1, 10_000)
    alone, batched = table(PIECES, [asked], [Choice(None, None, 1, "flat"), Choice(None, 0.0, 1, "flat")]).to_dicts()
    assert alone["p95_ms"] is None
    assert alone["hit_ratio"] == 0.0
    assert batched["p95_ms"] > 0


def test_groups_larger_than_those_measured_have_no_response_time():
    """A lane of which groups of one and two are known says nothing of sixteen; of calls one by one it does."""
    known = BatchModel(ServiceTime.fit([1, 2], [0.002, 0.0021]))
    asked = play(400, 1, 10_000)
    large, single = table(
        Pieces({"flat": known}, np.array([1e-4])), [asked], [Choice(None, 20.0, 1, "flat"), Choice(None, None, 1, "flat")]
    ).to_dicts()
    assert large["p95_ms"] is None and large["hit_ratio"] == 0.0
    assert single["p95_ms"] is not None


def test_intervals_are_what_predictions_missed_runs_by():
    """The largest factor, either way; a figure that no run has stays without an interval."""
    choices = [Choice(None, 0.0, 1, "flat"), Choice(20, 0.0, 1, "flat")]
    asked = [play(100, 4, 50)]
    predicted = table(PIECES, asked, choices)
    runs = pl.DataFrame(
        [
            {"max_entries": None, "window_ms": 0.0, "pool_limit": 1, "index": "flat"}
            | {"mean_ms": predicted["mean_ms"][0] * 1.3, "p95_ms": None, "p50_ms": None, "hit_ratio": None},
            {"max_entries": 20, "window_ms": 0.0, "pool_limit": 1, "index": "flat"}
            | {"mean_ms": predicted["mean_ms"][1] / 1.5, "p95_ms": None, "p50_ms": None, "hit_ratio": predicted["hit_ratio"][1]},
        ],
        schema_overrides=dict.fromkeys(FIGURES, pl.Float64) | {"max_entries": pl.Int64},
    )
    factors = missed_by(predicted, runs)
    assert factors == pytest.approx({"mean_ms": 1.5, "hit_ratio": 1.0})
    bounded = table(Pieces(PIECES.lanes, PIECES.hit_s, missed_by=factors), asked, choices)
    assert bounded["mean_ms_low"].to_list() == pytest.approx((predicted["mean_ms"] / 1.5).to_list())
    assert bounded["p95_ms_low"].null_count() == 2


@pytest.mark.parametrize(
    ("plays", "choice", "said"),
    [
        ([play(100, 1, 5)], Choice(None, None, 1, "hnsw"), "the index hnsw was not measured"),
        ([], Choice(None, None, 1, "flat"), "no question of the traffic counts"),
    ],
)
def test_what_was_not_measured_is_refused(plays, choice, said):
    """One line says what fits."""
    with pytest.raises(MemlabError, match=said):
        table(PIECES, plays, [choice])
