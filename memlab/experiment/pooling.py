"""How many groups should run at once: the scalability law from a few limits against limits that it has not seen.

Closed loops with more clients than places say what each limit answers; open loops say what calls then wait, beside what the queue
in front of that many places predicts. All in random turns, without batching, so that every call takes a place.

What a wait is made of is taken apart: the queue is asked four times, each time knowing more of what was measured (`STEPS`), so
that the errors tell which of it matters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from memlab.errors import MemlabError, validation
from memlab.experiment import results
from memlab.experiment.lanes import Lanes, lanes
from memlab.experiment.load import run_in_own_loop
from memlab.experiment.quiet import quiet
from memlab.measure import stats
from memlab.measure.stats import Interval
from memlab.predict.queueing import SharedPlaces, sharing_response_s
from memlab.predict.scalability import Scalability
from memlab.settings import Settings
from memlab.workload import arrivals, spec
from memlab.workload.spec import Workload

LIMITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
SEEN = (1, 2, 4, 8, 32)
"""Limits that the law is fitted on; the others are held against it."""
ADAPTIVE = "adaptive"
CLIENTS = 48
SHARES = (0.3, 0.6, 0.8)
"""Arrival rates of the open loops, as shares of what a limit answered."""
THREADS = ((1, 1), (2, 1), (1, 2), (2, 2))
"""DuckDB's and the vector index's."""
PLAIN = (1, 1)
RESTS_S = (0.0015, 0.004, 0.016)
"""Pauses between lone calls."""
STEPS: Mapping[str, str] = {
    "chain": "Poisson arrivals for ever and exponential service, by the law",
    "arrivals": "the arrivals as they came and service as uneven as it was, by the law",
    "woken": "and what a machine takes to wake after a rest",
    "measured": "and the throughput that was measured in place of the law's",
}
"""What the queue is told, each time more; `woken` is the model, `measured` says what of its error is the law's."""
MODEL = "woken"
ENOUGH = 0.95
"""Share of the highest throughput that the recommended limit reaches."""
ASKED_ERROR = 0.1
"""Median error on unseen limits that was asked for, of throughput."""

_WARM_S = 0.05
_PILOTS = 3
_LONE, _LOAD_S = 1.0, 3.0  # seconds of a lone client, and of all of them, that the adaptive limit learns from


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        closed: limit (of the pool; `adaptive` as 0), repeat, throughput_per_s, mean_ms, response_ms (a list of those answered),
            limit_after (where it stood).
        waits: limit, share, rate_per_s, repeat, due_s and response_ms (lists), mean_ms; of the open loops.
        lone: rest_s (0 for one client that asks again at once), repeat, response_ms (a list); nothing else was inside.
        surface: database_threads, vector_threads, limit, repeat, throughput_per_s, mean_ms, response_ms as of closed.
    """

    closed: pl.DataFrame
    waits: pl.DataFrame
    lone: pl.DataFrame
    surface: pl.DataFrame

    def refuse_silence(self) -> None:
        """Raise VALIDATION `bounds` where a lane ended before it had one answer: it has no throughput to fit, and no wait."""
        silent = [
            self.closed.filter(pl.col("throughput_per_s") == 0),
            self.surface.filter(pl.col("throughput_per_s") == 0),
            self.waits.filter(pl.col("mean_ms").is_null()),
        ]
        _refuse(sorted({limit for frame in silent for limit in frame["limit"].to_list()}))

    def law(self, seen: Sequence[int] = SEEN) -> Scalability:
        """Return the law that fits the limits *seen*, by the median of their repeats."""
        known = _median(self.closed.filter(pl.col("limit").is_in(list(seen))), "limit").sort("limit")
        return Scalability.fit(known["limit"].to_list(), known["throughput_per_s"].to_list())


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: the law, every limit beside it, waits beside the queue, the race, the surface; see `_summarise`.
        measured: what it was made of.
    """

    summary: dict[str, Any]
    measured: Measured


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    limits: Sequence[int] = LIMITS,
    seen: Sequence[int] = SEEN,
    threads: Sequence[Sequence[int]] = THREADS,
    duration_s: float = 0.25,
    out: str | Path | None = None,
) -> Study:
    """Measure every limit and what is made of them; what a point's notebook calls.

    Args:
        point: `reference`: settings over the defaults; its pool limit is what the recommended one is compared with. `candidate`:
            settings that all lanes share, but for cache, batch and pool.
        workload: as a params file has it: its mix and corpus.
        repeats: of everything, in random turns.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        limits, threads: see `measure`; the reference's limit joins them.
        seen: limits that the law is fitted on.
        duration_s: of a closed lane; open ones take twice as long.
        out: existing folder for the figures of every lane and summary.json; None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit.
    """
    reference = Settings.of(point.get("reference") or {}).pool
    if reference is None or reference.adaptive:
        raise validation("params", "reference.pool: a limit is compared with another one; give a pool that is not adaptive")
    every = tuple(sorted({*limits, reference.limit}))
    if len(set(seen)) < 3 or not set(seen) < set(every):
        raise validation(
            "params",
            f"seen = {[*seen]}: the law is fitted on three or more of the limits {[*every]}, and held against the others",
        )
    measured = measure(
        workload,
        shared=point.get("candidate") or {},
        limits=every,
        waited=_waited(every, seen),
        repeats=repeats,
        duration_s=duration_s,
        threads=threads,
        seed=seed,
    )
    summary = _summarise(measured, seen, reference.limit, size=size, repeats=repeats, traffic=spec.workload(workload))
    results.write_point(
        out, summary, {f"pool-{name}": getattr(measured, name) for name in ("closed", "waits", "lone", "surface")}
    )
    return Study(summary=summary, measured=measured)


def _waited(limits: Sequence[int], seen: Sequence[int]) -> tuple[int, ...]:
    """Return the limits whose waits are measured: the lowest, where all stand in line, and two that the law has not seen."""
    unseen = [limit for limit in limits if limit not in seen]
    return tuple(sorted({limits[0], unseen[0], unseen[len(unseen) // 2]}))


def measure(
    workload: Mapping[str, Any],
    *,
    shared: Mapping[str, Any] | None = None,
    limits: Sequence[int] = LIMITS,
    waited: Sequence[int] = (1, 3, 16),
    repeats: int = 5,
    duration_s: float = 0.25,
    threads: Sequence[Sequence[int]] = THREADS,
    seed: int = 1,
) -> Measured:
    """Measure every limit, the adaptive one, and the surface of threads and limits, in random turns.

    Args:
        workload: its mix and corpus.
        shared: settings of all lanes, but for cache, batch and pool.
        limits: of the pool, without batching.
        waited: those of the limits that open loops are measured at.
        duration_s: of every lane; open ones take twice as long.
        threads: of DuckDB and the vector index; each opens a database of its own.
    Raises:
        MemlabError: VALIDATION `bounds`: too little to measure; or whatever a workload is refused for.
    """
    if repeats < 1 or duration_s <= 0 or len(set(limits)) < 3 or not threads or not set(waited) <= set(limits):
        raise validation(
            "bounds", "one repeat, time above 0, three limits, waits at some of them and one pair of threads are the least"
        )
    traffic = spec.workload(workload)
    with quiet():
        return run_in_own_loop(
            _Turns(
                traffic, shared or {}, tuple(limits), tuple(waited), repeats, duration_s, tuple(map(_pair, threads)), seed
            ).run()
        )


class _Turns:
    def __init__(
        self,
        traffic: Workload,
        shared: Mapping[str, Any],
        limits: tuple[int, ...],
        waited: tuple[int, ...],
        repeats: int,
        duration_s: float,
        threads: tuple[tuple[int, int], ...],
        seed: int,
    ) -> None:
        self._traffic = traffic
        self._shared = {key: value for key, value in shared.items() if key.partition(".")[0] not in ("cache", "batch", "pool")}
        self._limits = limits
        self._waited = waited
        self._corners = (limits[0], limits[len(limits) // 2], limits[-1])
        self._repeats = repeats
        self._duration_s = duration_s
        self._threads = threads
        self._seed = seed
        self._closed: list[dict[str, Any]] = []
        self._waits: list[dict[str, Any]] = []
        self._lone: list[dict[str, Any]] = []
        self._surface: list[dict[str, Any]] = []

    async def run(self) -> Measured:
        plain = {f"{limit}": self._settings(limit) for limit in self._limits}
        plain[ADAPTIVE] = self._settings(max(self._limits), **{"pool.adaptive": True})
        async with contextlib.AsyncExitStack() as stack:
            bench = await stack.enter_async_context(lanes(self._traffic, plain, self._seed))
            surfaces = {
                pair: await stack.enter_async_context(lanes(self._traffic, self._with_threads(*pair), self._seed))
                for pair in self._threads
            }
            await self._learn(bench)
            rates = {limit: await self._pilot(bench, limit) for limit in self._waited}
            chance = random.Random(self._seed)
            for repeat in range(self._repeats):
                turns = self._turns(bench, surfaces, rates, repeat)
                chance.shuffle(turns)
                for turn in turns:
                    await turn()
        rows = (self._closed, self._waits, self._lone, self._surface)
        measured = Measured(*(pl.DataFrame(one, schema_overrides=_nullable(one)) for one in rows))
        measured.refuse_silence()
        return measured

    def _turns(
        self, bench: Lanes, surfaces: Mapping[tuple[int, int], Lanes], rates: Mapping[int, float], repeat: int
    ) -> list[Callable[[], Any]]:
        def turn(work: Callable[..., Any], *given: Any) -> Callable[[], Any]:
            return lambda: work(*given, repeat)

        return [
            *(turn(self._limit, bench, name) for name in (*map(str, self._limits), ADAPTIVE)),
            *(turn(self._wait, bench, limit, share * rates[limit], share) for limit, share in itertools.product(rates, SHARES)),
            *(turn(self._alone, bench, rest_s) for rest_s in (0.0, *RESTS_S)),
            *(turn(self._corner, surfaces[pair], pair, limit) for pair, limit in itertools.product(surfaces, self._corners)),
        ]

    def _settings(self, limit: int, **more: Any) -> Settings:
        batch = {} if "batch.limit" in more else {"batch": None}
        return Settings.of({**self._shared, "cache": None, "pool.limit": limit, **batch, **more})

    def _with_threads(self, database: int, vector: int) -> dict[str, Settings]:
        threads = {"pool.database_threads": database, "pool.vector_threads": vector}
        # Only groups search for several queries at once, and only those use threads.
        return {f"{limit}": self._settings(limit, **threads, **{"batch.limit": 16}) for limit in self._corners}

    async def _learn(self, bench: Lanes) -> None:
        """Let the adaptive limit come to rest as a service does: light traffic first, then the load."""
        brief = min(1.0, self._duration_s / 0.25)  # a short run proves that it runs
        for clients, seconds in ((1, _LONE * brief), (CLIENTS, _LOAD_S * brief)):
            await bench.closed_loop(ADAPTIVE, clients, seconds, _WARM_S, _seed(self._seed, clients))

    async def _pilot(self, bench: Lanes, limit: int) -> float:
        told = [await self._rate(bench, str(limit), -1 - number) for number in range(_PILOTS)]
        rate = float(np.median([one["throughput_per_s"] for one in told]))
        if not rate:
            _refuse([limit])
        return rate

    async def _limit(self, bench: Lanes, name: str, repeat: int) -> None:
        limit = 0 if name == ADAPTIVE else int(name)
        told = await self._rate(bench, name, repeat)
        self._closed.append({"limit": limit, **told, "limit_after": bench.statistics(name)["pool"]["limit"]})

    async def _corner(self, bench: Lanes, pair: tuple[int, int], limit: int, repeat: int) -> None:
        place = {"database_threads": pair[0], "vector_threads": pair[1], "limit": limit}
        self._surface.append({**place, **await self._rate(bench, str(limit), repeat)})

    async def _rate(self, bench: Lanes, name: str, repeat: int) -> dict[str, Any]:
        told = await bench.closed_loop(name, CLIENTS, self._duration_s, _WARM_S, _seed(self._seed, repeat + _PILOTS))
        answered = told.filter(pl.col("outcome") == "ok")["response_ms"]
        return {
            "repeat": repeat,
            "throughput_per_s": len(answered) / self._duration_s,
            "mean_ms": answered.mean(),
            "response_ms": answered.to_list(),
        }

    async def _wait(self, bench: Lanes, limit: int, rate: float, share: float, repeat: int) -> None:
        """Note the response times of an open loop."""
        seed = _seed(self._seed, repeat + 1, limit)
        due_s = arrivals.poisson(rate, max(2 * self._duration_s, 20 / rate), seed)
        told = await bench.open_loop(str(limit), due_s, seed)
        place = {"limit": limit, "share": share, "rate_per_s": rate, "repeat": repeat}
        lists = {name: told[name].to_list() for name in ("due_s", "response_ms")}
        self._waits.append({**place, **lists, "mean_ms": told["response_ms"].mean()})

    async def _alone(self, bench: Lanes, rest_s: float, repeat: int) -> None:
        """Note the response times of calls that find nothing inside, after a rest or without one."""
        seed, name = _seed(self._seed, repeat + 1), str(self._limits[0])
        if rest_s:
            due_s = arrivals.constant(1 / rest_s, max(self._duration_s, 5 * rest_s))
            told = await bench.open_loop(name, due_s, seed)
        else:
            told = await bench.closed_loop(name, 1, self._duration_s, _WARM_S, seed)
        self._lone.append({"rest_s": rest_s, "repeat": repeat, "response_ms": told["response_ms"].to_list()})


def _refuse(silent: Sequence[int]) -> None:
    if silent:
        told = ", ".join(str(limit or ADAPTIVE) for limit in silent)
        raise validation("bounds", f"no call was answered in a lane of limit {told}; give more duration_s")


def _nullable(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the type of figures that a lane may not have."""
    return {name: pl.Float64 for name in ("mean_ms", "p95_ms") if rows and name in rows[0]}


def _pair(threads: Sequence[int]) -> tuple[int, int]:
    database, vector = threads
    return database, vector


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


def service(measured: Measured) -> tuple[float, pl.Series, dict[float, float]]:
    """Return what a lone call takes in the flow of calls: mean (s), all over their mean, and what it takes longer after a rest.

    Returns:
        mean seconds; values of mean 1; by seconds of rest, seconds that are added (medians over repeats of each one's mean).
    Raises:
        MemlabError: VALIDATION `bounds`: a lane ended before its client had one answer.
    """
    lone = measured.lone.filter(pl.col("response_ms").list.len() > 0)
    means = {
        float(str(rest_s)): float(np.median([np.mean(one) for one in part["response_ms"].to_list()])) / 1e3
        for (rest_s,), part in lone.group_by(["rest_s"], maintain_order=True)
    }
    flow = lone.filter(pl.col("rest_s") == 0)["response_ms"].explode()
    if not len(flow):
        raise validation("bounds", "a lone client had no answer in the time of a lane; give more duration_s")
    longer = {rest_s - mean_s: mean_s - means[0.0] for rest_s, mean_s in means.items() if rest_s > mean_s}
    return means[0.0], flow / flow.mean(), longer


def waits(measured: Measured, law: Scalability, seen: Sequence[int] = SEEN, *, plays: int = 5) -> pl.DataFrame:
    """Return response times of the open loops beside those of the queue before places that share as the law says.

    Returns:
        limit, share, rate_per_s, fitted, mean_ms (the median over repeats), p95_ms (of the calls of all repeats, with p95_low_ms
        and p95_high_ms; null where they are too few), predicted_ms and predicted_p95_ms of the model (of the plays of all
        repeats), error and error_p95 (absolute, relative to what was measured), and error_<step> of the mean for every one of
        `STEPS`, null where the law says that the places cannot keep up.
    """
    _, work, woken_s = service(measured)
    known = _median(measured.closed.filter(pl.col("limit") > 0), "limit").sort("limit")

    def as_measured(inside: int) -> float:
        return float(np.interp(inside, known["limit"].to_numpy(), known["throughput_per_s"].to_numpy()))

    models = {
        "arrivals": SharedPlaces(law.throughput_per_s, work.to_numpy()),
        "woken": SharedPlaces(law.throughput_per_s, work.to_numpy(), woken_s),
        "measured": SharedPlaces(as_measured, work.to_numpy(), woken_s),
    }
    rows: list[dict[str, Any]] = []
    for (limit, share), part in measured.waits.group_by(["limit", "share"], maintain_order=True):
        places, rate = int(str(limit)), float(np.mean(part["rate_per_s"].to_numpy()))
        seen_ms = float(np.median(part["mean_ms"].to_numpy()))
        told: dict[str, float | None] = {"chain": None}
        with contextlib.suppress(MemlabError):
            told["chain"] = 1e3 * sharing_response_s(rate, places, law.throughput_per_s)
        p95 = None
        for step, model in models.items():
            lanes_s = [[model.play(np.array(due_s), places, seed=seed) for seed in range(plays)] for due_s in part["due_s"]]
            told[step] = 1e3 * float(np.median([np.mean(np.concatenate(one)) for one in lanes_s]))
            if step == MODEL:
                p95 = 1e3 * float(np.quantile(np.concatenate([play for one in lanes_s for play in one]), 0.95))
        seen_p95 = _p95(part)
        rows.append(
            {
                "limit": places,
                "share": share,
                "rate_per_s": rate,
                "fitted": places in seen,
                "mean_ms": seen_ms,
                "p95_ms": seen_p95.value,
                "p95_low_ms": seen_p95.low,
                "p95_high_ms": seen_p95.high,
                "predicted_ms": told[MODEL],
                "predicted_p95_ms": p95,
                "error": _off(told[MODEL], seen_ms),
                "error_p95": _off(p95, seen_p95.value),
                **{f"error_{step}": _off(one, seen_ms) for step, one in told.items()},
            }
        )
    nullable = dict.fromkeys(
        ("p95_ms", "p95_low_ms", "p95_high_ms", "error_p95", *(f"error_{step}" for step in STEPS)), pl.Float64
    )
    return pl.DataFrame(rows, schema_overrides=nullable).sort("limit", "share")


def _p95(lanes: pl.DataFrame) -> Interval:
    """Return the p95 of the calls of all lanes together."""
    return stats.percentile(lanes["response_ms"].explode().drop_nulls().to_numpy(), 0.95)


def _off(told: float | None, seen: float | None) -> float | None:
    return None if told is None or seen is None else abs(told / seen - 1)


def race(measured: Measured, law: Scalability) -> dict[str, Any]:
    """Return the adaptive limit beside the one that the law recommends, and the best that was measured.

    The best is chosen for its throughput among many and so was lucky too: the ratio to it is rather too low.

    Returns:
        recommended (the smallest limit with `ENOUGH` of the peak), nearest (the first measured limit that is no less), best (the
        limit with the highest median throughput), adaptive_over_nearest and adaptive_over_best: ratios of throughputs with 95 %
        intervals over repeats; and limits: where the adaptive limit stood after each of its lanes.
    """
    of = _by_limit(measured)
    fixed = [limit for limit in of if limit]
    recommended = law.enough(ENOUGH)
    nearest = min((limit for limit in fixed if limit >= recommended), default=max(fixed))
    best = max(fixed, key=lambda limit: float(np.median(of[limit])))
    return {
        "recommended": recommended,
        "nearest": nearest,
        "best": best,
        "adaptive_over_nearest": stats.quotient(of[0], of[nearest]),
        "adaptive_over_best": stats.quotient(of[0], of[best]),
        "limits": measured.closed.filter(pl.col("limit") == 0).sort("repeat")["limit_after"].to_list(),
    }


def _by_limit(measured: Measured) -> dict[int, list[float]]:
    """Return the throughputs of every limit, by repeat."""
    parts = measured.closed.sort("repeat").group_by(["limit"], maintain_order=True)
    return {int(str(limit)): part["throughput_per_s"].to_list() for (limit,), part in parts}


def surface(measured: Measured) -> pl.DataFrame:
    """Return the median throughput of every corner of the surface, the highest first."""
    return _median(measured.surface, *_CORNER).sort("throughput_per_s", descending=True)


_CORNER = ("database_threads", "vector_threads", "limit")


def _median(frame: pl.DataFrame, *by: str) -> pl.DataFrame:
    return frame.group_by(by, maintain_order=True).agg(pl.col("throughput_per_s").median())


# --- what a document shows -------------------------------------------------------------------------------------------


def _summarise(
    measured: Measured, seen: Sequence[int], reference: int, *, size: str, repeats: int, traffic: Workload
) -> dict[str, Any]:
    law = measured.law(seen)
    compared = beside_measured(measured, law, seen)
    waited = waits(measured, law, seen)
    raced = race(measured, law)
    of = _by_limit(measured)
    mean_s, work, woken_s = service(measured)
    error = _middle(compared.filter(~pl.col("fitted"))["error"])
    unseen = waited.filter(~pl.col("fitted"))
    over = {name: stats.quotient(of[raced[name]], of[reference]) for name in ("nearest", "best")}
    return {
        "size": size,
        "finding": size != "smoke" and repeats >= stats.FEWEST_REPEATS,
        "repeats": repeats,
        "memories": traffic.corpus.events,
        "operations": dict(traffic.mix),
        "clients": CLIENTS,
        "reference_limit": reference,
        "law": {
            "rate_per_s": law.rate_per_s,
            "contention": law.contention,
            "coherency": law.coherency,
            "from": law.checked[0],
            "to": law.checked[1],
            "peak": law.peak,
            "enough": raced["recommended"],
            "enough_share": ENOUGH,
            "fitted": len(compared.filter("fitted")),
        },
        "asked_error": ASKED_ERROR,
        "error": {"median": error, "worst": _most(compared.filter(~pl.col("fitted"))["error"])},
        "kept": None if error is None else error <= ASKED_ERROR,
        "limits": {str(row["limit"]): _limit_of(row, of[row["limit"]], measured) for row in compared.iter_rows(named=True)},
        "service": {
            "mean_ms": 1e3 * mean_s,
            "cv": float(np.std(work.to_numpy())),
            "woken_ms": {f"{1e3 * rest_s:.0f}": 1e3 * longer for rest_s, longer in sorted(woken_s.items())},
        },
        "wait_error": {
            **{step: _middle(unseen[f"error_{step}"]) for step in STEPS},
            "model": _middle(unseen["error"]),
            "p95": _middle(unseen["error_p95"]),
            "worst": _most(unseen["error"]),
            "unanswered": unseen["error_chain"].null_count(),
        },
        "waits": {f"{row['limit']} at {row['share']:.0%}": row for row in waited.iter_rows(named=True)},
        "race": {
            **{name: raced[name] for name in ("recommended", "nearest", "best")},
            **{name: raced[name].to_dict() for name in ("adaptive_over_nearest", "adaptive_over_best")},
            "verdict": stats.verdict(raced["adaptive_over_nearest"], smaller_is_better=False),
            "adaptive_per_s": _rate(of[0]).to_dict(),
            "lowest": min(raced["limits"]),
            "highest": max(raced["limits"]),
        },
        "over_reference": {
            name: {**ratio.to_dict(), "verdict": stats.verdict(ratio, smaller_is_better=False)} for name, ratio in over.items()
        },
        "surface": _surface(measured),
    }


def _limit_of(row: Mapping[str, Any], throughputs: Sequence[float], measured: Measured) -> dict[str, Any]:
    mine = measured.closed.filter(pl.col("limit") == row["limit"])
    return {
        "throughput_per_s": _rate(throughputs).to_dict(),
        "predicted_per_s": row["predicted_per_s"],
        "error": row["error"],
        "fitted": row["fitted"],
        "mean_ms": _middle(mine["mean_ms"]),
        "p95_ms": _p95(mine).to_dict(),
    }


def _surface(measured: Measured) -> dict[str, Any]:
    """Return the corners, each beside one thread of both and the same limit, and which is quickest."""
    parts = measured.surface.sort("repeat").group_by(list(_CORNER), maintain_order=True)
    of = {tuple(map(int, map(str, corner))): part["throughput_per_s"].to_list() for corner, part in parts}
    corners: dict[str, dict[str, Any]] = {}
    for (database, vector, limit), rates in of.items():
        plain = of.get((*PLAIN, limit))
        ratio = None if plain is None or (database, vector) == PLAIN else stats.quotient(rates, plain)
        corners[f"{database} {vector} {limit}"] = {
            "database_threads": database,
            "vector_threads": vector,
            "limit": limit,
            "throughput_per_s": _rate(rates).to_dict(),
            "over_plain": None if ratio is None else ratio.to_dict(),
            "verdict": None if ratio is None else stats.verdict(ratio, smaller_is_better=False),
        }
    best = surface(measured).row(0, named=True)
    return {"corners": corners, "best": " ".join(str(best[name]) for name in _CORNER)}


def _rate(throughputs: Sequence[float]) -> Interval:
    return stats.quotient(throughputs, [1.0] * len(throughputs))


def _middle(values: pl.Series) -> float | None:
    return _quantile(values, 0.5)


def _most(values: pl.Series) -> float | None:
    return _quantile(values, 1.0)


def _quantile(values: pl.Series, q: float) -> float | None:
    known = values.drop_nulls().to_numpy()
    return float(np.quantile(known, q)) if len(known) else None


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
