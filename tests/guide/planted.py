"""Runs whose truth is known: response times drawn from chosen distributions, their ratios by the laboratory's own statistics."""

import copy
import functools
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from memlab.experiment.planted import plant
from memlab.experiment.sweep import Sweep
from memlab.measure import stats
from memlab.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def _base(size):
    """One planted run of equals, made by the laboratory from samples."""
    params = "04-before-after.smoke.yaml" if size == "smoke" else "04-before-after.yaml"
    with tempfile.TemporaryDirectory() as folder:
        (run,) = plant(Sweep.load(ROOT / "params" / params), Path(folder))
    return run


def run(
    rng,
    *,
    ratio=1.0,
    reference=None,
    candidate=None,
    parameters=None,
    size="quick",
    repeats=8,
    each=120,
    spread=0.05,
    figures=None,
    **fields,
):
    """A run whose candidate's response times are *ratio* times the reference's, while repeats vary by *spread*.

    *figures* names the ratios that are drawn; the others stay those of equals.
    """
    parameters = parameters or {}
    settings = {
        "reference": Settings.of({"cache": None} if reference is None else reference).to_dict(),
        "candidate": Settings.of(parameters if candidate is None else candidate).to_dict(),
    }
    times = {
        setting: [factor * np.exp(rng.normal(0, spread) + rng.normal(0.7, 0.5, each)) for _ in range(repeats)]
        for setting, factor in (("reference", 1.0), ("candidate", ratio))
    }
    base = _base(size)
    summary = copy.deepcopy(base.summary)
    summary |= {"null": settings["reference"] == settings["candidate"], "repeats": repeats, "values": parameters}
    if repeats < stats.FEWEST_REPEATS:
        summary |= {"finding": False, "why_not": ["too few repeats"]}
    for figure in figures or ("p50", "p95", "mean"):
        interval = stats.ratio(times["reference"], times["candidate"], {"p50": 0.5, "p95": 0.95, "mean": "mean"}[figure])
        summary["ratio"][figure] = interval.to_dict()
        summary["verdict"][figure] = stats.verdict(interval, smaller_is_better=True)
    fields = {"experiment": "01-cache-size", **fields}
    key = f"{rng.integers(1 << 62):016x}"
    return msgspec.structs.replace(
        base, key=key, parameters=parameters, settings=settings, repeats=repeats, summary=summary, **fields
    )


def suspect(planted):
    """The same run, marked suspect."""
    reason = "reference: unsteady"
    summary = {**planted.summary, "suspect": [reason], "finding": False, "why_not": [reason]}
    return msgspec.structs.replace(planted, summary=summary)
