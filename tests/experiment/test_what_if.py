"""Pieces from the real engine, the traffic of a run reproduced, and runs that a panel asks for."""

import numpy as np
import pytest

from memlab.experiment import what_if
from memlab.experiment.sweep import Sweep
from memlab.predict.what_if import Choice, table


@pytest.fixture
def params(root):
    return root / "params" / "30-what-if.smoke.yaml"


@pytest.mark.serial
def test_the_predicted_hit_ratio_is_that_of_the_run(params, tmp_path):
    """The same questions at the same times: for LRU the hit ratio is the run's, but for questions that meet in flight."""
    base = Sweep.load(params)
    choice = Choice(16, None, 4, "flat")
    run = what_if.run(choice, params, tmp_path)
    measured = what_if.figures_of([(choice, run)])
    models = what_if.measure(base.points()[0].workload, ["flat"], closed_s=0.05)
    asked = what_if.plays(base.points()[0].workload, seed=base.seed, repeats=base.repeats)
    assert sum(int(play.counts.sum()) for play in asked) == run.summary["candidate"]["samples"]
    pieces = what_if.pieces(models, [run])
    assert len(pieces.hit_s) > 10
    (row,) = table(pieces, asked, [choice]).to_dicts()
    assert row["hit_ratio"] == pytest.approx(measured["hit_ratio"][0], abs=0.03)
    assert what_if.run(choice, params, tmp_path) == run, "measured once"
    runner = what_if.runner(pieces, asked, [choice], [(choice, run)], params, tmp_path)
    predicted, runs = runner({"max_entries": 16, "window_ms": None, "pool_limit": 4, "index": "flat"})
    assert len(runs) == 2
    assert np.isfinite(predicted["hit_ratio_low"][0])


def test_a_choice_is_settings():
    """None switches a section off."""
    assert what_if.settings_of(Choice(None, None, 2, "ivf")) == {
        "cache": None,
        "batch": None,
        "pool.limit": 2,
        "index.kind": "ivf",
    }
    assert what_if.settings_of(Choice(64, 1.0, 1, "flat"))["batch.limit"] == what_if.LIMIT
