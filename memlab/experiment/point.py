"""One point of a sweep in a process of its own: executes its notebook with papermill.

Started by `sweep.run` as `python -m memlab.experiment.point JOB`; ends when its standard input ends, so that no measurement
outlives the sweep that wanted it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

FAILED = 3  # the notebook raised; anything else but 0 means that it never came to that


def execute(job: dict[str, Any]) -> int:
    """Execute a notebook, and return the exit code.

    Args:
        job: notebook, output, parameters, timeout_s, and error: the file that takes the failure's text.
    """
    # Imported here: a second, and of no use to the process that starts this one.
    import papermill
    from papermill.exceptions import PapermillExecutionError

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
    except PapermillExecutionError as error:
        Path(job["error"]).write_text(f"{error.ename}: {error.evalue}", encoding="utf-8")
        return FAILED
    except Exception as error:  # noqa: BLE001  a dead kernel, a cell that never ends: the text is all that a sweep can show
        Path(job["error"]).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        return FAILED
    return 0


def main() -> int:
    """Execute the job whose file the command line names."""
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return execute(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # papermill ends its kernel on the way out


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock, held at the end of the interpreter, would abort the process
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
