"""Records of every storage layer, made by the layer's own operation from the example of its declaration.

A layer whose operations are not registered is left out; a registered one must stand in `CREATORS`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from memlab.errors import ErrorType, MemlabError
from memlab.memory import Memory
from memlab.operations import Examples, lookup, operations

# In this order: what comes later may need ids of what came before.
CREATORS = {
    "episodic": "episodic.remember",
    "semantic": "semantic.store",
    "procedural.procedure": "procedural.create",
    "procedural.run": "procedural.execute",
    "prospective.goal": "prospective.create_goal",
    "prospective.task": "prospective.create_task",
    "prospective.trigger": "prospective.register_trigger",
    "prospective.watch": "prospective.check_triggers",
    "graph.entity": "graph.create_entity",
    "graph.relationship": "graph.create_relationship",
    "consolidation.run": "consolidation.consolidate",
    "consolidation.strategy": "consolidation.configure_strategy",
}
ONCE = {"prospective.watch", "consolidation.strategy"}  # a session has one at most
TRIES = 60


def registered() -> dict[str, str]:
    """Return the storage layers whose creators are registered, with those."""
    known = {one.name for one in operations()}
    return {layer: name for layer, name in CREATORS.items() if name in known}


def ids_of(memory: Memory, session: str) -> dict[str, list[str]]:
    """Return the ids that a session holds now, by storage layer."""
    ids: dict[str, list[str]] = {layer: [] for layer in registered()}
    for line in memory.session.export(session=session).splitlines():
        one = json.loads(line)
        if one["current"]:
            ids.setdefault(one["layer"], []).append(one["memory"]["id"])
    return ids


def attempt(memory: Memory, name: str, chance: random.Random, known: Examples, session: str) -> Any:
    """Make one example call and return its answer, None where its random parts did not fit together."""
    try:
        return memory.call(name, lookup(name).example(chance, known), session=session)
    except MemlabError as error:
        if error.type is not ErrorType.VALIDATION:
            raise
        return None


def fill(memory: Memory, session: str, chance: random.Random, *, count: int = 2) -> Mapping[str, Sequence[str]]:
    """Create *count* records of every layer in a new session; return their ids by storage layer."""
    ids: dict[str, list[str]] = {layer: [] for layer in registered()}
    for layer, name in registered().items():
        for _ in range(TRIES):
            if len(ids[layer]) >= (1 if layer in ONCE else count):
                break
            before = len(ids[layer])
            value = attempt(memory, name, chance, Examples(ids=ids), session)
            if hasattr(value, "id"):
                ids[layer].append(value.id)
            elif value is not None:
                ids = ids_of(memory, session)
            if len(ids[layer]) == before:  # what looks at records of other layers may want more of them
                other = chance.choice([earlier for earlier in ids if ids[earlier] and earlier not in ONCE])
                more = attempt(memory, CREATORS[other], chance, Examples(ids=ids), session)
                ids[other] += [more.id] if hasattr(more, "id") else []
        else:
            raise AssertionError(f"{name} created no {layer} in {TRIES} examples")
    return ids
