"""What retrieval finds under settings that differ in one feature each."""

from __future__ import annotations

import altair as alt
import polars

from memlab.charts import theme

_TITLES = {"turn_recall_at_10": "turn recall@10", "session_hit_at_1": "session hit@1", "session_mrr": "session MRR"}


def reaches(frame: polars.DataFrame, height: int = 560) -> theme.Drawing:
    """Return every figure of every variant with its interval, on an axis from 0 to 1.

    Args:
        frame: `variant`, `figure`, `value`, `low`, `high`, in the order in which variants are shown.
    """
    rows = [{**row, "figure": _TITLES.get(row["figure"], row["figure"])} for row in frame.to_dicts()]
    names = list(dict.fromkeys(row["variant"] for row in rows))
    figures = list(dict.fromkeys(row["figure"] for row in rows))
    colours, shapes = theme.series_scale(figures)
    y = alt.Y("variant:N", title=None, sort=names)
    offset = alt.YOffset("figure:N", sort=figures)
    x_scale = alt.Scale(domain=[0, 1])
    data = alt.Data(values=rows)
    bars = (
        alt.Chart(data)
        .mark_rule(strokeWidth=1.5)
        .encode(alt.X("low:Q", scale=x_scale), alt.X2("high:Q"), y, offset, alt.Color("figure:N", title=None, scale=colours))
    )
    marks = (
        alt.Chart(data)
        .mark_point(filled=True, size=45, opacity=1)
        .encode(
            alt.X("value:Q", title="mean over questions", scale=x_scale, axis=alt.Axis(grid=True)),
            y,
            offset,
            alt.Color("figure:N", title=None, scale=colours),
            alt.Shape("figure:N", title=None, scale=shapes),
        )
    )
    return (bars + marks).properties(width=theme.WIDTH - 80, height=height)
