"""Walking through many memories: pages of several sizes by cursor, against everything in one list.

Every walk is a fresh process. What it held is the most since the store was opened. A further walk has writes between its pages,
and what it saw is held against what was there.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.embedders import embedder_of
from memlab.engine import Engine
from memlab.errors import validation
from memlab.experiment import forking, results
from memlab.experiment.comparison import corpus_of, load
from memlab.experiment.load import run_in_own_loop
from memlab.experiment.paging_process import Answer, Job
from memlab.experiment.quiet import quiet
from memlab.measure import stats
from memlab.measure.stats import Interval
from memlab.operations.registry import lookup
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.corpus import Corpus

LIST = "list"
"""The way that keeps every page until the end."""

MOST = 500
"""The largest page that the operation gives; what the list is made of."""

_DATABASE = "memory.duckdb"
_FEWEST_PAGES = 40  # of a process, so that five of them tell a p95


class Paging(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: see `measure_point`.
        walks: one row a fresh process: way, repeat, per_row_us, first_row_ms, peak_mb (null where the system does not tell),
            rows, digest.
        pages: one row a page: way, repeat, place (in its walk), took_ns, rows.
    """

    summary: dict[str, Any]
    walks: pl.DataFrame
    pages: pl.DataFrame


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    limits: Sequence[int] = (10, 50, 100, 250, 500),
    out: str | Path | None = None,
) -> Paging:
    """Measure walks with pages of several sizes, and one that keeps everything; what a point's notebook calls.

    Args:
        point: `candidate`, settings over the defaults.
        workload: as a params file has it; of it only the corpus counts, in one session.
        repeats: fresh processes of each way, in random order.
        limits: events on a page.
        out: existing folder for walks.parquet, pages.parquet and summary.json; None keeps nothing.
    Returns:
        The summary. An *interval* is a table: value, low, high, n, note.
            size, finding (not a smoke run, five repeats or more), repeats, memories, same_walk: whether all saw the same, whole;
            ways: by limit, and `list`: limit; per_row_us, first_row_ms, peak_mb: intervals over processes; p50_ms, p95_ms: of a
                page, intervals; pages of a walk; ratio of per_row, first_row and peak to those of the list, None for itself;
            depth: limit of the smallest page, and ratio of what the last tenth of its pages takes to what the first tenth does;
            beside_writes: limit, pages, added and forgotten between them; missing, of those that were there from beginning to
                end; twice; ghosts, seen after they were forgotten; disorder, later than the one before; holds: none of these.
    Raises:
        MemlabError: VALIDATION: anything that does not fit; INTERNAL `process`: one of the walks failed.
    """
    traffic = spec.workload(workload)
    limits = sorted(set(limits))
    if repeats < 1:
        raise validation("params", f"repeats = {repeats}; give 1 or more")
    if traffic.corpus.sessions != 1:
        raise validation(
            "workload", f"workload.corpus.sessions = {traffic.corpus.sessions}: a walk is through one session; give 1"
        )
    for limit in limits:
        lookup("episodic.list_events").validate({"limit": limit})
    if not limits:
        raise validation("params", "limits: give one page size or more")
    settings = Settings.of(point.get("candidate") or {})
    corpus = corpus_of(traffic, seed)
    with tempfile.TemporaryDirectory(prefix="memlab-paging-", ignore_cleanup_errors=True) as folder, quiet():
        store = _Store(Path(folder) / _DATABASE, settings, corpus)
        walks, pages = store.measure(limits, repeats, seed)
        beside = store.beside_writes(limits[len(limits) // 2], seed)
    summary = {**summarise(walks, pages, size=size, corpus=corpus), "beside_writes": beside}
    results.write_point(out, summary, {"walks": walks, "pages": pages})
    return Paging(summary=summary, walks=walks, pages=pages)


class _Store:
    """A closed store of one session."""

    def __init__(self, database: Path, settings: Settings, corpus: Corpus) -> None:
        self._database = database
        self._settings = settings
        self._corpus = corpus
        with Engine.open(database, Settings.off(), embedder_of(corpus.embedder)) as engine:
            loaded = run_in_own_loop(load(engine, corpus))
        (self._session,) = loaded.sessions.values()
        with Engine.open(database, settings, embedder_of(corpus.embedder)) as engine:
            engine.storage.rebuild()  # and save it: the first walk would do so beside its pages

    def measure(self, limits: Sequence[int], repeats: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return one row a walk, and one a page."""
        order = random.Random(seed)
        ways = [*map(str, limits), LIST]
        plan = [(repeat, way) for repeat in range(repeats) for way in order.sample(ways, k=len(ways))]
        jobs = (msgspec.json.encode(self._job(way)) for _, way in plan)
        answers = [msgspec.json.decode(line, type=Answer) for line in forking.answers("memlab.experiment.paging_process", jobs)]
        told = list(zip(plan, answers, strict=True))
        walks = pl.DataFrame([self._walk(way, repeat, answer) for (repeat, way), answer in told], infer_schema_length=None)
        return walks.cast({"peak_mb": pl.Float64}), pl.concat([_pages(way, repeat, answer) for (repeat, way), answer in told])

    def _job(self, way: str) -> Job:
        limit = MOST if way == LIST else int(way)
        pages = -(-len(self._corpus.events) // limit)
        return Job(
            database=str(self._database),
            settings=self._settings.to_dict(),
            embedder=self._corpus.embedder,
            session=self._session,
            limit=limit,
            keeps=way == LIST,
            rounds=-(-_FEWEST_PAGES // pages),
        )

    def _walk(self, way: str, repeat: int, answer: Answer) -> dict[str, Any]:
        rows = sum(answer.rows)
        return {
            "way": way,
            "repeat": repeat,
            "per_row_us": sum(answer.took_ns) / 1e3 / rows,
            "first_row_ms": sum(answer.first_ns) / 1e6 / len(answer.first_ns),
            "peak_mb": None if answer.peak_bytes is None else max(answer.peak_bytes - answer.before_bytes, 0) / 1e6,
            "rows": rows // len(answer.first_ns),
            "digest": answer.digest,
        }

    def beside_writes(self, limit: int, seed: int) -> dict[str, Any]:
        """Return what a walk saw of events that are added and forgotten between its pages."""
        with Engine.open(self._database, self._settings, embedder_of(self._corpus.embedder)) as engine:
            return run_in_own_loop(_beside(engine, self._session, limit, seed))


def _pages(way: str, repeat: int, answer: Answer) -> pl.DataFrame:
    pages = len(answer.rows) // len(answer.first_ns)
    return pl.DataFrame({"took_ns": answer.took_ns, "rows": answer.rows}).select(
        way=pl.lit(way), repeat=pl.lit(repeat, pl.Int64), place=pl.int_range(pl.len()) % pages, took_ns="took_ns", rows="rows"
    )  # fmt: skip


async def _beside(engine: Engine, session: str, limit: int, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)

    async def ask(operation: str, parameters: Mapping[str, Any]) -> Any:
        return (await engine.execute(operation, parameters, session=session)).value

    there: dict[str, Any] = {}
    async for event, _ in _events(ask, MOST):
        there[event.id] = event
    living = list(there)
    added: set[str] = set()
    forgotten: dict[str, int] = {}
    seen: list[tuple[str, Any, int]] = []
    page = 0
    async for event, page in _events(ask, limit):
        seen.append((event.id, event.occurred_at, page))
        if len(seen) % limit:
            continue
        elsewhere = there[chance.choice(living)].occurred_at  # before or behind where the walk is
        made = await ask("episodic.remember", {"content": f"told beside page {page}", "occurred_at": elsewhere})
        added.add(made.id)
        gone = living.pop(chance.randrange(len(living)))
        await ask("episodic.forget", {"ids": [gone]})
        forgotten[gone] = page
    ids = [one for one, _, _ in seen]
    moments = [moment for _, moment, _ in seen]
    told = {
        "missing": len(set(living) - set(ids)),
        "twice": len(ids) - len(set(ids)),
        "ghosts": sum(place > forgotten.get(one, place) for one, _, place in seen),
        "disorder": sum(later > earlier for earlier, later in itertools.pairwise(moments)),
    }
    return {
        "limit": limit,
        "pages": page + 1,
        "added": len(added),
        "forgotten": len(forgotten),
        "seen": len(ids),
        **told,
        "holds": not any(told.values()),
    }


async def _events(ask: Any, limit: int) -> Any:
    """Yield every event with the number of its page, the newest first; what is done between two of them is done between pages."""
    cursor: str | None = None
    page = 0
    while True:
        found = await ask("episodic.list_events", {"limit": limit} | ({"cursor": cursor} if cursor else {}))
        for event in found:
            yield event, page
        cursor = found.cursor
        if cursor is None:
            return
        page += 1


# --- what follows from it --------------------------------------------------------------------------------------------


def summarise(walks: pl.DataFrame, pages: pl.DataFrame, *, size: str, corpus: Corpus) -> dict[str, Any]:
    """Return the summary that `measure_point` describes, but for `beside_writes`, from raw rows."""
    repeats = int(walks["repeat"].n_unique())
    ways = sorted(walks["way"].unique().to_list(), key=lambda way: MOST + 1 if way == LIST else int(way))
    return {
        "size": size,
        "finding": size != "smoke" and repeats >= stats.FEWEST_REPEATS,
        "repeats": repeats,
        "memories": len(corpus.events),
        "corpus": corpus.describe(),
        "same_walk": walks["digest"].n_unique() == 1 and set(walks["rows"]) == {len(corpus.events)},
        "ways": {way: _way(walks, pages, way) for way in ways},
        "depth": _depth(pages.filter(pl.col("way") == ways[0]), ways[0]),
    }


def _way(walks: pl.DataFrame, pages: pl.DataFrame, way: str) -> dict[str, Any]:
    took = pages.filter(pl.col("way") == way)
    times = took["took_ns"].to_numpy() / 1e6
    figures = {"per_row": "per_row_us", "first_row": "first_row_ms", "peak": "peak_mb"}
    return {
        "limit": MOST if way == LIST else int(way),
        "pages": took["place"].n_unique(),
        **{column: stats.mean(_each(walks, way, column)).to_dict() for column in figures.values()},
        "p50_ms": stats.percentile(times, 0.5).to_dict(),
        "p95_ms": stats.percentile(times, 0.95).to_dict(),
        "ratio": None if way == LIST else {name: _ratio(walks, way, column).to_dict() for name, column in figures.items()},
    }


def _each(walks: pl.DataFrame, way: str, column: str) -> list[npt.NDArray[np.float64]]:
    """Return one value a process, in the order of repeats."""
    values = walks.filter(pl.col("way") == way).sort("repeat")[column]
    return [np.array([value]) for value in values.drop_nulls()]


def _ratio(walks: pl.DataFrame, way: str, column: str) -> Interval:
    return stats.ratio(_each(walks, LIST, column), _each(walks, way, column), "mean")


def _depth(mine: pl.DataFrame, way: str) -> dict[str, Any]:
    edge = max(mine["place"].n_unique() // 10, 1)
    ends = (pl.col("place") < edge, pl.col("place") >= mine["place"].n_unique() - edge)
    first, last = (
        [part["took_ns"].to_numpy() for _, part in mine.filter(end).sort("repeat").group_by("repeat", maintain_order=True)]
        for end in ends
    )
    return {"limit": int(way), "ratio": stats.ratio(first, last, "mean").to_dict()}
