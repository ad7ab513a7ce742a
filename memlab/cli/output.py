"""Where a command's answer goes: text on standard output, or JSON there or in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from memlab.errors import validation


def check(file: str | None) -> None:
    """Refuse a file that cannot be written before anything is measured for it.

    Raises:
        MemlabError: VALIDATION `file`.
    """
    if file is None or file == "-":
        return
    folder = Path(file).parent
    if not folder.is_dir() or Path(file).is_dir():
        raise validation("file", f"cannot write '{file}': give a file in a folder that is there")


def write(file: str | None, values: Mapping[str, Any], text: Callable[[], str]) -> None:
    """Write *values* as JSON to a file, `-` for standard output in place of the text; the text otherwise."""
    if file is None or file != "-":
        typer.echo(text())
    if file is None:
        return
    encoded = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False)
    if file == "-":
        typer.echo(encoded)
        return
    try:
        Path(file).write_text(encoded + "\n", encoding="utf-8")
    except OSError as error:
        raise validation("file", f"cannot write '{file}': {error.strerror}; give a file that can be written") from None
