"""Two runs against each other: planted equals are no different, planted effects are found, and what cannot be known is said."""

import itertools
import math

import msgspec
import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import run_comparison
from memlab.experiment.results import Run
from memlab.experiment.run_comparison import (
    FIGURES,
    alike,
    as_text,
    compare_runs,
    gate,
    judge,
    mann_whitney,
    noise_floor,
    unpaired_ratio,
)
from memlab.measure.recorder import sample_schema, write_samples

SECOND = 1_000_000_000


@pytest.fixture
def plant(tmp_path):
    """`plant(name, effect=…)`: a kept run whose response times are *effect* times the usual ones."""

    def made(name, *, effect=1.0, seed=0, repeats=5, samples=300, host="one", differ=0.03, setting=None):
        chance = np.random.default_rng([seed, sum(map(ord, name))])
        frames, parts = [], []
        for repeat in range(repeats):
            took = np.exp(math.log(3 * effect) + chance.normal(0, differ) + chance.normal(0, 0.4, size=samples)) * 1e6
            due = repeat * SECOND + np.linspace(0, SECOND - 1, samples).astype(np.int64)
            rate = samples / effect * math.exp(chance.normal(0, differ))
            parts.append({"part": repeat, "throughput_per_s": rate})
            frames.append(
                pl.DataFrame(
                    {
                        "operation": ["episodic.recall"] * samples,
                        "session": ["s"] * samples,
                        "setting": ["candidate"] * samples,
                        "repeat": [repeat] * samples,
                        "warm_up": [False] * samples,
                        "intended_ns": due,
                        "started_ns": due,
                        "finished_ns": due + took.astype(np.int64),
                        "outcome": ["ok"] * samples,
                        "error": [None] * samples,
                        "cached": [False] * samples,
                        "batch_size": [1] * samples,
                        "recall_at_10": [None] * samples,
                        "phases": [{"fetch": 1}] * samples,
                    },
                    schema=sample_schema(),
                )
            )
        folder = tmp_path / "load" / name
        folder.mkdir(parents=True)
        run = Run(
            experiment="load",
            key=name,
            parameters={},
            settings={"candidate": setting or {}},
            seed=seed,
            repeats=repeats,
            size="quick",
            workload={},
            code_version="v",
            libraries={},
            host={"id": host, "cpu": f"cpu {host}", "cores": 2, "memory_gib": 8},
            started=f"2026-01-01T00:00:{len(list(tmp_path.iterdir())):02}",
            finished="2026-01-01T00:01:00",
            status="done",
            summary={"by_part": parts},
        )
        write_samples(pl.concat(frames), folder / "samples.parquet")
        (folder / "run.json").write_bytes(msgspec.json.encode(run.to_dict()))
        return run_comparison.find(tmp_path, f"load/{name}")

    return made


def test_planted_equals_are_no_different(plant):
    """Null data, ten pairs: never better or worse by more than chance allows, and mostly said to be no different."""
    verdicts = [
        compare_runs(plant(f"a{seed}", seed=seed, samples=200), plant(f"b{seed}", seed=seed, samples=200)).verdict
        for seed in range(10)
    ]
    assert verdicts.count("no difference") >= 8
    assert verdicts.count("worse") + verdicts.count("better") <= 1


@pytest.mark.parametrize(("effect", "verdict"), [(1.3, "worse"), (0.7, "better")])
def test_a_planted_effect_is_found(plant, effect, verdict):
    """Slower and faster are told, with a ratio whose interval holds what was planted."""
    compared = compare_runs(plant("first"), plant("second", effect=effect))
    assert compared.verdict == verdict
    times = {one.figure: one for one in compared.figures}
    assert times["p50_ms"].ratio.low <= effect <= times["p50_ms"].ratio.high
    assert times["throughput_per_s"].ratio.value == pytest.approx(1 / effect, rel=0.1)
    assert {one.verdict for one in compared.figures} == {verdict}
    assert all(one.p_value == pytest.approx(4 * 2 / 252) for one in compared.figures), "four figures share the risk"


class Numbers:
    """Four unlike figures of a run's repeats, as `judge` takes them."""

    def __init__(self, chance, *, spread, mood=0.0, effect=1.0, repeats=5):
        shifts = {name: chance.normal(0, mood) + math.log(effect) for name in FIGURES} if mood or effect != 1.0 else {}
        self._of = {name: np.exp(shifts.get(name, 0.0) + chance.normal(0, spread, repeats)) for name in FIGURES}

    def by_repeat(self, figure):
        return self._of[figure].tolist()

    def whole(self, figure):
        return float(np.mean(self._of[figure]))


def alarms(pairs, floors):
    """How many of the pairs are called different in any of their figures."""
    told = [{one.verdict for one in judge(*pair, floors=floor)} for pair, floor in zip(pairs, floors, strict=True)]
    return sum(bool(verdicts & {"worse", "better"}) for verdicts in told)


def allowed(families):
    """Five of a hundred, and what chance adds to that in one test of twenty."""
    return families * 0.05 + 1.645 * math.sqrt(families * 0.05 * 0.95)


@pytest.mark.parametrize("spread", [0.02, 0.3, 0.8])
def test_figures_that_are_tested_together_share_the_risk(spread):
    """Null data, tame and wild, four unlike figures, 500 seeds: any false alarm in one family of twenty at most."""
    chance = np.random.default_rng(11)
    pairs = [(Numbers(chance, spread=spread), Numbers(chance, spread=spread)) for _ in range(500)]
    assert alarms(pairs, itertools.repeat({}, 500)) <= allowed(500)


@pytest.mark.parametrize("runs", [3, 5])
def test_the_mood_of_a_run_is_no_difference(runs):
    """Runs of one setting that differ as a whole, repeats that hardly do: beside a few A/A runs that tell it, no alarm."""
    chance = np.random.default_rng(12)

    def made():
        return Numbers(chance, spread=0.02, mood=0.2)

    def floor():
        group = [made() for _ in range(runs)]
        return {name: noise_floor([[run.by_repeat(name) for run in group]]) for name in FIGURES}

    pairs = [(made(), made()) for _ in range(300)]
    assert alarms(pairs, [floor() for _ in pairs]) <= allowed(300)
    assert alarms(pairs, itertools.repeat({}, 300)) > 150, "the repeats alone would call most of them different"


def test_a_large_effect_passes_the_floor():
    """Five A/A runs that differ by a twentieth let a slowdown of half be seen, nearly always."""
    chance = np.random.default_rng(13)
    found = 0
    for _ in range(50):
        group = [Numbers(chance, spread=0.02, mood=0.03) for _ in range(5)]
        floors = {name: noise_floor([[run.by_repeat(name) for run in group]]) for name in FIGURES}
        slow = Numbers(chance, spread=0.02, mood=0.03, effect=1.5)
        found += {one.figure: one.verdict for one in judge(group[0], slow, floors=floors)}["p50_ms"] == "worse"
    assert found >= 45


def test_an_effect_within_the_noise_floor_is_none(plant):
    """A/A runs that lie a few hundredths apart say that a seventh is nothing; such that lie far apart, that nothing is known."""
    first, second = plant("first"), plant("second", effect=1.15)
    assert compare_runs(first, second).verdict == "worse"
    near = [plant(f"near{place}", effect=effect) for place, effect in enumerate((0.95, 0.97, 1.0, 1.03, 1.05))]
    compared = compare_runs(first, second, near)
    assert compared.verdict == "no difference"
    assert gate(compared) == ("no difference", compared.why)
    assert all(1.15 < one.floor < 1.5 for one in compared.figures)
    assert "noise floor" in as_text(compared)
    far = [plant("quiet"), plant("loud", effect=1.4), plant("louder", effect=1.5)]
    compared = compare_runs(first, second, far)
    assert compared.verdict == "inconclusive"
    assert "too much to say" in compared.why


def test_a_gate_does_not_fire_without_a_noise_floor(plant):
    """The repeats say worse, and nothing says how far two runs of one setting lie apart: inconclusive; with A/A runs it fires."""
    first, second = plant("first"), plant("second", effect=1.6)
    verdict, why = gate(compare_runs(first, second))
    assert verdict == "inconclusive"
    assert "no noise floor" in why
    assert gate(compare_runs(first, second, [plant("again"), plant("more")]))[0] == "inconclusive", "two runs are too few"
    assert gate(compare_runs(first, second, [first, plant("once"), plant("twice")]))[0] == "worse"


def test_runs_of_one_setting_are_found_as_a_floor(plant, tmp_path):
    """What was kept of the same setting, workload and code on the same host, the run itself among it; nothing else."""
    first, again, _, _ = plant("a"), plant("b"), plant("c", setting={"cache": None}), plant("d", host="other")
    assert {run.id for run in alike(tmp_path, first)} == {first.id, again.id}


def test_the_floor_is_the_reach_of_two_further_runs():
    """By hand: three runs with logarithms -0.1, 0, 0.1, two degrees of freedom, t(0.99375) = 8.86, times s times root two."""
    runs = [[math.exp(shift)] * 5 for shift in (-0.1, 0.0, 0.1)]
    assert noise_floor([runs]) == pytest.approx(math.exp(8.8602 * 0.1 * math.sqrt(2)), rel=1e-3)
    assert noise_floor([runs[:2]]) is None
    assert noise_floor([runs, [[1.0], [1.0], [1.0]]]) < noise_floor([runs]), "more runs, a surer floor"


def test_unlike_hosts_are_not_compared(plant):
    """Figures of another machine say nothing, and none are shown."""
    compared = compare_runs(plant("first"), plant("second", host="other", effect=3.0))
    assert compared.verdict == "unlike hosts"
    assert compared.figures == ()
    assert "cpu other" in as_text(compared)


@pytest.mark.parametrize(
    ("given", "why"),
    [({"repeats": 3}, "too few repeats: 3 of 5"), ({"differ": 0.6, "seed": 2}, "too wide"), ({"samples": 3}, "too few")],
)
def test_what_cannot_be_known_is_said(plant, given, why):
    """Few repeats, few samples and wild repeats are inconclusive, not a pass."""
    compared = compare_runs(plant("first", **given), plant("second", **given))
    assert compared.verdict == "inconclusive"
    assert why in compared.why


def test_runs_that_asked_different_things_carry_a_note(plant):
    """Other settings are the point of a comparison, and said."""
    compared = compare_runs(plant("first"), plant("second", setting={"cache": None}))
    assert compared.notes == ("the settings differ",)


def test_the_test_over_repeats_is_the_known_one():
    """Mann and Whitney's U for five against five: all of one side smaller is p = 2 / 252."""
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert mann_whitney([1, 3, 5, 7, 9], [2, 4, 6, 8, 10]) > 0.5
    assert mann_whitney([1, 2], [3, 4]) is None
    assert mann_whitney([1, 1, 1, 1, 1], [1, 1, 1, 1, 1]) == 1.0
    assert mann_whitney([1, 1, 1, 1, 1], [2, 2, 2, 2, 2]) == pytest.approx(2 / 252)


def test_the_interval_of_a_ratio_holds_the_truth_as_often_as_it_says():
    """200 planted pairs of five repeats: the 95 % interval holds the planted ratio at least nine times of ten."""
    chance = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        first, second = np.exp(chance.normal(0, 0.1, 5)), 1.5 * np.exp(chance.normal(0, 0.1, 5))
        interval = unpaired_ratio(first, second)
        held += interval.low <= 1.5 <= interval.high
    assert held >= 180


def test_a_run_is_found_by_its_folder(plant, tmp_path):
    """An id under the results folder, or a path; anything else names the nearest."""
    run = plant("first")
    assert run_comparison.find(tmp_path / "elsewhere", str(run.folder)).id == run.id
    with pytest.raises(MemlabError, match="did you mean 'load/first'"):
        run_comparison.find(tmp_path, "load/frist")
