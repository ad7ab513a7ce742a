"""Figures of operations are those of samples whose truth is known."""

import numpy as np
import polars as pl
import pytest

from memlab.experiment import operation_summary
from memlab.measure.recorder import sample_schema
from memlab.measure.stats import Interval


def lane(operation, setting, times_ms, *, parts=5, failed=0, items=1, warm_up=False):
    """Calls of one operation in one setting, dealt to parts in turn; the last *failed* ones are errors."""
    times = np.round(np.asarray(times_ms, np.float64) * 1e6).astype(np.int64)
    count = len(times)
    return pl.DataFrame(
        {
            "operation": [operation] * count,
            "session": [""] * count,
            "setting": [setting] * count,
            "repeat": [place % parts for place in range(count)],
            "warm_up": [warm_up] * count,
            "intended_ns": [0] * count,
            "started_ns": [0] * count,
            "finished_ns": times,
            "outcome": ["ok"] * (count - failed) + ["error"] * failed,
            "error": [None] * (count - failed) + ["conflict"] * failed,
            "cached": [False] * count,
            "batch_size": [items] * count,
            "recall_at_10": [None] * count,
            "phases": [{"vector": 1_000_000, "decode": 500_000}] * count,
        },
        schema=sample_schema(("vector", "decode")),
    )


def told(*lanes, **given):
    given = {"memories": 1_000, "size": "quick", "repeats": 5, **given}
    return operation_summary.summarise(pl.concat(lanes), **given)


def test_percentiles_target_floor_and_phases_are_those_of_the_samples():
    """1,000 calls of 1 to 1,000 tenths of a millisecond beside a floor of 1 ms: worked out by hand."""
    times = np.arange(1, 1_001) / 10
    summary = told(lane("episodic.recall", "warm", times), lane("episodic.recall", "floor", [1.0] * 1_000))
    one = summary["operations"]["episodic.recall"]
    assert [one["warm"][name]["value"] for name in ("p50_ms", "p95_ms", "p99_ms")] == [50.0, 95.0, 99.0]
    assert one["warm"]["mean_ms"]["value"] == pytest.approx(50.05)
    assert one["warm"]["throughput_per_s"]["value"] == pytest.approx(1_000 / 50.05)
    assert one["over_floor"]["value"] == pytest.approx(50.0, rel=0.01)
    assert one["phases_ms"] == {"vector": 1.0, "build": 0.5}
    assert one["other_ms"] == pytest.approx(48.55)
    assert one["met"] is True
    assert summary["finding"] is True
    assert summary["over_target"] == summary["unjudged"] == summary["failing"] == []


def test_what_is_over_its_ceiling_what_cannot_be_judged_and_what_failed_are_named():
    """A p95 beyond the ceiling; 199 calls, one short of a p95; failures, which are in no percentile."""
    summary = told(
        lane("episodic.recall", "warm", [101.0] * 200),
        lane("episodic.recall", "floor", [1.0] * 200),
        lane("semantic.search", "warm", [1.0] * 199),
        lane("semantic.search", "floor", [1.0] * 199),
        lane("semantic.get", "warm", [1.0] * 250, failed=40),
        lane("semantic.get", "floor", [1.0] * 250),
    )
    assert summary["over_target"] == ["episodic.recall"]
    assert summary["unjudged"] == ["semantic.search"]
    assert summary["failing"] == ["semantic.get"]
    failing = summary["operations"]["semantic.get"]["warm"]
    assert (failing["calls"], failing["failed"], failing["errors"]) == (250, 40, {"conflict": 40})
    assert failing["p95_ms"]["n"] == 210


def test_a_bulk_call_is_judged_by_its_item():
    """A hundred items in 200 ms are 2 ms an item, within the ceiling of 5."""
    summary = told(
        lane("episodic.bulk_remember", "warm", [200.0] * 200, items=100), lane("episodic.bulk_remember", "floor", [1.0] * 200)
    )
    one = summary["operations"]["episodic.bulk_remember"]
    assert one["per_item"]["p95_ms"]["value"] == 2.0
    assert one["per_item"]["items"] == 100
    assert one["met"] is True
    row = operation_summary.frame_of([summary]).row(0, named=True)
    assert (row["p95_ms"], row["mean_ms"], row["p99_ms"]) == (2.0, 2.0, None)


def test_warm_up_counts_for_nothing_and_a_smoke_run_makes_no_finding():
    """Slow first calls are kept out."""
    summary = told(
        lane("episodic.recall", "warm", [500.0] * 10, warm_up=True),
        lane("episodic.recall", "warm", [1.0] * 20),
        lane("episodic.recall", "floor", [1.0] * 20),
        size="smoke",
    )
    assert summary["operations"]["episodic.recall"]["warm"]["max_ms"] == 1.0
    assert summary["finding"] is False


def test_growth_and_memory_come_from_the_stores():
    """Twice as slow on a store a hundred times as large is an exponent of lg 2 / 2."""
    stores = [
        told(
            lane("episodic.recall", "warm", [ms] * 50),
            lane("episodic.recall", "floor", [0.1] * 50),
            memories=memories,
            rss_bytes_per_call={"episodic.recall": Interval(12.0)},
        )
        for memories, ms in ((1_000, 1.0), (100_000, 2.0))
    ]
    assert stores[0]["operations"]["episodic.recall"]["rss_bytes_per_call"]["value"] == 12.0
    law = operation_summary.growth_of(stores)["episodic.recall"]
    assert law.exponent.value == pytest.approx(np.log10(2) / 2)
    frame = operation_summary.growth_frame({"episodic.recall": law})
    assert frame["exponent"].to_list() == [law.exponent.value]
    assert operation_summary.frame_of(stores)["memories"].to_list() == [1_000, 100_000]
