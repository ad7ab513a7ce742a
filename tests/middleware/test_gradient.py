"""The limit grows while calls take what they usually do, shrinks when they queue, and stays where it is not used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.middleware.gradient import Gradient2

MS = 1_000_000
WINDOW_MS = 100  # ten calls and a tenth of a second make a window


class Service:
    """Calls that end every ten milliseconds, and what the limit became."""

    def __init__(self, gradient):
        self.gradient = gradient
        self._now_ms = 0

    def windows(self, count, took_ms, in_use=None):
        """Let calls end for so many windows; *took_ms* of the limit, or for any; return the limit after each."""
        limits = []
        for _ in range(count):
            for _ in range(WINDOW_MS // 10 + 1):
                self._now_ms += 10
                limit = self.gradient.limit
                took = took_ms(limit) if callable(took_ms) else took_ms
                self.gradient.update(int(took * MS), limit if in_use is None else in_use, self._now_ms * MS)
            limits.append(self.gradient.limit)
        return limits


def test_it_grows_to_the_most_while_nothing_queues():
    """Calls that take the same whatever the limit leave no reason to stop; it begins to move once it knows what they take."""
    limits = Service(Gradient2(32)).windows(100, 1.0)
    assert limits[:10] == [4] * 10
    assert limits == sorted(limits) and limits[-1] == 32


def test_it_does_not_follow_its_own_rise():
    """Four processors under a load that never ends: more places take longer by degrees, and are not taken for usual."""
    service = Service(Gradient2(64))
    limits = service.windows(3_000, lambda limit: max(limit, 4) / 4)
    assert max(limits) < 12
    assert set(limits[-1_000:]) == {limits[-1]}, "it has come to rest"


def test_what_calls_take_without_a_load_sets_where_it_stops():
    """One processor, first lightly used: the limit stays small under load, yet leaves room to keep the processor busy."""
    service = Service(Gradient2(64))
    service.windows(30, 1.0, in_use=1)
    assert 2 <= service.windows(500, float)[-1] <= 6


def test_a_sudden_rise_shrinks_it_and_its_end_lets_it_grow_again():
    """Ten times the usual time: down to where only the room for growth is left, and back."""
    service = Service(Gradient2(64))
    assert service.windows(200, 1.0)[-1] == 64
    assert service.windows(80, 10.0)[-1] in (4, 5)
    assert service.windows(200, 1.0)[-1] == 64


def test_a_service_that_became_slower_for_good_is_learnt_when_the_load_goes():
    """Places that stay free show what calls take now."""
    service = Service(Gradient2(32))
    service.windows(100, 1.0)
    assert service.windows(100, 5.0)[-1] in (4, 5)
    service.windows(1_000, 5.0, in_use=3)
    assert service.windows(100, 5.0)[-1] == 32


def test_an_idle_service_moves_nothing():
    """Below half of its use the limit is none."""
    assert set(Service(Gradient2(64, initial=20)).windows(100, 1.0, in_use=3)) == {20}


@pytest.mark.parametrize("calls", [9, 200])
def test_few_calls_or_little_time_are_no_window(calls):
    """Nine calls in an hour and two hundred in a moment both say too little."""
    gradient = Gradient2(64)
    apart_ns = 400_000 * MS if calls == 9 else 1
    assert {gradient.update(MS, 4, number * apart_ns) for number in range(calls)} == {4}


@given(st.integers(1, 64), st.lists(st.tuples(st.integers(0, 10**10), st.integers(1, 64)), max_size=400))
def test_it_stays_between_one_and_the_most(most, calls):
    """Whatever calls take."""
    gradient = Gradient2(most)
    limits = [gradient.update(took_ns, in_use, number * 20 * MS) for number, (took_ns, in_use) in enumerate(calls)]
    assert all(1 <= limit <= most for limit in limits)
