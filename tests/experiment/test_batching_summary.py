"""What is made of groups and lanes: a model of what was planted is right, and each figure is what it says."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import batching_summary as summary
from memlab.experiment.batching import SIZES
from memlab.predict.group_commit import BatchModel, Checked, Rule, ServiceTime, simulate

AIMD = "AIMD, up to 16 ms, 64"
RULES = {
    summary.NONE: Rule(0.0, 1, in_flight=4),
    "adaptive, 0 ms, 64": Rule(0.0, 64, in_flight=4),
    "fixed, 4 ms, 64": Rule(4.0, 64, False, 4),
    AIMD: Rule(16.0, 64, False, 4, objective_ms=15.0),
}


def took(size, pace=1.0):
    return pace * (0.002 + 0.0002 * size)


def planted(rates=(100, 400), paces=(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), calls=250):
    """Lanes that do exactly what the model supposes; the host has another pace in every repeat."""
    lanes, groups = [], []
    for repeat, pace in enumerate(paces):
        for rate in rates:
            for name, rule in RULES.items():
                at_s = np.sort(np.random.default_rng([rate, repeat]).random(calls)) * calls / rate
                # The window has followed its objective through a lane like this one before.
                twice = np.concatenate([at_s, at_s + calls / rate])
                found = simulate(twice, rule, lambda size, idle_s, pace=pace: took(size, pace), processors=1.5)
                place = {"rule": pl.lit(name), "share": pl.lit(rate / 454), "rate_per_s": pl.lit(float(rate))}
                columns = {"due_s": at_s, "response_ms": found.response_s[calls:] * 1e3, "batch_size": found.group_size[calls:]}
                lane = pl.DataFrame(columns).with_columns(**place, repeat=repeat, outcome=pl.lit("ok"), law=pl.lit(1.0))
                lanes.append(lane.with_columns(warm_up=pl.lit(False)))
        sizes = np.repeat(SIZES, 4)
        ms = took(sizes, pace) * 1e3
        groups += [pl.DataFrame({"size": sizes, "ms": ms}).with_columns(repeat=repeat, pause_ms=pause) for pause in (0.0, 12.0)]
    alone = pl.DataFrame({"repeat": range(len(paces)), "one": [100] * len(paces), "many": [150] * len(paces)})
    return summary.Measured("episodic.recall", pl.concat(groups), alone, pl.concat(lanes), RULES, 15.0)


def test_a_model_of_what_was_planted_is_right():
    """No error but that of interpolation; the model answers in the measured range alone."""
    measured = planted()
    model = measured.models()[0]
    assert model.processors == 1.5
    assert model.checked == Checked((100, 400), (0.0, 16.0), (1, 64))
    compared = summary.beside_measured(measured)
    assert len(compared) == 8
    assert compared["error_p50"].max() < 0.05 and compared["error_p95"].max() < 0.1
    assert compared["spread_p95"].max() < 0.3, "repeats differ by their arrivals alone"
    assert (compared["mean_group"] - compared["predicted_mean_group"]).abs().max() < 0.2
    assert (compared["calls_saved"] - compared["predicted_calls_saved"]).abs().max() < 0.02
    with pytest.raises(MemlabError, match="checked from"):
        model.predict(RULES["adaptive, 0 ms, 64"], np.arange(500) / 5_000)


def test_a_host_that_stalls_in_one_repeat_moves_no_median():
    """Five times as slow in one of six: pooled it would own the tail; here it is one voice, measured and predicted."""
    compared = summary.beside_measured(planted(rates=(100,), paces=(1.0, 1.0, 5.0, 1.0, 1.0, 1.0)))
    assert compared["error_p95"].max() < 0.15


def test_a_stall_in_the_counts_or_in_a_lone_group_is_not_believed():
    """One client counted in a stall would make ten groups run side by side; one full group of four in a repeat says nothing."""
    measured = planted()
    alone = measured.alone.with_columns(one=pl.when(pl.col("repeat") == 2).then(15).otherwise("one"))
    odd = (pl.col("repeat") == 1) & (pl.col("size") == 4)
    first = pl.int_range(pl.len()).over("repeat", "pause_ms", "size") == 0
    groups = measured.groups.filter(~odd | first).with_columns(ms=pl.when(odd).then(100.0).otherwise("ms"))
    models = dataclasses.replace(measured, alone=alone, groups=groups).models()
    assert {model.processors for model in models} == {1.5}
    assert max(model.service.of(4) for model in models) == pytest.approx(took(4))


def test_groups_that_no_repeat_saw_enough_of_are_taken_together():
    """Two of each size in six repeats: one model of all."""
    measured = planted()
    groups = measured.groups.filter(pl.int_range(pl.len()).over("repeat", "pause_ms", "size") < 2)
    (model,) = dataclasses.replace(measured, groups=groups).models()
    assert model.service.of(16) == pytest.approx(took(16))


def test_warm_up_is_played_and_not_counted():
    """Calls before a window has settled enter the simulation, and no figure."""
    measured = planted(rates=(400,))
    slow = pl.when(pl.int_range(pl.len()).over("rule", "repeat") < 50)
    calls = measured.calls.with_columns(
        warm_up=pl.int_range(pl.len()).over("rule", "repeat") < 50,
        response_ms=slow.then(1e4).otherwise("response_ms"),
    )
    compared = summary.beside_measured(dataclasses.replace(measured, calls=calls))
    assert set(compared["samples"]) == {6 * 200}
    assert compared["error_p95"].max() < 0.1


def test_repeats_too_short_for_a_p95_are_taken_together():
    """Six of ninety calls make two figures of three each; of twenty none."""
    compared = summary.beside_measured(planted(rates=(100,), calls=90))
    assert compared["p95_ms"].null_count() == 0 and compared["spread_p95"].null_count() == 0
    compared = summary.beside_measured(planted(rates=(100,), calls=20))
    assert compared["p95_ms"].null_count() == len(compared)
    assert compared["p50_ms"].null_count() == 0


def test_the_race_is_between_the_best_of_each():
    """By rate, with the ratio over repeats; a lane that keeps the objective is told by its p95."""
    measured = planted()
    compared = summary.beside_measured(measured)
    raced = summary.race(measured, compared)
    assert [one["rate_per_s"] for one in raced] == [100, 400]
    p95 = {(row["rule"], row["rate_per_s"]): row["p95_ms"] for row in compared.to_dicts()}
    for one in raced:
        assert one["aimd"]["rule"] == AIMD
        assert one["fixed"]["p95_ms"] == p95["fixed, 4 ms, 64", one["rate_per_s"]]
        assert one["aimd"]["keeps"] == (one["aimd"]["p95_ms"] <= 15.0)
        assert one["ratio"]["value"] == pytest.approx(one["aimd"]["p95_ms"] / one["fixed"]["p95_ms"], rel=0.15)
        assert one["ratio"]["low"] <= one["ratio"]["value"] <= one["ratio"]["high"]
        assert one["keeping"]["rule"] == "fixed, 4 ms, 64"
    without = compared.filter(~pl.col("rule").str.starts_with("fixed"))
    assert summary.race(measured, without) == []


def test_what_was_asked_for_is_found_where_it_holds():
    """By hand: 10 ms a group and 0.1 ms a call save calls and time; half of each a call can only delay."""
    quick = BatchModel(ServiceTime(0.01, 0.0001, {64: np.zeros(1)}), checked=Checked((10, 3_000), (0, 0), (1, 64)))
    found = summary.asked_for([quick], Rule(0.0, 64))
    assert found["alone_per_s"] == pytest.approx(1 / 0.0101)
    assert found["only_delays_below"] is None
    assert found["calls_saved_from"] > found["alone_per_s"] > found["latency_cut_from"]
    slow = BatchModel(ServiceTime(0.005, 0.005, {64: np.zeros(1)}), checked=Checked((10, 150), (0, 8), (1, 64)))
    found = summary.asked_for([slow], Rule(8.0, 64, adaptive=False))
    assert found["calls_saved_from"] is None
    assert found["only_delays_below"] > 30


def test_a_promise_stands_beside_the_nearest_measured_rate():
    """At 100/s a fixed window only adds delay; without batching 400/s is too much, and where it was not measured is no ratio."""
    measured = planted(rates=(100, 300))
    compared = summary.beside_measured(measured).filter((pl.col("rule") != summary.NONE) | (pl.col("rate_per_s") == 100))
    asked = {"calls_saved_from": 290.0, "latency_cut_from": None, "only_delays_below": 120.0}
    found = summary.promises(measured, compared, asked, "fixed, 4 ms, 64")
    slow, fast = found["rates"]
    assert slow["p50_over_none"]["value"] > 2 and slow["predicted_p50_over_none"] == pytest.approx(
        slow["p50_over_none"]["value"], rel=0.1
    )
    assert fast["p95_over_none"] is None
    assert found["nearest"]["calls_saved_from"] == {"rate_per_s": 300.0, "calls_saved": fast["calls_saved"]}
    assert found["nearest"]["only_delays_below"]["rate_per_s"] == 100.0
    assert found["nearest"]["latency_cut_from"] is None


def test_the_summary_holds_every_figure():
    """By hand: a group of 64 takes 14.8 ms for 64 times 2.2 ms; and no finding from a smoke run or few repeats."""
    measured = planted(paces=(1.0,) * 5)
    compared = summary.beside_measured(measured)
    found = summary.summarise(measured, compared, size="quick", memories=10)
    assert found["verdict"] == "better" and found["finding"]
    assert found["groups"]["64"]["speed_up"]["value"] == pytest.approx(64 * 2.2 / 14.8)
    assert found["groups"]["64"]["speed_up_at_once"]["value"] == pytest.approx(64 * 2.2 / 14.8 / 1.5)
    assert found["groups"]["64"]["batch_cut"]["value"] == pytest.approx(1 - 14.8 / 64 / 2.2)
    assert found["error"]["p95"]["lanes"] == 8
    assert found["asked"]["fixed"]["rule"] == "fixed, 4 ms, 64"
    assert summary.summarise(measured, compared, size="smoke", memories=10)["verdict"] == "smoke"
    few = planted(rates=(400,), paces=(1.0, 1.0))
    assert summary.summarise(few, summary.beside_measured(few), size="quick", memories=10)["verdict"] == "too few"
