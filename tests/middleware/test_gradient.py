"""The limit grows while calls take what they usually do, shrinks when they queue, and stays where it is not used."""

from hypothesis import given
from hypothesis import strategies as st

from memlab.middleware.gradient import Gradient2


def after(gradient, took_ns, calls, in_use=None):
    for _ in range(calls):
        gradient.update(took_ns, gradient.limit if in_use is None else in_use)
    return gradient.limit


def test_it_grows_to_the_most_while_nothing_queues():
    """Calls that take the same whatever the limit leave no reason to stop."""
    assert after(Gradient2(32), 1_000_000, 200) == 32


def test_a_rise_slower_than_its_memory_is_taken_for_usual():
    """Its known weakness: where calls take longer by degrees, the long average follows, and the limit grows all the same."""
    gradient = Gradient2(64)
    for _ in range(3_000):
        gradient.update(1_000_000 * max(gradient.limit, 8) // 8, gradient.limit)
    assert gradient.limit == 64


def test_a_sudden_rise_halves_it_and_more():
    """Ten times the usual time: down to where only the room for growth is left."""
    gradient = Gradient2(64)
    assert after(gradient, 1_000_000, 400) == 64
    assert after(gradient, 10_000_000, 20) < 20


def test_an_idle_service_learns_nothing():
    """Below half of its use the limit is none, and does not move."""
    gradient = Gradient2(64, initial=20)
    assert after(gradient, 1_000_000, 500, in_use=3) == 20


@given(st.integers(1, 64), st.lists(st.tuples(st.integers(0, 10**10), st.integers(1, 64)), max_size=200))
def test_it_stays_between_one_and_the_most(most, calls):
    """Whatever calls take."""
    gradient = Gradient2(most)
    assert all(1 <= gradient.update(took_ns, in_use) <= most for took_ns, in_use in calls)
