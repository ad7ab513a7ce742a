"""Who travels with whom, in which order, and that nobody gets another's answer."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.errors import ErrorType, MemlabError, internal
from memlab.measure.clock import ManualClock
from memlab.middleware.batch import batch
from memlab.middleware.chain import chain
from memlab.middleware.pool import pool
from memlab.settings import BatchSettings, PoolSettings
from memlab.values import Response
from tests.middleware.keyvalue import KeyValueEngine, ask, hops, run


class Timed:
    """A group function that takes a given time, and writes down when each group began and what was in it."""

    def __init__(self, clock, seconds=0.010):
        self.clock = clock
        self.seconds = seconds
        self.groups = []  # milliseconds since the start, keys

    async def run(self, requests):
        self.groups.append((round(self.clock.monotonic_ns() / 1e6, 3), "".join(request.parameters.key for request in requests)))
        await asyncio.sleep(self.seconds)
        return [Response(request.parameters.key) for request in requests]


def read(key, session="default", **given):
    return ask("episodic.note_get", session, key=key, **given)


def write(key, session="default", **given):
    return ask("episodic.note_put", session, key=key, value=1, **given)


def timed(schedule, **settings):
    """Submit requests at their times, in milliseconds, and return the groups that they travelled in and the answers."""
    clock = ManualClock()
    engine, middleware = Timed(clock), batch(BatchSettings(**settings), clock)
    handle = chain(engine.run, seam=middleware)

    async def main():
        calls = []
        for at_ms, request in schedule:
            if clock.monotonic_ns() < at_ms * 1_000_000:
                await asyncio.sleep(at_ms / 1e3 - clock.monotonic_ns() / 1e9)
            calls.append(asyncio.ensure_future(handle(request)))
        return [response.value for response in await asyncio.gather(*calls)]

    assert run(main(), clock) == [request.parameters.key for _, request in schedule]
    return [(round(at), keys) for at, keys in engine.groups], middleware.statistics()


# --- when a lane sends -----------------------------------------------------------------------------------------------


def test_an_idle_adaptive_lane_sends_at_once_with_all_who_woke_together():
    """Nobody waits for company that is not there; those who are there go together."""
    groups, found = timed([(1, read("a")), (50, read("b")), (50, read("c")), (50, read("d"))])
    assert groups == [(1, "a"), (50, "bcd")]
    assert found | {"groups": 2, "calls": 4, "mean_size": 2.0, "max_size": 3, "read_groups": 2, "write_groups": 0} == found


def test_a_busy_adaptive_lane_gathers_until_the_window_of_the_oldest_ends():
    """While a group is in flight for long, the next leaves when its oldest call has waited for the window."""
    groups, _ = timed([(1, read("a")), (3, read("b")), (5, read("c")), (7, read("d")), (9, read("e"))], window_ms=5.0)
    assert groups == [(1, "a"), (8, "bcd"), (11 + 3, "e")]


def test_a_busy_adaptive_lane_gathers_until_the_group_returns():
    """When the group in flight returns before the window ends, the next leaves then."""
    groups, _ = timed([(1, read("a")), (4, read("b")), (9, read("c")), (30, read("d"))], window_ms=50.0)
    assert groups == [(1, "a"), (11, "bc"), (30, "d")]


def test_without_window_only_the_return_counts():
    """With window_ms 0 a call waits for nothing but the group in flight, adaptive or not."""
    for adaptive in (True, False):
        groups, _ = timed([(1, read("a")), (2, read("b")), (10, read("c")), (30, read("d"))], window_ms=0.0, adaptive=adaptive)
        assert groups == [(1, "a"), (11, "bc"), (30, "d")]


def test_a_lane_that_is_not_adaptive_always_waits_for_its_window():
    """Idle or not, a group leaves when its oldest call has waited for the window."""
    groups, _ = timed([(1, read("a")), (3, read("b")), (7, read("c")), (30, read("d"))], window_ms=5.0, adaptive=False)
    assert groups == [(6, "ab"), (12, "c"), (35, "d")]


def test_with_an_objective_the_window_follows_what_calls_take():
    """A group takes 10 ms; an objective of 13 ms leaves 3 for the window, one of 9 leaves none, one of 50 all that is allowed."""

    def ends(objective_ms, **given):
        """Return the windows at the end: calls far apart, so that each waits out the window alone."""
        schedule = [(1 + number * 50, read("a")) for number in range(800)]
        return timed(schedule, window_ms=8.0, adaptive=False, objective_ms=objective_ms, **given)[1]

    assert ends(50.0)["read_window_ms"] == 8.0
    assert ends(9.0)["read_window_ms"] == 0.5
    assert 2.0 <= ends(13.0)["read_window_ms"] <= 3.5
    assert ends(50.0)["write_window_ms"] == 0.5, "each lane has its own"
    assert ends(50.0, limit=1)["read_window_ms"] == 0.5, "nobody waits for a window where one call is a full group"


def test_calls_that_expire_shorten_the_window():
    """Given up before they were too late for the objective, they were not answered in time all the same."""
    clock = ManualClock()
    middleware = batch(BatchSettings(window_ms=8.0, adaptive=False, objective_ms=20.0), clock)
    handle = chain(Timed(clock, 0.001).run, seam=middleware)

    async def ask_for(count, left_ms):
        for _ in range(count):
            deadline_ns = None if left_ms is None else clock.monotonic_ns() + left_ms * 1_000_000
            await asyncio.wait([asyncio.ensure_future(handle(read("a", deadline_ns=deadline_ns)))])

    async def main():
        await ask_for(20 * 16, None)
        assert middleware.statistics()["read_window_ms"] == 8.0
        await ask_for(60, 5)

    run(main(), clock)
    found = middleware.statistics()
    assert found["expired"] > 1
    assert found["read_window_ms"] < 5.0


def test_a_full_group_waits_for_nothing():
    """`limit` calls leave at once, whatever is in flight; what is left over waits."""
    schedule = [(1, read("a")), *((3, read(key)) for key in "bcdefgh")]
    groups, found = timed(schedule, window_ms=4.0, limit=3)
    assert groups == [(1, "a"), (3, "bcd"), (3, "efg"), (7, "h")]
    assert found["max_size"] == 3
    groups, _ = timed(schedule, window_ms=4.0, limit=3, adaptive=False)
    assert groups == [(3, "abc"), (3, "def"), (7, "gh")]


def test_one_group_of_writes_is_in_flight():
    """Writes that come meanwhile leave together when it returns, in the order of submission, at most `limit`."""
    schedule = [(1, write("a")), *((2, write(key, key)) for key in "bcdef")]
    groups, found = timed(schedule, limit=4)
    assert groups == [(1, "a"), (11, "bcde"), (21, "f")]
    assert found | {"write_groups": 3, "write_calls": 6, "write_max_size": 4, "read_calls": 0} == found


def test_reads_and_writes_of_different_sessions_do_not_wait_for_each_other():
    """The lanes are apart: a write does not hold up another session's read."""
    groups, _ = timed([(1, write("a", "one")), (2, read("b", "two"))])
    assert groups == [(1, "a"), (2, "b")]


def test_a_half_full_group_does_not_stand_in_the_line_of_the_pool():
    """While the pool has no room the lane goes on gathering past its window; full groups, and idle lanes, go all the same."""
    clock = ManualClock()
    engine, middleware = Timed(clock), batch(BatchSettings(window_ms=2.0, limit=4), clock)
    places = pool(PoolSettings(limit=1), clock)
    handle = chain(engine.run, seam=middleware, inside=[places])

    async def main():
        calls = []
        for at_ms, keys in ((1, "a"), (2, "b"), (8, "c"), (25, "defgh"), (26, "i")):
            await asyncio.sleep(at_ms / 1e3 - clock.monotonic_ns() / 1e9)
            calls += [asyncio.ensure_future(handle(read(key))) for key in keys]
        await asyncio.gather(*calls)

    run(main(), clock)
    assert [(round(at), keys) for at, keys in engine.groups] == [(1, "a"), (11, "bc"), (25, "defg"), (35, "hi")]
    assert places.statistics()["max_waiting"] == 0


def test_a_lane_that_was_held_up_by_the_pool_keeps_its_window():
    """When a place is free again, who has waited for the window goes, whatever else is in flight."""
    clock = ManualClock()
    engine = Timed(clock)
    handle = chain(engine.run, seam=batch(BatchSettings(window_ms=2.0), clock), inside=[pool(PoolSettings(limit=2), clock)])

    async def main():
        calls = []
        for at_ms, keys in ((1, "a"), (2, "b"), (5, "c"), (12, "d")):
            await asyncio.sleep(at_ms / 1e3 - clock.monotonic_ns() / 1e9)
            calls += [asyncio.ensure_future(handle(read(key))) for key in keys]
        await asyncio.gather(*calls)

    run(main(), clock)
    assert [(round(at), keys) for at, keys in engine.groups] == [(1, "a"), (4, "b"), (11, "c"), (14, "d")]


def test_the_answer_says_how_many_travelled():
    """Response.batch_size is the number of calls executed together."""

    async def main():
        handle = chain(KeyValueEngine().run, seam=batch(BatchSettings()))
        return await asyncio.gather(*(handle(ask("episodic.note_list", session)) for session in "abc"))

    assert [response.batch_size for response in run(main())] == [3, 3, 3]


# --- order around writes ---------------------------------------------------------------------------------------------


def test_a_read_waits_for_the_writes_submitted_before_it():
    """A read starts when the last write of its session before it has ended, however many groups away that is."""
    groups, _ = timed([(1, write("a")), (2, write("b")), (3, read("c")), (4, write("d")), (5, read("e"))], limit=1)
    assert groups == [(1, "a"), (11, "b"), (21, "c"), (21, "d"), (31, "e")]


def test_a_write_does_not_wait_for_reads():
    """A read that is on its way holds up no later write."""
    groups, _ = timed([(1, read("a")), (2, write("b"))])
    assert groups == [(1, "a"), (2, "b")]


def test_many_callers_of_one_busy_session_meet_in_large_groups():
    """256 callers of one session, nine reads to a write: the mean group stays above a hundred reads."""

    async def main():
        chance = random.Random(1)

        async def caller():
            for _ in range(20):
                await handle(read("x") if chance.random() < 0.9 else write("x"))

        await asyncio.gather(*(caller() for _ in range(256)))

    clock = ManualClock()
    engine, middleware = Timed(clock), batch(BatchSettings(), clock)
    handle = chain(engine.run, seam=middleware)
    run(main(), clock)
    assert middleware.statistics()["read_mean_size"] > 100
    assert middleware.statistics()["write_mean_size"] > 10


SUBMISSIONS = st.lists(
    st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(0, 4), st.one_of(st.none(), st.none(), st.integers(0, 10))),
    min_size=1,
    max_size=40,
)


@given(
    submissions=SUBMISSIONS,
    seed=st.integers(0, 2**32),
    limit=st.sampled_from([1, 2, 5, 100]),
    window_ms=st.sampled_from([0.0, 1.0]),
    adaptive=st.booleans(),
)
def test_order_of_submission_holds_around_writes(submissions, seed, limit, window_ms, adaptive):
    """Nobody misses a write of his session that was submitted before, even one not yet answered; writes keep their order.

    Each write says its number and each read lists what is there, so what a read saw tells which writes it came after.
    Cancelled writes may or may not have happened, but none is executed out of order.
    """
    engine = KeyValueEngine(seed)
    handle = chain(engine.run, seam=batch(BatchSettings(limit=limit, window_ms=window_ms, adaptive=adaptive)))

    async def main():
        tasks = []
        for number, (reads, session, pause, cancelled_after) in enumerate(submissions):
            request = (
                ask("episodic.note_get", session, key="x") if reads else ask("episodic.note_put", session, key="x", value=number)
            )
            task = asyncio.ensure_future(handle(request))
            tasks.append(task)
            await hops(pause + 1)  # it is submitted by now
            if cancelled_after is not None:
                asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.wait(tasks)
        return tasks

    tasks = run(main())
    for number, (reads, session, _, _) in enumerate(submissions):
        if tasks[number].cancelled():
            continue
        seen = tasks[number].exception() or tasks[number].result().value
        earlier = [
            other
            for other in range(number)
            if submissions[other][1] == session and not submissions[other][0] and not tasks[other].cancelled()
        ]
        latest = -1 if isinstance(seen, MemlabError) or seen is None else seen[0]
        assert latest >= max(earlier, default=-1)
        if not reads:
            assert latest < number
    executed = [request.parameters.value for group in engine.groups for request in group if hasattr(request.parameters, "value")]
    assert executed == sorted(executed)


# --- each his own ----------------------------------------------------------------------------------------------------


def test_an_error_is_its_members_own():
    """One member's error is raised to its caller; the others of the group have their answers."""

    async def main():
        handle = chain(KeyValueEngine().run, seam=batch(BatchSettings()))
        return await asyncio.gather(
            handle(write("x")),
            handle(ask("episodic.note_put", key="y", value=-1)),
            handle(write("z")),
            return_exceptions=True,
        )

    first, second, third = run(main())
    assert (first.batch_size, third.batch_size) == (3, 3)
    assert (second.type, second.reason) == (ErrorType.VALIDATION, "bounds")


@pytest.mark.parametrize("error", [internal("storage", "broken"), ValueError("a bug")])
def test_a_group_that_fails_as_a_whole_fails_every_member(error):
    """Each caller gets the error, a copy of his own where it is ours, and the lane goes on."""

    async def engine(requests):
        if requests[0].parameters.key == "bad":
            raise error
        return await KeyValueEngine().run(requests)

    async def main():
        handle = chain(engine, seam=batch(BatchSettings()))
        failed = await asyncio.gather(handle(write("bad")), handle(write("b")), return_exceptions=True)
        return failed, await handle(write("c"))

    failed, after = run(main())
    assert [(type(one), str(one)) for one in failed] == [(type(error), str(error))] * 2
    if isinstance(error, MemlabError):
        assert failed[0] is not failed[1]
    assert after.batch_size == 1


def test_a_group_that_comes_back_short_fails_every_member():
    """Answers that cannot be told apart are given to nobody."""

    async def engine(requests):
        return (await KeyValueEngine().run(requests))[1:]

    async def main():
        handle = chain(engine, seam=batch(BatchSettings()))
        return await asyncio.gather(handle(write("a")), handle(write("b")), return_exceptions=True)

    assert [one.reason for one in run(main())] == ["bug", "bug"]


def test_a_cancelled_call_that_waits_is_never_executed():
    """It is dropped before its group is sent, read or write, and the others go on."""

    async def main():
        engine, middleware = KeyValueEngine(patience=5), batch(BatchSettings())
        handle = chain(engine.run, seam=middleware)
        first = [asyncio.ensure_future(handle(one)) for one in (read("a", "r"), write("a", "w"))]
        await hops(3)
        waiting = [
            asyncio.ensure_future(handle(one)) for one in (read("b", "r"), write("b", "w"), read("c", "r"), write("c", "w"))
        ]
        await hops(1)
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.wait([*first, *waiting])
        assert waiting[0].cancelled()
        assert waiting[1].cancelled()
        assert waiting[3].result().value is None
        executed = [request.parameters.key for group in engine.groups for request in group]
        assert sorted(executed) == ["a", "a", "c", "c"]
        assert middleware.statistics()["dropped"] == 2

    run(main())


def test_a_read_behind_a_dropped_write_still_waits_for_the_writes_before_that():
    """Dropping a write lets nobody overtake the one before it."""

    async def main():
        engine = KeyValueEngine(patience=5)
        handle = chain(engine.run, seam=batch(BatchSettings(limit=1)))
        writes = [asyncio.ensure_future(handle(ask("episodic.note_put", key="x", value=number))) for number in (1, 2, 3)]
        await hops(2)
        answer = asyncio.ensure_future(handle(read("x")))
        await hops(1)
        writes[2].cancel()
        assert (await answer).value == (2, ())

    run(main())


def test_a_cancelled_reader_leaves_at_once_and_a_cancelled_writer_when_it_is_settled():
    """Once sent, the group goes on for the others; a write's caller is let go when the write can have no further effect."""

    async def main():
        opened = asyncio.get_running_loop().create_future()

        async def engine(requests):
            await asyncio.shield(opened)
            return [Response(request.parameters.key) for request in requests]

        handle = chain(engine, seam=batch(BatchSettings()))
        readers = [asyncio.ensure_future(handle(read(key, "r"))) for key in "ab"]
        writers = [asyncio.ensure_future(handle(write(key, "w"))) for key in "cd"]
        await hops(4)
        readers[0].cancel()
        writers[0].cancel()
        await hops(4)
        assert readers[0].cancelled()
        assert not writers[0].done()
        opened.set_result(None)
        await asyncio.wait([*readers, *writers])
        assert writers[0].cancelled()
        assert [readers[1].result().value, writers[1].result().value] == ["b", "d"]

    run(main())


def test_a_call_past_its_deadline_is_not_executed():
    """When its group is made up too late for it, a call gets TIMEOUT `deadline`; nobody behind it is held up."""

    async def main():
        engine, middleware = Timed(clock), batch(BatchSettings(), clock)
        handle = chain(engine.run, seam=middleware)
        soon = clock.monotonic_ns() + 5_000_000
        results = await asyncio.gather(
            handle(write("a")),
            *(_later(handle, one) for one in (write("b", deadline_ns=soon), read("c", deadline_ns=soon), read("d"))),
            return_exceptions=True,
        )
        assert results[0].value == "a"
        assert [(one.type, one.reason) for one in results[1:3]] == [(ErrorType.TIMEOUT, "deadline")] * 2
        assert results[3].value == "d"
        assert [keys for _, keys in engine.groups] == ["a", "d"]
        assert middleware.statistics()["expired"] == 2

    clock = ManualClock()
    run(main(), clock)


async def _later(handle, request):
    await asyncio.sleep(0.001)
    return await handle(request)


def test_a_loop_that_ended_in_the_middle_holds_nobody_up():
    """What was waiting in one event loop is gone with it; the next loop starts afresh."""
    engine = KeyValueEngine(patience=50)
    handle = chain(engine.run, seam=batch(BatchSettings(window_ms=1000.0, adaptive=False)))

    async def leave():
        asyncio.ensure_future(handle(write("a")))  # noqa: RUF006  it is left behind on purpose
        await hops(2)

    run(leave())
    assert run(handle(write("b"))).batch_size == 1


def test_a_loop_that_ends_cancels_who_is_on_the_way():
    """Ending an event loop ends its groups and their callers; nothing hangs."""
    engine = KeyValueEngine(patience=50, seed=3)
    handle = chain(engine.run, seam=batch(BatchSettings()))
    left = []

    async def leave():
        left.extend(asyncio.ensure_future(handle(one)) for one in (write("a"), read("b", "other")))
        await hops(4)

    run(leave())
    assert all(task.done() for task in left)


def test_what_takes_long_travels_alone():
    """A complex read and a job hold up no group, and what comes behind a job does not wait for it."""
    clock = ManualClock()
    groups = []

    async def engine(requests):
        names = [request.operation.partition(".")[2] for request in requests]
        groups.append((round(clock.monotonic_ns() / 1e6), " ".join(names)))
        await asyncio.sleep(1.0 if "deduplicate" in names else 0.01)
        return [Response(name) for name in names]

    handle = chain(engine, seam=batch(BatchSettings(), clock))

    async def main():
        await hops(1)
        names = ["get_stats", "list", "store_fact", "list", "deduplicate", "analyze_topics", "list"]
        calls = {
            "store_fact": {"subject": "Ada", "predicate": "drinks", "object": "tea"},
        }
        waiting = [asyncio.ensure_future(handle(ask(f"semantic.{name}", **calls.get(name, {})))) for name in names]
        assert [(await call).value for call in waiting] == names

    run(main(), clock)
    assert groups == [
        (0, "get_stats"),
        (0, "list"),
        (0, "store_fact"),
        (10, "deduplicate"),
        (10, "analyze_topics"),
        (10, "list list"),
    ]
