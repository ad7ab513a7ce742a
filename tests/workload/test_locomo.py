"""Conversations from a folder: joined, checked, and clear about what is wrong."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.workload.locomo import load_locomo


def _vectors(count, dimension=4, seed=1):
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return pl.Series(vectors, dtype=pl.Array(pl.Float32, dimension))


def _turns(count=10, **changes):
    columns = {
        "conversation": ["a"] * (count // 2) + ["b"] * (count - count // 2),
        "session": [1] * count,
        "turn_id": [f"D1:{place}" for place in range(count)],
        "speaker": ["Ada", "Bo"] * (count // 2),
        "text": [f"text {place}" for place in range(count)],
        "at": [datetime(2023, 5, 8, 12, place) for place in range(count)],  # noqa: DTZ001  as the data has it
        "embedding": _vectors(count),
    }
    return pl.DataFrame(columns | changes)


def _questions(**changes):
    columns = {
        "conversation": ["a", "b", "b"],
        "question": ["q0", "q1", "q2"],
        "answer": ["x", None, "z"],
        "evidence": [["D1:1", "D1:0"], ["D1:9"], []],
        "embedding": _vectors(3, seed=2),
    }
    return pl.DataFrame(columns | changes)


@pytest.fixture
def folder(tmp_path):
    def make(turns=None, questions=None):
        (_turns() if turns is None else turns).write_parquet(tmp_path / "turns.parquet")
        (_questions() if questions is None else questions).write_parquet(tmp_path / "questions.parquet")
        return tmp_path

    return make


def test_a_conversation_is_a_session_and_evidence_its_rows(folder):
    """Turns become events of their conversation with speaker and time; evidence names rows, in the conversation asked about."""
    corpus = load_locomo(folder(), upcoming_share=0.0)
    assert corpus.sessions == ["a", "b"]
    assert corpus.events["content"].to_list() == [f"text {place}" for place in range(10)]
    assert corpus.events["occurred_at"][3] == datetime(2023, 5, 8, 12, 3, tzinfo=UTC)
    assert corpus.events["tags"][0].to_list() == ["ada", "sitting-1"]
    assert corpus.questions["evidence"].to_list() == [[1, 0], [9], []]
    assert corpus.questions["answer"].to_list() == ["x", "", "z"]
    assert corpus.embedder == "precomputed:4"
    assert corpus.vectors.shape == (10, 4)
    assert np.allclose(np.linalg.norm(corpus.vectors, axis=1), 1.0)


def test_the_last_turns_are_kept_back(folder):
    """A share of each conversation's end is upcoming, its vectors with it; evidence keeps the part that is loaded."""
    corpus = load_locomo(folder(), upcoming_share=0.4)
    assert corpus.events["content"].to_list() == ["text 0", "text 1", "text 2", "text 5", "text 6", "text 7"]
    assert corpus.upcoming["content"].to_list() == ["text 3", "text 8", "text 4", "text 9"]
    whole = load_locomo(folder(), upcoming_share=0.0)
    assert np.array_equal(corpus.upcoming_vectors, whole.vectors[[3, 8, 4, 9]])
    assert corpus.questions["evidence"].to_list() == [[1, 0], [], []]


def test_turns_come_in_order_of_time(folder):
    """The order of the file does not matter; vectors go where their turns go."""
    shuffled = _turns().sample(fraction=1.0, shuffle=True, seed=3)
    one, other = load_locomo(folder(turns=shuffled)), load_locomo(folder())
    assert one.digest() == other.digest()


def test_equal_turn_ids_of_other_conversations_are_other_turns(folder):
    """Ids count inside their conversation only."""
    ids = [f"D1:{place}" for place in range(5)] * 2
    asked = _questions(evidence=[["D1:1"], ["D1:1"], ["D1:4"]])
    corpus = load_locomo(folder(turns=_turns(turn_id=ids), questions=asked), upcoming_share=0.0)
    assert corpus.questions["evidence"].to_list() == [[1], [6], [9]]


def _bad(turns=None, questions=None):
    return {"turns": turns, "questions": questions}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda: _bad(turns=_turns().drop("speaker")), r"turns.parquet' has no column 'speaker'"),
        (lambda: _bad(questions=_questions().drop("evidence")), r"questions.parquet' has no column 'evidence'"),
        (lambda: _bad(turns=_turns(session=["x"] * 10)), "column 'session' holds String, not Int64"),
        (lambda: _bad(turns=_turns(text=[None] * 10)), "column 'text'"),
        (lambda: _bad(turns=_turns().clear()), "has no rows"),
        (lambda: _bad(turns=_turns(embedding=["x"] * 10)), "column 'embedding' holds String, not vectors"),
        (lambda: _bad(questions=_questions(embedding=_vectors(3, 5))), "vectors of 4 numbers, questions of 5"),
        (lambda: _bad(turns=_turns(embedding=[[1.0]] * 5 + [[1.0, 2.0]] * 5)), "vectors of unlike lengths"),
        (lambda: _bad(turns=_turns(embedding=[[0.0, 0.0]] * 10)), "row 0 of column 'embedding' is zero or not finite"),
        (lambda: _bad(turns=_turns(embedding=[[1.0, 2.0]] * 9 + [[float("nan"), 1.0]])), "row 9 of column 'embedding'"),
        (lambda: _bad(questions=_questions(conversation=["a", "b", "c"])), "asks about conversation 'c', which has no turns"),
    ],
)
def test_what_does_not_fit_is_named(folder, broken, told):
    """A missing column, another type, an empty place, a bad vector or a strange conversation is one line with file and column."""
    with pytest.raises(MemlabError, match=told) as caught:
        load_locomo(folder(**broken()))
    assert caught.value.reason == "data"
    assert "\n" not in caught.value.text


def test_missing_files_are_named(tmp_path):
    """A folder that is not there, and one without its files, say what should be there."""
    with pytest.raises(MemlabError, match="no folder"):
        load_locomo(tmp_path / "none")
    with pytest.raises(MemlabError, match=r"no file '.*turns.parquet'"):
        load_locomo(tmp_path)
    (tmp_path / "turns.parquet").write_text("not parquet")
    with pytest.raises(MemlabError, match="not a parquet file"):
        load_locomo(tmp_path)


def test_the_real_conversations_load(shared_data):
    """2,760 turns in five conversations and 999 questions, all evidence found."""
    corpus = load_locomo(shared_data / "locomo", upcoming_share=0.0)
    assert (len(corpus.events), len(corpus.sessions), len(corpus.questions)) == (2_760, 5, 999)
    assert corpus.vectors.shape == (2_760, 384)
    assert corpus.question_vectors.shape == (999, 384)
    asked = pl.read_parquet(shared_data / "locomo" / "questions.parquet")
    lost = (asked["evidence"].list.len() - corpus.questions["evidence"].list.len()).sum()
    assert lost <= 0.02 * asked["evidence"].list.len().sum()
