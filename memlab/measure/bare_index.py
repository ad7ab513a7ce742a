"""Kinds of vector index as FAISS makes them, with nothing around: what each could do at best, in time, bytes and recall."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from memlab.measure import clock

# As the engine has it, whatever was imported first: exact search of 64 queries or more goes through BLAS.
faiss.cvar.distance_compute_blas_threshold = 64 * 384

Kind: TypeAlias = Literal["flat", "sq8", "fp16", "ivf", "ivf+sq8", "hnsw", "ivf+rabitq+refine"]
Vectors: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]

# In FAISS's own words; {lists} is about sqrt(rows), the power of two that leaves 39 rows or more to train each list on.
FACTORY: Mapping[Kind, str] = {
    "flat": "Flat",
    "sq8": "SQ8",
    "fp16": "SQfp16",
    "ivf": "IVF{lists},Flat",
    "ivf+sq8": "IVF{lists},SQ8",
    "hnsw": "HNSW32",
    "ivf+rabitq+refine": "IVF{lists},RaBitQ,Refine(SQ8)",
}
EFFORTS: Mapping[Kind, tuple[int, ...]] = {
    "flat": (0,),
    "sq8": (0,),
    "fp16": (0,),
    "ivf": (4, 8, 16),
    "ivf+sq8": (4, 8, 16),
    "hnsw": (16, 64, 256),
    "ivf+rabitq+refine": (4, 16),
}
"""Lists looked into, or candidates kept on the way; 0 where everything is compared."""

_REFINED = 8  # candidates for each answer that are compared again
_ROWS_A_LIST = 39


class Lists(NamedTuple):
    """Inverted lists that were trained on rows: the same for every kind that has any, and most of what building it takes.

    Attributes:
        centres: (lists, dimension).
        train_s: on every processor.
    """

    centres: Vectors
    train_s: float

    @classmethod
    def train(cls, vectors: Vectors) -> Lists:
        """Train as many lists as `FACTORY` says for these rows."""
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        started = clock.monotonic_ns()
        index = faiss.index_factory(vectors.shape[1], f"IVF{_lists(len(vectors))},Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        centres: Vectors = index.quantizer.reconstruct_n(0, index.nlist)
        return cls(centres, (clock.monotonic_ns() - started) / 1e9)


def _lists(rows: int) -> int:
    return 1 << max(1, int(np.log2(max(min(4 * np.sqrt(rows), rows / _ROWS_A_LIST), 2))))


class BareIndex:
    """One index over rows that do not change.

    Args:
        lists: of these very rows, for kinds with inverted lists, which are trained here without; of no use to others.

    Attributes:
        build_s: to train it, its lists included, and add the rows, on every processor.
        bytes: of the index when written out, which is about what it takes in memory.
    """

    def __init__(self, kind: Kind, vectors: Vectors, lists: Lists | None = None) -> None:
        rows, dimension = vectors.shape
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        started = clock.monotonic_ns()
        self._index: Any = faiss.index_factory(dimension, FACTORY[kind].format(lists=_lists(rows)), faiss.METRIC_INNER_PRODUCT)
        before_s = 0.0
        if lists is not None and "{lists}" in FACTORY[kind]:
            faiss.extract_index_ivf(self._index).quantizer.add(lists.centres)  # which training then leaves as they are
            before_s = lists.train_s
        self._index.train(vectors)
        self._index.add(vectors)
        self.build_s = before_s + (clock.monotonic_ns() - started) / 1e9
        self.bytes = len(faiss.serialize_index(self._index))
        self._kind = kind

    def search(self, queries: Vectors, k: int, effort: int = 0, bits: npt.NDArray[np.uint8] | None = None) -> Ints:
        """Return the rows nearest to each query, by one thread; (queries, k), -1 where there are fewer.

        Args:
            effort: of `EFFORTS`.
            bits: bitmap of the rows that may be found, little-endian; None for all.
        """
        faiss.omp_set_num_threads(1)
        selector = None if bits is None else faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        found: Ints = self._index.search(queries, k, params=self._parameters(effort, selector))[1]
        return found

    def _parameters(self, effort: int, selector: Any) -> Any:
        if self._kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        if self._kind in ("ivf", "ivf+sq8"):
            return faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        if self._kind == "ivf+rabitq+refine":
            lists = faiss.IVFRaBitQSearchParameters(nprobe=effort, sel=selector)
            return faiss.IndexRefineSearchParameters(k_factor=_REFINED, base_index_params=lists)
        return None if selector is None else faiss.SearchParameters(sel=selector)
