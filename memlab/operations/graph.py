"""The graph: entities, and how they are related.

An entity is known by its name and type, whatever their case. A relationship leads from one entity to another; made by hand,
there is one of each type between two entities, and `semantic.store_fact` makes one more for each fact. Figures of the whole
graph (communities, PageRank, betweenness) are calculated when they are first asked for and kept until the graph changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from memlab.errors import validation
from memlab.operations.parameters import (
    BulkLimit,
    Context,
    Cursor,
    Embedding,
    EntityId,
    Limit,
    ListLimit,
    Name,
    Query,
    QueryEmbedding,
    Tag,
    Text,
    filter_of,
    present,
)
from memlab.operations.registry import operation
from memlab.storage.demands import (
    Ahead,
    Carrying,
    Draft,
    Embed,
    Fetch,
    Graph,
    Insert,
    Inserted,
    Page,
    Plan,
    Remove,
    Replace,
    Search,
    no_memory,
    record,
)
from memlab.storage.graph_view import GraphView, sampling_error
from memlab.values import Entity, Fact, Relationship, Table, entity_key, relationship_key

EntityType = Annotated[Tag, Meta(description="What it is: `person`, `place`, …; any word.")]
OnlyEntityType = Annotated[Tag, Meta(description="Only entities of this type.")]
OnlyType = Annotated[Name, Meta(description="Only relationships of this type.")]
Hops = Annotated[int, Meta(ge=1, le=10)]

THING = "thing"  # the type of entities of which nothing is known but what a fact calls them
WEAKEST = 0.01  # a relationship of a fact that nobody is sure of
RELATIONSHIPS_AROUND = 2  # for each entity of the limit, so that an answer of 200 entities is read in time
MEMBERS = 100
ATTEMPTS = 3


class EntityForgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an entity that was to be forgotten.

    Attributes:
        forgotten: the entity is gone, with all its relationships.
        relationships: how many of them went in this call; where the entity is still there more are left: call again.
    """

    entity: str
    forgotten: bool
    relationships: int


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """How one entity is connected with another.

    Attributes:
        found: whether it is, within the hops that were allowed.
        entities: from the source to the target, both included; empty where none was found.
        relationships: between each of them and the next.
        hops: how many relationships.
        cost: `hops` or, weighted, the sum of 1 / strength; None where none was found.
    """

    found: bool
    entities: tuple[Entity, ...] = ()
    relationships: tuple[Relationship, ...] = ()
    hops: int = 0
    cost: float | None = None


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """An entity near another, and how many relationships lie between them."""

    entity: Entity
    hops: int


class Neighbourhood(msgspec.Struct, frozen=True, kw_only=True):
    """What lies around an entity.

    Attributes:
        entities: the nearest first, the entity itself left out.
        relationships: between any two of these, the entity included; in the order of storing, at most two for each entity
            that the limit allows.
        complete: nothing within the hops was left out.
    """

    entity: Entity
    entities: tuple[Neighbour, ...]
    relationships: tuple[Relationship, ...]
    complete: bool


class Community(msgspec.Struct, frozen=True, kw_only=True):
    """Entities that are related among each other more than with the rest.

    Attributes:
        community: its number; 0 is the largest.
        entities: how many belong to it.
        share: entities / all entities, in [0, 1].
        relationships: how many have both ends in it.
        members: the most connected first, by the summed strength of their relationships; at most as many as asked for.
    """

    community: int
    entities: int
    share: float
    relationships: int
    members: tuple[Entity, ...]


class EntityAnalysis(msgspec.Struct, frozen=True, kw_only=True):
    """What the place of an entity in the graph says about it.

    Attributes:
        degree_in, degree_out: relationships that arrive and that leave; one to itself counts in both.
        page_rank: in [0, 1], of all entities together 1.
        page_rank_place: 1 for the entity of the highest PageRank; equals share a place.
        betweenness: share of the shortest paths between other entities that lead through it, in [0, 1].
        betweenness_error: 0 where it is exact, else how far it is off at most, 19 times of 20.
        betweenness_sources: from how many entities paths were followed.
        community: number of its community at resolution 1, as in `graph.get_communities`.
        community_entities: how many belong to that.
        entities, relationships: of the whole graph.
    """

    entity: Entity
    degree_in: int
    degree_out: int
    page_rank: float
    page_rank_place: int
    betweenness: float
    betweenness_error: float
    betweenness_sources: int
    community: int
    community_entities: int
    entities: int
    relationships: int


# --- writing -------------------------------------------------------------------------------------------------------


@operation(
    "graph.create_entity",
    writes=True,
    example=lambda chance, known: {
        "name": f"{chance.choice(['Ada', 'Bo', 'the harbour', 'the engine'])} {chance.randrange(1_000_000)}",
        "type": chance.choice(["person", "place", "thing"]),
        "description": chance.choice(known.contents),
        **known.embedding(chance),
    },
)
def create_entity(
    name: Annotated[Name, Meta(description="What it is called; it keeps this name.")],
    type: EntityType,
    description: Annotated[Text, Meta(description="What else is to be said of it.")] | None = None,
    attributes: Context | None = None,
    embedding: Embedding | None = None,
) -> Plan[Entity]:
    """Store an entity, somebody or something, and return it.

    Name and type together are there once in a session, whatever their case: nothing that was known of an entity is lost
    because somebody names it again.

    Raises:
        MemlabError: VALIDATION `duplicate`: there is one of this name and type already; the error says its id.
    """
    content = "\n".join(part for part in (name, type, description) if part)
    vector = (yield Embed((content,), (embedding,)))[0]
    for there in (yield Carrying("graph.entity", (entity_key(name, type),), 1)):
        raise validation(
            "duplicate",
            f"graph.create_entity: an entity of this name and type is there as {there.id}; use that id, or give another type",
            id=there.id,
        )
    return (yield from _new_entity(name, type, vector, description=description, attributes=attributes or {}))


def _new_entity(
    name: str, type: str, vector: np.ndarray, *, description: str | None = None, attributes: dict[str, Any]
) -> Plan[Entity]:
    fields = {"name": name, "type": type, "description": description, "attributes": attributes}
    done: Inserted = yield Insert("graph.entity", (record(vector, **fields),))
    (value,) = done.values
    return value  # type: ignore[no-any-return]


@operation(
    "graph.create_relationship",
    writes=True,
    example=lambda chance, known: {
        "source": known.id(chance, "graph.entity"),
        "target": known.id(chance, "graph.entity"),
        "type": chance.choice(["knows", "works_at", "part_of"]),
        "strength": round(chance.uniform(0.1, 1.0), 3),
        **known.embedding(chance),
    },
)
def create_relationship(
    source: Annotated[EntityId, Meta(description="The id of the entity that it leads from.")],
    target: Annotated[EntityId, Meta(description="The id of the entity that it leads to.")],
    type: Annotated[Name, Meta(description="What the source is to the target: `works_at`, `part_of`, …; any word.")],
    strength: Annotated[float, Meta(gt=0.0, le=1.0, description="How strong it is, above 0, at most 1.")] = 1.0,
    embedding: Embedding | None = None,
) -> Plan[Relationship]:
    """Relate one entity to another and return the relationship.

    Said again of the same two entities in the same direction and type, whatever its case, it gives the relationship that is
    there the new strength, as a new version. Relationships that facts made stay beside it.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no entity of one of the ids.
    """
    ends = yield Ahead(Fetch("graph.entity", (source, target)))
    origin, destination = (present("graph.entity", id, (end,)) for id, end in zip((source, target), ends, strict=True))
    sentence = f"{origin.name} {type.replace('_', ' ')} {destination.name}"
    vector = (yield Embed((sentence,), (embedding,)))[0]
    for id, end in zip((source, target), (yield Fetch("graph.entity", (source, target))), strict=True):
        present("graph.entity", id, (end,))  # somebody may have forgotten it since
    for there in (yield Carrying("graph.relationship", (relationship_key(source, type, target),), 1)):
        if there.strength == strength:
            return there  # type: ignore[no-any-return]
        return (yield Replace("graph.relationship", there.id, {"strength": strength}))  # type: ignore[no-any-return]
    return (yield from _new_relationship(origin, destination, type, vector, strength=strength))


def _new_relationship(
    source: Entity, target: Entity, type: str, vector: np.ndarray, *, strength: float, fact: Fact | None = None
) -> Plan[Relationship]:
    expires_at = None if fact is None else fact.expires_at
    fields = {
        "source": source.id,
        "target": target.id,
        "source_name": source.name,
        "target_name": target.name,
        "type": type,
        "strength": strength,
        "fact": None if fact is None else fact.id,
        "expires_at": expires_at,
    }
    draft = Draft(vector=vector, kind="record", attributes=fields, expires_at=expires_at)
    done: Inserted = yield Insert("graph.relationship", (draft,))
    (value,) = done.values
    return value  # type: ignore[no-any-return]


@operation(
    "graph.delete_entity",
    writes=True,
    cost="bulk",
    items="limit",
    example=lambda chance, known: {"entity": known.id(chance, "graph.entity"), "limit": 20},
)
def delete_entity(
    entity: EntityId,
    limit: Annotated[BulkLimit, Meta(description="Relationships forgotten in this call at most; the oldest first.")] = 1_000,
) -> Plan[EntityForgotten]:
    """Forget an entity and its relationships in both directions, for good, in one transaction.

    Where it has more relationships than the limit, the oldest of them go and the entity stays until a further call. Facts
    of which it is subject or object stay in semantic memory.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no entity of this id.
    """
    present("graph.entity", entity, (yield Fetch("graph.entity", (entity,))))
    found = yield Carrying("graph.relationship", (f"of:{entity}",), limit + 1)
    chosen = tuple(one.id for one in found[:limit])
    if chosen:
        yield Remove("graph.relationship", chosen)
    if len(found) <= limit:
        yield Remove("graph.entity", (entity,))
    return EntityForgotten(entity=entity, forgotten=len(found) <= limit, relationships=len(chosen))


# --- what semantic memory writes here ------------------------------------------------------------------------------


def link(fact: Fact, vector: np.ndarray, subject_vector: np.ndarray, object_vector: np.ndarray) -> Plan[None]:
    """Make the relationship that a new fact of three parts states, and the entities that are not there yet."""
    subject = yield from _called(fact.subject or "", subject_vector)
    object = yield from _called(fact.object or "", object_vector)
    yield from _new_relationship(subject, object, fact.predicate or "", vector, strength=_strength(fact), fact=fact)


def _called(name: str, vector: np.ndarray) -> Plan[Entity]:
    """Return the first entity of a name, a new one where there is none."""
    for there in (yield Carrying("graph.entity", (f"name:{name.casefold()}",), 1)):
        return there  # type: ignore[no-any-return]
    return (yield from _new_entity(name, THING, vector, attributes={}))


def _strength(fact: Fact) -> float:
    return max(fact.confidence, WEAKEST)


def follow(fact: Fact) -> Plan[None]:
    """Give the relationship of a fact, where there still is one, the fact's new confidence and expiry."""
    for there in (yield Carrying("graph.relationship", (f"fact:{fact.id}",), 1)):
        changes = {"strength": _strength(fact), "expires_at": fact.expires_at}
        if (there.strength, there.expires_at) != tuple(changes.values()):
            yield Replace("graph.relationship", there.id, changes)


def unlink(facts: tuple[str, ...]) -> Plan[None]:
    """Forget the relationships of facts; their entities stay."""
    if facts:
        keys = tuple(f"fact:{id}" for id in facts)
        found = yield Carrying("graph.relationship", keys, len(facts), match="any")
        if found:
            yield Remove("graph.relationship", tuple(one.id for one in found))


# --- finding -------------------------------------------------------------------------------------------------------


def _of_type(type: str | None) -> tuple[str, ...]:
    return () if type is None else (f"type:{type.casefold()}",)


@operation(
    "graph.search_entities",
    reads=True,
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        **known.query_embedding(chance),
    },
)
def search_entities(
    query: Query, type: OnlyEntityType | None = None, limit: Limit = 10, query_embedding: QueryEmbedding | None = None
) -> Plan[Table[Entity]]:
    """Return the entities whose name, type and description best match *query*, best first, by meaning and by words."""
    vector = (yield Embed((query,), (query_embedding,), query=True))[0]
    return Table(
        (yield Search("graph.entity", "hybrid", limit, vector=vector, text=query, filter=filter_of(tags=_of_type(type))))
    )


@operation(
    "graph.get_entity", reads=True, resident=True, example=lambda chance, known: {"entity": known.id(chance, "graph.entity")}
)
def get_entity(entity: EntityId) -> Plan[Entity]:
    """Return one entity by its id.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no entity of this id.
    """
    return present("graph.entity", entity, (yield Fetch("graph.entity", (entity,))))  # type: ignore[no-any-return]


@operation(
    "graph.get_relationships",
    reads=True,
    example=lambda chance, known: {
        "entity": known.id(chance, "graph.entity"),
        "direction": chance.choice(["in", "out", "both"]),
        "limit": chance.randint(1, 50),
    },
)
def get_relationships(
    entity: EntityId,
    direction: Annotated[
        Literal["in", "out", "both"], Meta(description="Those that arrive at the entity, those that leave it, or both.")
    ] = "both",
    type: OnlyType | None = None,
    limit: ListLimit = 50,
    cursor: Cursor | None = None,
) -> Plan[Table[Relationship]]:
    """Return the relationships of an entity, the latest first, page by page.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no entity of this id.
    """
    present("graph.entity", entity, (yield Fetch("graph.entity", (entity,))))
    end = {"in": "to", "out": "from", "both": "of"}[direction]
    filter = filter_of(tags=(f"{end}:{entity}", *_of_type(type)), match="all")
    values, following = yield Page("graph.relationship", limit, filter, after=cursor)
    return Table(values, following)


@operation(
    "graph.search_relationships",
    reads=True,
    example=lambda chance, known: (
        {"query": known.question(chance), "limit": chance.randint(1, 20), **known.query_embedding(chance)}
        if chance.random() < 0.5
        else {"type": chance.choice(["knows", "works_at", "part_of"])}
    ),
)
def search_relationships(
    query: Query | None = None,
    type: OnlyType | None = None,
    limit: Limit = 10,
    cursor: Cursor | None = None,
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Relationship]]:
    """Return the relationships whose sentence best matches *query*, best first, or all of a type, the latest first.

    A relationship is found by the sentence that its source, type and target make, by meaning and by words. Only a list by
    type alone has pages.

    Raises:
        MemlabError: VALIDATION `missing_parameter`: neither query nor type; VALIDATION `bounds`: both query and cursor.
    """
    if query is None and type is None:
        raise validation("missing_parameter", "graph.search_relationships needs a query, a type, or both")
    filter = filter_of(tags=_of_type(type))
    if query is None:
        values, following = yield Page("graph.relationship", limit, filter, after=cursor)
        return Table(values, following)
    if cursor is not None:
        raise validation("bounds", "graph.search_relationships: a search has no pages; give a higher limit instead of a cursor")
    vector = (yield Embed((query,), (query_embedding,), query=True))[0]
    return Table((yield Search("graph.relationship", "hybrid", limit, vector=vector, text=query, filter=filter)))


# --- walking -------------------------------------------------------------------------------------------------------


def _placed(graph: GraphView, entity: str) -> int:
    place = graph.place(entity)
    if place is None:
        raise no_memory("graph.entity", entity)
    return place


def _are_there(values: Iterable[Any]) -> bool:
    return all(value is not None for value in values)


@operation(
    "graph.find_path",
    reads=True,
    example=lambda chance, known: {
        "source": known.id(chance, "graph.entity"),
        "target": known.id(chance, "graph.entity"),
        "max_hops": chance.randint(1, 6),
        "weighted": chance.random() < 0.5,
    },
)
def find_path(
    source: Annotated[EntityId, Meta(description="The id of the entity to begin at.")],
    target: Annotated[EntityId, Meta(description="The id of the entity to arrive at.")],
    max_hops: Annotated[Hops, Meta(description="Relationships on the path at most.")] = 6,
    weighted: Annotated[bool, Meta(description="Prefer strong relationships: each costs 1 / strength instead of 1.")] = False,
    directed: Annotated[bool, Meta(description="Follow relationships from source to target only, or both ways.")] = True,
) -> Plan[Path]:
    """Return the shortest path from one entity to another, or the one of the strongest relationships; within a few hops.

    Unweighted it is found breadth first. Weighted, a relationship costs 1 / strength (Newman 2001), and the cheapest path of
    at most *max_hops* is found in as many rounds (Bellman 1958). Of equally cheap paths the one of fewest hops is taken.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no entity of one of the ids.
    """
    for _ in range(ATTEMPTS):  # somebody may forget a part of it before it is fetched
        graph: GraphView = yield Graph()
        start, end = _placed(graph, source), _placed(graph, target)
        way = graph.path(start, end, max_hops, weighted=weighted, directed=directed)
        if way is None:
            break
        entities = yield Fetch("graph.entity", graph.entity_ids(way[0]))
        relationships = yield Fetch("graph.relationship", graph.relationship_ids(way[1]))
        if _are_there(entities) and _are_there(relationships):
            return Path(
                found=True,
                entities=tuple(entities),
                relationships=tuple(relationships),
                hops=len(relationships),
                cost=way[2],
            )
    return Path(found=False)


@operation(
    "graph.get_neighborhood",
    reads=True,
    example=lambda chance, known: {
        "entity": known.id(chance, "graph.entity"),
        "hops": chance.randint(1, 3),
        "limit": chance.randint(1, 50),
    },
)
def get_neighborhood(
    entity: EntityId,
    hops: Annotated[Hops, Meta(description="How far to look, in either direction of relationships.")] = 1,
    limit: Annotated[Limit, Meta(description="Entities returned at most, beside the one asked for.")] = 50,
) -> Plan[Neighbourhood]:
    """Return the entities around one, the nearest first, and the relationships between all of them.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no entity of this id.
    """
    graph: GraphView = yield Graph()
    around, is_all = graph.around(_placed(graph, entity), hops, limit + 1)
    between, are_all = graph.among([place for place, _ in around], RELATIONSHIPS_AROUND * (limit + 1))
    found = yield Fetch("graph.entity", graph.entity_ids(place for place, _ in around))
    relationships = yield Fetch("graph.relationship", graph.relationship_ids(between))
    centre: Entity = present("graph.entity", entity, found[:1])
    near = [Neighbour(entity=one, hops=away) for one, (_, away) in zip(found[1:], around[1:], strict=True) if one is not None]
    return Neighbourhood(
        entity=centre,
        entities=tuple(near),
        relationships=tuple(one for one in relationships if one is not None),
        complete=is_all and are_all,
    )


# --- figures of the whole graph ------------------------------------------------------------------------------------


# No cache: a relationship that expires changes them. They are kept beside the graph instead, until it changes.
@operation(
    "graph.get_communities",
    reads=True,
    cost="job",
    cacheable=False,
    example=lambda chance, known: {"resolution": chance.choice([0.5, 1.0, 2.0]), "limit": chance.randint(1, 20)},
)
def get_communities(
    resolution: Annotated[
        float, Meta(ge=0.01, le=100.0, description="Higher for smaller communities; 1 is plain modularity.")
    ] = 1.0,
    limit: Annotated[Limit, Meta(description="Communities returned at most; the largest first.")] = 20,
    members: Annotated[int, Meta(ge=1, le=MEMBERS, description="Members named of each at most.")] = 10,
) -> Plan[Table[Community]]:
    """Return the communities of the graph, the largest first: entities that are closely related among each other.

    Found by the Leiden algorithm, which maximises modularity over the strengths of relationships, directions left aside
    (Traag, Waltman, van Eck 2019). Its chance has a fixed seed: the same graph has the same communities.
    """
    graph: GraphView = yield Graph()
    labels = graph.communities(resolution)
    sizes = np.bincount(labels[labels >= 0])
    inside = graph.inside(labels, len(sizes))
    weights = graph.strengths()
    order = np.lexsort((-weights, labels))
    order = order[labels[order] >= 0]
    starts = np.cumsum(sizes) - sizes
    chosen = [order[start : start + min(size, members)] for start, size in zip(starts[:limit], sizes[:limit], strict=True)]
    ids = graph.entity_ids(place for places in chosen for place in places)
    found = iter((yield Fetch("graph.entity", ids)))
    return Table(
        Community(
            community=number,
            entities=int(sizes[number]),
            share=float(sizes[number]) / graph.entities,
            relationships=int(inside[number]),
            members=tuple(one for one in [next(found) for _ in places] if one is not None),
        )
        for number, places in enumerate(chosen)
    )


# A job: the first call after a change looks at every relationship many times over, which takes a second or more at 100,000 of
# them; the calls after it read what was kept. No cache, as above.
@operation(
    "graph.analyze_entity",
    reads=True,
    cost="job",
    cacheable=False,
    example=lambda chance, known: {"entity": known.id(chance, "graph.entity")},
)
def analyze_entity(entity: EntityId) -> Plan[EntityAnalysis]:
    """Return how central an entity is: degree, PageRank, betweenness, and the community that it belongs to.

    PageRank follows relationships in proportion to their strengths with damping 0.85 (Page et al. 1999). Betweenness is exact
    (Brandes 2001) up to about 1,000 entities; in larger graphs it is estimated from paths that begin at entities drawn with a
    fixed seed (Brandes, Pich 2007), and `betweenness_error` says how good that is. The community is that of
    `graph.get_communities` at resolution 1.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no entity of this id.
    """
    graph: GraphView = yield Graph()
    place = _placed(graph, entity)
    value = present("graph.entity", entity, (yield Fetch("graph.entity", (entity,))))
    degree_in, degree_out = graph.degrees(place)
    ranks = graph.page_ranks()
    between, sources = graph.betweenness()
    labels = graph.communities(1.0)
    return EntityAnalysis(
        entity=value,
        degree_in=degree_in,
        degree_out=degree_out,
        page_rank=float(ranks[place]),
        page_rank_place=1 + int((ranks > ranks[place]).sum()),
        betweenness=float(between[place]),
        betweenness_error=sampling_error(sources, graph.entities),
        betweenness_sources=sources,
        community=int(labels[place]),
        community_entities=int((labels == labels[place]).sum()),
        entities=graph.entities,
        relationships=graph.relationships,
    )
