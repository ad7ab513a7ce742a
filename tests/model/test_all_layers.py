"""All layers together do what their references say: what one writes the others see, over restarts and lost indexes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from memlab.operations import operations
from tests.model.agenda import AgendaRules
from tests.model.graph import GraphRules
from tests.model.insight import InsightRules
from tests.model.machine import MemoryMachine

SILENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


class AllLayersMachine(AgendaRules, GraphRules, InsightRules, MemoryMachine):
    """The rules of every layer in one machine; a layer's rules are a mixin in a file of this folder."""


def test_all_layers_equal_their_references():
    """Every answer of every layer is its reference's, with the other layers' records beside."""
    run_state_machine_as_test(
        AllLayersMachine,
        settings=settings(
            max_examples=10, stateful_step_count=30, deadline=None, derandomize=True, database=None, suppress_health_check=SILENT
        ),
    )


@pytest.mark.soak
def test_all_layers_equal_their_references_for_long():
    """The same over 20,000 operations at the least, from seeds of its own."""
    before = AllLayersMachine.steps
    while AllLayersMachine.steps - before < 20_000:
        run_state_machine_as_test(
            AllLayersMachine,
            settings=settings(
                max_examples=50, stateful_step_count=100, deadline=None, derandomize=False, suppress_health_check=SILENT
            ),
        )


def test_every_operation_is_asked():
    """No operation of any layer is left out by the rules of this folder."""
    source = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("[!t]*.py"))
    searches = ("semantic.search", "semantic.semantic_search", "semantic.hybrid_search")  # named by their last part
    for one in operations():
        assert one.layer == "discovery" or one.name in searches or f'"{one.name}"' in source, one.name
