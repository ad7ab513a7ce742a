"""Work in threads for an event loop: in order, each answered once, and never cut off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from memlab.middleware.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(2, "test")
    yield workers
    workers.shut()


def test_work_is_done_in_threads_as_many_as_are_needed(workers: Workers) -> None:
    """Steps run beside each other up to the limit, in threads of their own, which are used again."""
    threads: set[int] = set()
    both = threading.Barrier(2)

    async def play() -> None:
        for _ in range(3):
            await workers.run(lambda: threads.add(threading.get_ident()))
        assert len(threads) == 1 and threading.get_ident() not in threads
        await asyncio.gather(*(workers.run(lambda: both.wait(timeout=10)) for _ in range(6)))

    asyncio.run(play())


def test_one_worker_keeps_the_order() -> None:
    """With a limit of one, nothing overtakes."""
    workers = Workers(1, "test")
    done: list[int] = []

    async def play() -> None:
        await asyncio.gather(*(workers.run(lambda place=place: done.append(place)) for place in range(50)))

    asyncio.run(play())
    workers.shut()
    assert done == list(range(50))


def test_what_work_raises_is_raised_where_it_is_waited_for(workers: Workers) -> None:
    """An error reaches the caller, and the thread goes on."""

    async def play() -> None:
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 // 0)
        await workers.run(lambda: None)

    asyncio.run(play())


def test_a_cancelled_caller_leaves_when_its_work_has_ended() -> None:
    """What has begun is waited for, however often its caller is cancelled; what has not is never begun."""
    workers = Workers(1, "test")
    begun, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def slow() -> None:
        begun.set()
        assert go_on.wait(timeout=10)
        done.append("slow")

    async def play() -> None:
        first = asyncio.create_task(workers.run(slow))
        second = asyncio.create_task(workers.run(lambda: done.append("never")))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(3):
            first.cancel()
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert not first.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert done == ["slow"]
        await workers.run(lambda: done.append("later"))

    asyncio.run(play())
    workers.shut()
    assert done == ["slow", "later"]


def test_shutting_finishes_what_was_handed_over(workers: Workers) -> None:
    """Shut from the event loop itself, workers finish what they have, answer it, and refuse what comes after."""
    done: list[int] = []

    async def play() -> None:
        calls = [asyncio.create_task(workers.run(lambda place=place: done.append(place))) for place in range(20)]
        await asyncio.sleep(0)
        workers.shut()
        assert sorted(done) == list(range(20))
        await asyncio.gather(*calls)
        with pytest.raises(RuntimeError, match="shut"):
            await workers.run(lambda: done.append(-1))

    asyncio.run(play())
    workers.shut()
    assert -1 not in done


def test_an_interpreter_ends_although_nobody_shut_them() -> None:
    """A script that forgets to close ends by itself, and not before its work has."""
    script = (
        "import asyncio, threading\n"
        "from memlab.middleware.workers import Workers\n"
        "workers, begun = Workers(2, 'test'), threading.Event()\n"
        "def work():\n"
        "    begun.set()\n"
        "    for _ in range(200_000): pass\n"
        "    print('done')\n"
        "async def play():\n"
        "    call = asyncio.ensure_future(workers.run(work))\n"
        "    await asyncio.to_thread(begun.wait)\n"
        "    asyncio.get_running_loop().stop()\n"
        "loop = asyncio.new_event_loop()\n"
        "loop.create_task(play())\n"
        "loop.run_forever()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "done\n")
