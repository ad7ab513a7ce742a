"""What this process holds: resident memory after what is free was given back, Python's own, descriptors, threads."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One look.

    Attributes:
        rss_bytes: resident; *pss_bytes* with shared pages shared out, None where the system does not tell.
        python_blocks: memory blocks that Python's allocator has handed out.
        descriptors: open files; None where the system does not tell.
    """

    rss_bytes: int
    pss_bytes: int | None
    python_blocks: int
    descriptors: int | None
    threads: int


def look(*, settle: bool = True) -> Held:
    """Return what the process holds.

    Args:
        settle: collect garbage and give free memory back first; takes some milliseconds.
    """
    if settle:
        gc.collect()
        _trim()(0)
    process = psutil.Process()
    descriptors = None
    with contextlib.suppress(AttributeError, psutil.Error):
        descriptors = process.num_fds()
    return Held(
        rss_bytes=process.memory_info().rss,
        pss_bytes=_pss(),
        python_blocks=sys.getallocatedblocks(),
        descriptors=descriptors,
        threads=process.num_threads(),
    )


@functools.cache
def _trim() -> Callable[[int], object]:
    """Return glibc's malloc_trim, or what does nothing where there is another C library."""
    with contextlib.suppress(OSError, AttributeError):
        found: Callable[[int], object] = ctypes.CDLL(ctypes.util.find_library("c")).malloc_trim
        return found
    return lambda keep: 0


def _pss() -> int | None:
    with contextlib.suppress(OSError, StopIteration, ValueError, IndexError):
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    return None
