"""One declaration for each operation, and everything that follows from it.

A declaration is a generator function (a *plan*, see `storage/demands.py`) with typed, bounded parameters under
`@operation`. From it come: validation, the Python API, `memlab operations`, discovery, the README's table, cache and
invalidation rules, the benchmark's and the tests' inputs. Adding one touches one file and its test.
"""

from __future__ import annotations

import inspect
import random
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from memlab.errors import MemlabError, nearest, validation
from memlab.storage.demands import Plan
from memlab.values import Table

LAYERS = {
    "episodic": "events with a time and a context",
    "semantic": "facts, principles and concepts",
    "discovery": "find the right operation",
    "session": "whose memory it is",
}
Cost: TypeAlias = Literal["read", "write", "complex", "bulk", "job", "discovery"]
# Ceilings of p95 and p99 in milliseconds; bulk is per item.
TARGETS: Mapping[Cost, tuple[float, float]] = {
    "read": (100, 200),
    "write": (300, 500),
    "complex": (1000, 2000),
    "bulk": (5, 10),
    "job": (60_000, 120_000),
    "discovery": (100, 200),
}


class Operation(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is known of one operation.

    Attributes:
        name: `layer.operation`.
        reads: whether it only reads; else it writes.
        parameters_type: frozen structure of its parameters, with types and bounds.
        result_type: of its answer.
        invalidates: what a write makes stale in its session: operation names, layer names, or `tag:` + a tag.
        cacheable: whether answers may be kept; *ttl_s* bounds for how long.
        resident: tried in memory first, without a thread or a place in the pool.
        scope: `session` sees one session; `all` speaks of none (discovery) or of the list of sessions.
        cost: its class, with targets for p95 and p99.
        example: parameters of a valid call from a seeded generator and a few ids that exist.
        batch_item: for `bulk`: how many items a call has.
    """

    name: str
    layer: str
    reads: bool
    summary: str
    plan: Callable[..., Any]
    parameters_type: type[msgspec.Struct]
    result_type: Any
    invalidates: tuple[str, ...]
    cacheable: bool
    ttl_s: float | None
    resident: bool
    scope: Literal["session", "all"]
    cost: Cost
    example: Callable[[random.Random, Examples], dict[str, Any]]

    @property
    def kind(self) -> str:
        """`read` or `write`."""
        return "read" if self.reads else "write"

    @property
    def target_p95_ms(self) -> float:
        """The ceiling of p95 in milliseconds; per item for bulk."""
        return TARGETS[self.cost][0]

    @property
    def target_p99_ms(self) -> float:
        """The ceiling of p99 in milliseconds; per item for bulk."""
        return TARGETS[self.cost][1]

    def start(self, parameters: msgspec.Struct) -> Any:
        """Return the plan of one call: a generator, or the answer itself where nothing is asked of storage."""
        return self.plan(**{name: getattr(parameters, name) for name in parameters.__struct_fields__})

    def validate(self, given: Mapping[str, Any]) -> msgspec.Struct:
        """Return the call's parameters, or raise one clear VALIDATION error; nothing has been done then."""
        for name in given:
            if name not in self.parameters_type.__struct_fields__:
                raise validation(
                    "unknown_parameter",
                    f"{self.name} has no parameter '{name}'{nearest(str(name), self.parameters_type.__struct_fields__)}",
                    operation=self.name,
                )
        try:
            parameters = msgspec.convert(given, self.parameters_type, strict=True, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise self._refusal(str(error)) from None
        except MemlabError as error:
            raise validation(error.reason, f"{self.name}: {error.text}", operation=self.name) from None
        for name in parameters.__struct_fields__:
            problem = _unfit(getattr(parameters, name))
            if problem:
                raise validation("bounds", f"{self.name}: {name} {problem}", operation=self.name)
        return parameters

    def _refusal(self, text: str) -> MemlabError:
        what, _, where = text.partition(" - at `$")
        field = where.rstrip("`").lstrip(".")
        missing = re.search(r"missing required field `(\w+)`", what)
        if missing:
            return validation("missing_parameter", f"{self.name} needs {missing[1]}", operation=self.name)
        reason = "bounds" if re.search(r"[<>]=?|length|matching|invalid enum", what, re.I) else "type"
        return validation(reason, f"{self.name}: {field or 'parameters'}: {what[:1].lower()}{what[1:]}", operation=self.name)

    def describe(self, detail: Literal["name", "description", "schema"] = "schema") -> dict[str, Any]:
        """Return what programs and `memlab operations` show of it, at one of three levels of detail."""
        if detail == "name":
            return {"name": self.name}
        known = {"name": self.name, "layer": self.layer, "kind": self.kind, "description": self.summary}
        if detail == "description":
            return known
        return known | {
            "parameters": schema(self.parameters_type),
            "result": result_name(self.result_type),
            "cost": self.cost,
            "target_p95_ms": self.target_p95_ms,
            "target_p99_ms": self.target_p99_ms,
        }


class Examples(msgspec.Struct, frozen=True):
    """What exists in the session that an example is for: `ids[layer]`, contents to ask for, tags, and the vectors' dimension."""

    ids: Mapping[str, list[str]]
    contents: list[str]
    tags: list[str]
    dimension: int


_REGISTRY: dict[str, Operation] = {}


def operation(
    name: str,
    *,
    reads: bool = False,
    writes: bool = False,
    cost: Cost | None = None,
    invalidates: Iterable[str] = (),
    cacheable: bool | None = None,
    ttl_s: float | None = None,
    resident: bool = False,
    scope: Literal["session", "all"] = "session",
    example: Callable[[random.Random, Examples], dict[str, Any]],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the decorated plan as the operation *name*, `layer.operation`; `Operation` says what each argument means."""
    layer = name.partition(".")[0]
    if reads == writes:
        raise validation("declaration", f"{name}: say reads=True or writes=True")
    if layer not in LAYERS:
        raise validation("declaration", f"{name}: no layer '{layer}'{nearest(layer, LAYERS)}")
    if name in _REGISTRY:
        raise validation("declaration", f"{name} is declared twice")

    def declare(plan: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(plan, include_extras=True)
        fields: list[Any] = []
        for parameter in inspect.signature(plan).parameters.values():
            if parameter.default is inspect.Parameter.empty:
                fields.append((parameter.name, hints[parameter.name]))
            else:
                fields.append((parameter.name, hints[parameter.name], parameter.default))
        _REGISTRY[name] = Operation(
            name=name,
            layer=layer,
            reads=reads,
            summary=inspect.cleandoc(plan.__doc__ or "").split("\n\n")[0].replace("\n", " "),
            plan=plan,
            parameters_type=msgspec.defstruct(
                name.replace(".", "_"), fields, frozen=True, kw_only=True, forbid_unknown_fields=True, eq=False
            ),
            result_type=_result(hints["return"]),
            invalidates=tuple(invalidates) or (() if reads else (layer,)),
            cacheable=reads if cacheable is None else cacheable,
            ttl_s=ttl_s,
            resident=resident,
            scope=scope,
            cost=cost or ("read" if reads else "write"),
            example=example,
        )
        return plan

    return declare


def lookup(name: str) -> Operation:
    """Return the operation *name*; VALIDATION `unknown_operation` with the nearest known name otherwise."""
    found = _REGISTRY.get(name) if isinstance(name, str) else None
    if found is None:
        raise validation("unknown_operation", f"no operation {name!r}{nearest(str(name), _REGISTRY)}")
    return found


def operations(layer: str | None = None) -> list[Operation]:
    """Return every operation, or those of one layer, in the order of their declaration."""
    if layer is not None and layer not in LAYERS:
        raise validation("unknown_layer", f"no layer {layer!r}{nearest(layer, LAYERS)}")
    return [one for one in _REGISTRY.values() if layer in (None, one.layer)]


def layers() -> Iterator[tuple[str, str]]:
    """Yield each layer with what it holds."""
    yield from LAYERS.items()


def schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON schema of an operation's parameters, bounds and help included."""
    (top,), definitions = msgspec.json.schema_components([kind], schema_hook=_schema_hook)
    resolved: dict[str, Any] = _inline(top, definitions)
    return resolved


def _inline(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Put every referenced definition in its place: a reader of one schema should not have to follow references."""
    if isinstance(node, dict):
        if "$ref" in node:
            return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {key: _inline(value, definitions) for key, value in node.items() if key != "title"}
    return [_inline(value, definitions) for value in node] if isinstance(node, list) else node


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind is np.ndarray:
        return {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_DIMENSION}
    raise NotImplementedError(kind)


MAX_DIMENSION = 8192
MAX_JSON_BYTES = 16 * 1024
MAX_JSON_DEPTH = 8


def _decode(kind: type, value: Any) -> Any:
    """Take a vector as any sequence of finite numbers; its dimension is the database's and is checked there."""
    if kind is not np.ndarray:
        raise NotImplementedError(kind)
    if isinstance(value, (str, bytes)) or not isinstance(value, (list, tuple, np.ndarray)):
        raise validation("vector", f"a vector is a sequence of numbers, not {type(value).__name__}")
    try:
        vector = np.asarray(value)
        if vector.dtype.kind not in "fiu" or vector.ndim != 1:
            raise ValueError
        vector = vector.astype(np.float32, copy=True)
    except (ValueError, TypeError, OverflowError):
        raise validation("vector", "a vector is one flat sequence of numbers") from None
    if not 1 <= len(vector) <= MAX_DIMENSION:
        raise validation("vector", f"a vector has 1 to {MAX_DIMENSION} numbers, not {len(vector)}")
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if not 1e-6 < norm < 1e6:  # NaN and infinity fail too
        raise validation("vector", f"a vector is finite with a length between 1e-6 and 1e6, not {norm:g}")
    vector = (vector / norm).astype(np.float32)
    vector.flags.writeable = False
    return vector


def _unfit(value: Any) -> str | None:
    """Return why a decoded value cannot be stored, or None: text that is not Unicode, or a JSON value too large or deep."""
    if isinstance(value, str):
        return None if value.isascii() or _is_unicode(value) else "is not valid Unicode: it holds a lone surrogate"
    if isinstance(value, dict):
        try:
            if _depth(value) > MAX_JSON_DEPTH:
                return f"is nested deeper than {MAX_JSON_DEPTH} levels"
            size = len(msgspec.json.encode(value))
        except (TypeError, ValueError, UnicodeEncodeError, OverflowError, RecursionError, msgspec.MsgspecError):
            return "must hold JSON values only: text, finite numbers, true, false, null, lists and tables with text keys"
        return None if size <= MAX_JSON_BYTES else f"takes {size:,} bytes as JSON; at most {MAX_JSON_BYTES:,} fit"
    if isinstance(value, (tuple, list)):
        return next((problem for item in value if (problem := _unfit(item))), None)
    if isinstance(value, msgspec.Struct):
        return next((f"{name} {problem}" for name in value.__struct_fields__ if (problem := _unfit(getattr(value, name)))), None)
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: Any, level: int = 1) -> int:
    if level > MAX_JSON_DEPTH + 1:
        return level
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError
        return max((_depth(inner, level + 1) for inner in value.values()), default=level)
    if isinstance(value, (list, tuple)):
        return max((_depth(inner, level + 1) for inner in value), default=level)
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError
    if value is not None and not isinstance(value, (str, int, float, bool)):
        raise TypeError
    return level


def _result(hint: Any) -> Any:
    """Return T of a plan's `Plan[T]`, a generator's third argument, or the annotation itself."""
    arguments = get_args(hint)
    return arguments[2] if get_origin(hint) is get_origin(Plan) and len(arguments) == 3 else hint


def result_name(hint: Any) -> str:
    """Return an annotation as a person would write it.

    >>> result_name(Table[int])
    'Table[int]'
    """
    if get_origin(hint) is Annotated:
        return result_name(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(result_name(part) for part in get_args(hint))
    if get_origin(hint) is not None:
        inner = ", ".join("…" if part is Ellipsis else result_name(part) for part in get_args(hint))
        return f"{getattr(get_origin(hint), '__name__', get_origin(hint))}[{inner}]"
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
