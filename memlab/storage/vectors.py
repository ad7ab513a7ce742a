"""Vector search over FAISS, by position: vector i belongs to the i-th stored memory, in ascending seq.

Who may be found is the store's business: it passes a `Selection` of positions, and nothing outside it is returned. Searches
may run beside each other but not beside `add`: the store holds a reader/writer lock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np

from memlab.errors import MemlabError, internal, validation
from memlab.settings import IndexSettings
from memlab.storage.manifest import (
    Manifest,
    Stale,
    digest,
    publish,
    read_checked,
    read_manifest,
    remove_unlisted,
    write_manifest,
)

__all__ = ["Found", "Selection", "Stale", "VectorIndex"]

Found = tuple[np.ndarray, np.ndarray]
"""Scores (q, k) float32 and positions (q, k) int64, best first; -inf and -1 where there is nothing more."""

# From this many queries × dimensions a call, FAISS's exact search goes through BLAS: 64 queries a call then reach 2,000/s
# instead of 160. The default is 128,000, that is 334 queries at 384 dimensions.
faiss.cvar.distance_compute_blas_threshold = 64 * 384

_CODES_FROM = 1_000  # memories from which sq8 has seen enough to fix the range of its codes; below, it keeps exact vectors
_CALIBRATION_QUERIES = 256
_FILES = (".faiss", ".seqs", ".writing")


class Selection(msgspec.Struct, frozen=True):
    """Which positions may be found.

    Attributes:
        bits: bitmap over positions, little-endian bits in uint8; positions beyond its end are out.
        count: how many bits are set.
        positions: the same as a sorted int64 array; None where only the bitmap is known.
    """

    bits: np.ndarray
    count: int
    positions: np.ndarray | None = None


class VectorIndex:
    """Vectors of unit length, searched by cosine.

    Attributes:
        effort: what a search spends: nprobe or ef, and the recall@10 measured when it was calibrated.
    """

    def __init__(self, dimension: int, settings: IndexSettings) -> None:
        self.dimension = dimension
        self.settings = settings
        self.effort: dict[str, float] = {}
        self.trained_on = 0
        self._kind = "flat" if settings.kind in ("ivf", "sq8") else settings.kind
        self._index = _empty(self._kind, dimension, settings)

    @classmethod
    def build(cls, vectors: np.ndarray, settings: IndexSettings, *, dimension: int | None = None, seed: int = 0) -> VectorIndex:
        """Return an index of *vectors*, (n, dimension) float32 of unit length; trains and calibrates where its kind does."""
        index = cls(vectors.shape[1] if dimension is None else dimension, settings)
        vectors = index._checked(vectors)
        threshold = {"ivf": settings.train_at, "sq8": _CODES_FROM}.get(settings.kind)
        with _faiss_errors():
            if threshold is not None and len(vectors) >= threshold:
                index._kind = settings.kind
                index._train(vectors, seed)
            index._index.add(vectors)
            if len(vectors):
                index._calibrate(vectors, seed)
        return index

    @property
    def count(self) -> int:
        """Vectors in the index, forgotten ones included."""
        return int(self._index.ntotal)

    @property
    def kind_now(self) -> str:
        """The kind in use: `ivf` and `sq8` search exact vectors until there are enough to train on."""
        return self._kind

    @property
    def exact(self) -> bool:
        """Whether `vectors` returns what was added."""
        return self._kind not in ("sq8", "fp16")

    @property
    def bytes(self) -> int:
        """Resident bytes of vectors, codes, lists, links and maps."""
        index = self._index
        if self._kind == "ivf":
            per_vector = index.code_size + 8 + 8  # its list holds vector and position; the direct map where it is
            return int(index.ntotal * per_vector + index.nlist * self.dimension * 4)
        if self._kind == "hnsw":
            graph = index.hnsw
            links = graph.neighbors.size() * 4 + graph.offsets.size() * 8 + graph.levels.size() * 4
            return int(index.ntotal * self.dimension * 4 + links)
        return int(index.ntotal * (index.sa_code_size()))

    def add(self, vectors: np.ndarray) -> None:
        """Append *vectors*, (n, dimension) float32 of unit length, at the next positions."""
        vectors = self._checked(vectors)
        if len(vectors):
            with _faiss_errors():
                self._index.add(vectors)

    def search(self, queries: np.ndarray, k: int, *, selection: Selection | None = None, threads: int = 1) -> Found:
        """Return the *k* best of every query among *selection*, or among all.

        Args:
            queries: (q, dimension) float32 of unit length.
            k: 1 or more; rows are padded where fewer exist.
            selection: what may be found; shared by all queries of the call.
            threads: OpenMP threads for several queries; one query always takes one.
        Raises:
            MemlabError: VALIDATION `shape`, `vector` or `bounds`; INTERNAL `index`.
        """
        queries = self._checked(queries)
        if k < 1:
            raise validation("bounds", f"k = {k}; 1 or more fits")
        reachable = self.count if selection is None else min(selection.count, self.count)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        positions = np.full((len(queries), k), -1, np.int64)
        width = min(k, reachable)
        if width == 0 or len(queries) == 0:
            return scores, positions
        # OpenMP's setting belongs to the calling thread, and every worker thread calls: 0.2 µs.
        faiss.omp_set_num_threads(threads if len(queries) > 1 else 1)
        with _faiss_errors():
            if selection is None:
                found = self._index.search(queries, width, params=self._parameters(width, 1.0, None))
            elif selection.positions is not None and selection.count <= self.settings.exact_below:
                found = self._gathered(queries, width, selection.positions)
            else:
                selector = faiss.IDSelectorBitmap(len(selection.bits), faiss.swig_ptr(selection.bits))
                share = selection.count / self.count
                found = self._index.search(queries, width, params=self._parameters(width, share, selector))
        scores[:, :width], positions[:, :width] = found
        scores[positions < 0] = -np.inf
        return scores, positions

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """Return the vectors at *positions*, (m, dimension) float32; decoded, so exact where `exact` says so."""
        if len(positions) and not (positions.min() >= 0 and positions.max() < self.count):
            raise validation("bounds", f"positions reach from {positions.min()} to {positions.max()}; 0 to {self.count - 1} fit")
        with _faiss_errors():
            return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(positions, np.int64)), np.float32)

    def stale(self, dead: int) -> str | None:
        """Return why the index should be built again with *dead* positions in it, or None."""
        if self.count and dead / self.count > self.settings.rebuild_dead_ratio:
            return "dead"
        if self._kind != self.settings.kind:
            threshold = self.settings.train_at if self.settings.kind == "ivf" else _CODES_FROM
            return "train" if self.count >= threshold else None
        if self.trained_on and self.count >= self.trained_on * self.settings.retrain_growth:
            return "retrain"
        return None

    def save(self, folder: Path, *, database_id: str, generation: int, seqs: np.ndarray, commit_seq: int) -> None:
        """Write the index and the seq of every position to *folder*; until the last step an earlier save stays valid."""
        if len(seqs) != self.count:
            raise validation("shape", f"{len(seqs)} seqs for {self.count} vectors")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stem = f"vectors-{generation}-{commit_seq}"
        names = (f"{stem}.faiss", f"{stem}.seqs")
        with _faiss_errors():
            faiss.write_index(self._index, str(folder / f"{names[0]}.writing"))
        np.ascontiguousarray(seqs, np.int64).tofile(folder / f"{names[1]}.writing")
        for name in names:
            (folder / f"{name}.writing").chmod(0o600)
            publish(folder / f"{name}.writing", folder / name)
        details = {
            "dimension": self.dimension,
            "kind": self._kind,
            "settings": _shaping(self.settings),
            "trained_on": self.trained_on,
            "effort": self.effort,
        }
        files = {name: digest(folder / name) for name in names}
        write_manifest(
            folder,
            Manifest(
                index="vectors",
                database_id=database_id,
                generation=generation,
                commit_seq=commit_seq,
                count=self.count,
                details=details,
                files=files,
            ),
        )
        remove_unlisted(folder, files, _FILES)

    @classmethod
    def load(cls, folder: Path, *, database_id: str, dimension: int, settings: IndexSettings) -> tuple[VectorIndex, np.ndarray]:
        """Return the saved index and the seq of every position.

        Raises:
            Stale: missing, damaged, another database's, of another dimension or other settings.
        """
        manifest = read_manifest(folder, index="vectors", database_id=database_id)
        details = manifest.details
        if details["dimension"] != dimension:
            raise Stale("foreign", f"the vectors index has {details['dimension']} dimensions, the database {dimension}")
        if details["settings"] != _shaping(settings):
            raise Stale("settings", f"the vectors index was built for {details['settings']}, asked for is {_shaping(settings)}")
        names = {name.rpartition(".")[2]: name for name in manifest.files}
        if set(names) != {"faiss", "seqs"}:
            raise Stale("damaged", "the vectors manifest does not list an index and its seqs")
        seqs = read_checked(folder, names["seqs"], manifest).view(np.int64)
        content = read_checked(folder, names["faiss"], manifest)
        faiss.set_deserialization_vector_byte_limit(max(2 * len(content), 1 << 20))
        index = cls(dimension, settings)
        try:
            index._index = faiss.deserialize_index(content)
        except (RuntimeError, MemoryError) as error:
            raise Stale("damaged", "FAISS cannot read the vectors index") from error
        index._kind = details["kind"]
        index.trained_on = details["trained_on"]
        index.effort = details["effort"]
        if not index.count == manifest.count == len(seqs) or index._index.d != dimension:
            raise Stale("damaged", f"the vectors index holds {index.count} vectors and {len(seqs)} seqs, not {manifest.count}")
        return index, seqs

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise validation("shape", f"vectors of shape {vectors.shape}; (n, {self.dimension}) fits")
        vectors = np.ascontiguousarray(vectors, np.float32)
        # One multiplication finds any NaN or infinity; FAISS would store it and never find it again.
        if not math.isfinite(float(np.dot(vectors.ravel(), vectors.ravel()))):
            raise validation("vector", "a vector has a component that is not a finite number")
        return vectors

    def _train(self, vectors: np.ndarray, seed: int) -> None:
        if self._kind == "ivf":
            nlist = _lists(len(vectors))
            quantizer = faiss.IndexFlatIP(self.dimension)
            index = faiss.IndexIVFFlat(quantizer, self.dimension, nlist, faiss.METRIC_INNER_PRODUCT)
            index.cp.seed = seed + 1
            index.cp.niter = 8
            index.cp.max_points_per_centroid = 64
            index.set_direct_map_type(faiss.DirectMap.Array)
        else:
            index = faiss.IndexScalarQuantizer(self.dimension, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        self._index = index
        self.trained_on = len(vectors)

    def _calibrate(self, vectors: np.ndarray, seed: int) -> None:
        if self._kind == "ivf":
            self.effort = {"nprobe": 16}
        elif self._kind == "hnsw":
            self.effort = {"ef": 64}

    def _parameters(self, k: int, share: float, selector: Any) -> Any:
        if self._kind == "ivf":
            nprobe = min(self._index.nlist, math.ceil(self.effort["nprobe"] / max(share, 1e-6) ** 0.5))
            return faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        if self._kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(k, int(self.effort.get("ef", 64) / share)), sel=selector)
        return faiss.SearchParameters(sel=selector) if selector is not None else None

    def _gathered(self, queries: np.ndarray, k: int, positions: np.ndarray) -> Found:
        rows = self.vectors(positions)
        scores, order = faiss.knn(queries, rows, k, faiss.METRIC_INNER_PRODUCT)
        return scores, positions[order]


def _empty(kind: str, dimension: int, settings: IndexSettings) -> Any:
    if kind == "hnsw":
        return faiss.IndexHNSWFlat(dimension, settings.hnsw_links, faiss.METRIC_INNER_PRODUCT)
    if kind == "fp16":
        return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexFlatIP(dimension)


def _lists(count: int) -> int:
    """Return about 4 × sqrt(n) as a power of two: 1,024 lists for 100,000 vectors."""
    return max(16, 1 << round(math.log2(4 * math.sqrt(count))))


def _shaping(settings: IndexSettings) -> Mapping[str, Any]:
    """Return the settings that decide what is built; another value means another index."""
    return {"kind": settings.kind, "recall_target": settings.recall_target, "hnsw_links": settings.hnsw_links}


@contextmanager
def _faiss_errors() -> Iterator[None]:
    try:
        yield
    except MemlabError:
        raise
    except (AssertionError, RuntimeError, MemoryError) as error:
        raise internal("index", f"the vector index failed: {type(error).__name__} {error}".strip()) from error
