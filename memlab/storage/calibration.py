"""Questions for calibrating a search, made from stored vectors, and what an exact search answers to them.

An index is built before anybody asks, so questions are made from vectors that it holds, which then do not count among their
own answers: the vector itself; leaning towards another one, as a question about two things; and with three of four
components dropped, as a short question about a longer text. The last kind lies off the stored vectors, where real questions
about hashed texts lie: stored vectors alone suggest a tenth of the lists that those need.
"""

from __future__ import annotations

import faiss
import msgspec
import numpy as np

_FEWEST, _MOST = 96, 256  # questions of each kind, as many as cost less than training does
_PRODUCT = 12_800_000  # questions of a kind x vectors
_LEAN = 0.5
_KEPT = 0.25
_DEPTH = 1_000


class Questions(msgspec.Struct, frozen=True):
    """Made questions and their exact answers.

    Attributes:
        vectors: (q, dimension) float32 of unit length; the three kinds take turns.
        answers: positions of the nearest stored vectors, best first, (q, depth) int64.
    """

    vectors: np.ndarray
    answers: np.ndarray


def questions(stored: np.ndarray, seed: int) -> Questions:
    """Return questions about *stored*, (n, dimension) float32 of unit length, n 2 or more, and up to 1,000 answers each."""
    chance = np.random.default_rng(seed)
    each = min(max(_PRODUCT // len(stored), _FEWEST), _MOST, max(len(stored) // 3, 1))
    sources = chance.choice(len(stored), 3 * each, replace=len(stored) < 3)
    made = stored[sources].copy()
    made[1::3] += np.float32(_LEAN) * stored[chance.integers(0, len(stored), len(made[1::3]))]
    made[2::3] *= chance.random(made[2::3].shape) < _KEPT
    length = np.linalg.norm(made, axis=1, keepdims=True)
    made = np.where(length > 1e-6, made / np.maximum(length, 1e-6), stored[sources])  # all that it had was dropped
    depth = min(_DEPTH, len(stored) - 1)
    _, nearest = faiss.knn(made, stored, depth + 1, faiss.METRIC_INNER_PRODUCT)
    own = nearest == sources[:, None]
    own[~own.any(axis=1), -1] = True  # a duplicate crowded it out: leave the last one out instead
    return Questions(made, nearest[~own].reshape(len(made), depth))
