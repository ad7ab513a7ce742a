"""The oracle: what was acknowledged and is not there is found, whatever the engine says."""

import asyncio

import msgspec
import pytest

from memlab.engine import Engine
from memlab.experiment.oracle import Oracle
from memlab.settings import Settings
from memlab.values import Response
from memlab.workload.mix import Call


@pytest.fixture
def engine(tmp_path):
    with Engine.open(tmp_path / "oracle.duckdb", Settings.off()) as opened:
        yield opened


async def told(engine, oracle, operation, parameters, session):
    """Execute a write and tell the oracle."""
    value = (await engine.execute(operation, parameters, session=session)).value
    oracle.note(Call(operation, parameters, session, "a"), "ok", value)
    return value


async def two_sessions(engine):
    sessions = {label: (await engine.execute("session.create")).value for label in ("a", "b")}
    oracle = Oracle(sessions, seed=1)
    await oracle.plant(engine.execute)
    return sessions, oracle


def test_what_was_acknowledged_is_found(engine):
    """Every kind of write: stored alone and in bulk, updated, forgotten by id and by condition."""

    async def work():
        sessions, oracle = await two_sessions(engine)
        mine = sessions["a"]
        event = await told(engine, oracle, "episodic.remember", {"content": "one"}, mine)
        fact = await told(engine, oracle, "semantic.store", {"content": "two"}, mine)
        await told(engine, oracle, "semantic.update", {"id": fact.id, "content": "three"}, mine)
        await told(engine, oracle, "semantic.store_fact", {"subject": "x", "predicate": "is", "object": "y"}, mine)
        await told(engine, oracle, "episodic.bulk_remember", {"events": [{"content": "four"}, {"content": "five"}]}, mine)
        await told(engine, oracle, "episodic.forget", {"ids": [event.id]}, mine)
        await told(engine, oracle, "episodic.remember", {"content": "six", "tags": ["t"]}, mine)
        await told(engine, oracle, "episodic.forget_where", {"tags": ["t"]}, mine)
        return await oracle.check(engine.execute)

    checked = asyncio.run(work())
    assert checked.holds
    assert (checked.sessions, checked.canaries, checked.canaries_found) == (2, 2, 2)
    assert checked.acknowledged == 2 + 4  # the canaries; two facts and two events that were not forgotten


@pytest.mark.parametrize(
    ("falsify", "kind"),
    [
        (lambda rows: rows[:-1], "missing"),
        (lambda rows: [*rows[:-1], {**rows[-1], "memory": {**rows[-1]["memory"], "content": "other"}}], "altered"),
        (lambda rows: [*rows, {**rows[-1], "memory": {**rows[-1]["memory"], "id": "gone"}}], "not_forgotten"),
    ],
)
def test_a_memory_that_is_wrong_is_seen(engine, falsify, kind):
    """An engine that lost, changed or kept a memory against what it acknowledged does not pass."""

    async def work():
        sessions, oracle = await two_sessions(engine)
        await told(engine, oracle, "episodic.remember", {"content": "one"}, sessions["a"])
        oracle._of[sessions["a"]].forgotten.add("gone")

        async def lying(operation, parameters=None, *, session, deadline_s=None):
            answer = await engine.execute(operation, parameters, session=session)
            if operation != "session.export" or session != sessions["a"]:
                return answer
            rows = falsify([msgspec.json.decode(line) for line in answer.value.splitlines()])
            return Response(b"\n".join(map(msgspec.json.encode, rows)))

        return await oracle.check(lying)

    checked = asyncio.run(work())
    assert not checked.holds
    assert getattr(checked, kind) == 1
    assert checked.examples[0].startswith(kind.replace("_", " "))


def test_a_session_that_reads_another_is_seen(engine):
    """Without the session predicate every session holds the other's memories and canary."""

    async def work():
        sessions, oracle = await two_sessions(engine)

        async def crossed(operation, parameters=None, *, session, deadline_s=None):
            other = next(one for one in sessions.values() if one != session)
            return await engine.execute(operation, parameters, session=other)

        return await oracle.check(crossed)

    checked = asyncio.run(work())
    assert not checked.holds
    assert checked.foreign == 2
    assert checked.canaries_found == 0


def test_what_nobody_knows_is_not_judged(engine):
    """After an unknown outcome a memory may be there or not, old or new; what has nothing to do with it is judged still."""

    async def work():
        sessions, oracle = await two_sessions(engine)
        mine = sessions["a"]
        event = await told(engine, oracle, "episodic.remember", {"content": "one"}, mine)
        call = Call("episodic.forget", {"ids": [event.id]}, mine, "a")
        oracle.note(call, "unknown", None)
        await engine.execute(call.operation, call.parameters, session=mine)
        before = await oracle.check(engine.execute)
        oracle.note(Call("episodic.remember", {"content": "never"}, mine, "a"), "timeout", None)
        kept = await told(engine, oracle, "episodic.remember", {"content": "two"}, mine)
        await engine.execute("episodic.forget", {"ids": [kept.id]}, session=mine)
        return before, await oracle.check(engine.execute)

    before, after = asyncio.run(work())
    assert before.holds
    assert before.doubtful == 1
    assert after.missing == 1
