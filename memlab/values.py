"""The values that travel, frozen: what is stored, what is asked, what is answered."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar, overload

import msgspec

if TYPE_CHECKING:
    import polars

T = TypeVar("T")

DEFAULT_SESSION = "default"


class Frozen(dict[str, Any]):
    """A dictionary that cannot be changed, for answers that many callers share through the cache."""

    def _refuse(self, *_: object, **__: object) -> Never:
        raise TypeError("an answer of memlab cannot be changed; copy it with dict(...)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))

    def __reduce__(self) -> tuple[object, ...]:
        return Frozen, (dict(self),)


def freeze(value: Any) -> Any:
    """Return a JSON value that cannot be changed: tables become `Frozen`, lists become tuples, all the way down."""
    if isinstance(value, dict):
        return Frozen({key: freeze(inner) for key, inner in value.items()})
    return tuple(freeze(inner) for inner in value) if isinstance(value, (list, tuple)) else value


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An episodic memory: something that happened, when, and in which context.

    Attributes:
        confidence: how sure the writer was, in [0, 1].
        occurred_at, created_at, expires_at: with time zone, UTC.
        score: how well it matches the query that found it; None where nothing was searched. Higher is better; the scale
            is the search's (cosine for `vector`, BM25 for `text`, fused for `hybrid`).
    """

    id: str
    content: str
    tags: tuple[str, ...] = ()
    context: dict[str, Any] = Frozen()
    source: str | None = None
    confidence: float = 1.0
    occurred_at: datetime
    created_at: datetime
    expires_at: datetime | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        if type(self.context) is not Frozen:
            msgspec.structs.force_setattr(self, "context", freeze(self.context))


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A semantic memory: a fact, principle or concept.

    Attributes:
        kind: `fact`, `principle` or `concept`.
        subject, predicate, object: the triple of a fact stored by `semantic.store_fact`; else None.
        version: 1 when stored, one more with every update.
        created_at, updated_at, expires_at: with time zone, UTC.
        score: as for `Event`.
    """

    id: str
    content: str
    kind: str = "fact"
    topics: tuple[str, ...] = ()
    subject: str | None = None
    predicate: str | None = None
    object: str | None = None
    source: str | None = None
    confidence: float = 1.0
    version: int = 1
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    score: float | None = None


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What a bulk write stored.

    Attributes:
        ids: one for each item, in their order; of the memory that was there already where an item was left out.
        stored, skipped: how many items were stored and left out.
    """

    ids: tuple[str, ...]
    stored: int
    skipped: int = 0


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What was forgotten, or would be.

    Attributes:
        forgotten: how many memories; 0 after a dry run.
        ids: of those; after a dry run, of those that would be forgotten.
        missing: given ids that the session does not have.
        remaining: memories that match as well and are still there, beyond the call's limit; all of them after a dry run.
        dry_run: nothing was touched.
    """

    forgotten: int
    ids: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    remaining: int = 0
    dry_run: bool = False


class Table(Sequence[T], Generic[T]):
    """An immutable list of equal values that shows itself as a table.

    `cursor` is set where more can be had: pass it to the same operation for the next page.
    """

    __slots__ = ("_items", "cursor")

    def __init__(self, items: Iterable[T] = (), cursor: str | None = None) -> None:
        self._items = tuple(items)
        self.cursor = cursor

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Table[T]: ...
    def __getitem__(self, index: int | slice) -> T | Table[T]:
        return Table(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Table):
            return self._items == other._items and self.cursor == other.cursor
        return isinstance(other, (list, tuple)) and self._items == tuple(other)

    def __hash__(self) -> int:
        return hash((self._items, self.cursor))

    def __repr__(self) -> str:
        lines = [f"  {item!r}" for item in self._items[:10]]
        more = [f"  … {len(self) - 10} more"] if len(self) > 10 else []
        return "\n".join([f"Table of {len(self)}", *lines, *more])

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return every item as a dictionary of its fields."""
        return [_fields(item) for item in self._items]

    def to_polars(self) -> polars.DataFrame:
        """Return the items as a data frame, one column a field; a table inside an item, such as a context, is JSON text."""
        import polars

        rows = [{name: _flat(value) for name, value in row.items()} for row in self.to_dicts()]
        return polars.DataFrame(rows, infer_schema_length=None)

    def _repr_html_(self) -> str:
        rows = self[:100].to_dicts()
        names = [name for name in (rows[0] if rows else {}) if any(row.get(name) not in (None, (), {}, []) for row in rows)]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(row.get(name)))}</td>" for name in names) + "</tr>" for row in rows
        )
        more = f"<p>… {len(self) - 100} more</p>" if len(self) > 100 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}<p>{len(self)} rows</p>"


def _fields(item: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(item) if isinstance(item, msgspec.Struct) else {"value": item}


def _flat(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes(msgspec.json.encode(value)).decode()
    return list(value) if isinstance(value, tuple) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Request(msgspec.Struct, frozen=True, gc=False):
    """One call, already validated.

    Attributes:
        operation: `layer.name`.
        parameters: the operation's own frozen structure of parameters.
        session: whose memory.
        idempotency_key: repeats of a write under one key take effect once; None for no promise.
        deadline_ns: monotonic clock reading after which nobody waits for the answer; None for never.
    """

    operation: str
    parameters: msgspec.Struct
    session: str = DEFAULT_SESSION
    idempotency_key: str | None = None
    deadline_ns: int | None = None


class Response(msgspec.Struct, frozen=True, gc=False):
    """One answer, and how it came about.

    Attributes:
        value: what the operation returns.
        cached: served by the cache.
        batch_size: calls that were executed together with this one, itself included.
        phases: nanoseconds of the group by phase (`embed`, `vector`, `text`, `fuse`, `fetch`, `write`, …); None when cached.
    """

    value: Any
    cached: bool = False
    batch_size: int = 1
    phases: dict[str, int] | None = None
