"""The one error a caller of memlab sees, and its tree.

    MemlabError            what was given, what fits, what to do; and for programs: type, reason, retryable
    ├── VALIDATION         the request can never succeed as it stands   unknown_operation, unknown_parameter, type, bounds,
    │                                                                   shape, vector, settings, embedder, cursor, closed, …
    ├── NOT_FOUND          no such thing in this session                memory, session, file, run
    ├── PERMISSION         known, and not allowed                       locked (another process holds the file), scope
    ├── TIMEOUT            would have been served with time or room     pool_full, deadline, conflict, rate_limited, …
    └── INTERNAL           memlab or something below it broke           storage, outcome_unknown, damaged, disk_full, bug

Callers route on the five types. `retryable` says whether the same call may succeed later; a retried write carries the
idempotency key of the first try. DuckDB, FAISS, tantivy and operating system errors are mapped inside `storage/`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum


class ErrorType(StrEnum):
    """The five kinds of failure."""

    VALIDATION = "VALIDATION"
    NOT_FOUND = "NOT_FOUND"
    PERMISSION = "PERMISSION"
    TIMEOUT = "TIMEOUT"
    INTERNAL = "INTERNAL"


class MemlabError(Exception):
    """A failure with a type and a reason that programs route on, and a sentence that a person acts on.

    Args:
        type: one of the five.
        reason: a short lower-case word for programs, such as `pool_full`.
        text: what was given, what fits, what to do; one line.
        retryable: whether the same call may succeed later; default: true for TIMEOUT alone.
        fields: further facts for programs, JSON-compatible.
    """

    def __init__(self, type: ErrorType, reason: str, text: str, *, retryable: bool | None = None, **fields: object) -> None:
        super().__init__(text)
        self.type = type
        self.reason = reason
        self.text = text
        self.retryable = type is ErrorType.TIMEOUT if retryable is None else retryable
        self.fields = fields

    def __repr__(self) -> str:
        return f"MemlabError({self.type}, {self.reason!r}, {self.text!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.type, self.reason, self.text, self.retryable, self.fields)

    def copy(self) -> MemlabError:
        """Return an equal error with no traceback, for callers that share one failure."""
        return _rebuild(self.type, self.reason, self.text, self.retryable, self.fields)


def _rebuild(type: ErrorType, reason: str, text: str, retryable: bool, fields: dict[str, object]) -> MemlabError:
    return MemlabError(type, reason, text, retryable=retryable, **fields)


def validation(reason: str, text: str, **fields: object) -> MemlabError:
    """Return a VALIDATION error: the request can never succeed as it stands."""
    return MemlabError(ErrorType.VALIDATION, reason, text, retryable=None, **fields)


def not_found(reason: str, text: str, **fields: object) -> MemlabError:
    """Return a NOT_FOUND error; the same text whether the thing is absent or another session's."""
    return MemlabError(ErrorType.NOT_FOUND, reason, text, retryable=None, **fields)


def permission(reason: str, text: str, **fields: object) -> MemlabError:
    """Return a PERMISSION error: known, and not allowed."""
    return MemlabError(ErrorType.PERMISSION, reason, text, retryable=None, **fields)


def timeout(reason: str, text: str, **fields: object) -> MemlabError:
    """Return a retryable TIMEOUT error: served, had there been time or room."""
    return MemlabError(ErrorType.TIMEOUT, reason, text, retryable=None, **fields)


def internal(reason: str, text: str, *, retryable: bool = False, **fields: object) -> MemlabError:
    """Return an INTERNAL error: memlab or something below it broke."""
    return MemlabError(ErrorType.INTERNAL, reason, text, retryable=retryable, **fields)


def nearest(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known word closest to *given*, or `; known: …` when none is close.

    >>> nearest("episodic.recal", ["episodic.recall", "session.list"])
    "; did you mean 'episodic.recall'?"
    """
    words = sorted(known)
    close = difflib.get_close_matches(given, words, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(words)}" if len(words) <= 30 else ""
