"""The speed table: what the engine reaches on 100,000 memories, beside the bare libraries in the same run.

Engine and floor take turns, call by call or block by block, so that a machine that slows down slows both; a ratio's interval is
over blocks. It is a report: nothing here passes or fails a build.
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pyarrow as pa

from memlab.embedders import PrecomputedEmbedder
from memlab.engine import Engine
from memlab.experiment import results
from memlab.experiment.results import Run
from memlab.measure import clock, stats
from memlab.measure.floors import BareLoad, BareStore
from memlab.measure.host import host, libraries
from memlab.middleware.chain import Handler
from memlab.middleware.observe import observe
from memlab.operations.registry import lookup
from memlab.settings import IndexSettings, Settings
from memlab.storage import records
from memlab.storage.database import Transaction
from memlab.storage.vectors import VectorIndex
from memlab.values import Event, Request, Response
from memlab.workload.corpus import generate
from memlab.workload.latent import latent_vectors

DIMENSION = 384
BLOCKS = 10
BULK = 5_000
EXPERIMENT = "bench"
_LEAST_MEMORIES = 10_000  # below it the table only proves that it runs: its reaches are meant for 100,000
ALONE: Mapping[str, Any] = {"cache": None, "batch": None, "pool": None}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    Attributes:
        what: the work.
        measured: the engine's figure, in *unit*.
        floor: the bare libraries' figure, in the same unit; None where there is none.
        ratio: measured over floor with its 95 % interval.
        reach: what was asked for; *met*: whether it was.
        note: recall@10 and whatever else belongs to the figure.
    """

    what: str
    measured: float
    unit: str
    floor: float | None = None
    ratio: stats.Interval | None = None
    reach: str
    met: bool
    note: str = ""


class Bench:
    """Measures the table in one folder.

    Args:
        folder: an empty folder; databases are made in it.
        memories: how many; the reaches are meant for 100,000.
        calls: timed calls of a median.
        seconds: length of one block under load.
        tell: called with a line for each part.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memories: int = 100_000,
        calls: int = 400,
        seconds: float = 2.0,
        seed: int = 0,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder = folder
        self.memories = memories
        self.calls = calls
        self.seconds = seconds
        self.seed = seed
        self.tell = tell
        self.rows: list[Row] = []

    def run(self) -> list[Row]:
        """Measure everything; some minutes at 100,000 memories on two cores."""
        self.tell(f"making {self.memories:,} memories of {DIMENSION} dimensions")
        corpus = generate(events=self.memories, sessions=1, questions=min(2_000, self.memories // 2), seed=self.seed)
        self.contents: list[str] = corpus.events["content"].to_list()
        self.moments: list[datetime] = corpus.events["occurred_at"].to_list()
        self.questions: list[str] = corpus.questions["text"].to_list()
        self.vectors, self.queries = latent_vectors(self.memories, len(self.questions), DIMENSION, self.seed)
        self.events = [
            {"content": content, "embedding": vector, "tags": tags, "occurred_at": moment}
            for content, vector, tags, moment in zip(
                self.contents, self.vectors, corpus.events["tags"].to_list(), self.moments, strict=True
            )
        ]
        path = self.folder / "speed.duckdb"
        self._bulk_load(path)
        self._opening(path)
        bare_folder = self.folder / "bare"
        bare_folder.mkdir()
        bare = BareStore(path, bare_folder)
        try:
            with self._open(path) as engine:
                bare.use(path.with_name(path.name + ".index"), int(engine.storage.vectors.effort.get("nprobe", 0)))
                asyncio.run(self._one_caller(engine, bare))
                asyncio.run(self._narrow(engine, bare))
                asyncio.run(self._repeated(engine))
                asyncio.run(self._remember(engine, bare))
            for clients in (64, 256):
                self._mixed(path, bare, clients)
        finally:
            bare.close()
        self._resident()
        return self.rows

    def _open(self, path: Path, **settings: Any) -> Engine:
        return Engine.open(path, Settings.of({**ALONE, **settings}), PrecomputedEmbedder(DIMENSION))

    def _row(self, **fields: Any) -> None:
        row = Row(**fields | {"met": bool(fields["met"])})  # NumPy's is not JSON's
        self.rows.append(row)
        ratio = f" = {row.ratio.value:.2f} × floor" if row.ratio is not None and row.ratio.value is not None else ""
        self.tell(f"  {row.what}: {row.measured:,.4g} {row.unit}{ratio} {row.note}")

    # --- loading and opening ----------------------------------------------------------------------------------------

    def _bulk_load(self, path: Path) -> None:
        """Load everything through the engine, while the bare libraries load the same rows, call by call."""
        bare = self._bare_load("bare-load")
        parts = [self._part(start) for start in range(0, self.memories, BULK)]
        times: tuple[list[float], list[float]] = ([], [])

        async def load(engine: Engine) -> None:
            for place, part in enumerate(parts):
                started = clock.monotonic_ns()
                await engine.execute("episodic.bulk_remember", {"events": self.events[place * BULK : (place + 1) * BULK]})
                times[0].append(_seconds_since(started))
                started = clock.monotonic_ns()
                bare.insert(pa.table(part))
                bare.index(part["seq"], self.contents[place * BULK : (place + 1) * BULK], _part(self.vectors, place))
                times[1].append(_seconds_since(started))

        with self._open(path) as engine:
            asyncio.run(load(engine))
            bare.close()
            self._loaded("bulk load, vector and text index", times, 20_000, "bare DuckDB, FAISS and tantivy in turn")
            started = clock.monotonic_ns()
            engine.storage.rebuild()
            self.tell(f"  vector index built in {_seconds_since(started):.1f} s: {engine.storage.vectors.effort}")
        bare = self._bare_load("bare-rows")
        times = ([], [])
        with self._open(self.folder / "rows.duckdb") as engine:
            database = engine.storage.database
            for place, part in enumerate(parts):
                started = clock.monotonic_ns()
                database.transact([partial(_insert, {**part, "vector": _part(self.vectors, place)})], lambda done: None)
                times[0].append(_seconds_since(started))
                started = clock.monotonic_ns()
                bare.insert(pa.table(part))
                times[1].append(_seconds_since(started))
        bare.close()
        self._loaded("bulk load without indexes", times, 50_000, "bare inserts of Arrow tables")

    def _loaded(self, what: str, times: tuple[list[float], list[float]], least: int, floor: str) -> None:
        rates = [self.memories / sum(kept) for kept in times]
        blocks = [np.array_split(np.array(kept), BLOCKS) for kept in times]
        ratio = stats.ratio(blocks[1], blocks[0], 0.5) if len(times[0]) >= BLOCKS else stats.Interval(rates[1] / rates[0], n=1)
        self._row(
            what=what,
            measured=rates[0],
            unit="rows/s",
            floor=rates[1],
            ratio=_inverse(ratio),
            reach=f"≥ {least:,}",
            met=rates[0] >= least,
            note=f"{BULK:,} rows a call; each call durable and searchable when it returns; floor: {floor}",
        )

    def _bare_load(self, name: str) -> BareLoad:
        database, texts = self.folder / f"{name}.duckdb", self.folder / f"{name}.text"
        self._open(database).close()
        texts.mkdir()
        return BareLoad(database, texts, DIMENSION)

    def _part(self, start: int) -> dict[str, Any]:
        """Return the rows of one call as the database takes them."""
        stop = min(start + BULK, self.memories)
        seqs = list(range(start + 1, stop + 1))
        moments = [moment.astimezone(UTC).replace(tzinfo=None) for moment in self.moments[start:stop]]
        record = '{{"id":"ep_{:x}00000000","content":"{}"}}'
        return {
            "seq": seqs,
            "origin": seqs,
            "session": [0] * len(seqs),
            "layer": ["episodic"] * len(seqs),
            "kind": ["event"] * len(seqs),
            "tags": [event["tags"] for event in self.events[start:stop]],
            "confidence": [1.0] * len(seqs),
            "occurred_at": moments,
            "expires_at": pa.nulls(len(seqs), pa.timestamp("us")),
            "digest": seqs,
            "record": [record.format(seq, content) for seq, content in zip(seqs, self.contents[start:stop], strict=True)],
            "vector": [vector.tobytes() for vector in self.vectors[start:stop]],
        }

    def _opening(self, path: Path) -> None:
        seconds = []
        for _ in range(5):
            started = clock.monotonic_ns()
            engine = self._open(path)
            seconds.append(_seconds_since(started))
            engine.close()
        median = float(np.median(seconds))
        self._row(what="open with valid indexes", measured=median, unit="s", reach="≤ 0.3", met=median <= 0.3, note="n = 5")

    # --- one caller -------------------------------------------------------------------------------------------------

    async def _turns(
        self,
        engine: Callable[[int], Any],
        floor: Callable[[int], Any],
        *,
        before: Callable[[], None] = lambda: None,
        calls: int | None = None,
    ) -> tuple[float, float, stats.Interval]:
        """Return both medians in ms and their ratio; engine and floor take turns, *before* runs untimed ahead of each pair."""
        times: tuple[list[float], list[float]] = ([], [])
        for place in range(-20, self.calls if calls is None else calls):  # the first twenty warm up
            before()
            for kept, call in zip(times, (engine, floor), strict=True):
                started = clock.monotonic_ns()
                answer = call(place % len(self.queries))
                if inspect.isawaitable(answer):
                    await answer
                if place >= 0:
                    kept.append((clock.monotonic_ns() - started) / 1e6)
        blocks = [np.array_split(np.array(kept), BLOCKS) for kept in times]
        return float(np.median(times[0])), float(np.median(times[1])), stats.ratio(blocks[1], blocks[0], 0.5)

    async def _one_caller(self, engine: Engine, bare: BareStore) -> None:
        self.tell("one caller, cache off")

        async def recall(place: int) -> Any:
            return await engine.execute("episodic.recall", self._asked(place))

        async def hybrid(place: int) -> Any:
            return await engine.execute("episodic.recall", self._asked(place, mode="hybrid"))

        async def get(place: int) -> Any:
            return await engine.execute("episodic.get_event", {"id": ids[place % len(ids)]})

        declared = lookup("episodic.get_event")

        async def nothing(place: int) -> Any:
            return await dispatch(Request(declared.name, declared.validate({"id": ids[place % len(ids)]})))

        def bare_recall(place: int) -> Any:
            return bare.recall(self.queries[place], 10)

        quality = await self._quality(engine, {}, self.vectors)
        median, floor, ratio = await self._turns(recall, bare_recall, before=engine.storage.clear_rows)
        self._row(
            what="recall by vector, rows cold",
            measured=median,
            unit="ms",
            floor=floor,
            ratio=ratio,
            reach="≤ 1.2 × floor, recall@10 ≥ 0.99",
            met=_at_most(ratio, 1.2) and quality >= 0.99,
            note=f"recall@10 {quality:.3f}; floor: bare FAISS search and ten-row fetch",
        )
        few = 50
        for place in range(few):
            await recall(place)
        median, floor, ratio = await self._turns(lambda place: recall(place % few), lambda place: bare_recall(place % few))
        self._row(
            what="recall by vector, rows hot",
            measured=median,
            unit="ms",
            floor=floor,
            ratio=ratio,
            reach="≤ 0.3 ms",
            met=median <= 0.3,
            note="cache off; the rows of 50 questions are in memory",
        )
        median, floor, ratio = await self._turns(hybrid, bare_recall, before=engine.storage.clear_rows)
        self._row(
            what="hybrid recall, rows cold",
            measured=median,
            unit="ms",
            floor=floor,
            ratio=ratio,
            reach="≤ 2 ms",
            met=median <= 2.0,
        )
        listed = (await engine.execute("episodic.list_events", {"limit": 200})).value
        ids = [event.id for event in listed]
        seqs = [records.origin_of("episodic", id) for id in ids]
        median, floor, ratio = await self._turns(
            get, lambda place: bare.look_up(seqs[place % len(seqs)]), before=engine.storage.clear_rows
        )
        self._row(
            what="get by id, row cold",
            measured=median,
            unit="ms",
            floor=floor,
            ratio=ratio,
            reach="≤ 1.3 × floor",
            met=_at_most(ratio, 1.3),
        )
        for place in range(len(ids)):
            await get(place)
        dispatch = observe()(_answering(Response((await get(0)).value)))
        median, floor, ratio = await self._turns(get, nothing, calls=5 * self.calls)
        self._row(
            what="get by id, row hot",
            measured=1e3 * median,
            unit="µs",
            floor=1e3 * floor,
            ratio=ratio,
            reach="≤ 10 µs beyond dispatch",
            met=1e3 * (median - floor) <= 10,
            note=f"{1e3 * (median - floor):.1f} µs beyond the floor: parameters checked, the call observed, an answer at hand",
        )

    async def _narrow(self, engine: Engine, bare: BareStore) -> None:
        self.tell("inside a session of 1 % and a range of time of 10 %")
        few = self.memories // 100
        session = (await engine.execute("session.create")).value
        stored = (await engine.execute("episodic.bulk_remember", {"events": self.events[:few]}, session=session)).value
        # The bare copy is older than this session: it reads the rows of the same events where it has them.
        moved = records.origin_of("episodic", stored.ids[0]) - 1
        order = sorted(self.moments)
        since, until = order[int(0.45 * self.memories)], order[int(0.55 * self.memories)]
        inside = np.array([since <= moment < until for moment in self.moments])
        cases: list[tuple[str, dict[str, Any], str, np.ndarray, float, float]] = [
            (f"recall in a session of {few:,}", {}, session, self.vectors[:few], 0.4, 1.0),
            ("recall in 10 % of the time", {"since": since, "until": until}, "default", self.vectors[inside], 1.0, 0.99),
        ]
        for what, filter, whose, candidates, bound, least in cases:

            async def recall(place: int, filter: dict[str, Any] = filter, whose: str = whose) -> Any:
                return await engine.execute("episodic.recall", self._asked(place, **filter), session=whose)

            quality = await self._quality(engine, filter, candidates, session=whose)
            shift = moved if whose == session else 0
            ten = [records.origin_of("episodic", event.id) - shift for event in (await recall(0)).value]
            median, floor, ratio = await self._turns(recall, partial(_fetch, bare, ten), before=engine.storage.clear_rows)
            self._row(
                what=what,
                measured=median,
                unit="ms",
                floor=floor,
                ratio=ratio,
                reach=f"≤ {bound} ms beyond the row fetch, recall@10 ≥ {least:g}",
                met=median - floor <= bound and quality >= least - 1e-9,
                note=f"recall@10 {quality:.3f}; {median - floor:.2f} ms beyond the floor, a ten-row fetch",
            )
        await engine.execute("session.delete", session=session)

    def _asked(self, place: int, **more: Any) -> dict[str, Any]:
        return {"query": self.questions[place], "query_embedding": self.queries[place], "mode": "vector", **more}

    async def _quality(
        self, engine: Engine, filter: Mapping[str, Any], candidates: np.ndarray, session: str = "default"
    ) -> float:
        """Return recall@10 by score: an answer counts when it is as close as the true tenth, so equal vectors are equal."""
        hits = asked = 0
        for place in range(min(200, len(self.queries))):
            exact = np.sort(candidates @ self.queries[place])[-10:]
            found: Sequence[Event] = (
                await engine.execute("episodic.recall", self._asked(place, **filter), session=session)
            ).value
            hits += sum(event.score is not None and event.score >= exact[0] - 1e-5 for event in found)
            asked += len(exact)
        return hits / asked

    async def _repeated(self, alone: Engine) -> None:
        cached = Engine(alone.storage, Settings.of({**ALONE, "cache": {}}))
        few = 50
        asked = [self._asked(place, mode="hybrid") for place in range(few)]
        for parameters in asked:
            await cached.execute("episodic.recall", parameters)

        async def off(place: int) -> Any:
            return await alone.execute("episodic.recall", asked[place % few])

        async def on(place: int) -> Any:
            return await cached.execute("episodic.recall", asked[place % few])

        median, floor, ratio = await self._turns(off, on, calls=2 * self.calls)
        cached.close()
        self._row(
            what="repeated recall, cache on",
            measured=1e3 / floor,
            unit="calls/s",
            floor=1e3 / median,
            ratio=ratio,
            reach="≥ 20 × cache off",
            met=(ratio.value or 0) >= 20,
            note="hybrid, the default; floor: the same calls with the cache off and the rows hot",
        )

    # --- writing and load -------------------------------------------------------------------------------------------

    async def _remember(self, engine: Engine, bare: BareStore) -> None:
        self.tell("durable remember")

        async def remember(place: int) -> Any:
            given = {"content": self.questions[place], "embedding": self.queries[place]}
            key = f"speed-{clock.monotonic_ns()}"
            return await engine.execute("episodic.remember", given, idempotency_key=key)

        median, floor, ratio = await self._turns(remember, lambda place: bare.remember(self.queries[place]), calls=self.calls)
        self._row(
            what="durable remember, one caller",
            measured=1e3 / median,
            unit="rows/s",
            floor=1e3 / floor,
            ratio=_inverse(ratio),
            reach="≥ 0.8 × floor",
            met=(_inverse(ratio).value or 0) >= 0.8,
            note="floor: one bare transaction with key look-up and read-back",
        )
        grouped = Engine(engine.storage, Settings.of({**ALONE, "batch": {}}))
        grouped_rates, bare_rates = [], []
        for block in range(6):
            bare_rates.append(_rate(lambda: bare.insert_one(self.queries[0]), self.seconds / 4))
            grouped_rates.append(await self._writers(grouped, 256, block))
        grouped.close()
        ratio = stats.rate_ratio((bare_rates[1:], [1.0] * 5), (grouped_rates[1:], [1.0] * 5))
        self._row(
            what="durable remember, 256 callers",
            measured=float(np.median(grouped_rates[1:])),
            unit="rows/s",
            floor=float(np.median(bare_rates[1:])),
            ratio=ratio,
            reach="≥ 10 × the bare one-row rate",
            met=(ratio.value or 0) >= 10,
            note="floor: bare one-row transactions, one after the other",
        )

    async def _writers(self, engine: Engine, clients: int, block: int) -> float:
        started = clock.monotonic_ns()
        end = started + int(self.seconds * 1e9)
        done = 0

        async def client(number: int) -> None:
            nonlocal done
            while clock.monotonic_ns() < end:
                place = (done + number + 7919 * block) % len(self.questions)
                given = {"content": self.questions[place], "embedding": self.queries[place]}
                await engine.execute("episodic.remember", given)
                done += 1

        await asyncio.gather(*(client(number) for number in range(clients)))
        return done / _seconds_since(started)

    def _mixed(self, path: Path, bare: BareStore, clients: int) -> None:
        self.tell(f"90 % recall, 10 % remember from {clients} callers")
        loads: list[dict[str, Any]] = []
        floors: list[dict[str, Any]] = []
        for block in range(6):
            floors.append(
                bare.mixed_load(self.queries, clients=clients, share_of_writes=0.1, seconds=self.seconds, seed=self.seed + block)
            )
            with self._open(path, batch={}, pool={}) as engine:
                loads.append(asyncio.run(self._mixed_load(engine, clients, block)))
        loads, floors = loads[1:], floors[1:]  # the first block warms up
        rates = [load["throughput_per_s"] for load in loads]
        floor_rates = [load["throughput_per_s"] for load in floors]
        ratio = stats.rate_ratio((floor_rates, [1.0] * len(rates)), (rates, [1.0] * len(rates)))
        self._row(
            what=f"90/10 mix, {clients} callers",
            measured=float(np.median(rates)),
            unit="operations/s",
            floor=float(np.median(floor_rates)),
            ratio=ratio,
            reach="≥ 0.7 × floor",
            met=(ratio.value or 0) >= 0.7,
            note=f"median of the blocks' p95 {_median_of_p95s(loads)}, floor's {_median_of_p95s(floors)}; recall by vector; "
            "floor: a bare coalescing loop without text, sessions and read-back",
        )

    async def _mixed_load(self, engine: Engine, clients: int, block: int) -> dict[str, Any]:
        started = clock.monotonic_ns()
        end = started + int(self.seconds * 1e9)
        latencies: list[int] = []
        writes = 0

        async def client(number: int) -> None:
            nonlocal writes
            chance = np.random.default_rng([self.seed + block, number])
            while clock.monotonic_ns() < end:
                which = int(chance.integers(len(self.queries)))
                if chance.random() < 0.1:
                    given = {"content": self.questions[which], "embedding": self.queries[which]}
                    await engine.execute("episodic.remember", given)
                    writes += 1
                else:
                    before = clock.monotonic_ns()
                    await engine.execute("episodic.recall", self._asked(which))
                    latencies.append(clock.monotonic_ns() - before)

        await asyncio.gather(*(client(number) for number in range(clients)))
        return {
            "throughput_per_s": (len(latencies) + writes) / _seconds_since(started),
            "read_p95_ms": stats.percentile(np.array(latencies) / 1e6, 0.95).value,
        }

    # --- memory -----------------------------------------------------------------------------------------------------

    def _resident(self) -> None:
        self.tell("resident memory of sq8 against flat, each in a fresh process")
        source = self.folder / "vectors.npy"
        np.save(source, self.vectors)
        sizes = {kind: _resident_bytes(source, kind) for kind in ("flat", "sq8")}
        path = self.folder / "speed.duckdb"
        with self._open(path, index={"kind": "sq8"}) as engine:
            engine.storage.rebuild("to sq8")
            held = self._held_vectors(engine)
            quality = asyncio.run(self._quality(engine, {}, held))
        saved = 1 - sizes["sq8"] / sizes["flat"]
        self._row(
            what="resident memory of the index, sq8",
            measured=sizes["sq8"] / 2**20,
            unit="MiB",
            floor=sizes["flat"] / 2**20,
            ratio=stats.Interval(sizes["sq8"] / sizes["flat"], n=1),
            reach="−50 % or better, recall@10 ≥ 0.97",
            met=saved >= 0.5 and quality >= 0.97,
            note=f"−{100 * saved:.0f} %; recall@10 {quality:.3f} after re-ranking from the database; floor: flat float32",
        )

    @staticmethod
    def _held_vectors(engine: Engine) -> np.ndarray:
        rows = engine.storage.database.read("SELECT vector FROM memories WHERE session = 0")
        return np.stack([np.frombuffer(vector, np.float32) for (vector,) in rows])


def _median_of_p95s(loads: Sequence[Mapping[str, Any]]) -> str:
    """Return the median over blocks that had reads enough: the bare loop tells percentiles, and no reads that could be pooled."""
    known = [load["read_p95_ms"] for load in loads if load["read_p95_ms"] is not None]
    return f"{np.median(known):.0f} ms" if known else "of too few reads"


def report(
    *, memories: int, calls: int, seconds: float, seed: int, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure the table in a temporary folder and return it with what was asked, the host and the versions."""
    started = clock.now()
    with tempfile.TemporaryDirectory(prefix="memlab-bench-") as folder:
        rows = Bench(Path(folder), memories=memories, calls=calls, seconds=seconds, seed=seed, tell=tell).run()
    return {
        "memories": memories,
        "dimension": DIMENSION,
        "calls": calls,
        "seconds": seconds,
        "seed": seed,
        "started": started.isoformat(timespec="seconds"),
        "finished": clock.now().isoformat(timespec="seconds"),
        "host": host(),
        "libraries": libraries(),
        "rows": [msgspec.to_builtins(row) for row in rows],
    }


def key_of(*, memories: int, calls: int, seconds: float, seed: int) -> str:
    """Return the key of the run that these figures, the code and the libraries decide."""
    asked = {"memories": memories, "dimension": DIMENSION, "calls": calls, "seconds": seconds, "seed": seed}
    return results.key_of({**asked, "code": results.code_version(EXPERIMENT)})


def keep(report: Mapping[str, Any], folder: Path) -> Run:
    """Keep a report as a run, `bench/<key>`, and return it; one of the same key is replaced."""
    asked = {name: report[name] for name in ("memories", "calls", "seconds", "seed")}
    made = Run(
        experiment=EXPERIMENT,
        key=key_of(**asked),
        question="What does the engine reach, beside the bare libraries?",
        parameters={name: report[name] for name in ("memories", "dimension", "calls", "seconds")},
        settings={"candidate": Settings.of(ALONE).to_dict()},
        seed=report["seed"],
        repeats=BLOCKS,
        size="quick" if report["memories"] >= _LEAST_MEMORIES else "smoke",
        workload={},
        code_version=results.code_version(EXPERIMENT),
        libraries=report["libraries"],
        host=report["host"],
        started=report["started"],
        finished=report["finished"],
        status="done",
        summary={"memories": report["memories"], "rows": {row["what"]: row for row in report["rows"]}},
    )
    with results.draft(folder, made.experiment, made.key) as place:
        return results.keep(place, made, folder)


def markdown(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown."""
    where = report["host"]
    lines = [
        f"# Speed at {report['memories']:,} memories × {report['dimension']} dimensions",
        "",
        f"{report['started']}, {where['cpu']}, {where['cores']} cores, {where['os']}, {where['python']}. Medians of "
        f"{report['calls']} calls or of 5 blocks of {report['seconds']:g} s; engine and floor take turns; seed {report['seed']}. "
        "Vectors: a seeded latent-topic model as hard for inverted lists as real sentence vectors (`memlab/workload/latent.py`).",
        "",
        "| what | measured | floor | ratio (95 % interval) | reach | met | note |",
        "|---|---:|---:|---:|---|---|---|",
    ]
    for row in report["rows"]:
        ratio = row["ratio"] or {}
        interval = f" ({ratio['low']:.2f}–{ratio['high']:.2f})" if ratio.get("low") is not None else ""
        shown = f"{ratio['value']:.2f}{interval}" if ratio.get("value") is not None else ""
        floor = "" if row["floor"] is None else f"{row['floor']:,.4g}"
        met = "yes" if row["met"] else "**no**"
        measured = f"{row['measured']:,.4g} {row['unit']}"
        lines.append(" | ".join(("| " + row["what"], measured, floor, shown, row["reach"], met, row["note"] + " |")))
    return "\n".join(lines) + "\n"


def _fetch(bare: BareStore, seqs: Sequence[int], place: int) -> Any:
    return bare.fetch(seqs)


def _insert(columns: Mapping[str, Any], transaction: Transaction) -> None:
    transaction.insert("memories", columns)


def _resident_bytes(source: Path, kind: str) -> int:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_grown_by, (str(source), kind))


def _grown_by(source: str, kind: str) -> int:
    """Return by how many bytes an index makes a fresh process grow; the vectors it is built from are gone by then."""
    import ctypes
    import gc

    vectors = np.load(source)
    VectorIndex.build(vectors[:2_000], IndexSettings(kind="flat"))  # what the libraries take once is not the index's
    process = psutil.Process()
    del vectors
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = process.memory_info().rss
    mapped = np.load(source, mmap_mode="r")
    index = VectorIndex.build(np.array(mapped), IndexSettings(kind=kind))  # type: ignore[arg-type]
    del mapped
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    grown = int(process.memory_info().rss - before)
    return grown if index.count else 0


def _at_most(ratio: stats.Interval, bound: float) -> bool:
    return ratio.value is not None and ratio.value <= bound


def _part(vectors: np.ndarray, place: int) -> np.ndarray:
    return vectors[place * BULK : (place + 1) * BULK]


def _answering(response: Response) -> Handler:
    """Return a handler that has its answer at hand: what it costs to be called."""

    async def handle(request: Request) -> Response:
        return response

    return handle


def _inverse(ratio: stats.Interval) -> stats.Interval:
    """Turn a ratio of times into one of rates."""
    if ratio.value is None:
        return ratio
    low = None if ratio.high is None else 1 / ratio.high
    high = None if ratio.low is None else 1 / ratio.low
    return stats.Interval(1 / ratio.value, low, high, ratio.n, ratio.note)


def _rate(call: Callable[[], Any], seconds: float) -> float:
    started = clock.monotonic_ns()
    done = 0
    while clock.monotonic_ns() - started < seconds * 1e9:
        call()
        done += 1
    return done / _seconds_since(started)


def _seconds_since(started: int) -> float:
    return (clock.monotonic_ns() - started) / 1e9
