"""Which of many choices no other beats in everything, and where the best one changes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import validation


def front(costs: npt.ArrayLike, high: npt.ArrayLike | None = None) -> npt.NDArray[np.bool_]:
    """Return which rows no other row dominates: no worse in any column and better in one.

    Args:
        costs: (choices, criteria), the smaller the better; give the negative of what should be large. Equal rows all stay.
        high: upper ends, where costs are known as intervals whose lower ends *costs* then are; a row dominates only where its
            intervals lie apart, or are the same single number. None where all are exact.
    Raises:
        MemlabError: VALIDATION `shape`: not a table of numbers, or with one that is none, or upper ends below the lower ones.
    Source: Kung, Luccio, Preparata 1975, doi 10.1145/321906.321910, for the definition; here every pair is compared.

    >>> front([[1, 9], [2, 5], [3, 6], [4, 1]]).tolist()
    [True, True, False, True]
    >>> front([[1.0, 5], [1.2, 5], [1.6, 5]], high=[[1.3, 5], [1.5, 5], [1.9, 5]]).tolist()
    [True, True, False]
    """
    low = np.asarray(costs, dtype=np.float64)
    top = low if high is None else np.asarray(high, dtype=np.float64)
    if low.ndim != 2 or low.shape != top.shape or not (low <= top).all():  # nothing is below what is no number
        raise validation("shape", f"costs of shape {low.shape}: a table of numbers fits, a row for each choice")
    no_worse = (top[:, None, :] <= low[None, :, :]).all(axis=2)
    better = (top[:, None, :] < low[None, :, :]).any(axis=2)
    stays: npt.NDArray[np.bool_] = np.logical_not((no_worse & better).any(axis=0))
    return stays


def cheapest(
    frame: pl.DataFrame, cost: str, *, by: Sequence[str], name: str, least: tuple[str, float], ends: tuple[str, str]
) -> pl.DataFrame:
    """Return for every case the choice that costs least among those that are good enough.

    Args:
        frame: a row for each choice in each case.
        cost: the column to be small.
        by: columns that make a case.
        name: the column that names the choice.
        least: a column, and the value that a choice must reach in it.
        ends: columns with the ends of the cost's interval; null where there is none.
    Returns:
        the row of the winner of every case, in the order of *by*; with `second`, the best one of another name, and `ahead`, how
        many times as much that one costs, both null where there is no other; and `tied`, the other names whose interval meets
        the winner's, which may be as cheap. Cases that nobody is good enough for are absent.
    """
    column, bound = least
    low, high = ends
    rows = []
    for _, case in frame.filter(pl.col(column) >= bound).group_by(list(by), maintain_order=True):
        ranked = case.sort(cost)
        winner = ranked.row(0, named=True)
        others = ranked.filter(pl.col(name) != winner[name])
        second = others.row(0, named=True) if len(others) else None
        ahead = None if second is None else second[cost] / winner[cost]
        apart = pl.lit(False) if winner[high] is None else (pl.col(low) > winner[high]).fill_null(False)
        tied = others.filter(~apart)[name].unique(maintain_order=True).to_list()
        rows.append({**winner, "second": None if second is None else second[name], "ahead": ahead, "tied": tied})
    schema = {**frame.schema, "second": pl.String(), "ahead": pl.Float64(), "tied": pl.List(pl.String())}
    return pl.DataFrame(rows, schema=schema, orient="row").sort(list(by))


def crossovers(winners: pl.DataFrame, along: str, *, name: str) -> list[tuple[float, float, str, str]]:
    """Return where the winner changes for sure: (from, to, before, after) for neighbouring values of *along*.

    A winner that the next one may tie with, before or after, has not been seen to change.

    Args:
        winners: of `cheapest`, one row for each value of *along*.
    """
    steps = winners.sort(along).select(along, name, "tied").rows()
    return [
        (a, b, before, after)
        for (a, before, may_too), (b, after, may_still) in itertools.pairwise(steps)
        if before != after and after not in may_too and before not in may_still
    ]
