"""How large a page to take on a walk through many memories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from memlab import charts
from memlab.experiment.paging import LIST
from memlab.experiment.results import Run
from memlab.guide.chapter import ENDS, Chapter, at, by, chart, ends, said
from memlab.guide.figures import name_run
from memlab.guide.findings import Verdict, judge
from memlab.guide.tables import table


class Pick(NamedTuple):
    """The smallest page whose time per row cannot be told from that of the best one.

    Attributes:
        verdict: what that page is beside one list of everything, by the first row and by the most memory together.
        way: its name among the summary's `ways`.
    """

    verdict: Verdict
    way: str


def pick_of(summary: Mapping[str, Any]) -> Pick:
    """Return the page to take, from the summary of `experiment.paging.measure_point`."""
    pages = {way: one["ratio"] for way, one in summary["ways"].items() if one["ratio"]}
    best = min(pages.values(), key=lambda ratio: float(ratio["per_row"]["value"]))["per_row"]
    reach = best["value"] if best["high"] is None else best["high"]
    tied = [way for way, ratio in pages.items() if _low(ratio["per_row"]) <= reach]
    way = min(tied, key=int)
    return Pick(judge({**summary, "ratio": pages[way]}, "first_row", "peak", among=len(pages)), way)


def _low(interval: Mapping[str, Any]) -> float:
    return float(interval["value"] if interval["low"] is None else interval["low"])


def chapter(runs: Sequence[Run]) -> Chapter:
    """Time per row, the first row and the most memory by page size, and what a walk sees beside writes."""
    run = max(runs, key=lambda one: int(one.summary["memories"]))
    rows = [_row(one, way) for one in runs for way in one.summary["ways"]]
    beside = [
        [
            *(at(one, f"beside_writes.{name}", ",") for name in ("limit", "pages", "added", "forgotten")),
            *(at(one, f"beside_writes.{name}", ",") for name in ("missing", "twice", "ghosts", "disorder")),
            "yes" if one.summary["beside_writes"]["holds"] else "**no**",
            name_run(one.id),
        ]
        for one in runs
    ]
    same = "yes" if all(one.summary["same_walk"] for one in runs) else "**no**"
    text = "\n\n".join(
        [
            "Every event of one session, the newest first, in fresh processes: page by page, each forgotten when the next is "
            "asked for, and as one list, the largest pages kept until the end. *First row* is when something can be shown: after "
            "the first page, or when the list is whole. *Memory* is the most that the process held above what it held when it "
            f"had opened the store. All walks saw the same: {same}.",
            table(_HEADS, rows, left=0),
            chart("paging", "Pages over one list of everything; the line is the list."),
            "A page costs what looking for its place costs, and its rows. In pages of "
            f"{at(run, 'depth.limit', ',')} the last tenth of a walk takes {at(run, 'depth.ratio', '.2f±')} times what the first "
            f"tenth takes{by(run)}: a cursor names the place where to go on, and no row before it is read again.",
            "### Beside writes",
            "Between two pages an event was added somewhere, and one forgotten. A cursor is a place in the order of time, not a "
            "count, so what is there from beginning to end is seen once:",
            table(_BESIDE, beside, left=0),
        ]
    )
    return Chapter(_headline(run), text, {"paging": _drawing(run)}, _rule(run))


_HEADS = [
    "memories", "page", "pages", "per row (µs)", "× list", "page p50 (ms)", "page p95", "first row (ms)", "× list", "memory (MB)",
    "× list", "run",
]  # fmt: skip
_BESIDE = [
    "page", "pages", "added", "forgotten", "missing", "twice", "after being forgotten", "out of order", "holds", "run",
]  # fmt: skip


def _row(run: Run, way: str) -> list[str]:
    prefix = f"ways.{way}"
    is_list = way == LIST

    def ratio(name: str) -> str:
        return "–" if is_list else at(run, f"{prefix}.ratio.{name}", ".2f±")

    return [
        at(run, "memories", ","),
        "one list" if is_list else at(run, f"{prefix}.limit", ","),
        at(run, f"{prefix}.pages", ","),
        at(run, f"{prefix}.per_row_us", ",.1f"),
        ratio("per_row"),
        at(run, f"{prefix}.p50_ms", ".2f"),
        at(run, f"{prefix}.p95_ms", ".2f±"),
        at(run, f"{prefix}.first_row_ms", ",.1f"),
        ratio("first_row"),
        at(run, f"{prefix}.peak_mb", ",.1f"),
        ratio("peak"),
        name_run(run.id),
    ]


def _headline(run: Run) -> str:
    pick = pick_of(run.summary)
    prefix = f"ways.{pick.way}"
    told = (
        f"a walk through {at(run, 'memories', ',')} memories in pages of {at(run, f'{prefix}.limit', ',')} takes "
        f"{at(run, f'{prefix}.ratio.per_row', '.2f±')} times as long as one list of everything, holds "
        f"{at(run, f'{prefix}.ratio.peak', '.2f±')} times the memory, and shows its first row after "
        f"{at(run, f'{prefix}.first_row_ms', ',.1f', 'ms')} instead of "
        f"{at(run, f'ways.{LIST}.first_row_ms', ',.1f', 'ms')}{by(run)}."
    )
    if pick.verdict in ("smoke", "too few"):
        return f"No finding: the run is a smoke run, or too short; {told}"
    return told[0].upper() + told[1:]


def _rule(run: Run) -> str:
    pick = pick_of(run.summary)
    if pick.verdict in ("smoke", "too few"):
        return ""
    limits = [way for way in run.summary["ways"] if way != LIST]
    why = [
        *(["smaller ones cost more per row"] if pick.way != limits[0] else []),
        *(["larger ones are not seen to cost less"] if pick.way != limits[-1] else []),
    ]
    gain = _gain(run, pick)
    return (
        f"Walk by cursor in pages of {at(run, f'ways.{pick.way}.limit', ',')} (`limit`): {', and '.join(why)}. {gain} Seen for "
        f"pages of {', '.join(at(run, f'ways.{way}.limit', ',') for way in limits)}, one caller, and {at(run, 'memories', ',')} "
        "memories of one session, of which "
        f"{said(run, run.settings['candidate']['storage']['hot_rows'], ',')} stay in memory{by(run)}."
    )


def _gain(run: Run, pick: Pick) -> str:
    """Return what the page does to the first row and to the memory, beside one list of everything."""
    if pick.verdict == "better":
        return "Let go of each page before the next: the memory is in what is kept."
    if pick.verdict == "no difference seen":
        return "Beside one list of everything neither the first row nor the memory was seen to gain."
    said = {figure: _verdict(run, pick, figure) for figure in _BESIDE_LIST}
    worse = [words for figure, (_, words) in _BESIDE_LIST.items() if said[figure] == "worse"]
    better = [f", though {words}" for figure, (words, _) in _BESIDE_LIST.items() if said[figure] == "better"]
    return f"Beside one list of everything {' and '.join(worse)}{''.join(better)}."


# What is better and what is worse, of the figures that decide.
_BESIDE_LIST = {
    "first_row": ("the first row comes sooner", "the first row comes later"),
    "peak": ("the memory is less", "the memory is more"),
}


def _verdict(run: Run, pick: Pick, figure: str) -> Verdict:
    """Return what the page is by one of the figures that decide it, at the level that they share."""
    ratio = run.summary["ways"][pick.way]["ratio"]
    pages = sum(bool(one["ratio"]) for one in run.summary["ways"].values())
    return judge({**run.summary, "ratio": ratio}, figure, among=2 * pages)


def _drawing(run: Run) -> str:
    labels = {"per_row": "time per row", "first_row": "time to the first row", "peak": "memory"}
    frame = pl.DataFrame(
        [
            {"label": label, "series": f"pages of {one['limit']:,}", **ends(one["ratio"][name])}
            for name, label in labels.items()
            for one in run.summary["ways"].values()
            if one["ratio"]
        ],
        schema_overrides=ENDS,
    )
    drawing = charts.intervals(
        frame, x_title="pages over one list (95 % interval over processes)", line=1.0, title="Pages beside one list of everything"
    )
    return str(charts.to_svg(drawing))
