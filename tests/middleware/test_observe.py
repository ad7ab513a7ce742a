"""What the caller feels is counted, told to the recorder, and changes nothing."""

import asyncio

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from memlab.errors import ErrorType, MemlabError, internal
from memlab.measure.clock import ManualClock
from memlab.middleware.batch import batch
from memlab.middleware.cache import cache
from memlab.middleware.chain import alone, chain
from memlab.middleware.observe import _LONGEST_NS, _bucket, _upper_ns, observe
from memlab.settings import BatchSettings, CacheSettings
from memlab.values import Response
from tests.middleware.keyvalue import KeyValueEngine, ask, hops, run


def test_the_recorder_is_told_of_every_call():
    """Request, start, end, and exactly one of answer and error, for answers, errors and cancellations alike."""
    told = []
    clock = ManualClock()

    async def engine(requests):
        clock.advance(seconds=0.25)
        return await KeyValueEngine().run(requests)

    handle = chain(engine, outside=[observe(lambda *given: told.append(given), clock)], seam=alone)

    async def main():
        good, bad = ask("episodic.note_list"), ask("episodic.note_get", key="x")
        await handle(good)
        with pytest.raises(MemlabError):
            await handle(bad)
        task = asyncio.ensure_future(handle(good))
        await hops(1)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        return good, bad

    good, bad = run(main())
    assert [(given[0] is good, given[2] - given[1]) for given in told] == [
        (True, 250_000_000),
        (False, 250_000_000),
        (True, 250_000_000),
    ]
    assert told[0][3:] == (Response(()), None)
    assert told[1][0] is bad
    assert told[1][3] is None
    assert told[1][4].type is ErrorType.NOT_FOUND
    assert isinstance(told[2][4], asyncio.CancelledError)


def test_calls_are_counted_by_operation():
    """Calls, cached answers, batch sizes, times and failures by type, each under its operation."""
    clock = ManualClock()

    async def engine(requests):
        clock.advance(seconds=0.1)
        return await KeyValueEngine().run(requests)

    middleware = observe(clock=clock)
    handle = chain(engine, outside=[middleware, cache(CacheSettings())], seam=batch(BatchSettings()))

    async def main():
        for _ in range(3):
            await handle(ask("episodic.note_list"))
        await asyncio.gather(*(handle(ask("semantic.note_list", session)) for session in "abcd"))
        with pytest.raises(MemlabError):
            await handle(ask("episodic.note_get", key="x"))

    run(main())
    assert middleware.statistics() == {"calls": 8, "failed": 1, "cached": 2}
    found = middleware.by_operation()
    assert found["episodic.note_list"] | {"calls": 3, "cached": 2, "mean_batch_size": 1.0} == found["episodic.note_list"]
    assert found["episodic.note_list"]["p50_ms"] == 0.0
    assert 100 <= found["episodic.note_list"]["p95_ms"] <= 112.5
    assert found["semantic.note_list"] | {"calls": 4, "cached": 0, "mean_batch_size": 4.0} == found["semantic.note_list"]
    assert found["episodic.note_get"] | {"calls": 1, "failed_NOT_FOUND": 1} == found["episodic.note_get"]


@pytest.mark.parametrize("error", [internal("storage", "the secret text"), ValueError("the secret text")])
def test_a_failure_of_memlab_is_logged_without_what_was_remembered(error):
    """An INTERNAL error, or a bug, leaves one debug line: operation, reason and an opaque id; never a text or a session."""

    async def engine(requests):
        raise error

    handle = chain(engine, outside=[observe()], seam=alone)
    with structlog.testing.capture_logs() as lines, pytest.raises(type(error)) as caught:
        run(handle(ask("episodic.note_get", "whose", key="what")))
    (line,) = lines
    assert set(line) == {"event", "log_level", "operation", "reason", "error_id"}
    assert line["log_level"] == "debug"
    assert not {"secret", "what", "whose"} & set(str(line).replace("'", " ").split())
    if isinstance(caught.value, MemlabError):
        assert caught.value.fields["error_id"] == line["error_id"]
        assert line["reason"] == "storage"


def test_an_error_of_the_caller_is_not_logged():
    """What the caller can mend is his to read."""
    handle = chain(KeyValueEngine().run, outside=[observe()], seam=alone)
    with structlog.testing.capture_logs() as lines, pytest.raises(MemlabError):
        run(handle(ask("episodic.note_get", key="x")))
    assert lines == []


@given(st.integers(0, 1 << 50))
def test_a_bucket_is_at_most_an_eighth_wide(ns):
    """Any time lies in a bucket whose upper end is at most an eighth above it; longer times count as the longest."""
    upper = _upper_ns(_bucket(ns))
    ns = min(ns, _LONGEST_NS)
    assert ns <= upper <= ns + ns // 8
    assert _bucket(ns) == _bucket(upper)
    assert _bucket(upper + 1) == _bucket(upper) + (upper < _LONGEST_NS)
