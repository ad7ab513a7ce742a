"""One load: a database is filled, a mix of operations is sent to it, and what was acknowledged is looked for afterwards."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import gc
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import polars as pl
import yaml

from memlab.embedders import embedder_of
from memlab.engine import Engine
from memlab.errors import MemlabError, validation
from memlab.experiment import results
from memlab.experiment.comparison import corpus_of, load
from memlab.experiment.load import Driven, DriverCost, Lane, Sent, Sink, drive, driver_cost, run_in_own_loop
from memlab.experiment.load_summary import summarise
from memlab.experiment.oracle import Checked, Oracle
from memlab.experiment.quiet import quiet
from memlab.experiment.results import Run
from memlab.measure import clock, host
from memlab.measure.in_flight import InFlight, in_flight
from memlab.measure.recorder import Recorder, write_samples
from memlab.operations.registry import Operation, lookup, operations
from memlab.settings import Settings
from memlab.storage.records import LAYER_OF
from memlab.workload import spec
from memlab.workload.arrivals import Offsets
from memlab.workload.corpus import Corpus
from memlab.workload.mix import Call, Loaded, Mix, examples_of
from memlab.workload.recording import TraceRecorder
from memlab.workload.spec import Workload

EXPERIMENT = "load"
PARTS = 5  # of the measured time; they stand for repeats
_CALLS = 50_000  # made in advance; a longer load sends them again
_TOGETHER = 256  # calls of the filling that may share a transaction
_FILLED_SHARE = 4  # one memory of another layer for so many events
_TICK_S = 1.0


class Progress(Protocol):
    """Told how far a load is."""

    def begin(self, what: str, total_s: float | None) -> None: ...
    def update(self, spent_s: float, answered: int, failed: int) -> None: ...
    def end(self) -> None: ...


class Silent(Progress):
    """Says nothing."""

    def begin(self, what: str, total_s: float | None) -> None:
        """Do nothing."""

    def update(self, spent_s: float, answered: int, failed: int) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a load brought.

    Attributes:
        samples: in the columns of samples.parquet; `repeat` counts the parts of the measured time.
        summary: see `load_summary.summarise`; with what was checked afterwards.
        run: as kept; None where nothing is.
    """

    samples: pl.DataFrame
    summary: dict[str, Any]
    run: Run | None = None


def read_workload(path: Path, changes: Mapping[str, Any]) -> Workload:
    """Return the workload of a YAML file, its arrivals and times replaced by *changes*; paths in it count from its folder.

    Raises:
        MemlabError: VALIDATION `workload`, `unknown_operation`, `unknown_parameter`: what does not fit.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise validation("workload", f"no workload file '{path}'; params/mixes holds some") from None
    except OSError as error:
        raise validation("workload", f"workload file '{path}' cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise validation("workload", f"workload file '{path}' is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(values, Mapping):
        raise validation("workload", f"workload file '{path}': give a table with a mix")
    nested = spec.nest(values)
    popularity = nested.get("popularity")
    if isinstance(popularity, Mapping) and isinstance(popularity.get("trace"), str):
        nested["popularity"] = {**popularity, "trace": str(path.parent / popularity["trace"])}
    for name, value in changes.items():
        inner = nested.get(name)
        merges = name != "arrivals" and isinstance(value, Mapping) and isinstance(inner, Mapping)
        nested[name] = {**inner, **value} if merges else value  # type: ignore[dict-item]
    made = spec.workload(nested)
    if "session.delete" in made.mix:
        raise validation("workload", "workload.mix: session.delete would take away what the other calls are about; leave it out")
    return made


def resized(memories: int | None) -> dict[str, Any]:
    """Return what a workload's corpus must be for so many events: few events answer few questions."""
    if memories is None:
        return {}
    small = {"questions": max(memories // 8, 1), "sessions": min(8, memories)} if memories < 4_000 else {}
    return {"corpus": {"events": memories, **small}}


def run(
    traffic: Workload,
    settings: Settings,
    *,
    seed: int = 1,
    database: Path | None = None,
    keep_in: Path | None = None,
    mix_name: str = "",
    progress: Progress | None = None,
    recorder: TraceRecorder | None = None,
) -> Measured:
    """Fill a fresh database, send the traffic, and check what was acknowledged.

    A first Ctrl-C ends the sending; what was measured until then is summed up and marked as cut short.

    Args:
        traffic: its arrivals decide between open and closed loop.
        settings: of the engine.
        database: a file that does not exist yet; default: a temporary one.
        keep_in: folder of results; None keeps nothing.
        mix_name: of the workload, for the summary.
        recorder: told of the traffic, not of the filling; whoever made it closes it.
    Raises:
        MemlabError: VALIDATION `database`: the file exists already; whatever opening or filling it raises.
    """
    return measured(LoadRun(traffic, settings, seed, progress, recorder), database, keep_in, mix_name)


def measured(sending: LoadRun, database: Path | None = None, keep_in: Path | None = None, mix_name: str = "") -> Measured:
    """Do all of a load, and keep it where a folder of results is given; arguments and errors as for `run`."""
    if keep_in is not None:
        with results.writing(keep_in):
            keep_in.mkdir(parents=True, exist_ok=True)
    started = clock.now()
    summary = sending.whole(database, mix_name)
    kept = _keep(sending.samples, summary, started.isoformat(), keep_in) if keep_in is not None else None
    if kept is not None:
        summary["run"] = kept.id
    return Measured(samples=sending.samples, summary=summary, run=kept)


def _keep(samples: pl.DataFrame, summary: dict[str, Any], started: str, folder: Path) -> Run:
    parameters = {
        name: summary["workload"]["arrivals"][name]
        for name in ("kind", "rate_per_s", "clients")
        if summary["workload"]["arrivals"][name] is not None
    }
    facts = {"started": started, "settings": summary["settings"], "workload": summary["workload"], "seed": summary["seed"]}
    made = Run(
        experiment=EXPERIMENT,
        key=results.key_of(facts),
        question="What does this load meet?",
        parameters=parameters,
        settings={"candidate": summary["settings"]},
        seed=summary["seed"],
        repeats=PARTS,
        size="quick",
        workload=summary["workload"],
        code_version=results.code_version(EXPERIMENT),
        libraries=summary["libraries"],
        host=summary["host"],
        started=started,
        finished=clock.now().isoformat(),
        status="done",
        summary={name: value for name, value in summary.items() if name not in ("settings", "workload", "host", "libraries")},
    )
    with results.draft(folder, made.experiment, made.key) as place:
        write_samples(samples, place / "samples.parquet")
        return results.keep(place, made, folder)


class FilledRun(abc.ABC):
    """Fills a database, measures something on it, and looks for what was acknowledged meanwhile.

    Args:
        traffic: of whose mix and corpus it is.
        recorder: told of what is measured.
    """

    def __init__(
        self,
        traffic: Workload,
        settings: Settings,
        seed: int,
        progress: Progress | None = None,
        recorder: TraceRecorder | None = None,
    ) -> None:
        self.traffic = traffic
        self.recorder = recorder
        self.settings = settings
        self.seed = seed
        self.progress = progress or Silent()
        self.corpus = corpus_of(traffic, seed)
        self.stopping = asyncio.Event()
        self._path = Path()

    @abc.abstractmethod
    async def measure(self, engine: Engine, mix: Mix, oracle: Oracle, counter: InFlight) -> dict[str, Any]:
        """Return what is found, `summary` among it; tell the oracle of every write."""

    def whole(self, database: Path | None, mix_name: str) -> dict[str, Any]:
        """Do all of it and return what was found, with what was checked, and of what.

        Raises:
            MemlabError: VALIDATION `database`: the file exists already; whatever opening or filling it raises.
        """
        if database is not None and database.exists():
            raise validation("database", f"database '{database}' exists already; a load fills a fresh one: give another name")
        with tempfile.TemporaryDirectory(prefix="memlab-load-", ignore_cleanup_errors=True) as folder, quiet():
            self._path = database or Path(folder) / "load.duckdb"
            try:
                found = run_in_own_loop(self._run(), self.stopping.set)
            finally:
                self.progress.end()
        return found | {
            "mix": mix_name,
            "corpus": self.corpus.describe(),
            "settings": self.settings.to_dict(),
            "workload": self.traffic.to_dict(),
            "seed": self.seed,
            "host": host.host(),
            "libraries": host.libraries(),
        }

    async def _run(self) -> dict[str, Any]:
        with in_flight() as counter:
            self.progress.begin("filling", None)
            if self.recorder is not None:
                self.recorder.pause()
            engine = self._open(self.settings, self.recorder)
            try:
                loaded, oracle = await self._fill(engine)
                mix = Mix(self.corpus, loaded, self.traffic, self.seed)
                self._raise_if_stopped()
                found = await self.measure(engine, mix, oracle, counter)
            finally:
                await engine.aclose()
        checked, failed = await self._check(oracle)
        found["summary"]["checks_hold"] = checked.holds if checked is not None else None
        return found | {"checks": checked.to_dict() if checked is not None else {"holds": None, "failed": failed}}

    def _raise_if_stopped(self) -> None:
        if self.stopping.is_set():
            raise KeyboardInterrupt("interrupted before anything was measured")

    def _open(self, settings: Settings, recorder: TraceRecorder | None = None) -> Engine:
        return Engine.open(self._path, settings, embedder_of(self.corpus.embedder), recorder=recorder)

    async def _fill(self, engine: Engine) -> tuple[Loaded, Oracle]:
        """Store the corpus, whatever else the mix asks for, and the canaries."""
        loaded = await load(engine, self.corpus)
        loaded = await fill_layers(engine, self.corpus, loaded, self.traffic.mix, self.seed)
        oracle = Oracle(loaded.sessions, self.seed)
        contents = self.corpus.events.select("session", "content").with_columns(id=pl.Series(loaded.ids))
        for (label,), part in contents.group_by("session", maintain_order=True):
            oracle.loaded(loaded.sessions[str(label)], part["id"].to_list(), part["content"].to_list())
        await oracle.plant(engine.execute)
        return loaded, oracle

    async def _check(self, oracle: Oracle) -> tuple[Checked | None, str]:
        """Open the database again, as a service that was restarted would, and look for everything."""
        self.progress.begin("checking", None)
        try:
            engine = self._open(Settings.off())
        except MemlabError as error:
            return None, error.text
        try:
            return await oracle.check(engine.execute), ""
        except MemlabError as error:
            return None, error.text
        finally:
            await engine.aclose()


class LoadRun(FilledRun):
    """Sends the traffic once."""

    def __init__(
        self,
        traffic: Workload,
        settings: Settings,
        seed: int,
        progress: Progress | None = None,
        recorder: TraceRecorder | None = None,
    ) -> None:
        super().__init__(traffic, settings, seed, progress, recorder)
        self.samples = pl.DataFrame()
        self._due_s = self.due()
        self._recorder = Recorder()
        self._failed = 0

    def due(self) -> Offsets | None:
        """Return when each call is due, from the beginning of the warm-up; None for a closed loop."""
        return self.traffic.due(self.seed)

    async def measure(self, engine: Engine, mix: Mix, oracle: Oracle, counter: InFlight) -> dict[str, Any]:
        """Send the traffic and return its figures."""
        due_s = self._due_s
        calls = self.calls(mix)
        cost = await _driver_cost(calls[0], counter)
        engine.clear_cache()
        lane = Lane(
            calls,
            due_s,
            clients=self.traffic.arrivals.clients or 1,
            warm_up_s=self.traffic.warm_up_s,
            duration_s=self.traffic.duration_s,
            deadline_s=self.traffic.deadline_s,
            ramp_s=self.traffic.warm_up_s / 2,
        )

        def take(one: Sent) -> None:
            self._recorder.add(one.sample)
            self._failed += one.sample.outcome != "ok"
            oracle.note(calls[one.position], one.sample.outcome, one.value)

        if self.recorder is not None:
            self.recorder.resume()
        with collected():
            driven, mean = await self._drive(engine, lane, counter, take)
        if self.recorder is not None:
            self.recorder.pause()
        self.samples = _in_parts(self._recorder.to_polars(), driven, self.traffic.deadline_s)
        return summarise(
            self.samples,
            start_ns=0,
            end_ns=driven.end_ns - driven.start_ns,
            parts=PARTS,
            driver=cost,
            in_flight=None if math.isnan(mean) else mean,
            cut_short=driven.cut_short,
            cached=self.settings.cache is not None,
            batched=self.settings.batch is not None,
            open_loop=due_s is not None,
        ) | {"statistics": engine.statistics()}

    def calls(self, mix: Mix) -> Sequence[Call]:
        """Return what is sent, in order; at its end it begins again."""
        return mix.calls(min(len(self._due_s), _CALLS) if self._due_s is not None else _CALLS, self.seed)

    async def _drive(self, engine: Engine, lane: Lane, counter: InFlight, take: Sink) -> tuple[Driven, float]:
        total_s = self.traffic.warm_up_s + self.traffic.duration_s
        began = clock.monotonic_ns()
        self.progress.begin("sending", total_s)

        async def tell() -> None:
            while True:
                await asyncio.sleep(_TICK_S)
                spent_s = (clock.monotonic_ns() - began) / 1e9
                self.progress.update(min(spent_s, total_s), len(self._recorder), self._failed)

        telling = asyncio.ensure_future(tell())
        try:
            driven = await drive(engine.execute, lane, counter, sink=take, stop=self.stopping)
        finally:
            telling.cancel()
        return driven, counter.mean()


async def _driver_cost(call: Call, counter: InFlight) -> DriverCost:
    """Return the median of three."""
    costs = []
    for _ in range(3):
        costs.append(await driver_cost(call, counter, calls=5_000))
        counter.mean()
    return sorted(costs, key=lambda cost: cost.call_us)[1]


async def fill_layers(engine: Engine, corpus: Corpus, loaded: Loaded, mix: Mapping[str, float], seed: int) -> Loaded:
    """Store memories in the layers, beside episodic, that a mix speaks of, so that its calls find what they name.

    Whatever a layer declares that makes one new memory, a write without an id whose answer has one, is called by its own example,
    in the order of declaration: later ones may name what the earlier ones made.
    """
    layers = {lookup(name).layer for name, weight in mix.items() if weight > 0}
    makers = [one for one in operations() if one.layer in layers - {"episodic"} and _makes_one(one)]
    further: dict[str, dict[str, list[str]]] = {label: {} for label in loaded.sessions}
    sizes = dict(corpus.events["session"].value_counts().iter_rows())
    for place, maker in enumerate(makers):
        for number, (label, session) in enumerate(loaded.sessions.items()):
            known = examples_of(corpus, Loaded(loaded.sessions, loaded.ids, further), label)
            chance = random.Random(f"{seed} {place} {number}")
            share = sum(one.layer == maker.layer for one in makers)
            count = max(sizes[label] // (_FILLED_SHARE * share), 4)
            for start in range(0, count, _TOGETHER):
                asked = [
                    engine.execute(maker.name, maker.example(chance, known), session=session)
                    for _ in range(min(_TOGETHER, count - start))
                ]
                for answer in await asyncio.gather(*asked, return_exceptions=True):
                    if isinstance(answer, BaseException):
                        if not isinstance(answer, MemlabError):
                            raise answer
                        continue  # an example may name what its layer does not have yet
                    layer = LAYER_OF.get(type(answer.value), maker.layer)
                    further[label].setdefault(layer, []).append(answer.value.id)
    return Loaded(loaded.sessions, loaded.ids, further)


def _makes_one(declared: Operation) -> bool:
    answers = getattr(declared.result_type, "__struct_fields__", ())
    return not declared.reads and "id" in answers and "id" not in declared.parameters_type.__struct_fields__


def _in_parts(samples: pl.DataFrame, driven: Driven, deadline_s: float) -> pl.DataFrame:
    """Return samples with times from the measured time on, late answers as failures, and the part that each was due in."""
    length = max(driven.end_ns - driven.start_ns, 1)
    late = (pl.col("outcome") == "ok") & (pl.col("finished_ns") - pl.col("intended_ns") > round(deadline_s * 1e9))
    part = ((pl.col("intended_ns") - driven.start_ns) * PARTS // length).clip(0, PARTS - 1)
    return samples.with_columns(
        repeat=part,
        outcome=pl.when(late).then(pl.lit("timeout")).otherwise("outcome"),
        error=pl.when(late).then(pl.lit("late")).otherwise("error"),
        **{name: pl.col(name) - driven.start_ns for name in ("intended_ns", "started_ns", "finished_ns")},
    )


@contextlib.contextmanager
def collected() -> Iterator[None]:
    """Keep what is set up out of the collector's way: it need not look through it in the middle of a load."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
