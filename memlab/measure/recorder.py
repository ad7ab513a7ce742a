"""Raw samples, kept: one for each call, in columns that only grow."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import polars as pl

Outcome: TypeAlias = Literal["ok", "refused", "timeout", "error", "unknown"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "refused", "timeout", "error", "unknown")
PHASES = ("embed", "vector", "text", "fuse", "fetch", "write")


class Sample(msgspec.Struct, frozen=True, gc=False):
    """What became of one call.

    Attributes:
        setting: `reference` or `candidate`; whose engine answered.
        repeat: of the setting, from 0.
        warm_up: sent before the measured time began; kept, and out of the statistics.
        intended_ns: when the call was due; response time counts from here.
        started_ns, finished_ns: when it was sent, when its answer came; in the same clock.
        outcome: `refused` for want of room, `timeout` past its deadline, `error`, or `unknown`: a write that may have happened.
        error: the failure's reason; None where *outcome* is ok.
        recall_at_10: share of the exact answers that it found; None where it was not judged.
        phases: nanoseconds by phase; None where nothing was executed.
    """

    operation: str
    session: str
    intended_ns: int
    started_ns: int
    finished_ns: int
    outcome: Outcome = "ok"
    error: str | None = None
    cached: bool = False
    batch_size: int = 1
    setting: str = "candidate"
    repeat: int = 0
    warm_up: bool = False
    recall_at_10: float | None = None
    phases: Mapping[str, int] | None = None


class Recorder:
    """Takes samples from any thread and never changes one; a row costs about 100 bytes and a few microseconds.

    >>> recorder = Recorder()
    >>> recorder.add(Sample("episodic.recall", "default", intended_ns=0, started_ns=10, finished_ns=250))
    >>> recorder.to_polars()["finished_ns"].to_list()
    [250]
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._codes: dict[str | None, int] = {}
        self._words = {name: array("i") for name in ("operation", "session", "setting", "outcome", "error")}
        self._numbers = {name: array("q") for name in ("intended_ns", "started_ns", "finished_ns", "batch_size", "repeat")}
        self._flags = {name: array("b") for name in ("warm_up", "cached")}
        self._recall: dict[int, float] = {}
        self._phases: list[Mapping[str, int] | None] = []

    def __len__(self) -> int:
        return len(self._phases)

    def add(self, sample: Sample) -> None:
        """Append one sample."""
        codes, words, numbers, flags = self._codes, self._words, self._numbers, self._flags
        with self._lock:
            if sample.recall_at_10 is not None:
                self._recall[len(self._phases)] = sample.recall_at_10
            words["operation"].append(codes.setdefault(sample.operation, len(codes)))
            words["session"].append(codes.setdefault(sample.session, len(codes)))
            words["setting"].append(codes.setdefault(sample.setting, len(codes)))
            words["outcome"].append(codes.setdefault(sample.outcome, len(codes)))
            words["error"].append(codes.setdefault(sample.error, len(codes)))
            numbers["intended_ns"].append(sample.intended_ns)
            numbers["started_ns"].append(sample.started_ns)
            numbers["finished_ns"].append(sample.finished_ns)
            numbers["batch_size"].append(sample.batch_size)
            numbers["repeat"].append(sample.repeat)
            flags["warm_up"].append(sample.warm_up)
            flags["cached"].append(sample.cached)
            self._phases.append(sample.phases)

    def to_polars(self) -> pl.DataFrame:
        """Return every sample, in the order of arrival, in the columns of samples.parquet."""
        with self._lock:
            rows = len(self._phases)
            words = pl.Series(list(self._codes), dtype=pl.String)
            columns = [words.gather(pl.Series(codes, dtype=pl.UInt32)).alias(name) for name, codes in self._words.items()]
            columns += [pl.Series(name, values, dtype=pl.Int64) for name, values in self._numbers.items()]
            columns += [pl.Series(name, values, dtype=pl.Int8).cast(pl.Boolean) for name, values in self._flags.items()]
            columns.append(pl.Series("recall_at_10", [self._recall.get(row) for row in range(rows)], dtype=pl.Float64))
            known = (*PHASES, *sorted({name for phases in self._phases if phases for name in phases} - set(PHASES)))
            executed = pl.Series("executed", [bool(phases) for phases in self._phases], dtype=pl.Boolean)
            spent = pl.DataFrame(
                {name: [phases.get(name) if phases else None for phases in self._phases] for name in known},
                schema=dict.fromkeys(known, pl.Int64),
            ).to_struct("phases")
        frame = pl.DataFrame([*columns, spent, executed])
        return frame.select(
            *(name for name in sample_schema() if name != "phases"),
            pl.when("executed").then("phases").otherwise(None).alias("phases"),
        )


def sample_schema(phases: tuple[str, ...] = PHASES) -> pl.Schema:
    """Return the columns of samples.parquet with their types."""
    columns: dict[str, pl.DataType | type[pl.DataType]] = {
        "operation": pl.String,
        "session": pl.String,
        "setting": pl.String,
        "repeat": pl.Int64,
        "warm_up": pl.Boolean,
        "intended_ns": pl.Int64,
        "started_ns": pl.Int64,
        "finished_ns": pl.Int64,
        "outcome": pl.String,
        "error": pl.String,
        "cached": pl.Boolean,
        "batch_size": pl.Int64,
        "recall_at_10": pl.Float64,
        "phases": pl.Struct(dict.fromkeys(phases, pl.Int64)),
    }
    return pl.Schema(columns)


def write_samples(samples: pl.DataFrame, path: Path) -> None:
    """Write *samples* as parquet."""
    samples.write_parquet(path, compression="zstd")
