"""Groups of alike vectors, and the sentences that stand for a group of texts: what consolidation is made of.

Every function takes unit vectors, works in memory, and answers the same for the same input.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from memlab.storage.analysis import split, stem

Vectors: TypeAlias = npt.NDArray[np.float32]
Groups: TypeAlias = list[list[int]]
"""Places of alike vectors, ascending; the groups in the order of their first, every place in one group."""

_ROUNDS = 10  # of k-means; leaders begin so near that more change little
MOST_SENTENCES = 400  # of one group that are compared with each other
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")
_DAMPING = 0.85
_LINKED = 0.1  # tf-idf cosine from which two sentences support each other, as in the paper
_REPEATS = 0.7  # tf-idf cosine from which a sentence says nothing new


def leaders(vectors: Vectors, similarity: float) -> Groups:
    """Return groups by leader clustering: each vector joins the closest leader at least *similarity* alike, or becomes one.

    One pass, O(n x groups); depends on the order.
    Source: Hartigan 1975, Clustering Algorithms, chapter 3.

    >>> leaders(np.eye(3, dtype=np.float32)[[0, 1, 0]], 0.9)
    [[0, 2], [1]]
    """
    found = np.empty_like(vectors)
    groups: Groups = []
    for place, vector in enumerate(vectors):
        if groups:
            cosines = found[: len(groups)] @ vector
            best = int(np.argmax(cosines))
            if cosines[best] >= similarity:
                groups[best].append(place)
                continue
        found[len(groups)] = vector
        groups.append([place])
    return groups


def k_means(vectors: Vectors, similarity: float) -> Groups:
    """Return groups by spherical k-means that begins with the leaders of the groups of two or more.

    A vector belongs to the closest centre where it is at least *similarity* alike to it, and else to itself alone. A centre is
    the mean of what belongs to it, brought to unit length.
    Source: Lloyd 1982, doi 10.1109/TIT.1982.1056489; on the sphere Dhillon, Modha 2001, doi 10.1023/A:1007612920971.
    """
    centres = np.array([vectors[group].mean(axis=0) for group in leaders(vectors, similarity) if len(group) > 1], np.float32)
    nearest = np.full(len(vectors), -1)
    if not len(centres):
        return _grouped(nearest)
    for _ in range(_ROUNDS):
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
        cosines = vectors @ centres.T
        closest = np.argmax(cosines, axis=1)
        moved = np.where(cosines[np.arange(len(vectors)), closest] >= similarity, closest, -1)
        if np.array_equal(moved, nearest):
            break
        nearest = moved
        for number in range(len(centres)):
            members = vectors[nearest == number]
            if len(members):
                centres[number] = members.mean(axis=0)
    return _grouped(nearest)


def average_linkage(vectors: Vectors, similarity: float) -> Groups:
    """Return groups by average linkage (UPGMA), merged while the mean cosine between two groups is at least *similarity*.

    O(n^2) in time and memory: 100 MB at 5,000 vectors. Does not depend on the order, ties aside.
    Source: Sokal, Michener 1958; the algorithm of SciPy: Müllner 2011, arXiv 1109.2378.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # late: it takes a quarter of a second, and few calls need it
    from scipy.spatial.distance import squareform

    if len(vectors) < 2:
        return [[place] for place in range(len(vectors))]
    distances = 1.0 - (vectors @ vectors.T).astype(np.float64)
    np.maximum(distances, 0.0, out=distances)
    np.fill_diagonal(distances, 0.0)
    tree = linkage(squareform(distances, checks=False), method="average")
    # Vectors are float32, so equal ones may come out a hair apart.
    return _grouped(fcluster(tree, t=1.0 - similarity + 1e-6, criterion="distance") - 1)


def _grouped(labels: npt.NDArray[np.int64]) -> Groups:
    """Return groups of labels; what is labelled -1 is alone."""
    groups: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        groups.setdefault(label if label >= 0 else -place - 1, []).append(place)
    return list(groups.values())


ALGORITHMS: Mapping[str, Callable[[Vectors, float], Groups]] = {
    "speed": leaders,
    "balanced": k_means,
    "quality": average_linkage,
}


def medoid(vectors: Vectors) -> int:
    """Return the place of the vector whose cosines to all add up to the most; the first among equals.

    Source: Kaufman, Rousseeuw 1987 (PAM), for the cosine.
    """
    sums = vectors @ vectors.sum(axis=0)
    return int(np.flatnonzero(sums >= sums.max() - 1e-5)[0])


class Sentence(msgspec.Struct, frozen=True):
    """A sentence, and the place of the text that it stands in."""

    text: str
    place: int


def sentences(texts: Sequence[str]) -> list[Sentence]:
    """Return the sentences of texts, in order; at most `MOST_SENTENCES`, of every text about as many.

    >>> [one.text for one in sentences(["It rains. Ada reads!", "Bo sails"])]
    ['It rains.', 'Ada reads!', 'Bo sails']
    """
    found = [[part.strip() for part in _SENTENCE_END.split(text) if part.strip()] or [text] for text in texts]
    each = max(1, MOST_SENTENCES // max(1, len(texts)))
    return [Sentence(part, place) for place, parts in enumerate(found) for part in parts[:each]][:MOST_SENTENCES]


def central_sentences(texts: Sequence[str], most: int) -> list[Sentence]:
    """Return the *most* central sentences at most, in the order of the texts, without those that repeat another.

    Sentences are compared by the cosine of their tf-idf weights, idf being ln(1 + n / sentences with the stem). Two at least
    0.1 alike are linked, weighted by the cosine; a random walk follows links with probability 0.85 and jumps anywhere
    otherwise, and from a sentence without a link always. How often it comes by says how central a sentence is. One at least
    0.7 alike to a more central one is left out.
    Source: Erkan, Radev 2004 (LexRank), doi 10.1613/jair.1523.

    >>> [one.text for one in central_sentences(["Ada drinks tea", "Bo drinks tea daily", "It rains"], 1)]
    ['Ada drinks tea']
    """
    found = sentences(texts)
    stems = [Counter(filter(None, map(stem, split(one.text)))) for one in found]
    frequency = Counter(word for words in stems for word in words)
    places = {word: place for place, word in enumerate(frequency)}
    weights = np.zeros((len(found), max(1, len(places))))
    for row, words in enumerate(stems):
        for word, count in words.items():
            weights[row, places[word]] = count * np.log(1.0 + len(found) / frequency[word])
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
    cosines = weights @ weights.T
    linked = np.where(cosines >= _LINKED, cosines, 0.0)
    np.fill_diagonal(linked, 0.0)  # else one that is like no other would be as central as the average
    links = linked.sum(axis=1, keepdims=True)
    linked = np.where(links > 0.0, linked / np.maximum(links, 1e-12), 1.0 / len(found))
    rank = np.full(len(found), 1.0 / len(found))
    for _ in range(100):
        following = (1.0 - _DAMPING) / len(found) + _DAMPING * (linked.T @ rank)
        if np.abs(following - rank).max() < 1e-9:
            break
        rank = following
    chosen: list[int] = []
    for place in np.argsort(-np.round(rank, 7), kind="stable").tolist():
        if len(chosen) < most and all(cosines[place, other] < _REPEATS for other in chosen):
            chosen.append(place)
    return [found[place] for place in sorted(chosen)]
