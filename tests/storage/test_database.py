"""One writer in groups, readers with cursors of their own: what is acknowledged is there, what failed is not."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memlab.errors import ErrorType, MemlabError, not_found, validation
from memlab.storage.database import Database, Transaction
from memlab.storage.instance import Cursor
from tests.storage.rows import NOON, insert, nothing, opened, rows_of, stored


@pytest.fixture
def database(tmp_path):
    with opened(tmp_path / "lab.duckdb") as database:
        yield database


# --- groups ----------------------------------------------------------------------------------------------------------


def test_a_group_is_one_transaction(database):
    """Many members cost one commit, and each gets its own answer."""
    answers = database.transact([insert(1), insert(2, 3), insert(4)], nothing)
    assert answers == [(1,), (2, 3), (4,)]
    assert (database.commit_seq, stored(database)) == (1, [1, 2, 3, 4])


def test_a_spoiled_group_is_run_again_member_by_member(database):
    """A failing member gets its error; the good ones of its group are stored, each once."""
    database.transact([insert(7)], nothing)
    first, bad, last = database.transact([insert(1), insert(7), insert(2)], nothing)
    assert (first, last) == ((1,), (2,))
    assert isinstance(bad, MemlabError)
    assert (bad.type, bad.reason) == (ErrorType.VALIDATION, "duplicate")
    assert stored(database) == [1, 2, 7]


def test_two_members_with_the_same_key_do_not_spoil_each_other(database):
    """The first of two equal keys in one group is stored, the second is refused."""
    first, second = database.transact([insert(1), insert(1)], nothing)
    assert first == (1,)
    assert isinstance(second, MemlabError)
    assert stored(database) == [1]


def test_a_refusal_before_any_change_does_not_roll_the_group_back(database):
    """A member that finds nothing to change gets its error while the group is committed in one go."""

    def refuses(transaction: Transaction) -> None:
        transaction.notes.append("left over")
        raise not_found("memory", "no such memory")

    notes = []
    answers = database.transact([insert(1), refuses, insert(2)], lambda done: notes.append(list(done.notes)))
    assert (answers[0], answers[2]) == ((1,), (2,))
    assert answers[1].reason == "memory"
    assert database.commit_seq == 1
    assert notes == [[1, 2]]


def test_a_refusal_after_a_change_takes_the_change_back(database):
    """A member that changes something and then refuses leaves nothing of itself behind."""

    def halfway(transaction: Transaction) -> None:
        transaction.insert("memories", rows_of([5]))
        raise validation("duplicate", "no")

    answers = database.transact([insert(1), halfway], nothing)
    assert answers[0] == (1,)
    assert answers[1].reason == "duplicate"
    assert stored(database) == [1]


def test_a_bug_in_a_member_is_an_internal_error_of_that_member(database):
    """Whatever a member raises, its neighbours are stored, and nobody sees a bare exception."""

    def buggy(transaction: Transaction) -> None:
        transaction.insert("memories", rows_of([5]))
        raise RuntimeError("a bug")

    first, bug, last = database.transact([insert(1), buggy, insert(2)], nothing)
    assert (first, last) == ((1,), (2,))
    assert (bug.type, bug.reason) == (ErrorType.INTERNAL, "bug")
    assert stored(database) == [1, 2]


def test_an_interrupt_rolls_back_and_goes_on(database):
    """Ctrl-C inside a member leaves nothing half-done, and the next write works."""

    def interrupted(transaction: Transaction) -> None:
        transaction.insert("memories", rows_of([5]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.transact([interrupted], nothing)
    assert database.transact([insert(1)], nothing) == [(1,)]
    assert stored(database) == [1]


def test_nothing_changed_is_nothing_committed(database):
    """A group that only looks takes no commit number and publishes nothing."""
    published = []
    answers = database.transact([lambda transaction: transaction.query("SELECT 1")], published.append)
    assert answers == [[(1,)]]
    assert (database.commit_seq, published) == (0, [])
    assert database.transact([], published.append) == []


def test_a_group_that_only_deletes_is_read_back_too(database):
    """Every committed group has a number of its own, also where it leaves no new row."""
    database.transact([insert(1, 2)], nothing)
    database.transact([lambda transaction: transaction.execute("DELETE FROM memories WHERE seq = ?", [1])], nothing)
    assert (database.commit_seq, stored(database)) == (2, [2])
    assert database.read("SELECT commit_seq FROM state") == [(2,)]


def test_removed_rows_leave_together(database):
    """Removals of a group are one change after its inserts: also of what the same group stored, and seen by what it then asks."""
    database.transact([insert(1, 2, 3, 4)], nothing)
    seen: list[list[tuple[int]]] = []

    def member(*removed: int, then: int | None = None):
        def change(transaction: Transaction) -> None:
            if then is not None:
                transaction.insert("memories", rows_of([then]))
            transaction.remove(removed)

        return change

    look = lambda transaction: seen.append(transaction.query("SELECT seq FROM memories ORDER BY seq"))  # noqa: E731
    answers = database.transact([member(1), member(2, 5, then=5), look, member(3, then=6)], nothing)
    assert (answers, seen, stored(database)) == ([None] * 4, [[(3,), (4,)]], [4, 6])
    assert database.commit_seq == 2


def test_a_removal_is_undone_with_its_group(database):
    """A member that fails after others removed costs them nothing: they are run again, and its own removal is not there."""
    database.transact([insert(1, 2, 3)], nothing)

    def broken(transaction: Transaction) -> None:
        transaction.remove([2])
        raise validation("no", "after all")

    first, bad = database.transact([lambda transaction: transaction.remove([1]), broken], nothing)
    assert first is None and isinstance(bad, MemlabError)
    assert stored(database) == [2, 3]


ERRORS = {
    "duplicate": lambda transaction: transaction.insert("memories", rows_of([0])),
    "refuses": lambda transaction: _raise(not_found("memory", "absent")),
    "changes_then_refuses": lambda transaction: (transaction.insert("memories", rows_of([-1])), _raise(validation("x", "no"))),
    "bug": lambda transaction: (transaction.insert("memories", rows_of([-2])), _raise(ZeroDivisionError())),
    "conversion": lambda transaction: transaction.query("SELECT CAST(? AS INTEGER)", ["no number"]),
    "parse": lambda transaction: transaction.execute("INSERT INTO nowhere VALUES (1)"),
    "swallowed": lambda transaction: _swallow(lambda: transaction.query("SELECT CAST('x' AS INTEGER)")),
    "missing": lambda transaction: transaction.insert("memories", rows_of([-3]) | {"session": [None]}),
}


def _raise(error: Exception) -> None:
    raise error


def _swallow(work) -> None:
    with suppress(MemlabError):
        work()


@settings(max_examples=25)
@given(plan=st.lists(st.one_of(st.just("good"), st.just("pair"), st.sampled_from(sorted(ERRORS))), min_size=1, max_size=8))
def test_good_members_are_stored_and_bad_ones_are_told(tmp_path_factory, plan):
    """In any mixture of good and failing members every good one is stored once, every bad one gets an error, and only it."""
    with opened(tmp_path_factory.mktemp("mixture") / "lab.duckdb") as database:
        database.transact([insert(0)], nothing)
        published, expected = [], [0]
        members = []
        for place, kind in enumerate(plan, start=1):
            seqs = {"good": (place,), "pair": (place, 100 + place)}.get(kind)
            members.append(insert(*seqs) if seqs else ERRORS[kind])
            expected += seqs or ()
        answers = database.transact(members, lambda done: published.extend(done.notes))
        for kind, answer in zip(plan, answers, strict=True):
            assert isinstance(answer, MemlabError) == (kind in ERRORS), kind
        assert stored(database) == sorted(expected)
        assert sorted(published) == sorted(expected[1:])
        assert database.read("SELECT commit_seq FROM state") == [(database.commit_seq,)]


# --- COMMIT lies -----------------------------------------------------------------------------------------------------


def test_duckdb_commits_an_aborted_transaction_without_a_word(tmp_path):
    """The reason for all this: after a failed statement COMMIT reports success and writes nothing."""
    with duckdb.connect(str(tmp_path / "bare.duckdb")) as bare:
        bare.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
        bare.execute("BEGIN")
        bare.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(duckdb.Error):
            bare.execute("SELECT nonsense")
        bare.execute("COMMIT")
        assert bare.execute("SELECT * FROM t").fetchall() == []


def test_a_member_that_hides_a_failed_statement_is_not_acknowledged(database):
    """A swallowed error spoils the group all the same: its member is told, the others are stored."""
    first, bad, last = database.transact([insert(1), ERRORS["swallowed"], insert(2)], nothing)
    assert (first, last) == ((1,), (2,))
    assert bad.type is ErrorType.VALIDATION
    assert stored(database) == [1, 2]


def test_the_guard_before_commit_notices_a_spoiled_transaction(database, monkeypatch):
    """Were the failure not remembered, numbering the commit would still fail in the aborted transaction."""
    monkeypatch.setattr(Transaction, "_failed", lambda self, error: validation("hidden", "not remembered"))
    commits = []
    monkeypatch.setattr(Database, "_commit", lambda *_: commits.append(1))
    first, bad = database.transact([insert(1), ERRORS["swallowed"]], nothing)
    assert isinstance(bad, MemlabError)
    assert len(commits) == 1  # of the good member alone; never of a spoiled transaction
    assert first == (1,)


def test_the_read_back_notices_a_commit_that_wrote_nothing(database, monkeypatch):
    """Were both guards absent, reading the number back from another cursor would still find COMMIT out."""
    database.transact([insert(0)], nothing)
    commit = Cursor.commit
    lies = [True]

    def lying_commit(cursor: Cursor) -> None:
        if lies:
            lies.pop()
            with pytest.raises(duckdb.Error):
                cursor.connection.execute("SELECT nonsense")
        commit(cursor)

    monkeypatch.setattr(Cursor, "commit", lying_commit)
    published = []
    answers = database.transact([insert(1), insert(2)], lambda done: published.append(list(done.notes)))
    assert answers == [(1,), (2,)]
    assert database.statistics()["lost_commits"] == 1
    assert published == [[1], [2]]
    assert stored(database) == [0, 1, 2]
    lies.append(True)
    (answer,) = database.transact([insert(3)], nothing)
    assert (answer.type, answer.retryable) == (ErrorType.INTERNAL, True)
    assert stored(database) == [0, 1, 2]
    assert database.commit_seq == 3


def test_publishing_comes_after_commit_and_in_order(database):
    """Whoever is told of a transaction can read it with any cursor already."""
    seen = []

    def published(transaction: Transaction) -> None:
        seen.append((list(transaction.notes), stored(database)))

    database.transact([insert(1)], published)
    database.transact([insert(2), insert(1), insert(3)], published)
    assert seen == [([1], [1]), ([2], [1, 2]), ([3], [1, 2, 3])]


def test_a_failure_to_publish_says_that_the_write_is_stored(database):
    """The caller of a write that is stored but could not be published hears both."""

    def fails(_: Transaction) -> None:
        raise RuntimeError("no room in the index")

    (answer,) = database.transact([insert(1)], fails)
    assert (answer.type, answer.fields["outcome"]) == (ErrorType.INTERNAL, "committed")
    assert stored(database) == [1]


# --- what a member may do ---------------------------------------------------------------------------------------------


def test_a_query_sees_the_rows_that_were_inserted_before_it(database):
    """Buffered rows are written before a query, and the query's own member and those before it are seen."""
    counts = []

    def counts_rows(transaction: Transaction) -> None:
        counts.extend(transaction.query("SELECT count(*) FROM memories"))

    database.transact([insert(1, 2), counts_rows, insert(3), counts_rows], nothing)
    assert counts == [(2,), (3,)]


def test_a_change_can_return_rows(database):
    """DELETE ... RETURNING is a change, and is committed."""
    database.transact([insert(1, 2)], nothing)
    (answer,) = database.transact(
        [lambda transaction: transaction.query("DELETE FROM memories WHERE seq = 1 RETURNING seq")], nothing
    )
    assert answer == [(1,)]
    assert stored(database) == [2]


@pytest.mark.parametrize(
    "sql",
    ["COMMIT", "ROLLBACK", "BEGIN", "CREATE TABLE t (a INTEGER)", "DROP TABLE memories", "CHECKPOINT", "SET threads = 2",
     "SELECT 1; DELETE FROM memories", "PREPARE p AS SELECT 1", "ATTACH ':memory:' AS other", "COPY memories TO 'x.csv'"],
)  # fmt: skip
def test_members_and_readers_cannot_leave_their_lane(database, sql):
    """Transactions, tables and settings are not for members or readers, and one call is one statement."""
    database.transact([insert(1)], nothing)
    for answer in (
        *database.transact([lambda transaction: transaction.execute(sql)], nothing),
        *database.transact([lambda transaction: transaction.query(sql)], nothing),
    ):
        assert isinstance(answer, MemlabError)
    with pytest.raises(MemlabError):
        database.read(sql)
    with pytest.raises(MemlabError):
        database.read("DELETE FROM memories")
    assert stored(database) == [1]


@pytest.mark.parametrize("count", [1, 3, 6, 7, 300])
def test_few_rows_and_many_are_stored_alike(database, count):
    """Parameters and Arrow store the same values: text, lists, times with a zone, missing ones, and bytes."""
    noon_elsewhere = datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    columns = rows_of(range(count), content='{"text": "naïve \U0001f600"}') | {
        "occurred_at": [NOON.replace(tzinfo=UTC), noon_elsewhere, NOON][:1] * count,
        "expires_at": [noon_elsewhere] * count,
        "tags": [[], ["ü", "two words"]][:1] * count,
    }
    database.transact([lambda transaction: transaction.insert("memories", columns)], nothing)
    rows = database.read("SELECT seq, tags, occurred_at, expires_at, record, vector FROM memories ORDER BY seq")
    vector = [np.full(4, seq, np.float32).tobytes() for seq in range(count)]
    assert rows == [(seq, [], NOON, NOON, '{"text": "naïve \U0001f600"}', vector[seq]) for seq in range(count)]


@pytest.mark.parametrize("count", [2, 40])
def test_columns_come_as_lists_arrays_or_arrow(database, count):
    """A column may be a list, a NumPy array or an Arrow array, and a matrix fills a BLOB column row by row."""
    vectors = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    for start, wrap in ((0, list), (1000, np.array), (2000, pa.array)):
        seqs = [start + place for place in range(count)]
        columns = rows_of(seqs) | {"seq": wrap(seqs), "confidence": wrap([0.5] * count), "vector": vectors}
        for part in range(2):
            half = {name: column[part * count // 2 : (part + 1) * count // 2] for name, column in columns.items()}
            database.transact([lambda transaction, half=half: transaction.insert("memories", half)], nothing)
    rows = database.read("SELECT seq, confidence, vector FROM memories ORDER BY seq")
    assert rows == [(start + place, 0.5, vectors[place].tobytes()) for start in (0, 1000, 2000) for place in range(count)]


def test_wrong_columns_are_refused_before_the_database(database):
    """Columns of different length, or unknown ones, are a bug of ours, said at once; no rows are no change."""

    def empty(transaction: Transaction) -> int:
        transaction.insert("memories", {"seq": []})
        return transaction.changed

    uneven, unknown, none = database.transact(
        [
            lambda transaction: transaction.insert("memories", {"seq": [1], "origin": []}),
            lambda transaction: transaction.insert("memories", rows_of(range(20)) | {"colour": ["red"] * 20}),
            empty,
        ],
        nothing,
    )
    assert (uneven.reason, unknown.reason, none) == ("bug", "bug", 0)
    assert stored(database) == []


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize("value", ["no number", 2**70, "lone \ud800"])
def test_values_that_do_not_fit_are_a_validation_error(database, count, value):
    """Whatever a value is, the caller hears VALIDATION, and its neighbours are stored."""
    column = "record" if isinstance(value, str) and not value.startswith("no") else "digest"

    def unfit(transaction: Transaction) -> None:
        transaction.insert("memories", rows_of(range(100, 100 + count)) | {column: [value] * count})

    bad, good = database.transact([unfit, insert(1)], nothing)
    assert bad.type is ErrorType.VALIDATION
    assert good == (1,)
    assert stored(database) == [1]


def test_a_failure_to_write_anothers_rows_cannot_be_hidden(database):
    """Rows of an earlier member fail in a later member's query, which hides it: nobody is told that they are stored."""

    def wrong(transaction: Transaction) -> None:
        transaction.insert("memories", rows_of(range(10, 30)) | {"colour": ["red"] * 20})

    bad, hides, good = database.transact(
        [wrong, lambda transaction: _swallow(lambda: transaction.query("SELECT 1")), insert(1)], nothing
    )
    assert isinstance(bad, MemlabError)
    assert hides is None
    assert good == (1,)
    assert stored(database) == [1]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_no_reader_ever_sees_another_readers_row(database):
    """Many threads look up different rows at once; on one shared connection some would get each other's."""
    database.transact([insert(*range(2_000))], nothing)

    def look_up(thread: int) -> int:
        wrong = 0
        for seq in range(thread, 2_000, 16):
            rows = database.read("SELECT seq, digest FROM memories WHERE seq = ?", [seq])
            wrong += rows != [(seq, seq)]
        return wrong

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(look_up, range(16))) == 0


def test_concurrent_readers_have_different_cursors(database):
    """A cursor that is out is handed to nobody else, and comes back for the next."""
    with database._lease() as instance:
        with instance.cursor() as first, instance.cursor() as second:
            assert first is not second
            assert first.connection is not second.connection
        with instance.cursor() as third:
            assert third in (first, second)


def test_a_cursor_that_is_not_idle_is_thrown_away(database):
    """A cursor comes back idle or not at all: neither a half-read result nor a failed statement reaches the next task."""
    with database._lease() as instance:
        with pytest.raises(MemlabError, match="middle of a result"), instance.cursor() as dirty:
            dirty.is_idle = False
        with pytest.raises(duckdb.Error), instance.cursor() as failed:
            failed.read("SELECT CAST('x' AS INTEGER)")
        with instance.cursor() as fresh:
            assert fresh not in (dirty, failed)
        for cursor in (dirty, failed):
            with pytest.raises(duckdb.Error):
                cursor.read("SELECT 1")


def test_a_failed_read_is_one_error_and_the_next_read_works(database):
    """An error of a read is mapped, and leaves nothing behind."""
    with pytest.raises(MemlabError) as failure:
        database.read("SELECT CAST(? AS INTEGER)", ["secret of another session"])
    assert failure.value.type is ErrorType.VALIDATION
    assert "secret" not in failure.value.text
    assert isinstance(failure.value.__cause__, duckdb.Error)
    assert database.read("SELECT 1") == [(1,)]


def test_a_table_is_read_as_arrow(database):
    """The same rows come as an Arrow table, parameters included."""
    database.transact([insert(1, 2, 3)], nothing)
    table = database.read_arrow("SELECT seq, vector FROM memories WHERE seq > ? ORDER BY seq", [1])
    assert table.column("seq").to_pylist() == [2, 3]
    assert database.read_arrow("SELECT seq FROM memories WHERE seq > 99").num_rows == 0


def test_readers_go_on_beside_writers(database):
    """A reader always sees whole groups."""
    stop = threading.Event()
    torn = []

    def reads() -> None:
        while not stop.is_set():
            ((count,),) = database.read("SELECT count(*) FROM memories")
            if count % 10:
                torn.append(count)

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(reads) for _ in range(2)]
        for start in range(0, 200, 10):
            database.transact([insert(*range(start, start + 5)), insert(*range(start + 5, start + 10))], nothing)
        stop.set()
        for reader in readers:
            reader.result()
    assert torn == []


def test_writers_of_many_threads_take_turns(database):
    """Groups from many threads are numbered without a gap, and all their rows are there."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda start: database.transact([insert(start), insert(1000 + start)], nothing), range(40)))
    assert answers == [[(start,), (1000 + start,)] for start in range(40)]
    assert database.commit_seq == 40
    assert stored(database) == [*range(40), *range(1000, 1040)]


# --- tables ----------------------------------------------------------------------------------------------------------


def test_there_are_primary_keys_and_no_other_index(database):
    """No secondary index, no foreign key, no unique or check constraint: those are where DuckDB loses rows."""
    assert database.read("SELECT index_name FROM duckdb_indexes()") == []
    kinds = database.read("SELECT DISTINCT constraint_type FROM duckdb_constraints() ORDER BY 1")
    assert kinds == [("NOT NULL",), ("PRIMARY KEY",)]
