"""The window grows while calls are in time and waited for it, is cut when they are late, and settles below its objective."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.middleware.aimd import Aimd


def after(aimd, groups, took_s, *, calls=20, waited=True, now_s=0.0):
    """Let groups end one after the other whose calls all took so long; a number, or a function of the window."""
    for _ in range(groups):
        took = took_s(aimd.window_s) if callable(took_s) else took_s
        now_s += 1.0
        aimd.update([now_s - took] * calls, now_s, waited=waited)
    return aimd.window_s


def test_it_grows_to_the_most_while_calls_are_in_time():
    """A step for every twenty calls, from one step to sixteen."""
    aimd = Aimd(0.016, 0.010)
    assert aimd.window_s == pytest.approx(0.001)
    assert after(aimd, 3, 0.005) == pytest.approx(0.004)
    assert after(aimd, 30, 0.005) == pytest.approx(0.016)


def test_two_late_of_twenty_cut_it_by_a_quarter_and_one_does_not():
    """The objective is one for p95."""
    aimd = Aimd(0.016, 0.010)
    after(aimd, 7, 0.005)
    assert aimd.update([100.0, *[100.02] * 19], 100.025, waited=True) == pytest.approx(0.008)
    assert aimd.update([200.0, 200.0, *[200.02] * 18], 200.025, waited=True) == pytest.approx(0.006)


def test_what_late_calls_cost_is_earned_again_before_it_grows():
    """Ten late ones cost 190 calls in time, and a step 20: after 200 it has not grown, after 220 it has."""
    aimd = Aimd(0.016, 0.010)
    after(aimd, 7, 0.005)
    aimd.update([100.0] * 10, 100.025, waited=True)
    assert aimd.window_s == pytest.approx(0.006)
    assert after(aimd, 10, 0.005, now_s=200.0) == pytest.approx(0.006)
    assert after(aimd, 1, 0.005, now_s=300.0) == pytest.approx(0.007)


def test_a_window_that_nobody_waited_for_stays():
    """Whatever calls take: it decided nothing, so it has proved nothing."""
    assert after(Aimd(0.016, 0.010), 50, 0.001, waited=False) == pytest.approx(0.001)


def test_one_cause_cuts_it_once():
    """Groups with calls from before the cut do not cut again; those of later calls do."""
    aimd = Aimd(0.016, 0.010)
    after(aimd, 15, 0.005)
    for now_s in (100.0, 100.01, 100.02):
        aimd.update([99.0, 99.9, 99.9], now_s, waited=True)
    assert aimd.window_s == pytest.approx(0.012)
    aimd.update([100.1, 99.9, 100.1], 101.0, waited=True)
    assert aimd.window_s == pytest.approx(0.012), "a read that stood behind a write comes to its group late"
    aimd.update([100.1, 100.1, 100.1], 101.0, waited=True)
    assert aimd.window_s == pytest.approx(0.009)


@given(st.floats(0.002, 0.05), st.floats(0.0, 0.5), st.integers(0, 1_000))
def test_it_settles_below_what_the_objective_leaves(objective_s, share, seed):
    """Where a call waits for the window and then takes a share of the objective: the window comes close to the rest."""
    chance = np.random.default_rng(seed)
    aimd = Aimd(0.05, objective_s)
    rest_s = objective_s * (1 - share)

    def took_s(window_s):
        return window_s + objective_s * share * chance.uniform(0.99, 1.0)

    after(aimd, 60, took_s)
    now_s, seen = 100.0, []
    for _ in range(60):
        now_s += 1.0
        seen.append(after(aimd, 1, took_s, now_s=now_s))
    step_s = 0.05 / 16
    assert max(seen) <= max(rest_s + step_s + 0.01 * objective_s, step_s) + 1e-9, "one step beyond is how it feels its way"
    assert min(seen) >= min(0.7 * rest_s, 0.05) - 1e-9 or min(seen) == pytest.approx(step_s)


@given(
    st.floats(0.0001, 10.0),
    st.floats(0.0001, 60.0),
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 300), st.booleans()), max_size=100),
)
def test_it_stays_between_a_step_and_the_most(most_s, objective_s, groups):
    """Whatever calls take."""
    aimd, now_s = Aimd(most_s, objective_s), 0.0
    for took_s, calls, waited in groups:
        now_s += 0.5
        window_s = aimd.update([now_s - took_s] * calls, now_s, waited=waited)
        assert most_s / 16 <= window_s <= most_s
        assert window_s == aimd.window_s
