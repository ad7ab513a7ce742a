"""Figures of a comparison, by hand from a few samples."""

import json

import pytest

from memlab.experiment.load import DriverCost
from memlab.experiment.summary import Window, summarise
from memlab.measure.recorder import Recorder, Sample
from memlab.settings import Settings

SECOND = 1_000_000_000
MS = 1_000_000
COST = DriverCost(10.0, 100_000.0)
OFF = Settings.off().to_dict()
ON = Settings().to_dict()


def sample(setting, repeat, place, took_ms, **changes):
    due = repeat * 10 * SECOND + place * MS
    given = {"intended_ns": due, "started_ns": due, "finished_ns": due + round(took_ms * MS), "phases": {"fetch": MS}} | changes
    return Sample(operation=given.pop("operation", "episodic.recall"), session="s", setting=setting, repeat=repeat, **given)


def window(setting, repeat, in_flight=None):
    start = repeat * 10 * SECOND
    return Window(setting, repeat, start, start + SECOND, in_flight)


def frame(samples):
    recorder = Recorder()
    for one in samples:
        recorder.add(one)
    return recorder.to_polars()


def summary(samples, *, repeats=5, in_flight=None, size="quick", reference=OFF, candidate=OFF, cost=COST, **more):
    windows = [
        window(setting, repeat, (in_flight or {}).get(setting))
        for repeat in range(repeats)
        for setting in ("reference", "candidate")
    ]
    return summarise(
        frame(samples),
        windows,
        cost,
        settings={"reference": reference, "candidate": candidate},
        size=size,
        values={"cache": None},
        corpus={"name": "x"},
        embedder="hashing",
        asked={"calls": 1},
        **more,
    )


def both(make, repeats=5, count=40):
    """Samples of both settings: `make(setting, repeat, place)`."""
    return [
        make(name, repeat, place) for name in ("reference", "candidate") for repeat in range(repeats) for place in range(count)
    ]


def test_a_candidate_twice_as_fast():
    """4 ms against 2 ms: every time ratio is a half, answers come as fast as they are asked for."""
    made = summary(both(lambda name, repeat, place: sample(name, repeat, place, 4 if name == "reference" else 2)))
    assert made["ratio"]["p50"] == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 5, "note": None}
    assert made["ratio"]["mean"]["value"] == 0.5
    assert made["ratio"]["throughput"]["value"] == 1.0
    assert made["verdict"] == {"p50": "better", "p95": "better", "mean": "better", "throughput": "no difference seen"}
    assert made["candidate"]["mean_ms"]["value"] == 2.0
    assert made["candidate"]["throughput_per_s"]["value"] == 40.0
    assert made["reference"]["p95_ms"]["value"] == 4.0
    assert made["reference"]["p99_ms"]["value"] is None
    assert made["offered_per_s"] == 40.0
    assert made["finding"] is True
    assert made["by_repeat"][0] == {
        "repeat": 0,
        "p50_ratio": 0.5,
        "p95_ratio": None,
        "mean_ratio": 0.5,
        "throughput_ratio": 1.0,
    }
    json.dumps(made, allow_nan=False)


def test_warm_up_takes_no_part():
    """Slow samples of the warm-up change nothing."""
    plain = both(lambda name, repeat, place: sample(name, repeat, place, 2))
    cold = [sample("candidate", 0, 50 + place, 90, warm_up=True) for place in range(30)]
    assert summary([*plain, *cold])["candidate"]["mean_ms"] == summary(plain)["candidate"]["mean_ms"]


def test_failures_are_counted_and_not_timed():
    """A quarter refused: a failure ratio of a quarter, throughput and times of those that were answered."""
    made = summary(
        both(
            lambda name, repeat, place: sample(
                name,
                repeat,
                place,
                0.1 if place % 4 == 0 else 2,
                outcome="refused" if place % 4 == 0 else "ok",
                error="pool_full" if place % 4 == 0 else None,
            )
        )
    )
    told = made["candidate"]
    assert told["outcomes"] == {"ok": 150, "refused": 50}
    assert told["failure_ratio"]["value"] == 0.25
    assert told["mean_ms"]["value"] == 2.0
    assert told["throughput_per_s"]["value"] == 30.0


def test_answers_after_the_end_are_no_throughput():
    """What an overloaded engine answers when the measured time is over is not credited to it."""
    made = summary(
        both(lambda name, repeat, place: sample(name, repeat, place, 2_000 if name == "candidate" and place % 2 else 2))
    )
    assert made["candidate"]["throughput_per_s"]["value"] == 20.0
    assert made["ratio"]["throughput"]["value"] == 0.5


def test_hit_ratio_is_of_answered_reads_where_a_cache_is_on():
    """Half the reads cached, writes left out: 0.5; with the cache off there is no such figure."""

    def make(name, repeat, place):
        if place % 5 == 0:
            return sample(name, repeat, place, 2, operation="episodic.remember")
        hit = name == "candidate" and place % 5 < 3
        return sample(name, repeat, place, 2, cached=hit, phases=None if hit else {"fetch": MS})

    made = summary(both(make), candidate=ON)
    assert made["candidate"]["hit_ratio"]["value"] == 0.5
    assert made["reference"]["hit_ratio"] is None


def test_batch_sizes_are_of_batches():
    """Ten calls in one batch of ten and ten alone are 11 batches of 20 calls; cached calls are in none."""

    def make(name, repeat, place):
        if place >= 20:
            return sample(name, repeat, place, 1, cached=True, phases=None)
        return sample(name, repeat, place, 1, batch_size=10 if place < 10 else 1)

    made = summary(both(make), candidate=ON)
    assert made["candidate"]["mean_batch_size"]["value"] == pytest.approx(20 / 11)
    assert made["reference"]["mean_batch_size"] is None


def test_recall_is_the_mean_of_the_judged():
    """Calls that were not judged do not count; where none was, there is no figure."""
    made = summary(
        both(
            lambda name, repeat, place: sample(
                name, repeat, place, 1, recall_at_10=(0.9, 1.0, None)[place % 3] if name == "candidate" else None
            )
        )
    )
    assert made["candidate"]["recall_at_10"]["value"] == pytest.approx(0.95, abs=0.01)
    assert made["reference"]["recall_at_10"] is None


def test_phases_are_means_over_executed_calls():
    """A phase that only some calls have counts as nothing for the others; cached calls are left out."""

    def make(name, repeat, place):
        if place % 2:
            return sample(name, repeat, place, 1, cached=True, phases=None)
        return sample(name, repeat, place, 1, phases={"fetch": 2 * MS, "vector": MS} if place % 4 else {"fetch": 4 * MS})

    assert summary(both(make))["candidate"]["phases_ms"] == pytest.approx({"fetch": 3.0, "vector": 0.5})


def test_operations_stand_apart():
    """Reads and writes have figures of their own."""

    def make(name, repeat, place):
        if place % 4 == 0:
            return sample(name, repeat, place, 8, operation="episodic.remember")
        return sample(name, repeat, place, 2)

    made = summary(both(make))
    told = made["candidate"]["by_operation"]
    assert set(told) == {"episodic.recall", "episodic.remember"}
    assert told["episodic.remember"]["samples"] == 50
    assert told["episodic.remember"]["p50_ms"]["value"] == 8.0
    assert told["episodic.recall"]["mean_ms"]["value"] == 2.0


def test_littles_law_is_checked():
    """40 calls a second of 2 ms are 0.08 in flight; where a counter says 0.16, the run is suspect and makes no finding."""
    plain = both(lambda name, repeat, place: sample(name, repeat, place, 2))
    held = summary(plain, in_flight={"reference": 0.08, "candidate": 0.08})
    assert held["candidate"]["littles_law"]["holds"] is True
    assert held["suspect"] == []
    broken = summary(plain, in_flight={"reference": 0.08, "candidate": 0.16})
    assert broken["candidate"]["littles_law"]["holds"] is False
    assert broken["suspect"][0].startswith("candidate: 0.16 calls in flight")
    assert broken["finding"] is False
    assert summary(plain)["candidate"]["littles_law"]["holds"] is None


def test_a_slow_driver_makes_a_run_suspect():
    """A driver good for less than five times the rate is part of what it measures."""
    plain = both(lambda name, repeat, place: sample(name, repeat, place, 2))
    made = summary(plain, cost=DriverCost(6_000.0, 166.0))
    assert any("the driver" in reason for reason in made["suspect"])
    assert made["driver"]["headroom"] == pytest.approx(166 / 40)
    assert made["driver"]["share"] == pytest.approx(0.24)


def test_what_makes_no_finding():
    """A smoke run, four repeats, or too few samples: each is a reason, and said."""
    plain = both(lambda name, repeat, place: sample(name, repeat, place, 2))
    assert summary(plain, size="smoke")["why_not"] == ["a smoke run only proves that it runs"]
    four = summary(both(lambda name, repeat, place: sample(name, repeat, place, 2), repeats=4), repeats=4)
    assert four["why_not"] == ["4 repeats of 5"]
    few = summary(both(lambda name, repeat, place: sample(name, repeat, place, 2), count=3))
    assert "too few" in few["why_not"][0]
    assert few["verdict"]["p50"] == "too few"
    assert few["finding"] is False


def test_a_setting_that_answered_nothing_is_no_crash():
    """Every call of the candidate refused: no times, no ratio, all of it failures."""
    made = summary(
        both(
            lambda name, repeat, place: sample(
                name, repeat, place, 1, outcome="refused" if name == "candidate" else "ok", phases=None
            )
        ),
        candidate=ON,
    )
    assert made["candidate"]["p50_ms"]["value"] is None
    assert made["candidate"]["hit_ratio"]["value"] is None
    assert made["candidate"]["failure_ratio"]["value"] == 1.0
    assert made["verdict"]["p50"] == "too few"
    json.dumps(made, allow_nan=False)


def test_equal_settings_are_an_a_a_run():
    """The reference against itself is marked, so that its ratio can be the noise floor."""
    plain = both(lambda name, repeat, place: sample(name, repeat, place, 2))
    assert summary(plain)["null"] is True
    assert summary(plain, candidate=ON)["null"] is False


def test_a_closed_loop_stands_beside():
    """The closed loop's samples make figures of their own, of the same shapes."""
    plain = both(lambda name, repeat, place: sample(name, repeat, place, 2))
    windows = [window(name, repeat) for repeat in range(5) for name in ("reference", "candidate")]
    made = summary(plain, closed=frame(plain), closed_windows=windows, clients=7)
    assert made["closed"]["clients"] == 7
    assert made["closed"]["ratio"] == made["ratio"]
    assert set(made["closed"]["candidate"]) <= set(made["candidate"])
    assert len(made["closed_windows"]) == 10
    assert summary(plain)["closed"] is None


def test_figures_can_be_made_again_from_what_is_kept():
    """Samples and windows, kept beside each other, give the same summary again."""
    plain = both(lambda name, repeat, place: sample(name, repeat, place, 1 + place % 7))
    made = summary(plain)
    windows = [Window(**one) for one in made["windows"]]
    again = summarise(
        frame(plain),
        windows,
        COST,
        settings={"reference": OFF, "candidate": OFF},
        size="quick",
        values={"cache": None},
        corpus={"name": "x"},
        embedder="hashing",
        asked={"calls": 1},
    )
    assert again == made
