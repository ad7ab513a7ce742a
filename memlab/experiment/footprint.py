"""How much memory a store takes: two settings, the same work, every measurement in a fresh process.

What a process holds is mostly libraries; so each setting is measured a second time on a store of next to nothing, and the
difference is the store's own. Both settings answer the same questions and walk through the same events, and their answers are
held against exact search, because memory that was saved by finding less is not saved.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from memlab.embedders import embedder_of
from memlab.engine import Engine
from memlab.errors import internal, validation
from memlab.experiment import results
from memlab.experiment.comparison import corpus_of, load
from memlab.experiment.exact import K, recall_by_score
from memlab.experiment.footprint_process import Answer, Job
from memlab.experiment.load import run_in_own_loop
from memlab.experiment.quiet import quiet
from memlab.experiment.summary import SETTINGS
from memlab.measure import stats
from memlab.measure.stats import Interval
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.corpus import Corpus, generate
from memlab.workload.mix import Loaded
from memlab.workload.spec import Workload

ASKED_SHARE = (0.3, 0.5)
"""The reduction that was asked for."""

_DATABASE = "memory.duckdb"
_FETCHED = 20_000  # memories looked at one by one, at most
_SMALL = 8  # events of the store of next to nothing
_TIMEOUT_S = 900.0
_EXACT = Settings.of({"cache": None, "pool": None, "batch": None, "index.kind": "flat"})
_FIGURES = ("steady", "peak", "after", "own_steady", "own_peak", "vectors", "database")


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: of both settings steady, peak and own bytes with intervals over processes, recall@10; ratios, verdicts.
        processes: one row a fresh process.
    """

    summary: dict[str, Any]
    processes: pl.DataFrame


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    rounds: int = 2,
    out: str | Path | None = None,
) -> Footprint:
    """Measure what two settings hold of one store; what a point's notebook calls.

    Args:
        point: `reference`, whose walk keeps every page, and `candidate`, whose walk forgets each; settings over the defaults.
        workload: as a params file has it; of it only the corpus counts.
        repeats: fresh processes of each setting and store, in random order.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        rounds: how often all questions are asked.
        out: existing folder for processes.parquet and summary.json; None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit; INTERNAL `process`: one of them failed.
    """
    traffic = spec.workload(workload)
    if repeats < 1 or rounds < 1:
        raise validation("params", f"repeats = {repeats}, rounds = {rounds}; give 1 or more of each")
    settings = {name: Settings.of(point.get(name) or {}) for name in SETTINGS}
    with tempfile.TemporaryDirectory(prefix="memlab-footprint-", ignore_cleanup_errors=True) as folder, quiet():
        stores = _Stores(Path(folder), traffic, settings, seed, rounds)
        processes, answers = stores.measure(repeats)
        exact = stores.exact()
    summary = _summarise(processes, answers, exact, size=size, settings=settings, corpus=stores.corpus, repeats=repeats)
    results.write_point(out, summary, {"processes": processes})
    return Footprint(summary=summary, processes=processes)


class _Stores:
    """A store, and one of next to nothing, with the indexes of each setting built and saved."""

    def __init__(self, folder: Path, traffic: Workload, settings: Mapping[str, Settings], seed: int, rounds: int) -> None:
        self.corpus = corpus_of(traffic, seed)
        self._folder = folder
        self._settings = settings
        self._seed = seed
        self._rounds = rounds
        nothing = generate(_SMALL, 1, 1, seed=seed)
        self._loaded = {name: self._fill(name, corpus) for name, corpus in (("store", self.corpus), ("nothing", nothing))}
        for name in (*SETTINGS, "exact"):
            for store in self._loaded:
                shutil.copytree(folder / store, folder / f"{store}-{name}")
                # Opened once, so that the index of this kind is built and saved before it is measured.
                self._open(f"{store}-{name}", settings.get(name, _EXACT)).close()

    def _open(self, name: str, settings: Settings) -> Engine:
        (self._folder / name).mkdir(exist_ok=True)
        return Engine.open(self._folder / name / _DATABASE, settings, embedder_of(self.corpus.embedder))

    def _fill(self, name: str, corpus: Corpus) -> Loaded:
        with self._open(name, Settings.off()) as engine:
            return run_in_own_loop(load(engine, corpus))

    @property
    def _questions(self) -> list[tuple[str, str]]:
        sessions = self._loaded["store"].sessions
        return [(sessions[row["session"]], row["text"]) for row in self.corpus.questions.iter_rows(named=True)]

    def _job(self, store: str, name: str) -> Job:
        loaded = self._loaded[store]
        questions = self._questions
        if store == "nothing":
            (only,) = loaded.sessions.values()
            questions = [(only, text) for _, text in questions]
            fetched = [(only, memory) for memory in loaded.ids]
        else:
            labels = self.corpus.events["session"].to_list()
            every = [(loaded.sessions[label], memory) for label, memory in zip(labels, loaded.ids, strict=True)]
            fetched = random.Random(self._seed).sample(every, k=min(_FETCHED, len(every)))
        return Job(
            database=str(self._folder / f"{store}-{name}" / _DATABASE),
            settings=self._settings[name].to_dict(),
            embedder=self.corpus.embedder,
            questions=questions,
            fetched=fetched,
            sessions=list(loaded.sessions.values()),
            rounds=self._rounds,
            materialise=name == "reference",
            out=str(self._folder / "answer.json"),
        )

    def measure(self, repeats: int) -> tuple[pl.DataFrame, dict[str, Answer]]:
        """Return one row a process, and of each setting the answers of its last process on the store."""
        order = random.Random(self._seed)
        rows: list[dict[str, Any]] = []
        answers: dict[str, Answer] = {}
        for repeat in range(repeats):
            held: dict[tuple[str, str], Answer] = {}
            pairs = [(store, name) for store in self._loaded for name in SETTINGS]
            for store, name in order.sample(pairs, k=len(pairs)):
                held[store, name] = self._run(self._job(store, name))
            for name in SETTINGS:
                full, empty = held["store", name], held["nothing", name]
                answers[name] = full
                rows.append({"setting": name, "repeat": repeat, **_row(full, empty)})
        return pl.DataFrame(rows, infer_schema_length=None), answers

    def _run(self, job: Job) -> Answer:
        given = self._folder / "job.json"
        given.write_bytes(msgspec.json.encode(job))
        command = [sys.executable, "-m", "memlab.experiment.footprint_process", str(given)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise internal("process", f"a fresh process did not end within {_TIMEOUT_S:.0f} s") from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise internal("process", f"a fresh process ended with {done.returncode}: {said}")
        return msgspec.json.decode(Path(job.out).read_bytes(), type=Answer)

    def exact(self) -> list[list[tuple[str, float]]]:
        """Return content and score of what exact search finds for each question."""

        async def ask(engine: Engine) -> list[list[tuple[str, float]]]:
            answers = []
            for session, text in self._questions:
                asked = {"query": text, "limit": 2 * K, "mode": "vector"}  # some beyond the tenth, which may tie with it
                found = await engine.execute("episodic.recall", asked, session=session)
                answers.append([(event.content, event.score or 0.0) for event in found.value])
            return answers

        with self._open("store-exact", _EXACT) as engine:
            return run_in_own_loop(ask(engine))


def _row(full: Answer, empty: Answer) -> dict[str, Any]:
    peaks = None if full.peak is None or empty.peak is None else full.peak - empty.peak
    return {
        "imported": full.imported,
        "steady": full.steady,
        "peak": full.peak,
        "after": full.after,
        "nothing_steady": empty.steady,
        "nothing_peak": empty.peak,
        "own_steady": full.steady - empty.steady,
        "own_peak": peaks,
        "vectors": full.vectors,
        "database": full.database,
        "walked": full.walked,
        "digest": full.digest,
    }


def _summarise(
    processes: pl.DataFrame,
    answers: Mapping[str, Answer],
    exact: Sequence[Sequence[tuple[str, float]]],
    *,
    size: str,
    settings: Mapping[str, Settings],
    corpus: Corpus,
    repeats: int,
) -> dict[str, Any]:
    memories = len(corpus.events)
    sides: dict[str, Any] = {}
    for name in SETTINGS:
        mine = processes.filter(pl.col("setting") == name)
        recalls = [
            one
            for found, truth in zip(answers[name].found, exact, strict=True)
            if (one := recall_by_score(found, truth)) is not None
        ]
        sides[name] = {
            **{f"{figure}_mb": _mean(_values(mine, figure), 1e-6) for figure in _FIGURES},
            "bytes_per_memory": _mean(_values(mine, "own_steady"), 1 / memories),
            "recall_at_10": _mean(recalls, 1.0) if recalls else None,
            "kind": settings[name].index.kind,
            "walk": "keeps every page" if name == "reference" else "forgets each page",
        }
    ratios = {
        figure: stats.ratio(
            [[value] for value in _of(processes, "reference", figure)],
            [[value] for value in _of(processes, "candidate", figure)],
            "mean",
        )
        for figure in ("steady", "peak", "own_steady", "own_peak")
    }
    target = settings["reference"].index.recall_target
    walks = set(processes.select("walked", "digest").rows())
    return {
        "size": size,
        "finding": size != "smoke" and repeats >= stats.FEWEST_REPEATS,
        "repeats": repeats,
        "memories": memories,
        "questions": len(exact),
        "corpus": corpus.describe(),
        "same_work": len(walks) == 1 and walks.pop()[0] == memories,
        "recall_target": target,
        **sides,
        "ratio": {figure: ratio.to_dict() for figure, ratio in ratios.items()},
        "reduction": {figure: _saved(ratio) for figure, ratio in ratios.items()},
        "verdict": {figure: stats.verdict(ratio, smaller_is_better=True) for figure, ratio in ratios.items()},
    }


def _of(processes: pl.DataFrame, name: str, figure: str) -> list[float]:
    return _values(processes.filter(pl.col("setting") == name).sort("repeat"), figure)


def _values(processes: pl.DataFrame, figure: str) -> list[float]:
    return [float(value) for value in processes[figure].drop_nulls()]


def _mean(values: Sequence[float], factor: float) -> dict[str, Any]:
    return stats.mean([[value * factor] for value in values]).to_dict()


def _saved(ratio: Interval) -> dict[str, Any]:
    """Return by what share it is smaller, with the interval turned round."""
    value, low, high = (None if one is None else 1 - one for one in (ratio.value, ratio.high, ratio.low))
    return {"value": value, "low": low, "high": high}
