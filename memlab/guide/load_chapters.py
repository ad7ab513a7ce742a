"""Chapters of the Performance Report about many callers at once: loads, the sustainable rate, the driver itself, isolation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from memlab import charts
from memlab.experiment import load_point
from memlab.experiment.results import Run
from memlab.guide.chapter import Chapter, at, by, cells, chart, said
from memlab.guide.figures import name_run
from memlab.guide.tables import table

_WAYS: Mapping[str, str] = {"closed": "waiting callers", "poisson": "Poisson arrivals", "trace": "recorded arrivals"}
_OPERATIONS = 12
_NOTHING = "Of so few callers nothing was asked"
_WORDS = {True: "yes", False: "**no**", None: "cannot be said"}


def load(runs: Sequence[Run]) -> Chapter:
    """What callers meet, by how many there are, and how much a closed loop hides."""
    runs = sorted(runs, key=lambda run: run.summary["clients"])
    rows = [
        [
            at(run, "clients", ","),
            name,
            *_way(run, way),
            _WORDS[run.summary[way]["checks"]["holds"]],
            name_run(run.id),
        ]
        for run in runs
        for way, name in _WAYS.items()
        if run.summary[way] is not None
    ]
    heads = ["callers", "arrivals", "asked/s", "answered/s", "failed", "p50 (ms)", "p95 (ms)", "p99 (ms)"]
    asked = [run for run in runs if run.summary["met"] is not None]
    lost = [run for run in runs for way in _WAYS if run.summary[way] and run.summary[way]["checks"]["holds"] is not True]
    found = "all that was acknowledged was there, and every session's canaries its own"
    if lost:
        found = f"not all that was acknowledged was found in {', '.join(name_run(run.id) for run in lost)}"
    headline = f"{_reached(asked)}; after the loads {found}."
    largest = runs[-1]
    drawing = charts.by_callers(load_point.frame(runs))
    text = "\n\n".join(
        [
            "A mix of operations, mostly reads, is sent with cache, batching and pool at their defaults: by callers that wait "
            "for their answers, and then, at nearly the same throughput, by arrivals that do not wait, on a fresh database "
            "each. Response time counts from when a call was due. Refused, late, timed-out and unknown outcomes are failures.",
            table([*heads, "found again", "run"], rows, left=2),
            chart("load", "p95 by number of callers, with reach and ceiling of the waiting callers."),
            *([_asked_for(asked)] if asked else []),
            "### What waiting hides",
            _gap(runs),
            f"### By operation, at {at(largest, 'clients', ',')} callers",
            _by_operation(largest),
            "### Whether the driver could",
            _driver(runs),
        ]
    )
    return Chapter(headline, text, {"load": str(charts.to_svg(drawing))})


def _reached(asked: Sequence[Run]) -> str:
    """Return at how many callers what was to be reached is kept, is missed, and where that cannot be said."""
    words = {"yes": "kept", "**no**": "missed", "cannot be said": "not to be told"}
    places: dict[str, list[str]] = {}
    for run in asked:
        places.setdefault(words[_kept(run, "met")], []).append(f"{at(run, 'clients', ',')}{by(run)}")
    if not places:
        return _NOTHING
    return "What was to be reached is " + ", ".join(f"{word} at {', '.join(there)} callers" for word, there in places.items())


def _way(run: Run, way: str) -> list[str]:
    columns = (
        ("offered_per_s", ",.0f"),
        ("throughput_per_s", ",.0f±"),
        ("failure_ratio", ".2%±"),
        ("p50_ms", ",.3g"),
        ("p95_ms", ",.3g±"),
        ("p99_ms", ",.3g"),
    )
    return cells(run, way, columns)


def _asked_for(runs: Sequence[Run]) -> str:
    """Return what was asked of each load beside what it met, of the callers that wait."""
    rows = [
        [
            at(run, "clients", ","),
            *cells(run, "closed", (("failure_ratio", ".2%"),)),
            *(at(run, f"{bound}.failure_ratio", ".1%") for bound in ("reach", "ceiling")),
            *cells(run, "closed", (("p95_ms", ",.3g"),)),
            *(at(run, f"{bound}.p95_ms", ",g") for bound in ("reach", "ceiling")),
            _kept(run, "met"),
            _kept(run, "under_ceiling"),
            name_run(run.id),
        ]
        for run in runs
    ]
    heads = ["callers", "failed", "to reach", "ceiling", "p95 (ms)", "to reach", "ceiling", "reached", "below the ceiling", "run"]
    return "Beside what was asked of the callers that wait:\n\n" + table(heads, rows)


def _kept(run: Run, which: str) -> str:
    found = run.summary[which]
    if found is None:
        return "nothing asked"
    values = list(found.values())
    return _WORDS[False if False in values else None if None in values else True]


def _gap(runs: Sequence[Run]) -> str:
    rows = [
        [at(run, "clients", ","), *(at(run, f"gap.{name}", ",.2f") for name in ("p50_ms", "p95_ms", "p99_ms")), name_run(run.id)]
        for run in runs
    ]
    return (
        f"Poisson arrivals' response times over the waiting callers', at {at(runs[0], 'open_share', 'g')} of their throughput"
        f"{by(runs[0])}. Callers that wait ask less while the engine is slow; arrivals do not, and meet the queue.\n\n"
        + table(["callers", "p50", "p95", "p99", "run"], rows)
    )


def _by_operation(run: Run) -> str:
    every: Mapping[str, Any] = run.summary["closed"]["by_operation"]
    most = sorted(every, key=lambda name: -every[name]["samples"])[:_OPERATIONS]
    columns = (("samples", ","), ("failure_ratio", ".2%"), ("p50_ms", ",.3g"), ("p95_ms", ",.3g"), ("p99_ms", ",.3g"))
    rows = [[f"`{said(run, name)}`", *cells(run, f"closed.by_operation.{name}", columns), name_run(run.id)] for name in most]
    outcomes = ", ".join(f"{name} {said(run, count, ',')}" for name, count in run.summary["closed"]["outcomes"].items())
    return (
        table(["operation", "calls", "failed", "p50 (ms)", "p95 (ms)", "p99 (ms)", "run"], rows)
        + f"\n\nOutcomes of the waiting callers' calls: {outcomes}{by(run)}."
    )


def _driver(runs: Sequence[Run]) -> str:
    rows = [
        [
            at(run, "clients", ","),
            *cells(run, "closed.driver", (("call_us", ".1f"), ("headroom", ",.1f"))),
            *cells(run, "poisson.driver", (("late_p99_ms", ",.2f"),)),
            *cells(run, "closed", (("hit_ratio", ".2f"), ("mean_batch_size", ",.1f"), ("littles_law.ratio", ".2f"))),
            "; ".join(said(run, reason) for reason in run.summary["closed"]["suspect"]) or "no",
            name_run(run.id),
        ]
        for run in runs
    ]
    heads = [
        "callers",
        "cost of a call (µs)",
        "headroom",
        "sent late, p99 (ms)",
        "hit ratio",
        "calls in a batch",
        "Little",
        "suspect",
    ]
    return table([*heads, "run"], rows)


def rate(runs: Sequence[Run]) -> Chapter:
    """The highest sustainable rate with its interval, and the trials that showed it."""
    told, rows, drawings = [], [], {}
    for place, run in enumerate(runs):
        summary = run.summary
        kept = summary["rate_per_s"]["value"] is not None
        told.append(
            (f"{at(run, 'rate_per_s', ',.0f±')} calls a second keep" if kept else "No rate was found that keeps")
            + f" a p99 of {at(run, 'p99_target_ms', ',g', 'ms')}"
            + ("" if summary["converged"] else ", and the search did not come to an end")
            + by(run)
        )
        rows += [
            [
                said(run, trial["rate_per_s"], ",.0f"),
                "too few" if trial["p99_ms"] is None else said(run, trial["p99_ms"], ",.3g"),
                "yes" if trial["passed"] else "no",
                name_run(run.id),
            ]
            for trial in summary["trials"]
        ]
        found = summary["rate_per_s"]
        trials = pl.DataFrame(summary["trials"], infer_schema_length=None)
        drawing = charts.trials(trials, target_ms=summary["p99_target_ms"], low=found["low"], high=found["high"])
        drawings[f"rate-{'abcdefgh'[place % 8]}"] = str(charts.to_svg(drawing))
    text = "\n\n".join(
        [
            "Open loops, each at one rate, by a sequential search: a rate that is kept raises the next, one that is not lowers "
            "it. The interval is that of the search's own estimate, on this host at that time.",
            *(chart(name, "Trials: rate against p99, and the interval that was found.") for name in drawings),
            table(["rate (per s)", "p99 (ms)", "kept", "run"], rows),
        ]
    )
    return Chapter("; ".join(told) + ".", text, drawings)


def driver(runs: Sequence[Run]) -> Chapter:
    """What sending costs against an engine that does nothing, and whether an open loop sees stalls that a closed one hides."""
    run = runs[-1]
    loops = ("open", "closed")
    columns = (
        ("samples", ","),
        ("p50_ms", ",.3g"),
        ("p95_ms", ",.3g"),
        ("p99_ms", ",.3g±"),
        ("max_ms", ",.3g"),
        ("delayed_ratio", ".2%"),
    )
    rows = [[f"{loop} loop", *cells(run, f"stall.{loop}", columns), name_run(run.id)] for loop in loops]
    asked = [
        [
            "calls a second of one process",
            at(run, "rate_per_s", ",.0f±"),
            f"at least {at(run, 'least_rate_per_s', ',.0f')}",
            _WORDS[run.summary["met"]["rate"]],
            name_run(run.id),
        ],
        [
            "writing one sample down (µs)",
            at(run, "sample_us", ".2f±"),
            f"at most {at(run, 'most_sample_us', 'g')}",
            _WORDS[run.summary["met"]["sample"]],
            name_run(run.id),
        ],
    ]
    headline = (
        f"The driver sends {at(run, 'rate_per_s', ',.0f')} calls a second to an engine that does nothing. Of planted stalls of "
        f"{at(run, 'stall.stall_ms', ',g', 'ms')} the open loop's p99 is {at(run, 'stall.open.p99_ms', ',.3g', 'ms')}, the "
        f"closed loop's {at(run, 'stall.closed.p99_ms', ',.3g', 'ms')}: {_contrast(run)}{by(run)}."
    )
    text = "\n\n".join(
        [
            "Before a driver may say that an engine is slow, it must show that it is not itself the slow part.",
            table(["", "measured", "asked for", "met", "run"], asked),
            "An engine that answers at once but stands still now and then, under a closed loop of one caller and an open loop "
            "at the same rate. The caller that waits meets each stall once; arrivals meet all of it:",
            table(["", "calls", "p50 (ms)", "p95 (ms)", "p99 (ms)", "longest (ms)", "delayed by half a stall", "run"], rows),
        ]
    )
    return Chapter(headline, text)


def _contrast(run: Run) -> str:
    """Return whether the open loop saw the stalls that the closed one hid: half a stall or more in its p99."""
    stall = run.summary["stall"]
    opened, closed = (stall[loop]["p99_ms"]["value"] for loop in ("open", "closed"))
    if opened is None or closed is None:
        return "whether one sees what the other hides cannot be said"
    seen, hidden = opened >= stall["stall_ms"] / 2, closed < stall["stall_ms"] / 2
    return (
        "the open loop shows what the closed one hides" if seen and hidden else "the contrast that was planted was **not** seen"
    )


def isolation(runs: Sequence[Run]) -> Chapter:
    """Sessions side by side at full concurrency, with cancellations, and an oracle that reads every answer."""
    runs = sorted(runs, key=lambda run: run.summary["sessions"])
    columns = (
        ("sessions", ","),
        ("callers", ","),
        ("answers", ","),
        ("items", ","),
        ("probes", ","),
        ("cancelled", ","),
        ("total", ","),
        ("ratio", ".2%±"),
        ("hit_ratio", ".2f"),
        ("mean_batch_size", ",.1f"),
    )
    rows = [
        [*(at(run, path, spec) for path, spec in columns), _WORDS[run.summary["checks"]["holds"]], name_run(run.id)]
        for run in runs
    ]
    heads = ["sessions", "callers", "answers", "memories read", "probes", "cancelled", "differences", "of answers", "hit ratio"]
    kinds = [
        [
            name.replace("_", " "),
            *(at(run, f"differences.{name}", ",") for run in runs),
            " ".join(name_run(run.id) for run in runs),
        ]
        for name in runs[0].summary["differences"]
    ]
    bad = [run for run in runs if run.summary["total"]]
    parts = [
        f"{at(run, 'total', ',')} of {at(run, 'answers', ',')} answers to {at(run, 'sessions', ',')} sessions{by(run)}"
        for run in runs
    ]
    headline = f"{'Answers differed' if bad else 'No answer differed'} from what its session stored: {'; '.join(parts)}."
    text = "\n\n".join(
        [
            "All sessions hold the same kinds of memories and ask the same questions, so that whatever mixes sessions up has "
            "every chance to; calls are cancelled all the time. An oracle that knows what each session stored reads every "
            "answer whole: marks and ids of other sessions, altered contents, answers to probes for another session's ids. "
            "That the oracle is not hollow is a test: with the session taken out of the predicate, or out of the cache's key, "
            "it must go red.",
            table([*heads, "in a batch", "found again", "run"], rows, left=0),
            "Differences by kind:",
            table(["kind", *(f"{at(run, 'sessions', ',')} sessions" for run in runs), "run"], kinds),
        ]
    )
    return Chapter(headline, text)


def workflows(runs: Sequence[Run]) -> Chapter:
    """Whole workflows end to end, by step, on stores of several sizes."""
    runs = sorted(runs, key=lambda run: run.summary["memories"])
    largest = runs[-1]
    every = largest.summary["workflows"]
    rows = [
        [
            _words(name),
            at(run, "memories", ","),
            *cells(run, f"workflows.{name}", (("runs", ","), ("failed", ","))),
            *cells(run, f"workflows.{name}", (("p50_ms", ",.3g"), ("p95_ms", ",.3g±"), ("p99_ms", ",.3g"))),
            *cells(run, f"workflows.{name}", (("throughput_per_s", ",.3g"),)),
            name_run(run.id),
        ]
        for name in every
        for run in runs
        if name in run.summary["workflows"]
    ]
    parts = [
        "A workflow is what an agent does with the memory in one go; one caller runs it again and again, each step a call of "
        "its own through the same path, without a cache.",
        table(["workflow", "memories", "runs", "failed", "p50 (ms)", "p95 (ms)", "p99 (ms)", "runs/s", "run"], rows),
        f"### By step, at {at(largest, 'memories', ',')} memories",
    ]
    slowest = []
    for name, one in every.items():
        steps = [step for step in one["steps"] if step["calls"]]
        if steps:
            first = max(steps, key=lambda step: step["share"] or 0.0)
            slowest.append(
                f"{_words(name)} takes {_ms(largest, one['mean_ms'])}, most of it in `{said(largest, first['operation'])}`"
            )
        parts += [f"**{_words(name)}.** {said(largest, one['about'])}{by(largest)}", _steps(largest, one["steps"])]
    over = [f"`{said(largest, step['operation'])}`" for one in every.values() for step in one["steps"] if step["met"] is False]
    unjudged = sum(step["met"] is None for one in every.values() for step in one["steps"])
    verdict = f"over its target: {', '.join(dict.fromkeys(over))}" if over else "no step that can be judged is over its target"
    verdict += f"; too few samples to judge: {said(largest, unjudged)} steps" if unjudged else ""
    headline = f"On {at(largest, 'memories', ',')} memories {'; '.join(slowest)}; {verdict}{by(largest)}."
    return Chapter(headline, "\n\n".join(parts))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _ms(run: Run, found: Mapping[str, Any]) -> str:
    return said(run, found["value"], ",.3g") + " ms"


def _steps(run: Run, steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            _words(step["step"]),
            f"`{said(run, step['operation'])}`",
            said(run, step["calls"], ","),
            said(run, step["failed"], ","),
            *(said(run, step[f"{name}_ms"]["value"], ",.3g") for name in ("p50", "p95")),
            "–" if step["share"] is None else said(run, step["share"], ".0%"),
            said(run, step["target_p95_ms"], "g"),
            {True: "yes", False: "**no**", None: "too few"}[step["met"]],
            name_run(run.id),
        ]
        for step in steps
    ]
    return table(
        ["step", "operation", "calls", "failed", "p50 (ms)", "p95 (ms)", "of the run", "target", "kept", "run"], rows, left=2
    )
