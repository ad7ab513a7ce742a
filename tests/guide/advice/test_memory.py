"""What memory costs, by a summary whose truth is known."""

import msgspec
import numpy as np

from memlab.guide.advice import memory
from memlab.guide.figures import Source, check, plain
from memlab.settings import Settings
from tests.guide.planted import run as planted

FIGURES = ("steady", "peak", "own_steady", "own_peak")


def interval(value):
    return {"value": value, "low": value * 0.95, "high": value * 1.05}


def store(rng, *, kind="fp16", ratio=0.6, recall=0.999, verdict="better", size="quick"):
    settings = {"index.kind": kind, "cache.max_entries": 256}
    side = {f"{figure}_mb": interval(100.0) for figure in FIGURES}
    side |= {"vectors_mb": interval(30.0), "database_mb": interval(9.0), "bytes_per_memory": interval(2e3), "walk": "forgets"}
    summary = {
        "size": size,
        "finding": size != "smoke",
        "memories": 50_000,
        "same_work": True,
        "recall_target": 0.995,
        "reference": {**side, "kind": "ivf", "recall_at_10": interval(1.0)},
        "candidate": {**side, "kind": kind, "recall_at_10": interval(recall)},
        "ratio": {figure: interval(ratio) for figure in FIGURES},
        "reduction": {figure: interval(1 - ratio) for figure in FIGURES},
        "verdict": dict.fromkeys(FIGURES, verdict),
    }
    made = planted(rng, candidate=settings, reference={}, size=size, experiment="15-memory")
    return msgspec.structs.replace(made, parameters={"index.kind": kind}, summary=summary)


def checked(runs):
    chapter = memory.chapter(runs)
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {run.id: Source(run.id, True) for run in runs})
    return chapter


def test_the_kind_that_saves_most_at_the_recall_asked_for_is_to_copy():
    """Of two that save, one below the recall: the other is recommended, with all that it sets otherwise than the defaults."""
    rng = np.random.default_rng(1)
    chapter = checked([store(rng, kind="sq8", ratio=0.4, recall=0.9), store(rng)])
    assert chapter.settings == {"index.kind": "fp16", "cache.max_entries": 256}
    assert Settings.of(chapter.settings).index.kind == "fp16"
    assert "50,000 memories" in plain(chapter.rule)


def test_without_a_saving_the_defaults_stay():
    """No difference seen: nothing to copy, and the rule says so."""
    chapter = checked([store(np.random.default_rng(2), verdict="no difference seen")])
    assert chapter.settings == {}
    assert "Leave the defaults" in plain(chapter.rule)


def test_a_smoke_run_recommends_nothing():
    chapter = checked([store(np.random.default_rng(3), size="smoke")])
    assert (chapter.rule, chapter.settings) == ("", {})
