"""The driver proves itself: that it is not the bottleneck, what it costs, and that it charges a stall to everyone it delayed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memlab.experiment.comparison import Measurement
from memlab.experiment.load import Lane, drive, run_in_own_loop
from memlab.experiment.load_run import collected
from memlab.experiment.quiet import quiet
from memlab.experiment.stall import contrast
from memlab.measure import clock, stats
from memlab.measure.in_flight import InFlight, in_flight
from memlab.measure.recorder import Recorder, Sample
from memlab.values import Response
from memlab.workload.mix import Call

LEAST_RATE_PER_S = 50_000.0
MOST_SAMPLE_US = 5.0
_NOTHING = Call("episodic.get_recent", {}, "default", "default")
_LOOPS = ("open", "closed")


def measure_point(
    *,
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    out: str | Path | None = None,
    calls: int = 50_000,
    rate_per_s: float = 200.0,
    stall_ms: float = 200.0,
    every_s: float = 2.0,
    duration_s: float = 10.0,
) -> Measurement:
    """Measure the driver against an engine that does nothing, and against one that stalls; what the notebook calls.

    Args:
        repeats: of the first.
        calls: that do nothing, in each of them.
        rate_per_s: of the open loop that meets the stalls.
        stall_ms, every_s: how long the planted stalls are, and from one to the next.
        duration_s: of each loop.
    Returns:
        Every call of the loops that met the stalls, `setting` being `open` or `closed`, and a summary for run.json. An *interval*
        is a table: value, low, high, n, note.
            size, finding (not a smoke run, five repeats or more);
            rate_per_s: interval, calls a second that one process sends and writes down at most; call_us: interval, of one;
            sample_us: interval, what writing one sample down takes; least_rate_per_s, most_sample_us: what was asked;
            met: rate, sample: whether both are;
            stall: stall_ms, every_s; open and closed: samples, p50_ms, p95_ms, p99_ms (intervals), max_ms, and delayed_ratio, the
                share of calls that took longer than half a stall; gap_p99, the open loop's p99 over the closed one's.
    """

    async def measure(counter: InFlight) -> tuple[list[float], pl.DataFrame]:
        costs = []
        for _ in range(repeats):
            costs.append(await _call_us(counter, calls))
        samples = await contrast(
            counter, rate_per_s=rate_per_s, duration_s=duration_s, every_s=every_s, stall_s=stall_ms / 1e3, seed=seed
        )
        return costs, samples

    with quiet(), in_flight() as counter:
        costs, samples = run_in_own_loop(measure(counter))
    writing = [_sample_us(calls) for _ in range(repeats)]
    summary = summarise(samples, costs, writing, size=size, stall_ms=stall_ms, every_s=every_s)
    return Measurement(samples, summary).kept_in(out)


async def _call_us(counter: InFlight, calls: int) -> float:
    """Return microseconds that one call of an engine that does nothing takes, sent and written down as in a load."""
    answer = Response(None)

    async def nothing(
        operation: str, parameters: Mapping[str, Any] | None = None, *, session: str, deadline_s: float | None = None
    ) -> Response:
        return answer

    recorder = Recorder()
    lane = Lane([_NOTHING], np.zeros(calls), duration_s=0.001, deadline_s=60.0)
    with collected():
        await drive(nothing, lane, counter, sink=lambda one: recorder.add(one.sample))
    counter.mean()
    samples = recorder.to_polars()
    return float((samples["finished_ns"].to_numpy().max() - samples["started_ns"].to_numpy().min()) / 1e3 / calls)


def _sample_us(count: int) -> float:
    """Return microseconds that writing down one sample takes, itself made anew each time."""
    recorder = Recorder()
    started = clock.monotonic_ns()
    for place in range(count):
        recorder.add(Sample("episodic.get_recent", "default", place, place, place + 1, phases=None))
    return (clock.monotonic_ns() - started) / 1e3 / count


def summarise(
    samples: pl.DataFrame,
    call_us: list[float],
    sample_us: list[float],
    *,
    size: str,
    stall_ms: float,
    every_s: float,
) -> dict[str, Any]:
    """Return the summary that `measure_point` describes, from raw samples and one figure of each repeat."""
    ones = [1.0] * len(call_us)
    rate = stats.quotient([1e6] * len(call_us), call_us)
    writing = stats.quotient(sample_us, ones)
    loops = {name: _loop(samples.filter(pl.col("setting") == name), stall_ms) for name in _LOOPS}
    opened, closed = (loops[name]["p99_ms"]["value"] for name in _LOOPS)
    return {
        "size": size,
        "finding": size != "smoke" and len(call_us) >= stats.FEWEST_REPEATS,
        "rate_per_s": rate.to_dict(),
        "call_us": stats.quotient(call_us, ones).to_dict(),
        "sample_us": writing.to_dict(),
        "least_rate_per_s": LEAST_RATE_PER_S,
        "most_sample_us": MOST_SAMPLE_US,
        "met": {
            "rate": rate.value is not None and rate.value >= LEAST_RATE_PER_S,
            "sample": writing.value is not None and writing.value < MOST_SAMPLE_US,
        },
        "stall": {
            "stall_ms": stall_ms,
            "every_s": every_s,
            **loops,
            "gap_p99": opened / closed if opened and closed else None,
        },
    }


def _loop(samples: pl.DataFrame, stall_ms: float) -> dict[str, Any]:
    times = ((samples["finished_ns"] - samples["intended_ns"]) / 1e6).to_numpy()
    return {
        "samples": len(times),
        **{f"{name}_ms": stats.percentile(times, q).to_dict() for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
        "max_ms": float(times.max()) if len(times) else None,
        "delayed_ratio": float(np.mean(times > stall_ms / 2)) if len(times) else None,
    }


def curves(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the response times of both loops by percentile, for a chart: loop, percentile (50 to 99.9), ms."""
    rows = []
    for name in _LOOPS:
        mine = samples.filter(pl.col("setting") == name)
        times = np.sort(((mine["finished_ns"] - mine["intended_ns"]) / 1e6).to_numpy())
        for percentile in (50.0, 60.0, 70.0, 80.0, 85.0, 90.0, 93.0, 95.0, 97.0, 98.0, 99.0, 99.5, 99.9):
            if len(times) * (1 - percentile / 100) >= 1:
                rows.append({"loop": name, "percentile": percentile, "ms": float(times[int(len(times) * percentile / 100)])})
    return pl.DataFrame(rows, schema={"loop": pl.String, "percentile": pl.Float64, "ms": pl.Float64})
