"""What is made of groups and lanes: a model of what was planted is right, and each figure is what it says."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import batching_summary as summary
from memlab.experiment.batching import SIZES
from memlab.measure import stats
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


def test_percentiles_are_those_of_all_calls_together():
    """Five times as slow in one repeat of six: its calls own the tail, measured and predicted; a median of six would not know."""
    measured = planted(rates=(100,), paces=(1.0, 1.0, 5.0, 1.0, 1.0, 1.0))
    compared = summary.beside_measured(measured)
    for row in compared.to_dicts():
        pooled = measured.calls.filter(pl.col("rule") == row["rule"])
        by_repeat = pooled.group_by("repeat").agg(pl.col("response_ms").quantile(0.95))
        told = stats.percentile(pooled["response_ms"], 0.95)
        assert (row["p95_ms"], row["p95_low_ms"], row["p95_high_ms"]) == (told.value, told.low, told.high)
        assert row["p95_ms"] > 1.1 * by_repeat["response_ms"].median()
    assert compared["error_p95"].max() < 0.25


def test_groups_that_outgrow_those_measured_are_not_predicted():
    """Where no repeat saw more than four together, larger ones would be guesses; calls alone are told."""
    measured = planted()
    small = dataclasses.replace(measured, groups=measured.groups.filter(pl.col("size") <= 4))
    compared = summary.beside_measured(small)
    outgrown = compared.filter(pl.col("mean_group") > 4)
    assert len(outgrown) and outgrown["predicted_p95_ms"].null_count() == outgrown["error_p95"].null_count() == len(outgrown)
    assert compared.filter(pl.col("rule") == summary.NONE)["predicted_p95_ms"].null_count() == 0
    found = summary.summarise(small, compared, size="quick", memories=10)
    assert found["asked"]["fixed"]["untold_from"] is not None
    once = measured.groups.filter((pl.col("size") <= 4) | (pl.col("repeat") == 0))
    compared = summary.beside_measured(dataclasses.replace(measured, groups=once))
    assert compared["predicted_p95_ms"].null_count() == 0, "the repeat that saw large groups speaks"


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
    """Six of ninety calls make one figure, and halves of three; of twenty none."""
    compared = summary.beside_measured(planted(rates=(100,), calls=90))
    assert compared["p95_ms"].null_count() == 0 and compared["spread_p95"].null_count() == 0
    compared = summary.beside_measured(planted(rates=(100,), calls=20))
    assert compared["p95_ms"].null_count() == len(compared)
    assert compared["p50_ms"].null_count() == 0


def test_the_race_is_between_the_best_of_each():
    """By rate; the ratio divides to the two figures beside it, and a lane that keeps the objective is told by its p95."""
    measured = planted()
    compared = summary.beside_measured(measured)
    raced = summary.race(measured, compared)
    assert [one["rate_per_s"] for one in raced] == [100, 400]
    p95 = {(row["rule"], row["rate_per_s"]): row["p95_ms"] for row in compared.to_dicts()}
    for one in raced:
        assert one["aimd"]["rule"] == AIMD
        assert one["fixed"]["p95_ms"] == p95["fixed, 4 ms, 64", one["rate_per_s"]]
        assert (one["fixed"]["chosen"], one["fixed"]["repeats"]) == (6, 6)
        assert one["aimd"]["keeps"] == (one["aimd"]["p95_ms"] <= 15.0)
        for name, kind in (("ratio", "aimd"), ("ratio_adaptive", "adaptive")):
            assert one[name]["value"] == pytest.approx(one[kind]["p95_ms"] / one["fixed"]["p95_ms"])
            assert one[name]["low"] <= one[name]["value"] <= one[name]["high"]
        assert one["keeping"]["rule"] == "fixed, 4 ms, 64"
        saved = [1 - one[kind]["calls_saved"] for kind in ("aimd", "keeping")]
        assert one["ratio_calls"]["value"] == pytest.approx(saved[0] / saved[1])
    without = compared.filter(~pl.col("rule").str.starts_with("fixed"))
    assert summary.race(measured, without) == []
    strict = summary.race(dataclasses.replace(measured, objective_ms=0.1), compared)
    assert all(one["keeping"] is None and one["ratio_calls"] is None for one in strict)


def test_no_rule_is_judged_by_the_calls_that_chose_it():
    """Of two windows that differ by luck alone, each repeat is given the one with the lower p95 in the five others."""
    times = np.random.default_rng(5).lognormal(2.0, 0.5, (2, 6, 300))
    rows = [
        pl.DataFrame({"response_ms": times[which, repeat], "batch_size": 2}).with_columns(repeat=repeat, rule=pl.lit(name))
        for which, name in enumerate(("fixed, 1 ms, 64", "fixed, 4 ms, 64"))
        for repeat in range(6)
    ]
    calls = {
        str(name): {int(repeat): lane for (repeat,), lane in part.group_by(["repeat"])}
        for (name,), part in pl.concat(rows).group_by(["rule"], maintain_order=True)
    }
    chosen = summary._chosen(calls, range(6), summary._p95)
    for repeat, name in enumerate(chosen.names):
        others = {
            rule: np.concatenate([lanes[one]["response_ms"] for one in range(6) if one != repeat])
            for rule, lanes in calls.items()
        }
        assert name == min(others, key=lambda rule: stats.percentile(others[rule], 0.95).value)
        assert chosen.calls[repeat].equals(calls[name][repeat])


def test_repeats_are_paired_by_their_number():
    """The reference missed the first of six: the other five are compared with their own like, which were as slow."""
    paces = (1.0, 1.0, 5.0, 1.0, 1.0, 9.0)
    lane = {
        repeat: pl.DataFrame({"response_ms": pace * np.linspace(1, 2, 80), "batch_size": 1}) for repeat, pace in enumerate(paces)
    }
    missed = {repeat: one for repeat, one in lane.items() if repeat}
    assert summary._ratio(missed, lane, 0.95) | {"note": None} == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 5, "note": None}


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
    assert found["untold_from"] is None


def test_nothing_is_said_from_where_groups_outgrow_those_measured():
    """Groups of four were measured, and a model of those alone: what is asked of more is left open; a model of 64 answers."""
    small, large = (
        BatchModel(ServiceTime(0.01, 0.0001, {most: np.zeros(1)}), checked=Checked((10, 3_000), (0, 0), (1, 64)))
        for most in (4, 64)
    )
    found = summary.asked_for([small], Rule(0.0, 64))
    assert found["calls_saved_from"] is None and 10 < found["untold_from"] < 3_000
    assert summary.asked_for([small, large], Rule(0.0, 64)) == summary.asked_for([large], Rule(0.0, 64))


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
