"""The catalogue as people and programs read it: the command `memlab operations`."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from memlab.errors import validation
from memlab.operations import registry
from memlab.operations.registry import Operation

WIDTH = 100


def operations_command(
    layer: Annotated[str | None, typer.Option(help="Only this memory layer.")] = None,
    detail: Annotated[
        Literal["name", "description", "schema"] | None,
        typer.Option(help="How much to show; description, or schema with --json, where left out."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE; - is standard output.")
    ] = None,
) -> None:
    """List the operations of the memory engine.

    Example: memlab operations --layer episodic --detail schema
    """
    chosen = registry.operations(layer)
    if json_file is None:
        typer.echo(as_text(chosen, detail or "description"))
        return
    text = json.dumps([one.describe(detail or "schema") for one in chosen], ensure_ascii=False, indent=2)
    if str(json_file) == "-":
        typer.echo(text)
        return
    try:
        json_file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise validation("file", f"cannot write '{json_file}': {error.strerror}; give a file that can be written") from None


def as_text(chosen: list[Operation], detail: Literal["name", "description", "schema"]) -> str:
    """Return operations for a terminal, at a level of detail."""
    if detail == "name":
        return "\n".join(one.name for one in chosen)
    if detail == "schema":
        return "\n\n".join(_card(one) for one in chosen)
    widest = max((len(one.name) for one in chosen), default=0)
    return "\n".join(f"{one.name:<{widest}}  {one.kind:<5}  {one.summary}" for one in chosen)


def _card(one: Operation) -> str:
    lines = [
        f"{one.name}  ({one.kind}, {one.cost}, p95 at most {one.target_p95_ms:g} ms{' an item' if one.cost == 'bulk' else ''})",
        *textwrap.wrap(one.summary, WIDTH, initial_indent="  ", subsequent_indent="  "),
    ]
    properties: dict[str, Any] = one.describe("schema")["parameters"].get("properties", {})
    required = one.describe("schema")["parameters"].get("required", [])
    for name, known in properties.items():
        said = f"{name}: {type_text(known)}{_default(known, name in required)}"
        lines += textwrap.wrap(f"{said}. {one.help[name]}", WIDTH, initial_indent="    ", subsequent_indent="      ")
    return "\n".join([*lines, f"  returns {registry.result_name(one.result_type)}"])


def _default(known: dict[str, Any], is_required: bool) -> str:
    if is_required:
        return ", required"
    return f" = {json.dumps(known['default'], ensure_ascii=False)}" if "default" in known else ""


def type_text(known: dict[str, Any]) -> str:
    """Return a JSON schema's type and bounds in a few words.

    >>> type_text({"type": "integer", "minimum": 1, "maximum": 200})
    'integer 1..200'
    >>> type_text({"anyOf": [{"enum": ["any", "all"]}, {"type": "null"}]})
    'any | all | null'
    """
    if "anyOf" in known:
        return " | ".join(type_text(part) for part in known["anyOf"])
    if "enum" in known:
        return " | ".join(str(word) for word in known["enum"])
    kind = str(known.get("type", "any"))
    if kind == "array":
        return f"list of {type_text(known.get('items', {}))}, {_range(known.get('minItems', 0), known.get('maxItems'))} of them"
    if kind == "object":
        return "table"
    if "minimum" in known or "maximum" in known:
        return f"{kind} {_range(known.get('minimum'), known.get('maximum'))}"
    if known.get("format") == "date-time":
        return "time"
    return f"{kind} of {_range(known.get('minLength', 0), known['maxLength'])} characters" if "maxLength" in known else kind


def _range(low: float | None, high: float | None) -> str:
    return f"{'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}"
