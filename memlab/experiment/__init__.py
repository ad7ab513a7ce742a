"""Experiments: drive an engine, compare two settings, walk a grid, keep and find runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memlab.experiment.comparison import Measurement, compare, measure_point
    from memlab.experiment.results import Run
    from memlab.experiment.sweep import Sweep

__all__ = ["Measurement", "Run", "Sweep", "compare", "measure_point"]

# Loaded when first asked for: a process that only starts a notebook has no use for an engine.
_HOMES = {"Measurement": "comparison", "Run": "results", "Sweep": "sweep", "compare": "comparison", "measure_point": "comparison"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'memlab.experiment' has no attribute {name!r}")
    return getattr(importlib.import_module(f"memlab.experiment.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
