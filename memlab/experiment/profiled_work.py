"""The work that profilers watch: fills a store and sends it a mix of operations, one after the other.

python -m memlab.experiment.profiled_work JOB      a JSON file as `Job` says; what was done goes to the file it names
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from memlab.embedders import embedder_of
from memlab.engine import Engine
from memlab.experiment.comparison import corpus_of, load
from memlab.experiment.load_run import fill_layers
from memlab.experiment.quiet import quiet
from memlab.measure import clock
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.mix import Mix


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done.

    Attributes:
        operations: calls that are sent.
        sampled: whether scalene runs this and waits to be told when the sending begins: importing and filling would hide it.
        out: file for what was done.
    """

    settings: dict[str, Any]
    workload: dict[str, Any]
    seed: int
    operations: int
    sampled: bool
    out: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What was done: calls, those of them that failed, and the seconds that filling and sending took under the profiler."""

    operations: int
    failed: int
    filling_s: float
    sending_s: float


async def work(job: Job, folder: Path) -> Done:
    """Do it."""
    traffic = spec.workload(job.workload)
    corpus = corpus_of(traffic, job.seed)
    began = clock.monotonic_ns()
    engine = Engine.open(folder / "profiled.duckdb", Settings.of(job.settings), embedder_of(corpus.embedder))
    try:
        loaded = await fill_layers(engine, corpus, await load(engine, corpus), traffic.mix, job.seed)
        calls = Mix(corpus, loaded, traffic, job.seed).calls(job.operations, job.seed)
        filled = clock.monotonic_ns()
        failed = 0
        if job.sampled:
            from scalene import scalene_profiler

            scalene_profiler.start()
        for call in calls:
            try:
                await engine.execute(call.operation, call.parameters, session=call.session)
            except Exception:  # noqa: BLE001  counted; a profile of failures would say so
                failed += 1
        sent = clock.monotonic_ns()
        if job.sampled:
            scalene_profiler.stop()
    finally:
        await engine.aclose()
    return Done(operations=len(calls), failed=failed, filling_s=(filled - began) / 1e9, sending_s=(sent - filled) / 1e9)


def main(arguments: list[str]) -> int:
    """Do the job of the file named."""
    job = msgspec.json.decode(Path(arguments[1]).read_bytes(), type=Job)
    with tempfile.TemporaryDirectory(prefix="memlab-profile-") as folder, quiet():
        done = asyncio.run(work(job, Path(folder)))  # in the first thread, which samplers look at
    Path(job.out).write_bytes(msgspec.json.encode(done))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
