"""What a member of a group commit may do: insert, query, change; never begin, commit or roll back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from memlab.errors import MemlabError, internal
from memlab.storage import failures
from memlab.storage.instance import Instance

Column: TypeAlias = Sequence[Any] | np.ndarray | pa.Array

# A parameterised VALUES costs 0.35 ms and 0.12 ms a row, an Arrow table 1.1 ms and 0.01 ms a row.
_FEW = 6


class Transaction:
    """The one transaction that is open. All members of a group share it, in order.

    Inserted rows wait in memory, so that the rows of a whole group become one columnar INSERT a table, and so do the seqs of
    removed ones; they are written before the next query or change, and before COMMIT. A member that queries for itself alone
    therefore cuts the group's rows in pieces: what all members need (idempotency keys) is best looked up by the first of them,
    for all.

    Attributes:
        changed: grows with every insert and change; 0 means that there is nothing to commit.
        notes: free for the caller: what to publish once it is committed. Holds nothing of members that failed.
        failure: the first error inside it; from then on it can only be rolled back.
    """

    def __init__(self, instance: Instance) -> None:
        self.changed = 0
        self.notes: list[Any] = []
        self.failure: MemlabError | None = None
        self._instance = instance
        self._writer = instance.writer
        self._pending: dict[tuple[str, tuple[str, ...]], list[tuple[Column, ...]]] = {}
        self._leaving: list[int] = []

    def insert(self, table: str, columns: Mapping[str, Column]) -> None:
        """Add rows to *table*, in memory until they are needed.

        Args:
            columns: by name, of equal length; a column that is left out is NULL. A two-dimensional array of float32 fills a BLOB
                column, one row each; one of datetime64 a TIMESTAMP column.
        """
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise internal("bug", f"columns of {table} differ in length")
        if lengths == {0}:
            return
        self._pending.setdefault((table, tuple(columns)), []).append(tuple(columns.values()))
        self.changed += 1

    def remove(self, seqs: Sequence[int]) -> None:
        """Take rows out of `memories`, those inserted before among them; in memory until it is needed.

        No seq is ever given twice, so that a row which is inserted later is none of them.
        """
        self._leaving.extend(seqs)
        self.changed += 1

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return every row of one SELECT as this transaction sees them, or of a change with RETURNING."""
        self.flush()
        try:
            if not self._writer.is_change(sql):
                return self._writer.read(sql, parameters)
            self.changed += 1
            return self._writer.change(sql, parameters)
        except Exception as error:
            raise self._failed(error) from error

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Execute one INSERT, UPDATE or DELETE."""
        self.flush()
        self.changed += 1
        try:
            self._writer.change(sql, parameters)
        except Exception as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        """Write the rows that wait, and take out those that leave; their errors (a duplicate key) show here."""
        pending, self._pending = self._pending, {}
        leaving, self._leaving = self._leaving, []
        try:
            for (table, names), parts in pending.items():
                if sum(len(part[0]) for part in parts) <= _FEW:
                    self._insert_values(table, names, parts)
                else:
                    self._insert_arrow(table, names, parts)
            if len(leaving) == 1:
                self._writer.change(_REMOVE_ONE, leaving)
            elif leaving:
                self._writer.change(_REMOVE_MANY, [leaving])
        except Exception as error:  # whatever it was, the rows have left the buffer and are not written
            raise self._failed(error) from error

    def _insert_values(self, table: str, names: tuple[str, ...], parts: Sequence[tuple[Column, ...]]) -> None:
        rows = [row for part in parts for row in zip(*map(_plain, part), strict=True)]
        self._writer.change(_insert_sql(table, names, len(rows)), [value for row in rows for value in row])

    def _insert_arrow(self, table: str, names: tuple[str, ...], parts: Sequence[tuple[Column, ...]]) -> None:
        schema = self._instance.arrow_schema(table)
        unknown = set(names) - set(schema.names)
        if unknown:
            raise internal("bug", f"{table} has no column {min(unknown)}")
        rows = sum(len(part[0]) for part in parts)
        place = {name: index for index, name in enumerate(names)}
        columns = [
            _joined([part[place[field.name]] for part in parts], field.type)
            if field.name in place
            else pa.nulls(rows, field.type)
            for field in schema
        ]
        self._writer.connection.from_arrow(pa.Table.from_arrays(columns, schema=schema)).insert_into(table)

    def _failed(self, error: Exception) -> MemlabError:
        """Remember the first failure: DuckDB's COMMIT would pretend to succeed after it."""
        if failures.is_fatal(error):
            self._instance.is_broken = True
        # What Arrow and DuckDB's parameters raise for a value of the wrong kind, before the database has seen it.
        is_value = isinstance(error, (pa.ArrowException, TypeError, ValueError, OverflowError))
        mapped = failures.invalid(error) if is_value else failures.mapped(error)
        self.failure = self.failure or mapped
        return mapped


_REMOVE_ONE = "DELETE FROM memories WHERE seq = ?"
_REMOVE_MANY = "DELETE FROM memories WHERE seq IN (SELECT unnest(?))"


@lru_cache(maxsize=128)
def _insert_sql(table: str, names: tuple[str, ...], rows: int) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    row = "(" + ", ".join("?" * len(names)) + ")"
    return f'INSERT INTO "{table}" ({quoted}) VALUES {", ".join([row] * rows)}'  # noqa: S608 - names from our own code


def _plain(column: Column) -> Sequence[Any]:
    """Return a column as Python values, which DuckDB takes as parameters."""
    if isinstance(column, np.ndarray):
        return [row.tobytes() for row in column] if column.ndim == 2 else column.tolist()
    return column.to_pylist() if isinstance(column, pa.Array) else column


def _joined(columns: Sequence[Column], kind: pa.DataType) -> pa.Array:
    """Return columns one after the other as one array: DuckDB scans chunk by chunk, and 256 of one row cost it 45 ms."""
    if len(columns) == 1:
        return _array(columns[0], kind)
    if all(isinstance(column, np.ndarray) for column in columns):
        return _array(np.concatenate(columns), kind)
    if any(isinstance(column, (np.ndarray, pa.Array)) for column in columns):
        return pa.concat_arrays([_array(column, kind) for column in columns])
    return pa.array([value for column in columns for value in column], kind)


def _array(column: Column, kind: pa.DataType) -> pa.Array:
    """Return a column as an Arrow array of the table's type."""
    if isinstance(column, np.ndarray) and column.ndim == 2 and pa.types.is_binary(kind):
        rows = np.ascontiguousarray(column)
        width = rows.dtype.itemsize * rows.shape[1]
        fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(rows)])
        return fixed.cast(kind)
    if isinstance(column, pa.Array):
        return column if column.type == kind else column.cast(kind)
    return pa.array(column, kind)
