"""What came in time, counted by hand."""

import polars as pl
import pytest

from memlab.experiment.overload import in_time

SECOND = 1_000_000_000


def call(setting, repeat, took_s, outcome="ok", warm_up=False):
    intended = repeat * SECOND
    return {
        "setting": setting,
        "repeat": repeat,
        "warm_up": warm_up,
        "outcome": outcome,
        "intended_ns": intended,
        "finished_ns": intended + round(took_s * SECOND),
    }


def windows(repeats, seconds=2):
    return [
        {"setting": setting, "repeat": repeat, "start_ns": 0, "end_ns": seconds * SECOND}
        for setting in ("reference", "candidate")
        for repeat in range(repeats)
    ]


def test_every_call_ends_in_one_way():
    """In time, late, refused, dropped or an error: shares of the calls that were due, 1 together; warm-up counts not."""
    calls = [
        call("candidate", 0, 0.1),
        call("candidate", 0, 0.2),
        call("candidate", 0, 0.21),
        call("candidate", 0, 0.05, "refused"),
        call("candidate", 0, 0.2, "timeout"),
        call("candidate", 0, 0.0, "error"),
        call("candidate", 0, 0.0, warm_up=True),
        call("reference", 0, 0.1),
    ]
    found = in_time(pl.DataFrame(calls), windows(1), 0.2)
    side = found["candidate"]
    shares = {name: side[name] for name in ("in_time", "late", "refused", "dropped", "error")}
    assert shares == pytest.approx({"in_time": 1 / 3, "late": 1 / 6, "refused": 1 / 6, "dropped": 1 / 6, "error": 1 / 6})
    assert side["per_s"]["value"] == 1.0
    assert found["reference"]["in_time"] == 1.0
    assert found["ratio"]["value"] == 2.0


def test_repeats_make_the_interval():
    """Five repeats, twice as many in time each: the ratio is 2, with an interval that is that alone."""
    calls = [
        call(setting, repeat, 0.1)
        for setting, count in (("reference", 3), ("candidate", 6))
        for repeat in range(5)
        for _ in range(count)
    ]
    found = in_time(pl.DataFrame(calls), windows(5), 1.0)
    assert found["ratio"]["low"] == found["ratio"]["value"] == found["ratio"]["high"] == 2.0
    assert found["candidate"]["per_s"]["value"] == 3.0
