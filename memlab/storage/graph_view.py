"""The graph of one session at one moment: who is related to whom, in arrays, and how to walk it."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import igraph

SEED = 20191
DAMPING = 0.85
EXACT_WORK = 10_000_000  # entities times (entities and relationships) up to which betweenness is exact
SAMPLED_WORK = 2_500_000  # the same for the sources that are sampled above that
KEPT_RESOLUTIONS = 4
_ONE_AT_A_TIME = threading.Lock()  # igraph has one generator of random numbers for all


class GraphView:
    """The graph of one session at one moment. Entities and relationships are numbers here, *places*.

    Attributes:
        entities, relationships: how many there are.
    """

    def __init__(
        self,
        entity_ids: Sequence[str],
        places: dict[str, int],
        alive: np.ndarray,
        relationship_ids: Sequence[str],
        kept: np.ndarray,
        source: np.ndarray,
        target: np.ndarray,
        strength: np.ndarray,
    ) -> None:
        self._entity_ids = entity_ids
        self._places = places
        self._alive = alive
        self._relationship_ids = relationship_ids
        self._kept = kept
        self._source = source
        self._target = target
        self._strength = strength
        self.entities = int(alive.sum())
        self.relationships = len(kept)
        self._outgoing = _Bundles(source, len(alive))
        self._incoming = _Bundles(target, len(alive))
        self._calculating = threading.Lock()
        self._communities: dict[float, np.ndarray] = {}

    def place(self, id: str) -> int | None:
        """Return the place of an entity; None where it is not in this graph."""
        place = self._places.get(id)
        return place if place is not None and place < len(self._alive) and self._alive[place] else None

    def entity_ids(self, places: Iterable[int]) -> tuple[str, ...]:
        """Return the ids of entities."""
        return tuple(self._entity_ids[place] for place in places)

    def relationship_ids(self, places: Iterable[int]) -> tuple[str, ...]:
        """Return the ids of relationships."""
        return tuple(self._relationship_ids[self._kept[place]] for place in places)

    # --- walking --------------------------------------------------------------------------------------------------------

    def path(
        self, source: int, target: int, max_hops: int, *, weighted: bool = False, directed: bool = True
    ) -> tuple[list[int], list[int], float] | None:
        """Return (places of entities, places of relationships, cost) of the cheapest path of at most *max_hops*, or None.

        A relationship costs 1 or, *weighted*, 1 / strength. Of equally cheap paths one of the fewest hops is taken, then the
        one whose relationships were stored first, seen from the target. In rounds of one hop from whatever the last round
        has brought nearer, so that the bound on hops holds: an unweighted path is found breadth first, a weighted one as
        Bellman, On a routing problem (1958), finds it; Dijkstra's algorithm knows no such bound.
        """
        costs = np.zeros(len(self._alive)) + np.inf
        costs[source] = 0.0
        rounds = [costs]
        reached = np.array([source])
        price = 1.0 / self._strength if weighted else np.ones(self.relationships)
        while len(rounds) <= max_hops and len(reached) and (weighted or not np.isfinite(costs[target])):
            before, costs = costs, costs.copy()
            for bundles, start, end in self._ways(directed):
                taken = bundles.of(reached)
                np.minimum.at(costs, end[taken], before[start[taken]] + price[taken])
            nearer = np.flatnonzero(costs < before)
            reached = nearer[costs[nearer] < costs[target]]  # what is no nearer than the target leads to it no cheaper
            rounds.append(costs)
        if not np.isfinite(costs[target]):
            return None
        return self._back(source, target, rounds, price, directed)

    def _back(
        self, source: int, target: int, rounds: list[np.ndarray], price: np.ndarray, directed: bool
    ) -> tuple[list[int], list[int], float]:
        """Follow a path from its target to its source, through the rounds in which its costs came about."""
        left, place = len(rounds) - 1, target
        entities, relationships = [target], []
        while place != source:
            while rounds[left - 1][place] == rounds[left][place]:
                left -= 1
            candidates: list[tuple[int, int]] = []
            for bundles, start, end in self._ways(directed):
                arriving = (self._incoming if bundles is self._outgoing else self._outgoing).of(np.array([place]))
                fits = rounds[left - 1][start[arriving]] + price[arriving] == rounds[left][end[arriving]]
                candidates += [(int(one), int(start[one])) for one in arriving[fits][:1]]
            relationship, place = min(candidates)
            entities.append(place)
            relationships.append(relationship)
            left -= 1
        return entities[::-1], relationships[::-1], float(rounds[-1][target])

    def _ways(self, directed: bool) -> list[tuple[_Bundles, np.ndarray, np.ndarray]]:
        """Return for each direction in which relationships are walked: those at an entity, where they start and end."""
        along = (self._outgoing, self._source, self._target)
        return [along] if directed else [along, (self._incoming, self._target, self._source)]

    def around(self, centre: int, hops: int, limit: int) -> tuple[list[tuple[int, int]], bool]:
        """Return ((place, hops away) of the entities nearest to one, itself first; whether that is all of them).

        Relationships are walked in both directions; entities equally far away are in the order in which they were stored.
        """
        distance = np.zeros(len(self._alive), np.int64) - 1
        distance[centre] = 0
        found = [(centre, 0)]
        reached = np.array([centre])
        for away in range(1, hops + 1):
            both = np.concatenate([end[bundles.of(reached)] for bundles, _, end in self._ways(directed=False)])
            reached = np.unique(both[distance[both] < 0])
            if not len(reached):
                break
            distance[reached] = away
            found += [(place, away) for place in reached[: limit + 1].tolist()]
            if len(found) > limit:
                return found[:limit], False
        return found, True

    def among(self, places: Sequence[int], limit: int) -> tuple[list[int], bool]:
        """Return (the first *limit* relationships between these entities; whether that is all of them)."""
        inside = np.zeros(len(self._alive), np.bool_)
        inside[list(places)] = True
        leaving = self._outgoing.of(np.array(places, np.int64))
        found = np.sort(leaving[inside[self._target[leaving]]])
        return found[:limit].tolist(), len(found) <= limit

    # --- figures --------------------------------------------------------------------------------------------------------

    def degrees(self, place: int) -> tuple[int, int]:
        """Return (relationships that arrive at an entity, relationships that leave it)."""
        one = np.array([place])
        return len(self._incoming.of(one)), len(self._outgoing.of(one))

    def strengths(self) -> np.ndarray:
        """Return the summed strength of all relationships of each entity, by place."""
        size = len(self._alive)
        leaving = np.bincount(self._source, self._strength, size)
        return leaving + np.bincount(self._target, self._strength, size)

    def page_ranks(self) -> np.ndarray:
        """Return the PageRank of each entity by place, 0 where there is none; together 1. Source: Page et al. 1999.

        Relationships are followed in proportion to their strengths, damping 0.85.
        """
        with self._calculating:
            return self._page_ranks

    def betweenness(self) -> tuple[np.ndarray, int]:
        """Return (the betweenness of each entity by place, from how many sources).

        The share, in [0, 1], of the directed shortest paths between two other entities that lead through it, averaged over
        all pairs. Exact in small graphs (Brandes 2001); in others from paths that begin at sources drawn at random with a
        fixed seed (Brandes, Pich 2007).
        """
        with self._calculating:
            return self._betweenness

    def communities(self, resolution: float) -> np.ndarray:
        """Return the community of each entity by place, -1 where there is none; 0 is the largest.

        Leiden with modularity over strengths (Traag, Waltman, van Eck 2019); directions and what relates an entity to itself
        are left aside. The seed is fixed, so that the same graph always falls into the same communities.
        """
        with self._calculating:
            known = self._communities.get(resolution)
            if known is None:
                if len(self._communities) >= KEPT_RESOLUTIONS:
                    self._communities.clear()
                known = self._communities[resolution] = self._leiden(resolution)
            return known

    def inside(self, labels: np.ndarray, count: int) -> np.ndarray:
        """Return how many relationships have both ends in each of *count* communities."""
        within = labels[self._source]
        return np.bincount(within[within == labels[self._target]], minlength=count)

    @cached_property
    def _living(self) -> np.ndarray:
        return np.flatnonzero(self._alive)

    @cached_property
    def _igraph(self) -> igraph.Graph:
        import igraph

        number = np.cumsum(self._alive) - 1
        ends = np.stack([number[self._source], number[self._target]], axis=1)
        return igraph.Graph(n=self.entities, edges=ends, directed=True)

    @cached_property
    def _page_ranks(self) -> np.ndarray:
        ranks = np.zeros(len(self._alive))
        if self.entities:
            ranks[self._living] = self._igraph.pagerank(damping=DAMPING, weights=self._strength.tolist())
        return ranks

    @cached_property
    def _betweenness(self) -> tuple[np.ndarray, int]:
        count = self.entities
        shares = np.zeros(len(self._alive))
        if count < 3:
            return shares, count
        size = count + self.relationships
        if count * size <= EXACT_WORK:
            sources = list(range(count))
        else:
            sources = sorted(random.Random(SEED).sample(range(count), max(1, SAMPLED_WORK // size)))
        through = np.array(self._igraph.betweenness(sources=sources))
        shares[self._living] = np.clip(through / len(sources) * count / ((count - 1) * (count - 2)), 0.0, 1.0)
        return shares, len(sources)

    def _leiden(self, resolution: float) -> np.ndarray:
        import igraph

        communities = np.zeros(len(self._alive), np.int64) - 1
        if not self.entities:
            return communities
        others = np.flatnonzero(self._source != self._target)
        undirected = self._igraph.subgraph_edges(others.tolist(), delete_vertices=False).as_undirected(mode="each")
        with _ONE_AT_A_TIME:
            igraph.set_random_number_generator(random.Random(SEED))
            try:
                found = undirected.community_leiden(
                    objective_function="modularity", weights=self._strength[others].tolist(), resolution=resolution
                )
            finally:
                igraph.set_random_number_generator(random)
        labels = np.array(found.membership)
        _, first, sizes = np.unique(labels, return_index=True, return_counts=True)
        rank = np.empty(len(sizes), np.int64)
        rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
        communities[self._living] = rank[labels]
        return communities


class _Bundles:
    """The relationships at one end of each entity."""

    def __init__(self, ends: np.ndarray, size: int) -> None:
        # Sorting numbers that hold end and relationship is several times faster than a stable argsort of the ends.
        count = max(len(ends), 1)
        self._order = np.sort(ends * count + np.arange(len(ends))) % count
        self._starts = np.zeros(size + 1, np.int64)
        np.cumsum(np.bincount(ends, minlength=size), out=self._starts[1:])

    def of(self, places: np.ndarray) -> np.ndarray:
        """Return the relationships of these entities; those of one in ascending order."""
        starts = self._starts[places]
        sizes = self._starts[places + 1] - starts
        total = int(sizes.sum())
        offsets = np.repeat(starts - np.cumsum(sizes) + sizes, sizes)
        found: np.ndarray = self._order[offsets + np.arange(total)]
        return found


def sampling_error(sources: int, count: int) -> float:
    """Return how far a betweenness from so many sources is off at most, 19 times of 20; 0 where every entity is one.

    The mean of *sources* values in [0, 1] lies within sqrt(ln 40 / (2 sources)) of that over all (Hoeffding 1963).
    """
    return 0.0 if sources >= count else min(1.0, math.sqrt(math.log(40.0) / (2 * sources)))
