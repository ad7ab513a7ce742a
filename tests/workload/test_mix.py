"""From weights to calls: seeded, valid, about what is there."""

from collections import Counter

import numpy as np
import polars as pl
import pytest

from memlab.operations.registry import lookup, operations
from memlab.workload.corpus import Corpus, generate
from memlab.workload.mix import Loaded, Mix
from memlab.workload.spec import workload


@pytest.fixture(scope="module")
def corpus():
    return generate(400, 4, 60, seed=1)


@pytest.fixture(scope="module")
def loaded(corpus):
    return Loaded({name: f"id-of-{name}" for name in corpus.sessions}, [f"e{row}" for row in range(len(corpus.events))])


def mix_of(corpus, loaded, weights, **spec):
    return Mix(corpus, loaded, workload({"arrivals.rate_per_s": 1, "mix": weights, **spec}), seed=5)


def test_a_seed_decides_the_calls(corpus, loaded):
    """The same seed sends two settings the same; another repeat's seed sends something else."""
    weights = {"episodic.recall": 0.8, "episodic.remember": 0.2}
    one, other = (mix_of(corpus, loaded, weights) for _ in range(2))
    assert one.calls(50, seed=3) == other.calls(50, seed=3)
    assert one.calls(50, seed=3) != one.calls(50, seed=4)


def test_weights_are_kept(corpus, loaded):
    """Nine recalls to one remember, give or take chance; a weight of nothing sends nothing."""
    weights = {"episodic.recall": 9, "episodic.remember": 1, "episodic.get_recent": 0}
    counted = Counter(call.operation for call in mix_of(corpus, loaded, weights).calls(2_000, seed=1))
    assert set(counted) == {"episodic.recall", "episodic.remember"}
    assert counted["episodic.remember"] / 2_000 == pytest.approx(0.1, abs=0.03)


def test_questions_are_asked_in_their_session_and_again(corpus, loaded):
    """A search asks a question of the corpus in the session that it is about; popular ones come again and again."""
    calls = mix_of(corpus, loaded, {"episodic.recall": 1}).calls(500, seed=1)
    for call in calls:
        session, text = corpus.questions.row(call.question)[:2]
        assert (call.label, call.parameters["query"]) == (session, text)
        assert call.session == f"id-of-{session}"
    assert Counter(call.question for call in calls).most_common(1)[0][1] > 500 / 60 * 4


def test_a_conversation_goes_on(corpus, loaded):
    """What is remembered is what comes next, in order, over repeats; rewound it begins again."""
    mix = mix_of(corpus, loaded, {"episodic.remember": 1})
    told = [call.parameters["content"] for seed in range(2) for call in mix.calls(10, seed=seed)]
    assert told == corpus.upcoming["content"].head(20).to_list()
    mix.rewind()
    assert mix.calls(1, seed=9)[0].parameters["content"] == told[0]


def test_fixed_parameters_go_before_made_ones(corpus, loaded):
    """What the workload says of an operation stands in every call."""
    mix = mix_of(corpus, loaded, {"episodic.recall": 1}, parameters={"episodic.recall": {"limit": 3, "mode": "vector"}})
    assert all(call.parameters.items() >= {"limit": 3, "mode": "vector"}.items() for call in mix.calls(20, seed=1))


def test_vectors_go_with_texts(loaded, corpus):
    """Where vectors come with the data, queries and new events bring theirs."""
    vectors = np.eye(100, 8, dtype=np.float32) + 1
    made = Corpus(
        "x", "precomputed:8", corpus.events, corpus.upcoming, corpus.questions,
        np.ones((400, 8), np.float32), vectors[: len(corpus.upcoming)], vectors[: len(corpus.questions)],
    )  # fmt: skip
    weights = {"episodic.recall": 1, "episodic.remember": 1}
    for call in mix_of(made, loaded, weights).calls(40, seed=1):
        name = "query_embedding" if call.operation == "episodic.recall" else "embedding"
        assert call.parameters[name].shape == (8,)
        lookup(call.operation).validate(call.parameters)


@pytest.mark.parametrize("name", [one.name for one in operations()])
def test_every_operation_can_be_in_a_mix(corpus, loaded, name):
    """A call of any operation is valid by its own declaration."""
    for call in mix_of(corpus, loaded, {name: 1}).calls(5, seed=1):
        lookup(name).validate(call.parameters)
        assert call.session.startswith("id-of-session-")
        assert not call.label.startswith("id-of-")


def test_upcoming_events_begin_again_at_their_end(loaded, corpus):
    """A run that remembers more than there is tells it once more."""
    short = Corpus("x", "hashing", corpus.events, corpus.upcoming.head(3), corpus.questions)
    told = [call.parameters["content"] for call in mix_of(short, loaded, {"episodic.remember": 1}).calls(7, seed=1)]
    assert told == [*short.upcoming["content"], *short.upcoming["content"], short.upcoming["content"][0]]
    assert pl.Series(told).n_unique() == 3
