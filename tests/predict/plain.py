"""Replays in which nothing is clever: what the models of memlab/predict are held against."""

from collections import OrderedDict


def lru(keys, size, *, at=None, ttl=None, stale_at=None):
    """Least recently used; `ttl` from when it was fetched; a write at a position comes before the access there."""
    kept = OrderedDict()
    hits = []
    writes = {}
    for position, key in enumerate(keys):
        for access in writes.pop(position, ()):
            if key_of_last(kept, keys[access]) == access:
                del kept[keys[access]]
        now = 0 if at is None else at[position]
        hit = key in kept and (ttl is None or now < kept[key][1] + ttl)
        hits.append(hit)
        fetched = kept.pop(key)[1] if hit else now
        kept.pop(key, None)
        kept[key] = (position, fetched)
        if len(kept) > size:
            kept.popitem(last=False)
        if stale_at is not None:
            writes.setdefault(stale_at[position], []).append(position)
    return hits


def key_of_last(kept, key):
    return kept[key][0] if key in kept else None


class Ending:
    """Which keys leave before an access: written since they were fetched, or asked for when they are too old."""

    def __init__(self, keys, at=None, ttl=None, stale_at=None):
        self._keys, self._at, self._ttl = keys, at, ttl
        self._written = [(when, key) for when, key in zip(stale_at, keys, strict=True)] if stale_at is not None else []
        self._fetched = {}

    def fetch(self, position):
        self._fetched[self._keys[position]] = position

    def leaving(self, position, kept):
        leave = {key for when, key in self._written if when == position} & set(kept)
        key = self._keys[position]
        if self._ttl is not None and key in kept and self._at[position] >= self._at[self._fetched[key]] + self._ttl:
            leave.add(key)
        return leave


def fifo(keys, size, **ends):
    """First in, first out."""
    kept, hits, ending = [], [], Ending(keys, **ends)
    for position, key in enumerate(keys):
        leave = ending.leaving(position, kept)
        kept = [one for one in kept if one not in leave]
        hits.append(key in kept)
        if key not in kept:
            ending.fetch(position)
            kept = [*kept[-(size - 1) :], key] if size > 1 else [key]
    return hits


def sieve(keys, size, **ends):
    """As figure 3 of the paper has it: newest first in a list, the hand is a key or None."""
    queue, visited, hand, hits, ending = [], {}, None, [], Ending(keys, **ends)
    for position, key in enumerate(keys):
        for gone in ending.leaving(position, queue):
            place = queue.index(gone)
            if hand == gone:
                hand = queue[place - 1] if place > 0 else None
            del visited[queue.pop(place)]
        hits.append(key in visited)
        if key in visited:
            visited[key] = True
            continue
        if len(queue) == size:
            place = len(queue) - 1 if hand is None else queue.index(hand)
            while visited[queue[place]]:
                visited[queue[place]] = False
                place = place - 1 if place > 0 else len(queue) - 1
            hand = queue[place - 1] if place > 0 else None
            del visited[queue.pop(place)]
        queue.insert(0, key)
        visited[key] = False
        ending.fetch(position)
    return hits


def s3_fifo(keys, size, **ends):
    """As algorithm 1 of the paper has it; ghosts are the last departures from the small queue, as many as the main one holds."""
    small_size = max(1, size // 10)
    main_size = max(1, size - small_size)
    small, main, ghosts, uses, hits, ending = [], [], [], {}, [], Ending(keys, **ends)

    def evict_from_main():
        while True:
            key = main.pop(0)
            if uses[key] == 0:
                del uses[key]
                return
            uses[key] -= 1
            main.append(key)

    def evict_from_small():
        while small:
            key = small.pop(0)
            if uses[key] > 1:
                uses[key] = 0
                main.append(key)
                if len(main) > main_size:
                    evict_from_main()
                    return
            else:
                del uses[key]
                ghosts.append(key)
                return

    for position, key in enumerate(keys):
        for gone in ending.leaving(position, uses):
            (small if gone in small else main).remove(gone)
            del uses[gone]
        hits.append(key in uses)
        if key in uses:
            uses[key] = min(uses[key] + 1, 3)
            continue
        while len(small) + len(main) >= size:
            if len(small) >= small_size or not main:
                evict_from_small()
            else:
                evict_from_main()
        recent = ghosts[-main_size:]
        if key in recent:
            main.append(key)
            ghosts[:] = [None if ghost == key else ghost for ghost in ghosts]
        else:
            small.append(key)
        uses[key] = 0
        ending.fetch(position)
    return hits
