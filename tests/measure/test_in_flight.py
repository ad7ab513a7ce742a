"""Calls in flight, as another process sees them."""

import mmap
import random
import subprocess

import numpy as np
import pytest

from memlab.errors import MemlabError
from memlab.measure import clock, in_flight
from memlab.measure.in_flight import InFlight


@pytest.fixture
def cells():
    """Shared cells without a second process: sent, finished, due, cut short, and the due times."""
    shared = mmap.mmap(-1, 8 * 16)
    view = memoryview(shared).cast("q")
    yield view
    view.release()


def test_calls_count_from_when_they_are_due(cells):
    """In an open loop a call is in flight from its due time, sent or not, until it is finished."""
    cells[2] = 3
    for place, due in enumerate((100, 200, 300)):
        cells[4 + place] = due
    due = cells[4:7]
    assert [in_flight._count(cells, due, now) for now in (50, 100, 250, 400)] == [0, 1, 2, 3]
    cells[1] = 2
    assert in_flight._count(cells, due, 400) == 1


def test_calls_of_a_closed_loop_count_from_the_sending(cells):
    """Without due times, what was sent and is not finished is in flight."""
    cells[0], cells[1] = 7, 3
    assert in_flight._count(cells, cells[4:4], 10**18) == 4


def test_a_steady_count_is_its_own_mean(cells, monkeypatch):
    """The trapezium rule over looks at random moments gives a constant back, whenever the looks come."""
    now = [1_000]
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now[0])
    monkeypatch.setattr(in_flight.time, "sleep", lambda wait_s: now.__setitem__(0, now[0] + round(wait_s * 1e9) + 1))
    cells[0] = 5
    integral, covered = in_flight._sample(cells, 2_000, 50_000_000, random.Random(1))
    assert covered >= 49_000_000
    assert integral == 5 * covered


def test_a_window_that_is_cut_short_ends_at_once(cells, monkeypatch):
    """What was seen until then is the answer; before its beginning there is nothing to answer."""
    now = [1_000]

    def sleep(wait_s):
        now[0] += round(wait_s * 1e9) + 1
        cells[3] = now[0] > 20_000_000

    monkeypatch.setattr(clock, "monotonic_ns", lambda: now[0])
    monkeypatch.setattr(in_flight.time, "sleep", sleep)
    cells[0] = 5
    integral, covered = in_flight._sample(cells, 2_000, 10**15, random.Random(1))
    assert integral == 5 * covered
    assert 19_000_000 < covered < 30_000_000
    assert in_flight._sample(cells, 10**15, 10**15, random.Random(1)) == (0, 0)


def test_a_late_look_stands_for_the_time_around_it(cells, monkeypatch):
    """Looks that come late, after what kept them was over, do not pretend that nothing was in flight in between."""
    moments = iter([0, 0, 0, 10_000_000, 10_000_000, 20_000_000])
    monkeypatch.setattr(clock, "monotonic_ns", lambda: next(moments))
    counts = iter([4, 0, 0])
    monkeypatch.setattr(in_flight, "_count", lambda cells, due, now: next(counts))
    monkeypatch.setattr(in_flight.time, "sleep", lambda wait_s: None)
    integral, covered = in_flight._sample(cells, 0, 20_000_000, random.Random(1))
    assert covered == 20_000_000
    assert integral == 2 * 10_000_000


def test_a_process_of_its_own_counts():
    """Two calls that nobody answers are two in flight, as the other process sees them; a second lane begins from nothing."""
    with in_flight.in_flight() as counter:
        now = clock.monotonic_ns()
        counter.expect(None, now, now + 20_000_000)
        assert counter.mean() >= 0.0
        now = clock.monotonic_ns()
        counter.expect(np.array([now - 10, now - 5]), now, now + 30_000_000)
        assert counter.mean() == pytest.approx(2.0)
        now = clock.monotonic_ns()
        counter.expect(np.array([now - 10, now - 5]), now, now + 30_000_000)
        counter.finished()
        assert counter.mean() == pytest.approx(1.0, abs=0.5)


def test_a_process_that_died_is_an_error_and_no_hang():
    """When the sampling process is gone, the next question says so."""
    with in_flight.in_flight() as counter:
        counter._process.kill()
        counter._process.wait()
        with pytest.raises(MemlabError, match="samples calls in flight ended") as caught:
            counter.mean()
        assert caught.value.reason == "sampler"


def test_nothing_is_left_running():
    """The process ends with the measurement."""
    with in_flight.in_flight() as counter:
        process = counter._process
        assert isinstance(counter, InFlight)
    assert isinstance(process, subprocess.Popen)
    assert process.poll() is not None
