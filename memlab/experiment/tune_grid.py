"""Every setting of a grid, measured once, and how near a search over them comes to the best with few of their evaluations.

The grid is recorded on the real engine; a search then asks the record in place of the engine, so that many searches can be
judged by one recording. What it asks is answered by the nearest point of the grid.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars

from memlab.errors import validation
from memlab.experiment.tune import Evaluate, Outcome, Task, tune
from memlab.measure import stats
from memlab.settings import Settings

# Off is null. Around what the three sweeps swept; the index kinds that differ most.
GRID: Mapping[str, Sequence[Any]] = {
    "index.kind": ("flat", "ivf", "hnsw"),
    "cache.max_entries": (None, 64, 1024),
    "batch.window_ms": (None, 0.0, 2.0),
    "pool.limit": (None, 1, 4),
}
_BATCH_LIMIT = 64
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


def judge(task: Task, points: Sequence[Point], folder: Path, *, seeds: Sequence[int], share: float = 0.2) -> polars.DataFrame:
    """Search the recorded grid once for each seed, and return a row a search.

    Args:
        task: its objectives decide; its budget is what *share* of the grid allows.
        folder: in which the searches keep their studies.
        share: of the grid's places that a search may ask, confirmations and duel included.
    Returns:
        seed, evaluations, places (distinct ones that were asked), found, best (ratio of the first objective to that of the
        defaults, which count as a place), gap (found / best - 1), verdict of the duel, and floor: how far the two could lie
        apart by chance, half the width of the best place's interval.
    """
    first = task.objectives[0]
    best = min(range(len(points)), key=lambda place: points[place].outcome.value(first))
    width = points[best].outcome.ratios[first]
    floor = 0.0 if width.low is None or width.high is None or not width.value else (width.high - width.low) / 2 / width.value
    rows = []
    for seed in seeds:
        recorded = Recorded(points)
        # Three are measured again and one fights the duel: they are asked too.
        budget = max(4, int(share * len(points)) - 4)
        searched = msgspec.structs.replace(task, seed=seed, budget=budget)
        tuned = tune(searched, folder, evaluate=recorded)
        found = points[recorded.nearest(Settings.of(tuned.values))].outcome.value(first) if tuned.values else _DEFAULT
        least = min(points[best].outcome.value(first), _DEFAULT)
        rows.append(
            {
                "seed": seed,
                "evaluations": len(recorded.asked),
                "places": len(set(recorded.asked)),
                "found": math.exp(found),
                "best": math.exp(least),
                "gap": math.exp(found - least) - 1,
                "floor": floor,
                "verdict": tuned.verdict,
            }
        )
    return polars.DataFrame(rows)


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
