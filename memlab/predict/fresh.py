"""What a time to live takes from an LRU cache: an answer grows old from when it was fetched, and that depends on the size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memlab.predict.stack_distance import Ints

Hits = npt.NDArray[np.bool_]


class Ageing:
    """Which accesses hit in an LRU cache whose answers grow old.

    A hit does not make an answer younger: it is fetched at a miss and served until its time has passed. Whatever the size, the
    first access to its key after that is a miss; so it is looked up once, and each size follows these links from its own misses.

    Args:
        keys: in order of access; (n,).
        at_ns: when each came, ascending; (n,).
        ttl_ns: an answer is served while it is younger; one for all, or (n,).
    """

    def __init__(self, keys: npt.NDArray[np.integer], at_ns: Ints, ttl_ns: int | Ints) -> None:
        count = len(keys)
        self._order = np.argsort(keys, kind="stable")
        ordered = keys[self._order]
        key = np.cumsum(np.concatenate([[0], ordered[1:] != ordered[:-1]]), dtype=np.int64)
        too_old = np.searchsorted(at_ns, at_ns + ttl_ns, side="left")[self._order]
        # By key, then time, as one ascending number.
        self._next: Ints = np.searchsorted(key * (count + 1) + self._order, key * (count + 1) + too_old)

    def hits(self, distances: npt.NDArray[np.integer] | npt.NDArray[np.float64], max_entries: float) -> Hits:
        """Return which accesses hit where *max_entries* are kept; *distances* are of `stack_distances`."""
        missed = distances[self._order] >= max_entries
        misses = np.flatnonzero(missed)
        fetched = misses
        until = np.append(misses[1:], len(missed))  # the next miss that age has no part in
        while len(fetched):
            fetched = self._next[fetched]
            aged = fetched < until
            fetched, until = fetched[aged], until[aged]
            missed[fetched] = True
        hits = np.empty(len(missed), dtype=np.bool_)
        hits[self._order] = ~missed
        return hits
