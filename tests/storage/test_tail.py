"""The newest texts, searchable at once."""

from __future__ import annotations

import pytest

from memlab.storage.analysis import Document, analyse
from memlab.storage.tail import Tail, Term

SCOPE = "1.episodic:"


def document(seq: int, content: str, session: int = 1) -> Document:
    return analyse(seq, session, "episodic", content)


def score(tail: Tail, *tokens: str, average: float = 2.0) -> dict[int, float]:
    scores: dict[int, float] = {}
    tail.score(SCOPE, "stems", [Term(token, 1.0, 0.0) for token in tokens], average, scores)
    return scores


def test_a_score_is_worked_out_by_hand() -> None:
    """Two of three words, weight 1, average length 2: 2.2 x 2 / (2 + 1.2 x (0.25 + 0.75 x 3 / 2))."""
    tail = Tail()
    tail.add([document(5, "coffee coffee tea")])
    assert score(tail, "coffe") == pytest.approx({5: 2.2 * 2 / (2 + 1.2 * (0.25 + 0.75 * 1.5))})
    assert score(tail, "coffe", "tea")[5] > score(tail, "coffe")[5]


def test_counts_are_those_of_the_scope() -> None:
    """Documents and tokens are counted for one session and layer."""
    tail = Tail()
    tail.add([document(1, "coffee tea"), document(2, "coffee"), document(3, "coffee", session=2), document(4, "")])
    assert (len(tail), tail.size(SCOPE), tail.count("9.episodic:")) == (4, (3, 3), 0)
    assert tail.containing(SCOPE, "stems", "coffe") == 2
    assert tail.containing(SCOPE, "words", "coffee") == 2
    assert dict(tail.beginning_with(SCOPE, "words", "te")) == {"tea": 1}


def test_what_is_removed_leaves_nothing() -> None:
    """Neither a count, a token nor a length of a forgotten text stays, whichever postings were made by then."""
    tail = Tail()
    tail.add([document(1, "coffee tea"), document(2, "coffee"), document(3, "secret", session=2)])
    list(tail.beginning_with(SCOPE, "words", ""))  # makes the postings of words
    assert tail.remove(1)
    assert not tail.remove(1)
    assert score(tail, "coffe", "tea").keys() == {2}
    assert dict(tail.beginning_with(SCOPE, "words", "")) == {"coffee": 1}
    tail.remove_session(2)
    tail.remove(2)
    assert (len(tail), tail.size(SCOPE), tail.count(SCOPE)) == (0, (0, 0), 0)
    assert not tail._scopes


def test_a_seq_that_comes_again_is_replaced() -> None:
    """The later text counts."""
    tail = Tail()
    tail.add([document(1, "coffee"), document(1, "tea and more tea")])
    assert (len(tail), tail.size(SCOPE)) == (1, (1, 2))
    assert score(tail, "coffe") == {}
    assert score(tail, "tea").keys() == {1}
