"""What the operating system keeps in memory of files: to be dropped before a cold measurement, and looked at afterwards."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np


def drop(folder: Path) -> float | None:
    """Ask for every file below *folder* to leave the page cache, and return which share of them stayed.

    Args:
        folder: its files are closed; what is written but not on the disk yet is written first.
    Returns:
        A ratio in [0, 1]; None where the system takes no such wish, or does not tell.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident_ratio(folder)


def resident_ratio(folder: Path) -> float | None:
    """Return which share of the pages of all files below *folder* is in memory; None where the system does not tell."""
    resident = pages = 0
    for path in _files(folder):
        found = _resident_pages(path)
        if found is None:
            return None
        resident += found
        pages += -(-path.stat().st_size // mmap.PAGESIZE)
    return resident / pages if pages else 0.0


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size)


def _resident_pages(path: Path) -> int | None:
    look = _mincore()
    if look is None:
        return None
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped:
        pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        view = np.frombuffer(mapped, np.uint8)
        failed = look(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data))
        del view  # a mapping that is looked at cannot be closed
    return None if failed else int((pages & 1).sum())


@functools.cache
def _mincore() -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = ctypes.CDLL(ctypes.util.find_library("c")).mincore
    except (OSError, AttributeError):
        return None
    return found
