"""How good the query optimizer is: every way to search, forced, beside the one that it chooses, and what it expected."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars

from memlab.embedders import PrecomputedEmbedder
from memlab.errors import validation
from memlab.experiment.quiet import quiet
from memlab.measure import clock, stats
from memlab.memory import Memory
from memlab.settings import Settings
from memlab.storage.optimizer import WAYS
from memlab.values import Table
from memlab.workload.corpus import generate
from memlab.workload.latent import latent_vectors

AUTO = "auto"
STRATEGIES = (*WAYS, AUTO)
DIMENSION = 384
SMALL = 500  # memories of the small session
_BULK = 5_000
# Topics that every 2nd, 10th, 100th, 1,000th memory belongs to, and bounds of a confidence spread evenly over [0, 1).
FILTERS: Mapping[str, Mapping[str, Any]] = {
    "no filter": {},
    "topic of 50 %": {"topics": ["of 2"]},
    "topic of 10 %": {"topics": ["of 10"]},
    "topic of 1 %": {"topics": ["of 100"]},
    "topic of 0.1 %": {"topics": ["of 1000"]},
    "confidence, 50 %": {"min_confidence": 0.5},
    "confidence, 1 %": {"min_confidence": 0.99},
}
SMALL_SESSION = "small session"


def measure(
    *, memories: int, questions: int, repeats: int, index: str = "ivf", seed: int = 0, folder: Path | None = None
) -> polars.DataFrame:
    """Ask questions under every filter in every way, in random order, and return a row for each search and part.

    Args:
        memories: of the large session; 1,000 or more. A small one of 500 stands beside it.
        questions: asked under each filter, each in every way, in every repeat.
        repeats: after one that only warms up and teaches the optimizer.
        index: kind of the vector index.
        folder: where the database is made; default: a temporary one.
    Returns:
        case, strategy, repeat, question, ms (of the whole search), same (as the exact answer, share of its ids), part, way,
        estimated_rows, rows, estimated_us, cost_us, estimated_matching, matching, memories.
    Raises:
        MemlabError: VALIDATION `bounds`.
    """
    if memories < 1_000 or questions < 1 or repeats < 1:
        raise validation("bounds", f"{memories} memories, {questions} questions, {repeats} repeats; 1,000, 1 and 1 or more fit")
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="memlab-ways-") as made:
            return measure(memories=memories, questions=questions, repeats=repeats, index=index, seed=seed, folder=Path(made))
    corpus = generate(events=memories, sessions=1, questions=questions, seed=seed)
    vectors, asked = latent_vectors(memories, questions, DIMENSION, seed)
    contents = corpus.events["content"].to_list()
    facts = [
        {
            "content": content,
            "embedding": vector,
            "topics": [f"of {share}" for share in (2, 10, 100, 1_000) if not place % share] or ["rest"],
            "confidence": (place * 0.6180339887) % 1.0,
        }
        for place, (content, vector) in enumerate(zip(contents, vectors, strict=True))
    ]
    texts = corpus.questions["text"].to_list()
    settings = Settings.of({"cache": None, "batch": None, "pool": None, "index.kind": index, "index.train_at": 1_000})
    rows: list[dict[str, Any]] = []

    def run(memory: Memory) -> None:
        small = memory.call("session.create")
        for start in range(0, memories, _BULK):
            memory.call("semantic.bulk_store", {"facts": facts[start : start + _BULK]})
        memory.call("semantic.bulk_store", {"facts": facts[:SMALL]}, session=small)
        memory.engine.storage.rebuild()
        chance = random.Random(seed)
        cases = [(name, "default", filter) for name, filter in FILTERS.items()] + [(SMALL_SESSION, small, {})]
        work = [*itertools.product(cases, range(questions))]
        for repeat in range(-1, repeats):
            chance.shuffle(work)
            for (case, session, filter), question in work:
                order = chance.sample(STRATEGIES, len(STRATEGIES))
                answers = {}
                for strategy in order:
                    given = {"query": texts[question], "query_embedding": asked[question], "strategy": strategy, "explain": True}
                    started = clock.monotonic_ns()
                    answer = memory.call("semantic.search", {**given, **filter}, session=session)
                    answers[strategy] = answer, (clock.monotonic_ns() - started) / 1e6
                exact = {fact.id for fact in answers["pre_filter"][0]}
                for strategy, (answer, took_ms) in answers.items():
                    known = {"case": case, "strategy": strategy, "repeat": repeat, "question": question, "ms": took_ms}
                    same = len(exact & {fact.id for fact in answer}) / max(len(exact), 1)
                    rows.extend({**known, "same": same, **part} for part in _parts(answer))

    with quiet(), Memory.open(folder / "ways.duckdb", settings, PrecomputedEmbedder(DIMENSION)) as memory:
        run(memory)
    return polars.DataFrame(rows, infer_schema_length=None).filter(polars.col("repeat") >= 0)


def _parts(answer: Table[Any]) -> list[dict[str, Any]]:
    why = answer.explanation
    if why is None:
        return []
    return [
        {
            "part": one.part,
            "way": one.way,
            "estimated_rows": one.estimated_rows,
            "rows": one.rows,
            "estimated_us": one.estimated_us,
            "cost_us": one.cost_us,
            "estimated_matching": why.estimated_matching,
            "matching": why.matching,
            "memories": why.memories,
        }
        for one in why.candidates
        if one.chosen
    ]


def regret(frame: polars.DataFrame) -> polars.DataFrame:
    """Return how long every strategy took beside the best forced one of its case: ratios of medians with 95 % intervals.

    Returns:
        case, strategy, ratio, low, high (null where there are too few repeats), median_ms, best (the forced way whose median
        was the smallest).
    """
    searches = frame.unique(["case", "strategy", "repeat", "question"], maintain_order=True)
    rows = []
    for case in (*FILTERS, SMALL_SESSION):
        mine = searches.filter(polars.col("case") == case)
        by_strategy = {strategy: mine.filter(polars.col("strategy") == strategy) for strategy in STRATEGIES}
        groups = {
            strategy: [part["ms"].to_numpy() for _, part in own.group_by("repeat", maintain_order=True)]
            for strategy, own in by_strategy.items()
        }
        medians = {strategy: float(np.median(own["ms"].to_numpy())) for strategy, own in by_strategy.items()}
        best = min(WAYS, key=medians.__getitem__)
        for strategy in STRATEGIES:
            interval = stats.ratio(groups[best], groups[strategy], 0.5)
            value = interval.value if interval.value is not None else medians[strategy] / medians[best]
            rows.append(
                {
                    "case": case,
                    "strategy": strategy,
                    "ratio": value,
                    "low": interval.low,
                    "high": interval.high,
                    "median_ms": medians[strategy],
                    "best": best,
                }
            )
    return polars.DataFrame(rows, schema_overrides={"low": polars.Float64, "high": polars.Float64})


def overall(frame: polars.DataFrame) -> dict[str, stats.Interval]:
    """Return for every strategy its time over all cases beside the best forced way of each case, known afterwards: mean ratio.

    A forced way pays where it is wrong; the optimizer pays for its errors and its estimating.
    """
    found = regret(frame)
    best = dict(found.select("case", "best").unique().iter_rows())
    searches = frame.unique(["case", "strategy", "repeat", "question"], maintain_order=True)
    means = searches.group_by(["repeat", "case", "strategy"], maintain_order=True).agg(polars.col("ms").median())
    by = {(repeat, case, strategy): ms for repeat, case, strategy, ms in means.iter_rows()}
    repeats = sorted({repeat for repeat, *_ in by})
    answers = {}
    for strategy in STRATEGIES:
        totals = [
            (
                sum(by[repeat, case, strategy] for case in best),
                sum(by[repeat, case, way] for case, way in best.items()),
            )
            for repeat in repeats
        ]
        answers[strategy] = stats.quotient([one for one, _ in totals], [other for _, other in totals])
    return answers
