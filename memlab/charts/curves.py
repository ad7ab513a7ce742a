"""Figures against a swept setting: one point a run, its interval drawn, the reference at 1.

Every function takes a frame as `results.frame` makes it (a figure in a column, its interval in `<column>_low` and
`<column>_high`) and draws what is there; nothing is computed but labels and the order of an axis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import altair as alt
import polars

from memlab.charts import theme


class _Upright(NamedTuple):
    """The vertical axis, built again for every mark and panel that shares it."""

    title: str
    scale: alt.Scale
    values: list[float]
    label: str

    def of(self, field: str, shown: bool) -> alt.Y:
        if shown:
            axis = alt.Axis(values=self.values, labelExpr=self.label)
        else:
            axis = alt.Axis(values=self.values, labels=False, ticks=False, domain=False)
        return alt.Y(f"{field}:Q", title=self.title if shown else None, scale=self.scale, axis=axis)


class By(NamedTuple):
    """A swept setting that places a point: on the axis, as a series, or in a panel.

    Attributes:
        column: of the frame; dots are fine.
        title: what the reader calls it, with its unit.
        null: how a null value reads: `no limit`, `never`, `off`.
    """

    column: str
    title: str
    null: str = "off"


def ratio_curve(
    frame: polars.DataFrame,
    figure: str,
    *,
    x: By,
    series: By,
    panel: By | None = None,
    y_title: str,
    title: str = "",
    subtitle: str = "",
    chosen: str | None = None,
    height: int = 240,
) -> theme.Drawing:
    """Return ratios to the reference against a setting, on a scale where half and double lie equally far from 1.

    Args:
        frame: one row a run, with `ratio_<figure>` and its interval.
        chosen: the run whose point is ringed as the recommended one.
    """
    rows = _points(frame, f"ratio_{figure}", x, series, panel, chosen)
    domain = _around_one(rows)
    ticks = [tick for tick in (2.0**power for power in range(-10, 11)) if domain[0] <= tick <= domain[1]]
    y = _Upright(y_title, alt.Scale(type="log", base=2, nice=False, domain=domain), ticks, _TIMES)
    return _panels(rows, y, x, series, panel, reference=True, height=height, title=title, subtitle=subtitle)


def share_curve(
    frame: polars.DataFrame,
    column: str,
    *,
    x: By,
    series: By,
    panel: By | None = None,
    y_title: str,
    title: str = "",
    subtitle: str = "",
    chosen: str | None = None,
    height: int = 150,
) -> theme.Drawing:
    """Return a share, such as a hit ratio, against a setting, on an axis from 0 to 1."""
    rows = _points(frame, column, x, series, panel, chosen)
    y = _Upright(y_title, alt.Scale(domain=[0, 1]), [0, 0.25, 0.5, 0.75, 1], "format(datum.value, '.2~f')")
    return _panels(rows, y, x, series, panel, reference=False, height=height, title=title, subtitle=subtitle)


def stack(*charts: theme.Drawing, title: str, subtitle: str = "") -> theme.Drawing:
    """Return charts under one another with one title: the finding."""
    whole = alt.vconcat(*charts, spacing=18).properties(title=theme.title(title, subtitle))
    return whole.resolve_legend(color="shared", shape="shared")


_TIMES = "format(datum.value, '.3~f') + ' ×'"


def _label(value: Any, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _order(frame: polars.DataFrame, by: By) -> list[str]:
    """Return the labels of a setting's values in rising order, null at its end of the scale: last."""
    values = frame[by.column].unique().to_list()
    known = sorted(value for value in values if value is not None)
    return [_label(value, by.null) for value in [*known, *([None] if None in values else [])]]


def _points(
    frame: polars.DataFrame, column: str, x: By, series: By, panel: By | None, chosen: str | None
) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Return one plain record a point, and the order of each axis; dots in names would mean nesting to Vega."""
    places = {"x": x, "series": series} | ({"panel": panel} if panel else {})
    records = [
        {name: _label(row[by.column], by.null) for name, by in places.items()}
        | {"value": row[column], "low": row[f"{column}_low"], "high": row[f"{column}_high"], "chosen": row["run"] == chosen}
        for row in frame.iter_rows(named=True)
        if row[column] is not None
    ]
    return records, {name: _order(frame, by) for name, by in places.items()}


def _around_one(points: tuple[list[dict[str, Any]], dict[str, list[str]]]) -> list[float]:
    """Return a domain that holds every point, its interval and the reference, and no less than 0.5 to 1.25."""
    ends = [end for row in points[0] for end in (row["value"], row["low"], row["high"]) if end is not None and end > 0]
    return [min([0.5, *ends]) * 0.94, max([1.25, *ends]) * 1.06]


def _panels(
    points: tuple[list[dict[str, Any]], dict[str, list[str]]],
    y: _Upright,
    x: By,
    series: By,
    panel: By | None,
    *,
    reference: bool,
    height: int,
    title: str,
    subtitle: str,
) -> theme.Drawing:
    records, order = points
    panels = order.get("panel", [""])
    width = (theme.WIDTH - 24 * (len(panels) - 1)) / len(panels)
    charts = []
    for place, name in enumerate(panels):
        inside = [row for row in records if row.get("panel", "") == name]
        under = [_reference(y, place == 0)] if reference else []
        chart = alt.layer(*under, *_marks(inside, order, y, place == 0, x, series)).properties(width=width, height=height)
        if panel:
            chart = chart.properties(title=alt.TitleParams(f"{panel.title}: {name}", fontSize=13, offset=6, anchor="middle"))
        charts.append(chart)
    whole = charts[0] if len(charts) == 1 else alt.hconcat(*charts, spacing=24).resolve_legend(color="shared", shape="shared")
    return whole.properties(title=theme.title(title, subtitle)) if title else whole


def _reference(y: _Upright, shown: bool) -> theme.Drawing:
    """Return the line at 1: as fast as the reference."""
    line = alt.Chart(alt.InlineData(values=[{"one": 1}])).mark_rule(color=theme.MUTED, strokeDash=[5, 4])
    return line.encode(y=y.of("one", shown))


def _marks(inside: list[dict[str, Any]], order: dict[str, list[str]], y: _Upright, shown: bool, x: By, series: By) -> list[Any]:
    colour, shape = theme.series_scale(order["series"])
    base = alt.Chart(alt.InlineData(values=inside)).encode(
        x=alt.X("x:N", title=x.title, sort=order["x"], scale=alt.Scale(domain=order["x"], paddingInner=0.45, paddingOuter=0.25)),
        xOffset=alt.XOffset("series:N", sort=order["series"], scale=alt.Scale(domain=order["series"])),
        color=alt.Color("series:N", title=series.title, scale=colour, sort=order["series"]),
        tooltip=[
            alt.Tooltip("x:N", title=x.title),
            alt.Tooltip("series:N", title=series.title),
            alt.Tooltip("value:Q", format=".3g"),
            alt.Tooltip("low:Q", format=".3g"),
            alt.Tooltip("high:Q", format=".3g"),
        ],
    )
    value = y.of("value", shown)
    line = base.mark_line(strokeWidth=1.5, opacity=0.6).encode(y=value)
    interval = base.mark_rule(strokeWidth=2).encode(y=y.of("low", shown), y2="high:Q")
    point = base.mark_point(filled=True, size=70, opacity=1).encode(
        y=value, shape=alt.Shape("series:N", title=series.title, scale=shape, sort=order["series"])
    )
    ring = (
        base.transform_filter("datum.chosen")
        .mark_point(shape="circle", size=330, strokeWidth=2, filled=False)
        .encode(y=value, color=alt.value(theme.RECOMMENDED))
    )
    text = base.transform_filter("datum.chosen").encode(y=value, text=alt.value("recommended"))
    halo = text.mark_text(dy=-18, fontSize=12, fontWeight="bold", stroke="white", strokeWidth=4).encode(color=alt.value("white"))
    word = text.mark_text(dy=-18, fontSize=12, fontWeight="bold").encode(color=alt.value(theme.RECOMMENDED))
    return [line, interval, point, ring, halo, word]
