"""One process, and one opener in it, for a database file.

DuckDB's own lock is a POSIX record lock: it vanishes when any descriptor of the file is closed, and a second process then
writes too, unseen. `flock` on a file of our own has neither weakness, and also refuses a second opener in this process.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from memlab.errors import permission


class FileLock:
    """An exclusive `flock`, held until released or the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock on *path*, which is created when missing and never removed: removing it would let two in.

        Raises:
            MemlabError: PERMISSION `locked`: somebody holds it.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace")
            os.close(descriptor)
            where = "in this process" if holder == str(os.getpid()) else f"in process {holder or '(unknown)'}"
            raise permission(
                "locked", f"{path.with_suffix('')} is already open {where}; close it there first", holder=holder
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let the next opener in."""
        if self._descriptor is not None:
            # Closing is not enough where a child process inherited the descriptor.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def abandon(self) -> None:
        """Drop a forked child's copy without releasing the lock of its parent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
