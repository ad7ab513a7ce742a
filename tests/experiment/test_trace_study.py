"""A trace makes a run of its own: known by what it holds, kept once, and refused when it is none."""

import json

import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import results, trace_study
from memlab.settings import Settings
from memlab.workload.trace import RECORDED


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Keys of a Zipf law, without times."""
    path = tmp_path_factory.mktemp("traces") / "keys.parquet"
    ranks = np.random.default_rng(1).zipf(1.4, 4_000) % 500
    pl.DataFrame({"key": ranks.astype(np.int64)}).write_parquet(path)
    return path


def test_a_trace_is_looked_at_once(keys, tmp_path):
    """The run stands under a hash of what the trace holds: a copy elsewhere is the same trace, and nothing is made again."""
    made = trace_study.study(keys, Settings(), tmp_path / "results", size="smoke")
    kept = results.find(tmp_path / "results", made.id)
    assert kept.is_current
    assert kept.summary == made.summary
    before = (made.folder / results.FILE).stat().st_mtime_ns
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(keys.read_bytes())
    assert trace_study.study(copy, Settings(), tmp_path / "results", size="smoke").id == made.id
    assert (made.folder / results.FILE).stat().st_mtime_ns == before
    other = trace_study.study(keys, Settings.of({"cache.max_entries": 10}), tmp_path / "results", size="smoke")
    assert other.id != made.id
    assert str(tmp_path) not in json.dumps(made.to_dict())


def test_keys_say_which_cache_they_want(keys, tmp_path):
    """The curve, its knee with an interval, and what the settings' own size reaches; without times nothing is replayed."""
    made = trace_study.study(keys, Settings.of({"cache.max_entries": 100}), tmp_path, size="smoke")
    found = made.summary["cache"]
    curve = {point["max_entries"]: point["hit_ratio"]["value"] for point in found["curve"]}
    assert sorted(curve.values()) == list(curve.values())
    assert found["at_knee"]["low"] <= found["at_knee"]["value"] <= found["at_knee"]["high"]
    assert found["at_knee"]["value"] == pytest.approx(found["knee"]["hit_ratio"])
    assert min(curve.values()) <= found["own_hit_ratio"] <= max(curve.values())
    assert found["megabyte_gain"] is None, "the trace says nothing of sizes"
    assert "when its calls came" in made.summary["replay"]["note"]
    assert pl.read_parquet(made.folder / "popularity.parquet").height > 10


def test_arrivals_say_when_alone(tmp_path):
    """Neither curve nor replay, and both say why; the dispersion is there."""
    path = tmp_path / "arrivals.parquet"
    pl.DataFrame({"at_s": np.cumsum(np.random.default_rng(2).exponential(0.1, 500))}).write_parquet(path)
    made = trace_study.study(path, Settings(), tmp_path / "results", size="smoke")
    assert "note" in made.summary["cache"]
    assert "note" in made.summary["replay"]
    assert 0.5 < made.summary["traffic"]["arrivals"]["dispersion"] < 2.0


def test_keys_with_times_are_replayed_under_both_settings(tmp_path):
    """A piece of the trace is sent to the defaults and to the settings, and both sides' samples are kept."""
    path = tmp_path / "timed.parquet"
    chance = np.random.default_rng(3)
    pl.DataFrame({"key": chance.integers(0, 5, 200), "at_s": np.arange(200) * 0.01}).write_parquet(path)
    made = trace_study.study(path, Settings.off(), tmp_path / "results", size="smoke")
    found = made.summary["replay"]
    assert found["checks_hold"]
    assert found["reference"]["hit_ratio"]["value"] > 0.5
    assert found["candidate"]["hit_ratio"] is None, "these settings have no cache"
    samples = made.samples()
    assert set(samples["setting"]) == {"reference", "candidate"}
    assert samples.height == 2 * found["calls"]
    assert not made.summary["finding"]


def recorded(path, operation, seconds=20):
    """A trace in memlab's own form, one call of an operation every second."""
    count = seconds
    values = {
        "at_ns": pl.int_range(count, eager=True) * 1_000_000_000,
        "operation": [operation] * count,
        "reads": [False] * count,
        "outcome": ["ok"] * count,
    }
    frame = pl.DataFrame({name: values.get(name, [None] * count) for name in RECORDED}, schema=RECORDED)
    zeros = [pl.col(name).fill_null(pl.lit(0).cast(kind)) for name, kind in RECORDED.items() if kind.is_integer()]
    frame = frame.with_columns(*zeros, labels=pl.lit([], pl.List(pl.UInt64)), cacheable=pl.lit(False), cached=pl.lit(False))
    frame.write_parquet(path)


def test_an_operation_that_is_none_is_refused_before_anything_is_done(tmp_path):
    """A recorded trace of another version is named with what would fit, and no folder is made."""
    recorded(tmp_path / "old.parquet", "episodic.remembr")
    with pytest.raises(MemlabError, match=r"episodic\.remember"):
        trace_study.study(tmp_path / "old.parquet", Settings(), tmp_path / "results", size="smoke")
    assert not (tmp_path / "results").exists()


def test_calls_that_cannot_be_sent_again_are_a_note(tmp_path):
    """A trace of nothing but deleted sessions is told, and neither curve nor replay is made up."""
    recorded(tmp_path / "gone.parquet", "session.delete")
    made = trace_study.study(tmp_path / "gone.parquet", Settings(), tmp_path / "results", size="smoke")
    assert "cannot be sent again" in made.summary["replay"]["note"]
    assert "no read" in made.summary["cache"]["note"]
    assert made.summary["traffic"]["mix"] == {"session.delete": 1.0}


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_a_bad_trace_leaves_nothing(tmp_path, content):
    """One clear error, and no folder is made."""
    path = tmp_path / "bad.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MemlabError, match=r"bad\.parquet"):
        trace_study.study(path, Settings(), tmp_path / "results", size="smoke")
    assert not (tmp_path / "results").exists()
