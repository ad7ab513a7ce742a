"""What the first calls of a service cost, and which warm-up takes that away.

Every start is a fresh process whose files left the page cache: it opens the store, asks some questions beforehand, the ones most
asked in an earlier time, and then answers the same calls as every other start of that repeat, one after the other. How many are
asked beforehand is what differs. What opening takes without saved indexes stands beside it.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
from memlab.experiment.quiet import quiet
from memlab.experiment.warm_up_process import Answer, Job, Question
from memlab.measure import page_cache, stats
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.corpus import Corpus
from memlab.workload.popularity import Zipf
from memlab.workload.spec import Workload

TOLERANCE = 0.25
"""How far above the steady mean the mean of a block of calls may lie to count as settled."""

_DATABASE = "memory.duckdb"
_EARLIER = 10  # calls of the earlier time, by which questions are popular, for each question
_STEADY = 3  # one part in so many of the calls, the last, is steady
_REBUILT = -1  # in place of how many are asked beforehand


class WarmUp(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: see `measure_point`.
        starts: one row a fresh process: asked (null where indexes were built anew), repeat, open_ns, warm_up_ns, and kept_ratio,
            the share of the files' pages that stayed in memory although they were to leave.
        calls: one row a call: asked, repeat, position, took_ns, cached.
    """

    summary: dict[str, Any]
    starts: pl.DataFrame
    calls: pl.DataFrame


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    calls: int = 400,
    first: int = 50,
    asked: Sequence[int] = (0, 20, 160),
    out: str | Path | None = None,
) -> WarmUp:
    """Measure starts with warm-ups of several lengths; what a point's notebook calls.

    Args:
        point: `candidate`, settings over the defaults.
        workload: as a params file has it; of it corpus and popularity count.
        repeats: starts of each kind, in random order; the calls are the same for all kinds of one repeat.
        calls: after the warm-up, one after the other.
        first: of them that are looked at as the first ones, and length of a block.
        asked: how many of the questions that were most asked in an earlier time are asked beforehand; 0 among them.
        out: existing folder for starts.parquet, calls.parquet and summary.json; None keeps nothing.
    Returns:
        The summary. An *interval* is a table: value, low, high, n, note.
            size, finding (not a smoke run, five repeats or more), repeats, memories, questions, zipf, calls, first, tolerance;
            kept_ratio: largest share of pages that stayed although they were to leave; None where the system does not tell;
            open_s, rebuild_s: intervals, with saved indexes and without; rebuild_ratio of both;
            steady: mean_ms, hit_ratio: intervals, of the last third of the calls of all starts;
            misses: first_ms, steady_ms: mean of what the cache did not serve after a start without warm-up; intervals;
            warm_ups: by number asked: asked, took_s (interval); first: mean_ms, p95_ms, hit_ratio (intervals) of the first calls;
                over_steady, of_steady_hits: their mean and their hit ratio over the steady ones; settled_after: calls until a
                block's mean lies within `TOLERANCE` of the steady one, None where none does; ratio of the first calls' mean to
                that without warm-up, and its verdict, None for none;
            course: a row for each number asked and block: asked, calls (from, to), mean_ms, low, high.
    Raises:
        MemlabError: VALIDATION: anything that does not fit; INTERNAL `process`: one of the starts failed.
    """
    traffic = spec.workload(workload)
    kinds = sorted(set(asked))
    _check(traffic, repeats, calls, first, kinds)
    settings = Settings.of(point.get("candidate") or {})
    with tempfile.TemporaryDirectory(prefix="memlab-warm-up-", ignore_cleanup_errors=True) as folder, quiet():
        store = _Store(Path(folder), traffic, settings, seed)
        starts, told = store.measure(repeats, calls, kinds)
    summary = summarise(starts, told, size=size, first=first, corpus=store.corpus, zipf=traffic.popularity.zipf)
    results.write_point(out, summary, {"starts": starts, "calls": told})
    return WarmUp(summary=summary, starts=starts, calls=told)


def _check(traffic: Workload, repeats: int, calls: int, first: int, kinds: Sequence[int]) -> None:
    if repeats < 1 or first < 1:
        raise validation("params", f"repeats = {repeats}, first = {first}; give 1 or more of each")
    if calls < _STEADY * first:
        raise validation("params", f"calls = {calls}: give {_STEADY} times first = {first} or more, so that the last are steady")
    if len(kinds) < 2 or kinds[0] != 0:
        raise validation("params", f"asked = {list(kinds)}: give 0, which is no warm-up, and numbers above it")
    if kinds[-1] > traffic.corpus.questions:
        raise validation("params", f"asked = {kinds[-1]}: the corpus has {traffic.corpus.questions} questions; ask fewer")
    if traffic.popularity.trace is not None:
        raise validation("workload", "workload.popularity: give an exponent; what a trace asked is not known beforehand")


class _Store:
    """A closed store, whose indexes are saved, and what is asked of it."""

    def __init__(self, folder: Path, traffic: Workload, settings: Settings, seed: int) -> None:
        self.corpus: Corpus = corpus_of(traffic, seed)
        self._settings = settings
        self._seed = seed
        self._saved, self._bare = folder / "saved" / _DATABASE, folder / "bare" / _DATABASE
        self._saved.parent.mkdir()
        with Engine.open(self._saved, Settings.off(), embedder_of(self.corpus.embedder)) as engine:
            sessions = run_in_own_loop(load(engine, self.corpus)).sessions
        with Engine.open(self._saved, settings, embedder_of(self.corpus.embedder)) as engine:
            engine.storage.rebuild()  # and save it: the first start would do so beside its calls
        shutil.copytree(self._saved.parent, self._bare.parent)
        self._questions = [(sessions[row["session"]], row["text"]) for row in self.corpus.questions.iter_rows(named=True)]
        self._popularity = Zipf(len(self._questions), traffic.popularity.zipf, seed)

    def _draw(self, count: int, place: int) -> npt.NDArray[np.int64]:
        return self._popularity.draw(count, np.random.default_rng([self._seed, place]))

    def _popular(self, count: int) -> list[Question]:
        """Return the questions that were most asked in an earlier time."""
        times = np.bincount(self._draw(_EARLIER * len(self._questions), 0), minlength=len(self._questions))
        return [self._questions[place] for place in np.argsort(-times, kind="stable")[:count].tolist()]

    def measure(self, repeats: int, calls: int, kinds: Sequence[int]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return one row a start, and one a call."""
        order = random.Random(self._seed)
        plan = [(repeat, kind) for repeat in range(repeats) for kind in order.sample([*kinds, _REBUILT], k=len(kinds) + 1)]
        kept: list[float | None] = []

        def jobs() -> Iterator[bytes]:
            for repeat, kind in plan:
                database = self._bare if kind == _REBUILT else self._saved
                if kind == _REBUILT:
                    shutil.rmtree(database.with_name(f"{database.name}.index"), ignore_errors=True)
                kept.append(page_cache.drop(database.parent))
                asked = [] if kind == _REBUILT else self._draw(calls, repeat + 1).tolist()
                yield msgspec.json.encode(
                    Job(
                        database=str(database),
                        settings=self._settings.to_dict(),
                        embedder=self.corpus.embedder,
                        beforehand=self._popular(max(kind, 0)),
                        calls=[self._questions[place] for place in asked],
                    )
                )

        answers = [
            msgspec.json.decode(line, type=Answer) for line in forking.answers("memlab.experiment.warm_up_process", jobs())
        ]
        return _starts(plan, answers, kept), _calls(plan, answers)


def _starts(plan: Sequence[tuple[int, int]], answers: Sequence[Answer], kept: Sequence[float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "asked": pl.Series([None if kind == _REBUILT else kind for _, kind in plan], dtype=pl.Int64),
            "repeat": [repeat for repeat, _ in plan],
            "open_ns": [answer.open_ns for answer in answers],
            "warm_up_ns": [answer.warm_up_ns for answer in answers],
            "kept_ratio": pl.Series(kept, dtype=pl.Float64),
        }
    )


def _calls(plan: Sequence[tuple[int, int]], answers: Sequence[Answer]) -> pl.DataFrame:
    return pl.concat(
        [
            pl.DataFrame({"took_ns": answer.took_ns, "cached": answer.cached}).select(
                asked=pl.lit(kind, pl.Int64), repeat=pl.lit(repeat, pl.Int64), position=pl.int_range(pl.len()), took_ns="took_ns",
                cached="cached",
            )
            for (repeat, kind), answer in zip(plan, answers, strict=True)
            if kind != _REBUILT
        ]
    )  # fmt: skip


# --- what follows from it --------------------------------------------------------------------------------------------


def summarise(starts: pl.DataFrame, calls: pl.DataFrame, *, size: str, first: int, corpus: Corpus, zipf: float) -> dict[str, Any]:
    """Return the summary that `measure_point` describes, from raw rows."""
    kinds = sorted(calls["asked"].unique().to_list())
    repeats = int(starts["repeat"].n_unique())
    count = calls["position"].n_unique()
    steady = calls.filter(pl.col("position") >= count - count // _STEADY)
    cold = calls.filter(pl.col("asked") == 0, ~pl.col("cached"))
    opened = [_seconds(starts.filter(pl.col("asked").is_not_null()), "open_ns")]
    opened.append(_seconds(starts.filter(pl.col("asked").is_null()), "open_ns"))
    return {
        "size": size,
        "finding": size != "smoke" and repeats >= stats.FEWEST_REPEATS,
        "repeats": repeats,
        "memories": len(corpus.events),
        "questions": len(corpus.questions),
        "corpus": corpus.describe(),
        "zipf": zipf,
        "calls": count,
        "first": first,
        "tolerance": TOLERANCE,
        "kept_ratio": starts["kept_ratio"].max(),
        "open_s": stats.mean(opened[0]).to_dict(),
        "rebuild_s": stats.mean(opened[1]).to_dict(),
        "rebuild_ratio": stats.ratio(opened[0], opened[1], "mean").to_dict(),
        "steady": {"mean_ms": stats.mean(_ms(steady)).to_dict(), "hit_ratio": stats.mean(_hits(steady)).to_dict()},
        "misses": {
            "first_ms": stats.mean(_ms(cold.filter(pl.col("position") < first))).to_dict(),
            "steady_ms": stats.mean(_ms(cold.filter(pl.col("position") >= count - count // _STEADY))).to_dict(),
        },
        "warm_ups": {str(kind): _warm_up(starts, calls, steady, kind, first) for kind in kinds},
        "course": [row for kind in kinds for row in _course(calls.filter(pl.col("asked") == kind), first)],
    }


def _warm_up(starts: pl.DataFrame, calls: pl.DataFrame, steady: pl.DataFrame, kind: int, first: int) -> dict[str, Any]:
    mine = calls.filter(pl.col("asked") == kind)
    begun = mine.filter(pl.col("position") < first)
    ratio = None
    if kind:
        without = calls.filter(pl.col("asked") == 0, pl.col("position") < first)
        ratio = stats.ratio(_ms(without), _ms(begun), "mean")
    usual = stats.mean(_ms(steady)).value or 0.0
    settled = [row["from"] for row in _course(mine, first) if row["mean_ms"] <= (1 + TOLERANCE) * usual]
    return {
        "asked": kind,
        "took_s": stats.mean(_seconds(starts.filter(pl.col("asked") == kind), "warm_up_ns")).to_dict(),
        "first": {
            "mean_ms": stats.mean(_ms(begun)).to_dict(),
            "p95_ms": stats.percentile(begun["took_ns"].to_numpy() / 1e6, 0.95).to_dict(),
            "hit_ratio": stats.mean(_hits(begun)).to_dict(),
        },
        "over_steady": stats.ratio(_ms(steady), _ms(begun), "mean").to_dict(),
        "of_steady_hits": stats.ratio(_hits(steady), _hits(begun), "mean").to_dict(),
        "settled_after": settled[0] if settled else None,
        "ratio": ratio and ratio.to_dict(),
        "verdict": ratio and stats.verdict(ratio, smaller_is_better=True),
    }


def _course(mine: pl.DataFrame, first: int) -> Iterator[dict[str, Any]]:
    """Yield the mean of each block of calls, over repeats."""
    count = mine["position"].n_unique()
    for start in range(0, count - first + 1, first):
        block = stats.mean(_ms(mine.filter(pl.col("position").is_between(start, start + first - 1))))
        asked = int(mine["asked"][0])
        yield {"asked": asked, "from": start, "to": start + first, "mean_ms": block.value, "low": block.low, "high": block.high}


def _by_repeat(rows: pl.DataFrame, column: pl.Expr) -> list[npt.NDArray[np.float64]]:
    return [
        part.select(column.cast(pl.Float64)).to_series().to_numpy()
        for _, part in rows.sort("repeat").group_by("repeat", maintain_order=True)
    ]


def _ms(rows: pl.DataFrame) -> list[npt.NDArray[np.float64]]:
    return _by_repeat(rows, pl.col("took_ns") / 1e6)


def _hits(rows: pl.DataFrame) -> list[npt.NDArray[np.float64]]:
    return _by_repeat(rows, pl.col("cached"))


def _seconds(rows: pl.DataFrame, column: str) -> list[npt.NDArray[np.float64]]:
    return _by_repeat(rows, pl.col(column) / 1e9)
