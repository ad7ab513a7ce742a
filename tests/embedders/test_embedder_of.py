"""How an embedder is named, and what a wrong name gets."""

import numpy as np
import pytest

from memlab.embedders import PrecomputedEmbedder, embedder_of
from memlab.errors import ErrorType, MemlabError


@pytest.mark.parametrize(
    ("spec", "dimension", "name"),
    [
        ("hashing", None, "hashing:384"),
        ("hashing", 128, "hashing:128"),
        ("hashing:256", None, "hashing:256"),
        ("hashing:256", 256, "hashing:256"),
        ("precomputed:384", None, "precomputed:384"),
        ("precomputed", 5, "precomputed:5"),
    ],
)
def test_a_spec_names_an_embedder(spec, dimension, name):
    """Kind and dimension come from the spec, or the dimension from beside it; the name is a spec again."""
    embedder = embedder_of(spec, dimension)
    assert embedder.name == name
    assert embedder_of(embedder.name).name == name


@pytest.mark.parametrize(
    ("spec", "dimension", "text"),
    [
        ("hashin", None, "did you mean 'hashing'"),
        ("minilm-l6", None, "known: hashing, model2vec, precomputed"),
        ("", None, "no embedder ''"),
        ("hashing:many", None, "after the colon stands the dimension"),
        ("hashing:-3", None, "after the colon stands the dimension"),
        ("hashing:²", None, "after the colon stands the dimension"),
        ("hashing:4", None, "8 to 8192"),
        ("hashing", 0, "8 to 8192"),
        ("hashing:256", 384, "has 256 dimensions, not 384"),
        ("precomputed", None, "needs the dimension"),
        ("precomputed:0", None, "1 to 8192"),
        ("precomputed:9000", None, "1 to 8192"),
        ("model2vec", None, "needs the folder"),
    ],
)
def test_a_wrong_spec_gets_one_clear_line(spec, dimension, text):
    """Every refusal is VALIDATION `embedder` in one line that says what fits."""
    with pytest.raises(MemlabError) as caught:
        embedder_of(spec, dimension)
    assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, "embedder")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("query", "what"), [(False, "embedding="), (True, "query_embedding=")])
def test_precomputed_says_what_to_pass(query, what):
    """Asked to embed, it refuses and names the parameter that carries the vector."""
    with pytest.raises(MemlabError, match=what) as caught:
        PrecomputedEmbedder(384).embed(["a text"], query=query)
    assert caught.value.reason == "embedder"
    assert "384" in str(caught.value)


def test_a_large_batch_is_embedded_in_order():
    """More texts than are summed at once keep their order."""
    texts = [f"note {n}" for n in range(600)]
    embedder = embedder_of("hashing:64")
    np.testing.assert_array_equal(embedder.embed(texts)[599], embedder.embed(["note 599"])[0])
