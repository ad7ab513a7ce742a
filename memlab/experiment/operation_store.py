"""A store of a given size with memories of every layer, of which any number of copies can be used up."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.operations.registry import Examples, Operation, lookup, operations
from memlab.settings import Settings
from memlab.storage.demands import Layer
from memlab.workload.corpus import generate

_BULK = 5_000
_TOGETHER = 256  # writes that fill the store side by side
# Which share of a store is what, and which operation stores it; the rest is filled in bulk, three events to two facts.
_FILL: Mapping[Layer, tuple[str, float]] = {
    "procedural.procedure": ("procedural.create", 0.005),
    "procedural.run": ("procedural.execute", 0.005),
    "prospective.goal": ("prospective.create_goal", 0.005),
    "prospective.task": ("prospective.create_task", 0.05),
    "prospective.trigger": ("prospective.register_trigger", 0.005),
    "graph.entity": ("graph.create_entity", 0.05),
    "graph.relationship": ("graph.create_relationship", 0.1),
}
_LEAST = 40  # of each kind, also in a small store
_SPENT_SHARE = 0.1  # of a store that calls may add or use up before they go on with a new copy
_NAME = "costs.duckdb"


class Filled:
    """A closed database with *memories* in the session `default`, and what is known of them.

    Args:
        folder: existing and empty; the copies stand there too.
        memories: about how many: at least forty of each kind.
        seed: of texts and of everything else.
    """

    def __init__(self, folder: Path, memories: int, seed: int) -> None:
        self.folder = folder
        self.memories = memories
        self.chance = random.Random(seed)
        self.ids: dict[str, tuple[str, ...]] = {}
        self._seed = seed
        self._contents: list[str] = []
        self._copies = 0

    async def fill(self) -> None:
        """Store everything and close the database."""
        corpus = generate(events=self.memories, sessions=1, questions=10, seed=self._seed)
        self._contents = corpus.events["content"].to_list()
        place = self.folder / "filled"
        place.mkdir()
        engine = Engine.open(place / _NAME, Settings.of({"cache": None}), HashingEmbedder())
        found: dict[str, list[str]] = {}
        try:
            await self._fill(engine, found)
        finally:
            await engine.aclose()
        self.ids = {layer: tuple(ids) for layer, ids in found.items()}

    async def _fill(self, engine: Engine, found: dict[str, list[str]]) -> None:
        known = {one.name for one in operations()}
        kinds = {layer: fill for layer, fill in _FILL.items() if fill[0] in known}
        counts = {layer: max(_LEAST, int(share * self.memories)) for layer, (_, share) in kinds.items()}
        left = max(self.memories - sum(counts.values()), 2 * _LEAST)
        for operation, field, layer, count in (
            ("episodic.bulk_remember", "events", "episodic", left * 6 // 10),
            ("semantic.bulk_store", "facts", "semantic", left * 4 // 10),
        ):
            for start in range(0, count, _BULK):
                examples = self.examples(found)
                make = examples.event if field == "events" else examples.fact
                items = [make(self.chance) for _ in range(min(_BULK, count - start))]
                stored = (await engine.execute(operation, {field: items})).value
                found.setdefault(layer, []).extend(stored.ids)
        for layer, (operation, _) in kinds.items():
            declared = lookup(operation)
            for start in range(0, counts[layer], _TOGETHER):
                some = min(_TOGETHER, counts[layer] - start)
                made = [declared.example(self.chance, self.examples(found)) for _ in range(some)]
                answers = await asyncio.gather(*(engine.execute(operation, given) for given in made), return_exceptions=True)
                ids = [answer.value.id for answer in answers if not isinstance(answer, BaseException)]
                found.setdefault(layer, []).extend(ids)

    def examples(self, ids: Mapping[str, Sequence[str]] | None = None) -> Examples:
        """Return what an example call may make use of: fifty of the texts, and the ids given, or all."""
        some = self.chance.sample(self._contents, k=min(50, len(self._contents)))
        return Examples(ids=self.ids if ids is None else ids, contents=some)

    def copy(self) -> Path:
        """Return the database file of a new copy; it may be used up."""
        self._copies += 1
        place = self.folder / f"copy-{self._copies}"
        shutil.copytree(self.folder / "filled", place)
        return place / _NAME

    def remove(self, database: Path) -> None:
        """Remove a closed copy."""
        shutil.rmtree(database.parent, ignore_errors=True)


class Spending:
    """The calls that are made on one copy, each about memories that no earlier one was about.

    A tenth of the store at most is added or used up before the copy is spent.
    """

    def __init__(self, filled: Filled) -> None:
        self._filled = filled
        self._ids = {layer: list(ids) for layer, ids in filled.ids.items()}
        self._named: dict[str, frozenset[str]] = {}
        self._changed = 0

    def is_spent(self, operation: Operation) -> bool:
        """Return whether the next call of an operation needs a new copy."""
        if operation.cost == "job":  # what a job found to do is done, and the next would find nothing
            return self._changed > 0
        if self._changed >= max(_SPENT_SHARE * self._filled.memories, _LEAST):
            return True
        return any(len(self._ids[layer]) <= len(self._filled.ids[layer]) // 2 for layer in self._names(operation))

    def next(self, operation: Operation) -> dict[str, Any]:
        """Return the parameters of the next call."""
        named = self._names(operation)
        taken = {layer: [ids.pop()] if layer in named else ids for layer, ids in self._ids.items()}
        given = operation.example(self._filled.chance, self._filled.examples(taken))
        self._changed += operation.item_count(operation.validate(given))
        return given

    def _names(self, operation: Operation) -> frozenset[str]:
        if operation.name not in self._named:
            self._named[operation.name] = _named_layers(self._filled, operation)
        return self._named[operation.name]


def _named_layers(filled: Filled, operation: Operation) -> frozenset[str]:
    """Return of which layers the calls of an operation name ids, as its own examples show."""
    ids = _Asked(filled.ids)
    chance = random.Random(0)
    for _ in range(20):
        operation.example(chance, Examples(ids=ids, contents=filled.examples().contents))
    return frozenset(ids.asked)


class _Asked(Mapping[str, Sequence[str]]):
    """Ids by layer that remember which layers were asked for."""

    def __init__(self, ids: Mapping[str, Sequence[str]]) -> None:
        self._ids = ids
        self.asked: set[str] = set()

    def __getitem__(self, layer: str) -> Sequence[str]:
        ids = self._ids[layer]
        self.asked.add(layer)
        return ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)
