"""Neighbours in time lend their words: by distance, inside an episode, whatever the order of storing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.settings import RetrievalSettings
from memlab.storage.context import Timeline, of_periods, rarity, words_in_context
from memlab.storage.demands import Period

DAY = 86_400_000_000


def test_a_pause_ends_an_episode():
    """Memories further apart than the gap are no neighbours, and order of storing does not matter."""
    made = Timeline(np.array([50, 0, 10, 20]), gap_us=15)
    assert made.order.tolist() == [1, 2, 3, 0]
    assert made.ranks.tolist() == [3, 0, 1, 2]
    assert made.episodes.tolist() == [0, 0, 0, 1]
    assert made.widened(np.array([1]), 1).tolist() == [0, 1, 2]
    assert made.widened(np.array([2, 3]), 5).tolist() == [0, 1, 2, 3]
    assert made.widened(np.array([3]), 2).tolist() == [3]


def test_shares_fall_with_distance():
    """The nearest earlier one gives `before`, the nearest later one `after`, each further one `decay` of that."""
    made = Timeline(np.arange(5), gap_us=10)
    spread = made.spread(np.array([[0.0, 0, 1, 0, 0]]), np.arange(5), reach=2, before=0.5, after=0.4, decay=0.5)
    np.testing.assert_allclose(spread, [[0.2, 0.4, 1.0, 0.5, 0.25]])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=25), st.integers(0, 3), st.integers(0, 5), st.data())
def test_spreading_equals_looking_at_every_pair(times, reach, gap, data):
    """Over some ranks alone, shares are what a look at every pair of memories gives."""
    made = Timeline(np.array(times), gap_us=gap)
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(times) - 1), min_size=1))))
    scores = np.array([[float(1 + rank % 4) for rank in chosen]])
    expected = [
        score
        + sum(
            (0.7 if other < rank else 0.3) * 0.5 ** (abs(other - rank) - 1) * value
            for other, value in zip(chosen, scores[0], strict=True)
            if 0 < abs(other - rank) <= reach and made.episodes[other] == made.episodes[rank]
        )
        for rank, score in zip(chosen, scores[0], strict=True)
    ]
    np.testing.assert_allclose(made.spread(scores, chosen, reach=reach, before=0.7, after=0.3, decay=0.5)[0], expected)


def test_words_in_context_by_hand():
    """A neighbour's part is added by its share, saturated, and weighed by how many are near the word."""
    settings = RetrievalSettings(reach=1, before=0.5, after=0.5, decay=1.0, saturation=1.0)
    made = Timeline(np.arange(10), gap_us=5)
    scores = words_in_context(
        made, np.array([3, 4, 5]), np.array([[0.0, 1.0, 0.0]]), np.array([1.0]), np.array([2.0]), 10, settings
    )
    weight = 2.0 * np.log(1.0 + (10 - 3 + 0.5) / 3.5)
    np.testing.assert_allclose(scores, [weight * 0.5 * 2 / 1.5, weight, weight * 0.5 * 2 / 1.5])
    assert rarity(10, np.array([3.0]))[0] == pytest.approx(np.log(1.0 + 7.5 / 3.5))


def test_a_word_that_many_more_hold_counts_less():
    """Where only some of the memories that hold a word were looked at, it is taken to be near as many more."""
    settings = RetrievalSettings(reach=1)
    made = Timeline(np.arange(1000), gap_us=5)
    few, many = (
        words_in_context(made, np.array([3]), np.array([[1.0]]), np.array([held]), np.array([1.0]), 1000, settings)
        for held in (1.0, 400.0)
    )
    assert few[0] > many[0] > 0


def test_periods_by_hand():
    """A day, a month, and either of any year."""
    moments = np.array(["2022-05-03T23:59:59", "2023-05-03", "2023-05-31", "2023-06-03", "1969-05-03"], "datetime64[us]")
    occurred = moments.astype(np.int64)
    assert of_periods(occurred, ()).tolist() == [False] * 5
    assert of_periods(occurred, (Period(5, 3),)).tolist() == [True, True, False, False, True]
    assert of_periods(occurred, (Period(5, None, 2023),)).tolist() == [False, True, True, False, False]
    assert of_periods(occurred, (Period(5, 3, 2022), Period(6))).tolist() == [True, False, False, True, False]
