"""Text to vectors without a model and without a download: hashed words, word pairs and pieces of words."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memlab.embedders.embedder import Vectors
from memlab.errors import validation

# Weights in whole numbers, so that sums are exact: the vector of a text does not depend on the order of addition, on the
# texts embedded beside it, or on the machine. Chosen on LoCoMo's 999 questions (evidence recall@10 at 384 dimensions):
# words alone 0.23, common words lowered 0.33, pieces of words added 0.44. Pieces are not normalised by a word's length:
# long words are the rarer ones, which stands in for the document frequencies that a stateless embedder does not have.
_WORD, _PIECE, _PAIR = 16, 11, (5, 2, 1)  # pairs by how many of their words are common
_COMMON_WORD, _COMMON_PIECE = 2, 1
_PIECE_SIZES = (3, 4, 5)
_COUNTED = 64  # 1 + ln(count) in steps of 1/64, so that C libraries whose logarithms differ in the last bit agree
_CHUNK = 256  # texts summed at once; bounds memory, and stays in the processor's cache

_WORDS = re.compile(r"\w{1,64}")  # longer runs are cut: no word costs more than its share
_COMMON = frozenset(
    """a about after again all also am an and any are as at be because been before being but by can could d did do does doing
    don down during each few for from further had has have having he her here hers herself him himself his how i if in into is
    it its itself just ll m me more most my myself no nor not now of off on once only or other our ours ourselves out over own
    re s same she should so some such t than that the their theirs them themselves then there these they this those through to
    too under until up ve very was we were what when where which while who whom why will with would you your yours yourself
    yourselves""".split()
)


class _Word(NamedTuple):
    key: int
    common: bool
    buckets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]


class HashingEmbedder:
    """Signed feature hashing (Weinberger et al. 2009, doi 10.1145/1553374.1553516) of words, word pairs and pieces of words.

    Texts that share words or parts of words are close; meaning beyond that is not seen. The same text gives the same bits in
    every process, and never a zero vector. Safe to call from many threads.

    Args:
        dimension: 8 to 8192.
        words_kept: words whose features stay in memory.
    Raises:
        MemlabError: VALIDATION `embedder`: *dimension* out of bounds.
    """

    def __init__(self, dimension: int = 384, *, words_kept: int = 32_768) -> None:
        if not 8 <= dimension <= 8192:
            raise validation("embedder", f"the hashing embedder has 8 to 8192 dimensions, not {dimension}")
        self.dimension = dimension
        # The name stands in databases: an algorithm that gives other vectors needs another one.
        self.name = f"hashing:{dimension}"
        self._word = functools.lru_cache(maxsize=words_kept)(functools.partial(_features, dimension=dimension))

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """Return one unit vector for each text; queries and stored texts are treated alike."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK):
            vectors[start : start + _CHUNK] = self._embed(texts[start : start + _CHUNK])
        return vectors

    def _embed(self, texts: Sequence[str]) -> Vectors:
        parts: list[_Word] = []
        counts: list[int] = []
        pairs: list[tuple[int, int, int]] = []
        pair_counts: list[int] = []
        words_of: list[int] = []
        pairs_of: list[int] = []
        for text in texts:
            words = _split(text)
            known = {word: self._word(word) for word in words}
            found = Counter(words)
            neighbours = Counter(itertools.pairwise(words))
            parts += known.values()
            counts += found.values()
            words_of.append(len(found))
            pairs_of.append(len(neighbours))
            pair_counts += neighbours.values()
            for one, other in neighbours:
                first, second = known[one], known[other]
                pairs.append((first.key, second.key, first.common + second.common))
        sizes = [len(part.buckets) for part in parts]
        rows = np.arange(len(texts))
        offsets = np.repeat(np.repeat(rows, words_of), sizes) * self.dimension
        places = offsets + np.concatenate([part.buckets for part in parts])
        weights = np.concatenate([part.weights for part in parts]) * np.repeat(_damped(counts), sizes)
        if pairs:
            table = np.array(pairs, dtype=np.uint64)
            codes = _mix(table[:, 0] * np.uint64(0x9E3779B97F4A7C15) + table[:, 1])
            buckets, signs = _place(codes, self.dimension)
            places = np.concatenate([places, np.repeat(rows, pairs_of) * self.dimension + buckets])
            pair_weights = np.array(_PAIR, dtype=np.int64)[table[:, 2].astype(np.int64)]
            weights = np.concatenate([weights, signs * pair_weights * _damped(pair_counts)])
        sums = np.bincount(places, weights=weights, minlength=len(texts) * self.dimension).reshape(len(texts), self.dimension)
        for row in np.flatnonzero(~sums.any(axis=1)).tolist():  # every feature met its opposite in its bucket: rare, and possible
            sums[row, _code("text", texts[row]) % self.dimension] = 1.0
        vectors: Vectors = (sums / np.sqrt(np.einsum("ij,ij->i", sums, sums))[:, None]).astype(np.float32)
        return vectors


def _split(text: str) -> list[str]:
    """Return the words of a text; for one without any, its whole as one, so that "!!!" and "👍" differ."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return _WORDS.findall(folded) or [folded.strip()[:64]]


def _features(word: str, *, dimension: int) -> _Word:
    common = word in _COMMON
    marked = f"<{word}>"
    pieces = [marked[at : at + size] for size in _PIECE_SIZES for at in range(len(marked) - size + 1)]
    codes = [_code("word", word), *(_code("piece", piece) for piece in pieces)]
    buckets, signs = _place(np.array(codes, dtype=np.uint64), dimension)
    weights = np.full(len(codes), _COMMON_PIECE if common else _PIECE, dtype=np.int64)
    weights[0] = _COMMON_WORD if common else _WORD
    return _Word(codes[0], common, buckets, signs * weights)


def _code(kind: str, text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=kind.encode())
    return int.from_bytes(digest.digest(), "little")


def _mix(codes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scatter 64-bit numbers: the finaliser of SplitMix64 (Steele, Lea, Flood 2014, doi 10.1145/2714064.2660195)."""
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))


def _place(codes: npt.NDArray[np.uint64], dimension: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the bucket and the sign of every code: the sign from its lowest bit, the bucket from the rest."""
    buckets = ((codes >> np.uint64(1)) % np.uint64(dimension)).astype(np.int64)
    return buckets, 1 - 2 * (codes & np.uint64(1)).astype(np.int64)


def _damped(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return 1 + ln(count) in whole steps: a word said ten times counts about three times."""
    return np.array([_damp(count) for count in counts], dtype=np.int64)


@functools.lru_cache(maxsize=4096)
def _damp(count: int) -> int:
    return round((1.0 + math.log(count)) * _COUNTED)
