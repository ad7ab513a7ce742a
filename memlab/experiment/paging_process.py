"""The fresh process of one walk: opens a store, goes through every event page by page, and tells times and the most that it held.

python -m memlab.experiment.paging_process      a job a line, as `forking` gives them
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from memlab.embedders import embedder_of
from memlab.engine import Engine
from memlab.experiment import forking
from memlab.experiment.load import run_in_own_loop
from memlab.measure import clock, peak
from memlab.measure.process import look
from memlab.settings import Settings


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process does.

    Attributes:
        limit: events on a page.
        keeps: whether every page is kept until the walk ends, as one list.
        rounds: walks, one after the other; each begins anew.
    """

    database: str
    settings: dict[str, Any]
    embedder: str
    session: str
    limit: int
    keeps: bool
    rounds: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What it took.

    Attributes:
        took_ns, rows: of each page, of all rounds.
        first_ns: of each round, until the first row can be used: with the first page, or with the whole list.
        before_bytes: resident after opening; *peak_bytes* the most since then, None where the system does not tell.
        digest: of the ids that the first round saw, in order.
    """

    took_ns: list[int]
    rows: list[int]
    first_ns: list[int]
    before_bytes: int
    peak_bytes: int | None
    digest: str


async def work(job: Job) -> Answer:
    """Do it."""
    engine = Engine.open(Path(job.database), Settings.of(job.settings), embedder_of(job.embedder), create=False)
    took: list[int] = []
    rows: list[int] = []
    first: list[int] = []
    digest = hashlib.sha256()
    try:
        before = look().rss_bytes
        peak.reset()
        for number in range(job.rounds):
            kept = []
            started = clock.monotonic_ns()
            cursor: str | None = None
            is_first = True
            while cursor is not None or is_first:
                asked = clock.monotonic_ns()
                given = {"limit": job.limit} | ({"cursor": cursor} if cursor else {})
                page = (await engine.execute("episodic.list_events", given, session=job.session)).value
                answered = clock.monotonic_ns()
                took.append(answered - asked)
                rows.append(len(page))
                if is_first and not job.keeps:
                    first.append(answered - started)
                is_first, cursor = False, page.cursor
                if not number:
                    digest.update("".join(event.id for event in page).encode())
                if job.keeps:
                    kept.append(page)
            if job.keeps:
                first.append(clock.monotonic_ns() - started)
        highest = peak.peak_bytes()
    finally:
        await engine.aclose()
    return Answer(
        took_ns=took, rows=rows, first_ns=first, before_bytes=before, peak_bytes=highest, digest=digest.hexdigest()
    )  # fmt: skip


def _answer(line: bytes) -> bytes:
    return msgspec.json.encode(run_in_own_loop(work(msgspec.json.decode(line, type=Job))))


if __name__ == "__main__":
    forking.serve(_answer)
