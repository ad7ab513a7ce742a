"""Which vector index: recall against time, bytes and building, over sizes, filters, deletes, and one caller or many.

The indexes are FAISS's own with nothing around them, so that kinds can be compared that the engine does not have. A memory that
is forgotten stays in an index until it is built again, and is kept out of answers like one of another session: by a bitmap. So a
filter and a delete are one thing to the index, and the second can be undone by building again.

A point of a sweep is one size. Everything at that size is searched in random turns, pass after pass, so that a time has an
interval; what wins, and where the winner changes, counts where intervals lie apart.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import validation
from memlab.experiment import results
from memlab.experiment.results import Run
from memlab.measure import clock, stats
from memlab.measure.bare_index import EFFORTS, FACTORY, BareIndex, Kind, Lists
from memlab.predict import pareto
from memlab.workload import spec
from memlab.workload.latent import latent_vectors

K = 10
DIMENSION = 384
MANY = 256
SESSIONS = (1.0, 0.1, 0.01)
DELETED = (0.0, 0.2, 0.5)
ENOUGH = 0.95
"""recall@10 from which a choice counts."""

_CASE = ["memories", "session", "deleted", "callers"]
_ENDS = ("low", "high")

Bits = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: every row, winners and the rebuild rule; see `_summarise`.
        rows: of `measure`, with `on_front`.
    """

    summary: dict[str, Any]
    rows: pl.DataFrame


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    kinds: Sequence[str] = tuple(FACTORY),
    sessions: Sequence[float] = SESSIONS,
    deleted: Sequence[float] = DELETED,
    queries: int = 50,
    dimension: int = DIMENSION,
    enough: float = ENOUGH,
    out: str | Path | None = None,
) -> Searched:
    """Measure every kind at one size; what a point's notebook calls.

    Args:
        point: its place in the grid; settings of the engine play no part here and must be the defaults.
        workload: as a params file has it; of its corpus the number of events counts, which is that of the vectors.
        repeats: passes over everything.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        kinds, sessions, deleted, queries, dimension: see `measure`.
        enough: recall@10 from which a choice counts.
        out: existing folder for index.parquet and summary.json; None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit.
    """
    if point.get("candidate", {}) != point.get("reference", {}):
        raise validation("params", "settings: bare indexes have none of the engine's; leave out settings and reference")
    memories = spec.workload(workload).corpus.events
    rows = with_fronts(
        measure(
            memories,
            kinds=kinds,
            sessions=sessions,
            deleted=deleted,
            queries=queries,
            repeats=repeats,
            dimension=dimension,
            seed=seed,
        )
    )
    summary = _summarise(rows, size=size, repeats=repeats, questions=repeats * queries, dimension=dimension, enough=enough)
    results.write_point(out, summary, {"index": rows})
    return Searched(summary=summary, rows=rows)


def measure(
    memories: int,
    *,
    kinds: Sequence[str] = tuple(FACTORY),
    sessions: Sequence[float] = SESSIONS,
    deleted: Sequence[float] = DELETED,
    queries: int = 50,
    repeats: int = 5,
    dimension: int = DIMENSION,
    seed: int = 0,
) -> pl.DataFrame:
    """Build every kind, and search it at every effort in every case, pass after pass in random turns.

    Args:
        memories: 100 or more.
        kinds: of `measure.bare_index.FACTORY`.
        sessions: shares of the memories that belong to the session that asks.
        deleted: shares of the memories that were forgotten since the index was built.
        queries: asked one by one in a pass, others in each; beside them 256 in one call.
        repeats: passes.
    Returns:
        memories, kind, effort, session, deleted, callers (1 or 256), recall_at_10, query_ms (of a query, in the call that it
        shares; the mean over passes of their medians) with `low` and `high`, null below five passes, p50_ms and p95_ms of a
        call with `p95_low` and `p95_high` (null where calls are too few), bytes_a_memory, build_s, passes_ms and passes_recall
        (lists: query_ms and recall of each pass). Filters and deletes are not combined.
    Raises:
        MemlabError: VALIDATION `bounds`, `kind`: what does not fit.
    """
    unknown = [kind for kind in kinds if kind not in FACTORY]
    if unknown:
        raise validation("kind", f"no kind of index '{unknown[0]}'; known: {', '.join(FACTORY)}")
    if memories < 100 or queries < 1 or repeats < 1 or not kinds:
        raise validation("bounds", "100 memories, one kind, one query and one pass are the least")
    shares = [*sessions, *(1 - gone for gone in deleted)]
    if not all(0 < share <= 1 for share in shares):
        raise validation("bounds", "sessions are shares above 0 up to 1, deleted ones from 0 to below 1")
    return _Bench(memories, queries, repeats, dimension, seed).rows(
        [kind for kind in FACTORY if kind in kinds], sessions, deleted
    )


class _Bench:
    """All of one size."""

    def __init__(self, memories: int, queries: int, repeats: int, dimension: int, seed: int) -> None:
        self._memories = memories
        self._queries = queries
        self._repeats = repeats
        self._chance = random.Random(seed)
        self._vectors, self._asked = latent_vectors(memories, queries * repeats, dimension, seed)
        self._random = np.random.default_rng(seed)

    def rows(self, kinds: Sequence[Kind], sessions: Sequence[float], deleted: Sequence[float]) -> pl.DataFrame:
        cases = list(dict.fromkeys([*((session, 0.0) for session in sessions), *((1.0, gone) for gone in deleted)]))
        bits = {case: self._bits(case[0] * (1 - case[1])) for case in cases}
        lists = Lists.train(self._vectors)
        indexes = {kind: BareIndex(kind, self._vectors, lists) for kind in kinds}
        exact = indexes.get("flat") or BareIndex("flat", self._vectors)
        truth = {case: exact.search(self._asked, K, 0, bits[case]) for case in cases}
        lanes = {
            (kind, effort, case, callers): _Lane()
            for kind in kinds
            for effort in EFFORTS[kind]
            for case in cases
            for callers in (1, MANY)
        }
        for number in range(self._repeats):
            work = list(lanes)
            self._chance.shuffle(work)
            for kind, effort, case, callers in work:
                asked = np.arange(number * self._queries, (number + 1) * self._queries)
                if callers > 1:  # the same questions again, so that the call is full
                    asked = np.resize(np.roll(np.arange(len(self._asked)), -asked[0]), callers)
                self._search(
                    indexes[kind], effort, bits[case], asked, 1 if callers == 1 else callers, lanes[kind, effort, case, callers]
                )
        made = [
            {
                "memories": self._memories,
                "kind": kind,
                "effort": effort,
                "session": case[0],
                "deleted": case[1],
                "callers": callers,
                **lane.figures(truth[case], callers),
                "bytes_a_memory": indexes[kind].bytes / self._memories,
                "build_s": indexes[kind].build_s,
            }
            for (kind, effort, case, callers), lane in lanes.items()
        ]
        return pl.DataFrame(made, infer_schema_length=None, schema_overrides=dict.fromkeys(_NULLABLE, pl.Float64))

    def _bits(self, share: float) -> Bits | None:
        if share >= 1.0:
            return None
        chosen = self._random.permutation(self._memories)[: max(round(share * self._memories), K)]
        flags = np.zeros(self._memories, dtype=np.bool_)
        flags[chosen] = True
        return np.packbits(flags, bitorder="little")

    def _search(self, index: BareIndex, effort: int, bits: Bits | None, asked: Ints, callers: int, lane: _Lane) -> None:
        """Ask some of the questions, so many in a call, and note answers and times."""
        queries = self._asked[asked]
        index.search(queries[:1], K, effort, bits)
        found, took_ms = [], []
        for start in range(0, len(asked), callers):
            started = clock.monotonic_ns()
            found.append(index.search(queries[start : start + callers], K, effort, bits))
            took_ms.append((clock.monotonic_ns() - started) / 1e6)
        lane.found.append(np.concatenate(found))
        lane.asked.append(asked)
        lane.took_ms.append(took_ms)


_NULLABLE = ("low", "high", "p95_ms", "p95_low", "p95_high")


class _Lane:
    """What one kind at one effort did in one case, by pass.

    Attributes:
        found: for each question.
        asked: which questions.
        took_ms: of each call.
    """

    def __init__(self) -> None:
        self.found: list[Ints] = []
        self.asked: list[Ints] = []
        self.took_ms: list[list[float]] = []

    def figures(self, truth: Ints, callers: int) -> dict[str, Any]:
        passes_ms = [float(np.median(one)) / callers for one in self.took_ms]
        query_ms = stats.mean([[one] for one in passes_ms])
        every = np.concatenate(self.took_ms)
        p95 = stats.percentile(every, 0.95)
        return {
            "recall_at_10": stats.recall_at_k(np.concatenate(self.found), truth[np.concatenate(self.asked)], K),
            "query_ms": query_ms.value,
            "low": query_ms.low,
            "high": query_ms.high,
            "p50_ms": float(np.median(every)),
            "p95_ms": p95.value,
            "p95_low": p95.low,
            "p95_high": p95.high,
            "passes_ms": passes_ms,
            "passes_recall": [
                stats.recall_at_k(found, truth[asked], K) for found, asked in zip(self.found, self.asked, strict=True)
            ],
        }


def with_fronts(measured: pl.DataFrame) -> pl.DataFrame:
    """Return *measured* with `on_front`: nothing else in the case has as much recall in surely less time and no more bytes.

    Where a time has no interval it is taken for what it is.
    """
    parts = []
    for _, case in measured.group_by(_CASE, maintain_order=True):
        ends = [case.select(-pl.col("recall_at_10"), pl.coalesce(end, "query_ms"), "bytes_a_memory").to_numpy() for end in _ENDS]
        parts.append(case.with_columns(on_front=pl.Series(pareto.front(*ends))))
    return pl.concat(parts)


def winners(measured: pl.DataFrame, enough: float = ENOUGH) -> pl.DataFrame:
    """Return for every case the choice that takes least time a query among those with enough recall, who comes second, who ties.

    A choice without competition wins; `tied` names the kinds whose interval meets the winner's.
    """
    return pareto.cheapest(measured, "query_ms", by=_CASE, name="kind", least=("recall_at_10", enough), ends=_ENDS)


def crossovers(measured: pl.DataFrame, enough: float = ENOUGH) -> pl.DataFrame:
    """Return between which sizes the winner of a case surely changes: session, deleted, callers, from, to, before, after."""
    rows = []
    for (session, deleted, callers), case in winners(measured, enough).group_by(_CASE[1:], maintain_order=True):
        for low, high, before, after in pareto.crossovers(case, "memories", name="kind"):
            rows.append((session, deleted, callers, low, high, before, after))
    schema = {name: measured.schema[name] for name in _CASE[1:]} | dict.fromkeys(("from", "to"), pl.Int64())
    return pl.DataFrame(rows, schema=schema | dict.fromkeys(("before", "after"), pl.String()), orient="row")


def rebuild_rule(measured: pl.DataFrame) -> pl.DataFrame:
    """Return what forgotten memories cost each index, and after how many questions building it again has paid for itself.

    An index built again holds the living alone: the nearest that was measured is the same index before anything was forgotten,
    which is a little larger. That makes the saving look smaller than it is.

    Returns:
        memories, kind, effort, deleted, slower (times as long) with `low` and `high` over passes, verdict, questions_to_repay
        (null unless it is surely slower), recall (before anything was forgotten), recall_lost with `lost_low` and `lost_high`.
    """
    alone = measured.filter((pl.col("session") == 1.0) & (pl.col("callers") == 1))
    place = ["memories", "kind", "effort"]
    fresh = alone.filter(pl.col("deleted") == 0).select(
        *place, new_ms="passes_ms", new_recalls="passes_recall", recall="recall_at_10"
    )
    rows = []
    for row in alone.filter(pl.col("deleted") > 0).join(fresh, on=place).iter_rows(named=True):
        slower = stats.quotient(row["passes_ms"], row["new_ms"])
        lost = stats.mean([[new - old] for new, old in zip(row["new_recalls"], row["passes_recall"], strict=True)])
        verdict = stats.verdict(slower, smaller_is_better=True)
        extra_ms = float(np.mean(row["passes_ms"]) - np.mean(row["new_ms"]))
        repays = row["build_s"] * (1 - row["deleted"]) * 1e3 / extra_ms if verdict == "worse" else None
        rows.append(
            {
                **{name: row[name] for name in (*place, "deleted")},
                "recall": row["recall"],
                "recall_lost": lost.value,
                "lost_low": lost.low,
                "lost_high": lost.high,
                "slower": slower.value,
                "low": slower.low,
                "high": slower.high,
                "verdict": verdict,
                "questions_to_repay": repays,
            }
        )
    schema = {name: measured.schema[name] for name in (*place, "deleted")} | dict.fromkeys(
        ("recall", "recall_lost", "lost_low", "lost_high", "slower", "low", "high", "questions_to_repay"), pl.Float64()
    )
    return pl.DataFrame(rows, schema={**schema, "verdict": pl.String()}).sort(*place, "deleted")


# --- what a document shows -------------------------------------------------------------------------------------------


def case_name(session: float, deleted: float) -> str:
    """Return what a case is called.

    >>> case_name(0.01, 0.0), case_name(1.0, 0.5), case_name(1.0, 0.0)
    ('session of 1 %', '50 % forgotten', 'all memories')
    """
    if deleted:
        return f"{100 * deleted:g} % forgotten"
    return "all memories" if session == 1.0 else f"session of {100 * session:g} %"


def callers_name(callers: int) -> str:
    """Return what a number of callers is called."""
    return "one caller" if callers == 1 else f"{callers} callers"


def _summarise(rows: pl.DataFrame, *, size: str, repeats: int, questions: int, dimension: int, enough: float) -> dict[str, Any]:
    kinds = rows.unique("kind", maintain_order=True)
    return {
        "size": size,
        "finding": size != "smoke" and repeats >= stats.FEWEST_REPEATS,
        "repeats": repeats,
        "memories": rows["memories"][0],
        "questions": questions,
        "dimension": dimension,
        "enough": enough,
        "many": MANY,
        "kinds": {
            row["kind"]: {name: row[name] for name in ("bytes_a_memory", "build_s")} for row in kinds.iter_rows(named=True)
        },
        "rows": {_row_name(row): _plain(row) for row in rows.iter_rows(named=True)},
        "winners": {
            _case_of(row): {**_plain(row), **{name: row[name] for name in ("second", "ahead", "tied")}}
            for row in winners(rows, enough).iter_rows(named=True)
        },
        "rebuild": {
            f"{row['kind']} {row['effort']}, {case_name(1.0, row['deleted'])}": {
                **{name: row[name] for name in ("kind", "effort", "deleted", "recall", "verdict", "questions_to_repay")},
                "slower": {"value": row["slower"], "low": row["low"], "high": row["high"]},
                "recall_lost": {"value": row["recall_lost"], "low": row["lost_low"], "high": row["lost_high"]},
            }
            for row in rebuild_rule(rows).iter_rows(named=True)
        },
    }


def _case_of(row: Mapping[str, Any]) -> str:
    return f"{case_name(row['session'], row['deleted'])}, {callers_name(row['callers'])}"


def _row_name(row: Mapping[str, Any]) -> str:
    return f"{row['kind']} {row['effort']}, {_case_of(row)}"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "kind",
        "effort",
        "session",
        "deleted",
        "callers",
        "recall_at_10",
        "p50_ms",
        "on_front",
        "passes_ms",
        "passes_recall",
    )
    return {
        **{name: row[name] for name in names},
        "query_ms": {"value": row["query_ms"], "low": row["low"], "high": row["high"]},
        "p95_ms": {"value": row["p95_ms"], "low": row["p95_low"], "high": row["p95_high"]},
    }


def frame(runs: Sequence[Run]) -> pl.DataFrame:
    """Return the rows of runs, each of one size, as `measure` returns them, with `on_front` and `run`."""
    rows = [
        {
            **row,
            "memories": run.summary["memories"],
            "query_ms": row["query_ms"]["value"],
            **{end: row["query_ms"][end] for end in _ENDS},
            "p95_ms": row["p95_ms"]["value"],
            **{f"p95_{end}": row["p95_ms"][end] for end in _ENDS},
            **run.summary["kinds"][row["kind"]],
            "run": run.id,
        }
        for run in runs
        for row in run.summary["rows"].values()
    ]
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=dict.fromkeys(_NULLABLE, pl.Float64))
