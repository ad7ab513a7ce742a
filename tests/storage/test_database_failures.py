"""Every failure below becomes one of the five types, and what broke is opened again in place."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import duckdb
import pytest
import structlog

from memlab.errors import ErrorType, MemlabError, not_found
from memlab.storage import database as module
from memlab.storage import failures
from memlab.storage.database import Transaction
from tests.storage.rows import insert, nothing, opened, rows_of, stored


@pytest.fixture
def database(tmp_path):
    with opened(tmp_path / "lab.duckdb") as database:
        yield database


# --- the table of reliability ----------------------------------------------------------------------------------------

SECRET = "the words of another session"
TABLE = [
    (duckdb.ConstraintException(f'Constraint Error: Duplicate key "{SECRET}"'), "VALIDATION", "duplicate", False),
    (duckdb.ConstraintException("Constraint Error: NOT NULL constraint failed"), "VALIDATION", "constraint", False),
    (duckdb.ConversionException(SECRET), "VALIDATION", "value", False),
    (duckdb.InvalidInputException(SECRET), "VALIDATION", "value", False),
    (duckdb.BinderException(SECRET), "VALIDATION", "value", False),
    (duckdb.OutOfRangeException(SECRET), "VALIDATION", "value", False),
    (duckdb.NotImplementedException(SECRET), "VALIDATION", "value", False),
    (duckdb.TypeMismatchException(SECRET), "VALIDATION", "value", False),
    (duckdb.InterruptException(SECRET), "TIMEOUT", "deadline", True),
    (duckdb.TransactionException("Conflict on tuple deletion!"), "TIMEOUT", "conflict", True),
    (duckdb.ResourceInUseException(SECRET), "INTERNAL", "bug", True),
    (duckdb.FatalException(SECRET), "INTERNAL", "storage", True),
    (duckdb.InternalException(SECRET), "INTERNAL", "storage", True),
    (duckdb.OutOfMemoryException(SECRET), "INTERNAL", "memory", False),
    (duckdb.IOException(f"{SECRET}: No space left on device"), "INTERNAL", "disk_full", True),
    (duckdb.TransactionException(f"Failed to commit: {SECRET}: No space left on device"), "INTERNAL", "disk_full", True),
    (duckdb.IOException(SECRET), "INTERNAL", "storage", False),
    (duckdb.Error(f"Corrupt database file: {SECRET}"), "INTERNAL", "damaged", False),
    (duckdb.SerializationException(SECRET), "INTERNAL", "damaged", False),
    (duckdb.ParserException(SECRET), "INTERNAL", "storage", False),
    (duckdb.CatalogException(SECRET), "INTERNAL", "storage", False),
    (duckdb.Error("FATAL: database has been invalidated because of a previous fatal error"), "INTERNAL", "storage", True),
    (OSError(errno.ENOSPC, SECRET), "INTERNAL", "disk_full", True),
    (OSError(errno.EDQUOT, SECRET), "INTERNAL", "disk_full", True),
    (OSError(errno.EIO, SECRET), "INTERNAL", "storage", False),
    (FileNotFoundError(errno.ENOENT, SECRET, "a.duckdb"), "NOT_FOUND", "file", False),
    (PermissionError(errno.EACCES, SECRET, "a.duckdb"), "PERMISSION", "access", False),
    (IsADirectoryError(errno.EISDIR, SECRET, "a.duckdb"), "VALIDATION", "file", False),
    (ZeroDivisionError(SECRET), "INTERNAL", "bug", False),
]


@pytest.mark.parametrize(("error", "type", "reason", "retryable"), TABLE, ids=lambda part: type(part).__name__)
def test_every_error_has_its_type(error, type, reason, retryable):
    """One of the five types, a reason and whether to try again; never the database's own words, which hold values."""
    mapped = failures.mapped(error)
    assert (mapped.type, mapped.reason, mapped.retryable) == (type, reason, retryable)
    assert SECRET not in mapped.text + repr(mapped.fields)
    assert "\n" not in mapped.text


def test_a_memlab_error_stays_what_it_is():
    """What is mapped already is not mapped again."""
    error = not_found("memory", "no such memory")
    assert failures.mapped(error) is error


def test_an_internal_error_is_found_in_the_log_by_its_id():
    """The caller gets an opaque id; the log has what happened under it."""
    with structlog.testing.capture_logs() as lines:
        error = failures.mapped(duckdb.IOException("cannot read block 7"))
    (line,) = [line for line in lines if line["event"] == "storage_failed"]
    assert line["id"] == error.fields["id"]
    assert line["id"] in error.text
    assert "block 7" in line["detail"]


def test_a_gap_in_validation_is_logged_but_a_duplicate_is_none():
    """What reached the database although it never fits is for us to mend; an equal key is the caller's affair."""
    with structlog.testing.capture_logs() as lines:
        failures.mapped(duckdb.ConstraintException("Duplicate key"))
        assert lines == []
        failures.mapped(duckdb.ConversionException("x"))
    assert [line["event"] for line in lines] == ["validator_gap"]


@pytest.mark.parametrize(
    ("error", "is_certain"),
    [
        (duckdb.ConstraintException("Failed to commit: PRIMARY KEY or UNIQUE constraint violation"), True),
        (duckdb.TransactionException("Failed to commit: PRIMARY KEY or UNIQUE constraint violation"), True),
        (duckdb.TransactionException("Failed to commit: write-write conflict on key"), True),
        (duckdb.TransactionException("Failed to commit: Could not write file: File too large"), False),
        (duckdb.TransactionException("Failed to commit: fsync failed"), False),
        (duckdb.IOException("x"), False),
        (duckdb.FatalException("x"), False),
        (duckdb.InterruptException("x"), False),
        (MemoryError(), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_a_conflict_proves_that_nothing_was_written(error, is_certain):
    """A COMMIT that failed in any other way may have written everything."""
    assert failures.is_rolled_back(error) is is_certain


# --- the disk fails for real -----------------------------------------------------------------------------------------


def in_a_process(script: str, path: Path, root: Path) -> list[str]:
    """Run *script* where files can be kept from growing; return the lines it prints that begin with a colon."""
    preamble = """
import os, resource, sys, threading
from pathlib import Path
from memlab.errors import MemlabError
from tests.storage.rows import insert, nothing, opened, rows_of, stored

path = Path(sys.argv[1])
log = path.with_name(path.name + ".wal")

def may_grow(file, more):
    size = resource.RLIM_INFINITY if more is None else file.stat().st_size + more
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def say(*words):
    print(":", *words, flush=True)

database = opened(path)
"""
    done = subprocess.run(
        [sys.executable, "-c", preamble + script + "\ndatabase.close()\n", path],
        cwd=root, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line[2:] for line in done.stdout.splitlines() if line.startswith(": ")]


def test_a_commit_that_the_disk_cuts_short_is_unknown_and_then_resolved(tmp_path, root):
    """Every member hears that the outcome is unknown; nothing is rerun; reads and writes go on in the instance opened next."""
    said = in_a_process(
        """
published = []
publish = lambda done: published.extend(done.notes)
database.transact([insert(1)], publish)
may_grow(log, 60)
for answer in database.transact([insert(2), insert(3)], publish):
    say(answer.type, answer.reason, answer.retryable, answer.fields["outcome"])
may_grow(log, None)
say(stored(database))
say(database.transact([insert(2), insert(3)], publish), stored(database), published)
statistics = database.statistics()
say(statistics["outcomes_unknown"], statistics["reopened"], statistics["reruns"], statistics["commits"])
""",
        tmp_path / "lab.duckdb",
        root,
    )
    assert said == [
        "INTERNAL outcome_unknown True unknown",
        "INTERNAL outcome_unknown True unknown",
        "[1]",
        "[(2,), (3,)] [1, 2, 3] [1, 2, 3]",
        "1 1 0 2",
    ]
    with opened(tmp_path / "lab.duckdb") as database:
        assert stored(database) == [1, 2, 3]


def test_a_checkpoint_that_fails_ends_the_instance_and_no_row(tmp_path, root):
    """DuckDB gives up for good when a checkpoint fails; the next call opens the file again, and all rows are there."""
    said = in_a_process(
        """
for start in range(0, 20_000, 5_000):
    database.transact([insert(*range(start, start + 5_000))], nothing)
may_grow(path, 4096)
try:
    database.checkpoint()
except MemlabError as error:
    say(error.type, error.retryable)
may_grow(path, None)
say(database.read("SELECT count(*) FROM memories"), database.statistics()["reopened"])
say(database.transact([insert(20_000)], nothing))
database.checkpoint()
say(database.statistics()["checkpoints"], database.statistics()["checkpoint_failures"])
""",
        tmp_path / "lab.duckdb",
        root,
    )
    assert said == ["INTERNAL True", "[(20000,)] 1", "[(20000,)]", "1 1"]
    with opened(tmp_path / "lab.duckdb") as database:
        assert stored(database) == list(range(20_001))


def test_a_checkpoint_that_fails_at_close_loses_nothing(tmp_path, root):
    """Closing with a full disk leaves the log, and the next opening reads it."""
    in_a_process("database.transact([insert(*range(3_000))], nothing); may_grow(path, 4096)", tmp_path / "lab.duckdb", root)
    with opened(tmp_path / "lab.duckdb") as database:
        assert stored(database) == list(range(3_000))


def test_readers_of_a_broken_instance_are_told_and_served_again(tmp_path, root):
    """While the instance breaks under many readers each read is right or a retryable INTERNAL error, and none hangs."""
    said = in_a_process(
        """
database.transact([insert(*range(20_000))], nothing)
stop, wrong, refused = threading.Event(), [], []

def reads():
    while not stop.is_set():
        try:
            if database.read("SELECT count(*) FROM memories") != [(20_000,)]:
                wrong.append(1)
        except MemlabError as error:
            (refused if (error.type, error.retryable) == ("INTERNAL", True) else wrong).append(str(error))

readers = [threading.Thread(target=reads) for _ in range(4)]
for reader in readers:
    reader.start()
for _ in range(3):
    may_grow(path, 4096)
    try:
        database.checkpoint()
    except MemlabError:
        pass
    may_grow(path, None)
    database.read("SELECT 1")
stop.set()
for reader in readers:
    reader.join()
say(wrong, database.statistics()["reopened"] >= 1, database.transact([insert(20_000)], nothing))
""",
        tmp_path / "lab.duckdb",
        root,
    )
    assert said == ["[] True [(20000,)]"]


# --- after the failure -----------------------------------------------------------------------------------------------


def test_a_transaction_in_doubt_that_was_written_is_published_later(database, monkeypatch):
    """Where COMMIT did write, the rows reach the indexes at the next write, though their own caller only heard `unknown`."""
    published = []
    database.transact([insert(1)], nothing)
    with monkeypatch.context() as patch:
        patch.setattr(database._mark, "advance", lambda number: _raise(OSError(errno.EIO, "no")))
        (answer,) = database.transact([insert(2)], lambda done: published.append(("first", list(done.notes))))
    assert (answer.reason, answer.fields["outcome"]) == ("outcome_unknown", "unknown")
    assert published == []
    assert stored(database) == [1, 2]
    assert database.transact([insert(3)], lambda done: published.append(("second", list(done.notes)))) == [(3,)]
    assert published == [("first", [2]), ("second", [3])]
    assert database.commit_seq == 3


def _raise(error: Exception) -> None:
    raise error


def test_an_error_of_a_member_in_doubt_stays_its_own(database, monkeypatch):
    """A member that was refused before COMMIT is told that, not that its outcome is unknown."""
    monkeypatch.setattr(database._mark, "advance", lambda number: _raise(OSError(errno.EIO, "no")))
    refused, unknown = database.transact([lambda _: _raise(not_found("memory", "absent")), insert(1)], nothing)
    assert (refused.reason, unknown.reason) == ("memory", "outcome_unknown")


def test_an_instance_that_cannot_be_opened_again_is_tried_at_every_call(database, monkeypatch):
    """While the file cannot be opened calls are refused with the reason; when it can, they are served."""
    database.transact([insert(1)], nothing)
    database._instance.is_broken = True
    with monkeypatch.context() as patch:
        patch.setattr(module, "Instance", lambda *_, **__: _raise(duckdb.IOException("cannot open")))
        for _ in range(2):
            with pytest.raises(MemlabError) as error:
                database.read("SELECT 1")
            assert error.value.type is ErrorType.INTERNAL
        (answer,) = database.transact([insert(2)], nothing)
        assert answer.type is ErrorType.INTERNAL
    assert stored(database) == [1]
    assert database.transact([insert(2)], nothing) == [(2,)]


def test_a_database_that_cannot_be_opened_again_can_be_closed(tmp_path, monkeypatch):
    """Closing lets go of the lock, whatever state the instance is in."""
    path = tmp_path / "lab.duckdb"
    database = opened(path)
    database.transact([insert(1)], nothing)
    database._instance.is_broken = True
    with monkeypatch.context() as patch:
        patch.setattr(module, "Instance", lambda *_, **__: _raise(duckdb.IOException("cannot open")))
        with pytest.raises(MemlabError):
            database.read("SELECT 1")
    database.close()
    with opened(path) as again:
        assert stored(again) == [1]


def test_a_request_that_broke_the_instance_does_not_wait_for_itself(database):
    """A read inside a member whose instance broke is an error, not a deadlock."""

    def breaks(transaction: Transaction) -> None:
        database._instance.is_broken = True
        database.read("SELECT 1")

    (answer,) = database.transact([breaks], nothing)
    assert (answer.type, answer.retryable) == (ErrorType.INTERNAL, True)
    assert database.transact([insert(1)], nothing) == [(1,)]


def test_an_interrupted_statement_is_a_timeout_and_changes_nothing(database):
    """Interrupting a member rolls it back; DuckDB alone would go on to commit nothing and call it success."""
    inside, is_running = threading.Lock(), False

    def slow(transaction: Transaction) -> None:
        nonlocal is_running
        transaction.insert("memories", rows_of([5]))
        transaction.flush()
        is_running = True
        try:
            transaction.query("SELECT sum(a.range * b.range) FROM range(100000000) a, range(1000) b")
        finally:
            with inside:
                is_running = False

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(database.transact, [insert(1), slow], nothing)
        while not wait([work], timeout=0.01).done:
            with inside:  # nothing else than the slow query is interrupted, in the group and when its member is run again
                if is_running:
                    database._instance.writer.connection.interrupt()
        good, bad = work.result()
    assert good == (1,)
    assert (bad.type, bad.reason) == (ErrorType.TIMEOUT, "deadline")
    assert stored(database) == [1]
