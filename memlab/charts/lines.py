"""A figure that follows another: over time, over operations, over the size of the store."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars

from memlab.charts import theme


def lines(
    frame: polars.DataFrame,
    *,
    x_title: str,
    y_title: str,
    title: str = "",
    subtitle: str = "",
    series_title: str | None = None,
    names: Sequence[str] = (),
    logarithmic_x: bool = False,
    logarithmic_y: bool = False,
    from_zero: bool = False,
    points: bool = True,
    height: int = 240,
) -> theme.Drawing:
    """Return a line for each series, with the intervals of its points where there are any.

    Args:
        frame: `x`, `y`, `series`, and perhaps `low` and `high`; rows without a *y* are left out.
        names: of all series, in the order of their colours, where some may be missing; empty for those that are there.
        from_zero: whether the upright axis begins at nought, where it is not logarithmic.
    """
    columns = [name for name in ("x", "y", "series", "low", "high") if name in frame.columns]
    rows = frame.filter(polars.col("y").is_not_null()).select(columns).to_dicts()
    series = list(names or dict.fromkeys(row["series"] for row in rows))
    colour, shape = theme.series_scale(series)
    legend = alt.Legend() if len(series) > 1 else None
    across = alt.Scale(type="log", nice=False) if logarithmic_x else alt.Scale(nice=False, zero=False)
    upright = alt.Scale(type="log") if logarithmic_y else alt.Scale(zero=from_zero)
    format_x = alt.Axis(format="~s", labelOverlap=True)
    format_y = alt.Axis(format=",.4~r", labelOverlap=True)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("x:Q", title=x_title, scale=across, axis=format_x),
        color=alt.Color("series:N", title=series_title, scale=colour, sort=series, legend=legend),
    )

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=y_title, scale=upright, axis=format_y)

    layers = [base.mark_line(strokeWidth=1.5, opacity=0.7).encode(y=y("y"))]
    if {"low", "high"} <= set(columns):
        known = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        layers.append(known.mark_rule(strokeWidth=2).encode(y=y("low"), y2="high:Q"))
    if points:
        mark = base.mark_point(filled=True, size=40, opacity=1)
        layers.append(
            mark.encode(y=y("y"), shape=alt.Shape("series:N", title=series_title, scale=shape, sort=series, legend=legend))
        )
    whole = alt.layer(*layers).properties(width=theme.WIDTH, height=height)
    return whole.properties(title=theme.title(title, subtitle)) if title else whole
