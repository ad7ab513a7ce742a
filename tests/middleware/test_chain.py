"""The order of the pieces, one call alone, and waiting for what cannot be taken back."""

import asyncio

import pytest

from memlab.errors import ErrorType, MemlabError, not_found
from memlab.middleware.chain import alone, chain, settle, too_late
from memlab.values import Response
from tests.middleware.keyvalue import KeyValueEngine, ask, hops, run


def test_the_first_listed_is_the_outermost():
    """A request passes the outside in the order listed, then the seam, then the inside in the order listed."""
    passed = []

    def named(name):
        def wrap(inner):
            async def handle(request):
                passed.append(name)
                return await inner(request)

            return handle

        return wrap

    handle = chain(KeyValueEngine().run, outside=[named("one"), named("two")], seam=alone, inside=[named("three"), named("four")])
    run(handle(ask("episodic.note_list")))
    assert passed == ["one", "two", "three", "four"]


def test_alone_executes_one_and_raises_its_error():
    """A call alone is a group of one; an error that comes back as a value is raised."""
    engine = KeyValueEngine()
    handle = chain(engine.run, seam=alone)
    assert run(handle(ask("episodic.note_list"))) == Response(())
    with pytest.raises(MemlabError) as caught:
        run(handle(ask("episodic.note_get", key="x")))
    assert caught.value.type is ErrorType.NOT_FOUND
    assert [len(group) for group in engine.groups] == [1, 1]


def test_settle_outlasts_every_cancellation():
    """Who settles is not let go before the work has ended, however often he is cancelled."""

    async def main():
        work = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(settle(work))
        for _ in range(3):
            await hops(2)
            waiting.cancel()
        await hops(2)
        assert not waiting.done()
        work.set_exception(not_found("memory", "gone"))  # and nobody is warned of it
        await hops(3)
        assert waiting.done()
        assert not work.cancelled()

    run(main())


def test_settle_ends_with_cancelled_work():
    """Work that was cancelled itself has ended."""

    async def main():
        work = asyncio.get_running_loop().create_future()
        work.cancel()
        await settle(work)

    run(main())


def test_too_late_may_be_tried_again():
    """A call that ran out of time is a retryable TIMEOUT `deadline` that names the operation."""
    error = too_late(ask("episodic.note_list"))
    assert (error.type, error.reason, error.retryable) == (ErrorType.TIMEOUT, "deadline", True)
    assert "episodic.note_list" in error.text
