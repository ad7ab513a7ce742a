"""The study of pool limits: what is measured, and what is made of it."""

import asyncio
import json
import math

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import pooling
from memlab.measure import stats
from memlab.workload import spec
from tests.experiment import planted_pool
from tests.experiment.planted_pool import WOKEN_MS, answered, waited

WORKLOAD = {"mix": {"episodic.recall": 1}, "corpus": {"events": 100, "sessions": 2, "questions": 20}}


@pytest.fixture(scope="module")
def planted():
    return planted_pool.measured()


def test_the_law_of_what_was_planted_is_right_on_limits_it_was_not_fitted_on(planted):
    """By the median of the repeats."""
    compared = pooling.beside_measured(planted, planted.law())
    assert compared.filter(pl.col("fitted"))["limit"].to_list() == list(pooling.SEEN)
    assert compared["error"].max() < 1e-6
    assert pooling.surface(planted)["throughput_per_s"].to_list() == [92.0, 32.0, 12.0]


def test_what_a_lone_call_takes_is_told_from_what_waking_adds(planted):
    """In the flow of calls a millisecond, give or take a tenth; after any rest two more."""
    mean_s, work, woken_s = pooling.service(planted)
    assert mean_s == pytest.approx(0.001)
    assert work.to_list() == pytest.approx([0.9, 1.1] * 5)
    assert list(woken_s) == pytest.approx([0.001, 0.013])
    assert list(woken_s.values()) == pytest.approx([WOKEN_MS / 1e3] * 2)


def silenced(study, where):
    """The same without answers to lone calls in some lanes."""
    nothing = pl.when(where).then(pl.lit([], pl.List(pl.Float64))).otherwise("response_ms")
    return pooling.Measured(study.closed, study.waits, study.lone.with_columns(response_ms=nothing), study.surface)


def test_a_lane_without_an_answer_says_nothing_of_a_lone_call(planted):
    """One such repeat is left out; where there is no other, more time is asked for."""
    once = silenced(planted, (pl.col("repeat") == 0) & (pl.col("rest_s") == 0))
    assert len(pooling.service(once)[1]) == 8
    with pytest.raises(MemlabError, match="give more duration_s"):
        pooling.service(silenced(planted, pl.lit(True)))


def test_a_lane_without_an_answer_has_no_throughput(planted):
    """No answer is made up for it: the limit is named, and more time asked for."""
    planted.refuse_silence()
    nothing = pl.when((pl.col("limit") == 6) & (pl.col("repeat") == 1)).then(0.0).otherwise("throughput_per_s")
    closed = planted.closed.with_columns(throughput_per_s=nothing)
    with pytest.raises(MemlabError, match="limit 6; give more duration_s"):
        pooling.Measured(closed, planted.waits, planted.lone, planted.surface).refuse_silence()


def test_what_a_lane_answered_is_counted():
    """Two of three calls in a tenth of a second; of none neither a rate above zero nor a mean."""

    class Bench:
        async def closed_loop(self, name, *given):
            outcomes = ["ok", "ok", "timeout"] if name == "3" else ["timeout"]
            return pl.DataFrame({"outcome": outcomes, "response_ms": [2.0, 4.0, 9.0][: len(outcomes)]})

    turns = pooling._Turns(spec.workload(WORKLOAD), {}, (1, 2, 3), (1,), 1, 0.1, ((1, 1),), 1)
    told = asyncio.run(turns._rate(Bench(), "3", 0))
    assert (told["throughput_per_s"], told["mean_ms"]) == (pytest.approx(20.0), 3.0)
    none = asyncio.run(turns._rate(Bench(), "1", 0))
    assert none == {"repeat": 0, "throughput_per_s": 0.0, "mean_ms": None, "response_ms": []}


def test_the_errors_say_what_a_wait_is_made_of(planted):
    """Whoever knows of waking is right, for the mean and for p95; without it light traffic is far off."""
    told = pooling.waits(planted, planted.law())
    assert told["fitted"].to_list() == [False] * 4
    assert told["error"].max() < 0.1 and told["error_p95"].max() < 0.15
    assert told["error_measured"].max() < 0.1
    assert told.filter(pl.col("share") == 0.3)["error_arrivals"].min() > 0.3


def test_percentiles_are_those_of_all_calls_together(planted):
    """One repeat ten times as slow owns the tail: its calls are a fifth, and the median of five p95 would not know of them."""
    slow = pl.when(pl.col("repeat") == 2).then(10.0).otherwise(1.0)
    lane = planted.waits.filter((pl.col("limit") == 3) & (pl.col("share") == 0.3))
    lane = lane.explode("due_s", "response_ms").with_columns(pl.col("response_ms") * slow)
    waits = lane.group_by("limit", "share", "rate_per_s", "repeat", "mean_ms", maintain_order=True).all()
    (told,) = pooling.waits(pooling.Measured(planted.closed, waits, planted.lone, planted.surface), planted.law()).to_dicts()
    pooled = stats.percentile(lane["response_ms"], 0.95)
    assert (told["p95_ms"], told["p95_low_ms"], told["p95_high_ms"]) == (pooled.value, pooled.low, pooled.high)
    assert told["p95_ms"] > 3 * lane.filter(pl.col("repeat") != 2)["response_ms"].quantile(0.95)


def test_a_rate_that_the_law_cannot_keep_up_with_has_no_stationary_wait(planted):
    """The play has one: a lane ends."""
    waits = pl.DataFrame([waited(3, 1.5, repeat, {}) for repeat in range(5)])
    told = pooling.waits(pooling.Measured(planted.closed, waits, planted.lone, planted.surface), planted.law())
    assert told["error_chain"].to_list() == [None]
    assert told["error"].to_list() == [pytest.approx(0.0, abs=0.1)]


def test_the_race_compares_inside_of_repeats(planted):
    """The adaptive limit answers as eight do: the ratio to the best is that of the law, its interval has no width."""
    raced = pooling.race(planted, planted.law())
    assert raced["best"] == max(pooling.LIMITS, key=answered)
    assert raced["adaptive_over_best"].value == pytest.approx(answered(8) / answered(raced["best"]))
    assert raced["recommended"] <= raced["best"]
    assert raced["limits"] == [7, 8, 9, 10, 11]


def test_the_summary_says_all_that_a_document_shows(planted):
    """Errors on unseen limits alone, intervals over repeats, and of the surface what more threads bring."""
    traffic = spec.workload(WORKLOAD)
    summary = pooling._summarise(planted, pooling.SEEN, 4, size="quick", repeats=5, traffic=traffic)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["finding"] and summary["kept"]
    assert summary["error"]["median"] < 1e-6
    assert set(summary["wait_error"]) == {*pooling.STEPS, "model", "p95", "worst", "unanswered"}
    assert (summary["race"]["lowest"], summary["race"]["highest"]) == (7, 11)
    assert summary["limits"]["6"]["p95_ms"] | {"low": 0, "high": 0} == {"value": 4.0, "low": 0, "high": 0, "n": 210, "note": None}
    corner = summary["surface"]["corners"]["2 1 4"]
    assert summary["surface"]["best"] == "2 1 4"
    assert corner["verdict"] == "better" and corner["over_plain"]["value"] == pytest.approx(92 / 32)
    assert summary["surface"]["corners"]["1 1 4"]["over_plain"] is None
    assert summary["over_reference"]["best"]["verdict"] == "better"
    assert math.isclose(summary["limits"]["6"]["throughput_per_s"]["value"], answered(6) * 1.002)


@pytest.mark.serial
def test_the_engine_is_measured_for_real(tmp_path):
    """Every limit and the adaptive one, the waits, lone calls, and every corner of the surface; kept where it is asked for."""
    made = pooling.measure_point(
        {},
        workload=WORKLOAD,
        repeats=1,
        duration_s=0.1,
        limits=(1, 2, 3, 4),
        seen=(1, 2, 4),
        threads=((1, 1), (1, 2)),
        out=tmp_path,
    )
    measured = made.measured
    assert sorted(measured.closed["limit"]) == [0, 1, 2, 3, 4], "the reference's limit joins"
    counted = measured.closed["throughput_per_s"] * 0.1
    assert (counted >= 1).all() and (counted - counted.round()).abs().max() < 1e-9, "whole answers of a lane"
    assert set(measured.waits["limit"]) == {1, 3}
    assert len(measured.waits) == 2 * len(pooling.SHARES)
    assert sorted(measured.lone["rest_s"]) == [0.0, *pooling.RESTS_S]
    assert len(measured.surface) == 6
    assert not made.summary["finding"]
    assert json.loads((tmp_path / "summary.json").read_text()) == made.summary
    assert len(list(tmp_path.glob("pool-*.parquet"))) == 4


@pytest.mark.parametrize("given", [{"repeats": 0}, {"duration_s": 0.0}, {"limits": (1, 2)}, {"threads": ()}, {"waited": (7,)}])
def test_too_little_is_refused(given):
    """A study of nothing is no study."""
    with pytest.raises(MemlabError, match="are the least"):
        pooling.measure(WORKLOAD, **given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"limits": (1, 2, 3), "seen": (1, 2, 3, 4)}, "held against the others"),
        ({"limits": (1, 2, 3), "seen": (1, 2, 9)}, "held against the others"),
        ({"limits": (1, 2, 3), "seen": (1, 2)}, "three or more of the limits"),
        ({"point": {"reference": {"pool": None}}}, "reference.pool"),
    ],
)
def test_a_law_without_anything_to_be_held_against_is_refused(given, told):
    """Before anything is measured."""
    with pytest.raises(MemlabError, match=told):
        pooling.measure_point(given.pop("point", {}), workload=WORKLOAD, **given)
