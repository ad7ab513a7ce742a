"""The batch model against queues worked by hand, exact chains and the middleware itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.errors import MemlabError
from memlab.predict.group_commit import BatchModel, Checked, Rule, ServiceTime, bulk_queue, simulate


def second(size, idle_s):
    return 1.0


def test_a_line_is_found_again():
    """Fixed and per member, by the median of each size: one stall in five changes nothing."""
    sizes = np.repeat([1, 8, 64], 5)
    seconds = 0.004 + 0.0001 * sizes
    seconds[[2, 7, 12]] *= 9
    fit = ServiceTime.fit(sizes, seconds)
    assert (fit.fixed_s, fit.per_call_s) == (pytest.approx(0.004), pytest.approx(0.0001))
    assert fit.capacity_per_s(64) == pytest.approx(64 / 0.0104)
    assert fit.excess_s[1].tolist() == pytest.approx([0, 0, 8 * 0.0041, 0, 0])
    draw = fit.draws(np.random.default_rng(0))
    drawn = [draw(10) for _ in range(400)]
    assert set(np.round(drawn, 6)) == {0.005, round(0.005 + 8 * 0.0048, 6)}, "like the groups of eight"


def test_neighbours_are_drawn_together():
    """A stall that met ten groups in a row meets several in a row again; drawn one by one they would meet one or two."""
    stalled = np.r_[np.full(90, 0.001), np.full(10, 0.1)]
    draw = ServiceTime.fit(np.r_[np.ones(100), [8, 8]].astype(int), np.r_[stalled, [0.002, 0.002]]).draws(
        np.random.default_rng(1)
    )
    slow = np.array([draw(1) > 0.05 for _ in range(3_000)])
    assert 0.05 < slow.mean() < 0.15
    assert slow[1:][slow[:-1]].mean() > 0.6, "after a slow one comes a slow one"


@pytest.mark.parametrize(("sizes", "seconds"), [([1], [1.0]), ([1, 1], [1.0, 1.0]), ([1, 2], [0.0, 1.0]), ([0, 2], [1.0, 1.0])])
def test_too_little_is_refused(sizes, seconds):
    """One size tells no line; times are above 0."""
    with pytest.raises(MemlabError):
        ServiceTime.fit(sizes, seconds)


def test_an_idle_lane_sends_at_once_and_then_what_waits():
    """By hand: 0 leaves alone until 1; 0.2 and 0.4 leave at 1 until 2; 1.5 leaves at 2 until 3."""
    found = simulate(np.array([0.0, 0.2, 0.4, 1.5]), Rule(0.0, 8), second)
    assert found.response_s.tolist() == pytest.approx([1.0, 1.8, 1.6, 1.5])
    assert found.group_size.tolist() == [1, 2, 2, 1]
    assert found.groups == 3


def test_a_fixed_window_waits_for_company():
    """By hand: all until 0.5 leave at 0.5, though the lane was idle; the limit sends early."""
    rule = Rule(500.0, 8, adaptive=False)
    assert simulate(np.array([0.0, 0.2, 0.4]), rule, second).response_s.tolist() == pytest.approx([1.5, 1.3, 1.1])
    rule = Rule(500.0, 2, adaptive=False, in_flight=2)
    found = simulate(np.array([0.0, 0.2, 0.4]), rule, second, processors=2)
    assert found.response_s.tolist() == pytest.approx([1.2, 1.0, 1.5])


def test_a_window_with_an_objective_follows_it():
    """Groups take 10 ms, calls come alone: an objective of 13 ms leaves 3 for the window, and one call in twenty is late."""
    at_s = np.arange(4_000) / 10
    rule = Rule(8.0, 8, adaptive=False, objective_ms=13.0)
    found = simulate(at_s, rule, lambda size, idle_s: 0.010)
    settled = found.response_s[1_000:]
    assert 0.012 < settled.mean() < 0.013
    assert (settled > 0.013).mean() <= 0.06
    loose = simulate(at_s, Rule(8.0, 8, adaptive=False, objective_ms=50.0), lambda size, idle_s: 0.010)
    assert loose.response_s[1_000:].tolist() == pytest.approx([0.018] * 3_000)


def test_an_objective_is_kept_where_a_fixed_window_is_too_long_or_saves_less():
    """Groups of 2 ms and 0.3 ms a call at 1,500 calls a second, 15 ms: 10 ms are late, 4 save less."""
    at_s = np.cumsum(np.random.default_rng(1).exponential(1 / 1_500, 5_000))

    def told(rule):
        found = simulate(at_s, rule, lambda size, idle_s: 0.002 + 0.0003 * size, processors=1.5)
        return float(np.quantile(found.response_s[1_000:], 0.95)), found.groups

    follows = told(Rule(16.0, 64, False, 4, objective_ms=15.0))
    short, long = (told(Rule(window_ms, 64, False, 4)) for window_ms in (4.0, 10.0))
    assert short[0] < follows[0] < 0.0155 < long[0]
    assert follows[1] < 0.75 * short[1]


def test_a_limit_cuts_groups():
    """By hand: five at once behind a group of one, two together at most."""
    found = simulate(np.array([0.0, 0.1, 0.1, 0.1, 0.1, 0.1]), Rule(0.0, 2), second)
    assert found.group_size.tolist() == [1, 2, 2, 2, 2, 1]
    assert found.response_s.tolist() == pytest.approx([1.0, 1.9, 1.9, 2.9, 2.9, 3.9])


def test_groups_share_processors():
    """By hand: two groups on one processor from 0.5 on; the first has half left and ends at 1.5, the second at 2."""
    found = simulate(np.array([0.0, 0.25]), Rule(250.0, 8, in_flight=2), second, processors=1)
    assert found.response_s.tolist() == pytest.approx([1.5, 1.75])


@pytest.mark.parametrize(
    ("rate", "limit", "fixed", "per_call"), [(50, 8, 0.01, 0.001), (400, 16, 0.004, 0.002), (300, 64, 0.02, 0.0005)]
)
def test_the_simulation_agrees_with_the_exact_chain(rate, limit, fixed, per_call):
    """Group size and mean response time of the bulk queue, to within what chance leaves of a hundred thousand calls."""
    at_s = np.cumsum(np.random.default_rng(3).exponential(1 / rate, 100_000))
    found = simulate(at_s, Rule(0.0, limit), lambda size, idle_s: fixed + per_call * size)
    size, response_s = bulk_queue(rate, limit, lambda size: fixed + per_call * size)
    assert len(at_s) / found.groups == pytest.approx(size, rel=0.02)
    assert found.response_s.mean() == pytest.approx(response_s, rel=0.03)


def test_the_exact_chain_is_the_textbook_queue_where_groups_are_of_one():
    """M/D/1: s + λs²/2(1-ρ)."""
    _, response_s = bulk_queue(6.0, 1, lambda size: 0.1)
    assert response_s == pytest.approx(0.1 + 6.0 * 0.01 / 2 / (1 - 0.6), rel=1e-6)
    with pytest.raises(MemlabError, match="answers 10 at most"):
        bulk_queue(10.0, 1, lambda size: 0.1)


@given(st.integers(0, 10_000), st.floats(0, 5), st.integers(1, 9), st.booleans(), st.integers(1, 3))
def test_every_call_is_answered_once(seed, window_ms, limit, adaptive, in_flight):
    """Whatever the rule: nobody is answered before a group takes, no group is above the limit, and sizes add up."""
    at_s = np.sort(np.random.default_rng(seed).random(60)) / 5
    found = simulate(at_s, Rule(window_ms, limit, adaptive, in_flight), lambda size, idle_s: 0.002 + 0.0001 * size, processors=2)
    assert (found.response_s >= 0.0021 - 1e-9).all()
    assert found.group_size.min() >= 1 and found.group_size.max() <= limit
    assert (1 / found.group_size).sum() == pytest.approx(found.groups)


def test_it_refuses_what_it_was_not_checked_on():
    """By rate, window and limit; and where groups become larger than any that was measured."""
    service = ServiceTime.fit([1, 8], [0.001, 0.002])
    model = BatchModel(service, checked=Checked((10, 200), (0.0, 4.0), (1, 64)))
    at_s = np.arange(50) / 100
    assert model.predict(Rule(2.0, 8), at_s).p50_ms == pytest.approx(1.0, rel=0.2)
    for rule, arrivals, told in (
        (Rule(9.0, 8), at_s, "window of 9 ms"),
        (Rule(2.0, 256), at_s, "limit of 256"),
        (Rule(2.0, 8), at_s / 20, "rate of 2000"),
        (Rule(0.0, 64), np.concatenate([[0.0], np.full(20, 0.0005), [0.5]]), "groups of 20"),
    ):
        with pytest.raises(MemlabError, match=told) as caught:
            model.predict(rule, arrivals)
        assert caught.value.reason == "range"


def test_groups_larger_than_those_measured_have_no_prediction_unchecked_either():
    """A model that was held against nothing plays them, for whoever compares; a prediction it refuses."""
    model = BatchModel(ServiceTime.fit([1, 8], [0.001, 0.002]))
    at_s = np.concatenate([[0.0], np.full(20, 0.0005), [0.5]])
    assert model.play(Rule(0.0, 64), at_s).group_size.max() == 20
    with pytest.raises(MemlabError, match="groups of 20 calls: groups of at most 8 were measured"):
        model.predict(Rule(0.0, 64), at_s)


def test_a_lane_that_rested_is_woken():
    """By hand: the first call and the one after a pause take three, what comes in between takes one."""
    found = simulate(np.array([0.0, 0.5, 9.0]), Rule(0.0, 8), lambda size, idle_s: 3.0 if idle_s > 1e-3 else 1.0)
    assert found.response_s.tolist() == pytest.approx([3.0, 3.5, 3.0])
    slow, slower = (ServiceTime.fit([1, 8], [took, took]) for took in (0.003, 0.007))
    model = BatchModel(ServiceTime.fit([1, 8], [0.001, 0.001]), rested={0.002: slow, 0.05: slower})
    assert model.predict(Rule(0.0, 8), np.arange(9) / 10).p50_ms == pytest.approx(7.0)
    assert model.predict(Rule(0.0, 8), np.arange(9) / 150).p50_ms == pytest.approx(3.0), "nearest to the pause of 2 ms"
    assert model.predict(Rule(0.0, 8), np.arange(90) / 600).p50_ms == pytest.approx(1.0), "hardly a pause"
