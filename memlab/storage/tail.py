"""The newest texts, in memory: searchable at once, by the formula and the rounding of the text index, until it takes them in.

BM25 as tantivy computes it: a text of length dl that holds a token tf times gets
weight × (k1 + 1) × tf / (tf + k1 × (1 - b + b × dl / average length)), where dl is kept in one byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import msgspec

from memlab.storage.analysis import Document

K1, B = 1.2, 0.75  # tantivy's, which cannot be chosen
Field: TypeAlias = Literal["stems", "words"]
_NONE: dict[int, int] = {}


class Term(msgspec.Struct, frozen=True):
    """A token that is searched.

    Attributes:
        weight: its inverse document frequency inside the scope, times how often it is asked for.
        boost: the same in units of what the index would give for it; 0 where the index does not hold it.
    """

    token: str
    weight: float
    boost: float


class Tail:
    """Documents by seq, and postings for each scope; not safe beside changes: the text index holds a lock."""

    def __init__(self) -> None:
        self.documents: dict[int, Document] = {}
        self._scopes: dict[str, _Postings] = {}

    def __len__(self) -> int:
        return len(self.documents)

    def add(self, documents: Iterable[Document]) -> None:
        """Take in documents; a seq that is there is replaced."""
        for document in documents:
            self.remove(document.seq)
            self.documents[document.seq] = document
            postings = self._scopes.get(document.scope)
            if postings is None:
                postings = self._scopes[document.scope] = _Postings()
            postings.add(document)

    def remove(self, seq: int) -> bool:
        """Forget one document; false where it is not here."""
        document = self.documents.pop(seq, None)
        if document is None:
            return False
        self._scopes[document.scope].remove(document)
        if not self._scopes[document.scope].lengths:
            del self._scopes[document.scope]
        return True

    def remove_session(self, session: int) -> None:
        """Forget every document of a session."""
        for seq in [seq for seq, document in self.documents.items() if document.session == session]:
            self.remove(seq)

    def count(self, scope: str) -> int:
        """Return how many documents a scope has."""
        postings = self._scopes.get(scope)
        return len(postings.lengths) if postings is not None else 0

    def size(self, scope: str) -> tuple[int, int]:
        """Return how many documents a scope has, and how many words they have together."""
        postings = self._scopes.get(scope)
        return (0, 0) if postings is None else (len(postings.lengths), postings.words)

    def containing(self, scope: str, field: Field, token: str) -> int:
        """Return how many documents of a scope hold *token*."""
        postings = self._scopes.get(scope)
        return len(postings.of(field).get(token, _NONE)) if postings is not None else 0

    def beginning_with(self, scope: str, field: Field, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the tokens of a scope that begin with *prefix*, and how many documents hold each."""
        postings = self._scopes.get(scope)
        if postings is not None:
            for token, found in postings.of(field).items():
                if token.startswith(prefix):
                    yield token, len(found)

    def score(self, scope: str, field: Field, terms: Iterable[Term], average_length: float, scores: dict[int, float]) -> None:
        """Add to *scores* what each document of a scope gets for *terms*."""
        inside = self._scopes.get(scope)
        if inside is None:
            return
        postings, lengths = inside.of(field), inside.lengths
        short, slope = K1 * (1.0 - B), K1 * B / average_length
        for term in terms:
            found = postings.get(term.token)
            if found:
                top = term.weight * (K1 + 1.0)
                for seq, times in found.items():
                    scores[seq] = scores.get(seq, 0.0) + top * times / (times + short + slope * lengths[seq])


class _Postings:
    """One scope: how often each document holds each token, and how long it is."""

    def __init__(self) -> None:
        self.words = 0
        self.lengths: dict[int, int] = {}
        self._stems: dict[str, dict[int, int]] = {}
        self._words: dict[str, dict[int, int]] | None = None  # made by the first search as-you-type; most scopes see none
        self._documents: dict[int, Document] = {}

    def add(self, document: Document) -> None:
        self._documents[document.seq] = document
        self.words += len(document.words)
        self.lengths[document.seq] = rounded_length(len(document.words))
        _post(self._stems, document.seq, document.stems)
        if self._words is not None:
            _post(self._words, document.seq, document.words)

    def remove(self, document: Document) -> None:
        del self.lengths[document.seq], self._documents[document.seq]
        self.words -= len(document.words)
        for postings, tokens in ((self._stems, document.stems), (self._words, document.words)):
            if postings is not None:
                for token in set(tokens):
                    del postings[token][document.seq]
                    if not postings[token]:
                        del postings[token]

    def of(self, field: Field) -> dict[str, dict[int, int]]:
        if field == "stems":
            return self._stems
        if self._words is None:
            self._words = {}
            for document in self._documents.values():
                _post(self._words, document.seq, document.words)
        return self._words


def _post(postings: dict[str, dict[int, int]], seq: int, tokens: list[str]) -> None:
    for token in tokens:
        found = postings.get(token)
        if found is None:
            postings[token] = {seq: 1}
        else:
            found[seq] = found.get(seq, 0) + 1


def rounded_length(length: int) -> int:
    """Return *length* as tantivy keeps it in one byte: exact below 40, then four significant bits of what exceeds 24.

    >>> [rounded_length(length) for length in (39, 41, 57, 1000)]
    [39, 40, 56, 984]
    """
    if length < 40:
        return length
    shift = (length - 24).bit_length() - 4
    return ((length - 24) >> shift << shift) + 24
