"""Procedural and prospective memory do what the reference says, whatever happens in between; and a wrong one is found out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RULE_MARKER, run_state_machine_as_test

from memlab.operations import operations
from tests.model import agenda
from tests.model.agenda import GOAL, TASK, Agenda, AgendaRules, Row
from tests.model.machine import MemoryMachine
from tests.model.reference import Item

SILENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


class AgendaMachine(AgendaRules, MemoryMachine):
    """Both layers beside those that were there."""


def test_both_layers_equal_the_reference():
    """Every answer of every operation is the reference's, over restarts, lost caches and rebuilt indexes."""
    run_state_machine_as_test(
        AgendaMachine,
        settings=settings(
            max_examples=5, stateful_step_count=30, deadline=None, derandomize=True, database=None, suppress_health_check=SILENT
        ),
    )


def test_every_operation_of_both_layers_is_asked():
    """The rules leave none out."""
    source = inspect.getsource(agenda)
    for layer in ("procedural", "prospective"):
        for one in operations(layer):
            assert f'"{one.name}"' in source, one.name


# --- the guard ----------------------------------------------------------------------------------------------------------


class FreesNothing(Agenda):
    """A closed task goes on blocking."""

    def settle(self, session: str) -> None:
        """Change nothing."""


class MindsNoDueTime(Agenda):
    """Urgency is the priority alone."""

    def urgency(self, row: Row) -> float:
        return ["low", "normal", "high", "urgent"].index(row.priority)


class ForgetsSubGoals(Agenda):
    """A goal counts its own tasks alone."""

    def below(self, session: str, id: str) -> set[str]:
        return {id}


class FiresOnAnyTag(Agenda):
    """One of the tags is enough."""

    @staticmethod
    def matches(row: Row, item: Item) -> bool:
        return Agenda.matches(row, item) or bool(set(row.tags) & set(item.tags))


class FiresTwice(Agenda):
    """What has fired waits again."""

    def check(self, session: str, limit: int, most: int) -> Any:
        fired, looked, left = super().check(session, limit, most)
        for row in fired:
            row.fields = row.fields | {"fired_at": None}
        return fired, looked, left


class KeepsEveryPattern(Agenda):
    """Shorter patterns as frequent as longer ones are written too."""

    @staticmethod
    def is_covered(pattern: tuple[str, ...], support: dict[tuple[str, ...], int]) -> bool:
        return False


class FillsTwice(Agenda):
    """Inputs are looked into again."""

    @staticmethod
    def fill(step: str, inputs: dict[str, Any]) -> str:
        return Agenda.fill(Agenda.fill(step, inputs), inputs)


class SeesOtherSessions(Agenda):
    """Goals and tasks of every session are there."""

    def all(self, session: str, layer: str) -> list[Row]:
        own = super().all(session, layer)
        return [row for row in self.rows if row.layer == layer] if layer in (GOAL, TASK) else own


class JudgesOpenRuns(Agenda):
    """A run that has not ended counts as a failure."""

    def effectiveness(self, session: str, id: str) -> dict[str, Any]:
        found = super().effectiveness(session, id)
        return found | {"failures": found["failures"] + found["open"]}


class AllowsCircles(Agenda):
    """A task may come before itself through others."""

    def before(self, session: str, id: str) -> set[str]:
        return set()


def wrong_ones() -> Sequence[type[Agenda]]:
    """Return every reference that is wrong in one thing."""
    return [one for one in Agenda.__subclasses__() if one.__module__ == __name__]


# Found out in many seconds to minutes: in the soak.
SLOW = {"KeepsEveryPattern", "AllowsCircles", "MindsNoDueTime", "FiresTwice", "FiresOnAnyTag", "JudgesOpenRuns"}


@pytest.mark.parametrize(
    "wrong", [pytest.param(one, marks=pytest.mark.soak if one.__name__ in SLOW else ()) for one in wrong_ones()]
)
def test_a_wrong_reference_is_found_out(wrong):
    """A reference that is wrong in one thing differs from memlab within a few hundred runs."""
    # The rules of other layers are left out, save what these need: they would take most of the steps.
    needed = {"remember", "pass_time", "create_session"}
    rest = {name: None for name, one in vars(MemoryMachine).items() if hasattr(one, RULE_MARKER) and name not in needed}
    guarded = type("Guard", (AgendaMachine,), rest | {"agenda_type": wrong, "steps": 0})
    with pytest.raises((AssertionError, KeyError, ValueError)):
        run_state_machine_as_test(
            guarded,
            settings=settings(
                max_examples=400,
                stateful_step_count=60,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=SILENT,
            ),
        )
