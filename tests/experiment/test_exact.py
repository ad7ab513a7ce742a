"""Recall@10 in the lane: judged by exact search over the rows that a search was bound to see."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from memlab.engine import Engine
from memlab.experiment.exact import can_be_judged, recall_by_score, recall_of
from memlab.experiment.load import Sent
from memlab.measure.recorder import Sample
from memlab.operations.registry import lookup
from memlab.settings import Settings
from memlab.values import Response
from memlab.workload.mix import Call


def listed(*contents):
    return [(f"id-{place}", content) for place, content in enumerate(contents)]


def scored(*contents):
    return [(content, 1.0 - place / 100) for place, content in enumerate(contents)]


def test_by_hand():
    """Nine of the ten best, and a tenth that is not among them, are 0.9; the order does not matter."""
    exact = scored(*"abcdefghijklm")
    assert recall_by_score(listed(*"abcdefghij"), exact) == 1.0
    assert recall_by_score(listed(*"jihgfedcba"), exact) == 1.0
    assert recall_by_score(listed(*"abcdefghix"), exact) == 0.9
    assert recall_by_score([], exact) == 0.0


def test_ties_with_the_tenth_are_as_good():
    """Whatever scores as the tenth does could have stood in its place."""
    exact = [*scored(*"abcdefghi"), ("j", 0.5), ("k", 0.5), ("l", 0.4)]
    assert recall_by_score(listed(*"abcdefghik"), exact) == 1.0
    assert recall_by_score(listed(*"abcdefghil"), exact) == 0.9


def test_few_rows_are_all_that_can_be_found():
    """A session of three memories is complete with three; an empty one cannot be judged."""
    assert recall_by_score(listed("a", "b", "c"), scored("a", "b", "c")) == 1.0
    assert recall_by_score(listed("a", "b"), scored("a", "b", "c")) == pytest.approx(2 / 3)
    assert recall_by_score([], []) is None


def test_the_same_answer_twice_counts_once():
    """Repeating a right answer does not make up for a missing one."""
    assert recall_by_score([("1", "a"), ("1", "a")], scored("a", "b")) == 0.5


def test_rows_written_meanwhile_count_for_neither():
    """What was being written while the search ran may be found or not."""
    exact = scored(*"abcdefghijk")
    assert recall_by_score(listed("new", *"abcdefghi"), exact, {"new"}) == 1.0
    assert recall_by_score(listed(*"abcdefghij"), [("new", 2.0), *exact], {"new"}) == 1.0
    assert recall_by_score(listed("new", *"abcdefghx"), exact, {"new"}) == pytest.approx(8 / 9)


def test_searches_with_a_limit_can_be_judged():
    """A list of best matches for a query can; a look-up or a write cannot."""
    assert can_be_judged(lookup("episodic.recall"))
    assert not can_be_judged(lookup("episodic.get_event"))
    assert not can_be_judged(lookup("episodic.remember"))
    assert can_be_judged(lookup("rag.retrieve"))
    assert not can_be_judged(lookup("rag.query_expansion"))  # it answers with more than a list


def event(content, score=None):
    return SimpleNamespace(id=content, content=content, score=score)


class Copy:
    """An exact copy that holds contents and answers with the best of them: those that come first in the alphabet."""

    def __init__(self, *contents):
        self.contents = list(contents)
        self.groups = []

    async def execute(self, operation, parameters=None, *, session, deadline_s=None):
        if operation == "episodic.remember":
            self.contents.append(parameters["content"])
            return Response(None)
        best = sorted(self.contents)[: parameters["limit"]]
        return Response([event(content, 1.0 - ord(content) / 200) for content in best])


def read(started, finished, found):
    sample = Sample("episodic.recall", "s", started, started, finished)
    return Call("episodic.recall", {"query": "q", "limit": 10}, "id", "s"), sample, [event(content) for content in found]


def write(content, started, finished, outcome="ok"):
    sample = Sample("episodic.remember", "s", started, started, finished, outcome)
    return Call("episodic.remember", {"content": content}, "id", "s"), sample, None


def judged(copy, *steps):
    calls = [call for call, _, _ in steps]
    sent = [Sent(place, sample, value) for place, (_, sample, value) in enumerate(steps)]
    return asyncio.run(recall_of(copy.execute, calls, sent))


def test_a_search_must_see_what_was_acknowledged_before_it():
    """A row acknowledged before the search was sent is among the truth: an answer without it is stale."""
    assert judged(Copy("b", "c"), write("a", 0, 10), read(20, 30, "abc")) == {1: 1.0}
    assert judged(Copy("b", "c"), write("a", 0, 10), read(20, 30, "bc")) == {1: pytest.approx(2 / 3)}


def test_a_search_need_not_see_what_comes_after():
    """Later writes are repeated after it, whatever the order of the samples; those on the way meanwhile count for neither."""
    assert judged(Copy("b", "c"), write("a", 40, 50), read(20, 30, "bc")) == {1: 1.0}
    assert judged(Copy("b", "c"), write("a", 25, 50), read(20, 30, "bc")) == {1: 1.0}
    assert judged(Copy("b", "c"), write("a", 10, 25), read(20, 30, "abc")) == {1: 1.0}
    assert judged(Copy("b", "c"), write("a", 0, 5, "unknown"), read(20, 30, "bc")) == {1: 1.0}


def test_refused_writes_are_not_repeated():
    """A write that was refused, or failed, is not there; the copy has every other one at the end."""
    copy = Copy("b")
    judged(copy, write("a", 0, 5, "refused"), write("c", 0, 5, "error"), write("d", 6, 7))
    assert copy.contents == ["b", "d"]


def test_a_search_for_fewer_than_ten_is_not_judged():
    """Recall@10 is about ten."""
    call, sample, found = read(0, 1, "b")
    call = Call(call.operation, {"query": "q", "limit": 5}, "id", "s")
    assert judged(Copy("b"), (call, sample, found)) == {}


@pytest.mark.parametrize("mode", ["vector", "hybrid", "text"])
def test_an_engine_is_judged_by_an_exact_copy(tmp_path, mode):
    """A real engine's answers are complete; with the best of them taken away they are not. Vector answers agree with NumPy."""
    contents = [
        f"the {colour} {thing} of day {day}" for day in range(8) for colour in ("red", "blue") for thing in ("boat", "cup")
    ]

    async def ask(engine):
        await engine.execute("episodic.bulk_remember", {"events": [{"content": content} for content in contents]})
        call = Call("episodic.recall", {"query": "blue boat of day 3", "limit": 10, "mode": mode}, "default", "default")
        answer = (await engine.execute(call.operation, call.parameters)).value
        sent = Sent(0, Sample(call.operation, "default", 0, 0, 1), answer)
        worse = Sent(0, sent.sample, answer[1:])
        return answer, [await recall_of(engine.execute, [call], [one]) for one in (sent, worse)]

    with Engine.open(tmp_path / "m.duckdb", Settings.of({"cache": None, "index.kind": "flat"})) as engine:
        answer, (whole, partly) = asyncio.run(ask(engine))
        embedder = engine.storage.embedder
    assert whole == {0: 1.0}
    assert partly == {0: 0.9}
    if mode == "vector":
        scores = embedder.embed(contents) @ embedder.embed(["blue boat of day 3"], query=True)[0]
        assert {item.content for item in answer} <= {
            contents[row] for row in np.flatnonzero(scores >= np.sort(scores)[-10] - 1e-6)
        }
