"""Which of many choices no other beats in everything, and where the best one changes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import validation


def front(costs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which rows no other row dominates: no worse in any column and better in one.

    Args:
        costs: (choices, criteria), the smaller the better; give the negative of what should be large. Equal rows all stay.
    Raises:
        MemlabError: VALIDATION `shape`: not a table of numbers, or with one that is none.
    Source: Kung, Luccio, Preparata 1975, doi 10.1145/321906.321910, for the definition; here every pair is compared.

    >>> front([[1, 9], [2, 5], [3, 6], [4, 1]]).tolist()
    [True, True, False, True]
    """
    table = np.asarray(costs, dtype=np.float64)
    if table.ndim != 2 or np.isnan(table).any():
        raise validation("shape", f"costs of shape {table.shape}: a table of numbers fits, a row for each choice")
    no_worse = (table[:, None, :] <= table[None, :, :]).all(axis=2)
    better = (table[:, None, :] < table[None, :, :]).any(axis=2)
    stays: npt.NDArray[np.bool_] = np.logical_not((no_worse & better).any(axis=0))
    return stays


def cheapest(frame: pl.DataFrame, cost: str, *, by: Sequence[str], name: str, least: tuple[str, float]) -> pl.DataFrame:
    """Return for every case the choice that costs least among those that are good enough.

    Args:
        frame: a row for each choice in each case.
        cost: the column to be small.
        by: columns that make a case.
        name: the column that names the choice.
        least: a column, and the value that a choice must reach in it.
    Returns:
        the row of the winner of every case, in the order of *by*; with `second`, the best one of another name, and `ahead`, how
        many times as much that one costs; both null where there is no other. Cases that nobody is good enough for are absent.
    """
    column, bound = least
    rows = []
    for _, case in frame.filter(pl.col(column) >= bound).group_by(list(by), maintain_order=True):
        ranked = case.sort(cost)
        winner = ranked.row(0, named=True)
        others = ranked.filter(pl.col(name) != winner[name])
        second = others.row(0, named=True) if len(others) else None
        ahead = None if second is None else second[cost] / winner[cost]
        rows.append({**winner, "second": None if second is None else second[name], "ahead": ahead})
    schema = {**frame.schema, "second": pl.String(), "ahead": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row").sort(list(by))


def crossovers(winners: pl.DataFrame, along: str, *, name: str) -> list[tuple[float, float, str, str]]:
    """Return where the winner changes: (from, to, before, after) for neighbouring values of *along*.

    Args:
        winners: of `cheapest`, one row for each value of *along*.
    """
    steps = winners.sort(along).select(along, name).rows()
    return [(a, b, before, after) for (a, before), (b, after) in itertools.pairwise(steps) if before != after]
