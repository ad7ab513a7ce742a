"""What cache, window, pool and index together do to response times, from pieces that were measured apart.

A cache of a given size decides which questions of the traffic hit; those are answered in the time of a hit. The others go on to
the lane, where `group_commit` plays them through with what groups take on the given index. Nothing is fitted on what the settings
do together: `Pieces.missed_by` is the factor by which predictions missed runs of whole settings, and the interval of every
prediction.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars

from memlab.errors import validation
from memlab.predict.group_commit import BatchModel, Rule
from memlab.predict.stack_distance import stack_distances

Floats = npt.NDArray[np.float64]
FIGURES = ("hit_ratio", "p50_ms", "p95_ms", "mean_ms")


@dataclasses.dataclass(frozen=True)
class Choice:
    """A setting of everything that is turned.

    Attributes:
        max_entries: of the cache, which evicts the least recently used; None for none.
        window_ms: of adaptive batching; None for none.
        pool_limit: groups at once.
        index: kind of the vector index.
    """

    max_entries: int | None
    window_ms: float | None
    pool_limit: int
    index: str


@dataclasses.dataclass(frozen=True)
class Play:
    """The questions of one repeat.

    Attributes:
        at_s: when they come; seconds, ascending; (n,).
        keys: what they ask, numbered; (n,).
        counts: which of them are measured, and not only to warm up; (n,) bool.
        stale_at: for each, the question that is the first after the write that makes its answer stale, counted over all plays;
            None where nothing is written.
    """

    at_s: Floats
    keys: npt.NDArray[np.int64]
    counts: npt.NDArray[np.bool_]
    stale_at: npt.NDArray[np.int64] | None = None


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What was measured apart.

    Attributes:
        lanes: what groups take, by kind of index.
        hit_s: what hits take; seconds, (n,).
        limit: calls in a group at most.
        missed_by: by figure, the factor, 1 or more, by which predictions missed runs; a figure that no run has is not in it.
    """

    lanes: Mapping[str, BatchModel]
    hit_s: Floats
    limit: int = 64
    missed_by: Mapping[str, float] = dataclasses.field(default_factory=dict)


def table(pieces: Pieces, plays: Sequence[Play], choices: Sequence[Choice], *, seed: int = 0) -> polars.DataFrame:
    """Return what every choice would do, a row a choice.

    Args:
        plays: in their order: the cache stays warm from one to the next.
    Returns:
        the fields of `Choice`, and each of `FIGURES` with its `_low` and `_high`: null where the lane cannot keep up with the
        questions that reach it, or its groups outgrow those that were measured.
    Raises:
        MemlabError: VALIDATION `range`: a choice of an index that was not measured, or no question counts.
    """
    unknown = {choice.index for choice in choices} - set(pieces.lanes)
    if unknown:
        raise validation("range", f"the index {min(unknown)} was not measured; {', '.join(pieces.lanes)} were")
    if not plays or not any(play.counts.any() for play in plays):
        raise validation("range", "no question of the traffic counts; measure longer than its warm-up")
    keys = np.concatenate([play.keys for play in plays])
    stale_at = np.concatenate([np.full(len(play.keys), len(keys)) if play.stale_at is None else play.stale_at for play in plays])
    distances = stack_distances(keys, stale_at)
    starts = np.cumsum([0, *(len(play.keys) for play in plays)])
    rows = []
    for choice in choices:
        size = 0 if choice.max_entries is None else choice.max_entries
        hits = [distances[start:end] < size for start, end in itertools.pairwise(starts)]
        figures = _figures(pieces, plays, hits, choice, seed)
        rows.append({**dataclasses.asdict(choice), **_with_intervals(figures, pieces.missed_by)})
    numbers = ["window_ms", *(f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high"))]
    schema = {"max_entries": polars.Int64, **dict.fromkeys(numbers, polars.Float64)}
    return polars.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)


def _figures(
    pieces: Pieces, plays: Sequence[Play], hits: Sequence[npt.NDArray[np.bool_]], choice: Choice, seed: int
) -> dict[str, float | None]:
    chance = np.random.default_rng(seed)
    batched = choice.window_ms is not None
    rule = Rule(choice.window_ms or 0.0, pieces.limit if batched else 1, in_flight=choice.pool_limit)
    lane = dataclasses.replace(pieces.lanes[choice.index], checked=None)
    counted = np.concatenate([play.counts for play in plays])
    hit_ratio = float(np.concatenate(hits)[counted].mean())
    times = []
    for number, (play, hit) in enumerate(zip(plays, hits, strict=True)):
        took = np.empty(len(play.at_s))
        took[hit] = chance.choice(pieces.hit_s, int(hit.sum()))
        missing = play.at_s[~hit]
        if len(missing) >= 2:
            rate = (len(missing) - 1) / max(float(missing[-1] - missing[0]), 1e-9)
            if rate > lane.service.capacity_per_s(rule.limit) * min(rule.in_flight, lane.processors):
                return {"hit_ratio": hit_ratio}
            found = lane.play(rule, missing, seed=seed + number)
            if found.group_size.max() > lane.service.most:
                return {"hit_ratio": hit_ratio}
            took[~hit] = found.response_s
        else:
            took[~hit] = lane.service.of(1)
        times.append(took[play.counts])
    ms = np.concatenate(times) * 1e3
    return {
        "hit_ratio": hit_ratio,
        "p50_ms": float(np.quantile(ms, 0.5)),
        "p95_ms": float(np.quantile(ms, 0.95)),
        "mean_ms": float(ms.mean()),
    }


def _with_intervals(figures: Mapping[str, float | None], missed_by: Mapping[str, float]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in FIGURES:
        value, factor = figures.get(name), missed_by.get(name)
        found[name] = value
        known = value is not None and factor is not None
        found[f"{name}_low"] = value / factor if known else None  # type: ignore[operator]
        high = value * factor if known else None  # type: ignore[operator]
        found[f"{name}_high"] = min(high, 1.0) if name == "hit_ratio" and high is not None else high
    return found


def missed_by(predicted: polars.DataFrame, measured: polars.DataFrame) -> dict[str, float]:
    """Return by figure the largest factor, either way, between what was predicted and what runs of whole settings measured.

    Args:
        predicted: of `table`.
        measured: the fields of `Choice` and, where a run has them, `FIGURES`.
    """
    both = predicted.join(measured, on=[field.name for field in dataclasses.fields(Choice)], suffix="_measured", nulls_equal=True)
    found = {}
    for name in FIGURES:
        known = both.filter(
            polars.col(name).is_not_null() & (polars.col(name) > 0) & (polars.col(f"{name}_measured") > 0)
        ).select(factor=(polars.col(name).log() - polars.col(f"{name}_measured").log()).abs().exp())
        if len(known):
            found[name] = float(known["factor"].max())  # type: ignore[arg-type]
    return found
