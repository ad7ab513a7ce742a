"""One open DuckDB instance: hardened when opened, used through cursors that no two tasks share.

Parameterised queries of two threads on one DuckDB connection return each other's rows. So each task borrows a cursor, which is
a connection of its own, everything is fetched before it goes back, and a cursor whose task failed is thrown away.
"""

from __future__ import annotations

import ctypes
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from memlab.errors import internal, validation

_READS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_CHANGES = (duckdb.StatementType.INSERT, duckdb.StatementType.UPDATE, duckdb.StatementType.DELETE)
_TRANSACTIONS = (duckdb.StatementType.TRANSACTION,)
_STATEMENTS_KEPT = 256
_IDLE_CURSORS_KEPT = 32
_NEVER = "4TB"  # the size of the log from which DuckDB itself would checkpoint, in the middle of somebody's commit


class Cursor:
    """A connection of its own with the statements it has parsed: parsing again costs a quarter of a point look-up."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.is_idle = True
        self._statements: dict[str, duckdb.Statement] = {}

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return every row of one SELECT."""
        self.is_idle = False
        rows: list[tuple[Any, ...]] = self.connection.execute(self._statement(sql, _READS), parameters).fetchall()
        self.is_idle = True
        return rows

    def read_arrow(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Return the result of one SELECT as a table."""
        self.is_idle = False
        # Through a relation: the result of execute() would be copied once more on its way to Arrow.
        table = self.connection.sql(self._statement(sql, _READS), params=list(parameters)).to_arrow_table()
        self.is_idle = True
        return table

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute one INSERT, UPDATE or DELETE; return what it returns: the count of rows, or the rows of its RETURNING."""
        rows: list[tuple[Any, ...]] = self.connection.execute(self._statement(sql, _CHANGES), parameters).fetchall()
        return rows

    def begin(self) -> None:
        """Open a transaction."""
        self.connection.execute(self._statement("BEGIN", _TRANSACTIONS))

    def commit(self) -> None:
        """Commit; returns without error also after a failed statement, when nothing was written, so read back."""
        self.connection.execute(self._statement("COMMIT", _TRANSACTIONS))

    def roll_back(self) -> None:
        """Give up the open transaction."""
        self.connection.execute(self._statement("ROLLBACK", _TRANSACTIONS))

    def is_change(self, sql: str) -> bool:
        """Return whether *sql* is an INSERT, UPDATE or DELETE."""
        return self._statement(sql, _READS + _CHANGES).type in _CHANGES

    def _statement(self, sql: str, allowed: Sequence[duckdb.StatementType]) -> duckdb.Statement:
        statement = self._statements.get(sql)
        if statement is None:
            parsed = self.connection.extract_statements(sql)
            if len(parsed) != 1:
                raise internal("bug", "one statement at a time")
            statement = parsed[0]
            if len(self._statements) >= _STATEMENTS_KEPT:
                self._statements.clear()
            self._statements[sql] = statement
        if statement.type not in allowed:
            raise internal("bug", f"no {statement.type.name} here; transactions and tables are memlab's own business")
        return statement

    def close(self) -> None:
        """Close the connection."""
        self._statements.clear()
        self.connection.close()


class Instance:
    """The database file, open. Who closes it sees to it that no cursor is out."""

    def __init__(self, path: Path, *, threads: int, memory_limit_bytes: int, create: bool = False) -> None:
        """Open *path*, which must exist unless *create*, and lock the configuration."""
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            raise validation("python", "DuckDB does not support free-threaded Python; use the ordinary build")
        if not create and not path.exists():  # DuckDB would make an empty database of it
            raise FileNotFoundError(2, "No such file or directory", str(path))
        self._parent = _connect(path, threads=threads, memory_limit_bytes=memory_limit_bytes)
        self._parent_lock = threading.Lock()
        self.writer = self._another_cursor()
        self.witness = self._another_cursor()  # reads back what the writer committed
        self.is_broken = False
        self._idle: list[Cursor] = []
        self._arrow_schemas: dict[str, pa.Schema] = {}

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """Lend a cursor to one task; it comes back idle or not at all."""
        try:
            cursor = self._idle.pop()
        except IndexError:
            cursor = self._another_cursor()
        try:
            yield cursor
            if not cursor.is_idle:
                raise internal("bug", "a database cursor came back in the middle of a result")
        except BaseException:
            cursor.close()  # whatever its state is, nobody else meets it
            raise
        if len(self._idle) < _IDLE_CURSORS_KEPT:
            self._idle.append(cursor)
        else:
            cursor.close()

    def _another_cursor(self) -> Cursor:
        with self._parent_lock:
            return Cursor(self._parent.cursor())

    def checkpoint(self) -> None:
        """Fold the log into the file. Never FORCE CHECKPOINT: it waits for good when a transaction stays open."""
        self.writer.connection.checkpoint()

    def run_script(self, sql: str) -> None:
        """Execute the statements of a migration; nothing else may make or change tables."""
        self.writer.connection.execute(sql)

    def arrow_schema(self, table: str) -> pa.Schema:
        """Return the columns of *table* with their Arrow types."""
        schema = self._arrow_schemas.get(table)
        if schema is None:
            with self.cursor() as cursor:
                schema = cursor.read_arrow(f'SELECT * FROM "{table}" LIMIT 0').schema  # noqa: S608 - a name from our own code
            self._arrow_schemas[table] = schema
        return schema

    def close(self) -> None:
        """Close every connection, and with the last of them the file; what is committed stays in the log."""
        for cursor in (*self._idle, self.witness, self.writer):
            cursor.close()
        self._idle.clear()
        self._parent.close()

    def abandon(self) -> None:
        """In a forked child: never touch the parent's connections again, not even when the interpreter ends.

        DuckDB's threads do not exist in the child; destroying a connection there ends in SIGSEGV.
        """
        for cursor in (self.writer, self.witness, *self._idle):
            _make_immortal(cursor.connection)
        _make_immortal(self._parent)
        self._idle = []


def _make_immortal(connection: duckdb.DuckDBPyConnection) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _connect(path: Path, *, threads: int, memory_limit_bytes: int) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        str(path),
        config={
            "threads": threads,
            "memory_limit": f"{memory_limit_bytes}B",
            "checkpoint_threshold": _NEVER,
            "max_temp_directory_size": f"{4 * memory_limit_bytes}B",
            "enable_external_access": "false",  # files, other databases, and data frames of the caller's by their names
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_unsigned_extensions": "false",
            "allow_persistent_secrets": "false",
            # It makes a join of every list of values; without it a short list is looked up in the primary key: 0.6 of the time.
            "disabled_optimizers": "in_clause",
        },
    )
    try:
        for statement in (
            # Times are UTC everywhere; without this a zoned value would be stored in the host's zone.
            "SET GLOBAL TimeZone = 'UTC'",
            # A shutdown must not fold a log that turns out to be damaged or behind the mark.
            "PRAGMA disable_checkpoint_on_shutdown",
            "SET lock_configuration = true",
        ):
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection
