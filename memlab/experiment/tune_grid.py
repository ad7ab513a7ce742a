"""Every setting of a grid, measured once, and how near a search over them comes to the best with few of their evaluations.

The grid is recorded on the real engine; a search then asks the record in place of the engine, so that many searches can be
judged by one recording. What it asks is answered by the nearest point of the grid. Beside it stands what chance finds with as
many evaluations: a search that comes no nearer is worth nothing.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import polars

from memlab.errors import validation
from memlab.experiment import results, warm_start
from memlab.experiment.comparison import Size
from memlab.experiment.tune import OBJECTIVES, WORTH_MODELS, Evaluate, Measured, Outcome, Task, held_out, tune, values_of
from memlab.experiment.warm_start import Proposal
from memlab.measure import stats
from memlab.settings import Settings
from memlab.workload import spec

# Off is null. Around what the three sweeps swept; the index kinds that differ most.
GRID: Mapping[str, Sequence[Any]] = {
    "index.kind": ("flat", "ivf", "hnsw"),
    "cache.max_entries": (None, 64, 1024),
    "batch.window_ms": (None, 0.0, 2.0),
    "pool.limit": (None, 1, 4),
}
_BATCH_LIMIT = 64
SHARE = 0.2
"""Of a grid's places that a search may ask, as was asked for."""
_BESIDE = 4  # evaluations beside the budget: three are measured again, and one fights the duel
_NEAR = 0.05  # of the best, as was asked for
_DEFAULT = 0.0  # the defaults over themselves, as a logarithm


class Point(msgspec.Struct, frozen=True):
    """A place of the grid and what was measured there.

    Attributes:
        values: settings, dotted keys; None for a section that is off.
    """

    values: dict[str, Any]
    outcome: Outcome


def points_of(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the settings of every place, as `tune` writes settings.

    >>> points_of({"cache.max_entries": (None, 64)})
    [{'cache': None}, {'cache.max_entries': 64}]
    """
    found = []
    for chosen in itertools.product(*grid.values()):
        values: dict[str, Any] = {}
        for name, value in zip(grid, chosen, strict=True):
            section = name.partition(".")[0]
            values |= {section: None} if value is None else {name: value}
            if name == "batch.window_ms" and value is not None:
                values["batch.limit"] = _BATCH_LIMIT
        found.append(values)
    return found


def record(
    grid: Mapping[str, Sequence[Any]],
    evaluate: Evaluate,
    file: Path,
    *,
    repeats: int,
    seed: int,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Point]:
    """Measure every place of *grid* in random order; places that *file* holds are not measured again.

    Args:
        file: JSON lines, one a place; a recording that was stopped goes on from it.
        repeats: of each.
    """
    done = {_name(point.values): point for point in (read(file) if file.exists() else [])}
    waiting = [values for values in points_of(grid) if _name(values) not in done]
    random.Random(seed).shuffle(waiting)  # a host that slows down must not meet one corner of the grid alone
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as lines:
        for place, values in enumerate(waiting, start=1):
            point = Point(values, evaluate(Settings.of(values), repeats=repeats, seed=seed))
            lines.write(msgspec.json.encode(point) + b"\n")
            lines.flush()
            done[_name(values)] = point
            tell(f"{place}/{len(waiting)} recorded")
    return [done[_name(values)] for values in points_of(grid)]


def read(file: Path) -> list[Point]:
    """Return what was recorded; a last line that a stop cut is left out.

    Raises:
        MemlabError: VALIDATION `grid`: it is no recording.
    """
    found: list[Point] = []
    lines = file.read_bytes().split(b"\n")
    for place, line in enumerate(lines):
        try:
            if line:
                found.append(msgspec.json.decode(line, type=Point))
        except msgspec.DecodeError as error:
            if place != len(lines) - 1:
                raise validation("grid", f"'{file}' is no recorded grid: line {place + 1}: {error}") from None
    return found


class Recorded:
    """Answers a search from a recorded grid.

    Attributes:
        asked: the places that were asked, in order, by their index in *points*.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = list(points)
        self._settings = [Settings.of(point.values) for point in points]
        self.asked: list[int] = []

    def __call__(self, settings: Settings, *, repeats: int, seed: int, folder: Path | None = None) -> Outcome:
        self.asked.append(self.nearest(settings))
        return self._points[self.asked[-1]].outcome

    def nearest(self, settings: Settings) -> int:
        """Return the place of the grid that is nearest to *settings*."""
        return min(range(len(self._points)), key=lambda place: _distance(settings, self._settings[place]))


def _distance(one: Settings, other: Settings) -> float:
    """Return how far two settings lie apart; a section on or off, or another kind of index, weighs more than any number."""
    apart = 0.0 if one.index.kind == other.index.kind else 100.0
    for section, figure in (("cache", "max_entries"), ("batch", "window_ms"), ("pool", "limit")):
        mine, theirs = getattr(one, section), getattr(other, section)
        if (mine is None) != (theirs is None):
            apart += 100.0
        elif mine is not None:
            apart += abs(math.log1p(getattr(mine, figure)) - math.log1p(getattr(theirs, figure)))
    return apart


def judge(
    task: Task,
    points: Sequence[Point],
    folder: Path,
    *,
    seeds: Sequence[int],
    share: float = SHARE,
    models: Callable[[], Sequence[Proposal]] | None = None,
) -> polars.DataFrame:
    """Search the recorded grid once for each seed, and return a row a search.

    Args:
        task: its objectives decide; its budget is what *share* of the grid allows.
        folder: in which the searches keep their studies.
        share: of the grid's places that a search may ask, confirmations and duel included.
        models: where the searches begin, as of `tune`.
    Returns:
        seed, evaluations, places (distinct ones that were asked), found (of what the search sent into its duel, whether or not
        that is surely better than the defaults), best (ratio of the first objective to that of the defaults, which count as a
        place), gap (found / best - 1), verdict of the duel, settings (what fought it, as JSON), by (who proposed them), and
        floor: how far the two could lie apart by chance, half the width of the best place's interval.
        Of a random choice of as many places as the search had evaluations, which knows what each is worth: chance, the gap that
        is to be expected, and as_near, how probably it comes as near as the search or nearer.
    """
    first = task.objectives[0]
    values = [point.outcome.value(first) for point in points]
    best = min(range(len(points)), key=lambda place: values[place])
    width = points[best].outcome.ratios[first]
    floor = 0.0 if width.low is None or width.high is None or not width.value else (width.high - width.low) / 2 / width.value
    least = min(values[best], _DEFAULT)
    gaps = sorted(math.exp(min(value, _DEFAULT) - least) - 1 for value in values)
    rows = []
    for seed in seeds:
        recorded = Recorded(points)
        searched = msgspec.structs.replace(task, seed=seed, budget=budget_of(len(points), share))
        tuned = tune(searched, folder, evaluate=recorded, models=models)
        found = min(values[recorded.nearest(Settings.of(tuned.fought))], _DEFAULT)
        gap = math.exp(found - least) - 1
        evaluations = tuned.models_cost + len(recorded.asked)
        chances = _least_of(len(gaps), evaluations)
        rows.append(
            {
                "seed": seed,
                "evaluations": evaluations,
                "places": len(set(recorded.asked)),
                "found": math.exp(found),
                "best": math.exp(least),
                "gap": gap,
                "floor": floor,
                "verdict": tuned.verdict,
                "by": tuned.by,
                "settings": json.dumps(tuned.fought),
                "chance": sum(chance * one for chance, one in zip(chances, gaps, strict=True)),
                "as_near": sum(chance for chance, one in zip(chances, gaps, strict=True) if one <= gap + 1e-12),
            }
        )
    return polars.DataFrame(rows)


def budget_of(places: int, share: float = SHARE) -> int:
    """Return the budget of a search that may ask a share of a grid, confirmations and duel included.

    >>> budget_of(81)
    12
    """
    return max(4, int(share * places) - _BESIDE)


def _least_of(places: int, drawn: int) -> list[float]:
    """Return how probably each of so many ranked places is the best of some that are drawn at random.

    >>> [round(one, 3) for one in _least_of(4, 2)]
    [0.5, 0.333, 0.167, 0.0]
    """
    drawn = min(drawn, places)
    return [math.comb(places - rank - 1, drawn - 1) / math.comb(places, drawn) for rank in range(places)]


def frame(points: Sequence[Point], objective: str) -> polars.DataFrame:
    """Return a row a place: its settings as text, and the objective's ratio with its interval, the best first."""
    rows = []
    for point in points:
        ratio: stats.Interval = point.outcome.ratios[objective]
        rows.append({"settings": _name(point.values), "value": ratio.value, "low": ratio.low, "high": ratio.high})
    schema = dict.fromkeys(("value", "low", "high"), polars.Float64)
    return polars.DataFrame(rows, schema_overrides=schema).sort("value", nulls_last=True)


def _name(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'off' if value is None else value}" for name, value in sorted(values.items()))


# --- a point of a sweep -----------------------------------------------------------------------------------------------


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: of the grid its best; of the searches gap, floor, and what chance would have found; of the models what they said
            and what was measured; of the duel its ratio. Verdicts.
        places: every place of the grid, the best first; see `frame`.
        searches: a row a search; see `judge`.
    """

    summary: dict[str, Any]
    places: polars.DataFrame
    searches: polars.DataFrame


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    repeats: int = 5,
    size: str = "smoke",
    grid: Mapping[str, Sequence[Any]] | None = None,
    objective: str = "mean",
    searches: int = 5,
    recording: str | Path | None = None,
    out: str | Path | None = None,
) -> Judged:
    """Record a grid, judge searches by it, and let what the first one found meet the defaults once more; a point's notebook.

    Args:
        point: of it only the place in a sweep counts: what is swept is the grid of settings.
        workload: as a params file has it.
        repeats: of every setting.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        grid: settings by dotted key, None for a section that is off; default: `GRID`.
        searches: how many, each with a seed of its own.
        recording: file that keeps the grid, so that a recording that was stopped goes on.
        out: existing folder for places.parquet, searches.parquet and summary.json; None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit.
    """
    if size not in get_args(Size):
        raise validation("params", f"size = {size!r}; give {' or '.join(get_args(Size))}")
    if searches < 1:
        raise validation("params", f"searches = {searches}; give 1 or more")
    chosen = GRID if grid is None else grid
    for values in points_of(chosen):
        Settings.of(values)
    task = Task(workload=spec.workload(workload), objectives=(objective,), repeats=repeats, seed=seed, size=cast(Size, size))
    with tempfile.TemporaryDirectory(prefix="memlab-tune-", ignore_cleanup_errors=True) as folder:
        measured = Measured(task, Path(folder))
        file = Path(folder) / "grid.jsonl" if recording is None else Path(recording)
        proposed = _proposals(task, len(points_of(chosen)))
        points = record(chosen, measured, file, repeats=repeats, seed=seed)
        told = [(one, measured(Settings.of(values_of(one.parameters)), repeats=repeats, seed=seed)) for one in proposed]
        judged = judge(task, points, Path(folder), seeds=range(seed, seed + searches), models=lambda: proposed)
        fought: dict[str, Any] = json.loads(judged["settings"][0])
        duel = measured(Settings.of(fought), repeats=repeats, seed=held_out(seed))
    summary = _summarise(task, points, judged, told, fought, duel)
    places = frame(points, objective)
    results.write_point(out, summary, {"places": places, "searches": judged})
    return Judged(summary=summary, places=places, searches=judged)


def _proposals(task: Task, places: int) -> list[Proposal]:
    """Return what the models propose, where a search of that many places asks them."""
    if budget_of(places) < WORTH_MODELS:
        return []
    return warm_start.propose(task.workload, task.objectives[0], seed=task.seed, repeats=task.repeats)


def _summarise(
    task: Task,
    points: Sequence[Point],
    judged: polars.DataFrame,
    told: Sequence[tuple[Proposal, Outcome]],
    fought: Mapping[str, Any],
    duel: Outcome,
) -> dict[str, Any]:
    first = task.objectives[0]
    gaps, chances, floor = judged["gap"].to_list(), judged["chance"].to_list(), float(judged["floor"][0])
    ahead = stats.mean([[gap - chance] for gap, chance in zip(gaps, chances, strict=True)])
    best = min(points, key=lambda point: point.outcome.value(first))
    may_find = task.size != "smoke" and task.repeats >= stats.FEWEST_REPEATS
    return {
        "size": task.size,
        "finding": may_find,
        "repeats": task.repeats,
        "objective": first,
        "places": len(points),
        "searches": len(judged),
        "evaluations": int(judged["evaluations"].max()),  # type: ignore[arg-type]
        "share": float(judged["evaluations"].max()) / len(points),  # type: ignore[arg-type]
        "share_asked": SHARE,
        "best": {"settings": _name(best.values), "ratio": best.outcome.ratios[first].to_dict()},
        "gap": stats.mean([[gap] for gap in gaps]).to_dict(),
        "worst_gap": max(gaps),
        "gap_asked": _NEAR,
        "floor": floor,
        "near": max(gaps) <= max(_NEAR, floor),
        "chance": {"gap": stats.mean([[chance] for chance in chances]).to_dict(), "as_near": float(judged["as_near"].mean())},  # type: ignore[arg-type]
        "ahead": ahead.to_dict(),
        "verdict": {
            "chance": _against_chance(ahead),
            "duel": stats.verdict(duel.ratios[first], smaller_is_better=OBJECTIVES[first]),
        },
        "by_seed": {str(row["seed"]): row for row in judged.drop("settings").to_dicts()},
        "models": {one.by: _error(one, outcome, first) for one, outcome in told},
        "duel": {
            "settings": dict(fought),
            "named": _name(fought),
            "by": judged["by"][0],
            "ratio": duel.ratios[first].to_dict(),
        },
    }


def _against_chance(ahead: stats.Interval) -> str:
    """Return what the gap of searches less that of chance says of them."""
    if ahead.low is None or ahead.high is None:
        return "too few"
    return "better" if ahead.high < 0 else "worse" if ahead.low > 0 else "no difference seen"


def _error(proposal: Proposal, outcome: Outcome, objective: str) -> dict[str, Any]:
    """Return what a model said beside what was measured, and the factor between them."""
    said, measured = proposal.predicted.get(objective), outcome.ratios[objective]
    return {
        "says": proposal.says,
        "settings": _name(values_of(proposal.parameters)),
        "predicted": said,
        "measured": measured.to_dict(),
        "factor": None if said is None or not measured.value else said / measured.value,
        "predicted_hit_ratio": proposal.predicted.get("hit_ratio"),
        "hit_ratio": outcome.figures.get("hit_ratio"),
    }
