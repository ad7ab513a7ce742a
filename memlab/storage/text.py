"""Text search over tantivy: BM25 (Robertson, Zaragoza 2009, doi 10.1561/1500000019) with k1 = 1.2 and b = 0.75.

One index holds all sessions and layers. The scope, a session and layer, is part of every term (`12episodic:coffee`), so a
search reads only the postings of its own scope: no filter is asked, small sessions cost little beside large ones, and how
often a word occurs is counted inside the scope.

New texts land in a tail in memory that scores exactly as the index does, and are folded into the index in the background.
A search sees one snapshot: the index before or after a fold, with the tails that belong to it, so every text exactly once.
"""

from __future__ import annotations

import heapq
import math
import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog
import tantivy

from memlab.errors import internal, validation
from memlab.settings import StorageSettings
from memlab.storage.manifest import (
    NAME,
    FileDigest,
    Manifest,
    Stale,
    digest,
    read_manifest,
    sync_folder,
    write_manifest,
)

__all__ = ["Found", "Stale", "TextIndex"]

Found = tuple[np.ndarray, np.ndarray]
"""Seqs int64 and scores float32, best first."""

Row = tuple[int, int, str, str]
"""Seq, session, layer, content."""

_K1, _B = 1.2, 0.75  # tantivy's, which it does not let us choose
_TOKENS = 256  # distinct words of a question that are looked up; texts are bounded, questions of thousands of words are noise
_TERMS = 64  # the rarest of them that are scored: the others hardly move a score and cost the most
_EXPANSIONS = 64  # words that a prefix stands for, the most frequent ones
_LONGEST_WORD = 200  # bytes; anything longer is no word
_BULK_THREADS, _FOLD_THREADS = 2, 1
_BUDGET = 64 << 20  # bytes for each of tantivy's indexing threads
_PURGE_RATIO = 0.2  # share of forgotten texts in the index from which it is written again

_log = structlog.get_logger(__name__)

_split = (
    tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    .filter(tantivy.Filter.remove_long(_LONGEST_WORD))
    .filter(tantivy.Filter.lowercase())
    .build()
)
_stop = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw()).filter(tantivy.Filter.stopword("english")).build()
_stemmer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw()).filter(tantivy.Filter.stemmer("english")).build()
_stems: dict[str, str | None] = {}  # None: a stop word. Analysing word by word through it takes half the time


def _stem(word: str) -> str | None:
    try:
        return _stems[word]
    except KeyError:
        if len(_stems) >= 200_000:  # about 20 MB
            _stems.clear()
        _stems[word] = stem = _stemmer.analyze(word)[0] if _stop.analyze(word) else None
        return stem


def _words_of(text: str) -> list[str]:
    try:
        return list(_split.analyze(text))
    except UnicodeEncodeError:  # a lone surrogate: not text, and no reason to fail
        return list(_split.analyze(text.encode("utf-8", "replace").decode()))


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("seq", indexed=True, fast=True)
    builder.add_unsigned_field("session", indexed=True)
    builder.add_text_field("scope", stored=True, tokenizer_name="raw", index_option="basic")
    # Both fields hold finished tokens: analysed once, by us, so that tail and index cannot differ.
    builder.add_text_field("stems", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("words", stored=True, tokenizer_name="whitespace", index_option="freq")
    return builder.build()


_SCHEMA = _schema()


class _Document(msgspec.Struct, frozen=True):
    """A text as the index takes it: its scope, its words without stop words, and their stems."""

    seq: int
    session: int
    scope: str
    words: list[str]
    stems: list[str]

    def tokens(self, field: str) -> list[str]:
        return self.stems if field == "stems" else self.words


def _analyse(seq: int, session: int, layer: str, content: str) -> _Document:
    words, stems = [], []
    for word in _words_of(content):
        stem = _stem(word)
        if stem is not None:
            words.append(word)
            stems.append(stem)
    return _Document(seq, session, f"{session}{layer}:", words, stems)


def _to_tantivy(document: _Document) -> tantivy.Document:
    made = tantivy.Document()
    made.add_unsigned("seq", document.seq)
    made.add_unsigned("session", document.session)
    made.add_text("scope", document.scope)
    if document.words:
        between = f" {document.scope}"
        made.add_text("stems", document.scope + between.join(document.stems))
        made.add_text("words", document.scope + between.join(document.words))
    return made


def _rounded_length(length: int) -> int:
    """Return *length* as tantivy keeps it, in one byte: exact below 40, then with four significant bits above 24."""
    if length < 40:
        return length
    shift = (length - 24).bit_length() - 4
    return ((length - 24) >> shift << shift) + 24


def _idf(documents: float, containing: float) -> float:
    return math.log(1.0 + (documents - containing + 0.5) / (containing + 0.5))


class _Postings:
    """The tail's share of one scope: for each field, the documents of every token with how often it occurs, and lengths."""

    def __init__(self) -> None:
        self.postings: dict[str, dict[str, dict[int, int]]] = {"stems": {}, "words": {}}
        self.lengths: dict[int, int] = {}

    def add(self, document: _Document) -> None:
        seq = document.seq
        self.lengths[seq] = _rounded_length(len(document.words))
        for field, tokens in (("stems", document.stems), ("words", document.words)):
            postings = self.postings[field]
            for token in tokens:
                found = postings.get(token)
                if found is None:
                    postings[token] = {seq: 1}
                else:
                    found[seq] = found.get(seq, 0) + 1

    def remove(self, document: _Document) -> None:
        del self.lengths[document.seq]
        for field, postings in self.postings.items():
            for token in set(document.tokens(field)):
                del postings[token][document.seq]
                if not postings[token]:
                    del postings[token]


class _Tail:
    """Texts that the index does not hold yet, searchable at once; guarded by the index's lock."""

    def __init__(self) -> None:
        self.documents: dict[int, _Document] = {}
        self.scopes: dict[str, _Postings] = {}

    def add(self, document: _Document) -> None:
        self.documents[document.seq] = document
        self.scopes.setdefault(document.scope, _Postings()).add(document)

    def remove(self, seq: int) -> bool:
        document = self.documents.pop(seq, None)
        if document is None:
            return False
        self.scopes[document.scope].remove(document)
        return True

    def remove_session(self, session: int) -> None:
        for seq in [seq for seq, document in self.documents.items() if document.session == session]:
            self.remove(seq)


class _Snapshot(msgspec.Struct, frozen=True):
    """What one search sees.

    Attributes:
        documents: in the index, those not yet purged included, as tantivy counts them for BM25.
        average_length: of a text in the index, in tokens.
        tails: what the index does not hold.
    """

    searcher: Any
    documents: float
    average_length: float
    tails: tuple[_Tail, ...]


class _Term(msgspec.Struct, frozen=True):
    token: str
    weight: float  # what a text gets for the token at the length and frequency where the rest of the formula is 1
    boost: float  # the same in units of what tantivy would give for it; 0 where the index lacks the token


class TextIndex:
    """All texts of a database. Safe to call from many threads; one thread at a time folds."""

    def __init__(
        self, folder: Path, database_id: str, settings: StorageSettings, index: tantivy.Index, manifest: Manifest | None
    ) -> None:
        self.folder = folder
        self._database_id = database_id
        self._settings = settings
        self._index = index
        self._index.config_reader("manual")
        self._generation = manifest.generation if manifest else 1
        self._digests: dict[str, FileDigest] = dict(manifest.files) if manifest else {}
        self._covered = self._folded = int(manifest.details["covered_seq"]) if manifest else 0
        self._lock = threading.Lock()  # snapshot, tails, what is forgotten
        self._fold_lock = threading.Lock()  # tantivy's writer and the files
        self._thread: threading.Thread | None = None
        self._tail = _Tail()
        self._forgotten: set[int] = set()
        self._forgotten_sessions: set[int] = set()
        self._fold_at = settings.text_tail
        self._saved = manifest is not None
        self._snapshot = self._read((self._tail,))

    @classmethod
    def create(cls, folder: Path, *, database_id: str, settings: StorageSettings, generation: int = 1) -> TextIndex:
        """Return an empty index in *folder*; whatever stood there is gone."""
        with _TantivyErrors():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)
            index = cls(folder, database_id, settings, tantivy.Index(_SCHEMA, path=str(folder), reuse=False), None)
        index._generation = generation
        return index

    @classmethod
    def open(cls, folder: Path, *, database_id: str, settings: StorageSettings) -> TextIndex:
        """Return the index saved in *folder*.

        Raises:
            Stale: missing, damaged, or another database's.
        """
        manifest = read_manifest(folder, index="text", database_id=database_id)
        for name, expected in manifest.files.items():
            try:
                found = digest(folder / name)
            except OSError as error:
                raise Stale("missing", f"{name} of the text index cannot be read: {error.strerror}") from error
            if found != expected:
                raise Stale("damaged", f"{name} of the text index does not match its digest")
        try:
            index = cls(folder, database_id, settings, tantivy.Index.open(str(folder)), manifest)
        except (ValueError, OSError) as error:
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
        """Texts that can be found."""
        with self._lock:
            snapshot = self._snapshot
            hidden = len(self._forgotten)
            for session in self._forgotten_sessions:
                query = tantivy.Query.term_query(_SCHEMA, "session", session, "basic")
                hidden += int(snapshot.searcher.search(query, 1).count)
            return int(snapshot.searcher.num_docs) - hidden + sum(len(tail.documents) for tail in snapshot.tails)

    def add(self, seqs: Sequence[int], sessions: Sequence[int], layers: Sequence[str], contents: Sequence[str]) -> None:
        """Take in texts; they are found by the next search. Large batches go straight to the index."""
        if len(seqs) > max(self._settings.text_tail, 1_000):
            self.load(zip(seqs, sessions, layers, contents, strict=True))
            return
        documents = [_analyse(*row) for row in zip(seqs, sessions, layers, contents, strict=True)]
        with self._lock:
            for document in documents:
                self._tail.add(document)
                self._covered = max(self._covered, document.seq)
            full = len(self._tail.documents) >= max(self._fold_at, 1)
        if full:
            self._fold_in_background()

    def remove(self, seqs: Iterable[int]) -> None:
        """Forget texts: invisible at once, off the disk with a later fold."""
        with self._lock:
            *sealed, active = self._snapshot.tails
            for seq in seqs:
                # Being folded, it will be in the index: it must be hidden there too.
                for tail in sealed:
                    tail.remove(seq)
                if not active.remove(seq):
                    self._forgotten.add(seq)
            full = len(self._forgotten) >= max(self._fold_at, 1)
        if full:
            self._fold_in_background()

    def remove_session(self, session: int) -> None:
        """Forget every text of *session*: invisible at once, off the disk with the next fold, which starts now."""
        with self._lock:
            for tail in self._snapshot.tails:
                tail.remove_session(session)
            self._forgotten_sessions.add(session)
        self._fold_in_background()

    def search(self, text: str, *, session: int, layer: str, limit: int, prefix: bool = False) -> Found:
        """Return the best *limit* texts of a session's layer that hold a word of *text*.

        Args:
            text: anything; it has no syntax. Words are lower-cased, stop words dropped, the rest stemmed.
            session, layer: what is searched.
            limit: 1 or more.
            prefix: as-you-type: words are compared unstemmed, and the last one stands for every word that begins with it.

        Returns:
            Seqs and BM25 scores, best first, ties by seq.
        """
        if limit < 1:
            raise validation("bounds", f"limit = {limit}; 1 or more fits")
        scope = f"{session}{layer}:"
        field = "words" if prefix else "stems"
        words = _words_of(text)
        if not words:
            return _nothing()
        wanted = Counter(words[:-1] if prefix else words)
        tokens: Counter[str] = Counter()
        for word, times in wanted.items():
            stem = _stem(word)
            if stem is not None:
                tokens[word if prefix else stem] += times
            if len(tokens) == _TOKENS:
                break
        with self._lock, _TantivyErrors():
            snapshot = self._snapshot
            in_index = session not in self._forgotten_sessions
            forgotten = self._forgotten.copy() if self._forgotten else self._forgotten
            terms = self._weigh(snapshot, scope, field, tokens, words[-1] if prefix else None)
            tail = _score_tails(snapshot, scope, field, terms)
        found: list[tuple[float, int]] = []
        if in_index:
            with _TantivyErrors():
                found = _search_index(snapshot.searcher, scope, field, terms, limit, forgotten)
        found += [(-score, seq) for seq, score in tail.items()]
        best = heapq.nsmallest(limit, found)
        return np.array([seq for _, seq in best], np.int64), np.array([-score for score, _ in best], np.float32)

    def load(self, rows: Iterable[Row]) -> None:
        """Take in many texts by the direct way, past the tail; found when this returns."""
        with self._fold_lock:
            self._fold(rows, threads=_BULK_THREADS)

    def commit(self) -> None:
        """Fold everything into the index, leave no trace of forgotten texts in its files, and write the manifest."""
        with self._fold_lock:
            self._fold((), purge=True)

    def close(self) -> None:
        """Wait for a fold under way; what the tail still holds is added again when the database is opened."""
        thread = self._thread
        if thread is not None:
            thread.join()

    # --- searching ---------------------------------------------------------------------------------------------------

    def _weigh(self, snapshot: _Snapshot, scope: str, field: str, tokens: Counter[str], prefix: str | None) -> list[_Term]:
        """Return the terms worth scoring, with the weight of each: its inverse document frequency inside the scope."""
        searcher = snapshot.searcher
        tails = [tail.scopes[scope] for tail in snapshot.tails if scope in tail.scopes]
        documents = searcher.doc_freq("scope", scope) + sum(len(tail.lengths) for tail in tails)

        def term(token: str, indexed: int, containing: int, times: int) -> _Term:
            weight = times * _idf(max(documents, containing), containing)
            return _Term(token, weight, weight / _idf(snapshot.documents, indexed) if indexed else 0.0)

        counted = []
        for token, times in tokens.items():
            indexed = searcher.doc_freq(field, scope + token)
            containing = indexed + sum(len(tail.postings[field].get(token, ())) for tail in tails)
            if containing:
                counted.append((containing, token, indexed, times))
        if len(counted) > _TERMS:
            counted = heapq.nsmallest(_TERMS, counted)
        terms = [term(token, indexed, containing, times) for containing, token, indexed, times in counted]
        if prefix is not None:
            expansions: Counter[str] = Counter()
            for token, containing in searcher.terms_with_prefix(field, scope + prefix, limit=_EXPANSIONS):
                expansions[token[len(scope) :]] = containing
            for tail in tails:
                for token, found in tail.postings[field].items():
                    if token.startswith(prefix):
                        expansions[token] += len(found)
            # One weight for all expansions, as if they were one word: else the rarest, the oddest, would win.
            together = min(documents, expansions.total())
            for token, _ in expansions.most_common(_EXPANSIONS):
                terms.append(term(token, searcher.doc_freq(field, scope + token), together, 1))
        return terms

    # --- folding -----------------------------------------------------------------------------------------------------

    def _fold_in_background(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._background, name="memlab-text-fold", daemon=True)
            self._thread.start()

    def _background(self) -> None:
        try:
            with self._fold_lock:
                self._fold(())
        except Exception as error:  # noqa: BLE001 - a thread has no caller; the texts stay in the tail and are searched there
            _log.error("text_fold_failed", error=repr(error))

    def _fold(self, rows: Iterable[Row], *, threads: int = _FOLD_THREADS, purge: bool = False) -> None:
        """Move the sealed tail and *rows* into the index, and forgotten texts out of it; the caller holds the fold lock."""
        with self._lock:
            sealed, self._tail = self._tail, _Tail()
            documents = list(sealed.documents.values())
            forgotten, sessions = self._forgotten.copy(), self._forgotten_sessions.copy()
            covered = self._covered
            self._snapshot = msgspec.structs.replace(self._snapshot, tails=(sealed, self._tail))
            searcher = self._snapshot.searcher
        try:
            with _TantivyErrors():
                writer = self._index.writer(_BUDGET * threads, threads)
                try:
                    for session in sessions:
                        writer.delete_documents_by_term("session", session)
                    for seq in forgotten:
                        writer.delete_documents_by_term("seq", seq)
                    for document in documents:
                        writer.add_document(_to_tantivy(document))
                    for row in rows:
                        writer.add_document(_to_tantivy(_analyse(*row)))
                        covered = max(covered, row[0])
                    writer.commit()
                finally:
                    writer.wait_merging_threads()
                self._index.reload()
        except BaseException:
            with self._lock:
                for document in self._tail.documents.values():
                    sealed.add(document)
                self._tail = sealed
                self._snapshot = msgspec.structs.replace(self._snapshot, tails=(sealed,))
                self._fold_at = len(sealed.documents) + self._settings.text_tail
            raise
        with self._lock:
            self._snapshot = self._read((self._tail,))
            self._forgotten -= forgotten
            self._forgotten_sessions -= sessions
            self._covered = max(self._covered, covered)
            self._folded = covered
            self._fold_at = self._settings.text_tail
        del searcher
        self._write_manifest()

    def _read(self, tails: tuple[_Tail, ...]) -> _Snapshot:
        """Return what tantivy holds now, with its two BM25 statistics, which only an explanation tells."""
        searcher = self._index.searcher()
        documents, average = 0.0, 0.0
        for _, address in searcher.search(tantivy.Query.all_query(), 64, count=False).hits:
            words = searcher.doc(address).get_first("words")
            if words:
                token = words.partition(" ")[0]
                query = tantivy.Query.term_query(_SCHEMA, "words", token, "freq")
                documents, average = _statistics(msgspec.json.decode(query.explain(searcher, address).to_json()))
                break
        return _Snapshot(searcher, documents, average, tails)

    def _write_manifest(self) -> None:
        names = [
            path.name for path in self.folder.iterdir() if path.name != NAME and not path.name.endswith((".lock", ".writing"))
        ]
        # A segment's files never change once written; only tantivy's lists of them do.
        kept = {name: found for name, found in self._digests.items() if not name.endswith(".json")}
        self._digests = {name: kept.get(name) or digest(self.folder / name) for name in names}
        sync_folder(self.folder)
        write_manifest(
            self.folder,
            Manifest(
                index="text",
                database_id=self._database_id,
                generation=self._generation,
                commit_seq=self._folded,
                count=int(self._snapshot.searcher.num_docs),
                details={"covered_seq": self._folded},
                files=self._digests,
            ),
        )


def _search_index(
    searcher: Any, scope: str, field: str, terms: list[_Term], limit: int, forgotten: set[int]
) -> list[tuple[float, int]]:
    """Return (-score, seq) of the index's best, without forgotten texts."""
    clauses = [
        (
            tantivy.Occur.Should,
            tantivy.Query.boost_query(tantivy.Query.term_query(_SCHEMA, field, scope + term.token, "freq"), term.boost),
        )
        for term in terms
        if term.boost > 0.0
    ]
    if not clauses:
        return []
    query = tantivy.Query.boolean_query(clauses)
    for asked in (limit + min(len(forgotten), 16), limit + len(forgotten)):
        hits = searcher.search(query, asked, count=False).hits
        seqs = searcher.fast_field_values("seq", [address for _, address in hits])
        found = [(-score, seq) for (score, _), seq in zip(hits, seqs, strict=True) if seq not in forgotten]
        if len(found) >= limit or len(hits) < asked:
            break
    return found


def _score_tails(snapshot: _Snapshot, scope: str, field: str, terms: list[_Term]) -> dict[int, float]:
    """Return the score of every text of the tails that holds a term."""
    scores: dict[int, float] = {}
    for tail in snapshot.tails:
        inside = tail.scopes.get(scope)
        if inside is None:
            continue
        lengths = inside.lengths
        average = snapshot.average_length or max(sum(lengths.values()) / max(len(lengths), 1), 1.0)
        base, slope = _K1 * (1.0 - _B), _K1 * _B / average
        for term in terms:
            postings = inside.postings[field].get(term.token)
            if postings:
                top = term.weight * (_K1 + 1.0)
                for seq, times in postings.items():
                    scores[seq] = scores.get(seq, 0.0) + top * times / (times + base + slope * lengths[seq])
    return scores


def _statistics(explanation: Any) -> tuple[float, float]:
    """Return the number of documents and the average length that an explanation of a term's score names."""
    found: dict[str, float] = {}

    def walk(node: Any) -> None:
        found[node["description"].partition(",")[0]] = node["value"]
        for inner in node.get("details") or ():
            walk(inner)

    walk(explanation)
    return found["N"], found["avgdl"]


def _nothing() -> Found:
    return np.empty(0, np.int64), np.empty(0, np.float32)


class _TantivyErrors:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (ValueError, OSError, RuntimeError)):
            raise internal("index", f"the text index failed: {type(error).__name__} {error}") from error
