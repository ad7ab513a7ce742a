"""What is in memory is answered at once, and never ahead of a write."""

import asyncio

import pytest

from memlab.errors import MemlabError
from memlab.middleware.chain import alone, chain
from memlab.middleware.resident import resident
from memlab.values import Response
from tests.middleware.keyvalue import KeyValueEngine, ask, hops, run


def over(peek, engine=None):
    engine = engine or KeyValueEngine()
    middleware = resident(peek)
    return chain(engine.run, outside=[middleware], seam=alone), middleware, engine


def test_an_answer_in_memory_goes_no_further():
    """What the peek knows is the answer; the engine is not asked."""
    handle, middleware, engine = over(lambda request: Response("known"))
    assert run(handle(ask("episodic.note_get", key="x"))) == Response("known")
    assert engine.groups == []
    assert middleware.statistics() == {"answered": 1, "passed": 0}


def test_what_is_not_in_memory_goes_on():
    """Where the peek knows nothing, the engine answers, errors included."""
    handle, middleware, engine = over(lambda request: None)
    with pytest.raises(MemlabError, match="no such note"):
        run(handle(ask("episodic.note_get", key="x")))
    assert len(engine.groups) == 1
    assert middleware.statistics() == {"answered": 0, "passed": 1}


def test_only_resident_operations_are_peeked_at():
    """An operation that is not declared resident, and every write, goes straight on."""

    def never(request):
        raise AssertionError(request)

    handle, middleware, _ = over(never)
    assert run(handle(ask("episodic.note_list"))).value == ()
    assert run(handle(ask("episodic.note_put", key="x", value=1))).value is None
    assert middleware.statistics() == {"answered": 0, "passed": 0}


def test_nothing_is_peeked_at_while_a_write_of_the_session_is_on_its_way():
    """A read submitted after a write must see it, so it waits its turn; other sessions are not held up."""
    handle, middleware, engine = over(lambda request: Response("old"), KeyValueEngine(patience=0))

    async def main():
        write = asyncio.ensure_future(handle(ask("episodic.note_put", "a", key="x", value=1)))
        await hops(1)
        other = await handle(ask("episodic.note_get", "b", key="x"))
        same = await handle(ask("episodic.note_get", "a", key="x"))
        await write
        after = await handle(ask("episodic.note_get", "a", key="x"))
        return other.value, same.value, after.value

    assert run(main()) == ("old", (1, ()), "old")
    assert middleware.statistics() == {"answered": 2, "passed": 0}
    assert len(engine.groups) == 2


def test_what_asks_nothing_of_storage_waits_for_no_write():
    """Discovery has nothing to see of what a session writes, and is answered at once."""
    handle, middleware, engine = over(lambda request: Response("declared"), KeyValueEngine(patience=0))

    async def main():
        write = asyncio.ensure_future(handle(ask("episodic.note_put", "a", key="x", value=1)))
        await hops(1)
        answer = await handle(ask("discovery.layers", "a"))
        was_on_its_way = not write.done()
        await write
        return answer.value, was_on_its_way

    assert run(main()) == ("declared", True)
    assert middleware.statistics() == {"answered": 1, "passed": 0}
    assert len(engine.groups) == 1


def test_a_failed_or_cancelled_write_lets_reads_peek_again():
    """However a write ends, the session is not held up any longer."""
    handle, middleware, _ = over(lambda request: Response("known"))

    async def main():
        with pytest.raises(MemlabError):
            await handle(ask("episodic.note_put", key="x", value=-1))
        write = asyncio.ensure_future(handle(ask("episodic.note_put", key="x", value=1)))
        await hops(1)
        write.cancel()
        await asyncio.wait((write,))
        return await handle(ask("episodic.note_get", key="x"))

    assert run(main()).value == "known"
    assert middleware.statistics() == {"answered": 1, "passed": 0}
