"""Figures of what every operation costs on a store, computed from raw samples; and frames of them for charts and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from memlab.experiment.results import Run
from memlab.measure import stats
from memlab.operations.registry import Operation, lookup, operations
from memlab.predict.growth import PowerLaw, power_law

_PHASES = {"decode": "build"}  # rows to values


def summarise(
    samples: pl.DataFrame,
    *,
    memories: int,
    size: str,
    repeats: int,
    rss_bytes_per_call: Mapping[str, stats.Interval] | None = None,
    discovery: Mapping[str, Mapping[str, Any]] | None = None,
    kept_ratio: float | None = None,
) -> dict[str, Any]:
    """Return the summary of one store, plain values for run.json. An *interval* is a table: value, low, high, n, note.

    Returns:
        size, finding (not a smoke run, five parts or more), memories, repeats;
        operations: by name: layer, kind, cost, target_p95_ms, target_p99_ms;
            warm, repeated, floor, cold, open: None, or calls, failed, failure_ratio, mean_ms, p50_ms, p95_ms, p99_ms,
                throughput_per_s (one caller that waits), all intervals but the counts; max_ms; parts_p50_ms, a list of numbers;
                errors, a table of reasons. `open` is opening the database before a cold call;
            over_floor: interval, p50 of warm over that of the floor;
            per_item: None, or items (mean of a call), mean_ms, p50_ms, p95_ms of a bulk call's item;
            phases_ms: mean by phase of storage in a warm call: embed, vector, text, fuse, fetch, build, …; other_ms: the rest;
            rss_bytes_per_call: interval, growth of the process over its parts; None where it was not looked at;
            met: whether p95 (per item for bulk) keeps target_p95_ms; None where there is no p95;
        over_target, unjudged, failing: names where met is False, is None, and where calls failed;
        discovery: by level of detail, see `discovery_costs.measure`, with the figures of `warm` beside;
        page_cache: kept_ratio, the largest share of the files that stayed in memory before a cold call; None where unknown.
    """
    timed = samples.filter(~pl.col("warm_up")).with_columns(ms=(pl.col("finished_ns") - pl.col("started_ns")) / 1e6)
    groups: dict[tuple[str, str], pl.DataFrame] = {
        (str(name), str(setting)): rows for (name, setting), rows in timed.group_by("operation", "setting", maintain_order=True)
    }
    told = {
        one.name: _operation(one, groups, repeats, (rss_bytes_per_call or {}).get(one.name))
        for one in operations()
        if (one.name, "warm") in groups
    }
    return {
        "size": size,
        "finding": size != "smoke" and repeats >= stats.FEWEST_REPEATS,
        "memories": memories,
        "repeats": repeats,
        "operations": told,
        "over_target": [name for name, one in told.items() if one["met"] is False],
        "unjudged": [name for name, one in told.items() if one["met"] is None],
        "failing": [name for name, one in told.items() if one["warm"]["failed"]],
        "discovery": {
            level: {**figures, **_figures(groups["discovery.search", level], repeats)}
            for level, figures in (discovery or {}).items()
        },
        "page_cache": {"kept_ratio": kept_ratio},
    }


def _operation(
    one: Operation, groups: Mapping[tuple[str, str], pl.DataFrame], repeats: int, grew: stats.Interval | None
) -> dict[str, Any]:
    lanes = {name: groups.get((one.name, name)) for name in ("warm", "repeated", "floor", "cold", "open")}
    figures = {name: None if rows is None else _figures(rows, repeats) for name, rows in lanes.items()}
    warm, floor = groups[one.name, "warm"], groups[one.name, "floor"]
    ok = warm.filter(pl.col("outcome") == "ok")
    per_item = _per_item(ok) if one.cost == "bulk" and ok.height else None
    judged = (per_item or figures["warm"] or {})["p95_ms"]["value"]
    phases = _phases(ok)
    mean = (figures["warm"] or {})["mean_ms"]["value"]
    return {
        "layer": one.layer,
        "kind": one.kind,
        "cost": one.cost,
        "target_p95_ms": one.target_p95_ms,
        "target_p99_ms": one.target_p99_ms,
        **figures,
        "over_floor": stats.ratio(_parts(floor, repeats), _parts(warm, repeats), 0.5).to_dict(),
        "per_item": per_item,
        "phases_ms": phases,
        "other_ms": None if mean is None else mean - sum(phases.values()),
        "rss_bytes_per_call": None if grew is None else grew.to_dict(),
        "met": None if judged is None else bool(judged <= one.target_p95_ms),
    }


def _parts(rows: pl.DataFrame, repeats: int) -> list[stats.Floats]:
    ok = rows.filter(pl.col("outcome") == "ok")
    return [ok.filter(pl.col("repeat") == part)["ms"].to_numpy() for part in range(repeats)]


def _figures(rows: pl.DataFrame, repeats: int) -> dict[str, Any]:
    parts = _parts(rows, repeats)
    times = np.concatenate(parts)
    failed = rows.height - len(times)
    counts, seconds = [float(len(part)) for part in parts], [float(part.sum()) / 1e3 for part in parts]
    none = stats.Interval(None, note="too few: no call succeeded")
    return {
        "calls": rows.height,
        "failed": failed,
        "failure_ratio": stats.share(failed, rows.height).to_dict(),
        "errors": dict(rows["error"].drop_nulls().value_counts().sort("error").iter_rows()),
        "mean_ms": (stats.mean(parts) if len(times) else none).to_dict(),
        **{f"{name}_ms": stats.percentile(times, q).to_dict() for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
        "max_ms": float(times.max()) if len(times) else None,
        "throughput_per_s": (stats.quotient(counts, seconds) if len(times) else none).to_dict(),
        "parts_p50_ms": [float(np.median(part)) for part in parts if len(part)],
    }


def _per_item(ok: pl.DataFrame) -> dict[str, Any]:
    each = (ok["ms"] / ok["batch_size"]).to_numpy()
    return {
        "items": float(ok["batch_size"].cast(pl.Float64).to_numpy().mean()),
        "mean_ms": float(each.mean()),
        "p50_ms": stats.percentile(each, 0.5).to_dict(),
        "p95_ms": stats.percentile(each, 0.95).to_dict(),
    }


def _phases(ok: pl.DataFrame) -> dict[str, float]:
    if not ok.height:
        return {}
    spent = ok["phases"].struct.unnest()
    means = {name: float(spent[name].fill_null(0).to_numpy().mean()) / 1e6 for name in spent.columns}
    return {_PHASES.get(name, name): ms for name, ms in means.items() if ms}


def frame(runs: Iterable[Run]) -> pl.DataFrame:
    """Return what `frame_of` does of the summaries of *runs*, with a column `run` for the identity."""
    found = [frame_of([run.summary]).with_columns(run=pl.lit(run.id)) for run in runs]
    return pl.concat(found, how="vertical_relaxed")


def frame_of(summaries: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Return a row for each operation on each store: figures with their intervals, for charts and tables.

    Columns: memories, operation, layer, cost, target_ms, met, calls, failure_ratio, mean_ms; p50_ms, p95_ms, p99_ms of warm
    calls, each with `_low` and `_high` (per item for bulk, as mean_ms is, and without a p99); repeated_ms and floor_ms, medians;
    cold_ms, a mean; over_floor with its interval.
    """
    rows = [
        {"memories": summary["memories"], "operation": name, **_row(one)}
        for summary in summaries
        for name, one in summary["operations"].items()
    ]
    texts = dict.fromkeys(("operation", "layer", "cost"), pl.String)
    counts = dict.fromkeys(("memories", "calls"), pl.Int64)
    numbers = [name for row in rows[:1] for name in row if name not in (*texts, *counts, "met")]
    schema = {**counts, **texts, "met": pl.Boolean, **dict.fromkeys(numbers, pl.Float64)}
    return pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)


def _row(one: Mapping[str, Any]) -> dict[str, Any]:
    warm = one["per_item"] or one["warm"]
    return {
        "layer": one["layer"],
        "cost": one["cost"],
        "target_ms": one["target_p95_ms"],
        "met": one["met"],
        "calls": one["warm"]["calls"],
        "failure_ratio": one["warm"]["failure_ratio"]["value"],
        **_spread("p50_ms", warm["p50_ms"]),
        **_spread("p95_ms", warm["p95_ms"]),
        **_spread("p99_ms", None if one["per_item"] else one["warm"]["p99_ms"]),
        "mean_ms": one["per_item"]["mean_ms"] if one["per_item"] else one["warm"]["mean_ms"]["value"],
        "repeated_ms": one["repeated"] and one["repeated"]["p50_ms"]["value"],
        "cold_ms": one["cold"] and one["cold"]["mean_ms"]["value"],
        "floor_ms": one["floor"]["p50_ms"]["value"],
        **_spread("over_floor", one["over_floor"]),
    }


def _spread(name: str, interval: Mapping[str, Any] | None) -> dict[str, float | None]:
    found = interval or {"value": None, "low": None, "high": None}
    return {name: found["value"], f"{name}_low": found["low"], f"{name}_high": found["high"]}


def growth(runs: Sequence[Run]) -> dict[str, PowerLaw]:
    """Return how the median of every operation's warm calls grows over the stores of *runs*, one run a size."""
    return growth_of([run.summary for run in runs])


def growth_of(summaries: Sequence[Mapping[str, Any]]) -> dict[str, PowerLaw]:
    """Return the same from summaries alone."""
    names = dict.fromkeys(name for summary in summaries for name in summary["operations"])
    there = {name: [summary for summary in summaries if name in summary["operations"]] for name in names}
    return {
        name: power_law(
            [summary["memories"] for summary in found],
            [summary["operations"][name]["warm"]["parts_p50_ms"] for summary in found],
        )
        for name, found in there.items()
    }


def growth_frame(laws: Mapping[str, PowerLaw]) -> pl.DataFrame:
    """Return a row for each operation: operation, cost, exponent, low, high, misfit, held_out; the steepest first."""
    rows = [
        {
            "operation": name,
            "cost": lookup(name).cost,
            "exponent": law.exponent.value,
            "low": law.exponent.low,
            "high": law.exponent.high,
            "misfit": law.misfit,
            "held_out": law.held_out,
        }
        for name, law in laws.items()
        if law.exponent.value is not None
    ]
    numbers = dict.fromkeys(("exponent", "low", "high", "misfit", "held_out"), pl.Float64)
    schema = {"operation": pl.String, "cost": pl.String, **numbers}
    return pl.DataFrame(rows, schema=schema).sort("exponent", descending=True)
