"""The driver: never late by its own fault, charging stalls to those they delay, counting every call once. In virtual time."""

import asyncio
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from memlab.errors import internal, timeout, validation
from memlab.experiment.load import Lane, drive, driver_cost, outcome_of, run_in_own_loop
from memlab.measure.clock import ManualClock
from memlab.values import Response
from memlab.workload.mix import Call

READ = Call("episodic.recall", {"query": "q"}, "id", "s")
WRITE = Call("episodic.remember", {"content": "c"}, "id", "s")


class Counted:
    """Stands where the sampling process is."""

    def __init__(self):
        self.expected = []
        self.sent_count = self.finished_count = self.cut_count = 0

    def expect(self, due_ns, start_ns, end_ns):
        self.expected.append((due_ns, start_ns, end_ns))

    def sent(self):
        self.sent_count += 1

    def finished(self):
        self.finished_count += 1

    def cut(self):
        self.cut_count += 1


class Engine:
    """Answers after a time that it is told; one call at a time where it has one server."""

    def __init__(self, service_s=0.001, servers=None, errors=(), keeps_deadline=True):
        self.service_s = service_s
        self.room = asyncio.Semaphore(servers) if servers else None
        self.errors = list(errors)
        self.keeps_deadline = keeps_deadline
        self.deadlines = []
        self.calls = []

    async def execute(self, operation, parameters=None, *, session, deadline_s=None):
        self.calls.append((operation, session))
        self.deadlines.append(deadline_s)
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        if self.room is None:
            await asyncio.sleep(self.service_s)
        else:
            async with self.room:
                await asyncio.sleep(self.service_s)
        return Response({"answer": len(self.calls)}, batch_size=3, phases={"fetch": 5})


@pytest.fixture
def driven(run_virtually):
    """`driven(engine, lane)`: what the lane brought, and what its counter was told."""

    def drive_virtually(engine, lane, **options):
        clock, counter = ManualClock(), Counted()
        return run_virtually(drive(engine.execute, lane, counter, clock=clock, **options), clock), counter

    return drive_virtually


def test_arrivals_do_not_wait_for_answers(driven):
    """Ten calls due every 10 ms are sent every 10 ms, though each takes a second."""
    due = np.arange(10) * 0.01
    result, _ = driven(Engine(service_s=1.0), Lane([READ] * 10, due))
    started = sorted(one.sample.started_ns for one in result.sent)
    assert np.allclose(np.diff(started), 10_000_000, atol=10)
    assert all(one.sample.started_ns - one.sample.intended_ns < 100 for one in result.sent)


def test_a_stall_is_charged_to_everyone_it_delayed(driven):
    """One server of 100 ms and a call every 10 ms: the n-th waits for all before it, counted from when it was due."""
    due = np.arange(5) * 0.01
    result, _ = driven(Engine(service_s=0.1, servers=1), Lane([READ] * 5, due))
    response_ms = [round((one.sample.finished_ns - one.sample.intended_ns) / 1e6) for one in result.sent]
    assert response_ms == [100, 190, 280, 370, 460]


def test_a_driver_that_is_held_up_counts_from_the_due_time(run_virtually):
    """An engine that blocks the loop for 50 ms makes later calls late; their response time begins when they were due."""
    clock, counter = ManualClock(), Counted()

    async def blocking(operation, parameters=None, *, session, deadline_s=None):
        if clock.monotonic_ns() < 20_000_000:
            clock.advance(0.05)
        return Response(None)

    lane = Lane([READ] * 3, np.array([0.0, 0.01, 0.02]))
    result = run_virtually(drive(blocking, lane, counter, clock=clock), clock)
    late_ms = [(one.sample.started_ns - one.sample.intended_ns) / 1e6 for one in result.sent]
    response_ms = [(one.sample.finished_ns - one.sample.intended_ns) / 1e6 for one in result.sent]
    assert late_ms == pytest.approx([0, 40, 30], abs=0.1)
    assert response_ms == pytest.approx([50, 40, 30], abs=0.1)


def test_warm_up_is_marked_and_kept(driven):
    """Calls due in the warm-up are in the samples, marked; the window is what comes after it."""
    due = np.arange(10) * 0.1
    result, counter = driven(Engine(), Lane([READ] * 10, due, warm_up_s=0.3, duration_s=0.7), setting="reference", repeat=4)
    assert [one.sample.warm_up for one in result.sent] == [True] * 3 + [False] * 7
    assert result.end_ns - result.start_ns == 700_000_000
    assert counter.expected[0][1:] == (result.start_ns, result.end_ns)
    assert {(one.sample.setting, one.sample.repeat, one.sample.session) for one in result.sent} == {("reference", 4, "s")}


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (timeout("pool_full", "x"), "refused", "pool_full"),
        (timeout("deadline", "x"), "timeout", "deadline"),
        (internal("outcome_unknown", "x"), "unknown", "outcome_unknown"),
        (internal("storage", "x"), "error", "storage"),
        (validation("bounds", "x"), "error", "bounds"),
    ],
)
def test_failures_are_results(driven, error, outcome, reason):
    """Every way to fail is an outcome with its reason; the next call is not disturbed."""
    assert outcome_of(error) == outcome
    result, counter = driven(Engine(errors=[error]), Lane([READ] * 2, np.array([0.0, 0.1])))
    assert [(one.sample.outcome, one.sample.error) for one in result.sent] == [(outcome, reason), ("ok", None)]
    assert counter.finished_count == 2
    assert result.sent[0].sample.batch_size == 1


def test_answers_keep_how_they_came_about(driven):
    """Cached, batch size and phases stand in the sample."""
    result, _ = driven(Engine(), Lane([READ], np.array([0.0])))
    sample = result.sent[0].sample
    assert (sample.cached, sample.batch_size, sample.phases) == (False, 3, {"fetch": 5})


def test_the_deadline_counts_from_the_due_time(run_virtually):
    """A late call has less time left; one that is too late is not sent at all."""
    clock, counter = ManualClock(), Counted()
    given_s = []

    async def blocking(operation, parameters=None, *, session, deadline_s=None):
        given_s.append(deadline_s)
        clock.advance(0.3)
        return Response(None)

    lane = Lane([READ] * 3, np.array([0.0, 0.01, 0.02]), deadline_s=0.5)
    result = run_virtually(drive(blocking, lane, counter, clock=clock), clock)
    assert given_s == pytest.approx([0.5, 0.21], abs=0.001)
    assert [(one.sample.outcome, one.sample.error) for one in result.sent] == [
        ("ok", None),
        ("ok", None),
        ("timeout", "sent_late"),
    ]


def test_an_engine_that_never_answers_is_given_up(driven):
    """A second after the deadline nobody waits any more: a read was late, a write may have happened."""
    result, counter = driven(Engine(service_s=3600.0), Lane([READ, WRITE], np.array([0.0, 0.1]), deadline_s=2.0))
    assert sorted((one.sample.operation, one.sample.outcome) for one in result.sent) == [
        ("episodic.recall", "timeout"),
        ("episodic.remember", "unknown"),
    ]
    assert {one.sample.error for one in result.sent} == {"gave_up"}
    assert counter.finished_count == 2


def test_outstanding_calls_are_bounded(driven):
    """Beyond the bound the driver refuses, and counts it as a failure."""
    due = np.arange(5) * 0.001
    result, _ = driven(Engine(service_s=1.0), Lane([READ] * 5, due, max_outstanding=2))
    assert Counter(one.sample.error for one in result.sent) == {None: 2, "driver_full": 3}


def test_an_error_of_another_kind_ends_the_run(driven):
    """What is no MemlabError is a mistake in the engine: it is raised, and nothing more is sent."""
    engine = Engine(errors=[None, ZeroDivisionError("wrong")])
    with pytest.raises(ZeroDivisionError):
        driven(engine, Lane([READ] * 50, np.arange(50) * 0.1))
    assert len(engine.calls) < 50


@examples(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40).map(sorted),
    st.floats(0.0001, 0.3),
    st.integers(1, 5),
    st.integers(1, 30),
)
def test_every_call_has_one_outcome(driven, due, service_s, servers, outstanding):
    """However much is due at once: each position is sent once, and finished no earlier than it was due."""
    lane = Lane([READ] * len(due), np.array(due), deadline_s=0.4, max_outstanding=outstanding)
    result, counter = driven(Engine(service_s, servers), lane)
    assert sorted(one.position for one in result.sent) == list(range(len(due)))
    assert counter.finished_count == len(due)
    assert all(one.sample.intended_ns <= one.sample.started_ns <= one.sample.finished_ns for one in result.sent)


def test_answers_of_judged_calls_alone_are_kept(driven):
    """Other answers would fill the memory of a long run."""
    result, _ = driven(Engine(), Lane([READ] * 4, np.arange(4) * 0.1, judged=frozenset({1, 3})))
    assert [one.value is not None for one in sorted(result.sent, key=lambda one: one.position)] == [False, True, False, True]


def test_a_closed_loop_waits_for_its_answers(driven):
    """Three clients of 10 ms each ask 300 times a second; response time counts from the sending, and calls come again."""
    engine = Engine(service_s=0.01)
    lane = Lane([READ, WRITE], None, clients=3, warm_up_s=0.1, duration_s=1.0)
    result, counter = driven(engine, lane)
    measured = [one.sample for one in result.sent if not one.sample.warm_up]
    assert len(measured) == pytest.approx(300, abs=6)
    assert all(one.intended_ns == one.started_ns for one in measured)
    assert counter.expected[0][0] is None
    assert counter.sent_count == counter.finished_count == len(result.sent)
    assert abs(Counter(one.operation for one in measured)["episodic.recall"] - len(measured) / 2) <= 3


def test_clients_may_begin_one_after_the_other(driven):
    """With a ramp the clients of a closed loop begin evenly over it, so that a thousand do not ask at once."""
    result, _ = driven(Engine(service_s=10.0), Lane([READ], None, clients=4, duration_s=1.0, deadline_s=20.0, ramp_s=0.4))
    started = sorted(one.sample.started_ns for one in result.sent)
    assert np.diff(started).tolist() == pytest.approx([100_000_000] * 3, rel=0.001)


@pytest.mark.parametrize("due", [np.arange(1_000) * 0.01, None])
def test_a_stop_ends_the_sending(run_virtually, due):
    """Once told to stop, an open and a closed loop send nothing more, wait for what was sent, and say so."""
    clock, counter = ManualClock(), Counted()
    engine = Engine(service_s=0.05)
    lane = Lane([READ] * 7, due, clients=3, warm_up_s=0.1, duration_s=10.0)

    async def stopped():
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1.0, stop.set)
        return await drive(engine.execute, lane, counter, clock=clock, stop=stop)

    result = run_virtually(stopped(), clock)
    assert result.cut_short
    assert counter.cut_count == 1
    assert (result.end_ns - result.start_ns) / 1e9 == pytest.approx(0.9, abs=0.02)
    assert len(result.sent) == len(engine.calls) == pytest.approx(100 if due is not None else 60, abs=4)
    assert {one.sample.outcome for one in result.sent} == {"ok"}


def test_calls_come_again_where_more_are_due(driven):
    """A long open loop need not hold a call for each arrival."""
    result, _ = driven(Engine(), Lane([READ, WRITE], np.arange(5) * 0.1))
    assert [one.position for one in result.sent] == [0, 1, 0, 1, 0]


def test_a_sink_takes_every_answer(run_virtually):
    """Nothing is kept in memory then, and each call comes with its answer."""
    clock, counter, taken = ManualClock(), Counted(), []
    lane = Lane([READ] * 3, np.arange(3) * 0.1)
    result = run_virtually(drive(Engine().execute, lane, counter, clock=clock, sink=taken.append), clock)
    assert result.sent == []
    assert [one.value is not None for one in taken] == [True] * 3


def test_clients_share_an_engine_that_never_suspends(run_virtually):
    """Answers from memory come without a pause; every client still gets its turn."""
    clock, counter = ManualClock(), Counted()
    who = Counter()

    async def at_once(operation, parameters=None, *, session, deadline_s=None):
        who[asyncio.current_task().get_name()] += 1
        clock.advance(0.001)
        return Response(None)

    run_virtually(drive(at_once, Lane([READ], None, clients=4, duration_s=0.4), counter, clock=clock), clock)
    assert len(who) == 4
    assert max(who.values()) - min(who.values()) <= 1


def test_the_drivers_own_cost_is_measured():
    """A cost above nothing, and the rate that it allows; asked of no engine."""
    cost = run_in_own_loop(driver_cost(READ, Counted(), calls=200))
    assert cost.call_us > 0
    assert cost.rate_per_s == pytest.approx(1e6 / cost.call_us)


def test_a_loop_of_its_own_works_beside_a_running_one():
    """A notebook's kernel has a loop already; results and errors come through."""

    async def answer():
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def outer():
        return run_in_own_loop(answer())

    assert asyncio.run(outer()) == "memlab-driver"

    async def wrong():
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run_in_own_loop(wrong())
