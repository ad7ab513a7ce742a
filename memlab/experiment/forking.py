"""Fresh processes, one for each job, without paying for imports each time: a process imports once and forks for every job.

What a fork inherits are imported libraries and nothing else: the process that forks never opens a database.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from memlab.errors import internal
from memlab.experiment.quiet import quiet


def answers(module: str, jobs: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what a process of its own answers to each job.

    Args:
        module: whose `main` calls `serve`.
        jobs: a line each, without its end; the next is taken when the one before is answered.
    Raises:
        MemlabError: INTERNAL `process`: one ended without an answer; what it said stands on standard error.
    """
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is the caller's to answer; the end of its input ends it
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise internal("bug", "the process that forks has no pipe")
        try:
            for job in jobs:
                process.stdin.write(job + b"\n")
                process.stdin.flush()
                line = process.stdout.readline().strip()
                if not line:
                    raise internal("process", f"a fresh process of {module} ended without an answer")
                yield line
        finally:
            process.stdin.close()


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Fork for each line of standard input, and write what the child answers, until the input ends."""
    for line in sys.stdin.buffer:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            _answer(answer, line, write)
        os.close(write)
        with open(read, "rb") as told:  # noqa: PTH123  a descriptor
            given = told.read()
        os.waitpid(child, 0)
        sys.stdout.buffer.write(given.strip() + b"\n")
        sys.stdout.buffer.flush()


def _answer(answer: Callable[[bytes], bytes], line: bytes, write: int) -> NoReturn:
    """Answer one job and leave."""
    code = 1
    try:
        with quiet():
            told = answer(line)
        with open(write, "wb") as pipe:
            pipe.write(told)
        code = 0
    except BaseException as error:  # noqa: BLE001  a fork must not go on in its parent's code
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)
