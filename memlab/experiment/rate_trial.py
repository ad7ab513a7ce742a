"""The highest rate that the engine sustains for a p99 target: trials of the real engine, one rate each, until it is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memlab.engine import Engine
from memlab.experiment.comparison import Measurement
from memlab.experiment.load import Lane, Sent, drive
from memlab.experiment.load_run import FilledRun, Progress, collected
from memlab.experiment.oracle import Oracle
from memlab.experiment.rate_search import RateSearch, Trial, search
from memlab.measure import stats
from memlab.measure.in_flight import InFlight
from memlab.measure.recorder import Recorder
from memlab.settings import Settings
from memlab.workload import arrivals, spec
from memlab.workload.mix import Mix
from memlab.workload.spec import Workload

LOWEST, HIGHEST = 1.0, 20_000.0
_BEYOND = 0.01  # of the calls, which is what p99 means
_WARM_SHARE = 0.2  # of a trial, for the queue to fill
_PATIENCE = 6  # times its duration that a trial of a low rate may take
_CALLS = 20_000  # made in advance; a longer trial sends them again


def judged(samples: pl.DataFrame, rate_per_s: float, *, p99_ms: float) -> Trial:
    """Return what a trial showed: it passes where at most 1 % of its calls failed or took longer than the target.

    Args:
        samples: in the columns of samples.parquet; warm-up does not count.
    """
    measured = samples.filter(~pl.col("warm_up"))
    took_ms = (measured["finished_ns"] - measured["intended_ns"]).to_numpy() / 1e6
    beyond = int(np.sum((took_ms > p99_ms) | (measured["outcome"] != "ok").to_numpy()))
    ratio = beyond / measured.height if measured.height else None
    return Trial(
        rate_per_s=rate_per_s,
        passed=ratio is not None and ratio <= _BEYOND,
        samples=measured.height,
        beyond_ratio=ratio,
        p99_ms=stats.percentile(took_ms, 0.99).value,
    )


def find_rate(
    traffic: Workload,
    settings: Settings,
    *,
    p99_ms: float,
    start_per_s: float = 50.0,
    trials: int = 40,
    tolerance: float = 0.15,
    seed: int = 1,
    database: Path | None = None,
    mix_name: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return the highest sustainable rate with its interval, the trials, and what was checked afterwards.

    Args:
        traffic: its duration is that of one trial; of its arrivals only the kind counts, Poisson or constant.
        p99_ms: the target: response time from the intended start that 99 of 100 calls keep.
        start_per_s: the first rate tried.
        trials: at most.
        tolerance: the search ends when its interval is no wider than this share of the rate.
    """
    seeker = RateSearch(LOWEST, HIGHEST, start=start_per_s, tolerance=tolerance, most=trials)
    return _Searching(traffic, settings, seed, progress, p99_ms=p99_ms, seeker=seeker).whole(database, mix_name)


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    size: str = "smoke",
    out: str | Path | None = None,
    p99_ms: float = 100.0,
    trials: int = 20,
    tolerance: float = 0.15,
) -> Measurement:
    """Search the highest sustainable rate of one setting; what the notebook of a point calls.

    Args:
        point: `candidate`, settings over the defaults.
        workload: `arrivals.rate_per_s` is the first rate tried, `duration_s` that of one trial.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        out: existing folder for samples.parquet and summary.json; None keeps nothing.
    Returns:
        Every call of every trial, `repeat` counting the trials, and a summary for run.json: size, finding (sure enough, checked,
        whole), p99_target_ms, rate_per_s (a table: value, low, high, note), converged, cut_short, checks, and trials, a list of
        `rate_search.Trial` as tables.
    """
    traffic = spec.workload(workload)
    seeker = RateSearch(LOWEST, HIGHEST, start=traffic.arrivals.rate_per_s or 50.0, tolerance=tolerance, most=trials)
    searching = _Searching(traffic, Settings.of(point.get("candidate") or {}), seed, None, p99_ms=p99_ms, seeker=seeker)
    whole = searching.whole(None, "")
    told, found = whole["summary"], seeker.estimate()
    summary = {
        "size": size,
        "finding": size != "smoke" and told["converged"] and whole["checks"]["holds"] is True and not told["cut_short"],
        "p99_target_ms": p99_ms,
        "rate_per_s": found.to_dict(),
        "converged": told["converged"],
        "cut_short": told["cut_short"],
        "checks": whole["checks"],
        "trials": whole["trials"],
    }
    return Measurement(pl.concat(searching.samples, how="diagonal_relaxed"), summary).kept_in(out)


class _Searching(FilledRun):
    """Sends one rate after the other."""

    def __init__(
        self, traffic: Workload, settings: Settings, seed: int, progress: Progress | None, *, p99_ms: float, seeker: RateSearch
    ) -> None:
        super().__init__(traffic, settings, seed, progress)
        self.samples: list[pl.DataFrame] = []  # of each trial
        self._p99_ms = p99_ms
        self._seeker = seeker

    async def measure(self, engine: Engine, mix: Mix, oracle: Oracle, counter: InFlight) -> dict[str, Any]:
        """Return the rate with its interval, and every trial."""

        async def ask(rate_per_s: float) -> Trial:
            return await self._ask(engine, mix, oracle, counter, rate_per_s)

        with collected():
            await search(ask, self._seeker, self.stopping.is_set)
        found = self._seeker.to_dict()
        tried = found.pop("trials")
        summary = {"p99_target_ms": self._p99_ms, "cut_short": self.stopping.is_set(), **found, "trials": len(tried)}
        return {"summary": summary, "trials": tried}

    async def _ask(self, engine: Engine, mix: Mix, oracle: Oracle, counter: InFlight, rate_per_s: float) -> Trial:
        number = len(self._seeker.trials)
        # A share of 1 % wants a thousand calls, as far as patience goes.
        least_s = stats.fewest_samples(0.99) / rate_per_s
        duration_s = min(max(self.traffic.duration_s, least_s), _PATIENCE * self.traffic.duration_s)
        warm_up_s = _WARM_SHARE * duration_s
        self.progress.begin(f"trial {number + 1}: {rate_per_s:,.4g}/s", warm_up_s + duration_s)
        due_s = (
            arrivals.constant(rate_per_s, warm_up_s + duration_s)
            if self.traffic.arrivals.kind == "constant"
            else arrivals.poisson(rate_per_s, warm_up_s + duration_s, self.seed + number)
        )
        calls = mix.calls(max(min(len(due_s), _CALLS), 1), self.seed + 1 + number)
        recorder = Recorder()

        def take(one: Sent) -> None:
            recorder.add(one.sample)
            oracle.note(calls[one.position], one.sample.outcome, one.value)

        deadline_s = max(self.traffic.deadline_s, self._p99_ms / 1e3)
        lane = Lane(calls, due_s, warm_up_s=warm_up_s, duration_s=duration_s, deadline_s=deadline_s)
        driven = await drive(engine.execute, lane, counter, sink=take, stop=self.stopping)
        counter.mean()
        times = [pl.col(name) - driven.start_ns for name in ("intended_ns", "started_ns", "finished_ns")]
        self.samples.append(recorder.to_polars().with_columns(*times, repeat=pl.lit(number, pl.Int64)))
        return judged(self.samples[-1], rate_per_s, p99_ms=self._p99_ms)


def as_text(whole: dict[str, Any]) -> str:
    """Return a search's outcome for a terminal."""
    summary = whole["summary"]
    target = f"p99 at most {summary['p99_target_ms']:g} ms"
    if summary["rate_per_s"] is None:
        first = f"{target}: {summary['note']}"
    else:
        sure = "" if summary["converged"] else "; not as sure as was asked: more --trials, or a longer --duration"
        first = (
            f"{target}: {summary['rate_per_s']:,.0f} calls/s "
            f"(95 % interval {summary['low']:,.0f} to {summary['high']:,.0f}; {summary['trials']} trials){sure}"
        )
    lines = [
        first + (" (cut short)" if summary["cut_short"] else ""),
        "",
        f"{'rate/s':>10} {'passed':>7} {'beyond':>9} {'p99 ms':>9}",
    ]
    for row in whole["trials"]:
        p99 = "too few" if row["p99_ms"] is None else f"{row['p99_ms']:.3g}"
        beyond = "-" if row["beyond_ratio"] is None else f"{row['beyond_ratio']:.2%}"
        lines.append(f"{row['rate_per_s']:>10,.1f} {'yes' if row['passed'] else 'no':>7} {beyond:>9} {p99:>9}")
    return "\n".join(lines)
