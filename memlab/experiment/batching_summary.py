"""What measured groups and lanes say: how far the model is off, who wins the race, and where batching keeps what was asked of it.

Repeats of a busy host differ more than calls of one repeat do: the groups of each repeat make a model of their own. A measured
percentile is that of the calls of all repeats together, a predicted one that of the plays of all models together. How far the
measurement itself is off is told by half of the repeats against the other half: no model can be held to less.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import MemlabError
from memlab.measure import stats
from memlab.predict.group_commit import BatchModel, Checked, Prediction, Rule, ServiceTime
from memlab.workload import arrivals

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NONE = "none"
ADAPTIVE, FIXED, AIMD = "adaptive", "fixed", "AIMD"
"""What names of rules begin with: an idle lane sends at once; a window; a window that follows an objective."""
CALLS_SAVED, LATENCY_CUT, SPEED_UP = 0.9, (0.5, 0.7), (5.0, 8.0)
"""What was asked for: calls into storage, latency, throughput."""
MODEL_ERROR = 0.2
"""How far the models may be off in p95, at the median of all lanes."""

_Q = {"p50": 0.5, "p95": 0.95}
_FEWEST_SIZES = 2  # that a line can be laid through
_FEWEST_GROUPS = 3  # of a size: clients that fell out of step travel in other sizes, and the few of this one met a stall
_SPLITS = 40
_PLAYED = 1_000  # calls of a lane that is played at a rate that nobody measured
_FINDING = 5  # repeats
_FEWEST_REPEATS = 2  # that one can be judged by what the other chose


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        groups: size, repeat, pause_ms, ms: what groups of that size took, after a pause, or at 0 in the flow; in their order.
        alone: repeat, one, many: calls that one client, and as many as the pool has places, were answered without batching in the
            same time; empty where one group is executed at a time.
        calls: rule, share, rate_per_s, repeat, warm_up, due_s, response_ms, batch_size, outcome, law.
        rules: that calls travelled by.
        objective_ms: of the rule that follows one.
    """

    operation: str
    groups: pl.DataFrame
    alone: pl.DataFrame
    calls: pl.DataFrame
    rules: Mapping[str, Rule]
    objective_ms: float

    @property
    def checked(self) -> Checked:
        """The range that was measured."""
        rates = self.calls["rate_per_s"]
        windows = [rule.window_ms for rule in self.rules.values()]
        limits = [rule.limit for rule in self.rules.values()]
        return Checked(
            (float(rates.min()), float(rates.max())),  # type: ignore[arg-type]
            (min(windows), max(windows)),
            (min(limits), max(limits)),
        )

    def models(self) -> list[BatchModel]:
        """Return the model that the groups of each repeat make; where no repeat saw enough of them, the one that all make.

        How many groups make progress side by side is the median of all repeats: a stall while one of two counts is taken would
        make one in twenty of them, or ten.
        """
        processors = float(np.median(self.alone["many"] / self.alone["one"])) if len(self.alone) else 1.0
        known = self.groups.filter(pl.len().over("repeat", "pause_ms", "size") >= _FEWEST_GROUPS)
        by_repeat = [_by_pause(part) for _, part in known.group_by(["repeat"], maintain_order=True)]
        usable = [one for one in by_repeat if 0.0 in one] or [_by_pause(self.groups)]
        return [
            BatchModel(
                fit_groups(one[0.0]),
                {pause_ms / 1e3: fit_groups(part) for pause_ms, part in one.items() if pause_ms},
                processors,
                self.checked,
            )
            for one in usable
        ]


def _by_pause(groups: pl.DataFrame) -> dict[float, pl.DataFrame]:
    """Return groups by the pause before them, in ms, where a line can be laid through their sizes."""
    parts = groups.group_by(["pause_ms"], maintain_order=True)
    return {float(pause_ms): part for (pause_ms,), part in parts if part["size"].n_unique() >= _FEWEST_SIZES}


def fit_groups(groups: pl.DataFrame) -> ServiceTime:
    """Return the line through measured groups: columns size and ms."""
    return ServiceTime.fit(groups["size"].to_numpy(), groups["ms"].to_numpy() / 1e3)


# --- model and measurement -------------------------------------------------------------------------------------------


def beside_measured(measured: Measured) -> pl.DataFrame:
    """Return every lane with what the models say of its arrivals.

    Percentiles are those of the calls of all repeats together, with intervals by order statistics.

    Returns:
        rule, share, rate_per_s, samples, failed, p50_ms and p95_ms, their ends p50_low_ms, p50_high_ms, p95_low_ms, p95_high_ms
        (null where there are too few samples), predicted_p50_ms, predicted_p95_ms, error_p50 and error_p95 (absolute, relative to
        what was measured), spread_p50 and spread_p95 (of half of the repeats against the others, likewise; null where they have
        too few samples), mean_group, predicted_mean_group, calls_saved, predicted_calls_saved. Nothing is predicted, and all
        that follows from it null, where groups outgrow those that were measured.
    """
    models = [dataclasses.replace(model, checked=None) for model in measured.models()]  # this is the check
    rows = []
    for (name, share, rate), part in measured.calls.group_by(["rule", "share", "rate_per_s"], maintain_order=True):
        rule = measured.rules[str(name)]
        lanes = [lane for _, lane in part.group_by(["repeat"], maintain_order=True)]
        counted = part.filter(~pl.col("warm_up"))
        row: dict[str, Any] = {
            "rule": name,
            "share": share,
            "rate_per_s": rate,
            "samples": len(counted),
            "failed": int((part["outcome"] != "ok").sum()),
        }
        seen = [lane.filter(~pl.col("warm_up") & (pl.col("outcome") == "ok"))["response_ms"].to_numpy() for lane in lanes]
        told = _predicted(_knowing(models, rule), rule, lanes)
        for label, q in _Q.items():
            found = stats.percentile(np.concatenate(seen), q)
            said = float(np.quantile(told[0], q)) if told is not None else None
            row |= {
                **_ends(label, found),
                f"predicted_{label}_ms": said,
                f"spread_{label}": _spread(seen, q),
                f"error_{label}": abs(said / found.value - 1) if said is not None and found.value is not None else None,
            }
        row |= {
            "mean_group": float(np.mean(counted["batch_size"].to_numpy())),
            "predicted_mean_group": float(np.mean(told[1])) if told is not None else None,
            "calls_saved": _calls_saved(counted),
            "predicted_calls_saved": 1 - float(np.mean(1 / told[1])) if told is not None else None,
        }
        rows.append(row)
    names = [f"{kind}{label}{unit}" for label in _Q for kind, unit in (("", "_ms"), ("error_", ""), ("spread_", ""))]
    names += [f"{label}_{end}_ms" for label in _Q for end in ("low", "high")]
    names += [f"predicted_{name}" for name in ("p50_ms", "p95_ms", "mean_group", "calls_saved")]
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=dict.fromkeys(names, pl.Float64)).sort(
        "rate_per_s", "rule"
    )


def _ends(label: str, found: stats.Interval) -> dict[str, float | None]:
    return {f"{label}_ms": found.value, f"{label}_low_ms": found.low, f"{label}_high_ms": found.high}


def _calls_saved(calls: pl.DataFrame) -> float:
    return 1 - float(np.mean(1 / calls["batch_size"].to_numpy()))


def _knowing(models: Sequence[BatchModel], rule: Rule) -> Sequence[BatchModel]:
    """Return the models that know groups as large as a rule may send; all where there is none."""
    return [model for model in models if model.service.most >= rule.limit] or models


def _predicted(models: Sequence[BatchModel], rule: Rule, lanes: Sequence[pl.DataFrame]) -> tuple[Floats, Ints] | None:
    """Return response times, in ms, and group sizes of every repeat's arrivals under every model, warm-up left out.

    None where groups outgrow those that were measured.
    """
    response_ms, group_size = [], []
    for model, (seed, lane) in itertools.product(models, enumerate(lanes)):
        took_s, sizes = _play(model, rule, lane["due_s"].to_numpy(), seed)
        if sizes.max() > model.service.most:
            return None
        counts = ~lane["warm_up"].to_numpy()
        response_ms.append(took_s[counts] * 1e3)
        group_size.append(sizes[counts])
    return np.concatenate(response_ms), np.concatenate(group_size)


def _play(model: BatchModel, rule: Rule, at_s: Floats, seed: int) -> tuple[Floats, Ints]:
    """Return response times, in s, and group sizes of a lane's calls.

    A window that follows an objective has followed it through other lanes before: its lane is played twice, and the second
    counts.
    """
    if rule.objective_ms is None:
        found = model.play(rule, at_s, seed=seed)
        return found.response_s, found.group_size
    again_s = at_s[-1] + (at_s[-1] - at_s[0]) / max(len(at_s) - 1, 1)
    found = model.play(rule, np.concatenate([at_s, at_s - at_s[0] + again_s]), seed=seed)
    return found.response_s[len(at_s) :], found.group_size[len(at_s) :]


def _spread(repeats: Sequence[Floats], q: float) -> float | None:
    """Return by how much a percentile differs from half to half of the repeats, relative to the smaller one.

    The median of ways to halve them; None where a half has too few samples.
    """
    every = set(range(len(repeats)))
    off = []
    for chosen in itertools.islice(
        itertools.combinations(range(len(repeats)), len(repeats) // 2), _SPLITS if len(every) > 1 else 0
    ):
        one, other = (
            stats.percentile(np.concatenate([repeats[place] for place in side]), q).value
            for side in (chosen, sorted(every - {*chosen}))
        )
        if one is not None and other is not None:
            off.append(max(one, other) / min(one, other) - 1)
    return float(np.median(off)) if off else None


# --- the race --------------------------------------------------------------------------------------------------------


Calls = Mapping[int, pl.DataFrame]
"""Answered calls of a lane by repeat, warm-up left out."""


def race(measured: Measured, compared: pl.DataFrame) -> list[dict[str, Any]]:
    """Return by rate the window that follows an objective, the best fixed one, and the best lane that sends at once when idle.

    Which one is best is chosen for each repeat by all others, so that no rule is judged by the calls that chose it.

    Returns:
        a table for each rate: share, rate_per_s, and `aimd`, `fixed`, `adaptive`, each with rule (the one that was chosen most
        often), chosen (in so many repeats), repeats, p95_ms with p95_low_ms and p95_high_ms, calls_saved and keeps (the
        objective); fixed and adaptive are the best by p95. `keeping`: the same of the fixed window that saves most calls of those
        that keep the objective; None where the repeats that choose have none. `ratio`, `ratio_adaptive`: p95 of aimd and of
        adaptive over that of fixed; `ratio_calls`: calls into storage of aimd over those of keeping, or None; with intervals over
        repeats, paired. Rates at which one of them has no p95, or a single repeat, are left out.
    """
    found = []
    for (rate,), lanes in compared.filter(pl.col("p95_ms").is_not_null()).group_by(["rate_per_s"], maintain_order=True):
        of = _by_repeat(measured, rate)
        kinds = {kind: {name: of[name] for name in lanes["rule"] if name.startswith(kind)} for kind in (AIMD, FIXED, ADAPTIVE)}
        repeats = sorted(set.intersection(*(set(calls) for named in kinds.values() for calls in named.values())))
        if len(repeats) < _FEWEST_REPEATS or not all(kinds.values()):
            continue
        aimd, fixed, adaptive = (_chosen(named, repeats, _p95) for named in kinds.values())
        if aimd is None or fixed is None or adaptive is None:
            continue
        keeping = _chosen(kinds[FIXED], repeats, lambda calls: _calls_if_kept(calls, measured.objective_ms))
        found.append(
            {
                "share": lanes["share"][0],
                "rate_per_s": rate,
                "aimd": aimd.told(measured.objective_ms),
                "fixed": fixed.told(measured.objective_ms),
                "adaptive": adaptive.told(measured.objective_ms),
                "keeping": keeping.told(measured.objective_ms) if keeping is not None else None,
                "ratio": _ratio(fixed.calls, aimd.calls, 0.95),
                "ratio_adaptive": _ratio(fixed.calls, adaptive.calls, 0.95),
                "ratio_calls": _calls_ratio(keeping.calls, aimd.calls) if keeping is not None else None,
            }
        )
    return found


@dataclasses.dataclass(frozen=True)
class _Racer:
    """The best rule of a kind: names and calls by repeat, each of the rule that the other repeats chose."""

    names: Sequence[str]
    calls: Calls

    def told(self, objective_ms: float) -> dict[str, Any]:
        (rule, chosen), *_ = Counter(self.names).most_common()
        every = pl.concat(self.calls.values())
        p95 = stats.percentile(every["response_ms"].to_numpy(), 0.95)
        return {
            "rule": rule,
            "chosen": chosen,
            "repeats": len(self.names),
            **_ends("p95", p95),
            "calls_saved": _calls_saved(every),
            "keeps": p95.value is not None and p95.value <= objective_ms,
        }


def _chosen(lanes: Mapping[str, Calls], repeats: Sequence[int], cost: Callable[[pl.DataFrame], float]) -> _Racer | None:
    """Return for each repeat the rule that costs least in all others; None where a repeat finds none of finite cost there."""
    names = []
    for repeat in repeats:
        costs = {name: cost(pl.concat([calls[one] for one in repeats if one != repeat])) for name, calls in lanes.items()}
        best = min(costs, key=costs.__getitem__)
        if costs[best] == math.inf:
            return None
        names.append(best)
    return _Racer(names, {repeat: lanes[name][repeat] for repeat, name in zip(repeats, names, strict=True)})


def _p95(calls: pl.DataFrame) -> float:
    value = stats.percentile(calls["response_ms"].to_numpy(), 0.95).value
    return math.inf if value is None else value


def _calls_if_kept(calls: pl.DataFrame, objective_ms: float) -> float:
    """Return calls into storage for each call, infinite where the objective is not kept."""
    return 1 - _calls_saved(calls) if _p95(calls) <= objective_ms else math.inf


def _by_repeat(measured: Measured, rate: Any) -> dict[str, dict[int, pl.DataFrame]]:
    """Return the answered calls at a rate by rule and repeat: response_ms and batch_size."""
    calls = measured.calls.filter((pl.col("rate_per_s") == rate) & ~pl.col("warm_up") & (pl.col("outcome") == "ok"))
    of: dict[str, dict[int, pl.DataFrame]] = {}
    for (rule, repeat), part in calls.group_by(["rule", "repeat"], maintain_order=True):
        of.setdefault(str(rule), {})[int(str(repeat))] = part.select("response_ms", "batch_size")
    return of


def _ratio(reference: Calls, candidate: Calls, q: float) -> dict[str, Any]:
    """Return a percentile of the candidate's calls over that of the reference's, in the repeats that both have."""
    both = sorted(reference.keys() & candidate.keys())
    below, above = ([side[repeat]["response_ms"].to_numpy() for repeat in both] for side in (reference, candidate))
    return stats.ratio(below, above, q).to_dict()


def _calls_ratio(reference: Calls, candidate: Calls) -> dict[str, Any]:
    """Return calls into storage for each call of the candidate over those of the reference, in the repeats that both have."""
    both = sorted(reference.keys() & candidate.keys())
    below, above = ([1 / side[repeat]["batch_size"].to_numpy() for repeat in both] for side in (reference, candidate))
    return stats.ratio(below, above, "mean").to_dict()


# --- what was asked for ----------------------------------------------------------------------------------------------


def asked_for(models: Sequence[BatchModel], rule: Rule, *, steps: int = 10, seed: int = 1) -> dict[str, Any]:
    """Return where batching keeps what is asked of it, by the models: arrival rates in calls/s, the median over models.

    Returns:
        calls_saved_from: lowest rate at which 90 % of the calls into storage are saved, None where none in range does it;
        latency_cut_from: lowest rate at which p95 is at most half of that without batching, None likewise; only_delays_below:
        the highest rate up to which p50 is above that without batching, None where it never is; alone_per_s: what calls alone can
        do, beyond which there is no p95 without batching; untold_from: the rate from which on groups outgrow those that were
        measured, so that nothing is said, None where they never do.
    """
    models = _knowing(models, rule)
    free = [dataclasses.replace(model, checked=None) for model in models]
    alone = float(np.median([model.service.capacity_per_s(1) * model.processors for model in models]))
    batched = float(np.median([model.service.capacity_per_s(min(rule.limit, model.service.most)) for model in models]))
    checked = models[0].checked
    low, high = checked.rate_per_s if checked is not None else (0.1 * alone, 0.9 * batched)
    found: dict[str, Any] = {
        "alone_per_s": alone,
        "calls_saved_from": None,
        "latency_cut_from": None,
        "only_delays_below": None,
        "untold_from": None,
    }
    for rate in np.geomspace(low, max(low, min(high, 0.95 * batched)), steps).tolist():
        at_s = arrivals.poisson(rate, _PLAYED / rate, seed)
        told = _told(free, rule, at_s, seed)
        if told is None:
            found["untold_from"] = rate
            break
        if np.median([one.calls_saved for one in told]) >= CALLS_SAVED and found["calls_saved_from"] is None:
            found["calls_saved_from"] = rate
        if rate >= alone:
            continue  # without batching the queue only grows
        without = [model.predict(Rule(0.0, 1, in_flight=rule.in_flight), at_s, seed=seed) for model in free]  # groups of one
        cut = 1 - _median_of(told, "p95_ms") / _median_of(without, "p95_ms")
        if cut >= LATENCY_CUT[0] and found["latency_cut_from"] is None:
            found["latency_cut_from"] = rate
        if _median_of(told, "p50_ms") > _median_of(without, "p50_ms"):
            found["only_delays_below"] = rate
    return found


def _told(models: Sequence[BatchModel], rule: Rule, at_s: Floats, seed: int) -> list[Prediction] | None:
    """Return what each model predicts; None where groups of one of them outgrow those that were measured."""
    try:
        return [model.predict(rule, at_s, seed=seed) for model in models]
    except MemlabError as error:
        if error.reason != "range":
            raise
        return None


def _median_of(told: Sequence[Any], name: str) -> float:
    return float(np.median([getattr(one, name) for one in told]))


def promises(measured: Measured, compared: pl.DataFrame, asked: Mapping[str, Any], rule: str) -> dict[str, Any]:
    """Return what a rule keeps at the measured rates, beside what the models say of them.

    Returns:
        `rates`: a table for each measured rate of the rule: share, rate_per_s, calls_saved, predicted_calls_saved; and where
        calls alone keep up: p95_over_none and p50_over_none, ratios paired by repeat with intervals, and both as `predicted_…`.
        `nearest`: for each figure of *asked* that is a rate, the measured rate next to it and what was measured there.
    """
    lanes = {(row["rule"], row["rate_per_s"]): row for row in compared.to_dicts()}
    rates: list[dict[str, Any]] = []
    for row in compared.filter(pl.col("rule") == rule).sort("rate_per_s").to_dicts():
        rate = row["rate_per_s"]
        none = lanes.get((NONE, rate))
        of = _by_repeat(measured, rate)
        one = {key: row[key] for key in ("share", "rate_per_s", "calls_saved", "predicted_calls_saved")}
        for label, q in _Q.items():
            known = none is not None and none[f"{label}_ms"] is not None and row[f"{label}_ms"] is not None
            one[f"{label}_over_none"] = _ratio(of[NONE], of[rule], q) if known else None
            said = row[f"predicted_{label}_ms"], none and none[f"predicted_{label}_ms"]
            one[f"predicted_{label}_over_none"] = said[0] / said[1] if None not in said else None
        rates.append(one)
    figure = {"calls_saved_from": "calls_saved", "latency_cut_from": "p95_over_none", "only_delays_below": "p50_over_none"}
    nearest: dict[str, dict[str, Any] | None] = {}
    for name, shown in figure.items():
        there = [one for one in rates if one[shown] is not None]
        if asked[name] is not None and there:
            one = min(there, key=lambda one: abs(math.log(one["rate_per_s"] / asked[name])))
            nearest[name] = {"rate_per_s": one["rate_per_s"], shown: one[shown]}
        else:
            nearest[name] = None
    return {"rates": rates, "nearest": nearest}


def _speeds(measured: Measured) -> Iterator[tuple[int, list[float], list[float]]]:
    """Yield every size with what its groups answered a second over calls one by one, by repeat; and over as many as at once."""
    usual = measured.groups.filter(pl.col("pause_ms") == 0).group_by("repeat", "size").agg(pl.col("ms").median()).sort("size")
    at_once = {row["repeat"]: row["many"] / row["one"] for row in measured.alone.to_dicts()}
    ones = dict(usual.filter(pl.col("size") == 1).select("repeat", "ms").iter_rows())
    for (size,), part in usual.group_by(["size"], maintain_order=True):
        rows = [
            (repeat, size * ones[repeat] / ms)
            for repeat, ms in part.select("repeat", "ms").sort("repeat").iter_rows()
            if repeat in ones
        ]
        yield int(size), [speed for _, speed in rows], [speed / at_once.get(repeat, 1.0) for repeat, speed in rows]


# --- all of it -------------------------------------------------------------------------------------------------------


def summarise(measured: Measured, compared: pl.DataFrame, *, size: str, memories: int, seed: int = 1) -> dict[str, Any]:
    """Return every figure that a document shows, plain; intervals are tables of value, low and high.

    Returns:
        size, finding, operation, memories, repeats, objective_ms, rules, failed. `error` of p50 and p95: median and worst over
        the lanes with enough samples, spread (the measurement's own), and how many lanes. `lanes`: the rows of *compared*.
        `groups` by size: flow_ms and rested_ms (medians; after the longest pause), speed_up (calls a second over one call after
        the other), speed_up_at_once (over as many at once as the pool lets), batch_cut (what a batch takes less than its calls
        one after the other). `race`. `asked` by rule: what the models say, with `rates` and `nearest` of `promises`.
        `verdict`: better where the models tell p95 as closely as was asked for.
    """
    repeats = measured.calls["repeat"].n_unique()
    may_find = size != "smoke" and repeats >= _FINDING
    models = measured.models()
    groups = {}
    for members, over_one, over_many in _speeds(measured):
        part = measured.groups.filter(pl.col("size") == members)
        groups[str(members)] = {
            "flow_ms": _usual(part.filter(pl.col("pause_ms") == 0)),
            "rested_ms": _usual(part.filter((pl.col("pause_ms") > 0) & (pl.col("pause_ms") == part["pause_ms"].max()))),
            "speed_up": stats.mean([[one] for one in over_one]).to_dict(),
            "speed_up_at_once": stats.mean([[one] for one in over_many]).to_dict(),
            "batch_cut": stats.mean([[1 - 1 / one] for one in over_one]).to_dict(),
        }
    raced = race(measured, compared)
    asked = {}
    for kind in (ADAPTIVE, FIXED):
        name = _representative(measured.rules, kind)
        said = asked_for(models, measured.rules[name], seed=seed)
        asked[kind] = {"rule": name, **said, **promises(measured, compared, said, name)}
    error = {label: _errors(compared, label) for label in _Q}
    close = error["p95"]["median"] is not None and error["p95"]["median"] <= MODEL_ERROR
    held = "smoke" if size == "smoke" else "too few" if not may_find or error["p95"]["median"] is None else None
    return {
        "size": size,
        "finding": may_find,
        "operation": measured.operation,
        "memories": memories,
        "repeats": repeats,
        "objective_ms": measured.objective_ms,
        "rules": list(measured.rules),
        "failed": int(compared["failed"].sum()),
        "error": error,
        "lanes": compared.to_dicts(),
        "groups": groups,
        "race": raced,
        "asked": asked,
        "verdict": held or ("better" if close else "no difference seen"),
    }


def _usual(part: pl.DataFrame) -> dict[str, Any]:
    medians = part.group_by("repeat").agg(pl.col("ms").median()).sort("repeat")["ms"].to_list()
    return stats.mean([[one] for one in medians]).to_dict()


def _errors(compared: pl.DataFrame, label: str) -> dict[str, Any]:
    known = compared.drop_nulls(f"error_{label}")
    spread = known[f"spread_{label}"].drop_nulls()
    return {
        "median": known[f"error_{label}"].median(),
        "worst": known[f"error_{label}"].max(),
        "spread": spread.median() if len(spread) else None,
        "lanes": len(known),
    }


def _representative(rules: Mapping[str, Rule], kind: str) -> str:
    """Return the rule of a kind that speaks for it: the largest limit, and of those the window in the middle."""
    named = sorted((name for name in rules if name.startswith(kind)), key=lambda name: (rules[name].limit, rules[name].window_ms))
    largest = [name for name in named if rules[name].limit == rules[named[-1]].limit]
    return largest[0] if kind == ADAPTIVE else largest[len(largest) // 2]
