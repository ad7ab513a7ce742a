"""The pieces that `predict.what_if` needs, measured; and runs of whole settings that its predictions are held against."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import internal, validation
from memlab.experiment import sweep
from memlab.experiment.comparison import corpus_of, lane_seed
from memlab.experiment.lanes import lanes
from memlab.experiment.load import run_in_own_loop
from memlab.experiment.quiet import quiet
from memlab.experiment.results import Run
from memlab.operations.registry import lookup
from memlab.predict.group_commit import BatchModel, ServiceTime
from memlab.predict.what_if import FIGURES, Choice, Floats, Pieces, Play, missed_by, table
from memlab.settings import Settings
from memlab.workload.mix import Loaded, Mix
from memlab.workload.spec import Workload

LIMIT = 64
_SIZES = (1, 4, 16, LIMIT)
_CLOSED_S, _WARM_S = 0.15, 0.05
_SEEN = 40  # groups of each size that are kept


def measure(
    workload: Workload,
    indexes: Sequence[str],
    *,
    seed: int = 1,
    closed_s: float = _CLOSED_S,
    data: str | Path | None = None,
) -> dict[str, BatchModel]:
    """Return what groups of the workload's searches take, by kind of index.

    As many clients as a group has, each waiting for its answer, travel together in groups of that size.

    Args:
        closed_s: seconds of each of the six closed loops.
        data: folder of conversations in place of the generated corpus.
    """
    found = {}
    for index in indexes:
        settings = {
            size: Settings.of({"cache": None, "batch.window_ms": 0.0, "batch.limit": size, "pool": None, "index.kind": index})
            for size in _SIZES
        }
        alone = Settings.of({"cache": None, "batch": None, "pool": None, "index.kind": index})

        async def measured(settings: dict[int, Settings] = settings, alone: Settings = alone) -> BatchModel:
            named = {f"group of {size}": one for size, one in settings.items()} | {"alone": alone}
            sizes: list[int] = []
            seconds: list[float] = []
            async with lanes(workload, named, seed, data) as bench:
                for size in _SIZES:
                    told = await bench.closed_loop(f"group of {size}", size, closed_s, _WARM_S, seed)
                    took = told.filter(pl.col("batch_size") == size)["response_ms"].to_numpy() / 1e3
                    kept = took[np.linspace(0, len(took) - 1, min(_SEEN, len(took))).astype(np.int64)]
                    sizes += [size] * len(kept)
                    seconds += kept.tolist()
                one, several = [len(await bench.closed_loop("alone", clients, closed_s, _WARM_S, seed)) for clients in (1, 4)]
            return BatchModel(ServiceTime.fit(sizes, seconds), processors=max(several, 1) / max(one, 1))

        with quiet():
            found[index] = run_in_own_loop(measured())
    return found


def plays(workload: Workload, *, seed: int, repeats: int, data: str | Path | None = None) -> list[Play]:
    """Return the questions that a run of the workload asks, its first repeat all warm-up, as a run has it.

    A write makes every answer of its session stale, as it does for searches.

    Args:
        data: folder of conversations in place of the generated corpus.
    Raises:
        MemlabError: VALIDATION `range`: a closed loop, whose calls come when others are answered.
    """
    corpus = corpus_of(workload, seed, data)
    named = Loaded({label: label for label in corpus.sessions}, [str(row) for row in range(len(corpus.events))])
    mix = Mix(corpus, named, workload, seed)
    parts: list[tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.bool_]]] = []
    sessions: list[str] = []
    written: dict[str, list[int]] = {}
    for repeat in range(-1, repeats):
        at_s = workload.due(lane_seed(seed, repeat))
        if at_s is None:
            raise validation("range", "in a closed loop calls come when others are answered; models are for open ones")
        calls = mix.calls(len(at_s), lane_seed(seed, repeat))
        for call in calls:
            if call.question >= 0:
                sessions.append(call.label)
            elif not lookup(call.operation).reads:
                written.setdefault(call.label, []).append(len(sessions))
        asked = np.array([call.question for call in calls], dtype=np.int64)
        at_s, asked = at_s[asked >= 0], asked[asked >= 0]
        parts.append((at_s, asked, (at_s >= workload.warm_up_s) & (repeat >= 0)))
    stale_at = _stale_at(sessions, written)
    ends = np.cumsum([len(asked) for _, asked, _ in parts])
    return [Play(*lane, stale) for lane, stale in zip(parts, np.split(stale_at, ends[:-1]), strict=True)]


def _stale_at(sessions: Sequence[str], written: Mapping[str, Sequence[int]]) -> npt.NDArray[np.int64]:
    """Return for questions, of which *sessions* has the sessions, the first after the next write to the same session.

    Args:
        written: by session, how many questions had been asked before each write.
    """
    stale_at = np.full(len(sessions), len(sessions), dtype=np.int64)
    asked_in = np.array(sessions)
    for session, moments in written.items():
        mine = np.flatnonzero(asked_in == session)
        later = np.array([*moments, len(sessions)], dtype=np.int64)
        stale_at[mine] = later[np.searchsorted(later[:-1], mine, side="right")]
    return stale_at


def settings_of(choice: Choice) -> dict[str, Any]:
    """Return a choice as settings, dotted keys."""
    cache = {"cache": None} if choice.max_entries is None else {"cache.max_entries": choice.max_entries}
    batch = {"batch": None} if choice.window_ms is None else {"batch.window_ms": choice.window_ms, "batch.limit": LIMIT}
    return {**cache, **batch, "pool.limit": choice.pool_limit, "index.kind": choice.index}


def run(choice: Choice, params: Path, folder: str | Path) -> Run:
    """Measure a whole setting, unless it was measured before, and return its run.

    Args:
        params: of a sweep without a grid; the choice becomes its only point.
    Raises:
        MemlabError: INTERNAL `point`: it failed; its notebook says why.
    """
    base = sweep.Sweep.load(params)
    made = dataclasses.replace(base, grid=({name: [value] for name, value in settings_of(choice).items()},))
    outcome = sweep.run(made, folder)
    if outcome.failed:
        raise internal("point", f"{outcome.failed[0].error}; see {outcome.failed[0].notebook}")
    return (outcome.done + outcome.reused)[0]


def hits_of(runs: Sequence[Run]) -> Floats:
    """Return what hits took in runs; seconds."""
    samples = pl.concat([run.samples() for run in runs]).filter(pl.col("cached") & (pl.col("outcome") == "ok"))
    taken = ((samples["finished_ns"] - samples["intended_ns"]) / 1e9).to_numpy()
    return taken if len(taken) else np.array([1e-4])


def figures_of(runs: Sequence[tuple[Choice, Run]]) -> pl.DataFrame:
    """Return what runs measured, a row a run: the fields of its choice, `run`, and the figures with their intervals."""
    rows = []
    for choice, one in runs:
        candidate = one.summary["candidate"]
        row: dict[str, Any] = {**dataclasses.asdict(choice), "run": one.id}
        for name in FIGURES:
            interval = candidate[name] or {"value": None, "low": None, "high": None}
            row |= {name: interval["value"], f"{name}_low": interval["low"], f"{name}_high": interval["high"]}
        rows.append(row)
    numbers = [f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")]
    schema = {"window_ms": pl.Float64, "max_entries": pl.Int64} | dict.fromkeys(numbers, pl.Float64)
    return pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)


def pieces(models: dict[str, BatchModel], runs: Sequence[Run]) -> Pieces:
    """Return the pieces, hits as the runs saw them."""
    return Pieces(models, hits_of(runs), LIMIT)


def within(measured: Pieces, factors: Mapping[str, float]) -> Pieces:
    """Return the pieces with what their predictions missed runs by."""
    return dataclasses.replace(measured, missed_by=factors)


def runner(
    measured: Pieces,
    asked: Sequence[Play],
    choices: Sequence[Choice],
    runs: Sequence[tuple[Choice, Run]],
    params: Path,
    folder: str | Path,
) -> Callable[[dict[str, Any]], tuple[pl.DataFrame, pl.DataFrame]]:
    """Return what runs a setting for a panel, and returns all predictions and all runs as they are then.

    Each run tells more of how far predictions are off, so the intervals of all change with it.
    """
    known = list(runs)

    def run_setting(setting: dict[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame]:
        choice = Choice(**setting)
        known.append((choice, run(choice, params, folder)))
        seen = figures_of(known)
        factors = missed_by(table(measured, asked, [one for one, _ in known]), seen)
        return table(within(measured, factors), asked, choices), seen

    return run_setting
