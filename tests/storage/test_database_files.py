"""The file and its companions: whose it is, who may open it, what it must hold, and how it comes into being."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import suppress

import duckdb
import pyarrow as pa
import pytest
import structlog

from memlab.errors import ErrorType, MemlabError
from memlab.settings import StorageSettings
from memlab.storage import database as module
from memlab.storage import files, instance, mark
from memlab.storage.database import Database, Transaction
from memlab.storage.mark import HighWaterMark
from memlab.storage.migrations import MIGRATIONS, Migration
from tests.storage.rows import SETTINGS, insert, nothing, opened, rows_of, stored


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lab.duckdb"


def refusal(path, **changes) -> MemlabError:
    """Return why *path* does not open; one line, whatever is wrong."""
    with pytest.raises(MemlabError) as error:
        opened(path, **changes).close()
    assert "\n" not in error.value.text
    return error.value


def names(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def contents(folder) -> dict[str, str]:
    return {entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in folder.iterdir() if entry.suffix != ".lock"}


# --- the lock --------------------------------------------------------------------------------------------------------


def in_another_process(path, root) -> str:
    """Try to open *path* in a process of its own; return what it says."""
    script = (
        "import sys; from pathlib import Path; from memlab.errors import MemlabError; from tests.storage.rows import opened\n"
        "try:\n    opened(Path(sys.argv[1])).close(); print('opened')\n"
        "except MemlabError as error: print(error.type, error.reason, error.text)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], cwd=root, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()[-1]


def test_a_second_process_is_refused_and_told_who_holds_it(path, root):
    """While a database is open no other process opens it; afterwards any may."""
    with opened(path) as database:
        database.transact([insert(1)], nothing)
        said = in_another_process(path, root)
        assert said.startswith("PERMISSION locked")
        assert str(path) in said
        assert str(os.getpid()) in said
        assert stored(database) == [1]
    assert in_another_process(path, root) == "opened"


def test_the_lock_outlives_a_copy_of_the_database_file(path, root):
    """Reading the file inside the process drops DuckDB's own lock; ours keeps the second process out."""
    with opened(path) as database:
        shutil.copy(path, path.with_name("copy"))
        assert in_another_process(path, root).startswith("PERMISSION locked")
        assert database.transact([insert(1)], nothing) == [(1,)]


def test_the_same_process_is_refused_too(path):
    """One opener for a file, also through a link or another spelling of its path."""
    with opened(path) as database:
        link = path.with_name("link.duckdb")
        link.symlink_to(path)
        for other in (path, path.parent / "." / path.name, link):
            error = refusal(other)
            assert (error.type, error.reason) == (ErrorType.PERMISSION, "locked")
            assert "in this process" in error.text
        assert database.transact([insert(1)], nothing) == [(1,)]
    opened(path).close()


def test_a_file_that_duckdb_itself_holds_is_locked(path):
    """A program that opened the file without memlab keeps it: one clear line."""
    opened(path).close()
    holder = duckdb.connect(str(path))
    try:
        assert refusal(path).reason == "locked"
    finally:
        holder.close()
    opened(path).close()


def test_a_failed_opening_lets_go_of_the_lock(path):
    """A refusal leaves nothing held, so that the right call succeeds."""
    opened(path).close()
    assert refusal(path, dimension=5).reason == "embedder"
    opened(path).close()


def test_nobody_opens_the_database_file_but_duckdb(path, root):
    """No descriptor of ours on the open database file: closing one would drop DuckDB's lock."""
    script = (
        "import sys; from pathlib import Path; from tests.storage.rows import insert, nothing, opened\n"
        "path = Path(sys.argv[1]); opened(path).close(); touched = []\n"
        "sys.addaudithook(lambda event, arguments: touched.append(str(arguments[0])) if event == 'open' else None)\n"
        "database = opened(path); database.transact([insert(1)], nothing); database.checkpoint()\n"
        "database.read('SELECT * FROM memories'); database.close()\n"
        "print(str(path) in touched, f'{path}.lock' in touched)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "False True"


FORKING = """
import os, sys
from pathlib import Path
from memlab.errors import MemlabError
from tests.storage.rows import insert, nothing, opened, stored

database = opened(Path(sys.argv[1]))
database.transact([insert(1)], nothing)
child = os.fork()
if not child:
    refused = 0
    for call in (lambda: database.read("SELECT 1"), lambda: database.transact([insert(2)], nothing), database.checkpoint):
        try:
            call()
        except MemlabError as error:
            refused += error.reason == "forked"
    database.close()
    sys.exit(refused)  # through the whole end of the interpreter
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    opened(Path(sys.argv[1]))
except MemlabError as error:
    print(error.reason)
database.transact([insert(3)], nothing)
print(stored(database))
database.close()
"""


def test_a_forked_child_is_refused_and_does_no_harm(path, root):
    """A child that inherited an open database can neither read nor write it, and its end breaks nothing of the parent's."""
    done = subprocess.run([sys.executable, "-c", FORKING, path], cwd=root, capture_output=True, text=True, timeout=60, check=True)
    said = [line for line in done.stdout.splitlines() if "database_" not in line and "migrated" not in line]
    assert said == ["3", "locked", "[1, 3]"]
    with opened(path) as database:
        assert stored(database) == [1, 3]


# --- coming into being -----------------------------------------------------------------------------------------------


def test_a_missing_database_is_made_only_when_asked(path):
    """create=False says NOT_FOUND and leaves no trace."""
    error = refusal(path, create=False)
    assert (error.type, error.reason) == (ErrorType.NOT_FOUND, "file")
    assert names(path.parent) == []
    assert refusal(path.parent / "nowhere" / "lab.duckdb").reason == "file"
    with opened(path) as database:
        assert (database.embedder, database.dimension, database.commit_seq) == ("hashing", 4, 0)


def test_what_is_stored_is_there_when_opened_again(path):
    """Rows, the database's id and the number of the last commit survive closing."""
    with opened(path) as database:
        database.transact([insert(1, 2)], nothing)
        database.transact([insert(3)], nothing)
        id = database.id
    with opened(path, create=False) as database:
        assert (database.id, database.commit_seq, stored(database)) == (id, 2, [1, 2, 3])


def test_all_files_are_private(path):
    """Database, log, mark, lock and the folder for spilled data are for their owner only, whatever the umask."""
    log = path.with_name("lab.duckdb.wal")

    def member(transaction: Transaction) -> None:
        during.append(stat.S_IMODE(log.stat().st_mode))  # before anything of value is in it
        transaction.insert("memories", rows_of([1]))

    during: list[int] = []
    before = os.umask(0)
    try:
        with opened(path) as database:
            database.transact([member], nothing)
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
            database.checkpoint()
            assert stat.S_IMODE(log.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert during == [0o600]
    assert modes == {
        "lab.duckdb": 0o600, "lab.duckdb.wal": 0o600, "lab.duckdb.mark": 0o600, "lab.duckdb.lock": 0o600, "lab.duckdb.tmp": 0o700,
    }  # fmt: skip
    assert names(path.parent) == ["lab.duckdb", "lab.duckdb.lock", "lab.duckdb.mark"]


@pytest.mark.parametrize("step", ["Instance.run_script", "Instance.checkpoint", "Instance.close", "sync_file"])
def test_a_creation_that_dies_leaves_no_database(path, root, step):
    """Until it is whole a database has another name: a process killed at any step leaves nothing that would not open."""
    script = (
        "import os, sys; from pathlib import Path; from memlab.storage import database; from tests.storage.rows import opened\n"
        "owner, _, name = sys.argv[2].rpartition('.')\n"
        "setattr(getattr(database, owner) if owner else database, name, lambda *_, **__: os._exit(9))\n"
        "opened(Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path, step], cwd=root, capture_output=True, timeout=60, check=False)
    assert done.returncode == 9
    assert not path.exists()
    assert path.with_name("lab.duckdb.new").exists()
    with opened(path) as database:
        assert database.transact([insert(1)], nothing) == [(1,)]
    assert names(path.parent) == ["lab.duckdb", "lab.duckdb.lock", "lab.duckdb.mark"]


def test_creation_is_made_durable_in_order(path, monkeypatch):
    """The file is synced before it gets its name, and its folder afterwards."""
    steps = []
    monkeypatch.setattr(module, "sync_file", lambda file: steps.append(("file", file.name)))
    monkeypatch.setattr(module, "sync_folder", lambda folder: steps.append(("folder", path.exists())))
    monkeypatch.setattr(mark, "sync_folder", lambda folder: None)
    opened(path).close()
    assert steps[:2] == [("file", "lab.duckdb.new"), ("folder", True)]


def test_the_folder_is_synced_before_the_first_acknowledgement(path, monkeypatch):
    """A new log has a durable folder entry before anybody is told of a write in it; so after every checkpoint."""
    opened(path).close()
    synced = []
    monkeypatch.setattr(module, "sync_folder", lambda folder: (synced.append(folder), files.sync_folder(folder)))
    with opened(path) as database:
        for seq in range(3):
            log = database.wal_bytes()
            synced.clear()
            database.transact([insert(seq)], lambda _: synced.append("acknowledged"))
            assert synced == ([path.parent] if not log else []) + ["acknowledged"]
            if seq:
                synced.clear()
                database.checkpoint()
                assert synced
        log = path.with_name("lab.duckdb.wal")
        moved = log.with_name("other")  # a log that is another file than the one that was synced
        shutil.copy(log, moved)
        moved.rename(log)
        synced.clear()
        database.transact([insert(99)], lambda _: synced.append("acknowledged"))
        assert synced == [path.parent, "acknowledged"]


def test_a_log_without_its_database_is_not_given_to_a_new_one(path):
    """Where the file is gone and its log is there, somebody lost something: nothing is made over it."""
    path.with_name("lab.duckdb.wal").write_bytes(b"the log of a file that was moved away")
    error = refusal(path)
    assert (error.type, error.reason) == (ErrorType.INTERNAL, "damaged")
    assert path.with_name("lab.duckdb.wal").read_bytes().startswith(b"the log")


# --- whose file it is ------------------------------------------------------------------------------------------------


def _text(path):
    path.write_text("dear diary\n" * 1000)


def _empty(path):
    path.write_bytes(b"")


def _sqlite(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE meta (key, value)")
    other.close()


def _duckdb(path):
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE t AS SELECT range AS a FROM range(10)")


def _duckdb_with_meta(path):
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE meta (key VARCHAR, value VARCHAR)")
        other.execute("INSERT INTO meta VALUES ('database_id', 'something'), ('schema_version', 'x')")


@pytest.mark.parametrize("make", [_text, _empty, _sqlite, _duckdb, _duckdb_with_meta])
def test_a_foreign_file_is_refused_and_left_alone(path, make):
    """A text, an empty file, SQLite's or another DuckDB database: one VALIDATION line, not a byte changed, nothing beside it."""
    make(path)
    before = contents(path.parent)
    error = refusal(path)
    assert (error.type, error.reason) == (ErrorType.VALIDATION, "foreign")
    assert contents(path.parent) == before


def test_a_folder_is_no_database(tmp_path):
    """Giving a folder is VALIDATION."""
    assert refusal(tmp_path).type is ErrorType.VALIDATION


def test_a_damaged_file_is_refused(path):
    """Bytes that rotted inside the file, or an end that is missing, are INTERNAL `damaged`, not an empty database."""
    with opened(path) as database:
        database.transact([insert(*range(3000))], nothing)
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    assert refusal(path).reason == "damaged"
    path.write_bytes(whole[:8200] + bytes([whole[8200] ^ 1]) + whole[8201:])
    assert refusal(path).reason == "damaged"


def test_the_database_remembers_its_embedder(path):
    """Vectors of another embedder or dimension have no place beside those that are there."""
    opened(path).close()
    for changes in ({"embedder": "precomputed"}, {"dimension": 5}):
        error = refusal(path, **changes)
        assert (error.type, error.reason) == (ErrorType.VALIDATION, "embedder")
        assert "'hashing' with 4" in error.text
        assert error.fields == {"embedder": "hashing", "dimension": 4}
    opened(path).close()


def test_free_threaded_python_is_refused(path, monkeypatch):
    """DuckDB's client does not support it."""
    monkeypatch.setattr(instance.sysconfig, "get_config_var", lambda name: 1 if name == "Py_GIL_DISABLED" else None)
    assert refusal(path).reason == "python"


# --- migrations ------------------------------------------------------------------------------------------------------


NEXT = (
    *MIGRATIONS,
    Migration(len(MIGRATIONS) + 1, "CREATE TABLE extra (a INTEGER PRIMARY KEY); INSERT INTO extra VALUES (1);"),
    Migration(len(MIGRATIONS) + 2, "ALTER TABLE extra ADD COLUMN b VARCHAR DEFAULT 'old';"),
)


def test_the_steps_are_numbered_without_a_gap():
    """The order of the list is the order of the versions."""
    assert [step.version for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_an_older_database_is_brought_up_to_date(path):
    """Each missing step is taken once, in order; rows stay; and no schema change stays in the log."""
    with opened(path) as database:
        database.transact([insert(1, 2)], nothing)
    with opened(path, migrations=NEXT) as database:
        assert database.wal_bytes() == 0
        assert database.read("SELECT * FROM extra") == [(1, "old")]
        assert stored(database) == [1, 2]
        database.transact([insert(3)], nothing)
    with opened(path, migrations=NEXT) as database:
        assert (database.commit_seq, stored(database)) == (2, [1, 2, 3])


def test_a_step_is_taken_whole_or_not_at_all(path):
    """A step that fails leaves the database as it was, and the steps before it."""
    opened(path).close()
    broken = (*NEXT[:-1], Migration(NEXT[-1].version, "CREATE TABLE half (a INTEGER); INSERT INTO nowhere VALUES (1);"))
    with pytest.raises(MemlabError):
        opened(path, migrations=broken)
    with opened(path, migrations=NEXT[:-1]) as database:
        tables = [name for (name,) in database.read("SELECT table_name FROM duckdb_tables()")]
        assert "extra" in tables
        assert "half" not in tables


def test_a_newer_database_is_refused(path):
    """Tables that this memlab does not know are not touched."""
    opened(path, migrations=NEXT).close()
    error = refusal(path)
    assert (error.type, error.reason) == (ErrorType.VALIDATION, "schema_version")


# --- the high-water mark ---------------------------------------------------------------------------------------------


def kept(path, *moments: int):
    """Write five groups; return copies of all files as they were after each of the *moments*."""
    copies = {}
    with opened(path) as database:
        for seq in range(1, 6):
            database.transact([insert(seq)], nothing)
            if seq in moments:
                copies[seq] = {entry.name: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file()}
    return copies


def restore(folder, copy) -> None:
    for entry in folder.iterdir():
        if entry.is_file():
            entry.unlink()
    for name, content in copy.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    "loss", ["log missing", "log empty", "log of an earlier moment", "all but the mark from an earlier moment"]
)
def test_a_database_behind_its_mark_takes_no_writes(path, loss):
    """DuckDB opens an older state without a word; the mark makes it an alarm: reads go on, writes are refused, files stay."""
    copies = kept(path, 2, 5)
    restore(path.parent, copies[5])
    log = path.with_name("lab.duckdb.wal")
    if loss == "log missing":
        log.unlink()
    elif loss == "log empty":
        log.write_bytes(b"")
    elif loss == "log of an earlier moment":
        log.write_bytes(copies[2]["lab.duckdb.wal"])
    else:
        restore(path.parent, copies[2] | {"lab.duckdb.mark": copies[5]["lab.duckdb.mark"]})
    left = log.read_bytes() if log.exists() else b""
    with structlog.testing.capture_logs() as log_lines, opened(path) as database:
        assert database.is_behind_mark
        assert stored(database) == ([] if loss in ("log missing", "log empty") else [1, 2])
        (answer,) = database.transact([insert(9)], nothing)
        assert (answer.type, answer.reason, answer.retryable) == (ErrorType.INTERNAL, "behind_mark", False)
        with pytest.raises(MemlabError, match="less than was acknowledged"):
            database.checkpoint()
        assert database.statistics()["behind_mark"] == 1
    assert any(line["event"] == "behind_mark" and line["log_level"] == "error" for line in log_lines)
    assert (log.read_bytes() if log.exists() else b"") == left
    with opened(path) as database:
        assert database.is_behind_mark  # it does not forget
    path.with_name("lab.duckdb.mark").unlink()  # what its message says accepts the loss
    with opened(path) as database:
        assert database.transact([insert(9)], nothing) == [(9,)]


def test_the_mark_moves_before_anybody_is_told(path):
    """When a write is acknowledged, the mark on disk says so already."""
    marks = []
    with opened(path) as database:
        reader = HighWaterMark(path.with_name("lab.duckdb.mark"), database.id)
        reader.close()
        for seq in (1, 2):
            database.transact(
                [insert(seq)], lambda _: marks.append(HighWaterMark(path.with_name("lab.duckdb.mark"), database.id))
            )
    assert [one.commit_seq for one in marks] == [1, 2]
    for one in marks:
        one.close()
    assert path.with_name("lab.duckdb.mark").stat().st_size == 64


def test_a_mark_that_lags_is_no_alarm(path):
    """The mark is synced lazily; a database ahead of it opens as ever and moves it."""
    copies = kept(path, 1, 5)
    restore(path.parent, copies[5] | {"lab.duckdb.mark": copies[1]["lab.duckdb.mark"]})
    with opened(path) as database:
        assert not database.is_behind_mark
        assert database.transact([insert(6)], nothing) == [(6,)]
        again = HighWaterMark(path.with_name("lab.duckdb.mark"), database.id)
        again.close()
        assert again.commit_seq == 6


@pytest.mark.parametrize("damage", ["missing", "short", "long", "flipped", "foreign", "text"])
def test_a_mark_that_cannot_be_read_is_said_and_begun_again(path, tmp_path_factory, damage):
    """A mark that is not of this database, or damaged, raises no false alarm."""
    kept(path)
    file = path.with_name("lab.duckdb.mark")
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "foreign":
        other = tmp_path_factory.mktemp("other") / "lab.duckdb"
        kept(other)
        file.write_bytes(other.with_name("lab.duckdb.mark").read_bytes())
    else:
        file.write_bytes(
            {"short": whole[:30], "long": whole + b"x", "flipped": whole[:25] + b"\xff" + whole[26:], "text": b"x" * 64}[damage]
        )
    with structlog.testing.capture_logs() as lines, opened(path) as database:
        assert not database.is_behind_mark
        assert stored(database) == [1, 2, 3, 4, 5]
    assert any(line["event"].startswith("mark_") for line in lines)
    with structlog.testing.capture_logs() as lines:
        opened(path).close()
    assert not any(line["event"].startswith("mark_") for line in lines)


# --- hardening -------------------------------------------------------------------------------------------------------


PROBES = [
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM read_blob('/etc/hostname')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/hostname'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM read_json('/etc/hostname')",
    "SELECT * FROM read_parquet('x.parquet')",
    "COPY memories TO 'out.csv'",
    "COPY memories FROM 'in.csv'",
    "ATTACH 'other.duckdb' AS other",
    "EXPORT DATABASE 'out'",
    "IMPORT DATABASE 'out'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "SET enable_external_access = true",
    "SET memory_limit = '100GB'",
    "SET threads = 64",
    "SET temp_directory = '/tmp'",
    "SET lock_configuration = false",
    "RESET enable_external_access",
    "RESET checkpoint_threshold",
    "SET GLOBAL TimeZone = 'Asia/Tokyo'",
    "PRAGMA enable_checkpoint_on_shutdown",
]


@pytest.mark.parametrize("probe", PROBES)
def test_the_engine_refuses_what_memlab_never_needs(path, probe):
    """Even on a raw connection, past memlab's own checks: no files, no other databases, no extensions, no settings."""
    with opened(path) as database, database._lease() as held, held.cursor() as cursor, pytest.raises(duckdb.Error):
        cursor.connection.execute(probe).fetchall()
    assert set(names(path.parent)) <= {"lab.duckdb", "lab.duckdb.lock", "lab.duckdb.mark", "lab.duckdb.wal"}


def test_variables_of_the_process_are_no_tables(path):
    """DuckDB would read any data frame of the caller's by its name."""
    secrets = pa.table({"a": [1]})
    with opened(path) as database, database._lease() as held, held.cursor() as cursor, pytest.raises(duckdb.CatalogException):
        cursor.connection.execute("SELECT * FROM secrets")
    assert secrets.num_rows == 1


def test_bounds_are_set(path):
    """Memory, threads, spilled data and the zone of times are what the settings say."""
    with opened(path, threads=2, settings=StorageSettings(memory_limit_bytes=256 << 20)) as database:
        rows = dict(database.read("SELECT name, value FROM duckdb_settings()"))
    assert rows["threads"] == "2"
    assert rows["memory_limit"] == "256.0 MiB"
    assert rows["max_temp_directory_size"] == "1.0 GiB"
    assert rows["TimeZone"] == "UTC"
    assert rows["lock_configuration"] == "true"
    assert rows["enable_external_access"] == "false"


# --- space -----------------------------------------------------------------------------------------------------------


def test_without_free_space_writes_are_refused_and_reads_go_on(path):
    """Below the floor a write is refused before anything is tried, says that it may succeed later, and then does."""
    with opened(path) as database:
        database.transact([insert(1)], nothing)
    with opened(path, settings=StorageSettings(min_free_bytes=1 << 60)) as database:
        answers = database.transact([insert(2), insert(3)], nothing)
        for answer in answers:
            assert (answer.type, answer.reason, answer.retryable) == (ErrorType.INTERNAL, "disk_full", True)
        assert answers[0] is not answers[1]
        with pytest.raises(MemlabError):
            database.checkpoint()
        assert stored(database) == [1]
    with opened(path) as database:
        assert database.transact([insert(2)], nothing) == [(2,)]


def test_the_floor_counts_what_a_checkpoint_needs(path, monkeypatch):
    """The log must fit a second time, in the database file: a checkpoint on a full disk ends the instance."""
    with opened(path) as database:
        database.transact([insert(*range(500))], nothing)
        monkeypatch.setattr(module, "free_bytes", lambda folder: database.wal_bytes() - 1)
        (answer,) = database.transact([insert(1000)], nothing)
        assert answer.reason == "disk_full"
        monkeypatch.setattr(module, "free_bytes", lambda folder: database.wal_bytes() + 1)
        assert database.transact([insert(1000)], nothing) == [(1000,)]


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_the_log_is_folded_in_the_background_when_it_is_large(path):
    """Past the bound a checkpoint runs, not inside anybody's acknowledgement; all rows stay."""
    small = StorageSettings(min_free_bytes=0, checkpoint_bytes=1 << 16)
    with opened(path, settings=small) as database:
        for start in range(0, 4_000, 500):
            database.transact([insert(*range(start, start + 500))], nothing)
            if database._checkpointer is not None:
                database._checkpointer.join()
        statistics = database.statistics()
        assert statistics["checkpoints"] > 1
        assert statistics["checkpoint_failures"] == 0
        assert statistics["wal_bytes"] < 4 * small.checkpoint_bytes
        assert stored(database) == list(range(4_000))
    with opened(path) as database:
        assert stored(database) == list(range(4_000))


def test_duckdb_itself_never_checkpoints(path):
    """The log grows past DuckDB's own default of 16 MiB: the owner alone decides when it is folded."""
    with opened(path) as database:
        for start in range(0, 20_000, 5_000):
            database.transact([lambda transaction, start=start: transaction.insert("memories", _wide(start, 5_000))], nothing)
        assert database.wal_bytes() > 16 << 20


def _wide(start, count):
    return rows_of(range(start, start + count), content="x" * 1000)


def test_closing_folds_the_log(path):
    """After a clean close there is one file to copy and nothing to replay."""
    with opened(path) as database:
        database.transact([insert(1)], nothing)
        assert database.wal_bytes() > 0
    assert names(path.parent) == ["lab.duckdb", "lab.duckdb.lock", "lab.duckdb.mark"]


def test_a_checkpoint_beside_an_open_read_does_not_wait_for_it(path):
    """An open read transaction delays nobody: FORCE CHECKPOINT would hang here for good."""
    with opened(path) as database:
        database.transact([insert(*range(100))], nothing)
        with database._lease() as held, held.cursor() as cursor:
            cursor.connection.execute("BEGIN")
            cursor.read("SELECT count(*) FROM memories")
            database.transact([lambda transaction: transaction.execute("DELETE FROM memories WHERE seq < 50")], nothing)
            with suppress(MemlabError):  # whether DuckDB can fold beside a reader is its own affair; waiting is not
                database.checkpoint()
            assert cursor.read("SELECT count(*) FROM memories") == [(100,)]
            cursor.connection.execute("COMMIT")
        database.checkpoint()
        assert stored(database) == list(range(50, 100))


def test_no_statement_forces_a_checkpoint(root):
    """FORCE CHECKPOINT stands nowhere in the code of the package."""
    for source in (root / "memlab").rglob("*.py"):
        lines = [line.partition("#")[0] for line in source.read_text().splitlines()]
        assert not any("FORCE CHECKPOINT" in line and "Never" not in line for line in lines), source


# --- closing ---------------------------------------------------------------------------------------------------------


def test_a_closed_database_says_so(path):
    """After close every call is VALIDATION `closed`; closing again does nothing."""
    database = opened(path)
    database.close()
    database.close()
    for call in (
        lambda: database.read("SELECT 1"),
        lambda: database.read_arrow("SELECT 1"),
        lambda: database.transact([insert(1)], nothing),
        database.checkpoint,
    ):
        with pytest.raises(MemlabError) as error:
            call()
        assert (error.value.type, error.value.reason) == (ErrorType.VALIDATION, "closed")


def test_the_default_settings_open(path):
    """What every user starts with works."""
    with Database.open(path, settings=StorageSettings(), embedder="hashing", dimension=384) as database:
        assert database.path == path.resolve()
        assert SETTINGS.checkpoint_bytes == StorageSettings().checkpoint_bytes
