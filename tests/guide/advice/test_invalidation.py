"""Up to which share of writes a cache pays, by runs whose truth is known."""

import msgspec
import numpy as np
import pytest

from memlab.guide.advice import invalidation
from memlab.guide.figures import Source, check, plain
from tests.guide.planted import run as planted


def point(rng, weight, ratio, *, sessions=4, cache=True, ttl_s=None, hit=(0.5, 0.45, 0.55), size="quick"):
    """A run with *weight* writes for a hundred reads."""
    candidate = {"cache.ttl_s": ttl_s} if cache else {"cache": None}
    workload = {"mix": {"episodic.recall": 100, "episodic.remember": weight}, "popularity": {"zipf": 1.0}}
    made = planted(rng, ratio=ratio, candidate=candidate, size=size, experiment="07-invalidation")
    made = msgspec.structs.replace(made, workload={**made.workload, **workload})
    interval = dict(zip(("value", "low", "high"), hit, strict=True))
    made.summary["writes"] = {
        "share": weight / (100 + weight),
        "reads_per_write": 100 / weight if weight else None,
        "sessions": sessions,
        "questions_per_session": 30.0,
    }
    made.summary["candidate"]["hit_ratio"] = interval if cache else None
    made.summary["predicted"] = {
        "hit_ratio": interval,
        "measured": hit[0] - 0.01,
        "error_points": 1.0 + weight / 100,
        "without_writes": interval,
        "accesses": 500,
        "shared": 3,
        "passed": 4,
    }
    if not cache:
        made.summary["predicted"] = None
    return made


def sweep(rng, *ratios, size="quick"):
    return [point(rng, weight, ratio, size=size) for weight, ratio in zip((0, 5, 18, 43), ratios, strict=True)]


def checked(runs):
    """A chapter in which every number has its run."""
    chapter = invalidation.chapter(runs)
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {run.id: Source(run.id, True) for run in runs})
    return chapter


def test_it_pays_up_to_where_the_first_point_is_not_better():
    """Three better, one not: the third is the limit, and the rule says what was measured."""
    rng = np.random.default_rng(1)
    runs = [*sweep(rng, 0.3, 0.4, 0.6, 1.0), point(rng, 5, 1.0, cache=False)]
    limit = invalidation.limit_of(runs)
    assert limit.verdict == "better"
    assert limit.last is runs[2]
    assert limit.first_not is runs[3]
    assert limit.worst_error().value == pytest.approx(1.43)
    rule = plain(checked(runs).rule)
    assert "at most 15%" in rule
    assert "at 30% it was not seen to pay" in rule
    assert "Seen for 0% to 30% writes, 4 sessions" in rule


def test_two_points_at_one_share_must_both_pay():
    """More sessions at the same share without a difference: the limit lies below."""
    rng = np.random.default_rng(2)
    runs = [point(rng, 0, 0.3), point(rng, 18, 0.5), point(rng, 18, 1.0, sessions=32)]
    assert invalidation.limit_of(runs).last is runs[0]
    assert "What more sessions change" in checked(runs).text
    assert "What more sessions change" not in checked(runs[:2]).text


def test_nothing_planted_is_no_difference():
    """Runs of equals recommend nothing and name no limit."""
    rng = np.random.default_rng(3)
    runs = sweep(rng, 1.0, 1.0, 1.0, 1.0)
    chapter = checked(runs)
    assert invalidation.limit_of(runs).verdict == "no difference seen"
    assert chapter.settings == {}
    assert "was not seen to pay" in plain(chapter.rule)


def test_a_cache_that_harms_alone_is_switched_off():
    """Slower at every share."""
    runs = sweep(np.random.default_rng(4), 2.0, 2.0, 2.0, 2.0)
    assert checked(runs).settings == {"cache": None}


def test_what_lies_within_the_noise_floor_is_no_difference():
    """The reference against itself came out at half: a ratio of 0.6 says nothing then."""
    rng = np.random.default_rng(5)
    runs = [*sweep(rng, 0.6, 0.6, 0.6, 0.6), point(rng, 5, 0.5, cache=False, ttl_s=None)]
    assert invalidation.limit_of(runs).verdict == "no difference seen"


def test_a_time_to_live_that_costs_hits_is_left_out():
    """Beside the same traffic without one; where the intervals meet, nothing is said."""
    rng = np.random.default_rng(6)
    runs = sweep(rng, 0.3, 0.3, 0.3, 0.3)
    costly, alike = (point(rng, 5, 0.3, ttl_s=0.1, hit=hit) for hit in ((0.3, 0.25, 0.35), (0.5, 0.4, 0.6)))
    assert checked([*runs, costly]).settings == {"cache.ttl_s": None}
    assert checked([*runs, alike]).settings == {}
    assert "the most that was measured" in plain(checked(runs).rule)


def test_a_smoke_run_recommends_nothing():
    """No rule, no settings, and the headline says why."""
    chapter = checked(sweep(np.random.default_rng(7), 0.3, 0.3, 0.3, 0.3, size="smoke"))
    assert chapter.rule == ""
    assert chapter.settings == {}
    assert chapter.headline.startswith("No finding")
