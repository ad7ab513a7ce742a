"""What a batch window does: a model from a few measured groups, held against settings and rates that it has not seen.

Everything is measured in turns inside of one run. As many clients as a group may have, each waiting for its answer, travel
together in groups of that size: so they say what a group takes in the flow of calls; as many that come at once after a pause, a
short and a long one, say what it takes a lane that rested. The model then plays the arrivals of every lane through, and is
compared with what the engine did (`batching_summary`). Nothing is fitted on any of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from memlab.errors import validation
from memlab.experiment import results
from memlab.experiment.batching_summary import NONE, Measured, beside_measured, fit_groups, summarise
from memlab.experiment.lanes import Lanes, lanes
from memlab.experiment.load import run_in_own_loop
from memlab.experiment.quiet import quiet
from memlab.operations.registry import lookup
from memlab.predict.group_commit import Rule, ServiceTime
from memlab.settings import Settings
from memlab.workload import arrivals, spec
from memlab.workload.spec import Workload

SIZES = (1, 4, 16, 64)
RULES: Mapping[str, Rule] = {
    NONE: Rule(0.0, 1),
    "adaptive, 0 ms, 8": Rule(0.0, 8),
    "adaptive, 0 ms, 64": Rule(0.0, 64),
    "adaptive, 4 ms, 64": Rule(4.0, 64),
    "fixed, 1 ms, 64": Rule(1.0, 64, adaptive=False),
    "fixed, 4 ms, 64": Rule(4.0, 64, adaptive=False),
    "fixed, 10 ms, 64": Rule(10.0, 64, adaptive=False),
}
AIMD = "AIMD, up to 16 ms, 64"
_AIMD_MS = 16.0
SHARES = (0.5, 0.9, 1.3)
"""Arrival rates, as shares of what calls alone can do, as many at once as the pool lets."""
OBJECTIVE_MS = 15.0

_BUSIEST = 0.85  # of a lane's capacity: beyond, response times are those of a queue that only grows
_FEWEST = 80  # calls of a lane; repeats together have enough for a p95
_BURSTS = {1: (8, 0.015), 4: (8, 0.015), 16: (5, 0.03), 64: (2, 0.16)}
"""How often, and for how many seconds, as many clients go round. They rest as long in between: on a busy host a process that
never rests gets less of it than a lane that keeps up with its calls."""
_SUSTAINED_S = 0.2  # of writes, which wait for a disk more than they work, and find it quicker after a rest
_BURST_CALLS = 1_000
_VISITS = 2  # to every size in each repeat: one bad moment of the host is then not all that a repeat knows of it
_RESTED = {1: 14, 4: 8, 16: 5}  # groups by size; those of 64 took their time and told p95 no more closely
_PAUSES_S = (0.002, 0.012)
_LEAD_S = 0.002  # of the driver, before the first call: no pause is shorter
_SEEN = 60  # groups of each size in every repeat that are kept
_WARM_UP = 0.25  # of a lane's time, before what counts: a process that has just rested is served first on a busy host
_LONGEST = 4  # times the duration that is asked for: a slow lane then has too few calls for a p95, and says so


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: see `batching_summary.summarise`.
        measured: the groups and lanes.
        compared: see `batching_summary.beside_measured`.
    """

    summary: dict[str, Any]
    measured: Measured
    compared: pl.DataFrame


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 6,
    size: str = "smoke",
    shares: Sequence[float] = SHARES,
    duration_s: float = 0.25,
    objective_ms: float = OBJECTIVE_MS,
    out: str | Path | None = None,
) -> Point:
    """Measure groups and lanes of one operation; what a point's notebook calls.

    Args:
        point: `candidate`, settings over the defaults that all lanes share: index, storage and the limit of the pool.
        workload: as a params file has it; its mix names one operation, and its corpus counts.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        shares, duration_s, objective_ms: as for `measure`.
        out: existing folder for groups.parquet, lanes.parquet and summary.json; None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit.
    """
    traffic = spec.workload(workload)
    base = Settings.of(point.get("candidate") or {})
    measured = measure(
        traffic,
        base,
        shares=shares,
        repeats=repeats,
        duration_s=duration_s,
        fewest=20 if size == "smoke" else _FEWEST,
        objective_ms=objective_ms,
        seed=seed,
    )
    compared = beside_measured(measured)
    summary = summarise(measured, compared, size=size, memories=traffic.corpus.events, seed=seed)
    results.write_point(out, summary, {"groups": measured.groups, "lanes": compared})
    return Point(summary=summary, measured=measured, compared=compared)


def measure(
    traffic: Workload,
    base: Settings | None = None,
    *,
    shares: Sequence[float] = SHARES,
    rules: Mapping[str, Rule] = RULES,
    repeats: int = 6,
    duration_s: float = 0.25,
    fewest: int = _FEWEST,
    objective_ms: float = OBJECTIVE_MS,
    seed: int = 1,
) -> Measured:
    """Measure groups and lanes of one operation in random turns.

    Args:
        traffic: its mix names one operation: a search, or a write whose groups are one transaction each.
        base: settings that all lanes share; the cache is left out.
        shares: arrival rates, as shares of what calls alone can do; of each rule those that it can keep up with.
        rules: whose groups travel at once as many as the pool lets, or one by one for writes; one that is to follow the objective
            is added.
        repeats: of everything.
        duration_s, fewest: of every lane at least, seconds and calls; a slow one ends at four times the duration all the same.
        objective_ms: what 95 of 100 calls are to keep, for the window that follows it.
    Raises:
        MemlabError: VALIDATION `bounds`: too little to measure; or whatever a workload is refused for.
    """
    if repeats < 1 or traffic.corpus.events < 16 or duration_s <= 0 or fewest < 2 or NONE not in rules or not shares:
        raise validation("bounds", "1 repeat, 16 memories, 2 calls, time above 0, one rate and the rule 'none' are the least")
    if len(traffic.mix) != 1:
        raise validation("bounds", f"a mix of {len(traffic.mix)} operations: what a group takes is told of one; name one")
    base = dataclasses.replace(base or Settings(), cache=None)
    if base.pool is None:
        raise validation("bounds", "without a pool any number of groups run at once; give pool.limit")
    (operation,) = traffic.mix
    writes = not lookup(operation).reads
    rules = {**rules, AIMD: Rule(_AIMD_MS, 64, adaptive=False, objective_ms=objective_ms)}
    rules = {name: dataclasses.replace(rule, in_flight=1 if writes else base.pool.limit) for name, rule in rules.items()}
    settings = {name: _settings(rule, base) for name, rule in rules.items()}
    settings |= {_group_of(size): _settings(Rule(0.0, size), base) for size in SIZES}

    async def measure_all() -> Measured:
        async with lanes(traffic, settings, seed) as bench:
            return await _Turns(bench, operation, rules, shares, repeats, duration_s, fewest, objective_ms, seed).run()

    with quiet():
        return run_in_own_loop(measure_all())


class _Turns:
    def __init__(
        self,
        bench: Lanes,
        operation: str,
        rules: Mapping[str, Rule],
        shares: Sequence[float],
        repeats: int,
        duration_s: float,
        fewest: int,
        objective_ms: float,
        seed: int,
    ) -> None:
        self._bench = bench
        self._operation = operation
        self._rules = rules
        self._shares = shares
        self._repeats = repeats
        self._duration_s = duration_s
        self._fewest = fewest
        self._objective_ms = objective_ms
        self._seed = seed
        self._at_once = rules[NONE].in_flight
        self._groups: list[pl.DataFrame] = []
        self._alone: list[dict[str, int]] = []
        self._calls: list[pl.DataFrame] = []

    async def run(self) -> Measured:
        for size in SIZES:
            await self._group(size, -1, 0.0)
        due = list(self._due(fit_groups(pl.concat(self._groups))))
        self._groups.clear()  # of a process that had just begun: they say which rates to try, and nothing more
        chance = random.Random(self._seed)
        for repeat in range(self._repeats):
            turns: list[int | str | tuple[str, float, float]] = [*_VISITS * SIZES, NONE, *due]
            chance.shuffle(turns)
            for turn in turns:
                if isinstance(turn, tuple):
                    await self._lane(*turn, repeat)
                elif isinstance(turn, int):
                    for pause_s in (0.0, *(_PAUSES_S if turn in _RESTED else ())):
                        await self._group(turn, repeat, pause_s)
                else:
                    await self._side_by_side(repeat)
        alone = pl.DataFrame(self._alone, schema={"repeat": pl.Int64, "one": pl.Int64, "many": pl.Int64})
        return Measured(self._operation, pl.concat(self._groups), alone, pl.concat(self._calls), self._rules, self._objective_ms)

    def _due(self, service: ServiceTime) -> Iterator[tuple[str, float, float]]:
        """Yield every rule with every share and rate that it can keep up with."""
        for share in self._shares:
            rate = float(max(round(share * service.capacity_per_s(1)), 1))
            for name, rule in self._rules.items():
                if rate >= _BUSIEST * service.capacity_per_s(rule.limit):
                    continue
                if self._at_once == 1 and rule.adaptive and rule.window_ms:
                    continue  # one group at a time: its return counts, and no window
                yield name, share, rate

    async def _group(self, size: int, repeat: int, pause_s: float) -> None:
        """Let as many clients as a group has go round, or come at once after a pause; note what full groups took."""
        if pause_s:
            # One after the other: were a group due while a slow one still runs, its wait would be taken for its work.
            due_s = np.full(size, pause_s - _LEAD_S)
            seeds = [_seed(self._seed, repeat + 1, size, number) for number in range(_RESTED[size])]
            told = pl.concat([await self._bench.open_loop(_group_of(size), due_s, seed) for seed in seeds])
        else:
            told = await self._closed(_group_of(size), size, repeat)
        # One call of each group, which all of its members waited for.
        took = told.filter(pl.col("batch_size") == size)["response_ms"].to_numpy()[::size][:_SEEN]
        self._groups.append(pl.DataFrame({"ms": took}).select(size=size, repeat=repeat, ms="ms", pause_ms=pause_s * 1e3))

    async def _side_by_side(self, repeat: int) -> None:
        """Note the calls a second of one client, and of as many as the pool has places, without batching."""
        if self._at_once > 1:
            one, many = [len(await self._closed(NONE, clients, repeat)) for clients in (1, self._at_once)]
            self._alone.append({"repeat": repeat, "one": max(one, 1), "many": many})

    async def _closed(self, name: str, clients: int, repeat: int) -> pl.DataFrame:
        """Let clients go round in short bursts; of each, what came after the first call of every client, which woke the lane."""
        bursts, burst_s = (
            (1, _SUSTAINED_S)
            if self._at_once == 1
            else _BURSTS[min((size for size in SIZES if size >= clients), default=SIZES[-1])]
        )
        found = []
        for number in range(bursts):
            await asyncio.sleep(burst_s if bursts > 1 else 0.0)
            seed = _seed(self._seed, repeat + 1, clients, number)
            told = await self._bench.closed_loop(name, clients, burst_s, 0.0, seed, calls=_BURST_CALLS)
            found.append(told.slice(clients))
        return pl.concat(found)

    async def _lane(self, name: str, share: float, rate: float, repeat: int) -> None:
        seed = _seed(self._seed, repeat, round(rate))
        lasts_s = min(max(self._duration_s, self._fewest / rate), _LONGEST * self._duration_s)
        due_s = arrivals.poisson(rate, lasts_s * (1 + _WARM_UP), seed)
        if (due_s >= lasts_s * _WARM_UP).sum() < 2:
            return
        told = await self._bench.open_loop(name, due_s, seed)
        warm_up = pl.col("due_s") < lasts_s * _WARM_UP
        place = {"rule": pl.lit(name), "share": pl.lit(float(share)), "rate_per_s": pl.lit(rate), "repeat": pl.lit(repeat)}
        self._calls.append(told.with_columns(**place, warm_up=warm_up))


def _settings(rule: Rule, base: Settings) -> Settings:
    if rule.limit == 1 and not rule.window_ms:
        return Settings.of({"batch": None}, base)
    fields = {name: getattr(rule, name) for name in ("window_ms", "limit", "adaptive", "objective_ms")}
    return Settings.of({f"batch.{name}": value for name, value in fields.items()}, base)


def _group_of(size: int) -> str:
    return f"group of {size}"


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
