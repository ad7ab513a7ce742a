"""Records of every storage layer, made by the layer's own operation from the example of its declaration.

A layer whose operations are not registered is left out; a registered one must stand in `CREATORS`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence

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
    "graph.entity": "graph.create_entity",
    "graph.relationship": "graph.create_relationship",
    "consolidation.run": "consolidation.consolidate",
}
TRIES = 30
CONTENTS = ("Ada drinks tea in the harbour", "Bo repaired the engine on Sunday", "the meeting moved to May")


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


def attempt(memory: Memory, name: str, chance: random.Random, known: Examples, session: str) -> bool:
    """Make one example call; return whether it was answered, False where its random parts did not fit together."""
    try:
        memory.call(name, lookup(name).example(chance, known), session=session)
    except MemlabError as error:
        if error.type is not ErrorType.VALIDATION:
            raise
        return False
    return True


def fill(
    memory: Memory, session: str, chance: random.Random, *, count: int = 2, contents: Sequence[str] = CONTENTS
) -> Mapping[str, Sequence[str]]:
    """Create *count* records of every layer; return the ids that the session holds then, by storage layer."""
    ids = ids_of(memory, session)
    for layer, name in registered().items():
        before = len(ids[layer])
        for _ in range(TRIES):
            if len(ids[layer]) >= before + count:
                break
            if attempt(memory, name, chance, Examples(ids=ids, contents=contents), session):
                ids = ids_of(memory, session)
        else:
            raise AssertionError(f"{name} created no {layer} in {TRIES} examples")
    return ids
