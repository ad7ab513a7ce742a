"""Semantic memory: facts, principles and concepts.

A fact changes by `semantic.update`, which keeps the earlier version; `semantic.get` returns any version. A list in order of
time is in order of storing: an update does not move a fact, so that pages stay stable.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from memlab.errors import not_found, validation
from memlab.operations.graph import follow, link, unlink
from memlab.operations.parameters import (
    MAX_ITEMS,
    NOT_BLANK,
    BelowConfidence,
    BulkLimit,
    Confidence,
    Content,
    Cursor,
    DryRun,
    Embedding,
    ExpiresAt,
    FactId,
    Ids,
    LeastConfidence,
    Limit,
    ListLimit,
    Match,
    Moment,
    Name,
    OnDuplicate,
    Order,
    Query,
    QueryEmbedding,
    Share,
    Similarity,
    SomeTopics,
    Source,
    Strategy,
    Topics,
    filter_of,
    gone,
    present,
    tags_of,
)
from memlab.operations.registry import operation
from memlab.storage.demands import (
    Ahead,
    Count,
    Draft,
    Embed,
    Fetch,
    Insert,
    Inserted,
    NearDuplicates,
    Page,
    Plan,
    Remove,
    Replace,
    Search,
    Statistics,
    TopicCounts,
    VectorOf,
    Versions,
    no_memory,
)
from memlab.values import Fact, Forgotten, Stored, Table

Kind = Annotated[
    Literal["fact", "principle", "concept"],
    Meta(description="A fact (what is so), a principle (what holds in general) or a concept (what a thing is)."),
]
OnlyKind = Annotated[Kind, Meta(description="Only memories of this kind.")]

SCAN = 1_000  # memories looked at between two steps of a bounded walk


class NewFact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, eq=False):
    """One fact of `semantic.bulk_store`; the fields are those of `semantic.store`."""

    content: Content
    kind: Kind = "fact"
    topics: Topics = ()
    confidence: Confidence = 1.0
    source: Source | None = None
    expires_at: ExpiresAt | None = None
    embedding: Embedding | None = None


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one topic.

    Attributes:
        memories: how many belong to it.
        share: memories / all memories of the layer, in [0, 1]; shares of several topics may add up to more than 1.
        mean_confidence: arithmetic mean of their confidences.
        oldest, newest: when the first and the last of them was stored.
    """

    topic: str
    memories: int
    share: float
    mean_confidence: float
    oldest: datetime
    newest: datetime


class SemanticStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of the semantic memory of a session.

    Attributes:
        memories: how many there are now.
        by_kind: how many of each kind; kinds that do not occur are left out.
        versions: earlier versions kept beside them.
        mean_confidence: arithmetic mean of the confidences; None where there are no memories.
        content_bytes: UTF-8 bytes of all current contents.
        mean_content_bytes: content_bytes / memories; None where there are none.
        oldest, newest: when the first and the last of them was stored; None where there are none.
    """

    memories: int
    by_kind: dict[str, int]
    versions: int
    mean_confidence: float | None
    content_bytes: int
    mean_content_bytes: float | None
    oldest: datetime | None
    newest: datetime | None


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """One group of near-duplicates that became one memory.

    Attributes:
        kept: id of the memory that stays.
        absorbed: ids of those merged into it, now forgotten; the most confident, then the oldest first.
        topics: the united topics.
    """

    kept: str
    absorbed: tuple[str, ...]
    topics: tuple[str, ...]


class Deduplicated(msgspec.Struct, frozen=True, kw_only=True):
    """What `semantic.deduplicate` merged, or would.

    Attributes:
        merged: memories that are gone; 0 after a dry run.
        merges: one for each memory that took others in.
        complete: no pair was left out, by the limit or because a memory changed meanwhile; otherwise call again, with a
            higher limit where nothing was merged.
        dry_run: nothing was touched.
    """

    merged: int
    merges: tuple[Merge, ...]
    complete: bool
    dry_run: bool = False


def _draft(fact: NewFact, vector: np.ndarray) -> Draft:
    return Draft(
        content=fact.content,
        vector=vector,
        kind=fact.kind,
        tags=tags_of(fact.topics),
        source=fact.source,
        confidence=fact.confidence,
        expires_at=fact.expires_at,
    )


# --- reading -------------------------------------------------------------------------------------------------------


def ranking_weights(query: str) -> tuple[float, float]:
    """Return how much the ranking by meaning and the ranking by words count for *query*.

    Words count double where exact words are what was asked for: something in quotation marks, a code such as `HTTP-404` or
    `max_entries`, or one or two words. Meaning counts double for a question or a sentence of seven words or more. Otherwise
    both count the same.

    >>> ranking_weights("pool_limit"), ranking_weights("Why does Ada walk to work?"), ranking_weights("tea in the morning")
    ((0.5, 1.0), (1.0, 0.5), (1.0, 1.0))
    """
    words = query.split()
    quoted = re.search(r'"[^"]+"|“[^”]+”', query)
    code = any(re.search(r"\w[_:./\\-]\w|[A-Za-z]\d|\d[A-Za-z]|[a-z][A-Z]", word) for word in words)
    if query.rstrip().endswith(("?", "？")) or (len(words) >= 7 and not quoted):
        return (1.0, 0.5)
    return (0.5, 1.0) if quoted or code or len(words) <= 2 else (1.0, 1.0)


@operation(
    "semantic.search",
    reads=True,
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        **known.query_embedding(chance),
    },
)
def search(
    query: Query,
    limit: Limit = 10,
    topics: Topics = (),
    match: Match = "any",
    kind: OnlyKind | None = None,
    min_confidence: LeastConfidence | None = None,
    strategy: Strategy = "auto",
    explain: Annotated[bool, Meta(description="Say with the answer, in `explanation`, why it was searched that way.")] = False,
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Fact]]:
    """Return the memories that best match *query*, best first, searched in the way that suits the query.

    Both rankings, by meaning and by words, are fused by reciprocal ranks; the form of the query decides how much each
    counts: words for quotations, codes and one or two words, meaning for questions and long sentences. Whether the filter
    comes before, in or after the search of the index is decided by estimated cost, from the size of the session, the
    selectivity of the filter and what earlier searches took; every way gives the same answer, but for the index's recall.
    """
    filter = filter_of(tags=topics, match=match, kind=kind, min_confidence=min_confidence)
    vector = (yield Embed((query,), (query_embedding,), query=True))[0]
    found = yield Search(
        "semantic",
        "hybrid",
        limit,
        vector=vector,
        text=query,
        filter=filter,
        weights=ranking_weights(query),
        way=strategy,
        explain=explain,
    )
    return Table(found[0], explanation=found[1]) if explain else Table(found)


@operation(
    "semantic.semantic_search",
    reads=True,
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        **known.query_embedding(chance),
    },
)
def semantic_search(
    query: Query,
    limit: Limit = 10,
    topics: Topics = (),
    match: Match = "any",
    kind: OnlyKind | None = None,
    min_confidence: LeastConfidence | None = None,
    min_similarity: Annotated[Similarity, Meta(description="Only memories whose cosine similarity reaches this.")] = -1.0,
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Fact]]:
    """Return the memories closest to *query* in meaning, by cosine similarity, best first."""
    filter = filter_of(tags=topics, match=match, kind=kind, min_confidence=min_confidence)
    vector = (yield Embed((query,), (query_embedding,), query=True))[0]
    found = yield Search("semantic", "vector", limit, vector=vector, filter=filter)
    return Table(value for value in found if value.score >= min_similarity)


@operation(
    "semantic.keyword_search",
    reads=True,
    example=lambda chance, known: {"query": known.question(chance), "limit": chance.randint(1, 20)},
)
def keyword_search(
    query: Query,
    limit: Limit = 10,
    topics: Topics = (),
    match: Match = "any",
    kind: OnlyKind | None = None,
    min_confidence: LeastConfidence | None = None,
) -> Plan[Table[Fact]]:
    """Return the memories that share words with *query*, best first by BM25 (Robertson, Zaragoza 2009)."""
    filter = filter_of(tags=topics, match=match, kind=kind, min_confidence=min_confidence)
    return Table((yield Search("semantic", "text", limit, text=query, filter=filter)))


@operation(
    "semantic.hybrid_search",
    reads=True,
    example=lambda chance, known: {
        "query": known.question(chance),
        "fusion": chance.choice(["reciprocal_rank", "weighted"]),
        "vector_weight": round(chance.random(), 2),
        **known.query_embedding(chance),
    },
)
def hybrid_search(
    query: Query,
    limit: Limit = 10,
    fusion: Annotated[
        Literal["reciprocal_rank", "weighted"],
        Meta(description="Add up weighted reciprocal ranks (Cormack et al. 2009), or weighted scores scaled to [0, 1]."),
    ] = "reciprocal_rank",
    vector_weight: Annotated[Share, Meta(description="How much the ranking by meaning counts.")] = 1.0,
    text_weight: Annotated[Share, Meta(description="How much the ranking by words counts.")] = 1.0,
    topics: Topics = (),
    match: Match = "any",
    kind: OnlyKind | None = None,
    min_confidence: LeastConfidence | None = None,
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Fact]]:
    """Return the memories that best match *query* by meaning and by words, fused as you say, best first."""
    if not vector_weight + text_weight:
        raise validation("bounds", "semantic.hybrid_search: one of vector_weight and text_weight must be above 0")
    filter = filter_of(tags=topics, match=match, kind=kind, min_confidence=min_confidence)
    vector = (yield Embed((query,), (query_embedding,), query=True))[0]
    found = yield Search(
        "semantic",
        "hybrid",
        limit,
        vector=vector,
        text=query,
        filter=filter,
        fusion=fusion,
        weights=(vector_weight, text_weight),
    )
    return Table(found)


@operation(
    "semantic.search_by_topic",
    reads=True,
    example=lambda chance, known: {"topics": known.some_tags(chance), "match": chance.choice(["any", "all"]), "limit": 20},
)
def search_by_topic(
    topics: SomeTopics, match: Match = "any", limit: ListLimit = 10, cursor: Cursor | None = None
) -> Plan[Table[Fact]]:
    """Return the memories that belong to the topics, any of them or all, newest first."""
    values, following = yield Page("semantic", limit, filter_of(tags=topics, match=match), after=cursor)
    return Table(values, following)


@operation(
    "semantic.search_related",
    reads=True,
    example=lambda chance, known: {"id": known.id(chance, "semantic"), "limit": chance.randint(1, 20)},
)
def search_related(id: FactId, limit: Limit = 10) -> Plan[Table[Fact]]:
    """Return the other memories closest in meaning to one, by cosine similarity, best first.

    What is known that is similar or related to a given memory.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no memory of this id.
    """
    vector = yield VectorOf("semantic", id)
    if vector is None:
        raise no_memory("semantic", id)
    found = yield Search("semantic", "vector", limit + 1, vector=vector)
    return Table([value for value in found if value.id != id][:limit])


@operation(
    "semantic.instant_search",
    reads=True,
    example=lambda chance, known: {"prefix": known.question(chance)[: chance.randint(1, 8)].strip() or "a", "limit": 5},
)
def instant_search(
    prefix: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=256,
            pattern=NOT_BLANK,
            description="What has been typed so far; its last word may be unfinished.",
        ),
    ],
    limit: Limit = 5,
) -> Plan[Table[Fact]]:
    """Return the memories that match what has been typed so far, best first."""
    return Table((yield Search("semantic", "prefix", limit, text=prefix)))


@operation("semantic.get", reads=True, resident=True, example=lambda chance, known: {"id": known.id(chance, "semantic")})
def get(id: FactId, version: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None) -> Plan[Fact]:
    """Return one memory by its id: as it is now, or an earlier version of it.

    Args:
        version: which version, 1 being the first; the current one, where left out.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no memory of this id; NOT_FOUND `version`: it has no such version.
    """
    current: Fact = present("semantic", id, (yield Fetch("semantic", (id,))))
    if version is None or version == current.version:
        return current
    if version < current.version:
        for earlier in (yield Versions("semantic", id)):
            if earlier.version == version:
                return earlier  # type: ignore[no-any-return]
    raise not_found("version", f"memory {id} has versions 1 to {current.version}, not {version}")


@operation(
    "semantic.list",
    reads=True,
    example=lambda chance, known: {"limit": chance.randint(1, 50), "kind": chance.choice(["fact", "principle", None])},
)
def list_facts(
    limit: ListLimit = 50, cursor: Cursor | None = None, kind: OnlyKind | None = None, order: Order = "newest_first"
) -> Plan[Table[Fact]]:
    """Return all memories in the order of storing, page by page."""
    values, following = yield Page("semantic", limit, filter_of(kind=kind), newest_first=order == "newest_first", after=cursor)
    return Table(values, following)


# Totals change when a memory that they count expires, and a kept answer would not know when: they are always counted anew.
@operation(
    "semantic.analyze_topics",
    reads=True,
    cost="complex",
    cacheable=False,
    example=lambda chance, known: {"limit": chance.randint(1, 50)},
)
def analyze_topics(
    limit: Annotated[int, Meta(ge=1, le=500, description="Topics returned at most.")] = 50,
) -> Plan[Table[Topic]]:
    """Return what the session knows about each topic, the most frequent first.

    How many facts there are per topic, how sure they are, and since when.
    share = memories of the topic / all memories; mean_confidence = sum of their confidences / memories of the topic;
    oldest and newest = first and last time of storing. Ties are in the order of the alphabet.
    """
    memories: int = yield Count("semantic")
    rows = yield TopicCounts("semantic", limit)
    return Table(Topic(share=row["memories"] / memories if memories else 0.0, **row) for row in rows)


@operation("semantic.get_stats", reads=True, cost="complex", cacheable=False, example=lambda chance, known: {})
def get_stats() -> Plan[SemanticStatistics]:
    """Return totals of the session's semantic memory.

    mean_confidence = sum of confidences / memories; mean_content_bytes = content_bytes / memories; content_bytes counts the
    UTF-8 bytes of current contents, versions the earlier states that updates kept.
    """
    totals = yield Statistics("semantic")
    memories = totals["memories"]
    return SemanticStatistics(
        memories=memories,
        by_kind=totals["by_kind"],
        versions=totals["versions"],
        mean_confidence=totals["mean_confidence"],
        content_bytes=totals["content_bytes"],
        mean_content_bytes=totals["content_bytes"] / memories if memories else None,
        oldest=totals["oldest"],
        newest=totals["newest"],
    )


# --- writing -------------------------------------------------------------------------------------------------------


@operation("semantic.store", writes=True, invalidates=("tag:topics",), example=lambda chance, known: known.fact(chance))
def store(
    content: Content,
    kind: Kind = "fact",
    topics: Topics = (),
    confidence: Confidence = 1.0,
    source: Source | None = None,
    expires_at: ExpiresAt | None = None,
    embedding: Embedding | None = None,
) -> Plan[Fact]:
    """Store a fact, principle or concept and return it."""
    vectors = yield Embed((content,), (embedding,))
    draft = Draft(
        content=content,
        vector=vectors[0],
        kind=kind,
        tags=tags_of(topics),
        source=source,
        confidence=confidence,
        expires_at=expires_at,
    )
    done: Inserted = yield Insert("semantic", (draft,))
    (value,) = done.values
    return value  # type: ignore[no-any-return]


@operation(
    "semantic.store_fact",
    writes=True,
    invalidates=("tag:topics", "graph"),
    example=lambda chance, known: {
        "subject": chance.choice(["Ada", "the engine", "Bo"]),
        "predicate": chance.choice(["likes", "works_at", "is part of"]),
        "object": chance.choice(["tea", "the harbour", "a team of six"]),
        **known.embedding(chance),
    },
)
def store_fact(
    subject: Annotated[Name, Meta(description="Who or what the fact is about.")],
    predicate: Annotated[Name, Meta(description="What is said of the subject; `works_at` is read as `works at`.")],
    object: Annotated[Name, Meta(description="Whom or what it relates the subject to.")],
    topics: Topics = (),
    confidence: Confidence = 1.0,
    source: Source | None = None,
    expires_at: ExpiresAt | None = None,
    embedding: Embedding | None = None,
) -> Plan[Fact]:
    """Store a fact of three parts, subject, predicate and object, and return it.

    Its content is the sentence that the parts make, so that every search finds it; the parts stay beside it. In the same
    step it becomes a relationship of the graph, between the entities that are called as its subject and object are: the
    first of that name, whatever its case, or a new one of type `thing`. The relationship is as strong as the fact is
    confident, but at least 0.01; it changes, expires and goes with the fact, and the entities stay. With an embedding of its
    own the fact lends it to relationship and new entities.
    """
    content = f"{subject} {predicate.replace('_', ' ')} {object}"
    if embedding is None:
        vectors = yield Embed((content, subject, object))
    else:
        vectors = [(yield Embed((content,), (embedding,)))[0]] * 3
    draft = Draft(
        content=content,
        vector=vectors[0],
        kind="fact",
        tags=tags_of(topics),
        attributes={"subject": subject, "predicate": predicate, "object": object},
        source=source,
        confidence=confidence,
        expires_at=expires_at,
    )
    done: Inserted = yield Insert("semantic", (draft,))
    (value,) = done.values
    yield from link(value, *vectors)
    return value  # type: ignore[no-any-return]


@operation(
    "semantic.bulk_store",
    writes=True,
    cost="bulk",
    invalidates=("tag:facts.topics",),
    items="facts",
    example=lambda chance, known: {"facts": [known.fact(chance) for _ in range(chance.randint(1, 20))]},
)
def bulk_store(
    facts: Annotated[tuple[NewFact, ...], Meta(min_length=1, max_length=MAX_ITEMS)], on_duplicate: OnDuplicate = "keep"
) -> Plan[Stored]:
    """Store many memories in one transaction: all of them or, on an error, none.

    Args:
        facts: what to store; each takes what `semantic.store` takes.
    """
    vectors = yield Embed(tuple(fact.content for fact in facts), tuple(fact.embedding for fact in facts))
    drafts = tuple(_draft(fact, vector) for fact, vector in zip(facts, vectors, strict=True))
    done: Inserted = yield Insert("semantic", drafts, on_duplicate)
    return Stored(ids=done.ids, stored=len(done.values), skipped=len(done.ids) - len(done.values))


@operation(
    "semantic.update",
    writes=True,
    invalidates=("semantic", "graph"),
    example=lambda chance, known: {"id": known.id(chance, "semantic"), "confidence": round(chance.random(), 3)},
)
def update(
    id: FactId,
    content: Content | UnsetType = UNSET,
    kind: Kind | UnsetType = UNSET,
    topics: Topics | UnsetType = UNSET,
    confidence: Confidence | UnsetType = UNSET,
    source: Source | UnsetType | None = UNSET,
    expires_at: ExpiresAt | UnsetType | None = UNSET,
    embedding: Embedding | None = None,
) -> Plan[Fact]:
    """Change what is given of one memory, keep the earlier version, and return the new one.

    What is left out stays as it is; None takes a source or an expiry away. A new content is a new sentence: the subject,
    predicate, object and evidence of the old one go with it, and their relationship in the graph.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no memory of this id; VALIDATION `missing_parameter`: nothing to change.
    """
    changes: dict[str, Any] = {
        name: value
        for name, value in (
            ("content", content),
            ("kind", kind),
            ("confidence", confidence),
            ("source", source),
            ("expires_at", expires_at),
        )
        if value is not UNSET
    }
    if topics is not UNSET:
        changes["tags"] = tags_of(topics)
    if not changes and embedding is None:
        raise validation("missing_parameter", "semantic.update needs something to change: content, kind, topics, confidence, …")
    if content is not UNSET:
        changes["vector"] = (yield Embed((content,), (embedding,)))[0]
        changes["attributes"] = {}
    elif embedding is not None:
        changes["vector"] = (yield Embed(("",), (embedding,)))[0]
    fact: Fact = yield Replace("semantic", id, changes)
    if content is not UNSET:
        yield from unlink((id,))
    elif fact.subject is not None and changes.keys() & {"confidence", "expires_at"}:
        yield from follow(fact)
    return fact


@operation(
    "semantic.delete",
    writes=True,
    invalidates=("semantic", "graph"),
    example=lambda chance, known: {"id": known.id(chance, "semantic")},
)
def delete(id: FactId) -> Plan[Forgotten]:
    """Forget one memory with its earlier versions and its relationship in the graph, for good.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no memory of this id; `semantic.bulk_delete` minds no missing ids.
    """
    removed = tuple((yield Remove("semantic", (id,))))
    if not removed:
        raise no_memory("semantic", id)
    yield from unlink(removed)
    return Forgotten(forgotten=1, ids=removed)


@operation(
    "semantic.bulk_delete",
    writes=True,
    cost="bulk",
    invalidates=("semantic", "graph"),
    items="limit",
    example=lambda chance, known: {"topics": known.some_tags(chance), "limit": 5, "dry_run": True},
)
def bulk_delete(
    ids: Ids | None = None,
    topics: Topics = (),
    match: Match = "any",
    older_than: Moment | None = None,
    below_confidence: BelowConfidence | None = None,
    limit: BulkLimit = 1_000,
    dry_run: DryRun = False,
) -> Plan[Forgotten]:
    """Forget the memories of these ids, or those that meet every condition given, the oldest first.

    Ids and conditions do not go together, and one of them is needed: nothing said must not mean everything. An id that is
    not there is no error; the answer lists it as missing. Relationships that facts made in the graph go with them.

    Args:
        ids: which memories; *limit* does not cut them.
        older_than: only memories that were neither stored nor updated at this time or later.
    """
    conditions = older_than is not None or bool(topics) or below_confidence is not None
    if (ids is not None) == conditions:
        raise validation(
            "missing_parameter" if ids is None else "bounds",
            "semantic.bulk_delete needs either ids or conditions: topics, older_than, below_confidence",
        )
    if ids is not None:
        wanted = tags_of(ids)
        if dry_run:
            found = yield Fetch("semantic", wanted)
            there = gone(wanted, [value.id for value in found if value is not None])
            return Forgotten(forgotten=0, ids=there.ids, missing=there.missing, remaining=len(there.ids), dry_run=True)
        removed = tuple((yield Remove("semantic", wanted)))
        yield from unlink(removed)
        return gone(wanted, removed)
    matching = yield from _stale(topics, match, older_than, below_confidence)
    chosen = tuple(matching[:limit])
    if dry_run:
        return Forgotten(forgotten=0, ids=chosen, remaining=len(matching), dry_run=True)
    removed = tuple((yield Remove("semantic", chosen))) if chosen else ()
    yield from unlink(removed)
    return Forgotten(forgotten=len(removed), ids=removed, remaining=len(matching) - len(removed))


def _stale(
    topics: tuple[str, ...], match: Literal["any", "all"], older_than: datetime | None, below_confidence: float | None
) -> Plan[list[str]]:
    """Return the ids of all memories that meet the conditions, oldest first.

    What was updated at a time was stored before it, so pages by the time of storing hold every memory looked for; those that
    were updated since are left out here.
    """
    filter = filter_of(tags=topics, match=match, until=older_than, below_confidence=below_confidence)
    found: list[str] = []
    cursor: str | None = None
    while True:
        values, cursor = yield Page("semantic", SCAN, filter, newest_first=False, after=cursor)
        found += [value.id for value in values if older_than is None or value.updated_at < older_than]
        if cursor is None:
            return found


@operation(
    "semantic.deduplicate",
    writes=True,
    cost="job",
    invalidates=("semantic", "graph"),
    example=lambda chance, known: {"similarity": round(chance.uniform(0.9, 1.0), 3), "dry_run": chance.random() < 0.5},
)
def deduplicate(
    similarity: Annotated[
        float, Meta(ge=0.5, le=1.0, description="Cosine similarity from which two memories say the same.")
    ] = 0.95,
    limit: Annotated[int, Meta(ge=1, le=100_000, description="Pairs of near-duplicates looked at in one call at most.")] = 10_000,
    dry_run: Annotated[bool, Meta(description="Only say what would be merged.")] = False,
) -> Plan[Deduplicated]:
    """Merge duplicates, memories that say nearly the same, and keep the more confident, then the older, of each group.

    The most confident memory (the older among equals) takes in every memory at least *similarity* alike to it, then the next
    that is left does, and so on (leader clustering): no memory is taken in that is not alike to the one that stays, and a
    second call finds nothing more. The one that stays gets the topics and the evidence of all, and their source where it has
    none, as a new version; its earlier version is kept. Memories of different kinds, and facts of different subject,
    predicate or object, are never merged, however alike their sentences; of equal ones a single relationship stays in the
    graph.

    Memories are compared while other writes go on; one that changed since is left for the next call.
    """
    # Vectors are float32, so equal ones may come out a hair below 1.
    pairs, complete = yield Ahead(NearDuplicates("semantic", similarity - 1e-6, limit))
    groups = _groups(pairs)
    seen = {fact.id: fact for group in groups for fact in group}
    now = dict(zip(seen, (yield Fetch("semantic", tuple(seen))), strict=True))
    merges: list[Merge] = []
    for kept, *taken in groups:
        absorbed = [fact for fact in taken if now[fact.id] == fact]
        changed = [fact for fact in (kept, *taken) if now[fact.id] not in (fact, None)]
        complete = complete and not changed and (now[kept.id] is not None or len(taken) < 2)
        if now[kept.id] != kept or not absorbed:
            continue
        united = tags_of(topic for one in (kept, *absorbed) for topic in one.topics)
        merges.append(Merge(kept=kept.id, absorbed=tuple(other.id for other in absorbed), topics=united))
        if not dry_run:
            yield from _absorb(kept, absorbed, united)
    merged = 0 if dry_run else sum(len(merge.absorbed) for merge in merges)
    return Deduplicated(merged=merged, merges=tuple(merges), complete=complete, dry_run=dry_run)


def _groups(pairs: list[tuple[Fact, Fact, float]]) -> list[list[Fact]]:
    """Return the memories that are to become one, the one that stays first, by leader clustering."""
    facts: dict[str, Fact] = {}
    alike: dict[str, set[str]] = {}
    for older, newer, _ in pairs:
        facts |= {older.id: older, newer.id: newer}
        alike.setdefault(older.id, set()).add(newer.id)
        alike.setdefault(newer.id, set()).add(older.id)
    groups: list[list[Fact]] = []
    merged: set[str] = set()
    for fact in sorted(facts.values(), key=_precedence):
        if fact.id in merged:
            continue
        absorbed = [
            other
            for other in sorted((facts[id] for id in alike[fact.id] if id not in merged), key=_precedence)
            if _precedence(fact) < _precedence(other) and _mergeable(fact, other)
        ]
        if absorbed:
            merged.update(other.id for other in absorbed)
            groups.append([fact, *absorbed])
    return groups


def _precedence(fact: Fact) -> tuple[float, datetime, int, str]:
    # Ids ascend in the order of storing, which decides among memories that were stored together.
    return (-fact.confidence, fact.created_at, len(fact.id), fact.id)


def _mergeable(one: Fact, other: Fact) -> bool:
    triple = (one.subject, one.predicate, one.object)
    return one.kind == other.kind and triple == (other.subject, other.predicate, other.object)


def _absorb(fact: Fact, absorbed: list[Fact], topics: tuple[str, ...]) -> Plan[None]:
    changes: dict[str, Any] = {}
    if topics != fact.topics:
        changes["tags"] = topics
    source = next((other.source for other in absorbed if other.source is not None), None)
    if fact.source is None and source is not None:
        changes["source"] = source
    evidence = tags_of(id for one in (fact, *absorbed) for id in one.evidence)
    if evidence != fact.evidence:
        triple = {"subject": fact.subject, "predicate": fact.predicate, "object": fact.object}
        changes["attributes"] = {name: part for name, part in triple.items() if part is not None} | {"evidence": evidence}
    if changes:
        yield Replace("semantic", fact.id, changes)
    removed = yield Remove("semantic", tuple(other.id for other in absorbed))
    yield from unlink(tuple(removed))
