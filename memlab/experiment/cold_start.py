"""The first call of a fresh process: nothing is in memory, neither in the process nor, where the system allows, of its files.

Every start is a process of its own that opens the database and asks once. Before it the files leave the page cache. What the
libraries need to be imported is not in it; see `forking`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import MemlabError
from memlab.experiment import forking
from memlab.experiment.load import outcome_of
from memlab.measure import clock, page_cache
from memlab.measure.recorder import Outcome
from memlab.settings import Settings


class FirstCall(msgspec.Struct, frozen=True, kw_only=True):
    """What one fresh process met.

    Attributes:
        open_ns: opening the database.
        call_ns: the one call after that.
        kept_ratio: share of the database's pages that stayed in the page cache although they were to leave; None where unknown.
    """

    operation: str
    open_ns: int
    call_ns: int
    outcome: Outcome
    phases: dict[str, int] | None
    kept_ratio: float | None = None


def first_calls(database: Path, settings: Settings, asked: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[FirstCall]:
    """Yield what became of each call, asked once in a process of its own.

    Args:
        database: closed; it is only read.
        asked: operations that only read, with their parameters.
    Raises:
        MemlabError: INTERNAL `process`: one ended without an answer.
    """
    kept: list[float | None] = []

    def jobs() -> Iterator[bytes]:
        for operation, parameters in asked:
            kept.append(page_cache.drop(database.parent))
            yield msgspec.json.encode([str(database), settings.to_dict(), operation, parameters])

    for line in forking.answers("memlab.experiment.cold_start", jobs()):
        yield msgspec.structs.replace(msgspec.json.decode(line, type=FirstCall), kept_ratio=kept[-1])


def _answer(line: bytes) -> bytes:
    """Open a database and ask once."""
    database, settings, operation, parameters = msgspec.json.decode(line)
    return msgspec.json.encode(asyncio.run(_ask(database, Settings.of(settings), operation, parameters)))


async def _ask(database: str, settings: Settings, operation: str, parameters: dict[str, Any]) -> FirstCall:
    started = clock.monotonic_ns()
    engine = Engine.open(database, settings, HashingEmbedder(), create=False)
    opened = clock.monotonic_ns()
    outcome: Outcome = "ok"
    phases = None
    try:
        phases = (await engine.execute(operation, parameters)).phases
    except MemlabError as error:
        outcome = outcome_of(error)
    answered = clock.monotonic_ns()
    await engine.aclose()
    return FirstCall(
        operation=operation,
        open_ns=opened - started,
        call_ns=answered - opened,
        outcome=outcome,
        phases=None if phases is None else dict(phases),
    )


if __name__ == "__main__":
    forking.serve(_answer)
