"""Where a command's JSON goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from memlab.errors import validation


def write_json(values: Any, to: str) -> None:
    """Write *values* as JSON to a file, or to standard output where *to* is `-`."""
    text = json.dumps(values, ensure_ascii=False, indent=2)
    if to == "-":
        typer.echo(text)
        return
    try:
        Path(to).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise validation("file", f"cannot write '{to}': {error.strerror}; give a file that can be written") from None
