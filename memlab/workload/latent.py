"""Vectors that behave like those of a sentence encoder, from a seeded model, for benchmarks at sizes nobody has real ones of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LATENT, TOPICS = 64, 200
SPREAD, ASIDE, NOISE = 0.7, 0.5, 0.3


def latent_vectors(
    count: int, queries: int, dimension: int = 384, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return (count, dimension) stored and (queries, dimension) asked vectors, float32 of unit length.

    A memory is a topic (200 of them, Zipf 0.7) plus a spread in 64 latent dimensions of falling weight, mapped to *dimension*
    with isotropic noise; a question is a memory's latent point with a smaller spread of its own. The constants were chosen so
    that 2,760 of them are as hard for inverted lists as the MiniLM vectors of the five LoCoMo conversations: recall@10 with
    1/64, 1/32, 1/16, 1/8, 1/4 and 1/2 of 64 lists is 0.69, 0.81, 0.90, 0.96, 0.98, 1.00 (LoCoMo: 0.59, 0.79, 0.91, 0.96,
    0.99, 1.00).
    """
    chance = np.random.default_rng(seed)
    weight = np.arange(1, LATENT + 1) ** -0.5
    out = (chance.standard_normal((LATENT, dimension)) * weight[:, None]).astype(np.float32)
    noise = np.float32(NOISE * np.sqrt((weight**2).sum() / dimension))
    popularity = np.arange(1, TOPICS + 1) ** -0.7
    topics = chance.standard_normal((TOPICS, LATENT))
    points = topics[chance.choice(TOPICS, count, p=popularity / popularity.sum())] + SPREAD * chance.standard_normal(
        (count, LATENT)
    )
    asked = points[chance.integers(0, count, queries)] + ASIDE * chance.standard_normal((queries, LATENT))

    def mapped(latent: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        vectors = latent.astype(np.float32) @ out + noise * chance.standard_normal((len(latent), dimension), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    return mapped(points), mapped(asked)
