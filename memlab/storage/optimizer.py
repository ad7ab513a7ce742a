"""Which way a filtered search goes.

It may filter first and compare all that is left, ask the index for what the filter lets through, or filter what an unfiltered
search found. The three give the same answer at unlike cost: pre-filtering pays for every memory that passes, push-down for
testing the filter while the index is walked, post-filtering for looking further the fewer pass. What passes is estimated from
counts that the directory keeps and from a sample, as databases estimate selectivity; costs are microseconds of a simple model.
Both are compared with what happened, and the model's error of each way is learned and taken out of later estimates (Stillger,
Lohman, Markl, Kandil 2001, "LEO - DB2's learning optimizer", VLDB).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, get_args

import msgspec

from memlab.values import Candidate

Way: TypeAlias = Literal["pre_filter", "push_down", "post_filter"]
Part: TypeAlias = Literal["vector", "text"]
WAYS: tuple[Way, ...] = get_args(Way)

_LEARNING = 0.2  # weight of the newest error: five searches outweigh what was believed before
_FARTHEST = math.log(64.0)  # no correction beyond: a machine that was stopped for a second is no evidence
_HEADROOM = 1.5  # how much further than its share a post-filter looks at first
_DOT = 1.6e-4  # µs for one component of one comparison, by exact scan
_BLAS_QUERIES, _BLAS_GAIN = 64, 12.0  # from so many queries an exact scan costs a twelfth for each


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What is known before a search.

    Attributes:
        memories: of the session and layer.
        total: of all sessions, the forgotten that still take a place in the index included.
        passing: estimate of those that pass the filter.
        conditions: parts of the filter.
        postings: how often the words of the question stand in the session's texts; 0 where none was given.
        dimension: of the vectors.
        queries: how many questions go together under this filter.
        depth: matches wanted.
        kind: of the vector index.
        probed: share of an inverted index that an unfiltered question of this kind looks at; 1 for indexes that scan.
        links: edges of a node of a graph index.
        effort: nodes that a graph index keeps in view.
    """

    memories: int
    total: int
    passing: float
    conditions: int
    postings: int
    dimension: int
    queries: int
    depth: int
    kind: str
    probed: float
    links: int = 0
    effort: float = 0.0

    @property
    def selectivity(self) -> float:
        """Share of the session's memories that pass, in (0, 1]."""
        return min(1.0, max(self.passing, 0.5) / self.memories) if self.memories else 1.0

    @property
    def reach(self) -> int:
        """How many matches a post-filter takes at first, so that enough of them pass."""
        return reach(self.depth, self.selectivity, self.memories)


def reach(depth: int, selectivity: float, memories: int) -> int:
    """Return how many matches to take so that about *depth* pass a filter of this selectivity.

    >>> reach(10, 0.5, 1_000), reach(10, 0.01, 1_000)
    (30, 1000)
    """
    wanted = depth if selectivity >= 1.0 else math.ceil(_HEADROOM * depth / selectivity)
    return max(1, min(wanted, max(memories, 1)))


class Estimate(msgspec.Struct, frozen=True):
    """What one way is expected to take: memories that it looks at, and microseconds by the model, uncorrected."""

    rows: float
    cost_us: float


def estimate(part: Part, way: Way, known: Statistics) -> Estimate | None:
    """Return what a way is expected to take by the model; None where the part has no such way."""
    return _of_vectors(way, known) if part == "vector" else _of_texts(way, known)


def _of_vectors(way: Way, known: Statistics) -> Estimate:
    select = 2.0 + 0.004 * known.memories * known.conditions
    one = known.dimension * _DOT
    gain = _BLAS_GAIN if known.queries >= _BLAS_QUERIES else 1.0
    if way == "pre_filter":
        return Estimate(known.passing, 5.0 + select + known.queries * known.passing * one / gain)
    if way == "push_down":
        bitmap = 0.0 if not known.conditions else 2.0 + 0.001 * known.total
        share = max(known.passing, 1.0) / max(known.total, 1)
        return Estimate(known.passing, 10.0 + select + bitmap + known.queries * _index_cost(known, known.depth, share))
    share = known.memories / max(known.total, 1)
    found = _index_cost(known, known.reach, max(share, 1e-6))
    return Estimate(known.reach, 10.0 + known.queries * (found + 0.05 * known.reach))


def _index_cost(known: Statistics, depth: int, share: float) -> float:
    """Return µs of one question to the index for *depth* of a *share* of all its entries."""
    one = known.dimension * _DOT
    if known.kind == "ivf":
        lists = 4.0 * math.sqrt(max(known.total, 1))
        looked_at = min(1.0, known.probed * (1.0 + math.log10(max(1.0, depth / 10.0 / share))))
        return 20.0 + lists * one + known.total * (looked_at * share * one + looked_at * 0.001)
    if known.kind == "hnsw":
        visited = min(known.total, max(known.effort, 3.0 * depth) / share)
        return 5.0 + visited * max(known.links, 1) * one
    slower = {"sq8": 0.5, "fp16": 0.8}.get(known.kind, 1.0)
    return 5.0 + known.total * one * slower + 0.1 * depth


def _of_texts(way: Way, known: Statistics) -> Estimate | None:
    search = 20.0 + 0.01 * known.postings
    if way == "pre_filter":
        select = 2.0 + 0.004 * known.memories * known.conditions
        return Estimate(known.passing, search + select + 0.4 * known.passing)
    if way == "post_filter":
        select = 2.0 + 0.004 * known.memories * known.conditions
        rounds = 1.0 + max(0.0, math.log(max(known.reach / max(known.depth, 1), 1.0), 4.0))
        looked_at = min(known.reach, max(known.postings, 1))
        return Estimate(looked_at, rounds * search + select + 0.3 * looked_at)
    return None


class Optimizer:
    """Chooses ways, and learns how far its estimates are off; for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: dict[tuple[Part, Way, str], float] = {}

    def corrected(self, part: Part, way: Way, known: Statistics) -> float | None:
        """Return the estimated cost in microseconds, the error that was learned taken out; None for no such way."""
        expected = estimate(part, way, known)
        if expected is None:
            return None
        return expected.cost_us * math.exp(self._errors.get((part, way, known.kind), 0.0))

    def choose(self, part: Part, known: Statistics, among: Sequence[Way] = WAYS) -> Way:
        """Return the cheapest way; where two cost the same, the more exact, which is named first."""
        costs = {way: cost for way in among if (cost := self.corrected(part, way, known)) is not None}
        return min(costs, key=costs.__getitem__)

    def learn(self, part: Part, way: Way, known: Statistics, cost_us: float) -> None:
        """Take note of what a way really took."""
        expected = estimate(part, way, known)
        if expected is None or cost_us <= 0.0:
            return
        error = math.log(cost_us / expected.cost_us)
        error = min(max(error, -_FARTHEST), _FARTHEST)
        with self._lock:
            key = (part, way, known.kind)
            before = self._errors.get(key)
            self._errors[key] = error if before is None else before + _LEARNING * (error - before)

    def candidates(
        self, layer: str, part: Part, known: Statistics, among: Sequence[Way], chosen: Way, rows: int, cost_us: float
    ) -> Iterable[Candidate]:
        """Yield the ways with their estimates, and of the one that was gone what it really took."""
        for way in among:
            expected, cost = estimate(part, way, known), self.corrected(part, way, known)
            if expected is None or cost is None:
                continue
            took = way == chosen
            yield Candidate(
                layer=layer,
                part=part,
                way=way,
                chosen=took,
                estimated_rows=expected.rows,
                estimated_us=cost,
                rows=rows if took else None,
                cost_us=cost_us if took else None,
            )
