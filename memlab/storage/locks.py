"""A lock that many readers share and a writer has alone; a waiting writer goes before new readers."""

from __future__ import annotations

import threading
from types import TracebackType


class ReadWriteLock:
    """Searches share it, changes of the in-memory indexes have it alone: FAISS ends in SIGSEGV when they meet.

    Not reentrant: a thread that holds it either way must not take it again.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()  # taken by itself, and not through the condition: a search does so a dozen times
        self._changed = threading.Condition(self._mutex)
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0
        self._reading_side, self._writing_side = _Reading(self), _Writing(self)

    def reading(self) -> _Reading:
        """Hold it together with other readers."""
        return self._reading_side

    def writing(self) -> _Writing:
        """Hold it alone."""
        return self._writing_side


class _Reading:
    __slots__ = ("_lock",)

    def __init__(self, lock: ReadWriteLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        lock = self._lock
        with lock._mutex:
            while lock._writing or lock._writers_waiting:
                lock._changed.wait()
            lock._readers += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        lock = self._lock
        with lock._mutex:
            lock._readers -= 1
            if lock._writers_waiting and not lock._readers:
                lock._changed.notify_all()


class _Writing:
    __slots__ = ("_lock",)

    def __init__(self, lock: ReadWriteLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        lock = self._lock
        with lock._mutex:
            lock._writers_waiting += 1
            try:
                while lock._writing or lock._readers:
                    lock._changed.wait()
            finally:
                lock._writers_waiting -= 1
            lock._writing = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        lock = self._lock
        with lock._mutex:
            lock._writing = False
            lock._changed.notify_all()
