"""Runs to the Optimization Guide: Markdown, HTML, PDF, and the settings that it recommends.

    sweeps ──summary notebooks──▸ findings, charts ──▸ recommended settings ──one interleaved run──▸ before and after
                                                                    │
    further experiments ──chapters──▸ rules, settings to copy ──────┤
    a trace of one's own ──one run──▸ its chapter ──────────────────┤
                                                                    ▾
                                     optimization-guide.{md,html,pdf}, recommended.toml, charts/

Nothing is measured here but what `run` asks for; every number is read from a run (see `figures`). Only the sweeps, which were
confirmed together by the before-after run, decide the recommended settings; the further chapters show theirs to copy.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from memlab.errors import internal, validation
from memlab.experiment import results as kept_runs
from memlab.experiment import sweep, trace_study
from memlab.experiment.executor import Executor
from memlab.experiment.progress import Bar
from memlab.experiment.results import Run
from memlab.guide import chapters, documents, figures, load_chapters, sections, topics
from memlab.guide.advice import (
    batching,
    index,
    invalidation,
    memory,
    miss_ratio,
    overload,
    paging,
    pooling,
    tuning,
    warm_up,
    watching,
)
from memlab.guide.advice import trace as trace_chapter
from memlab.guide.chapter import Chapter, Topic
from memlab.guide.figures import Figure
from memlab.guide.findings import Finding, read_chart, read_finding
from memlab.guide.publish import publish, replace
from memlab.guide.sections import AFTER, QUESTIONS, Evidence
from memlab.guide.topics import State
from memlab.settings import Settings

NAME = "optimization-guide"
TITLE = "Optimization guide"
COMMAND = "memlab guide --run --all"

TOPICS = (
    Topic(
        "invalidation",
        "07-invalidation",
        "Up to which share of writes does a cache pay?",
        "A cache beside none, at several shares of writes.",
        invalidation.chapter,
    ),
    Topic(
        "warm-up",
        "08-warm-up",
        "How much to ask before a process takes traffic?",
        "Fresh processes over cold files, after warm-ups of several lengths.",
        warm_up.chapter,
    ),
    Topic(
        "batching",
        "21-batch-window",
        "When does a batch window pay, and can that be said beforehand?",
        "Windows in a race with none, and a model of what groups take.",
        batching.chapter,
    ),
    Topic(
        "pooling",
        "22-pool-limit",
        "Which limit, from a few that were measured?",
        "The scalability law from some limits, held against others.",
        pooling.chapter,
    ),
    Topic(
        "index",
        "23-index",
        "Which vector index?",
        "Kinds of index by recall, time and bytes, for several sizes, sessions and callers.",
        index.chapter,
    ),
    Topic(
        "memory",
        "15-memory",
        "What does memory cost, and what saves it?",
        chapters.MEMORY,
        memory.chapter,
    ),
    Topic(
        "paging",
        "09-paging",
        "How large a page to take on a walk?",
        "Walks through many memories by size of the page, and beside writes.",
        paging.chapter,
    ),
    Topic("rate", "12-rate", "How much is sustained?", "A search for the rate, by a target of p99.", load_chapters.rate),
    Topic(
        "overload",
        overload.EXPERIMENT,
        "What happens when more is asked than can be answered?",
        "Far more calls than are sustained, by deadline and wait for a place.",
        overload.chapter,
    ),
    Topic(
        "miss-ratio",
        "20-miss-ratio",
        "Appendix: how well is a hit ratio predicted?",
        "Curves from one pass over a trace, held against the real cache.",
        miss_ratio.chapter,
    ),
    Topic(
        "tuning",
        "24-tune",
        "Appendix: how near does a joint search come?",
        "Searches held against a recorded grid, and a duel on other traffic.",
        tuning.chapter,
    ),
)
CHEAP = frozenset({"invalidation", "warm-up", "paging"})
"""Topics that `run` measures unasked: the whole guide takes ten minutes at most on two cores."""

_SUMMARY_TIMEOUT_S = 300.0
_SETTINGS_HEAD = "# Recommended by the Optimization Guide beside this file; each line names the run that shows it."
_SMOKE_HEAD = "# Written by a smoke run, which recommends nothing: these are the defaults."


class Written(NamedTuple):
    """What was written.

    Attributes:
        finding: whether it holds findings, or only proves that it runs.
        not_run: experiments of further chapters without runs.
        failed: experiments of further chapters of which a point failed now, each with its error.
    """

    markdown: Path
    html: Path
    pdf: Path
    settings: Path
    finding: bool
    not_run: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every document."""
        return self.markdown, self.html, self.pdf, self.settings


def build(
    params: str | Path = "params",
    results: str | Path = "results",
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    trace: str | Path | None = None,
    run: bool = False,
    every: bool = False,
    smoke: bool = False,
    progress: bool = True,
) -> Written:
    """Write the guide of the sweeps in *params* and return where it stands.

    Args:
        params: folder of the params files; their notebooks stand where they say.
        results: folder of runs.
        out: folder for the guide; default: `guide` inside *results*, `guide.smoke` for smoke runs.
        data: folder of conversations instead of generated ones, for the sweeps.
        trace: of the reader's own traffic, which the guide then speaks of too; see `workload.trace`.
        run: measure what is missing of the sweeps, and of the chapters that take little time. Without, a missing point of a sweep
            is an error, and a chapter without runs says so. The run of the recommended settings, which depends on the findings,
            and that of a trace are always made when they are missing.
        every: with `run`, measure every chapter, which may take an hour.
        smoke: use the smoke sweeps: the guide then proves that it runs, and finds nothing.
    Raises:
        MemlabError: NOT_FOUND `run`: points are missing; VALIDATION `bare_number`, `unknown_run`, `stale_run`: see
            `figures.check`; `trace`: it cannot be read; INTERNAL `sweep`: a point of a sweep failed.
    """
    if trace is not None:
        trace_study.read(Path(trace))  # a bad one is refused before anything is measured
    kept = Path(results)
    folder = Path(out) if out is not None else kept / ("guide.smoke" if smoke else "guide")
    evidence = gather(Path(params), kept, folder, data=data, run=run, smoke=smoke, progress=progress)
    measured = {topic.name for topic in TOPICS if every or topic.name in CHEAP} if run else set()
    size: Literal["quick", "smoke"] = "smoke" if smoke else "quick"
    states = topics.gather(TOPICS, Path(params), kept, measured=measured, size=size, progress=progress)
    if trace is not None:
        if progress:
            Bar(trace_study.EXPERIMENT).say(f"trace: '{trace}', a minute or two")
        looked = trace_study.study(Path(trace), evidence.recommended, kept, size=size)
        states.insert(0, State(_trace_topic(evidence, states), [looked], ()))
    return render(evidence._replace(states=states), folder)


def _trace_topic(evidence: Evidence, states: Sequence[State]) -> Topic:
    """Return the chapter of the reader's trace, which is held against the traffic of the others."""
    others: dict[str, Sequence[Run]] = {**evidence.runs, AFTER: [evidence.after]}
    others |= {state.topic.experiment: state.runs for state in states}
    write = functools.partial(trace_chapter.chapter, others=others)
    return Topic("trace", trace_study.EXPERIMENT, "Your trace", "The trace that was given.", write)


def gather(
    params: Path, results: Path, folder: Path, *, data: str | Path | None, run: bool, smoke: bool, progress: bool
) -> Evidence:
    """Return runs and findings of the sweeps, measuring what *run* allows."""
    ending = ".smoke.yaml" if smoke else ".yaml"
    files = {question.experiment: params / f"{question.experiment}{ending}" for question in QUESTIONS}
    sweeps = {experiment: sweep.Sweep.load(path, data=data) for experiment, path in files.items()}
    final = sweep.Sweep.load(params / f"{AFTER}{ending}", data=data)  # checked before anything is measured
    if run:
        for points in sweeps.values():
            _measure(points, results, progress)
    runs = {experiment: points.runs(results) for experiment, points in sweeps.items()}
    notebooks: dict[str, Path] = {}
    with contextlib.ExitStack() as stack:
        for experiment, points in sweeps.items():
            given = {"params": files[experiment], "folder": results, "data": data}
            source = points.notebook.with_name(f"{experiment}-summary.ipynb")
            notebooks[experiment] = _summarise(source, folder / "notebooks", given, runs[experiment], stack)
    findings = {experiment: read_finding(notebook) for experiment, notebook in notebooks.items()}
    recommended = recommend(findings.values())
    final = final.with_settings(recommended)
    _measure(final, results, progress)
    (after,) = final.runs(results)
    notebooks[AFTER] = after.notebook
    findings[AFTER] = read_finding(after.notebook)
    drawings = {experiment: read_chart(notebook) for experiment, notebook in notebooks.items()}
    return Evidence(runs, findings, drawings, after, recommended)


def recommend(found: Iterable[Finding]) -> Settings:
    """Return the defaults with what the findings recommend in place."""
    settings = Settings()
    for finding in found:
        settings = Settings.of(finding.recommended, settings)
    return settings


def _measure(points: sweep.Sweep, results: Path, progress: bool) -> None:
    outcome = sweep.run(points, results, progress=Bar(points.experiment) if progress else None)
    if outcome.failed:
        first = outcome.failed[0]
        text = f"{points.experiment}: {len(outcome.failed)} points failed; {first.error}; see '{first.notebook}', then run again"
        raise internal("sweep", text)


def _summarise(
    source: Path, folder: Path, given: Mapping[str, Path | str | None], runs: Sequence[Run], stack: contextlib.ExitStack
) -> Path:
    """Execute a summary notebook, unless it was executed for the same runs by the same code; return where it stands.

    Args:
        given: its parameters.
        stack: closes what executes notebooks, which a guide without changes never starts.
    """
    target = folder / source.name
    package = Path(__file__).parent.parent
    judging = [source, *(path for part in ("charts", "guide") for path in sorted((package / part).glob("*.py")))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in judging))
    parameters = {name: None if value is None else str(Path(value).resolve()) for name, value in given.items()}
    digest.update(json.dumps([[run.id for run in runs], parameters]).encode())
    key = digest.hexdigest()
    if target.is_file() and json.loads(target.read_text(encoding="utf-8"))["metadata"].get("memlab") == key:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    executor = stack.enter_context(contextlib.closing(Executor()))
    partial = target.with_name(f".{target.name}")
    executor.submit(source, partial, parameters, _SUMMARY_TIMEOUT_S)
    ended, error = False, None
    while not ended:
        ended, error = executor.poll(1.0)
    if error is not None:
        raise internal("notebook", f"notebook '{source.name}' failed: {error}; see '{partial}'")
    notebook = json.loads(partial.read_text(encoding="utf-8"))
    notebook["metadata"]["memlab"] = key
    partial.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(target)
    return target


def render(evidence: Evidence, folder: Path) -> Written:
    """Write the documents of *evidence* into *folder*; nothing is replaced when a number has no run.

    Raises:
        MemlabError: VALIDATION `bare_number`, `unknown_run` or `stale_run`; see `figures.check`; `hosts`: of unlike ones.
    """
    known = {state.topic.name: state for state in evidence.states}
    missing = [State(topic, [], ()) for topic in TOPICS if topic.name not in known]
    evidence = evidence._replace(states=[*evidence.states, *missing])
    every = sections.all_runs(evidence)
    kept_runs.refuse_unlike_hosts(every)
    verify(evidence.findings.values(), every)
    watched = _watched(evidence)
    told = topics.tell([*evidence.states, watched])
    template = (documents.TEMPLATES / f"{NAME}.md").read_text(encoding="utf-8")
    body = figures.write(template, **sections.fields(evidence, told), **_chapters([*evidence.states, watched], told))
    finding = sections.is_finding(evidence)
    subtitle = "For generated conversations" if evidence.after.data is None else "For conversations of your own"
    if not finding:
        subtitle = "A smoke run: it proves that it runs"
    drawings = dict(evidence.drawings)
    for chapter in told.values():
        drawings |= chapter.drawings
    published = publish(body, every, drawings, folder, name=NAME, title=TITLE, subtitle=subtitle)
    settings = folder / "recommended.toml"
    head = _SETTINGS_HEAD if finding else _SMOKE_HEAD
    replace(settings, f"{head}\n{figures.plain(sections.settings_file(evidence))}\n")
    not_run = tuple(state.topic.experiment for state in evidence.states if not state.runs)
    failed = tuple(f"{state.topic.experiment}: {state.error}" for state in evidence.states if state.error)
    return Written(*published, settings, finding, not_run, failed)


def _watched(evidence: Evidence) -> State:
    """Return the chapter on what to watch, which reads the runs of the sweeps and of overload."""
    pressed = [run for state in evidence.states if state.topic.experiment == overload.EXPERIMENT for run in state.runs]
    topic = Topic("watching", "", "What should be watched?", "The engine's own counters.", watching.chapter)
    return State(topic, [*sections.core_runs(evidence), *pressed], ())


def _chapters(states: Sequence[State], told: Mapping[str, Chapter]) -> dict[str, str]:
    """Return what fills the places of the further chapters."""
    filled = {f"chapter_{state.topic.name.replace('-', '_')}": topics.chapter(state, told, COMMAND) for state in states}
    return {"chapter_trace": "", **filled}


def verify(found: Iterable[Finding], runs: Iterable[Run]) -> None:
    """Read every number of the findings in its run again.

    Raises:
        MemlabError: VALIDATION `unknown_run`: its run is not among *runs*; `figure`: the run says something else.
    """
    known = {run.id: run for run in runs}
    for finding in found:
        for name, figure in finding.scalars.items():
            if not isinstance(figure, Figure) or figure.path is None:
                continue
            if figure.runs[0] not in known:
                raise validation("unknown_run", f"figure {name} comes from run {figure.runs[0]}, which is not in the results")
            if figures.read(known[figure.runs[0]], figure.path) != (figure.value, figure.low, figure.high):
                raise validation("figure", f"figure {name} = {figure} is not what run {figure.runs[0]} holds at {figure.path}")
