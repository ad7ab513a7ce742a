"""Which share of reads a cache would serve, for many sizes from one trace: the miss-ratio curve, with its knee."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memlab.errors import nearest, validation
from memlab.measure import stats
from memlab.predict.fresh import Ageing
from memlab.predict.policies import POLICIES, Endings, Policy, replay
from memlab.predict.sampling import GROUPS, SIMULATED_ENTRIES, STUDENT, Sampler
from memlab.predict.stack_distance import NEVER, Floats, Ints, stack_distances

BLOCKS = 50  # of consecutive accesses: what is drawn again to see how much the curve owes to single hours
POINT = 0.01
_DEFAULT_SIZES = 12
_FINE = 400  # sizes among which a knee is looked for
_MEGABYTE = 1_000_000

OVER_TIME = "bootstrap over 50 consecutive parts of the trace, 95 %"
OVER_GROUPS = "spread of five parts of the sample, Student's t, 95 %"
OVER_HALVES = f"{OVER_GROUPS}; and the most that half of the sample would change"
OF_ONE = "too few accesses for an interval"


@dataclasses.dataclass(frozen=True)
class Accesses:
    """The reads of a trace that a cache could serve.

    Attributes:
        keys: what was asked for, in order of access; (n,) whole numbers.
        at_ns: when, ascending; None where unknown.
        stale_at: for every access, the position of the first access after the write that makes its answer stale, n or more where
            none does; None where nothing is written.
        ttl_ns: how long the operation itself lets each answer be served; None where none says so.
    """

    keys: npt.NDArray[np.integer]
    at_ns: Ints | None = None
    stale_at: Ints | None = None
    ttl_ns: Ints | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def only(self, positions: Ints) -> Accesses:
        """Return some of them, as a trace of its own."""
        return Accesses(
            self.keys[positions],
            None if self.at_ns is None else self.at_ns[positions],
            None if self.stale_at is None else np.searchsorted(positions, self.stale_at[positions]),
            None if self.ttl_ns is None else self.ttl_ns[positions],
        )

    def bounded_by(self, ttl_s: float | None) -> Accesses:
        """Return them with every answer served for *ttl_s* seconds at most."""
        if ttl_s is None:
            return self
        ttl_ns = np.full(len(self), round(ttl_s * 1e9))
        return dataclasses.replace(self, ttl_ns=ttl_ns if self.ttl_ns is None else np.minimum(ttl_ns, self.ttl_ns))


@dataclasses.dataclass(frozen=True)
class Knee:
    """Where more entries stop paying.

    Attributes:
        knee_entries: the point of the curve that is farthest above the line from no cache to its end.
        max_entries: the smallest size within one point of the hit ratio there.
        hit_ratio: at *max_entries*.
        doubled_hit_ratio: at twice as many.
    """

    knee_entries: int
    max_entries: int
    hit_ratio: float
    doubled_hit_ratio: float

    def to_dict(self) -> dict[str, Any]:
        """Return its fields as plain values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Curve:
    """Hit ratio against size.

    Attributes:
        policy: that decides which entry leaves.
        accesses, distinct_keys: of the trace.
        max_entries: sizes asked for, ascending; (sizes,).
        hit_ratio, low, high: of each; *interval* says what the bounds are.
        sample: share of the accesses that was looked at; None for all.
        fine: sizes and hit ratios at more places, from which the knee is read.
    """

    policy: Policy
    accesses: int
    distinct_keys: int
    max_entries: Ints
    hit_ratio: Floats
    low: Floats
    high: Floats
    interval: str
    sample: float | None
    ttl_s: float | None
    fine: tuple[Ints, Floats]

    def at(self, max_entries: float) -> float:
        """Return the hit ratio at any size, on straight lines between the sizes that are known."""
        sizes, ratios = self.fine
        return float(np.interp(max_entries, np.append(0, sizes), np.append(0.0, ratios)))

    def knee(self) -> Knee:
        """Return where more entries stop paying.

        Source: Satopää, Albrecht, Irwin, Raghavan 2011 ("Kneedle"), doi 10.1109/ICDCSW.2011.20: with both axes scaled to
        [0, 1], the point farthest above the diagonal.
        """
        sizes, ratios = self.fine
        above = ratios / max(float(ratios[-1]), 1e-12) - sizes / sizes[-1]
        place = int(np.argmax(above))
        enough = int(np.flatnonzero(ratios >= ratios[place] - POINT)[0])
        size = int(sizes[enough])
        return Knee(int(sizes[place]), size, float(ratios[enough]), max(self.at(size * 2), float(ratios[enough])))

    def megabyte_gain(self, entry_bytes: float) -> float:
        """Return how much one more MB (10^6 bytes) adds to the hit ratio at the size that `knee` names."""
        size = self.knee().max_entries
        return max(self.at(size + _MEGABYTE / entry_bytes) - self.at(size), 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values: `curve` holds max_entries, hit_ratio, low and high of every size."""
        names = ("max_entries", "hit_ratio", "low", "high")
        rows = zip(*(getattr(self, name).tolist() for name in names), strict=True)
        return {
            "curve": [dict(zip(names, row, strict=True)) for row in rows],
            "policy": self.policy,
            "accesses": self.accesses,
            "distinct_keys": self.distinct_keys,
            "interval": self.interval,
            "sample": self.sample,
            "ttl_s": self.ttl_s,
            "knee": self.knee().to_dict(),
        }


def default_sizes(distinct: int) -> list[int]:
    """Return sizes from a hundredth of the keys to all of them, at even ratios.

    >>> default_sizes(1000)[:3], default_sizes(1000)[-1]
    ([10, 15, 23], 1000)
    """
    return sorted({max(1, round(size)) for size in np.geomspace(max(distinct / 100, 1), distinct, _DEFAULT_SIZES).tolist()})


def miss_ratio_curve(
    accesses: Accesses,
    sizes: Sequence[int] | None = None,
    *,
    policy: str = "lru",
    sample: float | None = None,
    ttl_s: float | None = None,
    seed: int = 0,
) -> Curve:
    """Return the hit ratio that a cache would have on a trace, for many sizes.

    The cache starts empty, and first uses count as misses. Without *sample* the ratios are those of the trace itself: by stack
    distances for `lru`, by a replay of every size for the other policies.

    Args:
        sizes: entries kept, 1 or more; default: twelve from a hundredth of the distinct keys to all.
        policy: `lru`, `fifo`, `s3_fifo`, `sieve` or `w_tinylfu`.
        sample: share of the accesses to look at, in (0, 1]; see `sampling`. Of the keys a larger share is looked at where the
            smallest size would otherwise hold fewer than 64 of them; where caches are simulated, for each size that would hold
            fewer than 256, and 1,024 for `w_tinylfu`.
        ttl_s: seconds that an answer is served; of a trace with times.
        seed: of the sample.
    Raises:
        MemlabError: VALIDATION, reason `trace`, `sizes`, `policy`, `sample` or `ttl`: what does not fit.
    Source: Mattson et al. 1970, doi 10.1147/sj.92.0078; Waldspurger et al., FAST 2015 (SHARDS) and USENIX ATC 2017 (miniature
        simulation).
    """
    chosen = _check(accesses, sizes, policy, sample, ttl_s)
    accesses = accesses.bounded_by(ttl_s)
    if sample is not None and sample < 1.0:
        return dataclasses.replace(_sampled(accesses, sizes, chosen, sample, seed), ttl_s=ttl_s)
    ids, distinct = _numbered(accesses.keys, needed=chosen != "lru" or sizes is None)
    wanted = _ascending(sizes, distinct)
    numbered = dataclasses.replace(accesses, keys=ids)
    edges = np.linspace(0, len(accesses), min(BLOCKS, len(accesses)) + 1).astype(np.int64)
    counts = np.diff(edges).astype(np.float64)
    if chosen == "lru" and accesses.ttl_ns is None:
        distances = stack_distances(ids, accesses.stale_at)
        fine = np.unique(np.concatenate([wanted, _fine_sizes(max(distinct, int(wanted[-1])))]))
        by_block = _hits_by_block(distances, wanted, edges)
        finely = (fine, _hits_by_block(distances, fine, edges[[0, -1]])[:, 0] / len(accesses))
    else:
        hits = _hits(numbered, distinct, chosen)
        by_block = np.array([np.add.reduceat(hits(float(size)), edges[:-1], dtype=np.int64) for size in wanted])
        finely = (wanted, by_block.sum(axis=1) / len(accesses))
    ratios = by_block.sum(axis=1) / len(accesses)
    bounds = [stats.quotient(row.tolist(), counts.tolist()) for row in by_block]
    is_known = bounds[0].low is not None
    low = np.array([one.low for one in bounds], dtype=np.float64) if is_known else ratios
    high = np.array([one.high for one in bounds], dtype=np.float64) if is_known else ratios
    interval = OVER_TIME if is_known else OF_ONE
    return Curve(chosen, len(accesses), distinct, wanted, ratios, low, high, interval, None, ttl_s, finely)


def _sampled(accesses: Accesses, sizes: Sequence[int] | None, policy: Policy, rate: float, seed: int) -> Curve:
    sampler = Sampler(accesses.keys, seed)
    wanted = _ascending(sizes, sampler.distinct)
    fine, interval = wanted, OVER_GROUPS
    if policy == "lru" and accesses.ttl_ns is None and accesses.stale_at is None:
        fine = np.unique(np.concatenate([wanted, _fine_sizes(max(sampler.distinct, int(wanted[-1])), int(wanted[0]))]))
        finely, errors = sampler.lru(fine, rate)
        margins = STUDENT * errors
    else:
        finely, margins = _miniatures(accesses, sampler, wanted, policy, rate)
        interval = OVER_HALVES
    places = np.searchsorted(fine, wanted)
    ratios = finely[places]
    low = np.clip(ratios - margins[places], 0.0, 1.0)
    high = np.clip(ratios + margins[places], 0.0, 1.0)
    finely = np.maximum.accumulate(finely) if policy == "lru" else finely
    return Curve(policy, len(accesses), sampler.distinct, wanted, ratios, low, high, interval, rate, None, (fine, finely))


def _miniatures(accesses: Accesses, sampler: Sampler, sizes: Ints, policy: Policy, rate: float) -> tuple[Floats, Floats]:
    """Return the hit ratio by size of caches scaled down to drawn keys, and how far to trust it.

    Chance is seen in how much parts of the keys differ. A small cache is also not quite a large one in small: hands and queues
    take other turns, and W-TinyLFU's window, which adapts, may settle elsewhere. So the most that half of the keys would have
    changed at any size that was scaled down is counted in at every size. Each size has as many keys drawn as its cache needs, and
    no more.
    """
    shares = np.array([_share(sampler, policy, rate, size if policy != "lru" else int(sizes[0])) for size in sizes.tolist()])
    ratios, chances = np.zeros(len(sizes)), np.zeros(len(sizes))
    changed = 0.0
    for share in np.unique(shares).tolist():
        places = shares == share
        drawn = sampler.draw_keys(share)
        misses = _miniature(accesses, sampler, drawn, sizes[places], policy)
        ratios[places] = np.clip(1.0 - misses.mean(axis=1), 0.0, 1.0)
        chances[places] = STUDENT * np.std(misses, axis=1, ddof=1) / np.sqrt(GROUPS)
        if share >= 1.0:  # all keys: nothing is scaled down
            continue
        halved = _miniature(accesses, sampler, drawn[::2], sizes[places], policy)
        changed = max(changed, float(np.abs(misses.mean(axis=1) - halved.mean(axis=1)).max()))
    return ratios, chances + changed


def _share(sampler: Sampler, policy: Policy, rate: float, size: int) -> float:
    """Return the share of the keys to draw for a cache of *size*."""
    share = sampler.key_rate(rate, size, SIMULATED_ENTRIES[policy])
    # A sketch has a power of two of counters, so a cache in small is like the large one at powers of two alone.
    return 2.0 ** math.ceil(math.log2(share)) if policy == "w_tinylfu" else share


def _miniature(accesses: Accesses, sampler: Sampler, drawn: Ints, sizes: Ints, policy: Policy) -> Floats:
    """Return the miss ratio by size and part of the keys: (sizes, `GROUPS`).

    Where the drawn keys have more or less than their share of the accesses, the difference counts as hits: it is the hottest keys
    that make it (SHARDS-adj). So the misses are divided by what the share should be.
    """
    share = len(drawn) / sampler.distinct
    part = accesses.only(sampler.accesses_of(drawn))
    known, ids = np.unique(part.keys, return_inverse=True)
    hits = _hits(dataclasses.replace(part, keys=ids), len(known), policy, scale=share)
    group = sampler.groups_of(part.keys, drawn)
    expected = len(accesses) * share / GROUPS
    return np.array([np.bincount(group, ~hits(max(1.0, round(size * share))), GROUPS) / expected for size in sizes.tolist()])


def _hits(accesses: Accesses, distinct: int, policy: Policy, *, scale: float = 1.0) -> Callable[[float], npt.NDArray[np.bool_]]:
    """Return what tells, for a size, which accesses hit."""
    if policy != "lru":
        keys = accesses.keys.astype(np.int64)
        endings = Endings.of(keys, accesses.at_ns, accesses.stale_at, accesses.ttl_ns)
        return lambda size: replay(keys, distinct, policy, int(size), endings=endings, scale=scale)
    distances = stack_distances(accesses.keys, accesses.stale_at)
    if accesses.ttl_ns is None or accesses.at_ns is None:
        return lambda size: distances < size
    ageing = Ageing(accesses.keys, accesses.at_ns, accesses.ttl_ns)
    return lambda size: ageing.hits(distances, size)


def _hits_by_block(distances: Ints, sizes: Ints, edges: Ints) -> Ints:
    """Return how many accesses of each block hit at each of ascending sizes: (sizes, blocks)."""
    enough = np.searchsorted(sizes, distances, side="right")  # the first size above a distance, and all larger ones
    blocks, places = len(edges) - 1, len(sizes) + 1
    block = np.repeat(np.arange(blocks), np.diff(edges))
    table = np.bincount(block * places + enough, minlength=blocks * places).reshape(blocks, places)
    return np.cumsum(table[:, :-1], axis=1).T


def _numbered(keys: npt.NDArray[np.integer], *, needed: bool) -> tuple[npt.NDArray[np.integer], int]:
    """Return keys numbered from 0, and how many there are."""
    if not needed:
        return keys, len(np.unique(keys))
    known, ids = np.unique(keys, return_inverse=True)
    return ids, len(known)


def _ascending(sizes: Sequence[int] | None, distinct: int) -> Ints:
    return np.array(sorted(set(default_sizes(distinct) if sizes is None else sizes)), dtype=np.int64)


def _fine_sizes(largest: int, smallest: int = 1) -> Ints:
    return np.unique(np.geomspace(smallest, max(largest, smallest), _FINE).round().astype(np.int64))


def _check(accesses: Accesses, sizes: Sequence[int] | None, policy: str, sample: float | None, ttl_s: float | None) -> Policy:
    if not len(accesses):
        raise validation("trace", "the trace holds no access that a cache could serve; give one with reads")
    for size in sizes if sizes is not None else [1]:
        if not 1 <= size <= NEVER // 4:
            raise validation("sizes", f"size {size}: give whole numbers of entries, 1 or more")
    if sizes is not None and not len(sizes):
        raise validation("sizes", "no sizes given; give whole numbers of entries, such as 100,1000")
    if sample is not None and not 0.0 < sample <= 1.0:
        raise validation("sample", f"sample = {sample}: give a share of the accesses, above 0 and at most 1")
    found = next((one for one in POLICIES if one == policy), None)
    if found is None:
        raise validation("policy", f"no policy '{policy}'{nearest(policy, POLICIES)}")
    if ttl_s is not None and not 0.0 < ttl_s <= 1e9:
        raise validation("ttl", f"ttl_s = {ttl_s}: give seconds above 0, at most 1e9")
    if (ttl_s is not None or accesses.ttl_ns is not None) and accesses.at_ns is None:
        raise validation("ttl", "a time to live needs a trace with times (column at_s or at_ns); this one has none")
    return found
