"""What a trace says of the settings: its traffic, its miss-ratio curve, and a piece of it replayed under two settings in turn.

    results/trace/<key>/run.json    the key is a hash of what the trace holds, not of where it lies

The replays alternate in random order, each on a fresh database with a cold cache, so that a slow moment of the host meets both.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import MemlabError
from memlab.experiment import results
from memlab.experiment.replay import check, replay
from memlab.experiment.results import Run
from memlab.experiment.summary import SETTINGS
from memlab.experiment.sweep import file_digest
from memlab.measure import clock, host, stats
from memlab.measure.recorder import write_samples
from memlab.middleware.cache import ENTRY_BYTES
from memlab.predict import traffic
from memlab.predict.miss_ratio import Accesses, miss_ratio_curve
from memlab.settings import Settings
from memlab.workload.trace import Trace, load

EXPERIMENT = "trace"
_WHOLE = 1_000_000  # accesses up to which the curve is exact; of longer traces about as many are looked at
_ARRIVALS = "it says when calls came, not what they asked"
_FIGURES = {"p50": 0.5, "p95": 0.95, "mean": "mean"}


class Sizes(NamedTuple):
    """How much is replayed.

    Attributes:
        repeats: of each setting.
        calls: of the trace in one repeat, as far as the seconds allow.
        least_s, most_s: of the trace in one repeat.
    """

    repeats: int
    calls: int
    least_s: float
    most_s: float


SIZES: Mapping[str, Sizes] = {"quick": Sizes(5, 600, 2.0, 10.0), "smoke": Sizes(1, 60, 0.2, 1.0)}


def read(path: Path) -> Trace:
    """Return a trace that can be studied.

    Raises:
        MemlabError: VALIDATION `trace`: it cannot be read; `unknown_operation`: it names one that memlab does not have.
    """
    trace = load(path)
    if trace.kind == "recorded":
        check(trace.frame, path)
    return trace


def study(
    path: Path,
    settings: Settings,
    folder: Path,
    *,
    size: Literal["quick", "smoke"] = "quick",
    seed: int = 1,
) -> Run:
    """Look at a trace, and return the run that is kept of it; the same trace and settings are not measured again.

    Args:
        path: of a trace of any form, see `workload.trace`.
        settings: that are replayed beside the defaults.
        folder: of results.
    Raises:
        MemlabError: VALIDATION: see `read`; PERMISSION, INTERNAL `disk_full`: the run cannot be kept.
    """
    trace = read(path)
    facts = {
        "trace": _digest(path),
        "settings": settings.to_dict(),
        "seed": seed,
        "sizes": SIZES[size]._asdict(),
        "code": results.code_version(EXPERIMENT),
    }
    key = results.key_of(facts)
    with results.locked(folder, EXPERIMENT):
        place = folder / EXPERIMENT / key
        if (place / results.FILE).is_file():
            return results.load(place)
        started = clock.now()
        with results.draft(folder, EXPERIMENT, key) as made:
            summary = _look(trace, settings, made, SIZES[size], seed)
            run = Run(
                experiment=EXPERIMENT,
                key=key,
                question="What does this trace say of the settings?",
                parameters={"trace": path.name},
                settings={"reference": Settings().to_dict(), "candidate": settings.to_dict()},
                seed=seed,
                repeats=SIZES[size].repeats,
                size=size,
                workload={},
                data={"name": path.name, "digest": str(facts["trace"])},
                code_version=results.code_version(EXPERIMENT),
                libraries=host.libraries(),
                host=host.host(),
                started=started.isoformat(),
                finished=clock.now().isoformat(),
                status="done",
                summary={"size": size, "finding": size != "smoke", **summary},
            )
            return results.keep(made, run, folder)


def _digest(path: Path) -> str:
    """Return a digest of what a trace holds: of its file, or of the parts that a killed recording left."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest()


def _look(trace: Trace, settings: Settings, made: Path, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Return kind, traffic, cache and replay, the last two with a `note` where the trace does not allow them."""
    for name, frame in (("popularity", traffic.popularity(trace.frame)), ("arrivals", traffic.arrivals(trace.frame))):
        if frame is not None:
            frame.write_parquet(made / f"{name}.parquet")
    told = traffic.summary(trace.frame)
    return {
        "kind": trace.kind,
        "traffic": told,
        "cache": _cache(trace, settings, seed),
        "replay": _replayed(trace, settings, made, sizes, seed),
    }


def _cache(trace: Trace, settings: Settings, seed: int) -> dict[str, Any]:
    """Return the curve of the trace, its knee, and what the settings' own size reaches on it."""
    if trace.kind == "arrivals":
        return {"note": _ARRIVALS}
    try:
        kept = trace.kept()
    except MemlabError:
        return {"note": "it holds no read that a cache could serve"}
    accesses = Accesses(kept.keys, kept.at_ns, kept.stale_at, kept.ttl_ns)
    sample = _WHOLE / len(accesses) if len(accesses) > _WHOLE else None
    curve = miss_ratio_curve(accesses, sample=sample, seed=seed)
    entry_bytes = None if kept.answer_bytes is None else kept.answer_bytes + ENTRY_BYTES
    own = None if settings.cache is None else settings.cache.max_entries
    known = dict(zip(curve.max_entries.tolist(), zip(curve.low.tolist(), curve.high.tolist(), strict=True), strict=True))
    knee = curve.knee()
    at_knee = miss_ratio_curve(accesses, [knee.max_entries], sample=sample, seed=seed)
    return {
        **curve.to_dict(),
        "curve": [
            {"max_entries": entries, "hit_ratio": {"value": value, "low": known[entries][0], "high": known[entries][1]}}
            for entries, value in zip(curve.max_entries.tolist(), curve.hit_ratio.tolist(), strict=True)
        ],
        "at_knee": {"value": at_knee.hit_ratio[0].item(), "low": at_knee.low[0].item(), "high": at_knee.high[0].item()},
        "entry_bytes": entry_bytes,
        "megabyte_gain": None if entry_bytes is None else curve.megabyte_gain(entry_bytes),
        "own_entries": own,
        "own_hit_ratio": None if own is None else curve.at(own),
    }


def _replayed(trace: Trace, settings: Settings, made: Path, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Return what the defaults and the settings did with the same piece of the trace."""
    if trace.kind == "arrivals":
        return {"note": _ARRIVALS}
    try:
        offsets = trace.offsets()
    except MemlabError:
        return {"note": "it does not say when its calls came"}
    rate_per_s = (len(offsets) - 1) / float(offsets[-1])
    duration_s = min(max(sizes.calls / rate_per_s, sizes.least_s), sizes.most_s, float(offsets[-1]))
    both = {"reference": Settings(), "candidate": settings}
    order = random.Random(seed)
    found: dict[str, list[Any]] = {name: [] for name in SETTINGS}
    samples = []
    for repeat in range(sizes.repeats):
        for name in order.sample(SETTINGS, k=len(SETTINGS)):
            try:
                sent = replay(trace, both[name], duration_s=duration_s, seed=seed + repeat)
            except MemlabError as error:
                if error.reason == "trace":
                    return {"note": "its calls cannot be sent again"}
                raise
            found[name].append(sent)
            samples.append(sent.samples.with_columns(setting=pl.lit(name), repeat=pl.lit(repeat)))
    write_samples(pl.concat(samples, how="diagonal_relaxed"), made / "samples.parquet")
    return _compared(found, duration_s)


def _compared(found: Mapping[str, Sequence[Any]], duration_s: float) -> dict[str, Any]:
    times = {name: [_responses(sent.samples) for sent in found[name]] for name in SETTINGS}
    ratios = {name: stats.ratio(times["reference"], times["candidate"], q) for name, q in _FIGURES.items()}  # type: ignore[arg-type]
    first = found["candidate"][0].summary["replay"]
    return {
        "duration_s": duration_s,
        "calls": first["replayed"]["calls"],
        "merged_keys": first["merged_keys"],
        "left_out": first["left_out"],
        "checks_hold": all(sent.summary["checks"]["holds"] is True for sents in found.values() for sent in sents),
        **{name: _side(found[name], times[name]) for name in SETTINGS},
        "ratio": {name: ratio.to_dict() for name, ratio in ratios.items()},
        "verdict": {name: stats.verdict(ratio, smaller_is_better=True) for name, ratio in ratios.items()},
    }


def _side(sents: Sequence[Any], times: Sequence[npt.NDArray[np.float64]]) -> dict[str, Any]:
    pooled = np.concatenate(times)
    hits = [one for sent in sents if (one := sent.summary["summary"]["hit_ratio"]) is not None]
    failed, calls = (sum(sent.summary["summary"][name] for sent in sents) for name in ("failed", "samples"))
    return {
        "p50_ms": stats.percentile(pooled, 0.5).to_dict(),
        "p95_ms": stats.percentile(pooled, 0.95).to_dict(),
        "mean_ms": stats.mean([part for part in times if len(part)]).to_dict(),
        "hit_ratio": stats.mean([np.array([one]) for one in hits]).to_dict() if hits else None,
        "failure_ratio": stats.share(failed, calls).to_dict(),
    }


def _responses(samples: pl.DataFrame) -> npt.NDArray[np.float64]:
    answered = samples.filter(pl.col("outcome") == "ok")
    return ((answered["finished_ns"] - answered["intended_ns"]) / 1e6).to_numpy()
