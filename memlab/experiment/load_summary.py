"""Figures of one load, computed from its raw samples; and the same as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from memlab.experiment.load import DriverCost
from memlab.measure import stats
from memlab.measure.stats import Interval
from memlab.operations.registry import lookup

PERCENTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
_LEAST_HEADROOM = 5.0
_TOLERANCE = 0.05  # of Little's law


def summarise(
    samples: pl.DataFrame,
    *,
    start_ns: int,
    end_ns: int,
    parts: int,
    driver: DriverCost,
    in_flight: float | None,
    cut_short: bool = False,
    cached: bool = True,
    batched: bool = True,
    open_loop: bool = True,
) -> dict[str, Any]:
    """Return summary, by_operation, by_part and driver: plain values for a JSON file.

    Response time counts from when a call was due; percentiles are those of answers in time, and null below the samples that they
    need. Whatever is no answer in time is a failure. Intervals of shares and of percentiles are those of `measure.stats`; that of
    the throughput is over the parts, as if they were repeats (batch means: Schmeiser 1982, doi 10.1287/opre.30.3.556).

    Args:
        samples: in the columns of samples.parquet; `repeat` is the part that a call was due in.
        start_ns, end_ns: the measured time, in the clock of the samples.
        in_flight: mean number of calls in flight as another process saw it.
    """
    timed = samples.with_columns(
        response_ms=(pl.col("finished_ns") - pl.col("intended_ns")) / 1e6,
        late_ms=(pl.col("started_ns") - pl.col("intended_ns")) / 1e6,
        ok=pl.col("outcome") == "ok",
    )
    measured = timed.filter(~pl.col("warm_up"))
    # For the throughput what counts is when the answer came: asked in the warm-up or not, but not after the end.
    answered = timed.filter(pl.col("ok") & pl.col("finished_ns").is_between(start_ns, end_ns, closed="left"))
    seconds = max(end_ns - start_ns, 0) / 1e9
    figures, intervals, notes = _figures(measured)
    length_ns = max(end_ns - start_ns, 1)
    by_part = [
        {
            "part": part,
            "throughput_per_s": rows.height / (length_ns / 1e9 / parts),
        }
        for part in range(parts)
        for rows in [answered.filter((pl.col("finished_ns") - start_ns) * parts // length_ns == part)]
    ]
    for row in by_part:
        row |= _figures(measured.filter(pl.col("repeat") == row["part"]))[0]
    rates = [row["throughput_per_s"] for row in by_part]
    throughput = stats.quotient(rates, [1.0] * len(rates)) if seconds else Interval(None, note="nothing was measured")
    intervals["throughput_per_s"] = {"low": throughput.low, "high": throughput.high}
    offered = measured.height / seconds if seconds else 0.0
    law = _littles_law(measured, in_flight, seconds)
    cost = _driver(driver, measured, max(offered, throughput.value or 0.0))
    summary = {
        "seconds": seconds,
        "cut_short": cut_short,
        "loop": "open" if open_loop else "closed",
        "offered_per_s": offered,
        "throughput_per_s": throughput.value,
        **figures,
        "outcomes": dict(measured["outcome"].value_counts().sort("outcome").iter_rows()),
        "errors": dict(measured["error"].drop_nulls().value_counts().sort("error").iter_rows()),
        "write_ratio": _mean(measured.select(~_is_read(measured))),
        "hit_ratio": _hit_ratio(measured) if cached else None,
        "mean_batch_size": _batch_size(measured) if batched else None,
        "in_flight": in_flight,
        "littles_law": law,
        "suspect": _suspect(law, cost),
        "intervals": intervals,
        "notes": notes,
    }
    by_operation = {
        str(name): {"kind": lookup(str(name)).kind, **_figures(measured.filter(pl.col("operation") == name))[0]}
        for name in measured["operation"].unique().sort()
    }
    return {"summary": summary, "by_operation": by_operation, "by_part": by_part, "driver": cost}


def _figures(rows: pl.DataFrame) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return the figures of some calls, their intervals, and what could not be said."""
    responses = rows.filter("ok")["response_ms"].to_numpy()
    failed = rows.height - len(responses)
    failures = stats.share(failed, rows.height)
    figures: dict[str, Any] = {"samples": rows.height, "failed": failed, "failure_ratio": failures.value}
    intervals = {"failure_ratio": {"low": failures.low, "high": failures.high}}
    notes = []
    for name, q in PERCENTILES.items():
        found = stats.percentile(responses, q)
        figures[name] = found.value
        intervals[name] = {"low": found.low, "high": found.high}
        if found.note is not None:
            notes.append(f"{name.removesuffix('_ms')}: {found.note}")
    figures["mean_ms"] = float(responses.mean()) if len(responses) else None
    figures["max_ms"] = float(responses.max()) if len(responses) else None
    return figures, intervals, notes


def _littles_law(measured: pl.DataFrame, in_flight: float | None, seconds: float) -> dict[str, Any]:
    """Return Little's law over the whole measured time: no interval, since the counter was asked once."""
    if in_flight is None or not measured.height or not seconds:
        return {"in_flight": in_flight, "expected": None, "ratio": None, "holds": None}
    expected = float(measured["response_ms"].sum()) / 1e3 / seconds
    ratio = in_flight / expected if expected else None
    return {
        "in_flight": in_flight,
        "expected": expected,
        "ratio": ratio,
        "holds": None if ratio is None else abs(ratio - 1) <= _TOLERANCE,
    }


def _driver(driver: DriverCost, measured: pl.DataFrame, rate_per_s: float) -> dict[str, Any]:
    late = measured["late_ms"].to_numpy()
    return {
        "call_us": driver.call_us,
        "rate_per_s": driver.rate_per_s,
        "headroom": driver.rate_per_s / rate_per_s if rate_per_s else None,
        "share": driver.call_us * 1e-6 * rate_per_s,
        "late_p50_ms": stats.percentile(late, 0.5).value,
        "late_p99_ms": stats.percentile(late, 0.99).value,
    }


def _suspect(law: Mapping[str, Any], cost: Mapping[str, Any]) -> list[str]:
    found = []
    if law["holds"] is False:
        found.append(
            f"{law['in_flight']:.4g} calls were in flight, where throughput and response time say {law['expected']:.4g}: "
            "unsteady, or overloaded"
        )
    if cost["headroom"] is not None and cost["headroom"] < _LEAST_HEADROOM:
        found.append(
            f"the driver, good for {cost['rate_per_s']:,.0f} calls/s, has {cost['headroom']:.1f} times the rate it was used at, "
            f"not {_LEAST_HEADROOM:g}: it is part of what is measured"
        )
    return found


def _hit_ratio(measured: pl.DataFrame) -> float | None:
    return _mean(measured.filter(pl.col("ok") & _is_read(measured)).select("cached"))


def _batch_size(measured: pl.DataFrame) -> float | None:
    """Return calls over batches: a call in a batch of n stands for 1/n of it."""
    sizes = measured.filter(pl.col("ok") & pl.col("phases").is_not_null())["batch_size"].to_numpy()
    return float(len(sizes) / np.sum(1 / sizes)) if len(sizes) else None


def _mean(column: pl.DataFrame) -> float | None:
    return float(np.mean(column.to_series().to_numpy())) if column.height else None


def _is_read(samples: pl.DataFrame) -> pl.Expr:
    return pl.col("operation").is_in([name for name in samples["operation"].unique().to_list() if lookup(name).reads])


def as_text(whole: Mapping[str, Any]) -> str:
    """Return a load's figures for a terminal."""
    summary = whole["summary"]
    lines = [
        f"{summary['samples']:,} calls in {summary['seconds']:.1f} s, {summary['loop']} loop"
        + (" (cut short)" if summary["cut_short"] else ""),
        f"  throughput {_shown(summary['throughput_per_s'])} answers/s{_between(summary, 'throughput_per_s')}; "
        f"offered {summary['offered_per_s']:,.0f}",
        f"  failures   {_percent(summary['failure_ratio'])}"
        + "".join(f"; {name}: {count:,}" for name, count in summary["errors"].items()),
        "  response   "
        + ", ".join(f"{name.removesuffix('_ms')} {_shown(summary[name])} ms{_between(summary, name)}" for name in PERCENTILES),
    ]
    for name, said in (("hit_ratio", "cache hits"), ("write_ratio", "writes")):
        if summary[name] is not None:
            lines.append(f"  {said:<10} {_percent(summary[name])}")
    if summary["mean_batch_size"] is not None:
        lines.append(f"  batch      {summary['mean_batch_size']:.1f} calls on average")
    law, driver = summary["littles_law"], whole["driver"]
    if law["ratio"] is not None:
        lines.append(f"  in flight  {law['in_flight']:,.1f} seen, {law['expected']:,.1f} by Little's law")
    lines.append(
        f"  driver     {driver['call_us']:.1f} µs a call, {_percent(driver['share'])} of a core; sent late by p99 "
        f"{_shown(driver['late_p99_ms'])} ms"
    )
    widest = max(map(len, whole["by_operation"]), default=9)
    lines += ["", f"{'operation':<{widest}} {'calls':>9} {'failed':>7} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9}"]
    for name, row in whole["by_operation"].items():
        cells = " ".join(f"{_shown(row[figure]):>9}" for figure in PERCENTILES)
        lines.append(f"{name:<{widest}} {row['samples']:>9,} {row['failed']:>7,} {cells}")
    lines += ["", *_checks(whole.get("checks"))]
    lines += [f"note: {note}" for note in summary["notes"]]
    lines += [f"suspect: {reason}" for reason in summary["suspect"]]
    return "\n".join(lines)


def _checks(checks: Mapping[str, Any] | None) -> Sequence[str]:
    if checks is None:
        return []
    if checks["holds"] is None:
        return [f"NOT CHECKED afterwards: {checks['failed']}"]
    if checks["holds"]:
        return [
            f"checked afterwards: {checks['acknowledged']:,} acknowledged memories are there, "
            f"{checks['canaries']} canaries are in their own session alone"
        ]
    wrong = [f"{checks[name]:,} {name.replace('_', ' ')}" for name in ("missing", "altered", "not_forgotten", "foreign")]
    return [
        f"WRONG afterwards: {', '.join(wrong)}; {checks['canaries_found']} of {checks['canaries']} canaries found: "
        + "; ".join(checks["examples"])
    ]


def _between(summary: Mapping[str, Any], name: str) -> str:
    interval = summary["intervals"][name]
    return "" if interval["low"] is None else f" ({_shown(interval['low'])} to {_shown(interval['high'])})"


def _shown(value: float | None) -> str:
    if value is None:
        return "too few"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.3%}"
