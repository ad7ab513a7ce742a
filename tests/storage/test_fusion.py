"""Two lists become one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.storage.fusion import reciprocal_rank, weighted

LISTS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=20), min_size=1, max_size=3)


def test_reciprocal_rank_matches_numbers_worked_out_by_hand() -> None:
    """An id in both lists scores 1/(60+rank) in each; ranks count from 1."""
    ids, scores = reciprocal_rank([[10, 20, 30], [20, 40]], [1.0, 1.0])
    assert ids.tolist() == [20, 10, 40, 30]
    assert scores == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63], rel=1e-6)


def test_weighted_matches_numbers_worked_out_by_hand() -> None:
    """Scores are spread over 0 to 1 in each list, weighted and added."""
    ids, scores = weighted([([1, 2, 3], [0.9, 0.7, 0.5]), ([3, 4], [12.0, 2.0])], [1.0, 0.25])
    assert ids.tolist() == [1, 2, 3, 4]
    assert scores == pytest.approx([1.0, 0.5, 0.25, 0.0])


def test_equal_scores_all_count_one() -> None:
    """A list whose scores are all the same says only which ids it holds."""
    ids, scores = weighted([([1, 2], [0.3, 0.3]), ([], [])], [2.0, 1.0])
    assert ids.tolist() == [1, 2]
    assert scores.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("found", [reciprocal_rank([[], []], [1.0, 1.0]), weighted([([], []), ([], [])], [1.0, 1.0])])
def test_nothing_joins_to_nothing(found: tuple[np.ndarray, np.ndarray]) -> None:
    """Empty lists give an empty answer of the right types."""
    ids, scores = found
    assert (len(ids), ids.dtype, len(scores), scores.dtype) == (0, np.int64, 0, np.float32)


@given(LISTS, st.booleans())
def test_every_id_comes_once_and_best_first(lists: list[list[int]], by_rank: bool) -> None:
    """The answer holds each id of any list exactly once, in falling order of score."""
    weights = [1.0] * len(lists)
    arrays = [np.array(ids, np.int64) for ids in lists]
    if by_rank:
        ids, scores = reciprocal_rank(arrays, weights)
    else:
        ids, scores = weighted([(ids, np.linspace(9, 1, len(ids), dtype=np.float32)) for ids in arrays], weights)
    assert sorted(ids.tolist()) == sorted(set().union(*lists))
    assert (np.diff(scores) <= 0).all()


@given(LISTS)
def test_one_list_keeps_its_order(lists: list[list[int]]) -> None:
    """Joining a list with empty ones changes nothing."""
    ids, _ = reciprocal_rank([lists[0], [], []], [1.0, 5.0, 5.0])
    assert ids.tolist() == lists[0]


def test_ties_keep_the_order_of_first_appearance() -> None:
    """Equally good ids stand as the lists name them, the first list first."""
    ids, _ = reciprocal_rank([[5, 1], [3, 2]], [1.0, 1.0])
    assert ids.tolist() == [5, 3, 1, 2]


def test_a_weight_of_zero_leaves_a_list_without_a_say() -> None:
    """What only the other list holds comes first."""
    ids, scores = reciprocal_rank([[1, 2], [3]], [0.0, 1.0])
    assert ids[0] == 3
    assert scores[1:].tolist() == [0.0, 0.0]
