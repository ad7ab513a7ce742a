"""How many groups should run at once: the scalability law from a few limits against limits that it has not seen.

Closed loops with more clients than places say what each limit answers; open loops say what calls then wait, beside what the queue
in front of that many places predicts. All in random turns, without batching, so that every call takes a place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from memlab.errors import MemlabError, validation
from memlab.experiment.lanes import Lanes, lanes, percentile_ms
from memlab.experiment.load import run_in_own_loop
from memlab.experiment.quiet import quiet
from memlab.measure import stats
from memlab.predict.queueing import sharing_response_s
from memlab.predict.scalability import Scalability
from memlab.settings import Settings
from memlab.workload import arrivals, spec
from memlab.workload.spec import Workload

LIMITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
SEEN = (1, 2, 4, 8, 32)
"""Limits that the law is fitted on; the others are held against it."""
ADAPTIVE = "adaptive"
CLIENTS = 48
SHARES = (0.5, 0.8)
"""Arrival rates of the open loops, as shares of what a limit answered."""
THREADS = ((1, 1), (2, 1), (1, 2), (2, 2))
"""DuckDB's and the vector index's."""

_WARM_S = 0.05
_FEWEST = 200


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        closed: limit (of the pool; `adaptive` as 0), repeat, throughput_per_s, mean_ms, p95_ms.
        waits: limit, share, rate_per_s, repeat, mean_ms, p95_ms; of the open loops.
        surface: database_threads, vector_threads, limit, repeat, throughput_per_s.
    """

    closed: pl.DataFrame
    waits: pl.DataFrame
    surface: pl.DataFrame

    def law(self, seen: Sequence[int] = SEEN) -> Scalability:
        """Return the law that fits the limits *seen*, by the median of their repeats."""
        known = _median(self.closed.filter(pl.col("limit").is_in(list(seen))), "limit").sort("limit")
        return Scalability.fit(known["limit"].to_list(), known["throughput_per_s"].to_list())


def measure(
    operation: str = "episodic.recall",
    *,
    limits: Sequence[int] = LIMITS,
    memories: int = 3_000,
    repeats: int = 6,
    duration_s: float = 0.4,
    threads: Sequence[Sequence[int]] = THREADS,
    seed: int = 1,
) -> Measured:
    """Measure every limit, the adaptive one, and the surface of threads and limits, in random turns.

    Args:
        operation: what is asked.
        limits: of the pool, without batching.
        duration_s: of every lane.
        threads: of DuckDB and the vector index; each opens a database of its own.
    Raises:
        MemlabError: VALIDATION `bounds`: too little to measure; or whatever a workload is refused for.
    """
    if repeats < 1 or memories < 16 or duration_s <= 0 or len(set(limits)) < 3 or not threads:
        raise validation("bounds", "1 repeat, 16 memories, time above 0, three limits and one pair of threads are the least")
    corpus = {"events": memories, "sessions": min(8, memories), "questions": min(400, max(memories // 8, 1))}
    traffic = spec.workload({"mix": {operation: 1}, "corpus": corpus, "arrivals": {"rate_per_s": 1}})
    with quiet():
        return run_in_own_loop(_Turns(traffic, tuple(limits), repeats, duration_s, tuple(map(_pair, threads)), seed).run())


class _Turns:
    def __init__(
        self,
        traffic: Workload,
        limits: tuple[int, ...],
        repeats: int,
        duration_s: float,
        threads: tuple[tuple[int, int], ...],
        seed: int,
    ) -> None:
        self._traffic = traffic
        self._limits = limits
        self._corners = (limits[0], limits[len(limits) // 2], limits[-1])
        self._repeats = repeats
        self._duration_s = duration_s
        self._threads = threads
        self._seed = seed
        self._closed: list[dict[str, Any]] = []
        self._waits: list[dict[str, Any]] = []
        self._surface: list[dict[str, Any]] = []

    async def run(self) -> Measured:
        plain = {f"{limit}": _settings(limit) for limit in self._limits} | {
            ADAPTIVE: _settings(max(self._limits), **{"pool.adaptive": True})
        }
        chance = random.Random(self._seed)
        async with contextlib.AsyncExitStack() as stack:
            bench = await stack.enter_async_context(lanes(self._traffic, plain, self._seed))
            surfaces = {
                pair: await stack.enter_async_context(lanes(self._traffic, self._with_threads(*pair), self._seed))
                for pair in self._threads
            }
            pilots = {limit: await self._rate(bench, str(limit), -1) for limit in self._corners}
            rates = {limit: pilot["throughput_per_s"] for limit, pilot in pilots.items()}
            for repeat in range(self._repeats):
                turns: list[tuple[Any, ...]] = [*((name,) for name in plain), *itertools.product(self._corners, SHARES)]
                turns += [(pair, limit, None) for pair in self._threads for limit in self._corners]
                chance.shuffle(turns)
                for turn in turns:
                    if len(turn) == 1:
                        limit = 0 if turn[0] == ADAPTIVE else int(turn[0])
                        self._closed.append({"limit": limit, **await self._rate(bench, turn[0], repeat)})
                    elif len(turn) == 2:
                        await self._wait(bench, *turn, rates[turn[0]], repeat)
                    else:
                        (database, vector), limit, _ = turn
                        place = {"database_threads": database, "vector_threads": vector, "limit": limit}
                        self._surface.append({**place, **await self._rate(surfaces[turn[0]], str(limit), repeat)})
        return Measured(pl.DataFrame(self._closed), pl.DataFrame(self._waits), pl.DataFrame(self._surface))

    def _with_threads(self, database: int, vector: int) -> dict[str, Settings]:
        threads = {"pool.database_threads": database, "pool.vector_threads": vector}
        # Only groups search for several queries at once, and only those use threads.
        return {f"{limit}": _settings(limit, **threads, **{"batch.limit": 16}) for limit in self._corners}

    async def _rate(self, bench: Lanes, name: str, repeat: int) -> dict[str, Any]:
        told = await bench.closed_loop(name, CLIENTS, self._duration_s, _WARM_S, _seed(self._seed, repeat + 1))
        answered = told.filter(pl.col("outcome") == "ok")["response_ms"]
        return {
            "repeat": repeat,
            "throughput_per_s": max(len(answered), 1) / self._duration_s,
            "mean_ms": float(np.mean(answered.to_numpy())) if len(answered) else 0.0,
            "p95_ms": percentile_ms(answered, 0.95, _FEWEST),
        }

    async def _wait(self, bench: Lanes, limit: int, share: float, most_per_s: float, repeat: int) -> None:
        """Note the response times of an open loop."""
        rate = share * most_per_s
        seed = _seed(self._seed, repeat + 1, limit)
        due_s = arrivals.poisson(rate, max(self._duration_s, 20 / rate), seed)
        told = (await bench.open_loop(str(limit), due_s, seed))["response_ms"]
        place = {"limit": limit, "share": share, "rate_per_s": rate, "repeat": repeat}
        self._waits.append({**place, "mean_ms": float(np.mean(told.to_numpy())), "p95_ms": percentile_ms(told, 0.95, _FEWEST)})


def _pair(threads: Sequence[int]) -> tuple[int, int]:
    database, vector = threads
    return database, vector


def _settings(limit: int, **more: Any) -> Settings:
    return Settings.of({"cache": None, "pool.limit": limit, **({} if "batch.limit" in more else {"batch": None}), **more})


def beside_measured(measured: Measured, law: Scalability, seen: Sequence[int] = SEEN) -> pl.DataFrame:
    """Return every limit with what the law says of it.

    Returns:
        limit, throughput_per_s (median over repeats), predicted_per_s, error (absolute, relative to what was measured), fitted
        (whether the law was fitted on it).
    """
    rows = []
    for row in _median(measured.closed.filter(pl.col("limit") > 0), "limit").sort("limit").iter_rows(named=True):
        predicted = law.throughput_per_s(row["limit"])
        error = abs(predicted / row["throughput_per_s"] - 1)
        rows.append({**row, "predicted_per_s": predicted, "error": error, "fitted": row["limit"] in seen})
    return pl.DataFrame(rows)


def waits(measured: Measured, law: Scalability) -> pl.DataFrame:
    """Return mean response times of the open loops beside those of the queue before places that share as the law says.

    Returns:
        limit, share, rate_per_s, mean_ms (median over repeats), predicted_ms (null where the law says that the places cannot
        keep up), error.
    """
    rows: list[dict[str, Any]] = []
    for (limit, share), part in measured.waits.group_by(["limit", "share"], maintain_order=True):
        seen, rate = float(np.median(part["mean_ms"].to_numpy())), float(np.mean(part["rate_per_s"].to_numpy()))
        predicted = None
        with contextlib.suppress(MemlabError):
            predicted = 1e3 * sharing_response_s(rate, int(str(limit)), law.throughput_per_s)
        error = None if predicted is None else abs(predicted / seen - 1)
        place = {"limit": limit, "share": share, "rate_per_s": rate}
        rows.append({**place, "mean_ms": seen, "predicted_ms": predicted, "error": error})
    return pl.DataFrame(rows, schema_overrides={"predicted_ms": pl.Float64, "error": pl.Float64}).sort("limit", "share")


def race(measured: Measured, law: Scalability) -> dict[str, Any]:
    """Return the adaptive limit beside the one that the law recommends, and the best that was measured.

    Returns:
        recommended (the smallest limit with 95 % of the peak), its nearest measured limit, best (limit with the highest median
        throughput), and adaptive_over_nearest and adaptive_over_best: ratios of throughputs with 95 % intervals over repeats.
    """
    closed = measured.closed.sort("repeat")
    of = {limit: part["throughput_per_s"].to_list() for (limit,), part in closed.group_by(["limit"], maintain_order=True)}
    fixed = [limit for limit in of if limit]
    recommended = law.enough()
    nearest = min(fixed, key=lambda limit: (abs(limit - recommended), limit))
    best = max(fixed, key=lambda limit: float(np.median(of[limit])))
    return {
        "recommended": recommended,
        "nearest": nearest,
        "best": best,
        "adaptive_over_nearest": stats.quotient(of[0], of[nearest]),
        "adaptive_over_best": stats.quotient(of[0], of[best]),
    }


def surface(measured: Measured) -> pl.DataFrame:
    """Return the median throughput of every corner of the surface, the highest first."""
    by = ["database_threads", "vector_threads", "limit"]
    return _median(measured.surface, *by).sort("throughput_per_s", descending=True)


def _median(frame: pl.DataFrame, *by: str) -> pl.DataFrame:
    return frame.group_by(by, maintain_order=True).agg(pl.col("throughput_per_s").median())


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
