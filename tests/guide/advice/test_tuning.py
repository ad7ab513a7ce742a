"""What the chapter says of searches follows from a recording whose truth is planted."""

import msgspec
import numpy as np
import pytest

from memlab.experiment import tune_grid
from memlab.experiment.tune import Task
from memlab.guide.advice import tuning
from memlab.guide.figures import Source, check, plain
from memlab.settings import Settings
from tests.experiment.test_tune import TRAFFIC, Planted, flat, modelled
from tests.guide.planted import run as planted


def steep(settings):
    return flat(settings) * (0.5 if settings.pool is None else 1.0)


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    """Of searches over a planted grid, whose best is half the defaults."""
    folder = tmp_path_factory.mktemp("tuning")
    evaluate = Planted(steep, width=0.005)
    task = Task(workload=TRAFFIC, repeats=5)
    points = tune_grid.record(tune_grid.GRID, evaluate, folder / "grid.jsonl", repeats=5, seed=1)
    judged = tune_grid.judge(task, points, folder, seeds=range(1, 7), models=modelled)
    told = [(one, evaluate(Settings(), repeats=5, seed=1)) for one in modelled()]
    fought = {"index.kind": "ivf", "cache.max_entries": 1024, "pool": None}
    return tune_grid._summarise(task, points, judged, told, fought, evaluate(Settings.of(fought), repeats=5, seed=1))


def chapter(summary, **changed):
    """The chapter of a run with that summary, every number of which has its run."""
    run = planted(np.random.default_rng(1), experiment="24-tune")
    run = msgspec.structs.replace(run, summary={**summary, **changed})
    made = tuning.chapter([run])
    check(f"{made.headline}\n{made.text}\n{made.rule}", {run.id: Source(run.id, True)})
    return made


def test_gap_chance_models_and_duel_are_told(summary):
    """The headline has gap and chance; the text what models said and what was measured, and the duel's verdict."""
    made = chapter(summary)
    text = plain(made.text)
    assert f"{summary['worst_gap']:.1%}" in plain(made.headline)
    assert "models without a cache" in text
    assert "the defaults are beaten" in text
    assert "<svg" in made.drawings["tuning"]
    assert made.settings == {"cache.max_entries": 1024, "pool": None}
    assert "81 places" in plain(made.rule)


def test_a_search_that_is_no_better_than_chance_is_told(summary):
    """The rule then says that it was not seen to come nearer."""
    made = chapter(summary, verdict={"chance": "no difference seen", "duel": "no difference seen"}, near=False)
    assert "not seen to come nearer" in plain(made.rule)
    assert "no significant gain" in plain(made.text)
    assert "missed" in plain(made.text)
    assert made.settings == {}


def test_a_smoke_run_recommends_nothing(summary):
    """No rule, no settings; without models that is said."""
    made = chapter(summary, finding=False, models={})
    assert made.headline.startswith("No finding")
    assert (made.rule, made.settings) == ("", {})
    assert "No model was asked" in plain(made.text)
