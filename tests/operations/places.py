"""Where in an operation's parameters something stands: found in its schema, so that no test lists operations by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from memlab.operations import registry
from memlab.operations.parameters import ID_PATTERN, Id
from memlab.operations.registry import Operation

EACH = "[]"
ID_LENGTH = registry.schema(msgspec.defstruct("Parameters", [("id", Id)]))["properties"]["id"]["maxLength"]


class Place(NamedTuple):
    """One place for a value: the names that lead to it, `[]` for the items of a list, and what the schema says of it."""

    path: tuple[str, ...]
    schema: Mapping[str, Any]

    def __str__(self) -> str:
        return ".".join(self.path)


def places(declared: Operation) -> list[Place]:
    """Return every place of an operation's parameters that holds one value: text, number, time, table, choice or vector."""
    return list(_walk(declared.describe()["parameters"], ()))


def _walk(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Place]:
    for part in schema.get("anyOf", ()):
        yield from _walk(part, path)
    if "properties" in schema:
        for name, part in schema["properties"].items():
            yield from _walk(part, (*path, name))
    elif schema.get("type") == "array" and schema.get("items") != {"type": "number"}:
        yield from _walk(schema["items"], (*path, EACH))
    elif schema.get("type") not in (None, "null"):
        yield Place(path, schema)


def takes_id(place: Place) -> bool:
    """Return whether ids of memories stand there: names of a like form are shorter."""
    return place.schema.get("pattern") == ID_PATTERN and place.schema.get("maxLength") == ID_LENGTH


def takes_text(place: Place) -> bool:
    """Return whether a caller's own words stand there, in a text or in a table."""
    words = place.schema.get("type") == "string" and not {"enum", "const"} & place.schema.keys()
    is_table = place.schema.get("type") == "object"
    return is_table or (words and place.schema.get("format") != "date-time" and not takes_id(place))


def may_be_left_out(declared: Operation, path: Sequence[str]) -> bool:
    """Return whether null may stand at *path*."""
    schema: Mapping[str, Any] = declared.describe()["parameters"]
    for name in path:
        tables = [schema, *schema.get("anyOf", ())]
        inner = [one["items"] for one in tables if "items" in one] if name == EACH else []
        inner += [one["properties"][name] for one in tables if name in one.get("properties", {})]
        (schema,) = inner
    return any(part.get("type") == "null" for part in schema.get("anyOf", ()))


def put(given: Any, path: Sequence[str], value: Any) -> Any:
    """Return a copy of *given* with *value* at *path*: alone in a list of plain values, in the first table of a list of them.

    >>> put({"a": 1, "b": [{"c": 2}, {"c": 3}]}, ("b", "[]", "c"), 0)
    {'a': 1, 'b': [{'c': 0}, {'c': 3}]}
    >>> put({"ids": ["x", "y"]}, ("ids", "[]"), "z")
    {'ids': ['z']}
    """
    if not path:
        return value
    name, *rest = path
    if name == EACH:
        items = list(given or ())
        return [put(items[0] if items else None, rest, value), *items[1:]] if rest else [value]
    table = dict(given or {})
    return {**table, name: put(table.get(name), rest, value)}


def found(given: Any, path: Sequence[str]) -> list[Any]:
    """Return what stands at *path* in *given*; several where lists are on the way.

    >>> found({"b": [{"c": 2}, {"c": 3}, {}]}, ("b", "[]", "c"))
    [2, 3]
    """
    if not path:
        return [given]
    name, *rest = path
    if name == EACH:
        return [one for item in given or () for one in found(item, rest)]
    return found(given[name], rest) if isinstance(given, Mapping) and name in given else []
