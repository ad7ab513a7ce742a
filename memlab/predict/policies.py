"""Replays of one cache of one size: which accesses hit under a policy for which no stack distance exists.

Each takes keys numbered from 0 and a size, and returns a byte for every access, 1 where it hits. Lists indexed by key stand where
a library would have a hash table and nodes: these loops run once for every size that is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from theine_core import TlfuCore, spread

from memlab.middleware.cache import TOUCHES

Policy: TypeAlias = Literal["lru", "fifo", "s3_fifo", "sieve", "w_tinylfu"]
Hits: TypeAlias = npt.NDArray[np.bool_]

POLICIES: tuple[Policy, ...] = get_args(Policy)


def replay(keys: npt.NDArray[np.int64], distinct: int, policy: Policy, max_entries: int, *, scale: float = 1.0) -> Hits:
    """Return which accesses hit in a cache of *max_entries* that starts empty.

    Args:
        keys: in order of access, each in [0, distinct).
        policy: any but lru, which has stack distances.
        scale: of a miniature simulation: how large its cache is beside the real one.
    """
    if policy == "w_tinylfu":
        hits = _w_tinylfu(keys, max_entries, max(1, round(TOUCHES * scale)))
    else:
        hits = _REPLAYS[policy](keys.tolist(), distinct, max_entries)
    return np.frombuffer(hits, dtype=np.bool_)


def _fifo(keys: list[int], distinct: int, max_entries: int) -> bytearray:
    """First in, first out."""
    kept = bytearray(distinct)
    queue: deque[int] = deque()
    hits = bytearray(len(keys))
    for position, key in enumerate(keys):
        if kept[key]:
            hits[position] = 1
            continue
        if len(queue) >= max_entries:
            kept[queue.popleft()] = 0
        queue.append(key)
        kept[key] = 1
    return hits


def _sieve(keys: list[int], distinct: int, max_entries: int) -> bytearray:
    """SIEVE (Zhang et al., NSDI 2024): a queue whose hand walks from the tail, spares what was used again, and stays there."""
    kept = bytearray(distinct)
    visited = bytearray(distinct)
    # The queue is a ring through `end`: end -> newest -> … -> oldest -> end.
    end = distinct
    older, newer = [end] * (distinct + 1), [end] * (distinct + 1)
    hand = end
    room = max_entries
    hits = bytearray(len(keys))
    for position, key in enumerate(keys):
        if kept[key]:
            hits[position] = visited[key] = 1
            continue
        if room:
            room -= 1
        else:
            if hand == end:
                hand = newer[end]
            while visited[hand]:
                visited[hand] = 0
                hand = newer[hand]
                if hand == end:
                    hand = newer[end]
            victim, hand = hand, newer[hand]
            kept[victim] = 0
            older[hand], newer[older[victim]] = older[victim], hand
        head = older[end]
        older[key], newer[key] = head, end
        newer[head] = older[end] = key
        kept[key] = 1
        visited[key] = 0
    return hits


_SMALL_SHARE = 10  # S3-FIFO's small queue holds a tenth
_MOST_USES = 3


def _s3_fifo(keys: list[int], distinct: int, max_entries: int) -> bytearray:
    """S3-FIFO (Yang et al., SOSP 2023): new keys pass a small queue, and those used again reach the main one.

    A key that left the small queue unused is remembered without its answer, as many as the main queue holds; when it comes back,
    it enters the main queue.
    """
    small_size = max(1, max_entries // _SMALL_SHARE)
    main_size = max(1, max_entries - small_size)
    kept = bytearray(distinct)
    uses = bytearray(distinct)
    ghost_number = [0] * distinct  # which entry of the ghost queue is a key's own; 0 for none
    small: deque[int] = deque()
    main: deque[int] = deque()
    left = 0  # keys that left the small queue so far: the ghosts are the last `main_size` of them
    hits = bytearray(len(keys))
    for position, key in enumerate(keys):
        if kept[key]:
            hits[position] = 1
            if uses[key] < _MOST_USES:
                uses[key] += 1
            continue
        while len(small) + len(main) >= max_entries:
            if len(small) >= small_size or not main:
                candidate = small.popleft()
                if uses[candidate] > 1:
                    uses[candidate] = 0
                    main.append(candidate)
                    if len(main) <= main_size:
                        continue
                else:
                    kept[candidate] = 0
                    left += 1
                    ghost_number[candidate] = left
                    continue
            while True:
                candidate = main.popleft()
                if not uses[candidate]:
                    break
                uses[candidate] -= 1
                main.append(candidate)
            kept[candidate] = 0
        if ghost_number[key] and ghost_number[key] > left - main_size:
            main.append(key)
        else:
            small.append(key)
        ghost_number[key] = 0
        kept[key] = 1
        uses[key] = 0
    return hits


def _w_tinylfu(keys: npt.NDArray[np.int64], max_entries: int, touches: int) -> bytearray:
    """W-TinyLFU (Einziger, Friedman, Manes 2017) by the compiled policy that the cache uses, in the way that the cache uses it.

    Args:
        touches: hits gathered before the policy hears of them.
    """
    core = TlfuCore(max_entries)
    numbers = [spread(key) for key in range(int(keys.max(initial=-1)) + 1)]
    key_of = {number: key for key, number in enumerate(numbers)}
    kept = bytearray(len(numbers))
    heard: list[int] = []
    hits = bytearray(len(keys))
    for position, key in enumerate(keys.tolist()):
        if kept[key]:
            hits[position] = 1
            heard.append(numbers[key])
            if len(heard) >= touches:
                core.access(heard)
                heard = []
            continue
        if heard:
            core.access(heard)
            heard = []
        kept[key] = 1
        for loser in core.set([(numbers[key], 0)]):
            kept[key_of[loser]] = 0
    return hits


_REPLAYS: dict[Policy, Callable[[list[int], int, int], bytearray]] = {"fifo": _fifo, "s3_fifo": _s3_fifo, "sieve": _sieve}
