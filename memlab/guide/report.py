"""Runs of the measuring room to the Performance Report: Markdown, HTML, PDF.

    params/*.yaml ──sweep──▸ runs ──chapters──▸ marked text and charts ──check──▸ performance-report.{md,html,pdf}

Only runs of the code as it is are read; an experiment without them is named as not run. With `run` what is missing is measured,
and what was measured before is not measured again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from memlab.errors import ErrorType, MemlabError, not_found
from memlab.experiment import results as kept_runs
from memlab.experiment import speed, sweep
from memlab.experiment.progress import Bar, shown
from memlab.experiment.quiet import quiet
from memlab.experiment.results import Run
from memlab.experiment.sweep import Sweep
from memlab.guide import chapters, documents, figures, load_chapters
from memlab.guide.chapter import Chapter, Topic
from memlab.guide.figures import Figure, mark, name_run
from memlab.guide.publish import publish
from memlab.guide.tables import host_table, table

NAME = "performance-report"
TITLE = "Performance report"
Size: TypeAlias = Literal["quick", "smoke", "full"]

TOPICS = (
    Topic("bench", speed.EXPERIMENT, "The engine beside bare libraries", "Engine and bare libraries in turn.", chapters.bench),
    Topic("operations", "10-operations", "Operations", "Every operation, by size of the store.", chapters.operations),
    Topic("workflows", "11-workflows", "Workflows", "End to end, and by step.", load_chapters.workflows),
    Topic("load", "12-load", "Load", "What callers meet, by how many there are.", load_chapters.load),
    Topic("rate", "12-rate", "The highest sustainable rate", "A search for it, by a target of p99.", load_chapters.rate),
    Topic("driver", "12-driver", "The driver", "What sending costs, and whether it sees stalls.", load_chapters.driver),
    Topic("isolation", "13-isolation", "Isolation", "Sessions side by side, every answer checked.", load_chapters.isolation),
    Topic("leaks", "14-leaks", "Leaks", "Resident memory under steady traffic.", chapters.leaks),
    Topic("memory", "15-memory", "Memory", "What settings save of it.", chapters.memory),
    Topic("profile", "16-profile", "Profile", "Where time and memory go.", chapters.profile),
    Topic("comparison", "17-compare", "Two runs apart", "The noise floor, and verdicts.", chapters.comparison),
)
_ENDINGS: dict[Size, tuple[str, ...]] = {"quick": (".yaml",), "smoke": (".smoke.yaml",), "full": (".full.yaml", ".yaml")}
_BENCH: dict[Size, dict[str, int | float]] = {
    "quick": {"memories": 100_000, "calls": 400, "seconds": 2.0},
    "full": {"memories": 100_000, "calls": 400, "seconds": 2.0},
    "smoke": {"memories": 1_000, "calls": 20, "seconds": 0.5},
}
_BENCH_S: dict[Size, float] = {"quick": 240.0, "full": 240.0, "smoke": 8.0}
_SMOKE = """\
> **This report proves that it runs, and finds nothing.** It was made from smoke runs, too short for any figure to mean something.
> `make report` makes the one with findings.
"""


class State(NamedTuple):
    """How far an experiment is.

    Attributes:
        missing: points that the code as it is has not measured.
        error: of a point that failed now; the empty text where none did.
        older: runs that are kept of other code.
    """

    topic: Topic
    runs: Sequence[Run]
    missing: Sequence[str]
    error: str = ""
    older: int = 0


class Written(NamedTuple):
    """What was written.

    Attributes:
        finding: whether it holds findings, or only proves that it runs.
        not_run: experiments without runs.
        failed: experiments of which a point failed now, each with its error.
    """

    markdown: Path
    html: Path
    pdf: Path
    finding: bool
    not_run: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every document."""
        return self.markdown, self.html, self.pdf


def build(
    params: str | Path = "params",
    results: str | Path = "results",
    out: str | Path | None = None,
    *,
    run: bool = False,
    size: Size = "quick",
    progress: bool = True,
) -> Written:
    """Write the report of what was run and return where it stands.

    Args:
        params: folder of the params files.
        results: folder of runs.
        out: folder for the report; default: `report` inside *results*, `report.smoke` for smoke runs.
        run: measure what is missing; without, it is named as not run.
        size: of the params files: `full` takes hours where a promise needs them, `smoke` proves that it runs.
    Raises:
        MemlabError: NOT_FOUND `run`: nothing was run; VALIDATION `hosts`: the runs come from unlike hosts; `bare_number`,
            `unknown_run`, `stale_run`: see `figures.check`.
    """
    kept = Path(results)
    folder = Path(out) if out is not None else kept / ("report.smoke" if size == "smoke" else "report")
    states = gather(Path(params), kept, run=run, size=size, progress=progress)
    if not any(state.runs for state in states):
        raise not_found("run", f"no run in '{kept}' is of the code as it is; make them with memlab report --run")
    return render(states, folder)


def gather(params: Path, results: Path, *, run: bool, size: Size, progress: bool) -> list[State]:
    """Return how far every experiment is, measuring what *run* allows."""
    sweeps = {topic.name: _sweep(params, topic, size) for topic in TOPICS}
    errors: dict[str, str] = {}
    if run:
        waiting = [topic for topic in TOPICS if _missing(topic, sweeps[topic.name], results, size)]
        for place, topic in enumerate(waiting):
            left = sum(_expected_s(one, sweeps[one.name], results, size) for one in waiting[place:])
            title = f"{topic.experiment} ({place + 1} of {len(waiting)}, all: {shown(left)})"
            errors[topic.name] = _measure(topic, sweeps[topic.name], results, size, Bar(title) if progress else None)
    states = []
    for topic in TOPICS:
        runs, missing = _state(topic, sweeps[topic.name], results, size)
        older = 0 if runs else _older(results, topic, sweeps[topic.name])
        states.append(State(topic, runs, missing, errors.get(topic.name, ""), older))
    kept_runs.refuse_unlike_hosts(one for state in states for one in state.runs)
    return states


def _sweep(params: Path, topic: Topic, size: Size) -> Sweep | None:
    """Return an experiment's sweep; None for what is no sweep, or where its params file is not there."""
    for ending in _ENDINGS[size]:
        path = params / f"{topic.experiment}{ending}"
        if path.is_file():
            return Sweep.load(path)
    return None


def _older(results: Path, topic: Topic, made: Sweep | None) -> int:
    """Return how many runs of other code are kept of an experiment."""
    experiment = topic.experiment if made is None else made.experiment
    folders = sorted(path.parent for path in (results / experiment).glob(f"[!.]*/{kept_runs.FILE}"))
    return sum(not run.is_current for run in map(kept_runs.load, folders))


def _is_bench(topic: Topic) -> bool:
    return topic.experiment == speed.EXPERIMENT


def _state(topic: Topic, made: Sweep | None, results: Path, size: Size) -> tuple[list[Run], list[str]]:
    if _is_bench(topic):
        key = speed.key_of(**_BENCH[size], seed=0)  # type: ignore[arg-type]
        folder = results / speed.EXPERIMENT / key
        return ([kept_runs.load(folder)], []) if (folder / kept_runs.FILE).is_file() else ([], ["the speed table"])
    return ([], []) if made is None else made.state(results)


def _missing(topic: Topic, made: Sweep | None, results: Path, size: Size) -> bool:
    return bool(_state(topic, made, results, size)[1])


def _expected_s(topic: Topic, made: Sweep | None, results: Path, size: Size) -> float:
    missing = set(_state(topic, made, results, size)[1])
    if made is None:
        return _BENCH_S[size] if missing and _is_bench(topic) else 0.0
    return sum(made.expected_s(point) for point in made.points() if point.label in missing)


def _measure(topic: Topic, made: Sweep | None, results: Path, size: Size, bar: Bar | None) -> str:
    """Measure what is missing of an experiment; return the error of the first point that failed, or the empty text."""
    if made is not None:
        failed = sweep.run(made, results, progress=bar).failed
        return str(failed[0].error) if failed else ""
    asked = _BENCH[size]
    if bar is not None:
        bar.say(f"{topic.experiment}: the speed table, about {shown(_BENCH_S[size])}")
    try:
        with kept_runs.locked(results, topic.experiment), quiet():
            speed.keep(speed.report(**asked, seed=0), results)  # type: ignore[arg-type]
    except MemlabError as error:
        if error.type is ErrorType.PERMISSION:
            raise
        return error.text
    except Exception as error:  # noqa: BLE001  like a failed point of a sweep: named in the report, which goes on
        return f"{type(error).__name__}: {error}"
    return ""


# --- writing ---------------------------------------------------------------------------------------------------------


def render(states: Sequence[State], folder: Path) -> Written:
    """Write the documents of what was run into *folder*; nothing is replaced when a number has no run.

    Raises:
        MemlabError: VALIDATION `bare_number`, `unknown_run` or `stale_run`; see `figures.check`.
    """
    every = [run for state in states for run in state.runs]
    told = {state.topic.name: state.topic.write(state.runs) for state in states if state.runs}
    finding = all(run.size != "smoke" for run in every)
    template = (documents.TEMPLATES / f"{NAME}.md").read_text(encoding="utf-8")
    body = figures.write(
        template,
        banner="" if finding else _SMOKE,
        short=_short(states, told),
        state_table=_state_table(states),
        chapters="\n\n".join(_chapter(state, told.get(state.topic.name)) for state in states),
        host_table=host_table(every[0]),
        runs_tables=_runs_tables(states),
    )
    drawings = {name: svg for chapter in told.values() for name, svg in chapter.drawings.items()}
    subtitle = "What the engine does on one host, and how surely" if finding else "A smoke run: it proves that it runs"
    published = publish(body, every, drawings, folder, name=NAME, title=TITLE, subtitle=subtitle)
    not_run = tuple(state.topic.experiment for state in states if not state.runs)
    failed = tuple(f"{state.topic.experiment}: {state.error}" for state in states if state.error)
    return Written(*published, finding, not_run, failed)


def _short(states: Sequence[State], told: dict[str, Chapter]) -> str:
    lines = []
    for state in states:
        chapter = told.get(state.topic.name)
        lines.append(f"- **{state.topic.title}.** {chapter.headline if chapter else 'Not run.'}")
    return "\n".join(lines)


def _chapter(state: State, chapter: Chapter | None) -> str:
    head = f"## {state.topic.title}"
    if chapter is None:
        return f"{head}\n\n{_not_run(state)}"
    notes = [f"**Not whole.** {_count(state)} points are missing.{_failure(state)}"] if state.missing else []
    suspect = [reason for run in state.runs for reason in _suspect(run)]
    if suspect:
        notes.append("**Suspect.** " + "; ".join(suspect) + ".")
    return "\n\n".join([documents.NEW_PAGE, head, f"> **{chapter.headline}**", *notes, chapter.text])


def _suspect(run: Run) -> list[str]:
    found = run.summary.get("suspect") or []
    return [f"{mark(Figure(str(reason), (run.id,)))}" for reason in found]


def _count(state: State) -> str:
    return mark(Figure(len(state.missing), tuple(run.id for run in state.runs)))


def _failure(state: State) -> str:
    return " One failed; its notebook holds the error." if state.error else ""


def _not_run(state: State) -> str:
    made = "`memlab bench`" if _is_bench(state.topic) else f"`memlab sweep params/{state.topic.experiment}.yaml`"
    failed = " It was tried and failed; the notebook of the failed point holds the error." if state.error else ""
    older = " Runs of older code are kept, which say nothing of the code as it is." if state.older else ""
    return f"**Not run.** {state.topic.about} {made}, or `memlab report --run`, makes it.{failed}{older}"


def _state_table(states: Sequence[State]) -> str:
    rows = []
    for state in states:
        word = "done" if state.runs and not state.missing else "in part" if state.runs else "**not run**"
        ids = tuple(run.id for run in state.runs)
        rows.append(
            [
                state.topic.experiment,
                state.topic.about,
                word + (", failed" if state.error else ""),
                mark(Figure(len(ids), ids)) if ids else "–",
                mark(Figure(state.runs[0].size, ids)) if ids else "–",
            ]
        )
    return table(["experiment", "what", "state", "runs", "size"], rows, left=3)


def _runs_tables(states: Sequence[State]) -> str:
    """Return a table of runs for each experiment; figures of many runs lead to its heading."""
    return "\n\n".join(f"### Runs of {state.topic.experiment}\n\n{_runs_table(state.runs)}" for state in states if state.runs)


def _runs_table(runs: Iterable[Run]) -> str:
    rows = [
        [
            name_run(run.id, here=True),
            mark(Figure(_point(run), (run.id,))),
            mark(Figure(run.repeats, (run.id,))),
            mark(Figure(run.seed, (run.id,))),
            mark(Figure(f"{run.started[:16].replace('T', ' ')} UTC", (run.id,))),
        ]
        for run in runs
    ]
    return table(["run", "point", "repeats", "seed", "started"], rows, left=2)


def _point(run: Run) -> str:
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in run.parameters.items()) or "the only one"
