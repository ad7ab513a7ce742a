"""How near a search comes to the best settings, what its models said, and what the duel decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from memlab import charts
from memlab.experiment.results import Run
from memlab.guide.chapter import ENDS, Chapter, at, by, chart, ends, said
from memlab.guide.figures import name_run
from memlab.guide.tables import table
from memlab.settings import Settings

_DUEL = {
    "better": "the defaults are beaten",
    "worse": "the defaults are better",
    "no difference seen": "no significant gain",
    "too few": "too few samples to say",
}


def chapter(runs: Sequence[Run]) -> Chapter:
    """How near searches come to the best of a recorded grid, against chance; the models' errors; the duel."""
    run = runs[-1]
    summary = run.summary
    start = "With" if summary["finding"] else "No finding: the run is a smoke run, or too short; with"
    headline = (
        f"{start} {at(run, 'evaluations')} of {at(run, 'places')} evaluations, {at(run, 'searches')} searches came within "
        f"{at(run, 'worst_gap', '.1%')} of the best setting at worst and {at(run, 'gap', '.1%±')} on average; as many places "
        f"drawn at random come within {at(run, 'chance.gap', '.1%')}{by(run)}."
    )
    parts = [
        "Every setting of a grid was measured beside the defaults; searches then asked the recording in place of the engine, and "
        "every confirmation, the duel and what the models measured counted as evaluations. What is asked is answered by the "
        "nearest place of the grid. Chance is a random choice of as many places that knows the worth of each, so it is "
        f"flattered: it comes as near as the searches in {at(run, 'chance.as_near', '.0%')} of cases. Places nearer than "
        f"{at(run, 'floor', '.1%')} cannot be told apart; within {at(run, 'gap_asked', '.0%')} was asked for: "
        f"{'kept' if summary['near'] else '**missed**'}. Against chance: {said(run, summary['verdict']['chance'])}{by(run)}.",
        chart("tuning", "What each search found, and what chance would have, over the best of the grid."),
        _searches(run),
        f"The best place of the grid: {at(run, 'best.settings')}, {at(run, 'best.ratio', '.2f±')} times the defaults in "
        f"{at(run, 'objective')}{by(run)}.",
        "### What the models said",
        _models(run),
        "### The duel",
        f"On traffic that no search saw, what the first search found ({at(run, 'duel.named')}; proposed by {at(run, 'duel.by')}) "
        f"met the defaults: {at(run, 'duel.ratio', '.2f±')} times their {at(run, 'objective')}: "
        f"{said(run, _DUEL[summary['verdict']['duel']])}{by(run)}.",
    ]
    return Chapter(headline, "\n\n".join(parts), {"tuning": _drawing(run)}, _rule(run), _settings(run))


def _searches(run: Run) -> str:
    rows = [
        [
            *(at(run, f"by_seed.{seed}.{name}", spec) for name, spec in (("seed", ""), ("evaluations", ""))),
            *(at(run, f"by_seed.{seed}.{name}", ".2f") for name in ("found", "best")),
            *(at(run, f"by_seed.{seed}.{name}", ".1%") for name in ("gap", "chance")),
            at(run, f"by_seed.{seed}.by"),
            name_run(run.id),
        ]
        for seed in run.summary["by_seed"]
    ]
    return table(["seed", "evaluations", "found", "best", "gap", "chance", "proposed by", "run"], rows)


def _models(run: Run) -> str:
    if not run.summary["models"]:
        return f"No model was asked: a search of so few evaluations does without{by(run)}."
    rows = [
        [
            said(run, which),
            at(run, f"models.{which}.settings"),
            *(at(run, f"models.{which}.{name}", spec) for name, spec in (("predicted", ".2f"), ("measured", ".2f±"))),
            at(run, f"models.{which}.factor", ".2f"),
            *(at(run, f"models.{which}.{name}", ".2f") for name in ("predicted_hit_ratio", "hit_ratio")),
            name_run(run.id),
        ]
        for which in run.summary["models"]
    ]
    heads = ["models", "propose", "said", "measured", "said / measured", "hit ratio said", "hit ratio", "run"]
    return "\n\n".join(
        [
            f"Before a search begins, models say where it should: times of the defaults in {at(run, 'objective')}, and hit "
            f"ratios{by(run)}.",
            table(heads, rows, left=2),
        ]
    )


def _drawing(run: Run) -> str:
    rows: list[dict[str, Any]] = [
        {"label": f"search {row['seed']}", "series": series, "value": 1 + row[name], "low": None, "high": None}
        for row in run.summary["by_seed"].values()
        for series, name in (("the search", "gap"), ("chance, expected", "chance"))
    ]
    rows.append({"label": "the best and its interval", "series": "the grid", **_around_best(run)})
    drawing = charts.intervals(
        pl.DataFrame(rows, schema_overrides=ENDS),
        x_title="times the best of the grid",
        line=1.0,
        title="Searches against chance, over the best of the grid",
    )
    return str(charts.to_svg(drawing))


def _around_best(run: Run) -> dict[str, float | None]:
    """Return the best place's interval over its own value."""
    found = ends(run.summary["best"]["ratio"])
    value = found["value"] or 1.0
    return {end: None if one is None else one / value for end, one in found.items()}


def _rule(run: Run) -> str:
    summary = run.summary
    if not summary["finding"]:
        return ""
    holds = (
        f"Seen on a grid of {at(run, 'places')} places with {at(run, 'searches')} searches of {at(run, 'evaluations')} "
        f"evaluations, {at(run, 'objective')} the objective{by(run)}."
    )
    if summary["verdict"]["chance"] != "better":
        return f"A search was not seen to come nearer than as many places drawn at random: let the duel decide. {holds}"
    if not summary["near"]:
        return f"A search beats chance but stayed farther off than was asked for: give it a larger budget. {holds}"
    return f"Search with a fifth of the evaluations that the whole grid would take; let the duel have the last word. {holds}"


def _settings(run: Run) -> dict[str, Any]:
    """Return what won the duel, as far as it differs from the defaults; nothing where nothing is sure."""
    if not run.summary["finding"] or run.summary["verdict"]["duel"] != "better":
        return {}
    usual = Settings().to_dict()
    found = {}
    for key, value in run.summary["duel"]["settings"].items():
        section, _, name = key.partition(".")
        if value != (usual[section][name] if name else usual[section]):
            found[key] = value
    return found
