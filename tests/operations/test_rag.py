"""Retrieval over all layers: each algorithm by hand, and what a caller may rely on."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.embedders import HashingEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.hooks import Hooks
from memlab.memory import Memory
from memlab.operations import lookup
from memlab.operations.rag import TEXT_LAYERS, diverse, moved, prompt_of, relevance_model, scaled
from memlab.storage.demands import Embed
from memlab.values import Passage

START = datetime(2023, 5, 8, 12, tzinfo=UTC)
SEARCHES = ["retrieve", "search", "hybrid_search", "semantic_search", "bm25_search", "retrieve_with_reranking"]


def talk(memory, *turns, start=START, **options):
    """Remember turns (speaker, text), half a minute apart; return their ids."""
    events = [
        {"content": text, "source": speaker, "occurred_at": start + timedelta(seconds=30 * place)}
        for place, (speaker, text) in enumerate(turns)
    ]
    return list(memory.episodic.bulk_remember(events, **options).ids)


# --- algorithms ------------------------------------------------------------------------------------------------------


def test_marginal_relevance_by_hand():
    """After the best comes what is relevant and unlike it; with balance 1 relevance alone orders."""
    alike = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    relevance = np.array([1.0, 0.8, 0.5])
    assert diverse(relevance, alike, 3, 0.5) == [0, 2, 1]  # 0.5·0.5 = 0.25 against 0.5·0.8 - 0.5·0.9 = -0.05
    assert diverse(relevance, alike, 3, 1.0) == [0, 1, 2]
    assert diverse(relevance, alike, 1, 0.0) == [0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 1), st.integers(1, 15))
def test_marginal_relevance_chooses_each_once(relevance, balance, limit):
    """It chooses as many different candidates as there are, and the most relevant first where relevance counts."""
    chosen = diverse(np.array(relevance), np.eye(len(relevance)), limit, balance)
    assert len(chosen) == len(set(chosen)) == min(limit, len(relevance))
    assert balance == 0 or relevance[chosen[0]] == max(relevance)


def test_the_relevance_model_by_hand():
    """Half of the weight is the query's, half the feedback's: 0.9 of each text's share and 0.1 of the share in all."""
    model = relevance_model("tea", ["tea harbour", "harbour harbour"], [3.0, 1.0], terms=2, mix=0.5)
    # All: tea 1/4, harbour 3/4. Weights 0.75, 0.25. tea 0.75·(0.45 + 0.025) + 0.25·0.025 = 0.3625; harbour the rest.
    assert [(one.word, one.is_new) for one in model] == [("tea", False), ("harbour", True)]
    np.testing.assert_allclose([one.weight for one in model], [0.5 + 0.5 * 0.3625, 0.5 * 0.6375])


@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=5), st.integers(1, 5), st.floats(0, 1))
def test_weights_of_a_relevance_model_add_up(query, contents, terms, mix):
    """Weights are no less than 0, the heaviest first, and add up to 1 wherever the query holds a word."""
    model = relevance_model(query, contents, [1.0] * len(contents), terms=terms, mix=mix)
    weights = [one.weight for one in model]
    assert weights == sorted(weights, reverse=True)
    assert all(weight >= 0 for weight in weights)
    if any(not one.is_new for one in model):
        assert sum(weights) == pytest.approx(1.0)


def test_the_query_moves_by_hand():
    """It moves by 0.75 to the relevant and by 0.15 away from the others, and keeps unit length."""
    query, one, other = np.eye(3, dtype=np.float32)
    vector = moved(query, one[None], other[None])
    np.testing.assert_allclose(vector, np.array([1.0, 0.75, -0.15]) / np.sqrt(1 + 0.75**2 + 0.15**2), rtol=1e-6)
    np.testing.assert_allclose(moved(query, np.zeros((0, 3)), np.zeros((0, 3))), query)


def test_scores_are_scaled_to_the_best():
    """The best is 1; what has nothing above 0 stays."""
    assert scaled(np.array([1.0, 4.0])).tolist() == [0.25, 1.0]
    assert scaled(np.array([-1.0, 0.0])).tolist() == [-1.0, 0.0]
    assert scaled(np.zeros(0)).tolist() == []


def a_passage(content, source=None):
    return Passage(layer="episodic", id="ep_1", content=content, score=1.0, source=source, occurred_at=START)


def test_a_prompt_fits_its_budget():
    """Sources are numbered in their order; what does not fit is passed over for shorter ones, and counted."""
    short, long = a_passage("tea\nin the morning", "Ada"), a_passage("x" * 400)
    made = prompt_of("What does Ada drink?", [short, long, a_passage("coffee")], 80)
    assert "[1] (episodic, Ada, 2023-05-08) tea in the morning\n[2] (episodic, 2023-05-08) coffee\n" in made.prompt
    assert made.prompt.endswith("Question: What does Ada drink?\nAnswer:")
    assert (made.tokens, made.left_out, len(made.sources)) == (-(-len(made.prompt) // 4), 1, 2)
    assert made.tokens <= 80
    with pytest.raises(MemlabError, match="the question alone takes") as caught:
        prompt_of("a" * 400, [], 60)
    assert caught.value.reason == "bounds"


# --- the operations --------------------------------------------------------------------------------------------------


def test_a_neighbour_lends_its_words(memory):
    """An answer that shares no word with the question is found beside the turn that does; without context it is not."""
    ids = talk(memory, ("Bo", "Where does the ferry leave?"), ("Ada", "Platform nine, every hour"))
    talk(memory, *[("Cy", f"something else entirely {word}") for word in "abcdefgh"], start=START + timedelta(days=3))
    found = memory.rag.retrieve("ferry departure", limit=2)
    assert [one.id for one in found] == ids
    assert 0 < found[1].why["words"] < found[0].why["words"] == 1.0
    assert [one.id for one in memory.rag.retrieve("ferry departure", limit=5, strategy="text")] == ids[:1]


def test_neighbours_end_with_the_episode(memory):
    """A turn of another day lends nothing."""
    first = talk(memory, ("Bo", "Where does the ferry leave?"))
    talk(memory, ("Ada", "Platform nine"), start=START + timedelta(days=1))
    assert [one.id for one in memory.rag.bm25_search("ferry")] == first
    assert [one.why.get("words", 0) > 0 for one in memory.rag.retrieve("ferry")].count(True) == 1


def test_source_and_date_are_favoured(memory):
    """Of equal texts the one comes first whose source or day the question names, and its score says why."""
    (ada,) = talk(memory, ("Ada", "the dog ran"))
    (bo,) = talk(memory, ("Bo", "the dog ran"), start=START + timedelta(days=40))
    named = memory.rag.retrieve("the dog that Bo ran with", limit=2)
    assert (named[0].id, named[0].why["source"]) == (bo, 0.05)
    dated = memory.rag.retrieve("which dog ran on 8 May, 2023?", limit=2)
    assert (dated[0].id, dated[0].why["time"]) == (ada, 1.0)
    assert "time" not in dated[1].why


@pytest.mark.parametrize("name", SEARCHES)
def test_every_layer_is_searched(memory, name):
    """Events and facts are ranked in one list, best first, and `layers` or weights leave one out."""
    event, fact = memory.episodic.remember("Ada drinks tea"), memory.semantic.store("tea is a drink of Ada")
    search = getattr(memory.rag, name)
    found = search("Ada tea")
    assert {(one.layer, one.id) for one in found} == {("episodic", event.id), ("semantic", fact.id)}
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True) or name == "retrieve_with_reranking"
    only = search("Ada tea", weights={"episodic": 0}) if name == "hybrid_search" else search("Ada tea", layers=["semantic"])
    assert [one.id for one in only] == [fact.id]
    assert len(search("Ada tea", limit=1)) == 1


@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_forgotten_or_another_sessions_is_not_found(memory, name):
    """A search sees its session alone, after every write, and nothing that is gone; no memory at all is no error."""
    search = getattr(memory.rag, name)
    other = memory.session.create()
    event = memory.episodic.remember("Ada drinks tea")
    memory.episodic.remember("Ada drinks tea too", session=other)
    assert [one.id for one in search("tea")] == [event.id]
    memory.episodic.forget([event.id])
    assert len(search("tea")) == 0


def test_the_text_layers_are_in_step():
    """The table of layers, the choice of layers and their weights name the same ones."""
    fields = lookup("rag.hybrid_search").describe()["parameters"]["properties"]["weights"]["anyOf"][0]["properties"]
    names = lookup("rag.retrieve").describe()["parameters"]["properties"]["layers"]["items"]["enum"]
    assert set(fields) == set(names) == set(TEXT_LAYERS)


def test_weights_of_layers_and_rankings_count(memory):
    """A layer's weight multiplies; a ranking without weight adds nothing; with none at all nothing is found."""
    memory.episodic.remember("Ada drinks tea")
    memory.semantic.store("Ada drinks tea")
    found = memory.rag.hybrid_search("tea", weights={"episodic": 0.5}, words=1, meaning=0)
    assert [(one.layer, one.score) for one in found] == [("semantic", 1.0), ("episodic", 0.5)]
    assert set(found[0].why) == {"words"}
    assert len(memory.rag.hybrid_search("tea", words=0, meaning=0)) == 0
    ranked = memory.rag.hybrid_search("tea", fusion="reciprocal_rank")
    assert ranked[0].score == pytest.approx(2 / 61, rel=1e-6)


def test_least_similarity_is_kept(memory):
    """Passages of a lower cosine than asked for are left out."""
    memory.episodic.remember("Ada drinks tea")
    memory.episodic.remember("zzz")
    (only,) = memory.rag.semantic_search("Ada drinks tea", min_similarity=0.9)
    assert only.score == pytest.approx(1.0, abs=1e-5)


def test_feedback_ends_when_nothing_changes(memory):
    """The same passages twice end it; an empty memory at once; it never searches more often than allowed."""
    assert memory.rag.reflective_search("tea").is_stable
    for place in range(30):
        memory.episodic.remember(f"tea number {place} {'garden' if place % 2 else 'harbour'}")
    found = memory.rag.reflective_search("tea in the garden", iterations=5, limit=5)
    assert len(found.passages) == 5
    assert 1 <= found.iterations <= 5
    assert found.is_stable or found.iterations == 5
    again = memory.rag.reflective_search("tea in the garden", iterations=1, limit=5)
    assert again.iterations == 1


def test_expansion_finds_what_shares_no_word_with_the_query(memory):
    """Words of the first passages find what the query's own words do not."""
    for text in ("the ferry sails to the island", "ferry and island", "island lighthouse keeper"):
        memory.episodic.remember(text)
    made = memory.rag.query_expansion("ferry", terms=5)
    assert made.terms[0].word == "ferry"
    assert "island" in [one.word for one in made.terms if one.is_new]
    lighthouse = next(one for one in made.passages if "lighthouse" in one.content)
    assert lighthouse.why["words"] > 0
    assert "words" not in next(one for one in memory.rag.retrieve("ferry", strategy="hybrid") if "lighthouse" in one.content).why


def test_statistics_count_layers(memory):
    """What each layer offers, and the settings in force."""
    memory.episodic.remember("tea")
    memory.semantic.store("tea")
    known = memory.rag.get_stats()
    assert known.memories == 2
    assert known.by_layer == {"episodic": 1, "semantic": 1, "procedural": 0, "prospective": 0, "graph": 0}
    assert known.strategies[0] == "contextual"
    assert known.settings["reach"] == 3


def test_a_given_vector_is_used():
    """Where the query's vector is given, the embedder is asked with it."""
    declared = lookup("rag.semantic_search")
    demand = next(declared.start(declared.validate({"query": "tea", "query_embedding": [3.0, 4.0]})))
    assert isinstance(demand, Embed)
    np.testing.assert_allclose(demand.given[0], [0.6, 0.8], rtol=1e-6)


# --- hooks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hooked(tmp_path):
    hooks = Hooks(
        expand=lambda query: "lanterns on the quay",
        rerank=lambda query, texts: [float(len(text)) for text in texts],
    )
    with Memory.open(tmp_path / "hooked.duckdb", embedder=HashingEmbedder(64), hooks=hooks) as opened:
        yield opened


def test_a_reranker_decides(hooked):
    """The hook's scores are the order, whatever the first ranking said."""
    for text in ("tea", "tea in the morning", "tea and milk"):
        hooked.episodic.remember(text)
    for found in (hooked.rag.search("tea", rerank="hook"), hooked.rag.retrieve_with_reranking("tea", method="hook")):
        assert [one.content for one in found] == ["tea in the morning", "tea and milk", "tea"]
        assert found[0].why == {"rerank": 18.0}


def test_a_hypothetical_answer_searches_too(hooked):
    """What is near the text that the hook wrote comes closer."""
    hooked.episodic.remember("lanterns on the quay")
    plain, made = hooked.rag.query_expansion("evening"), hooked.rag.query_expansion("evening", hypothetical=True)
    assert (plain.hypothetical, made.hypothetical) == (None, "lanterns on the quay")
    cosine = hooked.rag.semantic_search("evening")[0].score
    assert cosine < 0.7 < hooked.rag.semantic_search("lanterns on the quay")[0].score
    assert made.passages[0].content == "lanterns on the quay"


def test_a_missing_hook_is_bad_input_and_a_wrong_one_internal(memory, tmp_path):
    """Without a hook the call says which one is needed; a hook that answers wrongly fails the call alone."""
    memory.episodic.remember("tea")
    for call in (
        lambda: memory.rag.search("tea", rerank="hook"),
        lambda: memory.rag.query_expansion("tea", hypothetical=True),
    ):
        with pytest.raises(MemlabError, match="open the memory with hooks") as caught:
            call()
        assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, "hook")
    with Memory.open(tmp_path / "wrong.duckdb", embedder=HashingEmbedder(64), hooks=Hooks(rerank=lambda q, t: [])) as wrong:
        wrong.episodic.remember("tea")
        with pytest.raises(MemlabError, match="0 scores for 1 texts") as caught:
            wrong.rag.search("tea", rerank="hook")
        assert (caught.value.type, caught.value.reason) == (ErrorType.INTERNAL, "hook")
        assert len(wrong.rag.search("tea")) == 1
