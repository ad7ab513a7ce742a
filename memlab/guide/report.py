"""Runs of the measuring room to the Performance Report: Markdown, HTML, PDF.

    params/*.yaml ──sweep──▸ runs ──chapters──▸ marked text and charts ──check──▸ performance-report.{md,html,pdf}

Only runs of the code as it is are read; an experiment without them is named as not run. With `run` what is missing is measured,
and what was measured before is not measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from memlab.errors import not_found
from memlab.experiment import speed
from memlab.guide import chapters, documents, figures, load_chapters, topics
from memlab.guide.chapter import Topic
from memlab.guide.publish import publish
from memlab.guide.tables import host_table
from memlab.guide.topics import Size, State

NAME = "performance-report"
TITLE = "Performance report"
COMMAND = "memlab report --run"

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
_SMOKE = """\
> **This report proves that it runs, and finds nothing.** It was made from smoke runs, too short for any figure to mean something.
> `make report` makes the one with findings.
"""


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
        raise not_found("run", f"no run in '{kept}' is of the code as it is; make them with {COMMAND}")
    return render(states, folder)


def gather(params: Path, results: Path, *, run: bool, size: Size, progress: bool) -> list[State]:
    """Return how far every experiment is, measuring what *run* allows."""
    measured = [topic.name for topic in TOPICS] if run else []
    return topics.gather(TOPICS, params, results, measured=measured, size=size, progress=progress)


def render(states: Sequence[State], folder: Path) -> Written:
    """Write the documents of what was run into *folder*; nothing is replaced when a number has no run.

    Raises:
        MemlabError: VALIDATION `bare_number`, `unknown_run` or `stale_run`; see `figures.check`.
    """
    every = [run for state in states for run in state.runs]
    told = topics.tell(states)
    finding = all(run.size != "smoke" for run in every)
    template = (documents.TEMPLATES / f"{NAME}.md").read_text(encoding="utf-8")
    body = figures.write(
        template,
        banner="" if finding else _SMOKE,
        short=topics.short(states, told),
        state_table=topics.state_table(states),
        chapters="\n\n".join(topics.chapter(state, told, COMMAND) for state in states),
        host_table=host_table(every[0]),
        runs_tables=topics.runs_tables(states),
    )
    drawings = {name: svg for chapter in told.values() for name, svg in chapter.drawings.items()}
    subtitle = "What the engine does on one host, and how surely" if finding else "A smoke run: it proves that it runs"
    published = publish(body, every, drawings, folder, name=NAME, title=TITLE, subtitle=subtitle)
    not_run = tuple(state.topic.experiment for state in states if not state.runs)
    failed = tuple(f"{state.topic.experiment}: {state.error}" for state in states if state.error)
    return Written(*published, finding, not_run, failed)
