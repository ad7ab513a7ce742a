"""Writes against a cache: the trace that the model is given is the one that was sent, and it knows what a write makes stale."""

import json

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import invalidation
from memlab.settings import CacheSettings
from memlab.workload.mix import Call

TRAFFIC = {
    "corpus": {"events": 200, "sessions": 2, "questions": 20},
    "mix": {"episodic.recall": 80, "episodic.remember": 20},
    "arrivals": {"kind": "poisson", "rate_per_s": 150},
    "duration_s": 0.3,
    "warm_up_s": 0.1,
    "recall_samples": 5,
}


def call(session, query=None):
    operation, parameters = ("episodic.remember", {"content": "-"}) if query is None else ("episodic.recall", {"query": query})
    return Call(operation, parameters, session, session)


def samples(calls, cached):
    """Samples of calls one second apart."""
    return pl.DataFrame(
        {
            "operation": [one.operation for one in calls],
            "intended_ns": [place * 1_000_000_000 for place in range(len(calls))],
            "outcome": ["ok"] * len(calls),
            "cached": cached,
        }
    )


def test_a_write_ends_the_answers_of_its_own_session():
    """Of five reads again, the one behind a write of the same session is a miss; without the write it would have hit."""
    calls = [call("a", "x"), call("b", "x"), call("a", "x"), call("a"), call("a", "x"), call("b", "x")]
    trace = invalidation.trace_of(samples(calls, [False, False, True, False, False, True]), calls)
    made = invalidation.predicted(trace, CacheSettings(), {"shared": 0, "passed": 0})
    assert made["hit_ratio"]["value"] == pytest.approx(2 / 5)
    assert made["without_writes"]["value"] == pytest.approx(3 / 5)
    assert (made["measured"], made["accesses"]) == (pytest.approx(2 / 5), 5)
    assert made["error_points"] == pytest.approx(0.0)


def test_a_time_to_live_counts_in_the_model():
    """Answers of a second are not served two seconds later."""
    calls = [call("a", "x"), call("b", "x"), call("a", "x")]
    trace = invalidation.trace_of(samples(calls, [False] * 3), calls)
    assert invalidation.predicted(trace, CacheSettings(ttl_s=1.0), {})["hit_ratio"]["value"] == 0.0
    assert invalidation.predicted(trace, CacheSettings(ttl_s=3.0), {})["hit_ratio"]["value"] == pytest.approx(1 / 3)
    assert invalidation.predicted(trace, None, {}) is None


def test_calls_that_were_not_sent_are_no_trace():
    """What the seed makes must be what the samples hold."""
    calls = [call("a", "x"), call("a")]
    with pytest.raises(MemlabError, match="not those that the seed makes"):
        invalidation.trace_of(samples(calls[::-1], [False] * 2), calls)


@pytest.mark.serial
def test_a_point_stands_with_its_prediction(tmp_path):
    """A real point: the trace agrees with what was sent, writes take hits, and what is kept is what was returned."""
    point = {"reference": {"cache": None}, "candidate": {}}
    found = invalidation.measure_point(point, workload=TRAFFIC, repeats=2, out=tmp_path)
    made = found.summary["predicted"]
    assert 0 < made["hit_ratio"]["value"] < made["without_writes"]["value"]
    reads = found.samples.filter((pl.col("setting") == "candidate") & (pl.col("operation") == "episodic.recall"))
    assert made["accesses"] == len(reads)
    assert made["measured"] == pytest.approx(reads["cached"].mean())
    assert found.summary["writes"]["sessions"] == 2
    assert json.loads((tmp_path / "summary.json").read_text())["predicted"] == made


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"arrivals": {"kind": "closed", "clients": 4}}, "give kind poisson"),
        ({"mix": {"episodic.list_events": 1}}, "episodic.list_events cannot be made again"),
        ({"mix": {"episodic.remember": 1}}, "without episodic.recall"),
    ],
)
def test_traffic_that_cannot_be_made_again_is_refused(changed, said):
    """Before anything is filled."""
    with pytest.raises(MemlabError, match=said):
        invalidation.measure_point({}, workload={**TRAFFIC, **changed})
