"""What the graph should do, in plain Python, and the rules that ask for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.model.reference import Item, Refused

NAMES = ["Ada", "ADA", "tea", "Piano", "river"]
TYPES = ["person", "Person", "place"]
PREDICATES = ["likes", "Likes", "works_at"]
picks = st.integers(0, 10_000)


@dataclass
class Node:
    """An entity."""

    session: str
    fields: dict[str, Any]


@dataclass
class Link:
    """A relationship, and the fact behind it."""

    session: str
    fields: dict[str, Any]
    fact: Item | None = None
    versions: list[int] = field(default_factory=list)


class GraphReference:
    """The entities and relationships of all sessions.

    Args:
        told: what knows the sessions and the time.
    """

    def __init__(self, told: Any) -> None:
        self.told = told
        self.nodes: list[Node] = []
        self.links: list[Link] = []

    def entities(self, session: str) -> list[Node]:
        """Return what a session knows, in the order of storing."""
        if session not in self.told.sessions:
            raise Refused("NOT_FOUND", "session")
        return [node for node in self.nodes if node.session == session]

    def relationships(self, session: str) -> list[Link]:
        """Return how it is related, in the order of storing."""
        self.entities(session)
        return [link for link in self.links if link.session == session and self.is_there(link)]

    def is_there(self, link: Link) -> bool:
        """Return whether a relationship has not expired."""
        expires_at = link.fields["expires_at"]
        return expires_at is None or expires_at > self.told.now

    def entity(self, session: str, id: str) -> Node:
        """Return one entity."""
        for node in self.entities(session):
            if node.fields["id"] == id:
                return node
        raise Refused("NOT_FOUND", "memory")

    def at(self, session: str, id: str, direction: str = "both") -> list[Link]:
        """Return the relationships of an entity."""
        self.entity(session, id)
        ends = {"in": ["target"], "out": ["source"], "both": ["source", "target"]}[direction]
        return [link for link in self.relationships(session) if any(link.fields[end] == id for end in ends)]

    def called(self, session: str, name: str, type: str | None = None) -> Node | None:
        """Return the first entity of a name, and of a type where one is said."""
        for node in self.entities(session):
            if node.fields["name"].lower() == name.lower() and (type is None or node.fields["type"].lower() == type.lower()):
                return node
        return None

    def between(self, session: str, source: str, target: str, type: str) -> Link | None:
        """Return the relationship that was made by hand."""
        for link in self.relationships(session):
            fields = link.fields
            if link.fact is None and (fields["source"], fields["target"], fields["type"].lower()) == (
                source,
                target,
                type.lower(),
            ):
                return link
        return None

    def holds(self, session: str) -> int:
        """Return how many memories of a session are here."""
        return len(self.entities(session)) + len(self.relationships(session))

    def passages(self, session: str) -> list[tuple[str, str, str]]:
        """Return (layer, id, content) of what retrieval may find."""
        nodes = [("graph.entity", node.fields, ("name", "type", "description")) for node in self.entities(session)]
        found = [
            (layer, fields["id"], "\n".join(fields[name] for name in names if fields[name])) for layer, fields, names in nodes
        ]
        for link in self.relationships(session):
            sentence = f"{link.fields['source_name']} {link.fields['type'].replace('_', ' ')} {link.fields['target_name']}"
            found.append(("graph.relationship", link.fields["id"], sentence))
        return found

    def exported(self, session: str) -> list[tuple[str, bool, str, int]]:
        """Return (layer, current, id, version) of what an export holds."""
        rows = [("graph.entity", True, node.fields["id"], 1) for node in self.entities(session)]
        for link in self.relationships(session):
            rows.append(("graph.relationship", True, link.fields["id"], link.fields["version"]))
            rows += [("graph.relationship", False, link.fields["id"], version) for version in link.versions]
        return rows

    # --- changes --------------------------------------------------------------------------------------------------------

    def change(self, link: Link, **changes: Any) -> None:
        """Give a relationship a new version where something changes."""
        if any(link.fields[name] != value for name, value in changes.items()):
            link.versions.append(link.fields["version"])
            link.fields |= changes | {"version": link.fields["version"] + 1, "updated_at": self.told.now}

    def forget_entity(self, session: str, id: str, limit: int) -> tuple[bool, int]:
        """Forget an entity with at most so many relationships; the entity itself where that is all."""
        there = self.at(session, id)
        self.drop(there[:limit])
        if len(there) <= limit:
            self.nodes = [node for node in self.nodes if node.fields["id"] != id]
        return len(there) <= limit, min(len(there), limit)

    def drop(self, links: list[Link]) -> None:
        """Forget relationships."""
        self.links = [link for link in self.links if not any(link is other for other in links)]

    def forgot(self, facts: set[str]) -> None:
        """Forget the relationships of facts that were forgotten."""
        self.drop([link for link in self.links if link.fact is not None and link.fact.id in facts])

    def updated(self, item: Item, names: set[str]) -> None:
        """Follow a fact that was changed."""
        links = [link for link in self.links if link.fact is item]
        if "content" in names or "triple" in names:
            self.drop(links)
        elif names & {"confidence", "expires_at"}:
            for link in links:
                self.change(link, strength=max(item.confidence, 0.01), expires_at=item.expires_at)

    def delete_session(self, session: str) -> None:
        """Forget a session."""
        self.nodes = [node for node in self.nodes if node.session != session]
        self.links = [link for link in self.links if link.session != session]

    # --- walking --------------------------------------------------------------------------------------------------------

    def ways(self, session: str, directed: bool) -> list[tuple[str, str, float]]:
        """Return (from, to, strength) for each way in which a relationship can be walked."""
        along = [(link.fields["source"], link.fields["target"], link.fields["strength"]) for link in self.relationships(session)]
        return along if directed else along + [(end, start, strength) for start, end, strength in along]

    def cheapest(
        self, session: str, source: str, target: str, hops: int, weighted: bool, directed: bool
    ) -> tuple[float, int] | None:
        """Return (cost, hops) of the cheapest path."""
        self.entity(session, source)
        self.entity(session, target)
        ways = self.ways(session, directed)
        ends, best = {source: 0.0}, (0.0, 0) if source == target else (math.inf, 0)
        for hop in range(1, hops + 1):
            longer: dict[str, float] = {}
            for start, end, strength in ways:
                if start in ends:
                    longer[end] = min(longer.get(end, math.inf), ends[start] + (1 / strength if weighted else 1.0))
            ends = longer
            best = min(best, (ends.get(target, math.inf), hop))
        return None if best[0] == math.inf else best

    def around(self, session: str, id: str, hops: int) -> dict[str, int]:
        """Return how far away everything within some hops is."""
        self.entity(session, id)
        distance = {id: 0}
        for away in range(1, hops + 1):
            for start, end, _ in self.ways(session, directed=False):
                if distance.get(start) == away - 1:
                    distance.setdefault(end, away)
        return distance


def shown(value: Any) -> dict[str, Any]:
    """Return the fields of an answer, without the score."""
    return {name: getattr(value, name) for name in value.__struct_fields__ if name != "score"}


class GraphRules:
    """The operations of the graph, for a `MemoryMachine`."""

    @property
    def graph(self) -> GraphReference:
        """What the graph should hold."""
        return self.reference.graph

    def entity_id(self, pick: int, session: str) -> str:
        """Return an id: usually of this session's entities, sometimes another's, another layer's, forgotten or of nothing."""
        own = [node.fields["id"] for node in self.graph.nodes if node.session == session]
        rest = [node.fields["id"] for node in self.graph.nodes if node.session != session]
        rest += [link.fields["id"] for link in self.graph.links[-2:]] + self.forgotten[-2:] + ["en_1ffffffff"]
        return rest[pick // 8 % len(rest)] if pick % 8 == 7 or not own else own[pick // 8 % len(own)]

    @rule(who=picks, name=st.sampled_from(NAMES), type=st.sampled_from(TYPES), description=st.none() | st.just("drinks tea"))
    def create_entity(self, who: int, name: str, type: str, description: str | None) -> None:
        """Store an entity, once."""
        session = self.session(who)

        def expected() -> None:
            if self.graph.called(session, name, type) is not None:
                raise Refused("VALIDATION", "duplicate")

        pair = self.ask("graph.create_entity", session, expected, name=name, type=type, description=description)
        if pair is not None:
            fields = shown(pair[0])
            said = {"name": name, "type": type, "description": description, "attributes": {}, "version": 1}
            assert fields == said | {"id": fields["id"], "created_at": self.reference.now, "updated_at": self.reference.now}
            self.graph.nodes.append(Node(session, fields))

    @rule(who=picks, start=picks, end=picks, type=st.sampled_from(PREDICATES), strength=st.sampled_from([0.25, 0.5, 1.0]))
    def create_relationship(self, who: int, start: int, end: int, type: str, strength: float) -> None:
        """Relate two entities, or change how strongly they are."""
        session = self.session(who)
        ends = [self.entity_id(pick, session) for pick in (start, end)]

        def expected() -> Link | None:
            for end in ends:
                self.graph.entity(session, end)
            return self.graph.between(session, *ends, type)

        pair = self.ask(
            "graph.create_relationship", session, expected, source=ends[0], target=ends[1], type=type, strength=strength
        )
        if pair is None:
            return
        answer, there = pair
        if there is not None:
            self.graph.change(there, strength=strength)
            assert shown(answer) == there.fields
            return
        self.related(session, answer, type, strength, None)
        assert [answer.source, answer.target] == ends

    def related(self, session: str, answer: Any, type: str, strength: float, fact: Item | None) -> None:
        """Take a relationship into the reference and compare."""
        fields = shown(answer)
        names = {end: self.graph.entity(session, fields[end]).fields["name"] for end in ("source", "target")}
        assert (fields["source_name"], fields["target_name"]) == (names["source"], names["target"])
        assert (fields["type"], fields["strength"], fields["version"]) == (type, strength, 1)
        assert (fields["fact"], fields["expires_at"]) == ((None, None) if fact is None else (fact.id, fact.expires_at))
        assert not any(link.fields["id"] == answer.id for link in self.graph.links)
        self.graph.links.append(Link(session, fields, fact))

    @rule(who=picks, pick=picks, limit=st.sampled_from([1, 1_000]), really=st.integers(0, 2))
    def delete_entity(self, who: int, pick: int, limit: int, really: int) -> None:
        """Forget an entity, now and then."""
        if really:
            return
        session = self.session(who)
        id = self.entity_id(pick, session)
        pair = self.ask(
            "graph.delete_entity", session, lambda: self.graph.forget_entity(session, id, limit), entity=id, limit=limit
        )
        if pair is not None:
            assert (pair[0].forgotten, pair[0].relationships) == pair[1]
            self.forgotten.append(id)

    @rule(who=picks, query=st.sampled_from(NAMES), type=st.none() | st.sampled_from(TYPES), limit=st.integers(1, 20))
    def search_entities(self, who: int, query: str, type: str | None, limit: int) -> None:
        """Search entities: as many as there are, of that type, as they are."""
        session = self.session(who)
        pair = self.ask(
            "graph.search_entities", session, lambda: self.graph.entities(session), query=query, type=type, limit=limit
        )
        if pair is not None:
            fitting = [one.fields for one in pair[1] if type is None or one.fields["type"].lower() == type.lower()]
            self.some_of(pair[0], fitting, limit)

    def some_of(self, answer: Any, fitting: list[dict[str, Any]], limit: int) -> None:
        """Compare a ranking of which only the members are known."""
        assert len(answer) == len({one.id for one in answer}) == min(limit, len(fitting))
        assert all(shown(one) in fitting for one in answer)

    @rule(
        who=picks, query=st.none() | st.sampled_from(NAMES), type=st.none() | st.sampled_from(PREDICATES), limit=st.integers(1, 4)
    )
    def search_relationships(self, who: int, query: str | None, type: str | None, limit: int) -> None:
        """Search relationships, or list those of a type, all pages."""
        session = self.session(who)

        def expected() -> list[dict[str, Any]]:
            found = self.graph.relationships(session)
            if query is None and type is None:
                raise Refused("VALIDATION", "missing_parameter")
            return [one.fields for one in found if type is None or one.fields["type"].lower() == type.lower()]

        if query is None:
            self.all_pages("graph.search_relationships", session, limit, expected, type=type)
            return
        pair = self.ask("graph.search_relationships", session, expected, query=query, type=type, limit=limit)
        if pair is not None:
            self.some_of(*pair, limit)

    def all_pages(self, operation: str, session: str, limit: int, expected: Any, **given: Any) -> None:
        """Compare a list, the latest first, read page by page."""
        cursor, read = None, []
        while True:
            pair = self.ask(operation, session, expected, limit=limit, cursor=cursor, **given)
            if pair is None:
                return
            read += [shown(one) for one in pair[0]]
            cursor = pair[0].cursor
            if cursor is None:
                break
        assert read == pair[1][::-1]

    @rule(who=picks, pick=picks)
    def get_entity(self, who: int, pick: int) -> None:
        """Read one entity."""
        session = self.session(who)
        id = self.entity_id(pick, session)
        pair = self.ask("graph.get_entity", session, lambda: self.graph.entity(session, id), entity=id)
        if pair is not None:
            assert shown(pair[0]) == pair[1].fields

    @rule(
        who=picks,
        pick=picks,
        direction=st.sampled_from(["in", "out", "both"]),
        type=st.none() | st.sampled_from(PREDICATES),
        limit=st.integers(1, 3),
    )
    def get_relationships(self, who: int, pick: int, direction: str, type: str | None, limit: int) -> None:
        """List the relationships of an entity, all pages."""
        session = self.session(who)
        id = self.entity_id(pick, session)

        def expected() -> list[dict[str, Any]]:
            found = self.graph.at(session, id, direction)
            return [one.fields for one in found if type is None or one.fields["type"].lower() == type.lower()]

        self.all_pages("graph.get_relationships", session, limit, expected, entity=id, direction=direction, type=type)

    @rule(who=picks, start=picks, end=picks, hops=st.integers(1, 3), weighted=st.booleans(), directed=st.booleans())
    def find_path(self, who: int, start: int, end: int, hops: int, weighted: bool, directed: bool) -> None:
        """Find a path: as cheap and short as any, of relationships that there are."""
        session = self.session(who)
        ends = [self.entity_id(pick, session) for pick in (start, end)]
        pair = self.ask(
            "graph.find_path",
            session,
            lambda: self.graph.cheapest(session, *ends, hops, weighted, directed),
            source=ends[0],
            target=ends[1],
            max_hops=hops,
            weighted=weighted,
            directed=directed,
        )
        if pair is None:
            return
        answer, best = pair
        assert answer.found == (best is not None)
        if best is not None:
            assert (answer.cost, answer.hops) == best
            assert [answer.entities[0].id, answer.entities[-1].id] == ends
            there = [link.fields for link in self.graph.relationships(session)]
            for one, other, between in zip(answer.entities, answer.entities[1:], answer.relationships, strict=False):
                assert shown(between) in there
                assert (between.source, between.target) in [(one.id, other.id)] + [(other.id, one.id)] * (not directed)

    @rule(who=picks, pick=picks, hops=st.integers(1, 3), limit=st.sampled_from([1, 3, 200]))
    def get_neighborhood(self, who: int, pick: int, hops: int, limit: int) -> None:
        """Look around an entity."""
        session = self.session(who)
        id = self.entity_id(pick, session)
        pair = self.ask(
            "graph.get_neighborhood", session, lambda: self.graph.around(session, id, hops), entity=id, hops=hops, limit=limit
        )
        if pair is None:
            return
        answer, distance = pair
        found = {near.entity.id: near.hops for near in answer.entities} | {answer.entity.id: 0}
        assert len(found) == min(limit + 1, len(distance))
        assert found == {id: distance[id] for id in found}
        assert max(found.values()) <= min([away for id, away in distance.items() if id not in found], default=hops)
        inside = [
            link.fields
            for link in self.graph.relationships(session)
            if link.fields["source"] in found and link.fields["target"] in found
        ]
        assert len(answer.relationships) == min(len(inside), 2 * (limit + 1))
        assert all(shown(one) in inside for one in answer.relationships)
        assert answer.complete == (len(found) == len(distance) and len(answer.relationships) == len(inside))

    @rule(who=picks, pick=picks)
    def analyze(self, who: int, pick: int) -> None:
        """Count at an entity, and see that it is in one of the communities, which hold every entity once."""
        session = self.session(who)
        id = self.entity_id(pick, session)
        pair = self.ask("graph.analyze_entity", session, lambda: self.graph.entity(session, id), entity=id)
        if pair is None:
            return
        answer, node = pair
        assert shown(answer.entity) == node.fields
        assert answer.degree_in == len(self.graph.at(session, id, "in"))
        assert answer.degree_out == len(self.graph.at(session, id, "out"))
        entities = self.graph.entities(session)
        assert (answer.entities, answer.relationships) == (len(entities), len(self.graph.relationships(session)))
        communities, _ = self.ask("graph.get_communities", session, lambda: None, limit=200, members=100)
        members = [member.id for community in communities for member in community.members]
        assert sorted(members) == sorted(one.fields["id"] for one in entities)
        own = communities[answer.community]
        assert id in [member.id for member in own.members]
        assert answer.community_entities == own.entities == len(own.members)
        for community in communities:
            ids = [member.id for member in community.members]
            inside = [
                one for one in self.graph.relationships(session) if {one.fields["source"], one.fields["target"]} <= set(ids)
            ]
            assert community.relationships == len(inside)
