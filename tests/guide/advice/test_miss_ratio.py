"""The chapter says which size, how right and how soon, and recommends no size of another's trace."""

import msgspec
import numpy as np
import pytest

from memlab.experiment import curves
from memlab.guide.advice import miss_ratio
from memlab.guide.figures import Source, check, plain
from tests.guide.planted import run as planted

MADE_UP = {"corpus": {"questions": 600}, "popularity": {"zipf": 0.9}}


@pytest.fixture(scope="module")
def run():
    """A run with the summary of a small check."""
    made = curves.measure_point({}, workload=MADE_UP, accesses=4_000, held=3_000, sample=0.2, seeds=2, repeats=5, size="quick")
    return msgspec.structs.replace(planted(np.random.default_rng(1), experiment="20-miss-ratio"), summary=made.summary)


def chapter(run):
    made = miss_ratio.chapter([run])
    check(f"{made.headline}\n{made.text}\n{made.rule}", {run.id: Source(run.id, True)})
    return made


def test_size_errors_and_times_are_told(run):
    """The knee stands in the headline, errors beside the cache's own spread, seconds beside two replays."""
    made = chapter(run)
    knee = run.summary["policies"]["lru"]["knee"]["max_entries"]
    assert f"{knee:,} entries" in plain(made.headline)
    assert "own spread" in made.text
    assert "two replays of W-TinyLFU" in made.text
    assert "<svg" in made.drawings["miss-ratio"]
    assert "without a sweep" in plain(made.rule)
    assert made.settings == {}


def test_a_policy_that_is_off_is_told(run):
    """The rule says for which policy the prediction is no more than a guess."""
    policies = {name: {**told, "near": False} for name, told in run.summary["policies"].items()}
    made = chapter(msgspec.structs.replace(run, summary={**run.summary, "policies": policies}))
    assert "first guess" in plain(made.rule)
    assert "allow for more" in plain(made.rule)
    assert "**no**" in made.text


def test_a_smoke_run_has_no_rule(run):
    """It proves that it runs."""
    made = chapter(msgspec.structs.replace(run, summary={**run.summary, "finding": False}))
    assert made.headline.startswith("No finding")
    assert made.rule == ""
