"""Markdown to a page that opens without a network, and to a PDF.

Pandoc reads the Markdown; the HTML holds its style and its charts and allows nothing else, typst sets the PDF in the fonts
that it carries. Neither needs a browser, a network, or a font of the machine.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pypandoc
import typst

from memlab import charts
from memlab.errors import internal
from memlab.guide.figures import Style

TEMPLATES = Path(__file__).parent / "templates"
# Long lines of a pipe table would otherwise fix its column widths by the dashes under its head.
_READ = "markdown+pipe_tables-smart"
_FEW = 2  # runs that are cited one by one; a figure of more leads to the table that lists them
_OPTIONS = ["--columns=10000", "--wrap=none"]


def readable(keys: Mapping[str, str]) -> Style:
    """Return citations for Markdown that people read as it is: a small linked key after each figure.

    Args:
        keys: the short key of each run.
    """
    return Style(
        lambda runs: _after(runs, keys),
        lambda run: f"[{keys[run]}](#run-{keys[run]})",
        lambda run: f'<a id="run-{keys[run]}"></a>{keys[run]}',
        lambda run: keys[run],
    )


def linked(keys: Mapping[str, str]) -> Style:
    """Return the same citations for pandoc, which makes pages of them."""
    return readable(keys)._replace(define=lambda run: f"[{keys[run]}]{{#run-{keys[run]}}}")


def _after(runs: Sequence[str], keys: Mapping[str, str]) -> str:
    if len(runs) <= _FEW:
        return f"<sup>{' '.join(f'[{keys[run]}](#run-{keys[run]})' for run in runs)}</sup>"
    experiments = {run.partition("/")[0].partition(".")[0] for run in runs}
    if len(experiments) == 1:
        (experiment,) = experiments
        return f"<sup>[{experiment}](#runs-of-{experiment})</sup>"
    return "<sup>[all](#runs)</sup>"


def to_html(markdown: str, path: Path, *, title: str, subtitle: str, charts_in: Path) -> None:
    """Write the page to *path*: one file, charts inside, no script, nothing loaded."""
    options = [
        *_OPTIONS,
        "--standalone",
        "--embed-resources",
        "--toc",
        "--toc-depth=2",
        "--number-sections",
        f"--template={TEMPLATES / 'page.html'}",
        f"--resource-path={charts_in}",
        *_title(title, subtitle),
    ]
    page = pypandoc.convert_text(markdown, "html5", format=_READ, extra_args=options)
    if found := re.search(r"""(?:src|href)=["'](?!data:|#)([^"']*)""", page):
        raise internal("document", f"the page would load '{found[1]}'; charts must lie in '{charts_in}'")
    path.write_text(page, encoding="utf-8")


def to_pdf(markdown: str, path: Path, *, title: str, subtitle: str, charts_in: Path) -> None:
    """Write the PDF to *path*, with charts as vectors and text that can be searched."""
    with tempfile.TemporaryDirectory(prefix="memlab-") as folder:
        inside = Path(folder)
        for name in set(_CHART.findall(markdown)):
            drawn = inside / f"{name}.pdf"
            drawn.parent.mkdir(parents=True, exist_ok=True)
            # typst has no sans-serif font of its own for an SVG's text; vl-convert embeds the one that it measured with.
            charts.svg_to_pdf((charts_in / f"{name}.svg").read_text(encoding="utf-8"), drawn)
        options = [
            *_OPTIONS,
            "--standalone",
            "--shift-heading-level-by=-1",
            f"--template={TEMPLATES / 'page.typ'}",
            *_title(title, subtitle),
        ]
        text = _CITATION.sub(r"`#cited[`{=typst}\1`]`{=typst}", _CHART.sub(r"](\1.pdf)", markdown))
        text = text.replace(NEW_PAGE, "`#pagebreak(weak: true)`{=typst}")
        source = pypandoc.convert_text(text, "typst", format=_READ, extra_args=options)
        (inside / "guide.typ").write_text(source, encoding="utf-8")
        try:
            typst.compile(inside / "guide.typ", output=path, root=inside, ignore_system_fonts=True)
        except typst.TypstError as error:
            raise internal("document", f"typst cannot set '{path.name}': {error}") from error


NEW_PAGE = "<!-- new page -->"
_CITATION = re.compile(r"<sup>(.*?)</sup>")
_CHART = re.compile(r"\]\(([\w./-]+)\.svg\)")


def _title(title: str, subtitle: str) -> list[str]:
    return [f"--metadata=title:{title}", *([f"--metadata=subtitle:{subtitle}"] if subtitle else [])]
