"""Are the answers worth having: questions about real conversations, and whether retrieval finds the turns that answer them.

One memory session holds one conversation, a turn as an event with its speaker as source, its time and its own vector. Every
question that has evidence is asked through `rag.retrieve`, in its own session.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memlab.embedders import embedder_of
from memlab.errors import validation
from memlab.experiment.quiet import quiet
from memlab.memory import Memory
from memlab.settings import Settings
from memlab.workload.corpus import Corpus, generate
from memlab.workload.locomo import load_categories, load_locomo

K = 10
ASKED = 100  # passages of an answer: turns enough to rank conversation sessions by
FIGURES = ("turn_recall_at_10", "turn_hit_at_10", "turn_mrr", "session_hit_at_1", "session_hit_at_5", "session_mrr")
_BATCH = 1_000

Tell = Callable[[str], None]


def measure(
    folder: str | Path, *, settings: Settings | None = None, strategy: str = "contextual", tell: Tell = lambda line: None
) -> pl.DataFrame:
    """Return one row for each question of a folder that has evidence: conversation, question, category, and its figures.

    Args:
        folder: in the layout of LoCoMo; see `load_locomo`.
        settings: of the memory; the cache is off whatever they say.
        strategy: of `rag.retrieve`.
        tell: told a line for each conversation.
    Raises:
        MemlabError: VALIDATION `data`: files are missing or do not fit, or no question has evidence.
    """
    corpus = load_locomo(folder, upcoming_share=0.0)
    with tempfile.TemporaryDirectory(prefix="memlab-quality-") as place:
        path = Path(place) / "memory.duckdb"
        sessions = remember(corpus, path, tell=tell)
        return ask(corpus, load_categories(folder), path, sessions, settings=settings, strategy=strategy, tell=tell)


def remember(corpus: Corpus, path: Path, *, tell: Tell = lambda line: None) -> dict[str, dict[str, Any]]:
    """Store a corpus at *path*; return by conversation its `session` and, by id of an event, its `rows` in the corpus."""
    sessions: dict[str, dict[str, Any]] = {}
    with Memory.open(path, {"cache": None}, embedder_of(corpus.embedder)) as memory:
        for name in corpus.sessions:
            places = np.flatnonzero((corpus.events["session"] == name).to_numpy())
            session = memory.call("session.create")
            rows: dict[str, int] = {}
            for start in range(0, len(places), _BATCH):
                some = places[start : start + _BATCH].tolist()
                events = [_event(corpus, place) for place in some]
                stored = memory.call("episodic.bulk_remember", {"events": events}, session=session)
                rows.update(zip(stored.ids, some, strict=True))
            sessions[name] = {"session": session, "rows": rows}
            tell(f"{name}: {len(rows)} turns remembered")
    return sessions


def _event(corpus: Corpus, place: int) -> dict[str, Any]:
    row = corpus.events.row(place, named=True)
    event = {
        "content": row["content"],
        "tags": row["tags"],
        "source": row["speaker"],
        "occurred_at": row["occurred_at"],
    }
    if corpus.vectors is not None:
        event["embedding"] = corpus.vectors[place]
    return {name: value for name, value in event.items() if value is not None}


def ask(
    corpus: Corpus,
    categories: Sequence[str],
    path: Path,
    sessions: Mapping[str, Mapping[str, Any]],
    *,
    settings: Settings | None = None,
    strategy: str = "contextual",
    tell: Tell = lambda line: None,
) -> pl.DataFrame:
    """Ask a corpus's questions of the memory that `remember` stored; arguments and answer as for `measure`."""
    sittings = sittings_of(corpus)
    chosen = Settings.of({"cache": None}, settings)
    found: list[dict[str, Any]] = []
    with Memory.open(path, chosen, embedder_of(corpus.embedder), create=False) as memory:
        for name in corpus.sessions:
            asked = 0
            session, rows = sessions[name]["session"], sessions[name]["rows"]
            for number, question in enumerate(corpus.questions.iter_rows(named=True)):
                if question["session"] != name or not question["evidence"]:
                    continue
                given: dict[str, Any] = {"query": question["text"], "limit": ASKED, "strategy": strategy}
                if corpus.question_vectors is not None:
                    given["query_embedding"] = corpus.question_vectors[number]
                answer = memory.call("rag.retrieve", given, session=session)
                turns = [rows[one.id] for one in answer]
                found.append(
                    {
                        "conversation": name,
                        "question": number,
                        "category": categories[number],
                        **judged(turns, question["evidence"], sittings),
                    }
                )
                asked += 1
            tell(f"{name}: {asked} questions asked")
    if not found:
        raise validation("data", f"no question of '{corpus.name}' has evidence among its turns; there is nothing to measure")
    return pl.DataFrame(found).sort("question")


def sittings_of(corpus: Corpus) -> list[str]:
    """Return of every event in which sitting, the conversation session, it was said."""
    return [next((tag for tag in tags if tag.startswith("sitting-")), "") for tags in corpus.events["tags"].to_list()]


def judged(turns: Sequence[int], evidence: Sequence[int], sittings: Sequence[str]) -> dict[str, float]:
    """Return the figures of one answer.

    Args:
        turns: rows found, best first.
        evidence: rows that answer the question, one or more.
        sittings: of every row; those of the turns found are ranked by their first appearance.

    >>> answer = judged([4, 7], [7, 9], ["a"] * 5 + ["b"] * 5)
    >>> answer["turn_recall_at_10"], answer["turn_mrr"], answer["session_hit_at_1"]
    (0.5, 0.5, 0.0)
    """
    wanted = set(evidence)
    first = len(wanted & set(turns[:K]))
    sessions = list(dict.fromkeys(sittings[turn] for turn in turns))
    homes = {sittings[turn] for turn in wanted}
    rank = _rank(turns, wanted)
    session_rank = _rank(sessions, homes)
    return {
        "turn_recall_at_10": first / len(wanted),
        "turn_hit_at_10": float(first > 0),
        "turn_mrr": 1.0 / rank if rank else 0.0,
        "session_hit_at_1": float(session_rank == 1),
        "session_hit_at_5": float(1 <= session_rank <= 5),
        "session_mrr": 1.0 / session_rank if session_rank else 0.0,
    }


def _rank(found: Sequence[Any], wanted: set[Any]) -> int:
    """Return the rank of the first of *wanted*, from 1; 0 where none was found."""
    return next((place for place, one in enumerate(found, start=1) if one in wanted), 0)


def report(rows: pl.DataFrame) -> dict[str, Any]:
    """Return the means over all questions, over categories 1 to 4, and by category, as `memlab quality --json` writes them."""
    return {
        "overall": _means(rows),
        "categories_1_4": _means(rows.filter(pl.col("category").is_in(["1", "2", "3", "4"]))),
        "by_category": {
            name: _means(rows.filter(pl.col("category") == name)) for name in sorted(rows["category"].unique().to_list()) if name
        },
    }


def _means(rows: pl.DataFrame) -> dict[str, float | int | None]:
    means: dict[str, Any] = {name: rows[name].mean() for name in FIGURES}  # None where there are no questions
    return means | {"questions": len(rows)}


def as_text(figures: Mapping[str, Any]) -> str:
    """Return a report as a table for a terminal."""
    lines = [
        f"{'questions':<16}{'n':>6}  " + "  ".join(f"{name.replace('turn_', '').replace('_at_', '@'):>15}" for name in FIGURES)
    ]
    rows = {"overall": figures["overall"], "categories 1-4": figures["categories_1_4"]}
    rows |= {f"category {name}": means for name, means in figures["by_category"].items()}
    for name, means in rows.items():
        shown = "  ".join(f"{'-' if means[one] is None else format(means[one], '.4f'):>15}" for one in FIGURES)
        lines.append(f"{name:<16}{means['questions']:>6}  {shown}")
    return "\n".join(lines)


# --- which settings ------------------------------------------------------------------------------------------------

# One feature changed at a time; the empty one is the default.
VARIANTS: Mapping[str, Mapping[str, float]] = {
    "default": {},
    "no neighbours": {"reach": 0},
    "1 neighbour": {"reach": 1},
    "2 neighbours": {"reach": 2},
    "4 neighbours": {"reach": 4},
    "neighbours count half": {"before": 0.3, "after": 0.3},
    "neighbours count whole": {"before": 1.0, "after": 1.0},
    "neighbours lend no meaning": {"meaning_after": 0.0},
    "no meaning": {"meaning_weight": 0.0},
    "meaning counts half": {"meaning_weight": 0.35},
    "meaning counts more": {"meaning_weight": 1.1},
    "no source": {"source_weight": 0.0},
    "no dates": {"time_weight": 0.0},
    "dates count half": {"time_weight": 0.5},
}
REACHED = ("turn_recall_at_10", "session_hit_at_1", "session_mrr")


def compare(
    folder: str | Path | None,
    variants: Mapping[str, Mapping[str, float]] = VARIANTS,
    *,
    questions: int | None = None,
    seed: int = 1,
    tell: Tell = lambda line: None,
) -> pl.DataFrame:
    """Return the rows of `measure` for every variant of the settings of retrieval, in the column `variant`.

    Args:
        folder: as for `measure`; None for a small generated set, which shows that it runs and no more.
        variants: settings of the section `retrieval`, by name.
        questions: of each conversation at most, evenly spaced; None for all.
    """
    if folder is None:
        corpus = generate(600, 3, 60, upcoming=0, seed=seed)
        categories = [""] * len(corpus.questions)
    else:
        corpus, categories = load_locomo(folder, upcoming_share=0.0), load_categories(folder)
    if questions is not None:
        corpus = _thinned(corpus, questions)
    frames = []
    with tempfile.TemporaryDirectory(prefix="memlab-quality-") as place, quiet():
        path = Path(place) / "memory.duckdb"
        sessions = remember(corpus, path)
        for name, changes in variants.items():
            settings = Settings.of({"retrieval": dict(changes)})
            frames.append(ask(corpus, categories, path, sessions, settings=settings).with_columns(variant=pl.lit(name)))
            tell(f"{name}: done")
    return pl.concat(frames)


def _thinned(corpus: Corpus, most: int) -> Corpus:
    """Return the corpus with evidence for at most *most* questions of each session; the others are not asked."""
    keep = pl.int_range(pl.len()).over("session") % ((pl.len().over("session") + most - 1) // most) == 0  # evenly spaced
    asked = corpus.questions.with_columns(
        pl.when(keep).then(pl.col("evidence")).otherwise(pl.lit([], dtype=pl.List(pl.Int64))).alias("evidence")
    )
    return dataclasses.replace(corpus, questions=asked)


def leave_one_out(rows: pl.DataFrame) -> pl.DataFrame:
    """Return for each conversation the variant that is best on the others, and its figures on the one left out.

    Best is the highest sum of `REACHED`, ties in the order of the variants. The row `all` is the variant that is best on
    every conversation, with the means of the held-out figures over all questions.
    """
    names = rows["conversation"].unique(maintain_order=True).to_list()
    if len(names) < 2:
        raise validation("data", f"{len(names)} conversation; leaving one out needs two or more")
    chosen, held = [], []
    for name in names:
        best = _best(rows.filter(pl.col("conversation") != name))
        out = rows.filter((pl.col("conversation") == name) & (pl.col("variant") == best))
        held.append(out)
        chosen.append({"left out": name, "chosen": best, "questions": len(out), **{one: out[one].mean() for one in REACHED}})
    together = pl.concat(held)
    means = {one: together[one].mean() for one in REACHED}
    return pl.DataFrame([*chosen, {"left out": "all", "chosen": _best(rows), "questions": len(together), **means}])


def _best(rows: pl.DataFrame) -> str:
    means = rows.group_by("variant", maintain_order=True).agg(pl.sum_horizontal(pl.col(REACHED).mean()).alias("reach"))
    best: str = means["variant"][int(means["reach"].arg_max() or 0)]
    return best


def intervals(rows: pl.DataFrame, *, draws: int = 1_000, seed: int = 0) -> pl.DataFrame:
    """Return variant, figure, value, low, high: means of `REACHED`, with 95 % intervals by bootstrap over questions.

    Every variant sees the same draws. Source: Efron 1979, doi 10.1214/aos/1176344552.
    """
    names = rows["variant"].unique(maintain_order=True).to_list()
    first = rows.filter(pl.col("variant") == names[0])
    places = np.random.default_rng(seed).integers(0, len(first), (draws, len(first)))
    found = []
    for name in names:
        mine = rows.filter(pl.col("variant") == name)
        for figure in REACHED:
            values = mine[figure].to_numpy()
            low, high = np.quantile(values[places].mean(axis=1), [0.025, 0.975]).tolist()
            found.append({"variant": name, "figure": figure, "value": float(values.mean()), "low": low, "high": high})
    return pl.DataFrame(found)
