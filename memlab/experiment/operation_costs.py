"""What every operation costs, one caller at a time, beside a call of the same path that does nothing.

The calls come from the declarations: nothing here names an operation but the few that fill the store. Each goes through the whole
path, cache, batching and pool off. Operations are asked in five ways, which are the values of `setting` in the samples:

    floor      the same call, validated, through the same chain and worker thread, to a storage that is not asked
    warm       a call that was not asked before, in a process that runs: indexes in memory, rows read from the database
    repeated   that call once more: its rows are in memory now; of what only reads
    cold       one call in a fresh process whose files left the page cache; see `cold_start`
    name, description, schema      discovery of every operation, at that level of detail; see `discovery_costs`

Floor, warm and repeated take turns, call by call, so that a slow moment of the host meets all three. The calls of an operation
come in as many parts as there are repeats: intervals of means and ratios are over the parts, those of percentiles are of order
statistics. How many calls there are follows from a time budget: what is cheap reaches the 1,000 samples of a p99, what is slow
says "too few".
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import MemlabError, validation
from memlab.experiment import cold_start, discovery_costs
from memlab.experiment.comparison import Measurement
from memlab.experiment.load import outcome_of, run_in_own_loop
from memlab.experiment.operation_store import Filled, Spending
from memlab.experiment.operation_summary import growth_of, summarise
from memlab.experiment.quiet import quiet
from memlab.measure import clock, process, stats
from memlab.measure.host import host, libraries
from memlab.measure.recorder import Recorder, Sample
from memlab.middleware.chain import Outcome
from memlab.operations.registry import Operation, lookup, operations
from memlab.settings import Settings
from memlab.values import DEFAULT_SESSION, Request, Response
from memlab.workload import spec

SIZES = (1_000, 10_000, 100_000)
CALLS = 1_020  # of an operation at most; 1,000 make a p99
ALONE: Mapping[str, Any] = {"cache": None, "batch": None, "pool": None}
PARTS = 5
_SEED = 7
_SECONDS = 2.0
_PATIENCE = 4  # times the time of a part that its copies may take
_FEWEST = 200  # calls for a p95
_LONGER = 6  # times its time that a part may take for its share of them
_PILOTS = 3  # calls before the timed ones; they are warm-up. Of a job none: each has a copy of its own, so none is warmer
_MEMORY_CALLS = 20  # of a part, not timed, between two looks at the resident size
_ORDER = {"read": 0, "discovery": 1, "complex": 2, "write": 3, "bulk": 4, "job": 5}


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = _SEED,
    repeats: int = PARTS,
    size: str = "smoke",
    out: str | Path | None = None,
    seconds: float = _SECONDS,
    calls: int = CALLS,
    cold: Sequence[str] | None = None,
    layer: str | None = None,
) -> Measurement:
    """Measure every operation on one store; what the notebook of a point calls.

    Args:
        point: `candidate`, settings over the defaults, with cache, batch and pool off.
        workload: its `corpus.events` is how many memories there are; nothing else of it counts.
        seed: of texts and calls.
        repeats: parts of an operation's calls.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        out: existing folder for samples.parquet and summary.json; None keeps nothing.
        seconds: for the timed calls of one operation; its first calls may take longer.
        calls: of an operation at most.
        cold: operations that are asked in fresh processes too, *repeats* times each; default: all that only read.
        layer: only the operations of this layer.
    Returns:
        Every call as a sample, and the summary that `operation_summary.summarise` describes.
    Raises:
        MemlabError: VALIDATION `settings`: the cache is on; `unknown_operation`, `unknown_layer`; whatever filling raises.
    """
    settings = Settings.of(point.get("candidate") or ALONE)
    if settings.cache is not None:
        raise validation("settings", "a cache is never on where the engine is measured; say settings: {cache: null}")
    chosen = operations(layer)
    starts = [lookup(name) for name in cold] if cold is not None else [one for one in chosen if one.reads and one.cost != "job"]
    for one in starts:
        if not one.reads:
            raise validation("bounds", f"cold: {one.name} writes; only what reads can be asked again on the same files")
    memories = spec.workload(workload).corpus.events
    with tempfile.TemporaryDirectory(prefix="databases-", dir=out, ignore_cleanup_errors=True) as folder, quiet():
        costs = _Costs(Filled(Path(folder), memories, seed), settings, repeats, seconds, calls)
        run_in_own_loop(costs.measure(chosen))
        costs.measure_cold(starts)
    summary = summarise(
        costs.samples(),
        memories=memories,
        size=size,
        repeats=repeats,
        rss_bytes_per_call=costs.growth,
        discovery=costs.discovery,
        kept_ratio=costs.kept_ratio,
    )
    return Measurement(costs.samples(), summary).kept_in(out)


class _Floor(Engine):
    """An engine that does nothing: the way there and back."""

    async def run(self, requests: Sequence[Request]) -> list[Outcome]:
        workers = self._readers if lookup(requests[0].operation).reads else self._writer
        await workers.run(_nothing)
        return [Response(None) for _ in requests]

    def _peek(self, request: Request) -> Response | None:
        return None if inspect.isgeneratorfunction(lookup(request.operation).plan) else Response(None)


def _nothing() -> None:
    """Take the way through a worker thread."""


class _Opened(msgspec.Struct, frozen=True):
    """One copy of the store."""

    database: Path
    engine: Engine
    floor: _Floor


class _Costs:
    """Asks every operation on copies of one store and writes down what became of each call."""

    def __init__(self, filled: Filled, settings: Settings, parts: int, seconds: float, calls: int) -> None:
        self.growth: dict[str, stats.Interval] = {}
        self.discovery: dict[str, dict[str, Any]] = {}
        self.kept_ratio: float | None = None
        self._filled = filled
        self._settings = settings
        self._parts = parts
        self._budget_ns = round(seconds * 1e9)
        self._most = -(-calls // parts)  # of a part
        self._chance = random.Random(0)
        self._recorder = Recorder()
        self._origin = clock.monotonic_ns()
        self._spent_ns = 0  # on timed calls; making copies does not count

    def samples(self) -> pl.DataFrame:
        """Return every call in the columns of samples.parquet."""
        return self._recorder.to_polars()

    async def measure(self, chosen: Sequence[Operation]) -> None:
        """Fill the store and ask everything but the cold calls: what reads first, on one copy."""
        await self._filled.fill()
        gc.collect()
        gc.freeze()  # what is there stays; looking at the resident size need not go through it each time
        try:
            async with self._opened() as copy:
                for one in sorted(chosen, key=lambda one: _ORDER[one.cost]):
                    if one.reads:
                        await self._read(copy, one)
                if any(one.name == "discovery.search" for one in chosen):
                    self.discovery = await discovery_costs.measure(
                        copy.engine.execute, self._recorder, parts=self._parts, calls=self._most
                    )
            writes = [one for one in chosen if not one.reads]
            # What names every memory that it changes may share a copy; who forgets by a condition leaves ids that are no more.
            shares = [one for one in writes if one.cost == "write" and one.layer != "session"]
            await self._write(shares)
            for one in sorted(writes, key=lambda one: (one.layer == "session", _ORDER[one.cost])):
                if one not in shares:
                    await self._write([one])
        finally:
            gc.unfreeze()

    def measure_cold(self, starts: Sequence[Operation]) -> None:
        """Ask each of *starts* in fresh processes, all of them in turn for every part."""
        database = self._filled.copy()
        kept: list[float | None] = []
        for part in range(self._parts):
            asked = [(one.name, one.example(self._chance, self._filled.examples())) for one in starts]
            for first in cold_start.first_calls(database, self._settings, asked):
                kept.append(first.kept_ratio)
                for setting, took, phases in (("open", first.open_ns, None), ("cold", first.call_ns, first.phases)):
                    self._keep(first.operation, setting, part, 0, took, first.outcome, phases)
        known = [one for one in kept if one is not None]
        self.kept_ratio = max(known) if known and len(known) == len(kept) else None
        self._filled.remove(database)

    # --- reading --------------------------------------------------------------------------------------------------

    async def _read(self, copy: _Opened, one: Operation) -> None:
        def ask() -> dict[str, Any]:
            return one.example(self._chance, self._filled.examples())

        async def turn(part: int, warm_up: bool) -> None:
            given = ask()
            first = self._chance.random() < 0.5
            if first:
                await self._time(copy.floor, one, given, "floor", part, warm_up)
            copy.engine.storage.indexes.rows.clear()
            await self._time(copy.engine, one, given, "warm", part, warm_up)
            await self._time(copy.engine, one, given, "repeated", part, warm_up)
            if not first:
                await self._time(copy.floor, one, given, "floor", part, warm_up)

        turns = await self._turns(turn)
        grown = []
        for _ in range(self._parts):
            asked = [ask() for _ in range(min(turns, _MEMORY_CALLS))]
            copy.engine.storage.indexes.rows.clear()
            grown.append(await self._grown_by(copy.engine, one, asked))
        self._grew(one, grown)

    async def _turns(self, turn: Callable[[int, bool], Any], pilots: int = _PILOTS) -> int:
        """Take turns part by part, as long as the time of each lasts, one at least; return the fewest of a part.

        What is slow, but no job, goes on for a while to have calls enough for a p95. A job is asked once on each copy of the
        store, and copying a large one takes longer than many a job: a part also ends when its copies have taken several times
        its time.
        """
        for _ in range(pilots):
            await turn(0, True)
            if self._spent_ns > self._budget_ns:
                break
        fewest = self._most
        for part in range(self._parts):
            self._spent_ns = done = 0
            allowed_ns = self._budget_ns / self._parts
            began_ns = clock.monotonic_ns()
            while done < self._most:
                longer = _LONGER if pilots and done * self._parts < _FEWEST else 1
                copied_ns = clock.monotonic_ns() - began_ns - self._spent_ns
                if done and (self._spent_ns >= longer * allowed_ns or copied_ns >= _PATIENCE * allowed_ns):
                    break
                await turn(part, False)
                done += 1
            fewest = min(fewest, done)
        self._spent_ns = 0
        return fewest

    # --- writing --------------------------------------------------------------------------------------------------

    async def _write(self, together: Sequence[Operation]) -> None:
        """Ask what changes the store, one operation after the other, on copies that are used up by a tenth at most."""
        async with contextlib.AsyncExitStack() as stack:
            copy = await stack.enter_async_context(self._opened())
            spending = Spending(self._filled)

            async def renew(one: Operation) -> None:
                nonlocal copy, spending
                if spending.is_spent(one):
                    await stack.aclose()
                    copy = await stack.enter_async_context(self._opened())
                    spending = Spending(self._filled)

            async def turn(one: Operation, part: int, warm_up: bool) -> None:
                await renew(one)
                given = spending.next(one)
                session = await self._doomed(copy.engine) if one.name == "session.delete" else DEFAULT_SESSION
                first = self._chance.random() < 0.5
                if first:
                    await self._time(copy.floor, one, given, "floor", part, warm_up)
                await self._time(copy.engine, one, given, "warm", part, warm_up, session)
                if not first:
                    await self._time(copy.floor, one, given, "floor", part, warm_up)

            for one in together:
                turns = await self._turns(functools.partial(turn, one), 0 if one.cost == "job" else _PILOTS)
                if one.cost == "job" or one.name == "session.delete":
                    continue
                grown = []
                for _ in range(self._parts):
                    await renew(one)
                    asked: list[dict[str, Any]] = []
                    while len(asked) < min(turns, _MEMORY_CALLS) and not spending.is_spent(one):
                        asked.append(spending.next(one))
                    grown.append(await self._grown_by(copy.engine, one, asked))
                self._grew(one, grown)

    async def _doomed(self, engine: Engine) -> str:
        """Return a session of twenty events."""
        session = str((await engine.execute("session.create")).value)
        events = {"events": [self._filled.examples().event(self._chance) for _ in range(20)]}
        await engine.execute("episodic.bulk_remember", events, session=session)
        return session

    # --- both -----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[_Opened]:
        database = self._filled.copy()
        engine = Engine.open(database, self._settings, HashingEmbedder())
        floor = _Floor(engine.storage, self._settings)
        try:
            yield _Opened(database, engine, floor)
        finally:
            await floor.aclose()
            await engine.aclose()
            self._filled.remove(database)

    async def _time(
        self,
        engine: Engine,
        one: Operation,
        given: Mapping[str, Any],
        setting: str,
        part: int,
        warm_up: bool,
        session: str = DEFAULT_SESSION,
    ) -> None:
        started = clock.monotonic_ns()
        try:
            response = await engine.execute(one.name, given, session=session)
        except MemlabError as error:
            took = clock.monotonic_ns() - started
            self._keep(one.name, setting, part, started - self._origin, took, outcome_of(error), None, error.reason, warm_up)
        else:
            took = clock.monotonic_ns() - started
            items = one.item_count(one.validate(given)) if one.cost == "bulk" else 1
            phases = response.phases
            self._keep(one.name, setting, part, started - self._origin, took, "ok", phases, None, warm_up, items)

    def _keep(
        self,
        operation: str,
        setting: str,
        part: int,
        started: int,
        took: int,
        outcome: Any,
        phases: Mapping[str, int] | None,
        error: str | None = None,
        warm_up: bool = False,
        items: int = 1,
    ) -> None:
        self._spent_ns += took
        self._recorder.add(
            Sample(
                operation=operation,
                session="",
                intended_ns=started,
                started_ns=started,
                finished_ns=started + took,
                outcome=outcome,
                error=error,
                batch_size=items,
                setting=setting,
                repeat=part,
                warm_up=warm_up,
                phases=phases,
            )
        )

    async def _grown_by(self, engine: Engine, one: Operation, asked: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Return by how many bytes the process grew over some calls that nobody writes down, and how many succeeded."""
        before = process.look().rss_bytes
        answered = 0
        for given in asked:
            with contextlib.suppress(MemlabError):
                await engine.execute(one.name, given)
                answered += 1
        return process.look().rss_bytes - before, answered

    def _grew(self, one: Operation, grown: Sequence[tuple[int, int]]) -> None:
        bytes_grown, answered = zip(*grown, strict=True)
        if all(answered):
            self.growth[one.name] = stats.quotient(bytes_grown, answered)


# --- a report for the command ------------------------------------------------------------------------------------------


def report(
    *,
    sizes: Sequence[int] = SIZES,
    layer: str | None = None,
    name: str | None = None,
    calls: int = CALLS,
    seconds: float = _SECONDS,
    seed: int = _SEED,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure the operations of a layer, one operation, or all of them; cold calls are left to the notebook.

    Returns:
        host, libraries, started, seed; stores: a summary, see `operation_summary.summarise`, for each size; growth: power laws by
        operation.
    Raises:
        MemlabError: VALIDATION `unknown_operation`, `unknown_layer`.
    """
    if name is not None:
        lookup(name)
    chosen = [one for one in operations(layer) if name is None or one.name == name]
    started = clock.now().isoformat(timespec="seconds")
    stores = []
    for size in sizes:
        tell(f"{size:,} memories")
        with tempfile.TemporaryDirectory(prefix="memlab-costs-") as folder, quiet():
            costs = _Costs(Filled(Path(folder), size, seed), Settings.of(ALONE), PARTS, seconds, calls)
            run_in_own_loop(costs.measure(chosen))
        stores.append(
            summarise(
                costs.samples(),
                memories=size,
                size="quick",
                repeats=PARTS,
                rss_bytes_per_call=costs.growth,
                discovery=costs.discovery,
            )
        )
        for line in _lines(stores[-1]):
            tell(f"  {line}")
    return {
        "host": host(),
        "libraries": libraries(),
        "started": started,
        "seed": seed,
        "stores": stores,
        "growth": msgspec.to_builtins(growth_of(stores)),
    }


def _lines(store: Mapping[str, Any]) -> Iterator[str]:
    for name, one in store["operations"].items():
        figures = {figure: one["warm"][f"{figure}_ms"]["value"] for figure in ("p50", "p95", "mean")}
        shown = " · ".join(f"{figure} {value:.2f} ms" for figure, value in figures.items() if value is not None)
        failed = one["warm"]["failure_ratio"]["value"]
        yield f"{name}: {shown}{f' · {failed:.0%} failed' if failed else ''}"


def markdown(told: Mapping[str, Any]) -> str:
    """Return a report as Markdown: a table of the largest store, with growth over all of them."""
    where = told["host"]
    largest = max(told["stores"], key=lambda store: store["memories"])
    sizes = ", ".join(f"{store['memories']:,}" for store in told["stores"])
    said = (
        f"{told['started']}, {where['cpu']}, {where['cores']} cores, {where['os']}, {where['python']}.",
        "One caller, cache, batching and pool off, rows read from the database.",
        f"Inputs from the declarations, seed {told['seed']}.",
        "Floor: the same call through the same path to a storage that is not asked.",
        f"Growth: the exponent of the median over {sizes} memories.",
    )
    lines = [
        f"# Every operation at {largest['memories']:,} memories",
        "",
        " ".join(said),
        "",
        "| operation | class | p50 ms | p95 ms | p99 ms | mean ms | per item ms | × floor | errors | ceiling p95 ms | growth |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in largest["operations"].items():
        exponent = told["growth"][name]["exponent"]["value"]
        cells = [
            f"| `{name}`",
            one["cost"],
            *(_number(one["warm"][f"{figure}_ms"]["value"]) for figure in ("p50", "p95", "p99", "mean")),
            "" if one["per_item"] is None else _number(one["per_item"]["mean_ms"]),
            _number(one["over_floor"]["value"]),
            f"{one['warm']['failure_ratio']['value']:.0%}",
            f"{one['target_p95_ms']:g}",
            f"{'' if exponent is None else f'{exponent:.2f}'} |",
        ]
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "too few" if value is None else f"{value:.3g}"
