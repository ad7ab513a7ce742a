"""Predicted curves against the real cache, samples against whole traces, and what both took."""

import json

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import curves

MADE_UP = {"corpus": {"questions": 600}, "popularity": {"zipf": 0.9}}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    out = tmp_path_factory.mktemp("curves")
    made = curves.measure_point({}, workload=MADE_UP, accesses=6_000, held=4_000, sample=0.2, seeds=3, repeats=1, out=out)
    return made, out


def test_both_policies_are_held_against_the_real_cache(checked):
    """At eight sizes: LRU is exact, W-TinyLFU within two points of few accesses, and the knee is one of the curve."""
    summary = checked[0].summary
    lru, other = summary["policies"]["lru"], summary["policies"]["w_tinylfu"]
    assert len(lru["by_size"]) == len(other["by_size"]) == summary["sizes"] == 8
    assert lru["worst_points"] == pytest.approx(0.0, abs=1e-9)
    assert lru["spread_points"] == 0.0
    assert lru["near"]
    assert other["worst_points"] <= 2.0
    assert lru["knee"]["hit_ratio"] <= lru["knee"]["doubled_hit_ratio"]
    assert not summary["finding"]


def test_samples_are_held_against_the_whole(checked):
    """The worst of all seeds is told, and which it was."""
    made, _ = checked
    for policy, told in made.summary["policies"].items():
        rows = made.samples.filter(policy=policy)
        assert len(rows) == 3
        assert told["sampled"]["worst_points"] == rows["worst_points"].max()
        assert rows.filter(seed=told["sampled"]["worst_seed"])["worst_points"].item() == rows["worst_points"].max()
        assert told["sampled"]["worst_mean_points"] <= told["sampled"]["worst_points"]


def test_everything_is_timed_and_kept(checked):
    """Curves, samples and replays; the files hold what was returned."""
    made, out = checked
    seconds = made.summary["times"]["seconds"]
    assert set(seconds) == {"lru", "lru_sampled", "two_replays", "w_tinylfu", "w_tinylfu_sampled"}
    assert all(one["value"] > 0 for one in seconds.values())
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(made.summary))
    assert pl.read_parquet(out / "sizes.parquet").equals(made.sizes)


def test_a_trace_takes_the_place_of_the_made_up_one(tmp_path):
    """Its keys are checked, its writes are refused, and what does not fit is one line."""
    keys = [place % 50 for place in range(400)]
    pl.DataFrame({"key": keys}).write_parquet(tmp_path / "keys.parquet")
    given = {"popularity": {"trace": str(tmp_path / "keys.parquet")}}
    made = curves.measure_point({}, workload=given, sample=0.5, seeds=1, repeats=1)
    assert (made.summary["trace"], made.summary["accesses"], made.summary["distinct_keys"]) == ("keys", 400, 50)
    pl.DataFrame({"key": keys, "reads": [place % 3 > 0 for place in range(400)]}).write_parquet(tmp_path / "writes.parquet")
    with pytest.raises(MemlabError, match="holds writes"):
        curves.measure_point({}, workload={"popularity": {"trace": str(tmp_path / "writes.parquet")}}, repeats=1)
    with pytest.raises(MemlabError, match="above 0 and below 1"):
        curves.measure_point({}, workload=MADE_UP, sample=1.0)
