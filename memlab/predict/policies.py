"""Replays of one cache of one size: which accesses hit under a policy for which no stack distance exists.

Each takes keys numbered from 0, a size and what ends answers early, and returns a byte for every access, 1 where it hits. Lists
indexed by key stand where a library would have a hash table and nodes: these loops run once for every size that is asked for. A
queue holds positions of the accesses that fetched; one whose key was fetched again since, or is gone, is passed over.

As in `middleware.cache`, an answer that a write made stale leaves its place free at once; one that grew old keeps it until it is
asked for, and is then fetched as if it were new.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from theine_core import TlfuCore, spread

from memlab.middleware.cache import TOUCHES
from memlab.predict.stack_distance import Ints

Policy: TypeAlias = Literal["lru", "fifo", "s3_fifo", "sieve", "w_tinylfu"]
Hits: TypeAlias = npt.NDArray[np.bool_]

POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclasses.dataclass(frozen=True)
class Endings:
    """What ends answers before they are evicted.

    Attributes:
        removed: keys whose answers leave before the access at a position; nothing where that is never so.
        too_old: by the access that fetched, the first position at which its answer is too old; None where answers do not age.
    """

    removed: Mapping[int, Sequence[int]] = dataclasses.field(default_factory=dict)
    too_old: Sequence[int] | None = None

    @classmethod
    def of(cls, keys: Ints, at_ns: Ints | None, stale_at: Ints | None, ttl_ns: Ints | None) -> Endings:
        """Return the endings of a trace; arguments as `miss_ratio.Accesses` has them, keys numbered."""
        removed: dict[int, list[int]] = {}
        if stale_at is not None:
            known = stale_at < len(keys)
            for position, key in sorted(set(zip(stale_at[known].tolist(), keys[known].tolist(), strict=True))):
                removed.setdefault(position, []).append(key)
        if ttl_ns is None or at_ns is None:
            return cls(removed)
        return cls(removed, np.searchsorted(at_ns, at_ns + ttl_ns, side="left").tolist())

    @property
    def any(self) -> bool:
        """Whether any answer may end."""
        return bool(self.removed) or self.too_old is not None

    def leave(self, position: int, key: int, fetched: list[int]) -> list[int]:
        """Return the keys whose answers end before the access at *position*, which asks for *key*.

        Args:
            fetched: by key, the access that fetched its answer, -1 where none is held; what leaves becomes -1.
        """
        left = [one for one in self.removed.get(position, ()) if fetched[one] >= 0]
        for one in left:
            fetched[one] = -1
        since = fetched[key]
        if self.too_old is not None and since >= 0 and position >= self.too_old[since]:
            fetched[key] = -1
            left.append(key)
        return left


NONE = Endings()


def replay(keys: Ints, distinct: int, policy: Policy, max_entries: int, *, endings: Endings = NONE, scale: float = 1.0) -> Hits:
    """Return which accesses hit in a cache of *max_entries* that starts empty.

    Args:
        keys: in order of access, each in [0, distinct).
        policy: any but lru, which has stack distances.
        endings: what makes answers end before they are evicted.
        scale: of a miniature simulation: how large its cache is beside the real one.
    """
    if policy == "w_tinylfu":
        hits = _w_tinylfu(keys, max_entries, endings, max(1, round(TOUCHES * scale)))
    else:
        hits = _REPLAYS[policy](keys.tolist(), distinct, max_entries, endings)
    return np.frombuffer(hits, dtype=np.bool_)


def _fifo(keys: list[int], distinct: int, max_entries: int, endings: Endings) -> bytearray:
    """First in, first out."""
    removed, too_old = endings.removed, endings.too_old
    fetched = [-1] * distinct
    queue: deque[int] = deque()
    held = 0
    hits = bytearray(len(keys))
    for position, key in enumerate(keys):
        if removed and position in removed:
            for gone in removed[position]:
                held -= fetched[gone] >= 0
                fetched[gone] = -1
        since = fetched[key]
        if since >= 0:
            if too_old is None or position < too_old[since]:
                hits[position] = 1
                continue
            held -= 1
        fetched[key] = -1
        while held >= max_entries:
            oldest = queue.popleft()
            if fetched[keys[oldest]] == oldest:
                fetched[keys[oldest]] = -1
                held -= 1
        queue.append(position)
        fetched[key] = position
        held += 1
    return hits


def _sieve(keys: list[int], distinct: int, max_entries: int, endings: Endings) -> bytearray:
    """SIEVE (Zhang et al., NSDI 2024): a queue whose hand walks from the tail, spares what was used again, and stays there."""
    ends = endings.any
    fetched = [-1] * distinct
    visited = bytearray(distinct)
    # The queue is a ring through `end`: end -> newest -> … -> oldest -> end.
    end = distinct
    older, newer = [end] * (distinct + 1), [end] * (distinct + 1)
    hand = end
    room = max_entries
    hits = bytearray(len(keys))
    for position, key in enumerate(keys):
        for gone in endings.leave(position, key, fetched) if ends else ():
            room += 1
            if hand == gone:
                hand = newer[gone]
            older[newer[gone]], newer[older[gone]] = older[gone], newer[gone]
        if fetched[key] >= 0:
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
            fetched[victim] = -1
            older[hand], newer[older[victim]] = older[victim], hand
        head = older[end]
        older[key], newer[key] = head, end
        newer[head] = older[end] = key
        fetched[key] = position
        visited[key] = 0
    return hits


_SMALL_SHARE = 10  # S3-FIFO's small queue holds a tenth
_MOST_USES = 3


def _s3_fifo(keys: list[int], distinct: int, max_entries: int, endings: Endings) -> bytearray:
    """S3-FIFO (Yang et al., SOSP 2023): new keys pass a small queue, and those used again reach the main one.

    A key that left the small queue unused is remembered without its answer, as many as the main queue holds; when it comes back,
    it enters the main queue.
    """
    ends = endings.any
    small_size = max(1, max_entries // _SMALL_SHARE)
    main_size = max(1, max_entries - small_size)
    fetched = [-1] * distinct
    is_main = bytearray(distinct)
    uses = bytearray(distinct)
    ghost_number = [0] * distinct  # which entry of the ghost queue is a key's own; 0 for none
    small: deque[int] = deque()
    main: deque[int] = deque()
    in_small = in_main = 0
    left = 0  # keys that left the small queue so far: the ghosts are the last `main_size` of them
    hits = bytearray(len(keys))
    for position, key in enumerate(keys):
        for gone in endings.leave(position, key, fetched) if ends else ():
            in_main -= is_main[gone]
            in_small -= not is_main[gone]
        if fetched[key] >= 0:
            hits[position] = 1
            if uses[key] < _MOST_USES:
                uses[key] += 1
            continue
        while in_small + in_main >= max_entries:
            if in_small and (in_small >= small_size or not in_main):
                moment = small.popleft()
                candidate = keys[moment]
                if fetched[candidate] != moment:
                    continue
                in_small -= 1
                if uses[candidate] > 1:
                    uses[candidate] = 0
                    main.append(moment)
                    is_main[candidate] = 1
                    in_main += 1
                    if in_main <= main_size:
                        continue
                else:
                    fetched[candidate] = -1
                    left += 1
                    ghost_number[candidate] = left
                    continue
            while True:
                moment = main.popleft()
                candidate = keys[moment]
                if fetched[candidate] != moment:
                    continue
                if not uses[candidate]:
                    break
                uses[candidate] -= 1
                main.append(moment)
            fetched[candidate] = -1
            in_main -= 1
        if ghost_number[key] and ghost_number[key] > left - main_size:
            main.append(position)
            is_main[key] = 1
            in_main += 1
        else:
            small.append(position)
            is_main[key] = 0
            in_small += 1
        ghost_number[key] = 0
        fetched[key] = position
        uses[key] = 0
    return hits


def _w_tinylfu(keys: Ints, max_entries: int, endings: Endings, touches: int) -> bytearray:
    """W-TinyLFU (Einziger, Friedman, Manes 2017) by the compiled policy that the cache uses, in the way that the cache uses it.

    Args:
        touches: hits gathered before the policy hears of them.
    """
    ends = endings.any
    core = TlfuCore(max_entries)
    numbers = [spread(key) for key in range(int(keys.max(initial=-1)) + 1)]
    key_of = {number: key for key, number in enumerate(numbers)}
    fetched = [-1] * len(numbers)
    heard: list[int] = []
    hits = bytearray(len(keys))
    for position, key in enumerate(keys.tolist()):
        for gone in endings.leave(position, key, fetched) if ends else ():
            core.remove(numbers[gone])
        if fetched[key] >= 0:
            hits[position] = 1
            heard.append(numbers[key])
            if len(heard) >= touches:
                core.access(heard)
                heard = []
            continue
        if heard:
            core.access(heard)
            heard = []
        fetched[key] = position
        for loser in core.set([(numbers[key], 0)]):
            fetched[key_of[loser]] = -1
    return hits


_REPLAYS: dict[Policy, Callable[[list[int], int, int, Endings], bytearray]] = {
    "fifo": _fifo,
    "s3_fifo": _s3_fifo,
    "sieve": _sieve,
}
