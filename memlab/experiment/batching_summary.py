"""What measured groups and lanes say: how far the model is off, who wins the race, and where batching keeps what was asked of it.

Repeats of a busy host differ more than calls of one repeat do, so nothing is pooled over them: the groups of each repeat make a
model of their own, and a figure is the median over repeats, measured as well as predicted. How far the measurement itself is off
is told the same way, by half of the repeats against the other half: no model can be held to less.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.measure import stats
from memlab.predict.group_commit import BatchModel, Checked, Rule, ServiceTime
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

_FEWEST = {"p50": 20, "p95": 200}  # samples
_Q = {"p50": 0.5, "p95": 0.95}
_FEWEST_SIZES = 2  # that a line can be laid through
_FEWEST_GROUPS = 3  # of a size: clients that fell out of step travel in other sizes, and the few of this one met a stall
_SPLITS = 40
_PLAYED = 1_000  # calls of a lane that is played at a rate that nobody measured
_FINDING = 5  # repeats


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

    Percentiles are medians over repeats, or over as many in a row as have enough calls for one.

    Returns:
        rule, share, rate_per_s, samples, failed, p50_ms and p95_ms (null where there are too few samples), predicted_p50_ms,
        predicted_p95_ms, error_p50 and error_p95 (absolute, relative to what was measured), spread_p50 and spread_p95 (of half of
        the repeats against the others, likewise; null where they have too few samples), mean_group, predicted_mean_group,
        calls_saved, predicted_calls_saved.
    """
    models = [dataclasses.replace(model, checked=None) for model in measured.models()]  # this is the check
    rows = []
    for (name, share, rate), part in measured.calls.group_by(["rule", "share", "rate_per_s"], maintain_order=True):
        rule = measured.rules[str(name)]
        lanes = [lane for _, lane in part.group_by(["repeat"], maintain_order=True)]
        kept = [~lane["warm_up"].to_numpy() for lane in lanes]
        # Every repeat's arrivals under every repeat's model; [model][repeat].
        plays = [[_play(model, rule, lane["due_s"].to_numpy(), seed) for seed, lane in enumerate(lanes)] for model in models]
        counted = part.filter(~pl.col("warm_up"))
        row: dict[str, Any] = {
            "rule": name,
            "share": share,
            "rate_per_s": rate,
            "samples": len(counted),
            "failed": int((part["outcome"] != "ok").sum()),
        }
        seen = [lane.filter(~pl.col("warm_up") & (pl.col("outcome") == "ok"))["response_ms"].to_numpy() for lane in lanes]
        told = [[response_s[keep] * 1e3 for (response_s, _), keep in zip(of, kept, strict=True)] for of in plays]
        for label, q in _Q.items():
            blocks = _blocks([len(one) for one in seen], _FEWEST[label])
            known = _percentiles(seen, blocks, q)
            said = [value for of in told for value in _percentiles(of, blocks or [range(len(of))], q)]
            row |= {
                f"{label}_ms": float(np.median(known)) if known else None,
                f"predicted_{label}_ms": float(np.median(said)),
                f"spread_{label}": _spread(known),
            }
            row[f"error_{label}"] = abs(row[f"predicted_{label}_ms"] / row[f"{label}_ms"] - 1) if known else None
        sizes = [group_size[keep] for of in plays for (_, group_size), keep in zip(of, kept, strict=True)]
        row |= {
            "mean_group": float(np.mean(counted["batch_size"].to_numpy())),
            "predicted_mean_group": float(np.mean(np.concatenate(sizes))),
            "calls_saved": 1 - float((1 / counted["batch_size"]).mean() or 1.0),  # type: ignore[arg-type]
            "predicted_calls_saved": 1 - float(np.mean(1 / np.concatenate(sizes))),
        }
        rows.append(row)
    nullable = [f"{kind}{label}{unit}" for label in _Q for kind, unit in (("", "_ms"), ("error_", ""), ("spread_", ""))]
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=dict.fromkeys(nullable, pl.Float64)).sort(
        "rate_per_s", "rule"
    )


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


def _blocks(counts: Sequence[int], fewest: int) -> list[range]:
    """Return runs of repeats that have so many samples each; empty where all together have fewer."""
    found: list[range] = []
    start = 0
    for end in range(1, len(counts) + 1):
        if sum(counts[start:end]) >= fewest:
            found.append(range(start, end))
            start = end
    if found and start < len(counts):
        found[-1] = range(found[-1].start, len(counts))
    return found


def _percentiles(repeats: Sequence[Floats], blocks: Sequence[range], q: float) -> list[float]:
    return [float(np.quantile(np.concatenate([repeats[one] for one in block]), q)) for block in blocks]


def _spread(values: Sequence[float]) -> float | None:
    """Return by how much the medians of two halves differ, relative to the smaller, at the median of ways to halve them."""
    half = len(values) // 2
    if not half:
        return None
    every = set(range(len(values)))
    off = []
    for chosen in itertools.islice(itertools.combinations(range(len(values)), half), _SPLITS):
        one, other = (float(np.median([values[place] for place in side])) for side in (chosen, sorted(every - {*chosen})))
        off.append(max(one, other) / min(one, other) - 1)
    return float(np.median(off))


# --- the race --------------------------------------------------------------------------------------------------------


def race(measured: Measured, compared: pl.DataFrame) -> list[dict[str, Any]]:
    """Return by rate the window that follows an objective, the best fixed one, and the best lane that sends at once when idle.

    Returns:
        a table for each rate: share, rate_per_s, and `aimd`, `fixed`, `adaptive`, each with rule, p95_ms, calls_saved and keeps
        (the objective); fixed and adaptive are the best by p95. `keeping`: the fixed window that saves most calls of those that
        keep the objective, or None. `ratio`, `ratio_adaptive`: p95 of aimd and of adaptive over that of fixed, with intervals
        over repeats. Rates at which one of them has no p95 are left out.
    """
    found = []
    for (rate,), lanes in compared.filter(pl.col("p95_ms").is_not_null()).group_by(["rate_per_s"], maintain_order=True):
        rows = [
            {**{key: row[key] for key in ("rule", "p95_ms", "calls_saved")}, "keeps": row["p95_ms"] <= measured.objective_ms}
            for row in lanes.sort("p95_ms").to_dicts()
        ]
        best = {kind: next((row for row in rows if row["rule"].startswith(kind)), None) for kind in (AIMD, FIXED, ADAPTIVE)}
        aimd, fixed, adaptive = best.values()
        if aimd is None or fixed is None or adaptive is None:
            continue
        keeping = [row for row in rows if row["rule"].startswith(FIXED) and row["keeps"]]
        found.append(
            {
                "share": lanes["share"][0],
                "rate_per_s": rate,
                "aimd": aimd,
                "fixed": fixed,
                "adaptive": adaptive,
                "keeping": max(keeping, key=lambda row: row["calls_saved"], default=None),
                "ratio": _ratio(measured, rate, fixed["rule"], aimd["rule"]),
                "ratio_adaptive": _ratio(measured, rate, fixed["rule"], adaptive["rule"]),
            }
        )
    return found


def _ratio(measured: Measured, rate: Any, reference: str, candidate: str, q: float = 0.95) -> dict[str, Any]:
    lanes = measured.calls.filter((pl.col("rate_per_s") == rate) & ~pl.col("warm_up") & (pl.col("outcome") == "ok"))
    sides = [
        [
            part["response_ms"].to_numpy()
            for _, part in lanes.filter(pl.col("rule") == name).group_by(["repeat"], maintain_order=True)
        ]
        for name in (reference, candidate)
    ]
    both = min(map(len, sides))
    return stats.ratio(sides[0][:both], sides[1][:both], q).to_dict()


# --- what was asked for ----------------------------------------------------------------------------------------------


def asked_for(models: Sequence[BatchModel], rule: Rule, *, steps: int = 10, seed: int = 1) -> dict[str, Any]:
    """Return where batching keeps what is asked of it, by the models: arrival rates in calls/s, the median over models.

    Returns:
        calls_saved_from: lowest rate at which 90 % of the calls into storage are saved, None where none in range does it;
        latency_cut_from: lowest rate at which p95 is at most half of that without batching, None likewise; only_delays_below:
        the highest rate up to which p50 is above that without batching, None where it never is; alone_per_s: what calls alone can
        do, beyond which there is no p95 without batching.
    """
    free = [dataclasses.replace(model, checked=None) for model in models]
    alone = float(np.median([model.service.capacity_per_s(1) * model.processors for model in models]))
    batched = float(np.median([model.service.capacity_per_s(rule.limit) for model in models]))
    checked = models[0].checked
    low, high = checked.rate_per_s if checked is not None else (0.1 * alone, 0.9 * batched)
    found: dict[str, Any] = {
        "alone_per_s": alone,
        "calls_saved_from": None,
        "latency_cut_from": None,
        "only_delays_below": None,
    }
    for rate in np.geomspace(low, max(low, min(high, 0.95 * batched)), steps).tolist():
        at_s = arrivals.poisson(rate, _PLAYED / rate, seed)
        told = [model.predict(rule, at_s, seed=seed) for model in free]
        if np.median([one.calls_saved for one in told]) >= CALLS_SAVED and found["calls_saved_from"] is None:
            found["calls_saved_from"] = rate
        if rate >= alone:
            continue  # without batching the queue only grows
        without = [model.predict(Rule(0.0, 1, in_flight=rule.in_flight), at_s, seed=seed) for model in free]
        cut = 1 - _median_of(told, "p95_ms") / _median_of(without, "p95_ms")
        if cut >= LATENCY_CUT[0] and found["latency_cut_from"] is None:
            found["latency_cut_from"] = rate
        if _median_of(told, "p50_ms") > _median_of(without, "p50_ms"):
            found["only_delays_below"] = rate
    return found


def _median_of(told: Sequence[Any], name: str) -> float:
    return float(np.median([getattr(one, name) for one in told]))


def promises(measured: Measured, compared: pl.DataFrame, asked: Mapping[str, Any], rule: str) -> dict[str, Any]:
    """Return what a rule keeps at the measured rates, beside what the models say of them.

    Returns:
        `rates`: a table for each measured rate of the rule: share, rate_per_s, calls_saved, predicted_calls_saved; and where
        calls alone keep up: p95_over_none and p50_over_none, ratios with intervals over repeats, and both as `predicted_…`.
        `nearest`: for each figure of *asked* that is a rate, the measured rate next to it and what was measured there.
    """
    lanes = {(row["rule"], row["rate_per_s"]): row for row in compared.to_dicts()}
    rates = []
    for row in compared.filter(pl.col("rule") == rule).sort("rate_per_s").to_dicts():
        rate = row["rate_per_s"]
        none = lanes.get((NONE, rate))
        one = {key: row[key] for key in ("share", "rate_per_s", "calls_saved", "predicted_calls_saved")}
        for label, q in _Q.items():
            known = none is not None and none[f"{label}_ms"] is not None and row[f"{label}_ms"] is not None
            one[f"{label}_over_none"] = _ratio(measured, rate, NONE, rule, q) if known else None
            one[f"predicted_{label}_over_none"] = (
                row[f"predicted_{label}_ms"] / none[f"predicted_{label}_ms"] if none is not None else None
            )
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
        `race_verdict`; and `verdict`: better where the models tell p95 as closely as was asked for.
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
        "race_verdict": held or _race_verdict(raced),
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


def _race_verdict(raced: Sequence[Mapping[str, Any]]) -> str:
    """Return what the ratios of the window that follows an objective to the best fixed one say together."""
    if not raced:
        return "too few"
    said = {stats.verdict(_interval(one["ratio"]), smaller_is_better=True) for one in raced}
    return "worse" if "worse" in said else "better" if "better" in said else "no difference seen"


def _interval(found: Mapping[str, Any]) -> stats.Interval:
    return stats.Interval(**found)
