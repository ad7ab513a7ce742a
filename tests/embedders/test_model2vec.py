"""A real model of a few words, made here, saved and loaded by model2vec's own code."""

import sys

import numpy as np
import pytest
from model2vec import StaticModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from memlab.embedders import embedder_of
from memlab.embedders.model2vec import Model2VecEmbedder
from memlab.errors import ErrorType, MemlabError

WORDS = ["[UNK]", "[PAD]", "coffee", "tea", "morning", "likes", "green", "strong"]
TEXTS = ["Coffee in the morning", "likes green tea", "strong strong coffee", "tea"]


def _model(seed: int = 0) -> StaticModel:
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return StaticModel(np.random.default_rng(seed).normal(size=(len(WORDS), 16)).astype(np.float32), tokenizer)


@pytest.fixture
def folder(tmp_path):
    _model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_saved_and_loaded_equals_direct_inference(folder):
    """The loaded embedder gives the vectors of the model in memory, at unit length, one by one or together."""
    direct = _model().encode(TEXTS, normalize=True)
    embedder = embedder_of(f"model2vec:{folder}")
    assert embedder.dimension == 16
    found = embedder.embed(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, direct, atol=1e-6)
    for text, vector in zip(TEXTS, found, strict=True):
        np.testing.assert_array_equal(embedder.embed([text], query=True)[0], vector)


@pytest.mark.parametrize("text", ["", "!!!", "zebra", "👍"])
def test_texts_without_a_known_word_have_a_unit_vector(folder, text):
    """No zero vector leaves the embedder."""
    vectors = Model2VecEmbedder(folder).embed([text, "tea"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_no_texts_give_no_vectors(folder):
    """An empty list is embedded into an empty array of the right width."""
    assert Model2VecEmbedder(folder).embed([]).shape == (0, 16)


def test_the_name_follows_the_weights_not_the_place(folder, tmp_path):
    """The same model elsewhere is the same embedder; other weights are another."""
    folder.rename(tmp_path / "moved")
    name = Model2VecEmbedder(tmp_path / "moved").name
    _model().save_pretrained(tmp_path / "again")
    _model(seed=1).save_pretrained(tmp_path / "other")
    assert Model2VecEmbedder(tmp_path / "again").name == name
    assert Model2VecEmbedder(tmp_path / "other").name != name
    assert name.startswith("model2vec:")
    assert name.endswith(":16")


def test_a_missing_folder_is_not_looked_for_on_a_network(tmp_path):
    """A path without a model says which file is missing."""
    with pytest.raises(MemlabError, match=r"no model\.safetensors in") as caught:
        Model2VecEmbedder(tmp_path / "nowhere")
    assert caught.value.type is ErrorType.NOT_FOUND


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_model_gets_one_clear_line(folder, file):
    """Each file cut short is refused in one line."""
    (folder / file).write_bytes((folder / file).read_bytes()[:20])
    with pytest.raises(MemlabError, match="does not hold a model2vec model") as caught:
        Model2VecEmbedder(folder)
    assert caught.value.reason == "embedder"
    assert "\n" not in str(caught.value)


def test_without_the_extra_one_line_names_it(folder, monkeypatch):
    """Where model2vec is not installed, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "model2vec", None)
    with pytest.raises(MemlabError, match=r"pip install 'memlab\[model2vec\]'"):
        Model2VecEmbedder(folder)
