"""Made-up conversations: reproducible, in order of time, with questions that their evidence answers."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlab.errors import MemlabError
from memlab.workload import words
from memlab.workload.corpus import EVENTS, QUESTIONS, generate


@pytest.fixture(scope="module")
def corpus():
    return generate(2_000, 5, 300, seed=3)


def test_the_same_seed_makes_the_same_corpus(corpus):
    """Everything comes from the seed; another seed makes another corpus."""
    assert generate(2_000, 5, 300, seed=3).digest() == corpus.digest()
    assert generate(2_000, 5, 300, seed=4).digest() != corpus.digest()


@settings(max_examples=20)
@given(st.integers(20, 400), st.integers(1, 8), st.integers(0, 1000))
def test_it_has_what_was_asked_for(events, sessions, seed):
    """So many events, sessions and questions, in the declared columns; no session is empty."""
    made = generate(events, sessions, events // 4, upcoming=7, seed=seed)
    assert (len(made.events), len(made.sessions), len(made.questions), len(made.upcoming)) == (events, sessions, events // 4, 7)
    assert dict(made.events.schema) == dict(made.upcoming.schema) == EVENTS
    assert dict(made.questions.schema) == QUESTIONS
    assert made.vectors is None


def test_time_goes_on_inside_a_session(corpus):
    """Events of a session stand in order of time, over weeks; what is upcoming is later than all of it."""
    for (session,), part in corpus.events.group_by("session"):
        assert part["occurred_at"].is_sorted()
        assert (part["occurred_at"].max() - part["occurred_at"].min()).days > 7
        later = corpus.upcoming.filter(pl.col("session") == session)["occurred_at"]
        assert later.is_sorted()
        assert later.is_empty() or later.min() > part["occurred_at"].max()


def test_texts_vary(corpus):
    """Nearly every event reads unlike every other."""
    assert corpus.events["content"].n_unique() > 0.99 * len(corpus.events)


def test_questions_are_answered_by_their_evidence_alone(corpus):
    """The evidence is in the question's session, says the answer and names the person and the thing; no other event does."""
    contents, sessions = corpus.events["content"].to_list(), corpus.events["session"].to_list()
    for session, text, answer, evidence in corpus.questions.iter_rows():
        assert evidence
        told = {contents[row] for row in evidence}
        assert all(sessions[row] == session for row in evidence)
        for place in answer.split("; "):
            assert any(place in content for content in told)
        words = set(text.rstrip("?").replace(":", "").split())
        speaker = next(iter(told)).split(":")[0]
        assert speaker in words


def test_the_speaker_and_the_topic_are_tags(corpus):
    """Each event carries its topic and its speaker as tags."""
    assert (corpus.events["tags"].list.len() == 2).all()
    assert (corpus.events["tags"].list.get(1) == corpus.events["speaker"].str.to_lowercase()).all()


def test_combinations_may_run_out(monkeypatch):
    """A session of more tellings than there are things repeats some; a question about one has all of them as evidence."""
    monkeypatch.setattr(words, "LOOKS", ["blue"])
    monkeypatch.setattr(words, "DEEDS", [("sold", "sell")])
    made = generate(4_000, 1, 400, upcoming=0, seed=1)
    contents = made.events["content"].to_list()
    assert made.questions["evidence"].list.len().max() > 1
    for _, _, answer, evidence in made.questions.iter_rows():
        places = answer.split("; ")
        assert all(any(place in contents[row] for place in places) for row in evidence)


@pytest.mark.parametrize(("arguments", "told"), [((3, 4, 1), "cannot fill"), ((100, 2, 60), "need 120 events")])
def test_counts_that_do_not_fit_are_refused(arguments, told):
    """Fewer events than sessions, or more questions than half the events: one line that says what would fit."""
    with pytest.raises(MemlabError, match=told) as caught:
        generate(*arguments)
    assert caught.value.reason == "workload"


def test_a_corpus_describes_itself(corpus):
    """Name, counts and bytes of text, for a run's record."""
    told = corpus.describe()
    assert told == {"name": "generated", "events": 2_000, "sessions": 5, "questions": 300, "bytes": told["bytes"]}
    assert told["bytes"] == sum(len(text.encode()) for text in corpus.events["content"])


def test_conversations_go_on_beside_each_other():
    """What is upcoming meets every session by its share from the first event on, each session in its own order."""
    upcoming = generate(2_000, 8, 100, seed=1).upcoming
    early, every = (dict(part["session"].value_counts().iter_rows()) for part in (upcoming.head(40), upcoming))
    assert early == {name: pytest.approx(40 * count / len(upcoming), abs=1) for name, count in every.items()}
    for _, part in upcoming.group_by("session"):
        assert part["occurred_at"].is_sorted()
