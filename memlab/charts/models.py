"""What a model said beside what was measured, and figures against a setting on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars

from memlab.charts import theme
from memlab.charts.curves import By


def predictions(
    frame: polars.DataFrame, x: By, y: By, series: By, *, names: Sequence[str] = (), height: int = 260
) -> theme.Drawing:
    """Return what was said against what was measured, a mark a row, on logarithmic axes with the line where both agree.

    Args:
        frame: the columns that are named; rows without one of the two figures are left out.
        names: of all series, in the order of their colours, where some may be missing; empty for those that are there.
    """
    rows = _rows(frame, x=x, y=y, series=series)
    ends = [one for row in rows for one in (row["x"], row["y"])]
    domain = [min(ends) * 0.8, max(ends) * 1.25]
    scale = alt.Scale(type="log", domain=domain, nice=False)
    colours, shapes = theme.series_scale([*names]) if names else _scales(rows)
    agree = (
        alt.Chart(alt.Data(values=[{"x": end, "y": end} for end in domain]))
        .mark_line(color=theme.MUTED, strokeDash=[4, 4])
        .encode(alt.X("x:Q", scale=scale), alt.Y("y:Q", scale=scale))
    )
    marks = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(size=50, filled=True, opacity=0.85)
        .encode(
            alt.X("x:Q", title=x.title, scale=scale),
            alt.Y("y:Q", title=y.title, scale=scale),
            alt.Color("series:N", title=series.title, scale=colours),
            alt.Shape("series:N", title=series.title, scale=shapes),
        )
    )
    return (agree + marks).properties(width=theme.WIDTH, height=height)


def trade(
    frame: polars.DataFrame, x: By, y: By, series: By, *, joined: By | None = None, log_x: bool = True, height: int = 260
) -> theme.Drawing:
    """Return one figure against another, a mark a row, those of a series joined by a line in the order of x.

    Args:
        joined: a column of booleans: lines go through the true ones alone, such as those of a Pareto front.
    """
    columns = {"x": x, "y": y, "series": series} | ({"joined": joined} if joined is not None else {})
    rows = _rows(frame, **columns)
    colours, shapes = _scales(rows)
    x_axis = alt.X("x:Q", title=x.title, scale=alt.Scale(type="log" if log_x else "linear", nice=False, padding=8))
    y_axis = alt.Y("y:Q", title=y.title, scale=alt.Scale(zero=False, padding=8))
    colour = alt.Color("series:N", title=series.title, scale=colours)
    lines = (
        alt.Chart(alt.Data(values=[row for row in rows if row.get("joined", True)]))
        .mark_line(opacity=0.6, strokeWidth=1.5)
        .encode(x_axis, y_axis, colour, alt.Order("x:Q"))
    )
    marks = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(size=45, filled=True, opacity=0.85)
        .encode(x_axis, y_axis, colour, alt.Shape("series:N", title=series.title, scale=shapes))
    )
    return (lines + marks).properties(width=theme.WIDTH, height=height)


def _rows(frame: polars.DataFrame, **columns: By) -> list[dict[str, Any]]:
    chosen = frame.select(**{name: polars.col(by.column) for name, by in columns.items()}).drop_nulls()
    return [{**row, "series": str(row["series"])} for row in chosen.to_dicts()]


def _scales(rows: list[dict[str, Any]]) -> tuple[alt.Scale, alt.Scale]:
    return theme.series_scale(list(dict.fromkeys(row["series"] for row in rows)))
