"""A search finds what was planted, dominates only where intervals separate, and a duel has the last word."""

import itertools
import json
import math
import random
import tomllib

import msgspec
import polars
import pytest

from memlab.cli.tune import said
from memlab.errors import MemlabError
from memlab.experiment import tune
from memlab.experiment.tune import Constraint, Outcome, Task
from memlab.experiment.warm_start import Proposal
from memlab.measure.stats import FEWEST_REPEATS, Interval
from memlab.settings import Settings
from memlab.workload.spec import workload
from memlab.workload.trace import RECORDED

TRAFFIC = workload({"mix": {"episodic.recall": 1.0}, "arrivals": {"rate_per_s": 100.0}})


def task(**given):
    return Task(workload=TRAFFIC, **given)


def flat(settings):
    """Return how good planted settings are: p95 over the default, by parts that multiply."""
    cache = 1.0 if settings.cache is None else 1.0 / (1.0 + 0.12 * math.log2(settings.cache.max_entries / 16 + 1))
    window = 1.3 if settings.batch is None else 1.0 + 0.05 * abs(settings.batch.window_ms - 1.0)
    pool = 1.2 if settings.pool is None else 1.0 + 0.1 * abs(math.log2(settings.pool.limit / Settings().pool.limit))
    index = {"flat": 1.5, "sq8": 1.2, "fp16": 1.4, "ivf": 1.0, "hnsw": 0.95}[settings.index.kind]
    return cache * window * pool * index


class Planted:
    """Answers evaluations from a formula, with a little noise, and counts them."""

    def __init__(self, p95=flat, *, held_out=None, noise=0.0, recall=lambda settings: 1.0, width=0.02):
        self.p95, self.noise, self.recall, self.width = p95, noise, recall, width
        self.held_out = held_out or p95
        self.seen = []
        self.chance = random.Random(5)

    def __call__(self, settings, *, repeats, seed, folder=None):
        self.seen.append((settings, repeats, seed))
        formula = self.p95 if seed < tune._HELD_OUT else self.held_out
        value = formula(settings) / formula(Settings()) * math.exp(self.chance.gauss(0.0, self.noise))
        interval = Interval(value, value * (1 - self.width), value * (1 + self.width), repeats)
        memory = Interval(
            (0.25 if settings.index.kind == "sq8" else 1.0) + (settings.cache.max_entries / 65_536 if settings.cache else 0)
        )
        ratios = {"p50": interval, "p95": interval, "mean": interval, "throughput": Interval(1 / value), "memory": memory}
        figures = dict.fromkeys(tune._CONSTRAINED) | {"recall_at_10": self.recall(settings)}
        return Outcome(ratios=ratios, figures=figures)


def modelled():
    """What models propose that know of the cache alone, and say a ratio that is a little off."""
    trial = {
        "index.kind": "flat", "cache": True, "cache.max_entries": 65_536, "cache.policy": "lru", "batch": True,
        "batch.window_ms": 1.0, "batch.limit": 64, "pool": True, "pool.limit": 4, "pool.vector_threads": 1,
    }  # fmt: skip
    return [
        Proposal(by="all models", says="a knee", parameters=trial, predicted={"p95": 0.9, "hit_ratio": 0.5}),
        Proposal(
            by="models without a cache",
            says="groups",
            parameters={name: value for name, value in trial.items() if not name.startswith("cache.")} | {"cache": False},
            predicted={"p95": 2.0},
        ),
    ]


def test_models_are_counted_and_held_against_what_was_measured(tmp_path):
    """They take two evaluations of the budget, are tried after the defaults, and stand beside what was measured of them."""
    planted = Planted()
    found = tune.tune(task(budget=12), tmp_path, evaluate=planted, models=modelled)
    searched = [settings for settings, repeats, _ in planted.seen if repeats == 3]
    assert found.searched == 12
    assert len(searched) == 10
    assert searched[0] == Settings()
    assert (searched[2].cache.max_entries, searched[3].cache) == (65_536, None)
    first, second = found.proposed
    assert (first["by"], second["by"]) == ("all models", "models without a cache")
    assert first["settings"]["cache.max_entries"] == 65_536
    assert first["measured"]["p95"]["value"] == pytest.approx(flat(Settings.of(first["settings"])) / flat(Settings()))
    assert "said 0.90 x default, measured" in found.to_toml()
    assert {one["by"] for one in found.front} <= {
        *tune.WARM_START, "all models", "models without a cache", "a look elsewhere", "a neighbour of the best", "the search",
    }  # fmt: skip
    assert found.by in {one["by"] for one in found.front}


def test_models_take_a_fifth_of_the_budget_at_most(tmp_path):
    """Of two proposals a budget of eight tries one; all pairs of sections are then seen without what they proposed."""
    planted = Planted()
    found = tune.tune(task(budget=8), tmp_path / "few", evaluate=planted, models=modelled)
    assert [one["by"] for one in found.proposed] == ["all models"]
    planted = Planted()
    tune.tune(task(budget=12), tmp_path, evaluate=planted, models=modelled)
    searched = [settings for settings, repeats, _ in planted.seen if repeats == 3]
    on = [(settings.cache is not None, settings.batch is not None, settings.pool is not None) for settings in searched]
    without = on[:2] + on[4:]
    for one, other in itertools.combinations(range(3), 2):
        assert {(switches[one], switches[other]) for switches in without} == set(itertools.product((True, False), repeat=2))


def test_a_mean_that_stands_in_for_a_percentile_is_called_so(tmp_path):
    """Too few samples for a p95: every line says that its figure is the mean."""

    class Few(Planted):
        def __call__(self, settings, **given):
            return msgspec.structs.replace(super().__call__(settings, **given), stood_in={"p95": "mean"})

    lines = []
    found = tune.tune(task(budget=24), tmp_path, evaluate=Few(), models=modelled, tell=lines.append)
    named = "mean (too few samples for p95)"
    assert all(f": {named} " in line for line in lines if line[0].isdigit())
    told = found.to_toml().splitlines()
    assert f"held-out traffic: {named} 0." in told[1]
    assert all(line.count(named) == 2 for line in told if " held out" in line)
    assert all(named in line for line in told if "measured" in line and "said" in line)
    assert f"better: {named} is 0." in said(found, tmp_path)
    assert all(one["stood_in"] == {"p95": "mean"} for one in found.front)


def test_what_stands_in_for_what_is_told_from_a_summary():
    """A percentile without a value takes the mean's ratio, and its name."""
    ratio = {name: {"value": value} for name, value in (("p50", 0.9), ("p95", None), ("mean", 0.8), ("throughput", 1.0))}
    side = {"statistics": {}}
    outcome = tune.outcome_of({"ratio": ratio, "reference": side, "candidate": side})
    assert (outcome.ratios["p95"].value, outcome.named("p95")) == (0.8, "mean (too few samples for p95)")
    assert outcome.named("p50") == "p50"


def test_models_are_asked_once_and_where_the_budget_bears_it(tmp_path):
    """A search that goes on does not ask again, and one of a few evaluations does without them."""
    asked = []

    def models():
        asked.append(1)
        return modelled()

    assert tune.tune(task(budget=7), tmp_path / "few", evaluate=Planted(), models=models).searched == 7
    assert not asked
    for budget in (8, 10):
        assert tune.tune(task(budget=budget), tmp_path, evaluate=Planted(), models=models).searched == budget
    assert len(asked) == 1


@pytest.mark.parametrize("models", [None, modelled])
def test_searches_come_near_the_best_of_a_grid_with_a_fifth_of_its_evaluations(models, tmp_path):
    """Most of them within 5 % of the best of an exhaustive grid, with at most 20 % of its evaluations; none far off."""
    grid = [
        {"index.kind": kind, "cache.max_entries": entries, "batch.window_ms": window, "pool.limit": limit}
        for kind, entries, window, limit in itertools.product(tune.INDEXES, (64, 1024, 65_536), tune.WINDOWS_MS[1:5], (1, 4, 16))
    ]
    best = min(flat(Settings.of(one)) for one in grid)
    gaps = []
    for seed in (1, 2, 3):
        planted = Planted(noise=0.002, width=0.005)
        found = tune.tune(task(budget=len(grid) // 5, seed=seed), tmp_path, evaluate=planted, models=models)
        assert found.verdict == "better"
        assert found.searched == len(grid) // 5 == 36
        gaps.append(flat(Settings.of(found.values)) / best - 1)
    assert sorted(gaps)[1] <= 0.05 + 1e-9, "a window one step off is 5 % off, and 1.05 - 1 a little more"
    assert max(gaps) <= 0.25


def test_the_duel_is_fought_on_other_traffic_and_decides(tmp_path):
    """What only helps in the search's own traffic is not recommended."""
    planted = Planted(held_out=lambda settings: 1.0)
    found = tune.tune(task(budget=16), tmp_path, evaluate=planted)
    assert found.verdict == "no significant gain"
    assert found.values == {}
    assert "The defaults stay." in found.to_toml()
    *_, (settings, repeats, seed) = planted.seen
    assert seed == 1 + tune._HELD_OUT
    assert repeats == tune._CONFIRMING
    assert settings != Settings()


def test_settings_that_break_a_constraint_are_not_chosen(tmp_path):
    """The fastest index is left where its recall is too low; where nothing keeps the bound, that is said."""
    planted = Planted(recall=lambda settings: 0.9 if settings.index.kind == "hnsw" else 1.0)
    bound = Constraint.parse("recall_at_10>=0.95")
    found = tune.tune(task(budget=30, constraints=(bound,)), tmp_path, evaluate=planted)
    assert found.values["index.kind"] != "hnsw"
    with pytest.raises(MemlabError, match="loosen it"):
        tune.tune(task(budget=4, constraints=(Constraint.parse("recall_at_10>=1.5"),)), tmp_path, evaluate=planted)


def test_a_bound_on_what_could_not_be_measured_is_not_said_to_be_kept(tmp_path):
    """A p99 of too few samples: better or not, the defaults stay, and the verdict says why."""
    found = tune.tune(task(budget=16, constraints=(Constraint.parse("p99_ms<=50"),)), tmp_path, evaluate=Planted())
    assert found.verdict == "nothing tells whether the tuned settings keep p99_ms<=50: too few samples, or none"
    assert found.values == {}


def test_a_search_that_was_stopped_goes_on(tmp_path):
    """Trials that are done are not made again, also when the budget grows."""

    class Stopped(Planted):
        def __call__(self, settings, **given):
            if len(self.seen) == 5:
                raise KeyboardInterrupt
            return super().__call__(settings, **given)

    with pytest.raises(KeyboardInterrupt):
        tune.tune(task(budget=8), tmp_path, evaluate=Stopped())
    going_on = Planted()
    found = tune.tune(task(budget=8), tmp_path, evaluate=going_on)
    assert found.searched == 8
    assert sum(repeats == 3 for _, repeats, _ in going_on.seen) == 3
    more = Planted()
    assert tune.tune(task(budget=10), tmp_path, evaluate=more).searched == 10
    assert sum(repeats == 3 for _, repeats, _ in more.seen) == 2


def test_only_separate_intervals_dominate():
    """Of two that cannot be told apart both stay on the front; one that is worse in all and apart leaves it."""

    class Trial:
        def __init__(self, p95, memory):
            self.user_attrs = {"ratios": {"p95": dict(zip(("low", "value", "high"), p95, strict=True)), "memory": memory}}

    def exactly(value):
        return {"value": value, "low": None, "high": None}

    near, nearer = Trial((0.5, 0.6, 0.7), exactly(1.0)), Trial((0.4, 0.5, 0.6), exactly(1.0))
    apart, thrifty = Trial((0.8, 0.9, 1.0), exactly(1.5)), Trial((0.8, 0.9, 1.0), exactly(0.2))
    front = tune.pareto(task(objectives=("p95", "memory")), [near, nearer, apart, thrifty])
    assert front == [near, nearer, thrifty]


def test_repeats_too_few_for_an_interval_dominate_nothing(tmp_path):
    """As many as are measured again by default have none: the best three of all are, and not the luckiest alone."""

    class Few(Planted):
        def __call__(self, settings, *, repeats, **given):
            outcome = super().__call__(settings, repeats=repeats, **given)
            if repeats < FEWEST_REPEATS:
                few = Interval(outcome.ratios["p95"].value, n=repeats, note="too few repeats")
                outcome.ratios.update(p95=few)
            return outcome

    planted = Few()
    found = tune.tune(task(budget=12), tmp_path, evaluate=planted)
    assert len(found.front) == found.searched == 12
    again = [settings for settings, repeats, seed in planted.seen if repeats > 3 and seed < tune._HELD_OUT]
    searched = sorted((settings for settings, repeats, _ in planted.seen if repeats == 3), key=flat)
    assert [flat(settings) for settings in again] == [flat(settings) for settings in searched[:3]]


def test_several_objectives_have_a_front(tmp_path):
    """Nothing on it is worse in both than something else."""
    found = tune.tune(task(budget=20, objectives=("p95", "memory")), tmp_path, evaluate=Planted(width=0.0))
    points = [(one["p95"]["value"], one["memory"]["value"]) for one in found.front]
    assert points
    for mine, other in itertools.permutations(points, 2):
        assert not (other[0] < mine[0] and other[1] < mine[1])


def test_the_settings_file_is_one_that_settings_load(tmp_path):
    """It holds the evidence as comments, and loads as the settings that were found."""
    found = tune.tune(task(budget=16), tmp_path, evaluate=Planted())
    out = tmp_path / "tuned.toml"
    tune.write(found, out, tmp_path / "tuned.json")
    assert tomllib.loads(out.read_text())["settings"]
    loaded = Settings.load(out, environment={})
    assert loaded == Settings.of(found.values)
    assert "held out" in out.read_text()
    assert json.loads((tmp_path / "tuned.json").read_text())["verdict"] == "better"
    with pytest.raises(MemlabError, match="cannot write"):
        tune.write(found, tmp_path / "nowhere" / "tuned.toml")


def test_the_real_engine_is_measured(tmp_path):
    """A small search on the real engine ends, keeps its duel, and finds nothing because it is too short."""
    small = workload(
        {
            "corpus": {"events": 60, "sessions": 2, "questions": 10},
            "arrivals": {"rate_per_s": 60},
            "duration_s": 0.1,
            "warm_up_s": 0.02,
            "recall_samples": 2,
        }
    )
    lines = []
    found = tune.tune(Task(workload=small, budget=2, repeats=1, size="smoke"), tmp_path, tell=lines.append)
    assert found.verdict == "a smoke run makes no finding"
    assert (tmp_path / "tune" / found.key / "duel" / "samples.parquet").is_file()
    assert lines[0].startswith("1/2")


@pytest.mark.parametrize(
    ("text", "said"),
    [("recall>=0.9", "did you mean 'recall_at_10'"), ("recall_at_10=1", "give a figure"), ("p95_ms<=nan", "give a figure")],
)
def test_a_constraint_that_is_none_is_refused(text, said):
    """What was given, and what fits."""
    with pytest.raises(MemlabError, match=said):
        Constraint.parse(text)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"objectives": ("p59",)}, "did you mean"),
        ({"objectives": ()}, "at least one"),
        ({"budget": 0}, "1 or more"),
        ({"objectives": ("p95", "p95")}, "once"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(given, said):
    """Before anything is measured."""
    with pytest.raises(MemlabError, match=said):
        task(**given)


def test_workloads_come_from_yaml_and_from_traces(tmp_path):
    """A params file, a bare workload, arrivals and keys; anything else is one clear line."""
    (tmp_path / "one.yaml").write_text("workload: {arrivals: {rate_per_s: 5}}")
    (tmp_path / "two.yaml").write_text("arrivals: {rate_per_s: 5}")
    assert tune.workload_of(tmp_path / "one.yaml") == tune.workload_of(tmp_path / "two.yaml")
    polars.DataFrame({"at_s": [0.0, 0.5, 1.0]}).write_parquet(tmp_path / "arrivals.parquet")
    assert tune.workload_of(tmp_path / "arrivals.parquet").arrivals.kind == "trace"
    polars.DataFrame({"key": [1, 2, 1]}).write_parquet(tmp_path / "keys.parquet")
    assert tune.workload_of(tmp_path / "keys.parquet").popularity.trace is not None
    usual = {"took_ns": 1, "cacheable": True, "session": 1, "key": 1, "labels": [1], "ttl_s": None, "outcome": "ok"}
    row = {**usual, "request_bytes": 1, "answer_bytes": 1, "cached": False}
    calls = [("episodic.recall", True, 0), ("episodic.recall", True, 1), ("episodic.remember", False, 2)]
    recorded = [{**row, "operation": name, "reads": reads, "at_ns": at * 10**9} for name, reads, at in calls]
    polars.DataFrame(recorded, schema=RECORDED).write_parquet(tmp_path / "recorded.parquet")
    told = tune.workload_of(tmp_path / "recorded.parquet")
    assert told.mix == pytest.approx({"episodic.recall": 2 / 3, "episodic.remember": 1 / 3})
    assert told.arrivals.kind == "trace" and told.popularity.trace is not None
    polars.DataFrame({"other": [1]}).write_parquet(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "list.yaml").write_text("[1]")
    (tmp_path / "bad.yaml").write_text("a: [")
    for name in ("other.parquet", "text.parquet", "list.yaml", "bad.yaml", "none.yaml", "none.parquet", "."):
        with pytest.raises(MemlabError) as caught:
            tune.workload_of(tmp_path / name)
        assert "\n" not in caught.value.text
