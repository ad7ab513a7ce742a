"""The user's own models, where memlab has an algorithm of its own: given to `Engine.open` or `Memory.open`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Expander: TypeAlias = Callable[[str], str]
"""Turns a query into a longer text to search for, such as an answer that might be there (HyDE, Gao et al. 2023)."""
Reranker: TypeAlias = Callable[[str, Sequence[str]], Sequence[float]]
"""Says how well each of the texts answers the query, higher being better, such as a cross-encoder does."""
Summariser: TypeAlias = Callable[[Sequence[str]], str]
"""Turns texts that say nearly the same into one text."""


@dataclass(frozen=True)
class Hooks:
    """What stands in for memlab's own algorithms; called from several threads, and never by the one that writes.

    Attributes:
        expander: for `rag.query_expansion`.
        reranker: for `rag.retrieve_with_reranking`.
        summariser: for `consolidation.consolidate`, in place of central sentences.
    """

    expander: Expander | None = None
    reranker: Reranker | None = None
    summariser: Summariser | None = None


NONE = Hooks()
