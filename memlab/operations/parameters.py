"""The types that parameters share, each with its bounds and what it means.

Every text, number, list and table that an operation takes is bounded here or in its declaration; a test walks the registry
and fails on one that is not. DuckDB accepts far more than anyone wants, so this is the only line.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from msgspec import Meta

from memlab.errors import validation
from memlab.storage.demands import Filter, no_memory
from memlab.values import Event, Fact, Forgotten

MAX_TEXT = 16_384  # characters: at most 64 KiB of UTF-8
MAX_ITEMS = 10_000
MAX_DIMENSION = 8_192
MAX_JSON_BYTES = 16 * 1024
MAX_JSON_DEPTH = 8

# `$` alone would let a trailing line break through; `\Z` is not known to the patterns of JSON Schema.
ID_PATTERN = r"^[A-Za-z0-9_.:-]+$(?!\n)"
NOT_BLANK = r"\S"
ONE_LINE = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$(?!\n)"
# What to say instead of showing the pattern.
PATTERN_TEXTS = {
    ID_PATTERN: "an id has 1 to 128 characters out of A-Z a-z 0-9 _ . : -",
    NOT_BLANK: "the text is blank",
    ONE_LINE: "give one line of text that is not blank, without control characters",
}

Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, pattern=NOT_BLANK)]
Content = Annotated[Text, Meta(description="The text to be remembered.")]
Query = Annotated[Text, Meta(description="What is looked for, in words.")]
# A word or a few; three of them and the blanks between fit into one content, as `semantic.store_fact` needs it.
Name = Annotated[str, Meta(min_length=1, max_length=1_024, pattern=ONE_LINE)]
Source = Annotated[Name, Meta(description="Where it comes from: a speaker, a file, an address.")]

Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=ID_PATTERN, description="The id of a memory.")]
# Ids of other records say of which layer they are, so that tests know which id to send where.
EventId = Annotated[Id, Meta(description="The id of an event.", extra_json_schema={"x-layer": "episodic"})]
FactId = Annotated[Id, Meta(description="The id of a semantic memory.", extra_json_schema={"x-layer": "semantic"})]
ProcedureId = Annotated[Id, Meta(description="The id of a procedure.", extra_json_schema={"x-layer": "procedural.procedure"})]
RunId = Annotated[Id, Meta(description="The id of a run.", extra_json_schema={"x-layer": "procedural.run"})]
TaskId = Annotated[Id, Meta(description="The id of a task.", extra_json_schema={"x-layer": "prospective.task"})]
GoalId = Annotated[Id, Meta(description="The id of a goal.", extra_json_schema={"x-layer": "prospective.goal"})]
EntityId = Annotated[Id, Meta(description="The id of an entity.", extra_json_schema={"x-layer": "graph.entity"})]
Ids = Annotated[tuple[Id, ...], Meta(min_length=1, max_length=MAX_ITEMS, description="Ids of memories.")]
Cursor = Annotated[
    str,
    Meta(min_length=1, max_length=512, description="The `cursor` of an earlier page of the same call; none for the first page."),
]

Tag = Annotated[str, Meta(min_length=1, max_length=128, pattern=ONE_LINE)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=64, description="Tags that the memory carries, or should carry.")]
SomeTags = Annotated[tuple[Tag, ...], Meta(min_length=1, max_length=64, description="Tags that the memory should carry.")]
Topics = Annotated[tuple[Tag, ...], Meta(max_length=64, description="Topics that the memory belongs to, or should belong to.")]
SomeTopics = Annotated[tuple[Tag, ...], Meta(min_length=1, max_length=64, description="Topics that the memory should belong to.")]
Match: TypeAlias = Annotated[
    Literal["any", "all"], Meta(description="Whether one of the given tags or topics is enough, or all are needed.")
]

Confidence = Annotated[float, Meta(ge=0.0, le=1.0, description="How sure the writer is, from 0 to 1.")]
LeastConfidence = Annotated[float, Meta(ge=0.0, le=1.0, description="Only memories of at least this confidence.")]
BelowConfidence = Annotated[float, Meta(ge=0.0, le=1.0, description="Only memories of less than this confidence.")]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Similarity = Annotated[float, Meta(ge=-1.0, le=1.0)]

Moment = Annotated[datetime, Meta(tz=True, description="A time with its zone, such as 2026-11-23T09:00:00Z.")]
Since = Annotated[Moment, Meta(description="Only what occurred at this time or later.")]
Until = Annotated[Moment, Meta(description="Only what occurred before this time.")]
ExpiresAt = Annotated[Moment, Meta(description="When it is to be forgotten: from then on nothing finds it.")]

Strategy: TypeAlias = Annotated[
    Literal["auto", "pre_filter", "push_down", "post_filter"],
    Meta(
        description="Filter first and compare the rest exactly, give the filter to the index, or filter what a search without it "
        "found; auto takes the cheapest by estimate."
    ),
]
Limit = Annotated[int, Meta(ge=1, le=200, description="Matches returned at most.")]
ListLimit = Annotated[int, Meta(ge=1, le=500, description="Items on a page at most.")]
BulkLimit = Annotated[int, Meta(ge=1, le=MAX_ITEMS, description="Memories touched at most; the oldest first.")]
Order: TypeAlias = Annotated[Literal["newest_first", "oldest_first"], Meta(description="In which order of time.")]
OnDuplicate: TypeAlias = Annotated[
    Literal["keep", "skip", "error"],
    Meta(description="What happens to a text that is remembered already: stored once more, left out, or the whole call refused."),
]
DryRun = Annotated[bool, Meta(description="Only say what would be forgotten.")]

Vector = Annotated[np.ndarray, Meta(description="A vector of the database's dimension, any length above zero; it is normalised.")]
Embedding = Annotated[Vector, Meta(description="The text's vector, where you bring your own; else the embedder makes it.")]
QueryEmbedding = Annotated[Vector, Meta(description="The query's vector, where you bring your own; else the embedder makes it.")]
Context = Annotated[
    dict[str, Any],
    Meta(
        max_length=256,
        description=f"Further facts as JSON: at most {MAX_JSON_BYTES:,} bytes, nested at most {MAX_JSON_DEPTH} deep.",
        extra_json_schema={"x-max-bytes": MAX_JSON_BYTES, "x-max-depth": MAX_JSON_DEPTH},
    ),
]


def tags_of(given: Iterable[str]) -> tuple[str, ...]:
    """Return tags as they are stored: every one once, in the order given."""
    return tuple(dict.fromkeys(given))


def filter_of(
    *,
    tags: tuple[str, ...] = (),
    match: Literal["any", "all"] = "any",
    since: datetime | None = None,
    until: datetime | None = None,
    min_confidence: float | None = None,
    below_confidence: float | None = None,
    kind: str | None = None,
) -> Filter:
    """Return the filter of these parameters; the same for the same tags in any order, so that equal questions meet in one batch.

    Raises:
        MemlabError: VALIDATION `bounds`: the time range is empty.
    """
    if since is not None and until is not None and since >= until:
        raise validation("bounds", f"since ({since.isoformat()}) must lie before until ({until.isoformat()})")
    return Filter(
        tags=tuple(sorted(set(tags))),
        match=match if len(set(tags)) > 1 else "any",
        since=since,
        until=until,
        min_confidence=min_confidence or None,
        below_confidence=below_confidence,
        kind=kind,
    )


def present(layer: str, id: str, found: Iterable[Event | Fact | None]) -> Any:
    """Return the one memory that was fetched.

    Raises:
        MemlabError: NOT_FOUND `memory`; the same whether it is absent, expired or another session's.
    """
    (value,) = found
    if value is None:
        raise no_memory(layer, id)
    return value


def gone(wanted: tuple[str, ...], removed: Iterable[str]) -> Forgotten:
    """Return what became of the ids that were to be forgotten, in the order in which they were given."""
    there = set(removed)
    return Forgotten(
        forgotten=len(there),
        ids=tuple(id for id in wanted if id in there),
        missing=tuple(id for id in wanted if id not in there),
    )
