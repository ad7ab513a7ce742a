"""The optimizer takes the cheap way, learns from what happened, and no way changes an answer."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.embedders import HashingEmbedder
from memlab.memory import Memory
from memlab.storage.optimizer import WAYS, Optimizer, Statistics, estimate, reach

STRATEGIES = (*WAYS, "auto")


def known(**changed: object) -> Statistics:
    given = {
        "memories": 100_000,
        "total": 100_000,
        "passing": 1_000.0,
        "conditions": 1,
        "postings": 5_000,
        "dimension": 384,
        "queries": 1,
        "depth": 10,
        "kind": "ivf",
        "probed": 0.02,
    }
    return Statistics(**{**given, **changed})


def test_a_narrow_filter_goes_first_and_a_wide_one_into_the_index():
    """Few that pass are compared one by one; many are left to the index."""
    assert Optimizer().choose("vector", known(passing=20.0)) == "pre_filter"
    assert Optimizer().choose("vector", known(passing=50_000.0)) != "pre_filter"
    assert Optimizer().choose("text", known(passing=20.0)) == "pre_filter"
    assert Optimizer().choose("text", known(passing=50_000.0)) == "post_filter"


def test_a_small_session_is_searched_exactly():
    """The index of everybody's memories does not pay for a few hundred of one session."""
    assert (
        Optimizer().choose("vector", known(memories=300, passing=300.0, conditions=0), ("pre_filter", "push_down"))
        == "pre_filter"
    )


def test_what_a_way_took_changes_the_choice():
    """A way that takes longer than its estimate, again and again, is left; the estimate comes to what it takes."""
    optimizer, this = Optimizer(), known(passing=50_000.0)
    first = optimizer.choose("vector", this)
    for _ in range(30):
        optimizer.learn("vector", first, this, 1e6)
    assert optimizer.choose("vector", this) != first
    low = estimate("vector", first, this).cost_us
    assert optimizer.corrected("vector", first, this) == pytest.approx(min(1e6, 64 * low), rel=0.01)


def test_one_outlier_is_not_believed_for_long():
    """After a stall the estimate comes back with the searches that follow."""
    optimizer, this = Optimizer(), known()
    for cost in [100.0] * 20 + [1e9] + [100.0] * 20:
        optimizer.learn("vector", "pre_filter", this, cost)
    assert optimizer.corrected("vector", "pre_filter", this) == pytest.approx(100.0, rel=0.2)


def test_text_has_no_push_down():
    """tantivy's index takes no bitmap of ours."""
    assert estimate("text", "push_down", known()) is None
    assert Optimizer().corrected("text", "push_down", known()) is None


@given(st.integers(1, 500), st.floats(1e-6, 1.0), st.integers(0, 10**6))
def test_a_post_filter_looks_as_far_as_it_needs_and_no_further(depth, selectivity, memories):
    """It takes enough for the depth at this selectivity, and never more than there are."""
    found = reach(depth, selectivity, memories)
    assert 1 <= found <= max(memories, 1)
    assert found >= min(depth, memories)


@dataclass
class World:
    memory: Memory
    contents: list[str]
    topics: list[list[str]]
    confidence: list[float]


@pytest.fixture(scope="module", params=["flat", "ivf", "hnsw", "sq8"])
def world(request, tmp_path_factory):
    """A few thousand facts whose index is really used."""
    chance = random.Random(3)
    words = [f"word{place}" for place in range(400)]
    count = 3_000
    contents = [" ".join(chance.choices(words, weights=[1 / (1 + rank) for rank in range(400)], k=8)) for _ in range(count)]
    topics = [[f"half{place % 2}", f"rare{place % 300}"] for place in range(count)]
    confidence = [chance.random() for _ in range(count)]
    settings = {"cache": None, "index": {"kind": request.param, "train_at": 1_000, "exact_below": 0, "recall_target": 1.0}}
    with Memory.open(tmp_path_factory.mktemp("ways") / "memory.duckdb", settings, HashingEmbedder(64)) as memory:
        for other in range(2):
            session = "default" if not other else memory.session.create()
            facts = [
                {"content": content, "topics": mine, "confidence": sure}
                for content, mine, sure in zip(contents, topics, confidence, strict=True)
            ]
            memory.semantic.bulk_store(facts[: count // (1 + 2 * other)], session=session)
        memory.engine.storage.rebuild()
        yield World(memory, contents, topics, confidence)


FILTERS = [
    {},
    {"topics": ["half1"]},
    {"topics": ["rare7"]},
    {"min_confidence": 0.5},
    {"min_confidence": 0.5, "topics": ["half0", "rare8"]},
]


@pytest.mark.parametrize("filter", FILTERS, ids=repr)
def test_every_way_gives_the_same_answer(world, filter):
    """Forced or chosen, with any filter, the same memories come back in the same order."""
    for query in ("word1 word5 word9", "word300", "word7 word8"):
        answers = {
            strategy: [
                (fact.id, round(fact.score, 6)) for fact in world.memory.semantic.search(query, strategy=strategy, **filter)
            ]
            for strategy in STRATEGIES
        }
        assert answers["auto"]
        assert len({tuple(answer) for answer in answers.values()}) == 1


@pytest.mark.parametrize("filter", FILTERS, ids=repr)
def test_an_explanation_says_what_passes_and_what_was_done(world, filter):
    """Estimates stand beside what happened, one way of each part is chosen, and the counts are those of the data."""
    truth = sum(
        (not filter.get("topics") or bool(set(filter["topics"]) & set(topics))) and sure >= filter.get("min_confidence", 0.0)
        for topics, sure in zip(world.topics, world.confidence, strict=True)
    )
    for strategy in STRATEGIES:
        found = world.memory.semantic.search("word1 word2", strategy=strategy, explain=True, **filter)
        why = found.explanation
        assert why.memories == len(world.contents)
        assert why.matching in (None, truth)
        assert why.estimated_matching == pytest.approx(truth, abs=0.05 * why.memories)
        for part in ("vector", "text"):
            chosen = [one for one in why.candidates if one.part == part and one.chosen]
            assert len(chosen) == 1
            assert chosen[0].cost_us > 0
            assert strategy in ("auto", chosen[0].way) or chosen[0].way not in {
                one.way for one in why.candidates if one.part == part and one.way == strategy
            }
            if chosen[0].way == "pre_filter":
                assert chosen[0].rows == truth
        assert "push_down" in found._repr_html_()
    assert world.memory.semantic.search("word1 word2", **filter).explanation is None


def test_a_filtered_answer_equals_brute_force_over_the_session(world):
    """What comes back by meaning under a narrow filter is what comparing every vector finds."""
    embedder = world.memory.engine.storage.embedder
    vector = np.random.default_rng(5).normal(size=64)
    vector /= np.linalg.norm(vector)
    allowed = [place for place, topics in enumerate(world.topics) if "rare7" in topics]
    stored = embedder.embed([world.contents[place] for place in allowed])
    wanted = {world.contents[allowed[place]] for place in np.argsort(-(stored @ vector))[:5]}
    found = world.memory.semantic.search("zzz", 5, topics=["rare7"], query_embedding=vector, strategy="pre_filter")
    assert {fact.content for fact in found} == wanted


def test_retrieval_explains_every_layer_that_it_searched(world):
    """rag.retrieve chooses by layer, says what it expected and what it took, and finds the same either way."""
    given = {"query": "word1 word5", "strategy": "hybrid", "explain": True}
    answers = {way: world.memory.rag.retrieve(**given, way=way) for way in ("auto", "pre_filter", "push_down")}
    assert len({tuple(passage.id for passage in answer) for answer in answers.values()}) == 1
    for way, answer in answers.items():
        why = answer.explanation
        assert why.memories == why.matching == len(world.contents)
        assert {one.layer for one in why.candidates} == {"semantic"}
        (chosen,) = [one for one in why.candidates if one.chosen]
        assert way in ("auto", chosen.way)
        assert chosen.rows == len(world.contents)
    assert world.memory.rag.retrieve("word1").explanation is None
