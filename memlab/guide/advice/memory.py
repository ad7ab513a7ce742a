"""What settings save of resident memory: the Performance Report's chapter, with the rule that follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memlab.experiment.results import Run
from memlab.guide import chapters
from memlab.guide.chapter import Chapter, at, by, said
from memlab.settings import Settings


def chapter(runs: Sequence[Run]) -> Chapter:
    """What settings save of resident memory, and which to copy."""
    told = chapters.memory(runs)
    chosen = _chosen(runs)
    return told._replace(rule=_rule(runs, chosen), settings=_changed(chosen) if chosen else {})


def _chosen(runs: Sequence[Run]) -> Run | None:
    """Return the run that saves most of what the store adds, surely and at the recall that was asked for; None: none does."""
    sure = [
        run
        for run in runs
        if run.summary["finding"]
        and run.summary["same_work"]
        and run.summary["verdict"]["own_steady"] == "better"
        and (run.summary["candidate"]["recall_at_10"] or {"value": 0.0})["value"] >= run.summary["recall_target"]
    ]
    return max(sure, key=lambda run: run.summary["reduction"]["own_steady"]["value"], default=None)


def _changed(run: Run) -> dict[str, Any]:
    """Return what the candidate sets otherwise than the defaults, by dotted key."""
    defaults = Settings().to_dict()
    return {
        f"{section}.{name}": value
        for section, table in run.settings["candidate"].items()
        if table is not None
        for name, value in table.items()
        if defaults[section][name] != value
    }


def _rule(runs: Sequence[Run], chosen: Run | None) -> str:
    if any(run.summary["size"] == "smoke" for run in runs):
        return ""
    if chosen is None:
        return (
            "Leave the defaults: none of the bounded settings was seen to take less of what the store adds at the "
            f"recall that was asked for. Holds for {at(runs[0], 'memories', ',')} memories{by(runs[0])}."
        )
    return (
        f"Where memory is short, hold vectors as {said(chosen, chosen.summary['candidate']['kind'])} and bound "
        f"cache, hot rows and buffers: {at(chosen, 'reduction.own_steady', '.0%±')} less of what the store adds, "
        f"{at(chosen, 'reduction.steady', '.0%±')} less of the whole process. Holds for "
        f"{at(chosen, 'memories', ',')} memories; the fewer there are, the more of a process is libraries, which no "
        f"setting gives back. What it costs in time was not asked here: measure it before copying{by(chosen)}."
    )
