"""How many calls may run at once, by a study whose truth is known."""

import msgspec
import numpy as np
import pytest

from memlab.experiment import pooling as study
from memlab.guide.advice import pooling
from memlab.guide.figures import Source, check, plain
from memlab.workload import spec
from tests.experiment import planted_pool
from tests.guide.planted import run as planted


def point(measured, *, size="quick", reference=4, repeats=5):
    traffic = spec.workload({"mix": {"episodic.recall": 1}, "corpus": {"events": 3_000}})
    summary = study._summarise(measured, study.SEEN, reference, size=size, repeats=repeats, traffic=traffic)
    made = planted(np.random.default_rng(1), size="smoke", experiment="22-pool-limit")
    return msgspec.structs.replace(made, summary=summary, size=size)


def checked(run):
    """A chapter in which every number has its run."""
    chapter = pooling.chapter([run])
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {run.id: Source(run.id, True)})
    return chapter


def flat(limit):
    """One machine that does as much whatever is inside."""
    return 2_000.0


def jagged(limit):
    """What no law describes."""
    return 1_000.0 if limit in study.SEEN else 3_000.0


def test_a_limit_and_threads_that_do_more_are_recommended():
    """Where places help, the limit that the law names; where threads help, the fewest."""
    run = point(planted_pool.measured())
    chapter = checked(run)
    nearest = run.summary["race"]["nearest"]
    assert nearest > 4
    assert chapter.settings == {"pool.limit": nearest, "pool.database_threads": 2, "pool.vector_threads": 1}
    rule = plain(chapter.rule)
    assert f"{run.summary['law']['enough']} places are enough here, their throughput higher than" in rule
    assert "Seen from 1 to 32 places" in rule
    assert "svg" in chapter.drawings["pool-limit"]
    text = plain(chapter.text)
    assert "what a machine takes to wake after a rest (the model)" in text
    assert "stood between 7 and 11 places" in text


def test_where_nothing_differs_nothing_is_to_be_copied():
    """As much whatever is inside, and threads that change nothing."""
    chapter = checked(point(planted_pool.measured(flat, threads_help=1.0)))
    assert chapter.settings == {}
    assert "not seen to differ from" in plain(chapter.rule)


def test_threads_that_harm_are_not_recommended():
    """A third of the throughput."""
    assert "pool.database_threads" not in checked(point(planted_pool.measured(threads_help=0.3))).settings


def test_a_law_that_is_far_off_is_not_to_be_chosen_by():
    """The rule says so in place of a number of places."""
    chapter = checked(point(planted_pool.measured(jagged)))
    assert "Measure the limits that you mean to use" in plain(chapter.rule)
    assert "pool.limit" not in chapter.settings


@pytest.mark.parametrize("given", [{"size": "smoke"}, {"repeats": 3}])
def test_too_little_recommends_nothing(given):
    """A smoke run, or too few repeats: no rule, no settings, and the headline says why."""
    chapter = checked(point(planted_pool.measured(), **given))
    assert chapter.rule == ""
    assert chapter.settings == {}
    assert chapter.headline.startswith("No finding")
