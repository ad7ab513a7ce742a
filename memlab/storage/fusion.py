"""Joining the vector list and the text list of a hybrid search into one order.

The lists are short (a few dozen entries), so plain dictionaries beat NumPy: joining two lists of 50 takes about 15 µs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Fused = tuple[np.ndarray, np.ndarray]


def reciprocal_rank(lists: Sequence[Sequence[int] | np.ndarray], weights: Sequence[float], k: int = 60) -> Fused:
    """Return ids and scores, best first; an id scores the sum of weight / (k + rank) over the lists that hold it.

    Args:
        lists: ids, best first, no id twice in one list; ranks count from 1.
        weights: of the lists, 0 or more.
        k: how far down a list agreement still counts.
    Returns:
        ids int64 and scores float32; ties keep the order of first appearance, list by list.
    Source: Cormack, Clarke, Büttcher 2009, doi 10.1145/1571941.1572114, where k = 60.

    >>> reciprocal_rank([[7, 8], [8]], [1.0, 1.0])[0].tolist()
    [8, 7]
    """
    scores: dict[int, float] = {}
    for ids, weight in zip(lists, weights, strict=True):
        given = zip(_plain(ids), (weight / np.arange(k + 1, k + 1 + len(ids))).tolist(), strict=True)
        if not scores:
            scores = dict(given)
            continue
        for id, score in given:
            scores[id] = scores[id] + score if id in scores else score
    return _best_first(scores)


def weighted(lists: Sequence[tuple[Sequence[int] | np.ndarray, Sequence[float] | np.ndarray]], weights: Sequence[float]) -> Fused:
    """Return ids and scores, best first; an id scores the weighted sum of its min-max normalised scores.

    A list's best entry counts 1, its last 0; where all its scores are equal, all count 1. An id absent from a list gets
    nothing from it.

    Args:
        lists: (ids, scores), best first, no id twice in one list.
        weights: of the lists, 0 or more.
    Returns:
        ids int64 and scores float32; ties keep the order of first appearance, list by list.
    Source: Fox, Shaw 1994 (CombSUM) over min-max normalised scores, Lee 1997, doi 10.1145/258525.258587.

    >>> weighted([([7, 8], [0.9, 0.1]), ([8], [3.0])], [1.0, 0.5])[0].tolist()
    [7, 8]
    """
    fused: dict[int, float] = {}
    for (ids, given), weight in zip(lists, weights, strict=True):
        scores = _plain(given)
        if not scores:
            continue
        low, high = min(scores), max(scores)
        for id, score in zip(_plain(ids), scores, strict=True):
            share = (score - low) / (high - low) if high > low else 1.0
            fused[id] = fused.get(id, 0.0) + weight * share
    return _best_first(fused)


def _plain(values: Sequence[int] | Sequence[float] | np.ndarray) -> list:  # type: ignore[type-arg]
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _best_first(scores: dict[int, float]) -> Fused:
    ids = np.fromiter(scores, np.int64, len(scores))
    given = np.fromiter(scores.values(), np.float64, len(scores))
    order = np.argsort(-given, kind="stable")
    return ids[order], given[order].astype(np.float32)
