"""Where models say that a search should begin, and what they say that it will find there.

The traffic of the task says how large a cache pays (`predict.miss_ratio`, its knee); a few measured groups of the searches say
what windows, limits and pools do to those that miss (`predict.what_if` over `predict.group_commit`); how many groups make
progress side by side, and the number of memories, decide the rest. What was measured for it takes no longer than two evaluations
of the search would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from memlab.errors import MemlabError
from memlab.experiment import what_if
from memlab.measure import host
from memlab.operations.registry import lookup
from memlab.predict.group_commit import BatchModel
from memlab.predict.miss_ratio import Accesses, Curve, miss_ratio_curve
from memlab.predict.what_if import Choice, Pieces, Play, table
from memlab.settings import Settings
from memlab.workload.spec import Workload

COST = 2
"""Evaluations of a search that the models may take, and count for."""

_WINDOWS_MS = (None, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
_LIMITS = (16, what_if.LIMIT)
_ENTRIES = (16, 65_536)  # what the search tries
_LANES = 6  # closed loops of `what_if.measure`
_LONGEST_S, _SHORTEST_S, _WARM_S = 0.3, 0.08, 0.05
_AS_GOOD = 1.02
_HIT_S = 1e-4  # of a hit, before any was measured
_FIGURES = ("p50", "p95", "mean")


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that a model proposes.

    Attributes:
        by: which models, in a few words.
        says: why, in a sentence.
        parameters: of a trial of the search.
        predicted: what they would do: by objective the ratio to the defaults; and `hit_ratio`.
    """

    by: str
    says: str
    parameters: dict[str, Any]
    predicted: dict[str, float]


def propose(
    workload: Workload, objective: str, *, seed: int = 1, repeats: int = 3, data: str | Path | None = None
) -> list[Proposal]:
    """Return what the models propose for a workload; nothing where they cannot speak of it.

    Args:
        objective: the first of the task: what is made small, of those that are times; for others the mean.
        repeats: of an evaluation, whose traffic the models look at and whose length bounds what they measure.
        data: folder of conversations in place of the generated corpus.
    """
    searches = {name: weight for name, weight in workload.mix.items() if weight > 0 and _searches(name)}
    if not searches or not workload.is_open:
        return []
    busiest = max(searches, key=lambda name: searches[name])
    alone = msgspec.structs.replace(
        workload, mix={busiest: 1.0}, parameters={name: given for name, given in workload.parameters.items() if name == busiest}
    )
    index = _index(workload)
    try:
        asked = what_if.plays(workload, seed=seed, repeats=repeats, data=data)
        lane = what_if.measure(alone, [index], seed=seed, closed_s=_closed_s(workload, repeats), data=data)[index]
    except MemlabError:  # too little traffic, or groups that did not form: models that cannot be fitted propose nothing
        return []
    return proposals(lane, asked, index=index, objective=objective)


def proposals(lane: BatchModel, asked: Sequence[Play], *, index: str, objective: str) -> list[Proposal]:
    """Return the best settings by the models: of all, with a cache as large as the knee says, and without one.

    Args:
        lane: what groups take.
        asked: the traffic.
        index: the kind that *lane* was measured on.
        objective: see `propose`.
    """
    figure = f"{objective}_ms" if objective in _FIGURES else "mean_ms"
    cores = int(host.host()["cores"])
    least, most_entries = _ENTRIES
    knee = min(max(_curve(asked).knee().max_entries, least), most_entries)
    every = len(np.unique(np.concatenate([play.keys for play in asked])))
    sizes = sorted({knee, min(max(knee, every), most_entries)})
    most = lane.service.most
    rows: list[dict[str, Any]] = []
    for window, limit in ((window, limit) for window in _WINDOWS_MS for limit in _LIMITS if limit <= most):
        choices = [Choice(size, window, cores, index) for size in (None, *sizes)]
        told = table(Pieces({index: lane}, np.array([_HIT_S]), limit), asked, choices)
        rows += [{**row, "limit": limit} for row in told.to_dicts() if row[figure] is not None]
    before = _defaults(lane, asked, index)
    found: list[Proposal] = []
    for by, fits in (
        ("all models", lambda row: True),
        ("models at the knee", lambda row: row["max_entries"] == knee),
        ("models without a cache", lambda row: row["max_entries"] is None),
    ):
        known = [row for row in rows if fits(row)]
        if not known:
            continue
        least = min(row[figure] for row in known)
        # Of what the models cannot tell apart, the smaller cache, and no window where it gains nothing.
        best = min((row for row in known if row[figure] <= least * _AS_GOOD), key=lambda row: row["max_entries"] or 0)
        made = Proposal(
            by=by, says=_says(best, knee, lane, cores), parameters=_parameters(best), predicted=_predicted(best, before)
        )
        if all(made.parameters != one.parameters for one in found):
            found.append(made)
    return found


def _curve(asked: Sequence[Play]) -> Curve:
    stale = [play.stale_at for play in asked if play.stale_at is not None]
    keys = np.concatenate([play.keys for play in asked])
    return miss_ratio_curve(Accesses(keys, stale_at=np.concatenate(stale) if stale else None))


def _defaults(lane: BatchModel, asked: Sequence[Play], index: str) -> dict[str, Any]:
    """Return what the models say of the default settings."""
    usual = Settings()
    choice = Choice(
        usual.cache.max_entries if usual.cache else None,
        usual.batch.window_ms if usual.batch else None,
        usual.pool.limit if usual.pool else len(asked),
        index,
    )
    limit = min(usual.batch.limit if usual.batch else 1, lane.service.most)
    (row,) = table(Pieces({index: lane}, np.array([_HIT_S]), limit), asked, [choice]).to_dicts()
    return row


def _searches(name: str) -> bool:
    return lookup(name).reads and "query" in lookup(name).parameters_type.__struct_fields__


def _index(workload: Workload) -> str:
    """Return the kind of index by size: exact until lists are worth training."""
    return "ivf" if workload.corpus.events >= Settings().index.train_at else "flat"


def _closed_s(workload: Workload, repeats: int) -> float:
    """Return how long each lane may last for all of them to take no longer than the evaluations that they count for."""
    evaluation_s = 2 * (repeats + 1) * (workload.warm_up_s + workload.duration_s)
    return min(_LONGEST_S, max(_SHORTEST_S, COST * evaluation_s / _LANES - _WARM_S))


def _parameters(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"index.kind": row["index"], "cache": row["max_entries"] is not None}
    if found["cache"]:
        found |= {"cache.max_entries": row["max_entries"], "cache.policy": "lru"}
    found["batch"] = row["window_ms"] is not None
    if found["batch"]:
        found |= {"batch.window_ms": row["window_ms"], "batch.limit": row["limit"]}
    return found | {"pool": True, "pool.limit": min(16, row["pool_limit"]), "pool.vector_threads": 1}


def _says(row: Mapping[str, Any], knee: int, lane: BatchModel, cores: int) -> str:
    entries = "no cache" if row["max_entries"] is None else f"a cache of {row['max_entries']:,}"
    window = "no batching" if row["window_ms"] is None else f"a window of {row['window_ms']:g} ms for {row['limit']} at most"
    return (
        f"{knee:,} entries are within a point of the curve's knee; a group takes {lane.service.fixed_s * 1e3:.2g} ms and "
        f"{lane.service.per_call_s * 1e3:.2g} ms a call, {lane.processors:.1f} calls make progress side by side: "
        f"{entries}, {window}, {cores} at once for as many cores"
    )


def _predicted(row: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    found = {"hit_ratio": float(row["hit_ratio"])}
    for name in _FIGURES:
        value, usual = row[f"{name}_ms"], before[f"{name}_ms"]
        if value is not None and usual:
            found[name] = float(value / usual)
    return found
