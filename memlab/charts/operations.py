"""What operations cost, and how it grows with the store."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars

from memlab.charts import theme

CLASSES = ("read", "discovery", "complex", "write", "bulk", "job")
_ROW = 13  # pixels of an operation
_ACROSS = 3  # panels in a row


def costs(frame: polars.DataFrame) -> theme.Drawing:
    """Return every operation of one store on a logarithmic axis: median and 95th percentile, the floor of the path, the ceiling.

    Args:
        frame: `operation`, `cost`, `p50_ms` or, where that is null, `mean_ms`, `p95_ms` and `floor_ms`, each perhaps null, and
            `target_ms`; grouped by class and drawn in the order of the rows.
    """
    rows = [{**row, "middle": row["p50_ms"] or row["mean_ms"]} for row in frame.to_dicts()]
    there = [name for name in CLASSES if any(row["cost"] == name for row in rows)]
    names = [row["operation"] for name in there for row in rows if row["cost"] == name]
    ends = [row[end] for row in rows for end in ("middle", "p95_ms", "floor_ms", "target_ms") if row[end]]
    scale = alt.Scale(type="log", nice=False, domain=[0.8 * min(ends, default=0.1), 1.3 * max(ends, default=1.0)])
    axis = alt.Axis(values=_powers(ends), format="~g", grid=True)
    colours, _ = theme.series_scale(list(CLASSES))
    colour = alt.Color("cost:N", title=None, scale=colours, sort=there, legend=alt.Legend(values=there))
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("operation:N", sort=names, title=None, axis=alt.Axis(labelFontSize=10, labelLimit=260))
    )

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title="response time (ms)", scale=scale, axis=axis)

    known = "isValid(datum.{})"
    layers = [
        base.transform_filter(known.format("floor_ms")).mark_tick(color=theme.MUTED, thickness=2, size=8).encode(x("floor_ms")),
        base.mark_point(shape="triangle-left", filled=True, color=theme.INK, opacity=1, size=28).encode(x("target_ms")),
        base.transform_filter(known.format("p95_ms")).mark_rule(strokeWidth=2).encode(x("middle"), alt.X2("p95_ms:Q"), colour),
        base.transform_filter(known.format("middle")).mark_point(filled=True, size=32, opacity=1).encode(x("middle"), colour),
    ]
    return alt.layer(*layers).properties(width=theme.WIDTH - 160, height=_ROW * len(names))


def by_size(frame: polars.DataFrame, height: int = 150) -> theme.Drawing:
    """Return how the 95th percentile of every operation goes with the size of the store, a panel a class, beside its ceiling.

    Args:
        frame: `operation`, `cost`, `memories`, `p95_ms`, `target_ms` and `met`; operations with a `met` that is false are
            drawn in another colour and named at their last point.
    """
    rows = [row for row in frame.to_dicts() if row["p95_ms"]]
    over = {row["operation"] for row in rows if row["met"] is False}
    there = [name for name in CLASSES if any(row["cost"] == name for row in rows)]
    drawn = [
        _panel([row for row in rows if row["cost"] == name], over, rows, height, place % _ACROSS == 0)
        for place, name in enumerate(there)
    ]
    across = [alt.hconcat(*drawn[place : place + _ACROSS], spacing=14) for place in range(0, len(drawn), _ACROSS)]
    return alt.vconcat(*across, spacing=10)


def _panel(rows: list[dict[str, Any]], over: set[str], every: list[dict[str, Any]], height: int, is_first: bool) -> theme.Drawing:
    """Return the panel of one class, on the scales of all; the first of a row carries the axis."""
    name = rows[0]["cost"]
    ends = [row[end] for row in every for end in ("p95_ms", "target_ms")]
    sizes = sorted({row["memories"] for row in every})
    y_scale = alt.Scale(type="log", nice=False, domain=[0.7 * min(ends), 1.5 * max(ends)])
    x = alt.X(
        "memories:Q",
        title="memories",
        scale=alt.Scale(type="log", nice=False, domain=[0.8 * sizes[0], 1.25 * sizes[-1]]),
        axis=alt.Axis(values=sizes, format="~s"),
    )
    axis = alt.Axis(values=_powers(ends), format="~g", grid=True, labels=is_first, ticks=is_first, domain=is_first)
    y = alt.Y("p95_ms:Q", title="p95 (ms)" if is_first else None, scale=y_scale, axis=axis)
    marked = [{**row, "over": row["operation"] in over} for row in rows]
    base = alt.Chart(alt.Data(values=marked)).encode(x, y, alt.Detail("operation:N"))
    colour = alt.condition("datum.over", alt.value(theme.PALETTE[1]), alt.value(theme.PALETTE[0]))
    lines = base.mark_line(strokeWidth=1.2, opacity=0.75).encode(color=colour)
    points = base.mark_point(filled=True, size=12, opacity=0.9).encode(color=colour)
    ceiling = (
        alt.Chart(alt.Data(values=[{"target_ms": rows[0]["target_ms"]}]))
        .mark_rule(strokeDash=[5, 4], color=theme.INK)
        .encode(alt.Y("target_ms:Q", scale=y_scale))
    )
    last = {row["operation"]: row for row in sorted(marked, key=lambda row: row["memories"]) if row["over"]}
    labels = (
        alt.Chart(alt.Data(values=list(last.values())))
        .mark_text(align="right", dx=-4, dy=-6, fontSize=9, color=theme.INK)
        .encode(x, y, alt.Text("operation:N"))
    )
    said = f"{name}, per item" if name == "bulk" else name
    return alt.layer(ceiling, lines, points, labels).properties(
        width=(theme.WIDTH - 60) // _ACROSS, height=height, title=alt.TitleParams(said, fontSize=12, anchor="middle", offset=4)
    )


def exponents(frame: polars.DataFrame) -> theme.Drawing:
    """Return how the cost of operations grows with the store, an exponent each, with its interval.

    Args:
        frame: `operation`, `cost`, `exponent`, and `low` and `high`, which may be null; drawn in the order of the rows.
    """
    rows = frame.to_dicts()
    colours, shapes = theme.series_scale(list(CLASSES))
    there = [name for name in CLASSES if any(row["cost"] == name for row in rows)]
    ends = [row[end] for row in rows for end in ("exponent", "low", "high") if row[end] is not None]
    scale = alt.Scale(domain=[min(0.0, *ends, 0.0), max(1.0, *ends, 1.0)], nice=False)
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("operation:N", sort=None, title=None, axis=alt.Axis(labelFontSize=10, labelLimit=260)),
        color=alt.Color("cost:N", title=None, scale=colours, legend=alt.Legend(values=there)),
    )
    title = "exponent of the median over the size of the store"
    bars = (
        base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(strokeWidth=1.5)
        .encode(alt.X("low:Q", title=title, scale=scale), alt.X2("high:Q"))
    )
    marks = base.mark_point(filled=True, size=45, opacity=1).encode(
        alt.X("exponent:Q", title=title, scale=scale, axis=alt.Axis(grid=True)),
        alt.Shape("cost:N", title=None, scale=shapes, legend=alt.Legend(values=there)),
    )
    return (bars + marks).properties(width=theme.WIDTH - 160, height=_ROW * len(rows) + 4)


def _powers(values: list[float]) -> list[float]:
    powers = [10.0**power for power in range(-4, 7)]
    return [power for power in powers if 0.8 * min(values, default=1.0) <= power <= 1.3 * max(values, default=1.0)]
