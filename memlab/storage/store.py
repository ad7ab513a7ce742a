"""Storage: answers what plans demand, for many plans at once, and is the only way to a memory.

DuckDB holds the truth; the directory, the vector index and the text index are derived from it. The session predicate is
applied here and nowhere else: `_select` says what a search may look at, `_see` what may leave. A write is visible, in every index,
before it is acknowledged.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import shutil
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import cachebox
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import structlog

from memlab.embedders import Embedder
from memlab.errors import MemlabError, internal, not_found, validation
from memlab.measure import clock
from memlab.settings import Settings
from memlab.storage import demands as ask
from memlab.storage import fusion, records
from memlab.storage.database import Database, Transaction
from memlab.storage.directory import KIND_CODES, NEVER, Directory, Entry, microseconds
from memlab.storage.locks import ReadWriteLock
from memlab.storage.manifest import Stale
from memlab.storage.text import TextIndex
from memlab.storage.vectors import VectorIndex
from memlab.values import DEFAULT_SESSION, Event, Fact, Table

log = structlog.get_logger(__name__)

Value: TypeAlias = Event | Fact
HYBRID_DEPTH = 50  # matches taken from either list before they are fused


class Keyed(msgspec.Struct, frozen=True):
    """What a write promises once: its key, a digest of its parameters, and how to read its answer back."""

    operation: str
    key: str
    digest: str
    result_type: Any


class Call(msgspec.Struct, frozen=True):
    """One plan to run for one session.

    Attributes:
        start: begins the plan afresh; a write may be begun again after a rollback.
        keyed: None where no promise was asked for.
    """

    session: str
    start: Callable[[], Any]
    keyed: Keyed | None = None


class Phases(dict[str, int]):
    """Nanoseconds by phase."""

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the time spent inside to phase *name*."""
        started = clock.monotonic_ns()
        try:
            yield
        finally:
            self[name] = self.get(name, 0) + clock.monotonic_ns() - started


class _Found(msgspec.Struct):
    """Memories that a demand answers with, before their rows are fetched."""

    session: int
    layer: str
    seqs: list[int]
    scores: list[float] | None = None
    finish: Callable[[list[Value | None]], Any] | None = None


class Storage:
    """One database file with its derived indexes.

    Args (of `open`):
        path: the database file; the indexes stand beside it in `<path>.index/`.
        embedder: turns text into vectors; its name is remembered and another is refused.
        create: make the database when there is none.
    Raises:
        MemlabError: NOT_FOUND `file`, VALIDATION `foreign`, `embedder`, PERMISSION `locked`, INTERNAL `damaged`, …
    """

    def __init__(self, database: Database, embedder: Embedder, settings: Settings) -> None:
        self.database = database
        self.embedder = embedder
        self.settings = settings
        self.vector_threads = settings.pool.vector_threads if settings.pool else 1
        self._folder = database.path.with_name(database.path.name + ".index")
        self._lock = ReadWriteLock()
        self._rows: cachebox.LRUCache[int, tuple[str, Value]] = cachebox.LRUCache(max(1, settings.storage.hot_rows))
        self._codes: dict[str, int] = {}
        self._upkeep = ThreadPoolExecutor(1, thread_name_prefix="memlab-upkeep")
        self._rebuilding: Future[None] | None = None
        self._arrived: list[np.ndarray] | None = None
        self._closed = False
        self._load()

    @classmethod
    def open(cls, path: str | Path, settings: Settings, embedder: Embedder, *, create: bool = True) -> Storage:
        """Open or create the database at *path* and bring its indexes up to date."""
        database = Database.open(
            Path(path),
            settings=settings.storage,
            embedder=embedder.name,
            dimension=embedder.dimension,
            threads=settings.pool.database_threads if settings.pool else 1,
            create=create,
        )
        try:
            return cls(database, embedder, settings)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Save the indexes and close the database; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._upkeep.shutdown(wait=True)
        try:
            self._save()
        finally:
            self.text.close()
            self.database.close()

    def statistics(self) -> dict[str, int]:
        """Return counts for people and metrics: memories, forgotten entries, sessions, hot rows, bytes of the vector index."""
        with self._lock.reading():
            return {
                "memories": self.directory.alive,
                "forgotten_entries": self.directory.dead,
                "sessions": len(self._codes),
                "hot_rows": len(self._rows),
                "vector_bytes": self.vectors.bytes,
                "commit_seq": self.database.commit_seq,
            }

    def clear_rows(self) -> None:
        """Forget which rows are in memory, so that the next reads come from the database."""
        self._rows.clear()

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, calls: Sequence[Call], phases: Phases) -> list[Any]:
        """Run reading plans together; one answer, or MemlabError as a value, for each call."""
        self._check_open()
        outcomes: list[Any] = [None] * len(calls)
        running: list[tuple[int, int, Generator[Any, Any, Any], Any]] = []
        for index, call in enumerate(calls):
            try:
                session = self._code(call.session)
                plan = call.start()
                if not isinstance(plan, Generator):  # an operation that asks nothing of storage has answered already
                    outcomes[index] = plan
                    continue
                running.append((index, session, plan, next(plan)))
            except StopIteration as stop:
                outcomes[index] = stop.value
            except MemlabError as error:
                outcomes[index] = error
        while running:
            answers = self._answer([(session, demand) for _, session, _, demand in running], phases)
            going = []
            for (index, session, plan, _), answer in zip(running, answers, strict=True):
                try:
                    following = plan.throw(answer) if isinstance(answer, MemlabError) else plan.send(answer)
                    going.append((index, session, plan, following))
                except StopIteration as stop:
                    outcomes[index] = stop.value
                except MemlabError as error:
                    outcomes[index] = error
            running = going
        return outcomes

    def resident(self, call: Call) -> tuple[Any] | None:
        """Return the answer of a plan that asks for rows in memory only, in a tuple; None where it needs more than that."""
        session = self._codes.get(call.session)
        if session is None or self._closed:
            return None
        plan = call.start()
        try:
            demand = next(plan)
            while True:
                answer = self._hot(session, demand) if isinstance(demand, ask.Fetch) else None
                if answer is None:
                    plan.close()
                    return None
                demand = plan.send(answer)
        except StopIteration as stop:
            return (stop.value,)

    def _hot(self, session: int, demand: ask.Fetch) -> list[Value | None] | None:
        values: list[Value | None] = []
        now = _now()
        for id in demand.ids:
            # No lock: the directory only grows or is replaced whole, and a row that is being forgotten may still be seen.
            seq = self.directory.current(session, demand.layer, records.origin_of(demand.layer, id))
            row = self._rows.get(seq) if seq >= 0 else None
            if row is None or row[1].id != id or (row[1].expires_at is not None and microseconds(row[1].expires_at) <= now):
                return None
            values.append(row[1])
        return values

    def _answer(self, asked: Sequence[tuple[int, Any]], phases: Phases) -> list[Any]:
        """Answer demands together: one embedding call, one vector search for each selection, one row fetch."""
        answers: list[Any] = [None] * len(asked)
        found: dict[int, _Found] = {}
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
                    case _:
                        with phases.time("scan"):
                            answers[index] = self._scan(session, demand)
            except MemlabError as error:
                answers[index] = error
        if embeds:
            with phases.time("embed"):
                self._embed([(index, asked[index][1]) for index in embeds], answers)
        if searches:
            self._search([(index, *asked[index]) for index in searches], answers, found, phases)
        if found:
            rows = self._fetch({seq for wanted in found.values() for seq in wanted.seqs}, phases)
            for index, wanted in found.items():
                answers[index] = self._deliver(wanted, rows)
        return answers

    def _deliver(self, wanted: _Found, rows: Mapping[int, tuple[str, Value]]) -> Any:
        values: list[Value | None] = []
        scores = wanted.scores
        for place, seq in enumerate(wanted.seqs):
            row = rows.get(seq) if seq >= 0 else None
            if row is None or row[0] != wanted.layer:  # forgotten since it was found, or never there
                values.append(None)
            else:
                values.append(row[1] if scores is None else msgspec.structs.replace(row[1], score=scores[place]))
        return wanted.finish(values) if wanted.finish else [value for value in values if value is not None]

    def _embed(self, wanted: Sequence[tuple[int, ask.Embed]], answers: list[Any]) -> None:
        texts: list[str] = []
        places: list[tuple[int, int]] = []
        query = bool(wanted[0][1].query)
        for index, demand in wanted:
            try:
                vectors = np.empty((len(demand.texts), self.embedder.dimension), np.float32)
                given = demand.given or (None,) * len(demand.texts)
                missing = []
                for row, vector in enumerate(given):
                    if vector is None:
                        missing.append(row)
                    elif len(vector) != self.embedder.dimension:
                        raise validation(
                            "vector",
                            f"a vector of {len(vector)} numbers was given; this database holds {self.embedder.dimension} "
                            f"(embedder {self.embedder.name})",
                        )
                    else:
                        vectors[row] = vector
                answers[index] = vectors
                if missing and demand.query == query:
                    texts.extend(demand.texts[row] for row in missing)
                    places.extend((index, row) for row in missing)
                elif missing:
                    vectors[missing] = self.embedder.embed([demand.texts[row] for row in missing], query=demand.query)
            except MemlabError as error:
                answers[index] = error
        if texts:
            try:
                made = self.embedder.embed(texts, query=query)
            except MemlabError as error:
                for index in {index for index, _ in places}:
                    answers[index] = error.copy()
                return
            for (index, row), vector in zip(places, made, strict=True):
                if isinstance(answers[index], np.ndarray):
                    answers[index][row] = vector

    def _search(
        self,
        wanted: Sequence[tuple[int, int, ask.Search]],
        answers: list[Any],
        found: dict[int, _Found],
        phases: Phases,
    ) -> None:
        now = _now()
        by_meaning: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        with self._lock.reading():
            selections: dict[tuple[int, str, ask.Filter], tuple[Any, list[int]]] = {}
            with phases.time("select"):
                for place, (_, session, demand) in enumerate(wanted):
                    if demand.mode in ("vector", "hybrid"):
                        key = (session, demand.layer, demand.filter)
                        if key not in selections:
                            selections[key] = (self.directory.selection(session, demand.layer, now, demand.filter), [])
                        selections[key][1].append(place)
            with phases.time("vector"):
                for selection, places in selections.values():
                    self._nearest(wanted, selection, places, by_meaning)
        with phases.time("rerank"):
            if by_meaning and not self.vectors.exact and self.settings.index.kind == "sq8":
                self._rerank(wanted, by_meaning)
        for place, (index, session, demand) in enumerate(wanted):
            try:
                lists = []
                if place in by_meaning:
                    lists.append(by_meaning[place])
                if demand.mode != "vector":
                    with phases.time("text"):
                        lists.append(self._by_words(session, demand, now))
                with phases.time("fuse"):
                    if len(lists) == 1:
                        seqs, scores = lists[0]
                    elif demand.fusion == "weighted":
                        seqs, scores = fusion.weighted(lists, demand.weights)
                    else:
                        seqs, scores = fusion.reciprocal_rank([ids for ids, _ in lists], demand.weights)
                    with self._lock.reading():
                        seen = self._see(seqs, session, demand.layer, now)
                    seqs, scores = seqs[seen][: demand.limit], scores[seen][: demand.limit]
                found[index] = _Found(session, demand.layer, seqs.tolist(), scores.tolist())
            except MemlabError as error:
                answers[index] = error

    def _nearest(
        self,
        wanted: Sequence[tuple[int, int, ask.Search]],
        selection: Any,
        places: Sequence[int],
        by_meaning: dict[int, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        queries = np.stack([np.asarray(wanted[place][2].vector, np.float32) for place in places])
        depth = max(_depth(wanted[place][2]) for place in places)
        if self.settings.index.kind == "sq8":
            depth *= 4  # codes of 8 bits order neighbours roughly; the exact vectors decide among four times as many
        scores, positions = self.vectors.search(
            queries, depth, selection=selection, threads=self.vector_threads if len(places) > 1 else 1
        )
        seqs = self.directory.column("seq")
        for row, place in enumerate(places):
            there = positions[row] >= 0
            by_meaning[place] = (seqs[positions[row][there]], scores[row][there])

    def _rerank(
        self, wanted: Sequence[tuple[int, int, ask.Search]], by_meaning: dict[int, tuple[np.ndarray, np.ndarray]]
    ) -> None:
        seqs = np.unique(np.concatenate([seqs for seqs, _ in by_meaning.values()]))
        known, vectors = self._stored_vectors(seqs.tolist())
        for place, (candidates, _) in by_meaning.items():
            candidates = candidates[np.isin(candidates, known)]
            exact = vectors[np.searchsorted(known, candidates)] @ np.asarray(wanted[place][2].vector, np.float32)
            order = np.argsort(-exact, kind="stable")[: _depth(wanted[place][2])]
            by_meaning[place] = (candidates[order], exact[order])

    def _by_words(self, session: int, demand: ask.Search, now: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what the text index finds under the filter, looking further until enough remain or nothing is left."""
        depth = _depth(demand)
        allowed: np.ndarray | None = None
        if demand.filter != ask.EVERYTHING:
            with self._lock.reading():
                allowed = self.directory.column("seq")[self.directory.select(session, demand.layer, now, demand.filter)]
            if not len(allowed):
                return np.zeros(0, np.int64), np.zeros(0, np.float32)
        asked = depth
        while True:
            seqs, scores = self.text.search(
                demand.text or "", session=session, layer=demand.layer, limit=asked, prefix=demand.mode == "prefix"
            )
            with self._lock.reading():
                keep = self._see(seqs, session, demand.layer, now)
            if allowed is not None:
                keep &= np.isin(seqs, allowed, assume_unique=True)
            if len(seqs) < asked or keep.sum() >= depth:
                return seqs[keep][:depth], scores[keep][:depth]
            asked *= 4

    def _see(self, seqs: np.ndarray, session: int, layer: str, now: int) -> np.ndarray:
        """Return which of *seqs* may leave storage: the session predicate, applied to whatever any index returned."""
        return self.directory.visible(seqs, session, layer, now)

    def _select(self, session: int, layer: str, filter: ask.Filter) -> np.ndarray:
        """Return the positions that a session sees through a filter; the caller holds the lock."""
        return self.directory.select(session, layer, _now(), filter)

    def _locate(self, session: int, demand: ask.Fetch) -> _Found:
        now = _now()
        with self._lock.reading():
            seqs = [
                self.directory.current(session, demand.layer, records.origin_of(demand.layer, id)) for id in demand.ids
            ]
            seen = self._see(np.array(seqs, np.int64), session, demand.layer, now)
        ids = demand.ids

        def finish(values: list[Value | None]) -> list[Value | None]:
            return [
                value if ok and value is not None and value.id == id else None
                for value, id, ok in zip(values, ids, seen, strict=True)
            ]

        return _Found(session, demand.layer, seqs, finish=finish)

    def _page(self, session: int, demand: ask.Page) -> _Found:
        after = None if demand.after is None else self._opened(session, demand)
        with self._lock.reading():
            positions = self._select(session, demand.layer, demand.filter)
            occurred = self.directory.column("occurred")[positions]
            seqs = self.directory.column("seq")[positions]
        if after is not None:
            moment, seq = after
            if demand.newest_first:
                later = (occurred < moment) | ((occurred == moment) & (seqs < seq))
            else:
                later = (occurred > moment) | ((occurred == moment) & (seqs > seq))
            occurred, seqs = occurred[later], seqs[later]
        sign = -1 if demand.newest_first else 1
        if len(seqs) > demand.limit:
            edge = np.partition(sign * occurred, demand.limit)[demand.limit]
            near = sign * occurred <= edge
            occurred, seqs = occurred[near], seqs[near]
        order = np.lexsort((sign * seqs, sign * occurred))
        more = len(order) > demand.limit
        order = order[: demand.limit]
        last = (int(occurred[order[-1]]), int(seqs[order[-1]])) if more else None
        cursor = None if last is None else self._sealed(session, demand, last)

        def finish(values: list[Value | None]) -> tuple[list[Value], str | None]:
            return [value for value in values if value is not None], cursor

        return _Found(session, demand.layer, seqs[order].tolist(), finish=finish)

    def _fetch(self, seqs: set[int], phases: Phases) -> dict[int, tuple[str, Value]]:
        """Return layer and value of every row that exists, from memory where it was read before."""
        rows: dict[int, tuple[str, Value]] = {}
        missing: list[int] = []
        for seq in seqs:
            row = self._rows.get(seq) if seq >= 0 else None
            if row is not None:
                rows[seq] = row
            elif seq >= 0:
                missing.append(seq)
        if missing:
            with phases.time("fetch"):
                fetched = self.database.read(
                    "SELECT seq, layer, record FROM memories WHERE seq IN (SELECT unnest(?))", [missing]
                )
            with phases.time("decode"):
                for seq, layer, record in fetched:
                    rows[seq] = (layer, records.decode(layer, record))
                    if self.settings.storage.hot_rows:
                        self._rows[seq] = rows[seq]
        return rows

    def _scan(self, session: int, demand: Any) -> Any:
        """Answer the rarer demands, each by a query of its own."""
        match demand:
            case ask.Count():
                with self._lock.reading():
                    return len(self._select(session, demand.layer, demand.filter))
            case ask.VectorOf():
                with self._lock.reading():
                    seq = self.directory.current(session, demand.layer, records.origin_of(demand.layer, demand.id))
                (known, vectors) = self._stored_vectors([seq])
                return vectors[0] if len(known) else None
            case ask.Statistics():
                return self._statistics(session, demand.layer)
            case ask.TopicCounts():
                rows = self.database.read(_TOPICS, [session, demand.layer, _naive(_now()), demand.limit])
                names = ("topic", "memories", "mean_confidence", "oldest", "newest")
                return [dict(zip(names, (*row[:3], _aware(row[3]), _aware(row[4])), strict=True)) for row in rows]
            case ask.Versions():
                with self._lock.reading():
                    origin = records.origin_of(demand.layer, demand.id)
                    if self.directory.current(session, demand.layer, origin) < 0:
                        return []
                rows = self.database.read(
                    "SELECT record FROM versions WHERE origin = ? AND session = ? ORDER BY seq DESC", [origin, session]
                )
                return [value for (record,) in rows if (value := records.decode(demand.layer, record)).id == demand.id]
            case ask.NearDuplicates():
                return self._near_duplicates(session, demand)
            case ask.Sessions():
                return self._list_sessions(demand)
            case ask.Export():
                return self._export(session, demand.format)
        raise internal("bug", f"a reading plan may not ask for {type(demand).__name__}")

    def _statistics(self, session: int, layer: str) -> dict[str, Any]:
        now = _now()
        with self._lock.reading():
            positions = self._select(session, layer, ask.EVERYTHING)
            kinds = self.directory.column("kind")[positions]
            confidence = self.directory.column("confidence")[positions]
            occurred = self.directory.column("occurred")[positions]
        ((content_bytes, expired),) = self.database.read(
            "SELECT coalesce(sum(strlen(record ->> 'content')) FILTER (expires_at IS NULL OR expires_at > ?), 0)::BIGINT, "
            "count(*) FILTER (expires_at <= ?) FROM memories WHERE session = ? AND layer = ?",
            [_naive(now), _naive(now), session, layer],
        )
        ((versions,),) = self.database.read(
            "SELECT count(*) FROM versions WHERE session = ? AND layer = ?", [session, layer]
        )
        by_kind = {name: int((kinds == code).sum()) for name, code in KIND_CODES.items()}
        return {
            "memories": len(positions),
            "by_kind": {name: count for name, count in by_kind.items() if count},
            "mean_confidence": float(confidence.mean()) if len(positions) else None,
            "oldest": _moment(int(occurred.min())) if len(positions) else None,
            "newest": _moment(int(occurred.max())) if len(positions) else None,
            "content_bytes": content_bytes,
            "versions": versions,
            "expired": expired,
        }

    def _near_duplicates(self, session: int, demand: ask.NearDuplicates) -> list[tuple[str, str, float]]:
        """Return pairs whose exact cosine reaches the bound, found block by block over the session's stored vectors."""
        with self._lock.reading():
            seqs = self.directory.column("seq")[self._select(session, demand.layer, ask.EVERYTHING)]
        known, vectors = self._stored_vectors(seqs.tolist())
        pairs: list[tuple[float, int, int]] = []
        block = 256  # 256 x n float32 products at a time: 100 MB at 100,000 memories
        for start in range(0, len(known), block):
            products = vectors[start : start + block] @ vectors[: start + block].T
            products[np.arange(products.shape[1])[None, :] >= start + np.arange(len(products))[:, None]] = -np.inf
            alike = np.flatnonzero(products >= demand.similarity)
            cosines = products.ravel()[alike]
            if len(alike) > demand.limit:  # a store full of equal texts has more pairs than anyone can list
                best = np.argpartition(-cosines, demand.limit)[: demand.limit]
                alike, cosines = alike[best], cosines[best]
            newer, older = np.divmod(alike, products.shape[1])
            for row, column, cosine in zip(newer.tolist(), older.tolist(), cosines.tolist(), strict=True):
                pairs.append((cosine, int(known[column]), int(known[row + start])))
            pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
            del pairs[demand.limit :]
        rows = self._fetch({seq for _, older, newer in pairs for seq in (older, newer)}, Phases())
        return [
            (rows[older][1].id, rows[newer][1].id, min(1.0, cosine))
            for cosine, older, newer in pairs
            if older in rows and newer in rows
        ]

    def _list_sessions(self, demand: ask.Sessions) -> tuple[list[dict[str, Any]], str | None]:
        with self._lock.reading():
            totals = self.directory.counts()
        rows = self.database.read(
            "SELECT session, code, created_at FROM sessions WHERE session > ? ORDER BY session LIMIT ?",
            [demand.after or "", demand.limit + 1],
        )
        listed = [
            {"session": name, "created_at": _aware(created_at), "memories": totals.get(code, 0)}
            for name, code, created_at in rows[: demand.limit]
        ]
        return listed, rows[demand.limit - 1][0] if len(rows) > demand.limit else None

    def _export(self, session: int, format: str) -> bytes:
        """Return every memory of the session and its earlier versions, oldest first, one record a line or a row."""
        rows = self.database.read(
            "SELECT * FROM (SELECT layer, seq, true AS current, record FROM memories WHERE session = ? "
            "UNION ALL SELECT layer, seq, false, record FROM versions WHERE session = ?) ORDER BY seq",
            [session, session],
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

    def _stored_vectors(self, seqs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return (seqs that exist, ascending; their exact vectors, (n, dimension) float32) from the database."""
        table = self.database.read_arrow(
            "SELECT seq, vector FROM memories WHERE seq IN (SELECT unnest(?)) ORDER BY seq", [list(seqs)]
        )
        return table.column("seq").to_numpy(), _matrix(table.column("vector"), self.embedder.dimension)

    # --- cursors ----------------------------------------------------------------------------------------------------

    def _sealed(self, session: int, demand: ask.Page, key: tuple[int, int]) -> str:
        body = b"".join(part.to_bytes(8, "little", signed=True) for part in key)
        return (body + self._seal(session, demand, body)).hex()

    def _opened(self, session: int, demand: ask.Page) -> tuple[int, int]:
        try:
            raw = bytes.fromhex(demand.after or "")
        except ValueError:
            raw = b""
        body, seal = raw[:16], raw[16:]
        if len(raw) != 24 or not secrets.compare_digest(seal, self._seal(session, demand, body)):
            raise validation(
                "cursor", "this cursor belongs to another list; pass the cursor of an earlier page of the same call, or none"
            )
        return int.from_bytes(body[:8], "little", signed=True), int.from_bytes(body[8:], "little", signed=True)

    def _seal(self, session: int, demand: ask.Page, body: bytes) -> bytes:
        bound = msgspec.json.encode([session, demand.layer, demand.filter, demand.newest_first])
        return hashlib.blake2b(body + bound, key=self.database.id.encode()[:64], digest_size=8).digest()

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, calls: Sequence[Call], phases: Phases) -> list[Any]:
        """Run writing plans as one transaction, in order; one answer, or MemlabError as a value, for each call.

        A call that scans (lists, searches) before it writes stands in a transaction of its own, because it must see what the
        calls before it did. When this returns, every answered write is committed, read back and visible to any search.
        """
        self._check_open()
        members = self._prepare(calls, phases)
        outcomes: list[Any] = [None] * len(calls)
        group: list[_Member] = []
        with phases.time("write"):
            for member in members:
                if member.outcome is not None:
                    outcomes[member.index] = member.outcome
                elif member.scans:
                    self._commit(group, outcomes)
                    self._commit([member], outcomes)
                    group = []
                else:
                    group.append(member)
            self._commit(group, outcomes)
        self._maintain()
        return outcomes

    def _prepare(self, calls: Sequence[Call], phases: Phases) -> list[_Member]:
        """Begin every plan and answer what it wants embedded, all together, before the writer is taken."""
        members = [_Member(index, call) for index, call in enumerate(calls)]
        waiting = [member for member in members if member.begin()]
        while waiting:
            answers: list[Any] = [None] * len(waiting)
            with phases.time("embed"):
                self._embed([(place, member.demand) for place, member in enumerate(waiting)], answers)
            waiting = [member for member, answer in zip(waiting, answers, strict=True) if member.embedded(answer)]
        return members

    def _commit(self, group: Sequence[_Member], outcomes: list[Any]) -> None:
        if not group:
            return
        promised = [member.call for member in group if member.call.keyed is not None]
        state = _Attempt(promised)

        def member_of(member: _Member) -> Callable[[Transaction], Any]:
            return lambda transaction: self._run_member(member, transaction, state)

        answers = self.database.transact([member_of(member) for member in group], self._publish)
        for member, answer in zip(group, answers, strict=True):
            outcomes[member.index] = answer

    def _run_member(self, member: _Member, transaction: Transaction, state: _Attempt) -> Any:
        state.enter(transaction)
        session = self._code(member.call.session)
        keyed = member.call.keyed
        if keyed is not None:
            kept = self._promised(transaction, state, session, keyed)
            if kept is not None:
                return kept[0]
        plan, demand = member.resume()
        try:
            while True:
                try:
                    answer = self._change(transaction, state, session, demand)
                except MemlabError as error:
                    demand = plan.throw(error)
                else:
                    demand = plan.send(answer)
        except StopIteration as stop:
            result = stop.value
        if keyed is not None:
            text = msgspec.json.encode(result, enc_hook=_encode_table).decode()
            transaction.insert(
                "idempotency",
                {
                    "session": [session],
                    "operation": [keyed.operation],
                    "key": [keyed.key],
                    "digest": [keyed.digest],
                    "result": [text],
                    "created_at": [clock.now().replace(tzinfo=None)],
                },
            )
            state.promises[session, keyed.operation, keyed.key] = (keyed.digest, text)
        return result

    def _promised(
        self, transaction: Transaction, state: _Attempt, session: int, keyed: Keyed
    ) -> tuple[Any] | None:
        """Return the answer that this key already has, in a tuple; one look-up serves every key of the group."""
        if not state.looked_up:
            state.looked_up = True
            rows = transaction.query(
                "SELECT session, operation, key, digest, result FROM idempotency WHERE key IN (SELECT unnest(?))"
                if len(state.keys) > 1
                else "SELECT session, operation, key, digest, result FROM idempotency WHERE session = ? AND operation = ? AND key = ?",
                [state.keys] if len(state.keys) > 1 else [session, keyed.operation, keyed.key],
            )
            state.promises.update({(row[0], row[1], row[2]): (row[3], row[4]) for row in rows})
        kept = state.promises.get((session, keyed.operation, keyed.key))
        if kept is None:
            return None
        digest, result = kept
        if digest != keyed.digest:
            raise validation(
                "idempotency_key",
                f"{keyed.operation}: this idempotency key was used with other parameters; use a new key for a new call",
            )
        return (_decode_result(result, keyed.result_type),)

    def _change(self, transaction: Transaction, state: _Attempt, session: int, demand: Any) -> Any:
        match demand:
            case ask.Insert():
                return self._insert(transaction, state, session, demand)
            case ask.Fetch():
                return [self._present(transaction, state, session, demand.layer, id)[1] for id in demand.ids]
            case ask.Replace():
                return self._replace(transaction, state, session, demand)
            case ask.Remove():
                return self._remove(transaction, state, session, demand)
            case ask.CreateSession():
                return self._create_session(transaction)
            case ask.DeleteSession():
                return self._delete_session(transaction, state, session)
            case ask.Embed():
                answers: list[Any] = [None]
                self._embed([(0, demand)], answers)
                if isinstance(answers[0], MemlabError):
                    raise answers[0]
                return answers[0]
            case _:
                if state.overlay:
                    raise _ScansAfterChangesError
                (answer,) = self._answer([(session, demand)], Phases())
                if isinstance(answer, MemlabError):
                    raise answer
                return answer

    def _insert(self, transaction: Transaction, state: _Attempt, session: int, demand: ask.Insert) -> ask.Inserted:
        held = {} if demand.on_duplicate == "keep" else self._held(state, session, demand)
        now = clock.now()
        ids: list[str] = []
        rows: list[tuple[int, int, Value, ask.Draft]] = []
        for place, draft in enumerate(demand.drafts):
            if draft.content in held:
                if demand.on_duplicate == "error":
                    raise validation(
                        "duplicate",
                        f"item {place} repeats a content of this layer; leave it out, or pass on_duplicate='skip' or 'keep'",
                        item=place,
                    )
                ids.append(held[draft.content])
                continue
            seq = self._next_seq()
            value = records.value_of(demand.layer, records.new_id(demand.layer, seq), draft, now=now, created_at=now, version=1)
            rows.append((seq, seq, value, draft))
            ids.append(value.id)
            if demand.on_duplicate != "keep":
                held[draft.content] = value.id
        self._store(transaction, state, session, demand.layer, rows)
        return ask.Inserted(tuple(ids), tuple(value for _, _, value, _ in rows))

    def _held(self, state: _Attempt, session: int, demand: ask.Insert) -> dict[str, str]:
        """Return id by content of the session's memories that may equal a draft, this transaction's own included."""
        digests = np.array([records.content_digest(draft.content) for draft in demand.drafts], np.int64)
        with self._lock.reading():
            positions = self._select(session, demand.layer, ask.EVERYTHING)
            equal = np.isin(self.directory.column("digest")[positions], digests)
            candidates = self.directory.column("seq")[positions[equal]].tolist()
        fetched = self._fetch(set(candidates), Phases())
        held = {fetched[seq][1].content: fetched[seq][1].id for seq in reversed(candidates) if seq in fetched}
        for origin, current in state.overlay.items():
            gone = [content for content, id in held.items() if records.origin_of(demand.layer, id) == origin]
            for content in gone:
                del held[content]
            if current is not None and (current.session, current.layer) == (session, demand.layer):
                held.setdefault(current.value.content, current.value.id)
        return held

    def _store(
        self,
        transaction: Transaction,
        state: _Attempt,
        session: int,
        layer: str,
        rows: Sequence[tuple[int, int, Value, ask.Draft]],
    ) -> None:
        if not rows:
            return
        entries = []
        columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        for seq, origin, value, draft in rows:
            occurred = value.occurred_at if isinstance(value, Event) else value.created_at
            digest = records.content_digest(value.content)
            for name, item in zip(
                _COLUMNS,
                (
                    seq,
                    origin,
                    session,
                    layer,
                    draft.kind,
                    list(draft.tags),
                    draft.confidence,
                    occurred.astimezone(UTC).replace(tzinfo=None),
                    None if draft.expires_at is None else _naive(microseconds(draft.expires_at)),
                    digest,
                    records.encode(value),
                    draft.vector.tobytes(),
                ),
                strict=True,
            ):
                columns[name].append(item)
            entry = Entry(
                seq=seq,
                origin=origin,
                session=session,
                layer=layer,
                kind=draft.kind,
                tags=draft.tags,
                confidence=draft.confidence,
                occurred=microseconds(occurred),
                expires=NEVER if draft.expires_at is None else microseconds(draft.expires_at),
                digest=digest,
            )
            entries.append(entry)
            state.overlay[origin] = _Current(session, layer, seq, value, draft)
        transaction.insert("memories", columns)
        transaction.notes.append(_Added(entries, [value for _, _, value, _ in rows], [draft.vector for *_, draft in rows]))

    def _present(
        self, transaction: Transaction, state: _Attempt, session: int, layer: str, id: str
    ) -> tuple[int, Value | None]:
        """Return (seq, value) of a memory as this transaction sees it; (-1, None) where the session has no such memory."""
        origin = records.origin_of(layer, id)
        if origin in state.overlay:
            current = state.overlay[origin]
            if current is None or (current.session, current.layer) != (session, layer) or current.value.id != id:
                return -1, None
            return current.seq, current.value
        (values,) = self._answer([(session, ask.Fetch(layer, (id,)))], Phases())  # type: ignore[arg-type]
        if values[0] is None:
            return -1, None
        with self._lock.reading():
            return self.directory.current(session, layer, origin), values[0]

    def _replace(self, transaction: Transaction, state: _Attempt, session: int, demand: ask.Replace) -> Value:
        seq, value = self._present(transaction, state, session, demand.layer, demand.id)
        if value is None:
            raise no_memory(demand.layer, demand.id)
        origin = records.origin_of(demand.layer, demand.id)
        current = state.overlay.get(origin)
        draft = current.draft if current is not None else self._draft_of(seq, value)
        draft = msgspec.structs.replace(draft, **demand.changes)
        new_seq = self._next_seq()
        version = value.version + 1 if isinstance(value, Fact) else 1
        new = records.value_of(
            demand.layer, value.id, draft, now=clock.now(), created_at=value.created_at, version=version
        )
        transaction.insert(
            "versions",
            {"seq": [seq], "origin": [origin], "session": [session], "layer": [demand.layer], "record": [records.encode(value)]},
        )
        transaction.execute("DELETE FROM memories WHERE seq = ?", [seq])
        transaction.notes.append(_Dropped([seq]))
        self._store(transaction, state, session, demand.layer, [(new_seq, origin, new, draft)])
        return new

    def _draft_of(self, seq: int, value: Value) -> ask.Draft:
        _, vectors = self._stored_vectors([seq])
        if isinstance(value, Event):
            return ask.Draft(
                content=value.content,
                vector=vectors[0],
                tags=value.tags,
                attributes=value.context,
                source=value.source,
                confidence=value.confidence,
                occurred_at=value.occurred_at,
                expires_at=value.expires_at,
            )
        triple = {"subject": value.subject, "predicate": value.predicate, "object": value.object}
        return ask.Draft(
            content=value.content,
            vector=vectors[0],
            kind=value.kind,
            tags=value.topics,
            attributes={name: part for name, part in triple.items() if part is not None},
            source=value.source,
            confidence=value.confidence,
            expires_at=value.expires_at,
        )

    def _remove(self, transaction: Transaction, state: _Attempt, session: int, demand: ask.Remove) -> list[str]:
        removed: list[str] = []
        seqs: list[int] = []
        origins: list[int] = []
        wanted = list(dict.fromkeys(demand.ids))
        unknown = [id for id in wanted if records.origin_of(demand.layer, id) not in state.overlay]
        (values,) = self._answer([(session, ask.Fetch(demand.layer, tuple(unknown)))], Phases())
        present = {value.id: value for value in values if value is not None}
        for id in wanted:
            origin = records.origin_of(demand.layer, id)
            current = state.overlay.get(origin)
            if current is not None and (current.session, current.layer, current.value.id) == (session, demand.layer, id):
                seq = current.seq
            elif origin not in state.overlay and id in present:
                with self._lock.reading():
                    seq = self.directory.current(session, demand.layer, origin)
            else:
                continue
            removed.append(id)
            seqs.append(seq)
            origins.append(origin)
            state.overlay[origin] = None
        if seqs:
            transaction.execute("DELETE FROM memories WHERE seq IN (SELECT unnest(?))", [seqs])
            transaction.execute("DELETE FROM versions WHERE origin IN (SELECT unnest(?))", [origins])
            transaction.execute("UPDATE allocation SET last_seq = ?", [self._seq])
            transaction.notes.append(_Dropped(seqs))
        return removed

    def _create_session(self, transaction: Transaction) -> str:
        name = "s-" + secrets.token_urlsafe(16)
        self._last_code += 1
        transaction.insert(
            "sessions",
            {"code": [self._last_code], "session": [name], "created_at": [clock.now().replace(tzinfo=None)]},
        )
        transaction.notes.append(_Opened(name, self._last_code))
        return name

    def _delete_session(self, transaction: Transaction, state: _Attempt, session: int) -> int:
        if state.overlay:
            raise _ScansAfterChangesError
        name = next(name for name, code in self._codes.items() if code == session)
        with self._lock.reading():
            total = self.directory.counts().get(session, 0)
        transaction.execute("DELETE FROM memories WHERE session = ?", [session])
        transaction.execute("DELETE FROM versions WHERE session = ?", [session])
        transaction.execute("DELETE FROM idempotency WHERE session = ?", [session])
        transaction.execute("UPDATE allocation SET last_seq = ?, last_code = ?", [self._seq, self._last_code])
        if name != DEFAULT_SESSION:  # the session that is meant when none is named stays, empty
            transaction.execute("DELETE FROM sessions WHERE code = ?", [session])
        transaction.notes.append(_Closed(name, session))
        return total

    def _publish(self, transaction: Transaction) -> None:
        """Make a committed transaction visible: all its additions at once, in the order of its members."""
        added = [note for note in transaction.notes if isinstance(note, _Added)]
        entries = [entry for note in added for entry in note.entries]
        if entries:
            values = [value for note in added for value in note.values]
            vectors = np.stack([vector for note in added for vector in note.vectors])
            self.text.add(
                [entry.seq for entry in entries],
                [entry.session for entry in entries],
                [entry.layer for entry in entries],
                [value.content for value in values],
            )
            if self.settings.storage.hot_rows:
                for entry, value in zip(entries, values, strict=True):
                    self._rows[entry.seq] = (entry.layer, value)
        dropped = [seq for note in transaction.notes if isinstance(note, _Dropped) for seq in note.seqs]
        closed = [note for note in transaction.notes if isinstance(note, _Closed)]
        with self._lock.writing():
            if entries:
                self.directory.add(entries)
                self.vectors.add(vectors)
                if self._arrived is not None:
                    self._arrived.append(vectors)
            for note in closed:
                mine = self.directory.column("alive") & (self.directory.column("session") == note.code)
                dropped.extend(self.directory.column("seq")[mine].tolist())
                if note.name != DEFAULT_SESSION:
                    del self._codes[note.name]
            self.directory.drop(dropped)
            for note in transaction.notes:
                if isinstance(note, _Opened):
                    self._codes[note.name] = note.code
        if dropped:
            self.text.remove(dropped)
            for seq in dropped:
                self._rows.pop(seq, None)
        for note in closed:
            self.text.remove_session(note.code)
            self._purge = True

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _code(self, session: str) -> int:
        code = self._codes.get(session)
        if code is None:
            raise not_found("session", f"no session {session!r}; session.create opens one", session=session)
        return code

    def _check_open(self) -> None:
        if self._closed:
            raise validation("closed", "this memory is closed; open it again with Memory.open or Engine.open")

    # --- derived indexes --------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read the directory, take the saved indexes where they are valid, catch up, and rebuild what is not."""
        self._codes = {name: code for name, code in self.database.read("SELECT session, code FROM sessions")}
        ((last_seq, last_code),) = self.database.read("SELECT last_seq, last_code FROM allocation")
        self._last_code = max([last_code, *self._codes.values()])
        ((top, old),) = self.database.read("SELECT (SELECT max(seq) FROM memories), (SELECT max(seq) FROM versions)")
        self._seq = max(last_seq, top or 0, old or 0)
        self._purge = False
        columns = self._read_columns()
        seqs = columns["seq"]
        try:
            vectors, indexed = VectorIndex.load(
                self._folder,
                database_id=self.database.id,
                dimension=self.embedder.dimension,
                settings=self.settings.index,
            )
            self._check_against(vectors, indexed, seqs)
        except Stale as stale:
            if len(seqs):
                log.warning("index_rebuilt", index="vectors", reason=str(stale), memories=len(seqs))
            vectors, indexed = self._build(seqs), seqs
        fresh = seqs[seqs > (indexed[-1] if len(indexed) else 0)]
        if len(fresh):
            log.info("index_caught_up", index="vectors", memories=len(fresh))
            _, missing = self._stored_vectors(fresh.tolist())
            vectors.add(missing)
        self.directory = Directory(self._load_tags)
        self.directory.load(_aligned(columns, np.concatenate([indexed, fresh])))
        self.vectors = vectors
        self.text = self._open_text(seqs)

    def _read_columns(self) -> dict[str, np.ndarray]:
        table = self.database.read_arrow(_DIRECTORY)
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        return {**columns, "alive": np.ones(len(columns["seq"]), np.bool_)}

    def _build(self, seqs: np.ndarray) -> VectorIndex:
        if not len(seqs):
            return VectorIndex(self.embedder.dimension, self.settings.index)
        table = self.database.read_arrow("SELECT vector FROM memories ORDER BY seq")
        return VectorIndex.build(_matrix(table.column("vector"), self.embedder.dimension), self.settings.index)

    def _check_against(self, vectors: VectorIndex, indexed: np.ndarray, seqs: np.ndarray) -> None:
        """Raise Stale unless the index covers the database up to its last entry, and a sample of its vectors is the database's."""
        if not len(indexed):
            return
        covered = seqs[seqs <= indexed[-1]]
        places = np.minimum(np.searchsorted(indexed, covered), len(indexed) - 1)
        if not np.array_equal(indexed[places], covered):
            raise Stale("it lacks memories that the database holds")
        if not len(covered):
            return
        sample = np.unique(np.linspace(0, len(covered) - 1, 16).astype(np.int64))
        known, stored = self._stored_vectors(covered[sample].tolist())
        held = vectors.vectors(places[sample])
        if len(known) != len(sample) or (np.einsum("ij,ij->i", held, stored) < 0.95).any():
            raise Stale("its vectors are not the database's")

    def _open_text(self, seqs: np.ndarray) -> TextIndex:
        folder = self._folder / "text"
        try:
            text = TextIndex.open(folder, database_id=self.database.id, settings=self.settings.storage)
            if text.covered_seq > self._seq:
                raise Stale("it knows memories that the database does not")
        except Stale as stale:
            if len(seqs):
                log.warning("index_rebuilt", index="text", reason=str(stale), memories=len(seqs))
            text = TextIndex.create(folder, database_id=self.database.id, settings=self.settings.storage)
        missing = seqs[seqs > text.covered_seq]
        if len(missing):
            log.info("index_caught_up", index="text", memories=len(missing))
            text.load(
                self.database.read(
                    "SELECT seq, session, layer, record ->> 'content' FROM memories WHERE seq > ? ORDER BY seq", [text.covered_seq]
                )
            )
        return text

    def _load_tags(self, session: int, layer: str) -> Iterable[tuple[int, str]]:
        return self.database.read(
            "SELECT seq, unnest(list_distinct(tags)) FROM memories WHERE session = ? AND layer = ?", [session, layer]
        )

    def _maintain(self) -> None:
        """Start in the background what is due: a rebuild of the vector index, the purge after a deleted session."""
        with self._lock.reading():
            reason = "a session was deleted" if self._purge else self.vectors.stale(self.directory.dead)
        if reason is None or (self._rebuilding is not None and not self._rebuilding.done()) or self._closed:
            return
        purge, self._purge = self._purge, False
        self._rebuilding = self._upkeep.submit(self._rebuild, reason, purge)

    def rebuild(self, reason: str = "asked for") -> None:
        """Build the vector index anew without the forgotten, and wait for it."""
        self._check_open()
        self._upkeep.submit(self._rebuild, reason, False).result()

    def _rebuild(self, reason: str, purge: bool) -> None:
        try:
            with self._lock.writing():
                living = np.flatnonzero(self.directory.column("alive"))
                size = len(self.directory)
                self._arrived = []
            if self.vectors.exact:
                with self._lock.reading():
                    matrix = self.vectors.vectors(living)
            else:
                known, stored = self._stored_vectors(self.directory.column("seq")[living].tolist())
                living = living[np.isin(self.directory.column("seq")[living], known)]
                matrix = stored
            built = VectorIndex.build(matrix, self.settings.index) if len(living) else VectorIndex(
                self.embedder.dimension, self.settings.index
            )
            with self._lock.writing():
                arrived = self._arrived
                if arrived:
                    built.add(np.concatenate(arrived))
                keep = np.concatenate([living, np.arange(size, len(self.directory))])
                columns = {name: self.directory.column(name)[keep] for name in _NAMES}
                directory = Directory(self._load_tags)
                directory.load(columns)
                self.directory, self.vectors = directory, built
                self._arrived = None
            log.info("index_rebuilt", index="vectors", reason=reason, memories=len(living))
            if purge:
                self.text.commit()
                self._save_vectors()
                self.database.checkpoint()
        except Exception:
            self._arrived = None
            log.exception("rebuild_failed", index="vectors", reason=reason)

    def _save(self) -> None:
        try:
            self._save_vectors()
            self.text.commit()
        except (OSError, MemlabError) as error:  # derived: what is not saved is rebuilt
            log.warning("index_not_saved", reason=str(error))

    def _save_vectors(self) -> None:
        with self._lock.reading():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self.vectors.save(
                self._folder,
                database_id=self.database.id,
                generation=self.database.commit_seq,
                seqs=self.directory.column("seq"),
                commit_seq=self.database.commit_seq,
            )


class _ScansAfterChangesError(Exception):
    """A member must see what earlier members of its group did: roll back and run every member alone."""


class _Current(msgspec.Struct, frozen=True):
    session: int
    layer: str
    seq: int
    value: Value
    draft: ask.Draft


class _Added(msgspec.Struct, frozen=True):
    entries: list[Entry]
    values: list[Value]
    vectors: list[np.ndarray]


class _Dropped(msgspec.Struct, frozen=True):
    seqs: list[int]


class _Opened(msgspec.Struct, frozen=True):
    name: str
    code: int


class _Closed(msgspec.Struct, frozen=True):
    name: str
    code: int


class _Attempt:
    """What one transaction has done so far, for its later members; forgotten when it is rolled back."""

    def __init__(self, promised: Sequence[Call]) -> None:
        self.keys = [call.keyed.key for call in promised if call.keyed is not None]
        self._transaction: Transaction | None = None
        self._clear()

    def _clear(self) -> None:
        self.overlay: dict[int, _Current | None] = {}  # by origin; None where removed
        self.promises: dict[tuple[int, str, str], tuple[str, str]] = {}
        self.looked_up = False

    def enter(self, transaction: Transaction) -> None:
        """Begin anew when *transaction* is another than before."""
        if transaction is not self._transaction:
            self._transaction = transaction
            self._clear()


class _Member:
    """One writing call between its beginning and its transaction."""

    def __init__(self, index: int, call: Call) -> None:
        self.index = index
        self.call = call
        self.outcome: Any = None
        self.demand: Any = None
        self._plan: Generator[Any, Any, Any] | None = None
        self._answers: list[Any] = []

    @property
    def scans(self) -> bool:
        """Whether it looks at many memories before it writes."""
        return isinstance(self.demand, (ask.Page, ask.Search, ask.Count, ask.NearDuplicates, ask.DeleteSession))

    def begin(self) -> bool:
        """Run the plan to its first demand; return whether that is something to embed."""
        return self._advance(lambda: next(self._start()))

    def embedded(self, answer: Any) -> bool:
        """Hand the plan its vectors; return whether it wants more of them."""
        if isinstance(answer, MemlabError):
            return self._advance(lambda: self._going().throw(answer))
        self._answers.append(answer)
        return self._advance(lambda: self._going().send(answer))

    def resume(self) -> tuple[Generator[Any, Any, Any], Any]:
        """Return the plan and its first demand of storage; begun afresh, with the same vectors, after a rollback."""
        if self._plan is None:
            self._start()
            self.demand = next(self._going())
            for answer in self._answers:
                self.demand = self._going().send(answer)
        plan, self._plan = self._going(), None
        return plan, self.demand

    def _start(self) -> Generator[Any, Any, Any]:
        self._plan = self.call.start()
        return self._plan

    def _going(self) -> Generator[Any, Any, Any]:
        if self._plan is None:
            raise internal("bug", "a writing plan was resumed before it began")
        return self._plan

    def _advance(self, step: Callable[[], Any]) -> bool:
        try:
            self.demand = step()
        except StopIteration:
            self.outcome = internal("bug", "a writing plan ended before it wrote")
            return False
        except MemlabError as error:
            self.outcome = error
            return False
        return isinstance(self.demand, ask.Embed)


_COLUMNS = (
    "seq",
    "origin",
    "session",
    "layer",
    "kind",
    "tags",
    "confidence",
    "occurred_at",
    "expires_at",
    "digest",
    "record",
    "vector",
)
_NAMES = ("seq", "origin", "session", "layer", "kind", "confidence", "occurred", "expires", "digest", "alive")
_DIRECTORY = """
SELECT seq, origin, session,
       (CASE layer WHEN 'episodic' THEN 0 ELSE 1 END)::TINYINT AS layer,
       (CASE kind WHEN 'event' THEN 0 WHEN 'fact' THEN 1 WHEN 'principle' THEN 2 ELSE 3 END)::TINYINT AS kind,
       confidence, epoch_us(occurred_at) AS occurred,
       coalesce(epoch_us(expires_at), 9223372036854775807) AS expires, digest
FROM memories ORDER BY seq
"""
_TOPICS = """
SELECT topic, count(*), avg(confidence), min(occurred_at), max(occurred_at)
FROM (SELECT unnest(list_distinct(tags)) AS topic, confidence, occurred_at FROM memories
      WHERE session = ? AND layer = ? AND (expires_at IS NULL OR expires_at > ?))
GROUP BY topic ORDER BY count(*) DESC, topic LIMIT ?
"""


def no_memory(layer: str, id: str) -> MemlabError:
    """Return the error for an id that this session does not have; the same for another session's and for none at all."""
    return not_found("memory", f"no {layer} memory {id!r} in this session", id=id)


def _depth(demand: ask.Search) -> int:
    return max(HYBRID_DEPTH, 2 * demand.limit) if demand.mode == "hybrid" else demand.limit


def _now() -> int:
    return clock.wall_ns() // 1000


def _naive(moment: int) -> datetime:
    """Return microseconds since 1970 as DuckDB's TIMESTAMP takes them."""
    return _moment(moment).replace(tzinfo=None)


def _moment(moment: int) -> datetime:
    return datetime.fromtimestamp(moment // 1_000_000, UTC).replace(microsecond=moment % 1_000_000)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def _matrix(column: pa.ChunkedArray, dimension: int) -> np.ndarray:
    """Return a column of vectors as (n, dimension) float32 without copying each."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], pa.binary())
    if not len(array):
        return np.zeros((0, dimension), np.float32)
    offsets = np.frombuffer(array.buffers()[1], np.int32 if pa.types.is_binary(array.type) else np.int64)
    start, end = int(offsets[array.offset]), int(offsets[array.offset + len(array)])
    return np.frombuffer(array.buffers()[2], np.float32, (end - start) // 4, start).reshape(len(array), dimension)


def _aligned(columns: Mapping[str, np.ndarray], seqs: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns at the positions of *seqs*; an indexed seq that the database has lost is dead."""
    if np.array_equal(columns["seq"], seqs):
        return dict(columns)
    places = np.searchsorted(seqs, columns["seq"])
    spread = {}
    for name, values in columns.items():
        wide = np.zeros(len(seqs), values.dtype)
        wide[places] = values
        spread[name] = wide
    spread["seq"] = seqs
    return spread


def _encode_table(value: Any) -> Any:
    if isinstance(value, Table):
        return list(value)
    raise TypeError(f"a result of type {type(value).__name__} cannot be kept under an idempotency key")


def _decode_result(text: str, result_type: Any) -> Any:
    origin = getattr(result_type, "__origin__", None)
    if origin is Table:
        return Table(msgspec.json.decode(text, type=list[result_type.__args__[0]]))
    return msgspec.json.decode(text, type=result_type)
