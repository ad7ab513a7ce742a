"""Episodic and semantic memory do what the reference says, whatever happens in between; and a wrong reference is found out."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from memlab.operations import operations
from tests.model import machine
from tests.model.machine import MemoryMachine
from tests.model.reference import Item, Reference, once

SILENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


def test_memory_equals_the_reference():
    """Every answer of every operation is the reference's, over restarts, expiry, lost caches and rebuilt indexes."""
    run_state_machine_as_test(
        MemoryMachine,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, derandomize=True, database=None, suppress_health_check=SILENT
        ),
    )


@pytest.mark.soak
def test_memory_equals_the_reference_for_long():
    """The same over 20,000 operations at the least, from seeds of its own."""
    before = MemoryMachine.steps
    while MemoryMachine.steps - before < 20_000:
        run_state_machine_as_test(
            MemoryMachine,
            settings=settings(
                max_examples=50, stateful_step_count=100, deadline=None, derandomize=False, suppress_health_check=SILENT
            ),
        )


def test_every_operation_is_asked():
    """The machine leaves no operation of these layers out."""
    source = inspect.getsource(machine)
    searches = ("semantic.search", "semantic.semantic_search", "semantic.hybrid_search")  # named by their last part
    for one in operations():
        if one.layer in ("episodic", "semantic", "session"):
            assert one.name in searches or f'"{one.name}"' in source, one.name


# --- the guard ----------------------------------------------------------------------------------------------------------


class ForgetsNothing(Reference):
    """Forgetting leaves the memory there."""

    def forget(self, session: str, layer: str, ids: Any) -> Any:
        items = self.items
        result = super().forget(session, layer, ids)
        self.items = items
        return result


class SeesOtherSessions(Reference):
    """A session sees what every session stored."""

    def living(self, session: str, layer: str) -> list[Item]:
        own = super().living(session, layer)
        return own + [
            item for other in self.sessions if other != session for item in super(SeesOtherSessions, self).living(other, layer)
        ]


class NeverExpires(Reference):
    """Time does nothing to a memory."""

    def living(self, session: str, layer: str) -> list[Item]:
        super().living(session, layer)
        return [item for item in self.items if item.session == session and item.layer == layer]


class TakesAnyForAll(Reference):
    """One of several tags is enough, whatever was asked."""

    def chosen(self, session: str, layer: str, **conditions: Any) -> list[Item]:
        return super().chosen(session, layer, **conditions | {"match": "any"})


class EndsRangesLate(Reference):
    """The end of a range of time belongs to it."""

    def chosen(self, session: str, layer: str, **conditions: Any) -> list[Item]:
        until = conditions.get("until")
        found = super().chosen(session, layer, **conditions)
        if until is None:
            return found
        late = super().chosen(session, layer, **conditions | {"until": None})
        return [item for item in late if item in found or self.moment(item) == until]


class LosesVersions(Reference):
    """An update keeps nothing of what was."""

    def update(self, session: str, id: str, changes: dict[str, Any]) -> Item:
        item = super().update(session, id, changes)
        item.history.clear()
        return item


class StoresDuplicates(Reference):
    """What is there already is stored all the same."""

    def bulk(self, session: str, layer: str, drafts: Any, on_duplicate: str) -> Any:
        return super().bulk(session, layer, drafts, "keep")


class MergesAnything(Reference):
    """Facts of different kinds are merged too."""

    @staticmethod
    def alike(one: Item, other: Item) -> bool:
        return True


class OrdersTiesBackwards(Reference):
    """Of memories of the same time the older one counts as the newer."""

    def ordered(self, items: Any, newest_first: bool = True) -> list[Item]:
        return sorted(items, key=lambda item: (self.moment(item), -item.number), reverse=newest_first)


class MissesWords(Reference):
    """A search by words wants every word."""

    @staticmethod
    def holding(items: Any, query: str) -> list[Item]:
        wanted = set(query.lower().split()) - {"the"}
        return [item for item in items if wanted and wanted <= set(item.content.lower().split())]


class TurnsVectors(Reference):
    """Stored vectors point elsewhere."""

    def add(self, session: str, layer: str, ids: Any, drafts: Any) -> list[Item]:
        added = super().add(session, layer, ids, drafts)
        for item in added:
            item.vector = -item.vector
        return added


class KeepsTopicsApart(Reference):
    """A merge does not unite topics."""

    def merge(self, session: str, groups: Any) -> None:
        for kept, absorbed in groups:
            self.forget(session, "semantic", [item.id for item in absorbed])
            kept.tags = once(kept.tags)


WRONG = [one for one in Reference.__subclasses__() if one.__module__ == __name__]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_reference_is_found_out(wrong):
    """A reference that is wrong in one thing differs from memlab within a few hundred steps."""
    guarded = type("Guard", (MemoryMachine,), {"reference_type": wrong, "steps": 0})
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
