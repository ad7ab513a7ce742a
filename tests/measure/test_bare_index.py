"""Bare indexes find what is nearest, under a bitmap too, and say what they take."""

import numpy as np
import pytest

from memlab.measure.bare_index import EFFORTS, FACTORY, BareIndex, Lists

ROWS, DIMENSION = 900, 32


@pytest.fixture(scope="module")
def vectors():
    drawn = np.random.default_rng(0).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=FACTORY)
def index(request, vectors):
    return request.param, BareIndex(request.param, vectors)


def test_every_stored_vector_finds_itself(index, vectors):
    """At the highest effort of its kind, with rare exceptions for codes and graphs."""
    kind, built = index
    found = built.search(vectors[:100], 10, EFFORTS[kind][-1])
    assert found.shape == (100, 10)
    assert (found[:, 0] == np.arange(100)).mean() > 0.95
    assert built.build_s > 0


def test_nothing_outside_of_the_bitmap_is_found(index, vectors):
    """Rows from 300 on may be found, and no others; where too few are found, -1 fills up."""
    kind, built = index
    bits = np.packbits(np.arange(ROWS) >= 300, bitorder="little")
    for effort in EFFORTS[kind]:
        found = built.search(vectors[:50], 10, effort, bits)
        assert ((found >= 300) | (found == -1)).all()


def test_flat_is_exact(vectors):
    """As a product of matrices says."""
    found = BareIndex("flat", vectors).search(vectors[:20], 5)
    assert (found == np.argsort(-(vectors[:20] @ vectors.T), axis=1)[:, :5]).all()


def test_codes_take_fewer_bytes(vectors):
    """Four, two and one byte a dimension; a graph takes its links beside."""
    size = {kind: BareIndex(kind, vectors).bytes / ROWS for kind in ("flat", "fp16", "sq8", "hnsw")}
    assert [round(size[kind] / DIMENSION) for kind in ("flat", "fp16", "sq8")] == [4, 2, 1]
    assert size["hnsw"] > size["flat"] + 32 * 4


def test_lists_are_trained_once_for_all_kinds(vectors):
    """An index over given lists finds what one finds that trained its own; training them counts as building."""
    lists = Lists.train(vectors)
    for kind in ("ivf", "ivf+sq8", "ivf+rabitq+refine"):
        shared, own = BareIndex(kind, vectors, lists), BareIndex(kind, vectors)
        effort = EFFORTS[kind][0]
        assert (shared.search(vectors[:50], 5, effort) == own.search(vectors[:50], 5, effort)).all()
        assert shared.bytes == own.bytes
        assert shared.build_s > lists.train_s > 0
    assert BareIndex("flat", vectors, lists).bytes == BareIndex("flat", vectors).bytes
