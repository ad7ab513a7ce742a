"""Consolidation and meta keep what they promise, whatever happens in between; and a wrong reference is found out."""

from __future__ import annotations

import inspect
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RULE_MARKER, run_state_machine_as_test

from memlab.operations import operations
from tests.model import insight
from tests.model.insight import Insight, InsightRules
from tests.model.machine import MemoryMachine
from tests.model.reference import Item

SILENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


class InsightMachine(InsightRules, MemoryMachine):
    """Episodic and semantic memory, consolidated and looked over."""


def test_insight_equals_the_reference():
    """Every figure is the reference's and every run keeps its promises, over restarts, expiry and rebuilt indexes."""
    run_state_machine_as_test(
        InsightMachine,
        settings=settings(
            max_examples=5, stateful_step_count=30, deadline=None, derandomize=True, database=None, suppress_health_check=SILENT
        ),
    )


def test_every_operation_is_asked():
    """The rules leave no operation of these layers out."""
    source = inspect.getsource(insight)
    for layer in ("consolidation", "meta"):
        assert operations(layer)
        for one in operations(layer):
            assert f'"{one.name}"' in source, one.name


class LooksTwice(Insight):
    """Every run looks at every event."""

    def waiting(self, session: str, since: datetime | None = None) -> list[Item]:
        self.of(session).seen.clear()
        return super().waiting(session, since)


class IgnoresSince(Insight):
    """Earlier events count as well."""

    def waiting(self, session: str, since: datetime | None = None) -> list[Item]:
        return super().waiting(session)


class ForgetsTheStrategy(Insight):
    """A session has no strategy of its own."""

    def configured(self, session: str, given: dict[str, Any]) -> dict[str, Any]:
        known = super().configured(session, given)
        self.of(session).strategy = None
        return known


class CountsAllSessions(Insight):
    """Facts of other sessions are counted."""

    def facts(self, session: str) -> list[Item]:
        super().facts(session)
        return [one for other in self.reference.sessions for one in super(CountsAllSessions, self).facts(other)]


class CountsTheExpired(Insight):
    """Events that have expired are counted."""

    def events(self, session: str) -> list[Item]:
        super().events(session)
        return [one for one in self.reference.items if one.session == session and one.layer == "episodic"]


# What the wrong ones are found out by: rules that store and forget, and those of the two layers.
KEPT = {"bulk_remember", "remember", "forget", "bulk_store", "update", "delete", "create_session", "pass_time"}
LEFT_OUT = {name: None for name, value in vars(MemoryMachine).items() if hasattr(value, RULE_MARKER) and name not in KEPT}
WRONG = [one for one in Insight.__subclasses__() if one.__module__ == __name__]

SLOW = {"ForgetsTheStrategy", "LooksTwice", "IgnoresSince"}  # found out in many seconds: in the soak


@pytest.mark.parametrize("wrong", [pytest.param(one, marks=pytest.mark.soak if one.__name__ in SLOW else ()) for one in WRONG])
def test_a_wrong_reference_is_found_out(wrong):
    """A reference that is wrong in one thing differs from memlab within a few hundred steps."""
    guarded = type("Guard", (InsightMachine,), {**LEFT_OUT, "insight_type": wrong, "steps": 0})
    with pytest.raises((AssertionError, KeyError, ValueError)):
        run_state_machine_as_test(
            guarded,
            settings=settings(
                max_examples=200,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=SILENT,
            ),
        )
