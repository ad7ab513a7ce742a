"""The truth: one DuckDB file with one writer, opened and kept so that what was acknowledged is never lost.

    Database.open    lock ▸ (create) ▸ inspect the log ▸ open hardened ▸ whose file is it? ▸ migrate ▸ compare with the mark
    transact         BEGIN ▸ members ▸ flush ▸ number ▸ COMMIT ▸ read back ▸ mark ▸ acknowledge
                     any failure ▸ ROLLBACK ▸ each member again, in a transaction of its own
    read             a cursor of its own ▸ everything fetched ▸ the cursor goes back idle, or not at all

Companions of `lab.duckdb`: `.wal` (DuckDB's log), `.lock`, `.mark`, `.tmp` (spilled intermediates), `.new` (while it is made) and
`.wal.quarantine-…` (a log that was cut, as it was found).
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa
import structlog

from memlab.errors import MemlabError, internal, not_found, validation
from memlab.settings import StorageSettings
from memlab.storage import failures, recovery
from memlab.storage.file_lock import FileLock
from memlab.storage.files import beside, free_bytes, sync_file, sync_folder
from memlab.storage.instance import Instance
from memlab.storage.mark import HighWaterMark
from memlab.storage.migrations import MIGRATIONS, Migration
from memlab.storage.transaction import Transaction

__all__ = ["Database", "Transaction"]

T = TypeVar("T")
Member = Callable[[Transaction], T]
Committed = Callable[[Transaction], None]

_log = structlog.get_logger(__name__)


class Database:
    """An open database. Every method may be called from any thread; `open` makes one.

    Attributes:
        path: the file, resolved.
        id: of this database, given when it was created.
        embedder, dimension: what fills it with vectors.
        recovered: what opening had to cut off the log, or None.
    """

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        *,
        settings: StorageSettings,
        embedder: str,
        dimension: int,
        threads: int,
        migrations: Sequence[Migration],
    ) -> None:
        """For `open` alone: take over a held lock and open the file behind it."""
        self.path = path
        self.embedder = embedder
        self.dimension = dimension
        self.recovered: recovery.Cut | None = None
        self._settings = settings
        self._threads = threads
        self._lock = lock
        self._wal = beside(path, ".wal")
        self._pid = os.getpid()

        self._writing = threading.Lock()  # one group commit or checkpoint at a time; taken before the gate
        self._commit_seq = 0
        self._in_doubt: tuple[int, Transaction, Committed] | None = None
        self._wal_inode: int | None = None
        self._wal_size = 0
        self._checkpoint_at = settings.checkpoint_bytes
        self._counts = dict.fromkeys(_COUNTS, 0)

        self._gate = threading.Condition(threading.Lock())  # guards what follows
        self._instance: Instance | None = None
        self._leases: Counter[int] = Counter()  # how often each thread uses the instance
        self._is_closing = False
        self._is_behind_mark = False
        self._checkpointer: threading.Thread | None = None

        with contextlib.ExitStack() as undo:
            instance = self._connect()
            undo.callback(lambda: instance.close())  # noqa: PLW0108 - after a migration it is another instance
            self.id, version = self._identify(instance, migrations[-1].version)
            self._mark = HighWaterMark(beside(path, ".mark"), self.id)
            undo.callback(self._mark.close)
            self._compare_with_mark(instance)
            if self._mark.is_new and self._commit_seq:
                _log.warning("mark_missing", path=str(path), commit_seq=self._commit_seq)
            missing = [step for step in migrations if step.version > version]
            if missing and not self._is_behind_mark:
                _migrate(instance, missing)
                instance.close()
                instance = self._connect()
            self._make_spill_folder()
            undo.pop_all()
        self._instance = instance
        _OPEN.add(self)

    # --- opening -----------------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        settings: StorageSettings,
        embedder: str,
        dimension: int,
        threads: int = 1,
        create: bool = True,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> Self:
        """Open the database file at *path*.

        Args:
            embedder, dimension: what makes its vectors; a database remembers, and refuses another.
            threads: that DuckDB uses inside one query.
            create: make the database when there is none.
            migrations: the steps that make and change its tables.
        Raises:
            MemlabError: PERMISSION `locked`, `access`; NOT_FOUND `file`; VALIDATION `foreign`, `schema_version`, `embedder`,
                `file`; INTERNAL `damaged`, `disk_full`.
        """
        path = Path(path).expanduser().resolve()
        if path.is_dir():
            raise validation("file", f"{path} is a folder; give the path of a database file")
        if not path.exists() and not create:
            raise not_found("file", f"no database {path}")
        if not path.parent.is_dir():
            raise not_found("file", f"no folder {path.parent} for the database; make it first")
        try:
            lock = FileLock(beside(path, ".lock"))
        except OSError as error:
            raise failures.mapped(error) from error
        try:
            if create and not path.exists():
                _create(path, settings, embedder, dimension, migrations)
            database = cls(
                path, lock, settings=settings, embedder=embedder, dimension=dimension, threads=threads, migrations=migrations
            )
        except (duckdb.Error, OSError) as error:
            lock.release()
            raise failures.opening(error, path) from error
        except BaseException:
            lock.release()
            raise
        _log.info("database_opened", path=str(path), id=database.id, commit_seq=database.commit_seq)
        return database

    def _connect(self) -> Instance:
        """Open the file after a look at its log, whose torn end is cut where that is safe."""

        def attempt() -> Instance:
            return Instance(self.path, threads=self._threads, memory_limit_bytes=self._settings.memory_limit_bytes)

        instance, cut = recovery.open_with_log(self._wal, attempt)
        self.recovered = cut or self.recovered
        self._wal_inode = None
        self._look_at_wal()
        return instance

    def _make_spill_folder(self) -> None:
        """Make the folder for what does not fit in memory, for nobody else's eyes, without what a killed process left there."""
        folder = beside(self.path, ".tmp")
        folder.mkdir(mode=0o700, exist_ok=True)
        for leftover in folder.glob("duckdb_temp_*"):
            leftover.unlink()

    def _identify(self, instance: Instance, newest: int) -> tuple[str, int]:
        """Return whose file it is and the version of its tables; refuse what is not ours, too new, or of another embedder."""
        try:
            with instance.cursor() as cursor:
                meta = dict(cursor.read("SELECT key, value FROM meta"))
            id = str(uuid.UUID(meta["database_id"]))
            version, embedder, dimension = int(meta["schema_version"]), str(meta["embedder"]), int(meta["dimension"])
        except (duckdb.ProgrammingError, KeyError, ValueError, TypeError, AttributeError):
            raise failures.not_ours(self.path) from None
        if version > newest:
            raise validation(
                "schema_version", f"{self.path} was written by a newer memlab (tables {version}, known {newest}); update memlab"
            )
        if (embedder, dimension) != (self.embedder, self.dimension):
            raise validation(
                "embedder",
                f"{self.path} holds vectors of '{embedder}' with {dimension} numbers, not of '{self.embedder}' with "
                f"{self.dimension}; open it with that embedder or give another path",
                embedder=embedder,
                dimension=dimension,
            )
        return id, version

    def _compare_with_mark(self, instance: Instance) -> None:
        """Refuse writes from now on when the database holds less than was acknowledged."""
        ((self._commit_seq,),) = instance.witness.read(_COMMIT_SEQ)
        self._is_behind_mark = self._commit_seq < self._mark.commit_seq
        if self._is_behind_mark:
            _log.error("behind_mark", path=str(self.path), commit_seq=self._commit_seq, acknowledged=self._mark.commit_seq)
        else:
            self._mark.advance(self._commit_seq)

    # --- state -------------------------------------------------------------------------------------------------------

    @property
    def commit_seq(self) -> int:
        """The number of the last committed transaction."""
        return self._commit_seq

    @property
    def is_behind_mark(self) -> bool:
        """Whether acknowledged transactions are missing from the file, so that writes are refused."""
        return self._is_behind_mark

    def wal_bytes(self) -> int:
        """Return the size of the write-ahead log."""
        try:
            return self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    def statistics(self) -> dict[str, int]:
        """Return counts since opening, the number of the last commit and the size of the log."""
        return self._counts | {
            "commit_seq": self._commit_seq,
            "wal_bytes": self.wal_bytes(),
            "behind_mark": int(self._is_behind_mark),
        }

    # --- reading -----------------------------------------------------------------------------------------------------

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return every row of one SELECT, as the last committed transaction left them."""
        try:
            with self._lease() as instance, instance.cursor() as cursor:
                return cursor.read(sql, parameters)
        except (duckdb.Error, OSError) as error:
            raise failures.mapped(error) from error

    def read_arrow(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Return the result of one SELECT as an Arrow table."""
        try:
            with self._lease() as instance, instance.cursor() as cursor:
                return cursor.read_arrow(sql, parameters)
        except (duckdb.Error, OSError) as error:
            raise failures.mapped(error) from error

    @contextlib.contextmanager
    def _lease(self) -> Iterator[Instance]:
        """Use the instance; a broken one is closed and opened again first, when its last user is gone."""
        thread = threading.get_ident()
        with self._gate:
            self._require_open()
            while self._instance is None or self._instance.is_broken:
                if not self._leases:
                    self._reopen()
                elif thread in self._leases:  # waiting for itself to end
                    raise internal("storage", "the database broke in the middle of this request", retryable=True)
                else:
                    self._gate.wait()
                    self._require_open()
            instance = self._instance
            self._leases[thread] += 1
        try:
            yield instance
        except BaseException as error:
            if failures.is_fatal(error):
                instance.is_broken = True
            raise
        finally:
            with self._gate:
                self._leases[thread] -= 1
                if not self._leases[thread]:
                    del self._leases[thread]
                    if not self._leases:
                        self._gate.notify_all()

    def _require_open(self) -> None:
        if os.getpid() != self._pid:
            raise validation(
                "forked",
                f"{self.path} was opened before this process was forked; open it in the process that uses it (spawn, not fork)",
            )
        if self._is_closing:
            raise validation("closed", f"{self.path} is closed; open it again")

    def _reopen(self) -> None:
        """Replace a broken instance in place; the lock stays held."""
        broken, self._instance = self._instance, None
        if broken is not None:
            with contextlib.suppress(duckdb.Error):
                broken.close()
        try:
            instance = self._connect()
            try:
                self._compare_with_mark(instance)
            except BaseException:
                instance.close()
                raise
        except (duckdb.Error, OSError) as error:
            raise failures.opening(error, self.path) from error
        self._instance = instance
        self._counts["reopened"] += 1
        _log.warning("database_reopened", path=str(self.path), commit_seq=self._commit_seq)

    # --- writing -----------------------------------------------------------------------------------------------------

    def transact(self, members: Sequence[Member[T]], committed: Committed) -> list[T | MemlabError]:
        """Run *members* as one durable transaction; when one of them spoils it, run each in a transaction of its own.

        A member is called with the transaction and returns its answer. It may be called twice, from its beginning. A member
        that raises MemlabError before it changed anything gets its error while the others go on.

        Args:
            committed: called once for every transaction that was committed and read back, in order, before any answer is given.
        Returns:
            for each member its answer, or the error that it alone is told.
        Raises:
            MemlabError: VALIDATION `closed`, `forked`.
        """
        if not members:
            return []
        with self._writing:
            self._require_open()
            refusal = self._refusal()
            if refusal is not None:
                return [refusal.copy() for _ in members]
            try:
                answers = self._attempt(members, committed)
            except _UndoneError as undone:
                if len(members) == 1:
                    answers = [undone.reason]
                else:
                    self._counts["reruns"] += 1
                    answers = [self._alone(member, committed) for member in members]
        self._checkpoint_when_due()
        return answers

    def _alone(self, member: Member[T], committed: Committed) -> T | MemlabError:
        try:
            (answer,) = self._attempt([member], committed)
        except _UndoneError as undone:
            return undone.reason
        return answer

    def _refusal(self) -> MemlabError | None:
        """Return why no write is taken now, or None."""
        if self._is_behind_mark:
            return internal(
                "behind_mark",
                f"{self.path} holds less than was acknowledged, so writes are refused and reads go on; restore a backup, "
                f"or accept the loss by removing {beside(self.path, '.mark').name}",
            )
        try:
            free = free_bytes(self.path.parent)
        except OSError as error:
            return failures.mapped(error)
        # Folding the log into the file takes as much again, and DuckDB does not survive a checkpoint on a full disk.
        needed = self._settings.min_free_bytes + self._wal_size
        if free < needed:
            return internal(
                "disk_full",
                f"{free:,} bytes are free beside {self.path} and {needed:,} are needed: writes are refused and reads go on",
                retryable=True,
            )
        return None

    def _attempt(self, members: Sequence[Member[T]], committed: Committed) -> list[T | MemlabError]:
        """Run one transaction; raises _UndoneError where it is certain that nothing was written."""
        try:
            self._settle()
            with self._lease() as instance:
                self._prime(instance)
                transaction = Transaction(instance)
                answers = self._prepare(instance, transaction, members)
                doubt = self._commit(instance, transaction, committed) if transaction.changed else None
        except (MemlabError, duckdb.Error, OSError) as error:
            raise _UndoneError(failures.mapped(error)) from error
        if doubt is None and transaction.changed:
            doubt = self._publish(transaction, committed)
        if doubt is not None:
            return [answer if isinstance(answer, MemlabError) else doubt.copy() for answer in answers]
        return answers

    def _prepare(self, instance: Instance, transaction: Transaction, members: Sequence[Member[T]]) -> list[T | MemlabError]:
        """Do everything up to COMMIT; where nothing was changed, the transaction is over."""
        writer = instance.writer
        try:
            writer.begin()
            answers = [_answer(member, transaction) for member in members]
            if not transaction.changed:
                writer.roll_back()
                return answers
            transaction.flush()
            # It numbers the commit, and is the guard before it: it fails where an earlier statement failed unnoticed.
            writer.change("UPDATE state SET commit_seq = ?", [self._commit_seq + 1])
        except BaseException as error:
            self._roll_back(instance)
            if isinstance(error, Exception):
                raise _UndoneError(failures.mapped(error)) from error
            raise
        return answers

    def _commit(self, instance: Instance, transaction: Transaction, committed: Committed) -> MemlabError | None:
        """Commit, read back and move the mark; returns the error where the outcome is unknown."""
        number = self._commit_seq + 1
        self._in_doubt = (number, transaction, committed)
        try:
            instance.writer.commit()
        except BaseException as error:
            if failures.is_rolled_back(error):
                self._in_doubt = None
                self._roll_back(instance)
                raise _UndoneError(failures.mapped(error)) from error
            return self._unknown(instance, error)
        try:
            self._look_at_wal()
            ((found,),) = instance.witness.read(_COMMIT_SEQ)
            if found == number:
                self._mark.advance(number)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the outcome is unknown, and an interrupt goes on
            return self._unknown(instance, error)
        self._in_doubt = None
        if found != number:
            self._counts["lost_commits"] += 1
            _log.error("commit_lost", path=str(self.path), commit_seq=number, found=found)
            raise _UndoneError(
                internal("storage", "COMMIT reported success and had written nothing; nothing was changed", retryable=True)
            )
        self._commit_seq = number
        self._counts["commits"] += 1
        return None

    def _unknown(self, instance: Instance, error: BaseException) -> MemlabError:
        """Give up an instance that failed while a COMMIT was in flight; what became of it shows when it is opened again."""
        instance.is_broken = True
        self._counts["outcomes_unknown"] += 1
        if isinstance(error, Exception):
            return failures.outcome_unknown(error)
        raise error

    def _settle(self) -> None:
        """Publish a transaction whose outcome was unknown, when the file that was opened again holds it."""
        if self._in_doubt is None:
            return
        with self._lease():
            number, transaction, committed = self._in_doubt
            self._in_doubt = None
        if number <= self._commit_seq:
            self._publish(transaction, committed)

    def _publish(self, transaction: Transaction, committed: Committed) -> MemlabError | None:
        """Hand a committed transaction to the caller; returns the error where that fails, for then searches would miss it."""
        try:
            committed(transaction)
        except Exception as error:  # noqa: BLE001 - it is committed, so its callers must hear of that, not of a bug alone
            _log.exception("publish_failed", path=str(self.path), commit_seq=self._commit_seq)
            cause = failures.mapped(error)
            return internal("bug", f"stored, but not yet found by searches until reopened: {cause.text}", outcome="committed")
        return None

    def _roll_back(self, instance: Instance) -> None:
        self._counts["rollbacks"] += 1
        try:
            instance.writer.roll_back()
        except duckdb.Error:
            instance.is_broken = True

    # --- the log -----------------------------------------------------------------------------------------------------

    def _look_at_wal(self) -> None:
        """Note the size of the log; where it is a new file, make its folder entry durable and its content private."""
        try:
            status = self._wal.stat()
        except FileNotFoundError:
            self._wal_inode, self._wal_size = None, 0
            return
        if status.st_ino != self._wal_inode:
            self._wal.chmod(0o600)
            sync_folder(self.path.parent)
            self._wal_inode = status.st_ino
        self._wal_size = status.st_size

    def _prime(self, instance: Instance) -> None:
        """Let DuckDB make its log while nothing of value is in it: it is readable by others until `_look_at_wal` saw it."""
        if self._wal_inode is not None:
            return
        try:
            instance.writer.begin()
            for step in (1, -1):  # DuckDB does not log an update that changes nothing
                instance.writer.change("UPDATE state SET commit_seq = commit_seq + ?", [step])
            instance.writer.commit()
            self._look_at_wal()
        except BaseException:
            instance.is_broken = True
            raise

    def checkpoint(self) -> None:
        """Fold the log into the database file.

        Raises:
            MemlabError: VALIDATION `closed`; INTERNAL `behind_mark`, `disk_full`, `storage`.
        """
        with self._writing:
            self._require_open()
            refusal = self._refusal()
            if refusal is not None:
                raise refusal
            try:
                with self._lease() as instance:
                    self._fold(instance)
                    self._prime(instance)
            except (duckdb.Error, OSError) as error:
                self._counts["checkpoint_failures"] += 1
                # Not at every commit again: when the log has grown by a quarter of the bound.
                self._checkpoint_at = self._wal_size + self._settings.checkpoint_bytes // 4
                raise failures.mapped(error) from error

    def _fold(self, instance: Instance) -> None:
        instance.checkpoint()
        self._look_at_wal()
        sync_folder(self.path.parent)
        self._mark.sync()
        self._checkpoint_at = self._settings.checkpoint_bytes
        self._counts["checkpoints"] += 1

    def _checkpoint_when_due(self) -> None:
        """Start a checkpoint in the background when the log is large: nobody's acknowledgement waits for it."""
        if self._wal_size < self._checkpoint_at:
            return
        with self._gate:
            if self._is_closing or (self._checkpointer is not None and self._checkpointer.is_alive()):
                return
            self._checkpointer = threading.Thread(target=self._checkpoint_quietly, name="memlab-checkpoint", daemon=True)
            self._checkpointer.start()

    def _checkpoint_quietly(self) -> None:
        try:
            self.checkpoint()
        except MemlabError as error:
            _log.warning("checkpoint_failed", path=str(self.path), reason=error.reason, wal_bytes=self._wal_size)

    # --- closing -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for what is under way, fold the log, close the file and let the next opener in; a second call does nothing."""
        if os.getpid() != self._pid:
            return
        with self._writing:
            with self._gate:
                if self._is_closing:
                    return
                self._is_closing = True
                while self._leases:
                    self._gate.wait()
                instance, self._instance = self._instance, None
            _OPEN.discard(self)
            try:
                if instance is not None:
                    self._close_instance(instance)
            finally:
                with contextlib.suppress(OSError):
                    beside(self.path, ".tmp").rmdir()
                self._mark.close()
                self._lock.release()
        if self._checkpointer is not None:
            self._checkpointer.join()
        _log.info("database_closed", path=str(self.path), commit_seq=self._commit_seq)

    def _close_instance(self, instance: Instance) -> None:
        try:
            if self.wal_bytes() and not instance.is_broken and self._refusal() is None:
                self._fold(instance)
        except (duckdb.Error, OSError) as error:
            # Nothing is lost: the log is complete and is read at the next opening.
            _log.warning("checkpoint_failed", path=str(self.path), kind=type(error).__name__, wal_bytes=self._wal_size)
        finally:
            with contextlib.suppress(duckdb.Error):
                instance.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _abandon(self) -> None:
        """In a forked child: forget the parent's descriptors, connections and locks without touching what they stand for."""
        self._lock.abandon()
        self._mark.close()
        if self._instance is not None:
            self._instance.abandon()
        self._writing = threading.Lock()  # another thread of the parent may have held them
        self._gate = threading.Condition(threading.Lock())


class _UndoneError(Exception):
    """A transaction of which nothing was written, and what its only member is told."""

    def __init__(self, reason: MemlabError) -> None:
        super().__init__(reason.text)
        self.reason = reason


_COMMIT_SEQ = "SELECT commit_seq FROM state"
_COUNTS = (
    "commits",
    "rollbacks",
    "reruns",
    "lost_commits",
    "outcomes_unknown",
    "checkpoints",
    "checkpoint_failures",
    "reopened",
)


def _answer(member: Member[T], transaction: Transaction) -> T | MemlabError:
    """Run one member; its error is its answer where it changed nothing, and spoils the transaction where it did."""
    changed, notes = transaction.changed, len(transaction.notes)
    try:
        answer = member(transaction)
    except MemlabError as error:
        if transaction.failure is not None or transaction.changed != changed:
            raise
        del transaction.notes[notes:]
        return error
    if transaction.failure is not None:  # the member went on after a failed statement; nothing of it would be written
        raise transaction.failure
    return answer


def _create(path: Path, settings: StorageSettings, embedder: str, dimension: int, migrations: Sequence[Migration]) -> None:
    """Make an empty database under a temporary name and give it its own when it is whole: a crash leaves no half-made file."""
    log = beside(path, ".wal")
    if log.exists():
        raise internal("damaged", f"{path} is gone but its log {log.name} is there: bring the file back, or move the log away")
    temporary = beside(path, ".new")
    leftovers = (temporary, beside(temporary, ".wal"))  # of a creation that was killed; nothing in them was acknowledged
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    try:
        instance = Instance(temporary, threads=1, memory_limit_bytes=settings.memory_limit_bytes, create=True)
        try:
            temporary.chmod(0o600)
            _migrate(instance, migrations)
            meta = {"database_id": str(uuid.uuid4()), "embedder": embedder, "dimension": str(dimension)}
            instance.writer.change("INSERT INTO meta SELECT unnest(?), unnest(?)", [list(meta), list(meta.values())])
            instance.checkpoint()
        finally:
            instance.close()
        sync_file(temporary)
        temporary.rename(path)
        sync_folder(path.parent)
    except BaseException:
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        raise


def _migrate(instance: Instance, steps: Sequence[Migration]) -> None:
    """Bring the tables up to date, each step whole or not at all."""
    for step in steps:
        instance.writer.begin()
        try:
            instance.run_script(step.sql)
            instance.writer.change("INSERT OR REPLACE INTO meta VALUES ('schema_version', ?)", [str(step.version)])
            instance.writer.commit()
        except BaseException:
            instance.writer.roll_back()
            raise
        ((version,),) = instance.witness.read("SELECT value FROM meta WHERE key = 'schema_version'")
        if version != str(step.version):
            raise internal("storage", f"tables could not be brought to version {step.version}")
        instance.checkpoint()
        _log.info("migrated", version=step.version)


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


def _abandon_all() -> None:
    for database in list(_OPEN):
        database._abandon()


os.register_at_fork(after_in_child=_abandon_all)
