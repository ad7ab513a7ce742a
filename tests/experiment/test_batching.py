"""The study of batch windows: what is measured, and what is made of it."""

import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import batching
from memlab.predict.group_commit import BatchModel, Checked, Rule, ServiceTime, simulate

RULES = {batching.NONE: Rule(0.0, 1, in_flight=4), "adaptive": Rule(0.0, 64, in_flight=4), "fixed": Rule(4.0, 64, False, 4)}


def took(size):
    return 0.002 + 0.0002 * size


def planted(rates=(100, 400), repeats=3):
    """Calls of a lane that does exactly what the model supposes."""
    calls = []
    for rate in rates:
        for name, rule in RULES.items():
            for repeat in range(repeats):
                at_s = np.sort(np.random.default_rng([rate, repeat]).random(250)) * 250 / rate
                found = simulate(at_s, rule, lambda size, rested: took(size), processors=1.5)
                columns = {"due_s": at_s, "response_ms": found.response_s * 1e3, "batch_size": found.group_size}
                place = {
                    "rule": pl.lit(name),
                    "rate_per_s": pl.lit(float(rate)),
                    "repeat": pl.lit(repeat),
                    "outcome": pl.lit("ok"),
                }
                calls.append(pl.DataFrame(columns).with_columns(**place, law=pl.lit(1.0)))
    sizes = np.repeat(batching.SIZES, 4)
    groups = pl.DataFrame(
        {"size": np.tile(sizes, 2), "ms": np.tile(took(sizes) * 1e3, 2), "rested": np.repeat([False, True], 16)}
    )
    return batching.Measured(groups, 1.5, pl.concat(calls), RULES)


def test_a_model_of_what_was_planted_is_right():
    """No error but that of interpolation; the model answers in the measured range alone."""
    measured = planted()
    model = measured.model()
    assert model.processors == 1.5
    assert model.checked == Checked((100, 400), (0.0, 4.0), (1, 64))
    compared = batching.beside_measured(measured, model)
    assert len(compared) == 6
    assert compared["error_p50"].max() < 0.05 and compared["error_p95"].max() < 0.05
    assert (compared["mean_group"] - compared["predicted_mean_group"]).abs().max() < 1e-6
    with pytest.raises(MemlabError, match="checked from"):
        model.predict(RULES["adaptive"], np.arange(500) / 5_000)


def test_the_race_is_between_the_best_of_each():
    """By rate; lanes too short for a p95 do not run."""
    rows = [
        (rule, rate, p95)
        for rate, times in ((10.0, (9.0, 4.0, 2.0, 5.0)), (20.0, (9.0, 4.0, 8.0, None)))
        for rule, p95 in zip(("none", "adaptive, a", "fixed, b", "fixed, c"), times, strict=True)
    ]
    raced = batching.race(pl.DataFrame(rows, schema=["rule", "rate_per_s", "p95_ms"], orient="row"))
    assert raced["ratio"].to_list() == [2.0, 0.5]
    assert raced["fixed"].to_list() == ["fixed, b", "fixed, b"]


def test_what_was_asked_for_is_found_where_it_holds():
    """By hand: 10 ms a group and 0.1 ms a call make 64 calls 39 times as fast; half of that a call makes less than twice."""
    quick = BatchModel(ServiceTime(0.01, 0.0001, {64: np.zeros(1)}), checked=Checked((10, 3_000), (0, 0), (1, 64)))
    found = batching.asked_for(quick, Rule(0.0, 64))
    assert found["speed_up"] == pytest.approx(64 * 0.0101 / 0.0164)
    assert found["speed_up_holds"] and found["only_delays_below"] is None
    assert found["calls_saved_from"] > 1 > found["latency_cut_from"]
    slow = BatchModel(ServiceTime(0.005, 0.005, {64: np.zeros(1)}), checked=Checked((10, 150), (0, 8), (1, 64)))
    found = batching.asked_for(slow, Rule(8.0, 64, adaptive=False))
    assert not found["speed_up_holds"] and found["calls_saved_from"] is None
    assert found["only_delays_below"] > 0.3


@pytest.mark.serial
@pytest.mark.parametrize("operation", ["episodic.recall", "episodic.remember"])
def test_the_engine_is_measured_for_real(operation):
    """Groups of every size, every lane that can keep up, nothing failed, and nobody travels in more company than allowed."""
    measured = batching.measure(operation, shares=(0.2,), rules=RULES, memories=200, repeats=1, duration_s=0.1, whole=False)
    assert set(measured.groups["size"]) == set(batching.SIZES)
    assert set(measured.calls["rule"]) == set(RULES)
    assert set(measured.calls["outcome"]) == {"ok"}
    assert measured.calls.filter(pl.col("rule") == batching.NONE)["batch_size"].max() == 1
    compared = batching.beside_measured(measured, measured.model())
    assert compared["p95_ms"].null_count() == len(compared), "too few samples for a p95"


@pytest.mark.parametrize("given", [{"repeats": 0}, {"memories": 3}, {"duration_s": 0.0}, {"shares": ()}, {"rules": {}}])
def test_too_little_is_refused(given):
    """A study of nothing is no study."""
    with pytest.raises(MemlabError, match="are the least"):
        batching.measure(**given)
