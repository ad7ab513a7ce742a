"""How much to ask beforehand, by summaries whose truth is known."""

import numpy as np
import polars as pl
import pytest

from memlab.experiment import warm_up
from memlab.experiment.results import Run
from memlab.guide.advice import warm_up as advice
from memlab.guide.figures import Source, check, plain
from memlab.workload.corpus import generate

CALLS, FIRST = 60, 10


def a_run(first_ms, *, repeats=5, size="quick", seed=2, events=200):
    """A run in which the first calls take so long by number asked, and all others one millisecond, give or take 2 %."""
    chance = np.random.default_rng(seed)
    calls = pl.concat(
        [
            pl.DataFrame({"position": range(CALLS)}, schema={"position": pl.Int64}).with_columns(
                asked=pl.lit(asked, pl.Int64),
                repeat=pl.lit(repeat, pl.Int64),
                took_ns=pl.Series(
                    (np.where(np.arange(CALLS) < FIRST, ms, 1.0) * chance.normal(1.0, 0.02, CALLS) * 1e6).astype(np.int64)
                ),
                cached=pl.Series(np.arange(CALLS) >= (0 if asked else FIRST)),
            )
            for repeat in range(repeats)
            for asked, ms in first_ms.items()
        ]
    )
    kinds = [*first_ms, None]
    starts = pl.DataFrame(
        [
            {
                "asked": asked,
                "repeat": repeat,
                "open_ns": round((0.1 if asked is not None else 0.4) * 1e9),
                "warm_up_ns": (asked or 0) * 2_000_000,
                "kept_ratio": 0.02,
            }
            for repeat in range(repeats)
            for asked in kinds
        ],
        schema_overrides={"asked": pl.Int64},
    )
    summary = warm_up.summarise(starts, calls, size=size, first=FIRST, corpus=generate(events, 2, 40), zipf=1.0)
    fields = {key: {} for key in ("parameters", "settings", "workload", "libraries", "host")}
    text = dict.fromkeys(("code_version", "started", "finished"), "")
    return Run(
        **fields, **text, experiment="08-warm-up", key=f"{events:016d}", seed=1, repeats=repeats, size=size, status="done",
        summary=summary,
    )  # fmt: skip


def checked(*runs):
    """A chapter in which every number has its run."""
    chapter = advice.chapter(runs)
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {run.id: Source(run.id, True) for run in runs})
    return chapter


@pytest.mark.parametrize(
    ("first_ms", "verdict", "asked"),
    [
        ({0: 8.0, 10: 4.0, 40: 2.0}, "better", 40),
        ({0: 8.0, 10: 2.0, 40: 2.0}, "better", 10),
        ({0: 8.0, 10: 8.0, 40: 8.0}, "no difference seen", 0),
        ({0: 2.0, 10: 4.0, 40: 4.0}, "worse", 0),
    ],
)
def test_the_least_that_cannot_be_told_from_the_best_is_enough(first_ms, verdict, asked):
    """More questions must be seen to help; where none helps, none is asked."""
    assert advice.enough_of(a_run(first_ms).summary) == (verdict, asked)


def test_figures_follow_from_the_rows():
    """What was planted stands in the summary: first over steady, seconds, settled, opening."""
    summary = a_run({0: 8.0, 10: 4.0}).summary
    assert summary["warm_ups"]["0"]["over_steady"]["value"] == pytest.approx(8.0, rel=0.02)
    assert summary["warm_ups"]["10"]["ratio"]["value"] == pytest.approx(0.5, rel=0.02)
    assert summary["warm_ups"]["10"]["took_s"]["value"] == pytest.approx(0.02)
    assert summary["warm_ups"]["0"]["settled_after"] == FIRST
    assert summary["warm_ups"]["0"]["first"]["hit_ratio"]["value"] == 0.0
    assert summary["misses"]["first_ms"]["value"] == pytest.approx(8.0, rel=0.02)
    assert summary["rebuild_ratio"]["value"] == pytest.approx(4.0)
    assert len(summary["course"]) == 2 * CALLS // FIRST


def test_the_chapter_tells_both_sizes():
    """The rule names each size with its number and seconds, and the range that it was seen in."""
    chapter = checked(a_run({0: 8.0, 10: 4.0, 40: 2.0}, events=300), a_run({0: 8.0, 10: 2.0, 40: 2.0}))
    rule = plain(chapter.rule)
    assert "on 200 memories the 10 most asked of 40 questions" in rule
    assert "on 300 memories the 40 most asked of 40 questions" in rule
    assert set(chapter.drawings) == {"warm-up-200", "warm-up-300"}
    assert chapter.settings == {}


def test_nothing_seen_is_said():
    """A warm-up that changes nothing is not advised."""
    chapter = checked(a_run({0: 8.0, 10: 8.0}))
    assert "none that was tried is seen to help" in plain(chapter.headline)
    assert "no warm-up is seen to help" in plain(chapter.rule)


def test_a_smoke_run_advises_nothing():
    """No rule, and the headline says why; the same of too few repeats."""
    for run in (a_run({0: 8.0, 10: 2.0}, size="smoke"), a_run({0: 8.0, 10: 2.0}, repeats=2)):
        chapter = checked(run)
        assert chapter.rule == ""
        assert chapter.headline.startswith("No finding")
