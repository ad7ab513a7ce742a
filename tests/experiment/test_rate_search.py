"""The search for the highest rate: against planted truths, and against a queue whose capacity is known, in virtual time."""

import asyncio
import math

import numpy as np
import polars as pl
import pytest

from memlab.experiment import rate_trial
from memlab.experiment.load import Lane, drive
from memlab.experiment.rate_search import RateSearch, Trial, search
from memlab.experiment.rate_trial import judged
from memlab.measure.clock import ManualClock
from memlab.measure.recorder import Recorder
from memlab.values import Response
from memlab.workload import arrivals
from tests.experiment.test_load import READ, Counted


def found(truth, *, slope=0.03, wrong=0.0, seed=1, **options):
    """Search where trials pass with a chance that falls at *truth*; a share of them is wrong for no reason."""
    chance = np.random.default_rng(seed)
    seeker = RateSearch(1.0, 50_000.0, start=50.0, **options)

    async def ask(rate):
        passes = chance.random() < 1 / (1 + math.exp(math.log(rate / truth) / slope))
        return Trial(rate_per_s=rate, passed=bool(passes != (chance.random() < wrong)))

    asyncio.run(search(ask, seeker))
    return seeker


@pytest.mark.parametrize("truth", [3.0, 47.0, 830.0, 20_000.0])
def test_a_planted_rate_is_found(truth):
    """The interval is as narrow as was asked, and holds the planted rate or ends beside it."""
    seeker = found(truth, slope=0.01, tolerance=0.15)
    rate = seeker.estimate()
    assert seeker.is_sure
    assert rate.high - rate.low <= 0.15 * rate.value
    assert rate.low <= truth <= rate.high


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Over a hundred searches, one trial in fifty wrong for no reason: at least nine intervals of ten hold it."""
    held = 0
    for seed in range(100):
        rate = found(830.0, wrong=0.02, seed=seed, most=60).estimate()
        held += rate.low <= 830.0 <= rate.high
    assert held >= 90


def test_noise_makes_it_ask_more():
    """Trials that turn slowly from passing to failing say less each."""
    sharp = np.mean([len(found(830.0, slope=0.01, seed=seed, most=200).trials) for seed in range(10)])
    blunt = np.mean([len(found(830.0, slope=0.2, seed=seed, most=200).trials) for seed in range(10)])
    assert blunt > 1.5 * sharp


@pytest.mark.parametrize(("passes", "said"), [(True, "up to 800/s passed"), (False, "down to 10/s failed")])
def test_a_rate_beyond_the_range_is_not_made_up(passes, said):
    """Where all trials pass, or all fail, there is no rate to be told, only how far was looked."""
    seeker = RateSearch(10.0, 800.0, start=100.0)

    async def ask(rate):
        return Trial(rate_per_s=rate, passed=passes)

    asyncio.run(search(ask, seeker))
    rate = seeker.estimate()
    assert rate.value is None
    assert said in rate.note
    assert not seeker.is_sure


def test_a_stop_ends_the_search_without_the_last_trial():
    """The trial that was cut short is no answer."""
    seeker, asked = RateSearch(1.0, 1_000.0, start=10.0), []

    async def ask(rate):
        asked.append(rate)
        return Trial(rate_per_s=rate, passed=True)

    asyncio.run(search(ask, seeker, lambda: len(asked) >= 3))
    assert [trial.rate_per_s for trial in seeker.trials] == [10.0, 20.0]


def test_the_capacity_of_a_known_queue_is_found(run_virtually):
    """One server, exponential service of 1 ms, Poisson arrivals: p99 is ln(100) / (1000 - rate) (Kleinrock 1975, 3.2).

    For 30 ms that is a rate of 846.5 a second; the search drives the real driver against the queue and its interval holds it.
    """
    truth = 1_000 - math.log(100) / 0.030
    clock, chance = ManualClock(), np.random.default_rng(5)
    seeker = RateSearch(1.0, 100_000.0, start=400.0, most=14)
    asked = iter(range(1_000))

    async def work():
        server = asyncio.Lock()

        async def queue(operation, parameters=None, *, session, deadline_s=None):
            async with server:
                await asyncio.sleep(chance.exponential(0.001))
            return Response(None)

        async def ask(rate):
            recorder = Recorder()
            due = arrivals.poisson(rate, 3.0, next(asked))
            lane = Lane([READ], due, warm_up_s=0.5, duration_s=2.5, deadline_s=1.0)
            await drive(queue, lane, Counted(), clock=clock, sink=lambda one: recorder.add(one.sample))
            return judged(recorder.to_polars(), rate, p99_ms=30.0)

        await search(ask, seeker)

    run_virtually(work(), clock)
    rate = seeker.estimate()
    assert rate.low <= truth <= rate.high
    assert rate.value == pytest.approx(truth, rel=0.1)
    assert {trial.passed for trial in seeker.trials} == {True, False}


def test_a_point_keeps_every_call_of_every_trial(tmp_path):
    """Samples by trial, a summary with the interval, checked afterwards; a smoke run makes no finding."""
    workload = {
        "corpus": {"events": 160, "sessions": 4, "questions": 40},
        "mix": {"episodic.recall": 0.8, "episodic.remember": 0.2},
        "arrivals": {"kind": "poisson", "rate_per_s": 200},
        "duration_s": 0.1,
    }
    measured = rate_trial.measure_point({}, workload=workload, out=tmp_path, p99_ms=500.0, trials=2)
    assert len(measured.summary["trials"]) == 2
    assert sorted(set(measured.samples["repeat"])) == [0, 1]
    assert measured.samples.filter(~pl.col("warm_up"))["intended_ns"].min() >= 0
    assert measured.summary["checks"]["holds"] is True
    assert measured.summary["finding"] is False
    assert {path.name for path in tmp_path.iterdir()} == {"samples.parquet", "summary.json"}
