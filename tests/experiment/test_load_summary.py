"""Figures of a load, worked out by hand."""

import polars as pl
import pytest

from memlab.experiment.load import DriverCost
from memlab.experiment.load_summary import as_text, summarise
from memlab.measure.recorder import sample_schema

SECOND = 1_000_000_000
COST = DriverCost(10.0, 100_000.0)


def samples(count, *, took_ms=10.0, outcome="ok", error=None, operation="episodic.recall", due_ns=None, warm_up=False):
    """*count* calls, evenly due over ten seconds."""
    due = [place * 10 * SECOND // count for place in range(count)] if due_ns is None else due_ns
    return pl.DataFrame(
        {
            "operation": [operation] * count,
            "session": ["s"] * count,
            "setting": ["candidate"] * count,
            "repeat": [min(max(one, 0) * 5 // (10 * SECOND), 4) for one in due],
            "warm_up": [warm_up] * count,
            "intended_ns": due,
            "started_ns": due,
            "finished_ns": [one + round(took_ms * 1e6) for one in due],
            "outcome": [outcome] * count,
            "error": [error] * count,
            "cached": [False] * count,
            "batch_size": [2] * count,
            "recall_at_10": [None] * count,
            "phases": [{"fetch": 1}] * count,
        },
        schema=sample_schema(),
    )


def summed(frame, **given):
    given = {"parts": 5, "driver": COST, "in_flight": None, **given}
    return summarise(frame, start_ns=0, end_ns=10 * SECOND, **given)


def test_the_figures_of_a_steady_load():
    """2,000 answers of 10 ms in 10 s: 200 a second, all percentiles 10 ms, no failure."""
    whole = summed(samples(2_000), in_flight=2.0)
    summary = whole["summary"]
    assert summary["throughput_per_s"] == pytest.approx(200, abs=0.5)
    assert [summary[name] for name in ("p50_ms", "p95_ms", "p99_ms")] == pytest.approx([10, 10, 10])
    assert summary["failure_ratio"] == 0
    assert summary["mean_batch_size"] == 2
    assert summary["littles_law"]["expected"] == pytest.approx(2.0)
    assert summary["littles_law"]["holds"] is True
    assert summary["suspect"] == summary["notes"] == []
    assert [row["samples"] for row in whole["by_part"]] == [400] * 5
    assert whole["driver"]["headroom"] == pytest.approx(500)


@pytest.mark.parametrize(("outcome", "error"), [("refused", "pool_full"), ("timeout", "late"), ("unknown", "gave_up")])
def test_whatever_is_no_answer_in_time_is_a_failure(outcome, error):
    """Refused, late and unknown calls count, each under its name; their times are not among the percentiles."""
    frame = pl.concat([samples(1_900), samples(100, took_ms=5_000, outcome=outcome, error=error)])
    summary = summed(frame)["summary"]
    assert summary["failure_ratio"] == pytest.approx(0.05)
    assert summary["outcomes"] == {"ok": 1_900, outcome: 100}
    assert summary["errors"] == {error: 100}
    assert summary["p99_ms"] == pytest.approx(10)


@pytest.mark.parametrize(("count", "missing"), [(19, ["p50", "p95", "p99"]), (20, ["p95", "p99"]), (200, ["p99"]), (1_000, [])])
def test_too_few_samples_are_said(count, missing):
    """A percentile below its number of samples is null, and the text says so."""
    whole = summed(samples(count))
    assert [name.removesuffix("_ms") for name in ("p50_ms", "p95_ms", "p99_ms") if whole["summary"][name] is None] == missing
    assert [note.split(":")[0] for note in whole["summary"]["notes"]] == missing
    assert as_text(whole).count("note: ") == len(missing)
    assert ("too few" in as_text(whole)) == bool(missing)


def test_the_warm_up_is_left_out():
    """What was due before the measured time is no sample; its answer in the measured time is throughput."""
    early = samples(50, due_ns=[-SECOND] * 50, took_ms=1_500, warm_up=True)
    summary = summed(pl.concat([early, samples(1_000)]))["summary"]
    assert summary["samples"] == 1_000
    assert summary["throughput_per_s"] == pytest.approx(105, abs=0.5)
    assert summary["p99_ms"] == pytest.approx(10)


def test_answers_after_the_end_are_no_throughput():
    """An overloaded engine is not credited with what it answers when the time is over."""
    summary = summed(samples(1_000, took_ms=5_000))["summary"]
    assert summary["throughput_per_s"] == pytest.approx(50, abs=0.5)
    assert summary["samples"] == 1_000


def test_a_load_that_cannot_be_trusted_is_suspect():
    """Calls in flight that do not fit, and a driver without room."""
    whole = summed(samples(2_000), in_flight=3.0, driver=DriverCost(2_000.0, 500.0))
    assert whole["summary"]["littles_law"]["holds"] is False
    unsteady, driver = whole["summary"]["suspect"]
    assert "3 calls were in flight" in unsteady
    assert "2.5 times" in driver
    assert as_text(whole).count("suspect: ") == 2


def test_nothing_measured_is_no_crash():
    """A load cut short in its warm-up has no figures, and says so."""
    whole = summarise(samples(0), start_ns=0, end_ns=0, parts=5, driver=COST, in_flight=None, cut_short=True)
    assert whole["summary"]["throughput_per_s"] is None
    assert whole["summary"]["p50_ms"] is None
    assert "cut short" in as_text(whole)


def test_operations_are_told_apart():
    """Each operation has its own figures and its kind; writes have their share."""
    whole = summed(pl.concat([samples(800), samples(200, operation="episodic.remember", took_ms=40)]))
    assert whole["by_operation"]["episodic.remember"]["p50_ms"] == pytest.approx(40)
    assert {name: row["kind"] for name, row in whole["by_operation"].items()} == {
        "episodic.recall": "read",
        "episodic.remember": "write",
    }
    assert whole["summary"]["write_ratio"] == pytest.approx(0.2)
    assert "episodic.remember" in as_text(whole)
