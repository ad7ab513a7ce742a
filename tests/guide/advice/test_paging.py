"""How large a page to take, by walks whose truth is known."""

import numpy as np
import polars as pl
import pytest

from memlab.experiment import paging
from memlab.experiment.results import Run
from memlab.guide.advice import paging as advice
from memlab.guide.figures import Source, check, plain
from memlab.settings import Settings
from memlab.workload.corpus import generate

EVENTS = 1_000
BESIDE = {
    "limit": 50, "pages": 20, "added": 19, "forgotten": 19, "seen": EVENTS, "missing": 0, "twice": 0, "ghosts": 0, "disorder": 0,
    "holds": True,
}  # fmt: skip


def a_run(per_row_us, *, first_row=0.1, peak=0.2, repeats=5, size="quick", seed=1):
    """Walks that take so long per row by page size and 10 µs as one list, give or take 2 %.

    *first_row* and *peak* are those of pages over those of the list.
    """
    chance = np.random.default_rng(seed)
    ways = {**{str(limit): us for limit, us in per_row_us.items()}, "list": 10.0}
    walks, pages = [], []
    for repeat in range(repeats):
        for way, us in ways.items():
            near = chance.normal(1.0, 0.02, 3)
            one_list = way == "list"
            walks.append(
                {
                    "way": way,
                    "repeat": repeat,
                    "per_row_us": us * near[0],
                    "first_row_ms": 100.0 * near[1] * (1.0 if one_list else first_row),
                    "peak_mb": 20.0 * near[2] * (1.0 if one_list else peak),
                    "rows": EVENTS,
                    "digest": "same",
                }
            )
            limit = paging.MOST if one_list else int(way)
            count = EVENTS // limit
            took = (us * limit * 1e3 * chance.normal(1.0, 0.02, count)).astype(np.int64)
            pages.append(
                pl.DataFrame({"way": way, "repeat": repeat, "place": np.arange(count), "took_ns": took, "rows": [limit] * count})
            )
    summary = paging.summarise(pl.DataFrame(walks), pl.concat(pages), size=size, corpus=generate(EVENTS, 1, 1))
    settings = {"candidate": Settings.of({"cache": None}).to_dict()}
    fields = {name: {} for name in ("parameters", "workload", "libraries", "host")}
    text = dict.fromkeys(("code_version", "started", "finished"), "")
    return Run(
        **fields, **text, experiment="09-paging", key=f"{seed:016d}", settings=settings, seed=1, repeats=repeats, size=size,
        status="done", summary={**summary, "beside_writes": BESIDE},
    )  # fmt: skip


def checked(run):
    """A chapter in which every number has its run."""
    chapter = advice.chapter([run])
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {run.id: Source(run.id, True)})
    return chapter


@pytest.mark.parametrize(
    ("per_row_us", "way"),
    [
        ({10: 80.0, 50: 30.0, 100: 12.0, 500: 12.0}, "100"),
        ({10: 80.0, 50: 30.0, 100: 20.0, 500: 12.0}, "500"),
        ({10: 12.0, 50: 12.0, 100: 12.0, 500: 12.0}, "10"),
    ],
)
def test_the_smallest_page_that_costs_no_more_is_taken(per_row_us, way):
    """Larger pages must be seen to cost less per row."""
    assert advice.pick_of(a_run(per_row_us).summary) == ("better", way)


def test_the_chapter_names_the_parameter_and_the_range():
    """The rule says which page, why, and for which pages and memories that was seen; `limit` is no setting."""
    chapter = checked(a_run({10: 80.0, 50: 30.0, 100: 12.0, 500: 12.0}))
    rule = plain(chapter.rule)
    assert "pages of 100 (`limit`): smaller ones cost more per row, and larger ones are not seen to cost less" in rule
    assert "pages of 10, 50, 100, 500" in rule
    assert "1,000 memories" in rule
    assert chapter.settings == {}
    assert "| 50 | 20 | 19 | 19 | 0 | 0 | 0 | 0 | yes |" in plain(chapter.text)


def test_no_gain_over_one_list_is_said():
    """Where the first row comes no sooner and no memory is saved, nothing is claimed."""
    run = a_run({10: 80.0, 50: 10.0}, first_row=1.0, peak=1.0)
    assert advice.pick_of(run.summary).verdict == "no difference seen"
    assert "neither the first row nor the memory was seen to gain" in plain(checked(run).rule)


@pytest.mark.parametrize(
    ("first_row", "peak", "told"),
    [
        (0.1, 2.0, "the memory is more, though the first row comes sooner."),
        (2.0, 0.2, "the first row comes later, though the memory is less."),
        (2.0, 2.0, "the first row comes later and the memory is more."),
        (1.0, 2.0, "Beside one list of everything the memory is more."),
    ],
)
def test_what_gets_worse_is_said(first_row, peak, told):
    """A gain in one is not told alone, nor is a loss told as no gain."""
    run = a_run({10: 80.0, 50: 10.0}, first_row=first_row, peak=peak)
    assert advice.pick_of(run.summary).verdict == "worse"
    assert told in plain(checked(run).rule)


def test_a_smoke_run_advises_nothing():
    """No rule, and the headline says why; the same of too few repeats."""
    for run in (a_run({10: 80.0, 50: 10.0}, size="smoke"), a_run({10: 80.0, 50: 10.0}, repeats=2)):
        chapter = checked(run)
        assert chapter.rule == ""
        assert chapter.headline.startswith("No finding")


def test_figures_follow_from_the_rows():
    """Ratios to the list, the depth of a walk, and too few pages for a percentile say so."""
    summary = a_run({10: 80.0, 500: 12.0}).summary
    assert summary["ways"]["10"]["ratio"]["per_row"]["value"] == pytest.approx(8.0, rel=0.03)
    assert summary["ways"]["500"]["ratio"]["peak"]["value"] == pytest.approx(0.2, rel=0.05)
    assert summary["ways"]["500"]["p95_ms"]["value"] is None
    assert summary["depth"]["ratio"]["value"] == pytest.approx(1.0, rel=0.05)
    assert summary["same_walk"] is True
