"""How far the experiments of a document are, and how they are told: those without runs are named, with what would make them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from memlab.errors import ErrorType, MemlabError
from memlab.experiment import results as kept_runs
from memlab.experiment import speed, sweep
from memlab.experiment.progress import Bar, shown
from memlab.experiment.quiet import quiet
from memlab.experiment.results import Run
from memlab.experiment.sweep import Sweep
from memlab.guide import documents, settings_text
from memlab.guide.chapter import Chapter, Topic
from memlab.guide.figures import Figure, mark, name_run
from memlab.guide.tables import table

Size: TypeAlias = Literal["quick", "smoke", "full"]

_ENDINGS: dict[Size, tuple[str, ...]] = {"quick": (".yaml",), "smoke": (".smoke.yaml",), "full": (".full.yaml", ".yaml")}
_BENCH: dict[Size, dict[str, int | float]] = {
    "quick": {"memories": 100_000, "calls": 400, "seconds": 2.0},
    "full": {"memories": 100_000, "calls": 400, "seconds": 2.0},
    "smoke": {"memories": 1_000, "calls": 20, "seconds": 0.5},
}
_BENCH_S: dict[Size, float] = {"quick": 240.0, "full": 240.0, "smoke": 8.0}


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


def gather(
    topics: Sequence[Topic], params: Path, results: Path, *, measured: Collection[str], size: Size, progress: bool
) -> list[State]:
    """Return how far every topic is.

    Args:
        measured: names of the topics of which what is missing is measured.
    """
    sweeps = {topic.name: _sweep(params, topic, size) for topic in topics}
    errors: dict[str, str] = {}
    allowed = [topic for topic in topics if topic.name in measured]
    waiting = [topic for topic in allowed if _missing(topic, sweeps[topic.name], results, size)]
    for place, topic in enumerate(waiting):
        left = sum(_expected_s(one, sweeps[one.name], results, size) for one in waiting[place:])
        title = f"{topic.experiment} ({place + 1} of {len(waiting)}, all: {shown(left)})"
        errors[topic.name] = _measure(topic, sweeps[topic.name], results, size, Bar(title) if progress else None)
    states = []
    for topic in topics:
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


def tell(states: Iterable[State]) -> dict[str, Chapter]:
    """Return the chapter of every topic that has runs, by the topic's name."""
    return {state.topic.name: state.topic.write(state.runs) for state in states if state.runs}


def chapter(state: State, told: Mapping[str, Chapter], command: str) -> str:
    """Return a chapter as it stands in a document, or that it was not run.

    Args:
        told: of `tell`.
        command: that measures it, beside a sweep of its own.
    """
    head = f"## {state.topic.title}"
    found = told.get(state.topic.name)
    if found is None:
        return f"{head}\n\n{_not_run(state, command)}"
    notes = [f"**Not whole.** {_count(state)} points are missing.{_failure(state)}"] if state.missing else []
    suspect = [reason for run in state.runs for reason in _suspect(run)]
    if suspect:
        notes.append("**Suspect.** " + "; ".join(dict.fromkeys(suspect)) + ".")
    rule = [f"> **Rule of thumb.** {found.rule}"] if found.rule else []
    if copied := settings_text.to_copy(found.settings, state.runs, found.shown_by):
        rule.append(copied)
    return "\n\n".join([documents.NEW_PAGE, head, f"> **{found.headline}**", *notes, found.text, *rule])


def short(states: Iterable[State], told: Mapping[str, Chapter]) -> str:
    """Return a line for every topic: its headline, or that it was not run."""
    lines = []
    for state in states:
        found = told.get(state.topic.name)
        lines.append(f"- **{_ended(state.topic.title)}** {found.headline if found else 'Not run.'}")
    return "\n".join(lines)


def _ended(title: str) -> str:
    return title if title.endswith("?") else f"{title}."


def _suspect(run: Run) -> list[str]:
    found = run.summary.get("suspect") or []
    return [f"{mark(Figure(str(reason), (run.id,)))}" for reason in found]


def _count(state: State) -> str:
    return mark(Figure(len(state.missing), tuple(run.id for run in state.runs)))


def _failure(state: State) -> str:
    return " One failed; its notebook holds the error." if state.error else ""


def _not_run(state: State, command: str) -> str:
    made = "`memlab bench`" if _is_bench(state.topic) else f"`memlab sweep params/{state.topic.experiment}.yaml`"
    failed = " It was tried and failed; the notebook of the failed point holds the error." if state.error else ""
    older = " Runs of older code are kept, which say nothing of the code as it is." if state.older else ""
    return f"**Not run.** {state.topic.about} {made}, or `{command}`, makes it.{failed}{older}"


def state_table(states: Sequence[State]) -> str:
    """Return a table of how far every topic is."""
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


def runs_tables(states: Sequence[State]) -> str:
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
