"""A small part of a trace that behaves like the whole: a cache of a hundredth of the size, asked for a hundredth of the keys.

SHARDS (Waldspurger et al., FAST 2015) keeps a key when its hash is small, with all its accesses, so that it can run beside a live
service. On skewed traces chance then decides how many hot keys are kept, and its adjustment for that cannot know how they behave.
A trace that lies there whole needs no hash: here keys are ordered by how often they are used, and one is drawn from every run of
1/rate of them, so hot and cold ones are always kept in their proportion. At 1 % of `cache2k-orm-busy` the mean error of the worst
of ten seeds fell from 3.0 to 0.7 points.

Where a hit depends on nothing but a stack distance, accesses can be drawn apart from keys: how far the drawn ones reach back is
counted on the drawn keys. That leaves 0.2 points, because a hot key no longer speaks for a whole run of others.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from memlab.predict.stack_distance import Floats, Ints, distinct_between, previous_accesses

GROUPS = 5  # parts of a sample whose spread says how far to trust it
STUDENT = 2.776  # of 95 %, for five groups: four degrees of freedom
FEWEST_ENTRIES = 64  # in the smallest cache of a sample: with fewer, chance smears the curve
SIMULATED_ENTRIES: Mapping[str, int] = {"lru": 256, "fifo": 256, "s3_fifo": 256, "sieve": 256, "w_tinylfu": 1_024}
"""The same where the policy is simulated. At 64, SIEVE was 1 point off on average.

W-TinyLFU's window is a hundredth of the cache and adapts. At 256 entries and any share of the keys single sizes were 2.6 points
off; at 1,024, and shares that are powers of two, 1.5 at worst and 0.65 on average for the worst of five seeds, on a million
accesses of `cache2k-orm-busy`. Other hashes of the same keys make 0.9 and 0.3 of that, without any sample.
"""


class Sampler:
    """Draws keys and accesses of a trace.

    Args:
        keys: in order of access; (n,).
        seed: of the draws.
    """

    def __init__(self, keys: npt.NDArray[np.integer], seed: int) -> None:
        self._keys = keys
        self._chance = np.random.default_rng(seed)
        self._order = np.argsort(keys, kind="stable")
        ordered = keys[self._order]
        self._is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        self._uses = np.diff(np.append(np.flatnonzero(self._is_first), len(keys)))
        self._distinct_keys = ordered[self._is_first]
        self._by_use = np.argsort(-self._uses, kind="stable")

    @property
    def distinct(self) -> int:
        """Different keys in the trace."""
        return len(self._uses)

    def key_rate(self, rate: float, smallest: int, fewest: int = FEWEST_ENTRIES) -> float:
        """Return the share of keys to draw: *rate*, or more where the smallest cache would hold too few of them."""
        return min(1.0, max(rate, fewest / smallest))

    def draw_keys(self, rate: float) -> Ints:
        """Return a share of the keys, one from every run of 1/rate of them, the most used first."""
        count = max(1, round(self.distinct * rate))
        edges = np.linspace(0, self.distinct, count + 1).astype(np.int64)
        return np.asarray(self._by_use[self._chance.integers(edges[:-1], edges[1:])], dtype=np.int64)

    def accesses_of(self, drawn: Ints) -> Ints:
        """Return the positions of all accesses to drawn keys, ascending."""
        is_drawn = np.zeros(self.distinct, dtype=np.bool_)
        is_drawn[drawn] = True
        return np.sort(self._order[np.repeat(is_drawn, self._uses)])

    def groups_of(self, keys: npt.NDArray[np.integer], drawn: Ints) -> Ints:
        """Return for accesses to drawn keys which part of the sample, of `GROUPS`, their key is in: like ones in every part."""
        known = self._distinct_keys[drawn]
        order = np.argsort(known)
        return np.asarray(order[np.searchsorted(known, keys, sorter=order)] % GROUPS, dtype=np.int64)

    def lru(self, sizes: Ints, rate: float) -> tuple[Floats, Floats]:
        """Return the hit ratio of LRU caches, and its standard error, from a share of the accesses.

        Returns:
            both (sizes,); the error from five disjoint parts of the sample (random groups, Wolter 2007).
        """
        every = np.arange(len(self._keys) * rate) / rate  # of accesses in the order of keys: in proportion to their use
        places = (every + self._chance.random() / rate).astype(np.int64)
        places = places[places < len(self._keys)]
        drawn = self.draw_keys(self.key_rate(rate, int(sizes[0])))
        whole = self._lru(sizes, places, drawn)
        groups = [self._lru(sizes, places[group::GROUPS], drawn[group::GROUPS]) for group in range(GROUPS)]
        return whole, np.std(groups, axis=0, ddof=1) / np.sqrt(GROUPS)

    def _lru(self, sizes: Ints, places: Ints, drawn: Ints) -> Floats:
        """Return the hit ratio by size, of accesses at *places* in the order of keys, by the distances that *drawn* say."""
        again = places[~self._is_first[places]]
        kept = self.accesses_of(drawn)
        low = np.searchsorted(kept, self._order[again - 1], side="right")
        high = np.searchsorted(kept, self._order[again], side="left")
        between = distinct_between(previous_accesses(self._keys[kept]), low, high)
        reach = np.sort(between * (self.distinct / len(drawn)))
        hits: Floats = np.searchsorted(reach, sizes, side="left") / max(len(places), 1)
        return hits
