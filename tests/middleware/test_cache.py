"""Kept answers are the right ones, no older than they may be, and no more than there is room for."""

import asyncio
import gc
import random
import sys
import threading
import weakref
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.errors import ErrorType, MemlabError, timeout
from memlab.measure.clock import ManualClock
from memlab.middleware.cache import cache, weigh
from memlab.middleware.chain import alone, chain
from memlab.operations import registry
from memlab.operations.registry import operation
from memlab.settings import CacheSettings
from memlab.values import Event, Fact, Response, Table
from tests.middleware.keyvalue import KeyValueEngine, ask, hops, run

POLICIES = ["lru", "w_tinylfu"]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Fixed:
    """Answers everything with one value and counts what it was asked."""

    def __init__(self, value="answer"):
        self.value = value
        self.asked = Counter()

    async def run(self, requests):
        self.asked.update(request.operation for request in requests)
        return [Response(self.value) for _ in requests]


class Slow:
    """Answers each call when it is told to, in the order of arrival."""

    def __init__(self):
        self.waiting = []
        self.calls = 0

    async def run(self, requests):
        self.calls += 1
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        return [await answer]

    def answer(self, outcome):
        self.waiting.pop(0).set_result(outcome)


def cached(engine, clock=None, **settings):
    """Return a handler with a cache over an engine, and the cache."""
    middleware = cache(CacheSettings(**settings), clock or ManualClock())
    return chain(engine.run, outside=[middleware], seam=alone), middleware


def in_turn(handle, *requests):
    """Return whether each of the requests was served by the cache, made one after the other."""

    async def main():
        return [(await handle(request)).cached for request in requests]

    return run(main())


def get(key="x", session="default", **given):
    return ask("episodic.note_get", session, key=key, **given)


def tagged(*tags, session="default", layer="episodic"):
    return ask(f"{layer}.note_list", session, tags=tags)


def put(key="x", session="default", *, layer="episodic", tags=()):
    return ask(f"{layer}.note_put", session, key=key, value=1, tags=tags)


def add(key="x", session="default", *, layer="episodic", tags=()):
    return ask(f"{layer}.note_add", session, key=key, value=1, tags=tags)


# --- what is one question --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_question_asked_again_is_answered_from_the_cache(policy):
    """The same value, marked as cached, without batch size and phases of the first time; the engine is asked once."""

    async def engine(requests):
        return [Response("answer", batch_size=7, phases={"vector": 5}) for _ in requests]

    middleware = cache(CacheSettings(policy=policy))
    handle = chain(engine, outside=[middleware], seam=alone)

    async def main():
        return [await handle(get()) for _ in range(3)]

    first, second, third = run(main())
    assert first == Response("answer", batch_size=7, phases={"vector": 5})
    assert second == third == Response("answer", cached=True)
    found = middleware.statistics()
    assert found | {"hits": 2, "misses": 1, "hit_ratio": 2 / 3, "entries": 1, "labels": 2} == found


def test_sessions_operations_and_parameters_are_told_apart():
    """Whatever differs in session, operation or parameters is another question."""
    handle, _ = cached(Fixed())
    questions = [
        get("x"),
        get("y"),
        get("x", "other"),
        ask("semantic.note_get", key="x"),
        tagged(),
        tagged("p"),
        tagged("q"),
        tagged("p", "q"),
        tagged("pq"),
        tagged("p,q"),
    ]
    assert in_turn(handle, *questions) == [False] * len(questions)
    assert in_turn(handle, *questions) == [True] * len(questions)


def test_separators_in_words_do_not_make_one_question_of_two():
    """`a:b` with `c` is not `a` with `b:c`, in session and key alike."""
    handle, _ = cached(Fixed())
    words = ["a", "b:c", "a:b", "c", "a:b:c", "", "a\x00b", "*", "%", "A", "å", "a\u030a"]
    questions = [get(key, session) for session in words for key in words]
    assert in_turn(handle, *questions) == [False] * len(questions)


@pytest.fixture
def odd_parameters():
    """An operation with parameters of every kind."""

    @operation("episodic.note_odd", reads=True, example=lambda chance, known: {})
    def note_odd(
        query: str = "",
        vector: np.ndarray | None = None,
        table: dict | None = None,
        number: int | float | bool | None = None,
        moment: datetime | None = None,
    ) -> str:
        """Ask oddly.

        Args:
            query: a
            vector: b
            table: c
            number: d
            moment: e
        """

    yield lambda **given: ask("episodic.note_odd", **given)
    del registry._REGISTRY["episodic.note_odd"]


def test_equal_parameters_of_every_kind_are_one_question(odd_parameters):
    """Equal vectors, tables in any order, and one moment in two time zones are the same; close ones are not."""
    handle, _ = cached(Fixed())
    vector = np.array([0.6, 0.8], np.float32)
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    pairs = [
        ({"vector": vector}, {"vector": vector.copy()}),
        ({"table": {"a": 1, "b": [1, {"c": None}]}}, {"table": {"b": [1, {"c": None}], "a": 1}}),
        ({"moment": noon}, {"moment": noon.astimezone(timezone(timedelta(hours=5)))}),
    ]
    for first, second in pairs:
        assert in_turn(handle, odd_parameters(**first), odd_parameters(**second)) == [False, True]
    others = [
        {"vector": np.array([0.8, 0.6], np.float32)},
        {"table": {"a": True, "b": [1, {"c": None}]}},
        {"table": {"a": 1.0, "b": [1, {"c": None}]}},
        {"number": 1},
        {"number": 1.0},
        {"number": True},
        {"moment": noon + timedelta(microseconds=1)},
    ]
    assert in_turn(handle, *(odd_parameters(**given) for given in others)) == [False] * len(others)


def test_parameters_without_a_canonical_form_are_answered_all_the_same(odd_parameters):
    """What cannot be recognised again is not kept, and no error of its own comes of it."""
    handle, middleware = cached(Fixed())
    request = odd_parameters()
    request = msgspec.structs.replace(request, parameters=msgspec.structs.replace(request.parameters, number=1 << 80))
    assert in_turn(handle, request, request) == [False, False]
    assert middleware.statistics()["entries"] == 0


def test_what_is_not_cacheable_is_not_kept():
    """An operation that says so is asked every time."""

    @operation("episodic.note_fresh", reads=True, cacheable=False, example=lambda chance, known: {})
    def note_fresh() -> str:
        """Ask freshly."""

    try:
        handle, middleware = cached(Fixed())
        assert in_turn(handle, ask("episodic.note_fresh"), ask("episodic.note_fresh")) == [False, False]
        assert middleware.statistics()["misses"] == 0
    finally:
        del registry._REGISTRY["episodic.note_fresh"]


def test_errors_are_not_kept():
    """An error is raised each time anew, and what comes to be is found at once."""
    engine = KeyValueEngine()
    handle, _ = cached(engine)

    async def main():
        for _ in range(2):
            with pytest.raises(MemlabError):
                await handle(get())
        await handle(put())
        return await handle(get())

    assert run(main()).value == (1, ())
    assert len(engine.groups) == 4


# --- what a write makes stale ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "stale"),
    [
        (lambda: put(tags=("p",)), "get list list-p list-q list-pq touched dump census"),
        (lambda: add(tags=("p",)), "get list list-p list-pq touched dump census"),
        (lambda: add(tags=()), "get list touched dump census"),
        (lambda: put(layer="semantic"), "semantic-get dump census"),
        (lambda: put(session="other"), "other-get other-dump census"),
        (lambda: ask("episodic.note_move", key="x"), "get list list-p list-q list-pq touched semantic-get dump census"),
        (lambda: ask("semantic.note_touch"), "touched dump census"),
        (lambda: ask("session.note_wipe"), "get list list-p list-q list-pq touched semantic-get dump census"),
    ],
    ids="put, add with tag, add without, other layer, other session, two layers, an operation, a session".split(", "),
)
def test_a_write_makes_stale_what_it_may_have_changed_and_no_more(write, stale):
    """By layer, operation, tag and session, as the operation declares; other sessions keep their answers."""
    reads = {
        "get": get(),
        "list": tagged(),
        "list-p": tagged("p"),
        "list-q": tagged("q"),
        "list-pq": tagged("p", "q"),
        "touched": ask("episodic.note_touched"),
        "semantic-get": ask("semantic.note_get", key="x"),
        "dump": ask("session.note_dump"),
        "census": ask("session.note_census"),
        "other-get": get(session="other"),
        "other-dump": ask("session.note_dump", "other"),
    }
    handle, _ = cached(Fixed())
    in_turn(handle, *reads.values())
    run(handle(write()))
    served = in_turn(handle, *reads.values())
    assert {name for name, was_cached in zip(reads, served, strict=True) if not was_cached} == set(stale.split())


def test_tags_inside_items_and_unknown_words():
    """`tag:items.tags` reads the tags of every item; a word that means nothing makes the whole session stale, to be safe."""

    class Item(msgspec.Struct, frozen=True):
        tags: tuple[str, ...] = ()

    made = {"example": lambda chance, known: {}}

    @operation("episodic.note_bulk", writes=True, invalidates=["tag:items.tags"], **made)
    def note_bulk(items: tuple[Item, ...]) -> str:
        """Add some.

        Args:
            items: some
        """

    @operation("episodic.note_vague", writes=True, invalidates=["tag:nothing"], **made)
    def note_vague() -> str:
        """Do something."""

    @operation("episodic.note_vaguer", writes=True, invalidates=["elsewhere"], **made)
    def note_vaguer() -> str:
        """Do something."""

    reads = [get(), tagged("p"), tagged("q"), tagged("r"), ask("semantic.note_get", key="x")]
    try:
        handle, _ = cached(Fixed())
        for write, kept in [
            (ask("episodic.note_bulk", items=[{"tags": ["p"]}, {}, {"tags": ["q"]}]), [False, False, False, True, True]),
            (ask("episodic.note_vague"), [False] * 5),
            (ask("episodic.note_vaguer"), [False] * 5),
        ]:
            in_turn(handle, *reads)
            run(handle(write))
            assert in_turn(handle, *reads) == kept
    finally:
        for name in ("note_bulk", "note_vague", "note_vaguer"):
            del registry._REGISTRY[f"episodic.{name}"]


def test_a_ranking_depends_on_its_whole_layer_whatever_its_tags():
    """How rare a word is in the layer moves the ranks, so a search with tags is stale after any write of the layer."""

    @operation("episodic.note_search", reads=True, example=lambda chance, known: {})
    def note_search(query: str, tags: tuple[str, ...] = ()) -> str:
        """Search.

        Args:
            query: a
            tags: b
        """

    try:
        handle, _ = cached(Fixed())
        search = ask("episodic.note_search", query="boat", tags=("q",))
        assert in_turn(handle, search, search, add(tags=("p",)), search) == [False, True, False, False]
    finally:
        del registry._REGISTRY["episodic.note_search"]


def test_the_real_operations_mean_what_they_declare():
    """Every write that exists makes the reads of its layer stale, and writes that only add leave those of other tags alone."""
    handle, _ = cached(Fixed())
    recent = ask("episodic.get_recent")
    by_tag = ask("episodic.recall_by_tags", tags=["p"])
    other_tag = ask("episodic.recall_by_tags", tags=["q"])
    facts = ask("semantic.list")
    in_turn(handle, recent, by_tag, other_tag, facts)
    run(handle(ask("episodic.remember", content="tea", tags=["p"])))
    assert in_turn(handle, recent, by_tag, facts) == [False, False, True]
    run(handle(ask("semantic.store", content="tea")))
    assert in_turn(handle, facts, recent) == [False, True]
    run(handle(ask("episodic.forget", ids=["ep_1"])))
    assert in_turn(handle, recent, by_tag, other_tag) == [False] * 3
    run(handle(ask("session.delete")))
    assert in_turn(handle, recent, by_tag, other_tag, facts) == [False] * 4


def test_answers_about_no_session_outlive_every_write():
    """What discovery says changes with no write."""
    handle, _ = cached(Fixed())
    layers = ask("discovery.layers")
    assert in_turn(handle, layers, put(), ask("session.delete"), layers) == [False, False, False, True]


@pytest.mark.parametrize("failure", ["error", "cancelled"])
def test_a_write_of_unknown_outcome_makes_stale_all_the_same(failure):
    """Error or cancellation: it may have taken effect."""
    engine = Slow()
    handle, _ = cached(engine)

    async def main():
        asyncio.get_running_loop().call_soon(lambda: engine.answer(Response(1)))
        await handle(get())
        write = asyncio.ensure_future(handle(put()))
        await hops(2)
        if failure == "error":
            engine.answer(timeout("conflict", "who knows"))
        else:
            write.cancel()
        await asyncio.wait((write,))
        if failure == "cancelled":
            engine.waiting.clear()
        read = asyncio.ensure_future(handle(get()))
        await hops(2)
        engine.answer(Response(2))
        return await read

    assert run(main()) == Response(2)


def test_a_fill_that_began_before_a_write_is_not_kept():
    """Its caller gets the answer, which was right when he asked; nobody after the write does."""
    engine = Slow()
    handle, middleware = cached(engine)

    async def main():
        read = asyncio.ensure_future(handle(get()))
        await hops(2)
        write = asyncio.ensure_future(handle(put()))
        await hops(2)
        early, engine.waiting[:] = engine.waiting[0], engine.waiting[1:]
        engine.answer(Response("written"))
        await write
        late = asyncio.ensure_future(handle(get()))  # it must not join the flight that is still on its way
        await hops(2)
        early.set_result(Response("old"))
        assert (await read).value == "old"
        engine.answer(Response("new"))
        assert (await late).value == "new"
        return await handle(get())

    assert run(main()) == Response("new", cached=True)
    found = middleware.statistics()
    assert found | {"fills_discarded": 1, "shared": 0, "entries": 1} == found


def test_reads_beside_a_write_pass_by():
    """While a write is on its way nothing it may change is kept or shared; what it cannot change is."""
    engine = Slow()
    handle, middleware = cached(engine)

    async def main():
        write = asyncio.ensure_future(handle(put()))
        await hops(2)
        reads = [asyncio.ensure_future(handle(one)) for one in (get(), get(), get(session="other"), get(session="other"))]
        await hops(2)
        assert engine.calls == 4
        for value in ("written", 1, 2, 3):
            engine.answer(Response(value))
        assert [(await read).value for read in reads] == [1, 2, 3, 3]
        await write

    run(main())
    found = middleware.statistics()
    assert found | {"passed": 2, "shared": 1, "entries": 1} == found


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ({}, ["other"]),
        ({"layer": "episodic"}, ["semantic", "other"]),
        ({"layer": "episodic", "tags": ["p"]}, ["list q", "semantic", "other"]),
        ({"operation": "episodic.note_list"}, ["get", "semantic", "other"]),
    ],
)
def test_answers_can_be_made_stale_by_hand(how, left):
    """Of a session: all of them, or by layer, by tags in it, or by operation."""
    reads = {
        "get": get(),
        "list p": tagged("p"),
        "list q": tagged("q"),
        "semantic": ask("semantic.note_get", key="x"),
        "other": get(session="other"),
    }
    handle, middleware = cached(Fixed())
    in_turn(handle, *reads.values())
    middleware.invalidate("default", **how)
    served = in_turn(handle, *reads.values())
    assert [name for name, was_cached in zip(reads, served, strict=True) if was_cached] == left


def test_clear_forgets_everything():
    """Nothing is left, not even of operations that no write touches, and no fill that was on its way is kept."""
    engine = Slow()
    handle, middleware = cached(engine)

    async def main():
        for request in (get(), ask("discovery.layers")):
            asyncio.get_running_loop().call_soon(lambda: engine.answer(Response(1)))
            await handle(request)
        under_way = asyncio.ensure_future(handle(get("y")))
        await hops(2)
        middleware.clear()
        engine.answer(Response(2))
        await under_way

    run(main())
    found = middleware.statistics()
    assert found | {"entries": 0, "bytes": 0, "labels": 0, "fills_discarded": 1} == found


# --- one flight ------------------------------------------------------------------------------------------------------


def test_identical_misses_at_once_are_executed_once():
    """A hundred callers, one execution, one answer."""
    engine = Slow()
    handle, middleware = cached(engine)

    async def main():
        callers = [asyncio.ensure_future(handle(get())) for _ in range(100)]
        await hops(3)
        engine.answer(Response("one"))
        return [(await caller).value for caller in callers]

    assert run(main()) == ["one"] * 100
    assert engine.calls == 1
    assert middleware.statistics() | {"misses": 100, "shared": 99} == middleware.statistics()


def test_an_error_is_delivered_to_all_who_joined_each_his_own():
    """The same error, but no shared traceback; then it is tried anew."""
    engine = Slow()
    handle, _ = cached(engine)

    async def main():
        callers = [asyncio.ensure_future(handle(get())) for _ in range(3)]
        await hops(3)
        engine.answer(timeout("conflict", "busy"))
        errors = await asyncio.gather(*callers, return_exceptions=True)
        asyncio.get_running_loop().call_soon(lambda: engine.answer(Response("good")))
        return errors, await handle(get())

    errors, after = run(main())
    assert [(error.type, error.reason) for error in errors] == [(ErrorType.TIMEOUT, "conflict")] * 3
    assert len({id(error) for error in errors}) == 3
    assert after.value == "good"


def test_who_joins_a_flight_waits_no_longer_than_its_own_deadline():
    """The one whose time is up gets TIMEOUT; the flight goes on, and those who have time get its answer."""
    clock, engine = ManualClock(), Slow()
    handle, middleware = cached(engine, clock)

    async def main():
        leader = asyncio.ensure_future(handle(get()))
        await hops(3)
        hasty = asyncio.ensure_future(handle(get(deadline_ns=clock.monotonic_ns() + 5_000_000)))
        patient = asyncio.ensure_future(handle(get(deadline_ns=clock.monotonic_ns() + 50_000_000)))
        await asyncio.sleep(0.010)
        assert hasty.exception().reason == "deadline"
        assert not leader.done()
        assert not patient.done()
        engine.answer(Response("answer"))
        assert (await leader).value == (await patient).value == "answer"

    run(main(), clock)
    assert engine.calls == 1
    assert middleware.statistics()["shared"] == 1


@pytest.mark.parametrize("why", ["cancelled", "deadline"])
def test_what_happens_to_the_leader_alone_does_not_happen_to_those_who_joined(why):
    """When he is cancelled or runs out of time, one of the others leads; they share one more execution."""
    engine = Slow()
    handle, _ = cached(engine)

    async def main():
        leader, *others = [asyncio.ensure_future(handle(get())) for _ in range(4)]
        await hops(3)
        if why == "cancelled":
            leader.cancel()
            engine.waiting.clear()
        else:
            engine.answer(timeout("deadline", "too late"))
        await hops(5)
        engine.answer(Response("good"))
        values = [(await other).value for other in others]
        await asyncio.wait((leader,))
        assert leader.cancelled() or leader.exception().reason == "deadline"
        return values

    assert run(main()) == ["good"] * 3
    assert engine.calls == 2


def test_who_joined_and_is_cancelled_leaves_alone():
    """The flight goes on for the others."""
    engine = Slow()
    handle, _ = cached(engine)

    async def main():
        callers = [asyncio.ensure_future(handle(get())) for _ in range(3)]
        await hops(3)
        callers[1].cancel()
        await hops(2)
        assert callers[1].cancelled()
        engine.answer(Response("good"))
        return (await callers[0]).value, (await callers[2]).value

    assert run(main()) == ("good", "good")
    assert engine.calls == 1


# --- how long --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_an_answer_is_served_until_its_time_is_up(policy):
    """ttl_s counts from the beginning of the fill; at its end the answer is asked for anew."""
    clock = ManualClock()

    class Lasting(Fixed):
        async def run(self, requests):
            clock.advance(seconds=1.0)
            return await super().run(requests)

    handle, middleware = cached(Lasting(), clock, ttl_s=10.0, policy=policy)
    assert in_turn(handle, get(), get()) == [False, True]
    clock.advance(seconds=8.999_999)
    assert in_turn(handle, get()) == [True]
    clock.advance(ns=1_000)
    assert in_turn(handle, get(), get()) == [False, True]
    assert middleware.statistics()["expired"] == 1


def test_the_shorter_of_two_times_holds():
    """An operation may bound how long its own answers are served, whatever the settings allow."""

    @operation("episodic.note_brief", reads=True, ttl_s=5.0, example=lambda chance, known: {})
    def note_brief() -> str:
        """Ask."""

    try:
        for settings, seconds in (({"ttl_s": 10.0}, 5.0), ({"ttl_s": 2.0}, 2.0), ({}, 5.0)):
            clock = ManualClock()
            handle, _ = cached(Fixed(), clock, **settings)
            in_turn(handle, ask("episodic.note_brief"))
            clock.advance(seconds=seconds - 0.001)
            assert in_turn(handle, ask("episodic.note_brief")) == [True]
            clock.advance(seconds=0.001)
            assert in_turn(handle, ask("episodic.note_brief")) == [False]
    finally:
        del registry._REGISTRY["episodic.note_brief"]


def event(number=0, **given):
    return Event(id=f"ep_{number}", content=f"event {number}", occurred_at=NOW, created_at=NOW, **given)


def fact(number=0, **given):
    return Fact(id=f"sm_{number}", content=f"fact {number}", created_at=NOW, updated_at=NOW, **given)


SOON, LATER = NOW + timedelta(hours=1), NOW + timedelta(hours=2)


@pytest.mark.parametrize(
    "value",
    [
        event(expires_at=SOON),
        fact(expires_at=SOON),
        Table([event(1), event(2, expires_at=LATER), event(3, expires_at=SOON)]),
        {"found": [(fact(1), fact(2, expires_at=SOON))], "also": fact(3, expires_at=LATER)},
    ],
    ids=["event", "fact", "table", "nested"],
)
def test_an_answer_is_not_served_past_the_first_expiry_in_it(value):
    """When the first memory in an answer expires, by the wall clock, the answer is asked for anew."""
    clock = ManualClock(NOW)
    handle, middleware = cached(Fixed(value), clock)
    assert in_turn(handle, get()) == [False]
    clock.set_wall(SOON - timedelta(microseconds=1))
    assert in_turn(handle, get()) == [True]
    clock.set_wall(SOON)
    assert in_turn(handle, get(), get()) == [False, False]
    assert middleware.statistics()["entries"] == 0


# --- how much --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [1, 2, 10, 100])
def test_no_more_than_max_entries_are_kept(policy, size):
    """Whatever is asked, in whatever order."""
    handle, middleware = cached(Fixed(), max_entries=size, policy=policy)
    chance = random.Random(size)
    in_turn(handle, *(get(str(chance.randrange(4 * size))) for _ in range(20 * size)))
    found = middleware.statistics()
    assert found["entries"] == size
    assert found["evictions"] == found["misses"] - size
    assert found["labels"] == 2


def test_the_least_recently_used_answer_leaves_first():
    """Under `lru` an answer that was asked for again stays."""
    handle, _ = cached(Fixed(), max_entries=2)
    assert in_turn(handle, get("a"), get("b"), get("a"), get("c"), get("a"), get("b")) == [False, False, True, False, True, False]


def test_w_tinylfu_keeps_what_is_asked_often():
    """A scan of answers asked for once does not drive out those asked for often, as it does under `lru`."""
    hits = {}
    for policy in POLICIES:
        handle, middleware = cached(Fixed(), max_entries=50, policy=policy)
        often = [get(f"often {number}") for number in range(30)]
        scan = [get(f"once {number}") for number in range(500)]
        in_turn(handle, *often * 5, *scan)
        before = middleware.statistics()["hits"]
        in_turn(handle, *often)
        hits[policy] = middleware.statistics()["hits"] - before
    assert hits["lru"] == 0
    assert hits["w_tinylfu"] >= 25


def test_w_tinylfu_beats_lru_on_skewed_questions():
    """Zipf's law with exponent 1.2 over 20,000 questions, room for 200: the hit ratio is higher by more than 0.03."""
    keys = (np.random.default_rng(1).zipf(1.2, 15_000) % 20_000).tolist()
    ratios = {}
    for policy in POLICIES:
        handle, middleware = cached(Fixed(), max_entries=200, policy=policy)
        in_turn(handle, *(get(str(key)) for key in keys))
        ratios[policy] = middleware.statistics()["hit_ratio"]
    assert ratios["w_tinylfu"] > ratios["lru"] + 0.03


@pytest.mark.parametrize("policy", POLICIES)
def test_no_more_than_max_bytes_are_kept(policy):
    """Where the bytes bind first, the least recently used leave until the rest fits."""
    handle, middleware = cached(Fixed("x" * 10_000), max_bytes=100_000, policy=policy)
    in_turn(handle, *(get(str(number)) for number in range(50)))
    found = middleware.statistics()
    assert 85_000 < found["bytes"] <= 100_000
    assert found["entries"] == 9
    assert found["evictions"] == 41
    assert in_turn(handle, *(get(str(number)) for number in range(41, 50))) == [True] * 9


def test_an_answer_too_large_is_not_kept():
    """More than a quarter of max_bytes would drive out too many others."""
    handle, middleware = cached(Fixed("x" * 30_000), max_bytes=100_000)
    assert in_turn(handle, get(), get()) == [False, False]
    assert middleware.statistics() | {"oversized": 2, "entries": 0, "bytes": 0} == middleware.statistics()
    handle, middleware = cached(Fixed("x" * 30_000), max_bytes=None)
    assert in_turn(handle, get(), get()) == [False, True]


def test_an_answer_that_cannot_be_weighed_is_not_kept():
    """Its caller has it all the same."""
    handle, middleware = cached(Fixed("\ud800"))
    assert in_turn(handle, get(), get()) == [False, False]
    assert middleware.statistics()["oversized"] == 2


def test_the_estimate_grows_with_what_is_in_an_answer():
    """Each memory counts its texts and a fixed share; arrays count their bytes; tables count their items."""
    one, ten = weigh(Table([event()]))[0], weigh(Table([event(number) for number in range(10)]))[0]
    assert 9 * one < ten < 11 * one
    assert weigh(event(context={"where": "y" * 1000}))[0] > weigh(event())[0] + 1000
    assert weigh(np.zeros(1000, np.float32))[0] > 4000
    assert weigh(b"z" * 1000)[0] > 1000
    assert weigh(None)[0] < 100


def test_labels_and_entries_do_not_outlive_each_other():
    """A thousand sessions that came and went leave nothing: labels are there only while something depends on them."""
    handle, middleware = cached(Fixed(), max_entries=10)
    for number in range(1000):
        in_turn(handle, get("x", f"session {number}"), tagged("p", session=f"session {number}"))
    found = middleware.statistics()
    assert found["entries"] == 10
    assert found["labels"] <= 10 * 3
    for number in range(1000):
        run(handle(put("x", f"session {number}")))
    found = middleware.statistics()
    assert found | {"entries": 0, "bytes": 0, "labels": 0} == found
    assert not middleware._writing


def test_what_is_stale_is_dropped_in_small_steps():
    """A write in a large session drops some of what it made stale, and the next calls the rest; none of it is served."""
    handle, middleware = cached(Fixed())
    in_turn(handle, *(get(str(number)) for number in range(1000)))
    run(handle(put()))
    left = middleware.statistics()["entries"]
    assert 0 < left < 1000
    assert in_turn(handle, *(get(str(number)) for number in range(1000))) == [False] * 1000
    found = middleware.statistics()
    assert found | {"entries": 1000, "evictions": 0} == found


def test_forgetting_a_session_forgets_its_answers_at_once():
    """What `session.delete` forgets is not left in memory for later."""
    handle, middleware = cached(Fixed())
    in_turn(handle, *(get(str(number)) for number in range(1000)), get("x", "other"))
    run(handle(ask("session.delete")))
    assert middleware.statistics() | {"entries": 1, "labels": 2} == middleware.statistics()


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("read"), st.sampled_from("abc"), st.integers(0, 9), st.sampled_from([(), ("p",), ("q",)])),
            st.tuples(st.just("write"), st.sampled_from("abc"), st.integers(0, 9), st.sampled_from([(), ("p",)])),
            st.tuples(st.just("tick"), st.just("a"), st.integers(1, 5), st.just(())),
        ),
        max_size=60,
    ),
    policy=st.sampled_from(POLICIES),
    size=st.integers(1, 6),
)
def test_the_books_are_kept(steps, policy, size):
    """After any steps: bytes are those of the entries, every label is depended on, and policy and entries hold the same keys."""
    clock = ManualClock()
    engine = KeyValueEngine()
    middleware = cache(CacheSettings(max_entries=size, policy=policy, ttl_s=6.0), clock)
    handle = chain(engine.run, outside=[middleware], seam=alone)

    async def main():
        for kind, session, number, tags in steps:
            if kind == "tick":
                clock.advance(seconds=number)
            elif kind == "write":
                await handle(add(str(number), session, tags=tags))
            elif tags:
                await handle(tagged(*tags, session=session))
            else:
                await asyncio.gather(*(handle(get(str(number), session)) for _ in range(2)), return_exceptions=True)

    run(main())
    entries = dict(middleware._entries.items())
    assert len(entries) <= size
    assert middleware._bytes == sum(entry.size for entry in entries.values())
    depended_on = {label.name for entry in entries.values() for label in entry.labels if not label.is_stale}
    assert set(middleware._labels) == depended_on
    for key, entry in entries.items():
        for label in entry.labels:
            assert label.is_stale or key in label.keys
            assert label.flights == 0
    assert not middleware._flights
    assert not middleware._writing
    if middleware._policy is not None:
        assert set(middleware._policy._keys.values()) == set(entries)
        assert middleware._policy._core.len() == len(entries)


def test_no_thread_and_no_cache_is_left_behind():
    """Neither policy starts a thread, and a cache that nobody has any more is gone."""
    before = threading.active_count()
    for policy in POLICIES:
        handle, middleware = cached(Fixed(), policy=policy)
        in_turn(handle, get(), get())
        gone = []
        weakref.finalize(middleware, gone.append, policy)
        del handle, middleware
        gc.collect()
        assert gone == [policy]
    assert threading.active_count() == before
    assert "theine" not in sys.modules


def test_an_unknown_operation_fails_as_without_a_cache():
    """The cache has no error of its own."""
    handle, _ = cached(Fixed())
    with pytest.raises(MemlabError) as caught:
        run(handle(msgspec.structs.replace(get(), operation="episodic.nothing")))
    assert caught.value.reason == "unknown_operation"
