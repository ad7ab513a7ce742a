"""A place for each group, in order, and none is ever lost."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.errors import ErrorType, MemlabError
from memlab.measure.clock import ManualClock
from memlab.middleware.batch import batch
from memlab.middleware.chain import alone, chain
from memlab.middleware.pool import pool
from memlab.settings import BatchSettings, PoolSettings
from memlab.values import Response
from tests.middleware.keyvalue import KeyValueEngine, ask, hops, run


class Gate:
    """A group function that lets each group through when it is told to."""

    def __init__(self):
        self.inside = []
        self._opened = []

    async def run(self, requests):
        opened = asyncio.get_running_loop().create_future()
        self.inside.append(requests)
        self._opened.append(opened)
        try:
            await opened
        finally:
            self.inside.remove(requests)
        return [Response(request.parameters.key) for request in requests]

    def open(self):
        self._opened.pop(0).set_result(None)


def note(key):
    return ask("episodic.note_get", key=key)


def test_no_more_than_the_limit_runs_at_once_and_the_others_keep_their_order():
    """With two places the third waits, and the line is served first come, first served."""

    async def main():
        gate, places = Gate(), pool(PoolSettings(limit=2))
        handle = places(gate.run)
        tasks = [asyncio.ensure_future(handle([note(key)])) for key in "abcd"]
        await hops(3)
        assert [group[0].parameters.key for group in gate.inside] == ["a", "b"]
        assert places.statistics() | {"in_use": 2, "waiting": 2, "max_waiting": 2} == places.statistics()
        gate.open()
        await hops(3)
        assert [group[0].parameters.key for group in gate.inside] == ["b", "c"]
        for _ in range(3):
            gate.open()
            await hops(3)
        assert [(await task)[0].value for task in tasks] == list("abcd")
        assert places.statistics() | {"in_use": 0, "waiting": 0, "acquired": 4, "refused": 0} == places.statistics()

    run(main())


def test_who_waits_too_long_is_refused():
    """Every member of a group that got no place in time has TIMEOUT `pool_full`, each its own; who has the place goes on."""

    async def main():
        gate, places = Gate(), pool(PoolSettings(limit=1, acquire_timeout_s=2.0), clock)
        handle = places(gate.run)
        first = asyncio.ensure_future(handle([note("a")]))
        await hops(2)
        before = clock.monotonic_ns()
        errors = await handle([note("b"), note("c")])
        assert 2.0 <= (clock.monotonic_ns() - before) / 1e9 < 2.001
        assert [(error.type, error.reason, error.retryable) for error in errors] == [(ErrorType.TIMEOUT, "pool_full", True)] * 2
        assert errors[0] is not errors[1]
        gate.open()
        assert (await first)[0].value == "a"
        assert places.statistics() | {"refused": 1, "acquired": 1, "in_use": 0, "waiting": 0} == places.statistics()

    clock = ManualClock()
    run(main(), clock)


def test_the_line_does_not_grow_while_places_stay_taken():
    """Those who were refused, or left, are out of the line even if no place ever becomes free."""

    async def main():
        gate, places = Gate(), pool(PoolSettings(limit=1, acquire_timeout_s=1.0))
        handle = places(gate.run)
        holder = asyncio.ensure_future(handle([note("a")]))
        await hops(2)
        for _ in range(20):
            tasks = [asyncio.ensure_future(handle([note("b")])) for _ in range(3)]
            await hops(2)
            tasks[1].cancel()
            await asyncio.wait(tasks)
        assert len(places._line) == 0
        assert places.statistics() | {"waiting": 0, "refused": 40, "in_use": 1} == places.statistics()
        gate.open()
        await holder

    run(main())


def test_who_is_cancelled_in_line_frees_his_place():
    """A waiting group that is cancelled leaves the line; one that is cancelled in the moment it is let in passes the place on."""

    async def main():
        gate, places = Gate(), pool(PoolSettings(limit=1))
        handle = places(gate.run)
        tasks = [asyncio.ensure_future(handle([note(key)])) for key in "abcd"]
        await hops(2)
        tasks[1].cancel()
        await hops(2)
        gate.open()
        while tasks[0] in asyncio.all_tasks():  # until c has been given the place and has not yet woken
            await hops(1)
        tasks[2].cancel()
        await hops(3)
        assert [group[0].parameters.key for group in gate.inside] == ["d"]
        gate.open()
        assert (await tasks[3])[0].value == "d"
        assert tasks[1].cancelled()
        assert tasks[2].cancelled()
        assert places.statistics() | {"in_use": 0, "waiting": 0} == places.statistics()

    run(main())


def test_a_failing_group_gives_its_place_back():
    """Whatever ends a group, its place is free again."""

    async def main():
        async def fail(requests):
            raise ValueError("a bug")

        places = pool(PoolSettings(limit=1))
        handle = places(fail)
        for _ in range(3):
            with pytest.raises(ValueError, match="a bug"):
                await handle([note("a")])
        assert places.statistics()["in_use"] == 0

    run(main())


def test_who_ran_out_of_time_in_line_is_not_executed():
    """A member whose deadline passed while its group waited gets TIMEOUT `deadline`; the others keep their answers and places."""

    async def main():
        gate, places = Gate(), pool(PoolSettings(limit=1, acquire_timeout_s=100.0), clock)
        handle = places(gate.run)
        first = asyncio.ensure_future(handle([note("a")]))
        soon = clock.monotonic_ns() + 1_000
        group = [note("b"), ask("episodic.note_get", key="c", deadline_ns=soon), note("d")]
        second = asyncio.ensure_future(handle(group))
        third = asyncio.ensure_future(handle([ask("episodic.note_get", key="e", deadline_ns=soon)]))
        await hops(2)
        clock.advance(seconds=1.0)
        gate.open()
        await hops(3)
        assert [request.parameters.key for request in gate.inside[0]] == ["b", "d"]
        gate.open()
        await first
        outcomes = await second
        assert [outcomes[0].value, outcomes[2].value] == ["b", "d"]
        assert outcomes[1].reason == "deadline"
        assert [error.reason for error in await third] == ["deadline"]
        assert places.statistics() | {"expired": 2, "in_use": 0} == places.statistics()

    clock = ManualClock()
    run(main(), clock)


def ask_within(key, seconds, clock, operation="episodic.note_get", **given):
    return ask(operation, key=key, deadline_ns=clock.monotonic_ns() + round(seconds * 1e9), **given)


def test_who_has_less_time_left_than_a_group_usually_takes_is_not_executed():
    """Work for a caller who will have gone keeps others waiting until they are late too; who has enough time goes on."""

    async def main():
        gate, places = Gate(), pool(PoolSettings(limit=1), clock)
        handle = places(gate.run)

        async def executed(*group):
            before = len(gate.inside)
            call = asyncio.ensure_future(handle(list(group)))
            await hops(2)
            keys = [request.parameters.key for request in gate.inside[before]] if len(gate.inside) > before else []
            if keys:
                clock.advance(seconds=1.0)
                gate.open()
            return keys, [getattr(outcome, "reason", "ok") for outcome in await call]

        for _ in range(3):
            assert await executed(ask_within("a", 0.5, clock), note("b")) == (["a", "b"], ["ok", "ok"])  # nothing is known yet
        await executed(note("a"), note("b"))
        short, long = ask_within("a", 0.5, clock), ask_within("b", 2.0, clock)
        assert await executed(short, long, note("c")) == (["b", "c"], ["deadline", "ok", "ok"])
        assert places.statistics()["expired"] == 1
        # One goes in any case, if it is not late already: it tells how long a group takes now.
        short, longer = ask_within("a", 0.5, clock), ask_within("b", 0.6, clock)
        assert await executed(short, longer) == (["b"], ["deadline", "ok"])
        assert await executed(ask_within("a", 0.5, clock)) == (["a"], ["ok"])
        late = ask_within("a", 0.5, clock)
        clock.advance(seconds=0.5)
        assert await executed(late, late) == ([], ["deadline", "deadline"])
        put = [ask_within(key, 0.5, clock, "episodic.note_put", value=1) for key in "ab"]
        assert await executed(*put) == (["a", "b"], ["ok", "ok"])  # writes are another matter

    clock = ManualClock()
    run(main(), clock)


def test_the_usual_time_is_that_of_the_last_groups():
    """When groups have become quick again, who has little time is executed again."""

    async def main():
        gate, places = Gate(), pool(PoolSettings(limit=1), clock)
        handle = places(gate.run)

        async def take(seconds, group):
            call = asyncio.ensure_future(handle(group))
            await hops(2)
            clock.advance(seconds=seconds)
            gate.open()
            return [getattr(outcome, "reason", "ok") for outcome in await call]

        for _ in range(20):
            await take(1.0, [note("a"), note("b")])
        quick = [ask_within("a", 0.5, clock), ask_within("b", 0.6, clock)]
        assert "deadline" in await take(0.01, quick)
        for _ in range(20):
            await take(0.01, [ask_within("a", 0.5, clock), ask_within("b", 0.6, clock)])
        assert await take(0.01, [ask_within("a", 0.5, clock), ask_within("b", 0.6, clock)]) == ["ok", "ok"]

    clock = ManualClock()
    run(main(), clock)


@pytest.mark.parametrize("load", [0.9, 1.1, 1.3, 1.5])
def test_more_load_than_there_is_room_for_leaves_as_much_answered_in_time(load):
    """Poisson arrivals of *load* times what one processor carries: nearly all that it carries is answered before its deadline.

    Served first come, first served until the deadline itself, everyone is executed when it is too late for him: at 1.5 times the
    load less than half of what could be answered then is.
    """
    limit, fixed_s, each_s, deadline_s, seconds = 64, 0.010, 0.002, 1.0, 6.0
    carried_per_s = 1.0 / (each_s + fixed_s / limit)
    chance, clock = random.Random(1), ManualClock()
    in_time = []

    async def main():
        processor = asyncio.Lock()

        async def work(requests):
            async with processor:
                await asyncio.sleep(fixed_s + each_s * len(requests))
            return [Response(request.parameters.key) for request in requests]

        settings = BatchSettings(limit=limit)
        handle = chain(work, seam=batch(settings, clock), inside=[pool(PoolSettings(limit=4), clock)])

        async def call(due_s):
            kind, given = ("put", {"value": 1}) if chance.random() < 0.15 else ("get", {})
            deadline_ns = round((due_s + deadline_s) * 1e9)
            session = f"s{chance.randrange(16)}"
            try:
                await handle(ask(f"episodic.note_{kind}", session, key="k", deadline_ns=deadline_ns, **given))
            except MemlabError:
                in_time.append(False)
            else:
                in_time.append(clock.monotonic_ns() <= deadline_ns)

        due_s = clock.monotonic_ns() / 1e9
        end_s, calls = due_s + seconds, []
        while (due_s := due_s + chance.expovariate(load * carried_per_s)) < end_s:
            await asyncio.sleep(max(due_s - clock.monotonic_ns() / 1e9, 0.0))
            calls.append(asyncio.ensure_future(call(due_s)))
        await asyncio.gather(*calls)

    run(main(), clock)
    assert sum(in_time) >= 0.9 * min(len(in_time), carried_per_s * seconds)


def test_the_time_in_line_is_counted():
    """The mean wait is over all places that were given, those without a wait included."""

    async def main():
        gate, places = Gate(), pool(PoolSettings(limit=1), clock)
        handle = places(gate.run)
        tasks = [asyncio.ensure_future(handle([note(key)])) for key in "ab"]
        await hops(2)
        clock.advance(seconds=0.5)
        gate.open()
        await hops(3)
        gate.open()
        await asyncio.gather(*tasks)
        assert places.statistics() | {"wait_time_total_ms": 500.0, "wait_time_mean_ms": 250.0} == places.statistics()

    clock = ManualClock()
    run(main(), clock)


@given(limit=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_no_place_is_lost(limit, seed):
    """After any mixture of calls, cancellations and refusals every place is free, and never were more in use than there are."""

    async def main():
        chance, engine = random.Random(seed), KeyValueEngine(seed, patience=6)
        places = pool(PoolSettings(limit=limit))
        handle = chain(engine.run, seam=alone, inside=[places])

        async def caller(number):
            await hops(chance.randint(0, 5))
            task = asyncio.ensure_future(handle(ask("episodic.note_put", key=str(number), value=number)))
            if chance.random() < 0.4:
                await hops(chance.randint(0, 12))
                task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled() and isinstance(task.exception(), MemlabError):
                raise AssertionError(task.exception())

        await asyncio.gather(*(caller(number) for number in range(12)))
        assert engine.most_running <= limit
        found = places.statistics()
        assert (found["in_use"], found["waiting"]) == (0, 0)
        assert found["max_waiting"] <= 12
        assert found["acquired"] == len(engine.groups)

    run(main())


def test_an_adaptive_limit_lets_more_in_while_nothing_queues():
    """Groups that take the same whatever runs beside them: from four places up to the most, and never beyond."""

    async def scenario():
        gate, settings, clock = Gate(), PoolSettings(limit=8, adaptive=True), ManualClock()
        places = pool(settings, clock)
        admit = places(gate.run)
        waiting = [asyncio.ensure_future(admit([note(f"k{number}")])) for number in range(400)]
        await hops(9)
        seen = [len(gate.inside)]
        while gate.inside:
            clock.advance(seconds=0.08 / len(gate.inside))
            gate.open()
            await hops(9)
            seen.append(len(gate.inside))
        await asyncio.gather(*waiting)
        return seen, places.statistics()

    seen, statistics = run(scenario())
    assert seen[0] == 4 and max(seen) == 8
    assert statistics["in_use"] == 0 and statistics["acquired"] == 400


def test_a_limit_that_shrinks_takes_no_place_away():
    """Who is inside stays; places that come back are kept until there are fewer than the limit."""

    async def scenario():
        gate = Gate()
        places = pool(PoolSettings(limit=4), ManualClock())
        admit = places(gate.run)
        waiting = [asyncio.ensure_future(admit([note(f"k{number}")])) for number in range(8)]
        await hops(9)
        places._limit = 2
        seen = [len(gate.inside)]
        while gate.inside:
            gate.open()
            await hops(9)
            seen.append(len(gate.inside))
        await asyncio.gather(*waiting)
        return seen

    assert run(scenario()) == [4, 3, 2, 2, 2, 2, 2, 1, 0]
