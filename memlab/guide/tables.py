"""Tables of figures: what both guides lay out alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from memlab.experiment.results import Run
from memlab.guide import figures
from memlab.guide.figures import Figure, mark, name_run


class Column(NamedTuple):
    """A column of a table of runs: its head, where its figures stand in a run, how they read."""

    head: str
    path: str
    spec: str = ""
    null: str = "–"


def cell(run: Run, column: Column) -> str:
    """Return what stands at a column's path in a run, marked; its word for nothing where nothing does."""
    value, low, high = figures.read(run, column.path, missing=None)
    if value is None and column.path.startswith("parameters."):
        return mark(Figure(column.null, (run.id,)))
    return mark(Figure(value, (run.id,), low=low, high=high), column.spec) if value is not None else column.null


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Return a table; its first *left* columns are words and lean left, the rest are figures and lean right."""
    rule = [":---" if place < left else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(heads), rule, *rows])


def derived(runs: Sequence[Run], value: float | int | str | None, spec: str = ",", unit: str = "") -> str:
    """Return a figure that was worked out from several runs, marked."""
    return mark(Figure(value, tuple(run.id for run in runs), unit), spec)


def host_table(run: Run) -> str:
    """Return where a run was made, and by which versions."""
    names = {"cpu": "processor", "cores": "cores", "memory_gib": "memory (GiB)", "os": "system", "python": "python"}
    rows = [[name, mark(Figure(run.host[key], (run.id,))), name_run(run.id)] for key, name in names.items()]
    rows += [[name, mark(Figure(version, (run.id,))), name_run(run.id)] for name, version in run.libraries.items()]
    rows.append(["memlab, digest of what was measured", mark(Figure(str(run.code_version)[:12], (run.id,))), name_run(run.id)])
    return table(["", "", "run"], rows, left=3)
