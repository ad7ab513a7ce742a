"""What an embedder is to the rest of memlab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into unit vectors. The same text gives the same vector, alone or among others, from any thread.

    Attributes:
        name: its identity, which a database remembers: equal names mean equal vectors for equal texts.
        dimension: numbers in a vector.
    """

    @property
    def name(self) -> str: ...
    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """Return one vector for each text.

        Args:
            texts: any number of texts, empty ones too.
            query: the texts are searched for rather than stored; embedders with two sides tell them apart.
        Returns:
            (len(texts), dimension) float32, each row of length 1.
        Raises:
            MemlabError: VALIDATION `embedder`: it cannot embed (`precomputed`).
        """
        ...
