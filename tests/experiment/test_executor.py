"""The process that executes notebooks: survives what they do, and does not outlive who wanted them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from memlab.experiment.executor import Executor, one_line

pytestmark = pytest.mark.serial


@pytest.fixture
def notebook(tmp_path):
    """`notebook(code)`: the path of a notebook with that code."""

    def make(code):
        made = new_notebook(cells=[new_code_cell("out = None", metadata={"tags": ["parameters"]}), new_code_cell(code)])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, tmp_path / "in.ipynb")
        return tmp_path / "in.ipynb"

    return make


def finish(executor):
    while True:
        ended, error = executor.poll(0.2)
        if ended:
            return error


def gone(process):
    """Whether a process has ended, given time to."""
    for _ in range(150):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        if "zombie" in Path(f"/proc/{process}/status").read_text():
            return True
        time.sleep(0.1)
    return False


def test_one_after_the_other_each_in_a_process_of_its_own(notebook, tmp_path):
    """Notebooks get their parameters and a fresh kernel; a failure is one line and disturbs no other."""
    code = "import os, pathlib\npathlib.Path(out).write_text(str(os.getpid()))\nassert 'bad' not in out, 'two\\nlines'"
    with contextlib.closing(Executor()) as executor:
        errors = []
        for name in ("one", "bad", "two"):
            executor.submit(notebook(code), tmp_path / f"{name}.ipynb", {"out": str(tmp_path / name)}, 60)
            errors.append(finish(executor))
        process = executor._process.pid
    assert errors == [None, "AssertionError: two lines", None]
    kernels = {(tmp_path / name).read_text() for name in ("one", "bad", "two")}
    assert len(kernels) == 3
    assert all(gone(int(kernel)) for kernel in kernels)
    assert gone(process)
    assert "two" in (tmp_path / "bad.ipynb").read_text()


def test_a_killed_executor_fails_its_notebook_and_starts_again(notebook, tmp_path):
    """What kills the process costs one notebook."""
    with contextlib.closing(Executor()) as executor:
        executor.submit(notebook("import time; time.sleep(600)"), tmp_path / "out.ipynb", {}, 60)
        os.killpg(executor._process.pid, signal.SIGKILL)
        assert "ended early" in finish(executor)
        executor.submit(notebook("1 + 1"), tmp_path / "out.ipynb", {}, 60)
        assert finish(executor) is None


def test_a_cell_that_never_ends_is_ended(notebook, tmp_path):
    """Past its time a notebook has failed."""
    with contextlib.closing(Executor()) as executor:
        executor.submit(notebook("import time; time.sleep(600)"), tmp_path / "out.ipynb", {}, 1)
        assert "timed out" in finish(executor).lower()


def test_no_measurement_outlives_the_sweep_that_wanted_it(notebook, tmp_path):
    """When the sweep is killed outright, executor, notebook and kernel end too."""
    path = notebook(
        f"import os, pathlib, time\npathlib.Path({str(tmp_path / 'kernel')!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    )
    code = (
        "import pathlib, time\nfrom memlab.experiment.executor import Executor\nexecutor = Executor()\n"
        f"executor.submit(pathlib.Path({str(path)!r}), pathlib.Path({str(tmp_path / 'out.ipynb')!r}), {{}}, 600)\n"
        f"pathlib.Path({str(tmp_path / 'executor')!r}).write_text(str(executor._process.pid))\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2]) as sweep:
        while not (tmp_path / "kernel").exists() and sweep.poll() is None:
            time.sleep(0.1)
        sweep.kill()
    assert gone(int((tmp_path / "executor").read_text()))
    assert gone(int((tmp_path / "kernel").read_text()))


def test_one_line():
    """Colours and line breaks of a kernel's error go; five hundred characters are enough."""
    assert one_line("\x1b[0;31mValueError\x1b[0m: a\n  b") == "ValueError: a b"
    assert len(one_line("x" * 1_000)) == 500
