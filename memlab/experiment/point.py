"""A process that executes the notebooks of points, each in a process of its own.

Started by `executor.Executor` as `python -m memlab.experiment.point`. It imports papermill once, which takes longer than many a
point, and forks for every job: a line on standard input names the job's file, a line on standard output tells the exit code.
When its input ends it ends, and what it started with it: no measurement outlives the sweep that wanted it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

FAILED = 3  # the notebook, or the way to it, raised; the job's error file says what
_STOPPED = 4


def import_papermill() -> ModuleType:
    """Return papermill, imported without what takes jsonschema two seconds: the grammar of IRIs, which no notebook needs."""
    grammar = "rfc3987_syntax"
    blocked = grammar not in sys.modules
    if blocked:
        sys.modules[grammar] = None  # type: ignore[assignment]  # makes its import fail, which jsonschema takes for absence
    try:
        return importlib.import_module("papermill")
    finally:
        if blocked:
            del sys.modules[grammar]


def execute(job: dict[str, Any]) -> int:
    """Execute a notebook, and return the exit code.

    Args:
        job: notebook, output, parameters, timeout_s; and error, the file that takes the text of a failure.
    """
    papermill = import_papermill()
    try:
        papermill.execute_notebook(
            job["notebook"],
            job["output"],
            parameters=job["parameters"],
            kernel_name="python3",  # by JUPYTER_PATH: this very interpreter
            cwd=str(Path(job["notebook"]).parent),
            progress_bar=False,
            log_output=False,
            start_timeout=120,
            execution_timeout=job["timeout_s"],
        )
    except Exception as error:  # noqa: BLE001  a failed cell, a dead kernel, a cell that never ends: a sweep shows the text
        name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        Path(job["error"]).write_text(f"{name}: {text}", encoding="utf-8")
        return FAILED
    return 0


def main() -> int:
    """Execute jobs one after the other until the input ends."""
    import_papermill()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGTERM, _stop)
    _say("ready")
    pending = b""
    child = 0
    with contextlib.suppress(SystemExit):
        while True:
            readable, _, _ = select.select([0, wake], [], [])
            if wake in readable:
                os.read(wake, 64)
            if 0 in readable:
                given = os.read(0, 65_536)
                if not given:
                    break
                pending += given
            if child:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    child = 0
                    _say(str(os.waitstatus_to_exitcode(status)))
            if not child and b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                child = _fork(Path(line.decode()))
    if child:
        _end(child)
    return 0


def _fork(job: Path) -> int:
    """Begin a job in a child; return its process id."""
    child = os.fork()
    if child:
        return child
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = _STOPPED
    try:
        log = os.open(job.with_name("log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        code = execute(json.loads(job.read_text(encoding="utf-8")))
    except BaseException as error:  # noqa: BLE001  a fork must not go on in its parent's code
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end(child: int) -> None:
    """End a child: kindly, so that it ends its kernel; after eight seconds at once."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGTERM)
        for _ in range(160):
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            select.select([], [], [], 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # in a child, papermill ends its kernel on the way out


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    raise SystemExit(main())
