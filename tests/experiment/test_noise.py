"""A/A runs on the real engine: kept, compared with each other, and a floor that comes from them."""

import json

import pytest

from memlab.errors import MemlabError
from memlab.experiment import noise, run_comparison

TRAFFIC = {
    "corpus": {"events": 60, "sessions": 2, "questions": 8},
    "mix": {"episodic.recall": 0.5, "episodic.get_event": 0.5},
    "arrivals": {"kind": "closed", "clients": 2},
    "duration_s": 0.2,
    "warm_up_s": 0.05,
}


def test_runs_of_one_setting_are_kept_and_compared(tmp_path):
    """Each load is a run in the folder; the floor is that of the A/A runs; every kind of pair has its verdict."""
    made = noise.measure_point({"candidate": {"cache": None}}, workload=TRAFFIC, repeats=3, out=tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == json.loads(json.dumps(made.summary))
    runs = [run_comparison.find(tmp_path, name) for name in summary["runs"]]
    assert len({run.id for run in runs}) == 3
    assert all(run.settings["candidate"]["cache"] for run in runs)
    again = run_comparison.noise_floor([[run_comparison.repeats_of(run, "p50_ms") for run in runs]])
    assert summary["floor"]["p50_ms"] == again >= 1
    assert run_comparison.alike(tmp_path, runs[0])[0].id in summary["runs"]
    compared = summary["comparisons"]
    assert compared["candidate from another host"]["verdict"] == "unlike hosts"
    assert compared["candidate without a noise floor"]["gate"]["verdict"] not in ("worse", "better")
    assert compared["reference against itself"]["figures"]["p50_ms"]["floor"] == again
    assert set(made.ratios["pair"]) == {"reference against itself", "candidate against reference"}


def test_two_runs_make_no_floor():
    """Refused before anything is measured."""
    with pytest.raises(MemlabError, match="takes 3 runs"):
        noise.measure_point({}, workload=TRAFFIC, repeats=2)
