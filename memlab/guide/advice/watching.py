"""What to watch on a live engine: its own counters, the range that they had in the sweeps and under overload, and when to act."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from memlab.experiment.results import Run
from memlab.guide.advice import overload
from memlab.guide.chapter import Chapter
from memlab.guide.figures import Figure, mark
from memlab.guide.tables import derived, table

Statistics = Mapping[str, Mapping[str, float]]


class Counter(NamedTuple):
    """A figure that `engine.statistics()` gives.

    Attributes:
        name: where it stands there.
        spec: how it reads.
        rises: whether more of it is worse; else less is.
        part: of the engine that must be there.
        read: makes it of the counters.
        act: what to do beyond the range.
    """

    name: str
    spec: str
    rises: bool
    part: str
    read: Callable[[Statistics], float | None]
    act: str


def _over(part: str, name: str, *others: str) -> Callable[[Statistics], float | None]:
    """Return what reads a count as a share of others of its part, itself among them where it is named again."""

    def read(statistics: Statistics) -> float | None:
        counts = statistics[part]
        whole = sum(counts[other] for other in others)
        return counts[name] / whole if whole else None

    return read


COUNTERS = (
    Counter(
        "observe.failed / calls", ".2%", True, "observe", _over("observe", "failed", "calls"),
        "see `observe.by_operation()` for which, and of what type",
    ),
    Counter(
        "cache.hit_ratio", ".2f", False, "cache", lambda one: one["cache"]["hit_ratio"],
        "traffic asks again less, or writes more: draw its curve",
    ),
    Counter(
        "cache.evictions / misses", ".2f", True, "cache", _over("cache", "evictions", "misses"),
        "answers leave before they are asked for again: raise `cache.max_entries`",
    ),
    Counter(
        "cache.fills_discarded / misses", ".2f", True, "cache", _over("cache", "fills_discarded", "misses"),
        "writes overtake reads: cache longer-lived questions",
    ),
    Counter(
        "batch.mean_size", ".1f", True, "batch", lambda one: one["batch"]["mean_size"],
        "calls pile up: the engine is near its rate",
    ),
    Counter(
        "batch.expired / calls", ".2%", True, "batch", _over("batch", "expired", "calls", "expired"),
        "more is asked than can be answered: shed load",
    ),
    Counter(
        "pool.wait_time_mean_ms", ".2f", True, "pool", lambda one: one["pool"]["wait_time_mean_ms"],
        "places are short: see the chapter on the pool",
    ),
    Counter(
        "pool.max_waiting", ",.0f", True, "pool", lambda one: one["pool"]["max_waiting"],
        "the line grows: send less, or allow larger batches",
    ),
    Counter(
        "pool.refused / (acquired + refused)", ".2%", True, "pool", _over("pool", "refused", "acquired", "refused"),
        "callers are turned away: they should come back later",
    ),
)  # fmt: skip


def chapter(runs: Sequence[Run]) -> Chapter:
    """The counters of a live engine with their ranges; *runs* are those of the sweeps, and of overload where there are any."""
    calm = [run for run in runs if run.experiment.partition(".")[0] != overload.EXPERIMENT]
    pressed = [run for run in runs if run not in calm]
    rows = []
    moved = []
    for counter in COUNTERS:
        usual, under = _values(calm, counter), _values(pressed, counter)
        if not usual:
            continue
        bound = _edge(usual, counter)
        if under and _beyond(_edge(under, counter), bound, counter):
            moved.append(counter.name)
        rows.append(
            [
                f"`{counter.name}`",
                _range(usual, counter),
                _range(under, counter) if under else "–",
                f"{'above' if counter.rises else 'below'} {_marked(usual, bound, counter)}",
                counter.act,
            ]
        )
    heads = ["counter", "in the sweeps", "under overload", "act", "because"]
    headline = "A few figures of `engine.statistics()` say how a service is"
    headline += f"; under overload {_listed(moved)} leave the range that they had in the sweeps." if moved else "."
    text = "\n\n".join(
        [
            "`engine.statistics()` gives one table for each part; counts run from opening on, so look at how they "
            "change from minute to minute, and compare the changes. *In the sweeps* is the least and the largest "
            "value of all points of the sweeps above, which were not overloaded; *under overload* those of the "
            "chapter on refusing. A range of a part that was off in all runs is not there.",
            table(heads, rows, left=5),
        ]
    )
    return Chapter(headline, text, {}, _rule(calm))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _values(runs: Sequence[Run], counter: Counter) -> list[tuple[Run, float]]:
    """Return the figure of every run whose candidate has the part."""
    found = []
    for run in runs:
        statistics: dict[str, Any] = run.summary["candidate"]["statistics"]
        if counter.part in statistics and (value := counter.read(statistics)) is not None:
            found.append((run, float(value)))
    return found


def _edge(values: Sequence[tuple[Run, float]], counter: Counter) -> float:
    return (max if counter.rises else min)(value for _, value in values)


def _beyond(value: float, bound: float, counter: Counter) -> bool:
    return value > bound if counter.rises else value < bound


def _marked(values: Sequence[tuple[Run, float]], value: float | str, counter: Counter) -> str:
    return mark(Figure(value, tuple(run.id for run, _ in values)), counter.spec)


def _range(values: Sequence[tuple[Run, float]], counter: Counter) -> str:
    low, high = (format(end(value for _, value in values), counter.spec) for end in (min, max))
    return _marked(values, low if low == high else f"{low} to {high}", counter)


def _rule(runs: Sequence[Run]) -> str:
    if any(run.summary["size"] == "smoke" for run in runs):
        return ""
    low, high = (format(end(run.summary["offered_per_s"] for run in runs), ",.0f") for end in (min, max))
    return (
        "Watch failures, the hit ratio, the mean size of batches and the wait for a place; act when one leaves the "
        "range that it had in the sweeps, and measure again when the traffic has changed. The ranges hold for this "
        f"host at {derived(runs, low if low == high else f'{low} to {high}', '')} calls a second of the mixes above."
    )
