"""Figures one under another, each with its interval and, where there is one, a mark that it is held against."""

from __future__ import annotations

import altair as alt
import polars

from memlab.charts import theme


def intervals(
    frame: polars.DataFrame,
    *,
    x_title: str,
    title: str = "",
    subtitle: str = "",
    mark: str = "",
    line: float | None = None,
    logarithmic: bool = True,
    series_title: str | None = None,
) -> theme.Drawing:
    """Return one row a label, one point a series.

    Args:
        frame: `label`, `series`, `value`, `low`, `high`, and `mark`, what the value is held against; rows without a value are
            left out, as are missing ends and marks.
        mark: what the marks are, for the legend under the axis.
        line: drawn through all rows, such as 1 for ratios.
    """
    columns = ("label", "series", "value", "low", "high", *(("mark",) if "mark" in frame.columns else ()))
    rows = frame.filter(polars.col("value").is_not_null()).select(columns).to_dicts()
    labels, series = (list(dict.fromkeys(row[name] for row in rows)) for name in ("label", "series"))
    colour, shape = theme.series_scale(series)
    ends = [end for row in rows for name in columns[2:] if (end := row[name]) is not None and (end > 0 or not logarithmic)]
    ends += [line] if line is not None else []
    low, high = min(ends, default=0.1), max(ends, default=1.0)
    if logarithmic:
        scale = alt.Scale(type="log", domain=[low / 1.15, high * 1.15], nice=False)
        ticks = [step * 10.0**power for power in range(-4, 9) for step in (1, 2, 5)]
        axis = alt.Axis(values=[tick for tick in ticks if low / 1.15 <= tick <= high * 1.15], format=",.4~r", labelOverlap=True)
    else:
        room = (high - low) * 0.05 or 1.0
        scale = alt.Scale(domain=[min(low - room, 0.0), high + room], nice=False)
        axis = alt.Axis(format=",.4~r")
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("label:N", title=None, sort=labels, scale=alt.Scale(domain=labels), axis=alt.Axis(labelLimit=260)),
        yOffset=alt.YOffset("series:N", sort=series, scale=alt.Scale(domain=series)),
        color=alt.Color(
            "series:N", title=series_title, scale=colour, sort=series, legend=alt.Legend() if len(series) > 1 else None
        ),
    )

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=x_title + (f"   ( | {mark})" if mark else ""), scale=scale, axis=axis)

    bar = base.transform_filter("isValid(datum.low) && isValid(datum.high)").mark_rule(strokeWidth=2)
    point = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=x("value"),
        shape=alt.Shape(
            "series:N", title=series_title, scale=shape, sort=series, legend=alt.Legend() if len(series) > 1 else None
        ),
    )
    layers = [bar.encode(x=x("low"), x2="high:Q"), point]
    if "mark" in columns:
        held = base.transform_filter("isValid(datum.mark)").mark_tick(thickness=2, size=14)
        layers.append(held.encode(x=x("mark"), color=alt.value(theme.INK)))
    if line is not None:
        rule = alt.Chart(alt.InlineData(values=[{"line": line}])).mark_rule(color=theme.MUTED, strokeDash=[5, 4])
        layers.insert(0, rule.encode(x=x("line")))
    whole = alt.layer(*layers).properties(width=theme.WIDTH, height=max(22, 14 * len(series) + 6) * max(len(labels), 1))
    return whole.properties(title=theme.title(title, subtitle)) if title else whole
