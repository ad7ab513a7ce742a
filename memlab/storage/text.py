"""Text search over tantivy: BM25 (Robertson, Zaragoza 2009, doi 10.1561/1500000019) with k1 = 1.2 and b = 0.75.

One index holds all sessions and layers. The scope, a session and layer, is part of every term (`12.episodic:coffee`), so a
search reads the postings of its own scope alone: no filter is asked (one costs three times the search), small sessions cost
little beside large ones, and how rare a word is counts inside the scope. tantivy measures lengths by the average of all scopes;
what it ranks highly is scored again by the average of its own, so that no score tells of other sessions.

New texts land in a tail in memory that scores as the index does, large batches in one of their own that is made beside their
commit, and are folded into the index in the background. A search
sees one snapshot, the index before or after a fold with the tails that belong to it, so it meets every text exactly once.
"""

from __future__ import annotations

import heapq
import math
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import cachebox
import msgspec
import numpy as np
import structlog
import tantivy

from memlab.errors import MemlabError, internal, validation
from memlab.settings import StorageSettings
from memlab.storage.analysis import Document, analyse, scope_of, session_of, split, stem
from memlab.storage.manifest import (
    NAME,
    FileDigest,
    Manifest,
    Stale,
    check_files,
    digest,
    read_manifest,
    sync_folder,
    write_manifest,
)
from memlab.storage.tail import K1, B, Field, Tail, Term, rounded_length

Found = tuple[np.ndarray, np.ndarray]
"""Seqs int64 and scores float32, best first."""

Row = tuple[int, int, str, str]
"""Seq, session, layer, content."""

_TOKENS = 256  # distinct words of a question that are looked up: questions of thousands of words are noise
_TERMS = 64  # the rarest of them, which are scored: the others hardly move a score and cost the most
_EXPANSIONS = 64  # words that a prefix stands for: the most frequent ones
_DEEPEST = 4  # times as many texts as are wanted, of which those of the highest scores by their own average are taken
_MOST_WAITING = 20_000  # texts in memory, some 2 kB each, beyond which whoever stores more waits for the fold
_BUDGET = 64 << 20  # bytes that tantivy's indexing thread may fill before it starts another segment
_COUNTED = 4_096  # texts with a repeated word, about 1 kB each, whose counts are kept
_ROUNDED = np.array([*map(rounded_length, range(4_096))], np.float64)  # by length; longer texts are seldom
_PURGE_RATIO = 0.2  # share of forgotten texts from which a fold writes the index again

_log = structlog.get_logger(__name__)


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("seq", indexed=True, fast=True)
    builder.add_unsigned_field("session", indexed=True)
    builder.add_text_field("scope", stored=True, tokenizer_name="raw", index_option="basic")
    # Both hold finished tokens: analysed once, by us, so that tail, index and question cannot differ. The words are stored
    # because tantivy drops a text from its files only when the segment is written again, and Python cannot ask it to.
    builder.add_text_field("stems", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("words", stored=True, tokenizer_name="whitespace", index_option="freq")
    builder.add_unsigned_field("length", fast=True)  # in words: tantivy tells nobody its own count
    builder.add_unsigned_field("repeats", fast=True)  # 1 where a stem stands in it twice; else its score is had by arithmetic
    return builder.build()


_SCHEMA = _schema()


class _Snapshot(msgspec.Struct, frozen=True):
    """What one search sees.

    Attributes:
        documents: in the index, those not yet purged included, as tantivy counts them for BM25; 0 while it is empty.
        average_length: of a text in the index, in words, as tantivy has it; 0 while it is empty.
        tails: what the index does not hold; the last one grows.
        forgotten, forgotten_sessions: what the index still holds and must not return.
        sizes: texts in the index and words in them, by scope; noted when first asked for.
        counted: how often a text of the index holds its tokens, and their number, by field and address; of those asked for last.
    """

    searcher: Any
    documents: float = 0.0
    average_length: float = 0.0
    tails: tuple[Tail, ...] = ()
    forgotten: frozenset[int] = frozenset()
    forgotten_sessions: frozenset[int] = frozenset()
    sizes: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    counted: cachebox.LRUCache[tuple[Field, int, int], tuple[Counter[str], int]] = msgspec.field(
        default_factory=lambda: cachebox.LRUCache(_COUNTED)
    )

    def average(self, scope: str) -> float:
        """Return the average length of a text of *scope*, tails included, 1 or more; the caller holds the lock."""
        size = self.sizes.get(scope)
        if size is None:
            inside = tantivy.Query.term_query(_SCHEMA, "scope", scope, "basic")
            told = self.searcher.aggregate(inside, {"length": {"stats": {"field": "length"}}})["length"]
            size = self.sizes[scope] = int(told["count"]), int(told["sum"] or 0)
        documents, words = map(sum, zip(size, *(tail.size(scope) for tail in self.tails), strict=True))
        return max(words / max(documents, 1), 1.0)


class Word(msgspec.Struct, frozen=True):
    """What the texts of a scope hold of one word.

    Attributes:
        times: how much the question asks for it.
        counted: how many texts hold it.
        seqs: of texts that hold it, int64, those with the highest parts first.
        parts: of those, (k1 + 1) tf / (tf + k1 (1 - b + b dl / average)): BM25 before the word's rarity counts, float64.
    """

    times: float
    counted: int
    seqs: np.ndarray
    parts: np.ndarray


class TextIndex:
    """All texts of a database, for many threads; one thread at a time folds."""

    def __init__(
        self,
        folder: Path,
        index: tantivy.Index,
        *,
        database_id: str,
        settings: StorageSettings,
        generation: int,
        covered_seq: int = 0,
        digests: dict[str, FileDigest] | None = None,
        purge_due: bool = False,
    ) -> None:
        self.folder = folder
        self._index = index
        self._index.config_reader("manual")
        self._database_id = database_id
        self._settings = settings
        self._generation = generation
        self._covered = self._folded = covered_seq
        self._digests = digests or {}
        self._purge_due = purge_due  # files hold texts that were deleted
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="memlab-text-ahead")
        self._lock = threading.Lock()  # the snapshot, its last tail and what follows
        self._writing = threading.Lock()  # tantivy's writer and the files; taken before the other
        self._folding: threading.Thread | None = None
        self._fold_wanted = self._closed = False
        self._fold_at = max(settings.text_tail, 1)
        self._snapshot = _look(index, (Tail(),))

    @classmethod
    def create(cls, folder: Path, *, database_id: str, settings: StorageSettings, generation: int = 1) -> TextIndex:
        """Return an empty index in *folder*; what stood there is gone."""
        with _errors():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)
            index = tantivy.Index(_SCHEMA, path=str(folder), reuse=False)
            return cls(folder, index, database_id=database_id, settings=settings, generation=generation)

    @classmethod
    def open(cls, folder: Path, *, database_id: str, settings: StorageSettings) -> TextIndex:
        """Return the index saved in *folder*.

        Raises:
            Stale: missing, damaged, or another database's.
        """
        manifest = read_manifest(folder, index="text", database_id=database_id)
        check_files(folder, manifest)
        try:
            opened = tantivy.Index.open(str(folder))
            if opened.schema != _SCHEMA:
                raise Stale("format", "the text index was written by another version of memlab")
            index = cls(
                folder,
                opened,
                database_id=database_id,
                settings=settings,
                generation=manifest.generation,
                covered_seq=manifest.details["covered_seq"],
                digests=dict(manifest.files),
                purge_due=manifest.details["purge_due"],
            )
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            raise Stale("damaged", f"tantivy cannot open the text index: {error}") from error
        if index.count != manifest.count:
            raise Stale("damaged", f"the text index holds {index.count} texts, its manifest says {manifest.count}")
        return index

    @property
    def covered_seq(self) -> int:
        """Every text up to this seq is in, unless it was forgotten."""
        return self._covered

    @property
    def count(self) -> int:
        """Texts that can be found, those without any word included."""
        with self._lock:
            snapshot = self._snapshot
            waiting = sum(len(tail) for tail in snapshot.tails)
        hidden = _any_of(snapshot.forgotten, snapshot.forgotten_sessions)
        indexed: int = snapshot.searcher.num_docs
        if hidden is not None:
            indexed -= snapshot.searcher.search(hidden, 1).count or 0
        return indexed + waiting

    def add(self, seqs: Sequence[int], sessions: Sequence[int], layers: Sequence[str], contents: Sequence[str]) -> None:
        """Take in texts; the next search finds them."""
        self.take([analyse(*row) for row in zip(seqs, sessions, layers, contents, strict=True)])

    def ahead(self, rows: Sequence[Row]) -> Future[Tail]:
        """Begin to make a tail of texts for `attach`; beside the commit of a large batch this costs no time of its own."""

        def make() -> Tail:
            tail = Tail()
            tail.add(analyse(*row) for row in rows)
            return tail

        return self._ahead.submit(make)

    def take(self, documents: Sequence[Document]) -> None:
        """Take in analysed texts, as `add` does."""
        with self._lock:
            self._snapshot.tails[-1].add(documents)
        self._took(documents)

    def attach(self, tail: Tail) -> None:
        """Take in a tail made `ahead`, whole; the next search finds its texts."""
        with self._lock:
            *before, growing = self._snapshot.tails
            self._snapshot = msgspec.structs.replace(self._snapshot, tails=(*before, tail, growing))
        self._took(tail.documents.values())

    def _took(self, documents: Iterable[Document]) -> None:
        """Note what was taken in, and have it folded when it is much; wait for that where folding does not keep up."""
        with self._lock:
            self._covered = max(self._covered, max((document.seq for document in documents), default=0))
            waiting = sum(map(len, self._snapshot.tails))
            full = waiting >= self._fold_at
        if full:
            self._fold_in_background()
        folding = self._folding
        if waiting > _MOST_WAITING and folding is not None:
            folding.join()

    def remove(self, seqs: Iterable[int]) -> None:
        """Forget texts: invisible at once, off the disk with the next `commit`."""
        with self._lock:
            *sealed, growing = self._snapshot.tails
            indexed = []
            for seq in seqs:
                for tail in sealed:
                    tail.remove(seq)
                if not growing.remove(seq):  # in the index, or, being folded, soon in it
                    indexed.append(seq)
            self._snapshot = msgspec.structs.replace(self._snapshot, forgotten=self._snapshot.forgotten.union(indexed))
            full = len(self._snapshot.forgotten) >= self._fold_at
        if full:
            self._fold_in_background()

    def remove_session(self, session: int) -> None:
        """Forget every text of *session*: invisible at once, off the disk with the next `commit`."""
        with self._lock:
            for tail in self._snapshot.tails:
                tail.remove_session(session)
            self._snapshot = msgspec.structs.replace(
                self._snapshot, forgotten_sessions=self._snapshot.forgotten_sessions | {session}
            )
        self._fold_in_background()

    def retain(self, seqs: np.ndarray) -> int:
        """Forget every text whose seq is not among *seqs*; return how many those were.

        For the opening of a database whose process died between forgetting a text and the next fold.
        """
        with self._lock:
            snapshot = self._snapshot
            waiting = [seq for tail in snapshot.tails for seq in tail.documents]
        if not waiting and not snapshot.forgotten and _holds(snapshot.searcher, seqs[seqs <= self._covered]):
            return 0
        _, indexed = _everything(snapshot.searcher)
        held = np.array([seq for seq in indexed if seq not in snapshot.forgotten] + waiting, np.int64)
        extra = held[~np.isin(held, seqs)].tolist()
        if extra:
            self.remove(extra)
        return len(extra)

    def postings(self, text: str, *, session: int, layer: str) -> int:
        """Return how often the words of *text* stand in the texts of a session's layer, each text once a word; by the index."""
        scope = scope_of(session, layer)
        tokens = list(dict.fromkeys(token for word in split(text) if (token := stem(word))))[:_TERMS]
        with self._lock:
            searcher = self._snapshot.searcher
        with _errors():
            return sum(searcher.doc_freq("stems", scope + token) for token in tokens)

    def search(
        self,
        text: str,
        *,
        session: int,
        layer: str,
        limit: int,
        prefix: bool = False,
        among: Sequence[int] | None = None,
    ) -> Found:
        """Return the best *limit* texts of a session's layer that hold a word of *text*.

        Args:
            text: anything; it has no syntax. Words are lower-cased, stop words dropped, the rest stemmed.
            session: whose texts.
            layer: which of them.
            limit: 1 or more.
            prefix: as-you-type: words are compared unstemmed, and the last one stands for the words that begin with it.
            among: seqs outside of which nothing is looked at; scores stay those of the whole scope.

        Returns:
            Seqs and BM25 scores, best first, ties by seq.

        Raises:
            MemlabError: VALIDATION `bounds`; INTERNAL `index`.
        """
        if limit < 1:
            raise validation("bounds", f"limit = {limit}; 1 or more fits")
        scope = scope_of(session, layer)
        field: Field = "words" if prefix else "stems"
        words = split(text)
        beginning = words.pop() if prefix and words else None
        asked: Counter[str] = Counter()
        for word in words:
            token = stem(word)
            if token:
                asked[word if prefix else token] += 1
                if len(asked) == _TOKENS:
                    break
        if not asked and beginning is None:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        waiting: dict[int, float] = {}
        with _errors():
            with self._lock:  # tails change in place
                snapshot = self._snapshot
                terms = _weigh(snapshot, scope, field, asked, beginning)
                average = snapshot.average(scope)
                for tail in snapshot.tails:
                    tail.score(scope, field, terms, average, waiting)
            found = []
            if session not in snapshot.forgotten_sessions:
                found = _best(snapshot, scope, field, terms, average, limit, among)
        if among is not None:
            chosen = set(among)
            waiting = {seq: score for seq, score in waiting.items() if seq in chosen}
        if waiting:
            enough = -found[-1][0] if len(found) >= limit else 0.0
            found += [(-score, seq) for seq, score in waiting.items() if score >= enough]
        found = heapq.nsmallest(limit, found) if len(found) > limit else sorted(found)
        return np.array([seq for _, seq in found], np.int64), np.array([-score for score, _ in found], np.float32)

    def by_word(
        self, text: str, *, session: int, layer: str, limit: int, weights: Sequence[tuple[str, float]] = ()
    ) -> list[Word]:
        """Return for each word of *text* the texts of a session's layer that hold it, *limit* at most.

        Args:
            weights: of further stems, or to be added to those of the text's own, which count 1 for each time they stand there.
        """
        scope = scope_of(session, layer)
        asked: dict[str, float] = {}
        for token in map(stem, split(text)):
            if token:
                asked[token] = asked.get(token, 0.0) + 1.0
                if len(asked) == _TOKENS:
                    break
        for token, weight in weights:
            asked[token] = asked.get(token, 0.0) + weight
        words: list[Word] = []
        with _errors():
            with self._lock:  # tails change in place
                snapshot = self._snapshot
                terms = _weigh(snapshot, scope, "stems", Counter(dict.fromkeys(asked, 1)), None)
                waiting: list[dict[int, float]] = [{} for _ in terms]
                counts = [0] * len(terms)
                average = snapshot.average(scope)
                for tail in snapshot.tails:
                    for place, term in enumerate(terms):
                        counts[place] += tail.containing(scope, "stems", term.token)
                        tail.score(scope, "stems", [term], average, waiting[place])
            gone = session in snapshot.forgotten_sessions
            for term, there, count in zip(terms, waiting, counts, strict=True):
                found = [] if gone else _best_of_word(snapshot, scope, term, average, limit)
                found += [(-score, seq) for seq, score in there.items()]
                found.sort()
                del found[limit:]
                words.append(
                    Word(
                        asked[term.token],
                        count + int(snapshot.searcher.doc_freq("stems", scope + term.token)),
                        np.array([seq for _, seq in found], np.int64),
                        np.array([-score / term.weight for score, _ in found], np.float64),
                    )
                )
        return words

    def load(self, rows: Iterable[Row]) -> None:
        """Take in many texts past the tail; they are found when this returns, all or, where it raises, none."""
        with self._writing:
            self._fold(analyse(*row) for row in rows)

    def commit(self) -> None:
        """Bring everything into the index and write the manifest; no file holds a forgotten text afterwards."""
        with self._writing:
            with self._lock:
                snapshot = self._snapshot
                settled = not any(map(len, snapshot.tails)) and not snapshot.forgotten and not snapshot.forgotten_sessions
            if not (settled and not self._purge_due and self._digests and self._folded == self._covered):
                self._fold((), purge=True)

    def close(self) -> None:
        """Wait for a fold under way and start no other; what is not folded is added again when the database is opened."""
        with self._lock:
            self._closed = True
            folding = self._folding
        self._ahead.shutdown()
        if folding is not None:
            folding.join()

    # --- folding -----------------------------------------------------------------------------------------------------

    def _fold_in_background(self) -> None:
        with self._lock:
            self._fold_wanted = not self._closed
            if self._fold_wanted and self._folding is None:
                self._folding = threading.Thread(target=self._keep_folding, name="memlab-text-fold", daemon=True)
                self._folding.start()

    def _keep_folding(self) -> None:
        while True:
            with self._lock:
                if not self._fold_wanted:
                    self._folding = None
                    return
                self._fold_wanted = False
            try:
                with self._writing:
                    self._fold(())
            except (MemlabError, OSError) as error:  # derived: nothing is lost, the tail goes on answering
                _log.error("text_fold_failed", error=str(error), waiting=sum(map(len, self._snapshot.tails)))

    def _fold(self, arriving: Iterable[Document], *, purge: bool = False) -> None:
        """Bring the tail and what is *arriving* into the index, and what was forgotten out of it; the caller holds `_writing`."""
        with self._lock:
            before = self._snapshot
            waiting = [document for tail in before.tails for document in tail.documents.values()]
            covered = self._covered
            self._snapshot = msgspec.structs.replace(before, tails=(*before.tails, Tail()))
        deletes = bool(before.forgotten or before.forgotten_sessions)
        if deletes and before.documents:
            left = before.searcher.num_docs - len(before.forgotten)
            purge = purge or left < (1.0 - _PURGE_RATIO) * before.documents
        purge = purge and (deletes or self._purge_due)
        try:
            with _errors():
                covered = self._write(before, chain(waiting, arriving), purge, covered)
                after = _look(self._index, ())
        except BaseException:
            with self._lock:
                # Not again for every text that comes.
                self._fold_at = sum(map(len, self._snapshot.tails)) + max(self._settings.text_tail, 1)
            raise
        with self._lock:
            now = self._snapshot
            self._snapshot = msgspec.structs.replace(
                after,
                tails=now.tails[len(before.tails) :],
                forgotten=now.forgotten - before.forgotten,
                forgotten_sessions=now.forgotten_sessions - before.forgotten_sessions,
            )
            self._covered = max(self._covered, covered)
            self._folded = covered
            self._fold_at = max(self._settings.text_tail, 1)
        self._purge_due = (self._purge_due or deletes) and not purge
        with _errors():
            self._save()

    def _write(self, before: _Snapshot, documents: Iterable[Document], purge: bool, covered: int) -> int:
        """Write one commit and wait until tantivy has merged what it wants to; return the highest seq that is in."""
        # One thread: it keeps up with ours and leaves one segment, where two leave two to search. 100,000 texts take 2 s.
        writer = self._index.writer(_BUDGET, 1)
        try:
            if purge:
                writer.delete_all_documents()
                for survivor in _survivors(before):
                    writer.add_document(survivor)
            else:
                hidden = _any_of(before.forgotten, before.forgotten_sessions)
                if hidden is not None:
                    # By query: a deletion by term takes an int for a signed one and deletes nothing of an unsigned field.
                    writer.delete_documents_by_query(hidden)
            for document in documents:
                writer.add_document(_to_tantivy(document))
                if document.seq > covered:
                    covered = document.seq
            writer.commit()
        finally:
            writer.wait_merging_threads()
        self._index.reload()
        return covered

    def _save(self) -> None:
        held = [path.name for path in self.folder.iterdir() if path.name != NAME and path.suffix not in (".lock", ".writing")]
        # The files of a segment never change once written; tantivy's two lists of them do.
        known = {name: found for name, found in self._digests.items() if not name.endswith(".json")}
        files = {name: known.get(name) or digest(self.folder / name) for name in held}
        sync_folder(self.folder)
        write_manifest(
            self.folder,
            Manifest(
                index="text",
                database_id=self._database_id,
                generation=self._generation,
                commit_seq=self._folded,
                count=self._snapshot.searcher.num_docs,
                details={"covered_seq": self._folded, "purge_due": self._purge_due},
                files=files,
            ),
        )
        self._digests = files


def _weigh(snapshot: _Snapshot, scope: str, field: Field, asked: Counter[str], beginning: str | None) -> list[Term]:
    """Return the terms worth scoring, each weighted by its inverse document frequency inside the scope, tails included."""
    searcher, tails = snapshot.searcher, [tail for tail in snapshot.tails if tail.documents]
    documents = searcher.doc_freq("scope", scope) + sum(tail.count(scope) for tail in tails)
    if not documents:
        return []

    def weighted(token: str, indexed: int, containing: int, times: int) -> Term:
        weight = times * _idf(documents, containing)
        return Term(token, weight, weight / _idf(snapshot.documents, indexed) if indexed else 0.0)

    counted = []
    for token, times in asked.items():
        indexed = searcher.doc_freq(field, scope + token)
        containing = indexed + sum(tail.containing(scope, field, token) for tail in tails)
        if containing:
            counted.append((containing, token, indexed, times))
    if len(counted) > _TERMS:
        counted = heapq.nsmallest(_TERMS, counted)
    terms = [weighted(token, indexed, containing, times) for containing, token, indexed, times in counted]
    if beginning is not None:
        expansions: Counter[str] = Counter()
        for term, containing in searcher.terms_with_prefix(field, scope + beginning, limit=_EXPANSIONS):
            expansions[term[len(scope) :]] = containing
        for tail in tails:
            for token, containing in tail.beginning_with(scope, field, beginning):
                expansions[token] += containing
        # One weight for all, as if they were one word: else the rarest, the oddest, would come first.
        together = min(documents, expansions.total())
        for token, _ in expansions.most_common(_EXPANSIONS):
            terms.append(weighted(token, searcher.doc_freq(field, scope + token), together, 1))
    return terms


def _idf(documents: float, containing: float) -> float:
    return math.log(1.0 + (documents - containing + 0.5) / (containing + 0.5))


def _best(
    snapshot: _Snapshot,
    scope: str,
    field: Field,
    terms: Sequence[Term],
    average: float,
    limit: int,
    among: Sequence[int] | None,
) -> list[tuple[float, int]]:
    """Return (-score, seq) of the best texts in the index, best first, without the forgotten."""
    clauses = [(tantivy.Occur.Should, _query(scope, field, term)) for term in terms if term.boost > 0.0]
    if not clauses:
        return []
    query = tantivy.Query.boolean_query(clauses)
    if among is not None:
        chosen = tantivy.Query.const_score_query(tantivy.Query.term_set_query(_SCHEMA, "seq", list(among)), 0.0)
        query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, chosen)])
    counted = _Counted(snapshot, scope, field, terms, average)

    def scored(given: np.ndarray, addresses: Sequence[Any]) -> np.ndarray:
        lengths = _lengths(snapshot, addresses)
        scores: np.ndarray = given * ((1.0 + _norm(lengths, snapshot.average_length)) / (1.0 + _norm(lengths, average)))
        for place, repeats in enumerate(snapshot.searcher.fast_field_values("repeats", addresses)):
            if repeats:
                scores[place] = counted.score(addresses[place])
        return scores

    return _ranked(snapshot, query, average, limit, scored)


def _best_of_word(snapshot: _Snapshot, scope: str, term: Term, average: float, limit: int) -> list[tuple[float, int]]:
    """Return (-score, seq) of the best texts in the index for a single word, best first, without the forgotten."""

    def scored(scores: np.ndarray, addresses: Sequence[Any]) -> np.ndarray:
        lengths = _lengths(snapshot, addresses)
        given = scores / term.weight
        # How often a text holds the word follows from what tantivy gave for it.
        times = given * _norm(lengths, snapshot.average_length) / np.maximum(K1 + 1.0 - given, 1e-6)
        times = np.maximum(np.rint(times), 1.0)
        again: np.ndarray = term.weight * (K1 + 1.0) * times / (times + _norm(lengths, average))
        return again

    return _ranked(snapshot, _query(scope, "stems", term), average, limit, scored) if term.boost > 0.0 else []


def _lengths(snapshot: _Snapshot, addresses: Sequence[Any]) -> np.ndarray:
    """Return how long texts are, as tantivy counts."""
    lengths = snapshot.searcher.fast_field_values("length", addresses)
    if max(lengths, default=0) < len(_ROUNDED):
        rounded: np.ndarray = _ROUNDED[lengths]
        return rounded
    return np.array([*map(rounded_length, lengths)], np.float64)


def _norm(lengths: np.ndarray, average: float) -> np.ndarray:
    """Return what stands beside the count of a word below BM25's fraction."""
    norm: np.ndarray = K1 * (1.0 - B + B * lengths / average)
    return norm


def _query(scope: str, field: Field, term: Term) -> tantivy.Query:
    return tantivy.Query.boost_query(tantivy.Query.term_query(_SCHEMA, field, scope + term.token, "freq"), term.boost)


_Scored: TypeAlias = Callable[[np.ndarray, Sequence[Any]], np.ndarray]
"""Scores by the average length of all scopes, and addresses, to scores by another."""


def _ranked(snapshot: _Snapshot, query: tantivy.Query, average: float, limit: int, scored: _Scored) -> list[tuple[float, int]]:
    """Return (-score, seq) of the best texts in the index, best first, without the forgotten.

    Args:
        average: length of a text of the scope.
        scored: says what texts get by that.
    """
    searcher, forgotten = snapshot.searcher, snapshot.forgotten
    alike = math.isclose(average, snapshot.average_length, rel_tol=1e-6)
    # By a longer average no text gains more than by this factor; by a shorter one none gains.
    gain = max(average / snapshot.average_length, 1.0)
    asked = limit + min(len(forgotten), 16) + (0 if alike else limit // 2 + 1)
    while True:
        hits = searcher.search(query, asked, count=False).hits
        addresses = [address for _, address in hits]
        given = np.array([score for score, _ in hits], np.float64)
        seqs = np.array(searcher.fast_field_values("seq", addresses), np.int64)
        if forgotten and not forgotten.isdisjoint(seqs.tolist()):
            kept = [place for place, seq in enumerate(seqs.tolist()) if seq not in forgotten]
            given, seqs, addresses = given[kept], seqs[kept], [addresses[place] for place in kept]
        scores = given if alike else scored(given, addresses)
        order = np.lexsort((seqs, -scores))[:limit]
        found = list(zip((-scores[order]).tolist(), seqs[order].tolist(), strict=True))
        if len(hits) < asked or (len(found) == limit and (-found[-1][0] >= gain * hits[-1][0] or asked >= _DEEPEST * limit)):
            return found
        asked *= 2


class _Counted:
    """Scores texts of the index by counting their words; the snapshot keeps the counts for the next question."""

    def __init__(self, snapshot: _Snapshot, scope: str, field: Field, terms: Sequence[Term], average: float) -> None:
        self._searcher = snapshot.searcher
        self._counted = snapshot.counted
        self._field = field
        self._skip = len(scope)
        self._tops = [(term.token, term.weight * (K1 + 1.0)) for term in terms]
        self._short, self._slope = K1 * (1.0 - B), K1 * B / average

    def score(self, address: Any) -> float:
        """Return what the text at *address* gets."""
        key = self._field, address.segment_ord, address.doc
        known: tuple[Counter[str], int] | None = self._counted.get(key)
        if known is None:
            known = self._counted[key] = self._count(address)
        counts, length = known
        norm = self._short + self._slope * length
        given = 0.0
        for token, top in self._tops:
            times = counts.get(token, 0)
            if times:
                given += top * times / (times + norm)
        return given

    def _count(self, address: Any) -> tuple[Counter[str], int]:
        held = (self._searcher.doc(address).get_first("words") or "").split()
        tokens = [term[self._skip :] for term in held]
        if self._field == "stems":
            tokens = [*map(stem, tokens)]
        return Counter(tokens), rounded_length(len(tokens))


def _look(index: tantivy.Index, tails: tuple[Tail, ...]) -> _Snapshot:
    """Return what tantivy holds now, with the two statistics of its BM25, which only the explanation of a score tells."""
    searcher = index.searcher()
    with_words = tantivy.Query.range_query(_SCHEMA, "length", tantivy.FieldType.Unsigned, 1, 1 << 32)
    for _, address in searcher.search(with_words, 1, count=False).hits:
        word = str(searcher.doc(address).get_first("words")).partition(" ")[0]
        query = tantivy.Query.term_query(_SCHEMA, "words", word, "freq")
        told = dict(_told(msgspec.json.decode(query.explain(searcher, address).to_json())))
        return _Snapshot(searcher, told["N"], told["avgdl"], tails)
    return _Snapshot(searcher, float(searcher.num_docs), 0.0, tails)


def _told(explanation: Any) -> Iterator[tuple[str, float]]:
    """Yield the name and value of every part of an explanation; names end at their comma."""
    yield explanation["description"].partition(",")[0], explanation["value"]
    for part in explanation.get("details") or ():
        yield from _told(part)


def _any_of(seqs: frozenset[int], sessions: frozenset[int]) -> tantivy.Query | None:
    """Return the query for texts of these seqs or sessions; None for none."""
    clauses = [
        (tantivy.Occur.Should, tantivy.Query.term_set_query(_SCHEMA, field, sorted(values)))
        for field, values in (("seq", seqs), ("session", sessions))
        if values
    ]
    return tantivy.Query.boolean_query(clauses) if clauses else None


def _holds(searcher: Any, seqs: np.ndarray) -> bool:
    """Return whether the texts in the index are as many as *seqs* and have their sum: told without listing them."""
    told = searcher.aggregate(tantivy.Query.all_query(), {"seq": {"stats": {"field": "seq"}}})["seq"]
    return bool(told["count"] == len(seqs) and told["sum"] == float(seqs.sum()))


def _everything(searcher: Any) -> tuple[list[Any], list[int]]:
    """Return addresses and seqs of all texts in the index."""
    addresses = [
        address for _, address in searcher.search(tantivy.Query.all_query(), max(searcher.num_docs, 1), count=False).hits
    ]
    return addresses, searcher.fast_field_values("seq", addresses)


def _survivors(snapshot: _Snapshot) -> Iterator[tantivy.Document]:
    """Yield every text of the index that was not forgotten, ready to be written again."""
    addresses, seqs = _everything(snapshot.searcher)
    for address, seq in zip(addresses, seqs, strict=True):
        if seq in snapshot.forgotten:
            continue
        stored = snapshot.searcher.doc(address)
        scope = stored.get_first("scope")
        session = session_of(scope)
        if session in snapshot.forgotten_sessions:
            continue
        words = [term[len(scope) :] for term in (stored.get_first("words") or "").split()]
        yield _to_tantivy(Document(seq, session, scope, words, [stem(word) for word in words]))


def _to_tantivy(document: Document) -> tantivy.Document:
    made = tantivy.Document()
    made.add_unsigned("seq", document.seq)
    made.add_unsigned("session", document.session)
    made.add_text("scope", document.scope)
    made.add_unsigned("length", len(document.words))
    made.add_unsigned("repeats", int(len(set(document.stems)) < len(document.stems)))
    if document.words:
        between = f" {document.scope}"
        made.add_text("stems", document.scope + between.join(document.stems))
        made.add_text("words", document.scope + between.join(document.words))
    return made


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        raise internal("index", f"the text index failed: {type(error).__name__} {error}") from error
