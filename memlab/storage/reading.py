"""Answers what reading plans demand, for many of them at once.

The session predicate is applied below, in the directory, and by the session column of the few queries that the directory does
not answer: `select` says what a search may look at, `_see` what may leave, and no plan can name a session.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import structlog

from memlab.embedders import Embedder
from memlab.errors import MemlabError, internal, validation
from memlab.hooks import Hooks
from memlab.measure import clock
from memlab.settings import RetrievalSettings
from memlab.storage import demands as ask
from memlab.storage import fusion, records
from memlab.storage.context import Timeline, of_periods, rarity, words_in_context
from memlab.storage.database import Database
from memlab.storage.directory import KIND_CODES, microseconds, moment, naive, wall_us
from memlab.storage.indexes import Indexes
from memlab.storage.optimizer import Optimizer, Part, Statistics, Way
from memlab.storage.phases import Phases
from memlab.storage.rows import Replacing, Row, Value
from memlab.values import Explanation

log = structlog.get_logger(__name__)

_ROUGH = 4  # codes of 8 bits order neighbours roughly; the exact vectors decide among so many times as many
_COLUMNS = ("origin", "seq", "digest", "confidence", "occurred", "kind")
HYBRID_DEPTH = 50  # matches taken from either list before they are fused


class Found(msgspec.Struct):
    """Memories that a demand answers with, before their rows are fetched."""

    session: int
    layer: ask.Layer
    seqs: list[int]
    scores: list[float] | None = None
    finish: Callable[[list[Value | None]], Any] | None = None


class _Part(msgspec.Struct):
    """How a part of a search is executed, and what it took.

    Attributes:
        way: None where the index decides.
        ways: those that it could have gone.
        known: what was known before; None where nobody asked.
        matching: how many pass the filter, where they were counted.
    """

    layer: ask.Layer
    part: Part
    way: Way | None
    known: Statistics | None
    ways: tuple[Way, ...] = ()
    rows: int = 0
    cost_us: float = 0.0
    matching: int | None = None


class _Candidates(msgspec.Struct):
    """Candidates of one layer; arrays by candidate, the best first."""

    seqs: np.ndarray
    words: np.ndarray
    meaning: np.ndarray
    timely: np.ndarray
    vectors: np.ndarray | None


class Reader:
    """Reads one database through its indexes.

    Args:
        vector_threads: OpenMP threads of a search for several queries.
        rerank: whether the index holds rough codes, so that the exact vectors must decide.
        retrieval: how candidates over layers are gathered.
        hooks: the user's own functions.
    """

    def __init__(
        self,
        database: Database,
        indexes: Indexes,
        embedder: Embedder,
        *,
        vector_threads: int,
        rerank: bool,
        retrieval: RetrievalSettings,
        hooks: Hooks,
    ) -> None:
        self._database = database
        self._indexes = indexes
        self._rows = indexes.rows
        self._embedder = embedder
        self._vector_threads = vector_threads
        self._rerank_codes = rerank
        self._optimizer = Optimizer()
        self._retrieval = retrieval
        self._hooks = hooks

    def answer(self, asked: Sequence[tuple[int, Any]], phases: Phases) -> list[Any]:
        """Answer demands together: one embedding call, one vector search for each selection, one row fetch."""
        answers: list[Any] = [None] * len(asked)
        found: dict[int, Found] = {}
        embeds: list[int] = []
        searches: list[int] = []
        for index, (session, demand) in enumerate(asked):
            try:
                match demand:
                    case ask.Embed():
                        embeds.append(index)
                    case ask.Search():
                        searches.append(index)
                    case ask.Fetch():
                        found[index] = self._locate(session, demand)
                    case ask.Page():
                        with phases.time("select"):
                            found[index] = self._page(session, demand)
                    case ask.Carrying():
                        with phases.time("select"):
                            found[index] = self._carrying(session, demand)
                    case ask.Gather():
                        answers[index] = self._gather(session, demand, phases)
                    case ask.Tuning():
                        answers[index] = self._retrieval
                    case ask.Consult():
                        with phases.time("hook"):
                            if demand.needed or self._hooks.has(demand.hook):
                                answers[index] = self._hooks.ask(demand.hook, demand.arguments)
                    case ask.Ahead():
                        (answers[index],) = self.answer([(session, demand.demand)], phases)
                    case _:
                        with phases.time("scan"):
                            answers[index] = self._scan(session, demand)
            except MemlabError as error:
                answers[index] = error
        if embeds:
            with phases.time("embed"):
                self.embed([(index, asked[index][1]) for index in embeds], answers)
        if searches:
            self._search([(index, *asked[index]) for index in searches], answers, found, phases)
        if found:
            rows = self._rows.fetch({seq for wanted in found.values() for seq in wanted.seqs}, phases)
            self._follow(found.values(), rows, phases)
            damaged = {seq: row for seq, row in rows.items() if isinstance(row, MemlabError)}
            for index, wanted in found.items():
                broken = next((damaged[seq] for seq in wanted.seqs if seq in damaged), None) if damaged else None
                answers[index] = self._deliver(wanted, rows) if broken is None else broken.copy()
        return answers

    def _follow(self, found: Iterable[Found], rows: dict[int, Row | MemlabError], phases: Phases) -> None:
        """Add the rows of memories that were replaced after they were found, under the seq that they were found by.

        A change is committed a moment before the directory knows of it: a read in between must see what was or what is, and
        not that there is nothing.
        """
        missing = {seq: wanted.session for wanted in found for seq in wanted.seqs if seq >= 0 and seq not in rows}
        if not missing:
            return
        with phases.time("fetch"):
            for seq, now in self._replacing(missing).items():
                if now.session == missing[seq]:
                    rows[seq] = now.row

    def _replacing(self, seqs: Iterable[int]) -> dict[int, Replacing]:
        """Return what stands in the place of memories that are not there under their seqs any more, by those."""
        with self._indexes.lock.reading():
            origins = {seq: self._indexes.directory.origin(seq) for seq in seqs}
        return self._rows.replacing(origins)

    def _deliver(self, wanted: Found, rows: Mapping[int, Row | MemlabError]) -> Any:
        layer = wanted.layer
        values: list[Value | None] = []
        for row in map(rows.get, wanted.seqs):  # None: forgotten since it was found, or never there
            values.append(None if row is None or isinstance(row, MemlabError) or row[0] != layer else row[1])
        if wanted.scores is not None:
            values = [
                value if value is None else msgspec.structs.replace(value, score=score)
                for value, score in zip(values, wanted.scores, strict=True)
            ]
        return wanted.finish(values) if wanted.finish else [value for value in values if value is not None]

    def embed(self, wanted: Sequence[tuple[int, ask.Embed]], answers: list[Any]) -> None:
        """Fill in the vectors that each demand wants, or its error: given ones, and those of one call of the embedder a kind."""
        missing: dict[bool, list[tuple[int, int, str]]] = {}
        for index, demand in wanted:
            vectors = np.empty((len(demand.texts), self._embedder.dimension), np.float32)
            answers[index] = vectors
            given = demand.given or (None,) * len(demand.texts)
            for row, (vector, text) in enumerate(zip(given, demand.texts, strict=True)):
                if vector is None:
                    missing.setdefault(demand.query, []).append((index, row, text))
                elif len(vector) == self._embedder.dimension:
                    vectors[row] = vector
                else:
                    answers[index] = validation(
                        "vector",
                        f"a vector of {len(vector)} numbers was given; this database holds {self._embedder.dimension} "
                        f"(embedder {self._embedder.name})",
                    )
                    break
        for query, places in missing.items():
            for (index, row, _), made in zip(places, self._embedded([text for *_, text in places], query), strict=True):
                if isinstance(made, MemlabError):
                    answers[index] = made
                elif isinstance(answers[index], np.ndarray):
                    answers[index][row] = made

    def _embedded(self, texts: Sequence[str], query: bool) -> list[np.ndarray | MemlabError]:
        """Return a vector or an error for each text; one that the embedder fails on costs the others a second call."""
        try:
            made = self._embedder.embed(texts, query=query)
            if made.shape != (len(texts), self._embedder.dimension):
                raise internal("embedder", f"{self._embedder.name} gave vectors of shape {made.shape} for {len(texts)} texts")
        except MemlabError as error:
            return self._one_by_one(texts, query, error)
        except Exception as error:
            log.exception("embedder_failed", embedder=self._embedder.name)
            failure = internal(
                "embedder", f"the embedder {self._embedder.name} failed: {type(error).__name__}; the log holds the trace"
            )
            return self._one_by_one(texts, query, failure)
        good = np.abs(np.linalg.norm(made, axis=1) - 1.0) < 1e-3  # NaN is not
        bad = internal("embedder", f"the embedder {self._embedder.name} gave a vector that is not finite or not of unit length")
        return [vector if fine else bad.copy() for vector, fine in zip(made, good.tolist(), strict=True)]

    def _one_by_one(self, texts: Sequence[str], query: bool, failure: MemlabError) -> list[np.ndarray | MemlabError]:
        if len(texts) == 1:
            return [failure]
        return [outcome for text in texts for outcome in self._embedded([text], query)]

    def _search(
        self,
        wanted: Sequence[tuple[int, int, ask.Search]],
        answers: list[Any],
        found: dict[int, Found],
        phases: Phases,
    ) -> None:
        now = wall_us()
        by_meaning: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        alike: dict[Any, list[int]] = {}
        for place, (_, session, demand) in enumerate(wanted):
            if demand.mode in ("vector", "hybrid"):
                alike.setdefault((session, demand.layer, demand.filter, demand.way), []).append(place)
        told: dict[int, list[_Part]] = {place: [] for place, (*_, demand) in enumerate(wanted) if demand.explain}
        with self._indexes.lock.reading():
            for (session, layer, filter, way), places in alike.items():
                plan = self._planned("vector", session, layer, filter, way, [wanted[place][2] for place in places], now)
                self._nearest(wanted, (session, layer, filter), places, by_meaning, plan, now, phases)
                for place in told.keys() & places:
                    told[place].append(plan)
        with phases.time("rerank"):
            if by_meaning and self._rerank_codes:
                self._rerank(wanted, by_meaning)
        for place, (index, session, demand) in enumerate(wanted):
            try:
                lists = []
                if place in by_meaning:
                    lists.append(by_meaning[place])
                if demand.mode != "vector":
                    with phases.time("text"):
                        lists.append(self._by_words(session, demand, now, told.get(place)))
                with phases.time("fuse"):
                    if len(lists) == 1:
                        seqs, scores = lists[0]
                    elif demand.fusion == "weighted":
                        seqs, scores = fusion.weighted(lists, demand.weights)
                    else:
                        seqs, scores = fusion.reciprocal_rank([ids for ids, _ in lists], demand.weights)
                    with self._indexes.lock.reading():
                        seen = self._see(seqs, session, demand.layer, now)
                    seqs, scores = seqs[seen][: demand.limit], scores[seen][: demand.limit]
                found[index] = Found(session, demand.layer, seqs.tolist(), scores.tolist())
                if demand.explain:
                    found[index].finish = self._explaining(told[place])
            except MemlabError as error:
                answers[index] = error

    def _planned(
        self,
        part: Part,
        session: int,
        layer: ask.Layer,
        filter: ask.Filter,
        way: str | None,
        together: Sequence[ask.Search],
        now: int,
    ) -> _Part:
        """Return how a part of a search, of several questions where they go *together*, is to be executed."""
        if way is None:
            return _Part(layer, part, None, None)
        directory, vectors = self._indexes.directory, self._indexes.vectors
        memories, passing, conditions = directory.estimate(session, layer, now, filter)
        text = together[0].text if part == "text" else None
        known = Statistics(
            memories=memories,
            total=len(directory),
            passing=passing,
            conditions=conditions,
            postings=0 if text is None else self._indexes.text.postings(text, session=session, layer=layer),
            dimension=self._embedder.dimension,
            queries=len(together),
            depth=max(map(_depth, together)) * (_ROUGH if self._rerank_codes and part == "vector" else 1),
            kind=vectors.kind_now,
            probed=vectors.probed,
            links=2 * vectors.settings.hnsw_links if vectors.kind_now == "hnsw" else 0,
            effort=vectors.effort.get("ef", 0.0),
        )
        ways: tuple[Way, ...] = ("pre_filter", "push_down", "post_filter") if part == "vector" else ("pre_filter", "post_filter")
        if not conditions:  # nothing to filter by: the session alone is always pushed down
            ways = ("pre_filter", "push_down") if part == "vector" else ("post_filter",)
        chosen = self._optimizer.choose(part, known, ways) if way == "auto" or way not in ways else way
        return _Part(layer, part, chosen, known, ways)

    def _nearest(
        self,
        wanted: Sequence[tuple[int, int, ask.Search]],
        scope: tuple[int, ask.Layer, ask.Filter],
        places: Sequence[int],
        by_meaning: dict[int, tuple[np.ndarray, np.ndarray]],
        plan: _Part,
        now: int,
        phases: Phases,
    ) -> None:
        session, layer, filter = scope
        directory, vectors = self._indexes.directory, self._indexes.vectors
        queries = np.stack([np.asarray(wanted[place][2].vector, np.float32) for place in places])
        depth = max(_depth(wanted[place][2]) for place in places)
        if self._rerank_codes:
            depth *= _ROUGH
        threads = self._vector_threads if len(places) > 1 else 1
        started = clock.monotonic_ns()
        if plan.way == "post_filter":
            with phases.time("vector"):
                scores, positions = self._post_filtered(queries, depth, scope, plan, threads, now)
        else:
            with phases.time("select"):
                selection = directory.selection(session, layer, now, filter)
            exactly = None if plan.way is None else plan.way == "pre_filter"
            with phases.time("vector"):
                scores, positions = vectors.search(queries, depth, selection=selection, threads=threads, exactly=exactly)
            plan.rows = plan.matching = directory.alive if selection is None else selection.count
        self._learn(plan, started)
        seqs = directory.column("seq")
        for row, place in enumerate(places):
            own = _depth(wanted[place][2]) * (_ROUGH if self._rerank_codes else 1)  # an answer does not depend on its company
            there = positions[row]
            there = there[there >= 0][:own]
            by_meaning[place] = (seqs[there], scores[row][positions[row] >= 0][: len(there)])

    def _post_filtered(
        self,
        queries: np.ndarray,
        depth: int,
        scope: tuple[int, ask.Layer, ask.Filter],
        plan: _Part,
        threads: int,
        now: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search the session without the filter, and look further until every question has enough that pass."""
        session, layer, filter = scope
        directory = self._indexes.directory
        selection = directory.selection(session, layer, now)
        most = directory.alive if selection is None else selection.count
        asked = min(depth if plan.known is None else plan.known.reach, max(most, 1))
        while True:
            scores, positions = self._indexes.vectors.search(queries, asked, selection=selection, threads=threads)
            known = positions >= 0
            keep = np.zeros(positions.shape, np.bool_)
            keep[known] = directory.passes(positions[known], session, layer, now, filter)
            if asked >= most or (keep.sum(axis=1) >= depth).all():
                plan.rows = asked
                return scores, np.where(keep, positions, -1)
            asked = min(4 * asked, most)

    def _learn(self, plan: _Part, started_ns: int) -> None:
        plan.cost_us = (clock.monotonic_ns() - started_ns) / 1e3
        if plan.known is not None and plan.way is not None:
            self._optimizer.learn(plan.part, plan.way, plan.known, plan.cost_us)

    def _explaining(self, parts: Sequence[_Part]) -> Callable[[list[Value | None]], Any]:
        explanation = self._explanation(parts)

        def finish(values: list[Value | None]) -> tuple[list[Value], Explanation]:
            return [value for value in values if value is not None], explanation

        return finish

    def _explanation(self, parts: Sequence[_Part]) -> Explanation:
        """Return what was expected of the parts of a search, and what they took."""
        vectors = self._indexes.vectors
        by_layer = {part.layer: part for part in parts}
        counted = {part.layer: part.matching for part in parts if part.matching is not None}
        recalls = [
            1.0 if part.way == "pre_filter" and vectors.exact else vectors.recall for part in parts if part.part == "vector"
        ]
        return Explanation(
            index=vectors.kind_now,
            memories=sum(part.known.memories for part in by_layer.values() if part.known is not None),
            estimated_matching=sum(part.known.passing for part in by_layer.values() if part.known is not None),
            matching=sum(counted.values()) if counted.keys() == by_layer.keys() else None,
            recall=min((recall for recall in recalls if recall is not None), default=None) if None not in recalls else None,
            together=max((part.known.queries for part in parts if part.known is not None), default=1),
            candidates=tuple(
                candidate
                for part in parts
                if part.known is not None and part.way is not None
                for candidate in self._optimizer.candidates(
                    part.layer, part.part, part.known, part.ways, part.way, part.rows, part.cost_us
                )
            ),
        )

    def _rerank(
        self, wanted: Sequence[tuple[int, int, ask.Search]], by_meaning: dict[int, tuple[np.ndarray, np.ndarray]]
    ) -> None:
        seqs = np.unique(np.concatenate([seqs for seqs, _ in by_meaning.values()]))
        known, vectors = self._indexes.stored_vectors(seqs.tolist())
        for place, (candidates, _) in by_meaning.items():
            candidates = candidates[np.isin(candidates, known)]
            exact = vectors[np.searchsorted(known, candidates)] @ np.asarray(wanted[place][2].vector, np.float32)
            order = np.argsort(-exact, kind="stable")[: _depth(wanted[place][2])]
            by_meaning[place] = (candidates[order], exact[order])

    def _by_words(self, session: int, demand: ask.Search, now: int, told: list[_Part] | None) -> tuple[np.ndarray, np.ndarray]:
        """Return what the text index finds under the filter, looking further until enough remain or nothing is left."""
        with self._indexes.lock.reading():
            plan = self._planned("text", session, demand.layer, demand.filter, demand.way, [demand], now)
        if told is not None:
            told.append(plan)
        started = clock.monotonic_ns()
        found = self._words(session, demand, now, plan)
        self._learn(plan, started)
        return found

    def _words(self, session: int, demand: ask.Search, now: int, plan: _Part) -> tuple[np.ndarray, np.ndarray]:
        depth = _depth(demand)
        allowed: np.ndarray | None = None
        if demand.filter != ask.EVERYTHING:
            with self._indexes.lock.reading():
                allowed = self._indexes.directory.column("seq")[
                    self._indexes.directory.select(session, demand.layer, now, demand.filter)
                ]
            plan.matching = len(allowed)
            if not len(allowed):
                return np.zeros(0, np.int64), np.zeros(0, np.float32)
        first = depth if plan.known is None or plan.way is None else plan.known.reach
        among = allowed.tolist() if plan.way == "pre_filter" and allowed is not None else None
        asked = depth if among is not None else first
        while True:
            seqs, scores = self._indexes.text.search(
                demand.text or "",
                session=session,
                layer=demand.layer,
                limit=asked,
                prefix=demand.mode == "prefix",
                among=among,
            )
            plan.rows = asked if among is None else len(among)
            with self._indexes.lock.reading():
                keep = self._see(seqs, session, demand.layer, now)
            if allowed is not None:
                keep &= np.isin(seqs, allowed, assume_unique=True)
            if len(seqs) < asked or keep.sum() >= depth:
                return seqs[keep][:depth], scores[keep][:depth]
            asked *= 4

    def _gather(self, session: int, demand: ask.Gather, phases: Phases) -> ask.Gathered:
        """Return the best candidates of every layer, the best of all first."""
        found: list[tuple[ask.Layer, _Candidates]] = []
        told: list[_Part] = []
        for layer in demand.layers:
            gathered = self._gather_layer(session, layer, demand, phases, told)
            if gathered is not None:
                found.append((layer, gathered))
        rows = self._rows.fetch({seq for _, gathered in found for seq in gathered.seqs.tolist()}, phases)
        self._follow([Found(session, layer, gathered.seqs.tolist()) for layer, gathered in found], rows, phases)
        there: list[tuple[ask.Layer, Value]] = []
        keep: list[bool] = []
        for layer, gathered in found:
            for seq in gathered.seqs.tolist():
                row = rows.get(seq)
                if isinstance(row, MemlabError):
                    raise row.copy()
                keep.append(row is not None and row[0] == layer)  # else forgotten since it was found
                if row is not None and row[0] == layer:
                    there.append((layer, row[1]))
        why = self._explanation(told) if demand.explain else None
        if not there:
            none = np.zeros(0)
            return ask.Gathered((), (), none, none, none > 0, np.zeros((0, self._embedder.dimension), np.float32), why)
        words, meaning, timely = (
            np.concatenate([getattr(gathered, name) for _, gathered in found])[keep] for name in ("words", "meaning", "timely")
        )
        vectors = None
        if demand.with_vectors:
            vectors = np.concatenate([gathered.vectors for _, gathered in found if gathered.vectors is not None])[keep]
        return ask.Gathered(
            tuple(value for _, value in there), tuple(layer for layer, _ in there), words, meaning, timely, vectors, why
        )

    def _gather_layer(
        self, session: int, layer: ask.Layer, demand: ask.Gather, phases: Phases, told: list[_Part]
    ) -> _Candidates | None:
        settings = self._retrieval
        reach = settings.reach if demand.context else 0
        with phases.time("text"):
            words = []
            if demand.text is not None:
                words = self._indexes.text.by_word(
                    demand.text, session=session, layer=layer, limit=settings.pool, weights=demand.weights
                )
        with self._indexes.lock.reading():
            directory, vectors = self._indexes.directory, self._indexes.vectors
            with phases.time("select"):
                positions = directory.select(session, layer, wall_us())
                if not len(positions):
                    return None
                seqs = directory.column("seq")[positions]
                occurred = directory.column("occurred")[positions]
                timeline = Timeline(occurred, int(settings.gap_s * 1e6))
            with phases.time("vector"):
                near = np.zeros(0, np.int64)
                if demand.vector is not None:
                    query = np.asarray(demand.vector, np.float32)
                    depth = min(max(demand.limit, settings.pool), len(positions))
                    search = ask.Search(layer, "vector", depth, vector=query)
                    plan = self._planned("vector", session, layer, ask.EVERYTHING, demand.way, [search], wall_us())
                    started = clock.monotonic_ns()
                    selection = directory.selection(session, layer, wall_us())
                    exactly = None if plan.way is None else plan.way == "pre_filter"
                    _, hits = vectors.search(query[None], depth, selection=selection, exactly=exactly)
                    plan.rows = plan.matching = len(positions)
                    self._learn(plan, started)
                    told.append(plan)
                    near = timeline.ranks[np.searchsorted(positions, hits[0][hits[0] >= 0])]
            with phases.time("context"):
                known, lists = [], []
                for word in words:
                    places = np.minimum(np.searchsorted(seqs, word.seqs), len(seqs) - 1)
                    here = seqs[places] == word.seqs
                    known.append(here)
                    lists.append(timeline.ranks[places[here]])
                base = np.unique(np.concatenate([near, *lists]))
                if not len(base):
                    return None
                ranks = timeline.widened(base, reach) if reach else base
                parts = np.zeros((len(words), len(ranks)))
                for row, (word, here, mine) in enumerate(zip(words, known, lists, strict=True)):
                    parts[row, np.searchsorted(ranks, mine)] = word.parts[here]
                by_words = np.zeros(len(ranks))
                if words:
                    times = np.array([word.times for word in words])
                    counted = np.array([word.counted for word in words], np.float64)
                    if reach:
                        by_words = words_in_context(timeline, ranks, parts, counted, times, len(positions), settings)
                    else:
                        by_words = (times * rarity(len(positions), counted)) @ parts
                kept = np.zeros(len(ranks), np.bool_)
                kept[np.searchsorted(ranks, near)] = True
                kept[_top(by_words, max(demand.limit, settings.pool))] = True
                ranks, by_words = ranks[kept], by_words[kept]
            with phases.time("rerank"):
                meaning = np.zeros(len(ranks))
                if demand.vector is not None:
                    lends = reach > 0 and (settings.meaning_before > 0 or settings.meaning_after > 0)
                    wide = timeline.widened(ranks, 1) if lends else ranks
                    cosines = (vectors.vectors(positions[timeline.order[wide]]) @ query).astype(np.float64)
                    if lends:
                        before, after = settings.meaning_before, settings.meaning_after
                        cosines = timeline.spread(cosines[None], wide, reach=1, before=before, after=after, decay=1.0)[0]
                    meaning = cosines[np.searchsorted(wide, ranks)]
            chosen = timeline.order[ranks]
            timely = of_periods(occurred[chosen], demand.periods)
            merit = _scaled(by_words) + settings.meaning_weight * _scaled(meaning) + settings.time_weight * timely
            best = np.argsort(-merit, kind="stable")[: demand.limit]
            chosen = chosen[best]
            best = best[self._see(seqs[chosen], session, layer, wall_us())]
            chosen = timeline.order[ranks[best]]
            return _Candidates(
                seqs[chosen],
                by_words[best],
                meaning[best],
                timely[best],
                vectors.vectors(positions[chosen]) if demand.with_vectors else None,
            )

    def _see(self, seqs: np.ndarray, session: int, layer: str, now: int) -> np.ndarray:
        """Return which of *seqs* may leave storage: the session predicate, applied to whatever any index returned."""
        return self._indexes.directory.visible(seqs, session, layer, now)

    def select(self, session: int, layer: str, filter: ask.Filter) -> np.ndarray:
        """Return the positions that a session sees through a filter; the caller holds the lock."""
        return self._indexes.directory.select(session, layer, wall_us(), filter)

    def _locate(self, session: int, demand: ask.Fetch) -> Found:
        now = wall_us()
        with self._indexes.lock.reading():
            seqs = [
                self._indexes.directory.current(session, demand.layer, records.origin_of(demand.layer, id)) for id in demand.ids
            ]
            seen = self._see(np.array(seqs, np.int64), session, demand.layer, now)
        ids = demand.ids

        def finish(values: list[Value | None]) -> list[Value | None]:
            return [
                value if ok and value is not None and value.id == id else None
                for value, id, ok in zip(values, ids, seen, strict=True)
            ]

        return Found(session, demand.layer, seqs, finish=finish)

    def _page(self, session: int, demand: ask.Page) -> Found:
        bound = msgspec.json.encode([session, demand.layer, demand.filter, demand.newest_first])
        after = None if demand.after is None else struct.unpack("<qq", self._opened(bound, demand.after))
        with self._indexes.lock.reading():
            positions = self.select(session, demand.layer, demand.filter)
            occurred = self._indexes.directory.column("occurred")[positions]
            # Ties by origin, not by seq: an update gives a memory a new seq and must not move it from one page to another.
            origins = self._indexes.directory.column("origin")[positions]
            seqs = self._indexes.directory.column("seq")[positions]
        if after is not None:
            moment, origin = after
            if demand.newest_first:
                later = (occurred < moment) | ((occurred == moment) & (origins < origin))
            else:
                later = (occurred > moment) | ((occurred == moment) & (origins > origin))
            occurred, origins, seqs = occurred[later], origins[later], seqs[later]
        sign = -1 if demand.newest_first else 1
        if len(seqs) > demand.limit:
            edge = np.partition(sign * occurred, demand.limit)[demand.limit]
            near = sign * occurred <= edge
            occurred, origins, seqs = occurred[near], origins[near], seqs[near]
        order = np.lexsort((sign * origins, sign * occurred))
        more = len(order) > demand.limit
        order = order[: demand.limit]
        cursor = None
        if more:
            cursor = self._sealed(bound, struct.pack("<qq", int(occurred[order[-1]]), int(origins[order[-1]])))

        def finish(values: list[Value | None]) -> tuple[list[Value], str | None]:
            return [value for value in values if value is not None], cursor

        return Found(session, demand.layer, seqs[order].tolist(), finish=finish)

    def _carrying(self, session: int, demand: ask.Carrying) -> Found:
        filter = ask.Filter(tags=demand.keys, match=demand.match)
        found = self._page(session, ask.Page(demand.layer, demand.limit, filter, newest_first=False))
        return msgspec.structs.replace(found, finish=None)

    def _scan(self, session: int, demand: Any) -> Any:
        """Answer the rarer demands, each by a query of its own."""
        match demand:
            case ask.Count():
                with self._indexes.lock.reading():
                    return len(self.select(session, demand.layer, demand.filter))
            case ask.VectorOf():
                (found,) = self.answer([(session, ask.Fetch(demand.layer, (demand.id,)))], Phases())
                if found[0] is None:  # an id is more than the seq that it begins with
                    return None
                origin = records.origin_of(demand.layer, demand.id)
                with self._indexes.lock.reading():
                    seq = self._indexes.directory.current(session, demand.layer, origin)
                vector = self._indexes.vector(seq)
                if vector is not None:
                    return vector
                # Replaced since it was found; see `_follow`.
                now = self._replacing([seq]).get(seq)
                return None if now is None or now.session != session else now.vector
            case ask.Following():
                return self._following(session, demand)
            case ask.Statistics():
                return self._statistics(session, demand.layer)
            case ask.TopicCounts():
                rows = self._database.read(_TOPICS, [session, demand.layer, naive(wall_us()), demand.limit])
                names = ("topic", "memories", "mean_confidence", "oldest", "newest")
                return [dict(zip(names, (*row[:3], _aware(row[3]), _aware(row[4])), strict=True)) for row in rows]
            case ask.Versions():
                with self._indexes.lock.reading():
                    origin = records.origin_of(demand.layer, demand.id)
                    if self._indexes.directory.current(session, demand.layer, origin) < 0:
                        return []
                rows = self._database.read(
                    "SELECT record FROM versions WHERE origin = ? AND session = ? ORDER BY seq DESC", [origin, session]
                )
                return [value for (record,) in rows if (value := records.decode(demand.layer, record)).id == demand.id]
            case ask.NearDuplicates():
                return self._near_duplicates(session, demand)
            case ask.Columns():
                with self._indexes.lock.reading():
                    positions = self.select(session, demand.layer, demand.filter)
                    return {name: self._indexes.directory.column(name)[positions] for name in _COLUMNS}
            case ask.TagTotals():
                with self._indexes.lock.reading():
                    return self._indexes.directory.tag_totals(session, demand.layer, wall_us(), demand.limit)
            case ask.Unseen():
                return self._unseen(session, demand)
            case ask.Vectors():
                return self._vectors(session, demand)
            case ask.Graph():
                return self._indexes.graphs.of(session, wall_us())
            case ask.Sessions():
                return self._list_sessions(demand)
            case ask.Export():
                return self._export(session, demand.format)
        raise internal("bug", f"a reading plan may not ask for {type(demand).__name__}")

    def _following(self, session: int, demand: ask.Following) -> tuple[list[Value], np.ndarray, int]:
        with self._indexes.lock.reading():
            seqs = self._indexes.directory.column("seq")[self.select(session, demand.layer, demand.filter)]
        seqs = seqs[np.searchsorted(seqs, demand.after, side="right") :]
        chosen = seqs[: demand.limit].tolist()
        if not chosen:
            return [], np.zeros((0, self._database.dimension), np.float32), 0
        values, vectors = self._with_vectors(session, demand.layer, chosen)
        return values, vectors, len(seqs) - len(chosen)

    def _statistics(self, session: int, layer: str) -> dict[str, Any]:
        now = wall_us()
        with self._indexes.lock.reading():
            positions = self.select(session, layer, ask.EVERYTHING)
            kinds = self._indexes.directory.column("kind")[positions]
            confidence = self._indexes.directory.column("confidence")[positions]
            occurred = self._indexes.directory.column("occurred")[positions]
        ((content_bytes, expired),) = self._database.read(
            "SELECT coalesce(sum(strlen(record ->> 'content')) FILTER (expires_at IS NULL OR expires_at > ?), 0)::BIGINT, "
            "count(*) FILTER (expires_at <= ?) FROM memories WHERE session = ? AND layer = ?",
            [naive(now), naive(now), session, layer],
        )
        ((versions,),) = self._database.read("SELECT count(*) FROM versions WHERE session = ? AND layer = ?", [session, layer])
        by_kind = {name: int((kinds == code).sum()) for name, code in KIND_CODES.items()}
        return {
            "memories": len(positions),
            "by_kind": {name: count for name, count in by_kind.items() if count},
            "mean_confidence": float(confidence.mean()) if len(positions) else None,
            "oldest": moment(int(occurred.min())) if len(positions) else None,
            "newest": moment(int(occurred.max())) if len(positions) else None,
            "content_bytes": content_bytes,
            "versions": versions,
            "expired": expired,
        }

    def _near_duplicates(self, session: int, demand: ask.NearDuplicates) -> tuple[list[tuple[Value, Value, float]], bool]:
        """Return pairs whose exact cosine reaches the bound, found block by block over the session's stored vectors."""
        with self._indexes.lock.reading():
            seqs = self._indexes.directory.column("seq")[self.select(session, demand.layer, ask.EVERYTHING)]
        known, vectors, replaced = self._vectors_now(session, seqs.tolist())
        pairs: list[tuple[float, int, int]] = []
        complete = True
        block = 256  # 256 x n float32 products at a time: 100 MB at 100,000 memories
        for start in range(0, len(known), block):
            products = vectors[start : start + block] @ vectors[: start + block].T
            products[np.arange(products.shape[1])[None, :] >= start + np.arange(len(products))[:, None]] = -np.inf
            alike = np.flatnonzero(products >= demand.similarity)
            cosines = products.ravel()[alike]
            if len(alike) > demand.limit:  # a store full of equal texts has more pairs than anyone can list
                complete = False
                best = np.argpartition(-cosines, demand.limit)[: demand.limit]
                alike, cosines = alike[best], cosines[best]
            newer, older = np.divmod(alike, products.shape[1])
            for row, column, cosine in zip(newer.tolist(), older.tolist(), cosines.tolist(), strict=True):
                pairs.append((cosine, int(known[column]), int(known[row + start])))
            pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
            complete = complete and len(pairs) <= demand.limit
            del pairs[demand.limit :]
        wanted = {seq for _, older, newer in pairs for seq in (older, newer)}
        # Not what replaced a memory after its vector was read: nobody compared that one. It is left for the next call.
        rows = self._rows.fetch(wanted - replaced.keys(), Phases()) | replaced
        gone = wanted - rows.keys()
        complete = complete and not (gone and self._replacing(gone))
        values = {seq: row[1] for seq, row in rows.items() if not isinstance(row, MemlabError)}
        found = [
            (values[older], values[newer], min(1.0, cosine))
            for cosine, older, newer in pairs
            if older in values and newer in values
        ]
        return found, complete

    def _unseen(self, session: int, demand: ask.Unseen) -> tuple[list[Value], np.ndarray, int]:
        with self._indexes.lock.reading():
            positions = self.select(session, demand.layer, demand.filter)
            origins = self._indexes.directory.column("origin")[positions]
            occurred = self._indexes.directory.column("occurred")[positions]
            seqs = self._indexes.directory.column("seq")[positions]
        unseen = np.ones(len(seqs), np.bool_)
        for mark in demand.marks:
            covered = origins <= records.origin_of(demand.layer, mark.through)
            if mark.since is not None:
                covered &= occurred >= microseconds(mark.since)
            unseen &= ~covered
        waiting = seqs[unseen][np.argsort(origins[unseen])]
        values, vectors = self._with_vectors(session, demand.layer, waiting[: demand.limit].tolist())
        return values, vectors, max(0, len(waiting) - demand.limit)

    def _vectors(self, session: int, demand: ask.Vectors) -> tuple[list[Value], np.ndarray]:
        (found,) = self.answer([(session, ask.Fetch(demand.layer, demand.ids))], Phases())
        wanted = {value.id for value in found if value is not None}
        with self._indexes.lock.reading():
            seqs = [self._indexes.directory.current(session, demand.layer, records.origin_of(demand.layer, id)) for id in wanted]
        values, vectors = self._with_vectors(session, demand.layer, [seq for seq in seqs if seq >= 0])
        mine = [place for place, value in enumerate(values) if value.id in wanted]
        return [values[place] for place in mine], vectors[mine]

    def _vectors_now(self, session: int, seqs: list[int]) -> tuple[np.ndarray, np.ndarray, dict[int, Row | MemlabError]]:
        """Return (seqs that are there, ascending; their vectors; the rows of those that were replaced since they were found)."""
        known, vectors = self._indexes.stored_vectors(seqs)
        missing = np.setdiff1d(seqs, known).tolist()
        later = {seq: now for seq, now in (self._replacing(missing) if missing else {}).items() if now.session == session}
        if later:
            known = np.concatenate([known, np.array([*later], np.int64)])
            vectors = np.concatenate([vectors, np.stack([now.vector for now in later.values()])])
            order = np.argsort(known)
            known, vectors = known[order], vectors[order]
        return known, vectors, {seq: now.row for seq, now in later.items()}

    def _with_vectors(self, session: int, layer: ask.Layer, seqs: list[int]) -> tuple[list[Value], np.ndarray]:
        """Return the values of rows and their vectors, ascending by seq; rows that were forgotten meanwhile are left out."""
        if not seqs:
            return [], np.zeros((0, self._embedder.dimension), np.float32)
        known, vectors, replaced = self._vectors_now(session, seqs)
        rows = self._rows.fetch([seq for seq in known.tolist() if seq not in replaced], Phases()) | replaced
        self._follow([Found(session, layer, known.tolist())], rows, Phases())
        values: list[Value] = []
        there: list[int] = []
        for place, seq in enumerate(known.tolist()):
            row = rows.get(seq)
            if isinstance(row, MemlabError):
                raise row.copy()
            if row is not None and row[0] == layer:
                values.append(row[1])
                there.append(place)
        return values, vectors[there]

    def _list_sessions(self, demand: ask.Sessions) -> tuple[list[dict[str, Any]], str | None]:
        with self._indexes.lock.reading():
            totals = self._indexes.directory.counts(wall_us())
        rows = self._database.read(
            "SELECT session, code, created_at FROM sessions WHERE session > ? ORDER BY session LIMIT ?",
            ["" if demand.after is None else self._opened(b"sessions", demand.after).decode(), demand.limit + 1],
        )
        listed = [
            {"session": name, "created_at": _aware(created_at), "memories": totals.get(code, 0)}
            for name, code, created_at in rows[: demand.limit]
        ]
        more = len(rows) > demand.limit
        return listed, self._sealed(b"sessions", listed[-1]["session"].encode()) if more else None

    def _export(self, session: int, format: str) -> bytes:
        """Return every memory of the session and its earlier versions, oldest first, one record a line or a row."""
        now = naive(wall_us())
        rows = self._database.read(
            "SELECT * FROM (SELECT layer, seq, true AS current, record FROM memories "
            "WHERE session = ? AND (expires_at IS NULL OR expires_at > ?) "
            "UNION ALL SELECT layer, seq, false, record FROM versions WHERE session = ? AND origin IN "
            "(SELECT origin FROM memories WHERE session = ? AND (expires_at IS NULL OR expires_at > ?))) ORDER BY seq",
            [session, now, session, session, now],
        )
        if format == "jsonl":
            lines = (
                msgspec.json.encode({"layer": layer, "current": current, "memory": msgspec.Raw(record.encode())})
                for layer, _, current, record in rows
            )
            return b"".join(line + b"\n" for line in lines)
        table = pa.table(
            {
                "layer": pa.array([row[0] for row in rows], pa.string()),
                "current": pa.array([row[2] for row in rows], pa.bool_()),
                "memory": pa.array([row[3] for row in rows], pa.string()),
            }
        )
        sink = io.BytesIO()
        pyarrow.parquet.write_table(table, sink)
        return sink.getvalue()

    def _sealed(self, bound: bytes, body: bytes) -> str:
        return (body + self._seal(bound, body)).hex()

    def _opened(self, bound: bytes, cursor: str) -> bytes:
        """Return what was sealed in a cursor; VALIDATION `cursor` where it is not of the list that *bound* describes."""
        try:
            raw = bytes.fromhex(cursor)
        except ValueError:
            raw = b""
        body, seal = raw[:-_SEAL], raw[-_SEAL:]
        if not secrets.compare_digest(seal, self._seal(bound, body)):
            raise validation(
                "cursor", "this cursor belongs to another list; pass the cursor of an earlier page of the same call, or none"
            )
        return body

    def _seal(self, bound: bytes, body: bytes) -> bytes:
        return hashlib.blake2b(bound + body, key=self._database.id.encode()[:64], digest_size=_SEAL).digest()


_SEAL = 8
_TOPICS = """
SELECT topic, count(*), avg(confidence), min(occurred_at), max(occurred_at)
FROM (SELECT unnest(list_distinct(tags)) AS topic, confidence, occurred_at FROM memories
      WHERE session = ? AND layer = ? AND (expires_at IS NULL OR expires_at > ?))
GROUP BY topic ORDER BY count(*) DESC, topic LIMIT ?
"""


def _top(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the highest positive scores."""
    places = np.flatnonzero(scores > 0)
    if len(places) > count:
        places = places[np.argpartition(-scores[places], count)[:count]]
    return places


def _scaled(scores: np.ndarray) -> np.ndarray:
    """Return scores so that the best is 1."""
    best = float(scores.max()) if len(scores) else 0.0
    return scores / best if best > 0 else scores


def _depth(demand: ask.Search) -> int:
    return max(HYBRID_DEPTH, 2 * demand.limit) if demand.mode == "hybrid" else demand.limit


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
