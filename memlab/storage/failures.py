"""Every error of DuckDB and the operating system, as one of the five types.

The text says what happened to the caller's request and never what the database said: its messages carry values, and so
another session's words. The original error is chained (`raise ... from`) and, where it is ours to mend, logged under the id
that the caller sees.
"""

from __future__ import annotations

import errno
import secrets
from pathlib import Path

import duckdb
import structlog

from memlab.errors import ErrorType, MemlabError, internal, not_found, permission, timeout, validation

_log = structlog.get_logger(__name__)

# What a request's values can provoke although the operations' own validation should have refused them.
_VALUES = (
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.TypeMismatchException,
    duckdb.InvalidInputException,
    duckdb.InvalidTypeException,
    duckdb.BinderException,
    duckdb.NotImplementedException,
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = ("no space left", "file too large", "disk quota", "disk full", "out of disk")


def is_fatal(error: BaseException) -> bool:
    """Return whether the DuckDB instance is of no use any more: it must be closed and opened again."""
    if isinstance(error, (duckdb.FatalException, duckdb.InternalException)):
        return True
    # An instance that died under another thread refuses everything with these words, whatever the class.
    return isinstance(error, duckdb.Error) and "database has been invalidated" in str(error)


def is_rolled_back(error: BaseException) -> bool:
    """Return whether an error from COMMIT proves that nothing was written; any other leaves the outcome unknown."""
    if isinstance(error, duckdb.ConstraintException):
        return True
    # A failed write or sync of the log comes as a TransactionException too, and may have written everything.
    said = str(error).lower()
    return isinstance(error, duckdb.TransactionException) and ("constraint" in said or "conflict" in said)


def mapped(error: BaseException) -> MemlabError:
    """Return *error* as the one error that callers see; a MemlabError stays what it is."""
    if isinstance(error, MemlabError):
        return error
    if isinstance(error, OSError):
        return _of_system(error)
    if is_fatal(error):
        return _broke(error, "storage", "the database broke and is opened again at the next call", retryable=True)
    if isinstance(error, duckdb.ConstraintException):
        if "duplicate key" in str(error).lower():
            return validation("duplicate", "a row with this key is stored already")
        return _gap(error, "constraint", "a value that must be given is missing")
    if isinstance(error, duckdb.InterruptException):
        return timeout("deadline", "the database work was interrupted; nothing was changed")
    if isinstance(error, duckdb.TransactionException) and "conflict" in str(error).lower():
        return timeout("conflict", "another change of the same rows came first; try again")
    if isinstance(error, duckdb.OutOfMemoryException):
        return _broke(error, "memory", "the request needs more memory than storage.memory_limit_bytes allows")
    if isinstance(error, duckdb.ResourceInUseException):
        return _broke(error, "bug", "a database cursor was used from two places at once", retryable=True)
    if isinstance(error, duckdb.OperationalError) and any(word in str(error).lower() for word in _FULL_WORDS):
        return _broke(error, "disk_full", "the disk is full: free some space", retryable=True)
    if isinstance(error, _VALUES):
        return invalid(error)
    if "corrupt" in str(error).lower() or isinstance(error, duckdb.SerializationException):
        return _broke(error, "damaged", "the database file is damaged: restore a backup")
    if isinstance(error, duckdb.Error):
        return _broke(error, "storage", "the database failed")
    return _broke(error, "bug", "memlab failed in its storage")


def invalid(error: BaseException) -> MemlabError:
    """Return the VALIDATION error of values that could not even be handed to the database."""
    return _gap(error, "value", "a value does not fit the database")


def outcome_unknown(error: BaseException) -> MemlabError:
    """Return the error of a change whose COMMIT was in flight when storage failed."""
    return _broke(
        error,
        "outcome_unknown",
        "storage failed during COMMIT: the change may or may not be stored; repeat it with its idempotency key",
        retryable=True,
        outcome="unknown",
    )


def opening(error: BaseException, path: Path) -> MemlabError:
    """Return why the file at *path* could not be opened as a database, as one line for the person who gave the path."""
    text = str(error).lower()
    if isinstance(error, duckdb.IOException) and "could not set lock" in text:
        return permission("locked", f"{path} is open in another process; close it there first")
    if isinstance(error, duckdb.IOException) and "not a valid duckdb" in text:
        return not_ours(path)
    if isinstance(error, duckdb.PermissionException) and "extensions" in text:
        return not_ours(path)  # a file of another database system, which DuckDB would read through an extension
    if isinstance(error, duckdb.ConnectionException) and "different configuration" in text:
        return permission("locked", f"{path} is open in this process already, outside memlab; close it there first")
    if "permission denied" in text:
        return permission("access", f"{path} may not be read and written by this user")
    if "wal does not match" in text:
        return internal("damaged", f"{path}.wal belongs to another database than {path}: move it away or restore a backup")
    if "replaying wal" in text:
        return _broke(
            error,
            "damaged",
            f"the log {path}.wal cannot be read; nothing was changed: restore a backup, or move the log away to go on without "
            f"the transactions in it",
        )
    if "corrupt" in text or "could not read enough bytes" in text:
        return _broke(error, "damaged", f"{path} is damaged: restore a backup")
    return mapped(error)


def not_ours(path: Path) -> MemlabError:
    """Return the refusal of a file that memlab did not write."""
    return validation("foreign", f"{path} is not a memlab database; give another path")


def _of_system(error: OSError) -> MemlabError:
    name = error.filename if isinstance(error.filename, str) else "a file"
    if error.errno in _FULL:
        return _broke(error, "disk_full", "the disk is full: free some space", retryable=True)
    if isinstance(error, FileNotFoundError):
        return not_found("file", f"no file {name}")
    if isinstance(error, PermissionError):
        return permission("access", f"{name} may not be read and written by this user")
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return validation("file", f"{name} is not a file")
    return _broke(error, "storage", "the operating system failed to read or write")


def _gap(error: BaseException, reason: str, text: str) -> MemlabError:
    """Return a VALIDATION error for what should have been refused before it reached the database, and say so in the log."""
    _log.warning("validator_gap", kind=type(error).__name__)
    return validation(reason, text)


def _broke(error: BaseException, reason: str, text: str, *, retryable: bool = False, **fields: object) -> MemlabError:
    id = secrets.token_hex(6)
    _log.error("storage_failed", id=id, reason=reason, kind=type(error).__name__, detail=str(error)[:500])
    return MemlabError(ErrorType.INTERNAL, reason, f"{text} (error {id})", retryable=retryable, id=id, **fields)
