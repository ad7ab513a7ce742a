"""Figures of a comparison, computed from its raw samples and nothing else that could not be kept beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.experiment.load import DriverCost
from memlab.measure import stats
from memlab.measure.stats import Interval
from memlab.operations.registry import lookup

SETTINGS = ("reference", "candidate")
FIGURES = ("p50", "p95", "mean", "throughput")
_LEAST_HEADROOM = 5.0


class Window(msgspec.Struct, frozen=True):
    """The measured time of one repeat of one setting.

    Attributes:
        start_ns, end_ns: in the clock of the samples.
        in_flight: mean of the counter that another process sampled; None where it took no sample.
    """

    setting: str
    repeat: int
    start_ns: int
    end_ns: int
    in_flight: float | None = None

    @property
    def seconds(self) -> float:
        """Return how long it lasted."""
        return (self.end_ns - self.start_ns) / 1e9


def lane_summary(
    samples: pl.DataFrame,
    windows: Sequence[Window],
    driver: DriverCost,
    *,
    cached: Mapping[str, bool],
    batched: Mapping[str, bool],
) -> dict[str, Any]:
    """Return reference, candidate, ratio, verdict, by_repeat, driver, offered_per_s and suspect of one lane.

    Args:
        samples: in the columns of samples.parquet.
        windows: one for every setting and repeat.
        cached, batched: by setting, whether its cache and its batching are on.
    """
    sides = {name: _Side(samples, [one for one in windows if one.setting == name], name) for name in SETTINGS}
    figures = {name: side.figures(cached=cached[name], batched=batched[name]) for name, side in sides.items()}
    reference, candidate = sides["reference"], sides["candidate"]
    ratios = {
        "p50": stats.ratio(reference.responses, candidate.responses, 0.5),
        "p95": stats.ratio(reference.responses, candidate.responses, 0.95),
        "mean": stats.ratio(reference.responses, candidate.responses, "mean"),
        "throughput": stats.rate_ratio((reference.answered, reference.seconds), (candidate.answered, candidate.seconds)),
    }
    offered = sum(map(len, reference.measured)) / sum(reference.seconds)
    return {
        **figures,
        "offered_per_s": offered,
        "ratio": {name: interval.to_dict() for name, interval in ratios.items()},
        "verdict": {name: stats.verdict(interval, smaller_is_better=name != "throughput") for name, interval in ratios.items()},
        "by_repeat": [_by_repeat(repeat, reference, candidate) for repeat in range(len(reference.seconds))],
        "driver": _driver(driver, samples, max(offered, *(sum(side.answered) / sum(side.seconds) for side in sides.values()))),
        "suspect": _suspect(figures, driver, sides),
    }


class _Side:
    """One setting's samples, by repeat."""

    def __init__(self, samples: pl.DataFrame, windows: Sequence[Window], setting: str) -> None:
        self.windows = sorted(windows, key=lambda window: window.repeat)
        mine = samples.filter(pl.col("setting") == setting).with_columns(
            response_ms=(pl.col("finished_ns") - pl.col("intended_ns")) / 1e6,
            service_ms=(pl.col("finished_ns") - pl.col("started_ns")) / 1e6,
            ok=pl.col("outcome") == "ok",
            reads=pl.col("operation").replace_strict(_reads(samples), return_dtype=pl.Boolean),
            executed=pl.col("phases").is_not_null(),
        )
        self.all = mine.filter(~pl.col("warm_up"))
        self.measured = [self.all.filter(pl.col("repeat") == window.repeat) for window in self.windows]
        self.ok = [part.filter("ok") for part in self.measured]
        self.responses = [part["response_ms"].to_numpy() for part in self.ok]
        self.services = [part["service_ms"].to_numpy() for part in self.ok]
        self.seconds = [window.seconds for window in self.windows]
        # Answers that came in the measured time, whenever they were asked: an overloaded engine must not be credited with
        # what it answers after the end.
        self.answered = [
            float(
                mine.filter(pl.col("ok") & pl.col("finished_ns").is_between(window.start_ns, window.end_ns, closed="left")).height
            )
            for window in self.windows
        ]

    def figures(self, *, cached: bool, batched: bool) -> dict[str, Any]:
        pooled = np.concatenate(self.responses)
        failures = self.all.height - int(self.all["ok"].sum())
        return {
            "samples": self.all.height,
            "ok": self.all.height - failures,
            "outcomes": dict(self.all["outcome"].value_counts(sort=True).iter_rows()),
            "failure_ratio": stats.share(failures, self.all.height).to_dict(),
            "throughput_per_s": stats.quotient(self.answered, self.seconds).to_dict(),
            "p50_ms": stats.percentile(pooled, 0.5).to_dict(),
            "p95_ms": stats.percentile(pooled, 0.95).to_dict(),
            "p99_ms": stats.percentile(pooled, 0.99).to_dict(),
            "mean_ms": _mean(self.responses).to_dict(),
            "service_p50_ms": stats.percentile(
                np.concatenate([part["service_ms"].to_numpy() for part in self.ok]), 0.5
            ).to_dict(),
            "hit_ratio": self._hit_ratio().to_dict() if cached else None,
            "mean_batch_size": self._batch_size().to_dict() if batched else None,
            "recall_at_10": self._recall(),
            "littles_law": self._littles_law().to_dict(),
            "phases_ms": self._phases(),
            "by_operation": {str(name): self._operation(str(name)) for name in self.all["operation"].unique().sort()},
        }

    def _hit_ratio(self) -> Interval:
        reads = [part.filter("reads") for part in self.ok]
        return stats.quotient([float(part["cached"].sum()) for part in reads], [float(part.height) for part in reads])

    def _batch_size(self) -> Interval:
        """Return calls over batches: a call in a batch of n stands for 1/n of it."""
        executed = [part.filter("executed")["batch_size"].to_numpy() for part in self.ok]
        return stats.quotient([float(len(sizes)) for sizes in executed], [float((1 / sizes).sum()) for sizes in executed])

    def _recall(self) -> dict[str, Any] | None:
        judged = [part["recall_at_10"].drop_nulls().to_numpy() for part in self.ok]
        return _mean(judged).to_dict() if any(len(values) for values in judged) else None

    def _littles_law(self) -> stats.LittlesLaw:
        seen = [math.nan if window.in_flight is None else window.in_flight for window in self.windows]
        rates = [part.height / seconds for part, seconds in zip(self.measured, self.seconds, strict=True)]
        responses = [float(part["response_ms"].mean() or 0.0) / 1e3 for part in self.measured]  # type: ignore[arg-type]
        return stats.littles_law(seen, rates, responses)

    def _phases(self) -> dict[str, float]:
        """Return the mean milliseconds that an executed call waited for each phase of its batch."""
        spent = self.all.filter(pl.col("ok") & pl.col("executed"))["phases"].struct.unnest()
        means = {name: spent[name].fill_null(0).mean() for name in spent.columns if spent[name].is_not_null().any()}
        return {name: float(mean) / 1e6 for name, mean in means.items() if isinstance(mean, (int, float))}

    def _operation(self, name: str) -> dict[str, Any]:
        parts = [part.filter(pl.col("operation") == name) for part in self.measured]
        times = [part.filter("ok")["response_ms"].to_numpy() for part in parts]
        count = sum(part.height for part in parts)
        pooled = np.concatenate(times)
        return {
            "samples": count,
            "p50_ms": stats.percentile(pooled, 0.5).to_dict(),
            "p95_ms": stats.percentile(pooled, 0.95).to_dict(),
            "mean_ms": _mean(times).to_dict(),
            "failure_ratio": stats.share(count - len(pooled), count).to_dict(),
        }


def _reads(samples: pl.DataFrame) -> dict[str, bool]:
    return {name: lookup(name).reads for name in samples["operation"].unique().to_list()}


def _mean(groups: Sequence[npt.NDArray[np.float64]]) -> Interval:
    """Return the mean over repeats; repeats without samples do not count."""
    return stats.mean([group for group in groups if len(group)])


def _by_repeat(repeat: int, reference: _Side, candidate: _Side) -> dict[str, Any]:
    below, above = reference.responses[repeat], candidate.responses[repeat]
    row: dict[str, Any] = {"repeat": reference.windows[repeat].repeat}
    for name, q in (("p50", 0.5), ("p95", 0.95)):
        values = stats.percentile(below, q).value, stats.percentile(above, q).value
        row[f"{name}_ratio"] = None if values[0] is None or values[1] is None else values[1] / values[0]
    row["mean_ratio"] = float(above.mean() / below.mean()) if len(above) and len(below) else None
    rates = [side.answered[repeat] / side.seconds[repeat] for side in (reference, candidate)]
    row["throughput_ratio"] = rates[1] / rates[0] if rates[0] else None
    return row


def _driver(driver: DriverCost, samples: pl.DataFrame, rate_per_s: float) -> dict[str, Any]:
    late = samples.filter(~pl.col("warm_up")).select((pl.col("started_ns") - pl.col("intended_ns")) / 1e6).to_series().to_numpy()
    return {
        "call_us": driver.call_us,
        "rate_per_s": driver.rate_per_s,
        "headroom": driver.rate_per_s / rate_per_s if rate_per_s else None,
        "share": driver.call_us * 1e-6 * rate_per_s,
        "late_p50_ms": stats.percentile(late, 0.5).value,
        "late_p99_ms": stats.percentile(late, 0.99).value,
    }


def _suspect(figures: Mapping[str, Any], driver: DriverCost, sides: Mapping[str, _Side]) -> list[str]:
    """Return why the lane's figures may not be trusted."""
    found: list[str] = []
    for name, side in sides.items():
        law = figures[name]["littles_law"]
        if law["holds"] is False:
            found.append(
                f"{name}: {law['in_flight']:.3g} calls in flight, where throughput and response time say {law['expected']:.3g}: "
                "unsteady, or overloaded"
            )
        rate = max(sum(side.answered), side.all.height) / sum(side.seconds)
        if rate * _LEAST_HEADROOM > driver.rate_per_s:
            found.append(
                f"{name}: at {rate:,.0f} calls/s the driver, good for {driver.rate_per_s:,.0f}, is part of what is measured"
            )
    return found


def summarise(
    samples: pl.DataFrame,
    windows: Sequence[Window],
    driver: DriverCost,
    *,
    settings: Mapping[str, Mapping[str, Any]],
    size: Literal["quick", "smoke"],
    values: Mapping[str, Any],
    corpus: Mapping[str, Any],
    embedder: str,
    asked: Mapping[str, Any],
    statistics: Mapping[str, Any] | None = None,
    closed: pl.DataFrame | None = None,
    closed_windows: Sequence[Window] = (),
    clients: int | None = None,
) -> dict[str, Any]:
    """Return everything that a comparison says, as plain values for a JSON file.

    Args:
        settings: reference and candidate, in full.
        values: the point's place in the grid.
        asked: what the measured traffic was: calls, distinct_questions, reads, writes.
        statistics: by setting, the engine's own counts at the end.
        closed, closed_windows, clients: of the closed loop beside the open one.
    """
    on = {part: {name: bool(settings[name].get(part)) for name in SETTINGS} for part in ("cache", "batch")}
    main = lane_summary(samples, windows, driver, cached=on["cache"], batched=on["batch"])
    beside = None
    if closed is not None:
        beside = lane_summary(closed, closed_windows, driver, cached=on["cache"], batched=on["batch"])
        beside["clients"] = clients
    for name in SETTINGS:
        main[name]["statistics"] = dict((statistics or {}).get(name, {}))
    repeats = len({window.repeat for window in windows})
    why_not = _why_not(main, size, repeats)
    return {
        "size": size,
        "repeats": repeats,
        "null": settings["reference"] == settings["candidate"],
        "finding": not why_not,
        "why_not": why_not,
        "values": dict(values),
        "embedder": embedder,
        "corpus": dict(corpus),
        "asked": dict(asked),
        **main,
        "closed": beside,
        "windows": [msgspec.structs.asdict(window) for window in windows],
        "closed_windows": [msgspec.structs.asdict(window) for window in closed_windows],
    }


def _why_not(main: Mapping[str, Any], size: str, repeats: int) -> list[str]:
    """Return what keeps a comparison from being the ground of a finding."""
    reasons = []
    if size == "smoke":
        reasons.append("a smoke run only proves that it runs")
    if repeats < stats.FEWEST_REPEATS:
        reasons.append(f"{repeats} repeats of {stats.FEWEST_REPEATS}")
    if main["ratio"]["p50"]["value"] is None:
        reasons.append(f"p50 {main['ratio']['p50']['note']}")
    return reasons + list(main["suspect"])
