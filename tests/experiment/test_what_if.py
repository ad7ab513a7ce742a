"""Pieces from the real engine, the traffic of a run reproduced, and runs that a panel asks for."""

import numpy as np
import pytest

from memlab.experiment import what_if
from memlab.experiment.comparison import lane_seed
from memlab.experiment.sweep import Sweep
from memlab.predict.what_if import Choice, table
from memlab.workload.spec import workload


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


def test_a_write_makes_the_answers_of_its_session_stale():
    """The next question after it counts as the first that must be answered anew, in that session alone."""
    stale_at = what_if._stale_at(["a", "b", "a", "a"], {"a": [1, 3]})
    assert stale_at.tolist() == [1, 4, 3, 4]


def test_writes_of_the_traffic_are_played():
    """Questions alone are played, and each knows of the next write to its session."""
    made = workload({"mix": {"episodic.recall": 0.5, "episodic.remember": 0.5}, "arrivals": {"rate_per_s": 100.0}})
    asked = what_if.plays(made, seed=1, repeats=1)
    everything = sum(len(made.due(lane_seed(1, repeat))) for repeat in (-1, 0))
    questions = sum(len(play.keys) for play in asked)
    assert 0.3 < questions / everything < 0.7
    stale_at = np.concatenate([play.stale_at for play in asked])
    assert (stale_at > np.arange(questions)).all()
    assert stale_at.min() < questions
