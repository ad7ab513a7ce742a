"""The first call of a fresh process: nothing is in memory, neither in the process nor, where the system allows, of its files.

Every start is a process of its own that opens the database and asks once. Before it the files leave the page cache. What the
libraries need to be imported is not in it: a process imports them once and forks for every start.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import MemlabError, internal
from memlab.experiment.load import outcome_of
from memlab.experiment.quiet import quiet
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
        MemlabError: INTERNAL `cold_start`: a process ended without an answer.
    """
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-m", "memlab.experiment.cold_start"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is the caller's to answer; the end of its input ends it
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise internal("bug", "the process of cold starts has no pipe")
        try:
            for operation, parameters in asked:
                kept = page_cache.drop(database.parent)
                process.stdin.write(msgspec.json.encode([str(database), settings.to_dict(), operation, parameters]) + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line.strip():
                    raise internal("cold_start", f"a fresh process that was to ask {operation} ended without an answer")
                yield msgspec.structs.replace(msgspec.json.decode(line, type=FirstCall), kept_ratio=kept)
        finally:
            process.stdin.close()


def main() -> None:
    """Fork for each line of standard input, and write what the child says, until the input ends."""
    for line in sys.stdin.buffer:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            _answer(line, write)
        os.close(write)
        with open(read, "rb") as answers:  # noqa: PTH123  a descriptor
            answer = answers.read()
        os.waitpid(child, 0)
        sys.stdout.buffer.write(answer.strip() + b"\n")
        sys.stdout.buffer.flush()


def _answer(line: bytes, write: int) -> None:
    """Ask, say what became of it, and leave."""
    code = 1
    try:
        database, settings, operation, parameters = msgspec.json.decode(line)
        with quiet():
            found = asyncio.run(_ask(database, Settings.of(settings), operation, parameters))
        os.write(write, msgspec.json.encode(found))
        code = 0
    except BaseException as error:  # noqa: BLE001  a fork must not go on in its parent's code
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


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
    main()
