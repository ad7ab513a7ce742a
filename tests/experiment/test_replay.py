"""A trace that is sent again meets the cache as it did: equal calls, the same writes between them, the same moments."""

import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import load_run
from memlab.experiment.replay import replay
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.recording import TraceRecorder
from memlab.workload.trace import load

# What is served from the cache depends on what is answered in time for it: other work beside it makes other hits.
pytestmark = pytest.mark.serial
QUIET = Settings.of({"cache": {"max_entries": 40}})


def keys(folder, columns):
    path = folder / "keys.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return load(path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Four seconds of a mix with searches, tags, lists and writes, through a cache that evicts."""
    path = tmp_path_factory.mktemp("recorded") / "trace.parquet"
    traffic = spec.workload(
        {
            "corpus": {"events": 300, "sessions": 3, "questions": 120},
            "mix": {
                "episodic.recall": 0.5,
                "episodic.recall_by_tags": 0.2,
                "episodic.get_event": 0.1,
                "semantic.list": 0.1,
                "episodic.remember": 0.08,
                "semantic.store": 0.02,
            },
            "arrivals": {"kind": "poisson", "rate_per_s": 100.0},
            "duration_s": 4.0,
            "warm_up_s": 0.0,
        }
    )
    with TraceRecorder(path) as recorder:
        load_run.run(traffic, QUIET, seed=5, recorder=recorder)
    return load(path)


def test_a_recording_holds_the_traffic_and_not_the_filling(recorded):
    """Nothing of the mix is missing, nothing else is in it."""
    assert set(recorded.frame["operation"]) == {
        "episodic.recall",
        "episodic.recall_by_tags",
        "episodic.get_event",
        "semantic.list",
        "episodic.remember",
        "semantic.store",
    }
    assert 300 < len(recorded) < 500


def test_a_replay_keeps_hits_and_moments(recorded):
    """The hit ratio to within what 419 calls tell of it, every call at its moment, and no key without a call of its own."""
    found = replay(recorded, QUIET, seed=9)
    likeness = found.summary["replay"]
    assert likeness["merged_keys"] == likeness["left_out"] == 0
    assert likeness["recorded"]["calls"] == likeness["replayed"]["calls"] == len(recorded)
    assert likeness["recorded"]["hit_ratio"] > 0.1
    assert abs(likeness["replayed"]["hit_ratio"] - likeness["recorded"]["hit_ratio"]) <= 0.02
    assert found.summary["summary"]["failure_ratio"] == 0
    assert found.summary["checks"]["holds"] is True
    due = np.sort(found.samples["intended_ns"].to_numpy())
    assert np.abs(np.diff(due) - np.diff(recorded.frame["at_ns"].to_numpy())).max() <= 2


def test_it_may_be_sent_faster_and_in_part(recorded):
    """Time is squeezed, and its beginning alone is sent."""
    found = replay(recorded, QUIET, speed=4.0, duration_s=0.5)
    expected = int((recorded.offsets() < 2.0).sum())
    assert found.samples.height == expected
    assert found.summary["replay"]["recorded"]["calls"] == expected


def test_plain_keys_become_tags(tmp_path):
    """A read of a key that was written since is a miss, all others repeat."""
    columns = {"key": [1, 2, 1, 2, 1, 1, 2], "reads": [True, True, True, True, False, True, True], "at_s": np.arange(7) / 20}
    found = replay(keys(tmp_path, columns), Settings.of({"cache": {"max_entries": 40}}))
    assert found.samples.sort("intended_ns")["cached"].to_list() == [False, False, True, True, False, False, True]
    assert found.summary["replay"]["recorded"]["hit_ratio"] is None


@pytest.mark.parametrize(
    ("columns", "given", "told"),
    [
        ({"at_s": [0.0, 1.0]}, {}, "memlab load --arrivals"),
        ({"key": [1, 2]}, {}, "no times"),
        ({"key": [1, 2], "at_s": [0.0, 1.0]}, {"speed": 0.0}, "speed = 0"),
        ({"key": [1, 2], "at_s": [0.0, 1.0]}, {"duration_s": 0.0}, "no call"),
        ({"key": np.arange(1_000_001), "at_s": np.arange(1_000_001)}, {}, "give --duration"),
    ],
)
def test_what_cannot_be_sent_is_one_line(columns, given, told, tmp_path):
    """Before anything is filled."""
    with pytest.raises(MemlabError, match=told) as caught:
        replay(keys(tmp_path, columns), QUIET, **given)
    assert "\n" not in caught.value.text


def test_an_operation_that_is_not_there_is_named(recorded, tmp_path):
    """A trace of another version."""
    path = tmp_path / "old.parquet"
    recorded.frame.with_columns(operation=pl.lit("episodic.recal")).write_parquet(path)
    with pytest.raises(MemlabError, match="did you mean 'episodic"):
        replay(load(path), QUIET)
