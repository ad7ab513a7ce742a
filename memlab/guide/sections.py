"""What fills the places of the guide's template: sentences and tables whose numbers are read from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from memlab.experiment.results import Run
from memlab.guide import figures, settings_text, topics
from memlab.guide.chapter import Chapter
from memlab.guide.figures import Figure, Reading, mark, name_run
from memlab.guide.findings import Finding
from memlab.guide.tables import Column, cell, derived, host_table, table
from memlab.guide.topics import State
from memlab.operations.registry import lookup
from memlab.settings import Settings

AFTER = "04-before-after"
_SETTINGS = ("cache", "batch", "pool")


class Question(NamedTuple):
    """A sweep that the guide reports.

    Attributes:
        name: what its places in the template begin with; also the section of settings that it turns.
        experiment: of its params file and its notebooks.
        figure: the ratio that decides, and how it is *shown*.
        columns: what its table shows of each point, beside ratio and run.
    """

    name: str
    experiment: str
    figure: str
    shown: str
    columns: tuple[Column, ...]


QUESTIONS = (
    Question(
        "cache",
        "01-cache-size",
        "mean",
        "mean response time",
        (
            Column("entries", "parameters.cache.max_entries", ",", "no cache"),
            Column("ttl (s)", "parameters.cache.ttl_s", "g", "none"),
            Column("hit ratio", "summary.candidate.hit_ratio", ".2f"),
        ),
    ),
    Question(
        "batch",
        "02-batch-window",
        "p95",
        "p95",
        (
            Column("arrivals/s", "parameters.workload.arrivals.rate_per_s", ","),
            Column("window (ms)", "parameters.batch.window_ms", "g", "no batching"),
            Column("limit", "parameters.batch.limit", ","),
            Column("calls together", "summary.candidate.mean_batch_size", ".1f"),
        ),
    ),
    Question(
        "pool",
        "03-pool-limit",
        "p95",
        "p95",
        (
            Column("limit", "parameters.pool.limit", ",", "no pool"),
            Column("database threads", "parameters.pool.database_threads"),
            Column("vector threads", "parameters.pool.vector_threads"),
        ),
    ),
)


class Evidence(NamedTuple):
    """All that a guide is made of.

    Attributes:
        runs: the points of each sweep, by experiment.
        findings, drawings: of each summary notebook and of the before-after run, by experiment.
        after: the run of everything off against the recommended settings.
        recommended: those settings.
        states: how far the further chapters are, that of the reader's own trace among them.
    """

    runs: dict[str, list[Run]]
    findings: dict[str, Finding]
    drawings: dict[str, str]
    after: Run
    recommended: Settings
    states: Sequence[State] = ()


def fields(evidence: Evidence, told: Mapping[str, Chapter]) -> dict[str, str | Figure]:
    """Return what fills each place of the template, numbers marked with their runs.

    Args:
        told: the further chapters, by topic.
    """
    every = core_runs(evidence)
    after = evidence.after
    filled: dict[str, str | Figure] = {
        "banner": "" if is_finding(evidence) else _SMOKE,
        "short": _short(evidence, told) if is_finding(evidence) else "Nothing is recommended.",
        "settings_table": _settings_table(evidence),
        "data_table": _data_table(after),
        "traffic_table": _traffic_table(evidence),
        "after_finding": _quoted(evidence.findings[AFTER], after),
        "after_table": _after_table(after),
        "after_operations": _after_operations(after),
        "recommended": _RECOMMENDED if is_finding(evidence) else _NOT_RECOMMENDED,
        "toml": settings_file(evidence, _SETTINGS),
        "repeats": _range(every, "repeats"),
        "duration": _range(every, "workload.duration_s", "s"),
        "warm_up": _range(every, "workload.warm_up_s", "s"),
        "failures": _failures(every),
        "little": _little(every),
        "driver": _driver(every),
        "recall": _recall(every),
        "host_table": host_table(after),
        "runs_tables": "\n\n".join(
            [
                *(_runs_table(name, runs) for name, runs in _by_experiment(evidence).items()),
                topics.runs_tables(_with_runs(evidence)),
            ]
        ),
    }
    for question in QUESTIONS:
        runs, finding = evidence.runs[question.experiment], evidence.findings[question.experiment]
        filled[f"{question.name}_finding"] = _quoted(finding)
        filled[f"{question.name}_rule"] = _rule(question, runs, finding)
        filled[f"{question.name}_floor"] = _floor(runs, question)
        filled[f"{question.name}_table"] = _points_table(question, runs, finding)
    return filled


def core_runs(evidence: Evidence) -> list[Run]:
    """Return the runs of the sweeps that decide the recommended settings, the before-after run last."""
    return [run for runs in _by_experiment(evidence).values() for run in runs]


def all_runs(evidence: Evidence) -> list[Run]:
    """Return every run that the guide speaks of."""
    return [*core_runs(evidence), *(run for state in _with_runs(evidence) for run in state.runs)]


def is_finding(evidence: Evidence) -> bool:
    """Return whether the guide may hold findings: no smoke run is in it."""
    return all(run.size != "smoke" for run in all_runs(evidence))


def settings_file(evidence: Evidence, sections: Sequence[str] | None = None) -> str:
    """Return the recommended settings as TOML, each line followed by the run that shows it.

    Args:
        sections: the ones wanted; default: all.
    """
    shown = {key: finding.evidence for finding in evidence.findings.values() for key in finding.recommended if finding.evidence}
    return settings_text.of_all(evidence.recommended, lambda key: shown.get(key, evidence.after.id), sections)


_SMOKE = """\
> **This guide proves that it runs, and finds nothing.** It was made from smoke runs, too short to tell settings apart. Figures
> stand where they will stand; none of them says how a setting does. `make guide` makes the one with findings.
"""
_RECOMMENDED = """\
What no sweep turned is at its default. The run beside each line is the one that shows it: the recommended point of a sweep, or
the before-after run, in which all of them worked together.
"""
_NOT_RECOMMENDED = "These are the defaults: a smoke run recommends nothing."


def _by_experiment(evidence: Evidence) -> dict[str, list[Run]]:
    return {**evidence.runs, AFTER: [evidence.after]}


def _said(finding: Finding, run: Run | None = None) -> str:
    """Return the finding's sentence with its numbers marked; what a point's notebook read is a figure of its *run*."""
    scalars: dict[str, Any] = {
        name: Figure(value.value, (run.id,), value.unit, value.low, value.high) if isinstance(value, Reading) and run else value
        for name, value in finding.scalars.items()
    }
    return figures.write(finding.text, **scalars)


def _quoted(finding: Finding, run: Run | None = None) -> str:
    return f"> **{_said(finding, run)}**"


def _with_runs(evidence: Evidence) -> list[State]:
    return [state for state in evidence.states if state.runs]


def _short(evidence: Evidence, told: Mapping[str, Chapter]) -> str:
    lines = [f"> **{_said(evidence.findings[AFTER], evidence.after)}**", ""]
    titles = {"cache": "Cache", "batch": "Batching", "pool": "Pool"}
    lines += [f"- **{titles[question.name]}.** {_said(evidence.findings[question.experiment])}" for question in QUESTIONS]
    lines += [topics.short(_with_runs(evidence), told)]
    return "\n".join(lines)


def _rule(question: Question, runs: Sequence[Run], finding: Finding) -> str:
    """Return the rule of thumb of a sweep with the range that it was seen in, and the settings to copy."""
    if not finding.recommended:
        return ""
    spans = [
        f"{column.head} {mark(_range(known, column.path, spec=column.spec))}"
        for column in question.columns
        if column.path.startswith("parameters.") and not column.path.startswith("parameters.workload.")
        for known in [[run for run in runs if isinstance(figures.read(run, column.path, missing=None)[0], (int, float))]]
        if known
    ]
    first = runs[0]
    mix = first.workload["mix"]
    reads = sum(weight for name, weight in mix.items() if lookup(name).reads) / sum(mix.values())
    zipf = Figure.of(first, "workload.popularity.zipf")
    held = (
        f"Holds for {', '.join(spans)}, at {mark(_range(runs, 'summary.offered_per_s', spec=',.0f'))} arrivals a second, "
        f"{mark(Figure(reads, (first.id,)), '.0%')} of them reads of questions with a Zipf exponent of {mark(zipf, 'g')}."
    )
    rule = (
        f"Take {finding.rule}: here what stands below"
        if finding.verdict == "better"
        else "Leave it as it was where no difference is seen, as here"
    )
    shown = sorted(runs, key=lambda run: run.id != finding.evidence)
    return f"> **Rule of thumb.** {rule}. {held}\n\n{settings_text.to_copy(finding.recommended, shown)}"


def _settings_table(evidence: Evidence) -> str:
    rows = []
    for question in QUESTIONS:
        finding = evidence.findings[question.experiment]
        runs = {run.id: run for run in evidence.runs[question.experiment]}
        for key in sorted(finding.recommended, key=_place):
            run = runs[finding.evidence] if finding.evidence else evidence.after
            value = _setting(finding.recommended[key], key)
            seen = cell(run, Column("", f"summary.ratio.{question.figure}", ".2f±"))
            rows.append(
                [
                    f"`{key}`",
                    mark(Figure(value, (run.id,)), _format(value)),
                    finding.verdict,
                    question.shown,
                    seen,
                    name_run(run.id),
                ]
            )
    return table(["setting", "recommended", "the sweep says", "figure", "times the reference", "run"], rows) if rows else ""


def _place(key: str) -> int:
    """Return where a setting stands among all, so that tables follow the order of the settings."""
    section, _, name = key.partition(".")
    known = Settings().to_dict()
    return list(known).index(section) * 1000 + (list(known[section]).index(name) if name else 0)


def _setting(value: Any, key: str) -> Any:
    return ("none" if "." in key else "off") if value is None else value


def _format(value: Any) -> str:
    return "" if isinstance(value, str) else "g" if isinstance(value, float) else ","


def _range(runs: Sequence[Run], path: str, unit: str = "", spec: str = "g") -> Figure:
    """Return a figure of several runs: the value that all share, or the least and the largest."""
    values = [value for run in runs if isinstance(value := figures.read(run, path, missing=None)[0], (int, float))]
    ids = tuple(run.id for run in runs)
    if not values:
        return Figure(None, ids)
    low, high = format(min(values), spec), format(max(values), spec)
    return Figure(low if low == high else f"{low} to {high}", ids, unit)


def _data_table(run: Run) -> str:
    columns = (
        Column("from", "summary.corpus.name"),
        Column("memories", "summary.corpus.events", ","),
        Column("sessions", "summary.corpus.sessions", ","),
        Column("bytes of text", "summary.corpus.bytes", ","),
        Column("questions", "summary.corpus.questions", ","),
        Column("asked again: Zipf exponent", "workload.popularity.zipf", "g"),
        Column("embedder", "summary.embedder"),
    )
    return table([*(column.head for column in columns), "run"], [[*(cell(run, column) for column in columns), name_run(run.id)]])


def _traffic_table(evidence: Evidence) -> str:
    rows = []
    for experiment, runs in _by_experiment(evidence).items():
        first = runs[0]
        mix = ", ".join(f"{share:g} {operation.rpartition('.')[2]}" for operation, share in first.workload["mix"].items())
        rows.append(
            [
                experiment,
                mark(Figure(mix, (first.id,))),
                mark(_range(runs, "summary.offered_per_s", spec=",.0f")),
                mark(_range(runs, "summary.asked.calls", spec=",.0f")),
                mark(_range(runs, "summary.asked.distinct_questions", spec=",.0f")),
            ]
        )
    return table(["sweep", "calls", "arrivals/s", "calls measured a setting", "distinct questions"], rows, left=2)


def _floor(runs: Sequence[Run], question: Question) -> str:
    nulls = [run for run in runs if run.summary["null"]]
    if not nulls:
        return ""
    ratios = ", ".join(mark(Figure.of(run, f"summary.ratio.{question.figure}"), ".2f±") for run in nulls)
    return f"The reference against itself (A/A) comes out at {ratios} times itself: what differs by less is not told apart here."


def _points_table(question: Question, runs: Sequence[Run], finding: Finding) -> str:
    def place(run: Run) -> tuple[tuple[bool, float], ...]:
        values = [figures.read(run, column.path, missing=None)[0] for column in question.columns]
        return tuple((not isinstance(value, (int, float)), value if isinstance(value, (int, float)) else 0.0) for value in values)

    columns = (
        *question.columns,
        Column("p50 (ms)", "summary.candidate.p50_ms", ".1f"),
        Column("p95 (ms)", "summary.candidate.p95_ms", ".1f"),
        Column(f"{question.figure} / reference", f"summary.ratio.{question.figure}", ".2f±"),
    )
    rows = []
    for run in sorted(runs, key=place):
        words = "A/A" if run.summary["null"] else str(run.summary["verdict"][question.figure])
        if run.id == finding.evidence and finding.verdict == "better":
            words = "**recommended**"
        if run.summary["suspect"]:
            words += ", suspect"
        rows.append([words, *(cell(run, column) for column in columns), name_run(run.id)])
    return table(["says", *(column.head for column in columns), "run"], rows)


def _after_table(run: Run) -> str:
    figures_of = [
        ("p50 (ms)", "p50_ms", "p50", ".2f±"),
        ("p95 (ms)", "p95_ms", "p95", ".2f±"),
        ("p99 (ms)", "p99_ms", None, ".2f±"),
        ("mean (ms)", "mean_ms", "mean", ".2f±"),
        ("answered per second", "throughput_per_s", "throughput", ",.0f±"),
        ("failed, share", "failure_ratio", None, ".4f"),
        ("hit ratio", "hit_ratio", None, ".2f±"),
        ("calls together", "mean_batch_size", None, ".2f±"),
        ("recall@10", "recall_at_10", None, ".3f±"),
    ]
    rows = [
        [
            head,
            cell(run, Column("", f"summary.reference.{name}", spec)),
            cell(run, Column("", f"summary.candidate.{name}", spec)),
            cell(run, Column("", f"summary.ratio.{ratio}", ".2f±")) if ratio else "",
            name_run(run.id),
        ]
        for head, name, ratio, spec in figures_of
    ]
    return table(["", "everything off", "recommended", "recommended / off", "run"], rows)


def _after_operations(run: Run) -> str:
    rows = [
        [
            f"`{operation}`",
            *(
                cell(run, Column("", f"summary.{setting}.by_operation.{operation}.{name}_ms", ".2f±"))
                for name in ("p50", "p95")
                for setting in ("reference", "candidate")
            ),
            name_run(run.id),
        ]
        for operation in run.summary["reference"]["by_operation"]
    ]
    return table(["operation", "p50 off (ms)", "p50 recommended", "p95 off (ms)", "p95 recommended", "run"], rows)


def _settings_of(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    return [run.summary[setting] for run in runs for setting in ("reference", "candidate")]


def _failures(runs: Sequence[Run]) -> str:
    sides = _settings_of(runs)
    calls, failed = sum(side["samples"] for side in sides), sum(side["samples"] - side["ok"] for side in sides)
    return f"{derived(runs, failed)} of {derived(runs, calls)} calls did."


def _little(runs: Sequence[Run]) -> str:
    ratios = [side["littles_law"]["ratio"] for side in _settings_of(runs) if side["littles_law"]["ratio"] is not None]
    if not ratios:
        return "too few samples to say."
    suspect = [run for run in runs if run.summary["suspect"]]
    text = f"their quotient lies between {derived(runs, min(ratios), '.2f')} and {derived(runs, max(ratios), '.2f')}."
    if not suspect:
        return f"{text} No run is suspect."
    return f"{text} Suspect, and left out of the findings: {', '.join(name_run(run.id) for run in suspect)}."


def _driver(runs: Sequence[Run]) -> str:
    def known(name: str) -> list[float]:
        return [value for run in runs if (value := run.summary["driver"][name]) is not None]

    cost = derived(runs, max(known("call_us")), ".0f", "µs")
    headroom = derived(runs, min(known("headroom"), default=None), ".0f", "times")
    text = (
        f"Sending a call and keeping its sample costs {cost} at most; against an engine that does nothing the driver reaches "
        f"{headroom} the rate it was used at, or more."
    )
    late = max(known("late_p99_ms"), default=None)
    if late is None:
        return text
    return f"{text} It sent calls late by {derived(runs, late, '.1f', 'ms')} at most (p99), which counts as response time."


def _recall(runs: Sequence[Run]) -> str:
    judged = [side["recall_at_10"]["value"] for side in _settings_of(runs) if side["recall_at_10"]]
    known = [value for value in judged if value is not None]
    if not known:
        return "recall@10 was not judged."
    least = derived(runs, min(known), ".3f")
    return f"recall@10 against exact search over the same rows, judged in the lane that is timed, is {least} or better."


def _runs_table(experiment: str, runs: Sequence[Run]) -> str:
    rows = [
        [
            name_run(run.id, here=True),
            mark(Figure(_point(run), (run.id,))),
            cell(run, Column("", "repeats")),
            cell(run, Column("", "summary.candidate.samples", ",")),
            cell(run, Column("", "summary.ratio.p95", ".2f±")),
            mark(Figure(f"{run.started[:16].replace('T', ' ')} UTC", (run.id,))),
        ]
        for run in runs
    ]
    heads = ["run", "point", "repeats", "calls", "p95 / reference", "started"]
    return f"### Runs of {experiment}\n\n{table(heads, rows, left=2)}"


def _point(run: Run) -> str:
    if run.summary["null"]:
        return "A/A: the reference against itself"
    values = [f"{name.rpartition('.')[2]} {_setting(value, name)}" for name, value in run.parameters.items()]
    return ", ".join(values) or "recommended settings"
