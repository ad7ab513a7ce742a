"""What a chapter of a document is, and the words that all of them are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from memlab.experiment.results import Run
from memlab.guide import figures
from memlab.guide.figures import Figure, mark, name_run
from memlab.guide.tables import Column, cell


class Chapter(NamedTuple):
    """What one experiment has to say.

    Attributes:
        headline: its result in a sentence, marked.
        text: Markdown, marked.
        drawings: SVG by name.
        rule: the rule of thumb that follows, with the range that it was seen in, marked; empty where nothing follows.
        settings: to copy, by dotted key; the run that shows them is named in the text.
        shown_by: identity of that run where no candidate has the settings; empty for the first whose candidate has each.
    """

    headline: str
    text: str
    drawings: Mapping[str, str] = {}
    rule: str = ""
    settings: Mapping[str, Any] = {}
    shown_by: str = ""


class Topic(NamedTuple):
    """An experiment that a document speaks of.

    Attributes:
        name: of its place in the document.
        experiment: of its params file.
        title: of its chapter.
        about: what was done, in a sentence without digits.
        write: makes the chapter of its runs.
    """

    name: str
    experiment: str
    title: str
    about: str
    write: Callable[[Sequence[Run]], Chapter]


def at(run: Run, path: str, spec: str = "", unit: str = "") -> str:
    """Return the figure at a path of the run's summary, marked; a dash where nothing stands, words where samples were too few."""
    value, low, high = figures.read(run, f"summary.{path}", missing=None)
    if value is None and figures.read(run, f"summary.{path}.note", missing=None)[0] is None:
        return "–"
    return mark(Figure(value, (run.id,), unit, low, high), spec)


def cells(run: Run, prefix: str, columns: Iterable[tuple[str, str]]) -> list[str]:
    """Return the figures below a path of the run's summary, each by its name and format."""
    return [cell(run, Column("", f"summary.{prefix}.{path}", spec)) for path, spec in columns]


def said(run: Run, value: str | float | None, spec: str = "") -> str:
    """Return something that was worked out from one run, marked."""
    return mark(Figure(value, (run.id,)), spec)


def p95_of(run: Run, row: Mapping[str, Any]) -> str:
    """Return the p95 of a row that has the ends of its interval beside it, in ms, marked; words where samples were too few."""
    return mark(Figure(row["p95_ms"], (run.id,), low=row["p95_low_ms"], high=row["p95_high_ms"]), ".3g±")


def by(run: Run) -> str:
    """Return the mention of a run at the end of a sentence, for all its figures."""
    return f" ({name_run(run.id)})"


def number(value: float) -> str:
    """Return a number of any size as a reader likes it.

    >>> number(28743.2), number(0.03789)
    ('28,743', '0.0379')
    """
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.3g}"


def chart(name: str, words: str) -> str:
    """Return the place of a chart, with the words below it."""
    return f"![{words}](charts/{name}.svg)"


def ends(found: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Return value and ends of an interval as a summary holds it, for a chart's frame."""
    return {end: (found or {}).get(end) for end in ("value", "low", "high")}


# Of a chart's frame: columns that may be empty keep their type.
ENDS = dict.fromkeys(("value", "low", "high", "mark"), pl.Float64)
