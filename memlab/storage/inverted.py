"""Inverted lists over exact vectors (FAISS IVF) that probe as many lists as a question needs.

A fixed number of lists per question is wrong for most: one that lies inside a cluster needs two, one that lies between all of
them needs every list. So a question's lists are those whose centroid is nearly as close to it as the closest one: within a
margin that is calibrated on made questions, and that grows for questions far from everything. On vectors as hard as MiniLM's
this finds 0.997 of the true ten in the time of a fixed number of lists or less; of real questions about hashed texts, which
lie off the stored vectors, it finds 0.998 where the same calibration of a fixed number finds 0.7.

Under a selection, only lists that hold selected vectors are probed, with a margin for the depth that its best reach to: the
ten best of a random tenth are among the hundred best of all; of a tenth that is all about something else, perhaps among the
ten thousand best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from memlab.storage.calibration import Questions, questions

Found = tuple[np.ndarray, np.ndarray]
"""Scores (q, k) float32 and positions (q, k) int64, best first; -inf and -1 where there is nothing more."""

_DEPTHS = (10, 100, 1_000)  # for which a margin is calibrated; deeper searches probe every list
_ITERATIONS, _POINTS = 5, 24  # of k-means, and vectors for each list: a third of the default's time for 1.2 of its scanning
_FIRST = 64  # lists among which the closest that hold what is selected are looked for first
_SAMPLE = 8_192  # selected vectors whose lists are counted; of more, about as many: of 100,000 the count takes 0.4 ms
_MOST = 1 / 3  # share of the lists from which all are probed: the rest costs little more


class InvertedLists:
    """An IVF index with its margins.

    Attributes:
        index: FAISS's; its quantizer holds the centroids, its direct map the list of every position.
        margins: by depth, how far behind the closest centroid a list is still probed.
        usual: closeness to the closest centroid of half the stored vectors; the margin grows for questions that are farther
            from everything.
    """

    def __init__(self, index: Any, margins: dict[int, float], usual: float) -> None:
        self.index = index
        self.margins = margins
        self.usual = usual
        # Closeness to all centroids, through FAISS's BLAS: it keeps to the threads of the caller. NumPy's starts its own, and
        # on a busy machine eight small products took twenty times as long.
        self._centroids = faiss.LinearTransform(index.d, index.nlist, False)
        faiss.copy_array_to_vector(
            faiss.downcast_index(index.quantizer).reconstruct_n(0, index.nlist).reshape(-1), self._centroids.A
        )
        self._centroids.is_trained = True
        self._sizes = self._count(slice(None))

    @classmethod
    def train(cls, vectors: np.ndarray, *, recall_target: float, seed: int) -> tuple[InvertedLists, dict[str, float]]:
        """Return lists that hold *vectors*, and what calibration found.

        Found are `recall_at_10` on questions that were kept out of it, and `nprobe`, the number of lists that would do for
        *recall_target* were it the same for all.
        """
        dimension = vectors.shape[1]
        # Four times the root of the count, as a power of two: 1,024 lists for 100,000 vectors.
        lists = max(16, 1 << round(math.log2(4.0 * math.sqrt(len(vectors)))))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed + 1
        index.cp.niter = _ITERATIONS
        index.cp.max_points_per_centroid = _POINTS
        index.cp.min_points_per_centroid = 1  # no warning where there are fewer
        index.cp.spherical = True
        index.set_direct_map_type(faiss.DirectMap.Array)
        index.train(vectors)
        index.add(vectors)
        made = cls(index, {}, 0.0)
        return made, made._calibrate(questions(vectors, seed), recall_target)

    def add(self, vectors: np.ndarray) -> None:
        """Append *vectors* at the next positions."""
        before = self.index.ntotal
        self.index.add(vectors)
        self._sizes += self._count(slice(before, None))

    def plan(self, queries: np.ndarray, k: int, positions: np.ndarray | None) -> list[np.ndarray | None]:
        """Return the lists to probe for the *k* best of each query, among *positions* where given; None for every list."""
        closeness = self._centroids.apply(queries)
        if positions is None:
            margin = self._margin(k)
            return [self._choose(row, self._sizes, self._sizes > 0, k, margin) for row in closeness]
        sizes, holding = self._spread(positions)
        share = len(positions) / self.index.ntotal
        margins = [self._margin(max(k / share, self._depth(row, sizes, k))) for row in closeness]
        return [self._choose(row, sizes, holding, k, margin) for row, margin in zip(closeness, margins, strict=True)]

    def search(self, queries: np.ndarray, k: int, plan: Sequence[np.ndarray | None], selector: Any) -> Found:
        """Return scores and positions of the *k* best of every query in the lists of its *plan*.

        Args:
            queries: (q, dimension) float32, contiguous.
            k: at most as many as may be found.
            plan: for each query.
            selector: FAISS's of what may be found; None for all.
        """
        every = np.arange(self.index.nlist)
        chosen = [every if lists is None else lists for lists in plan]
        # FAISS leaves out negative lists, so rows may be of unlike length.
        lists = np.full((len(queries), max(map(len, chosen))), -1, np.int64)
        for row, close in zip(lists, chosen, strict=True):
            row[: len(close)] = close
        scores = np.empty((len(queries), k), np.float32)
        positions = np.empty((len(queries), k), np.int64)
        # FAISS's own wrapper of this call takes no selector. Distances to centroids serve residual codes; these are none.
        self.index.search_preassigned_c(
            len(queries),
            faiss.swig_ptr(queries),
            k,
            faiss.swig_ptr(lists),
            faiss.swig_ptr(np.zeros(lists.shape, np.float32)),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(positions),
            False,
            faiss.SearchParametersIVF(nprobe=lists.shape[1], sel=selector),
        )
        return scores, positions

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """Return the vectors at *positions*."""
        found: np.ndarray = self.index.reconstruct_batch(np.ascontiguousarray(positions, np.int64))
        return found

    def _homes(self, positions: Any) -> np.ndarray:
        """Return the list of each position, from the direct map where it lies: it moves when it grows."""
        entries = faiss.rev_swig_ptr(self.index.direct_map.array.data(), self.index.ntotal)
        homes: np.ndarray = entries[positions] >> 32
        return homes

    def _count(self, positions: Any) -> np.ndarray:
        """Return how many of *positions* each list holds."""
        return np.bincount(self._homes(positions), minlength=self.index.nlist)

    def _spread(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how many of *positions* each list holds, of many by a sample, and which lists may hold one."""
        step = max(1, len(positions) // _SAMPLE)
        sizes = step * self._count(positions[::step])
        return sizes, (sizes if step == 1 else self._sizes) > 0

    def _margin(self, depth: float) -> float:
        """Return the margin for *depth*: between calibrated ones by the logarithm, and beyond them without bound."""
        below = None
        for known, margin in self.margins.items():
            if depth <= known:
                if below is None:
                    return margin
                share = math.log(depth / below[0]) / math.log(known / below[0])
                return below[1] + share * (margin - below[1])
            below = known, margin
        return math.inf

    def _farness(self, closest: float) -> float:
        """Return by how much the margin grows for questions at this closeness: a question in the open sees all lists alike."""
        return max(1.0, self.usual / max(closest, 1e-3))

    def _depth(self, closeness: np.ndarray, sizes: np.ndarray, k: int) -> float:
        """Return how many vectors, selected or not, are at most as far as the *k* best selected ones, list by list.

        Of the list that holds the last of them it counts the share that comes before.
        """
        order = np.argpartition(closeness, -_FIRST)[-_FIRST:] if len(closeness) > _FIRST else np.arange(len(closeness))
        if sizes[order].sum() < k:
            order = np.arange(len(closeness))
        order = order[np.argsort(-closeness[order])]
        passed = np.cumsum(sizes[order])
        last = min(int(np.searchsorted(passed, k)), len(order) - 1)
        here = int(sizes[order[last]])
        before = int(passed[last]) - here
        share = min((k - before) / here, 1.0) if here else 1.0
        return float(self._sizes[order[:last]].sum() + share * self._sizes[order[last]])

    def _choose(self, closeness: np.ndarray, sizes: np.ndarray, holding: np.ndarray, k: int, margin: float) -> np.ndarray | None:
        """Return the close ones of the lists that hold *sizes* vectors to be found; None where that is most of them."""
        closest = float(closeness.max())
        close = np.flatnonzero(closeness >= closest - margin * self._farness(closest))
        if sizes[close].sum() < k:  # they are small: then as many as hold four times what is asked for
            close = np.argsort(-closeness)
            close = close[: int(np.searchsorted(np.cumsum(sizes[close]), 4 * k)) + 1]
        close = close[holding[close]]
        return close if len(close) <= _MOST * np.count_nonzero(holding) else None

    def _calibrate(self, made: Questions, recall_target: float) -> dict[str, float]:
        closeness = self._centroids.apply(made.vectors)
        homes = self._homes(made.answers)
        closest = closeness.max(axis=1)
        self.usual = float(np.median(closest[::3]))
        behind = closest[:, None] - np.take_along_axis(closeness, homes, axis=1)
        behind /= np.array([[self._farness(value)] for value in closest.tolist()])
        k = min(_DEPTHS[0], made.answers.shape[1])
        ranks = np.take_along_axis(np.argsort(np.argsort(-closeness, axis=1), axis=1), homes[:, :k], axis=1)
        fixed = int(np.quantile(ranks, recall_target)) + 1
        kept_out = np.arange(len(made.vectors)) % 4 == 0
        if recall_target < 1.0 and fixed <= _MOST * self.index.nlist:  # else no choice of lists pays: every search is exact
            # Half of what may be missed is left to what calibration does not see.
            level = (1.0 + recall_target) / 2.0
            for depth in _DEPTHS:
                if depth <= made.answers.shape[1]:
                    self.margins[depth] = float(np.quantile(behind[~kept_out, :depth], level))
        probed = np.zeros(closeness.shape, np.bool_)
        holding, margin = self._sizes > 0, self._margin(k)
        for row, near in zip(probed, closeness, strict=True):
            lists = self._choose(near, self._sizes, holding, k, margin)
            row[slice(None) if lists is None else lists] = True
        return {
            "nprobe": fixed if self.margins else self.index.nlist,
            "recall_at_10": float(np.take_along_axis(probed, homes[:, :k], axis=1)[kept_out].mean()),
        }
