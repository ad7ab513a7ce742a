"""What an operation may ask of storage: one frozen value for each kind of work.

An operation is a generator, a *plan*: it yields demands and receives their answers. It cannot name a session: whoever runs
the plan says whose it is, and storage applies the session predicate to every demand in one place. Because plans only say
what they need, many waiting plans are answered together: one embedding call, one vector search, one row fetch.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import numpy as np

from memlab.errors import MemlabError, not_found
from memlab.values import Explanation, Mark

T = TypeVar("T")
Layer: TypeAlias = Literal[
    "episodic",
    "semantic",
    "procedural.procedure",
    "procedural.run",
    "prospective.task",
    "prospective.goal",
    "prospective.trigger",
    "prospective.watch",
    "graph.entity",
    "graph.relationship",
    "consolidation.run",
    "consolidation.strategy",
]
"""A memory layer, or one kind of record that it keeps; ids, filters, searches and pages are of one of them."""


class Filter(msgspec.Struct, frozen=True):
    """Which memories of a session and layer are meant; every given part must hold.

    Attributes:
        tags: tags or topics; `any` of them or `all`.
        since, until: half-open range of `occurred_at`, since <= t < until.
        min_confidence, below_confidence: half-open range of the confidence.
        kind: `fact`, `principle` or `concept`.
    """

    tags: tuple[str, ...] = ()
    match: Literal["any", "all"] = "any"
    since: datetime | None = None
    until: datetime | None = None
    min_confidence: float | None = None
    below_confidence: float | None = None
    kind: str | None = None


EVERYTHING = Filter()


class Draft(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A memory to be stored: what the writer says of it; storage adds id, times and version.

    Attributes:
        content: of an event or a fact; other records make it of their fields.
        vector: None where no search by meaning is to find it: a fixed vector keeps its place in the index.
        attributes: an event's context, a fact's triple; of other records all their own fields (see `record`).
    """

    content: str = ""
    vector: np.ndarray | None
    kind: str = "event"
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = {}
    source: str | None = None
    confidence: float = 1.0
    occurred_at: datetime | None = None
    expires_at: datetime | None = None


def record(vector: np.ndarray | None, **fields: Any) -> Draft:
    """Return the draft of a record of these fields, of the kind that the layer of its `Insert` holds."""
    return Draft(vector=vector, kind="record", attributes=fields)


# --- reading -------------------------------------------------------------------------------------------------------


class Embed(msgspec.Struct, frozen=True):
    """The vectors of *texts*, (n, dimension) float32 of unit length; *given* stands where the caller brought them."""

    texts: tuple[str, ...]
    given: tuple[np.ndarray | None, ...] = ()
    query: bool = False


class Search(msgspec.Struct, frozen=True):
    """The best matches as values with scores, best first.

    Attributes:
        vector: for `vector` and `hybrid`.
        text: for `text`, `hybrid` and `prefix` (as-you-type: the last word is a prefix).
        way: how the filter is applied (see `optimizer`): `auto` for the cheapest by estimate, a name for that one; None leaves it
            to the index.
        explain: answer with (values, Explanation) instead; of a search that has a way.
        fusion: how `hybrid` joins its two lists: reciprocal ranks (Cormack et al. 2009) or a weighted sum of normalised scores.
        weights: of the vector list and the text list.
    """

    layer: Layer
    mode: Literal["vector", "text", "hybrid", "prefix"]
    limit: int
    vector: np.ndarray | None = None
    text: str | None = None
    filter: Filter = EVERYTHING
    fusion: Literal["reciprocal_rank", "weighted"] = "reciprocal_rank"
    weights: tuple[float, float] = (1.0, 1.0)
    way: Literal["auto", "pre_filter", "push_down", "post_filter"] | None = None
    explain: bool = False


class Period(msgspec.Struct, frozen=True):
    """A month, or a day of one, that a text names; of any year where it names none."""

    month: int
    day: int | None = None
    year: int | None = None


class Gathered(msgspec.Struct, frozen=True):
    """Candidates of a search over layers, and what speaks for each; arrays by candidate.

    Attributes:
        values: the memories.
        layers: of which layer each is.
        words: sum over the words of the question, BM25 or what neighbours make of it; 0 where none is met.
        meaning: cosine, or what neighbours make of it; 0 where no vector was given.
        timely: whether it is of a period that was named.
        vectors: (n, dimension) float32 as the index holds them; None where they were not asked for.
        explanation: where it was asked for.
    """

    values: tuple[Any, ...]
    layers: tuple[Layer, ...]
    words: np.ndarray
    meaning: np.ndarray
    timely: np.ndarray
    vectors: np.ndarray | None = None
    explanation: Explanation | None = None


class Gather(msgspec.Struct, frozen=True):
    """The best candidates of several layers by words and by meaning; answers with `Gathered`, the best first.

    Attributes:
        limit: candidates of each layer at most.
        text: None where words do not count; *weights* of its words, by stem, stand beside those of the text itself.
        vector: None where meaning does not count.
        context: whether events in time lend their neighbours words and meaning, as `retrieval` in the settings says.
        periods: of which candidates are favoured.
        with_vectors: answer with vectors too.
        way: whether all vectors of the session are compared or the index is asked, as of `Search`; None leaves it to the index.
        explain: say why, in the answer.
    """

    layers: tuple[Layer, ...]
    limit: int
    text: str | None = None
    vector: np.ndarray | None = None
    context: bool = False
    periods: tuple[Period, ...] = ()
    weights: tuple[tuple[str, float], ...] = ()
    with_vectors: bool = False
    way: Literal["auto", "pre_filter", "push_down"] | None = None
    explain: bool = False


class Tuning(msgspec.Struct, frozen=True):
    """The settings of retrieval: `RetrievalSettings`."""


class Consult(msgspec.Struct, frozen=True):
    """What a hook of the user says: see `hooks`.

    Attributes:
        hook: `expand`, `rerank` or `summarise`.
        arguments: as the hook takes them.
        needed: where no such hook was given the answer is VALIDATION `hook`, else None.
    """

    hook: str
    arguments: tuple[Any, ...]
    needed: bool = True


class Fetch(msgspec.Struct, frozen=True):
    """The memories of these ids as values; None where the session has no such memory."""

    layer: Layer
    ids: tuple[str, ...]


class Carrying(msgspec.Struct, frozen=True):
    """The first *limit* memories that carry the keys, any or all, as values in order of time, the earliest first.

    A write sees what its own transaction has done so far, so that it may look up, change and look up again.
    """

    layer: Layer
    keys: tuple[str, ...]
    limit: int
    match: Literal["any", "all"] = "all"


class Following(msgspec.Struct, frozen=True):
    """Memories in the order of storing: (first *limit* values, their vectors (n, dimension) float32, how many more there are).

    Attributes:
        after: the seq that an id begins with: only what was stored later.
    """

    layer: Layer
    limit: int
    after: int = -1
    filter: Filter = EVERYTHING


class Ahead(msgspec.Struct, frozen=True):
    """A reading demand that a write wants answered before it takes the one writer, however long that lasts.

    It may come before the first other demand alone, and by the time of the transaction its answer may be old: what is changed
    because of it is fetched again.
    """

    demand: Any


class VectorOf(msgspec.Struct, frozen=True):
    """The stored vector of one memory, (dimension,) float32; None where the session has no such memory."""

    layer: Layer
    id: str


class Page(msgspec.Struct, frozen=True):
    """Memories in order of time, ties by age: (values, cursor of the next page or None).

    Attributes:
        after: the cursor of an earlier page; storage has bound it to its session, layer, filter and order and refuses any
            other with VALIDATION `cursor`.
    """

    layer: Layer
    limit: int
    filter: Filter = EVERYTHING
    newest_first: bool = True
    after: str | None = None


class Count(msgspec.Struct, frozen=True):
    """How many memories match."""

    layer: Layer
    filter: Filter = EVERYTHING


class Statistics(msgspec.Struct, frozen=True):
    """Totals of a layer as a dictionary: memories, by_kind, mean_confidence, oldest, newest, content_bytes, versions, expired."""

    layer: Layer


class TopicCounts(msgspec.Struct, frozen=True):
    """Topics or tags of a layer: list of dictionaries topic, memories, mean_confidence, oldest, newest; most frequent first."""

    layer: Layer
    limit: int


class Columns(msgspec.Struct, frozen=True):
    """What the directory holds of the memories that match, in the order of storing, as arrays by name.

    `origin` and `seq` (int64; they differ where a memory was changed), `digest` (int64, of the content), `confidence` (float64),
    `occurred` (int64, microseconds since 1970 UTC), `kind` (int8).
    """

    layer: Layer
    filter: Filter = EVERYTHING


class TagTotals(msgspec.Struct, frozen=True):
    """Tags or topics of a layer: list of dictionaries tag, memories, mean_confidence; most frequent first, then by the alphabet.

    Counted in the directory: much faster than `TopicCounts`, once the tags of the layer were read.
    """

    layer: Layer
    limit: int


class Unseen(msgspec.Struct, frozen=True):
    """Memories that no mark covers: (the first *limit* values in the order of storing, their vectors, how many more there are).

    Attributes:
        marks: what has been looked through.
        limit: 0 only counts.
    """

    layer: Layer
    marks: tuple[Mark, ...]
    limit: int
    filter: Filter = EVERYTHING


class Vectors(msgspec.Struct, frozen=True):
    """(values, their vectors, (n, dimension) float32) of those of the ids that the session has, in the order of storing."""

    layer: Layer
    ids: tuple[str, ...]


class Versions(msgspec.Struct, frozen=True):
    """Earlier versions of one memory as values, newest first."""

    layer: Layer
    id: str


class NearDuplicates(msgspec.Struct, frozen=True):
    """(pairs, whether there are no more); a pair is (older value, newer value, cosine), the most alike first.

    The values are those whose vectors were compared, at least *similarity* alike; either may have changed since.
    """

    layer: Layer
    similarity: float
    limit: int


class Graph(msgspec.Struct, frozen=True):
    """The session's entities and relationships as a graph, as they are now: a `GraphView` (see `storage/graph_view.py`)."""


class Sessions(msgspec.Struct, frozen=True):
    """All sessions: list of dictionaries session, created_at, memories."""

    limit: int
    after: str | None = None


class Export(msgspec.Struct, frozen=True):
    """Everything of the session in one format, bytes."""

    format: Literal["jsonl", "parquet"]


# --- writing: answered by the one writer, inside a transaction -------------------------------------------------------


class Inserted(msgspec.Struct, frozen=True):
    """What an `Insert` did.

    Attributes:
        ids: one for each draft, in their order: of the new memory, or of the one that already held the content. Ids of a
            layer ascend, by length and then by text, in the order of storing.
        values: the new memories, in order.
    """

    ids: tuple[str, ...]
    values: tuple[Any, ...]


class Insert(msgspec.Struct, frozen=True):
    """Store new memories; answers with `Inserted`.

    Attributes:
        on_duplicate: what happens to a draft whose content the layer, or an earlier draft, already holds: stored all the
            same, left out, or the whole call refused with VALIDATION `duplicate`.
    """

    layer: Layer
    drafts: Sequence[Draft]
    on_duplicate: Literal["keep", "skip", "error"] = "keep"


class Replace(msgspec.Struct, frozen=True):
    """Give one memory new content and keep the earlier version; answers with the new value.

    Attributes:
        changes: of an event or a fact any of content, kind, tags, attributes, source, confidence, expires_at, vector; of
            another record any of its own fields, and vector.
    """

    layer: Layer
    id: str
    changes: Mapping[str, Any]


class Remove(msgspec.Struct, frozen=True):
    """Forget memories, their earlier versions and index entries; answers with the ids that were there."""

    layer: Layer
    ids: tuple[str, ...]


class CreateSession(msgspec.Struct, frozen=True):
    """Open a new session; answers with its id."""


class DeleteSession(msgspec.Struct, frozen=True):
    """Forget the session and everything in it; answers with how many memories that were."""


Reading: TypeAlias = (
    Embed
    | Search
    | Gather
    | Tuning
    | Consult
    | Fetch
    | Carrying
    | Following
    | Ahead
    | VectorOf
    | Page
    | Count
    | Statistics
    | TopicCounts
    | Columns
    | TagTotals
    | Unseen
    | Vectors
    | Versions
    | NearDuplicates
    | Graph
    | Sessions
    | Export
)
Writing: TypeAlias = Insert | Replace | Remove | CreateSession | DeleteSession
Demand: TypeAlias = Reading | Writing
Plan: TypeAlias = Generator[Demand, Any, T]
"""What an operation returns: a generator that yields demands and returns its answer."""


def no_memory(layer: str, id: str) -> MemlabError:
    """Return the error for an id that a session does not have; the same for another session's and for none at all."""
    return not_found("memory", f"no {layer} memory {id!r} in this session", id=id)
