"""Clustering and central sentences: small cases worked out by hand, and what holds for any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.embedders import HashingEmbedder
from memlab.operations.clusters import (
    ALGORITHMS,
    MOST_SENTENCES,
    average_linkage,
    central_sentences,
    k_means,
    leaders,
    medoid,
    sentences,
)


def at(*degrees):
    """Return unit vectors in the plane."""
    turned = np.radians(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


@pytest.mark.parametrize("name", ALGORITHMS)
@given(
    degrees=st.lists(st.integers(0, 359), max_size=12),
    similarity=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
def test_every_place_is_in_one_group(name, degrees, similarity):
    """Whatever the vectors are, the groups are a partition, in order, and the same again."""
    vectors = at(*degrees).reshape(-1, 2)
    groups = ALGORITHMS[name](vectors, similarity)
    assert sorted(place for group in groups for place in group) == [*range(len(degrees))]
    assert all(group == sorted(group) for group in groups)
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)
    assert ALGORITHMS[name](vectors, similarity) == groups


@pytest.mark.parametrize("name", ALGORITHMS)
def test_far_bundles_are_told_apart(name):
    """Two bundles far from each other and one vector alone are two groups and one."""
    assert ALGORITHMS[name](at(0, 90, 4, 94, 200, 2), 0.95) == [[0, 2, 5], [1, 3], [4]]


def test_a_leader_keeps_its_distance():
    """No member is further from the first of its group than asked; what comes later may be closer to another leader."""
    assert leaders(at(0, 20, 40), 0.9) == [[0, 1], [2]]  # cos 20 = 0.94, cos 40 = 0.77
    assert leaders(at(20, 0, 40), 0.9) == [[0, 1, 2]]


def test_k_means_moves_what_a_leader_took_first():
    """A vector that joined the first leader goes to the closer centre of a later group."""
    vectors = at(0, 2, 25, 50, 30, 31)
    assert leaders(vectors, 0.9) == [[0, 1, 2], [3, 4, 5]]
    assert k_means(vectors, 0.9) == [[0, 1], [2, 3, 4, 5]]


def test_average_linkage_cuts_at_the_mean_cosine():
    """A third vector joins two where its mean cosine to both reaches the bound: (cos 40 + cos 30) / 2 = 0.816."""
    assert average_linkage(at(0, 10, 40), 0.81) == [[0, 1, 2]]
    assert average_linkage(at(0, 10, 40), 0.82) == [[0, 1], [2]]
    assert average_linkage(at(40, 10, 0), 0.82) == [[0], [1, 2]]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_equal_vectors_are_one_group(name):
    """Vectors of equal texts are alike at a similarity of 1, whatever single precision makes of their product."""
    vectors = HashingEmbedder(384).embed(["Ada drinks tea in the garden", "Bo sails"] * 3)
    assert ALGORITHMS[name](vectors, 1.0 - 1e-6) == [[0, 2, 4], [1, 3, 5]]


def test_the_medoid_lies_in_the_middle():
    """The vector closest to all is the middle one; of equals the first."""
    assert medoid(at(0, 30, 14, 60)) == 1
    assert medoid(at(5, 5)) == 0


def test_texts_fall_into_sentences():
    """A sentence ends at its sign or at a line's end; texts without either are one; there are not too many."""
    assert [(one.text, one.place) for one in sentences(["Tea. Is it hot?\nYes", "v1.2 is out", "茶。水"])] == [
        ("Tea.", 0),
        ("Is it hot?", 0),
        ("Yes", 0),
        ("v1.2 is out", 1),
        ("茶。", 2),
        ("水", 2),
    ]
    assert len(sentences(["a. b. c."] * 1_000)) == MOST_SENTENCES
    assert {one.place for one in sentences(["a. " * 500, "b. " * 500])} == {0, 1}


def test_the_sentence_that_shares_most_is_central():
    """What has words in common with most others leads; what repeats it is left out, what is apart comes last."""
    texts = [
        "The projector broke.",
        "Ada drinks tea at home. Ada drinks tea at sea.",
        "At home Ada drinks tea.",
        "Bo drinks tea.",
    ]
    (first,) = central_sentences(texts, 1)
    assert first.text == "Ada drinks tea at home."
    more = [one.text for one in central_sentences(texts, 3)]
    assert "At home Ada drinks tea." not in more
    assert more == sorted(more, key=lambda text: next(place for place, whole in enumerate(texts) if text in whole))


@pytest.mark.parametrize("texts", [["the"], ["!!!", "???"], ["", " "]])
def test_texts_without_words_have_a_central_sentence_too(texts):
    """There is always something to quote."""
    assert 1 <= len(central_sentences(texts, 2)) <= 2
