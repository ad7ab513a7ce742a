"""How right predicted miss-ratio curves are: against the real cache, under sampling, and in how little time they are made."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import validation
from memlab.experiment import results
from memlab.experiment.cached import beside_measured
from memlab.measure import clock, stats
from memlab.middleware.cache import ENTRY_BYTES
from memlab.predict.miss_ratio import Accesses, Curve, miss_ratio_curve
from memlab.predict.policies import replay
from memlab.workload import spec
from memlab.workload.popularity import Zipf
from memlab.workload.spec import Workload
from memlab.workload.trace import load

POLICIES = ("lru", "w_tinylfu")
"""What the cache has."""
ASKED_POINTS = (0.5, 1.0)
"""Mean and worst error that were asked for, in points of the hit ratio; the first is that of a sample as well."""

_SIZES = 8
_WHAT = ("predicted", "measured")
_REPLAYS: Mapping[str, int] = {"lru": 1, "w_tinylfu": 3}
"""Of the real cache at each size. W-TinyLFU hashes with seeds of its own, so no two replays are equal."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: by policy the knee, what one more MB buys, and errors against the real cache and of samples; times.
        sizes: as of `cached.beside_measured`, and policy.
        samples: policy, seed, mean_points and worst_points that a sample was off the whole trace.
    """

    summary: dict[str, Any]
    sizes: pl.DataFrame
    samples: pl.DataFrame


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    accesses: int = 20_000,
    held: int = 20_000,
    sample: float = 0.05,
    seeds: int = 10,
    answer_bytes: float = 2_000.0,
    out: str | Path | None = None,
) -> Checked:
    """Predict the curves of a trace, and hold them against the real cache; what a point's notebook calls.

    Args:
        point: of it only the place in a sweep counts.
        workload: as a params file has it: a trace of keys as `popularity.trace`; or a made-up one, by `popularity.zipf` over
            `corpus.questions`.
        repeats: of everything that is timed, in turns.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        accesses: of the made-up trace.
        held: accesses, from the first on, that go through the real cache.
        sample: share of the accesses that samples look at.
        seeds: samples, each with a seed of its own.
        answer_bytes: of an answer, where a trace does not say.
        out: existing folder for sizes.parquet, samples.parquet and summary.json; None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit.
    """
    if min(repeats, accesses, held, seeds) < 1 or not 0.0 < sample < 1.0:
        raise validation("params", "repeats, accesses, held and seeds are 1 or more, sample is a share above 0 and below 1")
    traffic = spec.workload(workload)
    keys, entry_bytes = _keys(traffic, accesses, seed, answer_bytes)
    sizes = _sizes(len(np.unique(keys[:held])))
    by_policy: dict[str, Any] = {}
    measured, sampled = [], []
    for policy in POLICIES:
        known = keys[:held]
        curve = miss_ratio_curve(Accesses(known), sizes, policy=policy)
        rows = beside_measured(curve, known, replays=_REPLAYS[policy]).with_columns(policy=pl.lit(policy))
        whole = curve if len(known) == len(keys) else miss_ratio_curve(Accesses(keys), sizes, policy=policy)
        off = _sample_errors(whole, keys, sample, range(seed, seed + seeds))
        by_policy[policy] = _told(whole, rows, off, entry_bytes)
        measured.append(rows)
        sampled.append(off)
    times = _times(keys, sizes, sample, repeats, seed)
    enough = repeats >= stats.FEWEST_REPEATS and len(sizes) >= _SIZES
    summary = {
        "size": size,
        "finding": size != "smoke" and enough,
        "repeats": repeats,
        "trace": _name(traffic),
        "zipf": None if traffic.popularity.trace else traffic.popularity.zipf,
        "accesses": len(keys),
        "held": min(held, len(keys)),
        "distinct_keys": len(np.unique(keys)),
        "sizes": len(sizes),
        "entry_bytes": entry_bytes,
        "sample": sample,
        "seeds": seeds,
        "asked_mean_points": ASKED_POINTS[0],
        "asked_worst_points": ASKED_POINTS[1],
        "policies": by_policy,
        "times": times,
    }
    frames = pl.concat(measured), pl.concat(sampled)
    results.write_point(out, summary, {"sizes": frames[0], "samples": frames[1]})
    return Checked(summary=summary, sizes=frames[0], samples=frames[1])


def _keys(traffic: Workload, accesses: int, seed: int, answer_bytes: float) -> tuple[npt.NDArray[np.integer], float]:
    """Return keys in order of access, and the bytes of an entry."""
    if traffic.popularity.trace is not None:
        kept = load(traffic.popularity.trace).kept()
        if kept.stale_at is not None:
            raise validation("trace", "the trace holds writes, which this check leaves out; give one of reads, or of plain keys")
        return kept.keys, (answer_bytes if kept.answer_bytes is None else kept.answer_bytes) + ENTRY_BYTES
    drawn = Zipf(traffic.corpus.questions, traffic.popularity.zipf, seed).draw(accesses, np.random.default_rng(seed))
    return drawn, answer_bytes + ENTRY_BYTES


def _name(traffic: Workload) -> str:
    return "made up" if traffic.popularity.trace is None else Path(traffic.popularity.trace).stem


def _sizes(distinct: int) -> list[int]:
    """Return sizes from a hundredth of the keys to nearly all, at even ratios."""
    return sorted({max(1, round(one)) for one in np.geomspace(max(distinct / 100, 2), max(distinct * 0.8, 16), _SIZES).tolist()})


def _sample_errors(whole: Curve, keys: npt.NDArray[np.integer], sample: float, seeds: Sequence[int]) -> pl.DataFrame:
    sizes = whole.max_entries.tolist()
    rows = []
    for seed in seeds:
        began = clock.monotonic_ns()
        part = miss_ratio_curve(Accesses(keys), sizes, policy=whole.policy, sample=sample, seed=seed)
        took_s = (clock.monotonic_ns() - began) / 1e9
        off = 100 * np.abs(part.hit_ratio - whole.hit_ratio)
        inside = (part.low <= whole.hit_ratio) & (whole.hit_ratio <= part.high)
        rows.append(
            {
                "policy": whole.policy,
                "seed": seed,
                "mean_points": float(off.mean()),
                "worst_points": float(off.max()),
                "inside": float(inside.mean()),
                "took_s": took_s,
            }
        )
    return pl.DataFrame(rows)


def _told(curve: Curve, rows: pl.DataFrame, off: pl.DataFrame, entry_bytes: float) -> dict[str, Any]:
    names = ("hit_ratio", "hit_ratio_low", "hit_ratio_high")
    said, seen = (rows.filter(pl.col("what") == what).sort("max_entries").select("max_entries", *names) for what in _WHAT)
    errors = 100 * (said["hit_ratio"] - seen["hit_ratio"])
    ends = [dict(zip(("value", "low", "high"), row, strict=True)) for row in seen.select(names).iter_rows()]
    worst = off.sort("worst_points", descending=True).row(0, named=True)
    return {
        "knee": curve.knee().to_dict(),
        "megabyte_gain": curve.megabyte_gain(entry_bytes),
        "mean_points": float(errors.abs().mean()),  # type: ignore[arg-type]
        "worst_points": float(errors.abs().max()),  # type: ignore[arg-type]
        "spread_points": 100 * max(one["high"] - one["low"] for one in ends),
        "replays": _REPLAYS[curve.policy],
        "near": bool(errors.abs().mean() <= ASKED_POINTS[0] and errors.abs().max() <= ASKED_POINTS[1]),  # type: ignore[operator]
        "by_size": {
            str(entries): {
                "predicted": {"value": value, "low": low, "high": high},
                "measured": measured,
                "error_points": error,
            }
            for (entries, value, low, high), measured, error in zip(said.iter_rows(), ends, errors, strict=True)
        },
        "sampled": {
            "mean_points": float(off["mean_points"].mean()),  # type: ignore[arg-type]
            "worst_mean_points": float(off["mean_points"].max()),  # type: ignore[arg-type]
            "worst_points": worst["worst_points"],
            "worst_seed": worst["seed"],
            "inside": float(off["inside"].mean()),  # type: ignore[arg-type]
        },
    }


def _times(keys: npt.NDArray[np.integer], sizes: Sequence[int], sample: float, repeats: int, seed: int) -> dict[str, Any]:
    """Time curves and replays in turns; return seconds, and ratios to two replays of W-TinyLFU at the middle size."""
    _, numbered = np.unique(keys, return_inverse=True)
    distinct, middle = int(numbered.max()) + 1, sizes[len(sizes) // 2]
    accesses = Accesses(keys)

    def two_replays() -> None:
        for _ in range(2):
            replay(numbered, distinct, "w_tinylfu", middle)

    work: dict[str, Callable[[], object]] = {
        "lru": lambda: miss_ratio_curve(accesses, sizes),
        "lru_sampled": lambda: miss_ratio_curve(accesses, sizes, sample=sample, seed=seed),
        "two_replays": two_replays,
        "w_tinylfu": lambda: miss_ratio_curve(accesses, sizes, policy="w_tinylfu"),
        "w_tinylfu_sampled": lambda: miss_ratio_curve(accesses, sizes, policy="w_tinylfu", sample=sample, seed=seed),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    order = random.Random(seed)
    for _ in range(repeats):
        for name in order.sample(list(work), k=len(work)):
            began = clock.monotonic_ns()
            work[name]()
            seconds[name].append((clock.monotonic_ns() - began) / 1e9)
    ratios = {
        name: stats.ratio([[one] for one in seconds["two_replays"]], [[one] for one in took], "mean")
        for name, took in seconds.items()
        if name != "two_replays"
    }
    half = stats.ratio([[one] for one in seconds["w_tinylfu"]], [[one] for one in seconds["w_tinylfu_sampled"]], "mean")
    return {
        "replayed_entries": middle,
        "seconds": {name: stats.mean([[one] for one in took]).to_dict() for name, took in seconds.items()},
        "of_two_replays": {name: ratio.to_dict() for name, ratio in ratios.items()},
        "sampled_of_whole": half.to_dict(),
        "verdict": {name: stats.verdict(ratio, smaller_is_better=True) for name, ratio in ratios.items()},
    }
