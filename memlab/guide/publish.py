"""Checked text to documents: what is cited is there and current, then Markdown, HTML and PDF are written, none in part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from memlab.experiment.results import Run
from memlab.guide import documents, figures


class Published(NamedTuple):
    """Where the documents stand."""

    markdown: Path
    html: Path
    pdf: Path


def publish(
    body: str,
    runs: Iterable[Run],
    drawings: Mapping[str, str],
    folder: Path,
    *,
    name: str,
    title: str,
    subtitle: str,
) -> Published:
    """Write a marked text as Markdown, HTML and PDF; nothing is replaced when a number has no run.

    Args:
        body: as `figures.write` makes it.
        runs: that it may cite.
        drawings: SVG by name; they stand in `charts` of the folder, where the text looks for them.
        folder: is made where it is missing.
        name: of the files.
    Raises:
        MemlabError: VALIDATION `bare_number`, `unknown_run` or `stale_run`; see `figures.check`.
    """
    figures.check(body, {run.id: figures.Source(run.id, run.is_current) for run in runs})
    drawn = folder / "charts"
    drawn.mkdir(parents=True, exist_ok=True)
    for chart, svg in drawings.items():
        replace(drawn / f"{chart}.svg", svg)
    keys = figures.short_keys(figures.cited(body))
    made = Published(*(folder / f"{name}.{ending}" for ending in ("md", "html", "pdf")))
    replace(made.markdown, f"# {title}\n\n*{subtitle}*\n\n{figures.cite(body, documents.readable(keys))}")
    page = figures.cite(body, documents.linked(keys))
    documents.to_html(page, made.html, title=title, subtitle=subtitle, charts_in=folder)
    documents.to_pdf(page, made.pdf, title=title, subtitle=subtitle, charts_in=folder)
    return made


def replace(path: Path, text: str) -> None:
    """Write a file whole, or leave what was there."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
