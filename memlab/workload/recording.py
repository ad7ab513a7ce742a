"""Writes down what a live engine is asked, in the recorded form of `workload.trace`: never content.

    with TraceRecorder("trace.parquet") as recorder, Memory.open("lab.duckdb", recorder=recorder) as memory:
        ...

Rows gather in arrays, and a thread writes them as one part after another into `trace.parquet.parts`; `close` makes one sorted
file of them. A process that is killed leaves the parts, which `workload.trace.load` reads as well: what was flushed is not lost.
When the disk is slower than the traffic, further calls are counted as dropped, so that a recording takes no more memory than
`MOST_WAITING` rows of about a hundred bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import secrets
import shutil
import sys
import threading
from array import array
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from memlab.errors import ErrorType, MemlabError, internal, validation
from memlab.measure.clock import SYSTEM, Clock
from memlab.middleware.cache import Rule, canonical, weigh
from memlab.operations.registry import Operation, lookup
from memlab.values import Request, Response, Table
from memlab.workload.trace import PARTS

FLUSH_ROWS = 8_192
FLUSH_S = 5.0
MOST_WAITING = 8 * FLUSH_ROWS
_WEIGHED = 4  # memories of a list
_MOST_KNOWN = 1 << 16  # hashes and sizes remembered; then they are made again
_NUMBERS = ("at_ns", "took_ns", "session", "key", "ttl_s", "request_bytes", "answer_bytes")
_TYPES = {"session": "Q", "key": "Q", "ttl_s": "d"}
_FLAGS = ("reads", "cacheable", "cached")
_WORDS = ("operation", "outcome")
_SCHEMA = pa.schema(
    [
        ("at_ns", pa.int64()),
        ("took_ns", pa.int64()),
        ("operation", pa.string()),
        ("reads", pa.bool_()),
        ("cacheable", pa.bool_()),
        ("session", pa.uint64()),
        ("key", pa.uint64()),
        ("labels", pa.list_(pa.uint64())),
        ("ttl_s", pa.float64()),
        ("request_bytes", pa.int64()),
        ("answer_bytes", pa.int64()),
        ("outcome", pa.string()),
        ("cached", pa.bool_()),
    ]
)


class TraceRecorder:
    """Takes finished calls, as `middleware.observe` tells them, from any thread.

    Args:
        path: of the trace to be; neither it nor `<path>.parts` may exist.
        flush_rows, flush_s: rows are written when so many wait, and at least so often.
        clock: its reading now is where `at_ns` counts from.
    Raises:
        MemlabError: VALIDATION `file`: there is something already, or the folder cannot be written.
    """

    def __init__(
        self, path: str | Path, *, flush_rows: int = FLUSH_ROWS, flush_s: float = FLUSH_S, clock: Clock = SYSTEM
    ) -> None:
        self.path = Path(path)
        self._parts = self.path.with_name(self.path.name + PARTS)
        for one in (self.path, self._parts):
            if one.exists():
                raise validation("file", f"'{one}' exists already; a recording makes a new file: give another name")
        try:
            self._parts.mkdir()
        except OSError as error:
            raise validation(
                "file", f"cannot write '{self.path}': {error.strerror}; give a file in a folder that is there"
            ) from None
        self._secret = secrets.token_bytes(32)
        self._origin = clock.monotonic_ns()
        self._flush_rows, self._flush_s = flush_rows, flush_s
        self._rules: dict[str, tuple[Operation, Rule]] = {}
        self._hashes: dict[Hashable, int] = {}
        self._answers: dict[int, tuple[list[int], int]] = {}  # by key: labels and size of what the cache may serve
        self._waiting = _Rows()
        self._changed = threading.Condition()
        self._recorded = self._dropped = self._flushed = 0
        self._is_paused = self._is_closed = False
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._write, name="memlab-trace", daemon=True)
        self._thread.start()

    def __call__(
        self, request: Request, started_ns: int, finished_ns: int, response: Response | None, error: BaseException | None
    ) -> None:
        """Take one call; whatever goes wrong here is no failure of the call, which is then counted as dropped."""
        if self._is_paused or self._is_closed:
            return
        try:
            self._take(request, started_ns, finished_ns, response, error)
        except Exception:  # noqa: BLE001
            self._dropped += 1

    def _take(
        self, request: Request, started_ns: int, finished_ns: int, response: Response | None, error: BaseException | None
    ) -> None:
        declared, rule = self._rules.get(request.operation) or self._learn(request.operation)
        keeps = rule.keeps
        try:
            parameters = canonical(request.parameters)
        except (TypeError, ValueError, OverflowError):  # nothing to recognise it by, so nothing that a cache could keep
            parameters, keeps = secrets.token_bytes(16), False
        session = self._hash(request.session)
        key = self._digest(b"%d %d " % (self._hash(request.operation), session) + parameters)
        known = self._answers.get(key) if response is not None and response.cached else None
        labels, answer_bytes = known or self._look(rule, request, key, response, keeps)
        numbers = (
            started_ns - self._origin,
            finished_ns - started_ns,
            session,
            key,
            math.nan if declared.ttl_s is None else declared.ttl_s,
            len(parameters),
            answer_bytes,
        )
        with self._changed:
            if len(self._waiting) >= MOST_WAITING or self._failure is not None:
                self._dropped += 1
                return
            self._waiting.add(
                numbers,
                labels,
                (rule.reads, keeps, response is not None and response.cached),
                (request.operation, "ok" if error is None else _kind_of(error)),
            )
            self._recorded += 1
            if len(self._waiting) >= self._flush_rows:
                self._changed.notify()

    def pause(self) -> None:
        """Take no calls until `resume`; between them the trace is silent."""
        self._is_paused = True

    def resume(self) -> None:
        """Take calls again."""
        self._is_paused = False

    def statistics(self) -> dict[str, int]:
        """Return `recorded`, `flushed` (of them, safe from a kill) and `dropped` for want of room or of a disk."""
        return {"recorded": self._recorded, "flushed": self._flushed, "dropped": self._dropped}

    def close(self) -> int:
        """Write what waits, make one file of all parts, and return the number of calls in it; a second call does nothing.

        No call at all leaves no file.

        Raises:
            MemlabError: INTERNAL `storage`: not everything could be written; the parts that could stay where they are.
        """
        if not self._is_closed:
            with self._changed:
                self._is_closed = True
                self._changed.notify()
            self._thread.join()
            if self._failure is None:
                try:
                    self._merge()
                except OSError as error:
                    self._failure = error
        if self._failure is not None:
            raise internal(
                "storage", f"trace '{self.path}': {self._failure.strerror}; '{self._parts}' holds what was written until then"
            )
        return self._flushed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _learn(self, name: str) -> tuple[Operation, Rule]:
        declared = lookup(name)
        return self._rules.setdefault(name, (declared, Rule(declared, None)))

    def _hash(self, what: str | tuple[str, ...]) -> int:
        found = self._hashes.get(what)
        if found is None:
            if len(self._hashes) >= _MOST_KNOWN:
                self._hashes.clear()
            found = self._hashes[what] = self._digest(repr(what).encode())
        return found

    def _digest(self, data: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=self._secret).digest(), "little")

    def _look(self, rule: Rule, request: Request, key: int, response: Response | None, keeps: bool) -> tuple[list[int], int]:
        """Return the labels of a call and what its answer takes; the cache will not serve another one under the same key."""
        names = rule.touches(request) if not rule.reads else rule.depends_on(request) if keeps else ()
        labels = [self._hash(name) for name in names]
        if response is None:
            return labels, 0
        size = _size(response.value)
        if keeps:
            if len(self._answers) >= _MOST_KNOWN:
                self._answers.clear()
            self._answers[key] = labels, size
        return labels, size

    def _write(self) -> None:
        """Write parts until closed."""
        for number in range(sys.maxsize):
            with self._changed:
                if not self._is_closed and len(self._waiting) < self._flush_rows:
                    self._changed.wait(self._flush_s)
                rows, self._waiting = self._waiting, _Rows()
                is_last = self._is_closed
            if len(rows):
                try:
                    unfinished = self._parts / f"{number:08}.writing"
                    pyarrow.parquet.write_table(rows.to_arrow(), unfinished)
                    unfinished.replace(unfinished.with_suffix(".parquet"))
                except OSError as error:
                    self._failure = error
                    return
                self._flushed += len(rows)
            if is_last:
                return

    def _merge(self) -> None:
        parts = sorted(self._parts.glob("*.parquet"))
        if parts:
            unfinished = self._parts / "whole.writing"
            with pyarrow.parquet.ParquetWriter(unfinished, _SCHEMA) as out:
                for table in in_order(parts):
                    out.write_table(table)
            unfinished.replace(self.path)
        shutil.rmtree(self._parts)


class _Rows:
    """Rows in columns."""

    def __init__(self) -> None:
        self._numbers: dict[str, array[Any]] = {name: array(_TYPES.get(name, "q")) for name in _NUMBERS}
        self._flags = {name: array("b") for name in _FLAGS}
        self._words = {name: array("i") for name in _WORDS}
        self._codes: dict[str, int] = {}
        self._labels = array("Q")
        self._label_ends = array("i", [0])

    def __len__(self) -> int:
        return len(self._label_ends) - 1

    def add(self, numbers: Sequence[float], labels: Sequence[int], flags: Sequence[bool], words: Sequence[str]) -> None:
        """Append one row: values in the order of `_NUMBERS`, `_FLAGS` and `_WORDS`."""
        for column, number in zip(self._numbers.values(), numbers, strict=True):
            column.append(number)
        for column, flag in zip(self._flags.values(), flags, strict=True):
            column.append(flag)
        codes = self._codes
        for column, word in zip(self._words.values(), words, strict=True):
            column.append(codes.setdefault(word, len(codes)))
        self._labels.extend(labels)
        self._label_ends.append(len(self._labels))

    def to_arrow(self) -> pa.Table:
        """Return the rows in the columns of the recorded form, by time."""
        columns = {name: pa.array(_plain(column)) for name, column in self._numbers.items()}
        ttl_s = _plain(self._numbers["ttl_s"])
        columns["ttl_s"] = pa.array(ttl_s, mask=np.isnan(ttl_s))
        columns |= {name: pa.array(_plain(column).astype(np.bool_)) for name, column in self._flags.items()}
        known = pa.array(list(self._codes), pa.string())
        columns |= {
            name: pa.DictionaryArray.from_arrays(pa.array(_plain(column)), known).cast(pa.string())
            for name, column in self._words.items()
        }
        columns["labels"] = pa.ListArray.from_arrays(pa.array(_plain(self._label_ends)), pa.array(_plain(self._labels)))
        return _by_time(pa.table({field.name: columns[field.name] for field in _SCHEMA}, schema=_SCHEMA))


def in_order(parts: Sequence[Path]) -> Iterator[pa.Table]:
    """Yield the rows of parts by time, as many at once as cannot be preceded by one of a later part.

    Calls are told when they end, so one that took long stands in a later part than others that began after it.
    """
    begins = [pyarrow.parquet.ParquetFile(part).metadata.row_group(0).column(0).statistics.min for part in parts]
    ahead = np.minimum.accumulate([*begins[1:], np.iinfo(np.int64).max][::-1])[::-1]
    kept = _SCHEMA.empty_table()
    for part, earliest in zip(parts, ahead.tolist(), strict=True):
        kept = _by_time(pa.concat_tables([kept, pyarrow.parquet.read_table(part, schema=_SCHEMA)]))
        ready = int(np.searchsorted(kept["at_ns"].to_numpy(), earliest, side="right"))
        if ready:
            yield kept.slice(0, ready)
        kept = kept.slice(ready)


def _size(answer: Any) -> int:
    """Return what an answer takes; of a long list, by what its first memories take: weighing fifty takes 30 µs."""
    try:
        if type(answer) is Table and len(answer) > _WEIGHED:
            return weigh(tuple(itertools.islice(answer, _WEIGHED)))[0] * len(answer) // _WEIGHED
        return weigh(answer)[0]
    except (TypeError, ValueError, OverflowError):
        return sys.getsizeof(answer)


def _by_time(table: pa.Table) -> pa.Table:
    return table.take(pa.array(np.argsort(table["at_ns"].to_numpy(), kind="stable")))


def _plain(column: array[int] | array[float]) -> npt.NDArray[np.generic]:
    return np.frombuffer(column, dtype=column.typecode)


def _kind_of(error: BaseException) -> str:
    if isinstance(error, MemlabError):
        return error.type.value
    return ErrorType.INTERNAL.value if isinstance(error, Exception) else "cancelled"
