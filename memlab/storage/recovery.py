"""Opening a database whose log is torn, without ever losing what could still be read.

DuckDB's log is a header and then records: size, checksum, payload; a record of one type says that the transaction before it is
committed. After a power loss the end of the log may be cut short, or filled with zeros, or hold a page that was never
written. DuckDB drops some such ends without a word, refuses others, and at a broken size in the middle it silently stops,
to overwrite every later transaction at the next commit. So:

    nothing intact follows the broken place    copy the log aside, cut it at the last commit, open, say so
    something intact follows                   refuse, touch nothing: only a person or a backup can decide
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import duckdb
import numpy as np
import structlog

from memlab.errors import MemlabError, internal
from memlab.measure import clock
from memlab.storage.files import sync_file, sync_folder

_log = structlog.get_logger(__name__)
T = TypeVar("T")

_FRAME = struct.Struct("<QQ")  # size and checksum of the payload that follows
_BEGIN = b"\x64\x00"  # how DuckDB's serialisation begins an object: field 100
_END = b"\xff\xff"
_COMMITTED = b"\x64\x00\x64\xff\xff"
_HEADER = re.compile(
    rb"\x64\x00\x62\x65\x00.\x66\x00\x10"  # entry type "version", the version, then the database's identifier of 16
    rb"(?:[\x80-\xff]\x01|[\x00-\x7f]){16}"  # numbers below 256 of variable length
    rb"(?:\x67\x00[\x80-\xff]*[\x00-\x7f])?\xff\xff",  # and how many checkpoints it has seen
    re.DOTALL,
)
_POSITION = re.compile(r"byte position (\d+)")
_MASK = (1 << 64) - 1
_WORD = np.uint64(0xBF58476D1CE4E5B9)
_REST = 0xC6A4A7935BD1E995


@dataclass(frozen=True)
class Cut:
    """What opening took off a torn log.

    Attributes:
        quarantine: the copy of the log as it was found.
        kept_bytes: up to and with the last intact commit.
        dropped_bytes: cut off behind it.
    """

    quarantine: Path
    kept_bytes: int
    dropped_bytes: int


def open_with_log(wal: Path, attempt: Callable[[], T]) -> tuple[T, Cut | None]:
    """Open a database through *attempt*, mending the torn end of its log *wal* first where that loses nothing.

    Returns:
        what *attempt* returned, and what was cut off the log.
    Raises:
        MemlabError: INTERNAL `damaged`: transactions that can still be read follow a broken place; nothing was changed.
        duckdb.Error: whatever else keeps it from opening.
    """
    _refuse_silent_loss(wal)
    try:
        return attempt(), None
    except duckdb.Error as error:
        found = _POSITION.search(str(error)) if "WAL" in str(error) else None
        if found is None:
            raise
        cut = _cut_torn_end(wal, int(found[1]), error)
    return attempt(), cut


def _refuse_silent_loss(wal: Path) -> None:
    """Refuse where DuckDB would stop reading before the end although later records are intact."""
    if not wal.exists() or not wal.stat().st_size:
        return
    with wal.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
        stop, _ = _walk(log, len(log))
        if stop < len(log):
            following = _intact_after(log, stop)
            if following is not None:
                raise _damaged(wal, stop, following)
            _log.info("log_end_ignored", path=str(wal), bytes=len(log) - stop)


def _cut_torn_end(wal: Path, position: int, error: duckdb.Error) -> Cut:
    """Copy the log aside and cut it at the last commit before the record that DuckDB could not read at *position*."""
    with wal.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
        size = len(log)
        # DuckDB names the payload or the frame before it, depending on what it found wrong.
        for broken in (position - _FRAME.size, position):
            stop, committed = _walk(log, broken)
            if stop == broken:
                break
        else:
            raise internal(
                "damaged",
                f"{wal} cannot be read at byte {position} and is not a log that memlab knows how to mend; nothing was changed: "
                f"restore a backup, or move the log away to go on without the transactions in it",
            ) from error
        following = _intact_after(log, broken + 1)
        if following is not None:
            raise _damaged(wal, broken, following) from error
    quarantine = _copy_aside(wal)
    os.truncate(wal, committed)
    sync_file(wal)
    cut = Cut(quarantine, kept_bytes=committed, dropped_bytes=size - committed)
    _log.warning("log_cut", path=str(wal), kept_bytes=committed, dropped_bytes=cut.dropped_bytes, quarantine=str(quarantine))
    return cut


def _damaged(wal: Path, position: int, following: int) -> MemlabError:
    return internal(
        "damaged",
        f"{wal} is broken at byte {position} and goes on at byte {following} with transactions that can still be read; nothing "
        f"was changed: restore a backup, or move the log away to go on without the transactions in it",
        position=position,
    )


def _copy_aside(wal: Path) -> Path:
    quarantine = wal.with_name(f"{wal.name}.quarantine-{clock.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}")
    descriptor = os.open(quarantine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as copy, wal.open("rb") as original:
            shutil.copyfileobj(original, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        sync_folder(wal.parent)
    except BaseException:
        quarantine.unlink()
        raise
    return quarantine


def _walk(log: mmap.mmap, until: int) -> tuple[int, int]:
    """Follow the sizes of the records from the header on.

    Args:
        until: where to stop at the latest.
    Returns:
        where the last whole record before *until* ends, and where the last commit ends; 0 and 0 without a header.
    """
    header = _HEADER.match(log)
    if header is None:
        return 0, 0
    at = committed = header.end()
    frame, length, commit_size = _FRAME.unpack_from, _FRAME.size, len(_COMMITTED)
    last = min(until, len(log)) - length
    while at <= last:
        size = frame(log, at)[0]
        end = at + length + size
        if not size or end > until:
            break
        if size == commit_size and log[at + length : end] == _COMMITTED:
            committed = end
        at = end
    return at, committed


def _intact_after(log: mmap.mmap, start: int) -> int | None:
    """Return where the first record that begins at or after *start* and has the right checksum begins."""
    payload = log.find(_BEGIN, start + _FRAME.size)
    while payload != -1:
        size, stored = _FRAME.unpack_from(log, payload - _FRAME.size)
        end = payload + size
        is_whole = len(_COMMITTED) <= size and end <= len(log) and log[end - 2 : end] == _END
        if is_whole and checksum(log[payload:end]) == stored:
            return payload - _FRAME.size
        payload = log.find(_BEGIN, payload + 1)
    return None


def checksum(payload: bytes) -> int:
    """Return DuckDB's checksum of a record: its words multiplied and combined, the rest by MurmurHash64A."""
    words, rest = divmod(len(payload), 8)
    result = 5381
    if words:
        result ^= int(np.bitwise_xor.reduce(np.frombuffer(payload, "<u8", words) * _WORD))
    if rest:
        mixed = 0xE17A1465 ^ (rest * _REST & _MASK)
        mixed = (mixed ^ int.from_bytes(payload[-rest:], "little")) * _REST & _MASK
        mixed = (mixed ^ mixed >> 47) * _REST & _MASK
        result ^= mixed ^ mixed >> 47
    return result
