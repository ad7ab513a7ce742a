"""Every middleware, alone and with others, answers as the bare engine does: same answers, same errors, in an order that fits.

Random programs of many callers, some of whom are cancelled, run through a chain over a small engine whose every state is
kept. A chain conforms when the calls can be put in one order that explains every outcome: each call takes effect, or looks,
at one state between its submission and its end, and nobody sees an older state than one that was seen before he asked.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlab.errors import MemlabError
from memlab.middleware import cache as cache_module
from memlab.middleware.batch import batch
from memlab.middleware.cache import Cache, cache
from memlab.middleware.chain import Handler, alone, chain
from memlab.middleware.observe import observe
from memlab.middleware.pool import Pool, pool
from memlab.middleware.resident import resident
from memlab.operations.registry import lookup
from memlab.settings import BatchSettings, CacheSettings, PoolSettings
from memlab.values import Request, Response
from tests.middleware.keyvalue import KeyValueEngine, apply, ask, declared, hops, run


@pytest.fixture(autouse=True, scope="module")
def small_operations():
    with declared():
        yield


# --- programs --------------------------------------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True):
    """One call of a caller: when it is made, and after how many turns the caller loses patience."""

    operation: str
    session: str
    key: str
    tags: tuple[str, ...]
    value: int
    pause: int
    cancelled_after: int | None

    def request(self) -> Request:
        fields = lookup(self.operation).parameters_type.__struct_fields__
        given = {"key": self.key, "tags": self.tags, "value": self.value}
        return ask(self.operation, self.session, **{name: value for name, value in given.items() if name in fields})


READS = "note_get note_get note_list note_list note_touched".split()
WRITES = "note_add note_put note_remove note_move note_touch".split()
NAMES = [
    *(f"{layer}.{name}" for layer in ("episodic", "semantic") for name in (*READS, *WRITES)),
    "session.note_dump",
    "session.note_census",
    "session.note_wipe",
]
STEPS = st.builds(
    Step,
    operation=st.sampled_from(NAMES),
    session=st.sampled_from("ab"),
    key=st.sampled_from("xyz"),
    tags=st.sampled_from([(), ("p",), ("q",), ("p", "q")]),
    value=st.integers(-1, 1000),
    pause=st.integers(0, 3),
    cancelled_after=st.one_of(st.none(), st.none(), st.none(), st.integers(0, 8)),
)
PROGRAMS = st.lists(st.lists(STEPS, min_size=1, max_size=12), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**32)


class Call(msgspec.Struct):
    """What became of one step: its outcome is None where its caller was cancelled.

    Attributes:
        oldest: the state that it may see at the earliest, known from the start.
        states: how many states there were when it ended.
    """

    request: Request
    submitted: int
    oldest: int = 0
    ended: int = 0
    states: int = 0
    outcome: Response | MemlabError | None = None


async def play(program: Sequence[Sequence[Step]], engine: KeyValueEngine, handle: Handler) -> list[Call]:
    """Let every caller make his calls one after the other, all callers at once; in the quiet after it, ask every read again."""
    moments = itertools.count()
    calls: list[Call] = []

    async def make(step: Step, oldest: int = 0) -> None:
        await hops(step.pause)
        call = Call(step.request(), next(moments), oldest)
        calls.append(call)

        async def execute() -> None:
            try:
                call.outcome = await handle(call.request)
            except MemlabError as error:
                call.outcome = error

        task = asyncio.ensure_future(execute())
        if step.cancelled_after is not None:
            await hops(step.cancelled_after)
            task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()
        call.ended = next(moments)
        call.states = len(engine.states)

    async def caller(steps: Sequence[Step]) -> None:
        for step in steps:
            await make(step)

    await asyncio.gather(*(caller(steps) for steps in program))
    while engine.running:
        await hops(1)
    for step in itertools.chain.from_iterable(program):
        if lookup(step.operation).reads:
            await make(msgspec.structs.replace(step, cancelled_after=None), len(engine.states) - 1)
    return calls


def judge(calls: Sequence[Call], engine: KeyValueEngine) -> None:
    """Fail unless the outcomes can be put in one order.

    Taking calls by their ends, each is given the earliest state that explains it and is not older than one that a call which
    ended before its submission was given. Only lower bounds are ever passed on, so the earliest is the best choice.
    """
    assert all(times == 1 for times in engine.executed.values()), "a call was executed twice"
    judged: list[tuple[int, int]] = []  # end, state that was seen or made
    for call in sorted(calls, key=lambda one: one.ended):
        if call.outcome is None:
            continue
        oldest = max((state for ended, state in judged if ended < call.submitted), default=0)
        oldest = max(oldest, call.oldest)
        found = engine.changes.get(id(call.request))
        if found is not None:
            assert oldest <= found < call.states, f"{call} took effect at {found}, outside of {oldest} to {call.states - 1}"
            assert explains(engine.states[found], call), f"{call}: another's answer"
            judged.append((call.ended, found + 1))
            continue
        fitting = (place for place in range(oldest, call.states) if explains(engine.states[place], call))
        state = next(fitting, None)
        assert state is not None, f"{call}: no state from {oldest} to {call.states - 1} explains it: {engine.states[oldest:]}"
        judged.append((call.ended, state))


def explains(state: Any, call: Call) -> bool:
    try:
        _, answer = apply(state, call.request)
    except MemlabError as error:
        return isinstance(call.outcome, MemlabError) and (error.type, error.reason) == (call.outcome.type, call.outcome.reason)
    return isinstance(call.outcome, Response) and call.outcome.value == answer


# --- chains ----------------------------------------------------------------------------------------------------------

Build = Callable[[KeyValueEngine], Handler]


def build(
    *outside: Callable[[], Any], seam: Callable[[], Any] = lambda: alone, inside: Sequence[Callable[[], Any]] = ()
) -> Build:
    """Return what builds a fresh chain over an engine; `resident` needs the engine, so it is named."""

    def chain_over(engine: KeyValueEngine) -> Handler:
        return chain(
            engine.run,
            outside=[resident(engine.peek) if one is resident else one() for one in outside],
            seam=seam(),
            inside=[one() for one in inside],
        )

    return chain_over


def cached(**given: Any) -> Callable[[], Cache]:
    return lambda: cache(CacheSettings(**given))


def batched(**given: Any) -> Callable[[], Any]:
    return lambda: batch(BatchSettings(**given))


def pooled(limit: int) -> Callable[[], Pool]:
    return lambda: pool(PoolSettings(limit=limit))


CHAINS: dict[str, Build] = {
    "bare": build(),
    "observe": build(observe),
    "cache": build(cached()),
    "cache w_tinylfu": build(cached(policy="w_tinylfu")),
    "cache of two": build(cached(max_entries=2)),
    "cache of two w_tinylfu": build(cached(max_entries=2, policy="w_tinylfu")),
    "cache of few bytes": build(cached(max_bytes=3_500)),
    "resident": build(resident),
    "batch": build(seam=batched()),
    "batch of two": build(seam=batched(limit=2)),
    "batch without window": build(seam=batched(window_ms=0.0)),
    "batch with fixed window": build(seam=batched(adaptive=False, limit=5)),
    "batch with an objective": build(seam=batched(window_ms=1.0, limit=5, objective_ms=2.0)),
    "pool of one": build(inside=[pooled(1)]),
    "pool of two": build(inside=[pooled(2)]),
    "cache, pool": build(cached(), inside=[pooled(2)]),
    "cache, resident": build(cached(), resident),
    "cache, batch": build(cached(), seam=batched()),
    "batch, pool": build(seam=batched(), inside=[pooled(1)]),
    "all": build(observe, cached(), resident, seam=batched(), inside=[pooled(2)]),
    "all, narrow": build(
        observe, cached(max_entries=3, policy="w_tinylfu"), resident, seam=batched(limit=3, adaptive=False), inside=[pooled(1)]
    ),
}


def conforms(chain_over: Build, program: Sequence[Sequence[Step]], seed: int) -> None:
    engine = KeyValueEngine(seed)
    judge(run(play(program, engine, chain_over(engine))), engine)


@pytest.mark.parametrize("name", CHAINS)
@given(program=PROGRAMS, seed=SEEDS)
@settings(max_examples=20)
def test_a_chain_answers_as_the_bare_engine(name, program, seed):
    """Whatever callers do at once, and whoever is cancelled, every outcome is one that the bare engine gives."""
    conforms(CHAINS[name], program, seed)


# --- the suite's own exam --------------------------------------------------------------------------------------------


FEW = ["episodic.note_get", "episodic.note_list", "episodic.note_list", "episodic.note_put"]


def random_program(chance: random.Random, names: Sequence[str], sessions: str) -> list[list[Step]]:
    """Return a program as `PROGRAMS` draws them, in a hundredth of the time; on fewer notes, so that more of it collides."""

    def step() -> Step:
        return Step(
            chance.choice(names),
            chance.choice(sessions),
            chance.choice("xy"),
            chance.choice([(), ("p",)]),
            chance.randint(-1, 1000),
            chance.randint(0, 3),
            chance.choice([None, None, chance.randint(0, 8)]),
        )

    return [[step() for _ in range(chance.randint(1, 12))] for _ in range(chance.randint(2, 6))]


def finds_fault(chain_over: Build, names: Sequence[str] = NAMES, sessions: str = "ab", patience: int = 3) -> None:
    """Fail unless one of some hundred random programs shows that a broken chain is broken."""
    for seed in range(1_000):
        engine = KeyValueEngine(seed, patience)
        calls = run(play(random_program(random.Random(seed), names, sessions), engine, chain_over(engine)))
        try:
            judge(calls, engine)
        except AssertionError:
            return
    pytest.fail("the suite has nothing to say against a chain that is broken")


def test_serving_stale_answers_is_found(monkeypatch):
    """Without the check of generations an answer outlives a write, and the suite says so."""
    monkeypatch.setattr(cache_module, "_is_current", lambda labels: True)
    finds_fault(CHAINS["cache"])


def test_publishing_a_fill_that_began_before_a_write_is_found(monkeypatch):
    """Without the check at publication a slow fill brings an old state back, and the suite says so."""

    async def fill(self, inner, rule, request, key, names):
        response = await inner(request)
        labels = tuple(self._label(name) for name in names)  # of the generation that holds now, not when it began
        self._publish(key, rule, labels, response, 0)
        return response

    monkeypatch.setattr(Cache, "_fill", fill)
    finds_fault(CHAINS["cache"])


def test_joining_a_flight_that_began_before_a_write_is_found(monkeypatch):
    """Without the check at joining, a caller who came after a write gets the state before it, and the suite says so."""
    miss = Cache._miss

    async def join_any(self, inner, rule, request, key):
        flight = self._flights.get(key)
        outcome = await flight.join() if flight is not None else None
        if outcome is None:
            return await miss(self, inner, rule, request, key)
        if isinstance(outcome, Response):
            return outcome
        raise outcome

    monkeypatch.setattr(Cache, "_miss", join_any)
    finds_fault(CHAINS["cache"], FEW, sessions="a", patience=12)


def test_keeping_answers_beside_a_write_is_found(monkeypatch):
    """Were answers kept while a write is on its way, they would outlive it, and the suite says so."""

    async def write(self, inner, rule, request):
        self._end_generation(rule.touches(request))
        return await inner(request)

    monkeypatch.setattr(Cache, "_write", write)
    finds_fault(CHAINS["cache"])


def test_sharing_answers_beside_a_write_is_found(monkeypatch):
    """Were answers shared while a write is on its way, someone would see time go back, even if they ended with it."""

    async def write(self, inner, rule, request):
        self._end_generation(rule.touches(request))
        try:
            return await inner(request)
        finally:
            self._end_generation(rule.touches(request))

    monkeypatch.setattr(Cache, "_write", write)
    finds_fault(CHAINS["cache"], FEW, sessions="a", patience=12)


def test_a_key_without_session_is_found():
    """Sessions that share entries get each other's notes, and the suite says so."""
    own: ContextVar[Request] = ContextVar("own")

    def hide(inner):
        async def handle(request):
            own.set(request)
            return await inner(msgspec.structs.replace(request, session="anybody"))

        return handle

    def restore(inner):
        return lambda request: inner(own.get())

    finds_fault(build(lambda: hide, cached(), lambda: restore))


def test_forgetting_those_who_read_without_tags_is_found(monkeypatch):
    """A write that makes only its tags stale leaves old lists of everything, and the suite says so."""
    monkeypatch.setattr(cache_module, "_of_tags", lambda session, layer, tags: [(session, "tag", layer, tag) for tag in tags])
    finds_fault(CHAINS["cache"])


def test_crossed_answers_are_found():
    """A batch that hands answers to the wrong callers is found."""

    def crossing(engine):
        async def crossed(requests):
            return (await engine.run(requests))[::-1]

        return chain(crossed, seam=batch(BatchSettings()))

    finds_fault(crossing)


def test_a_write_that_lands_after_its_caller_left_is_found():
    """Where a cancelled caller may leave before his write has ended, the cache keeps an old answer, and the suite says so."""

    def hasty(engine):
        async def leave(requests):
            return await asyncio.shield(asyncio.ensure_future(engine.run(requests)))

        return chain(leave, outside=[cache(CacheSettings())], seam=alone)

    finds_fault(hasty, FEW, sessions="a", patience=12)
