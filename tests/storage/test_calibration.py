"""Questions made from stored vectors, with the answers of an exact search."""

from __future__ import annotations

import numpy as np
import pytest

from memlab.storage.calibration import questions


def stored(count: int, dimension: int = 16) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [2, 3, 50, 2_000])
def test_answers_are_the_nearest_of_the_others(count: int) -> None:
    """No question is answered by the vector that it was made from; the rest come in the order of an exact search."""
    vectors = stored(count)
    made = questions(vectors, seed=1)
    depth = min(1_000, count - 1)
    assert made.answers.shape == (len(made.vectors), depth)
    assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1.0, atol=1e-5)
    scores = made.vectors @ vectors.T
    found = np.take_along_axis(scores, made.answers, axis=1)
    assert (np.diff(found, axis=1) <= 1e-5).all()
    for row, answers, closest in zip(scores, made.answers, scores.argsort(axis=1)[:, ::-1], strict=True):
        left_out = set(closest[: depth + 1].tolist()) - set(answers.tolist())
        assert len(left_out) == 1, "one vector is left out, the question's own"
        assert row[left_out.pop()] >= row[answers[-1]] - 1e-5


def test_copies_of_one_vector_make_questions_too() -> None:
    """Where all are equal, questions still have as many answers as there are others."""
    made = questions(np.repeat(stored(1), 40, axis=0), seed=0)
    assert made.answers.shape[1] == 39
    assert np.isfinite(made.vectors).all()


def test_questions_repeat() -> None:
    """The seed decides them."""
    assert np.array_equal(questions(stored(300), 7).vectors, questions(stored(300), 7).vectors)
    assert not np.array_equal(questions(stored(300), 7).vectors, questions(stored(300), 8).vectors)
