"""The graph of a session is what its rows say, at every moment, and its paths and figures are those of the definitions."""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlab.embedders import HashingEmbedder
from memlab.measure import clock
from memlab.settings import Settings
from memlab.storage import graph as graphs
from memlab.storage import graph_view
from memlab.storage.calls import Call
from memlab.storage.demands import CreateSession, DeleteSession, Draft, Graph, Insert, Inserted, Remove, Replace, record
from memlab.storage.directory import NEVER
from memlab.storage.graph import Graphs
from memlab.storage.graph_view import GraphView, sampling_error
from memlab.storage.phases import Phases
from memlab.storage.store import Storage

Edge = tuple[int, int, float]


def drawn(size: int, edges: list[Edge]) -> GraphView:
    """Return the graph of *size* entities e0, e1, … and of relationships r0, r1, …"""
    growing = graphs._Growing()
    growing.add_entities(range(size), [f"e{place}" for place in range(size)])
    made = [
        graphs._Edge(id=f"r{place}", source=f"e{source}", target=f"e{target}", strength=strength)
        for place, (source, target, strength) in enumerate(edges)
    ]
    growing.add_relationships(range(size, size + len(edges)), made, [NEVER] * len(edges))
    return growing.view(0)


@st.composite
def drawings(draw: st.DrawFn, most: int = 7) -> tuple[int, list[Edge]]:
    size = draw(st.integers(1, most))
    ends = st.integers(0, size - 1)
    return size, draw(st.lists(st.tuples(ends, ends, st.sampled_from([0.25, 0.5, 1.0])), max_size=14))


def walked(edges: list[Edge], directed: bool) -> list[tuple[int, int, int, float]]:
    """Return (relationship, start, end, strength) for each way in which one can be walked."""
    along = [(place, source, target, strength) for place, (source, target, strength) in enumerate(edges)]
    return along if directed else along + [(place, end, start, strength) for place, start, end, strength in along]


# --- paths ------------------------------------------------------------------------------------------------------------

SQUARE = [(0, 1, 1.0), (1, 3, 1.0), (0, 3, 0.25), (2, 0, 1.0)]  # 0 → 1 → 3, and weakly 0 → 3


def test_a_path_by_hand():
    """Unweighted the direct way is shorter; weighted the strong one through 1 costs 2 instead of 4, if two hops are allowed."""
    graph = drawn(4, SQUARE)
    assert graph.path(0, 3, 6) == ([0, 3], [2], 1.0)
    assert graph.path(0, 3, 6, weighted=True) == ([0, 1, 3], [0, 1], 2.0)
    assert graph.path(0, 3, 1, weighted=True) == ([0, 3], [2], 4.0)
    assert graph.path(0, 2, 6) is None
    assert graph.path(0, 2, 6, directed=False) == ([0, 2], [3], 1.0)
    assert graph.path(2, 3, 1) is None
    assert graph.path(1, 1, 1) == ([1], [], 0.0)


@given(drawings(), st.integers(1, 4), st.booleans(), st.booleans())
def test_a_path_is_the_cheapest_of_all_walks(drawing, max_hops, weighted, directed):
    """No walk of as many hops costs less, none as cheap has fewer hops; what is returned is a path that costs what it says."""
    size, edges = drawing
    graph = drawn(size, edges)
    ways = walked(edges, directed)
    best: dict[int, tuple[float, int]] = {0: (0.0, 0)}
    ends = {0: 0.0}
    for hop in range(1, max_hops + 1):
        longer: dict[int, float] = {}
        for _, start, end, strength in ways:
            if start in ends:
                cost = ends[start] + (1 / strength if weighted else 1.0)
                longer[end] = min(cost, longer.get(end, math.inf))
        ends = longer
        for end, cost in ends.items():
            best[end] = min(best.get(end, (math.inf, 0)), (cost, hop))
    for target in range(size):
        found = graph.path(0, target, max_hops, weighted=weighted, directed=directed)
        assert (found is None) == (target not in best)
        if found is None:
            continue
        entities, relationships, cost = found
        assert (cost, len(relationships)) == best[target]
        assert (entities[0], entities[-1], len(set(entities))) == (0, target, len(relationships) + 1)
        paid = 0.0
        for one, other, place in zip(entities, entities[1:], relationships, strict=False):
            assert any((place, one, other) == way[:3] for way in ways)
            paid += 1 / edges[place][2] if weighted else 1.0
        assert paid == cost


@given(drawings(), st.integers(1, 3), st.integers(1, 8))
def test_what_lies_around_is_found_breadth_first(drawing, hops, limit):
    """Entities come with their distance, the nearest first, as many as fit; and it is said whether that is all."""
    size, edges = drawing
    distance = {0: 0}
    queue = deque([0])
    while queue:
        here = queue.popleft()
        for _, start, end, _ in walked(edges, directed=False):
            if start == here and end not in distance and distance[here] < hops:
                distance[end] = distance[here] + 1
                queue.append(end)
    wanted = sorted(distance.items(), key=lambda pair: (pair[1], pair[0]))
    graph = drawn(size, edges)
    found, is_all = graph.around(0, hops, limit)
    assert found == wanted[:limit]
    assert is_all == (len(wanted) <= limit)
    places = [place for place, _ in found]
    between = [place for place, (source, target, _) in enumerate(edges) if source in places and target in places]
    assert graph.among(places, limit) == (between[:limit], len(between) <= limit)


# --- figures ----------------------------------------------------------------------------------------------------------


@given(drawings())
def test_degrees_are_counted(drawing):
    """Each relationship counts where it arrives and where it leaves."""
    size, edges = drawing
    graph = drawn(size, edges)
    strengths = [sum(edge[2] * ((edge[0] == place) + (edge[1] == place)) for edge in edges) for place in range(size)]
    np.testing.assert_allclose(graph.strengths(), strengths)
    for place in range(size):
        arriving, leaving = (sum(edge[end] == place for edge in edges) for end in (1, 0))
        assert graph.degrees(place) == (arriving, leaving)


@settings(max_examples=40)
@given(drawings())
def test_page_rank_is_where_a_walker_is(drawing):
    """It is the fixed point of a walk that follows relationships by strength and starts anew 15 times of 100."""
    size, edges = drawing
    rank = np.full(size, 1 / size)
    for _ in range(200):
        following = np.zeros(size)
        for place in range(size):
            leaving = [(target, strength) for source, target, strength in edges if source == place]
            total = sum(strength for _, strength in leaving)
            for target, strength in leaving or [(target, 1.0) for target in range(size)]:
                following[target] += rank[place] * strength / (total or size)
        rank = 0.15 / size + 0.85 * following
    np.testing.assert_allclose(drawn(size, edges).page_ranks(), rank, atol=1e-9)


def shortest(size: int, edges: list[Edge], start: int) -> dict[int, list[tuple[int, ...]]]:
    """Return all shortest walks from *start* as sequences of relationships with the entities between, by end."""
    found: dict[int, list[tuple[int, ...]]] = {start: [()]}
    latest = {start: [()]}
    while latest:
        longer: dict[int, list[tuple[int, ...]]] = {}
        for source, target, _ in edges:
            if source in latest and target not in found:
                longer.setdefault(target, []).extend((*walk, target) for walk in latest[source])
        found |= longer
        latest = longer
    return found


@settings(max_examples=60)
@given(drawings())
def test_betweenness_is_the_share_of_shortest_paths(drawing):
    """In a small graph it is exact: for each pair of others the share of its shortest paths that lead through, averaged."""
    size, edges = drawing
    wanted = np.zeros(size)
    for start in range(size):
        for end, walks in shortest(size, edges, start).items():
            for through in range(size):
                if through not in (start, end) and start != end:
                    wanted[through] += sum(through in walk[:-1] for walk in walks) / len(walks)
    shares, sources = drawn(size, edges).betweenness()
    assert sources == size
    np.testing.assert_allclose(shares, wanted / ((size - 1) * (size - 2)) if size > 2 else wanted * 0, atol=1e-12)


def test_sampled_betweenness_keeps_its_word(monkeypatch):
    """From sources drawn at random every estimate lies within the error that goes with it, and a second look agrees."""
    chance = random.Random(3)
    edges = [(chance.randrange(150), chance.randrange(150), 1.0) for _ in range(600)]
    exact, sources = drawn(150, edges).betweenness()
    assert (sources, sampling_error(sources, 150)) == (150, 0.0)
    monkeypatch.setattr(graph_view, "EXACT_WORK", 0)
    monkeypatch.setattr(graph_view, "SAMPLED_WORK", 30 * 750)
    sampled, sources = drawn(150, edges).betweenness()
    assert sources == 30
    assert np.abs(sampled - exact).max() <= sampling_error(30, 150) < 0.25
    assert np.array_equal(sampled, drawn(150, edges).betweenness()[0])
    assert np.corrcoef(sampled, exact)[0, 1] > 0.6


def test_an_error_by_hand():
    """Fifty sources leave sqrt(ln 40 / 100) = 0.192, one leaves everything open, all of them nothing."""
    assert sampling_error(50, 1_000) == pytest.approx(0.19206, abs=1e-5)
    assert (sampling_error(1, 1_000), sampling_error(1_000, 1_000)) == (1.0, 0.0)


CLIQUES = [
    (base + one, base + other, 1.0) for base, size in ((0, 4), (4, 3)) for one, other in itertools.combinations(range(size), 2)
] + [(3, 4, 0.25)]


def test_communities_by_hand():
    """Two cliques with a weak bridge are two communities, the larger first; a stranger is one of its own."""
    graph = drawn(8, CLIQUES)
    assert graph.communities(1.0).tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert graph.inside(graph.communities(1.0), 3).tolist() == [6, 3, 0]
    assert graph.communities(0.01).tolist() == [0] * 7 + [1]
    assert len(set(graph.communities(50.0).tolist())) == 8


def modularity(edges: list[Edge], labels: Any) -> float:
    """Return the modularity of a partition of an undirected graph (Newman 2006)."""
    total = sum(strength for *_, strength in edges)
    degree = [0.0] * len(labels)
    for source, target, strength in edges:
        degree[source] += strength
        degree[target] += strength
    inside = sum(strength for source, target, strength in edges if labels[source] == labels[target])
    return (
        inside / total
        - sum(sum(degree[place] for place in range(len(labels)) if labels[place] == label) ** 2 for label in set(labels))
        / (2 * total) ** 2
    )


@settings(max_examples=40)
@given(drawings(most=5))
def test_communities_are_about_the_best_there_are(drawing):
    """Of all partitions of a small graph none is much more modular, loops left aside; the same graph falls apart the same way."""
    size, every = drawing
    edges = [edge for edge in every if edge[0] != edge[1]]
    if not edges:
        return
    labels = drawn(size, every).communities(1.0).tolist()
    best = max(modularity(edges, partition) for partition in itertools.product(range(size), repeat=size))
    assert modularity(edges, labels) >= best - 0.05
    assert labels == drawn(size, every).communities(1.0).tolist()
    sizes = [labels.count(label) for label in range(max(labels) + 1)]
    assert sizes == sorted(sizes, reverse=True)


def test_an_empty_graph_has_figures():
    """Nothing has no figures, and one entity alone is everything."""
    nothing = drawn(0, [])
    assert (len(nothing.page_ranks()), nothing.betweenness()[1], len(nothing.communities(1.0))) == (0, 0, 0)
    one = drawn(1, [])
    assert (one.page_ranks().tolist(), one.betweenness()[0].tolist(), one.communities(1.0).tolist()) == ([1.0], [0.0], [0])


# --- following the rows -----------------------------------------------------------------------------------------------

EMBEDDER = HashingEmbedder(16)


@pytest.fixture
def storage(tmp_path) -> Iterator[Storage]:
    storage = Storage.open(tmp_path / "memory.duckdb", Settings.off(), EMBEDDER)
    yield storage
    storage.close()


def write(storage: Storage, *demands: Any, session: str = "default") -> list[Any]:
    """Run demands as one call and return their answers."""

    def plan():
        answers = []
        for demand in demands:
            answers.append((yield demand))
        return answers

    phases = Phases()
    (answer,) = storage.write(storage.prepare([Call(session, plan)], phases), phases)
    assert isinstance(answer, list), answer
    return answer


def view(storage: Storage, session: str = "default") -> GraphView:
    def plan():
        return (yield Graph())

    (answer,) = storage.read([Call(session, plan)], Phases())
    return answer


def entity(name: str) -> Insert:
    return Insert("graph.entity", (record(None, name=name, type="thing", description=None, attributes={}),))


def relationship(source: str, target: str, expires_at: Any = None) -> Insert:
    fields = {"source": source, "target": target, "source_name": "a", "target_name": "b", "type": "x"}
    attributes = {**fields, "strength": 0.5, "fact": None, "expires_at": expires_at}
    return Insert("graph.relationship", (Draft(vector=None, kind="record", attributes=attributes, expires_at=expires_at),))


def id_of(done: Inserted) -> str:
    (id,) = done.ids
    return id


def drawing_of(graph: GraphView) -> tuple[set[str], list[tuple[str, str, str, float]]]:
    """Return what a view shows, by ids."""
    places = [place for place in range(len(graph._alive)) if graph._alive[place]]
    rows = zip(
        graph.relationship_ids(range(graph.relationships)),
        graph.entity_ids(graph._source),
        graph.entity_ids(graph._target),
        graph._strength.tolist(),
        strict=True,
    )
    return set(graph.entity_ids(places)), list(rows)


def test_a_graph_follows_every_kind_of_change(storage):
    """After each committed write the graph in memory is the one that a new reading finds; earlier views stay as they were."""
    first = view(storage)
    ids = [id_of(done) for done in write(storage, *map(entity, "abc"))]
    seen = [drawing_of(view(storage))]
    one, other = (id_of(done) for done in write(storage, relationship(ids[0], ids[1]), relationship(ids[1], ids[2])))
    for demand in (
        Replace("graph.relationship", one, {"strength": 0.25}),
        Replace("graph.entity", ids[0], {"description": "new"}),
        Remove("graph.relationship", (other,)),
        Remove("graph.entity", (ids[2],)),
        entity("d"),
    ):
        write(storage, demand)
        warm = view(storage)
        storage.clear_rows()
        assert drawing_of(warm) == drawing_of(view(storage))
        seen.append(drawing_of(warm))
    assert [(len(entities), len(edges)) for entities, edges in seen] == [(3, 0), (3, 2), (3, 2), (3, 1), (2, 1), (3, 1)]
    assert seen[-1][1] == [(one, ids[0], ids[1], 0.25)]
    assert (first.entities, first.relationships) == (0, 0)


def test_what_is_stored_and_forgotten_at_once_leaves_nothing(storage):
    """A relationship that comes and goes in one transaction is in no graph."""
    ids = [id_of(done) for done in write(storage, *map(entity, "ab"))]
    view(storage)

    def plan():
        done = yield relationship(*ids)
        yield Remove("graph.relationship", done.ids)

    storage.write(storage.prepare([Call("default", plan)], Phases()), Phases())
    assert view(storage).relationships == 0


def test_a_relationship_expires(storage):
    """From its time on it is in no view, without any write."""
    ids = [id_of(done) for done in write(storage, *map(entity, "ab"))]
    later = clock.now() + timedelta(hours=1)
    write(storage, relationship(*ids, expires_at=later), relationship(*ids))
    assert view(storage).relationships == 2
    assert storage.indexes.graphs.of(storage.indexes.code("default"), int(later.timestamp() * 1e6)).relationships == 1


def test_sessions_have_graphs_of_their_own(storage):
    """What one session relates is in no other's graph, and goes with it."""
    (other,) = write(storage, CreateSession())
    ids = [id_of(done) for done in write(storage, *map(entity, "ab"), session=other)]
    write(storage, relationship(*ids), session=other)
    assert (view(storage).entities, view(storage, other).relationships) == (0, 1)
    assert view(storage).place(ids[0]) is None
    assert len(storage.indexes.graphs) == 2
    write(storage, DeleteSession(), session=other)
    assert len(storage.indexes.graphs) == 1


def test_the_least_recently_asked_for_leaves(storage):
    """Graphs beyond the bound are forgotten and read again; the one that is asked for stays, however large."""
    kept = Graphs(storage.database, kept=3)
    (other,) = write(storage, CreateSession())
    for session in ("default", other):
        write(storage, *map(entity, "ab"), session=session)
    codes = [storage.indexes.code(session) for session in ("default", other)]
    for code in (*codes, *codes):
        assert kept.of(code, 0).entities == 2
        assert len(kept) == 1


def test_a_graph_of_the_forgotten_is_read_again(storage):
    """Places of what is forgotten do not pile up for ever."""
    drafts = tuple(record(None, name=f"{place}", type="thing", description=None, attributes={}) for place in range(1_200))
    view(storage)
    (done,) = write(storage, Insert("graph.entity", drafts))
    assert len(view(storage)._alive) == 1_200
    write(storage, Remove("graph.entity", done.ids[:700]))
    assert (view(storage).entities, len(view(storage)._alive)) == (500, 500)


def test_readers_beside_a_writer_see_whole_graphs(storage):
    """While entities and their relationships are written, no view shows a relationship without its ends, or fewer than before."""
    problems: list[Any] = []
    done = threading.Event()

    def look() -> None:
        seen = 0
        try:
            while not done.is_set():
                graph = view(storage)
                if graph.relationships * 2 != graph.entities or graph.relationships < seen:
                    problems.append((graph.entities, graph.relationships))
                seen = graph.relationships
        except Exception as error:  # noqa: BLE001
            problems.append(error)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()

    def plan():
        one, other = (yield entity("a")), (yield entity("b"))
        yield relationship(*one.ids, *other.ids)

    for step in range(40):
        storage.write(storage.prepare([Call("default", plan)], Phases()), Phases())
        if step % 10 == 0:
            storage.indexes.graphs.clear()
    done.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert view(storage).relationships == 40
