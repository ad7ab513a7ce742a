"""Executes notebooks in other processes: this process's side of `point`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memlab.errors import internal
from memlab.measure.host import host, libraries

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


class Executor:
    """A process that executes one notebook at a time, each in a child of its own with a kernel of its own.

    The kernel is this very interpreter with this very memlab; nothing of the user's IPython takes part.
    """

    def __init__(self) -> None:
        self._desk = Path(tempfile.mkdtemp(prefix="memlab-sweep-"))
        _write_kernel(self._desk)
        self._process = self._start()
        self._said = b""

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._desk / "executor.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "memlab.experiment.point"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=_environment(self._desk),
                cwd=self._desk,
                start_new_session=True,  # Ctrl-C is the sweep's to answer
            )

    def submit(self, notebook: Path, output: Path, parameters: Mapping[str, Any], timeout_s: float) -> None:
        """Begin a notebook; `poll` tells how it ended."""
        if self._process.poll() is not None:  # something killed it; the next point need not suffer
            self._end()
            self._process, self._said = self._start(), b""
        for name in ("error", "log"):
            (self._desk / name).unlink(missing_ok=True)
        job = {
            "notebook": str(notebook.resolve()),
            "output": str(output.resolve()),
            "parameters": dict(parameters),
            "timeout_s": round(timeout_s),
            "error": str(self._desk / "error"),
        }
        file = self._desk / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        with contextlib.suppress(BrokenPipeError):  # it ended: poll says so
            _pipe(self._process.stdin).write(f"{file}\n".encode())

    def poll(self, wait_s: float) -> tuple[bool, str | None]:
        """Wait a little; return whether the notebook has ended, and in a line why it failed, None where it did not."""
        line = self._line(wait_s)
        if line in (None, b"ready"):
            return False, None
        if line == b"0":
            return True, None
        with contextlib.suppress(OSError):
            return True, one_line((self._desk / "error").read_text(encoding="utf-8"))
        told = "it ended early" if not line else f"exit code {line.decode()}"
        return True, f"the process of the notebook failed: {told}; {self._last_words()}"

    def close(self) -> None:
        """End the process and what it started."""
        try:
            self._end()
        finally:
            shutil.rmtree(self._desk, ignore_errors=True)

    def _end(self) -> None:
        try:
            _pipe(self._process.stdin).close()  # the end of its input ends it
            self._process.wait(timeout=15)
        except (subprocess.TimeoutExpired, OSError):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        finally:
            _pipe(self._process.stdout).close()

    def _line(self, wait_s: float) -> bytes | None:
        """Return the next line that it says; None where it says nothing, an empty one at its end."""
        if b"\n" not in self._said:
            stream = _pipe(self._process.stdout)
            readable, _, _ = select.select([stream], [], [], wait_s)
            if not readable:
                return None
            given = os.read(stream.fileno(), 4096)
            if not given:
                return b""
            self._said += given
        line, separator, rest = self._said.partition(b"\n")
        if not separator:
            return None
        self._said = rest
        return line

    def _last_words(self) -> str:
        for name in ("log", "executor.log"):
            with contextlib.suppress(OSError):
                lines = (self._desk / name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                if lines:
                    return one_line(lines[-1])
        return "it said nothing"


class Bench:
    """Where points are measured, one at a time: this one on this host. `cluster.RemoteBench` is one elsewhere.

    Args:
        prepared: folder for what all points of a sweep begin with: one database, filled once, is copied for each.
    """

    def __init__(self, prepared: Path) -> None:
        self._executor = Executor()
        self._prepared = prepared

    @property
    def host(self) -> dict[str, Any]:
        """The host that measures."""
        return host()

    @property
    def libraries(self) -> dict[str, str]:
        """The versions of its libraries."""
        return libraries()

    def begin(self, notebook: Path, draft: Path, parameters: Mapping[str, Any], timeout_s: float) -> None:
        """Begin a point: its notebook, executed, and all that it writes to its parameter `out` come to the folder *draft*."""
        given = dict(parameters)
        if "out" in given:
            given["out"] = str(draft.resolve())
        if "point" in given:
            given["point"] = {**given["point"], "prepared": str(self._prepared.resolve())}
        self._executor.submit(notebook, draft / "notebook.ipynb", given, timeout_s)

    def poll(self, wait_s: float) -> tuple[bool, str | None]:
        """Wait a little; return whether the point has ended, and in a line why it failed, None where it did not."""
        return self._executor.poll(wait_s)

    def close(self) -> None:
        """End what runs."""
        self._executor.close()


def one_line(text: str) -> str:
    """Return a text without line breaks and colours, cut to what a terminal shows."""
    plain = "".join(part.partition("m")[2] if place else part for place, part in enumerate(text.split("\x1b[")))
    return " ".join(plain.split())[:500]


def _pipe(stream: Any) -> Any:
    if stream is None:
        raise internal("bug", "the executor has no pipe")
    return stream


def _environment(desk: Path) -> dict[str, str]:
    paths = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "JUPYTER_PATH": str(desk),
        "JUPYTER_RUNTIME_DIR": str(desk / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(desk / "ipython"),
    }


def _write_kernel(desk: Path) -> None:
    """Describe a kernel that is this very interpreter; an installed `python3` kernel may be another one."""
    folder = desk / "kernels" / "python3"
    folder.mkdir(parents=True)
    kernel = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    }
    (folder / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
