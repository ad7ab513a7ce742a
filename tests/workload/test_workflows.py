"""Workflows are data that speaks of operations and steps that are there, and steps take up what earlier ones answered."""

import random
from types import SimpleNamespace

import pytest

from memlab.errors import MemlabError
from memlab.operations import Examples, lookup
from memlab.workload import workflows
from memlab.workload.workflows import Made, Step, Taken, Workflow, parameters

KNOWN = Examples(contents=["tea in the harbour"], tags=["plans"])


def taken(value):
    """Every `Taken` in a step's parameters."""
    if isinstance(value, Taken):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [found for part in parts for found in taken(part)]


@pytest.mark.parametrize("workflow", workflows.WORKFLOWS, ids=lambda one: one.name)
def test_every_step_names_an_operation_its_parameters_and_earlier_steps(workflow: Workflow):
    """No step speaks of an operation, a parameter or a step that is not there, or of one that comes later."""
    before: list[str] = []
    for step in workflow.steps:
        fields = lookup(step.operation).parameters_type.__struct_fields__
        assert set(step.given) <= set(fields), step
        assert {one.step for one in taken(dict(step.given))} <= set(before), step
        assert step.name not in before
        before.append(step.name)
    assert workflow.about
    assert workflows.lookup(workflow.name) is workflow


def test_texts_are_made_anew_and_answers_taken_up():
    """Contents differ from run to run; fields, items and lists of earlier answers find their place."""
    step = Step(
        "next",
        "prospective.create_task",
        {"title": Made("content"), "goal": Taken("goal", "id"), "depends_on": [Taken("found", "1.id")], "priority": "high"},
    )
    answers = {"goal": SimpleNamespace(id="go_1"), "found": (SimpleNamespace(id="tk_1"), SimpleNamespace(id="tk_2"))}
    first, second = (parameters(step, answers, random.Random(seed), KNOWN) for seed in (1, 2))
    assert first["title"] != second["title"]
    assert first["title"].startswith("tea in the harbour ")
    assert (first["goal"], first["depends_on"], first["priority"]) == ("go_1", ["tk_2"], "high")
    assert parameters(Step("tag", "x", {"topics": [Made("tag")]}), {}, random.Random(1), KNOWN) == {"topics": ["plans"]}


@pytest.mark.parametrize("answers", [{}, {"found": ()}, {"found": (SimpleNamespace(other=1),)}])
def test_a_step_that_has_nothing_to_take_up_is_left_out(answers):
    """The step before failed, found nothing, or has no such field."""
    step = Step("next", "semantic.search_related", {"id": Taken("found", "0.id")})
    assert parameters(step, answers, random.Random(1), KNOWN) is None


def test_an_unknown_workflow_is_told_its_nearest_name():
    with pytest.raises(MemlabError, match="did you mean 'task_management'"):
        workflows.lookup("task_managment")
