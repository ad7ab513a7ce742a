"""Episodic memory: events with a time and a context.

An event never changes; it is remembered, found and forgotten. A list in order of time is in order of `occurred_at`, ties in
the order of remembering.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from memlab.errors import validation
from memlab.operations.parameters import (
    MAX_ITEMS,
    BelowConfidence,
    BulkLimit,
    Confidence,
    Content,
    Context,
    Cursor,
    DryRun,
    Embedding,
    EventId,
    ExpiresAt,
    Ids,
    LeastConfidence,
    Limit,
    ListLimit,
    Match,
    Moment,
    OnDuplicate,
    Order,
    Query,
    QueryEmbedding,
    Since,
    SomeTags,
    Source,
    Tags,
    Until,
    filter_of,
    gone,
    present,
    tags_of,
)
from memlab.operations.registry import operation
from memlab.storage.demands import Count, Draft, Embed, Fetch, Filter, Insert, Inserted, Page, Plan, Remove, Search
from memlab.values import Event, Forgotten, Stored, Table

Mode = Annotated[
    Literal["hybrid", "vector", "text"],
    Meta(description="Compare by meaning and by words and fuse both rankings, by meaning alone, or by words alone."),
]


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, eq=False, gc=False):
    """One event of `episodic.bulk_remember`; the fields are those of `episodic.remember`."""

    content: Content
    tags: Tags = ()
    context: Context = {}
    source: Source | None = None
    confidence: Confidence = 1.0
    occurred_at: Moment | None = None
    expires_at: ExpiresAt | None = None
    embedding: Embedding | None = None


def _draft(event: NewEvent, vector: np.ndarray) -> Draft:
    return Draft(
        content=event.content,
        vector=vector,
        tags=tags_of(event.tags),
        attributes=event.context,
        source=event.source,
        confidence=event.confidence,
        occurred_at=event.occurred_at,
        expires_at=event.expires_at,
    )


# --- reading -------------------------------------------------------------------------------------------------------


@operation(
    "episodic.recall",
    reads=True,
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        **known.query_embedding(chance),
    },
)
def recall(
    query: Query,
    limit: Limit = 10,
    tags: Tags = (),
    match: Match = "any",
    since: Since | None = None,
    until: Until | None = None,
    min_confidence: LeastConfidence | None = None,
    mode: Mode = "hybrid",
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Event]]:
    """Return the events that best match *query*, best first.

    What happened or was said before that is about something, found by meaning and by words.

    `hybrid` fuses the ranking by cosine similarity and the ranking by BM25 by reciprocal ranks; `vector` and `text` use one
    of them. A filter narrows what is searched, so that *limit* matches are found wherever that many exist.
    """
    filter = filter_of(tags=tags, match=match, since=since, until=until, min_confidence=min_confidence)
    vector = None
    if mode != "text":
        vector = (yield Embed((query,), (query_embedding,), query=True))[0]
    found = yield Search("episodic", mode, limit, vector=vector, text=None if mode == "vector" else query, filter=filter)
    return Table(found)


@operation(
    "episodic.recall_by_tags",
    reads=True,
    example=lambda chance, known: {"tags": known.some_tags(chance), "match": chance.choice(["any", "all"]), "limit": 20},
)
def recall_by_tags(
    tags: SomeTags, match: Match = "any", limit: ListLimit = 10, cursor: Cursor | None = None
) -> Plan[Table[Event]]:
    """Return events that carry the tags, any of them or all, newest first."""
    values, following = yield Page("episodic", limit, filter_of(tags=tags, match=match), after=cursor)
    return Table(values, following)


@operation("episodic.get_recent", reads=True, example=lambda chance, known: {"limit": chance.randint(1, 50)})
def get_recent(limit: ListLimit = 10) -> Plan[Table[Event]]:
    """Return the events that occurred last, newest first."""
    values, _ = yield Page("episodic", limit)
    return Table(values)


@operation(
    "episodic.query_temporal",
    reads=True,
    example=lambda chance, known: {"since": f"20{chance.randint(10, 25)}-01-01T00:00:00Z", "limit": chance.randint(1, 50)},
)
def query_temporal(
    since: Since | None = None,
    until: Until | None = None,
    limit: ListLimit = 10,
    order: Order = "newest_first",
    cursor: Cursor | None = None,
) -> Plan[Table[Event]]:
    """Return events that occurred in a range of time, since <= t < until; an end left out is open.

    What happened between two dates, since a date or before one.
    """
    values, following = yield Page(
        "episodic", limit, filter_of(since=since, until=until), newest_first=order == "newest_first", after=cursor
    )
    return Table(values, following)


@operation(
    "episodic.list_events",
    reads=True,
    example=lambda chance, known: {"limit": chance.randint(1, 50), "order": chance.choice(["newest_first", "oldest_first"])},
)
def list_events(limit: ListLimit = 50, cursor: Cursor | None = None, order: Order = "newest_first") -> Plan[Table[Event]]:
    """Return all events, page by page."""
    values, following = yield Page("episodic", limit, newest_first=order == "newest_first", after=cursor)
    return Table(values, following)


@operation("episodic.get_event", reads=True, resident=True, example=lambda chance, known: {"id": known.id(chance, "episodic")})
def get_event(id: EventId) -> Plan[Event]:
    """Return one event by its id."""
    return present("episodic", id, (yield Fetch("episodic", (id,))))  # type: ignore[no-any-return]


# --- writing -------------------------------------------------------------------------------------------------------


@operation(
    "episodic.remember",
    writes=True,
    invalidates=("tag:tags",),
    example=lambda chance, known: known.event(chance),
)
def remember(
    content: Content,
    tags: Tags = (),
    context: Context = {},  # noqa: B006  msgspec copies it for every call
    source: Source | None = None,
    confidence: Confidence = 1.0,
    occurred_at: Moment | None = None,
    expires_at: ExpiresAt | None = None,
    embedding: Embedding | None = None,
) -> Plan[Event]:
    """Remember one event and return it.

    Something that happened, or that somebody said or did.

    The same text may be remembered again and again: things do happen twice.

    Args:
        occurred_at: when it happened; now, where left out.
    """
    vectors = yield Embed((content,), (embedding,))
    draft = Draft(
        content=content,
        vector=vectors[0],
        tags=tags_of(tags),
        attributes=context,
        source=source,
        confidence=confidence,
        occurred_at=occurred_at,
        expires_at=expires_at,
    )
    done: Inserted = yield Insert("episodic", (draft,))
    (value,) = done.values
    return value  # type: ignore[no-any-return]


@operation(
    "episodic.bulk_remember",
    writes=True,
    cost="bulk",
    invalidates=("tag:events.tags",),
    items="events",
    example=lambda chance, known: {"events": [known.event(chance) for _ in range(chance.randint(1, 20))]},
)
def bulk_remember(
    events: Annotated[tuple[NewEvent, ...], Meta(min_length=1, max_length=MAX_ITEMS)], on_duplicate: OnDuplicate = "keep"
) -> Plan[Stored]:
    """Remember many events in one transaction: all of them or, on an error, none.

    Args:
        events: what to remember; each takes what `episodic.remember` takes.
    """
    vectors = yield Embed(tuple(event.content for event in events), tuple(event.embedding for event in events))
    drafts = tuple(_draft(event, vector) for event, vector in zip(events, vectors, strict=True))
    done: Inserted = yield Insert("episodic", drafts, on_duplicate)
    return Stored(ids=done.ids, stored=len(done.values), skipped=len(done.ids) - len(done.values))


@operation(
    "episodic.forget",
    writes=True,
    cost="bulk",
    items="ids",
    example=lambda chance, known: {"ids": [known.id(chance, "episodic")]},
)
def forget(ids: Ids) -> Plan[Forgotten]:
    """Forget the events of these ids, for good.

    An id that is not there is no error, so that the call can be repeated; the answer lists it as missing.
    """
    wanted = tags_of(ids)
    return gone(wanted, (yield Remove("episodic", wanted)))


@operation(
    "episodic.forget_where",
    writes=True,
    cost="bulk",
    items="limit",
    example=lambda chance, known: {"tags": known.some_tags(chance), "limit": 5, "dry_run": True},
)
def forget_where(
    older_than: Moment | None = None,
    tags: Tags = (),
    match: Match = "any",
    below_confidence: BelowConfidence | None = None,
    limit: BulkLimit = 1_000,
    dry_run: DryRun = False,
) -> Plan[Forgotten]:
    """Forget the events that meet every condition given, the oldest first.

    At least one condition is needed: nothing said must not mean everything. `session.delete` forgets a whole session.

    Args:
        older_than: only what occurred before this time.
    """
    if older_than is None and not tags and below_confidence is None:
        raise validation(
            "missing_parameter",
            "episodic.forget_where needs older_than, tags or below_confidence; session.delete forgets everything",
        )
    filter: Filter = filter_of(tags=tags, match=match, until=older_than, below_confidence=below_confidence)
    matching: int = yield Count("episodic", filter)
    values, _ = yield Page("episodic", limit, filter, newest_first=False)
    ids = tuple(value.id for value in values)
    if dry_run:
        return Forgotten(forgotten=0, ids=ids, remaining=matching, dry_run=True)
    removed = (yield Remove("episodic", ids)) if ids else ()
    return Forgotten(forgotten=len(removed), ids=tuple(removed), remaining=matching - len(removed))
