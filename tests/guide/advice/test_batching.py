"""When a batch window pays, by lanes whose truth is known."""

import copy
import functools

import msgspec
import numpy as np
import pytest

from memlab.errors import MemlabError
from memlab.experiment import batching_summary
from memlab.guide.advice import batching
from memlab.guide.figures import Source, check, plain
from tests.experiment.test_batching_summary import planted as lanes
from tests.guide.planted import run as planted


@functools.cache
def summarised():
    measured = lanes(rates=(100, 300), paces=(1.0,) * 5)
    return batching_summary.summarise(measured, batching_summary.beside_measured(measured), size="quick", memories=300)


def point(operation="episodic.recall", size="quick"):
    """A run of lanes that do exactly what the model supposes."""
    summary = copy.deepcopy(summarised()) | {"operation": operation, "size": size, "finding": size == "quick"}
    made = planted(np.random.default_rng(1), size=size, experiment="21-batch-window")
    return msgspec.structs.replace(made, summary=summary, key=operation.replace(".", ""))


def checked(runs):
    """A chapter in which every number has its run."""
    chapter = batching.chapter(runs)
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {run.id: Source(run.id, True) for run in runs})
    return chapter


def test_what_was_planted_is_told():
    """Groups of 64 are 9.5 times as fast: kept; a fixed window only delays at 100/s, and an idle lane that sends at once wins."""
    chapter = checked([point(), point("episodic.remember")])
    text, rule = plain(chapter.text), plain(chapter.rule)
    assert "9.5 (9.5 to 9.5) times what calls one by one do" in text and ": kept." in text
    assert "Let an idle lane send at once" in rule
    assert "A window only delays up to" in rule
    assert "from 100 to 300 calls a second on 300 memories" in rule
    assert chapter.settings == {"batch.adaptive": True}
    assert set(chapter.drawings) == {"batching-delay", "batching-model"}


def test_what_is_not_sure_is_not_recommended():
    """Where intervals of the race hold 1, an idle lane is not said to win, and nothing is to be copied."""
    run = point()
    for one in run.summary["race"]:
        one["ratio_adaptive"] |= {"value": 1.0, "low": 0.9, "high": 1.1}
    chapter = checked([run])
    assert "was not seen to be slower" in plain(chapter.rule)
    assert chapter.settings == {}
    run.summary["race"][0]["ratio_adaptive"] |= {"value": 2.0, "low": 1.9, "high": 2.1}
    assert "measure both" in plain(checked([run]).rule)


def test_rates_share_the_level():
    """An interval that only just leaves 1 out says nothing where several rates were looked at."""
    run = point()
    for one in run.summary["race"]:
        one["ratio_adaptive"] |= {"value": 0.9, "low": 0.81, "high": 0.999}
    assert checked([run]).settings == {}
    del run.summary["race"][1:]
    assert checked([run]).settings == {"batch.adaptive": True}


def test_calls_are_said_to_be_saved_beside_windows_that_kept_the_objective_alone():
    """Kept at both rates; a fixed window at one of them, which needed twice the calls; where none did, nothing is compared."""
    run = point()
    first, second = run.summary["race"]
    for one in (first, second):
        one["aimd"]["keeps"] = True
    first["keeping"] = first["fixed"] | {"keeps": True}
    first["ratio_calls"] = {"value": 0.5, "low": 0.45, "high": 0.55, "n": 5, "note": None}
    second["keeping"] = second["ratio_calls"] = None
    rule = plain(checked([run]).rule)
    assert "kept 15 ms at 2 of 2 rates" in rule.replace("\u202f", " ").replace("\xa0", " ")
    assert "At 1 of them a fixed window kept it as well" in rule and "saves most at 1." in rule
    assert "At 1 no fixed window did." in rule
    first["keeping"] = None
    assert "fewer calls" not in plain(checked([run]).rule)


def test_what_was_not_predicted_is_a_dash():
    """A lane whose groups outgrow those measured stands without prediction; named is the rate from which on nothing is told."""
    run = point()
    for lane in run.summary["lanes"]:
        if lane["rule"] != batching_summary.NONE:
            lane |= dict.fromkeys(("predicted_p50_ms", "predicted_p95_ms", "error_p95", "predicted_calls_saved"))
    run.summary["asked"]["fixed"] |= {"calls_saved_from": None, "untold_from": 250.0}
    text = plain(checked([run]).text)
    assert "nowhere below 250; groups outgrow those measured" in text
    assert "| – |" in text


def test_a_smoke_run_recommends_nothing():
    """No rule, no settings, and the headline says why; without runs there is no chapter."""
    chapter = checked([point(size="smoke")])
    assert chapter.rule == "" and chapter.settings == {}
    assert chapter.headline.startswith("No finding")
    with pytest.raises(MemlabError, match="21-batch-window"):
        batching.chapter([])
