"""What came in time of an overloaded comparison: answers after their deadline are of no use, whatever the engine did for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from memlab.experiment.summary import SETTINGS
from memlab.measure import stats


def in_time(samples: pl.DataFrame, windows: Sequence[Mapping[str, Any]], deadline_s: float) -> dict[str, Any]:
    """Return by setting what became of the calls that were due in the measured time, and how the settings compare.

    Args:
        samples: of a comparison, in the columns of samples.parquet.
        windows: of its summary, the measured time of each repeat.
        deadline_s: from when a call is due.
    Returns:
        of `reference` and `candidate`: per_s (answers in time, an interval over repeats), shares of the calls: in_time, late
        (answered after the deadline), refused, dropped (never executed, or given up) and error, which together are 1;
        `ratio`: answers in time, candidate over reference, an interval over repeats.

    """
    ended = pl.col("finished_ns") - pl.col("intended_ns") <= round(deadline_s * 1e9)
    answered = pl.when(ended).then(pl.lit("in_time")).otherwise(pl.lit("late"))
    dropped = pl.when(pl.col("outcome") == "timeout").then(pl.lit("dropped")).otherwise("outcome")
    told = samples.filter(~pl.col("warm_up")).with_columns(
        end=pl.when(pl.col("outcome") == "ok").then(answered).otherwise(dropped)
    )
    counts: dict[str, tuple[list[float], list[float]]] = {}
    sides: dict[str, Any] = {}
    for name in SETTINGS:
        mine = told.filter(pl.col("setting") == name)
        measured = sorted((one for one in windows if one["setting"] == name), key=lambda one: int(one["repeat"]))
        seconds = [(one["end_ns"] - one["start_ns"]) / 1e9 for one in measured]
        kept = [float(mine.filter((pl.col("repeat") == one["repeat"]) & (pl.col("end") == "in_time")).height) for one in measured]
        counts[name] = kept, seconds
        shares = dict(mine["end"].value_counts(normalize=True).iter_rows())
        named = ("in_time", "late", "refused", "dropped")
        sides[name] = {
            "per_s": stats.quotient(kept, seconds).to_dict(),
            **{end: shares.get(end, 0.0) for end in named},
            "error": sum(share for end, share in shares.items() if end not in named),
        }
    return {**sides, "ratio": stats.rate_ratio(counts["reference"], counts["candidate"]).to_dict()}
