"""Waiting times against textbook values and a simulated line."""

import heapq

import numpy as np
import pytest

from memlab.errors import MemlabError
from memlab.predict.queueing import Queue, SharedPlaces, sharing_response_s


def simulated(rate, places, service_s, calls=500_000, seed=1):
    """Return the waiting times of a line that is served in turn; exact for its arrivals and service times."""
    chance = np.random.default_rng(seed)
    at = np.cumsum(chance.exponential(1 / rate, calls))
    took = service_s(chance, calls)
    free = [0.0] * places
    waits = np.empty(calls)
    for number, (arrived, needed) in enumerate(zip(at.tolist(), took.tolist(), strict=True)):
        begins = max(heapq.heappop(free), arrived)
        waits[number] = begins - arrived
        heapq.heappush(free, begins + needed)
    return waits


def test_textbook_values():
    """M/M/1: rho / (mu - lambda); M/M/2 at rho 3/4: C = 9/14; M/D/1 waits half as long."""
    one = Queue(3.0, 0.25, 1)
    assert (one.waits, one.mean_wait_s, one.mean_response_s) == pytest.approx((0.75, 0.75, 1.0))
    assert Queue(3.0, 0.5, 2).waits == pytest.approx(9 / 14)
    assert Queue(3.0, 0.25, 1, cv=0.0).mean_wait_s == pytest.approx(0.375)


@pytest.mark.parametrize(("rate", "places"), [(6.0, 8), (3.2, 4), (0.5, 1)])
def test_exponential_service_is_exact(rate, places):
    """Mean and percentiles of a simulated line, to within what chance leaves."""
    waits = simulated(rate, places, lambda chance, calls: chance.exponential(1.0, calls))
    queue = Queue(rate, 1.0, places)
    assert waits.mean() == pytest.approx(queue.mean_wait_s, rel=0.06)
    for q in (0.5, 0.9):
        assert np.quantile(waits, q) == pytest.approx(queue.wait_s(q), rel=0.08, abs=0.02)


@pytest.mark.parametrize(("cv", "shape"), [(0.0, None), (0.5, 4.0), (2**0.5, 0.5)])
def test_other_service_times_are_close(cv, shape):
    """Four places, 85 % busy: the scaled wait is within a tenth."""

    def service_s(chance, calls):
        return np.ones(calls) if shape is None else chance.gamma(shape, 1 / shape, calls)

    waits = simulated(3.4, 4, service_s)
    assert waits.mean() == pytest.approx(Queue(3.4, 1.0, 4, cv=cv).mean_wait_s, rel=0.1)


@pytest.mark.parametrize(("values", "told"), [((4.0, 1.0, 4), "4 places answer 4 a second"), ((0.0, 1.0, 1), "above 0")])
def test_a_line_that_only_grows_is_refused(values, told):
    """There is no mean wait."""
    with pytest.raises(MemlabError, match=told):
        Queue(*values)


@pytest.mark.parametrize(("rate", "places"), [(3.0, 1), (3.0, 5), (15.0, 4)])
def test_places_that_do_not_hinder_each_other_are_erlangs(rate, places):
    """n / service is M/M/c."""
    expected = Queue(rate, 0.25, places).mean_response_s
    assert sharing_response_s(rate, places, lambda inside: inside / 0.25) == pytest.approx(expected)


def test_places_that_share_one_machine_are_processor_sharing():
    """The same throughput for any number: M/M/1's mean, however many are let in."""
    for places in (1, 4, 30):
        assert sharing_response_s(3.0, places, lambda inside: 4.0) == pytest.approx(1.0)
    with pytest.raises(MemlabError, match="answer 2 a second"):
        sharing_response_s(3.0, 4, lambda inside: 5.0 if inside < 3 else 2.0)


def poisson(rate, calls, seed=1):
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, calls))


def alike(pace):
    return SharedPlaces(pace, np.ones(1))


def test_a_line_is_played_by_hand():
    """Two places that give each a full second of work: the third call waits for the first; a single place serves in turn."""
    at_s = np.array([0.0, 0.25, 0.5, 5.0])
    assert alike(float).play(at_s, 2).tolist() == pytest.approx([1.0, 1.0, 1.5, 1.0])
    assert alike(float).play(at_s, 1).tolist() == pytest.approx([1.0, 1.75, 2.5, 1.0])


def test_calls_inside_share_what_the_machine_does():
    """One call a second, however many are inside: two that overlap slow each other down, and end as the sum of both demands."""
    at_s = np.array([0.0, 0.5])
    assert alike(lambda inside: 1.0).play(at_s, 2).tolist() == pytest.approx([1.5, 1.5])


@pytest.mark.parametrize("places", [1, 3, 16])
def test_poisson_arrivals_and_exponential_work_meet_the_exact_mean(places):
    """In the long run the play is the birth-death chain."""

    def pace(inside):
        return 100 * inside / (1 + 0.4 * (inside - 1))

    rate = 0.7 * pace(places)
    work = np.random.default_rng(2).exponential(1.0, 20_000)
    played = SharedPlaces(pace, work / work.mean()).play(poisson(rate, 200_000), places)
    assert played.mean() == pytest.approx(sharing_response_s(rate, places, pace), rel=0.06)


def test_even_service_waits_half_as_long_as_exponential():
    """M/D/1."""
    played = alike(lambda inside: 1.0).play(poisson(0.8, 200_000), 1)
    assert played.mean() - 1 == pytest.approx(Queue(0.8, 1.0, 1, cv=0.0).mean_wait_s, rel=0.06)


def test_who_ends_a_rest_takes_longer():
    """By how long it was: none, half of the way, and no more than after the longest that was measured."""
    places = SharedPlaces(lambda inside: 1.0, np.ones(1), {2.0: 0.5})
    assert places.play(np.array([0.0, 2.5, 4.9, 15.0]), 1).tolist() == pytest.approx([1.5, 1.25, 1.2875, 1.5])


@pytest.mark.parametrize("work", [[], [1.0, 0.0], [np.inf]])
def test_work_that_cannot_be_is_refused(work):
    """None, nothing, or without an end."""
    with pytest.raises(MemlabError, match="above 0"):
        SharedPlaces(float, np.array(work))
