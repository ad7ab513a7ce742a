"""What becomes of calls when far more is asked than can be answered: deadlines, waiting for a place, and what is dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from memlab import charts
from memlab.experiment.overload import in_time
from memlab.experiment.results import Run
from memlab.guide.chapter import ENDS, Chapter, at, chart, ends, said
from memlab.guide.figures import Figure, mark, name_run
from memlab.guide.tables import derived, table

EXPERIMENT = "18-overload"
_DEADLINE, _WAIT = "workload.deadline_s", "pool.acquire_timeout_s"
_NO_BREAKER = (
    "**A circuit breaker comes later.** None of these remembers: each call is judged by its own waiting, and an engine that has "
    "failed for a minute is asked as often as one that has not. A breaker, which refuses at once while failures are many and "
    "tries again after a while, is not built yet; until then callers should wait longer after each refusal."
)


def chapter(runs: Sequence[Run]) -> Chapter:
    """What is answered, refused and dropped under several times the sustained rate, by deadline and wait for a place."""
    runs = sorted(runs, key=lambda run: (run.parameters[_DEADLINE], run.parameters[_WAIT]))
    found = {run.id: in_time(run.samples(), run.summary["windows"], run.parameters[_DEADLINE]) for run in runs}
    sides = (("reference", "no pool"), ("candidate", "pool"))
    rows = [
        [
            _deadline(run),
            "no pool" if side == "reference" else _wait(run),
            _interval(run, found[run.id][side]["per_s"], ",.0f±"),
            *(said(run, found[run.id][side][name], ".0%") for name in _ENDS),
            at(run, f"{side}.p95_ms", ",.0f"),
            name_run(run.id),
        ]
        for run in runs
        for side, _ in sides
    ]
    heads = [
        "deadline (s)",
        "wait (s)",
        "in time/s",
        *(f"{name}".replace("_", " ") for name in _ENDS),
        "p95 of answers (ms)",
        "run",
    ]
    counted = [
        [
            _deadline(run),
            _wait(run),
            *(said(run, value, spec) for value, spec in _counts(run.summary["candidate"]["statistics"])),
            name_run(run.id),
        ]
        for run in runs
    ]
    count_heads = [
        "deadline (s)",
        "wait (s)",
        "dropped before a batch",
        "dropped in the pool",
        "groups refused",
        "calls in a group",
    ]
    frame = pl.DataFrame(
        [{"label": _label(run), "series": words, **ends(found[run.id][side]["per_s"])} for run in runs for side, words in sides],
        schema_overrides=ENDS,
    )
    drawing = charts.intervals(
        frame,
        x_title="answers in time per second (95 % interval over repeats)",
        logarithmic=False,
        title="What still comes in time",
    )
    chosen = _chosen(runs, found)
    text = "\n\n".join(
        [
            f"Poisson arrivals at {_asked(runs)} calls a second, several times what is answered, without a cache. An "
            "answer after its deadline, *late*, is of no use. A call whose deadline has passed while it waited is "
            "dropped before anything is done for it; a group of calls that waits longer for a place in the pool than "
            "`pool.acquire_timeout_s` is refused at once, so that its callers know. Each row without a pool was "
            "measured in turn with the one below it.",
            table(heads, rows, left=0),
            chart(EXPERIMENT, "Answers in time per second, with and without a pool, by deadline and wait for a place."),
            "What the engine's own counters say of the pool's side, the warm-up included:",
            table([*count_heads, "run"], counted, left=0),
            _NO_BREAKER,
        ]
    )
    return Chapter(_headline(runs, found), text, {EXPERIMENT: str(charts.to_svg(drawing))}, _rule(runs, chosen), chosen)


_ENDS = ("in_time", "late", "refused", "dropped")


def _deadline(run: Run) -> str:
    return said(run, run.parameters[_DEADLINE], "g")


def _wait(run: Run) -> str:
    return said(run, run.parameters[_WAIT], "g")


def _label(run: Run) -> str:
    return f"deadline {run.parameters[_DEADLINE]:g} s, wait {run.parameters[_WAIT]:g} s"


def _asked(runs: Sequence[Run]) -> str:
    return at(runs[0], "offered_per_s", ",.0f")


def _counts(statistics: Mapping[str, Any]) -> list[tuple[float, str]]:
    batch, pool = statistics.get("batch") or {}, statistics["pool"]
    return [
        (batch.get("expired", 0), ","),
        (pool["expired"], ","),
        (pool["refused"], ","),
        (batch.get("mean_size", 1.0), ",.0f"),
    ]


def _shortest(runs: Sequence[Run]) -> tuple[Run, Run]:
    """Return the runs of the shortest and the longest deadline with the longest wait for a place: the deadline alone decides."""
    longest_wait = [run for run in runs if run.parameters[_WAIT] == max(one.parameters[_WAIT] for one in runs)]
    return longest_wait[0], longest_wait[-1]


def _finds(runs: Sequence[Run]) -> bool:
    return all(run.summary["finding"] for run in runs)


def _headline(runs: Sequence[Run], found: Mapping[str, Mapping[str, Any]]) -> str:
    short, long = _shortest(runs)

    def told(run: Run) -> str:
        side = found[run.id]["candidate"]
        return f"{_interval(run, side['per_s'], ',.0f±')} a second ({said(run, side['in_time'], '.0%')})"

    start = "At" if _finds(runs) else "No finding: a run is a smoke run, or too short; at"
    text = f"{start} {_asked(runs)} calls a second {told(short)} are answered within a deadline of {_deadline(short)} s"
    if long is not short:
        text += f", and {told(long)} within {_deadline(long)} s"
    shown = dict.fromkeys((short.id, long.id))
    return f"{text} ({' '.join(map(name_run, shown))})."


def _interval(run: Run, found: Mapping[str, Any], spec: str) -> str:
    return mark(Figure(found["value"], (run.id,), low=found["low"], high=found["high"]), spec)


def _chosen(runs: Sequence[Run], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the wait for a place that brings more answers in time than every other, surely and at every deadline."""
    if not _finds(runs):
        return {}
    gains = {(run.parameters[_DEADLINE], run.parameters[_WAIT]): found[run.id]["ratio"] for run in runs}
    waits = sorted({wait for _, wait in gains})
    best = [wait for wait in waits if all(_above(gains, wait, other) for other in waits if other != wait)]
    return {_WAIT: best[0]} if len(waits) > 1 and best else {}


def _above(gains: Mapping[tuple[float, float], Mapping[str, Any]], wait: float, other: float) -> bool:
    """Return whether the gain over no pool is above that of another wait at every deadline, intervals apart."""
    pairs = [(gains[deadline, wait], gains[deadline, other]) for deadline, one in gains if one == wait]
    return all(one["low"] is not None and two["high"] is not None and one["low"] > two["high"] for one, two in pairs)


def _rule(runs: Sequence[Run], chosen: Mapping[str, Any]) -> str:
    if not _finds(runs):
        return ""
    deadlines = derived(runs, _span([run.parameters[_DEADLINE] for run in runs]), "")
    waits = derived(runs, _span([run.parameters[_WAIT] for run in runs]), "")
    wait = (
        f"Wait {derived(runs, chosen[_WAIT], 'g')} s for a place at most: of the waits that were measured it brings "
        "the most answers in time at every deadline. "
        if chosen
        else "How long a place is awaited made no difference to the answers in time that held at every deadline: choose by "
        "how soon callers want to know. "
    )
    return (
        "Give every call the deadline after which its answer is of no use: what has expired is dropped, and the "
        f"time goes to calls that can still be answered. {wait}Holds for deadlines of {deadlines} s and waits of "
        f"{waits} s at {_asked(runs)} calls a second, with batching on."
    )


def _span(values: Sequence[float]) -> str:
    return f"{min(values):g} to {max(values):g}"
