"""Where the time of a workflow goes, step by step, and how long whole runs take."""

from __future__ import annotations

import altair as alt
import polars

from memlab.charts import theme

_STEPS = [step * 10.0**power for power in range(-2, 6) for step in (1, 2, 5)]


def steps(frame: polars.DataFrame, height: int = 18) -> theme.Drawing:
    """Return every workflow as a panel with a bar for the mean of each step, in the order in which they are taken.

    Args:
        frame: `workflow`, `step`, `operation`, `mean_ms`, perhaps null; rows without a step are whole runs, and left out.
    """
    rows = [
        {"step": f"{row['step']}: {row['operation']}", "mean": row["mean_ms"], "workflow": row["workflow"]}
        for row in frame.to_dicts()
        if row["step"] is not None and row["mean_ms"] is not None
    ]
    names = list(dict.fromkeys(row["workflow"] for row in rows))
    scale = alt.Scale(domain=[0, 1.12 * max([row["mean"] for row in rows], default=1.0)], nice=False)
    panels = []
    for place, name in enumerate(names):
        mine = [row for row in rows if row["workflow"] == name]
        x = alt.X("mean:Q", title="mean (ms)" if place == len(names) - 1 else None, scale=scale, axis=alt.Axis(grid=True))
        base = alt.Chart(alt.Data(values=mine)).encode(
            x, alt.Y("step:N", sort=[row["step"] for row in mine], title=None, axis=alt.Axis(labelLimit=320, labelFontSize=11))
        )
        colour = theme.PALETTE[place % len(theme.PALETTE)]
        bars = base.mark_bar(color=colour, height={"band": 0.7})
        words = base.mark_text(align="left", dx=4, fontSize=10).encode(alt.Text("mean:Q", format=".3~g"))
        said = alt.TitleParams(name.replace("_", " "), fontSize=12, anchor="start", offset=4, color=colour)
        panels.append((bars + words).properties(width=theme.WIDTH - 240, height=height * len(mine), title=said))
    return alt.vconcat(*panels, spacing=8)


def whole_runs(frame: polars.DataFrame, height: int = 220) -> theme.Drawing:
    """Return the median and the 95th percentile of whole runs against the size of the store, a series a workflow.

    Args:
        frame: `workflow`, `step` (null for whole runs; others are left out), `memories`, `p50_ms` and `p95_ms` with `_low` and
            `_high`, perhaps null.
    """
    rows = [
        {
            "workflow": row["workflow"].replace("_", " "),
            "memories": row["memories"],
            "percentile": name,
            "value": row[f"{name}_ms"],
            "low": row[f"{name}_ms_low"],
            "high": row[f"{name}_ms_high"],
        }
        for row in frame.to_dicts()
        for name in ("p50", "p95")
        if row["step"] is None and row[f"{name}_ms"] is not None
    ]
    names = list(dict.fromkeys(row["workflow"].replace("_", " ") for row in frame.to_dicts()))
    colours, shapes = theme.series_scale(names)
    ends = [row[end] for row in rows for end in ("value", "low", "high") if row[end]]
    domain = [0.8 * min(ends, default=1.0), 1.3 * max(ends, default=10.0)]
    axis = alt.Axis(values=[step for step in _STEPS if domain[0] <= step <= domain[1]], format="~g", grid=True)
    sizes = sorted(set(frame["memories"]))
    panels = []
    for place, name in enumerate(("p50", "p95")):
        x = alt.X(
            "memories:Q",
            title="memories",
            scale=alt.Scale(type="log", nice=False, domain=[0.8 * sizes[0], 1.25 * sizes[-1]] if sizes else [1, 10]),
            axis=alt.Axis(values=sizes, format="~s"),
        )
        scale = alt.Scale(type="log", nice=False, domain=domain)
        title = "whole run (ms)" if place == 0 else None
        base = alt.Chart(alt.Data(values=[row for row in rows if row["percentile"] == name])).encode(
            x, alt.Color("workflow:N", title=None, scale=colours, legend=alt.Legend(columns=2))
        )
        bars = base.mark_rule(strokeWidth=2).encode(alt.Y("low:Q", title=title, scale=scale, axis=axis), alt.Y2("high:Q"))
        lines = base.mark_line(strokeWidth=1.5).encode(alt.Y("value:Q", title=title, scale=scale, axis=axis))
        marks = base.mark_point(filled=True, size=60, opacity=1).encode(
            alt.Y("value:Q", title=title, scale=scale, axis=axis), alt.Shape("workflow:N", title=None, scale=shapes)
        )
        said = alt.TitleParams(name, fontSize=12, anchor="middle", offset=4)
        panels.append((bars + lines + marks).properties(width=(theme.WIDTH - 60) // 2, height=height, title=said))
    return alt.hconcat(*panels, spacing=16)
