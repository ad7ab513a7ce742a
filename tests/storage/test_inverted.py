"""Inverted lists probe what a question needs."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from memlab.storage import inverted
from memlab.storage.inverted import InvertedLists

DIMENSION = 48


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


CENTRES = np.random.default_rng(2).standard_normal((60, DIMENSION))
STORED = unit(CENTRES[np.repeat(np.arange(60), 60)] + 0.5 * np.random.default_rng(3).standard_normal((3_600, DIMENSION)))
LISTS, EFFORT = InvertedLists.train(STORED, recall_target=0.995, seed=0)
INSIDE = STORED[::300]
OUTSIDE = unit(np.random.default_rng(4).standard_normal((12, DIMENSION)))


def probed(queries: np.ndarray, k: int, positions: np.ndarray | None = None) -> list[int]:
    every = LISTS.index.nlist
    return [every if lists is None else len(lists) for lists in LISTS.plan(queries, k, positions)]


def test_a_question_inside_a_cluster_needs_few_lists_and_one_outside_many() -> None:
    """Effort follows the question."""
    assert np.median(probed(INSIDE, 10)) <= 0.1 * LISTS.index.nlist
    assert np.median(probed(OUTSIDE, 10)) >= 3 * np.median(probed(INSIDE, 10))


def test_more_answers_take_more_lists() -> None:
    """The margin grows with depth, without bound beyond what was calibrated."""
    depths = [1, 10, 30, 100, 400, 1_000]
    margins = [LISTS._margin(depth) for depth in depths]
    assert margins == sorted(margins)
    assert LISTS._margin(1_001) == np.inf
    assert (np.diff([probed(INSIDE, k) for k in depths], axis=0) >= 0).all()
    assert set(probed(INSIDE, 3_000)) == {LISTS.index.nlist}


def test_lists_without_a_selected_vector_are_left_out() -> None:
    """Under a selection only lists that hold some of it are probed, and enough of them to fill the answer."""
    positions = np.arange(0, 3_600, 9)
    homes = set(LISTS._homes(positions).tolist())
    for lists in LISTS.plan(np.vstack([INSIDE, OUTSIDE]), 10, positions):
        if lists is not None:
            assert set(lists.tolist()) <= homes
            assert LISTS._count(positions)[lists].sum() >= 10


@pytest.mark.parametrize("selected", [np.arange(0, 3_600, 2), np.arange(900, 2_700)], ids=["of everything", "of half the topics"])
def test_a_large_selection_is_spread_by_a_sample(selected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample finds what counting all finds, of questions about what is selected and about what is not."""
    queries = np.vstack([STORED[::60], OUTSIDE])
    exact = selected[np.argsort(-(queries @ STORED[selected].T), axis=1)[:, :10]]
    mask = np.zeros(len(STORED), np.bool_)
    mask[selected] = True
    bits = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    monkeypatch.setattr(inverted, "_SAMPLE", 200)
    plan = LISTS.plan(queries, 10, selected)
    _, found = LISTS.search(queries, 10, plan, selector)
    recall = np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(found, exact, strict=True)])
    assert recall >= 0.99
    assert any(lists is not None for lists in plan)


def test_small_lists_still_fill_an_answer() -> None:
    """Where the closest lists hold fewer than asked for, more are probed."""
    sizes = np.ones(LISTS.index.nlist, np.int64)
    closeness = np.linspace(1.0, -1.0, LISTS.index.nlist, dtype=np.float32)
    lists = LISTS._choose(closeness, sizes, sizes > 0, 12, margin=0.0)
    assert lists is not None
    assert lists.tolist() == list(range(48))


def test_calibration_is_worth_its_figures() -> None:
    """The recall that it reports is that of questions which it did not use."""
    assert EFFORT["recall_at_10"] >= 0.98
    assert 1 <= EFFORT["nprobe"] <= LISTS.index.nlist // 3


def test_counts_follow_what_is_added() -> None:
    """Every list knows how many vectors it holds, without counting all of them again."""
    grown, _ = InvertedLists.train(STORED[:1_000], recall_target=0.99, seed=0)
    for start, stop in ((1_000, 1_001), (1_001, 2_500)):
        grown.add(STORED[start:stop])
    assert grown._sizes.tolist() == [grown.index.invlists.list_size(number) for number in range(grown.index.nlist)]
    assert np.array_equal(grown.vectors(np.array([2_499, 0, 1_000])), STORED[[2_499, 0, 1_000]])
