"""The README's table of operations, made from their declarations."""

from __future__ import annotations

from pathlib import Path

from memlab.errors import validation
from memlab.operations.registry import layers, operations, result_name

BEGIN, END = "<!-- operations: made by `make readme` -->", "<!-- /operations -->"


def markdown() -> str:
    """Return every operation as Markdown, one table for each layer."""
    parts = []
    for layer, holds in layers():
        rows = [
            f"| `{one.name}` | {one.kind} | `{result_name(one.result_type)}` | {one.summary.replace('|', chr(92) + '|')} |"
            for one in operations(layer)
        ]
        parts.append("\n".join([f"**{layer}**: {holds}", "", "| operation | | answers with | |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def renewed(document: str) -> str:
    """Return *document* with the table between its two marks made anew.

    Raises:
        MemlabError: VALIDATION `document`: the marks are not there, once each and in order.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise validation("document", f"the document needs a line '{BEGIN}' and, below it, a line '{END}'")
    return f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{after}"


def renew(path: str | Path) -> None:
    """Make the table in the document at *path* anew; leave the file alone where nothing changed."""
    file = Path(path)
    document = file.read_text(encoding="utf-8")
    if (text := renewed(document)) != document:
        file.write_text(text, encoding="utf-8")
