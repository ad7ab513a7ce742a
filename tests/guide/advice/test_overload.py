"""Overload, by runs whose calls are counted by hand."""

import msgspec
import numpy as np
import polars as pl
import pytest

from memlab.guide.advice import overload
from memlab.guide.figures import Source, check, plain
from tests.guide.planted import run as planted

SECOND = 1_000_000_000


def point(folder, rng, deadline_s, wait_s, kept, *, size="quick"):
    """A run in which without a pool half of the calls come in time, and with one the share *kept*; the rest is late."""
    parameters = {"pool.acquire_timeout_s": wait_s}
    made = planted(rng, parameters=parameters, candidate=parameters, size=size, experiment="18-overload")
    made = msgspec.structs.replace(made, parameters={**parameters, "workload.deadline_s": deadline_s}, folder=folder / made.key)
    made.folder.mkdir()
    rows = [
        {
            "setting": setting,
            "repeat": repeat,
            "warm_up": False,
            "outcome": "ok",
            "intended_ns": 0,
            "finished_ns": SECOND * (0 if number < share * 100 + repeat % 2 else 10),
        }
        for setting, share in (("reference", 0.5), ("candidate", kept))
        for repeat in range(5)
        for number in range(100)
    ]
    pl.DataFrame(rows).write_parquet(made.folder / "samples.parquet")
    made.summary["windows"] = [
        {"setting": setting, "repeat": repeat, "start_ns": 0, "end_ns": SECOND}
        for setting in ("reference", "candidate")
        for repeat in range(5)
    ]
    made.summary["candidate"]["statistics"] = {
        "batch": {"expired": 12, "mean_size": 30.0},
        "pool": {"expired": 3, "refused": 4},
    }
    return made


def checked(runs):
    """A chapter in which every number has its run."""
    chapter = overload.chapter(runs)
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {run.id: Source(run.id, True) for run in runs})
    return chapter


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_the_wait_that_brings_more_at_every_deadline_is_recommended(tmp_path, rng):
    """At both deadlines more comes in time with the short wait, intervals apart: it is the one to copy."""
    runs = [point(tmp_path, rng, *of) for of in ((0.25, 0.05, 0.9), (0.25, 5.0, 0.6), (1.0, 0.05, 0.8), (1.0, 5.0, 0.55))]
    chapter = checked(runs)
    assert chapter.settings == {"pool.acquire_timeout_s": 0.05}
    assert "Wait 0.05 s for a place" in plain(chapter.rule)
    assert "0.25 to 1" in plain(chapter.rule)
    assert " 60 (" in plain(chapter.headline), "60 or 61 of a hundred in each second"


def test_what_differs_by_deadline_is_not_recommended(tmp_path, rng):
    """The short wait helps at one deadline and harms at the other: nothing to copy, and the rule says that nothing held."""
    runs = [point(tmp_path, rng, *of) for of in ((0.25, 0.05, 0.9), (0.25, 5.0, 0.6), (1.0, 0.05, 0.3), (1.0, 5.0, 0.55))]
    chapter = checked(runs)
    assert chapter.settings == {}
    assert "made no difference" in plain(chapter.rule)


def test_too_few_repeats_find_nothing(tmp_path, rng):
    """Not even that the waits made no difference."""
    runs = [point(tmp_path, rng, 0.25, wait_s, 0.9) for wait_s in (0.05, 5.0)]
    for run in runs:
        run.summary["finding"] = False
    chapter = checked(runs)
    assert (chapter.rule, chapter.settings) == ("", {})


def test_it_says_honestly_that_there_is_no_breaker_yet(tmp_path, rng):
    """Deadlines and refusals stand in for it, and a smoke run finds nothing."""
    chapter = checked([point(tmp_path, rng, 0.2, 0.05, 0.9, size="smoke")])
    assert "not built yet" in chapter.text
    assert chapter.headline.startswith("No finding")
    assert chapter.rule == ""
    assert chapter.settings == {}
