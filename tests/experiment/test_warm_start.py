"""Models propose what they are good at, say what it should bring, and are silent where they know nothing."""

import numpy as np
import pytest

from memlab.experiment import tune, warm_start
from memlab.predict.group_commit import BatchModel, ServiceTime
from memlab.predict.what_if import Play
from memlab.settings import Settings
from memlab.workload.popularity import Zipf
from memlab.workload.spec import workload

SIZES = [1, 4, 16, 64]


def traffic(rate_per_s, items=400, seconds=8.0, seed=1):
    chance = np.random.default_rng(seed)
    at_s = np.sort(chance.random(int(rate_per_s * seconds)) * seconds)
    return [Play(at_s, Zipf(items, 1.0, seed).draw(len(at_s), chance), np.ones(len(at_s), dtype=np.bool_))]


def lane(fixed_s, per_call_s):
    return BatchModel(ServiceTime.fit(SIZES, [fixed_s + per_call_s * size for size in SIZES]))


class Trial:
    """Answers what a search would ask, from what was proposed."""

    def __init__(self, parameters):
        self.parameters = parameters

    def suggest_categorical(self, name, choices):
        assert self.parameters[name] in choices
        return self.parameters[name]

    def suggest_int(self, name, low, high, log=False):
        assert low <= self.parameters[name] <= high
        return self.parameters[name]


@pytest.mark.parametrize("rate_per_s", [20, 400])
def test_proposals_fit_the_search_and_say_what_they_bring(rate_per_s):
    """Whatever is proposed is a place of the search's own space; the cache's share is what the trace says."""
    asked = traffic(rate_per_s)
    found = warm_start.proposals(lane(0.004, 0.0001), asked, index="flat", objective="p95")
    settings = [Settings.of(tune.suggest(Trial(one.parameters))) for one in found]
    assert len(found) == len({one.by for one in found}) >= 2
    assert found[0].by == "all models"
    assert settings[-1].cache is None
    assert found[-1].predicted["hit_ratio"] == 0.0
    assert all(one.predicted["p95"] > 0.0 for one in found)
    assert found[0].predicted["p95"] <= min(one.predicted["p95"] for one in found) * 1.02


def test_groups_are_proposed_where_calls_alone_cannot_keep_up():
    """A fixed cost of 10 ms and 300 calls a second: without batching no model answers, so none is proposed."""
    found = warm_start.proposals(lane(0.01, 0.0001), traffic(300), index="flat", objective="mean")
    assert all(one.parameters["batch"] for one in found if not one.parameters["cache"])


@pytest.mark.parametrize(
    "given",
    [
        {"mix": {"episodic.remember": 1.0}, "arrivals": {"rate_per_s": 100.0}},
        {"mix": {"episodic.recall": 1.0}, "arrivals": {"kind": "closed", "clients": 4}},
    ],
)
def test_models_are_silent_where_they_know_nothing(given):
    """Writes alone, and loops in which calls wait for answers."""
    assert warm_start.propose(workload(given), "p95") == []


def test_the_index_goes_by_size():
    """Exact until lists are worth training."""
    small, large = (workload({"corpus": {"events": events}}) for events in (1_000, 50_000))
    assert (warm_start._index(small), warm_start._index(large)) == ("flat", "ivf")


@pytest.mark.parametrize(("duration_s", "repeats"), [(0.5, 3), (0.3, 5), (2.0, 3)])
def test_what_is_measured_takes_no_longer_than_what_it_counts_for(duration_s, repeats):
    """All lanes of the models in the time of the evaluations that they stand for."""
    made = workload({"duration_s": duration_s, "warm_up_s": 0.05})
    evaluation_s = 2 * (repeats + 1) * (made.duration_s + made.warm_up_s)
    lanes_s = warm_start._LANES * (warm_start._closed_s(made, repeats) + warm_start._WARM_S)
    assert lanes_s <= warm_start.COST * evaluation_s


@pytest.mark.serial
def test_the_real_engine_is_asked():
    """A few groups of a small workload are measured, and something is proposed."""
    small = workload(
        {
            "corpus": {"events": 60, "sessions": 2, "questions": 20},
            "mix": {"episodic.recall": 0.9, "episodic.remember": 0.1},
            "arrivals": {"rate_per_s": 200},
            "duration_s": 0.5,
            "warm_up_s": 0.1,
        }
    )
    found = warm_start.propose(small, "mean", repeats=3)
    assert found
    assert found[0].parameters["index.kind"] == "flat"
    assert "a group takes" in found[0].says
