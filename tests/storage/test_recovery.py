"""A torn log is mended where that loses nothing and refused where it would; it is never deleted, and no loss is silent."""

from __future__ import annotations

import errno
import random
import struct
from pathlib import Path

import duckdb
import pytest
import structlog

from memlab.errors import ErrorType, MemlabError
from memlab.storage import recovery
from memlab.storage.database import Database
from memlab.storage.recovery import checksum
from tests.storage.rows import insert, nothing, opened, stored

GROUPS = 8


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return the files of a database with eight acknowledged groups in its log, and where each of them ends in the log."""
    path = tmp_path_factory.mktemp("original") / "lab.duckdb"
    log = path.with_name("lab.duckdb.wal")
    with opened(path) as database:
        begin = []
        for group in range(GROUPS):
            database.transact([insert(10 * group, 10 * group + 1)], lambda _: begin.append(log.stat().st_size))
        files = {name: path.with_name(name).read_bytes() for name in ("lab.duckdb", "lab.duckdb.wal", "lab.duckdb.mark")}
    return files, begin


def laid_out(folder: Path, files: dict[str, bytes], log: bytes) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "lab.duckdb.wal").write_bytes(log)
    return folder / "lab.duckdb"


def groups(count: int) -> list[int]:
    return [10 * group + row for group in range(count) for row in (0, 1)]


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file() and entry.suffix != ".lock"}


def quarantined(path: Path) -> list[bytes]:
    return [entry.read_bytes() for entry in path.parent.iterdir() if ".wal.quarantine-" in entry.name]


def frames(log: bytes) -> list[tuple[int, int, int]]:
    """Return (begin, size, stored checksum) of every record, read here without memlab."""
    at, found = log.index(b"\xff\xff") + 2, []
    while at + 16 <= len(log):
        size, stored_checksum = struct.unpack_from("<QQ", log, at)
        found.append((at, size, stored_checksum))
        at += 16 + size
    assert at == len(log)
    return found


def bare_rows(path: Path) -> int:
    """Return how many rows DuckDB itself would show, without a word of what is missing."""
    with duckdb.connect(str(path)) as bare:
        bare.execute("PRAGMA disable_checkpoint_on_shutdown")
        ((rows,),) = bare.execute("SELECT count(*) FROM memories").fetchall()
    return rows


# --- the format ------------------------------------------------------------------------------------------------------


def test_the_format_of_the_log_is_the_one_that_recovery_knows(tmp_path):
    """Every record of a real log has the checksum we compute, and the walk over it ends at its last byte."""
    path = tmp_path / "lab.duckdb"
    with opened(path) as database:
        database.transact([insert(1)], nothing)
        database.transact([insert(*range(10, 3_000))], nothing)
        database.transact([lambda transaction: transaction.execute("DELETE FROM memories WHERE seq < 50")], nothing)
        database.checkpoint()
        database.transact([lambda transaction: transaction.execute("UPDATE sessions SET session = 'x'")], nothing)
        database.transact([insert(*range(4_000, 4_100))], nothing)
        log = path.with_name("lab.duckdb.wal").read_bytes()
    records = frames(log)
    assert len(records) > 5
    for begin, size, stored_checksum in records:
        assert checksum(log[begin + 16 : begin + 16 + size]) == stored_checksum
    assert recovery._walk(log, len(log)) == (len(log), len(log))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 16, 23])
def test_a_checksum_notices_every_bit(length):
    """Turning any one bit of a payload changes its checksum."""
    payload = random.Random(length).randbytes(length)
    for bit in range(8 * length):
        turned = bytearray(payload)
        turned[bit // 8] ^= 1 << bit % 8
        assert checksum(bytes(turned)) != checksum(payload)


# --- a torn end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acknowledged", [0, 3, GROUPS - 1])
@pytest.mark.parametrize("record", [0, 1])
def test_a_torn_end_is_cut_and_nothing_acknowledged_is_lost(tmp_path, original, acknowledged, record):
    """A transaction that broke off in a page of zeros keeps DuckDB from opening; here the acknowledged ones are all there."""
    files, ends = original
    whole = files["lab.duckdb.wal"]
    torn = [frame for frame in frames(whole) if not acknowledged or frame[0] >= ends[acknowledged - 1]][record]
    log = whole[: torn[0] + 16 + torn[1] // 2] + bytes(4096)
    path = laid_out(tmp_path, {name: content for name, content in files.items() if name != "lab.duckdb.mark"}, log)
    with pytest.raises(duckdb.Error, match="Corrupt WAL"):
        bare_rows(path)
    with structlog.testing.capture_logs() as lines, opened(path) as database:
        assert stored(database) == groups(acknowledged)
        assert not database.is_behind_mark
        cut = database.recovered
        assert cut is not None
        assert cut.dropped_bytes == len(log) - cut.kept_bytes
        assert cut.quarantine.read_bytes() == log
        assert cut.quarantine.stat().st_mode & 0o777 == 0o600
        assert database.transact([insert(999)], nothing) == [(999,)]
    assert [line["dropped_bytes"] for line in lines if line["event"] == "log_cut"] == [cut.dropped_bytes]
    with opened(path) as database:
        assert database.recovered is None
        assert stored(database) == [*groups(acknowledged), 999]
    assert quarantined(path) == [log]


def test_a_torn_end_that_took_an_acknowledged_group_is_cut_and_said(tmp_path, original):
    """Where the lost end had been acknowledged, the mark knows: what can be read is read, and writes are refused."""
    files, ends = original
    log = files["lab.duckdb.wal"][: ends[-2] + 60] + bytes(300)
    path = laid_out(tmp_path, files, log)
    with opened(path) as database:
        assert stored(database) == groups(GROUPS - 1)
        assert database.is_behind_mark
    assert quarantined(path) == [log]


@pytest.mark.parametrize("end", [b"", b"\0" * 4096, b"\0" * 7, bytes(range(1, 200))], ids=["none", "page", "seven", "noise"])
def test_an_end_that_duckdb_leaves_out_itself_is_no_trouble(tmp_path, original, end):
    """Zeros or noise behind the last commit, as a file system may leave them, are written over by the next commit."""
    files, _ = original
    path = laid_out(tmp_path, files, files["lab.duckdb.wal"] + end)
    with opened(path) as database:
        assert stored(database) == groups(GROUPS)
        database.transact([insert(999)], nothing)
    with opened(path) as database:
        assert stored(database) == [*groups(GROUPS), 999]


def test_a_recovery_that_was_killed_is_done_again(tmp_path, original, monkeypatch):
    """Between the copy and the cut nothing is lost; the next opening starts over."""
    files, ends = original
    log = files["lab.duckdb.wal"][: ends[-2] + 60] + bytes(300)
    path = laid_out(tmp_path, {name: content for name, content in files.items() if name != "lab.duckdb.mark"}, log)
    copy_aside = recovery._copy_aside
    with monkeypatch.context() as patch:
        patch.setattr(recovery, "_copy_aside", lambda wal: _raising(KeyboardInterrupt())(copy_aside(wal)))
        with pytest.raises(KeyboardInterrupt):
            opened(path)
    assert path.with_name("lab.duckdb.wal").read_bytes() == log
    with opened(path) as database:
        assert stored(database) == groups(GROUPS - 1)
    assert quarantined(path) == [log, log]


def test_without_room_for_the_copy_nothing_is_cut(tmp_path, original, monkeypatch):
    """No quarantine, no cut: the refusal says that the disk is full, and the log stays as it was."""
    files, ends = original
    log = files["lab.duckdb.wal"][: ends[-2] + 60] + bytes(300)
    path = laid_out(tmp_path, files, log)
    before = contents(path)
    with monkeypatch.context() as patch:
        patch.setattr(recovery.shutil, "copyfileobj", _raising(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(MemlabError) as error:
            opened(path)
    assert error.value.reason == "disk_full"
    assert contents(path) == before


def _raising(error: BaseException):
    def raises(*_, **__):
        raise error

    return raises


# --- a broken middle -------------------------------------------------------------------------------------------------


def flipped(log: bytes, at: int, bit: int = 0) -> bytes:
    return log[:at] + bytes([log[at] ^ 1 << bit]) + log[at + 1 :]


def refused(path: Path) -> MemlabError:
    before = contents(path)
    with pytest.raises(MemlabError) as error:
        opened(path)
    assert contents(path) == before  # not a byte
    assert "\n" not in error.value.text
    assert (error.value.type, error.value.reason) == (ErrorType.INTERNAL, "damaged")
    return error.value


@pytest.mark.parametrize("record", [0, 1, 3])
def test_a_broken_record_before_intact_ones_is_refused(tmp_path, original, record):
    """Cutting there would throw away transactions that can still be read: a person decides."""
    files, ends = original
    log = files["lab.duckdb.wal"]
    begin, size, _ = [frame for frame in frames(log) if frame[0] >= ends[2]][record]
    path = laid_out(tmp_path, files, flipped(log, begin + 16 + size // 2))
    error = refused(path)
    assert "can still be read" in error.text
    assert "restore a backup" in error.text
    assert quarantined(path) == []


@pytest.mark.parametrize("damage", ["high byte of a size", "page of zeros", "header", "no header"])
def test_where_duckdb_would_silently_stop_reading_we_refuse(tmp_path, original, damage):
    """DuckDB opens these logs without a word, as an older database, and overwrites the rest at the next commit."""
    files, ends = original
    log = files["lab.duckdb.wal"]
    log = {
        "high byte of a size": flipped(log, ends[2] + 6),
        "page of zeros": log[: ends[2]] + bytes(ends[3] - ends[2]) + log[ends[3] :],
        "header": flipped(log, 0),
        "no header": b"?" * 80 + log[80:],
    }[damage]
    for folder in ("ours", "bare"):
        (tmp_path / folder).mkdir()
    path, bare = laid_out(tmp_path / "ours", files, log), laid_out(tmp_path / "bare", files, log)
    assert bare_rows(bare) < len(groups(GROUPS))
    assert "can still be read" in refused(path).text


def test_the_log_of_another_database_is_refused(tmp_path, original, tmp_path_factory):
    """DuckDB notices that a log is not this file's; the line says so, and nothing is changed."""
    files, _ = original
    other = tmp_path_factory.mktemp("other") / "lab.duckdb"
    with opened(other) as database:
        database.transact([insert(1)], nothing)
        log = other.with_name("lab.duckdb.wal").read_bytes()
    path = laid_out(tmp_path, files, log)
    assert "another database" in refused(path).text


@pytest.mark.parametrize("log", [b"", b"dear diary\n" * 20, bytes(5_000)], ids=["empty", "text", "zeros"])
def test_a_log_that_is_none_raises_the_alarm_of_the_mark(tmp_path, original, log):
    """DuckDB takes anything for an empty log; the mark knows better."""
    files, _ = original
    path = laid_out(tmp_path, files, log)
    with opened(path) as database:
        assert database.is_behind_mark
        assert stored(database) == []


# --- any damage ------------------------------------------------------------------------------------------------------


def judge(folder: Path, original: tuple[dict[str, bytes], list[int]], log: bytes) -> str:
    """Open a damaged copy; return what became of it, after checking that no loss was silent and nothing was destroyed."""
    files, ends = original
    whole = files["lab.duckdb.wal"]
    folder.mkdir()
    path = laid_out(folder, files, log)
    before = contents(path)
    database = outcome_of(path)
    if isinstance(database, MemlabError):
        assert (database.type, database.reason) == (ErrorType.INTERNAL, "damaged")
        assert contents(path) == before
        return "refused"
    with database:
        rows = stored(database)
        count = len(rows) // 2
        assert rows == groups(count)  # whole groups, in order, none left out in the middle
        assert database.is_behind_mark == (count < GROUPS)
        # What is left out has no intact group in it, the broken one aside.
        assert not any(
            log[ends[lost - 1] : ends[lost]] == whole[ends[lost - 1] : ends[lost]] for lost in range(count + 1, GROUPS)
        )
        if database.recovered is not None:
            assert quarantined(path) == [log]
            return "cut"
        if database.is_behind_mark:
            assert path.with_name("lab.duckdb.wal").exists() == bool(log)
        return "behind" if database.is_behind_mark else "whole"


def outcome_of(path: Path) -> Database | MemlabError:
    try:
        return opened(path)
    except MemlabError as error:
        return error


def damaged(log: bytes, chance: random.Random) -> bytes:
    """Return a log cut at, zeroed from, or with one bit turned at a random place, or with noise behind its end."""
    places = [begin + place for begin, _, _ in frames(log) for place in range(16)]
    kind = chance.choice(["cut", "zeroed", "zeros after", "bit", "bit of a frame", "page", "noise"])
    at = chance.randrange(len(log))
    if kind == "cut":
        return log[:at]
    if kind == "zeroed":
        return log[:at] + bytes(len(log) - at)
    if kind == "zeros after":
        return log[:at] + bytes(chance.randrange(1, 5000))
    if kind == "noise":
        return log + chance.randbytes(chance.randrange(1, 500))
    if kind == "page":
        return log[:at] + bytes(min(512, len(log) - at)) + log[at + 512 :]
    return flipped(log, at if kind == "bit" else chance.choice(places), chance.randrange(8))


def test_no_damage_to_the_log_is_a_silent_loss(tmp_path, original):
    """Whatever is done to a log: the database holds whole groups from the first on, and where one is missing, it says so."""
    chance = random.Random(20261123)
    seen = [judge(tmp_path / str(number), original, damaged(original[0]["lab.duckdb.wal"], chance)) for number in range(70)]
    assert {"refused", "cut", "behind", "whole"} <= set(seen)  # the damage is of every kind


@pytest.mark.soak
def test_no_cut_at_any_byte_is_a_silent_loss(tmp_path, original):
    """Cut at every byte of the first and the last groups of the log, and zeroed from it or with one of its bits turned."""
    files, ends = original
    log = files["lab.duckdb.wal"]
    for at in (*range(ends[0] + 100), *range(ends[-2] - 100, len(log))):
        judge(tmp_path / f"{at}-cut", original, log[:at])
        other = (log[:at] + bytes(len(log) - at), log[:at] + bytes(4096), flipped(log, at, at // 3 % 8))[at % 3]
        judge(tmp_path / f"{at}-other", original, other)
