"""A state machine that runs memlab and the reference side by side and compares every answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import msgspec
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import MemlabError
from memlab.measure import clock
from memlab.settings import Settings
from memlab.values import Event, Fact
from tests.model.graph import Link, Node
from tests.model.reference import Item, Reference, Refused, once

DIMENSION = 16
EMBEDDER = HashingEmbedder(DIMENSION)
START = datetime(2026, 1, 1, tzinfo=UTC)
HYBRID_DEPTH = 50

# Words that no stemmer joins, and a stop word.
WORDS = ["tea", "garden", "river", "piano", "lantern", "violet", "copper", "meadow", "the"]
TAGS = ["red", "green", "blue"]

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join).map(lambda text: text[:1].upper() + text[1:])
tags = st.lists(st.sampled_from(TAGS), max_size=3)
some_tags = st.lists(st.sampled_from(TAGS), min_size=1, max_size=3)
contents = st.sampled_from(["Tea", "Garden tea"]) | texts  # repeated often enough for duplicates
matches = st.sampled_from(["any", "all"])
confidences = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
maybe_confidences = st.none() | confidences
moments = st.integers(-6, 6).map(lambda hours: START + timedelta(hours=hours))
maybe_moments = st.none() | moments
sources = st.none() | st.sampled_from(["Ada", "Bo"])
contexts = st.sampled_from([{}, {"turn": 1}, {"who": ["Ada", {"at": None}], "é": 0.5}])
vectors = st.none() | st.lists(st.integers(-3, 3), min_size=DIMENSION, max_size=DIMENSION).filter(any)
lifetimes = st.sampled_from([None, None, None, 30, 3_600])
limits = st.integers(1, 20)
kinds = st.sampled_from(["fact", "principle", "concept"])
maybe_kinds = st.none() | kinds
picks = st.integers(0, 10_000)

events = st.fixed_dictionaries(
    {
        "content": contents,
        "tags": tags,
        "context": contexts,
        "source": sources,
        "confidence": confidences,
        "occurred_at": maybe_moments,
        "lifetime": lifetimes,
        "embedding": vectors,
    }
)
facts = st.fixed_dictionaries(
    {
        "content": contents,
        "kind": kinds,
        "topics": tags,
        "source": sources,
        "confidence": confidences,
        "lifetime": lifetimes,
        "embedding": vectors,
    }
)
parts = st.fixed_dictionaries(
    {
        "cache": st.sampled_from([None, {}, {"max_entries": 3}, {"policy": "w_tinylfu", "max_entries": 16}]),
        "batch": st.sampled_from([None, {}, {"window_ms": 0.0, "limit": 2}]),
        "pool": st.sampled_from([None, {}, {"limit": 1}]),
        "index": st.sampled_from(
            [
                {"kind": "flat"},
                {"kind": "flat", "exact_below": 0},
                {"kind": "sq8"},
                {"kind": "fp16"},
                {"kind": "ivf"},
                {"kind": "ivf", "exact_below": 0, "rebuild_dead_ratio": 0.01},
                {"kind": "hnsw"},
            ]
        ),
        "storage": st.sampled_from([{}, {"hot_rows": 0}, {"text_tail": 0}, {"text_tail": 2, "hot_rows": 3}]),
    }
)


def beginning(who: int) -> list[dict[str, Any]]:
    """Return what a session begins with: equals and near-equals that differ in one thing, old and new, some that expire."""
    same = {"context": {}, "source": None, "lifetime": None, "embedding": None, "occurred_at": None, "kind": "fact"}
    return [
        same | {"content": "Tea", "confidence": 0.5, "tags": ["red"], "topics": ["red"], "occurred_at": START},
        same | {"content": "Tea", "confidence": 0.5, "tags": ["blue"], "topics": ["blue"], "source": "Ada"},
        same | {"content": "Tea", "confidence": 1.0, "tags": [], "topics": [], "kind": "concept"},
        same | {"content": "Garden tea", "confidence": 0.25, "tags": ["red", "blue"], "topics": ["red", "blue"], "lifetime": 30},
        same
        | {
            "content": f"River piano {WORDS[who]}",
            "confidence": 0.75,
            "tags": ["green"],
            "topics": ["green"],
            "kind": "principle",
        }
        | {"occurred_at": START - timedelta(hours=2 + who)},
    ]


def shown(value: Any) -> dict[str, Any]:
    """Return the fields of an answer, without the score."""
    fields = msgspec.structs.asdict(value)
    fields.pop("score", None)
    return fields


def frozen(value: Any) -> Any:
    """Return a context as answers carry it: lists as tuples."""
    if isinstance(value, dict):
        return {key: frozen(inner) for key, inner in value.items()}
    return tuple(frozen(inner) for inner in value) if isinstance(value, list) else value


def unit(numbers: Sequence[float]) -> np.ndarray:
    """Return numbers as a vector of length 1."""
    vector = np.array(numbers, np.float64)
    return vector / np.linalg.norm(vector)


def embed(text: str) -> np.ndarray:
    """Return the vector of a text in double precision."""
    return unit(EMBEDDER.embed([text])[0])


@contextlib.contextmanager
def time_told_by(manual: clock.ManualClock) -> Iterator[None]:
    """Let every part of memlab read the wall clock off *manual*."""
    with (
        mock.patch.object(clock, "wall_ns", manual.wall_ns),
        mock.patch.object(clock, "now", manual.now),
        mock.patch.object(clock.SystemClock, "wall_ns", staticmethod(manual.wall_ns)),
        mock.patch.object(clock.SystemClock, "now", staticmethod(manual.now)),
    ):
        yield


class MemoryMachine(RuleBasedStateMachine):
    """Every operation of the layers episodic, semantic and session, with restarts and everything derived taken away."""

    reference_type: ClassVar[type[Reference]] = Reference
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.cleanup = contextlib.ExitStack()
        self.folder = Path(self.cleanup.enter_context(tempfile.TemporaryDirectory(prefix="memlab-model-")))
        self.clock = clock.ManualClock(START)
        self.cleanup.enter_context(time_told_by(self.clock))
        self.loop = asyncio.new_event_loop()
        self.cleanup.callback(self.loop.close)
        self.reference = self.reference_type(embed, START)
        self.forgotten: list[str] = []
        self.deleted_sessions: list[str] = []
        self.keys = 0
        self.engine: Engine | None = None

    @initialize(settings=parts)
    def open(self, settings: dict[str, Any]) -> None:
        """Begin with some settings."""
        self.settings = Settings.of(settings)
        self.engine = Engine.open(self.folder / "memory.duckdb", self.settings, EMBEDDER)
        self.create_session()
        for who, session in enumerate(self.reference.sessions):
            self.bulk("episodic.bulk_remember", "events", session, [self.event(one) for one in beginning(who)], "keep")
            self.bulk("semantic.bulk_store", "facts", session, [self.fact(one) for one in beginning(who)], "keep")

    def teardown(self) -> None:
        """Close everything."""
        try:
            if self.engine is not None:
                self.engine.close()
        finally:
            self.cleanup.close()

    # --- asking both ----------------------------------------------------------------------------------------------------

    def call(self, operation: str, session: str, key: str | None = None, **parameters: Any) -> Coroutine[Any, Any, Any]:
        """Return a call of memlab that is not under way yet; None means left out, save in *raw*."""
        raw = parameters.pop("raw", {})
        given = {name: value for name, value in parameters.items() if value is not None} | raw
        return self.engine.execute(operation, given, session=session, idempotency_key=key)

    def ask(self, operation: str, session: str, expected: Callable[[], Any], key: str | None = None, **parameters: Any) -> Any:
        """Return (memlab's answer, what the reference expects) after both agreed whether there is one."""
        type(self).steps += 1
        answer = wanted = refusal = refused = None
        try:
            answer = self.loop.run_until_complete(self.call(operation, session, key, **parameters)).value
        except MemlabError as error:
            refusal = error
        try:
            wanted = expected()
        except Refused as error:
            refused = error.args
        if refusal is None and refused is None:
            return answer, wanted
        assert refusal is not None, f"{operation} answered {answer}, expected {refused}"
        assert refused is not None, f"{operation}: {refusal!r}, expected {wanted}"
        nobody = session not in self.reference.sessions  # then either may be said first
        agreed = (refusal.type.value, refusal.reason) == refused or (nobody and refusal.type.value == "VALIDATION")
        assert agreed, f"{operation}: {refusal!r}, expected {refused}"
        return None

    def session(self, pick: int) -> str:
        """Return a session: usually one that is there, sometimes one that was deleted or never was."""
        there = [*self.reference.sessions]
        gone = [*self.deleted_sessions, "s-nobody"]
        return gone[pick // 12 % len(gone)] if pick % 12 == 11 else there[pick // 12 % len(there)]

    def id(self, pick: int, session: str, layer: str) -> str:
        """Return an id: usually of this session, sometimes another's, another layer's, forgotten, or of nothing."""
        own = [item.id for item in self.reference.items if item.session == session and item.layer == layer]
        rest = [item.id for item in self.reference.items if item.session != session or item.layer != layer]
        nothing = "ep_1ffffffff" if layer == "episodic" else "sm_1ffffffff"
        others = [*rest[-3:], *self.forgotten[-3:], nothing]
        return others[pick // 6 % len(others)] if pick % 6 == 5 or not own else own[pick // 6 % len(own)]

    def ids(self, some: Sequence[int], session: str, layer: str) -> list[str]:
        """Return several such ids."""
        return [self.id(pick, session, layer) for pick in some]

    def expiry(self, lifetime: int | None) -> datetime | None:
        """Return when something with a lifetime expires."""
        return None if lifetime is None else self.reference.now + timedelta(seconds=lifetime)

    def event(self, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return (parameters for memlab, draft for the reference)."""
        rest = {name: given[name] for name in ("content", "source", "confidence", "occurred_at")}
        expires_at = self.expiry(given["lifetime"])
        vector = embed(given["content"]) if given["embedding"] is None else unit(given["embedding"])
        parameters = rest | {
            "tags": given["tags"],
            "context": given["context"],
            "expires_at": expires_at,
            "embedding": given["embedding"],
        }
        draft = rest | {
            "tags": once(given["tags"]),
            "context": frozen(given["context"]),
            "expires_at": expires_at,
            "vector": vector,
        }
        return {name: value for name, value in parameters.items() if value is not None}, draft

    def fact(self, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return (parameters for memlab, draft for the reference)."""
        rest = {name: given[name] for name in ("content", "source", "confidence", "kind")}
        expires_at = self.expiry(given["lifetime"])
        vector = embed(given["content"]) if given["embedding"] is None else unit(given["embedding"])
        parameters = rest | {"topics": given["topics"], "expires_at": expires_at, "embedding": given["embedding"]}
        draft = rest | {"tags": once(given["topics"]), "expires_at": expires_at, "vector": vector}
        return {name: value for name, value in parameters.items() if value is not None}, draft

    def stored(self, session: str, layer: str, value: Event | Fact, draft: dict[str, Any]) -> None:
        """Take a memory into the reference and compare."""
        (item,) = self.reference.add(session, layer, [value.id], [draft])
        assert shown(value) == item.value()

    # --- comparing ------------------------------------------------------------------------------------------------------

    def equal(self, pair: Any) -> None:
        """Compare a list of memories with the reference's, in order."""
        if pair is not None:
            answer, items = pair
            same([shown(value) for value in answer], [item.value() for item in items])

    def tolerance(self) -> float:
        """Return how far a score by cosine may be off."""
        return 5e-3 if self.settings.index.kind == "fp16" else 2e-5

    def slack(self) -> float:
        """Return how much closer a memory may be that the codes of this index put behind another."""
        return {"fp16": 1e-2, "sq8": 2e-2}.get(self.settings.index.kind, 4e-5)

    def nearest(self, pair: Any, query: np.ndarray, limit: int) -> None:
        """Compare a ranking by cosine: the right memories, the right scores, the best first, none better left out."""
        if pair is None:
            return
        answer, candidates = pair
        off = self.tolerance()
        cosines = {item.id: float(item.vector @ query) for item in candidates}
        self.subset(answer, candidates, min(limit, len(candidates)))
        for value in answer:
            assert abs(value.score - cosines[value.id]) <= off
        best = sorted(cosines.values(), reverse=True)[: len(answer)]
        for value, cosine in zip(answer, best, strict=True):
            assert abs(cosines[value.id] - cosine) <= self.slack()

    def subset(self, answer: Any, candidates: Sequence[Item], count: int) -> None:
        """Compare a ranking of which only the members are known."""
        by_id = {item.id: item for item in candidates}
        assert len(answer) == count
        assert len({value.id for value in answer}) == count
        for value in answer:
            assert value.id in by_id, f"{value.content!r} does not belong here"
            assert shown(value) == by_id[value.id].value()
        scores = [value.score for value in answer]
        assert scores == sorted(scores, reverse=True)

    def fused(self, pair: Any, by_words: Sequence[Any], query: np.ndarray, limit: int, weights: tuple[float, float]) -> None:
        """Compare a ranking fused by reciprocal ranks, given memlab's ranking by words."""
        if pair is None:
            return
        answer, candidates = pair
        depth = max(HYBRID_DEPTH, 2 * limit)
        self.subset(answer, candidates, min(limit, len(candidates)))
        if len(candidates) > depth:
            return  # neither list holds everything
        ranked = sorted(candidates, key=lambda item: -float(item.vector @ query))
        cosines = [float(item.vector @ query) for item in ranked]
        if any(one - other <= 2 * self.slack() for one, other in itertools.pairwise(cosines)):
            return  # rounding decides about ranks
        scores = {item.id: weights[0] / (60 + rank) for rank, item in enumerate(ranked, 1)}
        for rank, value in enumerate(by_words, 1):
            scores[value.id] += weights[1] / (60 + rank)
        best = sorted(scores.values(), reverse=True)
        for value, score in zip(answer, best, strict=False):
            assert abs(value.score - scores[value.id]) <= 1e-6
            assert abs(value.score - score) <= 1e-6

    # --- time and everything derived -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 20, 60, 5_000]))
    def pass_time(self, seconds: int) -> None:
        """Let time pass; memories expire."""
        self.clock.advance(seconds)
        self.reference.now = self.clock.now()

    @rule(settings=st.none() | parts)
    def restart(self, settings: dict[str, Any] | None) -> None:
        """Close and open again, maybe with other settings."""
        if settings is not None:
            self.settings = Settings.of(settings)
        self.engine.close()
        self.engine = Engine.open(self.folder / "memory.duckdb", self.settings, EMBEDDER, create=False)

    @rule()
    def clear_cache(self) -> None:
        """Forget kept answers and rows in memory."""
        self.engine.clear_cache()
        self.engine.storage.clear_rows()

    @rule()
    def rebuild_index(self) -> None:
        """Build the vector index anew."""
        self.engine.storage.rebuild()

    # --- episodic -------------------------------------------------------------------------------------------------------

    @rule(who=picks, given=events)
    def remember(self, who: int, given: dict[str, Any]) -> None:
        """Remember one event."""
        session = self.session(who)
        parameters, draft = self.event(given)
        pair = self.ask("episodic.remember", session, lambda: self.reference.living(session, "episodic"), **parameters)
        if pair is not None:
            self.stored(session, "episodic", pair[0], draft)

    @rule(who=picks, given=events, layer=st.sampled_from(["episodic", "semantic"]))
    def remember_twice_under_one_key(self, who: int, given: dict[str, Any], layer: str) -> None:
        """A repeated write under one idempotency key takes effect once, other parameters under it are refused."""
        session = self.session(who)
        self.keys += 1
        key = f"key-{self.keys}"
        operation = "episodic.remember" if layer == "episodic" else "semantic.store"
        content = given["content"]
        draft = {"content": content, "vector": embed(content)} | ({"kind": "fact"} if layer == "semantic" else {})
        pair = self.ask(operation, session, lambda: self.reference.living(session, layer), key, content=content)
        if pair is None:
            return
        self.stored(session, layer, pair[0], draft)
        again, _ = self.ask(operation, session, lambda: None, key, content=content)
        assert again == pair[0]

        def refused() -> None:
            raise Refused("VALIDATION", "idempotency_key")

        self.ask(operation, session, refused, key, content=f"{content} meadow")

    @rule(
        who=picks,
        given=st.lists(events, min_size=1, max_size=8),
        on_duplicate=st.sampled_from(["keep", "skip", "error"]),
    )
    def bulk_remember(self, who: int, given: list[dict[str, Any]], on_duplicate: str) -> None:
        """Remember several events, or on an error none."""
        self.bulk("episodic.bulk_remember", "events", self.session(who), [self.event(one) for one in given], on_duplicate)

    def bulk(self, operation: str, name: str, session: str, given: list[tuple[Any, Any]], on_duplicate: str) -> None:
        """Store several memories, or on an error none."""
        layer = operation.partition(".")[0]
        drafts = [draft for _, draft in given]
        pair = self.ask(
            operation,
            session,
            lambda: self.reference.bulk(session, layer, drafts, on_duplicate),
            on_duplicate=on_duplicate,
            **{name: [parameters for parameters, _ in given]},
        )
        if pair is None:
            return
        answer, places = pair
        new = [place for place, there in enumerate(places) if there == place]
        self.reference.add(session, layer, [answer.ids[place] for place in new], [drafts[place] for place in new])
        for id, there, draft in zip(answer.ids, places, drafts, strict=True):
            if isinstance(there, str):  # of several equals any will do
                assert id in {item.id for item in self.reference.living(session, layer) if item.content == draft["content"]}
            else:
                assert id == answer.ids[there]
        assert (answer.stored, answer.skipped) == (len(new), len(places) - len(new))

    @rule(who=picks, given=st.lists(events, min_size=2, max_size=6))
    def remember_at_once(self, who: int, given: list[dict[str, Any]]) -> None:
        """Writes that are under way together are stored in the order in which they were asked for."""
        session = self.session(who)
        if session not in self.reference.sessions:
            return
        both = [self.event(one) for one in given]

        async def burst() -> list[Any]:
            return await asyncio.gather(*(self.call("episodic.remember", session, **parameters) for parameters, _ in both))

        for response, (_, draft) in zip(self.loop.run_until_complete(burst()), both, strict=True):
            self.stored(session, "episodic", response.value, draft)

    @rule(who=picks, some=st.lists(picks, min_size=1, max_size=4))
    def forget(self, who: int, some: list[int]) -> None:
        """Forget events by id."""
        session = self.session(who)
        wanted = self.ids(some, session, "episodic")
        self.gone(self.ask("episodic.forget", session, lambda: self.reference.forget(session, "episodic", wanted), ids=wanted))

    def gone(self, pair: Any) -> None:
        """Compare what became of ids."""
        if pair is not None:
            answer, (there, missing) = pair
            self.forgotten += there
            assert (answer.forgotten, answer.ids, answer.missing) == (len(there), there, missing)

    @rule(
        who=picks,
        older_than=maybe_moments,
        tags=tags,
        match=matches,
        below_confidence=maybe_confidences,
        limit=st.integers(1, 3),
        dry_run=st.booleans(),
    )
    def forget_where(self, who: int, limit: int, dry_run: bool, older_than: datetime | None, **conditions: Any) -> None:
        """Forget events by condition."""
        session = self.session(who)

        def expected() -> list[Item]:
            living = self.reference.chosen(session, "episodic", until=older_than, **conditions)
            if older_than is None and not conditions["tags"] and conditions["below_confidence"] is None:
                raise Refused("VALIDATION", "missing_parameter")
            return self.reference.ordered(living, newest_first=False)

        pair = self.ask(
            "episodic.forget_where", session, expected, older_than=older_than, limit=limit, dry_run=dry_run, **conditions
        )
        self.forgotten_where(pair, session, "episodic", limit, dry_run)

    def forgotten_where(self, pair: Any, session: str, layer: str, limit: int, dry_run: bool) -> None:
        """Compare what was forgotten by condition, and forget it here too."""
        if pair is None:
            return
        answer, found = pair
        ids = tuple(item.id for item in found[:limit])
        assert (answer.ids, answer.missing, answer.dry_run) == (ids, (), dry_run)
        if dry_run:
            assert (answer.forgotten, answer.remaining) == (0, len(found))
            return
        assert (answer.forgotten, answer.remaining) == (len(ids), len(found) - len(ids))
        self.forgotten += self.reference.forget(session, layer, ids)[0]

    @rule(
        who=picks,
        query=texts,
        limit=limits,
        tags=tags,
        match=matches,
        since=maybe_moments,
        until=maybe_moments,
        min_confidence=maybe_confidences,
        mode=st.sampled_from(["hybrid", "vector", "text"]),
        embedding=vectors,
    )
    def recall(self, who: int, query: str, limit: int, mode: str, embedding: list[int] | None, **conditions: Any) -> None:
        """Search events."""
        session = self.session(who)
        parameters = {"query": query, "query_embedding": embedding, **conditions}
        vector = embed(query) if embedding is None else unit(embedding)
        pair = self.ask(
            "episodic.recall",
            session,
            lambda: self.reference.chosen(session, "episodic", **conditions),
            limit=limit,
            mode=mode,
            **parameters,
        )
        if pair is None:
            return
        if mode == "vector":
            self.nearest(pair, vector, limit)
            return
        holding = self.reference.holding(pair[1], query)
        if mode == "text":
            self.subset(pair[0], holding, min(limit, len(holding)))
            return
        by_words, _ = self.ask("episodic.recall", session, lambda: None, limit=200, mode="text", **parameters)
        self.fused(pair, by_words, vector, limit, (1.0, 1.0))

    @rule(who=picks, tags=some_tags, match=matches, limit=st.integers(1, 4))
    def recall_by_tags(self, who: int, limit: int, **conditions: Any) -> None:
        """List events by tag, all pages."""
        session = self.session(who)
        self.pages(
            "episodic.recall_by_tags",
            session,
            limit,
            lambda: self.reference.ordered(self.reference.chosen(session, "episodic", **conditions)),
            **conditions,
        )

    def pages(self, operation: str, session: str, limit: int, expected: Callable[[], list[Item]], **parameters: Any) -> None:
        """Compare a list, read page by page, with the reference's."""
        cursor, read = None, 0
        while True:
            pair = self.ask(operation, session, expected, limit=limit, cursor=cursor, **parameters)
            if pair is None:
                return
            answer, items = pair
            self.equal((answer, items[read : read + limit]))
            read += len(answer)
            cursor = answer.cursor
            assert (cursor is not None) == (read < len(items))
            if cursor is None:
                return

    @rule(who=picks, limit=limits)
    def get_recent(self, who: int, limit: int) -> None:
        """List the last events."""
        session = self.session(who)
        self.equal(
            self.ask(
                "episodic.get_recent",
                session,
                lambda: self.reference.ordered(self.reference.living(session, "episodic"))[:limit],
                limit=limit,
            )
        )

    @rule(
        who=picks,
        since=maybe_moments,
        until=maybe_moments,
        limit=st.integers(1, 5),
        order=st.sampled_from(["newest_first", "oldest_first"]),
    )
    def query_temporal(self, who: int, since: datetime | None, until: datetime | None, limit: int, order: str) -> None:
        """List events of a range of time, all pages."""
        session = self.session(who)
        self.pages(
            "episodic.query_temporal",
            session,
            limit,
            lambda: self.reference.ordered(
                self.reference.chosen(session, "episodic", since=since, until=until), order == "newest_first"
            ),
            since=since,
            until=until,
            order=order,
        )

    @rule(who=picks, limit=st.integers(1, 5), order=st.sampled_from(["newest_first", "oldest_first"]))
    def list_events(self, who: int, limit: int, order: str) -> None:
        """List all events, all pages."""
        session = self.session(who)
        self.pages(
            "episodic.list_events",
            session,
            limit,
            lambda: self.reference.ordered(self.reference.living(session, "episodic"), order == "newest_first"),
            order=order,
        )

    @rule(who=picks, pick=picks)
    def get_event(self, who: int, pick: int) -> None:
        """Read one event."""
        session = self.session(who)
        id = self.id(pick, session, "episodic")
        pair = self.ask("episodic.get_event", session, lambda: self.reference.one(session, "episodic", id), id=id)
        if pair is not None:
            assert shown(pair[0]) == pair[1].value()

    # --- semantic: writing ------------------------------------------------------------------------------------------------

    @rule(who=picks, given=facts)
    def store(self, who: int, given: dict[str, Any]) -> None:
        """Store one fact."""
        session = self.session(who)
        parameters, draft = self.fact(given)
        pair = self.ask("semantic.store", session, lambda: self.reference.living(session, "semantic"), **parameters)
        if pair is not None:
            self.stored(session, "semantic", pair[0], draft)

    @rule(
        who=picks,
        subject=st.sampled_from(WORDS),
        predicate=st.sampled_from(["likes", "works_at"]),
        object=st.sampled_from(WORDS),
        topics=tags,
        confidence=confidences,
        source=sources,
    )
    def store_fact(self, who: int, subject: str, predicate: str, object: str, topics: list[str], **rest: Any) -> None:
        """Store one triple."""
        session = self.session(who)
        content = f"{subject} {predicate.replace('_', ' ')} {object}"
        draft = rest | {
            "content": content,
            "kind": "fact",
            "tags": once(topics),
            "triple": (subject, predicate, object),
            "vector": embed(content),
        }
        pair = self.ask(
            "semantic.store_fact",
            session,
            lambda: self.reference.living(session, "semantic"),
            subject=subject,
            predicate=predicate,
            object=object,
            topics=topics,
            **rest,
        )
        if pair is not None:
            self.stored(session, "semantic", pair[0], draft)
            self.linked(session, self.reference.one(session, "semantic", pair[0].id))

    def linked(self, session: str, fact: Item) -> None:
        """Take the relationship of a new fact into the reference, with the entities that it brought."""
        subject, predicate, object_ = fact.triple
        listed, _ = self.ask("graph.search_relationships", session, lambda: None, type=predicate, limit=200)
        (made,) = [one for one in listed if one.fact == fact.id]
        for end, name in (("source", subject), ("target", object_)):
            id = getattr(made, end)
            there = self.reference.graph.called(session, name)
            if there is None:
                value, _ = self.ask("graph.get_entity", session, lambda: None, entity=id)
                assert (value.name, value.type, value.version) == (name, "thing", 1)
                assert not any(node.fields["id"] == id for node in self.reference.graph.nodes)
                self.reference.graph.nodes.append(Node(session, shown(value)))
            else:
                assert there.fields["id"] == id
        assert (made.type, made.strength, made.version) == (predicate, max(fact.confidence, 0.01), 1)
        self.reference.graph.links.append(Link(session, shown(made), fact))

    @rule(
        who=picks,
        given=st.lists(facts, min_size=1, max_size=8),
        on_duplicate=st.sampled_from(["keep", "skip", "error"]),
    )
    def bulk_store(self, who: int, given: list[dict[str, Any]], on_duplicate: str) -> None:
        """Store several facts, or on an error none."""
        self.bulk("semantic.bulk_store", "facts", self.session(who), [self.fact(one) for one in given], on_duplicate)

    @rule(
        who=picks,
        pick=picks,
        given=facts,
        names=st.sets(st.sampled_from(["content", "kind", "topics", "confidence", "source", "expires_at"])),
        clear=st.booleans(),
    )
    def update(self, who: int, pick: int, given: dict[str, Any], names: set[str], clear: bool) -> None:
        """Change some of a fact."""
        session = self.session(who)
        id = self.id(pick, session, "semantic")
        given = given | {"expires_at": self.expiry(given["lifetime"])}
        if clear:  # None takes these away
            given |= {"source": None, "expires_at": None}
        parameters = {name: given[name] for name in sorted(names)}
        changes = {("tags" if name == "topics" else name): value for name, value in parameters.items()}
        if "topics" in names:
            changes["tags"] = once(given["topics"])
        if given["embedding"] is not None:
            parameters["embedding"] = given["embedding"]
            changes["vector"] = unit(given["embedding"])
        elif "content" in names:
            changes["vector"] = embed(given["content"])
        if "content" in names:
            changes["triple"] = (None, None, None)
            changes["evidence"] = ()

        def expected() -> Item:
            self.reference.living(session, "semantic")
            if not changes:
                raise Refused("VALIDATION", "missing_parameter")
            return self.reference.update(session, id, changes)

        pair = self.ask("semantic.update", session, expected, id=id, raw=parameters)
        if pair is not None:
            assert shown(pair[0]) == pair[1].value()

    @rule(who=picks, pick=picks)
    def delete(self, who: int, pick: int) -> None:
        """Forget one fact."""
        session = self.session(who)
        id = self.id(pick, session, "semantic")

        def expected() -> Any:
            self.reference.one(session, "semantic", id)
            return self.reference.forget(session, "semantic", [id])

        self.gone(self.ask("semantic.delete", session, expected, id=id))

    @rule(who=picks, some=st.lists(picks, min_size=1, max_size=4), dry_run=st.booleans())
    def bulk_delete_ids(self, who: int, some: list[int], dry_run: bool) -> None:
        """Forget facts by id."""
        session = self.session(who)
        wanted = self.ids(some, session, "semantic")
        if not dry_run:
            self.gone(
                self.ask("semantic.bulk_delete", session, lambda: self.reference.forget(session, "semantic", wanted), ids=wanted)
            )
            return
        pair = self.ask(
            "semantic.bulk_delete", session, lambda: self.reference.living(session, "semantic"), ids=wanted, dry_run=True
        )
        if pair is not None:
            answer, living = pair
            there = {item.id for item in living}
            assert answer.ids == tuple(id for id in once(wanted) if id in there)
            assert answer.missing == tuple(id for id in once(wanted) if id not in there)
            assert (answer.forgotten, answer.dry_run) == (0, True)

    @rule(
        who=picks,
        older_than=maybe_moments,
        topics=tags,
        match=matches,
        below_confidence=maybe_confidences,
        limit=st.integers(1, 3),
        dry_run=st.booleans(),
    )
    def bulk_delete_where(
        self,
        who: int,
        older_than: datetime | None,
        topics: list[str],
        match: str,
        below_confidence: float | None,
        limit: int,
        dry_run: bool,
    ) -> None:
        """Forget facts by condition."""
        session = self.session(who)

        def expected() -> list[Item]:
            found = self.reference.stale(session, older_than, tags=topics, match=match, below_confidence=below_confidence)
            if older_than is None and not topics and below_confidence is None:
                raise Refused("VALIDATION", "missing_parameter")
            return found

        pair = self.ask(
            "semantic.bulk_delete",
            session,
            expected,
            older_than=older_than,
            topics=topics,
            match=match,
            below_confidence=below_confidence,
            limit=limit,
            dry_run=dry_run,
        )
        self.forgotten_where(pair, session, "semantic", limit, dry_run)

    @rule(who=picks, similarity=st.sampled_from([0.6, 0.8, 0.95, 1.0]), dry_run=st.booleans())
    def deduplicate(self, who: int, similarity: float, dry_run: bool) -> None:
        """Merge near-duplicates; merging again finds nothing."""
        session = self.session(who)
        if session in self.reference.sessions and self.reference.duplicates(session, similarity) is None:
            return
        pair = self.ask(
            "semantic.deduplicate",
            session,
            lambda: self.reference.duplicates(session, similarity),
            similarity=similarity,
            dry_run=dry_run,
        )
        if pair is None:
            return
        answer, groups = pair
        assert [(merge.kept, merge.absorbed, merge.topics) for merge in answer.merges] == [
            (
                kept.id,
                tuple(item.id for item in absorbed),
                once(topic for item in (kept, *absorbed) for topic in item.tags),
            )
            for kept, absorbed in groups
        ]
        assert (answer.complete, answer.dry_run) == (True, dry_run)
        assert answer.merged == (0 if dry_run else sum(len(absorbed) for _, absorbed in groups))
        if not dry_run:
            self.forgotten += [item.id for _, absorbed in groups for item in absorbed]
            self.reference.merge(session, groups)
            again, _ = self.ask("semantic.deduplicate", session, lambda: None, similarity=similarity)
            assert again.merges == ()
            for kept, _ in groups:  # the merged fact at once: a later step may forget it before anybody looks
                merged, _ = self.ask("semantic.get", session, lambda: None, id=kept.id)
                assert merged.topics == tuple(kept.tags)

    # --- semantic: reading ------------------------------------------------------------------------------------------------

    @rule(
        who=picks,
        operation=st.sampled_from(["search", "semantic_search", "keyword_search", "hybrid_search", "weighted"]),
        query=texts,
        limit=limits,
        topics=tags,
        match=matches,
        kind=maybe_kinds,
        min_confidence=maybe_confidences,
        weights=st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.25, 1.0])),
    )
    def search(
        self,
        who: int,
        operation: str,
        query: str,
        limit: int,
        topics: list[str],
        weights: tuple[float, float],
        **conditions: Any,
    ) -> None:
        """Search facts in every way."""
        session = self.session(who)
        parameters: dict[str, Any] = {"query": query, "topics": topics, **conditions}
        extra: dict[str, Any] = {}
        name = operation
        if operation in ("hybrid_search", "weighted"):
            fusion = "reciprocal_rank" if operation == "hybrid_search" else "weighted"
            extra = {"vector_weight": weights[0], "text_weight": weights[1], "fusion": fusion}
            name = "hybrid_search"

        def expected() -> list[Item]:
            found = self.reference.chosen(session, "semantic", tags=topics, **conditions)
            if extra and not any(weights):
                raise Refused("VALIDATION", "bounds")
            return found

        pair = self.ask(f"semantic.{name}", session, expected, limit=limit, **parameters, **extra)
        if pair is None:
            return
        if operation == "semantic_search":
            self.nearest(pair, embed(query), limit)
            return
        holding = self.reference.holding(pair[1], query)
        if operation == "keyword_search":
            self.subset(pair[0], holding, min(limit, len(holding)))
            return
        if operation == "weighted":
            self.subset(pair[0], pair[1], min(limit, len(pair[1])))
            return
        by_words, _ = self.ask("semantic.keyword_search", session, lambda: None, limit=200, **parameters)
        short = len(query.split()) <= 2
        self.fused(pair, by_words, embed(query), limit, weights if extra else ((0.5, 1.0) if short else (1.0, 1.0)))

    @rule(
        who=picks,
        operation=st.sampled_from(
            [
                "rag.retrieve",
                "rag.search",
                "rag.hybrid_search",
                "rag.semantic_search",
                "rag.bm25_search",
                "rag.retrieve_with_reranking",
                "rag.reflective_search",
                "rag.query_expansion",
                "rag.get_synthesis_prompt",
            ]
        ),
        query=texts,
        limit=limits,
        layers=st.sampled_from([[], ["episodic"], ["semantic"]]),
    )
    def retrieve(self, who: int, operation: str, query: str, limit: int, layers: list[str]) -> None:
        """Search over layers: what is found is the session's, in the layers asked for, and as many as there are."""
        session = self.session(who)
        extra: dict[str, Any] = {} if operation == "rag.hybrid_search" else {"layers": layers}
        wanted = [] if operation == "rag.hybrid_search" else layers

        pair = self.ask(operation, session, lambda: self.reference.passages(session, wanted), query=query, limit=limit, **extra)
        if pair is None:
            return
        answer, items = pair
        found = list(getattr(answer, "passages", getattr(answer, "sources", answer)))
        by_id = {item.id: item for item in items}
        assert len({one.id for one in found}) == len(found)
        for one in found:
            assert (one.content, one.layer) == (by_id[one.id].content, by_id[one.id].layer), operation
        if operation == "rag.bm25_search":
            holding = self.reference.holding(items, query)
            assert {one.id for one in found} <= {item.id for item in holding}
            assert len(found) == min(limit, len(holding))
        elif operation != "rag.get_synthesis_prompt":  # every vector is near in some degree
            assert len(found) == min(limit, len(items)), operation

    @rule(who=picks)
    def retrieval_stats(self, who: int) -> None:
        """Count what each layer offers to retrieval."""
        session = self.session(who)

        def expected() -> dict[str, int]:
            return Counter(one.layer.partition(".")[0] for one in self.reference.passages(session, []))

        pair = self.ask("rag.get_stats", session, expected)
        if pair is not None:
            assert Counter(pair[0].by_layer) == pair[1]
            assert pair[0].memories == pair[1].total()

    @rule(who=picks, topics=some_tags, match=matches, limit=st.integers(1, 4))
    def search_by_topic(self, who: int, topics: list[str], match: str, limit: int) -> None:
        """List facts by topic, all pages."""
        session = self.session(who)
        self.pages(
            "semantic.search_by_topic",
            session,
            limit,
            lambda: self.reference.ordered(self.reference.chosen(session, "semantic", tags=topics, match=match)),
            topics=topics,
            match=match,
        )

    @rule(who=picks, pick=picks, limit=limits)
    def search_related(self, who: int, pick: int, limit: int) -> None:
        """Search by a fact."""
        session = self.session(who)
        id = self.id(pick, session, "semantic")

        def expected() -> list[Item]:
            self.reference.one(session, "semantic", id)
            return [item for item in self.reference.living(session, "semantic") if item.id != id]

        pair = self.ask("semantic.search_related", session, expected, id=id, limit=limit)
        if pair is not None:
            self.nearest(pair, self.reference.one(session, "semantic", id).vector, limit)

    @rule(who=picks, typed=texts, letters=st.integers(1, 3), limit=limits)
    def instant_search(self, who: int, typed: str, letters: int, limit: int) -> None:
        """Search as typed."""
        session = self.session(who)
        *whole, last = typed.split()
        prefix = " ".join([*whole, last[:letters]])
        pair = self.ask(
            "semantic.instant_search", session, lambda: self.reference.living(session, "semantic"), prefix=prefix, limit=limit
        )
        if pair is not None:
            holding = self.reference.beginning(pair[1], prefix)
            self.subset(pair[0], holding, min(limit, len(holding)))

    @rule(who=picks, pick=picks, version=st.none() | st.integers(1, 4))
    def get(self, who: int, pick: int, version: int | None) -> None:
        """Read one fact, now or as it was."""
        session = self.session(who)
        id = self.id(pick, session, "semantic")
        pair = self.ask("semantic.get", session, lambda: self.reference.version(session, id, version), id=id, version=version)
        if pair is not None:
            assert shown(pair[0]) == pair[1]

    @rule(who=picks, limit=st.integers(1, 5), kind=maybe_kinds, order=st.sampled_from(["newest_first", "oldest_first"]))
    def list_facts(self, who: int, limit: int, kind: str | None, order: str) -> None:
        """List facts, all pages."""
        session = self.session(who)
        self.pages(
            "semantic.list",
            session,
            limit,
            lambda: self.reference.ordered(self.reference.chosen(session, "semantic", kind=kind), order == "newest_first"),
            kind=kind,
            order=order,
        )

    @rule(who=picks, limit=st.integers(1, 3))
    def analyze_topics(self, who: int, limit: int) -> None:
        """Count topics."""
        session = self.session(who)
        pair = self.ask("semantic.analyze_topics", session, lambda: self.reference.topics(session, limit), limit=limit)
        if pair is not None:
            assert len(pair[0]) == len(pair[1])
            for value, wanted in zip(*pair, strict=True):
                close(msgspec.structs.asdict(value), wanted)

    @rule(who=picks)
    def get_stats(self, who: int) -> None:
        """Count facts."""
        session = self.session(who)
        pair = self.ask("semantic.get_stats", session, lambda: self.reference.totals(session))
        if pair is not None:
            close({name: getattr(pair[0], name) for name in pair[1]}, pair[1])

    # --- sessions ---------------------------------------------------------------------------------------------------------

    @rule()
    def create_session(self) -> None:
        """Open a session."""
        if len(self.reference.sessions) < 4:
            answer, _ = self.ask("session.create", "default", lambda: None)
            assert answer not in self.reference.sessions
            assert answer not in self.deleted_sessions
            self.reference.sessions[answer] = None

    @rule(limit=st.integers(1, 3))
    def list_sessions(self, limit: int) -> None:
        """List sessions, all pages."""
        listed, cursor = [], None
        while True:
            answer, _ = self.ask("session.list", "default", lambda: None, limit=limit, cursor=cursor)
            listed += [(entry.session, entry.memories) for entry in answer]
            cursor = answer.cursor
            if cursor is None:
                break
        assert listed == sorted((session, self.holds(session)) for session in self.reference.sessions)

    def holds(self, session: str) -> int:
        """Return how many memories a session holds."""
        own = sum(len(self.reference.living(session, layer)) for layer in ("episodic", "semantic"))
        return own + sum(part.holds(session) for part in self.reference.parts)

    @rule(who=picks)
    def export(self, who: int) -> None:
        """Export a session."""
        session = self.session(who)

        def expected() -> list[Any]:
            living = [item for layer in ("episodic", "semantic") for item in self.reference.living(session, layer)]
            return sorted(
                [(item.layer, True, item.id, item.version, item.content) for item in living]
                + [(item.layer, False, item.id, old["version"], old["content"]) for item in living for old in item.history]
            )

        pair = self.ask("session.export", session, expected)
        if pair is not None:
            exported = [json.loads(line) for line in pair[0].splitlines()]
            found = sorted(
                (
                    one["layer"],
                    one["current"],
                    one["memory"]["id"],
                    one["memory"].get("version", 1),
                    one["memory"]["content"],
                )
                for one in exported
                if one["layer"] in ("episodic", "semantic")
            )
            assert found == pair[1]
            related = sorted(
                (one["layer"], one["current"], one["memory"]["id"], one["memory"]["version"])
                for one in exported
                if one["layer"].startswith("graph")
            )
            assert related == sorted(self.reference.graph.exported(session))

    @rule(who=picks, really=st.integers(0, 3))
    def delete_session(self, who: int, really: int) -> None:
        """Delete a session, now and then."""
        session = self.session(who)
        if really:
            return

        def expected() -> int:
            total = self.holds(session)
            self.forgotten += [item.id for item in self.reference.items if item.session == session]
            self.reference.delete_session(session)
            return total

        pair = self.ask("session.delete", session, expected)
        if pair is not None:
            assert pair[0].forgotten == pair[1]
            if session != "default":
                self.deleted_sessions.append(session)

    # --- always -----------------------------------------------------------------------------------------------------------

    @invariant()
    def lists_agree(self) -> None:
        """After every step one session's lists are what the reference has."""
        if self.engine is None:
            return
        sessions = [*self.reference.sessions]
        session = sessions[type(self).steps % len(sessions)]
        for operation, layer in (("episodic.list_events", "episodic"), ("semantic.list", "semantic")):
            answer = self.loop.run_until_complete(self.call(operation, session, limit=500)).value
            self.equal((answer, self.reference.ordered(self.reference.living(session, layer))[:500]))


def same(found: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> None:
    """Compare memories in order, and say where they differ."""
    for place, (one, other) in enumerate(itertools.zip_longest(found, wanted, fillvalue={})):
        assert one == other, f"at {place} of {len(found)}: {one}, expected {other} of {len(wanted)}"


def close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare figures, with room for rounding."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, float):
            assert abs(found[name] - value) <= 1e-9
        else:
            assert found[name] == value
