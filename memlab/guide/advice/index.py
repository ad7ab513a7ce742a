"""Which vector index, for how many memories, sessions and callers; and when it should be built again."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from memlab import charts
from memlab.experiment import indexing
from memlab.experiment.results import Run
from memlab.guide.chapter import Chapter, at, by, chart, said
from memlab.guide.figures import name_run
from memlab.guide.tables import derived, table
from memlab.settings import IndexSettings

ENGINE = typing.get_args(typing.get_type_hints(IndexSettings)["kind"])
"""Kinds that the engine has too."""

_ALL = "all memories"
_ONE = indexing.callers_name(1)
_MANY = indexing.callers_name(indexing.MANY)


class _Winner(NamedTuple):
    """Who is quickest for one caller in all memories, of the engine's kinds that find enough in sessions and after deletes too.

    Attributes:
        run: of the size.
        tied: engine's kinds that may be as quick.
    """

    run: Run
    kind: str
    effort: int
    tied: list[str]


def chapter(runs: Sequence[Run]) -> Chapter:
    """Winners by size, session, deletes and callers; where they change; what forgotten memories cost."""
    runs = sorted(runs, key=lambda run: int(run.summary["memories"]))
    first, last = runs[0], runs[-1]
    rows = indexing.frame(runs)
    text = "\n\n".join(
        [
            "FAISS's own indexes, with nothing around them, at every effort, in random turns. The vectors are made up, as hard "
            "for lists as those of real conversations. What a session may not see, and what was forgotten since the index was "
            "built, is kept out of answers by a bitmap. A kind counts with a recall@10 of "
            f"{at(first, 'enough', 'g')} or more against exact search; where the 95 % intervals of two meet, either may be the "
            "quickest.",
            f"### For {_told(last, _ONE)}",
            table(_HEADS, [row for run in runs for row in _winners(run, _ONE)], left=2),
            chart(
                "index-one",
                "Time a query by number of memories, one caller, each kind at its quickest effort with enough recall.",
            ),
            f"### For {_told(last, _MANY)} in one call",
            "An exact scan shares its work between the queries of a call.",
            table(_HEADS, [row for run in runs for row in _winners(run, _MANY)], left=2),
            chart("index-many", "Time a query by number of memories, many queries in one call."),
            "### Where the quickest changes",
            _crossovers(runs, rows, float(first.summary["enough"])),
            "### What it takes",
            table(
                ["memories", "kind", "bytes a memory", "build (s), once", "run"],
                [row for run in runs for row in _kinds(run)],
                left=2,
            ),
            "### When to build again",
            "What was forgotten stays in an index until it is built again. Times beside the same index before, at the effort "
            "that is quickest with enough recall; building again has paid after so many questions, where it surely saves any. "
            "What building takes was measured once, so that number has no interval:",
            table(
                ["memories", "kind", "effort", "forgotten", "times as long", "recall@10 lost", "says", "pays after", "run"],
                [row for run in runs for row in _rebuilds(run)],
                left=2,
            ),
        ]
    )
    drawings = {"index-one": _drawing(rows, first, 1), "index-many": _drawing(rows, first, indexing.MANY)}
    # Bare indexes have no settings of the engine: what follows is of the largest size, whatever the candidates are.
    return Chapter(_headline(runs), text, drawings, _rule(runs), _settings(runs), last.id)


_HEADS = ["memories", "among", "quickest", "effort", "ms a query", "p95 (ms)", "recall@10", "may be as quick", "run"]


def _told(run: Run, name: str) -> str:
    return name if name == _ONE else said(run, name)


def _winners(run: Run, callers: str) -> list[list[str]]:
    rows = []
    for name, one in run.summary["winners"].items():
        case, _, who = name.rpartition(", ")
        if who != callers:
            continue
        prefix = f"winners.{name}"
        rows.append(
            [
                at(run, "memories", ","),
                said(run, case),
                said(run, one["kind"]),
                said(run, one["effort"] or "–"),
                at(run, f"{prefix}.query_ms", ".3g±"),
                at(run, f"{prefix}.p95_ms", ".3g"),
                at(run, f"{prefix}.recall_at_10", ".3f"),
                _names(run, one["tied"]) or "none",
                name_run(run.id),
            ]
        )
    return rows


def _names(run: Run, kinds: Sequence[str]) -> str:
    return ", ".join(said(run, kind) for kind in kinds)


def _crossovers(runs: Sequence[Run], rows: pl.DataFrame, enough: float) -> str:
    changes = [
        [
            *(
                derived(runs, value)
                for value in (
                    indexing.case_name(row["session"], row["deleted"]),
                    indexing.callers_name(row["callers"]),
                    row["from"],
                    row["to"],
                    row["before"],
                    row["after"],
                )
            )
        ]
        for row in indexing.crossovers(rows, enough).iter_rows(named=True)
    ]
    if not changes:
        return "Between no two neighbouring sizes the quickest kind was surely another one."
    return "Between these sizes the quickest kind was surely another one:\n\n" + table(
        ["among", "callers", "from (memories)", "to", "before", "after"], changes, left=2
    )


def _kinds(run: Run) -> list[list[str]]:
    return [
        [
            at(run, "memories", ","),
            said(run, kind),
            at(run, f"kinds.{kind}.bytes_a_memory", ",.0f"),
            at(run, f"kinds.{kind}.build_s", ".3g"),
            name_run(run.id),
        ]
        for kind in run.summary["kinds"]
    ]


def _best_efforts(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return of every kind that finds enough its quickest row, for one caller in all memories; the quickest kind first."""
    enough = [
        row
        for row in run.summary["rows"].values()
        if (row["session"], row["deleted"], row["callers"]) == (1.0, 0.0, 1) and row["recall_at_10"] >= run.summary["enough"]
    ]
    found: dict[str, Mapping[str, Any]] = {}
    for row in sorted(enough, key=lambda row: float(row["query_ms"]["value"])):
        found.setdefault(row["kind"], row)
    return found


def _rebuilds(run: Run) -> list[list[str]]:
    rows = []
    for kind, best in _best_efforts(run).items():
        for name, one in run.summary["rebuild"].items():
            if (one["kind"], one["effort"]) != (kind, best["effort"]):
                continue
            prefix = f"rebuild.{name}"
            rows.append(
                [
                    at(run, "memories", ","),
                    said(run, kind),
                    said(run, one["effort"] or "–"),
                    at(run, f"{prefix}.deleted", ".0%"),
                    at(run, f"{prefix}.slower", ".2f±"),
                    at(run, f"{prefix}.recall_lost", ".3f±"),
                    {"worse": "slower", "better": "quicker"}.get(one["verdict"], said(run, one["verdict"])),
                    "–" if one["questions_to_repay"] is None else at(run, f"{prefix}.questions_to_repay", ",.0f"),
                    name_run(run.id),
                ]
            )
    return rows


def _found(runs: Sequence[Run]) -> bool:
    return all(run.summary["finding"] for run in runs)


def _of_engine(run: Run) -> _Winner | None:
    """Return who wins among the engine's kinds; None where none finds enough."""
    best = {kind: row for kind, row in _best_efforts(run).items() if kind in ENGINE and _holds(run, kind)}
    if not best:
        return None
    kind, row = next(iter(best.items()))
    high = row["query_ms"]["high"]
    tied = [
        other
        for other, one in best.items()
        if other != kind and (high is None or one["query_ms"]["low"] is None or one["query_ms"]["low"] <= high)
    ]
    return _Winner(run, kind, row["effort"], tied)


def _holds(run: Run, kind: str) -> bool:
    """Return whether a kind finds enough at some effort in every case of one caller.

    Sessions that are small enough are searched exactly by the engine, whatever its index, so they do not count.
    """
    small = IndexSettings().exact_below
    cases: dict[tuple[float, float], float] = {}
    for row in run.summary["rows"].values():
        if (
            row["kind"] == kind
            and row["callers"] == 1
            and (row["session"] == 1.0 or row["session"] * run.summary["memories"] > small)
        ):
            case = row["session"], row["deleted"]
            cases[case] = max(cases.get(case, 0.0), row["recall_at_10"])
    return all(recall >= run.summary["enough"] for recall in cases.values())


def _winner_words(run: Run, name: str) -> str:
    one = run.summary["winners"].get(name)
    if one is None:
        return "none with enough recall"
    tied = f" (or {_names(run, one['tied'])})" if one["tied"] else ""
    return f"{said(run, one['kind'])}{tied}"


def _headline(runs: Sequence[Run]) -> str:
    last = runs[-1]
    found = (
        f"at {at(last, 'memories', ',')} memories the quickest with enough recall is {_winner_words(last, f'{_ALL}, {_ONE}')} "
        f"for one caller, and {_winner_words(last, f'{_ALL}, {_MANY}')} for {at(last, 'many', ',')} queries in one call"
        f"{by(last)}."
    )
    return found[0].upper() + found[1:] if _found(runs) else f"No finding: a run is a smoke run, or too short; {found}"


def _rule(runs: Sequence[Run]) -> str:
    if not _found(runs):
        return ""
    first, last = runs[0], runs[-1]
    winners = [one for one in map(_of_engine, runs) if one is not None]
    kinds = "; ".join(
        f"at {at(one.run, 'memories', ',')} {said(one.run, one.kind)}"
        + (f" (or {_names(one.run, one.tied)})" if one.tied else "")
        + by(one.run)
        for one in winners
    )
    many = "; ".join(f"at {at(run, 'memories', ',')} {_winner_words(run, f'{_ALL}, {_MANY}')}{by(run)}" for run in runs)
    seen = (
        f"Seen from {at(first, 'memories', ',')} to {at(last, 'memories', ',')} memories of {at(last, 'dimension', ',')} "
        f"dimensions, {at(last, 'questions', ',')} questions, recall@10 of {at(last, 'enough', 'g')} or more{by(last)}."
    )
    if not winners:
        return f"None of the engine's kinds was seen to find enough in every case. {seen}"
    return (
        "Of the kinds that the engine has and that find enough in sessions and after deletes too, take for one caller "
        f"{kinds}. Where many ask at once and travel together, the quickest of all kinds is {many}. "
        f"{_rebuild_rule(winners)} {seen}"
    )


def _rebuild_rule(winners: Sequence[_Winner]) -> str:
    winner = winners[-1]
    run = winner.run
    slower, poorer = _least(winner, _is_slower), _least(winner, _is_poorer)
    if slower is None and poorer is None:
        return (
            f"Build again for the bytes alone: with what was forgotten, searches of {said(run, winner.kind)} at "
            f"{at(run, 'memories', ',')} memories were seen neither to take longer nor to find too little{by(run)}."
        )
    reasons = []
    if slower is not None:
        reasons.append(
            f"from {at(run, f'{slower}.deleted', '.0%')} forgotten on searches take {at(run, f'{slower}.slower', '.2f±')} times "
            "as long, and building, which was measured once, pays after about "
            f"{at(run, f'{slower}.questions_to_repay', ',.0f')} questions"
        )
    if poorer is not None:
        reasons.append(
            f"from {at(run, f'{poorer}.deleted', '.0%')} forgotten on the same effort finds too little, its recall@10 falls by "
            f"{at(run, f'{poorer}.recall_lost', '.3f±')}"
        )
    return f"Build {said(run, winner.kind)} again: at {at(run, 'memories', ',')} memories {'; '.join(reasons)}{by(run)}."


def _is_slower(run: Run, one: Mapping[str, Any]) -> bool:
    return one["questions_to_repay"] is not None


def _is_poorer(run: Run, one: Mapping[str, Any]) -> bool:
    """Return whether recall surely falls, and to less than is enough."""
    lost = one["recall_lost"]
    return lost["low"] is not None and lost["low"] > 0 and one["recall"] - lost["value"] < run.summary["enough"]


def _least(winner: _Winner, holds: Callable[[Run, Mapping[str, Any]], bool]) -> str | None:
    """Return the path of the winner's row with the least share forgotten for which something holds."""
    mine = [
        (one["deleted"], name)
        for name, one in winner.run.summary["rebuild"].items()
        if (one["kind"], one["effort"]) == (winner.kind, winner.effort) and holds(winner.run, one)
    ]
    return f"rebuild.{min(mine)[1]}" if mine else None


def _settings(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the engine's kind that surely wins at the largest size, from when lists pay, and when to build again."""
    winner = _of_engine(runs[-1]) if _found(runs) else None
    if winner is None or winner.tied:
        return {}
    found: dict[str, Any] = {"index.kind": winner.kind}
    if winner.kind == "ivf":
        # The least size from which on lists surely win, without a size between that says otherwise.
        sizes = [
            None if one is None or one.kind != "ivf" or one.tied else int(run.summary["memories"])
            for run, one in zip(runs, map(_of_engine, runs), strict=True)
        ]
        after = [place for place, size in enumerate(sizes) if size is None]
        since = sizes[after[-1] + 1 if after else 0]
        if since is not None:
            found["index.train_at"] = max(since, _least_train_at())
    reasons = [path for holds in (_is_slower, _is_poorer) if (path := _least(winner, holds)) is not None]
    if reasons:
        rebuild = winner.run.summary["rebuild"]
        found["index.rebuild_dead_ratio"] = min(float(rebuild[path.removeprefix("rebuild.")]["deleted"]) for path in reasons)
    return found


def _least_train_at() -> int:
    (bounds,) = typing.get_type_hints(IndexSettings, include_extras=True)["train_at"].__metadata__
    return int(bounds.ge)


def _drawing(rows: pl.DataFrame, first: Run, callers: int) -> str:
    whole = rows.filter(
        (pl.col("session") == 1.0)
        & (pl.col("deleted") == 0)
        & (pl.col("callers") == callers)
        & (pl.col("recall_at_10") >= first.summary["enough"])
    )
    quickest = whole.sort("query_ms").group_by("memories", "kind", maintain_order=True).first().sort("memories")
    drawing = charts.lines(
        quickest.rename({"memories": "x", "query_ms": "y", "kind": "series"}),
        x_title="memories",
        y_title="ms a query",
        names=list(first.summary["kinds"]),
        logarithmic_x=True,
        logarithmic_y=True,
    )
    return str(charts.to_svg(drawing))
