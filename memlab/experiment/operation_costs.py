"""What every operation costs, one caller at a time, on stores of several sizes.

The calls come from the declarations: nothing here names an operation but the few that fill the store. Each call goes through
the whole path, cache and batching off. Reads come first, then what changes the store, each on memories kept for it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import MemlabError
from memlab.experiment.quiet import quiet
from memlab.measure import clock, stats
from memlab.measure.host import host, libraries
from memlab.operations.registry import Examples, Operation, lookup, operations
from memlab.settings import Settings
from memlab.storage.demands import Layer
from memlab.workload.corpus import generate

SIZES = (1_000, 10_000, 100_000)
CALLS = 220  # of an operation; 200 make a p95
FEW_CALLS = 12  # of a job, or of what takes longer than a tenth of a second
_SLOW_MS = 100.0
_SEED = 7
_BULK = 5_000
_TOGETHER = 256  # writes that fill the store side by side
# Which share of a store is what, and which operation stores it; what is not listed is filled by bulk.
_FILL: Mapping[Layer, tuple[str, float]] = {
    "procedural.procedure": ("procedural.create", 0.005),
    "procedural.run": ("procedural.execute", 0.005),
    "prospective.goal": ("prospective.create_goal", 0.005),
    "prospective.task": ("prospective.create_task", 0.05),
    "prospective.trigger": ("prospective.register_trigger", 0.005),
    "graph.entity": ("graph.create_entity", 0.05),
    "graph.relationship": ("graph.create_relationship", 0.1),
}
_LEAST = 40  # of each kind, also in a small store


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one operation cost on one store.

    Attributes:
        memories: in the store.
        calls: timed ones that succeeded; percentiles are None where they are too few.
        error_ratio: share of calls that were refused or failed.
        per_item_ms: mean over the items of a bulk call; None for others.
        phases_ms: mean by phase of storage.
        met: p95 within the declared ceiling; None where there is no p95.
    """

    name: str
    cost: str
    memories: int
    calls: int
    error_ratio: float
    mean_ms: float | None
    p50: stats.Interval
    p95: stats.Interval
    p99: stats.Interval
    per_item_ms: float | None
    throughput_per_s: float | None
    target_p95_ms: float
    met: bool | None
    phases_ms: dict[str, float]


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """How the median grows with the store: median ~ memories^exponent, by least squares over the logarithms.

    Attributes:
        exponent: 0 for a cost that does not grow, 1 for one that grows as the store does; None from fewer than two sizes.
    """

    name: str
    exponent: float | None


def measure(
    *,
    sizes: Sequence[int] = SIZES,
    layer: str | None = None,
    name: str | None = None,
    calls: int = CALLS,
    seed: int = _SEED,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure the operations of a layer, one operation, or all of them, and return a report.

    Returns:
        host, libraries, started, sizes, seed, rows (`Cost` as tables), growth (`Growth` as tables).
    Raises:
        MemlabError: VALIDATION `unknown_operation`, `unknown_layer`.
    """
    if name is not None:
        lookup(name)
    chosen = [one for one in operations(layer) if name is None or one.name == name]
    started = clock.now().isoformat(timespec="seconds")
    rows: list[Cost] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="memlab-costs-") as folder, quiet():
            rows += asyncio.run(_Store(Path(folder), size, calls, seed, tell).run(chosen))
    return {
        "host": host(),
        "libraries": libraries(),
        "started": started,
        "sizes": list(sizes),
        "seed": seed,
        "rows": msgspec.to_builtins(rows),
        "growth": msgspec.to_builtins([growth(one.name, rows) for one in chosen]),
    }


def growth(name: str, rows: Iterable[Cost]) -> Growth:
    """Return how an operation's median grows over the stores it was measured on."""
    points = [(row.memories, row.p50.value) for row in rows if row.name == name and row.p50.value]
    if len(points) < 2:
        return Growth(name=name, exponent=None)
    memories, medians = np.log(np.array(points, np.float64)).T
    return Growth(name=name, exponent=float(np.polyfit(memories, medians, 1)[0]))


class _Store:
    """One store, filled and then asked."""

    def __init__(self, folder: Path, size: int, calls: int, seed: int, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._size = size
        self._calls = calls
        self._chance = random.Random(seed)
        self._seed = seed
        self._tell = tell
        self._ids: dict[str, list[str]] = {}
        self._contents: list[str] = []

    async def run(self, chosen: Sequence[Operation]) -> list[Cost]:
        rows = []
        settings = Settings.of({"cache": None, "batch": None, "pool": None, "storage.hot_rows": 0})
        path = self._folder / "costs.duckdb"
        self._tell(f"{self._size:,} memories: filling the store")
        with Engine.open(path, Settings.of({"cache": None}), HashingEmbedder()) as engine:
            await self._fill(engine)
        with Engine.open(path, settings, HashingEmbedder()) as engine:
            order = {"read": 0, "discovery": 1, "complex": 2, "write": 3, "bulk": 4, "job": 5}
            for one in sorted(chosen, key=lambda one: (one.layer == "session", not one.reads, order[one.cost])):
                rows.append(await self._ask(engine, one))
                self._tell(f"  {_line(rows[-1])}")
        return rows

    async def _fill(self, engine: Engine) -> None:
        corpus = generate(events=self._size, sessions=1, questions=10, seed=self._seed)
        self._contents = corpus.events["content"].to_list()
        known = {one.name for one in operations()}
        kinds = {layer: fill for layer, fill in _FILL.items() if fill[0] in known}
        counts = {layer: max(_LEAST, int(share * self._size)) for layer, (_, share) in kinds.items()}
        left = max(self._size - sum(counts.values()), 2 * _LEAST)
        for operation, field, layer, count in (
            ("episodic.bulk_remember", "events", "episodic", left * 6 // 10),
            ("semantic.bulk_store", "facts", "semantic", left * 4 // 10),
        ):
            for start in range(0, count, _BULK):
                examples = self._examples()
                make = examples.event if field == "events" else examples.fact
                items = [make(self._chance) for _ in range(min(_BULK, count - start))]
                stored = (await engine.execute(operation, {field: items})).value
                self._ids.setdefault(layer, []).extend(stored.ids)
        for layer, (operation, _) in kinds.items():
            declared = next(one for one in operations() if one.name == operation)
            for _ in range(0, counts[layer], _TOGETHER):
                made = [declared.example(self._chance, self._examples()) for _ in range(min(_TOGETHER, counts[layer]))]
                answers = await asyncio.gather(*(engine.execute(operation, given) for given in made), return_exceptions=True)
                ids = [answer.value.id for answer in answers if not isinstance(answer, BaseException)]
                self._ids.setdefault(layer, []).extend(ids)

    def _examples(self, reserved: Mapping[str, Sequence[str]] | None = None) -> Examples:
        some = self._chance.sample(self._contents, k=min(50, len(self._contents)))
        return Examples(ids=reserved if reserved is not None else self._ids, contents=some)

    async def _ask(self, engine: Engine, one: Operation) -> Cost:
        times: list[float] = []
        items: list[int] = []
        failed = 0
        phases: dict[str, float] = {}
        spent_ms = 0.0
        wanted = FEW_CALLS if one.cost == "job" else self._calls
        for done in itertools.count():
            if done >= wanted or (done >= FEW_CALLS and spent_ms / done > _SLOW_MS):
                break
            parameters = one.example(self._chance, self._examples(self._taken(one)))
            session = await self._session(engine) if one.name == "session.delete" else "default"
            started = clock.monotonic_ns()
            try:
                response = await engine.execute(one.name, parameters, session=session)
            except MemlabError:
                failed += 1
                continue
            finally:
                took = (clock.monotonic_ns() - started) / 1e6
                spent_ms += took
            times.append(took)
            items.append(max(1, one.item_count(one.validate(parameters))))
            for phase, ns in (response.phases or {}).items():
                phases[phase] = phases.get(phase, 0.0) + ns / 1e6
        return _cost(one, self._size, times, items, failed, phases)

    def _taken(self, one: Operation) -> dict[str, list[str]] | None:
        """Return the last id of every kind, taken away, for what may use it up; None for what only reads."""
        if one.reads:
            return None
        return {layer: [ids.pop()] if len(ids) > _LEAST else ids[-1:] for layer, ids in self._ids.items()}

    async def _session(self, engine: Engine) -> str:
        session = str((await engine.execute("session.create")).value)
        events = {"events": [self._examples().event(self._chance) for _ in range(20)]}
        await engine.execute("episodic.bulk_remember", events, session=session)
        return session


def _cost(
    one: Operation, size: int, times: Sequence[float], items: Sequence[int], failed: int, phases: Mapping[str, float]
) -> Cost:
    measured = np.array(times, np.float64)
    calls = len(measured)
    p95 = stats.percentile(measured, 0.95)
    per_item = measured / np.array(items, np.float64) if one.cost == "bulk" and calls else None
    judged = stats.percentile(per_item, 0.95).value if per_item is not None else p95.value
    return Cost(
        name=one.name,
        cost=one.cost,
        memories=size,
        calls=calls,
        error_ratio=failed / max(calls + failed, 1),
        mean_ms=float(measured.mean()) if calls else None,
        p50=stats.percentile(measured, 0.5),
        p95=p95,
        p99=stats.percentile(measured, 0.99),
        per_item_ms=None if per_item is None else float(per_item.mean()),
        throughput_per_s=1e3 / float(measured.mean()) if calls else None,
        target_p95_ms=one.target_p95_ms,
        met=None if judged is None else bool(judged <= one.target_p95_ms),
        phases_ms={phase: total / calls for phase, total in phases.items()} if calls else {},
    )


def _line(row: Cost) -> str:
    p50, p95 = row.p50.value, row.p95.value
    shown = " · ".join(f"{name} {value:.2f} ms" for name, value in (("p50", p50), ("p95", p95), ("mean", row.mean_ms)) if value)
    return f"{row.name}: {shown}{f' · {row.error_ratio:.0%} failed' if row.error_ratio else ''}"


def markdown(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown: a table of the largest store, with growth over all of them."""
    where = report["host"]
    largest = max(report["sizes"])
    sizes = ", ".join(f"{size:,}" for size in report["sizes"])
    exponents = {one["name"]: one["exponent"] for one in report["growth"]}
    lines = [
        f"# Every operation at {largest:,} memories",
        "",
        f"{report['started']}, {where['cpu']}, {where['cores']} cores, {where['os']}, {where['python']}. One caller, cache and "
        "batching off, rows not held in memory; inputs from the declarations, seed "
        f"{report['seed']}. Growth: the exponent of the median over {sizes} memories.",
        "",
        "| operation | class | p50 ms | p95 ms | p99 ms | mean ms | per item ms | errors | ceiling p95 ms | growth |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        if row["memories"] == largest:
            exponent = exponents.get(row["name"])
            cells = [
                f"| `{row['name']}`",
                row["cost"],
                *(_number(row[name]["value"]) for name in ("p50", "p95", "p99")),
                _number(row["mean_ms"]),
                "" if row["per_item_ms"] is None else _number(row["per_item_ms"]),
                f"{row['error_ratio']:.0%}",
                f"{row['target_p95_ms']:g}",
                f"{'' if exponent is None else f'{exponent:.2f}'} |",
            ]
            lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "too few" if value is None else f"{value:.3g}"
