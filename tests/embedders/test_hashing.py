"""The default embedder: deterministic, never zero, close for texts that share words."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.embedders import HashingEmbedder
from memlab.errors import MemlabError

EMBEDDER = HashingEmbedder()
# What the algorithm named `hashing` gives; a change here needs another name, for databases remember it.
GOLDEN = {
    "Caroline paints a sunrise, and a sunset": "f8f321732290a239",
    "!!!": "b3a9d31db8fd28aa",
    "日本語のテキスト": "abf6321737625f01",
}


def _close(one: str, other: str) -> float:
    first, second = EMBEDDER.embed([one, other])
    return float(first @ second)


@given(st.lists(st.text(max_size=60), max_size=8))
def test_every_text_has_a_unit_vector(texts):
    """Whatever the texts hold, every vector is finite, float32 and of length 1; lone surrogates, emoji and "" included."""
    vectors = EMBEDDER.embed(texts)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6), st.integers(min_value=0))
def test_a_text_alone_equals_the_text_in_company(texts, choice):
    """A vector does not depend, in any bit, on the texts that are embedded beside it."""
    place = choice % len(texts)
    np.testing.assert_array_equal(EMBEDDER.embed(texts)[place], EMBEDDER.embed([texts[place]])[0])


@pytest.mark.parametrize("text", ["", "   ", "!!!", "👍", "\ud800", "a", "the of and", "0", "\x00"])
def test_texts_without_words_have_vectors(text):
    """Texts without a word, or with common words alone, are no zero vectors."""
    np.testing.assert_allclose(np.linalg.norm(EMBEDDER.embed([text])), 1.0, atol=1e-6)


def test_texts_without_words_differ():
    """Texts of signs alone are told apart."""
    vectors = EMBEDDER.embed(["!!!", "👍", "👎", ""])
    assert (vectors @ vectors.T)[~np.eye(4, dtype=bool)].max() < 0.9


def test_features_that_cancel_leave_a_vector():
    """Where every feature meets its opposite in its bucket, the text still has a vector of its own."""
    small = HashingEmbedder(8)
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh"), 2)) + " " + "".join(rng.choice(list("ijklmnop"), 2)) for _ in range(3000)]
    np.testing.assert_allclose(np.linalg.norm(small.embed(texts), axis=1), 1.0, atol=1e-6)


def test_near_duplicates_are_close_and_strangers_are_not():
    """Case, punctuation and an ending change little; a shared topic word is seen; other words are far."""
    assert _close("The cat sat on the mat", "the cat sat on the mat!") > 0.99
    assert _close("We painted the kitchen yesterday", "We are painting our kitchen") > 0.5
    assert _close("my dentist moved to Lisbon", "who lives in Lisbon?") > 0.3
    assert abs(_close("quarterly revenue forecast", "hiking boots are muddy")) < 0.15


def test_common_words_count_little():
    """A shared rare word weighs more than many shared common ones."""
    assert _close("what is it that you have", "volcano") < _close("is it a volcano that you have", "volcano")
    assert _close("is it the saxophone", "my saxophone") > _close("is it the saxophone", "is it the umbrella") + 0.3


def test_repetition_is_damped():
    """Saying a word ten times counts about three times, so the others are still found."""
    assert _close("spam " * 10 + "picnic", "picnic") > 0.15  # counted ten times: 0.1


def test_order_matters_a_little():
    """Word pairs tell two orders of the same words apart, and keep them close."""
    assert 0.8 < _close("dog bites old man", "old man bites dog") < 0.999


def test_unicode_forms_are_folded():
    """Composed and decomposed letters, and upper and lower case beyond ASCII, are one."""
    assert _close("Café Über", "Cafe\u0301 ÜBER") > 0.999


def test_the_name_tells_the_dimension_and_the_dimension_changes_the_vectors():
    """Two dimensions are two embedders."""
    assert HashingEmbedder(256).name == "hashing:256"
    assert HashingEmbedder(256).embed(["x"]).shape == (1, 256)


@pytest.mark.parametrize("dimension", [0, -1, 7, 8193])
def test_a_dimension_out_of_bounds_is_refused(dimension):
    """The bounds are said."""
    with pytest.raises(MemlabError, match="8 to 8192") as caught:
        HashingEmbedder(dimension)
    assert caught.value.reason == "embedder"


def test_many_threads_give_the_same_vectors():
    """One embedder serves many threads, also while its memory of words overflows."""
    crowded = HashingEmbedder(64, words_kept=16)
    texts = [f"word{n} meets word{n * 7 % 50}" for n in range(200)]
    expected = crowded.embed(texts)
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda _: crowded.embed(texts), range(24)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("text", GOLDEN)
def test_vectors_stay_what_they_were(text):
    """Another release gives the same vectors under the same name: databases hold them."""
    vector = EMBEDDER.embed([text])[0]
    assert hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest()[:16] == GOLDEN[text]


def test_another_process_gives_the_same_bits():
    """Nothing depends on Python's salted hash."""
    program = (
        "from memlab.embedders import HashingEmbedder\n"
        "import sys; sys.stdout.write(HashingEmbedder().embed(['Remember the milk, Zoë'])[0].tobytes().hex())"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == EMBEDDER.embed(["Remember the milk, Zoë"])[0].tobytes().hex()
