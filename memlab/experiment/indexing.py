"""Which vector index: recall against time, bytes and building, over sizes, filters, deletes, and one caller or many.

The indexes are FAISS's own with nothing around them, so that kinds can be compared that the engine does not have. A memory that
is forgotten stays in an index until it is built again, and is kept out of answers like one of another session: by a bitmap. So a
filter and a delete are one thing to the index, and the second can be undone by building again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import validation
from memlab.measure import clock, stats
from memlab.measure.bare_index import EFFORTS, FACTORY, BareIndex, Kind
from memlab.predict import pareto
from memlab.workload.latent import latent_vectors

K = 10
DIMENSION = 384
MANY = 256
SESSIONS = (1.0, 0.1, 0.01)
DELETED = (0.0, 0.2, 0.5)
ENOUGH = 0.95
"""recall@10 from which a choice counts."""

_GROUPS = 3  # calls of many queries: each is one answer to all of them
_CASE = ["memories", "session", "deleted", "callers"]


def measure(
    sizes: Sequence[int],
    *,
    kinds: Sequence[str] = tuple(FACTORY),
    sessions: Sequence[float] = SESSIONS,
    deleted: Sequence[float] = DELETED,
    queries: int = 256,
    dimension: int = DIMENSION,
    seed: int = 0,
) -> pl.DataFrame:
    """Build every kind at every size, and search it at every effort in every case, in random turns.

    Args:
        sizes: memories; 100 or more.
        kinds: of `measure.bare_index.FACTORY`.
        sessions: shares of the memories that belong to the session that asks.
        deleted: shares of the memories that were forgotten since the index was built.
        queries: asked one by one, and 256 in a call.
    Returns:
        memories, kind, effort, session, deleted, callers (1 or 256), recall_at_10, p50_ms, p95_ms (null below 200 queries; of a
        call), query_ms (of a query, in the call that it shares), bytes_a_memory, build_s. Filters and deletes are not combined.
    Raises:
        MemlabError: VALIDATION `bounds`, `kind`: what does not fit.
    """
    unknown = [kind for kind in kinds if kind not in FACTORY]
    if unknown:
        raise validation("kind", f"no kind of index '{unknown[0]}'; known: {', '.join(FACTORY)}")
    if not sizes or min(sizes) < 100 or queries < 1:
        raise validation("bounds", "sizes of 100 memories or more and one query are the least")
    rows: list[dict[str, Any]] = []
    for size in sizes:
        rows += _Bench(size, queries, dimension, seed).rows([kind for kind in FACTORY if kind in kinds], sessions, deleted)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"p95_ms": pl.Float64})


class _Bench:
    """All of one size."""

    def __init__(self, size: int, queries: int, dimension: int, seed: int) -> None:
        self._size = size
        self._chance = random.Random(seed)
        self._vectors, self._asked = latent_vectors(size, queries, dimension, seed)
        self._random = np.random.default_rng(seed)
        self._exact = BareIndex("flat", self._vectors)

    def rows(self, kinds: Sequence[Kind], sessions: Sequence[float], deleted: Sequence[float]) -> list[dict[str, Any]]:
        cases = [(session, 0.0) for session in sessions] + [(1.0, gone) for gone in deleted if gone]
        bits = {case: self._bits(case[0] * (1 - case[1])) for case in cases}
        truth = {case: self._exact.search(self._asked, K, 0, bits[case]) for case in cases}
        indexes = {kind: BareIndex(kind, self._vectors) for kind in kinds}
        work = [
            (kind, effort, case, callers) for kind in kinds for effort in EFFORTS[kind] for case in cases for callers in (1, MANY)
        ]
        self._chance.shuffle(work)
        rows = []
        for kind, effort, case, callers in work:
            index = indexes[kind]
            found, took_ms = self._search(index, effort, bits[case], callers)
            rows.append(
                {
                    "memories": self._size,
                    "kind": kind,
                    "effort": effort,
                    "session": case[0],
                    "deleted": case[1],
                    "callers": callers,
                    "recall_at_10": _recall(found, truth[case]),
                    "p50_ms": float(np.median(took_ms)),
                    "p95_ms": stats.percentile(took_ms, 0.95).value if callers == 1 else float(np.max(took_ms)),
                    "query_ms": float(np.median(took_ms)) / callers,
                    "bytes_a_memory": index.bytes / self._size,
                    "build_s": index.build_s,
                }
            )
        return rows

    def _bits(self, share: float) -> npt.NDArray[np.uint8] | None:
        if share >= 1.0:
            return None
        chosen = self._random.permutation(self._size)[: max(round(share * self._size), K)]
        flags = np.zeros(self._size, dtype=np.bool_)
        flags[chosen] = True
        return np.packbits(flags, bitorder="little")

    def _search(
        self, index: BareIndex, effort: int, bits: npt.NDArray[np.uint8] | None, callers: int
    ) -> tuple[npt.NDArray[np.int64], list[float]]:
        asked = self._asked
        if callers > 1:  # the same questions again, so that calls are full
            asked = np.resize(asked, (callers * _GROUPS, asked.shape[1]))
        index.search(asked[:1], K, effort, bits)
        found, took_ms = [], []
        for start in range(0, len(asked), callers):
            started = clock.monotonic_ns()
            found.append(index.search(asked[start : start + callers], K, effort, bits))
            took_ms.append((clock.monotonic_ns() - started) / 1e6)
        return np.concatenate(found)[: len(self._asked)], took_ms


def _recall(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    return stats.recall_at_k(found, truth[: len(found)], K)


def with_fronts(measured: pl.DataFrame) -> pl.DataFrame:
    """Return *measured* with `on_front`: nothing else in the case has more recall, takes less time and fewer bytes at once."""
    parts = []
    for _, case in measured.group_by(_CASE, maintain_order=True):
        costs = case.select(-pl.col("recall_at_10"), "query_ms", "bytes_a_memory").to_numpy()
        parts.append(case.with_columns(on_front=pl.Series(pareto.front(costs))))
    return pl.concat(parts)


def winners(measured: pl.DataFrame, enough: float = ENOUGH) -> pl.DataFrame:
    """Return for every case the choice that takes least time a query among those with enough recall, and who comes second."""
    return pareto.cheapest(measured, "query_ms", by=_CASE, name="kind", least=("recall_at_10", enough))


def crossovers(measured: pl.DataFrame, enough: float = ENOUGH) -> pl.DataFrame:
    """Return between which sizes the winner of a case changes: session, deleted, callers, from, to, before, after."""
    rows = []
    for (session, deleted, callers), case in winners(measured, enough).group_by(_CASE[1:], maintain_order=True):
        for low, high, before, after in pareto.crossovers(case, "memories", name="kind"):
            rows.append((session, deleted, callers, low, high, before, after))
    return pl.DataFrame(rows, schema=["session", "deleted", "callers", "from", "to", "before", "after"], orient="row")


def rebuild_rule(measured: pl.DataFrame) -> pl.DataFrame:
    """Return what forgotten memories cost each index, and after how many questions building it again has paid for itself.

    An index built again holds the living alone: the nearest that was measured is the same index before anything was forgotten,
    which is a little larger. That makes the saving look smaller than it is.

    Returns:
        memories, kind, effort, deleted, recall_lost, slower (times as long), questions_to_repay (null where it is no slower).
    """
    alone = measured.filter((pl.col("session") == 1.0) & (pl.col("callers") == 1))
    fresh = alone.filter(pl.col("deleted") == 0).select(
        "memories", "kind", "effort", new_ms="query_ms", new_recall="recall_at_10"
    )
    aged = alone.filter(pl.col("deleted") > 0).join(fresh, on=["memories", "kind", "effort"])
    extra_ms = pl.col("query_ms") - pl.col("new_ms")
    return aged.select(
        "memories",
        "kind",
        "effort",
        "deleted",
        recall_lost=pl.col("new_recall") - pl.col("recall_at_10"),
        slower=pl.col("query_ms") / pl.col("new_ms"),
        questions_to_repay=pl.when(extra_ms > 0).then(pl.col("build_s") * (1 - pl.col("deleted")) * 1e3 / extra_ms),
    ).sort("memories", "kind", "effort", "deleted")
