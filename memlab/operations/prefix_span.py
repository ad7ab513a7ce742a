"""PrefixSpan: which ordered sequences of items occur in many sequences.

Source: Pei, Han, Mortazavi-Asl, Pinto, Chen, Dayal, Hsu (2001), PrefixSpan: Mining Sequential Patterns Efficiently by
Prefix-Projected Pattern Growth, doi 10.1109/ICDE.2001.914830. Two additions: a bound on what may lie between two items
(the gap constraint of Pei, Han, Wang 2007, doi 10.1007/s10844-006-0006-z), and growth of the most frequent prefix first, so
that a bounded walk loses the rarest patterns alone. The library that is kept for this (prefixspan 0.5) has neither.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TypeAlias

Pattern: TypeAlias = tuple[str, ...]


def prefix_span(
    sequences: Sequence[Sequence[str]],
    min_support: int,
    max_length: int,
    *,
    max_gap: int | None = None,
    max_patterns: int = 100_000,
) -> tuple[list[tuple[Pattern, int]], bool]:
    """Return (pattern, support) of each frequent pattern, the most frequent first, and whether that is all of them.

    A sequence supports a pattern when the pattern's items occur in it in their order, however often.

    Args:
        min_support: in how many sequences a pattern must occur, >= 1.
        max_length: items of a pattern at most.
        max_gap: other items that may lie between two of a pattern at most; None for any number.
        max_patterns: patterns returned at most; what is left out is nowhere more frequent than what is returned.

    >>> prefix_span(["abc", "axc", "cab"], 2, 2)[0]
    [(('a',), 3), (('c',), 3), (('a', 'b'), 2), (('a', 'c'), 2), (('b',), 2)]
    """
    # A prefix and, by sequence, the places where an occurrence of it may end. With no bound on gaps the first one is enough.
    everywhere: dict[str, dict[int, list[int]]] = {}
    for number, sequence in enumerate(sequences):
        for place, item in enumerate(sequence):
            places = everywhere.setdefault(item, {}).setdefault(number, [])
            if max_gap is not None or not places:
                places.append(place)
    waiting: list[tuple[int, Pattern, dict[int, list[int]]]] = [
        (-len(ends), (item,), ends) for item, ends in everywhere.items() if len(ends) >= min_support
    ]
    heapq.heapify(waiting)
    found: list[tuple[Pattern, int]] = []
    while waiting and len(found) < max_patterns:
        support, prefix, ends = heapq.heappop(waiting)
        found.append((prefix, -support))
        if len(prefix) < max_length:
            for item, longer in _extensions(sequences, ends, max_gap).items():
                if len(longer) >= min_support:
                    heapq.heappush(waiting, (-len(longer), (*prefix, item), longer))
    return found, not waiting


def _extensions(
    sequences: Sequence[Sequence[str]], ends: dict[int, list[int]], max_gap: int | None
) -> dict[str, dict[int, list[int]]]:
    """Return, for each item that may come next, by sequence the places where the longer prefix may end."""
    grown: dict[str, dict[int, list[int]]] = {}
    for number, places in ends.items():
        sequence = sequences[number]
        if max_gap is None:
            seen: set[str] = set()
            for place in range(places[0] + 1, len(sequence)):
                if sequence[place] not in seen:
                    seen.add(sequence[place])
                    grown.setdefault(sequence[place], {})[number] = [place]
            continue
        reachable = sorted({next_ for place in places for next_ in range(place + 1, min(place + max_gap + 2, len(sequence)))})
        for place in reachable:
            grown.setdefault(sequence[place], {}).setdefault(number, []).append(place)
    return grown


def closed(patterns: Sequence[tuple[Pattern, int]]) -> list[tuple[Pattern, int]]:
    """Return the patterns that no other, longer by one item and as frequent, contains; in the order given.

    With no bound on gaps these are the closed patterns among those no longer than the longest given: every pattern between
    two as frequent ones is as frequent as they are.

    >>> closed([(("a",), 2), (("b",), 3), (("a", "b"), 2)])
    [(('b',), 3), (('a', 'b'), 2)]
    """
    support = dict(patterns)
    covered = {
        shorter
        for pattern, count in patterns
        for place in range(len(pattern))
        if support.get(shorter := pattern[:place] + pattern[place + 1 :]) == count
    }
    return [(pattern, count) for pattern, count in patterns if pattern not in covered]
