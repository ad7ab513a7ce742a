"""Text to vectors: which embedders there are, and how one is named."""

from __future__ import annotations

from memlab.embedders.embedder import Embedder
from memlab.embedders.hashing import HashingEmbedder
from memlab.embedders.precomputed import PrecomputedEmbedder
from memlab.errors import nearest, validation

__all__ = ["Embedder", "HashingEmbedder", "PrecomputedEmbedder", "embedder_of"]

_KINDS = ("hashing", "model2vec", "precomputed")


def embedder_of(spec: str, dimension: int | None = None) -> Embedder:
    """Return the embedder that *spec* names.

    Args:
        spec: `hashing`, `hashing:256`, `precomputed:384`, or `model2vec:` and the path of a model's folder.
        dimension: of its vectors, where *spec* does not say it; it must agree where it does.
    Raises:
        MemlabError: VALIDATION `embedder`: unknown name, a dimension missing, out of bounds or in conflict.

    >>> embedder_of("hashing:256").dimension
    256
    """
    kind, _, rest = spec.partition(":")
    if kind not in _KINDS:
        raise validation("embedder", f"no embedder '{kind}'{nearest(kind, _KINDS)}")
    if kind == "model2vec":
        if not rest:
            raise validation("embedder", "model2vec needs the folder of its model: 'model2vec:path/to/model'")
        from memlab.embedders.model2vec import Model2VecEmbedder  # an extra: asked for only where it is named

        return _agreeing(Model2VecEmbedder(rest), spec, dimension)
    if rest and not (rest.isascii() and rest.isdigit()):
        raise validation("embedder", f"embedder '{spec}': after the colon stands the dimension, such as '{kind}:384'")
    wanted = int(rest) if rest else dimension
    if kind == "hashing":
        return _agreeing(HashingEmbedder() if wanted is None else HashingEmbedder(wanted), spec, dimension)
    if wanted is None:
        raise validation("embedder", "precomputed needs the dimension of its vectors, such as 'precomputed:384'")
    return _agreeing(PrecomputedEmbedder(wanted), spec, dimension)


def _agreeing(embedder: Embedder, spec: str, dimension: int | None) -> Embedder:
    if dimension is not None and embedder.dimension != dimension:
        raise validation("embedder", f"embedder '{spec}' has {embedder.dimension} dimensions, not {dimension}")
    return embedder
