"""The values that travel, frozen: what is stored, what is asked, what is answered."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
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


NOTHING = Frozen()  # the empty one, which most memories share


def freeze(value: Any) -> Any:
    """Return a JSON value that cannot be changed: tables become `Frozen`, lists become tuples, all the way down."""
    if isinstance(value, dict):
        return Frozen({key: freeze(inner) for key, inner in value.items()})
    return tuple(freeze(inner) for inner in value) if isinstance(value, (list, tuple)) else value


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    context: dict[str, Any] = NOTHING
    source: str | None = None
    confidence: float = 1.0
    occurred_at: datetime
    created_at: datetime
    expires_at: datetime | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        if type(self.context) is not Frozen:
            msgspec.structs.force_setattr(self, "context", freeze(self.context) if self.context else NOTHING)

    @property
    def keys(self) -> tuple[str, ...]:
        """What it can be looked up by: its tags."""
        return self.tags

    @property
    def moment(self) -> datetime:
        """The time that lists are in the order of: when it happened."""
        return self.occurred_at


class Fact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A semantic memory: a fact, principle or concept.

    Attributes:
        kind: `fact`, `principle` or `concept`.
        subject, predicate, object: the triple of a fact stored by `semantic.store_fact`; else None.
        evidence: ids of the events that `consolidation.consolidate` made it of; an event may have been forgotten since.
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
    evidence: tuple[str, ...] = ()
    source: str | None = None
    confidence: float = 1.0
    version: int = 1
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    score: float | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What it can be looked up by: its topics."""
        return self.topics

    @property
    def moment(self) -> datetime:
        """The time that lists are in the order of: when it was stored; an update does not move it."""
        return self.created_at


# What has no time of its own stands at the end of a list in order of time.
LAST = datetime(9999, 1, 1, tzinfo=UTC)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the layers beyond episodic and semantic memory keep.

    A kind of record adds its fields, and says by `content` which text finds it, by `keys` what it can be looked up by, and
    by `moment` where it stands in a list in order of time.

    Attributes:
        version: 1 when stored, one more with every change; earlier versions are kept.
        created_at, updated_at: with time zone, UTC.
        score: as for `Event`.
    """

    id: str
    version: int = 1
    created_at: datetime
    updated_at: datetime
    score: float | None = None

    @property
    def content(self) -> str:
        """The text by which it is found; "" where it is found by its keys alone."""
        return ""

    @property
    def keys(self) -> tuple[str, ...]:
        """What it can be looked up by; stored as tags are."""
        return ()

    @property
    def moment(self) -> datetime:
        """The time that lists are in the order of."""
        return self.created_at

    @property
    def expires_at(self) -> datetime | None:
        """Records stay until they are deleted."""


class Procedure(Record, frozen=True, kw_only=True):
    """A procedural memory: how something is done.

    Attributes:
        steps: in order; `{name}` stands for a parameter.
        parameters: the names that the steps use.
        occurrences: in how many sequences of events it was found; None where it was written by hand.
    """

    name: str
    description: str | None = None
    steps: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    occurrences: int | None = None

    @property
    def content(self) -> str:
        """Name, description and steps."""
        return "\n".join(part for part in (self.name, self.description, *self.steps) if part)

    @property
    def keys(self) -> tuple[str, ...]:
        """Its name, whatever its case, and its steps as one."""
        return (f"name:{self.name.casefold()}", steps_key(self.steps))


def steps_key(steps: Sequence[str]) -> str:
    """Return the key under which a procedure of exactly these steps is found."""
    return f"steps:{hashlib.blake2b(msgspec.json.encode(tuple(steps)), digest_size=16).hexdigest()}"


class Run(Record, frozen=True, kw_only=True):
    """One execution of a procedure.

    Attributes:
        procedure: id of the procedure.
        inputs: what its parameters stood for.
        steps: with the inputs in their places.
        success: how it ended; None while it is open.
        finished_at: when that was recorded.
    """

    procedure: str
    inputs: dict[str, Any] = Frozen()
    steps: tuple[str, ...]
    success: bool | None = None
    notes: str | None = None
    finished_at: datetime | None = None

    def __post_init__(self) -> None:
        if type(self.inputs) is not Frozen:
            msgspec.structs.force_setattr(self, "inputs", freeze(self.inputs))

    @property
    def keys(self) -> tuple[str, ...]:
        """Its procedure, alone and with its outcome."""
        outcome = {None: "open", True: "success", False: "failure"}[self.success]
        return (f"procedure:{self.procedure}", f"{outcome}:{self.procedure}")


class Task(Record, frozen=True, kw_only=True):
    """A prospective memory: something that is still to be done, or was.

    Attributes:
        status: `pending`, `in_progress`, `completed` or `cancelled`.
        priority: `low`, `normal`, `high` or `urgent`.
        due_at: when it should be done; with time zone, UTC.
        depends_on: ids of the tasks that come first.
        blocked_by: those of them that are still open; kept up to date by what completes, cancels and opens tasks.
        goal: id of the goal that it serves.
        completed_at: when it was completed; None while it is not.
    """

    title: str
    description: str | None = None
    status: str = "pending"
    priority: str = "normal"
    due_at: datetime | None = None
    depends_on: tuple[str, ...] = ()
    blocked_by: tuple[str, ...] = ()
    goal: str | None = None
    completed_at: datetime | None = None

    @property
    def content(self) -> str:
        """Title and description."""
        return "\n".join(part for part in (self.title, self.description) if part)

    @property
    def keys(self) -> tuple[str, ...]:
        """Its status, its goal, alone and with the status, the tasks that come first, and its priority where it can be begun."""
        goal = () if self.goal is None else (f"goal:{self.goal}", f"{self.status}:{self.goal}")
        ready = (f"ready:{self.priority}",) if self.is_open and not self.blocked_by else ()
        return (f"status:{self.status}", *goal, *(f"after:{id}" for id in self.depends_on), *ready)

    @property
    def is_open(self) -> bool:
        """Whether it is still to be done."""
        return self.status in ("pending", "in_progress")

    @property
    def moment(self) -> datetime:
        """When it is due; tasks without such a time come last."""
        return self.due_at or LAST


class Goal(Record, frozen=True, kw_only=True):
    """What tasks are for.

    Attributes:
        parent: id of the goal that it is a part of.
        status: `active`, `achieved` or `abandoned`.
    """

    name: str
    description: str | None = None
    parent: str | None = None
    status: str = "active"

    @property
    def content(self) -> str:
        """Name and description."""
        return "\n".join(part for part in (self.name, self.description) if part)

    @property
    def keys(self) -> tuple[str, ...]:
        """Its status and its parent."""
        return (f"status:{self.status}", *(() if self.parent is None else (f"parent:{self.parent}",)))


class Trigger(Record, frozen=True, kw_only=True):
    """What is to be brought to mind, and when: at a time, when an event like it is remembered, or after a task.

    Attributes:
        action: what is to be done then.
        at: the time; None for the other kinds.
        event: the text that an event must match; None for the other kinds.
        tags: tags of which such an event must carry all.
        similarity: the cosine that such an event must reach.
        after_task: id of the task; None for the other kinds.
        due_since: from when on it may fire: its time, or when its task was completed; None where that is not known yet.
        fired_at: when it fired; None while it waits. A trigger fires once.
        fired_by: id of the event or task that fired it.
    """

    action: str
    at: datetime | None = None
    event: str | None = None
    tags: tuple[str, ...] = ()
    similarity: float | None = None
    after_task: str | None = None
    due_since: datetime | None = None
    fired_at: datetime | None = None
    fired_by: str | None = None

    @property
    def content(self) -> str:
        """What is to be done."""
        return self.action

    @property
    def keys(self) -> tuple[str, ...]:
        """Whether it waits, for what, and for which task."""
        state = "waiting" if self.fired_at is None else "fired"
        kind = "time" if self.due_since is not None else "task" if self.after_task is not None else "event"
        return (state, f"{state}:{kind}", *(() if self.after_task is None else (f"{state}:{self.after_task}",)))

    @property
    def moment(self) -> datetime:
        """When it is to fire; triggers of which that is not known come last."""
        return self.due_since or LAST


class Watch(Record, frozen=True, kw_only=True):
    """How far the triggers of a session have been compared with its events; there is one, once any were.

    Attributes:
        through: id of the last event that was looked at.
    """

    through: str

    @property
    def keys(self) -> tuple[str, ...]:
        """One for all, by which it is found."""
        return ("watch",)


class Entity(Record, frozen=True, kw_only=True):
    """A node of the graph: somebody or something.

    Attributes:
        type: what it is: `person`, `place`, …; any word.
        attributes: further facts as JSON.
    """

    name: str
    type: str
    description: str | None = None
    attributes: dict[str, Any] = Frozen()

    def __post_init__(self) -> None:
        if type(self.attributes) is not Frozen:
            msgspec.structs.force_setattr(self, "attributes", freeze(self.attributes))

    @property
    def content(self) -> str:
        """Name, type and description."""
        return "\n".join(part for part in (self.name, self.type, self.description) if part)

    @property
    def keys(self) -> tuple[str, ...]:
        """Its name, its type and both together, whatever their case."""
        name, type = self.name.casefold(), self.type.casefold()
        return (f"name:{name}", f"type:{type}", entity_key(name, type))


def entity_key(name: str, type: str) -> str:
    """Return what an entity of this name and type is looked up by."""
    return f"is:{type.casefold()}:{name.casefold()}"


def relationship_key(source: str, type: str, target: str) -> str:
    """Return what the relationship that was made by hand between two entities is looked up by."""
    return f"edge:{source}:{target}:{type.casefold()}"


class Relationship(Record, frozen=True, kw_only=True):
    """A directed edge of the graph.

    Attributes:
        source, target: ids of entities; source_name, target_name: what they are called.
        type: what the source is to the target: `works_at`, `part_of`, …; any word.
        strength: in (0, 1]; 1 is the strongest.
        fact: id of the semantic memory that says so; None where it was made by hand.
        expires_at: when it goes, together with its fact; None for never.
    """

    source: str
    target: str
    source_name: str
    target_name: str
    type: str
    strength: float = 1.0
    fact: str | None = None
    expires_at: datetime | None = None

    @property
    def content(self) -> str:
        """The sentence that it makes."""
        return f"{self.source_name} {self.type.replace('_', ' ')} {self.target_name}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Its ends, as source, as target and as either, its type, and the fact behind it or, made by hand, all three parts."""
        ends = dict.fromkeys((f"from:{self.source}", f"to:{self.target}", f"of:{self.source}", f"of:{self.target}"))
        made = relationship_key(self.source, self.type, self.target) if self.fact is None else f"fact:{self.fact}"
        return (*ends, f"type:{self.type.casefold()}", made)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far a layer was looked through: all that was stored up to `through` and occurred at `since` or later.

    Attributes:
        through: id of the last memory looked at.
        since: None for the beginning of time.
    """

    through: str
    since: datetime | None = None


class Consolidation(Record, frozen=True, kw_only=True):
    """One run of consolidation: which events it looked at, what it made of them, and what all runs up to it did.

    Attributes:
        number: of the run, 1 for the first of the session.
        strategy: `speed`, `balanced` or `quality`.
        similarity: cosine from which two events counted as alike.
        events: how many new events it looked at.
        clustered: how many events, new ones and some that were alone before, are in its clusters.
        clusters: how many groups of alike events it found.
        stored: ids of the semantic memories that it wrote, one for each cluster whose sentences were new.
        reinforced: ids of the semantic memories that said so already and got further evidence.
        alone: ids of events that were like no other; the next run looks at them again beside its new events.
        through: the last event looked at.
        marks: which events all runs have looked at.
        total_events, total_stored: events looked at, and memories written, by all runs up to this one.
    """

    number: int
    strategy: str
    similarity: float
    events: int
    clustered: int
    clusters: int
    stored: tuple[str, ...] = ()
    reinforced: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    through: str
    marks: tuple[Mark, ...] = ()
    total_events: int
    total_stored: int


class ConsolidationStrategy(Record, frozen=True, kw_only=True):
    """How a session consolidates where a call says nothing else.

    Attributes:
        strategy: `speed`, `balanced` or `quality`.
        similarity: cosine from which two events count as alike.
        least_events: events that a cluster needs to become a memory.
    """

    strategy: str
    similarity: float
    least_events: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The one that a session has."""
        return ("strategy",)


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


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way that a part of a search could have gone.

    Attributes:
        layer: whose memories were searched.
        part: `vector` or `text`.
        way: `pre_filter` compares all that pass the filter, `push_down` gives the filter to the index, `post_filter` filters
            what an unfiltered search found.
        chosen: the search went this way.
        estimated_rows, rows: memories that it looks at: those that pass, or those taken before the filter.
        estimated_us, cost_us: microseconds; what it really took is known of the chosen way alone.
    """

    layer: str
    part: str
    way: str
    chosen: bool
    estimated_rows: float
    estimated_us: float
    rows: int | None = None
    cost_us: float | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a search went the way it did.

    Attributes:
        index: the kind of the vector index.
        memories: of the session, in the layers that were searched.
        estimated_matching, matching: how many pass the filter; counted only where the way that was gone counted them.
        recall: recall@10 of the vector part: 1 for an exact search, else what the index was calibrated to; None where there
            was no vector part.
        together: questions that were searched together with this one, itself included; costs are of all of them.
        candidates: every way of every part.
    """

    index: str
    memories: int
    estimated_matching: float
    matching: int | None
    recall: float | None
    together: int
    candidates: tuple[Candidate, ...]


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A memory that a search over layers found, whatever its layer.

    Attributes:
        layer: the memory layer, and the kind of record where it keeps several: `episodic`, `graph.entity`, …
        score: what it is ranked by; higher is better.
        why: the parts of the score, already weighted: `words`, `meaning`, `source`, `time`, or what a reranker added.
        source: where it comes from, such as a speaker.
        occurred_at: when it happened; of other memories when it was stored. With time zone, UTC, as `expires_at`.
    """

    layer: str
    id: str
    content: str
    score: float
    why: dict[str, float] = Frozen()
    source: str | None = None
    tags: tuple[str, ...] = ()
    occurred_at: datetime
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        if type(self.why) is not Frozen:
            msgspec.structs.force_setattr(self, "why", freeze(self.why))


class Table(Sequence[T], Generic[T]):
    """An immutable list of equal values that shows itself as a table.

    `cursor` is set where more can be had: pass it to the same operation for the next page. `explanation` is set where a
    search was asked to explain itself.
    """

    __slots__ = ("_items", "cursor", "explanation")

    def __init__(self, items: Iterable[T] = (), cursor: str | None = None, explanation: Explanation | None = None) -> None:
        self._items = tuple(items)
        self.cursor = cursor
        self.explanation = explanation

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
        why = "" if self.explanation is None else Table(self.explanation.candidates)._repr_html_()
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}<p>{len(self)} rows</p>{why}"


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
