"""LRU stack distances: how large a cache must be for a re-access to hit, for every access of a trace in one pass.

A cache of C entries that drops the least recently used one holds the C keys used last. So an access hits in every cache that
has more entries than its distance, the number of other keys used since its own last use (Mattson et al. 1970).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

NEVER = np.iinfo(np.int64).max
"""The distance of an access that no size makes a hit: the key is new, or a write made its answer stale."""

_IN_CACHE = 1 << 15  # elements of a part whose arrays stay in the processor's cache
_BLOCK = 256  # events told to all keys at once: the table of a block grows with its square, the number of blocks shrinks


def previous_accesses(keys: npt.NDArray[np.integer]) -> Ints:
    """Return for every access the position of the last one to the same key, -1 where there is none.

    >>> previous_accesses(np.array([7, 8, 7, 7])).tolist()
    [-1, -1, 0, 2]
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    again = ordered[1:] == ordered[:-1]
    before = np.full(len(keys), -1, dtype=np.int64)
    before[order[1:][again]] = order[:-1][again]
    return before


def stack_distances(keys: npt.NDArray[np.integer], stale_at: Ints | None = None) -> Ints:
    """Return for every access how many entries must be in an LRU cache beside its own for it to hit.

    A cache of C entries hits where the distance is below C.

    Args:
        keys: in order of access; (n,).
        stale_at: for every access, the position of the first access after the write that makes its answer stale; n or more where
            none does. A stale answer leaves its place free at once, as in `middleware.cache`.
    Returns:
        (n,) int64, `NEVER` where no size makes it a hit.
    Source: Mattson, Gecsei, Slutz, Traiger 1970, doi 10.1147/sj.92.0078.

    >>> stack_distances(np.array([1, 2, 3, 2, 1]))[3:].tolist()
    [1, 2]
    """
    before = previous_accesses(keys)
    if stale_at is not None:
        removed = _removals(before, stale_at)
        if len(removed[0]):
            return _with_removals(before, *removed)
    again = np.flatnonzero(before >= 0)
    distances = np.full(len(keys), NEVER, dtype=np.int64)
    # Between an access and the one before it to the same key, every key counts at its first use there: those uses, of all in
    # between, that do not themselves repeat a key from in between.
    repeats = _greater_before(before[again])
    distances[again] = again - before[again] - 1 - repeats
    return distances


def distinct_between(before: Ints, low: Ints, high: Ints) -> Ints:
    """Return how many keys are used in each range of positions, low <= position < high.

    Args:
        before: as of `previous_accesses`, of the trace that the ranges lie in.

    >>> distinct_between(previous_accesses(np.array([5, 6, 5, 5])), np.array([0, 2]), np.array([4, 4])).tolist()
    [2, 1]
    """
    # Uses that repeat a key of the range do not count: those before its end whose last use lies in it.
    points, ranges = len(before), len(low)
    in_time = np.argsort(np.concatenate([np.arange(points) * 2 + 1, high * 2]), kind="stable")
    by_value = np.argsort(np.concatenate([before * 2 + 1, low * 2]), kind="stable")
    rank = np.empty(points + ranges, dtype=np.int64)
    rank[by_value] = np.arange(points + ranges)
    greater = np.empty(points + ranges, dtype=np.int64)
    greater[in_time] = _greater_before(rank[in_time])
    in_time = in_time[in_time >= points]
    among_ranges = np.empty(ranges, dtype=np.int64)
    among_ranges[in_time - points] = _greater_before(rank[in_time])
    repeats: Ints = greater[points:] - among_ranges
    return high - low - repeats


def _greater_before(values: Ints) -> Ints:
    """Return for every one of distinct values how many greater ones stand before it.

    Sorts by one bit after the other, the highest first; whoever has 0 in a bit counts those with 1 before it among those that
    agree in all higher bits. Each pass is a few whole-array operations, and there are log2(n) of them.

    >>> _greater_before(np.array([3, 9, 4, 0])).tolist()
    [0, 0, 1, 3]
    """
    count = len(values)
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    # As ranks, those that agree in the higher bits lie side by side from a multiple of a power of two on.
    place = np.zeros(int(values.max()) + 1, dtype=np.int32)
    place[values] = 1
    ranks = np.cumsum(place, dtype=np.int32)[values] - np.int32(1)
    greater = np.zeros(count, dtype=np.int32)
    bits = max(count - 1, 1).bit_length()
    low = min(bits, _IN_CACHE.bit_length() - 1)
    for bit in range(bits - 1, low - 1, -1):
        ranks, greater = _split(ranks, greater, bit)
    for start in range(0, count, 1 << low):
        part, counted = ranks[start : start + (1 << low)] - np.int32(start), greater[start : start + (1 << low)]
        for bit in range(low - 1, -1, -1):
            part, counted = _split(part, counted, bit)
        greater[start : start + (1 << low)] = counted
    # Sorted now: the n-th is the n-th smallest.
    return greater[np.cumsum(place, dtype=np.int32)[values] - 1].astype(np.int64)


def _split(
    ranks: npt.NDArray[np.int32], greater: npt.NDArray[np.int32], bit: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Sort by one bit within those that agree in the higher ones, and count the ones before each zero."""
    is_one = (ranks >> np.int32(bit)) & np.int32(1)
    before = np.cumsum(is_one, dtype=np.int32)
    before -= is_one
    start = (ranks >> np.int32(bit + 1)) << np.int32(bit + 1)
    before -= before[start]
    zeros = is_one == 0
    greater = greater + np.where(zeros, before, 0)
    to = np.where(zeros, np.arange(len(ranks), dtype=np.int32) - before, start + np.int32(1 << bit) + before)
    sorted_ranks, sorted_greater = np.empty_like(ranks), np.empty_like(greater)
    sorted_ranks[to] = ranks
    sorted_greater[to] = greater
    return sorted_ranks, sorted_greater


def _removals(before: Ints, stale_at: Ints) -> tuple[Ints, Ints]:
    """Return what writes remove, in order of time: before which access, and the access whose answer it is."""
    count = len(before)
    until = np.full(count, count, dtype=np.int64)  # the next access to the same key
    again = np.flatnonzero(before >= 0)
    until[before[again]] = again
    removed = np.flatnonzero((stale_at <= until) & (stale_at < count))
    order = np.argsort(stale_at[removed], kind="stable")
    return stale_at[removed][order], removed[order]


def _with_removals(before: Ints, when: Ints, which: Ints) -> Ints:
    """Return stack distances where writes take keys out of the stack.

    A key moves down when something is put on top and no place above it is free, and never up. So it lies as deep as there were
    ever keys above it at once: the running maximum of `above`, the number of keys used after it that are still fresh. An access
    adds one to `above` of every key used since its own last use; a removal takes one off every key used before the removed one.
    A block of such events divides all waiting keys into few groups that are told the same.
    """
    count = len(before)
    distances = np.full(count, NEVER, dtype=np.int64)
    last = before.copy()  # -1 as well where the answer was removed in between
    fresh = np.ones(count, dtype=bool)
    fresh[which] = False
    again = np.flatnonzero(before >= 0)
    last[again[~fresh[before[again]]]] = -1
    # Events in time: a removal comes before the access that it names.
    at = np.concatenate([when * 2, np.arange(count) * 2 + 1])
    order = np.argsort(at, kind="stable")
    is_access = np.concatenate([np.zeros(len(when), dtype=bool), np.ones(count, dtype=bool)])[order]
    threshold = np.concatenate([which, last])[order]
    access = np.concatenate([np.full(len(when), -1), np.arange(count)])[order]
    gone = np.zeros(count, dtype=bool)
    waiting, above, deepest = (np.zeros(0, dtype=np.int64) for _ in range(3))
    for start in range(0, len(order), _BLOCK):
        block = slice(start, start + _BLOCK)
        added, limit, place = is_access[block], threshold[block], access[block]
        events = np.arange(len(limit))
        new = events[added]
        first = place[new[0]] if len(new) else count
        limits = np.unique(limit[limit < first])
        groups = np.concatenate([limits[:1] - 1, limits])
        rows = np.concatenate([groups, place[new]])
        change = np.where(added, rows[:, None] >= limit, -(rows[:, None] < limit).astype(np.int16)).astype(np.int16)
        change[len(groups) :][events <= new[:, None]] = 0  # not there yet
        sums = np.cumsum(change, axis=1, dtype=np.int16)
        highest = np.maximum.accumulate(sums, axis=1)

        asked = events[added & (limit >= 0)]
        if len(asked):
            key = limit[asked]
            old = key < first
            seen = np.zeros(len(asked), dtype=np.int64)
            index = np.searchsorted(waiting, key[old])
            row = np.where(old, np.searchsorted(limits, key, "right"), len(groups) + np.searchsorted(place[new], key))
            told = np.where(asked > 0, highest[row, asked - 1], 0)
            seen[old] = np.maximum(deepest[index], above[index] + told[old])
            seen[~old] = np.maximum(told[~old], 0)
            distances[place[asked]] = seen

        gone[limit[limit >= 0]] = True
        stays, joins = ~gone[waiting], ~gone[place[new]]
        if len(groups):
            sizes = np.diff(np.searchsorted(waiting, limits), prepend=0, append=len(waiting))
            np.maximum(deepest, above + np.repeat(highest[: len(groups), -1], sizes), out=deepest)
            above += np.repeat(sums[: len(groups), -1], sizes)
        added_rows = np.arange(len(groups), len(rows))[joins]
        waiting = np.concatenate([waiting[stays], place[new][joins]])
        above = np.concatenate([above[stays], sums[added_rows, -1]])
        deepest = np.concatenate([deepest[stays], np.maximum(highest[added_rows, -1], 0)])
    return distances
