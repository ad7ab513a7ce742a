"""The fresh process of one start: opens a store, asks beforehand, then answers calls one after the other and tells their times.

python -m memlab.experiment.warm_up_process      a job a line, as `forking` gives them
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from memlab.embedders import embedder_of
from memlab.engine import Engine
from memlab.experiment import forking
from memlab.experiment.load import run_in_own_loop
from memlab.measure import clock
from memlab.settings import Settings

Question = tuple[str, str]
"""Session and text."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process does.

    Attributes:
        beforehand: asked before the calls that count, in this order.
        calls: that count, in this order.
    """

    database: str
    settings: dict[str, Any]
    embedder: str
    beforehand: list[Question]
    calls: list[Question]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What it took.

    Attributes:
        open_ns: opening the store; what is imported was imported before.
        warm_up_ns: asking beforehand.
        took_ns, cached: of each call.
    """

    open_ns: int
    warm_up_ns: int
    took_ns: list[int]
    cached: list[bool]


async def work(job: Job) -> Answer:
    """Do it."""
    started = clock.monotonic_ns()
    engine = Engine.open(Path(job.database), Settings.of(job.settings), embedder_of(job.embedder), create=False)
    opened = clock.monotonic_ns()
    try:
        await _ask(engine, job.beforehand)
        warm = clock.monotonic_ns()
        asked = await _ask(engine, job.calls)
    finally:
        await engine.aclose()
    return Answer(
        open_ns=opened - started,
        warm_up_ns=warm - opened,
        took_ns=[took for took, _ in asked],
        cached=[cached for _, cached in asked],
    )


async def _ask(engine: Engine, questions: Iterable[Question]) -> list[tuple[int, bool]]:
    told = []
    for session, text in questions:
        started = clock.monotonic_ns()
        response = await engine.execute("episodic.recall", {"query": text, "limit": 10}, session=session)
        told.append((clock.monotonic_ns() - started, response.cached))
    return told


def _answer(line: bytes) -> bytes:
    return msgspec.json.encode(run_in_own_loop(work(msgspec.json.decode(line, type=Job))))


if __name__ == "__main__":
    forking.serve(_answer)
