"""Which question is asked next: a few are asked again and again."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Items: TypeAlias = npt.NDArray[np.int64]


class Popularity(Protocol):
    """Chooses among numbered items."""

    def draw(self, count: int, chance: np.random.Generator) -> Items:
        """Return the next *count* choices."""
        ...


class Zipf:
    """The item of rank r is chosen with probability proportional to 1 / r^exponent.

    Args:
        items: how many there are.
        exponent: 0 makes all alike popular; what people ask a memory again is about 0.7 to 1.2.
        seed: shuffles which items are the popular ones.
    """

    def __init__(self, items: int, exponent: float, seed: int) -> None:
        weights = np.arange(1, items + 1, dtype=np.float64) ** -exponent
        self._reached = np.cumsum(weights) / weights.sum()
        self._ranked = np.random.default_rng(seed).permutation(items)

    def draw(self, count: int, chance: np.random.Generator) -> Items:
        """Return *count* independent choices."""
        rank = np.searchsorted(self._reached, chance.random(count), side="right")
        return np.asarray(self._ranked[np.minimum(rank, len(self._ranked) - 1)], dtype=np.int64)


class Replayed:
    """Accesses in the order of a recorded trace, from a random place on and round its end.

    Args:
        keys: as recorded; the n-th new key becomes item n, modulo *items*.
        items: how many there are.
    """

    def __init__(self, keys: npt.NDArray[np.integer], items: int) -> None:
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        order = np.empty(len(first), dtype=np.int64)
        order[np.argsort(first)] = np.arange(len(first))
        self._items = order[inverse] % items

    def draw(self, count: int, chance: np.random.Generator) -> Items:
        """Return *count* choices in the trace's order."""
        start = int(chance.integers(len(self._items)))
        return self._items[(start + np.arange(count)) % len(self._items)]
