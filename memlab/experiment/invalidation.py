"""What writes take from a cache: a share of writes against no cache, and the hit ratio that a model says beforehand.

The traffic of a comparison is decided by its seed, so the trace that the cache met is made again from it, with the times at which
calls were due, and with the labels by which the cache's own rules tie answers to writes. The model is asked for the hit ratio of
that trace, and what the cache did stands beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memlab.errors import internal, validation
from memlab.experiment import results
from memlab.experiment.comparison import Measurement, compare, corpus_of, lane_seed
from memlab.experiment.results import Run
from memlab.middleware.cache import Rule, canonical
from memlab.operations.registry import lookup
from memlab.predict.miss_ratio import Accesses, miss_ratio_curve
from memlab.settings import CacheSettings, Settings
from memlab.values import Request
from memlab.workload import arrivals, spec
from memlab.workload.corpus import Corpus
from memlab.workload.mix import Call, Loaded, Mix
from memlab.workload.spec import Workload
from memlab.workload.trace import Trace

_KNOWN = ("episodic.recall", "episodic.remember")


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    data: str | Path | None = None,
    out: str | Path | None = None,
) -> Measurement:
    """Measure one share of writes, with a cache and without; what a point's notebook calls.

    Args:
        point: `reference`, without a cache, and `candidate`, settings over the defaults; `values`; `prepared`.
        workload: as a params file has it: Poisson arrivals of `episodic.recall` and `episodic.remember`.
        data: folder of real conversations in place of the generated corpus.
        out: existing folder for samples.parquet and summary.json; None keeps nothing.
    Returns:
        What `comparison.compare` brings, and in the summary beside it
            writes: share of all calls, reads_per_write (None without writes), sessions, questions_per_session;
            predicted: of the candidate's cache over all its calls, warm-up among them: hit_ratio as the model says (an interval),
            measured, error_points between them, and without_writes, what the model says of the reads alone; shared and passed,
            misses of which the model knows nothing: they joined an identical one on its way, or ran beside a write; None without
            a cache.
    Raises:
        MemlabError: VALIDATION: anything that does not fit, before anything is measured.
    """
    traffic = spec.workload(workload)
    settings = {name: Settings.of(point.get(name) or {}) for name in ("reference", "candidate")}
    _check(traffic, repeats, size)
    corpus = corpus_of(traffic, seed, data)
    measured = compare(
        corpus,
        traffic,
        settings["reference"],
        settings["candidate"],
        seed=seed,
        repeats=repeats,
        size="quick" if size == "quick" else "smoke",
        values=dict(point.get("values") or {}),
        folder=None if out is None else Path(out),
        prepared=Path(point["prepared"]) if point.get("prepared") else None,
    )
    candidate = measured.samples.filter(pl.col("setting") == "candidate").sort("intended_ns")
    trace = trace_of(candidate, calls_of(corpus, traffic, seed, repeats))
    asked = measured.summary["asked"]
    summary = {
        **measured.summary,
        "writes": {
            "share": asked["writes"] / asked["calls"] if asked["calls"] else None,
            "reads_per_write": asked["reads"] / asked["writes"] if asked["writes"] else None,
            "sessions": len(corpus.sessions),
            "questions_per_session": len(corpus.questions) / len(corpus.sessions),
        },
        "predicted": predicted(trace, settings["candidate"].cache, measured.summary["candidate"]["statistics"].get("cache", {})),
    }
    made = Measurement(measured.samples, summary)
    if out is not None:
        made.write(Path(out))
    return made


def _check(traffic: Workload, repeats: int, size: str) -> None:
    if size not in ("quick", "smoke"):
        raise validation("params", f"size = {size!r}; give quick or smoke")
    if repeats < 1:
        raise validation("params", f"repeats = {repeats}; give 1 or more")
    if traffic.arrivals.kind != "poisson" or traffic.beside is not None:
        raise validation("workload", "workload.arrivals: give kind poisson, and nothing beside it: its trace is made again")
    others = [name for name, weight in traffic.mix.items() if weight > 0 and name not in _KNOWN]
    if others:
        raise validation("workload", f"workload.mix: {', '.join(others)} cannot be made again; give {' and '.join(_KNOWN)}")
    if not traffic.mix.get(_KNOWN[0]):
        raise validation("workload", f"workload.mix: without {_KNOWN[0]} a cache has nothing to keep; give it a weight above 0")


def calls_of(corpus: Corpus, traffic: Workload, seed: int, repeats: int) -> list[Call]:
    """Return what `comparison.compare` sends to one setting, in order; sessions by the names that the corpus has for them."""
    mix = Mix(corpus, Loaded({label: label for label in corpus.sessions}, []), traffic, seed)
    total_s = traffic.warm_up_s + traffic.duration_s
    calls: list[Call] = []
    for repeat in range(-1, repeats):
        lane = lane_seed(seed, repeat)
        calls += mix.calls(len(arrivals.poisson(traffic.arrivals.rate_per_s or 1.0, total_s, lane)), lane)
    return calls


def trace_of(samples: pl.DataFrame, calls: list[Call]) -> pl.DataFrame:
    """Return calls in the recorded form of `workload.trace`, as far as a prediction needs it, with `cached` as it was.

    Args:
        samples: of one setting, by the time at which they were due.
        calls: the same in order.
    """
    if samples["operation"].to_list() != [call.operation for call in calls]:
        raise internal("bug", "the calls that were sent are not those that the seed makes")
    numbers: dict[Hashable, int] = {}

    def number(what: Hashable) -> int:
        return numbers.setdefault(what, len(numbers))

    rules = {name: Rule(lookup(name), None) for name in {call.operation for call in calls}}
    keys, labels = [], []
    for call in calls:
        rule = rules[call.operation]
        request = Request(call.operation, lookup(call.operation).validate(call.parameters), call.session)
        keys.append(number((call.operation, call.session, canonical(request.parameters))))
        labels.append([number(name) for name in (rule.depends_on(request) if rule.reads else rule.touches(request))])
    return samples.select(
        pl.col("intended_ns").alias("at_ns"),
        "operation",
        pl.Series("reads", [rules[call.operation].reads for call in calls]),
        pl.Series("cacheable", [rules[call.operation].keeps for call in calls]),
        pl.Series("key", keys, pl.UInt64),
        pl.Series("labels", labels, pl.List(pl.UInt64)),
        "outcome",
        "cached",
    )


def predicted(trace: pl.DataFrame, settings: CacheSettings | None, counts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the model says of a cache on a trace, beside what the cache did; None without a cache.

    Args:
        counts: the cache's own.
    """
    if settings is None:
        return None
    with_writes = _model(trace, settings)
    reads = trace.filter("reads", "cacheable", pl.col("outcome") == "ok")
    measured = float(np.mean(reads["cached"].to_numpy()))
    return {
        "hit_ratio": with_writes,
        "measured": measured,
        "error_points": 100 * abs(with_writes["value"] - measured),
        "without_writes": _model(trace.filter("reads"), settings),
        "accesses": len(reads),
        **{name: counts.get(name) for name in ("shared", "passed")},
    }


def _model(trace: pl.DataFrame, settings: CacheSettings) -> dict[str, float]:
    kept = Trace(Path(), "recorded", trace).kept()
    accesses = Accesses(kept.keys, kept.at_ns, kept.stale_at, kept.ttl_ns)
    curve = miss_ratio_curve(accesses, [settings.max_entries], policy=settings.policy, ttl_s=settings.ttl_s)
    return {"value": float(curve.hit_ratio[0]), "low": float(curve.low[0]), "high": float(curve.high[0])}


def frame(runs: Sequence[Run]) -> pl.DataFrame:
    """Return what `results.frame` does of the runs, and what charts of writes need.

    Returns:
        beside its columns: writes_percent, as the params file weighs them; kind, what else tells points apart; predicted (with
        `_low` and `_high`), predicted_measured, error_points and without_writes, null where there is no cache.
    """
    rows = [_row(run) for run in runs]
    columns = ("predicted", "predicted_low", "predicted_high", "predicted_measured", "error_points", "without_writes")
    told = pl.DataFrame(rows, schema_overrides=dict.fromkeys(columns, pl.Float64), infer_schema_length=None)
    return pl.concat([results.frame(runs), told], how="horizontal")


def writes_percent(run: Run) -> int:
    """Return the share of writes that a run was given, to a whole percent."""
    weights: dict[str, float] = run.workload["mix"]
    return round(100 * sum(weight for name, weight in weights.items() if not lookup(name).reads) / sum(weights.values()))


def _row(run: Run) -> dict[str, Any]:
    made = run.summary["predicted"]
    hit_ratio, without = (made["hit_ratio"], made["without_writes"]) if made else ({}, {})
    ttl_s = (run.settings["candidate"]["cache"] or {}).get("ttl_s")
    sessions = f"{run.summary['writes']['sessions']} sessions"
    return {
        "writes_percent": writes_percent(run),
        "kind": sessions if ttl_s is None else f"{sessions}, {ttl_s:g} s to live",
        "predicted": hit_ratio.get("value"),
        "predicted_low": hit_ratio.get("low"),
        "predicted_high": hit_ratio.get("high"),
        "predicted_measured": made and made["measured"],
        "error_points": made and made["error_points"],
        "without_writes": without.get("value"),
    }
