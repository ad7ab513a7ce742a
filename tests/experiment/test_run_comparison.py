"""Two runs against each other: planted equals are no different, planted effects are found, and what cannot be known is said."""

import math

import msgspec
import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import run_comparison
from memlab.experiment.results import Run
from memlab.experiment.run_comparison import as_text, compare_runs, mann_whitney, unpaired_ratio
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
    assert all(one.p_value < 0.05 for one in compared.figures)


def test_an_effect_below_the_noise_floor_is_none(plant):
    """Runs of one setting that differ by two fifths say that a seventh is nothing."""
    first, second = plant("first"), plant("second", effect=1.15)
    assert compare_runs(first, second).verdict == "worse"
    floors = [plant("quiet"), plant("loud", effect=1.4)]
    compared = compare_runs(first, second, floors)
    assert compared.verdict == "no difference"
    assert all(one.floor == pytest.approx(1.4, rel=0.1) for one in compared.figures)
    assert "noise floor" in as_text(compared)


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
