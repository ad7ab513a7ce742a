"""How large a cache, from one pass over a trace: the knee, what one more MB buys, and how far predictions are off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from memlab import charts
from memlab.charts import By
from memlab.experiment.results import Run
from memlab.guide.chapter import Chapter, at, by, chart, said
from memlab.guide.figures import name_run
from memlab.guide.tables import derived, table

_POLICIES = {"lru": "LRU", "w_tinylfu": "W-TinyLFU"}
_WORK = {
    "lru": "LRU, every access",
    "lru_sampled": "LRU, a sample",
    "two_replays": "two replays of W-TinyLFU",
    "w_tinylfu": "W-TinyLFU, every size replayed",
    "w_tinylfu_sampled": "W-TinyLFU, a sample",
}


def chapter(runs: Sequence[Run]) -> Chapter:
    """Knee and gain of every trace, errors against the real cache and of samples, and times.

    It recommends no size: that of these traces is not that of the reader's.
    """
    run = max(runs, key=lambda one: int(one.summary["accesses"]))
    start = "For" if run.summary["finding"] else "No finding: the run is a smoke run, or too short; for"
    headline = (
        f"{start} {at(run, 'accesses', ',')} accesses to {at(run, 'distinct_keys', ',')} keys, "
        f"{at(run, 'policies.lru.knee.max_entries', ',')} entries are within a point of the knee of LRU and reach a hit ratio of "
        f"{at(run, 'policies.lru.knee.hit_ratio', '.2f')}; predictions are {at(run, 'policies.lru.worst_points', '.2f')} points "
        f"off the real cache at worst for LRU, {at(run, 'policies.w_tinylfu.worst_points', '.2f')} for W-TinyLFU{by(run)}."
    )
    parts = [
        "A trace says how far back each key was used before, so one pass makes the curve of every size. The same accesses then "
        "went through the real cache at each size. The knee is the point of the curve farthest above the line from no cache to "
        "one for everything; the size named is the smallest whose hit ratio lies within a point of it.",
        "### The size to choose",
        _knees(runs),
        chart("miss-ratio", "Hit ratio against entries kept, predicted and measured."),
        "### How right it is",
        "Points of the hit ratio, over all sizes. W-TinyLFU draws its hashes anew in every process, so its own replays differ: "
        "what lies within their spread is no error of a model.",
        _errors(runs),
        "### How soon it is known",
        _times(run),
    ]
    return Chapter(headline, "\n\n".join(parts), {"miss-ratio": _drawing(run)}, _rule(runs))


def _knees(runs: Sequence[Run]) -> str:
    rows = [
        [
            at(run, "trace") + ("" if run.summary["zipf"] is None else f", Zipf {at(run, 'zipf', 'g')}"),
            _POLICIES[policy],
            at(run, f"policies.{policy}.knee.max_entries", ","),
            *(at(run, f"policies.{policy}.knee.{name}", ".1%") for name in ("hit_ratio", "doubled_hit_ratio")),
            said(run, 100 * run.summary["policies"][policy]["megabyte_gain"], ".2g"),
            name_run(run.id),
        ]
        for run in runs
        for policy in run.summary["policies"]
    ]
    heads = ["trace", "policy", "entries", "hit ratio", "with twice as many", "points that one more MB buys", "run"]
    return table(heads, rows, left=2)


def _errors(runs: Sequence[Run]) -> str:
    rows = [
        [
            at(run, "trace") + ("" if run.summary["zipf"] is None else f", Zipf {at(run, 'zipf', 'g')}"),
            _POLICIES[policy],
            at(run, "sizes"),
            *(at(run, f"policies.{policy}.{name}", ".2f") for name in ("mean_points", "worst_points", "spread_points")),
            "yes" if run.summary["policies"][policy]["near"] else "**no**",
            at(run, "sample", ".0%"),
            *(
                at(run, f"policies.{policy}.sampled.{name}", ".2f")
                for name in ("mean_points", "worst_mean_points", "worst_points")
            ),
            name_run(run.id),
        ]
        for run in runs
        for policy in run.summary["policies"]
    ]
    heads = [
        "trace",
        "policy",
        "sizes",
        "mean",
        "worst",
        "own spread",
        "as asked",
        "sample",
        "mean",
        "mean, worst seed",
        "worst",
        "run",
    ]
    told = table(heads, rows, left=2)
    run = runs[-1]
    return (
        f"{told}\n\nAsked for was a mean of at most {at(run, 'asked_mean_points')} points and {at(run, 'asked_worst_points')} at "
        f"worst; of samples, over {at(run, 'seeds')} seeds, whole and sampled curves are compared{by(run)}."
    )


def _times(run: Run) -> str:
    rows = [
        [
            label,
            at(run, f"times.seconds.{name}", ".3g±"),
            at(run, f"times.of_two_replays.{name}", ".2f±") if name != "two_replays" else "–",
            name_run(run.id),
        ]
        for name, label in _WORK.items()
    ]
    return "\n\n".join(
        [
            f"For {at(run, 'sizes')} sizes, in turns inside one run; replays keep {at(run, 'times.replayed_entries', ',')} "
            f"entries{by(run)}.",
            table(["curve", "seconds", "of two replays", "run"], rows),
        ]
    )


def _drawing(run: Run) -> str:
    rows: list[dict[str, Any]] = []
    for policy, told in run.summary["policies"].items():
        for entries, one in told["by_size"].items():
            for what in ("measured", "predicted"):
                found = one[what]
                rows.append(
                    {
                        "what": what,
                        "policy": _POLICIES[policy],
                        "max_entries": int(entries),
                        "hit_ratio": found["value"],
                        "hit_ratio_low": found["low"],
                        "hit_ratio_high": found["high"],
                        "run": run.id,
                    }
                )
    drawing = charts.share_curve(
        pl.DataFrame(rows),
        "hit_ratio",
        x=By("max_entries", "entries kept"),
        series=By("what", "hit ratio"),
        panel=By("policy", "policy"),
        y_title="hit ratio",
        title="Predicted and measured hit ratio",
        subtitle="predicted: 95 % intervals over parts of the trace; measured: least and most of the replays",
    )
    return str(charts.to_svg(drawing))


def _rule(runs: Sequence[Run]) -> str:
    if not all(run.summary["finding"] for run in runs):
        return ""
    off = [policy for policy in _POLICIES if not all(run.summary["policies"][policy]["near"] for run in runs)]
    worst = max(run.summary["policies"]["lru"]["worst_points"] for run in runs)
    trusted = (
        "Record a trace and take the size that `memlab predict cache` names, without a sweep"
        if "lru" not in off
        else "Take the size that `memlab predict cache` names as a first guess, and measure it"
    )
    counts, keys = ([run.summary[name] for run in runs] for name in ("accesses", "distinct_keys"))
    return (
        f"{trusted}: for LRU it was {derived(runs, worst, '.2f')} points off at worst. "
        + (
            "For W-TinyLFU allow for more than was asked for, as its own replays differ. "
            if "w_tinylfu" in off
            else "For W-TinyLFU it holds as well. "
        )
        + f"Seen on {derived(runs, len(runs))} traces of {derived(runs, min(counts))} to {derived(runs, max(counts))} accesses "
        f"to {derived(runs, min(keys))} to {derived(runs, max(keys))} keys, all of them reads."
    )
