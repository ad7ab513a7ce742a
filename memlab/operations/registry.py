"""One declaration for each operation, and everything that follows from it.

A declaration is a generator function (a *plan*, see `storage/demands.py`) with typed, bounded parameters under
`@operation`. From it come: validation, the Python API, `memlab operations`, discovery, the README's table, cache and
invalidation rules, the benchmark's and the tests' inputs. Adding one touches one file and its test.
"""

from __future__ import annotations

import inspect
import math
import random
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
from msgspec import UNSET, Meta
from msgspec.structs import astuple, force_setattr

from memlab.errors import MemlabError, nearest, validation
from memlab.operations.parameters import MAX_DIMENSION, MAX_JSON_BYTES, MAX_JSON_DEPTH, PATTERN_TEXTS
from memlab.storage.demands import Plan
from memlab.values import NOTHING, freeze

Check: TypeAlias = Callable[[Any], Any]
Detail: TypeAlias = Literal["name", "description", "schema"]

LAYERS = {
    "episodic": "events with a time and a context",
    "semantic": "facts, principles and concepts",
    "procedural": "how to do things",
    "prospective": "what is still to be done",
    "graph": "entities and how they are related",
    "meta": "what the memory knows about itself",
    "consolidation": "from events to knowledge",
    "rag": "retrieval over all layers",
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
        summary: what it does, in a sentence.
        plan: begins one call; takes the parameters in the order of `parameters_type`.
        parameters_type: frozen structure of its parameters, with types and bounds.
        help: what each parameter means.
        checks: by parameter, what msgspec cannot check or must be brought into one form: Unicode, time zones, JSON.
        result_type: of its answer.
        invalidates: what a write makes stale in its session: operation names, layer names, or, for writes that only add
            memories, `tag:` and the parameter (or `parameter.field`) with their tags.
        cacheable: whether answers may be kept; *ttl_s* bounds for how long.
        resident: tried in memory first, without a thread or a place in the pool.
        scope: `session` sees one session; `all` speaks of none (discovery) or of the list of sessions.
        cost: its class, with targets for p95 and p99.
        items: for `bulk`: the parameter that says how many items a call has, by its length or its value.
        example: parameters of a valid call from a seeded generator and a few ids that exist.
    """

    name: str
    layer: str
    reads: bool
    summary: str
    plan: Callable[..., Any]
    parameters_type: type[msgspec.Struct]
    help: Mapping[str, str]
    checks: tuple[tuple[str, Check], ...]
    result_type: Any
    invalidates: tuple[str, ...]
    cacheable: bool
    ttl_s: float | None
    resident: bool
    scope: Literal["session", "all"]
    cost: Cost
    items: str | None
    example: Callable[[random.Random, Examples], dict[str, Any]]

    @property
    def kind(self) -> Literal["read", "write"]:
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

    @property
    def signature(self) -> inspect.Signature:
        """The parameters and the result as Python shows them, for help and completion."""
        known = inspect.signature(self.plan)
        return known.replace(
            parameters=[one.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for one in known.parameters.values()],
            return_annotation=result_name(self.result_type),
        )

    def item_count(self, parameters: msgspec.Struct) -> int:
        """Return how many items a call has: 1 where it is not `bulk`."""
        given = getattr(parameters, self.items) if self.items else 1
        return given if isinstance(given, int) else len(given or ())

    def start(self, parameters: msgspec.Struct) -> Any:
        """Return the plan of one call: a generator, or the answer itself where nothing is asked of storage."""
        return self.plan(*astuple(parameters))

    def validate(self, given: Mapping[str, Any]) -> msgspec.Struct:
        """Return the call's parameters, or raise one clear VALIDATION error; nothing has been done then.

        Times come out in UTC, vectors as unit float32, JSON tables as copies that nobody can change.
        """
        try:
            parameters = msgspec.convert(given, self.parameters_type, strict=True, dec_hook=_decode)
        except Exception as error:  # noqa: BLE001  an object given may raise anything when it is looked into
            parameters = self._convert_again(given, error)
        for name, check in self.checks:
            value = getattr(parameters, name)
            if value is None or value is UNSET:
                continue
            try:
                checked = check(value)
            except ValueError as error:
                raise validation("bounds", f"{self.name}: {name} {error}", operation=self.name, parameter=name) from None
            if checked is not value:
                force_setattr(parameters, name, checked)
        return parameters

    def _convert_again(self, given: Mapping[str, Any], error: Exception) -> msgspec.Struct:
        """Try once more with NumPy's numbers as Python's, which notebooks are full of; then say what is wrong."""
        plain = given
        if isinstance(given, Mapping):
            plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
            if any(isinstance(value, np.generic) for value in given.values()):
                try:
                    return msgspec.convert(plain, self.parameters_type, strict=True, dec_hook=_decode)
                except Exception as second:  # noqa: BLE001  as above
                    error = second
        if isinstance(error, msgspec.ValidationError):
            says = str(error)
        elif isinstance(error, UnicodeError):  # of a name or a word that msgspec compares; it does not say where
            says = "a name or a word is not valid Unicode"
        else:
            says = "something in them cannot be read as text, numbers, times, lists and tables"
        raise self._refusal(plain, says) from None

    def _refusal(self, given: Any, text: str) -> MemlabError:
        """Return one clear error of what msgspec says: which parameter, what was given, what fits."""
        known = self.parameters_type.__struct_fields__
        if not isinstance(given, Mapping):
            return validation(
                "type",
                f"{self.name}: parameters are a table of names and values, not {type(given).__name__}",
                operation=self.name,
            )
        for name in given:
            if name not in known:
                shown = name if isinstance(name, str) else repr(name)
                return validation(
                    "unknown_parameter",
                    f"{self.name} has no parameter '{_short(shown)}'{nearest(shown[:64], known)}",
                    operation=self.name,
                )
        what, _, where = text.partition(" - at ")
        path = re.sub(r"^.*`\$\.?(.*)`$", r"\1", where, flags=re.DOTALL)
        missing = re.search(r"missing required field `(\w+)`", what)
        if missing:
            inside = f" in {path}" if path else ""
            return validation("missing_parameter", f"{self.name} needs {missing[1]}{inside}", operation=self.name)
        unknown = re.search(r"unknown field `(.*)`", what, re.DOTALL)
        if unknown:
            return validation(
                "unknown_parameter", f"{self.name}: {path} has no field '{_short(unknown[1])}'", operation=self.name
            )
        name = re.split(r"[.\[]", path)[0]
        value = given.get(name)
        # Numbers alone are shown: text may be a secret. Python refuses to write out integers of thousands of digits.
        is_short = value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= 64)
        shown = f" = {value!r}" if is_short and path == name else ""
        reason, says = self._complaint(what, path)
        return validation(reason, f"{self.name}: {path or 'parameters'}{shown}: {says}", operation=self.name, parameter=name)

    def _complaint(self, what: str, path: str) -> tuple[str, str]:
        """Return the reason for programs and the sentence for people of what msgspec says of a place."""
        if what.startswith("a vector"):
            return "vector", what
        if what.startswith("Invalid enum value"):
            name, *inner = re.findall(r"[A-Za-z_]\w*", path) or [""]
            choices = _choices(get_type_hints(self.plan, include_extras=True).get(name), inner)
            given = what.removeprefix("Invalid enum value ").strip("'")
            return "bounds", f"give one of {', '.join(choices)}; '{_short(given)}' is none of them"
        for pattern, says in PATTERN_TEXTS.items():
            if "matching regex" in what and repr(pattern)[1:-1] in what:
                return "bounds", says
        reason = "bounds" if re.search(r"[<>]=?|of length|matching|enum", what) else "type"
        return reason, f"{what[:1].lower()}{what[1:]}"

    def describe(self, detail: Detail = "schema") -> dict[str, Any]:
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


def _short(text: str) -> str:
    """Return *text* fit for one line of an error: printable, and not long."""
    shown = text if len(text) <= 64 else f"{text[:61]}..."
    return shown if shown.isprintable() else ascii(shown)[1:-1]


class Examples(msgspec.Struct, frozen=True, kw_only=True):
    """What exists in the session that an example is for, and what it may make use of.

    Attributes:
        ids: by layer, ids that exist.
        contents: texts to remember and to ask for.
        tags: tags and topics in use.
        dimension: of the vectors that a call brings along; 0 where the embedder makes them.
    """

    ids: Mapping[str, Sequence[str]] = {}
    contents: Sequence[str] = ("Ada drinks tea in the harbour", "Bo repaired the engine on Sunday", "the meeting moved to May")
    tags: Sequence[str] = ("people", "plans", "work")
    dimension: int = 0

    def id(self, chance: random.Random, layer: str) -> str:
        """Return an id of a layer; one that does not exist where the layer is empty."""
        return chance.choice(self.ids.get(layer) or ("none",))

    def question(self, chance: random.Random) -> str:
        """Return a few words of a content."""
        found = chance.choice(self.contents).split()
        start = chance.randrange(len(found))
        return " ".join(found[start : start + chance.randint(1, 8)])

    def some_tags(self, chance: random.Random) -> list[str]:
        """Return one to three tags."""
        return chance.sample(self.tags, k=min(len(self.tags), chance.randint(1, 3)))

    def embedding(self, chance: random.Random, name: str = "embedding") -> dict[str, list[float]]:
        """Return the parameter *name* with a random unit vector, or nothing where the embedder makes it."""
        if not self.dimension:
            return {}
        vector = np.array([chance.gauss(0.0, 1.0) for _ in range(self.dimension)])
        return {name: (vector / np.linalg.norm(vector)).tolist()}

    def query_embedding(self, chance: random.Random) -> dict[str, list[float]]:
        """Return the parameter `query_embedding` where the embedder does not make it."""
        return self.embedding(chance, "query_embedding")

    def event(self, chance: random.Random) -> dict[str, Any]:
        """Return the parameters of an event to be remembered."""
        return {
            "content": f"{chance.choice(self.contents)} {chance.randrange(1_000_000)}",
            "tags": self.some_tags(chance),
            "confidence": round(chance.random(), 3),
            "occurred_at": f"20{chance.randint(10, 25)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T12:00:00Z",
            **self.embedding(chance),
        }

    def fact(self, chance: random.Random) -> dict[str, Any]:
        """Return the parameters of a fact to be stored."""
        return {
            "content": f"{chance.choice(self.contents)} {chance.randrange(1_000_000)}",
            "kind": chance.choice(["fact", "principle", "concept"]),
            "topics": self.some_tags(chance),
            "confidence": round(chance.random(), 3),
            **self.embedding(chance),
        }


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
    items: str | None = None,
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
        text = inspect.cleandoc(plan.__doc__ or "")
        said = _arguments(text)
        fields: list[Any] = []
        for parameter in inspect.signature(plan).parameters.values():
            hint = hints[parameter.name]
            if parameter.name in said:
                hint = Annotated[hint, Meta(description=said[parameter.name])]
            default = () if parameter.default is inspect.Parameter.empty else (parameter.default,)
            fields.append((parameter.name, hint, *default))
        parameters_type = msgspec.defstruct(
            name.replace(".", "_"), fields, frozen=True, kw_only=True, forbid_unknown_fields=True, eq=False
        )
        explained = {one[0]: _description(one[1]) for one in fields}
        if not text or not all(explained.values()):
            lacking = ", ".join(one for one, help in explained.items() if not help) or "itself"
            raise validation("declaration", f"{name} does not explain {lacking}: give a docstring with Args, or a description")
        _REGISTRY[name] = Operation(
            name=name,
            layer=layer,
            reads=reads,
            summary=text.split("\n\n")[0].replace("\n", " "),
            plan=plan,
            parameters_type=parameters_type,
            help=explained,
            checks=tuple((one[0], check) for one in fields if (check := _check_of(one[1])) is not None),
            result_type=_result(hints["return"]),
            invalidates=tuple(invalidates) or (() if reads else (layer,)),
            cacheable=reads if cacheable is None else cacheable,
            ttl_s=ttl_s,
            resident=resident or not inspect.isgeneratorfunction(plan),  # what asks nothing of storage has nothing to wait for
            scope=scope,
            cost=cost or ("read" if reads else "write"),
            items=items,
            example=example,
        )
        return plan

    return declare


def _arguments(docstring: str) -> dict[str, str]:
    """Return what the `Args:` of a docstring say of each parameter."""
    block = re.search(r"^Args:\n((?: {4}.*(?:\n|$)|\n)+)", docstring, re.MULTILINE)
    said: dict[str, str] = {}
    for entry in re.findall(r"^ {4}(\w[\w, ]*): (.+(?:\n {5,}.+)*)", block[1] if block else "", re.MULTILINE):
        for name in entry[0].split(","):
            said[name.strip()] = " ".join(entry[1].split())
    return said


def _description(hint: Any) -> str:
    """Return what an annotation says of itself; of several, the outermost."""
    if get_origin(hint) is Annotated:
        own = next((one.description for one in reversed(hint.__metadata__) if isinstance(one, Meta) and one.description), None)
        return own or _description(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return next((text for part in get_args(hint) if (text := _description(part))), "")
    return ""


def _choices(hint: Any, fields: Sequence[str] = ()) -> list[str]:
    """Return the words that an annotation admits, or the field of a field in it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return [str(word) for word in arguments]
    if origin in (Annotated, tuple):
        return _choices(arguments[0], fields)
    if origin in (Union, types.UnionType):
        return [word for part in arguments for word in _choices(part, fields)]
    if fields and isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _choices(get_type_hints(hint, include_extras=True)[fields[0]], fields[1:])
    return []


def lookup(name: str) -> Operation:
    """Return the operation *name*; VALIDATION `unknown_operation` with the nearest known name otherwise."""
    found = _REGISTRY.get(name) if isinstance(name, str) else None
    if found is None:
        raise validation("unknown_operation", f"no operation {_short(repr(name))}{nearest(str(name)[:64], _REGISTRY)}")
    return found


def operations(layer: str | None = None) -> list[Operation]:
    """Return every operation, or those of one layer, in the order of the layers and of their declaration."""
    if layer is not None and layer not in LAYERS:
        raise validation("unknown_layer", f"no layer {_short(repr(layer))}{nearest(str(layer)[:64], LAYERS)}")
    places = {name: place for place, name in enumerate(LAYERS)}
    return sorted((one for one in _REGISTRY.values() if layer in (None, one.layer)), key=lambda one: places[one.layer])


def layers() -> Iterator[tuple[str, str]]:
    """Yield each layer with what it holds."""
    yield from LAYERS.items()


@lru_cache(maxsize=1_024)
def schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON schema of an operation's parameters, bounds and help included; made once for each, and frozen."""
    (top,), definitions = msgspec.json.schema_components([kind], schema_hook=_schema_hook)
    resolved: dict[str, Any] = freeze(_inline(top, definitions))
    return resolved


def _inline(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Put every referenced definition in its place: a reader of one schema should not have to follow references."""
    if isinstance(node, dict):
        if "$ref" in node:
            return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
        # A table under `title` is a parameter of that name; the text that names a structure is left out.
        named = isinstance(node.get("title"), str)
        return {key: _inline(value, definitions) for key, value in node.items() if key != "title" or not named}
    return [_inline(value, definitions) for value in node] if isinstance(node, list) else node


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind is np.ndarray:
        return {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_DIMENSION}
    raise NotImplementedError(kind)


def _decode(kind: type, value: Any) -> Any:
    """Take a vector as any sequence of finite numbers; its dimension is the database's and is checked there.

    Raises:
        ValueError: it is none; msgspec adds where it stood.
    """
    if kind is not np.ndarray:
        raise NotImplementedError(kind)
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise ValueError(f"a vector is a sequence of numbers, not {type(value).__name__}")
    try:
        vector = np.asarray(value)
        if vector.dtype.kind not in "fiu" or vector.ndim != 1:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise ValueError("a vector is one flat sequence of numbers") from None
    if not 1 <= len(vector) <= MAX_DIMENSION:
        raise ValueError(f"a vector has 1 to {MAX_DIMENSION:,} numbers, not {len(vector):,}")
    unit = _unit(vector)
    unit.flags.writeable = False
    return unit


def _unit(vector: np.ndarray) -> np.ndarray:
    """Return a copy of unit length; a vector that was normalised once keeps its bits."""
    unit = vector.astype(np.float64)
    if vector.dtype == np.float32:  # most are, and no square of theirs overflows
        norm = math.sqrt(unit.dot(unit))
        if abs(norm - 1.0) <= 1e-6:
            return vector.copy()
    else:
        with np.errstate(over="ignore"):
            norm = math.sqrt(unit.dot(unit))
    if not 1e-6 < norm < 1e6:  # NaN and infinity fail too
        raise ValueError(f"a vector is finite and between 1e-6 and 1e6 long, not {norm:g}")
    if abs(norm - 1.0) > 1e-6:
        unit /= norm
    return unit.astype(np.float32)


# --- what msgspec cannot check ---------------------------------------------------------------------------------------


def _check_of(hint: Any) -> Check | None:
    """Return what checks a value of this annotation and brings it into one form, or None where msgspec has done it all.

    A check returns the value, or another in its place, and raises ValueError with the rest of a sentence that starts with
    the parameter's name.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _check_of(arguments[0])
    if origin in (Union, types.UnionType):
        return next((check for part in arguments if (check := _check_of(part)) is not None), None)
    if hint is str:
        return _text
    if hint is datetime:
        return _utc
    if origin is dict:
        return _json
    if origin is tuple:
        inner = _check_of(arguments[0])
        if inner is _text:
            return _texts
        return None if inner is None else _each(inner)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        hints = get_type_hints(hint, include_extras=True)
        checks = [(name, check) for name in hint.__struct_fields__ if (check := _check_of(hints[name])) is not None]
        return _fields(checks) if checks else None
    return None


def _text(value: str) -> str:
    if type(value) is not str:  # NumPy's text is text, and JSON cannot be made of it
        value = str.__str__(value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("is not valid Unicode: it holds a lone surrogate") from None
    return value


_STR = frozenset({str})


def _texts(values: tuple[str, ...]) -> tuple[str, ...]:
    if _STR.issuperset(map(type, values)) and "".join(values).isascii():
        return values
    return tuple(map(_text, values))


def _utc(value: datetime) -> datetime:
    if value.tzinfo is UTC:
        return value
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


def _json(value: dict[str, Any]) -> dict[str, Any]:
    if not value:
        return NOTHING
    try:
        deep = _depth(value) > MAX_JSON_DEPTH
        size = 0 if deep else len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        raise ValueError(
            "holds what is not JSON; text, numbers of 64 bits, true, false, null, lists and tables with text keys are"
        ) from None
    if deep:
        raise ValueError(f"is nested deeper than {MAX_JSON_DEPTH} levels")
    if size > MAX_JSON_BYTES:
        raise ValueError(f"takes {size:,} bytes as JSON; at most {MAX_JSON_BYTES:,} fit")
    frozen: dict[str, Any] = freeze(value)
    return frozen


def _depth(value: Any, level: int = 1) -> int:
    """Return how deep a JSON value is nested, or one more than is allowed."""
    if level > MAX_JSON_DEPTH:
        return level if isinstance(value, (dict, list, tuple)) else level - 1
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError
        return max((_depth(inner, level + 1) for inner in value.values()), default=level)
    if isinstance(value, (list, tuple)):
        return max((_depth(inner, level + 1) for inner in value), default=level)
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError
    if value is not None and not isinstance(value, (str, int, float)):
        raise TypeError
    return level - 1


def _each(check: Check) -> Check:
    def checked(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(map(check, values))

    return checked


def _fields(checks: Iterable[tuple[str, Check]]) -> Check:
    known = tuple(checks)
    # Two names or more, so that a tuple comes: a call instead of one for each field of each item.
    values_of = attrgetter(*(name for name, _ in known), "__class__")

    def checked(value: msgspec.Struct) -> msgspec.Struct:
        for (name, check), given in zip(known, values_of(value), strict=False):
            if given is not None and given is not UNSET:
                try:
                    result = check(given)
                except ValueError as error:
                    raise ValueError(f"holds one whose {name} {error}") from None
                if result is not given:
                    force_setattr(value, name, result)
        return value

    return checked


def _result(hint: Any) -> Any:
    """Return T of a plan's `Plan[T]`, a generator's third argument, or the annotation itself."""
    arguments = get_args(hint)
    return arguments[2] if get_origin(hint) is get_origin(Plan) and len(arguments) == 3 else hint


def result_name(hint: Any) -> str:
    """Return an annotation as a person would write it.

    >>> result_name(tuple[int, ...] | None)
    'tuple[int, …] | None'
    """
    if get_origin(hint) is Annotated:
        return result_name(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(result_name(part) for part in get_args(hint))
    if get_origin(hint) is not None:
        inner = ", ".join("…" if part is Ellipsis else result_name(part) for part in get_args(hint))
        return f"{getattr(get_origin(hint), '__name__', get_origin(hint))}[{inner}]"
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
