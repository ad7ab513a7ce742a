"""What storage does with files and folders themselves."""

from __future__ import annotations

import os
from pathlib import Path


def beside(path: Path, suffix: str) -> Path:
    """Return the companion of a database file: its name with *suffix* appended.

    >>> str(beside(Path("lab.duckdb"), ".lock"))
    'lab.duckdb.lock'
    """
    return path.with_name(path.name + suffix)


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in *folder* survive a power loss; DuckDB never does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of *path* survive a power loss; never for a database that is open, see `file_lock`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Return how much this user may still write on the file system of *folder*."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
