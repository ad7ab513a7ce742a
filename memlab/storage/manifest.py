"""The manifest of a derived index: whose it is, what it covers, and the digest of every file.

FAISS files carry no checksum and read whatever they are given, so nothing of an index is used before its manifest and the
digests of its files hold. Whatever does not hold is `Stale`: the caller says why in a log line and rebuilds from the database.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

FORMAT = 1
NAME = "manifest.json"
_PIECE = 8 << 20  # files are hashed in pieces, so that two cores can check one file
_BUFFER = 256 << 10  # stays in the cache


class Stale(Exception):  # noqa: N818 - a state to act on, not a failure
    """A saved index that must not be used; *reason* is missing, damaged, foreign, format or settings."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class FileDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and digest of one file; *sha256* is the SHA-256 of the SHA-256 digests of its pieces of 8 MiB."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a saved index is.

    Attributes:
        index: `vectors` or `text`.
        database_id: of the database that it was derived from.
        generation: grows with every build of the index.
        commit_seq: of the last transaction that it covers.
        count: entries in it.
        details: what only this index knows: dimension, kind, parameters, covered_seq, …
        files: by name, every file that belongs to it.
    """

    index: str
    database_id: str
    generation: int
    commit_seq: int
    count: int
    details: dict[str, Any]
    files: dict[str, FileDigest]
    format: int = FORMAT


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest: Manifest
    sha256: str


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put *manifest* in its place in one step; its files must be synced and in theirs."""
    body = msgspec.json.format(msgspec.json.encode(_Sealed(manifest, _seal(manifest))), indent=1)
    temporary = folder / f"{NAME}.writing"
    with open(temporary, "wb", opener=_private) as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)
    sync_folder(folder)


def read_manifest(folder: Path, *, index: str, database_id: str) -> Manifest:
    """Return the manifest in *folder* after checking whose it is; `check_files` checks the rest.

    Raises:
        Stale: missing, damaged, of another format, or another database's.
    """
    try:
        body = (folder / NAME).read_bytes()
    except FileNotFoundError:
        raise Stale("missing", f"no {index} index has been saved") from None
    except OSError as error:
        raise Stale("damaged", f"the {index} manifest cannot be read: {error.strerror}") from error
    try:
        sealed = msgspec.json.decode(body, type=_Sealed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Stale("damaged", f"the {index} manifest is not one: {error}") from error
    manifest = sealed.manifest
    if sealed.sha256 != _seal(manifest):
        raise Stale("damaged", f"the {index} manifest does not match its digest")
    if manifest.format != FORMAT or manifest.index != index:
        raise Stale("format", f"a manifest of {manifest.index} in format {manifest.format}; {index} in {FORMAT} fits")
    if manifest.database_id != database_id:
        raise Stale("foreign", f"the {index} index belongs to database {manifest.database_id}, this is {database_id}")
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file of *manifest* with its digest, before anything parses one.

    Raises:
        Stale: missing, or other bytes than were saved.
    """
    for name, saved in manifest.files.items():
        try:
            found = digest(folder / name)
        except FileNotFoundError:
            raise Stale("missing", f"{name} of the {manifest.index} index is missing") from None
        except OSError as error:
            raise Stale("damaged", f"{name} of the {manifest.index} index cannot be read: {error.strerror}") from error
        if found != saved:
            raise Stale("damaged", f"{name} of the {manifest.index} index does not match its digest")


def digest(path: Path) -> FileDigest:
    """Return the size and digest of a file as it lies on disk."""
    with path.open("rb") as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        starts = range(0, size, _PIECE)
        if len(starts) < 2:
            pieces = [_hash(descriptor, start, size) for start in starts]
        else:  # reading and hashing release the GIL: 154 MB take 55 ms on two cores
            with ThreadPoolExecutor(max_workers=2) as pool:
                pieces = list(pool.map(lambda start: _hash(descriptor, start, min(start + _PIECE, size)), starts))
    return FileDigest(size, hashlib.sha256(b"".join(pieces)).hexdigest())


def _hash(descriptor: int, start: int, stop: int) -> bytes:
    found = hashlib.sha256()
    buffer = memoryview(bytearray(min(_BUFFER, stop - start)))
    while start < stop:
        read = os.preadv(descriptor, [buffer[: stop - start]], start)
        if not read:
            break  # cut short while it was read: the digest will tell
        found.update(buffer[:read])
        start += read
    return found.digest()


def publish(temporary: Path, final: Path) -> None:
    """Sync a finished file and give it its name; `write_manifest` syncs the directory."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)


def remove_unlisted(folder: Path, keep: Mapping[str, object], suffixes: tuple[str, ...]) -> None:
    """Delete files of earlier generations, and what an interrupted save left behind."""
    for path in folder.iterdir():
        if path.name not in keep and path.name.endswith(suffixes):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make names that were created, replaced or removed in *folder* durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _seal(manifest: Manifest) -> str:
    return hashlib.sha256(msgspec.json.encode(manifest, order="deterministic")).hexdigest()
