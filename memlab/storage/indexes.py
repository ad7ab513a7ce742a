"""What is derived from the database and answers for it: directory, vector index, text index, graphs, hot rows.

Each is brought up to date when storage opens, changed when a transaction was committed and before it is acknowledged, and built
again where it is stale, foreign or damaged. Nothing here is needed to reopen a database.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import numpy as np
import pyarrow as pa
import structlog

from memlab.errors import MemlabError, not_found
from memlab.measure import clock
from memlab.settings import Settings
from memlab.storage import records
from memlab.storage.analysis import Document, analyse
from memlab.storage.database import Database, Transaction
from memlab.storage.directory import KINDS, Directory, Entry, wall_us
from memlab.storage.graph import Graphs
from memlab.storage.locks import ReadWriteLock
from memlab.storage.manifest import Stale
from memlab.storage.records import NAMES
from memlab.storage.rows import Rows, Value
from memlab.storage.tail import Tail
from memlab.storage.text import TextIndex
from memlab.storage.vectors import VectorIndex
from memlab.values import DEFAULT_SESSION

log = structlog.get_logger(__name__)

_IDLE_NS = 1_000_000_000  # a bulk load leaves less between its calls, also where its caller is slow to send
_PATIENCE_NS = 30_000_000_000
_EXPIRED_AT_ONCE = 5_000


class Added(msgspec.Struct, frozen=True):
    """Memories that a transaction stored, in ascending seq, with their vectors, (n, dimension) float32.

    Attributes:
        texts: as the text index takes them, where they are many: made while the transaction commits.
    """

    entries: list[Entry]
    values: list[Value]
    vectors: np.ndarray
    texts: Future[Tail] | None = None


class Dropped(msgspec.Struct, frozen=True):
    """Memories that a transaction forgot."""

    seqs: list[int]


class Opened(msgspec.Struct, frozen=True):
    """A session that a transaction created."""

    name: str
    code: int


class Closed(msgspec.Struct, frozen=True):
    """A session that a transaction deleted."""

    name: str
    code: int


class Indexes:
    """Everything derived from one database.

    Attributes:
        lock: shared by searches, held alone by changes; `directory` and `vectors` are replaced only under it.
        codes: of the sessions, by name.
        last_seq, last_code: given last; the writer counts on from there.
    """

    directory: Directory
    vectors: VectorIndex
    text: TextIndex

    def __init__(self, database: Database, settings: Settings, dimension: int) -> None:
        self.lock = ReadWriteLock()
        self.rows = Rows(database, settings.storage.hot_rows)
        self.graphs = Graphs(database)
        self.codes: dict[str, int] = {}
        self.last_seq = 0
        self.last_code = 0
        self._database = database
        self._settings = settings
        self._dimension = dimension
        self._folder = database.path.with_name(database.path.name + ".index")
        self._upkeep = ThreadPoolExecutor(1, thread_name_prefix="memlab-upkeep")
        self._rebuilding: Future[None] | None = None
        self._arrived: list[np.ndarray] | None = None  # vectors stored while the index is built again
        self._closed = threading.Event()
        self._writes = 0  # under way; there is one writer
        self._changed_ns = clock.monotonic_ns()
        self._load()
        self.maintain()

    def code(self, session: str) -> int:
        """Return the code of a session; NOT_FOUND `session` where there is none."""
        code = self.codes.get(session)
        if code is None:
            known_as = session if len(session) <= 128 else f"{session[:125]}..."
            raise not_found("session", f"no session {known_as!r}; session.create opens one", session=known_as)
        return code

    def close(self) -> None:
        """Wait for what is being built, and save."""
        self._closed.set()
        self._upkeep.shutdown(wait=True)
        try:
            if self._purge:
                self._rebuild("a session was deleted")
            self.save()
        finally:
            self.text.close()

    def _load(self) -> None:
        """Read the directory, take the saved indexes where they are valid, catch up, and rebuild what is not."""
        self.codes = dict(self._database.read("SELECT session, code FROM sessions"))
        ((last_seq, last_code, self._purge),) = self._database.read("SELECT last_seq, last_code, purge FROM allocation")
        self.last_code = max([last_code, *self.codes.values()])
        ((top, old),) = self._database.read("SELECT (SELECT max(seq) FROM memories), (SELECT max(seq) FROM versions)")
        self.last_seq = max(last_seq, top or 0, old or 0)
        loading = self._upkeep.submit(  # reads and hashes a large file without Python's lock
            VectorIndex.load,
            self._folder,
            database_id=self._database.id,
            dimension=self._dimension,
            settings=self._settings.index,
        )
        columns = self._read_columns()
        seqs = columns["seq"]
        self.text = self._open_text(seqs)
        try:
            vectors, indexed = loading.result()
            self._check_against(vectors, indexed, seqs)
        except Stale as stale:
            if len(seqs):
                log.warning("index_rebuilt", index="vectors", reason=str(stale), memories=len(seqs))
            vectors, indexed = self._build(seqs), seqs
        fresh = seqs[seqs > (indexed[-1] if len(indexed) else 0)]
        if len(fresh):
            log.info("index_caught_up", index="vectors", memories=len(fresh))
            _, missing = self.stored_vectors(fresh.tolist())
            vectors.add(missing)
        self.directory = Directory(self._load_tags)
        self.directory.load(_aligned(columns, np.concatenate([indexed, fresh])))
        self.vectors = vectors

    def _read_columns(self) -> dict[str, np.ndarray]:
        table = self._database.read_arrow(_DIRECTORY, [list(NAMES), list(KINDS)])
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        return {**columns, "alive": np.ones(len(columns["seq"]), np.bool_)}

    def _build(self, seqs: np.ndarray) -> VectorIndex:
        if not len(seqs):
            return VectorIndex(self._dimension, self._settings.index)
        table = self._database.read_arrow("SELECT vector FROM memories ORDER BY seq")
        return VectorIndex.build(matrix(table.column("vector"), self._dimension), self._settings.index)

    def _check_against(self, vectors: VectorIndex, indexed: np.ndarray, seqs: np.ndarray) -> None:
        """Raise Stale unless the index covers the database up to its last entry and a sample of its vectors agrees."""
        if not len(indexed):
            return
        if indexed[-1] > self.last_seq or (np.diff(indexed) <= 0).any():
            raise Stale("foreign", "it knows memories that the database does not")
        covered = seqs[seqs <= indexed[-1]]
        places = np.minimum(np.searchsorted(indexed, covered), len(indexed) - 1)
        if not np.array_equal(indexed[places], covered):
            raise Stale("stale", "it lacks memories that the database holds")
        if not len(covered):
            return
        sample = np.unique(np.linspace(0, len(covered) - 1, 16).astype(np.int64))
        known, stored = self.stored_vectors(covered[sample].tolist())
        held = vectors.vectors(places[sample])
        if len(known) != len(sample) or (np.einsum("ij,ij->i", held, stored) < 0.95).any():
            raise Stale("foreign", "its vectors are not those of the database")

    def _open_text(self, seqs: np.ndarray) -> TextIndex:
        folder = self._folder / "text"
        try:
            text = TextIndex.open(folder, database_id=self._database.id, settings=self._settings.storage)
            if text.covered_seq > self.last_seq:
                raise Stale("foreign", "it knows memories that the database does not")
        except Stale as stale:
            if len(seqs):
                log.warning("index_rebuilt", index="text", reason=str(stale), memories=len(seqs))
            text = TextIndex.create(folder, database_id=self._database.id, settings=self._settings.storage)
        text.retain(seqs)
        if text.count != int((seqs <= text.covered_seq).sum()):
            log.warning("index_rebuilt", index="text", reason="it lacks memories that the database holds", memories=len(seqs))
            text.close()
            text = TextIndex.create(folder, database_id=self._database.id, settings=self._settings.storage)
        missing = seqs[seqs > text.covered_seq]
        if len(missing):
            log.info("index_caught_up", index="text", memories=len(missing))
            rows = self._database.read(_TEXTS, [text.covered_seq])
            text.load(
                (seq, session, layer, records.decode(layer, record).content if content is None else content)
                for seq, session, layer, content, record in rows
            )
        return text

    def _load_tags(self, session: int, layer: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
        table = self._database.read_arrow(
            "SELECT seq, unnest(tags) AS tag FROM memories WHERE session = ? AND layer = ?", [session, layer]
        )
        chunks = table.column("tag").dictionary_encode().unify_dictionaries().chunks
        codes = [chunk.indices.to_numpy() for chunk in chunks] or [np.zeros(0, np.int32)]
        return table.column("seq").to_numpy(), np.concatenate(codes), chunks[0].dictionary.to_pylist() if chunks else []

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold off what waits for a pause in writing, from the beginning of a write to its end."""
        self._writes += 1
        try:
            yield
        finally:
            self._writes -= 1
            self._changed_ns = clock.monotonic_ns()

    def maintain(self) -> None:
        """Start in the background what is due: forgetting the expired, a rebuild of the vector index, a purge."""
        with self.lock.reading():
            reason = self._due()
            expired = self.directory.first_expiry <= wall_us()
        if self._closed.is_set() or (self._rebuilding is not None and not self._rebuilding.done()):
            return
        if expired:
            self._rebuilding = self._upkeep.submit(self._forget_expired)
        elif reason is not None:
            self._rebuilding = self._upkeep.submit(self._rebuild_when_idle, reason)

    def _due(self) -> str | None:
        return "a session was deleted" if self._purge else self.vectors.stale(self.directory.dead)

    def _forget_expired(self) -> None:
        """Delete memories past their time, some thousands in a transaction; no read has shown them since."""
        with self.lock.reading():
            expired = np.flatnonzero(self.directory.column("alive") & (self.directory.column("expires") <= wall_us()))
            seqs = self.directory.column("seq")[expired[:_EXPIRED_AT_ONCE]].tolist()
            origins = self.directory.column("origin")[expired[:_EXPIRED_AT_ONCE]].tolist()
            if not seqs:
                self.directory.look_for_expiry()
                return

        def forget(transaction: Transaction) -> None:
            transaction.remove(seqs)
            transaction.execute("DELETE FROM versions WHERE origin IN (SELECT unnest(?))", [origins])
            transaction.execute("UPDATE allocation SET last_seq = ?", [self.last_seq])
            transaction.notes.append(Dropped(seqs))

        (failure,) = self._database.transact([forget], self.publish)
        if failure is not None:
            log.warning("expired_not_forgotten", reason=str(failure), memories=len(seqs))
            return
        with self.lock.writing():
            self.directory.look_for_expiry()

    def rebuild(self, reason: str = "asked for") -> None:
        """Build the vector index anew without the forgotten, and wait for it."""
        self._upkeep.submit(self._rebuild, reason).result()

    def _rebuild_when_idle(self, reason: str) -> None:
        """Let a burst of writes end first, within bounds: training would take the processors that a bulk load needs."""
        patience = clock.monotonic_ns() + _PATIENCE_NS
        while not self._is_idle() and clock.monotonic_ns() < patience:
            if self._closed.wait(_IDLE_NS / 4e9):
                return  # a purge is done on closing; what else is due will be due at the next opening
        try:
            self._rebuild(reason)
        except Exception:
            log.exception("rebuild_failed", index="vectors", reason=reason)

    def _is_idle(self) -> bool:
        return not self._writes and clock.monotonic_ns() - self._changed_ns >= _IDLE_NS

    def _rebuild(self, reason: str) -> None:
        purge = self._purge
        with self.lock.writing():
            living = np.flatnonzero(self.directory.column("alive"))
            size = len(self.directory)
            self._arrived = []
        try:
            if self.vectors.exact:
                with self.lock.reading():
                    matrix = self.vectors.vectors(living)
            else:
                known, matrix = self.stored_vectors(self.directory.column("seq")[living].tolist())
                living = living[np.isin(self.directory.column("seq")[living], known)]
            if len(living):
                built = VectorIndex.build(matrix, self._settings.index)
            else:
                built = VectorIndex(self._dimension, self._settings.index)
            with self.lock.writing():
                if self._arrived:
                    built.add(np.concatenate(self._arrived))
                keep = np.concatenate([living, np.arange(size, len(self.directory))])
                directory = Directory(self._load_tags)
                directory.load({name: self.directory.column(name)[keep] for name in _NAMES})
                self.directory, self.vectors = directory, built
        finally:
            self._arrived = None
        log.info("index_rebuilt", index="vectors", reason=reason, memories=len(living))
        if purge:
            self._finish_purge()

    def _finish_purge(self) -> None:
        """Let no index file or log keep what a deleted session held, and remember that this is done."""
        self.text.commit()
        self._save_vectors()
        (failure,) = self._database.transact(
            [lambda transaction: transaction.execute("UPDATE allocation SET purge = false")], lambda transaction: None
        )
        if failure is None:
            self._purge = False
            self._database.checkpoint()

    def save(self) -> None:
        try:
            self._save_vectors()
            self.text.commit()
        except (OSError, MemlabError) as error:  # derived: what is not saved is rebuilt
            log.warning("index_not_saved", reason=str(error))

    def _save_vectors(self) -> None:
        with self.lock.reading():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self.vectors.save(
                self._folder,
                database_id=self._database.id,
                generation=self._database.commit_seq,
                seqs=self.directory.column("seq"),
                commit_seq=self._database.commit_seq,
            )

    def vector(self, seq: int) -> np.ndarray | None:
        """Return the exact vector of a memory, (dimension,) float32, or None: from the index where that keeps it."""
        with self.lock.reading():
            position = self.directory.position(seq)
            if position >= 0 and self.vectors.exact:
                (held,) = self.vectors.vectors(np.array([position], np.int64))
                return np.array(held, np.float32)
        known, stored = self.stored_vectors([seq])
        return np.array(stored[0], np.float32) if len(known) else None

    def stored_vectors(self, seqs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return (seqs that exist, ascending; their exact vectors, (n, dimension) float32) from the database."""
        table = self._database.read_arrow(
            "SELECT seq, vector FROM memories WHERE seq IN (SELECT unnest(?)) ORDER BY seq", [list(seqs)]
        )
        return table.column("seq").to_numpy(), matrix(table.column("vector"), self._dimension)

    def publish(self, transaction: Transaction) -> None:
        """Make a committed transaction visible: all its additions at once, in the order of its members."""
        added = [note for note in transaction.notes if isinstance(note, Added)]
        entries = [entry for note in added for entry in note.entries]
        if entries:
            vectors = np.concatenate([note.vectors for note in added]) if len(added) > 1 else added[0].vectors
            for tail in [note.texts.result() for note in added if note.texts is not None]:
                self.text.attach(tail)
            self.text.take([document for note in added if note.texts is None for document in _documents(note)])
            values = [value for note in added for value in note.values]
            self.rows.keep({entry.seq: (entry.layer, value) for entry, value in zip(entries, values, strict=True)})
        dropped = [seq for note in transaction.notes if isinstance(note, Dropped) for seq in note.seqs]
        self.graphs.change(
            [(entry, value) for note in added for entry, value in zip(note.entries, note.values, strict=True)], dropped
        )
        closed = [note for note in transaction.notes if isinstance(note, Closed)]
        with self.lock.writing():
            if entries:
                self.vectors.add(vectors)  # first: should it fail, positions and vectors still belong together
                self.directory.add(entries)
                if self._arrived is not None:
                    self._arrived.append(vectors)
            for note in closed:
                mine = self.directory.column("alive") & (self.directory.column("session") == note.code)
                dropped.extend(self.directory.column("seq")[mine].tolist())
                if note.name != DEFAULT_SESSION:
                    del self.codes[note.name]
            self.directory.drop(dropped)
            for note in transaction.notes:
                if isinstance(note, Opened):
                    self.codes[note.name] = note.code
        if dropped:
            self.text.remove(dropped)
            self.rows.drop(dropped)
        for note in closed:
            self.graphs.forget(note.code)
            self.text.remove_session(note.code)
            self._purge = True


_NAMES = ("seq", "origin", "session", "layer", "kind", "confidence", "occurred", "expires", "digest", "alive")
_TEXTS = """
SELECT seq, session, layer, record ->> 'content', CASE WHEN record ->> 'content' IS NULL THEN record END
FROM memories WHERE seq > ? ORDER BY seq
"""
_DIRECTORY = """
SELECT seq, origin, session,
       (list_position(?, layer) - 1)::TINYINT AS layer, (list_position(?, kind) - 1)::TINYINT AS kind,
       confidence, epoch_us(occurred_at) AS occurred,
       coalesce(epoch_us(expires_at), 9223372036854775807) AS expires, digest
FROM memories ORDER BY seq
"""


def _documents(note: Added) -> Iterator[Document]:
    for entry, value in zip(note.entries, note.values, strict=True):
        yield analyse(entry.seq, entry.session, entry.layer, value.content)


def matrix(column: pa.ChunkedArray, dimension: int) -> np.ndarray:
    """Return a column of vectors as (n, dimension) float32 without copying each."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], pa.binary())
    if not len(array):
        return np.zeros((0, dimension), np.float32)
    offsets = np.frombuffer(array.buffers()[1], np.int32 if pa.types.is_binary(array.type) else np.int64)
    start, end = int(offsets[array.offset]), int(offsets[array.offset + len(array)])
    return np.frombuffer(array.buffers()[2], np.float32, (end - start) // 4, start).reshape(len(array), dimension)


def _aligned(columns: Mapping[str, np.ndarray], seqs: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns at the positions of *seqs*; an indexed seq that the database has lost is dead."""
    if np.array_equal(columns["seq"], seqs):
        return dict(columns)
    places = np.searchsorted(seqs, columns["seq"])
    spread = {}
    for name, values in columns.items():
        wide = np.zeros(len(seqs), values.dtype)
        wide[places] = values
        spread[name] = wide
    spread["seq"] = seqs
    return spread
