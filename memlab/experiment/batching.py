"""What a batch window does: a model from a few measured groups, held against settings and rates that it has not seen.

Everything is measured in turns inside of one run. As many clients as a group may have, each waiting for its answer, travel
together in groups of that size: so they say what a group takes in the flow of calls; as many that come at once after a pause say
what it takes a lane that rested. The model then plays the arrivals of every lane through, and is compared with what the engine
did. Nothing is fitted on any of them.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from memlab.errors import validation
from memlab.experiment.lanes import Lanes, lanes, percentile_ms
from memlab.experiment.load import run_in_own_loop
from memlab.experiment.quiet import quiet
from memlab.operations.registry import lookup
from memlab.predict.group_commit import BatchModel, Checked, Rule, ServiceTime
from memlab.settings import Settings
from memlab.workload import arrivals, spec

POOL = 4
NONE = "none"
SIZES = (1, 4, 16, 64)
RULES: Mapping[str, Rule] = {
    NONE: Rule(0.0, 1, in_flight=POOL),
    "adaptive, 0 ms, 8": Rule(0.0, 8, in_flight=POOL),
    "adaptive, 0 ms, 64": Rule(0.0, 64, in_flight=POOL),
    "adaptive, 4 ms, 64": Rule(4.0, 64, in_flight=POOL),
    "fixed, 1 ms, 64": Rule(1.0, 64, adaptive=False, in_flight=POOL),
    "fixed, 4 ms, 64": Rule(4.0, 64, adaptive=False, in_flight=POOL),
    "fixed, 16 ms, 64": Rule(16.0, 64, adaptive=False, in_flight=POOL),
}
SHARES = (0.2, 0.5, 0.8, 1.6)
"""Arrival rates, as shares of what calls alone can do, as many at once as the pool lets."""

_FEWEST = 200  # samples for a p95
_BUSIEST = 0.85  # of a lane's capacity: beyond, response times are those of a queue that only grows
_CLOSED_S = 0.12
_WARM_S = 0.03
_PAUSES, _PAUSE_S, _PAUSE_A_CALL_S = 12, 0.01, 0.0005
_SEEN = 12  # groups of each size in every repeat that are kept
_CALLS_SAVED, _LATENCY_CUT, _SPEED_UP = 0.9, 0.5, 5.0  # what was asked for


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        groups: size, ms, rested: what groups of that size took, in the flow of calls or after a pause.
        side_by_side: how many calls alone are answered in the time of one, where the pool is full.
        calls: rule, rate_per_s, repeat, due_s, response_ms, batch_size, outcome, law.
        rules: that calls travelled by.
    """

    groups: pl.DataFrame
    side_by_side: float
    calls: pl.DataFrame
    rules: Mapping[str, Rule]

    def model(self) -> BatchModel:
        """Return the model that the measured groups make, for the range that was measured."""
        service, rested = (_fit(self.groups.filter(pl.col("rested") == after_pause)) for after_pause in (False, True))
        rates = self.calls["rate_per_s"]
        checked = Checked(
            (float(rates.min()), float(rates.max())),  # type: ignore[arg-type]
            (min(rule.window_ms for rule in self.rules.values()), max(rule.window_ms for rule in self.rules.values())),
            (min(rule.limit for rule in self.rules.values()), max(rule.limit for rule in self.rules.values())),
        )
        return BatchModel(service, rested, self.side_by_side, checked)


def measure(
    operation: str = "episodic.recall",
    *,
    shares: Sequence[float] = SHARES,
    rules: Mapping[str, Rule] = RULES,
    memories: int = 3_000,
    repeats: int = 6,
    duration_s: float = 0.5,
    whole: bool = True,
    seed: int = 1,
) -> Measured:
    """Measure groups and lanes of one operation in random turns.

    Args:
        operation: a search, or a write whose groups are one transaction each.
        shares: arrival rates, as shares of what calls alone can do; of each rule those that it can keep up with.
        repeats: of everything.
        whole: make every lane long enough for a p95.
    Raises:
        MemlabError: VALIDATION `bounds`: too little to measure; or whatever a workload is refused for.
    """
    if repeats < 1 or memories < 16 or duration_s <= 0 or NONE not in rules or not shares:
        raise validation("bounds", "1 repeat, 16 memories, time above 0, one rate and the rule 'none' are the least")
    writes = not lookup(operation).reads
    rules = {name: dataclasses.replace(rule, in_flight=1) if writes else rule for name, rule in rules.items()}
    corpus = {"events": memories, "sessions": min(8, memories), "questions": min(400, max(memories // 8, 1))}
    traffic = spec.workload({"mix": {operation: 1}, "corpus": corpus, "arrivals": {"rate_per_s": 1}})
    settings = {name: _settings(rule) for name, rule in rules.items()}
    settings |= {f"group of {size}": _settings(Rule(0.0, size)) for size in SIZES}

    async def measure_all() -> Measured:
        async with lanes(traffic, settings, seed) as bench:
            return await _Turns(bench, rules, shares, repeats, duration_s, seed, writes, whole).run()

    with quiet():
        return run_in_own_loop(measure_all())


class _Turns:
    def __init__(
        self,
        bench: Lanes,
        rules: Mapping[str, Rule],
        shares: Sequence[float],
        repeats: int,
        duration_s: float,
        seed: int,
        writes: bool,
        whole: bool,
    ) -> None:
        self._bench = bench
        self._rules = rules
        self._shares = shares
        self._repeats = repeats
        self._duration_s = duration_s
        self._fewest = _FEWEST * 1.2 if whole else 20.0
        self._seed = seed
        self._pool = 1 if writes else POOL
        self._groups: list[pl.DataFrame] = []
        self._alone: list[tuple[float, float]] = []
        self._calls: list[pl.DataFrame] = []

    async def run(self) -> Measured:
        for size in SIZES:
            await self._group(size, -1)
        await self._side_by_side(-1)
        due = list(self._due(self._service(), self._processors()))
        chance = random.Random(self._seed)
        for repeat in range(self._repeats):
            turns: list[int | str | tuple[str, float]] = [*SIZES, NONE, *due]
            chance.shuffle(turns)
            for turn in turns:
                if isinstance(turn, tuple):
                    await self._lane(turn[0], turn[1], repeat)
                elif isinstance(turn, int):
                    await self._group(turn, repeat)
                else:
                    await self._side_by_side(repeat)
        return Measured(pl.concat(self._groups), self._processors(), pl.concat(self._calls), self._rules)

    def _service(self) -> ServiceTime:
        return _fit(pl.concat(self._groups).filter(~pl.col("rested")))

    def _processors(self) -> float:
        return float(np.median([many / one for one, many in self._alone])) if self._pool > 1 else 1.0

    def _due(self, service: ServiceTime, processors: float) -> Iterator[tuple[str, float]]:
        """Yield every rule with every rate that it can keep up with."""
        for share in self._shares:
            rate = round(share * service.capacity_per_s(1))
            yield from (
                (name, rate) for name, rule in self._rules.items() if rate < _BUSIEST * service.capacity_per_s(rule.limit)
            )

    async def _group(self, size: int, repeat: int) -> None:
        """Let as many clients as a group has go round; note what full groups took."""
        name = f"group of {size}"
        due_s = np.repeat(np.arange(1, _PAUSES + 1) * (_PAUSE_S + size * _PAUSE_A_CALL_S), size)
        for rested in (False, True):
            if rested:
                told = await self._bench.open_loop(name, due_s, _seed(self._seed, repeat + 1, size))
            else:
                told = await self._closed(name, size, repeat)
            took = told.filter(pl.col("batch_size") == size)["response_ms"].to_numpy()
            seen = took[np.linspace(0, len(took) - 1, min(_SEEN, len(took))).astype(np.int64)]
            self._groups.append(
                pl.DataFrame({"size": np.full(len(seen), size), "ms": seen, "rested": np.full(len(seen), rested)})
            )

    async def _side_by_side(self, repeat: int) -> None:
        """Note the calls a second of one client, and of as many as the pool has places, without batching."""
        if self._pool > 1:
            one, many = [len(await self._closed(NONE, clients, repeat)) for clients in (1, self._pool)]
            self._alone.append((max(one, 1), many))

    async def _closed(self, name: str, clients: int, repeat: int) -> pl.DataFrame:
        seed = _seed(self._seed, repeat + 1, clients)
        return await self._bench.closed_loop(name, clients, _CLOSED_S, _WARM_S, seed)

    async def _lane(self, name: str, rate: float, repeat: int) -> None:
        seed = _seed(self._seed, repeat, round(rate))
        due_s = arrivals.poisson(rate, max(self._duration_s, self._fewest / rate), seed)
        if len(due_s) < 2:
            return
        told = await self._bench.open_loop(name, due_s, seed)
        place = {"rule": pl.lit(name), "rate_per_s": pl.lit(float(rate)), "repeat": pl.lit(repeat)}
        self._calls.append(told.with_columns(**place))


def _fit(groups: pl.DataFrame) -> ServiceTime:
    return ServiceTime.fit(groups["size"].to_numpy(), groups["ms"].to_numpy() / 1e3)


def _settings(rule: Rule) -> Settings:
    batch = None if rule.limit == 1 and not rule.window_ms else rule
    return Settings.of(
        {
            "cache": None,
            "pool.limit": POOL,
            **(
                {"batch": None}
                if batch is None
                else {"batch.window_ms": rule.window_ms, "batch.limit": rule.limit, "batch.adaptive": rule.adaptive}
            ),
        }
    )


def beside_measured(measured: Measured, model: BatchModel, *, plays: int = 3) -> pl.DataFrame:
    """Return every lane with what the model says of its arrivals.

    Returns:
        rule, rate_per_s, samples, failed, p50_ms and p95_ms (medians over the repeats of each one's percentile; null where one
        has too few samples), predicted_p50_ms, predicted_p95_ms, error_p50 and error_p95 (absolute, relative to what was
        measured), mean_group, predicted_mean_group, calls_saved (measured).
    """
    free = dataclasses.replace(model, checked=None)  # this is the check
    rows = []
    for (name, rate), part in measured.calls.group_by(["rule", "rate_per_s"], maintain_order=True):
        rule = measured.rules[str(name)]
        repeats = [one for (_,), one in part.group_by(["repeat"], maintain_order=True)]
        played = [[free.play(rule, one["due_s"].to_numpy(), seed=seed) for seed in range(plays)] for one in repeats]
        row: dict[str, Any] = {
            "rule": name,
            "rate_per_s": rate,
            "samples": len(part),
            "failed": int((part["outcome"] != "ok").sum()),
        }
        for label, q, fewest in (("p50", 0.5, 20), ("p95", 0.95, _FEWEST)):
            seen = [percentile_ms(one.filter(pl.col("outcome") == "ok")["response_ms"], q, fewest) for one in repeats]
            told = [float(np.quantile(np.concatenate([one.response_s for one in plays_of]), q)) * 1e3 for plays_of in played]
            known = None if None in seen else float(np.median(np.array(seen, dtype=np.float64)))
            row |= {f"{label}_ms": known, f"predicted_{label}_ms": float(np.median(told))}
            row[f"error_{label}"] = None if known is None else abs(row[f"predicted_{label}_ms"] / known - 1)
        row["mean_group"] = float(np.mean(part["batch_size"].to_numpy()))
        row["predicted_mean_group"] = float(np.mean(np.concatenate([one.group_size for plays_of in played for one in plays_of])))
        row["calls_saved"] = 1 - float((1 / part["batch_size"]).sum()) / len(part)
        rows.append(row)
    nullable = dict.fromkeys(("p50_ms", "p95_ms", "error_p50", "error_p95"), pl.Float64)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=nullable).sort("rate_per_s", "rule")


def race(compared: pl.DataFrame) -> pl.DataFrame:
    """Return by rate the best adaptive and the best fixed rule, by their measured p95, and the ratio of the two."""
    known = compared.filter(pl.col("p95_ms").is_not_null() & (pl.col("rule") != NONE)).sort("p95_ms")
    best = {
        kind: known.filter(pl.col("rule").str.starts_with(kind))
        .group_by("rate_per_s", maintain_order=True)
        .agg(pl.col("rule").first().alias(kind), pl.col("p95_ms").first().alias(f"{kind}_p95_ms"))
        for kind in ("adaptive", "fixed")
    }
    both = best["adaptive"].join(best["fixed"], on="rate_per_s")
    return both.with_columns(ratio=pl.col("adaptive_p95_ms") / pl.col("fixed_p95_ms")).sort("rate_per_s")


def asked_for(model: BatchModel, rule: Rule, *, seconds: float = 5.0, steps: int = 12, seed: int = 1) -> dict[str, Any]:
    """Return where batching keeps what is asked of it, by the model: rates as shares of what one call after the other can do.

    Returns:
        speed_up: calls a second in full groups over one after the other on as many processors; speed_up_holds (5 or more);
        calls_saved_from: lowest rate at which 90 % of the calls into storage are saved, None where none in range does it;
        latency_cut_from: lowest rate at which p95 is at most half of that without batching, None likewise; only_delays_below:
        the highest rate up to which p50 is above that without batching, None where it never is.
    """
    alone = model.service.capacity_per_s(1) * model.processors
    batched = model.service.capacity_per_s(rule.limit) * model.processors
    free = dataclasses.replace(model, checked=None)
    low, high = model.checked.rate_per_s if model.checked is not None else (0.1 * alone, 0.9 * batched)
    found: dict[str, Any] = {
        "speed_up": batched / alone,
        "speed_up_holds": batched / alone >= _SPEED_UP,
        "calls_saved_from": None,
        "latency_cut_from": None,
        "only_delays_below": None,
    }
    for rate in np.geomspace(low, min(high, 0.95 * batched), steps).tolist():
        at_s = arrivals.poisson(rate, max(seconds, 400 / rate), seed)
        told = free.predict(rule, at_s)
        share = rate / alone
        if told.calls_saved >= _CALLS_SAVED and found["calls_saved_from"] is None:
            found["calls_saved_from"] = share
        if share >= 1:
            continue  # without batching the queue only grows
        without = free.predict(Rule(0.0, 1, in_flight=rule.in_flight), at_s)
        if told.p95_ms <= (1 - _LATENCY_CUT) * without.p95_ms and found["latency_cut_from"] is None:
            found["latency_cut_from"] = share
        if told.p50_ms > without.p50_ms:
            found["only_delays_below"] = share
    return found


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
