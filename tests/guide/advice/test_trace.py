"""The reader's own trace: told from a run that was made of one."""

import msgspec
import numpy as np
import polars as pl
import pytest

from memlab.experiment import trace_study
from memlab.guide.advice import trace
from memlab.guide.figures import Source, check, plain
from memlab.settings import Settings
from tests.guide.planted import run as planted


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """The run of a trace of keys with times, ten a second."""
    folder = tmp_path_factory.mktemp("trace")
    chance = np.random.default_rng(1)
    keys = (chance.zipf(1.5, 150) % 40).astype(np.int64)
    pl.DataFrame({"key": keys, "at_s": np.arange(150) * 0.1}).write_parquet(folder / "mine.parquet")
    return trace_study.study(folder / "mine.parquet", Settings(), folder / "results", size="smoke")


def checked(run, others):
    chapter = trace.chapter([run], others)
    known = [run, *(one for runs in others.values() for one in runs)]
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {one.id: Source(one.id, True) for one in known})
    return chapter


def sent(rate_per_s):
    made = planted(np.random.default_rng(2))
    return msgspec.structs.replace(made, summary={**made.summary, "offered_per_s": rate_per_s})


def test_it_answers_for_the_trace(looked):
    """Traffic, curve with its size to copy, replay and coverage, every number with its run."""
    chapter = checked(looked, {"01-cache-size": [sent(10.0)]})
    assert set(chapter.drawings) == {"trace-traffic", "trace-cache"}
    text = plain(chapter.text)
    for words in ("calls a second", "stack distances", "in random order", "Which chapters cover it"):
        assert words in text
    assert "too briefly" in plain(chapter.headline)
    assert "holds whatever the size of the run" in text, "why a smoke run has a size to copy: it is counted, not timed"


@pytest.mark.parametrize(("own", "is_to_copy"), [(1, True), (None, True), (4_096, False)])
def test_a_cache_is_never_made_smaller(looked, own, is_to_copy):
    """The size at the knee is to copy where the recommended cache is smaller, or off; a larger one stays."""
    cache = {**looked.summary["cache"], "own_entries": own, "own_hit_ratio": 0.5}
    run = msgspec.structs.replace(looked, summary={**looked.summary, "finding": True, "cache": cache})
    chapter = checked(run, {})
    assert chapter.settings == ({"cache.max_entries": cache["knee"]["max_entries"]} if is_to_copy else {})
    assert ("beyond the knee" in plain(chapter.rule)) != is_to_copy


def test_a_smoke_run_has_nothing_to_copy(looked):
    """It proves that it runs: neither rule nor settings."""
    chapter = checked(looked, {})
    assert (chapter.rule, chapter.settings) == ("", {})


@pytest.mark.parametrize(("rate", "place"), [(10.0, "inside"), (2.0, "above"), (300.0, "below")])
def test_it_says_which_chapters_cover_its_rate(looked, rate, place):
    """Ten calls a second lie inside, above or below what a chapter was measured with."""
    text = plain(checked(looked, {"01-cache-size": [sent(rate)]}).text)
    (row,) = [line.split("|") for line in text.splitlines() if line.startswith("| 01-cache-size |")]
    assert row[3].strip() == place


def test_chapters_without_such_traffic_are_left_out(looked):
    """A run that offers no rate stands in no row."""
    other = planted(np.random.default_rng(3))
    silent = msgspec.structs.replace(other, summary={})
    assert "No other chapter" in checked(looked, {"15-memory": [silent]}).text


def test_a_trace_that_asks_nothing_again_wants_no_cache(looked):
    """No hit that is sure: no size to keep, nothing to copy."""
    cache = {**looked.summary["cache"], "at_knee": {"value": 0.0, "low": 0.0, "high": 0.0}}
    chapter = checked(msgspec.structs.replace(looked, summary={**looked.summary, "finding": True, "cache": cache}), {})
    assert (chapter.rule, chapter.settings) == ("", {})


def test_a_replay_that_lost_something_says_so(looked):
    """What was acknowledged and not found again is no matter for a summary alone."""
    replay = {**looked.summary["replay"], "checks_hold": True}
    for holds in (True, False):
        summary = {**looked.summary, "replay": {**replay, "checks_hold": holds}}
        told = plain(checked(msgspec.structs.replace(looked, summary=summary), {}).text)
        assert ("not to be trusted" in told) is not holds


def test_a_handful_of_accesses_has_no_interval_and_no_size(tmp_path):
    """One hit of three says nothing of the next three."""
    pl.DataFrame({"key": [1, 2, 1]}).write_parquet(tmp_path / "few.parquet")
    run = trace_study.study(tmp_path / "few.parquet", Settings(), tmp_path / "results", size="smoke")
    chapter = checked(run, {})
    assert (chapter.rule, chapter.settings) == ("", {})
    text = plain(f"{chapter.headline} {chapter.text}")
    assert "too few accesses for an interval" in text
    assert "33.3%" in text and "33.3% to" not in text


def test_a_trace_that_does_not_say_says_why(looked):
    """Arrivals alone: no curve, no replay, nothing to copy, and the reason of each."""
    note = {"note": "it says when calls came, not what they asked"}
    summary = {**looked.summary, "kind": "arrivals", "cache": note, "replay": note}
    chapter = checked(msgspec.structs.replace(looked, summary=summary), {})
    assert chapter.settings == {}
    assert plain(chapter.text).count(note["note"]) == 2
