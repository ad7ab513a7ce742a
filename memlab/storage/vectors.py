"""Vector search over FAISS, by position: vector i belongs to the i-th stored memory, in ascending seq.

Who may be found is the store's business: it passes a `Selection` of positions, and nothing outside it is returned. Searches
may run beside each other but not beside `add`: the store holds a reader/writer lock.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np

from memlab.errors import internal, validation
from memlab.settings import IndexSettings
from memlab.storage.calibration import questions
from memlab.storage.inverted import Found, InvertedLists
from memlab.storage.manifest import (
    FileDigest,
    Manifest,
    Stale,
    check_files,
    digest,
    publish,
    read_manifest,
    remove_unlisted,
    write_manifest,
)

# From this many queries x dimensions a call, FAISS's exact search goes through BLAS: 64 queries of 384 dimensions then reach
# 2,000/s instead of 160. The default of 128,000 asks for 334 queries.
faiss.cvar.distance_compute_blas_threshold = 64 * 384

_CODES_FROM = 1_000  # vectors from which sq8 knows the range of its codes; below, it keeps them exact
_TOGETHER = 8  # questions that need every list, from which gathering all rows for BLAS beats scanning the lists for each
_BLOCK = 8_192  # rows that are gathered at once: 12 MB at 384 dimensions
_DECODING = 640
_WALK_FROM = 0.3  # share of all from which hnsw walks its graph; a narrower selection is scanned
_WIDER = 3  # ef for each answer of deep searches: at ef = k the graph finds 0.98 of a hundred
_EF = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_READING = threading.Lock()
_NOTHING = np.empty(0, np.int64)
_SUFFIXES = (".faiss", ".seqs", ".writing")


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
        effort: what searches spend: `nprobe` (the lists that a fixed number would have to be) or `ef`, and the
            `recall_at_10` that calibration measured; empty for kinds that scan everything.
        trained_on: vectors that the index was trained or judged on; 0 for kinds that do neither.
    """

    def __init__(self, dimension: int, settings: IndexSettings) -> None:
        self.dimension = dimension
        self.settings = settings
        self.effort: dict[str, float] = {}
        self.trained_on = 0
        self._lists: InvertedLists | None = None
        self._saved: dict[str, FileDigest] = {}  # the files that hold just this, in the folder of the last save or load
        self._use("flat" if settings.kind in ("ivf", "sq8") else settings.kind)

    @classmethod
    def build(cls, vectors: np.ndarray, settings: IndexSettings, seed: int = 0) -> VectorIndex:
        """Return an index of *vectors*, (n, dimension) float32 of unit length; trained and calibrated where its kind is."""
        index = cls(vectors.shape[1], settings)
        vectors = index._checked(vectors)
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        with _errors():
            if settings.kind == "ivf" and len(vectors) >= settings.train_at:
                index._lists, index.effort = InvertedLists.train(vectors, recall_target=settings.recall_target, seed=seed)
                index._kind, index._index, index.trained_on = "ivf", index._lists.index, len(vectors)
            elif settings.kind == "sq8" and len(vectors) >= _CODES_FROM:
                index._use("sq8")
                index._index.train(vectors)
                index.trained_on = len(vectors)
            if index._lists is None:
                index._index.add(vectors)
            if index._kind == "hnsw" and len(vectors) > 10:
                index.effort = index._calibrate_graph(vectors, seed)
        return index

    @property
    def count(self) -> int:
        """Vectors in the index, forgotten ones included."""
        return int(self._index.ntotal)

    @property
    def kind_now(self) -> str:
        """The kind in use: `ivf` and `sq8` are `flat` until there are enough vectors to train on."""
        return self._kind

    @property
    def exact(self) -> bool:
        """Whether `vectors` returns what was added."""
        return self._kind not in ("sq8", "fp16")

    @property
    def probed(self) -> float:
        """Share of the vectors that an unfiltered question looks at; 1 for kinds that scan everything."""
        return 1.0 if self._lists is None else min(1.0, self.effort.get("nprobe", 1.0) / max(self._lists.index.nlist, 1))

    @property
    def recall(self) -> float | None:
        """recall@10 of an unfiltered question: 1 where every vector is compared, else what calibration measured, if it did."""
        return 1.0 if self._kind == "flat" else self.effort.get("recall_at_10")

    @property
    def bytes(self) -> int:
        """Resident bytes of vectors or codes, lists, links and maps."""
        index, count = self._index, self.count
        if self._kind == "ivf":  # a list holds vectors and positions; the direct map says where each is
            return count * (int(index.code_size) + 16) + int(index.nlist) * self.dimension * 4
        if self._kind == "hnsw":
            graph = index.hnsw
            links = graph.neighbors.size() * 4 + graph.offsets.size() * 8 + graph.levels.size() * 4
            return count * self.dimension * 4 + int(links)
        return count * int(index.sa_code_size())

    def add(self, vectors: np.ndarray) -> None:
        """Append *vectors*, (n, dimension) float32 of unit length, at the next positions."""
        vectors = self._checked(vectors)
        if not len(vectors):
            return
        self._saved = {}
        faiss.omp_set_num_threads(1 if len(vectors) < _BLOCK else os.cpu_count() or 1)
        with _errors():
            if self._lists is not None:
                self._lists.add(vectors)
            else:
                self._index.add(vectors)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        selection: Selection | None = None,
        threads: int = 1,
        exactly: bool | None = None,
    ) -> Found:
        """Return the *k* best of every query among *selection*, or among all.

        Args:
            queries: (q, dimension) float32 of unit length.
            k: 1 or more; rows are padded where fewer exist.
            selection: what may be found, by all queries of the call.
            threads: OpenMP threads for several queries; one query takes one.
            exactly: compare every selected vector, or ask the index; by default whichever its kind finds the cheaper.

        Raises:
            MemlabError: VALIDATION `shape`, `vector` or `bounds`; INTERNAL `index`.
        """
        queries = self._checked(queries)
        if k < 1:
            raise validation("bounds", f"k = {k}; 1 or more fits")
        positions = _NOTHING if selection is None else self._held(selection)
        width = min(k, self.count if selection is None else len(positions))
        if not width or not len(queries):
            return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        # OpenMP's setting is the calling thread's, and any worker thread may call: 0.2 µs.
        faiss.omp_set_num_threads(threads if len(queries) > 1 else 1)
        with _errors():
            scores, found = self._search(queries, width, selection, positions, exactly)
        if width < k:
            room = ((0, 0), (0, k - width))
            scores, found = np.pad(scores, room), np.pad(found, room, constant_values=-1)
        scores[found < 0] = -np.inf
        return scores, found

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """Return the vectors at *positions*, (m, dimension) float32; decoded, so exact where `exact` says so."""
        if len(positions) and not (positions.min() >= 0 and positions.max() < self.count):
            raise validation("bounds", f"positions reach from {positions.min()} to {positions.max()}; 0 to {self.count - 1} fit")
        with _errors():
            return self._rows(positions)

    def stale(self, dead: int) -> str | None:
        """Return why the index should be built again with *dead* of its positions forgotten, or None."""
        if dead > self.settings.rebuild_dead_ratio * self.count:
            return "dead"
        if self.trained_on:
            return "retrain" if self.count >= self.settings.retrain_growth * self.trained_on else None
        threshold = {"ivf": self.settings.train_at, "sq8": _CODES_FROM}.get(self.settings.kind, math.inf)
        return "train" if self.count >= threshold else None

    def save(self, folder: Path, *, database_id: str, generation: int, seqs: np.ndarray, commit_seq: int) -> None:
        """Write the index and the seq of every position to *folder*; until the last step an earlier save stays valid.

        Files that hold the same already are not written again.
        """
        if len(seqs) != self.count:
            raise validation("shape", f"{len(seqs)} seqs for {self.count} vectors")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        seqs = np.ascontiguousarray(seqs, np.int64)
        stem = f"vectors-{generation}-{commit_seq}"
        names = {".faiss": f"{stem}.faiss", ".seqs": f"{stem}.seqs"}
        for suffix, name in names.items():
            temporary = folder / f"{name}.writing"
            kept = next((path for path in self._saved if path.endswith(suffix)), None)
            if suffix == ".faiss" and kept is not None and (folder / kept).exists():
                names[suffix] = kept
                continue
            if suffix == ".faiss":
                with _errors():
                    faiss.write_index(self._index, str(temporary))
            else:
                seqs.tofile(temporary)
            temporary.chmod(0o600)
            publish(temporary, folder / name)
        files = {name: self._saved.get(name) or digest(folder / name) for name in names.values()}
        write_manifest(
            folder,
            Manifest(
                index="vectors",
                database_id=database_id,
                generation=generation,
                commit_seq=commit_seq,
                count=self.count,
                details={
                    "dimension": self.dimension,
                    "kind": self._kind,
                    "settings": _shaping(self.settings),
                    "trained_on": self.trained_on,
                    "effort": self.effort,
                    "lists": None if self._lists is None else _of_lists(self._lists),
                },
                files=files,
            ),
        )
        remove_unlisted(folder, files, _SUFFIXES)
        self._saved = files

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
            raise Stale("settings", f"the vectors index was built for {details['settings']}, wanted is {_shaping(settings)}")
        names = {Path(name).suffix: name for name in manifest.files}
        if set(names) != {".faiss", ".seqs"}:
            raise Stale("damaged", "the vectors manifest does not list an index and its seqs")
        check_files(folder, manifest)
        file = folder / names[".faiss"]
        index = cls(dimension, settings)
        try:
            seqs = np.fromfile(folder / names[".seqs"], np.int64)
            index._index = _read_index(file, manifest.files[file.name].bytes)
            if details["kind"] == "ivf":
                kept = details["lists"]
                margins = {int(depth): margin for depth, margin in kept["margins"].items()}
                index._lists = InvertedLists(index._index, margins, kept["usual"])
        except (OSError, RuntimeError, MemoryError, AssertionError) as error:
            raise Stale("damaged", f"the vectors index cannot be read: {error}") from error
        index._kind = details["kind"]
        index.trained_on = details["trained_on"]
        index.effort = details["effort"]
        index._saved = dict(manifest.files)
        if index._index.d != dimension or not index.count == manifest.count == len(seqs):
            raise Stale("damaged", f"the vectors index holds {index.count} vectors and {len(seqs)} seqs, not {manifest.count}")
        return index, seqs

    # --- by kind -----------------------------------------------------------------------------------------------------

    def _use(self, kind: str) -> None:
        self._kind = kind
        if kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(self.dimension, self.settings.hnsw_links, faiss.METRIC_INNER_PRODUCT)
        elif kind in ("sq8", "fp16"):
            codes = faiss.ScalarQuantizer.QT_8bit if kind == "sq8" else faiss.ScalarQuantizer.QT_fp16
            self._index = faiss.IndexScalarQuantizer(self.dimension, codes, faiss.METRIC_INNER_PRODUCT)
        else:
            self._index = faiss.IndexFlatIP(self.dimension)

    def _calibrate_graph(self, vectors: np.ndarray, seed: int) -> dict[str, float]:
        """Return the smallest ef whose recall@10 on made questions reaches the target, or the largest there is."""
        made = questions(vectors, seed)
        depth = min(10, made.answers.shape[1])
        for ef in _EF:
            _, found = self._index.search(made.vectors, depth + 1, params=faiss.SearchParametersHNSW(efSearch=ef))
            recall = float((made.answers[:, :depth, None] == found[:, None, :]).any(axis=2).mean())
            if recall >= self.settings.recall_target:
                break
        return {"ef": ef, "recall_at_10": recall}

    def _search(
        self, queries: np.ndarray, k: int, selection: Selection | None, positions: np.ndarray, exactly: bool | None
    ) -> Found:
        selector, share = None, 1.0
        if selection is None and exactly:
            return self._scan(queries, k, np.arange(self.count))
        if selection is not None:
            share = len(positions) / self.count
            if exactly or (exactly is None and self._gathers(share, len(queries))):
                return self._scan(queries, k, positions)
            bits = np.ascontiguousarray(selection.bits)
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        if self._lists is not None:
            return self._search_lists(self._lists, queries, k, None if selection is None else positions, selector)
        if self._kind == "hnsw":
            ef = math.ceil(max(self.effort.get("ef", _EF[0]), _WIDER * k) / share)
            parameters = faiss.SearchParametersHNSW(efSearch=ef, sel=selector)
        else:
            parameters = None if selector is None else faiss.SearchParameters(sel=selector)
        found: Found = self._index.search(queries, k, params=parameters)
        if self._kind == "hnsw" and (found[1] < 0).any():  # the walk met fewer than there are
            return self._scan(queries, k, np.arange(self.count) if selection is None else positions)
        return found

    def _search_lists(
        self, lists: InvertedLists, queries: np.ndarray, k: int, positions: np.ndarray | None, selector: Any
    ) -> Found:
        plan = lists.plan(queries, k, positions)
        everywhere = np.array([chosen is None for chosen in plan])
        if everywhere.sum() < _TOGETHER:
            return lists.search(queries, k, plan, selector)
        scores, found = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        among = np.arange(self.count) if positions is None else positions
        scores[everywhere], found[everywhere] = self._scan(queries[everywhere], k, among)
        if not everywhere.all():
            rest = [chosen for chosen in plan if chosen is not None]
            scores[~everywhere], found[~everywhere] = lists.search(queries[~everywhere], k, rest, selector)
        return scores, found

    def _gathers(self, share: float, queries: int) -> bool:
        """Return whether gathering the selected *share* of the rows for *queries* beats asking the index to filter."""
        if self._kind in ("sq8", "fp16"):  # decoding a row costs as much as testing the bits of 640
            return share * _DECODING < queries
        few = share * self.count <= self.settings.exact_below
        return few or self._kind == "flat" or (self._kind == "hnsw" and share < _WALK_FROM)

    def _held(self, selection: Selection) -> np.ndarray:
        """Return the selected positions that the index holds, sorted: what lies beyond must not even be read."""
        positions = selection.positions
        if positions is None:
            positions = np.flatnonzero(np.unpackbits(selection.bits, bitorder="little"))
        if len(positions) and positions[-1] >= self.count:
            positions = positions[: int(np.searchsorted(positions, self.count))]
        return positions

    def _scan(self, queries: np.ndarray, k: int, positions: np.ndarray) -> Found:
        """Return the exact best among *positions*."""
        plain = self._plain()
        if plain is not None and len(queries) == 1:
            # Reads the selected rows where they are: 0.6 of the time of gathering them first.
            found: Found = plain.search(queries, k, params=faiss.SearchParameters(sel=faiss.IDSelectorArray(positions)))
            return found
        found = self._scan_block(queries, k, positions[:_BLOCK])
        for start in range(_BLOCK, len(positions), _BLOCK):
            found = _merged(found, self._scan_block(queries, k, positions[start : start + _BLOCK]), k)
        return found

    def _scan_block(self, queries: np.ndarray, k: int, positions: np.ndarray) -> Found:
        scores, rows = faiss.knn(queries, self._rows(positions), min(k, len(positions)), faiss.METRIC_INNER_PRODUCT)
        return scores, positions[rows]

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        plain = self._plain()
        if plain is not None:
            held = faiss.rev_swig_ptr(plain.get_xb(), self.count * self.dimension).reshape(self.count, self.dimension)
            rows: np.ndarray = held[positions]
            return rows
        found: np.ndarray = self._index.reconstruct_batch(np.ascontiguousarray(positions, np.int64))
        return found

    def _plain(self) -> Any:
        """Return FAISS's index of plain rows where there is one."""
        if self._kind == "flat":
            return self._index
        return faiss.downcast_index(self._index.storage) if self._kind == "hnsw" else None

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise validation("shape", f"vectors of shape {vectors.shape}; (n, {self.dimension}) fits")
        vectors = np.ascontiguousarray(vectors, np.float32)
        # FAISS stores what is not a number and never finds it again. The sum tells of any at once, without threads of BLAS.
        if not math.isfinite(float(vectors.sum())):
            raise validation("vector", "a vector has a component that is not a finite number")
        return vectors


def _merged(one: Found, other: Found, k: int) -> Found:
    """Return the *k* best of both for each query; ties keep their order."""
    scores = np.hstack([one[0], other[0]])
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(np.hstack([one[1], other[1]]), best, axis=1)


def _read_index(file: Path, size: int) -> Any:
    """Return FAISS's index from *file*; no vector inside it may claim more bytes than the file could hold."""
    with _READING:  # the limit is the process's, and others read FAISS files too
        usual = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(max(2 * size, 1 << 20))
        try:
            return faiss.read_index(str(file))
        finally:
            faiss.set_deserialization_vector_byte_limit(usual)


def _of_lists(lists: InvertedLists) -> dict[str, Any]:
    return {"margins": {str(depth): margin for depth, margin in lists.margins.items()}, "usual": lists.usual}


def _shaping(settings: IndexSettings) -> Mapping[str, Any]:
    """Return the settings that decide what is built; another value means another index."""
    shaping: dict[str, Any] = {"kind": settings.kind}
    if settings.kind in ("ivf", "hnsw"):
        shaping["recall_target"] = settings.recall_target
    if settings.kind == "hnsw":
        shaping["hnsw_links"] = settings.hnsw_links
    return shaping


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (AssertionError, RuntimeError, MemoryError) as error:
        raise internal("index", f"the vector index failed: {type(error).__name__} {error}".strip()) from error
