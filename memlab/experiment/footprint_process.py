"""The fresh process in which a footprint is measured: opens an engine, does the work, and tells what it held.

python -m memlab.experiment.footprint_process JOB      a JSON file as `Job` says; the answer goes to the file it names
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import msgspec

from memlab.embedders import embedder_of
from memlab.engine import Engine
from memlab.experiment.load import run_in_own_loop
from memlab.measure import peak
from memlab.measure.process import look
from memlab.settings import Settings

_PAGE = 500


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process does.

    Attributes:
        questions: session and text of each; asked in this order, `rounds` times.
        fetched: session and id of memories that are looked at one by one.
        sessions: whose events are all walked through, page by page.
        materialise: whether the walk keeps every page until its end.
        out: file for the answer.
    """

    database: str
    settings: dict[str, Any]
    embedder: str
    questions: list[tuple[str, str]]
    fetched: list[tuple[str, str]]
    sessions: list[str]
    rounds: int
    materialise: bool
    out: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What it held, in bytes, and what it did.

    Attributes:
        imported: before the engine was opened.
        steady: after the searches and look-ups, garbage collected and free memory given back.
        peak: largest since the engine was opened, the walk included; None where the system does not tell.
        after: like *steady*, at the end.
        vectors: of the index, by its own count.
        database: what DuckDB says that it holds.
        walked: events seen on the walk, and a digest of their ids: the proof of equal work.
        found: for each question id and content of what was found, best first.
    """

    imported: int
    steady: int
    peak: int | None
    after: int
    vectors: int
    database: int
    walked: int
    digest: str
    found: list[list[tuple[str, str]]]


async def work(job: Job) -> Answer:
    """Do it."""
    imported = look().rss_bytes
    peak.reset()
    engine = Engine.open(Path(job.database), Settings.of(job.settings), embedder_of(job.embedder))
    try:
        found: list[list[tuple[str, str]]] = []
        for place in range(job.rounds):
            for session, text in job.questions:
                answer = await engine.execute("episodic.recall", {"query": text, "limit": 10, "mode": "vector"}, session=session)
                if not place:
                    found.append([(event.id, event.content) for event in answer.value])
                del answer
            for session, memory in job.fetched:
                await engine.execute("episodic.get_event", {"id": memory}, session=session)
        steady = look().rss_bytes
        vectors = int(engine.statistics()["storage"]["vector_bytes"])
        database = engine.storage.database_bytes()
        walked, digest = await _walk(engine, job)
        highest = peak.peak_bytes()
        after = look().rss_bytes
    finally:
        await engine.aclose()
    return Answer(
        imported=imported,
        steady=steady,
        peak=highest,
        after=after,
        vectors=vectors,
        database=database,
        walked=walked,
        digest=digest,
        found=found,
    )


async def _walk(engine: Engine, job: Job) -> tuple[int, str]:
    """Look at every event once; return their number and a digest of their ids and contents."""
    digest, walked = hashlib.sha256(), 0
    kept: list[Any] = []
    for session in job.sessions:
        cursor: str | None = None
        while True:
            asked = {"limit": _PAGE} | ({"cursor": cursor} if cursor else {})
            page = (await engine.execute("episodic.list_events", asked, session=session)).value
            cursor = page.cursor
            kept.append(page)
            if not job.materialise:
                walked += _take(kept, digest)
            if cursor is None:
                break
    return walked + _take(kept, digest), digest.hexdigest()


def _take(pages: list[Any], digest: Any) -> int:
    """Add what the pages hold to the digest, forget them, and return how many events they held."""
    for page in pages:
        for event in page:
            digest.update(event.id.encode() + event.content.encode())
    count = sum(map(len, pages))
    pages.clear()
    return count


def main(arguments: list[str]) -> int:
    """Do the job of the file named."""
    job = msgspec.json.decode(Path(arguments[1]).read_bytes(), type=Job)
    Path(job.out).write_bytes(msgspec.json.encode(run_in_own_loop(work(job))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
