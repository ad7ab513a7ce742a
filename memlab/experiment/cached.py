"""A trace of keys through the real cache: what a predicted hit ratio is held against.

Every key is a tag. Reading it is `episodic.recall_by_tags`, writing it `episodic.remember` with that tag, which makes the answer
stale by the same rules as in a service. Behind the cache stands nothing but an answer, because only hits and misses count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

import memlab.operations  # noqa: F401  declares every operation
from memlab.errors import internal, validation
from memlab.measure.clock import ManualClock
from memlab.middleware.cache import cache
from memlab.operations.registry import lookup
from memlab.predict.miss_ratio import Curve
from memlab.settings import CacheSettings
from memlab.values import Request, Response

_READ = "episodic.recall_by_tags"
_WRITE = "episodic.remember"
_ANSWER = Response(())


def measured_hit_ratio(
    keys: Iterable[int],
    settings: CacheSettings,
    *,
    at_ns: Iterable[int] | None = None,
    is_read: Iterable[bool] | None = None,
) -> float:
    """Return the hit ratio of the middleware `cache` on a trace.

    Args:
        keys: in order of access; a plain list is quickest.
        settings: of the cache; without `max_bytes` where only the number of entries is to bind.
        at_ns: when each came, ascending; without it no time passes.
        is_read: false for writes; without it all are reads.
    """
    clock = ManualClock()
    middleware = cache(settings, clock)
    execute = middleware(_answer)
    reading, writing = lookup(_READ).parameters_type, lookup(_WRITE).parameters_type
    known: dict[tuple[int, bool], Request] = {}
    reads = iter(is_read) if is_read is not None else None
    times = iter(at_ns) if at_ns is not None else None
    for key in keys:
        if times is not None:
            clock.advance(ns=next(times) - clock.monotonic_ns())
        reads_it = reads is None or next(reads)
        request = known.get((key, reads_it))
        if request is None:
            tags = (str(key),)
            made = Request(_READ, reading(tags=tags)) if reads_it else Request(_WRITE, writing(content="-", tags=tags))
            request = known[key, reads_it] = made
        _finish(execute(request))
    return float(middleware.statistics()["hit_ratio"])


def beside_measured(curve: Curve, keys: npt.NDArray[np.integer], *, replays: int = 1) -> pl.DataFrame:
    """Return a predicted curve with what the real cache does at each of its sizes.

    Args:
        curve: of `lru` or `w_tinylfu`, which the cache has, on a trace of reads.
        keys: of that trace.
        replays: of the real cache at each size, 1 or more; W-TinyLFU draws its hashes anew in each.
    Returns:
        two rows a size, `what` being predicted and measured, as `charts.share_curve` draws them. A measured ratio is the mean of
        its replays, its ends the least and the most.
    """
    if curve.policy not in ("lru", "w_tinylfu"):
        raise validation("policy", f"the cache has no policy '{curve.policy}'; it has lru and w_tinylfu")
    listed = keys.tolist()
    every = [CacheSettings(curve.policy, size, None) for size in curve.max_entries.tolist()]
    measured = np.array([[measured_hit_ratio(listed, settings) for _ in range(replays)] for settings in every])
    predicted = pl.DataFrame(
        {
            "what": "predicted",
            "max_entries": curve.max_entries,
            "hit_ratio": curve.hit_ratio,
            "hit_ratio_low": curve.low,
            "hit_ratio_high": curve.high,
        }
    )
    counted = predicted.with_columns(
        what=pl.lit("measured"),
        hit_ratio=pl.Series(measured.mean(axis=1)),
        hit_ratio_low=pl.Series(measured.min(axis=1)),
        hit_ratio_high=pl.Series(measured.max(axis=1)),
    )
    return pl.concat([predicted, counted]).with_columns(pl.lit("").alias("run"))


async def _answer(request: Request) -> Response:
    return _ANSWER


def _finish(call: Awaitable[Response]) -> None:
    """Run what never waits, without an event loop: a notebook already runs one."""
    try:
        next(call.__await__())
    except StopIteration:
        return
    raise internal("bug", "the cache waited for something in a replay of one call after the other")
