"""How far runs of one setting lie apart on this host, and what a comparison of two runs says beside that.

Loads of the reference, each with a database of its own, and one of the candidate among them, in random order: the A/A runs give
the noise floor, the pairs show what each verdict looks like on runs that are kept.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from memlab.errors import validation
from memlab.experiment import load_run, results, run_comparison
from memlab.experiment.results import Run
from memlab.experiment.run_comparison import FIGURES, Comparison, compare_runs, gate, noise_floor
from memlab.settings import Settings
from memlab.workload import spec


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: the floor by figure, and by name each comparison with its verdict.
        ratios: one row a figure and pair: A/A, or candidate over reference, with interval and floor.
    """

    summary: dict[str, Any]
    ratios: pl.DataFrame


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 3,
    size: str = "smoke",
    out: str | Path | None = None,
) -> Noise:
    """Send the same load to the reference again and again and to the candidate once, and compare; what a notebook calls.

    Args:
        point: `reference` and `candidate`, settings over the defaults.
        workload: as a params file has it.
        repeats: loads of the reference.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        out: existing folder that keeps the loads as runs, and summary.json; None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit, before anything is measured.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="memlab-noise-") as folder:
            return measure_point(point, workload=workload, seed=seed, repeats=repeats, size=size, out=folder)
    fewest = run_comparison.FEWEST_FLOOR_RUNS
    if repeats < fewest:
        raise validation("params", f"repeats = {repeats}: a noise floor takes {fewest} runs of one setting or more")
    traffic = spec.workload(workload)
    settings = {name: Settings.of(point.get(name) or {}) for name in ("reference", "candidate")}
    order = ["reference"] * (repeats - 1) + ["candidate"]
    random.Random(seed).shuffle(order)
    runs: dict[str, list[Run]] = {"reference": [], "candidate": []}
    for name in ("reference", *order):
        measured = load_run.run(traffic, settings[name], seed=seed, keep_in=Path(out), mix_name=name)
        if measured.run is None or measured.summary["checks"]["holds"] is not True:
            raise validation("run", f"a load of the {name} lost what it had acknowledged, and cannot be compared")
        runs[name].append(measured.run)
    comparisons = _comparisons(runs["reference"], runs["candidate"][0])
    summary: dict[str, Any] = {
        "size": size,
        "finding": size != "smoke",
        "runs": [run.id for run in runs["reference"]],
        "floor": {figure: _floor(runs["reference"], figure) for figure in FIGURES},
        "figures": {
            f"{name}_{place}": {figure: {"value": value} for figure, value in run_comparison.figures_of(run).items()}
            for name, made in runs.items()
            for place, run in enumerate(made)
        },
        "comparisons": comparisons,
    }
    results.write_point(out, summary)
    return Noise(summary=summary, ratios=_ratios(comparisons))


def _floor(runs: list[Run], figure: str) -> float | None:
    return noise_floor([[run_comparison.repeats_of(run, figure) for run in runs]])


def _comparisons(same: list[Run], other: Run) -> dict[str, Any]:
    """Return what two runs are called in each case that there is, by name."""
    elsewhere = msgspec.structs.replace(other, host={**other.host, "id": "another", "cpu": "another processor"})
    made = {
        "reference against itself": compare_runs(same[0], same[-1], same),
        "candidate against reference": compare_runs(same[0], other, same),
        "reference against candidate": compare_runs(other, same[0], same),
        "candidate from another host": compare_runs(same[0], elsewhere, same),
        "candidate without a noise floor": compare_runs(same[0], other),
    }
    return {name: _plain(compared) for name, compared in made.items()}


def _plain(compared: Comparison) -> dict[str, Any]:
    verdict, why = gate(compared)
    return {
        **compared.to_dict(),
        "figures": {one.figure: msgspec.to_builtins(one) for one in compared.figures},
        "gate": {"verdict": verdict, "why": why},
    }


def _ratios(comparisons: Mapping[str, Any]) -> pl.DataFrame:
    rows = [
        {
            "pair": name,
            "figure": figure,
            **{end: one["ratio"][end] for end in ("value", "low", "high")},
            "floor": one["floor"],
            "p_value": one["p_value"],
            "verdict": one["verdict"],
            "why": one["why"],
        }
        for name in ("reference against itself", "candidate against reference")
        for figure, one in comparisons[name]["figures"].items()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)
