"""Runs with a known truth: what a finding must say of them is decided beforehand.

With no effect planted every comparison is of equals, and whatever is found is made of noise: each finding must then say "no
difference seen". With one planted it must be seen.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memlab.experiment import results
from memlab.experiment.load import DriverCost
from memlab.experiment.results import Run
from memlab.experiment.summary import SETTINGS, Window, summarise
from memlab.experiment.sweep import Point, Sweep, run_of
from memlab.measure import clock
from memlab.measure.recorder import sample_schema, write_samples

Effect = Callable[[Point], float]
_WINDOW_NS = 1_000_000_000
_TYPICAL_MS, _SPREAD = 2.0, 0.5  # of response times, which are log-normal
_REPEATS_DIFFER = 0.05  # by which whole repeats differ, as they do on a shared host


def no_effect(point: Point) -> float:
    """Return 1: the candidate is what the reference is."""
    return 1.0


def plant(sweep: Sweep, folder: Path, *, effect: Effect = no_effect, samples: int = 300, seed: int = 1) -> list[Run]:
    """Keep a made-up run for every point of a sweep, and return them.

    Args:
        folder: of results.
        effect: by which a point's candidate takes longer than the reference; below 1 it is faster.
        samples: calls of one setting in one repeat.
    """
    return [
        _keep(sweep, point, folder, effect(point), samples, np.random.default_rng([seed, place]))
        for place, point in enumerate(sweep.points())
    ]


def _keep(sweep: Sweep, point: Point, folder: Path, effect: float, count: int, chance: np.random.Generator) -> Run:
    settings = {"reference": point.reference.to_dict(), "candidate": point.candidate.to_dict()}
    repeats = range(sweep.repeats)
    parts = [
        _samples(name, repeat, settings[name], effect if name == "candidate" else 1.0, count, chance)
        for repeat in repeats
        for name in SETTINGS
    ]
    samples = pl.concat(parts)
    windows = [
        Window(name, repeat, *_window(repeat), _in_flight(samples, name, repeat)) for repeat in repeats for name in SETTINGS
    ]
    summary = summarise(
        samples,
        windows,
        DriverCost(8.0, 125_000.0),
        settings=settings,
        size=sweep.size,
        values=point.values,
        corpus={"name": "planted", "events": 0, "sessions": 1, "questions": 0, "bytes": 0},
        embedder="hashing",
        asked={"calls": count * sweep.repeats, "distinct_questions": 0, "reads": count * sweep.repeats, "writes": 0},
    )
    now = clock.now()
    with results.draft(folder, sweep.experiment, sweep.key(point)) as made:
        write_samples(samples, made / "samples.parquet")
        shutil.copyfile(sweep.notebook, made / "notebook.ipynb")
        return results.keep(made, run_of(sweep, point, started=now, finished=now, summary=summary), folder)


def _window(repeat: int) -> tuple[int, int]:
    return repeat * 2 * _WINDOW_NS, (repeat * 2 + 1) * _WINDOW_NS


def _samples(
    name: str, repeat: int, settings: dict[str, Any], effect: float, count: int, chance: np.random.Generator
) -> pl.DataFrame:
    start, end = _window(repeat)
    due = np.sort(chance.integers(start, end - _WINDOW_NS // 20, size=count))
    shift = chance.normal(0.0, _REPEATS_DIFFER)
    took = np.exp(np.log(_TYPICAL_MS * effect) + shift + chance.normal(0.0, _SPREAD, size=count)) * 1e6
    cached = chance.random(count) < (0.5 if settings["cache"] else 0.0)
    sizes = chance.integers(1, 4, size=count) if settings["batch"] else np.ones(count, dtype=np.int64)
    columns = {
        "operation": ["episodic.recall"] * count,
        "session": ["planted"] * count,
        "setting": [name] * count,
        "repeat": [repeat] * count,
        "warm_up": [False] * count,
        "intended_ns": due,
        "started_ns": due,
        "finished_ns": due + took.astype(np.int64),
        "outcome": ["ok"] * count,
        "error": [None] * count,
        "cached": cached,
        "batch_size": sizes,
        "recall_at_10": [1.0] * count,
        "phases": [None if hit else {"fetch": 1_000} for hit in cached],
    }
    return pl.DataFrame(columns, schema=sample_schema())


def _in_flight(samples: pl.DataFrame, name: str, repeat: int) -> float:
    """Return the mean in flight that these samples amount to: Little's law holds of what is made up."""
    mine = samples.filter((pl.col("setting") == name) & (pl.col("repeat") == repeat))
    return float((mine["finished_ns"] - mine["intended_ns"]).sum()) / _WINDOW_NS
