"""What the libraries below could do at best: bare FAISS, bare DuckDB, and a bare loop that coalesces.

A floor does the same work on the same rows without sessions, validation, text index, high-water mark or acknowledgement
rules. Engine figures are quoted as ratios to a floor measured beside them in the same run.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import faiss
import numpy as np
import pyarrow as pa
import tantivy

from memlab.measure import clock, stats


class BareStore:
    """DuckDB and a FAISS index on a copy of a closed memlab database, with nothing between them and the caller.

    Args:
        database: a closed database file; it is copied to *folder* with its index.
        folder: an existing folder for the copy.
    """

    def __init__(self, database: Path, folder: Path) -> None:
        path = folder / "bare.duckdb"
        shutil.copyfile(database, path)
        self.connection = duckdb.connect(str(path), config={"threads": 1, "checkpoint_threshold": "1GB"})
        self._reader = self.connection.cursor()
        self._writer = self.connection.cursor()
        self._checker = self.connection.cursor()
        table = self.connection.sql("SELECT seq, vector FROM memories ORDER BY seq").to_arrow_table()
        self.seqs = table.column("seq").to_numpy()
        self.vectors = np.stack([np.frombuffer(vector.as_py(), np.float32) for vector in table.column("vector")])
        self.index: Any = None
        self._next = int(self.seqs[-1]) + 1
        self._shared = threading.Lock()

    def use(self, folder: Path, nprobe: int) -> None:
        """Search with a copy of the index saved in *folder*, whose entry i is row i in order of seq, at the same effort."""
        (file,) = folder.glob("vectors-*.faiss")
        self.index = faiss.read_index(str(file))
        if nprobe:
            self.index.nprobe = nprobe

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Return the seqs of the nearest rows, (n, k)."""
        faiss.omp_set_num_threads(1)
        _, positions = self.index.search(queries, k)
        found: np.ndarray = self.seqs[np.minimum(positions, len(self.seqs) - 1)]
        return found

    def fetch(self, seqs: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return the rows of *seqs* by a join with them, as one would write it.

        Where they are few, the engine writes them out and has DuckDB look them up in the primary key, which takes 0.6 of that.
        """
        return self._reader.execute(
            "SELECT seq, layer, record FROM memories WHERE seq IN (SELECT unnest(?))", [list(seqs)]
        ).fetchall()

    def recall(self, query: np.ndarray, k: int) -> list[tuple[Any, ...]]:
        """One search and one fetch."""
        return self.fetch(self.search(query[None], k)[0].tolist())

    def look_up(self, seq: int) -> tuple[Any, ...] | None:
        """One row by primary key."""
        row: tuple[Any, ...] | None = self._reader.execute(
            "SELECT seq, layer, record FROM memories WHERE seq = ?", [seq]
        ).fetchone()
        return row

    def remember(self, vector: np.ndarray) -> None:
        """One row in a transaction of its own: look its key up, insert, commit, read back."""
        seq = self._take(1)
        writer = self._writer
        writer.execute("BEGIN")
        writer.execute(
            "SELECT digest, result FROM idempotency WHERE session = ? AND operation = ? AND key = ?",
            [0, "episodic.remember", str(seq)],
        ).fetchall()
        writer.execute(_INSERT_ONE, [seq, seq, _RECORD, vector.tobytes()])
        writer.execute("INSERT INTO idempotency VALUES (0, 'episodic.remember', ?, '', '', make_timestamp(0))", [str(seq)])
        writer.execute("COMMIT")
        if self._checker.execute("SELECT 1 FROM memories WHERE seq = ?", [seq]).fetchone() is None:
            raise RuntimeError("the committed row is not there")

    def insert_one(self, vector: np.ndarray) -> None:
        """One row in a transaction of its own and nothing else: the rate that group commit is compared with."""
        seq = self._take(1)
        self._writer.execute("BEGIN")
        self._writer.execute(_INSERT_ONE, [seq, seq, _RECORD, vector.tobytes()])
        self._writer.execute("COMMIT")

    def insert(self, vectors: np.ndarray) -> None:
        """Many rows from an Arrow table in one transaction."""
        first = self._take(len(vectors))
        seqs = np.arange(first, first + len(vectors))
        rows = pa.table({"seq": seqs, "vector": pa.array([vector.tobytes() for vector in vectors], pa.binary())})
        self._writer.register("arriving", rows)
        self._writer.execute("BEGIN")
        self._writer.execute(_INSERT_MANY, [_RECORD])
        self._writer.execute("COMMIT")
        self._writer.unregister("arriving")

    def _take(self, count: int) -> int:
        with self._shared:
            first = self._next
            self._next += count
            return first

    def close(self) -> None:
        """Close the copy."""
        self.connection.close()

    def mixed_load(
        self, queries: np.ndarray, *, clients: int, share_of_writes: float, seconds: float, seed: int
    ) -> dict[str, Any]:
        """Drive recall and durable writes from *clients* callers through a bare coalescing loop.

        One reading and one writing thread; whatever waits becomes one batch.

        Returns:
            `throughput_per_s`, `read_p95_ms` (None of too few reads), `reads`, `writes`.
        """
        return asyncio.run(self._mixed_load(queries, clients, share_of_writes, seconds, seed))

    async def _mixed_load(
        self, queries: np.ndarray, clients: int, share_of_writes: float, seconds: float, seed: int
    ) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        lanes = {"read": ThreadPoolExecutor(1), "write": ThreadPoolExecutor(1)}
        waiting: dict[str, list[tuple[int, asyncio.Future[Any]]]] = {"read": [], "write": []}
        wake = {name: asyncio.Event() for name in lanes}
        index_lock = threading.Lock()
        latencies: list[int] = []
        writes = 0

        def read_batch(wanted: Sequence[int]) -> list[list[tuple[Any, ...]]]:
            with index_lock:
                found = self.search(queries[list(wanted)], 10)
            rows = {row[0]: row for row in self.fetch(np.unique(found).tolist())}
            return [[rows[seq] for seq in ranked if seq in rows] for ranked in found.tolist()]

        def write_batch(wanted: Sequence[int]) -> list[None]:
            self.insert(queries[list(wanted)])
            with index_lock:
                self.index.add(queries[list(wanted)])
                self.seqs = np.concatenate([self.seqs, np.arange(self.seqs[-1] + 1, self.seqs[-1] + 1 + len(wanted))])
            return [None] * len(wanted)

        async def serve(name: str, work: Any) -> None:
            while True:
                await wake[name].wait()
                wake[name].clear()
                while waiting[name]:
                    batch, waiting[name] = waiting[name][:256], waiting[name][256:]
                    answers = await loop.run_in_executor(lanes[name], work, [which for which, _ in batch])
                    for (_, future), answer in zip(batch, answers, strict=True):
                        if not future.done():
                            future.set_result(answer)

        async def call(name: str, which: int) -> Any:
            future = loop.create_future()
            waiting[name].append((which, future))
            wake[name].set()
            return await future

        started = clock.monotonic_ns()
        end = started + int(seconds * 1e9)

        async def client(number: int) -> None:
            nonlocal writes
            chance = np.random.default_rng([seed, number])
            while clock.monotonic_ns() < end:
                which = int(chance.integers(len(queries)))
                if chance.random() < share_of_writes:
                    await call("write", which)
                    writes += 1
                else:
                    before = clock.monotonic_ns()
                    await call("read", which)
                    latencies.append(clock.monotonic_ns() - before)

        servers = [asyncio.create_task(serve("read", read_batch)), asyncio.create_task(serve("write", write_batch))]
        await asyncio.gather(*(client(number) for number in range(clients)))
        elapsed = (clock.monotonic_ns() - started) / 1e9
        for server in servers:
            server.cancel()
        for lane in lanes.values():
            lane.shutdown()
        return {
            "throughput_per_s": (len(latencies) + writes) / elapsed,
            "read_p95_ms": stats.percentile(np.array(latencies) / 1e6, 0.95).value,
            "reads": len(latencies),
            "writes": writes,
        }


class BareLoad:
    """Loading many rows with nothing but the libraries: an Arrow insert into memlab's table, FAISS, tantivy's English analysis.

    Args:
        database: a closed database without memories; it is filled.
        folder: an empty folder for the text index.
    """

    def __init__(self, database: Path, folder: Path, dimension: int) -> None:
        self.connection = duckdb.connect(str(database), config={"threads": 1, "checkpoint_threshold": "1GB"})
        self.vectors = faiss.IndexFlatIP(dimension)
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("seq", indexed=True, fast=True)
        builder.add_text_field("content", tokenizer_name="en_stem", index_option="freq")
        self.texts = tantivy.Index(builder.build(), path=str(folder), reuse=False)

    def insert(self, rows: pa.Table) -> None:
        """Rows with memlab's columns, in one transaction."""
        self.connection.register("arriving", rows)
        self.connection.execute("BEGIN")
        self.connection.execute("INSERT INTO memories SELECT * FROM arriving")
        self.connection.execute("COMMIT")
        self.connection.unregister("arriving")

    def index(self, seqs: Sequence[int], contents: Sequence[str], vectors: np.ndarray) -> None:
        """The same rows in both indexes, to be found when this returns; one thread of tantivy's, as the engine has."""
        self.vectors.add(vectors)
        writer = self.texts.writer(64 << 20, 1)
        for seq, content in zip(seqs, contents, strict=True):
            document = tantivy.Document()
            document.add_unsigned("seq", seq)
            document.add_text("content", content)
            writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        self.texts.reload()

    def close(self) -> None:
        """Close the database."""
        self.connection.close()


_RECORD = '{"id":"ep_0","content":"a memory of about the length that people say in one turn of a conversation"}'
_INSERT_ONE = """
INSERT INTO memories VALUES (?, ?, 0, 'episodic', 'event', [], 1.0, make_timestamp(0), NULL, 0, ?, ?)
"""
_INSERT_MANY = """
INSERT INTO memories SELECT seq, seq, 0, 'episodic', 'event', [], 1.0, make_timestamp(0), NULL, 0, ?, vector FROM arriving
"""
