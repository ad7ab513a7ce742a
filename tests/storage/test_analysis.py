"""From a text to its words."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memlab.storage.analysis import analyse, scope_of, session_of, split, stem


@pytest.mark.parametrize(
    ("text", "words", "stems"),
    [
        ("The dogs are running, happily!", ["dogs", "running", "happily"], ["dog", "run", "happili"]),
        ("Don't you re-read e-mails?", ["read", "e", "mails"], ["read", "e", "mail"]),
        ("Zürich ÉCOLE naïve", ["zürich", "école", "naïve"], ["zürich", "école", "naïv"]),
        ("x=1;DROP TABLE memories--", ["x", "1", "drop", "table", "memories"], ["x", "1", "drop", "tabl", "memori"]),
        ("the of and", [], []),
        ("", [], []),
        ("\x00\n\t  ", [], []),
        ("a" * 300 + " short", ["short"], ["short"]),
        ("bad \ud800 surrogate", ["bad", "surrogate"], ["bad", "surrog"]),
    ],
)
def test_words_are_lower_case_without_stop_words_and_stemmed(text: str, words: list[str], stems: list[str]) -> None:
    """What is searched is the stems of the words that say something."""
    document = analyse(7, 3, "semantic", text)
    assert (document.words, document.stems) == (words, stems)
    assert (document.seq, document.session, document.scope) == (7, 3, "3.semantic:")


@given(st.text())
def test_any_text_can_be_analysed(text: str) -> None:
    """Words and stems stand pair by pair, none is empty, none holds what separates terms; twice is the same."""
    document = analyse(1, 1, "episodic", text)
    assert len(document.words) == len(document.stems)
    assert all(token and not set(token) & set(" :\n\t") for token in document.words + document.stems)
    assert document == analyse(1, 1, "episodic", text)
    assert [stem(word) for word in split(text) if stem(word)] == document.stems


@given(st.text(st.characters(codec="ascii"), max_size=40))
@example("a" * 199 + " " + "b" * 200 + "\x1fc_d")
def test_plain_text_is_split_as_any_other(text: str) -> None:
    """The short way for ASCII finds the words that the long way finds."""
    assert split(text) == split(text + " é")[:-1]


def test_a_scope_names_its_session() -> None:
    """No scope begins with another, so no term of one session is a term of another."""
    assert session_of(scope_of(12, "episodic")) == 12
    scopes = [scope_of(session, layer) for session in (1, 11, 111) for layer in ("episodic", "semantic")]
    assert not any(one != other and one.startswith(other) for one in scopes for other in scopes)
