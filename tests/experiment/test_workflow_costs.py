"""Workflows run for real from beginning to end, and their figures are those of their samples."""

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import workflow_costs
from memlab.experiment.operation_costs import ALONE
from memlab.measure.recorder import Recorder, Sample
from memlab.workload import workflows


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workflows")
    made = workflow_costs.measure_point(
        {"candidate": ALONE}, workload={"corpus": {"events": 300, "questions": 30}}, repeats=2, seconds=0.1, out=folder
    )
    return made, folder


def test_every_workflow_runs_to_its_end(measured):
    """Each succeeds, no step is left out, and the steps together are the run."""
    made, folder = measured
    told = made.summary["workflows"]
    assert set(told) == {one.name for one in workflows.WORKFLOWS}
    for name, one in told.items():
        assert one["runs"] >= 2
        assert one["failed"] == 0, (name, one["errors"])
        assert all(step["skipped"] == 0 and step["failed"] == 0 for step in one["steps"]), name
        assert sum(step["share"] for step in one["steps"]) == pytest.approx(1.0)
        assert one["p95_ms"]["value"] is None, "a handful of runs is no p95"
    assert made.summary["finding"] is False
    assert {path.name for path in folder.iterdir()} == {"samples.parquet", "summary.json"}
    frame = workflow_costs.frame_of(made.summary)
    assert frame.filter(pl.col("step").is_null()).height == len(workflows.WORKFLOWS)


def test_figures_are_those_of_the_samples():
    """250 runs of a step of 1 ms and one of 3 ms: shares of a quarter and three, and a run that failed is in no percentile."""
    workflow = workflows.Workflow(
        "two", "", (workflows.Step("one", "episodic.recall"), workflows.Step("other", "episodic.remember"))
    )
    recorder = Recorder()
    for place in range(251):
        bad = {"outcome": "error", "error": "one: conflict"} if place == 250 else {}
        for operation, step, ms in (("episodic.recall", "one", 1), ("episodic.remember", "other", 3), ("workflow", "", 4)):
            given = {} if operation == "episodic.remember" else bad
            recorder.add(Sample(operation, step, 0, 0, ms * 1_000_000, setting="two", repeat=place % 5, **given))
    summary = workflow_costs.summarise(recorder.to_polars(), [workflow], memories=1_000, size="quick", repeats=5)
    two = summary["workflows"]["two"]
    assert (two["runs"], two["failed"], two["errors"]) == (251, 1, {"one: conflict": 1})
    assert two["p95_ms"]["value"] == 4.0
    assert two["p99_ms"]["value"] is None
    assert two["throughput_per_s"]["value"] == pytest.approx(250.0)
    assert [step["share"] for step in two["steps"]] == pytest.approx([0.25, 0.75])
    assert [step["met"] for step in two["steps"]] == [True, True]
    assert summary["finding"] is True


@pytest.mark.parametrize(
    ("point", "names", "told"),
    [({"candidate": {"batch": None}}, None, "a cache is never on"), ({}, ["task_managment"], "did you mean")],
)
def test_what_does_not_fit_is_one_clear_line(point, names, told):
    with pytest.raises(MemlabError, match=told):
        workflow_costs.measure_point(point, workload={}, names=names)
