"""Storage: one database file with its indexes, and the only way to a memory.

DuckDB holds the truth; directory, vector index and text index are derived from it. A write is in every one of them before it is
acknowledged.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from memlab.embedders import Embedder
from memlab.errors import MemlabError, validation
from memlab.hooks import Hooks
from memlab.settings import Settings
from memlab.storage import demands as ask
from memlab.storage import records
from memlab.storage.calls import Call
from memlab.storage.database import Database
from memlab.storage.directory import Directory, microseconds, wall_us
from memlab.storage.indexes import Indexes
from memlab.storage.phases import Phases
from memlab.storage.reading import Reader
from memlab.storage.rows import Value
from memlab.storage.vectors import VectorIndex
from memlab.storage.writing import Prepared, Writer


class Storage:
    """One database file with its derived indexes.

    Args (of `open`):
        path: the database file; the indexes stand beside it in `<path>.index/`.
        embedder: turns text into vectors; its name is remembered and another is refused.
        create: make the database when there is none.
        hooks: the user's own functions; see `Hooks`.
    Raises:
        MemlabError: NOT_FOUND `file`, VALIDATION `foreign`, `embedder`, PERMISSION `locked`, INTERNAL `damaged`, …
    """

    def __init__(self, database: Database, embedder: Embedder, settings: Settings, hooks: Hooks | None = None) -> None:
        self.database = database
        self.embedder = embedder
        self.settings = settings
        self.indexes = Indexes(database, settings, embedder.dimension)
        self._reader = Reader(
            database,
            self.indexes,
            embedder,
            vector_threads=settings.pool.vector_threads if settings.pool else 1,
            rerank=settings.index.kind == "sq8",
            retrieval=settings.retrieval,
            hooks=hooks or Hooks(),
        )
        self._writer = Writer(database, self.indexes, self._reader)
        self._writer.forget_old_keys(settings.storage.keys_kept_days)
        self._closed = False

    @classmethod
    def open(
        cls, path: str | Path, settings: Settings, embedder: Embedder, *, create: bool = True, hooks: Hooks | None = None
    ) -> Storage:
        """Open or create the database at *path* and bring its indexes up to date."""
        database = Database.open(
            Path(path),
            settings=settings.storage,
            embedder=embedder.name,
            dimension=embedder.dimension,
            threads=settings.pool.database_threads if settings.pool else 1,
            create=create,
        )
        try:
            return cls(database, embedder, settings, hooks)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Save the indexes and close the database; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self.indexes.close()
        finally:
            self.database.close()

    @property
    def directory(self) -> Directory:
        """What filters know of every memory."""
        return self.indexes.directory

    @property
    def vectors(self) -> VectorIndex:
        """The vector index."""
        return self.indexes.vectors

    def statistics(self) -> dict[str, int]:
        """Return counts for people and metrics: memories, forgotten entries, sessions, hot rows, bytes of the vector index."""
        with self.indexes.lock.reading():
            return {
                "memories": self.directory.alive,
                "forgotten_entries": self.directory.dead,
                "sessions": len(self.indexes.codes),
                "hot_rows": len(self.indexes.rows),
                "vector_bytes": self.vectors.bytes,
                "commit_seq": self.database.commit_seq,
            }

    def database_bytes(self) -> int:
        """Return how much memory DuckDB says that it holds: buffers, transactions, hash tables; takes a query."""
        (total,) = self.database.read("SELECT CAST(sum(memory_usage_bytes) AS BIGINT) FROM duckdb_memory()")[0]
        return int(total)

    def clear_rows(self) -> None:
        """Forget which rows and graphs are in memory, so that the next reads come from the database."""
        self.indexes.rows.clear()
        self.indexes.graphs.clear()

    def rebuild(self, reason: str = "asked for") -> None:
        """Build the vector index anew without the forgotten, and wait for it."""
        self._check_open()
        self.indexes.rebuild(reason)

    def read(self, calls: Sequence[Call], phases: Phases) -> list[Any]:
        """Run reading plans together; one answer, or MemlabError as a value, for each call."""
        self._check_open()
        outcomes: list[Any] = [None] * len(calls)
        running: list[tuple[int, int, Generator[Any, Any, Any], Any]] = []
        for index, call in enumerate(calls):
            try:
                session = self.indexes.code(call.session)
                plan = call.start()
                if not isinstance(plan, Generator):  # an operation that asks nothing of storage has answered already
                    outcomes[index] = plan
                    continue
                running.append((index, session, plan, next(plan)))
            except StopIteration as stop:
                outcomes[index] = stop.value
            except MemlabError as error:
                outcomes[index] = error
        while running:
            answers = self._reader.answer([(session, demand) for _, session, _, demand in running], phases)
            going = []
            for (index, session, plan, _), answer in zip(running, answers, strict=True):
                try:
                    following = plan.throw(answer) if isinstance(answer, MemlabError) else plan.send(answer)
                    going.append((index, session, plan, following))
                except StopIteration as stop:
                    outcomes[index] = stop.value
                except MemlabError as error:
                    outcomes[index] = error
            running = going
        return outcomes

    def prepare(self, calls: Sequence[Call], phases: Phases) -> Prepared:
        """Do for writing plans what does not need the writer: embed, and read ahead."""
        self._check_open()
        return self._writer.prepare(calls, phases)

    def write(self, prepared: Prepared, phases: Phases) -> list[Any]:
        """Run prepared plans as one transaction, in order; one answer, or MemlabError as a value, for each.

        When this returns, every answered write is committed, read back and visible to any search.
        """
        self._check_open()
        return self._writer.write(prepared, phases)

    def resident(self, call: Call) -> tuple[Any] | None:
        """Return the answer of a plan that asks for rows in memory only, in a tuple; None where it needs more than that."""
        session = self.indexes.codes.get(call.session)
        if session is None or self._closed:
            return None
        plan = call.start()
        try:
            demand = next(plan)
            while True:
                answer = self._hot(session, demand) if isinstance(demand, ask.Fetch) else None
                if answer is None:
                    plan.close()
                    return None
                demand = plan.send(answer)
        except StopIteration as stop:
            return (stop.value,)

    def _hot(self, session: int, demand: ask.Fetch) -> list[Value | None] | None:
        values: list[Value | None] = []
        now = wall_us()
        for id in demand.ids:
            # No lock: the directory only grows or is replaced whole, and a row that is being forgotten may still be seen.
            seq = self.directory.current(session, demand.layer, records.origin_of(demand.layer, id))
            row = self.indexes.rows.resident(seq) if seq >= 0 else None
            if row is None or row[1].id != id or (row[1].expires_at is not None and microseconds(row[1].expires_at) <= now):
                return None
            values.append(row[1])
        return values

    def _check_open(self) -> None:
        if self._closed:
            raise validation("closed", "this memory is closed; open it again with Memory.open or Engine.open")
