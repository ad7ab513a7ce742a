"""The graph does what the reference says, beside every other operation; and a wrong reference is found out."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from memlab.operations import operations
from tests.model import graph
from tests.model.graph import GraphReference, GraphRules, Node
from tests.model.machine import MemoryMachine
from tests.model.reference import Reference

SILENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


class GraphMachine(GraphRules, MemoryMachine):
    """The rules of the graph among all others."""


def test_the_graph_equals_the_reference():
    """Every answer is the reference's, over restarts, expiry, lost caches and rebuilt indexes."""
    run_state_machine_as_test(
        GraphMachine,
        settings=settings(
            max_examples=5, stateful_step_count=30, deadline=None, derandomize=True, database=None, suppress_health_check=SILENT
        ),
    )


def test_every_operation_of_the_graph_is_asked():
    """The rules leave no operation of the layer out."""
    source = inspect.getsource(graph)
    for one in operations("graph"):
        assert f'"{one.name}"' in source, one.name


# --- the guard ----------------------------------------------------------------------------------------------------------


class SeesOtherSessions(GraphReference):
    """A session sees every entity."""

    def entities(self, session: str) -> list[Node]:
        super().entities(session)
        return self.nodes


WRONG = [one for one in GraphReference.__subclasses__() if one.__module__ == __name__]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_reference_of_the_graph_is_found_out(wrong):
    """A reference that is wrong in one thing differs from memlab within some hundred steps."""

    class Planted(Reference):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.parts.remove(self.graph)
            self.graph = wrong(self)
            self.parts.append(self.graph)

    guarded = type("Guard", (GraphMachine,), {"reference_type": Planted, "steps": 0})
    with pytest.raises((AssertionError, KeyError, ValueError)):
        run_state_machine_as_test(
            guarded,
            settings=settings(
                max_examples=400,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=SILENT,
            ),
        )
