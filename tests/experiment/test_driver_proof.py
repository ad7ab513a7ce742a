"""The driver's proof: figures of recorded samples whose truth is known, and the real thing in a second."""

import numpy as np
import polars as pl
import pytest

from memlab.experiment import driver_proof
from memlab.experiment.stall import contrast
from memlab.measure.clock import ManualClock
from tests.experiment.test_load import Counted


@pytest.fixture
def recorded(run_virtually):
    """Samples of both loops that met stalls of 200 ms every two seconds, in virtual time."""
    clock = ManualClock()
    return run_virtually(contrast(Counted(), clock=clock, rate_per_s=200.0, duration_s=20.0, every_s=2.0, stall_s=0.2), clock)


def test_recorded_samples_show_in_the_open_loop_what_the_closed_one_hides(recorded):
    """A tenth of the open loop's calls was delayed by stalls, one in a thousand of the closed loop's; p99 says the same."""
    summary = driver_proof.summarise(recorded, [8.0] * 5, [2.0] * 5, size="quick", stall_ms=200.0, every_s=2.0)
    opened, closed = summary["stall"]["open"], summary["stall"]["closed"]
    assert opened["p99_ms"]["value"] == pytest.approx(200, abs=30)
    assert closed["p99_ms"]["value"] < 2
    assert closed["max_ms"] == pytest.approx(201, abs=1)
    assert summary["stall"]["gap_p99"] > 80
    assert opened["delayed_ratio"] > 10 * closed["delayed_ratio"]
    curves = driver_proof.curves(recorded)
    at_99 = {row["loop"]: row["ms"] for row in curves.filter(pl.col("percentile") == 99.0).to_dicts()}
    assert at_99["open"] > 80 * at_99["closed"]
    assert curves.group_by("loop").agg(pl.col("ms").is_sorted())["ms"].all()


@pytest.mark.parametrize(
    ("call_us", "sample_us", "met"), [(8.0, 2.0, (True, True)), (25.0, 2.0, (False, True)), (8.0, 6.0, (True, False))]
)
def test_what_was_asked_of_the_driver_is_judged(recorded, call_us, sample_us, met):
    """50,000 calls a second are 20 µs each; a sample may take less than 5."""
    summary = driver_proof.summarise(recorded, [call_us] * 5, [sample_us] * 5, size="quick", stall_ms=200.0, every_s=2.0)
    assert (summary["met"]["rate"], summary["met"]["sample"]) == met
    assert summary["rate_per_s"]["value"] == pytest.approx(1e6 / call_us)
    assert summary["finding"] is True


def test_the_real_driver_meets_real_stalls(tmp_path):
    """In real time: both loops met stalls, the open one in more calls; samples and summary are kept."""
    measured = driver_proof.measure_point(
        repeats=2, calls=1_000, rate_per_s=300.0, stall_ms=100.0, every_s=0.4, duration_s=0.8, out=tmp_path
    )
    stall = measured.summary["stall"]
    assert stall["open"]["delayed_ratio"] > stall["closed"]["delayed_ratio"]
    assert np.isfinite(measured.summary["sample_us"]["value"])
    assert measured.summary["finding"] is False
    assert {path.name for path in tmp_path.iterdir()} == {"samples.parquet", "summary.json"}
