"""Searches settings jointly, and lets the best meet the defaults on traffic that the search did not see.

Every evaluation is a comparison with the default settings inside one run, so that a machine that slows down slows both. The
search is Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), which takes several objectives and constraints; it
begins with the defaults, with everything off and with what models propose (`warm_start`), whose measurements count for two
evaluations and whose proposals take a fifth of the budget at most. Whatever they say, all pairs of sections are then seen on and
off together. Two thirds of the budget go to the neighbours of the best so far, one setting changed. The best few are measured
again with more repeats, one is chosen, and the duel decides: interleaved, on held-out traffic. "No significant gain" is an
answer.

    results/tune/<key>/study.journal     every trial; an interrupted search goes on from there, and several processes may share it
    results/tune/<key>/duel/             samples and summary of the duel
    results/tune/<key>/tuned.json        what was found
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import msgspec
import tomli_w
import yaml

from memlab.errors import nearest, not_found, validation
from memlab.experiment import results, warm_start
from memlab.experiment.comparison import Size, compare, corpus_of
from memlab.experiment.warm_start import Proposal
from memlab.measure import clock, stats
from memlab.measure.host import host, libraries
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.spec import Workload
from memlab.workload.trace import load as load_trace

# Whether less is better, and where a summary has it.
OBJECTIVES: Mapping[str, bool] = {"p50": True, "p95": True, "mean": True, "throughput": False, "memory": True}
_CONSTRAINED = ("recall_at_10", "failure_ratio", "hit_ratio", "p50_ms", "p95_ms", "p99_ms", "mean_ms", "throughput_per_s")
_SHORTLIST = 3  # measured again
_CONFIRMING = 6  # repeats of those, and of the duel
_HELD_OUT = 7_919  # added to the seed: other arrivals, other questions
_TRACE_S = 2.0  # of a trace of arrivals in one repeat
_TRACE_RATE = 200.0  # at which a trace of accesses is asked
_WORST = 1e3  # a ratio for what could not be measured


class Constraint(msgspec.Struct, frozen=True):
    """A bound that a setting must keep, such as `recall_at_10>=0.95`."""

    figure: str
    at_least: bool
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Return the constraint that *text* says.

        Raises:
            MemlabError: VALIDATION `constraint`.

        >>> Constraint.parse("p95_ms<=20")
        Constraint(figure='p95_ms', at_least=False, bound=20.0)
        """
        found = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*", text)
        try:
            bound = float(found[3]) if found else math.nan
        except ValueError:
            bound = math.nan
        if found is None or not math.isfinite(bound):
            raise validation(
                "constraint", f"constraint '{text}': give a figure, <= or >=, and a number, such as recall_at_10>=0.95"
            )
        if found[1] not in _CONSTRAINED:
            raise validation("constraint", f"constraint '{text}': no figure '{found[1]}'{nearest(found[1], _CONSTRAINED)}")
        return cls(found[1], found[2] == ">=", bound)

    def excess(self, figures: Mapping[str, float | None]) -> float:
        """Return how far it is missed, 0 or less where it is kept; a figure that there is none of is not seen to miss any."""
        value = figures.get(self.figure)
        if value is None:
            return 0.0
        return self.bound - value if self.at_least else value - self.bound

    def __str__(self) -> str:
        return f"{self.figure}{'>=' if self.at_least else '<='}{self.bound:g}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one evaluation brought.

    Attributes:
        ratios: candidate over default by objective, with intervals.
        figures: the candidate's own, for constraints.
        stood_in: by objective the figure whose ratio stands for it, where samples were too few for its own.
    """

    ratios: dict[str, stats.Interval]
    figures: dict[str, float | None]
    stood_in: dict[str, str] = {}

    def value(self, objective: str) -> float:
        """Return what the search makes smaller: the logarithm of a ratio, turned for figures of which more is better."""
        value = self.ratios[objective].value
        logarithm = math.log(value) if value else math.log(_WORST)
        return logarithm if OBJECTIVES[objective] or not value else -logarithm

    def named(self, objective: str) -> str:
        """Return what the ratio of an objective is of.

        >>> Outcome(ratios={}, figures={}, stood_in={"p95": "mean"}).named("p95")
        'mean (too few samples for p95)'
        """
        return _named(objective, self.stood_in)


def _named(objective: str, stood_in: Mapping[str, str]) -> str:
    return f"{stood_in[objective]} (too few samples for {objective})" if objective in stood_in else objective


class Evaluate(Protocol):
    """Measures settings beside the defaults."""

    def __call__(self, settings: Settings, *, repeats: int, seed: int, folder: Path | None = None) -> Outcome: ...


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be tuned for.

    Attributes:
        objectives: the first decides where several cannot be told apart by dominance.
        budget: evaluations of the search.
        repeats: of each evaluation.
        data: folder of conversations in place of the generated corpus.
    """

    workload: Workload
    objectives: tuple[str, ...] = ("p95",)
    constraints: tuple[Constraint, ...] = ()
    budget: int = 40
    repeats: int = 3
    seed: int = 1
    size: Size = "quick"
    data: str | None = None

    def __post_init__(self) -> None:
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise validation("objective", f"no objective '{name}'{nearest(name, OBJECTIVES)}")
        if not self.objectives or len(set(self.objectives)) != len(self.objectives):
            raise validation("objective", "give at least one objective, each once")
        if self.budget < 1 or self.repeats < 1:
            raise validation("bounds", f"budget {self.budget}, repeats {self.repeats}; 1 or more fit")

    @property
    def key(self) -> str:
        """What decides a study: everything but its budget, so that a larger one goes on with a smaller one's trials."""
        facts = msgspec.to_builtins(self)
        del facts["budget"]
        return results.key_of({**facts, "code": results.code_version(), "host": host()["id"]})


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found.

    Attributes:
        verdict: of the duel: `better`, or why the defaults stay.
        values: settings that are recommended, dotted keys, over the defaults; empty where the defaults stay.
        fought: settings that met the defaults in the duel.
        by: who proposed them: the defaults, models, a look elsewhere, a neighbour of the best, or the search.
        searched: evaluations of the search, those among them that the models count for: models_cost.
        proposed: what the models proposed, as far as the budget bore it: `by`, `says`, `settings`, and `predicted` and
            `measured` by figure, ratios to the defaults but for `hit_ratio`, with `stood_in` as an `Outcome` has it.
        front: settings that no other beats in every objective beyond the intervals.
        duel: ratios on held-out traffic by objective, tuned over default.
        confirmed: ratios of the chosen settings in the search's own traffic.
        of: what the ratios of the first objective in `confirmed` and `duel` are of: it, or what stood in for want of samples.
    """

    key: str
    verdict: str
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    values: dict[str, Any]
    fought: dict[str, Any] = {}
    by: str = ""
    searched: int
    models_cost: int = 0
    proposed: tuple[dict[str, Any], ...] = ()
    front: tuple[dict[str, Any], ...]
    confirmed: dict[str, stats.Interval]
    duel: dict[str, stats.Interval]
    of: dict[str, str]
    seed: int
    started: str
    host: dict[str, Any]
    libraries: dict[str, str]

    def to_toml(self) -> str:
        """Return the settings as a file that `--settings` and `Settings.load` take, the evidence beside each value."""
        first = self.objectives[0]
        lines = [
            f"# memlab tune, study {self.key}, {self.started}: {self.verdict}.",
            f"# {self.searched} evaluations for {', '.join(self.objectives)}"
            + (f" under {', '.join(self.constraints)}" if self.constraints else "")
            + f"; duel on held-out traffic: {self.of['duel']} {_shown(self.duel.get(first))} times that of the defaults.",
        ]
        lines += [f"# {line}" for line in self.models_said()]
        if not self.values:
            return "\n".join([*lines, "# The defaults stay.", "[settings]", ""])
        chosen = Settings.of(self.values).to_dict()
        text = tomli_w.dumps({"settings": _plain({name: chosen[name] for name in ("cache", "batch", "pool", "index")})})
        evidence = (
            f"  # by {self.by}: {self.of['confirmed']} {_shown(self.confirmed.get(first))} x default in the search, "
            f"{self.of['duel']} {_shown(self.duel.get(first))} x held out"
        )
        keys = {name.partition(".")[2] or name for name in self.values}
        marked = [line + evidence if line.partition(" = ")[0] in keys and " = " in line else line for line in text.splitlines()]
        return "\n".join([*lines, *marked, ""])

    def models_said(self) -> list[str]:
        """Return a line for each proposal of the models: what they said of the first objective, and what was measured."""
        first = self.objectives[0]
        lines = []
        for one in self.proposed:
            measured = one["measured"].get(first)
            said, seen = (one[kind].get("hit_ratio") for kind in ("predicted", "measured"))
            lines.append(
                f"{one['by']}: {one['says']}; {first} said {_factor(one['predicted'].get(first))} x default, measured "
                + ("nothing" if measured is None else _measured(stats.Interval(**measured), first, one.get("stood_in", {})))
                + f"; hit ratio said {_factor(said)}, measured {_factor(seen)}"
            )
        return lines


def _measured(interval: stats.Interval, objective: str, stood_in: Mapping[str, str]) -> str:
    return _shown(interval) + (f" of the {_named(objective, stood_in)}" if objective in stood_in else "")


def _factor(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.2f}"


def _shown(interval: stats.Interval | None) -> str:
    if interval is None or interval.value is None:
        return "unknown"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.2f}"
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return "off" if value is None else value


# --- what is searched -------------------------------------------------------------------------------------------------

WINDOWS_MS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
LIMITS = (16, 64, 256)
_NEIGHBOUR = "a neighbour of the best"
_EXPLORING = "a look elsewhere"
_MODELS_SHARE = 0.2  # of the budget that proposals of models may take: they know of no interaction that they have no term for
_SECTIONS = ("cache", "batch", "pool")
INDEXES = ("flat", "sq8", "fp16", "ivf", "hnsw")


def suggest(trial: Any) -> dict[str, Any]:
    """Return settings that a trial of the search tries, dotted keys."""
    values: dict[str, Any] = {"index.kind": trial.suggest_categorical("index.kind", INDEXES)}
    if trial.suggest_categorical("cache", (True, False)):
        values["cache.max_entries"] = trial.suggest_int("cache.max_entries", 16, 65_536, log=True)
        values["cache.policy"] = trial.suggest_categorical("cache.policy", ("lru", "w_tinylfu"))
    else:
        values["cache"] = None
    if trial.suggest_categorical("batch", (True, False)):
        values["batch.window_ms"] = trial.suggest_categorical("batch.window_ms", WINDOWS_MS)
        values["batch.limit"] = trial.suggest_categorical("batch.limit", LIMITS)
    else:
        values["batch"] = None
    if trial.suggest_categorical("pool", (True, False)):
        values["pool.limit"] = trial.suggest_int("pool.limit", 1, 16, log=True)
        values["pool.vector_threads"] = trial.suggest_int("pool.vector_threads", 1, 2)
    else:
        values["pool"] = None
    return values


class _Given:
    """Answers `suggest` from given parameters of a trial."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._parameters[name]

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self._parameters[name])


def values_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, dotted keys, of a trial with these parameters."""
    return suggest(_Given(parameters))


def _defaults() -> dict[str, Any]:
    """Return the parameters of a trial whose settings are the defaults, which have every section on."""
    plain = Settings().to_dict()
    named = (
        "cache.max_entries",
        "cache.policy",
        "batch.window_ms",
        "batch.limit",
        "pool.limit",
        "pool.vector_threads",
        "index.kind",
    )
    parts = [name.split(".") for name in named]
    return dict.fromkeys(_SECTIONS, True) | {f"{section}.{name}": plain[section][name] for section, name in parts}


# Tried first, beside what the models propose.
WARM_START: Mapping[str, dict[str, Any]] = {
    "defaults": _defaults(),
    "everything off": {"index.kind": Settings().index.kind, "cache": False, "batch": False, "pool": False},
}
# Where no model speaks: a large cache with small groups; no cache with large ones.
OFTEN_GOOD: tuple[dict[str, Any], ...] = (
    {
        "index.kind": "flat", "cache": True, "cache.max_entries": 16_384, "cache.policy": "w_tinylfu", "batch": True,
        "batch.window_ms": 0.0, "batch.limit": 64, "pool": False,
    },
    {
        "index.kind": "ivf", "cache": False, "batch": True, "batch.window_ms": 0.0, "batch.limit": 256, "pool": True,
        "pool.limit": 2, "pool.vector_threads": 1,
    },
)  # fmt: skip
WORTH_MODELS = 8
"""Budget from which models are asked."""


# --- the search -------------------------------------------------------------------------------------------------------


def tune(
    task: Task,
    folder: Path,
    *,
    jobs: int = 1,
    evaluate: Evaluate | None = None,
    models: Callable[[], Sequence[Proposal]] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Search, confirm, and duel; return what was found and write it beside the study.

    Args:
        folder: of results; the study stands in `tune/<key>` in it.
        jobs: processes that search side by side; on a small machine they disturb each other's measurements.
        evaluate: default: `Measured`, the real engine.
        models: say where to begin, in a fifth of the budget at most, and count for two evaluations; default:
            `warm_start.propose` where the real engine is measured. A budget below eight does without.
    Raises:
        MemlabError: VALIDATION: what does not fit, before anything is measured.
    """
    place = folder / "tune" / task.key
    place.mkdir(parents=True, exist_ok=True)
    measured = Measured(task) if evaluate is None else evaluate
    if models is None and evaluate is None:
        models = functools.partial(
            warm_start.propose, task.workload, task.objectives[0], seed=task.seed, repeats=task.repeats, data=task.data
        )
    cost = _begin(task, place, models, tell)
    if jobs > 1 and evaluate is None:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            for done in [pool.submit(_search_alone, task, place, number) for number in range(jobs)]:
                done.result()
    else:
        _search(task, place, measured, tell, worker=0)
    trials = _finished(_study(task, place, 0))[: task.budget - cost]
    allowed = [trial for trial in trials if max(_excesses(task, trial), default=0.0) <= 0.0]
    if not allowed:
        kept = ", ".join(map(str, task.constraints))
        raise validation("constraint", f"none of {len(trials)} settings keeps {kept}; loosen it, or search longer with --budget")
    front = pareto(task, allowed)
    shortlist = sorted(front, key=lambda trial: trial.values[0])[:_SHORTLIST]
    tell(f"measuring the best {len(shortlist)} of {len(trials)} again")
    confirmed = [
        (trial.user_attrs["settings"], measured(Settings.of(trial.user_attrs["settings"]), repeats=_CONFIRMING, seed=task.seed))
        for trial in shortlist
    ]
    values, outcome = _best(task, confirmed)
    tell("duel with the defaults on held-out traffic")
    duel = measured(Settings.of(values), repeats=_CONFIRMING, seed=held_out(task.seed), folder=place / "duel")
    verdict, first = _verdict(task, outcome, duel), task.objectives[0]
    tuned = Tuned(
        key=task.key,
        verdict=verdict,
        objectives=task.objectives,
        constraints=tuple(map(str, task.constraints)),
        values=values if verdict == "better" else {},
        fought=values,
        by=next(trial.user_attrs["by"] for trial in shortlist if trial.user_attrs["settings"] == values),
        searched=len(trials) + cost,
        models_cost=cost,
        proposed=_proposed(_study(task, place, 0)),
        front=tuple(
            {
                "settings": trial.user_attrs["settings"],
                "by": trial.user_attrs["by"],
                "stood_in": trial.user_attrs.get("stood_in", {}),
                **{name: trial.user_attrs["ratios"][name] for name in task.objectives},
            }
            for trial in front
        ),
        confirmed=outcome.ratios,
        duel=duel.ratios,
        of={"confirmed": outcome.named(first), "duel": duel.named(first)},
        seed=task.seed,
        started=clock.now().isoformat(timespec="seconds"),
        host=host(),
        libraries=libraries(),
    )
    (place / "tuned.json").write_bytes(msgspec.json.format(msgspec.json.encode(tuned), indent=2))
    return tuned


def held_out(seed: int) -> int:
    """Return the seed of traffic that a search with *seed* does not see."""
    return seed + _HELD_OUT


def _search_alone(task: Task, place: Path, worker: int) -> None:
    _search(task, place, Measured(task), lambda line: None, worker=worker)


def _begin(task: Task, place: Path, models: Callable[[], Sequence[Proposal]] | None, tell: Callable[[str], None]) -> int:
    """Put what is tried first into a new study; return the evaluations that the models count for."""
    study = _study(task, place, 0)
    if not study.trials:
        proposed: Sequence[Proposal] = ()
        if models is not None and task.budget >= WORTH_MODELS:
            tell("asking the models where to begin")
            proposed = models()[: max(1, int(_MODELS_SHARE * task.budget))]
            study.set_user_attr("models", warm_start.COST)
        for by, start in WARM_START.items():
            study.enqueue_trial(start, user_attrs={"by": by})
        for start in () if proposed else OFTEN_GOOD:
            study.enqueue_trial(start, user_attrs={"by": "what is often good"})
        for one in proposed:
            study.enqueue_trial(one.parameters, user_attrs={"by": one.by, "proposal": msgspec.to_builtins(one)})
    return _cost(study)


def _cost(study: Any) -> int:
    """Return how many evaluations the models of a study count for."""
    return int(study.user_attrs.get("models", 0))


def _proposed(study: Any) -> tuple[dict[str, Any], ...]:
    """Return what the models proposed, with what was then measured."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        proposal = trial.user_attrs.get("proposal")
        if proposal is not None:
            ratios, figures = trial.user_attrs.get("ratios", {}), trial.user_attrs.get("figures", {})
            measured = {name: ratios[name] for name in proposal["predicted"] if name in ratios}
            if figures.get("hit_ratio") is not None:
                measured["hit_ratio"] = figures["hit_ratio"]
            settings = values_of(proposal["parameters"])
            found.append(
                {
                    "by": proposal["by"],
                    "says": proposal["says"],
                    "settings": settings,
                    "predicted": proposal["predicted"],
                    "measured": measured,
                    "stood_in": trial.user_attrs.get("stood_in", {}),
                }
            )
    return tuple(found)


def _search(task: Task, place: Path, evaluate: Evaluate, tell: Callable[[str], None], *, worker: int) -> None:
    """Try settings until the study holds as many trials as the budget allows."""
    study = _study(task, place, worker)
    budget = task.budget - _cost(study)
    while (done := len(_finished(study))) < budget:
        waiting = any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False))
        if not waiting and (elsewhere := _elsewhere(_finished(study))) is not None:
            study.enqueue_trial(elsewhere, user_attrs={"by": _EXPLORING})
        elif not waiting and done >= task.budget // 3 and (near := _neighbour(task, _finished(study))) is not None:
            study.enqueue_trial(near, user_attrs={"by": _NEIGHBOUR})
        trial = study.ask()
        if "by" not in trial.user_attrs:
            trial.set_user_attr("by", "the search")
        values = suggest(trial)
        outcome = evaluate(Settings.of(values), repeats=task.repeats, seed=task.seed)
        trial.set_user_attr("settings", values)
        trial.set_user_attr("ratios", {name: msgspec.to_builtins(interval) for name, interval in outcome.ratios.items()})
        trial.set_user_attr("figures", outcome.figures)
        trial.set_user_attr("stood_in", outcome.stood_in)
        for constraint in task.constraints:
            trial.set_constraint(str(constraint), constraint.excess(outcome.figures))
        study.tell(trial, [outcome.value(name) for name in task.objectives])
        first = task.objectives[0]
        told = f"{outcome.named(first)} {_shown(outcome.ratios[first])} x default with {_said(values)}"
        tell(f"{len(_finished(study))}/{budget}: {told}")


def _elsewhere(trials: Sequence[Any]) -> dict[str, Any] | None:
    """Return sections on and off together as no trial has shown them, set as in the defaults; None where all pairs were seen.

    One switch may turn what another one does, and steps from the best alone would never meet that. What models proposed, or what
    is often good, does not count: such settings lie close together, and may be wrong together.
    """
    seen = {
        pair
        for trial in trials
        if trial.user_attrs["by"] in (*WARM_START, _EXPLORING, _NEIGHBOUR)
        for pair in _pairs(trial.params)
    }
    usual = WARM_START["defaults"]
    found, most = None, 0
    for switches in itertools.product((False, True), repeat=len(_SECTIONS)):
        one = dict(usual)
        for name, on in zip(_SECTIONS, switches, strict=True):
            one = one if on else _changed(one, name, False)
        unseen = len(_pairs(one) - seen)
        if unseen > most:
            found, most = one, unseen
    return found


def _pairs(parameters: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """Return which two sections are on or off together."""
    return {(one, parameters[one], other, parameters[other]) for one, other in itertools.combinations(_SECTIONS, 2)}


def _neighbour(task: Task, trials: Sequence[Any]) -> dict[str, Any] | None:
    """Return the best trial's parameters with one of them changed, as no trial has tried them; None where all are tried."""
    allowed = [trial for trial in trials if max(_excesses(task, trial), default=0.0) <= 0.0]
    if not allowed:
        return None
    best = dict(min(allowed, key=lambda trial: trial.values[0]).params)
    tried = [trial.params for trial in trials]
    chance = random.Random(task.seed + len(trials))
    # Which sections are on, and then which index, come before how they are set: of few evaluations none may be left otherwise.
    # Where the search begins does not count: what it had in the sections may have hidden what a switch does.
    stepped = [trial.params for trial in trials if trial.user_attrs["by"] in (_NEIGHBOUR, _EXPLORING)]
    combined = {tuple(params[name] for name in _SECTIONS) for params in stepped}
    switched = [_changed(best, name, not best[name]) for name in _SECTIONS]
    untried = [one for one in switched if tuple(one[name] for name in _SECTIONS) not in combined]
    if untried:
        return chance.choice(untried)
    kinds = [kind for kind in INDEXES if kind not in {params["index.kind"] for params in (best, *stepped)}]
    if kinds:
        return _changed(best, "index.kind", chance.choice(kinds))
    near = [*switched, *(_changed(best, name, value) for name, values in _finer(best).items() for value in values)]
    open_ = [one for one in near if one not in tried]
    return chance.choice(open_) if open_ else None


def _finer(best: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return values next to those of the best, by the parameters that it has."""
    steps: dict[str, tuple[Any, ...]] = {
        "index.kind": INDEXES,
        "batch.window_ms": _beside(best.get("batch.window_ms"), WINDOWS_MS),
        "batch.limit": _beside(best.get("batch.limit"), LIMITS),
        "cache.policy": ("lru", "w_tinylfu"),
        "pool.vector_threads": (1, 2),
    }
    for name, least, most, factor in (("cache.max_entries", 16, 65_536, 4), ("pool.limit", 1, 16, 2)):
        if name in best:
            steps[name] = tuple(min(most, max(least, round(best[name] * step))) for step in (factor, 1 / factor))
    return {name: values for name, values in steps.items() if name in best}


def _changed(best: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return parameters with one changed; a section that is switched on is set as in the defaults."""
    if value is False:
        return {key: kept for key, kept in best.items() if not key.startswith(f"{name}.")} | {name: False}
    usual = {key: given for key, given in WARM_START["defaults"].items() if value is True and key.startswith(f"{name}.")}
    return {**best, **usual, name: value}


def _beside(value: Any, ladder: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values next to one on a ladder."""
    if value not in ladder:
        return ()
    place = ladder.index(value)
    return tuple(ladder[max(place - 1, 0) : place] + ladder[place + 1 : place + 2])


def _study(task: Task, place: Path, worker: int) -> Any:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=task.seed * 1_000 + worker,
        multivariate=True,
        n_startup_trials=max(4, task.budget // 5),
    )
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(place / "study.journal"))),
        study_name="tune",
        sampler=sampler,
        directions=["minimize"] * len(task.objectives),
        load_if_exists=True,
    )


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]


def _excesses(task: Task, trial: Any) -> list[float]:
    figures = trial.user_attrs.get("figures", {})
    return [constraint.excess(figures) for constraint in task.constraints]


def pareto(task: Task, trials: Sequence[Any]) -> list[Any]:
    """Return the trials that no other dominates: better in one objective and not seen to be worse in any.

    One is better than another where their intervals do not meet; what cannot be told apart, or has no interval for want of
    repeats or samples, dominates nothing. What is counted, such as bytes, needs none.
    """

    def bounds(trial: Any, name: str) -> tuple[float, float]:
        ratio = trial.user_attrs["ratios"][name]
        value = ratio["value"] if ratio["value"] is not None else _WORST
        low, high = (value if ratio[end] is None else ratio[end] for end in ("low", "high"))
        return (low, high) if OBJECTIVES[name] else (1.0 / max(high, 1e-9), 1.0 / max(low, 1e-9))

    def is_sure(trial: Any, name: str) -> bool:
        return not trial.user_attrs["ratios"][name].get("note")  # which says why there is no interval

    def dominates(one: Any, other: Any) -> bool:
        pairs = {name: (bounds(one, name), bounds(other, name)) for name in task.objectives}
        better = any(
            mine[1] < theirs[0] and is_sure(one, name) and is_sure(other, name) for name, (mine, theirs) in pairs.items()
        )
        return better and not any(mine[0] > theirs[1] for mine, theirs in pairs.values())

    return [trial for trial in trials if not any(dominates(other, trial) for other in trials)]


def _best(task: Task, confirmed: Sequence[tuple[dict[str, Any], Outcome]]) -> tuple[dict[str, Any], Outcome]:
    """Return the settings with the best first objective, or cheaper ones that cannot be told from them."""
    first = task.objectives[0]
    best = min(confirmed, key=lambda pair: pair[1].value(first))
    tied = [pair for pair in confirmed if _meet(pair[1].ratios[first], best[1].ratios[first])]
    return min(tied, key=lambda pair: _expense(pair[0]))


def _meet(one: stats.Interval, other: stats.Interval) -> bool:
    if None in (one.low, one.high, other.low, other.high):
        return one.value == other.value
    return bool(one.low <= other.high and other.low <= one.high)  # type: ignore[operator]


def _expense(values: Mapping[str, Any]) -> tuple[int, float, float]:
    parts = sum(values.get(name, "on") is not None for name in ("cache", "batch", "pool"))
    return parts, float(values.get("cache.max_entries") or 0.0), float(values.get("pool.limit") or 0.0)


def _verdict(task: Task, outcome: Outcome, duel: Outcome) -> str:
    first = task.objectives[0]
    if task.size == "smoke":
        return "a smoke run makes no finding"
    missed = [constraint for constraint in task.constraints if constraint.excess(duel.figures) > 0.0]
    if missed:
        return f"the tuned settings miss {missed[0]} on held-out traffic"
    unknown = [constraint for constraint in task.constraints if duel.figures.get(constraint.figure) is None]
    if unknown:
        return f"nothing tells whether the tuned settings keep {unknown[0]}: too few samples, or none"
    said = stats.verdict(duel.ratios[first], smaller_is_better=OBJECTIVES[first])
    return "better" if said == "better" else "no significant gain" if said != "too few" else "too few samples to say"


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'off' if value is None else value}" for name, value in values.items())


class Measured:
    """Evaluates settings on the real engine, beside the defaults.

    Args:
        prepared: existing folder that keeps the filled database for the next evaluation; None fills one for each.
    """

    def __init__(self, task: Task, prepared: Path | None = None) -> None:
        self._task = task
        self._prepared = prepared
        self._corpus = corpus_of(task.workload, task.seed, task.data)

    def __call__(self, settings: Settings, *, repeats: int, seed: int, folder: Path | None = None) -> Outcome:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        measured = compare(
            self._corpus,
            self._task.workload,
            Settings(),
            settings,
            seed=seed,
            repeats=repeats,
            size=self._task.size,
            folder=folder,
            prepared=self._prepared,
        )
        if folder is not None:
            measured.write(folder)
        return outcome_of(measured.summary)


def outcome_of(summary: Mapping[str, Any]) -> Outcome:
    """Return what the search needs of a comparison's summary."""
    ratios = {name: stats.Interval(**summary["ratio"][name]) for name in ("p50", "p95", "mean", "throughput")}
    stood_in = {name: "mean" for name in ("p50", "p95") if ratios[name].value is None and ratios["mean"].value is not None}
    for name, figure in stood_in.items():
        ratios[name] = ratios[figure]
    bytes_of = {side: _bytes(summary[side]["statistics"]) for side in ("reference", "candidate")}
    ratios["memory"] = stats.Interval(bytes_of["candidate"] / max(bytes_of["reference"], 1.0))
    figures: dict[str, float | None] = {}
    for name in _CONSTRAINED:
        value = summary["candidate"].get(name)
        figures[name] = value.get("value") if isinstance(value, Mapping) else None
    return Outcome(ratios=ratios, figures=figures, stood_in=stood_in)


def _bytes(statistics: Mapping[str, Any]) -> float:
    return float(statistics.get("storage", {}).get("vector_bytes", 0)) + float(statistics.get("cache", {}).get("bytes", 0))


# --- in and out -------------------------------------------------------------------------------------------------------


def workload_of(path: Path) -> Workload:
    """Return the workload that a file describes: a YAML file of one, a params file that holds one, or a trace.

    Raises:
        MemlabError: VALIDATION or NOT_FOUND: what does not fit, in one line.
    """
    if path.suffix == ".parquet" or path.is_dir():
        return _of_trace(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise not_found("file", f"no workload '{path}'; give a YAML file or a trace as parquet") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise validation("workload", f"workload '{path}' cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping):
        raise validation("workload", f"workload '{path}' holds no table of names and values")
    return spec.workload(values.get("workload", values)).resolved(path.parent)


def _of_trace(path: Path) -> Workload:
    loaded = load_trace(path)
    asked: dict[str, Any] = {} if loaded.kind == "arrivals" else {"popularity": {"trace": str(path)}}
    if loaded.kind == "recorded":
        asked["mix"] = loaded.mix()
    if "at_ns" in loaded.frame.columns:
        loaded.offsets()
        return spec.workload({**asked, "arrivals": {"kind": "trace", "path": str(path)}, "duration_s": _TRACE_S})
    return spec.workload({**asked, "arrivals": {"rate_per_s": _TRACE_RATE}})


def write(tuned: Tuned, out: Path, json_file: Path | None = None) -> None:
    """Write the settings file, and what was found as JSON where a file is given; whole or not at all."""
    for path, text in ((out, tuned.to_toml()), (json_file, encoded(tuned) + "\n")):
        if path is None:
            continue
        temporary = path.with_name(f".{path.name}.writing")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise validation("file", f"cannot write '{path}': {error.strerror}; give a file that can be written") from None


def encoded(tuned: Tuned) -> str:
    """Return what was found as JSON text."""
    return json.dumps(msgspec.to_builtins(tuned), indent=2)
