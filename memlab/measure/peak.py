"""The most that this process held resident since it was last asked to forget: where Linux tells."""

from __future__ import annotations

import contextlib
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset() -> bool:
    """Begin anew; return whether the system let it. Where it did not, the peak counts from the start of the process."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")
        return True
    return False


def peak_bytes() -> int | None:
    """Return the largest resident size since then; None where the system does not tell."""
    with contextlib.suppress(OSError, StopIteration, ValueError, IndexError):
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return None
