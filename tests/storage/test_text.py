"""The text index finds by BM25 what a session's layer holds, and scores alike before and after a fold."""

from __future__ import annotations

import math
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tantivy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from structlog.testing import capture_logs

from memlab.errors import ErrorType, MemlabError
from memlab.settings import StorageSettings
from memlab.storage.analysis import analyse
from memlab.storage.manifest import NAME, Stale
from memlab.storage.tail import rounded_length
from memlab.storage.text import Row, TextIndex

WORDS = "tea coffee train garden piano river doctor summer window market bicycle letter island mirror".split()
LAYERS = ("episodic", "semantic")


def create(folder: Path, tail: int = 1_000) -> TextIndex:
    return TextIndex.create(folder / "text", database_id="here", settings=StorageSettings(text_tail=tail))


def reopen(index: TextIndex) -> TextIndex:
    index.close()
    return TextIndex.open(index.folder, database_id="here", settings=index._settings)


def add(index: TextIndex, rows: Iterable[Row]) -> None:
    index.add(*map(list, zip(*rows, strict=True)))  # type: ignore[arg-type]


def rows(count: int, seed: int = 0, sessions: int = 3, longest: int = 30) -> list[Row]:
    chance = random.Random(seed)
    weights = [1 / rank for rank in range(1, len(WORDS) + 1)]
    return [
        (
            seq,
            chance.randrange(sessions),
            chance.choice(LAYERS),
            " ".join(chance.choices(WORDS, weights, k=chance.randint(0, longest))),
        )
        for seq in range(1, count + 1)
    ]


def bm25(held: Iterable[Row], question: str, session: int, layer: str) -> dict[int, float]:
    """Score by the formula over the texts of the scope alone."""
    documents = [analyse(*row) for row in held]
    inside = [document for document in documents if document.scope == f"{session}.{layer}:"]
    average = max(sum(len(document.stems) for document in inside) / max(len(inside), 1), 1.0)
    scores: dict[int, float] = {}
    for token, asked in Counter(analyse(0, session, layer, question).stems).items():
        having = [document for document in inside if token in document.stems]
        idf = math.log(1 + (len(inside) - len(having) + 0.5) / (len(having) + 0.5))
        for document in having:
            times, length = document.stems.count(token), rounded_length(len(document.stems))
            part = asked * idf * 2.2 * times / (times + 1.2 * (0.25 + 0.75 * length / average))
            scores[document.seq] = scores.get(document.seq, 0.0) + part
    return scores


def check(index: TextIndex, held: Iterable[Row], question: str, session: int, layer: str, limit: int = 10) -> None:
    held = list(held)
    expected = sorted(bm25(held, question, session, layer).items(), key=lambda item: (-item[1], item[0]))
    seqs, scores = index.search(question, session=session, layer=layer, limit=limit)
    assert scores == pytest.approx([score for _, score in expected[:limit]], rel=1e-4)
    known = dict(expected)
    assert [known[seq] for seq in seqs.tolist()] == pytest.approx(scores.tolist(), rel=1e-4)
    assert len(set(seqs.tolist())) == len(seqs)


@pytest.mark.parametrize("folded", [False, True])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16), words=st.lists(st.sampled_from([*WORDS, "absent", "the"]), max_size=12))
def test_scores_are_those_of_the_formula(tmp_path: Path, folded: bool, seed: int, words: list[str]) -> None:
    """In the tail and in the index, answers and scores are BM25's, with frequencies counted inside the scope."""
    index, held = create(tmp_path), rows(60, seed)
    add(index, held)
    if folded:
        index.commit()
    for session in range(3):
        check(index, held, " ".join(words), session, "episodic")
    index.close()


def test_lengths_are_kept_as_tantivy_keeps_them(tmp_path: Path) -> None:
    """Texts of up to some thousand words score in the tail as they do in the index."""
    lengths = [1, 2, 39, 40, 41, 43, 55, 56, 57, 60, 87, 88, 100, 152, 170, 280, 400, 1_000, 3_000]
    held = [(seq, 1, "episodic", "coffee " + "filler " * (length - 1)) for seq, length in enumerate(lengths, 1)]
    index = create(tmp_path)
    add(index, held)
    before = index.search("coffee", session=1, layer="episodic", limit=50)
    index.commit()
    after = index.search("coffee", session=1, layer="episodic", limit=50)
    assert before[0].tolist() == after[0].tolist()
    assert np.allclose(before[1], after[1], rtol=1e-5)


def test_a_text_scores_alike_in_the_tail_and_in_the_index(tmp_path: Path) -> None:
    """The same words score the same whether the index holds them yet or not, and in one list they stand side by side."""
    index = create(tmp_path)
    held = rows(400, sessions=1)
    index.load(held)
    twins = [(seq + 1_000, session, layer, content) for seq, session, layer, content in held[:50]]
    add(index, twins)
    seqs, scores = index.search("bicycle mirror tea", session=0, layer="episodic", limit=500)
    known = dict(zip(seqs.tolist(), scores.tolist(), strict=True))
    pairs = [(known[seq - 1_000], known[seq]) for seq in known if seq > 1_000]
    assert len(pairs) > 5
    assert all(one == pytest.approx(other, rel=1e-5) for one, other in pairs)


def test_sessions_and_layers_do_not_see_each_other(tmp_path: Path) -> None:
    """A search answers from its own scope, in the tail and in the index, and a scope that does not exist is empty."""
    index = create(tmp_path)
    scopes = [(session, layer) for session in (1, 11, 2) for layer in LAYERS]
    held = [(place + 1, session, layer, "the shared word coffee") for place, (session, layer) in enumerate(scopes)]
    add(index, held)
    for _ in range(2):
        for seq, session, layer, _ in held:
            for prefix in (False, True):
                found, _ = index.search("coffee", session=session, layer=layer, limit=10, prefix=prefix)
                assert found.tolist() == [seq]
        assert not len(index.search("coffee", session=3, layer="episodic", limit=10)[0])
        index.commit()


def test_other_sessions_do_not_change_how_rare_a_word_is(tmp_path: Path) -> None:
    """The order of a session's answers comes from its own texts, however many others use the same words."""
    index = create(tmp_path)
    mine = [(1, 1, "episodic", "coffee garden"), (2, 1, "episodic", "coffee piano"), (3, 1, "episodic", "coffee garden")]
    add(index, mine)
    before = index.search("garden piano", session=1, layer="episodic", limit=9)
    add(index, [(seq, 2, "episodic", "piano river") for seq in range(10, 400)])
    for _ in range(2):
        after = index.search("garden piano", session=1, layer="episodic", limit=9)
        assert after[0].tolist() == before[0].tolist() == [2, 1, 3]
        index.commit()


@pytest.mark.parametrize("others", [1, 60], ids=["shorter texts", "longer texts"])
@pytest.mark.parametrize("folded", [False, True])
def test_other_sessions_change_no_score(tmp_path: Path, others: int, folded: bool) -> None:
    """What others write, however long it is and wherever it lies, leaves a session's answers and their scores as they were."""
    index = create(tmp_path)
    mine = [(seq, 1, layer, content) for seq, _, layer, content in rows(300, sessions=1)]
    add(index, mine)
    questions = ["tea doctor window", "mirror", "coffee coffee island letter"]

    def answers() -> list[tuple[list[int], list[float]]]:
        found = [
            index.search(text, session=1, layer="episodic", limit=12, prefix=prefix) for text in questions for prefix in (0, 1)
        ]
        by_word = [word for text in questions for word in index.by_word(text, session=1, layer="episodic", limit=20)]
        return [(seqs.tolist(), scores.tolist()) for seqs, scores in found] + [
            (sorted(word.seqs.tolist()), word.parts.tolist()) for word in by_word
        ]

    if folded:
        index.commit()
    before = answers()
    for start in (1_000, 3_000):
        add(index, [(seq, 2, "episodic", " ".join(["coffee", "mirror"] * others)) for seq in range(start, start + 600)])
        for _ in range(2):
            for (seqs, scores), (known, expected) in zip(answers(), before, strict=True):
                assert scores == pytest.approx(expected, rel=1e-5)
                assert len(seqs) == len(known)
            index.commit()
    check(index, mine, questions[0], 1, "episodic", limit=12)


def test_an_index_that_begins_with_empty_texts_scores(tmp_path: Path) -> None:
    """Hundreds of texts without a word before the first that has some take nothing from its score."""
    index = create(tmp_path)
    held = [(seq, 1, "episodic", "") for seq in range(1, 400)] + [(400, 1, "episodic", "tea"), (401, 2, "episodic", "tea coffee")]
    add(index, held)
    for _ in range(2):
        check(index, held, "tea", 1, "episodic")
        check(index, held, "tea", 2, "episodic")
        index.commit()


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "the and of", '"', "+coffee -(tea", "title:[a TO *]", "*", "coffee^1e9", "\\", "\x00", "\ud800"),
        *("🙂" * 1000, "(" * 10_000),
    ],
)
@pytest.mark.parametrize("prefix", [False, True])
def test_no_question_is_an_error(tmp_path: Path, text: str, prefix: bool) -> None:
    """Questions have no syntax: whatever they hold, the answer is a list."""
    index = create(tmp_path)
    add(index, [(1, 1, "episodic", "coffee and tea"), (2, 1, "episodic", "")])
    for _ in range(2):
        seqs, scores = index.search(text, session=1, layer="episodic", limit=5, prefix=prefix)
        assert seqs.tolist() == ([1] if "coffee" in text else [])
        assert (seqs.dtype, scores.dtype) == (np.int64, np.float32)
        index.commit()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.text(max_size=60), min_size=1, max_size=8))
def test_any_text_is_found_by_itself(tmp_path: Path, contents: list[str]) -> None:
    """A text that has words is among the answers to itself, before and after a fold."""
    index = create(tmp_path)
    add(index, [(seq, 1, "episodic", content) for seq, content in enumerate(contents)])
    for _ in range(2):
        for seq, content in enumerate(contents):
            seqs, _ = index.search(content, session=1, layer="episodic", limit=20)
            assert (seq in seqs.tolist()) == bool(analyse(0, 1, "episodic", content).words)
        index.commit()
    assert index.count == len(contents)
    index.close()


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    """VALIDATION `bounds`."""
    with pytest.raises(MemlabError) as caught:
        create(tmp_path).search("tea", session=1, layer="episodic", limit=0)
    assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, "bounds")


def test_a_long_question_is_answered_by_its_rarest_words(tmp_path: Path) -> None:
    """Thousands of words cost no more than some dozens, and the rare ones among them decide."""
    index = create(tmp_path)
    add(index, [(seq, 1, "episodic", " ".join(f"word{number}x" for number in range(200))) for seq in range(1, 6)])
    add(index, [(9, 1, "episodic", "word7x needle")])
    question = " ".join(f"word{number}x" for number in range(200)) + " needle"
    for _ in range(2):
        seqs, scores = index.search(question, session=1, layer="episodic", limit=10)
        assert sorted(seqs.tolist()) == [1, 2, 3, 4, 5, 9]
        alone, rare = index.search("needle word7x", session=1, layer="episodic", limit=1)
        assert alone.tolist() == [9]
        assert scores[seqs == 9] == pytest.approx(rare, rel=0.2), "the rare word is among those that are scored"
        index.commit()
    assert len(index.search(" ".join(f"other{number}" for number in range(20_000)), session=1, layer="episodic", limit=5)[0]) == 0


# --- as you type -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True])
def test_the_last_word_is_a_prefix(tmp_path: Path, folded: bool) -> None:
    """Earlier words count as they stand, the last one for all words that begin with it; both together come first."""
    index = create(tmp_path)
    contents = ["running shoes", "the runner rests", "a run", "theory of rubber", "shoes and rum", "nothing here"]
    add(index, [(seq, 1, "episodic", content) for seq, content in enumerate(contents, 1)])
    if folded:
        index.commit()

    def found(text: str) -> list[int]:
        return index.search(text, session=1, layer="episodic", limit=10, prefix=True)[0].tolist()

    assert sorted(found("run")) == [1, 2, 3]
    assert sorted(found("runn")) == [1, 2]
    assert found("shoes ru")[0] in (1, 5)
    assert found("shoes runn")[0] == 1
    assert found("the") == [4], "a stop word may be the beginning of a word"
    assert sorted(found("RU")) == [1, 2, 3, 4, 5]
    assert found("xyz") == []
    assert found("running") == [1], "compared unstemmed"


def test_a_prefix_of_many_words_is_answered(tmp_path: Path) -> None:
    """One letter that begins hundreds of words finds texts all the same."""
    index = create(tmp_path)
    add(index, [(seq, 1, "episodic", f"a{seq:03d}b common") for seq in range(1, 300)])
    for _ in range(2):
        assert len(index.search("a", session=1, layer="episodic", limit=20, prefix=True)[0]) == 20
        index.commit()


def test_prefixes_score_alike_in_the_tail_and_in_the_index(tmp_path: Path) -> None:
    """Folding changes no answer as-you-type either."""
    index = create(tmp_path)
    add(index, rows(80, sessions=1))
    before = [index.search(text, session=0, layer="episodic", limit=40, prefix=True) for text in ("tea m", "b", "coffee pia")]
    index.commit()
    for (seqs, scores), text in zip(before, ("tea m", "b", "coffee pia"), strict=True):
        after = index.search(text, session=0, layer="episodic", limit=40, prefix=True)
        assert np.allclose(scores, after[1], rtol=1e-5)
        assert set(seqs.tolist()) == set(after[0].tolist())


# --- forgetting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True])
def test_what_is_forgotten_is_gone_at_once(tmp_path: Path, folded: bool) -> None:
    """Removed texts and sessions are not found, from the moment of their removal on, and others fill their places."""
    index = create(tmp_path)
    add(index, [(seq, seq % 2, "episodic", f"coffee number{seq}") for seq in range(1, 101)])
    if folded:
        index.commit()
    index.remove(range(1, 91))
    for _ in range(3):
        seqs, _ = index.search("coffee", session=1, layer="episodic", limit=5)
        assert set(seqs.tolist()) == {91, 93, 95, 97, 99}
        assert index.count == 10
        index.commit()
    index.remove_session(1)
    for _ in range(2):
        assert not len(index.search("coffee", session=1, layer="episodic", limit=5)[0])
        assert len(index.search("coffee", session=0, layer="episodic", limit=9)[0]) == 5
        assert index.count == 5
        index.commit()
    assert reopen(index).count == 5


def test_no_file_holds_a_forgotten_text(tmp_path: Path) -> None:
    """After a commit the words of a deleted session, and of single forgotten texts, are in no file and no dictionary."""
    chance = random.Random(4)
    # Long words of their own letters: nothing to compress, so they stand in the file as they are.
    canaries = {seq: "".join(chance.choices("bcdfghjklmnpqrtvwxz", k=60)) for seq in range(1, 41)}
    index = create(tmp_path)
    index.load((seq, seq % 4, "episodic", f"coffee {canary}") for seq, canary in canaries.items())

    def traces() -> set[int]:
        bytes_of_all = b"".join(path.read_bytes() for path in index.folder.rglob("*") if path.is_file())
        terms = "".join(term for term, _ in index._snapshot.searcher.terms_with_prefix("words", ""))
        return {seq for seq, canary in canaries.items() if canary[8:].encode() in bytes_of_all or canary in terms}

    assert traces() == set(canaries), "the test sees what is there"
    index.remove_session(1)
    index.remove([2, 6])
    index.commit()
    kept = {seq for seq in canaries if seq % 4 != 1 and seq not in (2, 6)}
    assert traces() == kept
    assert index.search(canaries[3], session=3, layer="episodic", limit=3)[0].tolist() == [3]
    index = reopen(index)
    assert (traces(), index.count) == (kept, len(kept))


def test_a_fold_that_was_not_purged_is_purged_by_a_later_commit(tmp_path: Path) -> None:
    """What was deleted but still lies in the files when the process ends is written off by the next commit."""
    index = create(tmp_path)
    index.load((seq, seq % 9, "episodic", f"coffee secret{seq}") for seq in range(1, 91))
    index.remove([5])
    with index._writing:
        index._fold(())
    index = reopen(index)
    assert index._purge_due
    assert any("secret5" in term for term, _ in index._snapshot.searcher.terms_with_prefix("words", ""))
    index.commit()
    assert not any(term.endswith("secret5") for term, _ in index._snapshot.searcher.terms_with_prefix("words", ""))
    assert not index._purge_due


def test_an_index_is_reconciled_with_what_the_database_holds(tmp_path: Path) -> None:
    """Texts that the database no longer has, because a process died before it folded, can be told and forgotten."""
    index = create(tmp_path)
    held = rows(50, sessions=1)
    index.load(held[:40])
    add(index, held[40:])
    index.remove([3])
    kept = np.array([seq for seq in range(1, 51) if seq % 5])
    assert index.retain(kept) == 10
    assert index.retain(kept) == 0
    index.commit()
    assert index.count == len(kept) - 1
    found = index.search(" ".join(WORDS), session=0, layer="episodic", limit=99)[0].tolist()
    assert set(found) <= set(kept.tolist())


def test_reconciling_tells_apart_what_is_as_many(tmp_path: Path) -> None:
    """One text too many and one too few is not agreement."""
    index = create(tmp_path)
    index.load(row for row in rows(40, sessions=1) if row[0] != 7)
    everything = np.arange(1, 41)
    assert index.retain(everything[everything != 7]) == 0
    assert index.retain(everything[everything != 8]) == 1
    assert index.count == 38


# --- folding -----------------------------------------------------------------------------------------------------------


def settle(index: TextIndex) -> None:
    thread = index._folding
    if thread is not None:
        thread.join()


def test_a_full_tail_folds_itself(tmp_path: Path) -> None:
    """Past the set number of texts the tail goes into the index, in the background, and nothing is lost or twice."""
    index = create(tmp_path, tail=20)
    held = rows(130, sessions=1)
    for row in held:
        add(index, [row])
    settle(index)
    assert index._snapshot.searcher.num_docs >= 20
    assert (index.count, index.covered_seq) == (130, 130)
    found = index.search(" ".join(WORDS), session=0, layer="episodic", limit=500)[0].tolist()
    assert sorted(found) == [row[0] for row in held if row[2] == "episodic" and row[3]]
    index.close()


def test_a_large_batch_has_a_tail_of_its_own(tmp_path: Path) -> None:
    """What was made ready ahead is found as soon as it is attached, beside other texts, and folded with them, each once."""
    index = create(tmp_path, tail=10_000)
    held = rows(1_200)
    add(index, held[:100])
    making = index.ahead(held[100:1_100])
    index.attach(making.result())
    add(index, held[1_100:])
    index.remove([5, 600, 1_150])
    kept = [row for row in held if row[0] not in (5, 600, 1_150)]
    for _ in range(2):
        check(index, kept, "mirror island", 1, "semantic", limit=20)
        assert (index.count, index.covered_seq) == (1_197, 1_200)
        index.commit()
    assert index._snapshot.searcher.num_docs == 1_197
    index.close()


def test_who_stores_too_much_waits_for_the_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts do not pile up in memory without bound."""
    monkeypatch.setattr("memlab.storage.text._MOST_WAITING", 100)
    index = create(tmp_path, tail=50)
    for start in range(0, 1_000, 200):
        index.attach(index.ahead(rows(1_000)[start : start + 200]).result())
        assert sum(map(len, index._snapshot.tails)) <= 100
    assert index.count == 1_000
    index.close()


def test_a_load_that_fails_takes_nothing_in(tmp_path: Path) -> None:
    """Rows that end in an error leave the index as it was, the tail included."""
    index = create(tmp_path)
    add(index, [(1, 1, "episodic", "coffee")])

    def broken() -> Iterable[Row]:
        yield (2, 1, "episodic", "coffee")
        raise RuntimeError("the database is gone")

    with pytest.raises(MemlabError, match="the database is gone"):
        index.load(broken())
    assert index.search("coffee", session=1, layer="episodic", limit=5)[0].tolist() == [1]
    assert (index.count, index.covered_seq) == (1, 1)
    index.commit()
    assert index.search("coffee", session=1, layer="episodic", limit=5)[0].tolist() == [1]


def test_a_fold_that_fails_costs_no_text(tmp_path: Path) -> None:
    """When the index cannot be written, the tail goes on answering, says so in the log, and commit raises INTERNAL."""
    index = create(tmp_path, tail=5)
    shutil.rmtree(index.folder)
    with capture_logs() as logs:
        add(index, [(seq, 1, "episodic", "coffee") for seq in range(1, 8)])
        settle(index)
    assert [entry["event"] for entry in logs] == ["text_fold_failed"]
    assert sorted(index.search("coffee", session=1, layer="episodic", limit=9)[0].tolist()) == list(range(1, 8))
    with pytest.raises(MemlabError) as caught:
        index.commit()
    assert (caught.value.type, caught.value.reason) == (ErrorType.INTERNAL, "index")
    assert index.count == 7


def test_searches_meet_every_text_exactly_once_while_folding(tmp_path: Path) -> None:
    """From many threads, during adds, folds and removals: what was there before a search is in its answer, once."""
    index = create(tmp_path, tail=15)
    stop = threading.Event()
    stored, failures = [0], []

    def ask() -> int:
        asked = 0
        while not stop.is_set():
            before = stored[0]
            seqs = index.search("coffee", session=1, layer="episodic", limit=10_000)[0].tolist()
            asked += 1
            expected = {seq for seq in range(1, before + 1) if seq % 10}
            if (
                len(seqs) != len(set(seqs))
                or not expected <= set(seqs)
                or {seq for seq in seqs if seq % 10 == 0 and seq < before}
            ):
                failures.append((before, len(seqs), sorted(expected - set(seqs))[:5]))
        return asked

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(ask) for _ in range(3)]
        for seq in range(1, 401):
            add(index, [(seq, 1, "episodic", f"coffee number {seq}")])
            if seq % 10 == 0:
                index.remove([seq])
            stored[0] = seq
        index.commit()
        stop.set()
        assert min(future.result() for future in running) > 0
    assert not failures
    assert index.count == 360


# --- on disk -----------------------------------------------------------------------------------------------------------


def test_a_reopened_index_answers_the_same(tmp_path: Path) -> None:
    """After a commit the files hold everything: answers, count and the seq that is covered."""
    index, held = create(tmp_path), rows(300)
    index.load(held[:200])
    add(index, held[200:])
    index.commit()
    again = reopen(index)
    assert (again.count, again.covered_seq) == (300, 300)
    for session in range(3):
        check(again, held, "tea doctor window", session, "semantic")
    again.add([301], [1], ["semantic"], ["a doctor at the window"])
    assert 301 in again.search("doctor", session=1, layer="semantic", limit=300)[0].tolist()


def test_what_was_not_committed_is_not_covered(tmp_path: Path) -> None:
    """The index on disk says up to where it knows, so that the rest can be added again."""
    index = create(tmp_path)
    index.load(rows(100))
    add(index, [(seq, 1, "episodic", "late") for seq in range(101, 111)])
    assert index.covered_seq == 110
    again = reopen(index)
    assert (again.covered_seq, again.count) == (100, 100)


def test_an_index_that_was_never_saved_is_missing(tmp_path: Path) -> None:
    """A folder without a manifest is no index, and creating one clears what stood there."""
    with pytest.raises(Stale) as caught:
        reopen(create(tmp_path))
    assert caught.value.reason == "missing"
    (tmp_path / "text" / "litter").write_text("x")
    index = create(tmp_path)
    index.commit()
    assert reopen(index).count == 0
    assert not (tmp_path / "text" / "litter").exists()


def test_an_index_of_another_database_is_foreign(tmp_path: Path) -> None:
    """It is not opened."""
    index = create(tmp_path)
    index.commit()
    index.close()
    with pytest.raises(Stale) as caught:
        TextIndex.open(index.folder, database_id="elsewhere", settings=StorageSettings())
    assert caught.value.reason == "foreign"


def test_an_index_of_another_form_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with other fields than are asked for are built again, not half understood."""
    index = create(tmp_path)
    index.load(rows(20))
    monkeypatch.setattr("memlab.storage.text._SCHEMA", tantivy.SchemaBuilder().add_text_field("words").build())
    with pytest.raises(Stale) as caught:
        reopen(index)
    assert caught.value.reason == "format"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = create(tmp_path_factory.mktemp("saved"))
    index.load(rows(120))
    index.commit()
    index.close()
    return index.folder


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damaged_file_is_opened(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    """A flipped bit, a cut or a loss anywhere in the files makes the index stale."""
    folder = tmp_path / "mutant"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    path = data.draw(st.sampled_from(sorted(path for path in folder.iterdir() if path.suffix != ".lock")))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "loss"]))
    if damage == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:place])
    else:
        path.unlink()
    with pytest.raises(Stale):
        TextIndex.open(folder, database_id="here", settings=StorageSettings())


def test_a_fold_without_its_manifest_is_stale(tmp_path: Path) -> None:
    """A process that dies between tantivy's commit and the manifest leaves an index that is built again, not trusted."""
    index = create(tmp_path)
    index.load(rows(20))
    manifest = (index.folder / NAME).read_bytes()
    index.load((seq + 20, *rest) for seq, *rest in rows(20, seed=1))  # type: ignore[misc]
    (index.folder / NAME).write_bytes(manifest)
    with pytest.raises(Stale) as caught:
        reopen(index)
    assert caught.value.reason == "damaged"


class TextMachine(RuleBasedStateMachine):
    """Any order of adding, forgetting, folding, purging and reopening leaves the answers of a plain dictionary."""

    @initialize(tail=st.sampled_from([0, 3, 1_000]))
    def begin(self, tail: int) -> None:
        self.folder = Path(TextMachine.scratch)
        self.index = create(self.folder, tail)
        self.held: dict[int, Row] = {}
        self.next = 1

    @rule(seed=st.integers(0, 1_000), count=st.integers(1, 12))
    def add(self, seed: int, count: int) -> None:
        fresh = [(self.next + place, *rest) for place, (_, *rest) in enumerate(rows(count, seed, longest=6))]
        self.next += count
        if seed % 4:
            add(self.index, fresh)  # type: ignore[arg-type]
        else:
            self.index.load(fresh)  # type: ignore[arg-type]
        self.held |= {row[0]: row for row in fresh}  # type: ignore[misc]

    @rule(chance=st.randoms(use_true_random=False), count=st.integers(1, 5))
    def remove(self, chance: random.Random, count: int) -> None:
        gone = chance.sample(sorted(self.held), min(count, len(self.held)))
        self.index.remove(gone)
        for seq in gone:
            del self.held[seq]

    @rule(session=st.integers(0, 2))
    def remove_session(self, session: int) -> None:
        self.index.remove_session(session)
        settle(self.index)  # codes are not used again; this machine does, so the deletion must have ended
        self.held = {seq: row for seq, row in self.held.items() if row[1] != session}

    @rule()
    def fold(self) -> None:
        with self.index._writing:
            self.index._fold(())

    @rule(again=st.booleans())
    def commit(self, again: bool) -> None:
        self.index.commit()
        if again:
            self.index = reopen(self.index)
        for session in range(3):
            check(self.index, self.held.values(), "tea coffee garden mirror", session, "episodic", limit=500)

    @invariant()
    def answers_agree(self) -> None:
        assert self.index.count == len(self.held)
        assert self.index.covered_seq == self.next - 1
        for session in range(3):
            seqs, scores = self.index.search("coffee train letter", session=session, layer="semantic", limit=500)
            assert set(seqs.tolist()) == set(bm25(self.held.values(), "coffee train letter", session, "semantic"))
            assert len(seqs) == len(set(seqs.tolist()))
            assert (np.diff(scores) <= 0).all()

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path) -> None:
    TextMachine.scratch = str(tmp_path)  # type: ignore[attr-defined]


TestTextMachine = TextMachine.TestCase
TestTextMachine.settings = settings(max_examples=15, stateful_step_count=20)
