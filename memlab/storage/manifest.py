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
import numpy as np

FORMAT = 1
NAME = "manifest.json"
_PIECE = 8 << 20  # files are hashed in pieces of 8 MiB, so that two cores can check one file


class Stale(Exception):  # noqa: N818 - a state to act on, not a failure
    """A saved index that must not be used; *reason* is missing, damaged, foreign, format or settings."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class FileDigest(msgspec.Struct, frozen=True):
    """Size and digest of one file; *sha256* is the SHA-256 of the SHA-256 digests of its pieces of 8 MiB."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
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


class _Sealed(msgspec.Struct, frozen=True):
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
    """Return the manifest in *folder* after checking whose it is; the files are checked where they are read.

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
    except (msgspec.DecodeError, RecursionError) as error:
        raise Stale("damaged", f"the {index} manifest is not one: {error}") from error
    manifest = sealed.manifest
    if sealed.sha256 != _seal(manifest):
        raise Stale("damaged", f"the {index} manifest does not match its digest")
    if manifest.format != FORMAT or manifest.index != index:
        raise Stale("format", f"a manifest of {manifest.index} in format {manifest.format}; {index} in {FORMAT} fits")
    if manifest.database_id != database_id:
        raise Stale("foreign", f"the {index} index belongs to database {manifest.database_id}, this is {database_id}")
    return manifest


def digest(path: Path) -> FileDigest:
    """Return the size and digest of the file as it lies on disk."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        pieces = _in_pieces(size, lambda start, stop: hashlib.sha256(os.pread(file.fileno(), stop - start, start)).digest())
    return FileDigest(size, hashlib.sha256(b"".join(pieces)).hexdigest())


def read_checked(folder: Path, name: str, manifest: Manifest) -> np.ndarray:
    """Return the bytes of one file of *manifest*, (n,) uint8, read once and checked before anything parses them.

    Raises:
        Stale: not in the manifest, missing, or other bytes than were saved.
    """
    expected = manifest.files.get(name)
    if expected is None:
        raise Stale("damaged", f"the {manifest.index} manifest lists no {name}")
    try:
        with (folder / name).open("rb") as file:
            if os.fstat(file.fileno()).st_size != expected.bytes:
                raise Stale("damaged", f"{name} of the {manifest.index} index has another size than was saved")
            content = np.empty(expected.bytes, np.uint8)

            def take(start: int, stop: int) -> bytes:
                piece = content.data[start:stop]
                if os.preadv(file.fileno(), [piece], start) != stop - start:
                    raise Stale("damaged", f"{name} of the {manifest.index} index is cut short")
                return hashlib.sha256(piece).digest()

            found = hashlib.sha256(b"".join(_in_pieces(expected.bytes, take))).hexdigest()
    except FileNotFoundError:
        raise Stale("missing", f"{name} of the {manifest.index} index is missing") from None
    except OSError as error:
        raise Stale("damaged", f"{name} of the {manifest.index} index cannot be read: {error.strerror}") from error
    if found != expected.sha256:
        raise Stale("damaged", f"{name} of the {manifest.index} index does not match its digest")
    return content


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


def _in_pieces(size: int, take: Any) -> list[bytes]:
    """Return take(start, stop) of every piece in order; large files on two threads (hashing and reading release the GIL)."""
    bounds = [(start, min(start + _PIECE, size)) for start in range(0, size, _PIECE)]
    if len(bounds) < 2:
        return [take(*bound) for bound in bounds]
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(lambda bound: take(*bound), bounds))
