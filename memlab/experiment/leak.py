"""Whether memory grows while the engine works: looks at a process of its own traffic, and a slope with its interval.

Rows that are stored may take memory: the traffic forgets as much as it stores, so that what grows is what is not given back.
A point of a sweep looks twice, the second time with a leak planted: a search that would not find it promises nothing.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from memlab.engine import Engine
from memlab.errors import validation
from memlab.experiment import results
from memlab.experiment.load import Lane, Sent, drive
from memlab.experiment.load_run import FilledRun, Progress
from memlab.experiment.oracle import Oracle
from memlab.measure import clock
from memlab.measure.in_flight import InFlight
from memlab.measure.process import look
from memlab.measure.trend import Trend, trend
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.mix import Mix
from memlab.workload.spec import Workload

BOUND_BYTES_PER_HOUR = 1_000_000.0
WARM_SHARE = 0.25  # of the looks, left out of the slope
LONG_S = 7_200.0  # from which a run may promise that there is no leak
_CALLS = 20_000
_LEAST_LOOKS = 16
_HOUR_S = 3_600.0
PLANTED_BYTES = 20  # an operation; what a search that is worth its time must find
_PLANTED_PAGES = 1 << 20
_MOST_COUNTS = 64  # of a look
_SIZES_OF_RUNS: Mapping[str, dict[str, str]] = {
    "smoke": {"verdict": "smoke", "why": "a smoke run proves that it runs, and finds nothing"},
    "quick": {},
}
_SIZES = ("entries", "bytes", "rows", "memories", "tail", "in_use", "count")  # of an engine's counts, what is held now
Planted = Callable[[], object]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: of the looks as they were, and under `planted` of those with a leak; see `summarise`.
        looks: every look of both, in time; `planted` tells them apart.
    """

    summary: dict[str, Any]
    looks: pl.DataFrame


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    size: str = "smoke",
    every_s: float = 1.0,
    planted_s: float | None = None,
    out: str | Path | None = None,
) -> Found:
    """Look for a leak under a sweep's traffic, then for one that is planted; what a point's notebook calls.

    Args:
        point: its candidate are the engine's settings.
        workload: as a params file has it; a closed loop, whose `duration_s` is that of the looking.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        every_s: between two looks.
        planted_s: seconds with the planted leak; default: as long as without.
        out: existing folder for looks.parquet and summary.json; None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit, before anything is measured.
    """
    traffic = spec.workload(workload)
    if traffic.arrivals.kind != "closed" or traffic.arrivals.clients is None:
        raise validation("workload", "looking for a leak takes a closed loop: arrivals: {kind: closed, clients: 8}")
    if size not in _SIZES_OF_RUNS:
        raise validation("params", f"size = {size!r}; give {' or '.join(_SIZES_OF_RUNS)}")
    settings = Settings.of(point.get("candidate") or {})
    wholes = [
        run(traffic, settings, duration_s=length_s, every_s=every_s, clients=traffic.arrivals.clients, seed=seed, planted=planted)
        for length_s, planted in (
            (traffic.duration_s, lambda: None),
            (planted_s or traffic.duration_s, planting(PLANTED_BYTES)),
        )
    ]
    frames = [pl.DataFrame(whole["looks"], infer_schema_length=None) for whole in wholes]
    looks = pl.concat([frame.with_columns(planted=pl.lit(place == 1)) for place, frame in enumerate(frames)], how="diagonal")
    real, planted = ({**whole["summary"], **_SIZES_OF_RUNS[size], "checks": whole["checks"]} for whole in wholes)
    summary = {
        **real,
        "size": size,
        "finding": size != "smoke",
        "planted": planted | {"planted_bytes": PLANTED_BYTES},
        "clients": traffic.arrivals.clients,
        "every_s": every_s,
        "corpus": wholes[0]["corpus"],
    }
    results.write_point(out, summary, {"looks": looks})
    return Found(summary=summary, looks=looks)


def planting(bytes_each: int) -> Planted:
    """Return what keeps so many bytes at every call and never gives them back: resident, and no more than that."""
    block, pages, room = b"\x5a" * bytes_each, [], [0]
    # Pages of their own, touched one after the other: a list or a bytearray would grow in jumps, and be found by those.

    def keep() -> None:
        if room[0] < bytes_each:
            pages.append(mmap.mmap(-1, _PLANTED_PAGES))
            room[0] = _PLANTED_PAGES
        pages[-1].write(block)
        room[0] -= bytes_each

    return keep


def summarise(looks: pl.DataFrame, *, warm_share: float = WARM_SHARE) -> dict[str, Any]:
    """Return the slope of resident memory with its interval, by hour and by operation, and what else grew.

    Args:
        looks: one row a look: `at_s`, `operations` done by then, `rss_bytes`, and further counts.
        warm_share: of the looks, left out at the beginning.
    Returns:
        `verdict` is `leak` where the interval of the slope over the operations lies above nought and, over two hours or more,
        `no leak` where that over time lies below 1 MB/h; anything else is `inconclusive`.
    """
    kept = looks[int(len(looks) * warm_share) :]
    hours = kept["at_s"].to_numpy() / _HOUR_S
    rss = trend(hours, kept["rss_bytes"].to_numpy())
    done = kept["operations"].to_numpy()
    each = trend(done, kept["rss_bytes"].to_numpy())
    span_s = float(kept["at_s"][-1] - kept["at_s"][0]) if len(kept) else 0.0
    later = kept[len(kept) // 2 :]
    verdict, why = _verdict(rss, each, trend(later["operations"].to_numpy(), later["rss_bytes"].to_numpy()), span_s)
    # Shared pages are shared out among whoever runs: the proportional size moves when others come and go.
    counted = [name for name in looks.columns if name not in ("at_s", "operations", "rss_bytes", "pss_bytes")]
    others = {
        name: _plain(trend(done, kept[name].to_numpy())) | {"first": float(kept[name][0]), "last": float(kept[name][-1])}
        for name in counted
        if len(kept) and kept[name].null_count() == 0
    }
    return {
        "looks": len(kept),
        "warm_up_looks": len(looks) - len(kept),
        "seconds": span_s,
        "operations": int(kept["operations"][-1] - kept["operations"][0]) if len(kept) else 0,
        "slope_mb_per_h": _scaled(rss, 1e-6),
        "bytes_per_operation": _scaled(each, 1.0),
        "autocorrelation": rss.autocorrelation,
        "effective_looks": rss.effective,
        "rss_mb": float(np.median(kept["rss_bytes"].to_numpy())) / 1e6 if len(kept) else None,
        "verdict": verdict,
        "why": why,
        "others_per_operation": others,
    }


def _verdict(rss: Trend, each: Trend, later: Trend, span_s: float) -> tuple[str, str]:
    low, high = rss.slope.low, rss.slope.high
    # By operation first: a busy host stretches the time, not what an operation leaves behind.
    surely = (each.slope.low or 0) > 0 and (each.theil_sen.low or 0) > 0 and (rss.theil_sen.low or 0) > 0
    # A leak goes on; what settles, such as an allocator, has grown in the first half of the looks. Few looks have no halves.
    goes_on = later.slope.value is None or (later.theil_sen.low or 0) > 0
    if surely and goes_on:
        return "leak", ""
    if low is None or high is None:
        return "inconclusive", rss.slope.note or ""
    if high >= BOUND_BYTES_PER_HOUR:
        return "inconclusive", f"up to {high / 1e6:.3g} MB/h cannot be ruled out; measure longer"
    if span_s < LONG_S:
        return "inconclusive", f"the promise of less than 1 MB/h needs {LONG_S / _HOUR_S:g} h, not {span_s / 60:.3g} min"
    return "no leak", ""


def _scaled(found: Trend, factor: float) -> dict[str, Any]:
    slope, check = found.slope, found.theil_sen

    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    return {
        "value": times(slope.value),
        "low": times(slope.low),
        "high": times(slope.high),
        "theil_sen": times(check.value),
        "note": slope.note,
    }


def _plain(found: Trend) -> dict[str, Any]:
    return {"value": found.slope.value, "low": found.slope.low, "high": found.slope.high}


def run(
    traffic: Workload,
    settings: Settings,
    *,
    duration_s: float,
    every_s: float,
    clients: int = 8,
    seed: int = 1,
    database: Path | None = None,
    mix_name: str = "",
    progress: Progress | None = None,
    planted: Planted = lambda: None,
) -> dict[str, Any]:
    """Send the traffic from a few clients, look at the process again and again, and return what grew.

    Args:
        every_s: between two looks; the traffic rests while it is looked.
        planted: called after each operation, to plant a leak.
    """
    leaking = _Leak(traffic, settings, seed, progress, duration_s=duration_s, every_s=every_s, clients=clients, planted=planted)
    return leaking.whole(database, mix_name)


class _Leak(FilledRun):
    """Sends, rests, looks, and begins again."""

    def __init__(
        self,
        traffic: Workload,
        settings: Settings,
        seed: int,
        progress: Progress | None,
        *,
        duration_s: float,
        every_s: float,
        clients: int,
        planted: Planted,
    ) -> None:
        super().__init__(traffic, settings, seed, progress)
        self._duration_s = duration_s
        self._every_s = every_s
        self._clients = clients
        self._planted = planted
        self._done = self._failed = 0

    async def measure(self, engine: Engine, mix: Mix, oracle: Oracle, counter: InFlight) -> dict[str, Any]:
        """Return the summary and every look."""
        calls = mix.calls(_CALLS, self.seed)
        began = clock.monotonic_ns()
        looks = _Looks(int(self._duration_s / self._every_s) + 4 * _LEAST_LOOKS)
        place = 0

        def take(one: Sent) -> None:
            self._done += 1
            self._failed += one.sample.outcome != "ok"
            self._planted()

        self.progress.begin("looking for a leak", self._duration_s)
        spent_s = 0.0
        # A slope needs some looks, however slow the machine is.
        while (spent_s < self._duration_s or len(looks) < _LEAST_LOOKS) and not self.stopping.is_set():
            turned = calls[place:] + calls[:place]
            lane = Lane(turned, None, clients=self._clients, duration_s=self._every_s, deadline_s=self.traffic.deadline_s)
            before = self._done
            await drive(engine.execute, lane, counter, sink=take, stop=self.stopping)
            counter.mean()
            place = (place + self._done - before) % len(calls)
            del turned, lane
            spent_s = (clock.monotonic_ns() - began) / 1e9
            looks.add(self._look(engine, spent_s))
            self.progress.update(min(spent_s, self._duration_s), self._done, self._failed)
        nothing = {"verdict": "inconclusive", "why": "nothing was measured"}
        summary: dict[str, Any] = summarise(looks.frame()) if len(looks) else nothing
        summary["cut_short"] = self.stopping.is_set()
        summary["failed"] = self._failed
        return {"summary": summary, "looks": looks.frame().to_dicts() if len(looks) else []}

    def _look(self, engine: Engine, at_s: float) -> dict[str, Any]:
        held = msgspec.structs.asdict(look())
        database = float(engine.storage.database_bytes())
        return {"at_s": at_s, "operations": self._done, **held, "database_bytes": database, **_counts(engine.statistics())}


class _Looks:
    """Looks in memory that is taken before the first of them: a list of them grew by three kilobytes a look, and was found.

    Args:
        room: looks expected; more make room for as many again.
    """

    def __init__(self, room: int) -> None:
        self._names: list[str] = []
        self._values = np.full((room, _MOST_COUNTS), np.nan)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, look: Mapping[str, float | None]) -> None:
        """Keep the values of a look; all have the same names."""
        self._names = self._names or list(look)
        if self._count == len(self._values):
            self._values = np.concatenate([self._values, np.full_like(self._values, np.nan)])
        for place, value in enumerate(look.values()):
            self._values[self._count, place] = np.nan if value is None else value
        self._count += 1

    def frame(self) -> pl.DataFrame:
        """Return a row for each look; null where the system did not tell."""
        columns = dict(zip(self._names, self._values[: self._count].T, strict=False))
        whole = [name for name in self._names if name != "at_s"]
        return pl.DataFrame(columns).fill_nan(None).with_columns(pl.col(whole).cast(pl.Int64))


def _counts(statistics: Mapping[str, Any]) -> dict[str, float]:
    """Return the sizes among an engine's counts: what is held now, not what was counted since the beginning."""
    held = {}
    for part in ("cache", "storage"):
        for name, value in (statistics.get(part) or {}).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and name.endswith(_SIZES):
                held[f"{part}_{name}"] = float(value)
    return held


def as_text(whole: Mapping[str, Any]) -> str:
    """Return what was found for a terminal."""
    summary = whole["summary"]
    if "looks" not in summary:
        return f"{summary['verdict']}: {summary['why']}"
    lines = [
        f"{summary['verdict']}"
        + (f": {summary['why']}" if summary["why"] else "")
        + (" (cut short)" if summary["cut_short"] else ""),
        f"  resident   {_line(summary['slope_mb_per_h'], 'MB/h')}",
        f"             {_line(summary['bytes_per_operation'], 'bytes an operation')}",
        f"  looks      {summary['looks']} after {summary['warm_up_looks']} of warm-up, worth {summary['effective_looks']:.1f}; "
        f"{summary['seconds']:.0f} s, {summary['operations']:,} operations, {summary['failed']:,} failed",
    ]
    grew = [name for name, row in summary["others_per_operation"].items() if row["low"] is not None and row["low"] > 0]
    lines.append(f"  also grew  {', '.join(grew) if grew else 'nothing that was counted'}")
    return "\n".join(lines)


def _line(row: Mapping[str, Any], unit: str) -> str:
    if row["value"] is None:
        return row["note"] or "too few"
    between = f" (95 % interval {row['low']:.3g} to {row['high']:.3g})" if row["low"] is not None else f" ({row['note']})"
    return f"{row['value']:.3g} {unit}{between}; Theil-Sen {row['theil_sen']:.3g}"
