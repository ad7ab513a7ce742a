"""What whole workflows cost, end to end and by step: one caller, who takes each step when the one before is answered."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import MemlabError, validation
from memlab.experiment.comparison import Measurement
from memlab.experiment.load import outcome_of, run_in_own_loop
from memlab.experiment.operation_costs import ALONE
from memlab.experiment.operation_store import Filled
from memlab.experiment.quiet import quiet
from memlab.experiment.results import Run
from memlab.measure import clock, stats
from memlab.measure.recorder import Outcome, Recorder, Sample
from memlab.operations.registry import lookup
from memlab.settings import Settings
from memlab.workload import spec, workflows
from memlab.workload.workflows import Workflow

WHOLE = "workflow"  # the operation of a sample that stands for a run from its beginning to its end
_RUNS = 1_020  # of a workflow at most; 1,000 make a p99
_CHANGED_SHARE = 0.1  # of the store that a part may add


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    out: str | Path | None = None,
    seconds: float = 10.0,
    names: Sequence[str] | None = None,
) -> Measurement:
    """Measure workflows on one store; what the notebook of a point calls.

    Args:
        point: `candidate`, settings over the defaults, with the cache off.
        workload: its `corpus.events` is how many memories there are; nothing else of it counts.
        repeats: parts of a workflow's runs, each on a fresh copy of the store.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        out: existing folder for samples.parquet and summary.json; None keeps nothing.
        seconds: for the runs of one workflow.
        names: of workflows; default: all.
    Returns:
        Every call as a sample, `setting` telling the workflow and `session` the step, and each run as a sample of the operation
        `workflow`; and the summary that `summarise` describes.
    Raises:
        MemlabError: VALIDATION `settings`: the cache is on; `unknown_workflow`.
    """
    settings = Settings.of(point.get("candidate") or ALONE)
    if settings.cache is not None:
        raise validation("settings", "a cache is never on where the engine is measured; say settings: {cache: null}")
    chosen = [workflows.lookup(name) for name in names] if names is not None else list(workflows.WORKFLOWS)
    memories = spec.workload(workload).corpus.events
    with tempfile.TemporaryDirectory(prefix="databases-", dir=out, ignore_cleanup_errors=True) as folder, quiet():
        costs = _Costs(Filled(Path(folder), memories, seed), settings, repeats, seconds, seed)
        run_in_own_loop(costs.measure(chosen))
    summary = summarise(costs.samples(), chosen, memories=memories, size=size, repeats=repeats)
    return Measurement(costs.samples(), summary).kept_in(out)


class _Costs:
    def __init__(self, filled: Filled, settings: Settings, parts: int, seconds: float, seed: int) -> None:
        self._filled = filled
        self._settings = settings
        self._parts = parts
        self._budget_ns = round(seconds * 1e9) // parts
        self._chance = random.Random(seed)
        self._recorder = Recorder()
        self._origin = clock.monotonic_ns()
        self._spent_ns = 0  # on the steps of a part's runs

    def samples(self) -> pl.DataFrame:
        """Return every call in the columns of samples.parquet."""
        return self._recorder.to_polars()

    async def measure(self, chosen: Sequence[Workflow]) -> None:
        """Run each workflow in parts, which take turns."""
        await self._filled.fill()
        for part in range(self._parts):
            for workflow in self._chance.sample(chosen, k=len(chosen)):
                await self._part(workflow, part)

    async def _part(self, workflow: Workflow, part: int) -> None:
        """Run a workflow as long as the time of a part lasts, once at least, on as many copies as it uses up."""
        writes = sum(not lookup(step.operation).reads for step in workflow.steps)
        of_a_copy = max(int(_CHANGED_SHARE * self._filled.memories / writes), 1) if writes else _RUNS
        left = -(-_RUNS // self._parts)
        self._spent_ns = 0
        while left > 0 and self._spent_ns < self._budget_ns:
            left -= await self._on_a_copy(workflow, part, min(of_a_copy, left))

    async def _on_a_copy(self, workflow: Workflow, part: int, most: int) -> int:
        """Return how often a workflow was run on a fresh copy; the first run warms it up, and does not count."""
        database = self._filled.copy()
        engine = Engine.open(database, self._settings, HashingEmbedder())
        done = 0
        try:
            await self._run(engine, workflow, part, warm_up=True)
            while done < most and (not done or self._spent_ns < self._budget_ns):
                await self._run(engine, workflow, part)
                done += 1
        finally:
            await engine.aclose()
            self._filled.remove(database)
        return done

    async def _run(self, engine: Engine, workflow: Workflow, part: int, *, warm_up: bool = False) -> None:
        """Take every step; the run has failed where one of them did."""
        known = self._filled.examples()
        answers: dict[str, Any] = {}
        whole: Outcome = "ok"
        reason: str | None = None
        spent = 0
        began = clock.monotonic_ns()
        for step in workflow.steps:
            given = workflows.parameters(step, answers, self._chance, known)
            if given is None:
                continue
            outcome: Outcome = "ok"
            phases = error = None
            started = clock.monotonic_ns()
            try:
                response = await engine.execute(step.operation, given)
            except MemlabError as failure:
                outcome, error = outcome_of(failure), failure.reason
                whole, reason = outcome, f"{step.name}: {failure.reason}"
            else:
                answers[step.name] = response.value
                phases = response.phases
            took = clock.monotonic_ns() - started
            spent += took
            self._keep(workflow, step.operation, step.name, part, started, took, outcome, error, warm_up, phases)
        self._spent_ns += 0 if warm_up else spent
        self._keep(workflow, WHOLE, "", part, began, spent, whole, reason, warm_up, None)

    def _keep(
        self,
        workflow: Workflow,
        operation: str,
        step: str,
        part: int,
        started: int,
        took: int,
        outcome: Outcome,
        error: str | None,
        warm_up: bool,
        phases: Mapping[str, int] | None,
    ) -> None:
        started -= self._origin
        self._recorder.add(
            Sample(
                operation=operation,
                session=step,
                intended_ns=started,
                started_ns=started,
                finished_ns=started + took,
                outcome=outcome,
                error=error,
                setting=workflow.name,
                repeat=part,
                warm_up=warm_up,
                phases=phases,
            )
        )


def summarise(samples: pl.DataFrame, chosen: Sequence[Workflow], *, memories: int, size: str, repeats: int) -> dict[str, Any]:
    """Return the summary of one store, plain values for run.json. An *interval* is a table: value, low, high, n, note.

    Returns:
        size, finding (not a smoke run, five parts or more), memories, repeats;
        workflows: by name: about; of whole runs: runs, failed, failure_ratio, errors (a table of `step: reason`), mean_ms,
            p50_ms, p95_ms, p99_ms, throughput_per_s (runs a second of one caller), max_ms;
            steps: a list, in order: step, operation, calls, skipped, failed, the same figures, share (of the mean of a run),
            target_p95_ms, met (None where there is no p95).
    """
    timed = samples.filter(~pl.col("warm_up")).with_columns(ms=(pl.col("finished_ns") - pl.col("started_ns")) / 1e6)
    told = {}
    for workflow in chosen:
        mine = timed.filter(pl.col("setting") == workflow.name)
        whole = mine.filter(pl.col("operation") == WHOLE)
        figures = _figures(whole, repeats)
        steps = [_step(mine, step.name, step.operation, whole, repeats) for step in workflow.steps]
        told[workflow.name] = {"about": workflow.about, "runs": whole.height, **figures, "steps": steps}
    return {
        "size": size,
        "finding": size != "smoke" and repeats >= stats.FEWEST_REPEATS,
        "memories": memories,
        "repeats": repeats,
        "workflows": told,
    }


def _step(mine: pl.DataFrame, name: str, operation: str, whole: pl.DataFrame, repeats: int) -> dict[str, Any]:
    calls = mine.filter((pl.col("session") == name) & (pl.col("operation") == operation))
    figures = _figures(calls, repeats)
    target = lookup(operation).target_p95_ms
    p95 = figures["p95_ms"]["value"]
    spent = float(whole["ms"].sum())
    return {
        "step": name,
        "operation": operation,
        "calls": calls.height,
        "skipped": whole.height - calls.height,
        **figures,
        "share": float(calls["ms"].sum()) / spent if spent else None,
        "target_p95_ms": target,
        "met": None if p95 is None else bool(p95 <= target),
    }


def _figures(rows: pl.DataFrame, repeats: int) -> dict[str, Any]:
    ok = rows.filter(pl.col("outcome") == "ok")
    parts = [ok.filter(pl.col("repeat") == part)["ms"].to_numpy() for part in range(repeats)]
    times = np.concatenate(parts)
    failed = rows.height - len(times)
    none = stats.Interval(None, note="too few: nothing succeeded")
    counts, seconds = [float(len(part)) for part in parts], [float(part.sum()) / 1e3 for part in parts]
    return {
        "failed": failed,
        "failure_ratio": stats.share(failed, rows.height).to_dict(),
        "errors": dict(rows["error"].drop_nulls().value_counts().sort("error").iter_rows()),
        "mean_ms": (stats.mean(parts) if len(times) else none).to_dict(),
        **{f"{name}_ms": stats.percentile(times, q).to_dict() for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
        "throughput_per_s": (stats.quotient(counts, seconds) if len(times) else none).to_dict(),
        "max_ms": float(times.max()) if len(times) else None,
    }


def frame(runs: Iterable[Run]) -> pl.DataFrame:
    """Return what `frame_of` does of the summaries of *runs*, with a column `run` for the identity."""
    return pl.concat([frame_of(run.summary).with_columns(run=pl.lit(run.id)) for run in runs], how="vertical_relaxed")


def frame_of(summary: Mapping[str, Any]) -> pl.DataFrame:
    """Return a row for each step, and one for each whole workflow, whose step and operation are null.

    Columns: memories, workflow, step, operation, calls, failure_ratio, mean_ms, share; p50_ms, p95_ms and p99_ms, each with
    `_low` and `_high`.
    """
    rows = []
    for name, told in summary["workflows"].items():
        whole = {"step": None, "operation": None, "calls": told["runs"], "share": 1.0}
        for one in ({**told, **whole}, *told["steps"]):
            percentiles = {
                f"{figure}{end}": one[figure][key]
                for figure in ("p50_ms", "p95_ms", "p99_ms")
                for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
            known = {key: one[key] for key in ("step", "operation", "calls", "share")}
            figures = {"failure_ratio": one["failure_ratio"]["value"], "mean_ms": one["mean_ms"]["value"]}
            rows.append({"memories": summary["memories"], "workflow": name, **known, **figures, **percentiles})
    texts = dict.fromkeys(("workflow", "step", "operation"), pl.String)
    counts = dict.fromkeys(("memories", "calls"), pl.Int64)
    numbers = [name for row in rows[:1] for name in row if name not in (*texts, *counts)]
    return pl.DataFrame(
        rows, schema_overrides={**texts, **counts, **dict.fromkeys(numbers, pl.Float64)}, infer_schema_length=None
    )
