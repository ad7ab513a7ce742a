"""Two settings side by side in one run: two copies of one database, the same traffic, interleaved in random order."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, cast, get_args

import msgspec
import numpy as np
import polars as pl

from memlab.embedders import embedder_of
from memlab.engine import Engine
from memlab.errors import validation
from memlab.experiment import results
from memlab.experiment.exact import can_be_judged, recall_of
from memlab.experiment.load import Driven, DriverCost, Execute, Lane, drive, driver_cost, run_in_own_loop
from memlab.experiment.quiet import quiet
from memlab.experiment.summary import SETTINGS, Window, summarise
from memlab.measure import clock
from memlab.measure.in_flight import InFlight, in_flight
from memlab.measure.recorder import Recorder, write_samples
from memlab.operations.registry import lookup
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.corpus import Corpus, generate
from memlab.workload.locomo import load_locomo
from memlab.workload.mix import Call, Loaded, Mix, event_parameters
from memlab.workload.spec import BesideSpec, Workload

Size: TypeAlias = Literal["quick", "smoke"]
Progress: TypeAlias = Callable[[int, int], None]
_CHUNK = 2_000  # events loaded in one transaction
_CLOSED_CALLS = 5_000  # prepared for a closed loop, which then begins again
_DATABASE = "memory.duckdb"
_LOADED = "loaded.json"
_EXACT = Settings.of({"cache": None, "pool": None, "index.kind": "flat"})


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """What one comparison brought.

    Attributes:
        samples: every call of the open loop, or of the closed one where there is no other; the columns of samples.parquet.
        summary: figures with intervals, computed from the samples; see `summary.summarise`.
        closed: every call of the closed loop beside the open one; None without.
    """

    samples: pl.DataFrame
    summary: dict[str, Any]
    closed: pl.DataFrame | None = None

    def write(self, folder: Path) -> None:
        """Write samples.parquet, closed.parquet where there is one, and summary.json."""
        write_samples(self.samples, folder / "samples.parquet")
        if self.closed is not None:
            write_samples(self.closed, folder / "closed.parquet")
        results.write_point(folder, self.summary)

    def kept_in(self, folder: str | Path | None) -> Self:
        """Write it where a folder is given, and return it."""
        if folder is not None:
            self.write(Path(folder))
        return self


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    data: str | Path | None = None,
    out: str | Path | None = None,
) -> Measurement:
    """Measure one point of a sweep; what a point's notebook calls.

    Args:
        point: `reference` and `candidate`, settings over the defaults; `values`, the point's place in the grid; and `prepared`, a
            folder in which the points of a sweep share the database that they begin with.
        workload: as a params file has it.
        seed: of corpus, traffic and order.
        repeats: of each setting.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        data: folder of real conversations in place of the generated corpus.
        out: existing folder for samples.parquet and summary.json; the databases stand there while it lasts. None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit, before anything is measured.
    """
    reference, candidate = (Settings.of(point.get(setting) or {}) for setting in SETTINGS)
    if size not in get_args(Size):
        raise validation("params", f"size = {size!r}; give {' or '.join(get_args(Size))}")
    if repeats < 1:
        raise validation("params", f"repeats = {repeats}; give 1 or more")
    traffic = spec.workload(workload)
    measured = compare(
        corpus_of(traffic, seed, data),
        traffic,
        reference,
        candidate,
        seed=seed,
        repeats=repeats,
        size=cast(Size, size),
        values=dict(point.get("values") or {}),
        folder=None if out is None else Path(out),
        prepared=Path(point["prepared"]) if point.get("prepared") else None,
    )
    return measured.kept_in(out)


def corpus_of(traffic: Workload, seed: int, data: str | Path | None = None) -> Corpus:
    """Return what is in memory when a measurement begins: real conversations where a folder is given."""
    if data is not None:
        return load_locomo(data, upcoming_share=0.1 if traffic.writes else 0.0)
    sizes = traffic.corpus
    return generate(sizes.events, sizes.sessions, sizes.questions, seed=seed)


def compare(
    corpus: Corpus,
    traffic: Workload,
    reference: Settings,
    candidate: Settings,
    *,
    seed: int = 1,
    repeats: int = 5,
    size: Size = "smoke",
    values: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    prepared: Path | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure two settings on copies of one database.

    Both are open for the whole time and their repeats alternate in random order, so that whatever slows the host meets both;
    caches stay warm between repeats as they would in a service. Before the first repeat each setting runs one that is all
    warm-up.

    Args:
        folder: existing folder in which the databases are made, on the disk that is to be measured; default: a temporary one.
        prepared: existing folder for the filled database, which later comparisons of the same code on the same corpus then find.
        progress: told of repeats done and their number.
    """
    with tempfile.TemporaryDirectory(prefix="databases-", dir=folder, ignore_cleanup_errors=True) as name:
        settings = {"reference": reference, "candidate": candidate}
        comparison = _Comparison(corpus, traffic, settings, seed, repeats, Path(name), prepared, progress)
        with quiet():
            return run_in_own_loop(comparison.run(size, values or {}))


async def load(engine: Engine, corpus: Corpus) -> Loaded:
    """Store a corpus: a session for each of its own, events in bulk."""
    sessions = {label: str((await engine.execute("session.create")).value) for label in corpus.sessions}
    ids: list[str] = []
    row = 0
    for (label,), part in corpus.events.group_by("session", maintain_order=True):
        for start in range(0, len(part), _CHUNK):
            events = [
                event_parameters(event, None if corpus.vectors is None else corpus.vectors[row + place])
                for place, event in enumerate(part[start : start + _CHUNK].iter_rows(named=True))
            ]
            stored = await engine.execute("episodic.bulk_remember", {"events": events}, session=sessions[str(label)])
            ids.extend(stored.value.ids)
            row += len(events)
    return Loaded(sessions, ids)


async def filled(corpus: Corpus, folder: Path) -> Path:
    """Return where in *folder* the database lies that holds a corpus, closed; it is filled where it is missing."""
    place = folder / corpus.digest()[:16]
    if place.is_dir():
        return place
    with tempfile.TemporaryDirectory(prefix="databases-filling-", dir=folder, ignore_cleanup_errors=True) as name:
        making = Path(name) / "made"
        making.mkdir()
        with Engine.open(making / _DATABASE, Settings.off(), embedder_of(corpus.embedder)) as engine:
            loaded = await load(engine, corpus)
        (making / _LOADED).write_bytes(msgspec.json.encode(loaded))
        with contextlib.suppress(OSError):  # another was faster; equal corpora make equal databases
            making.rename(place)
    return place


class _Comparison:
    def __init__(
        self,
        corpus: Corpus,
        traffic: Workload,
        settings: Mapping[str, Settings],
        seed: int,
        repeats: int,
        folder: Path,
        prepared: Path | None,
        progress: Progress | None,
    ) -> None:
        self.corpus = corpus
        self.traffic = traffic
        self.settings = settings
        self.seed = seed
        self.repeats = repeats
        self.folder = folder
        self.prepared = prepared
        self.progress = progress
        self.origin_ns = clock.monotonic_ns()
        self.samples, self.closed = Recorder(), Recorder()
        self.windows: list[Window] = []
        self.closed_windows: list[Window] = []
        self.asked: list[Call] = []

    async def run(self, size: Size, values: Mapping[str, Any]) -> Measurement:
        loaded = await self._prepare()
        with contextlib.ExitStack() as opened:
            counter = opened.enter_context(in_flight())
            engines = {name: opened.enter_context(self._open(name, settings)) for name, settings in self.settings.items()}
            exact = {name: opened.enter_context(self._open(f"exact-{name}", _EXACT)) for name in self._exact_copies}
            mixes = {name: Mix(self.corpus, loaded, self.traffic, self.seed) for name in self.settings}
            cost = await self._driver_cost(mixes["reference"], counter)
            order = random.Random(self.seed)
            # What is set up stays: the collector need not look through it in the middle of a lane.
            gc.collect()
            gc.freeze()
            opened.callback(gc.unfreeze)
            for repeat in range(-1, self.repeats):
                for name in order.sample(SETTINGS, k=len(SETTINGS)):
                    check = exact[name].execute if name in exact else None
                    await self._repeat(name, repeat, engines[name].execute, check, mixes[name], counter)
                if self.progress is not None:
                    self.progress(repeat + 1, self.repeats)
            statistics = {name: engine.statistics() for name, engine in engines.items()}
        samples, closed = self.samples.to_polars(), self.closed.to_polars() if self.traffic.beside else None
        summary = summarise(
            samples,
            self.windows,
            cost,
            settings={name: settings.to_dict() for name, settings in self.settings.items()},
            size=size,
            values=values,
            corpus=self.corpus.describe(),
            embedder=self.corpus.embedder,
            asked=self._asked(),
            statistics=statistics,
            closed=closed,
            closed_windows=self.closed_windows,
            clients=self.traffic.beside.clients if self.traffic.beside else None,
        )
        return Measurement(samples, summary, closed)

    async def _repeat(self, name: str, repeat: int, execute: Execute, exact: Execute | None, mix: Mix, counter: InFlight) -> None:
        """Send one setting one repeat; repeat -1 is all warm-up."""
        lane = self._lane(mix, repeat)
        driven = await drive(execute, lane, counter, setting=name, repeat=max(repeat, 0))
        window = self._window(name, repeat, driven, counter.mean())
        recalls = {} if exact is None else await recall_of(exact, lane.calls, driven.sent)
        self._keep(self.samples, driven, recalls, warm_up=repeat < 0)
        if repeat < 0:
            return
        self.windows.append(window)
        if name == "reference":
            self.asked.extend(lane.calls[one.position] for one in driven.sent if not one.sample.warm_up)
        if self.traffic.beside is None:
            return
        lane = self._closed_lane(mix, self.traffic.beside, repeat)
        driven = await drive(execute, lane, counter, setting=name, repeat=repeat)
        self.closed_windows.append(self._window(name, repeat, driven, counter.mean()))
        self._keep(self.closed, driven, {}, warm_up=False)
        if exact is not None:
            await recall_of(exact, lane.calls, driven.sent)  # its writes count for the next repeat's searches

    @property
    def _exact_copies(self) -> tuple[str, ...]:
        return SETTINGS if self.traffic.recall_samples else ()

    def _asked(self) -> dict[str, int]:
        reads = sum(lookup(call.operation).reads for call in self.asked)
        return {
            "calls": len(self.asked),
            "distinct_questions": len({call.question for call in self.asked if call.question >= 0}),
            "reads": reads,
            "writes": len(self.asked) - reads,
        }

    async def _prepare(self) -> Loaded:
        """Copy the files of a filled database, which is closed: an open one must never be copied."""
        source = await filled(self.corpus, self.folder if self.prepared is None else self.prepared)
        for name in [*self.settings, *(f"exact-{name}" for name in self._exact_copies)]:
            shutil.copytree(source, self.folder / name, ignore=shutil.ignore_patterns(_LOADED))
        return msgspec.json.decode((source / _LOADED).read_bytes(), type=Loaded)

    def _open(self, name: str, settings: Settings) -> Engine:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Engine.open(folder / _DATABASE, settings, embedder_of(self.corpus.embedder))

    async def _driver_cost(self, mix: Mix, counter: InFlight) -> DriverCost:
        costs = []
        (call,) = mix.calls(1, self.seed)
        for _ in range(3):
            costs.append(await driver_cost(call, counter, calls=1_000))
            counter.mean()
        mix.rewind()
        return sorted(costs, key=lambda cost: cost.call_us)[1]

    def _lane(self, mix: Mix, repeat: int) -> Lane:
        traffic = self.traffic
        seed = lane_seed(self.seed, repeat)
        due_s = traffic.due(seed)
        if due_s is None:
            calls = mix.calls(_CLOSED_CALLS, seed)
            measured = range(len(calls))
        else:
            calls = mix.calls(len(due_s), seed)
            measured = range(int(np.searchsorted(due_s, traffic.warm_up_s)), len(calls))
        judged: list[int] = []
        if repeat >= 0:
            candidates = [place for place in measured if can_be_judged(lookup(calls[place].operation))]
            judged = random.Random(seed).sample(candidates, k=min(traffic.recall_samples, len(candidates)))
        return Lane(
            calls,
            due_s,
            clients=traffic.arrivals.clients or 1,
            warm_up_s=traffic.warm_up_s,
            duration_s=traffic.duration_s,
            deadline_s=traffic.deadline_s,
            judged=frozenset(judged),
        )

    def _closed_lane(self, mix: Mix, beside: BesideSpec, repeat: int) -> Lane:
        return Lane(
            mix.calls(_CLOSED_CALLS, lane_seed(self.seed, repeat) + 1),
            None,
            clients=beside.clients,
            warm_up_s=beside.warm_up_s,
            duration_s=beside.duration_s,
            deadline_s=self.traffic.deadline_s,
        )

    def _keep(self, recorder: Recorder, driven: Driven, recalls: Mapping[int, float], *, warm_up: bool) -> None:
        """Record a lane, its times counted from the beginning of the measurement."""
        for one in driven.sent:
            sample = one.sample
            recorder.add(
                msgspec.structs.replace(
                    sample,
                    intended_ns=sample.intended_ns - self.origin_ns,
                    started_ns=sample.started_ns - self.origin_ns,
                    finished_ns=sample.finished_ns - self.origin_ns,
                    warm_up=warm_up or sample.warm_up,
                    recall_at_10=recalls.get(one.position),
                )
            )

    def _window(self, name: str, repeat: int, driven: Driven, in_flight_mean: float) -> Window:
        mean = None if math.isnan(in_flight_mean) else in_flight_mean
        return Window(name, repeat, driven.start_ns - self.origin_ns, driven.end_ns - self.origin_ns, mean)


def lane_seed(seed: int, repeat: int) -> int:
    """Return a seed for one repeat, far from that of any other."""
    return int(np.random.SeedSequence([seed, repeat + 1]).generate_state(1)[0])
