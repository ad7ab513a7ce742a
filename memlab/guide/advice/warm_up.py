"""What the first calls cost, and how much to ask before a process takes traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from memlab import charts
from memlab.experiment.results import Run
from memlab.guide.chapter import ENDS, Chapter, at, by, chart, said
from memlab.guide.figures import name_run
from memlab.guide.findings import Verdict, judge
from memlab.guide.tables import table


class Enough(NamedTuple):
    """The least warm-up that cannot be told from the best one, by the mean of the first calls.

    Attributes:
        verdict: better where some warm-up is seen to help; the numbers asked share the level.
        asked: questions to ask beforehand; 0 where none is seen to help.
    """

    verdict: Verdict
    asked: int

    @property
    def key(self) -> str:
        """Its name among the summary's `warm_ups`."""
        return str(self.asked)


def enough_of(summary: Mapping[str, Any]) -> Enough:
    """Return the least warm-up that is enough, from the summary of `experiment.warm_up.measure_point`."""
    warm_ups = [one for one in summary["warm_ups"].values() if one["asked"]]
    verdicts = [judge({**summary, "ratio": {"mean": one["ratio"]}}, "mean", among=len(warm_ups)) for one in warm_ups]
    for silent in ("smoke", "too few"):
        if silent in verdicts:
            return Enough("smoke" if silent == "smoke" else "too few", 0)
    helping = [one for one, verdict in zip(warm_ups, verdicts, strict=True) if verdict == "better"]
    if not helping:
        return Enough("worse" if "worse" in verdicts else "no difference seen", 0)
    best = min(helping, key=lambda one: float(one["ratio"]["value"]))
    tied = [one for one in helping if one["ratio"]["low"] <= best["ratio"]["high"]]
    return Enough("better", min(int(one["asked"]) for one in tied))


def chapter(runs: Sequence[Run]) -> Chapter:
    """Opening, the first calls, and what a warm-up takes and brings, by size of the store."""
    runs = sorted(runs, key=lambda run: int(run.summary["memories"]))
    text = "\n\n".join(
        [
            "Every start is a fresh process whose files left the page cache. It opens the store, asks the questions that were "
            "most asked in an earlier time, and then answers calls one after the other, the same as the other starts of that "
            "repeat. Libraries are imported before.",
            "### Opening",
            table(
                ["memories", "open (s)", "indexes built anew (s)", "times as long", "pages that stayed", "run"],
                map(_opening, runs),
            ),
            "Indexes are saved when a store is closed, and built anew where they are missing or damaged, as after a process that "
            "was killed before it ever closed its store.",
            "### The first calls",
            table(_HEADS, [row for run in runs for row in _warm_ups(run)], left=0),
            "*Settled* are calls from where the mean of a block lies within the tolerance "
            f"({said(runs[-1], runs[-1].summary['tolerance'], '.0%')}) of the steady one, that of the last third of all calls"
            f"{by(runs[-1])}. What the cache did not serve, without a warm-up, among the first calls and among the steady ones:",
            table(
                ["memories", "first misses (ms)", "later misses (ms)", "steady mean (ms)", "steady hit ratio", "run"],
                map(_misses, runs),
            ),
            *(chart(_name(run), "Mean response time from the first call on, by what was asked beforehand.") for run in runs),
        ]
    )
    return Chapter(_headline(runs[-1]), text, {_name(run): _drawing(run) for run in runs}, _rule(runs))


_HEADS = [
    "memories", "asked", "seconds", "first calls: mean (ms)", "times steady", "hit ratio", "of the steady one", "settled after",
    "times without", "says", "run",
]  # fmt: skip


def _name(run: Run) -> str:
    return f"warm-up-{run.summary['memories']}"


def _opening(run: Run) -> list[str]:
    return [
        at(run, "memories", ","),
        at(run, "open_s", ".2f±"),
        at(run, "rebuild_s", ".2f±"),
        at(run, "rebuild_ratio", ".2f±"),
        at(run, "kept_ratio", ".0%"),
        name_run(run.id),
    ]


def _warm_ups(run: Run) -> list[list[str]]:
    rows = []
    for key, one in run.summary["warm_ups"].items():
        prefix = f"warm_ups.{key}"
        rows.append(
            [
                at(run, "memories", ","),
                at(run, f"{prefix}.asked", ","),
                at(run, f"{prefix}.took_s", ".2f"),
                at(run, f"{prefix}.first.mean_ms", ".2f"),
                at(run, f"{prefix}.over_steady", ".2f±"),
                at(run, f"{prefix}.first.hit_ratio", ".2f"),
                at(run, f"{prefix}.of_steady_hits", ".0%"),
                "not yet" if one["settled_after"] is None else at(run, f"{prefix}.settled_after", ","),
                at(run, f"{prefix}.ratio", ".2g±") if one["asked"] else "–",
                said(run, one["verdict"]) if one["asked"] else "–",
                name_run(run.id),
            ]
        )
    return rows


def _misses(run: Run) -> list[str]:
    return [
        at(run, "memories", ","),
        at(run, "misses.first_ms", ".2f±"),
        at(run, "misses.steady_ms", ".2f±"),
        at(run, "steady.mean_ms", ".2f±"),
        at(run, "steady.hit_ratio", ".2f±"),
        name_run(run.id),
    ]


def _headline(run: Run) -> str:
    enough = enough_of(run.summary)
    cold = (
        f"the first {at(run, 'first', ',')} calls of a fresh process on {at(run, 'memories', ',')} memories take "
        f"{at(run, 'warm_ups.0.over_steady', '.2f±')} times as long as later ones"
    )
    if enough.verdict in ("smoke", "too few"):
        return f"No finding: the run is a smoke run, or too short; {cold}{by(run)}."
    if not enough.asked:
        return f"Without a warm-up {cold}; none that was tried is seen to help{by(run)}."
    return (
        f"Without a warm-up {cold}; after asking the {at(run, f'warm_ups.{enough.key}.asked', ',')} most asked questions, "
        f"in {at(run, f'warm_ups.{enough.key}.took_s', '.2g', 's')}, "
        f"{at(run, f'warm_ups.{enough.key}.over_steady', '.2f±')} times{by(run)}."
    )


def _rule(runs: Sequence[Run]) -> str:
    found = [(run, enough_of(run.summary)) for run in runs]
    if any(enough.verdict in ("smoke", "too few") for _, enough in found):
        return ""
    told = [
        f"on {at(run, 'memories', ',')} memories the {at(run, f'warm_ups.{enough.key}.asked', ',')} most asked of "
        f"{at(run, 'questions', ',')} questions, {at(run, f'warm_ups.{enough.key}.took_s', '.2g', 's')}: the first "
        f"{at(run, 'first', ',')} calls then take {at(run, f'warm_ups.{enough.key}.ratio', '.2g±')} times what they take without"
        f"{by(run)}"
        if enough.asked
        else f"on {at(run, 'memories', ',')} memories no warm-up is seen to help{by(run)}"
        for run, enough in found
    ]
    last = runs[-1]
    return (
        "Close the store so that its indexes are saved, open it before the process takes traffic, and ask first what is asked "
        f"most (a trace of the day before tells): {'; '.join(told)}. Seen with one caller, questions asked again by Zipf's law "
        f"with exponent {at(last, 'zipf', 'g')}, and a cache that holds them all{by(last)}; after a write to a session the "
        "warm-up of that session is spent."
    )


def _drawing(run: Run) -> str:
    frame = pl.DataFrame(
        [
            {
                "x": row["to"],
                "y": row["mean_ms"],
                "low": row["low"],
                "high": row["high"],
                "series": f"{row['asked']:,} asked beforehand" if row["asked"] else "nothing asked beforehand",
            }
            for row in run.summary["course"]
        ],
        schema_overrides=dict.fromkeys(("y", *(name for name in ENDS if name in ("low", "high"))), pl.Float64),
    )
    drawing = charts.lines(
        frame,
        x_title="calls since the start",
        y_title="mean of a block (ms)",
        title=f"From the first call on, {run.summary['memories']:,} memories",
        subtitle="95 % intervals over starts",
        logarithmic_y=True,
    )
    return str(charts.to_svg(drawing))
