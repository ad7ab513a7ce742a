"""A planted stall, seen by both loops, in virtual time."""

import numpy as np
import polars as pl
import pytest

from memlab.experiment.stall import contrast
from memlab.measure import stats
from memlab.measure.clock import ManualClock
from tests.experiment.test_load import Counted


@pytest.fixture
def seen(run_virtually):
    """`seen(**options)`: response times in ms, from the intended start, of the open and of the closed loop."""

    def see(**options):
        clock = ManualClock()
        samples = run_virtually(contrast(Counted(), clock=clock, **options), clock)
        times = samples.with_columns(ms=(pl.col("finished_ns") - pl.col("intended_ns")) / 1e6)
        return {loop: times.filter(pl.col("setting") == loop)["ms"].to_numpy() for loop in ("open", "closed")}

    return see


def test_the_open_loop_shows_a_stall_that_the_closed_one_hides(seen):
    """Stalls of 200 ms every two seconds: in the open loop's p99 they stand almost whole, in the closed loop's not at all."""
    times = seen(rate_per_s=200.0, duration_s=20.0, every_s=2.0, stall_s=0.2)
    assert stats.percentile(times["open"], 0.99).value == pytest.approx(200, abs=30)
    assert stats.percentile(times["closed"], 0.99).value < 2
    assert times["closed"].max() == pytest.approx(201, abs=1)  # it met each one, once
    assert (times["closed"] > 100).sum() == 10
    assert np.mean(times["open"] > 10) == pytest.approx(0.125, abs=0.025)  # 200 ms of standing still, 50 of catching up


def test_without_a_stall_both_loops_agree(seen):
    """Nothing planted, nothing shown: the contrast is not made by the driver."""
    times = seen(rate_per_s=50.0, duration_s=20.0, every_s=1_000.0)
    assert stats.percentile(times["open"], 0.5).value == pytest.approx(stats.percentile(times["closed"], 0.5).value, rel=0.05)
    assert times["open"].max() < 10
