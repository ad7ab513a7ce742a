"""For data whose vectors were computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from memlab.embedders.embedder import Vectors
from memlab.errors import validation


class PrecomputedEmbedder:
    """Stands in a database whose vectors come with the data; asked to embed, it says what to pass instead.

    Args:
        dimension: of the vectors that come, 1 to 8192.
    Raises:
        MemlabError: VALIDATION `embedder`: *dimension* out of bounds.
    """

    def __init__(self, dimension: int) -> None:
        if not 1 <= dimension <= 8192:
            raise validation("embedder", f"precomputed vectors have 1 to 8192 dimensions, not {dimension}")
        self.dimension = dimension
        self.name = f"precomputed:{dimension}"

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """Refuse: VALIDATION `embedder`."""
        what = "query_embedding=, or search by text" if query else "embedding="
        raise validation(
            "embedder",
            f"this database takes precomputed vectors and cannot embed text; pass {what} ({self.dimension} numbers)",
        )
