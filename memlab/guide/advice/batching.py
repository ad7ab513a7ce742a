"""When a batch window pays, and when it only delays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from memlab import charts
from memlab.errors import not_found
from memlab.experiment.batching_summary import CALLS_SAVED, LATENCY_CUT, MODEL_ERROR, SPEED_UP
from memlab.experiment.results import Run
from memlab.guide.chapter import ENDS, Chapter, at, by, cells, chart, ends, p95_of, said
from memlab.guide.figures import Figure, mark, name_run
from memlab.guide.findings import judge
from memlab.guide.tables import table

_ASKED = (
    ("calls_saved_from", "calls_saved", f"{CALLS_SAVED:.0%} of the calls into storage saved, from"),
    ("latency_cut_from", "p95_over_none", "p95 at most half of that without batching, from"),
    ("only_delays_below", "p50_over_none", "p50 above that without batching, up to"),
)


def chapter(runs: Sequence[Run]) -> Chapter:
    """What groups take, who wins the race of windows, what batching keeps of what was asked, and how far the model is off."""
    if not runs:
        raise not_found("run", "batching needs runs; make them with `memlab sweep params/21-batch-window.yaml`")
    runs = sorted(runs, key=lambda run: str(run.summary["operation"]))
    drawings = _drawings(runs)
    delays = "Response times with a window over those without, by rule and rate; the line is no batching."
    text = "\n\n".join(
        [
            "Groups of several sizes were measured in the flow of calls and after a pause. In turns with them calls arrived by "
            "Poisson processes under rules of sending: none, *adaptive* (an idle lane sends at once), *fixed* (a window that "
            "every group waits for), and *AIMD*, a window that grows while an objective is kept and is cut when it is not.",
            "### What a group takes",
            table(_GROUPS, [row for run in runs for row in _groups(run)]),
            "### What was asked for",
            _promised(runs),
            table(
                ["operation", "rule", "what", "by the model (calls/s)", "nearest measured rate", "there", "run"],
                _asked(runs),
                left=3,
            ),
            chart("batching-delay", delays) if "batching-delay" in drawings else "No rate has figures both with and without.",
            "### The race",
            "At each rate, the best of each kind by p95. Each repeat is given the one that all others choose, so that none is "
            "judged by the calls that chose it; the one named was chosen most often, and how often stands beside it. A p95 is "
            "that of the calls of all repeats, a ratio that of two p95 in its row, with an interval over repeats, paired. *AIMD "
            "keeps* says whether its p95 was within the objective.",
            table(_RACE, [row for run in runs for row in _race(run)], left=2),
            "### What can be told beforehand",
            _model(runs),
            table(_LANES, [row for run in runs for row in _lanes(run)], left=2),
            chart("batching-model", "p95 as predicted and as measured, a mark a rule and rate; the line is where both agree."),
        ]
    )
    return Chapter(_headline(runs), text, drawings, _rule(runs), _settings(runs))


_GROUPS = [
    "operation",
    "calls",
    "in the flow (ms)",
    "after a pause (ms)",
    "throughput ×",
    "× as many at once",
    "batch shorter by",
    "run",
]
_RACE = [
    "operation",
    "best fixed",
    "calls/s",
    "p95 (ms)",
    "AIMD p95 (ms)",
    "adaptive p95 (ms)",
    "AIMD keeps",
    "calls saved",
    "AIMD saves",
    "AIMD / fixed",
    "adaptive / fixed",
    "run",
]
_LANES = ["operation", "rule", "calls/s", "p95 (ms)", "predicted", "off by", "halves apart", "calls saved", "predicted", "run"]


def _groups(run: Run) -> Iterator[list[str]]:
    columns = (
        ("flow_ms", ".3g"),
        ("rested_ms", ".3g"),
        ("speed_up", ".2g±"),
        ("speed_up_at_once", ".2g±"),
        ("batch_cut", ".0%±"),
    )
    for size in run.summary["groups"]:
        yield [_operation(run), said(run, int(size)), *cells(run, f"groups.{size}", columns), name_run(run.id)]


def _promised(runs: Sequence[Run]) -> str:
    """Return what was asked of a batch, beside what the largest group reached."""
    asked = (
        f"Asked for were {said(runs[0], SPEED_UP[0], 'g')} to {said(runs[0], SPEED_UP[1], 'g')} times the throughput in batches, "
        f"and batches that take {said(runs[0], LATENCY_CUT[0], '.0%')} to {said(runs[0], LATENCY_CUT[1], '.0%')} less."
    )
    reached = [
        f"For `{_operation(run)}` a group of {said(run, int(size))} answers {at(run, f'groups.{size}.speed_up', '.2g±')} times "
        f"what calls one by one do, and takes {at(run, f'groups.{size}.batch_cut', '.0%±')} less{by(run)}: "
        f"{said(run, _kept(run))}."
        for run in runs
        for size in [_largest(run)]
    ]
    return f"{asked} {' '.join(reached)}"


def _largest(run: Run) -> str:
    return str(max(run.summary["groups"], key=int))


def _kept(run: Run) -> str:
    speed = run.summary["groups"][_largest(run)]["speed_up"]
    if not run.summary["finding"] or speed["low"] is None:
        return "too few to judge"
    return "kept" if speed["low"] >= SPEED_UP[0] else "missed" if speed["high"] < SPEED_UP[0] else "not to be told"


def _asked(runs: Sequence[Run]) -> Iterator[list[str]]:
    for run in runs:
        for kind, one in run.summary["asked"].items():
            for name, figure, what in _ASKED:
                near = one["nearest"][name]
                prefix = f"asked.{kind}.nearest.{name}"
                yield [
                    _operation(run),
                    said(run, one["rule"]),
                    said(run, what),
                    _nowhere(run, one["untold_from"]) if one[name] is None else at(run, f"asked.{kind}.{name}", ",.0f"),
                    "–" if near is None else at(run, f"{prefix}.rate_per_s", ",.0f"),
                    "–" if near is None else at(run, f"{prefix}.{figure}", ".0%" if figure == "calls_saved" else ".2f±"),
                    name_run(run.id),
                ]


def _nowhere(run: Run, untold_from: float | None) -> str:
    return "nowhere" if untold_from is None else f"nowhere below {said(run, untold_from, ',.0f')}; groups outgrow those measured"


def _race(run: Run) -> Iterator[list[str]]:
    for one in run.summary["race"]:
        aimd, fixed = one["aimd"], one["fixed"]
        yield [
            _operation(run),
            f"{said(run, fixed['rule'])} ({said(run, fixed['chosen'])} of {said(run, fixed['repeats'])})",
            said(run, one["rate_per_s"], ",.0f"),
            *(p95_of(run, one[kind]) for kind in ("fixed", "aimd", "adaptive")),
            "yes" if aimd["keeps"] else "**no**",
            said(run, fixed["calls_saved"], ".0%"),
            said(run, aimd["calls_saved"], ".0%"),
            *(_told(run, one[name]) for name in ("ratio", "ratio_adaptive")),
            name_run(run.id),
        ]


def _told(run: Run, found: Mapping[str, Any]) -> str:
    return mark(Figure(found["value"], (run.id,), low=found["low"], high=found["high"]), ".2f±")


def _model(runs: Sequence[Run]) -> str:
    told = [
        f"For `{_operation(run)}` it is off by {at(run, 'error.p50.median', '.0%')} in p50 and "
        f"{at(run, 'error.p95.median', '.0%')} in p95 at the median of {at(run, 'error.p95.lanes')} lanes, by "
        f"{at(run, 'error.p95.worst', '.0%')} at worst; two halves of the repeats "
        f"are {at(run, 'error.p95.spread', '.0%')} apart in p95{by(run)}."
        for run in runs
    ]
    return (
        "The model knows what groups took, and nothing of the lanes that it is held against; "
        f"{said(runs[0], MODEL_ERROR, '.0%')} in p95 was asked for. What the measurement itself leaves open stands beside it, as "
        f"half of the repeats against the other half: no model can be closer than that. {' '.join(told)}"
    )


def _lanes(run: Run) -> Iterator[list[str]]:
    for lane in run.summary["lanes"]:
        yield [
            _operation(run),
            said(run, lane["rule"]),
            said(run, lane["rate_per_s"], ",.0f"),
            p95_of(run, lane),
            *(
                said(run, lane[name], spec) if lane[name] is not None else "–"
                for name, spec in (
                    ("predicted_p95_ms", ".3g"),
                    ("error_p95", ".0%"),
                    ("spread_p95", ".0%"),
                    ("calls_saved", ".0%"),
                    ("predicted_calls_saved", ".0%"),
                )
            ),
            name_run(run.id),
        ]


def _operation(run: Run) -> str:
    return said(run, run.summary["operation"])


# --- what follows ----------------------------------------------------------------------------------------------------


def _finds(runs: Sequence[Run]) -> bool:
    return all(run.summary["finding"] for run in runs)


def _said_of(run: Run, name: str) -> set[str]:
    """Return what the race's ratios of a kind say, over all rates, which share the level."""
    return {_verdict(run, one[name], len(run.summary["race"])) for one in run.summary["race"]}


def _verdict(run: Run, ratio: Mapping[str, Any], among: int) -> str:
    return judge({**run.summary, "repeats": ratio["n"], "ratio": {"p95": ratio}}, "p95", among=among)


def _headline(runs: Sequence[Run]) -> str:
    reached = "; ".join(
        f"for `{_operation(run)}` a group of {said(run, int(_largest(run)))} answers "
        f"{at(run, f'groups.{_largest(run)}.speed_up', '.2g±')} times what calls one by one do, and p95 is told to within "
        f"{at(run, 'error.p95.median', '.0%')}, measured to within {at(run, 'error.p95.spread', '.0%')}{by(run)}"
        for run in runs
    )
    if not _finds(runs):
        return f"No finding: a run is a smoke run, or too short; {reached}."
    return f"{reached[0].upper()}{reached[1:]}."


def _rule(runs: Sequence[Run]) -> str:
    return " ".join(_rule_of(run) for run in runs) if _finds(runs) and all(run.summary["race"] for run in runs) else ""


def _rule_of(run: Run) -> str:
    verdicts = _said_of(run, "ratio_adaptive")
    first = (
        "Let an idle lane send at once"
        if verdicts == {"better"}
        else "An idle lane that sends at once was not seen to be slower than any window at any rate: let it"
        if "worse" not in verdicts
        else "A fixed window had the lower p95 at some rate: measure both"
    )
    delays = _delays(run)
    slow = [rate for rate, ratio in delays if _verdict(run, ratio, len(delays)) == "worse"]
    delayed = (
        f" A window only delays up to {said(run, max(slow), ',.0f')} calls a second, the highest measured rate at which it did."
        if slow
        else ""
    )
    rates = [lane["rate_per_s"] for lane in run.summary["lanes"]]
    return (
        f"`{_operation(run)}`: {first}{by(run)}.{delayed}{_follows(run)} Seen from {said(run, min(rates), ',.0f')} to "
        f"{said(run, max(rates), ',.0f')} calls a second on {at(run, 'memories', ',')} memories."
    )


def _delays(run: Run) -> list[tuple[float, Mapping[str, Any]]]:
    rates = run.summary["asked"]["fixed"]["rates"]
    return [(one["rate_per_s"], one["p50_over_none"]) for one in rates if one["p50_over_none"] is not None]


def _follows(run: Run) -> str:
    """Return where a window that follows an objective kept it, and sent fewer calls than the best fixed window that did."""
    race = run.summary["race"]
    kept = [one for one in race if one["aimd"]["keeps"]]
    beside = [one for one in kept if one["keeping"] is not None and one["keeping"]["keeps"]]
    fewer = [one for one in beside if _verdict(run, one["ratio_calls"], len(beside)) == "better"]
    if not kept:
        return ""
    told = (
        f" A window that follows an objective (`batch.objective_ms`) kept {at(run, 'objective_ms', 'g', 'ms')} at "
        f"{said(run, len(kept))} of {said(run, len(race))} rates."
    )
    if beside:
        told += (
            f" At {said(run, len(beside))} of them a fixed window kept it as well; there it sent fewer calls into storage than "
            f"the one that saves most at {said(run, len(fewer))}."
        )
    return told if beside and len(beside) == len(kept) else f"{told} At {said(run, len(kept) - len(beside))} no fixed window did."


def _settings(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what follows: an idle lane sends at once, where that was surely faster than the best window at every rate."""
    sure = _finds(runs) and all(_said_of(run, "ratio_adaptive") == {"better"} for run in runs)
    return {"batch.adaptive": True} if sure else {}


# --- drawings --------------------------------------------------------------------------------------------------------


def _drawings(runs: Sequence[Run]) -> dict[str, str]:
    delays = pl.DataFrame(
        [
            {
                "label": f"{run.summary['operation']}, {one['rule']}, {there['rate_per_s']:,.0f}/s",
                "series": label,
                **ends(there[name]),
            }
            for run in runs
            for one in run.summary["asked"].values()
            for there in one["rates"]
            for label, name in (("p50", "p50_over_none"), ("p95", "p95_over_none"))
            if there[name] is not None
        ],
        schema_overrides=ENDS,
    )
    lanes = pl.DataFrame(
        [{**lane, "what": run.summary["operation"]} for run in runs for lane in run.summary["lanes"]],
        infer_schema_length=None,
        schema_overrides={"p95_ms": pl.Float64},
    )
    drawn = {}
    if len(delays):
        drawing = charts.intervals(
            delays, x_title="with a window over without (95 % interval over repeats)", line=1.0, title="Where a window delays"
        )
        drawn["batching-delay"] = str(charts.to_svg(drawing))
    # Where too few calls make a p95, the median stands in its place.
    known = len(lanes.drop_nulls(["p95_ms", "predicted_p95_ms"])) > 0
    figure = "p95" if known else "p50"
    model = charts.predictions(
        lanes,
        charts.By(f"{figure}_ms", f"measured {figure} (ms)"),
        charts.By(f"predicted_{figure}_ms", f"predicted {figure} (ms)"),
        charts.By("what", "operation"),
    )
    return {**drawn, "batching-model": str(charts.to_svg(model))}
