"""What an event's neighbours in time say of it: words and meaning lent from turn to turn.

In a conversation the question stands in one turn and the answer in the next, so that no single turn holds the words that are
asked for. Each word's score is therefore spread to the neighbours of the same episode, saturated again as BM25 saturates
repetition, and weighed by how rare the word is among the widened texts.

Source: score propagation between neighbouring passages, Shakery, Zhai 2006, doi 10.1145/1183614.1183673; windows of
sentences as context, Fernández, Losada, Azzopardi 2011, doi 10.1007/s10791-010-9146-4.
"""

from __future__ import annotations

import numpy as np

from memlab.settings import RetrievalSettings
from memlab.storage.demands import Period


class Timeline:
    """Memories in order of time, and where one episode ends.

    Args:
        occurred: microseconds since 1970, by place in order of storing.
        gap_us: a longer pause ends an episode.
    """

    def __init__(self, occurred: np.ndarray, gap_us: int) -> None:
        pauses = np.diff(occurred)
        if len(pauses) and pauses.min() < 0:
            self.order = np.argsort(occurred, kind="stable")
            self.ranks = np.empty_like(self.order)
            self.ranks[self.order] = np.arange(len(occurred))
            pauses = np.diff(occurred[self.order])
        else:  # as most memories come
            self.order = self.ranks = np.arange(len(occurred))
        self.episodes = np.zeros(len(occurred), np.int64)
        self.episodes[1:] = np.cumsum(pauses > gap_us)

    def widened(self, ranks: np.ndarray, reach: int) -> np.ndarray:
        """Return *ranks* and those at most *reach* away in the same episode, ascending, each once."""
        near = ranks[:, None] + np.arange(-reach, reach + 1)
        inside = (near >= 0) & (near < len(self.episodes))
        near = np.where(inside, near, 0)
        inside &= self.episodes[near] == self.episodes[ranks][:, None]
        mark = np.zeros(len(self.episodes), np.bool_)
        mark[near[inside]] = True
        found: np.ndarray = np.flatnonzero(mark)
        return found

    def spread(
        self, scores: np.ndarray, ranks: np.ndarray, *, reach: int, before: float, after: float, decay: float
    ) -> np.ndarray:
        """Return scores with those of the neighbours added.

        Args:
            scores: (m, n), 0 for everything that is not in *ranks*.
            ranks: ascending, each once.
            reach: neighbours on either side.
            before, after: weight of the nearest earlier and later one; each further one has *decay* of the last's.

        >>> made = Timeline(np.array([0, 1, 2, 900]), gap_us=10)
        >>> made.spread(np.array([[1.0, 0, 0, 0]]), np.arange(4), reach=2, before=0.5, after=0, decay=0.5).tolist()
        [[1.0, 0.5, 0.25, 0.0]]
        """
        # Few memories hold a word, so what is lent is followed from those that lend: a sixth of the time of shifting rows.
        spread = scores.copy()
        flat = spread.reshape(-1)
        rows, lenders = np.nonzero(scores)
        values, home = scores[rows, lenders], ranks[lenders]
        episodes = self.episodes[ranks]
        for distance in range(1, reach + 1):
            for weight, step in ((before, distance), (after, -distance)):
                share = weight * decay ** (distance - 1)
                if not share:
                    continue
                places = np.minimum(np.searchsorted(ranks, home + step), len(ranks) - 1)
                there = (ranks[places] == home + step) & (episodes[places] == episodes[lenders])
                # One step leads from different lenders to different places, so no place is added to twice.
                flat[rows[there] * len(ranks) + places[there]] += share * values[there]
        return spread


def words_in_context(
    timeline: Timeline,
    ranks: np.ndarray,
    parts: np.ndarray,
    counted: np.ndarray,
    times: np.ndarray,
    memories: int,
    settings: RetrievalSettings,
) -> np.ndarray:
    """Return the score of the question's words for each rank, what neighbours lend included.

    Args:
        ranks: (n,) ascending, each once; whatever holds a word, and its neighbours.
        parts: (words, n) what BM25 gives for a word before its rarity counts: (k1 + 1) tf / (tf + …), 0 where it is not held.
        counted: (words,) how many memories hold each word; *parts* may know fewer.
        times: (words,) how much each word counts.
        memories: of the session and layer.
    """
    spread = timeline.spread(
        parts, ranks, reach=settings.reach, before=settings.before, after=settings.after, decay=settings.decay
    )
    lent = spread * (1.0 + settings.saturation) / (spread + settings.saturation)
    known = np.maximum((parts > 0).sum(axis=1), 1)
    # Of a word that more memories hold than were looked at, as many more are near one.
    near = np.minimum((lent > 0).sum(axis=1) * np.maximum(counted / known, 1.0), memories)
    scores: np.ndarray = (times * rarity(memories, near)) @ lent
    return scores


def rarity(memories: int, holding: np.ndarray) -> np.ndarray:
    """Return the inverse document frequency of BM25."""
    weights: np.ndarray = np.log(1.0 + (memories - holding + 0.5) / (holding + 0.5))
    return weights


def of_periods(occurred: np.ndarray, periods: tuple[Period, ...]) -> np.ndarray:
    """Return which moments, microseconds since 1970 UTC, lie in one of the periods."""
    found = np.zeros(len(occurred), np.bool_)
    if not periods:
        return found
    moments = occurred.astype("datetime64[us]")
    months = moments.astype("datetime64[M]")
    month, year = months.astype(np.int64) % 12 + 1, months.astype(np.int64) // 12 + 1970
    day = (moments.astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64) + 1
    for period in periods:
        inside = month == period.month
        if period.day is not None:
            inside &= day == period.day
        if period.year is not None:
            inside &= year == period.year
        found |= inside
    return found
