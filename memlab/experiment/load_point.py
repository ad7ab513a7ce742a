"""One load in three ways: callers that wait, the same traffic from arrivals that do not, and arrivals as somebody recorded them.

A closed loop asks less while the engine is slow, and so hides how slow it is; an open loop at nearly the same throughput, beside
it in the same run, shows the gap. Each of the three fills a database of its own, and each is checked afterwards: every
acknowledged write is looked for, and every session's canary in all other sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from memlab.errors import validation
from memlab.experiment import load_run
from memlab.experiment.comparison import Measurement
from memlab.experiment.load_run import Measured
from memlab.experiment.results import Run
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.spec import ArrivalsSpec, Workload

WAYS = ("closed", "poisson", "trace")
OPEN_SHARE = 0.9  # of the closed loop's throughput that the open ones send: at all of it a queue has no end
# By callers: share of failures and p95 in ms that two cores are to reach, and the ceiling of both.
REACH: Mapping[int, tuple[float, float]] = {10: (0.001, 25.0), 100: (0.001, 100.0), 1_000: (0.005, 500.0), 5_000: (0.01, 2_500.0)}
CEILING: Mapping[int, tuple[float, float]] = {
    10: (0.01, 100.0),
    100: (0.01, 300.0),
    1_000: (0.05, 1_000.0),
    5_000: (0.1, 5_000.0),
}
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
_INTERVALS = ("throughput_per_s", "failure_ratio", *_PERCENTILES)
_AS_THEY_ARE = (
    "samples", "offered_per_s", "seconds", "mean_ms", "max_ms", "outcomes", "errors", "hit_ratio", "write_ratio",
    "mean_batch_size", "littles_law", "suspect", "cut_short",
)  # fmt: skip


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    size: str = "smoke",
    out: str | Path | None = None,
    trace: str | Path | None = None,
    open_share: float = OPEN_SHARE,
    progress: load_run.Progress | None = None,
) -> Measurement:
    """Measure one load; what the notebook of a point calls.

    Args:
        point: `candidate`, settings over the defaults.
        workload: with arrivals of kind `closed`; its duration is that of each of the three.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        out: existing folder for samples.parquet and summary.json; None keeps nothing.
        trace: of arrivals, a parquet file with a column `at_s`; where it is missing, the summary says so in place of that way.
        open_share: of the closed loop's throughput that the other two send.
    Returns:
        Every call as a sample, `setting` telling the way, and the summary that `summarise` describes.
    Raises:
        MemlabError: VALIDATION `workload`: arrivals are not closed.
    """
    settings = Settings.of(point.get("candidate") or {})
    traffic = spec.workload(workload)
    if traffic.is_open or traffic.arrivals.clients is None:
        raise validation("workload", "workload.arrivals: a load begins with callers that wait: {kind: closed, clients: 100}")
    found = {"closed": load_run.run(traffic, settings, seed=seed, progress=progress)}
    rate_per_s = open_share * (found["closed"].summary["summary"]["throughput_per_s"] or 0.0)
    note = _lacks(trace)
    for way, arrivals in _open_ways(max(rate_per_s, 1.0), None if note else trace):
        found[way] = load_run.run(_with(traffic, arrivals), settings, seed=seed, progress=progress)
    samples = pl.concat([one.samples.with_columns(setting=pl.lit(way)) for way, one in found.items()], how="diagonal_relaxed")
    summary = summarise(found, clients=traffic.arrivals.clients, size=size, open_share=open_share, trace_note=note)
    return Measurement(samples, summary).kept_in(out)


def _lacks(trace: str | Path | None) -> str | None:
    if trace is None:
        return "no trace was given"
    return None if Path(trace).is_file() else f"there is no file '{Path(trace).name}' where the trace was to be"


def _open_ways(rate_per_s: float, trace: str | Path | None) -> Iterable[tuple[str, ArrivalsSpec]]:
    yield "poisson", ArrivalsSpec(kind="poisson", rate_per_s=rate_per_s)
    if trace is not None:
        yield "trace", ArrivalsSpec(kind="trace", rate_per_s=rate_per_s, path=str(trace))


def _with(traffic: Workload, arrivals: ArrivalsSpec) -> Workload:
    return msgspec.structs.replace(traffic, arrivals=arrivals)


def summarise(
    found: Mapping[str, Measured], *, clients: int, size: str, open_share: float, trace_note: str | None
) -> dict[str, Any]:
    """Return the summary of a load, plain values for run.json. An *interval* is a table: value, low, high.

    Returns:
        size, finding (not a smoke run, checked, and nothing is cut short), clients, open_share;
        closed, poisson, trace: one way each; trace is None where there was none, and trace_note says why:
            throughput_per_s, failure_ratio, p50_ms, p95_ms, p99_ms: intervals; value None where there are too few samples;
            samples, offered_per_s, seconds, mean_ms, max_ms, outcomes, errors, hit_ratio, write_ratio, mean_batch_size,
            littles_law, suspect, cut_short: as `load_summary.summarise` has them;
            by_operation, driver: the same; checks: what was looked for afterwards, see `oracle.Checked`;
        gap: by percentile (p50_ms, p95_ms, p99_ms) the Poisson arrivals' over the closed loop's; None where one is missing;
        reach, ceiling: failure_ratio and p95_ms asked of so many callers; None where nothing was asked;
        met, under_ceiling: failure_ratio and p95_ms: whether the closed loop keeps them; None where it cannot be said.
    """
    ways = {way: _way(found[way].summary) if way in found else None for way in WAYS}
    closed = ways["closed"] or {}
    poisson = ways["poisson"]
    return {
        "size": size,
        "finding": size != "smoke"
        and all(one["checks"]["holds"] is True and not one["cut_short"] for one in ways.values() if one),
        "clients": clients,
        "open_share": open_share,
        **ways,
        "trace_note": trace_note,
        "gap": {name: None if poisson is None else _ratio(poisson[name], closed[name]) for name in _PERCENTILES},
        "reach": _asked(REACH, clients),
        "ceiling": _asked(CEILING, clients),
        "met": _kept(closed, _asked(REACH, clients)),
        "under_ceiling": _kept(closed, _asked(CEILING, clients)),
    }


def _way(told: Mapping[str, Any]) -> dict[str, Any]:
    summary = told["summary"]
    return {
        **{name: {"value": summary[name], **summary["intervals"][name]} for name in _INTERVALS},
        **{name: summary[name] for name in _AS_THEY_ARE},
        "by_operation": told["by_operation"],
        "driver": told["driver"],
        "checks": told["checks"],
    }


def _ratio(above: Mapping[str, Any], below: Mapping[str, Any]) -> float | None:
    return above["value"] / below["value"] if above["value"] and below["value"] else None


def _asked(asked: Mapping[int, tuple[float, float]], clients: int) -> dict[str, float] | None:
    return dict(zip(("failure_ratio", "p95_ms"), asked[clients], strict=True)) if clients in asked else None


def _kept(closed: Mapping[str, Any], asked: Mapping[str, float] | None) -> dict[str, bool | None] | None:
    if asked is None:
        return None
    values = {name: closed[name]["value"] for name in asked}
    return {name: None if values[name] is None else values[name] <= bound for name, bound in asked.items()}


def frame(runs: Iterable[Run]) -> pl.DataFrame:
    """Return what `frame_of` does of the summaries of *runs*, with a column `run` for the identity."""
    return pl.concat([frame_of(run.summary).with_columns(run=pl.lit(run.id)) for run in runs], how="vertical_relaxed")


def frame_of(summary: Mapping[str, Any]) -> pl.DataFrame:
    """Return a row for each way of one load.

    Columns: clients, way; throughput_per_s, failure_ratio, p50_ms, p95_ms, p99_ms, each with `_low` and `_high`; reach_ms and
    ceiling_ms of p95; checks_hold.
    """
    rows = []
    for way in WAYS:
        told = summary[way]
        if told is not None:
            figures = {
                f"{name}{end}": told[name][key]
                for name in _INTERVALS
                for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
            bounds = {f"{name}_ms": (summary[name] or {}).get("p95_ms") for name in ("reach", "ceiling")}
            rows.append({"clients": summary["clients"], "way": way, **figures, **bounds, "checks_hold": told["checks"]["holds"]})
    numbers = [name for row in rows[:1] for name in row if name not in ("clients", "way", "checks_hold")]
    return pl.DataFrame(
        rows,
        schema_overrides={"clients": pl.Int64, "checks_hold": pl.Boolean, **dict.fromkeys(numbers, pl.Float64)},
        infer_schema_length=None,
    )
