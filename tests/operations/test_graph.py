"""The graph: entities are found, related, walked and forgotten, and facts of three parts are in it."""

from datetime import timedelta

import pytest

from memlab.embedders import PrecomputedEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.measure import clock
from memlab.memory import Memory


@pytest.fixture
def ask(memory):
    """Call an operation of the graph, `ask("get_entity", entity=…)`."""
    return lambda operation, /, **given: memory.call(f"graph.{operation}", given)


@pytest.fixture
def people(ask):
    """Ada, Bo, Cy and Di."""
    return [ask("create_entity", name=name, type="person") for name in ("Ada", "Bo", "Cy", "Di")]


def refused(call, *arguments, **given):
    with pytest.raises(MemlabError) as caught:
        call(*arguments, **given)
    return caught.value


def names(entities):
    return [entity.name for entity in entities]


def sentences(relationships):
    return [relationship.content for relationship in relationships]


def test_an_entity_is_there_once(ask):
    """Name and type together, whatever their case, are one entity; the refusal says how to reach it and changes nothing."""
    ada = ask("create_entity", name="Ada", type="person", description="a sailor", attributes={"born": 1980})
    error = refused(ask, "create_entity", name="ADA", type="Person", description="another")
    assert (error.type, error.reason, error.fields["id"]) == (ErrorType.VALIDATION, "duplicate", ada.id)
    assert ada.id in error.text
    assert ask("get_entity", entity=ada.id) == ada
    assert (ada.description, ada.attributes) == ("a sailor", {"born": 1980})
    assert ask("create_entity", name="Ada", type="ship").id != ada.id


def test_an_entity_that_was_forgotten_can_be_made_again(ask):
    """Name and type are free again."""
    ada = ask("create_entity", name="Ada", type="person")
    ask("delete_entity", entity=ada.id)
    assert ask("create_entity", name="Ada", type="person").id != ada.id


def test_entities_are_found_by_name_description_and_type(ask):
    """A search ranks by meaning and words; a type leaves all others out."""
    ask("create_entity", name="Ada", type="person", description="sails the harbour")
    ask("create_entity", name="Harbour", type="place")
    assert names(ask("search_entities", query="harbour", limit=1)) == ["Harbour"]
    assert names(ask("search_entities", query="harbour", type="PERSON")) == ["Ada"]
    assert names(ask("search_entities", query="sails", limit=1)) == ["Ada"]


def test_a_relationship_said_again_gets_the_new_strength(ask, people):
    """One by hand for each type and direction between two entities; the strength said last holds, as a new version."""
    ada, bo, *_ = people
    first = ask("create_relationship", source=ada.id, target=bo.id, type="knows", strength=0.5)
    assert (first.source_name, first.target_name, first.strength, first.fact) == ("Ada", "Bo", 0.5, None)
    again = ask("create_relationship", source=ada.id, target=bo.id, type="KNOWS", strength=0.25)
    assert (again.id, again.version, again.strength, again.type) == (first.id, 2, 0.25, "knows")
    assert ask("create_relationship", source=ada.id, target=bo.id, type="knows", strength=0.25) == again
    ask("create_relationship", source=bo.id, target=ada.id, type="knows")
    ask("create_relationship", source=ada.id, target=bo.id, type="likes")
    assert len(ask("get_relationships", entity=ada.id)) == 3


def test_a_relationship_needs_both_its_ends(ask, people):
    """An end that is not there is NOT_FOUND, before and inside the transaction, and nothing is related."""
    ada, bo, *_ = people
    ask("delete_entity", entity=bo.id)
    for ends in ((ada.id, bo.id), (bo.id, ada.id), (ada.id, "en_1ffffffff")):
        error = refused(ask, "create_relationship", source=ends[0], target=ends[1], type="knows")
        assert (error.type, error.reason) == (ErrorType.NOT_FOUND, "memory")
    assert len(ask("search_relationships", type="knows")) == 0


@pytest.fixture
def chain(ask, people):
    """Ada → Bo → Cy strongly, Ada → Cy weakly; Di alone."""
    ada, bo, cy, _ = people
    ask("create_relationship", source=ada.id, target=bo.id, type="knows")
    ask("create_relationship", source=bo.id, target=cy.id, type="knows")
    ask("create_relationship", source=ada.id, target=cy.id, type="works_with", strength=0.25)
    return people


def test_relationships_by_direction_and_type(ask, chain):
    """Those that arrive, those that leave, or both; of one type; the latest first and page by page."""
    _, bo, cy, di = chain
    assert sentences(ask("get_relationships", entity=bo.id, direction="in")) == ["Ada knows Bo"]
    assert sentences(ask("get_relationships", entity=bo.id, direction="out")) == ["Bo knows Cy"]
    assert sentences(ask("get_relationships", entity=cy.id, type="Works_with")) == ["Ada works with Cy"]
    assert len(ask("get_relationships", entity=di.id)) == 0
    first = ask("get_relationships", entity=cy.id, limit=1)
    second = ask("get_relationships", entity=cy.id, limit=1, cursor=first.cursor)
    assert sentences([*first, *second]) == ["Ada works with Cy", "Bo knows Cy"]
    assert second.cursor is None
    assert refused(ask, "get_relationships", entity=bo.id, cursor=first.cursor).reason == "cursor"
    assert refused(ask, "get_relationships", entity="en_1ffffffff").reason == "memory"


def test_one_to_itself_is_listed_once(ask, people):
    """An entity related to itself has that relationship once, in either direction and in both."""
    ada, *_ = people
    ask("get_relationships", entity=ada.id)
    ask("create_relationship", source=ada.id, target=ada.id, type="trusts")
    for direction in ("in", "out", "both"):
        assert sentences(ask("get_relationships", entity=ada.id, direction=direction)) == ["Ada trusts Ada"]
    assert ask("delete_entity", entity=ada.id).relationships == 1


def test_relationships_are_found_by_sentence_or_type(ask, chain):
    """Words and meaning of the sentence find it; a type alone lists all of it; nothing said is refused."""
    assert sentences(ask("search_relationships", query="works with", limit=1)) == ["Ada works with Cy"]
    assert sentences(ask("search_relationships", query="Ada", type="works_with")) == ["Ada works with Cy"]
    first = ask("search_relationships", type="KNOWS", limit=1)
    assert sentences([*first, *ask("search_relationships", type="KNOWS", limit=1, cursor=first.cursor)]) == [
        "Bo knows Cy",
        "Ada knows Bo",
    ]
    assert refused(ask, "search_relationships").reason == "missing_parameter"
    assert refused(ask, "search_relationships", query="Ada", cursor=first.cursor).reason == "bounds"


def test_paths(ask, chain):
    """Short, strong, bounded, in either direction, or not there: each is said."""
    ada, _, cy, di = chain
    short = ask("find_path", source=ada.id, target=cy.id)
    assert (names(short.entities), sentences(short.relationships)) == (["Ada", "Cy"], ["Ada works with Cy"])
    assert (short.found, short.hops, short.cost) == (True, 1, 1.0)
    strong = ask("find_path", source=ada.id, target=cy.id, weighted=True)
    assert (names(strong.entities), strong.hops, strong.cost) == (["Ada", "Bo", "Cy"], 2, 2.0)
    assert ask("find_path", source=ada.id, target=cy.id, weighted=True, max_hops=1).cost == 4.0
    assert ask("find_path", source=cy.id, target=ada.id).found is False
    assert ask("find_path", source=cy.id, target=ada.id, directed=False).hops == 1
    assert ask("find_path", source=ada.id, target=di.id).cost is None
    assert names(ask("find_path", source=di.id, target=di.id).entities) == ["Di"]
    for ends in ((ada.id, "en_1ffffffff"), ("en_1ffffffff", ada.id)):
        assert refused(ask, "find_path", source=ends[0], target=ends[1]).reason == "memory"


def test_a_path_follows_what_is_written(ask, chain):
    """An acknowledged write is in the next path, also where the earlier answer was kept."""
    ada, _, _, di = chain
    assert not ask("find_path", source=ada.id, target=di.id).found
    ask("create_relationship", source=ada.id, target=di.id, type="knows")
    assert ask("find_path", source=ada.id, target=di.id).found
    ask("delete_entity", entity=di.id)
    assert refused(ask, "find_path", source=ada.id, target=di.id).reason == "memory"


def test_a_neighbourhood(ask, chain):
    """The nearest come first, with all relationships between them; what does not fit is said."""
    ada, bo, *_ = chain
    ask("create_entity", name="Ed", type="person")
    around = ask("get_neighborhood", entity=bo.id)
    assert around.entity == bo
    assert [(near.entity.name, near.hops) for near in around.entities] == [("Ada", 1), ("Cy", 1)]
    assert sentences(around.relationships) == ["Ada knows Bo", "Bo knows Cy", "Ada works with Cy"]
    assert around.complete
    cut = ask("get_neighborhood", entity=ada.id, hops=2, limit=1)
    assert (names(near.entity for near in cut.entities), cut.complete) == (["Bo"], False)
    assert refused(ask, "get_neighborhood", entity="en_1ffffffff").reason == "memory"


def test_deleting_an_entity_takes_its_relationships_along(ask, chain):
    """They go in the same step; the entities at their other ends stay."""
    ada, bo, cy, _ = chain
    done = ask("delete_entity", entity=bo.id)
    assert (done.forgotten, done.relationships) == (True, 2)
    assert sentences(ask("get_relationships", entity=ada.id)) == ["Ada works with Cy"]
    assert refused(ask, "get_entity", entity=bo.id).reason == "memory"
    assert refused(ask, "delete_entity", entity=bo.id).reason == "memory"
    assert ask("get_entity", entity=cy.id) == cy


def test_an_entity_of_many_relationships_goes_in_steps(ask, chain):
    """A call forgets as many relationships as it may, the oldest first, and says when it must be called again."""
    ada, *_ = chain
    first = ask("delete_entity", entity=ada.id, limit=1)
    assert (first.forgotten, first.relationships) == (False, 1)
    assert sentences(ask("get_relationships", entity=ada.id)) == ["Ada works with Cy"]
    assert ask("delete_entity", entity=ada.id, limit=1).forgotten


def test_communities(ask, memory):
    """Two groups with a weak bridge are two communities with their most connected members; new relationships change them."""
    groups = [
        [ask("create_entity", name=f"{group}{place}", type="person").id for place in range(size)]
        for group, size in (("a", 4), ("b", 3))
    ]
    for group in groups:
        for place, one in enumerate(group):
            for other in group[:place]:
                ask("create_relationship", source=one, target=other, type="knows")
    ask("create_relationship", source=groups[0][0], target=groups[1][0], type="knows", strength=0.1)
    large, small = ask("get_communities", members=2)
    assert (large.community, large.entities, large.relationships, large.share) == (0, 4, 6, pytest.approx(4 / 7))
    assert (small.entities, small.relationships) == (3, 3)
    assert (large.members[0].name, small.members[0].name) == ("a0", "b0")
    assert len(ask("get_communities", limit=1)) == 1
    for one in groups[0]:
        for other in groups[1]:
            ask("create_relationship", source=one, target=other, type="likes")
    assert [community.entities for community in ask("get_communities")] == [7]


def test_no_graph_has_no_communities(ask):
    """A session without entities has an empty list."""
    assert len(ask("get_communities")) == 0


def test_an_entity_is_analysed(ask, chain):
    """Figures by hand: Bo stands on one of the two-hop ways of six ordered pairs; the data changes, and they change."""
    ada, bo, cy, di = chain
    ask("create_relationship", source=cy.id, target=di.id, type="knows")
    middle = ask("analyze_entity", entity=cy.id)
    assert (middle.degree_in, middle.degree_out, middle.entities, middle.relationships) == (2, 1, 4, 4)
    # Shortest paths through Cy: Ada → Di and Bo → Di, of (4 - 1)(4 - 2) = 6 ordered pairs of others.
    assert (middle.betweenness, middle.betweenness_error, middle.betweenness_sources) == (pytest.approx(2 / 6), 0.0, 4)
    ranks = [ask("analyze_entity", entity=one.id) for one in chain]
    assert sum(one.page_rank for one in ranks) == pytest.approx(1.0)
    assert sorted(one.page_rank_place for one in ranks) == [1, 2, 3, 4]
    assert ranks[3].page_rank_place == 1
    assert ask("analyze_entity", entity=bo.id).betweenness == 0.0
    ask("delete_entity", entity=ada.id)
    assert ask("analyze_entity", entity=bo.id).degree_in == 0
    assert refused(ask, "analyze_entity", entity=ada.id).reason == "memory"


# --- facts ------------------------------------------------------------------------------------------------------------


def test_a_fact_of_three_parts_is_in_the_graph(ask, memory, people):
    """It relates the entities of these names, whatever their case, and makes those that are not there, of type `thing`."""
    ada, *_ = people
    fact = memory.semantic.store_fact("ADA", "works_at", "the harbour", confidence=0.5)
    (made,) = ask("get_relationships", entity=ada.id)
    assert (made.fact, made.type, made.strength, made.source) == (fact.id, "works_at", 0.5, ada.id)
    assert made.content == "Ada works at the harbour"
    harbour = ask("get_entity", entity=made.target)
    assert (harbour.name, harbour.type) == ("the harbour", "thing")
    memory.semantic.store_fact("Ada", "likes", "The Harbour")
    assert len(ask("get_relationships", entity=harbour.id, direction="in")) == 2


def test_every_fact_has_a_relationship_of_its_own(ask, memory, people):
    """The same fact twice is two relationships, beside the one by hand, and each goes with its fact."""
    ada, bo, *_ = people
    ask("create_relationship", source=ada.id, target=bo.id, type="knows")
    facts = [memory.semantic.store_fact("Ada", "knows", "Bo") for _ in range(2)]
    assert len(ask("get_relationships", entity=ada.id)) == 3
    memory.semantic.delete(facts[0].id)
    assert {one.fact for one in ask("get_relationships", entity=ada.id)} == {None, facts[1].id}
    memory.semantic.bulk_delete(ids=[facts[1].id])
    assert {one.fact for one in ask("get_relationships", entity=ada.id)} == {None}


def test_a_subject_that_is_its_object(ask, memory):
    """It is one entity, related to itself."""
    memory.semantic.store_fact("Ada", "trusts", "ada")
    (entity,) = ask("search_entities", query="Ada")
    (one,) = ask("get_relationships", entity=entity.id)
    assert (one.source, one.target) == (entity.id, entity.id)


def test_a_relationship_follows_its_fact(ask, memory):
    """A new confidence is a new strength, a new sentence takes the relationship away, and the entities stay."""
    fact = memory.semantic.store_fact("Ada", "likes", "tea")
    memory.semantic.update(fact.id, confidence=0.0, topics=["a"])
    (one,) = ask("search_relationships", type="likes")
    assert (one.strength, one.version) == (0.01, 2)
    memory.semantic.update(fact.id, topics=["b"])
    assert ask("search_relationships", type="likes")[0].version == 2
    memory.semantic.update(fact.id, content="Ada drinks coffee")
    assert len(ask("search_relationships", type="likes")) == 0
    assert len(ask("search_entities", query="Ada")) == 2


@pytest.mark.parametrize("condition", [{"topics": ["a"]}, {"below_confidence": 0.9}])
def test_facts_deleted_by_condition_leave_the_graph(ask, memory, condition):
    """A relationship goes with its fact, however that is chosen; a dry run touches nothing."""
    memory.semantic.store_fact("Ada", "likes", "tea", topics=["a"], confidence=0.5)
    memory.semantic.store("Ada likes tea", topics=["a"], confidence=0.5)
    memory.semantic.bulk_delete(**condition, dry_run=True)
    assert len(ask("search_relationships", type="likes")) == 1
    assert memory.semantic.bulk_delete(**condition).forgotten == 2
    assert len(ask("search_relationships", type="likes")) == 0


def test_merged_facts_leave_one_relationship(ask, memory):
    """The relationship of the fact that stays, stays; those of the facts taken in go with them."""
    for confidence in (0.5, 1.0, 0.75):
        memory.semantic.store_fact("Ada", "likes", "tea", confidence=confidence)
    (merge,) = memory.semantic.deduplicate(0.95).merges
    (one,) = ask("search_relationships", type="likes")
    assert (one.fact, one.strength) == (merge.kept, 1.0)


def test_a_relationship_expires_with_its_fact(ask, memory):
    """It carries the fact's expiry, also a later one, and is in no list or path after it."""
    soon = clock.now() + timedelta(hours=1)
    fact = memory.semantic.store_fact("Ada", "likes", "tea", expires_at=soon)
    (one,) = ask("search_relationships", type="likes")
    assert one.expires_at == soon
    past = clock.now() - timedelta(hours=1)
    memory.semantic.update(fact.id, expires_at=past)
    assert len(ask("search_relationships", type="likes")) == 0
    assert not ask("find_path", source=one.source, target=one.target).found
    assert len(ask("get_relationships", entity=one.source)) == 0


def test_forgetting_an_entity_leaves_the_facts(ask, memory):
    """What was said of it stays in semantic memory; changing and deleting such a fact works as ever."""
    fact = memory.semantic.store_fact("Ada", "likes", "tea")
    (one,) = ask("search_relationships", type="likes")
    ask("delete_entity", entity=one.source)
    assert memory.semantic.get(fact.id) == fact
    memory.semantic.update(fact.id, confidence=0.5)
    memory.semantic.delete(fact.id)
    assert names(ask("search_entities", query="tea")) == ["tea"]


def test_facts_stored_at_once_share_their_entities(memory, ask):
    """Calls that are under way together find the entities that the others make."""

    async def burst():
        import asyncio

        return await asyncio.gather(
            *(
                memory.execute("semantic.store_fact", {"subject": "Ada", "predicate": "knows", "object": f"p{place % 3}"})
                for place in range(20)
            )
        )

    import asyncio

    asyncio.run(burst())
    assert len(ask("search_relationships", type="knows", limit=200)) == 20
    assert len(ask("search_entities", query="Ada", limit=200)) == 4


def test_precomputed_vectors_reach_entities_and_relationships(tmp_path):
    """Where no text can be embedded a fact lends its vector, and entities and relationships made by hand bring theirs."""
    with Memory.open(tmp_path / "memory.duckdb", embedder=PrecomputedEmbedder(2)) as memory:
        memory.semantic.store_fact("Ada", "likes", "tea", embedding=[1.0, 0.0])
        found = memory.call("graph.search_entities", {"query": "Ada", "query_embedding": [1.0, 0.0]})
        assert sorted(names(found)) == ["Ada", "tea"]
        assert refused(memory.call, "graph.create_entity", {"name": "Bo", "type": "person"}).reason == "embedder"
        assert refused(memory.semantic.store_fact, "Ada", "likes", "tea").reason == "embedder"
        bo = memory.call("graph.create_entity", {"name": "Bo", "type": "person", "embedding": [0.0, 1.0]})
        ends = {"source": bo.id, "target": found[0].id, "type": "knows"}
        assert memory.call("graph.create_relationship", ends | {"embedding": [0.0, 1.0]}).source == bo.id
