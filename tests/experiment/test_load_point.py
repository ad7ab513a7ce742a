"""One load in three ways: the real engine in seconds, and figures whose truth is known."""

import json

import polars as pl
import pytest
import yaml

from memlab.errors import MemlabError
from memlab.experiment import load_point
from memlab.experiment.load_run import Measured

SMALL = {
    "corpus": {"events": 160, "sessions": 4, "questions": 40},
    "mix": {"episodic.recall": 0.7, "episodic.remember": 0.3},
    "arrivals": {"kind": "closed", "clients": 5},
    "duration_s": 0.4,
    "warm_up_s": 0.1,
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    pl.DataFrame({"at_s": [float(place) for place in range(50)]}).write_parquet(folder / "trace.parquet")
    (folder / "out").mkdir()
    made = load_point.measure_point({}, workload=SMALL, out=folder / "out", trace=folder / "trace.parquet")
    return made, folder / "out"


def test_a_load_is_measured_in_three_ways(measured):
    """Each way is there, answered, checked afterwards; the open ones send a share of what the callers had."""
    made, folder = measured
    summary = made.summary
    assert set(made.samples["setting"]) == set(load_point.WAYS)
    for way in load_point.WAYS:
        assert summary[way]["samples"] > 0
        assert summary[way]["failure_ratio"]["value"] == 0.0
        assert summary[way]["checks"]["holds"] is True
    expected = load_point.OPEN_SHARE * summary["closed"]["throughput_per_s"]["value"]
    assert summary["poisson"]["offered_per_s"] == pytest.approx(expected, rel=0.25)
    assert summary["trace_note"] is None
    assert summary["finding"] is False, "a smoke run makes none"
    assert json.loads((folder / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert load_point.frame_of(summary)["way"].to_list() == list(load_point.WAYS)


def test_a_trace_that_is_missing_is_said_to_be(tmp_path):
    """The other two ways are measured, and the summary says what is not there."""
    summary = load_point.measure_point({}, workload=SMALL, trace=tmp_path / "none.parquet").summary
    assert summary["trace"] is None
    assert "none.parquet" in summary["trace_note"]
    assert str(tmp_path) not in summary["trace_note"]
    assert load_point.frame_of(summary)["way"].to_list() == ["closed", "poisson"]


def test_a_load_begins_with_callers_that_wait():
    with pytest.raises(MemlabError, match="callers that wait"):
        load_point.measure_point({}, workload={**SMALL, "arrivals": {"kind": "poisson", "rate_per_s": 10}})


def way(p95_ms, failure_ratio, holds=True):
    """What a load run tells, as far as a summary reads it."""
    figures = {"throughput_per_s": 100.0, "failure_ratio": failure_ratio, "p50_ms": 1.0, "p95_ms": p95_ms, "p99_ms": None}
    known = dict.fromkeys(load_point._AS_THEY_ARE) | {"suspect": [], "cut_short": False}
    summary = {**known, **figures, "intervals": {name: {"low": None, "high": None} for name in figures}}
    told = {"summary": summary, "by_operation": {}, "driver": {}, "checks": {"holds": holds}}
    return Measured(samples=pl.DataFrame(), summary=told)


def told(clients, closed, poisson, size="quick"):
    return load_point.summarise(
        {"closed": closed, "poisson": poisson}, clients=clients, size=size, open_share=0.9, trace_note="no trace was given"
    )


def test_reach_ceiling_and_gap_are_those_of_the_callers():
    """100 callers: p95 of 150 ms is over the reach of 100 and under the ceiling of 300; the gap is open over closed."""
    summary = told(100, way(150.0, 0.0005), way(300.0, 0.0))
    assert summary["reach"] == {"failure_ratio": 0.001, "p95_ms": 100.0}
    assert summary["met"] == {"failure_ratio": True, "p95_ms": False}
    assert summary["under_ceiling"] == {"failure_ratio": True, "p95_ms": True}
    assert summary["gap"] == {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": None}
    assert summary["finding"] is True


def test_what_was_not_asked_or_cannot_be_said_is_not_judged():
    """Seven callers have no reach; too few samples make no p95; a wrong answer afterwards makes no finding."""
    assert told(7, way(1.0, 0.0), way(1.0, 0.0))["met"] is None
    assert told(10, way(None, 0.0), way(1.0, 0.0))["met"] == {"failure_ratio": True, "p95_ms": None}
    assert told(10, way(1.0, 0.0, holds=False), way(1.0, 0.0))["finding"] is False


def test_the_sweeps_send_the_committed_mix(root):
    """The mix stands in the params, where it decides the key of a run; it is that of mixes/everyday.yaml."""
    everyday = yaml.safe_load((root / "params" / "mixes" / "everyday.yaml").read_text())["mix"]
    for name in ("12-load", "12-load.full", "12-rate", "12-rate.full"):
        assert yaml.safe_load((root / "params" / f"{name}.yaml").read_text())["workload"]["mix"] == everyday, name
