"""The high-water mark: what the database must at least hold, written where the database cannot lose it.

DuckDB opens without a word when its log is missing or cut short, as an older database. Sixty-four bytes beside it, written
after every COMMIT and before the acknowledgement, make that visible. The mark may lag behind (it is synced lazily) and can
never lead, so it raises no false alarm.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from pathlib import Path

import structlog

from memlab.storage.files import sync_folder

_log = structlog.get_logger(__name__)
_MAGIC = b"memlabHW"
_LAYOUT = struct.Struct("<8s16sQ28xI")  # magic, database id, commit_seq, CRC-32 of what stands before it: 64 bytes


class HighWaterMark:
    """The number of the last acknowledged commit of one database, in a file of 64 bytes."""

    def __init__(self, path: Path, database_id: str) -> None:
        """Open the mark of a database, or begin one.

        Attributes:
            is_new: whether there was none.
            commit_seq: what the file says; 0 where it is missing, broken, or of another database (each with a log line).
        """
        self._id = uuid.UUID(database_id).bytes
        self.is_new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.commit_seq = 0
        if self.is_new:
            sync_folder(path.parent)
            return
        content = os.pread(self._descriptor, _LAYOUT.size + 1, 0)
        problem = _unreadable(content)
        if problem:
            _log.warning("mark_unreadable", path=str(path), problem=problem)
            os.ftruncate(self._descriptor, 0)
            return
        _, owner, commit_seq, _ = _LAYOUT.unpack(content)
        if owner != self._id:
            _log.warning("mark_of_another_database", path=str(path))
            return
        self.commit_seq = commit_seq

    def advance(self, commit_seq: int) -> None:
        """Write that *commit_seq* is committed; one block of the page cache, about two microseconds."""
        body = _LAYOUT.pack(_MAGIC, self._id, commit_seq, 0)[:-4]
        os.pwrite(self._descriptor, body + struct.pack("<I", zlib.crc32(body)), 0)
        self.commit_seq = commit_seq

    def sync(self) -> None:
        """Make the mark survive a power loss."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def _unreadable(content: bytes) -> str | None:
    if len(content) != _LAYOUT.size:
        return f"{len(content)} bytes instead of {_LAYOUT.size}"
    if content[:8] != _MAGIC:
        return "not a mark"
    if zlib.crc32(content[:-4]) != struct.unpack("<I", content[-4:])[0]:
        return "checksum"
    return None
