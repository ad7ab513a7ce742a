"""From weights of operations and a corpus to a stream of calls that a seed decides."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from memlab.operations.registry import Examples, Operation, lookup
from memlab.workload.corpus import Corpus
from memlab.workload.popularity import Popularity, Replayed, Zipf
from memlab.workload.spec import Workload
from memlab.workload.trace import load as load_trace


class Call(msgspec.Struct, frozen=True, gc=False):
    """One thing to ask of an engine.

    Attributes:
        session: what the engine calls the session.
        label: what the corpus calls it; session ids are secrets and stay out of results.
        question: which question of the corpus it asks, or -1.
    """

    operation: str
    parameters: dict[str, Any]
    session: str
    label: str
    question: int = -1


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What an engine made of a corpus.

    Attributes:
        sessions: the engine's id for every session of the corpus.
        ids: the engine's id for every row of `corpus.events`.
        further: by session of the corpus and layer, ids of what else was stored.
    """

    sessions: Mapping[str, str]
    ids: Sequence[str]
    further: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)


class Mix:
    """The calls of a workload on a loaded corpus.

    Searches ask the corpus's questions, the popular ones again and again; `episodic.remember` stores what comes next in a
    conversation; every other operation makes a valid call by its own declaration.

    Args:
        seed: decides which questions are popular.
    """

    def __init__(self, corpus: Corpus, loaded: Loaded, workload: Workload, seed: int) -> None:
        self._corpus = corpus
        self.loaded = loaded
        self._fixed = workload.parameters
        self._operations = [lookup(name) for name, weight in workload.mix.items() if weight > 0]
        weights = np.array([workload.mix[one.name] for one in self._operations])
        self._reached = np.cumsum(weights) / weights.sum()
        self._popularity: Popularity
        if workload.popularity.trace is not None:
            self._popularity = Replayed(load_trace(workload.popularity.trace).keys(), len(corpus.questions))
        else:
            self._popularity = Zipf(len(corpus.questions), workload.popularity.zipf, seed)
        self._questions = list(zip(corpus.questions["session"].to_list(), corpus.questions["text"].to_list(), strict=True))
        self._upcoming = corpus.upcoming.to_dicts()
        self._told = 0
        self._examples: dict[str, Examples] = {}
        self._session_of = corpus.events["session"].to_list()

    def calls(self, count: int, seed: int) -> list[Call]:
        """Return the next *count* calls; what is remembered goes on where the last ones ended.

        Args:
            seed: decides everything else, so that two settings can be sent the same.
        """
        chance = np.random.default_rng(seed)
        chosen = np.minimum(np.searchsorted(self._reached, chance.random(count), side="right"), len(self._operations) - 1)
        questions = iter(self._popularity.draw(count, chance).tolist())
        rows = iter(chance.integers(len(self._session_of), size=count).tolist())
        other = random.Random(seed)
        return [self._call(self._operations[index], next(questions), next(rows), other) for index in chosen.tolist()]

    def rewind(self) -> None:
        """Begin the upcoming events again: the other setting is to remember the same."""
        self._told = 0

    def _call(self, operation: Operation, question: int, row: int, chance: random.Random) -> Call:
        fixed = self._fixed.get(operation.name, {})
        fields = operation.parameters_type.__struct_fields__
        if "query" in fields and "query" not in fixed:
            label, text = self._questions[question]
            parameters: dict[str, Any] = {"query": text}
            if self._corpus.question_vectors is not None and "query_embedding" in fields:
                parameters["query_embedding"] = self._corpus.question_vectors[question]
            return Call(operation.name, parameters | fixed, self.loaded.sessions[label], label, question)
        if operation.name == "episodic.remember" and self._upcoming:
            label, parameters = self._remember()
            return Call(operation.name, parameters | fixed, self.loaded.sessions[label], label)
        label = self._session_of[row]
        parameters = operation.example(chance, self._examples_of(label))
        return Call(operation.name, parameters | fixed, self.loaded.sessions[label], label)

    def _remember(self) -> tuple[str, dict[str, Any]]:
        row = self._told % len(self._upcoming)
        self._told += 1
        event = self._upcoming[row]
        vectors = self._corpus.upcoming_vectors
        return event["session"], event_parameters(event, None if vectors is None else vectors[row])

    def _examples_of(self, label: str) -> Examples:
        if label not in self._examples:
            self._examples[label] = examples_of(self._corpus, self.loaded, label)
        return self._examples[label]


def examples_of(corpus: Corpus, loaded: Loaded, label: str) -> Examples:
    """Return what exists in a loaded session, for the examples of operations."""
    rows = [row for row, session in enumerate(corpus.events["session"].to_list()) if session == label]
    events = corpus.events[rows]
    return Examples(
        ids={"episodic": [loaded.ids[row] for row in rows], "semantic": [], **loaded.further.get(label, {})},
        contents=events["content"].head(1_000).to_list(),
        tags=events["tags"].head(1_000).explode().unique().drop_nulls().sort().to_list(),
        dimension=corpus.vectors.shape[1] if corpus.vectors is not None else 0,
    )


def event_parameters(event: Mapping[str, Any], vector: np.ndarray | None) -> dict[str, Any]:
    """Return what `episodic.remember` takes of a row of `corpus.EVENTS`; `bulk_remember` takes a list of them."""
    parameters = {
        "content": event["content"],
        "tags": event["tags"],
        "context": {"speaker": event["speaker"]},
        "occurred_at": event["occurred_at"],
    }
    return parameters if vector is None else parameters | {"embedding": vector}
