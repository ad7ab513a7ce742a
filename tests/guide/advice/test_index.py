"""Which vector index, by runs whose truth is known."""

import msgspec
import numpy as np
import polars as pl
import pytest

from memlab.experiment import indexing
from memlab.guide.advice import index
from memlab.guide.figures import Source, check, plain
from tests.guide.planted import run as planted

CASES = [(1.0, 0.0), (0.1, 0.0), (1.0, 0.2), (1.0, 0.5)]
SPREAD = 0.02


def point(memories, times, *, size="quick", repeats=5, recall=None, slower=1.0, spread=SPREAD, builds=None):
    """A run of one size.

    Args:
        times: ms a query by kind; for many callers the same.
        recall: by kind and case, where it is not 0.99.
        slower: times as long with half forgotten.
    """
    rows = []
    for kind, ms in times.items():
        for session, deleted in CASES:
            for callers in (1, indexing.MANY):
                query_ms = ms * (slower if deleted == 0.5 else 1.0)
                rows.append(
                    {
                        "memories": memories,
                        "kind": kind,
                        "effort": 0,
                        "session": session,
                        "deleted": deleted,
                        "callers": callers,
                        "recall_at_10": (recall or {}).get((kind, session, deleted), 0.99),
                        "query_ms": query_ms,
                        "low": query_ms * (1 - spread) if repeats >= 5 else None,
                        "high": query_ms * (1 + spread) if repeats >= 5 else None,
                        "p50_ms": query_ms,
                        "p95_ms": 2 * query_ms,
                        "p95_low": None,
                        "p95_high": None,
                        "passes_ms": [query_ms * (1 + spread * turn / 4) for turn in range(-2, repeats - 2)],
                        "passes_recall": [(recall or {}).get((kind, session, deleted), 0.99)] * repeats,
                        "bytes_a_memory": 400.0,
                        "build_s": (builds or {}).get(kind, 2.0),
                    }
                )
    frame = indexing.with_fronts(pl.DataFrame(rows, schema_overrides=dict.fromkeys(indexing._NULLABLE, pl.Float64)))
    summary = indexing._summarise(frame, size=size, repeats=repeats, questions=250, dimension=384, enough=0.95)
    made = planted(np.random.default_rng(memories), size="smoke", experiment="23-index")
    key = f"{memories:016x}"
    return msgspec.structs.replace(made, summary=summary, size=size, key=key)


def checked(runs):
    """A chapter in which every number has its run."""
    chapter = index.chapter(runs)
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {run.id: Source(run.id, True) for run in runs})
    return chapter


def test_lists_are_recommended_from_where_they_surely_win():
    """Flat at a thousand, lists from ten thousand on: the kind, and from how many memories."""
    runs = [
        point(100_000, {"flat": 9.0, "ivf": 0.5}, slower=1.5),
        point(1_000, {"flat": 0.1, "ivf": 0.3}),
        point(10_000, {"flat": 0.9, "ivf": 0.4}),
    ]
    chapter = checked(runs)
    assert chapter.settings == {"index.kind": "ivf", "index.train_at": 10_000, "index.rebuild_dead_ratio": 0.5}
    assert chapter.shown_by == runs[0].id, "the largest size"
    rule = plain(chapter.rule)
    assert "at 1,000 flat" in rule and "at 10,000 ivf" in rule
    assert "Build ivf again: at 100,000 memories from 50% forgotten on searches take 1.50" in rule
    assert "Seen from 1,000 to 100,000 memories" in rule
    text = plain(chapter.text)
    assert "| all memories | one caller | 1,000 | 10,000 | flat | ivf |" in text
    assert set(chapter.drawings) == {"index-one", "index-many"}


def test_who_may_be_as_quick_is_named_and_nothing_is_recommended():
    """Intervals that meet."""
    chapter = checked([point(1_000, {"flat": 1.0, "sq8": 1.03})])
    assert chapter.settings == {}
    assert "flat (or sq8)" in plain(chapter.rule)
    assert "neither to take longer nor to find too little" in plain(chapter.rule)
    assert "surely another one." in plain(chapter.text)


def test_a_kind_that_fails_in_sessions_is_not_recommended():
    """A graph that is quickest in all memories and finds little in a tenth of them, where the engine would search by it."""
    graph = {("hnsw", 0.1, 0.0): 0.6}
    large = checked([point(100_000, {"flat": 9.0, "hnsw": 0.1}, recall=graph)])
    assert large.settings == {"index.kind": "flat"}
    assert plain(large.headline).startswith("At 100,000 memories the quickest with enough recall is hnsw for one caller")
    small = checked([point(10_000, {"flat": 9.0, "hnsw": 0.1}, recall=graph)])
    assert small.settings == {"index.kind": "hnsw"}, "a session of a thousand is searched exactly"


def test_an_index_that_finds_too_little_after_deletes_is_built_again():
    """Another kind still finds enough there, or this one would not be recommended; a small loss above what is enough is none."""

    def less(after_half):
        run = point(1_000, {"flat": 1.0, "ivf": 0.3}, recall={("ivf", 1.0, 0.2): 0.97, ("ivf", 1.0, 0.5): after_half})
        more = {
            name.replace("ivf 0", "ivf 8"): {**row, "effort": 8, "recall_at_10": 0.99}
            for name, row in run.summary["rows"].items()
        }
        run.summary["rows"] |= {name: row for name, row in more.items() if "ivf 8" in name and row["deleted"] == 0.5}
        return checked([run])

    assert less(0.9).settings["index.rebuild_dead_ratio"] == 0.5
    assert "from 50% forgotten on the same effort finds too little, its recall@10 falls by 0.090" in plain(less(0.9).rule)
    assert "index.rebuild_dead_ratio" not in less(0.96).settings


def test_kinds_that_the_engine_lacks_are_shown_and_not_recommended():
    """Refined codes win; of the engine's kinds another one does."""
    chapter = checked([point(1_000, {"flat": 1.0, "sq8": 0.5, "ivf+rabitq+refine": 0.1})])
    assert chapter.settings == {"index.kind": "sq8"}
    assert "ivf+rabitq+refine" in plain(chapter.headline)


def test_nobody_who_finds_enough_is_said_so():
    """No winner at all, and no advice."""
    none = {("flat", session, deleted): 0.5 for session, deleted in CASES}
    chapter = checked([point(1_000, {"flat": 1.0}, recall=none)])
    assert chapter.settings == {}
    assert "none with enough recall" in plain(chapter.headline)
    assert plain(chapter.rule).startswith("None of the engine's kinds")


@pytest.mark.parametrize("given", [{"size": "smoke"}, {"repeats": 2}])
def test_too_little_recommends_nothing(given):
    """A smoke run, or too few passes."""
    chapter = checked([point(1_000, {"flat": 0.1, "ivf": 0.3}, **given)])
    assert chapter.rule == ""
    assert chapter.settings == {}
    assert chapter.headline.startswith("No finding")
