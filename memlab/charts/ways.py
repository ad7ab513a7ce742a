"""What an optimizer expected beside what happened, and what its choices cost beside the best ones."""

from __future__ import annotations

import altair as alt
import polars

from memlab.charts import theme
from memlab.charts.curves import By
from memlab.charts.models import predictions

_NAMES = ("pre_filter", "push_down", "post_filter", "auto")


def estimates(frame: polars.DataFrame, height: int = 220) -> theme.Drawing:
    """Return estimated against measured cost, a mark a search, on logarithmic axes with the line where both agree.

    Args:
        frame: `estimated_us`, `cost_us` and `way`.
    """
    said, happened = By("estimated_us", "estimated (µs)"), By("cost_us", "measured (µs)")
    return predictions(frame, said, happened, By("way", "way"), names=_NAMES, height=height)


def regrets(frame: polars.DataFrame, height: int = 300) -> theme.Drawing:
    """Return the time of every strategy beside the best forced way of its case, 1 being the best, with intervals.

    Args:
        frame: `case`, `strategy`, `ratio`, `low`, `high`; intervals may be null.
    """
    colours, shapes = theme.series_scale([*_NAMES])
    cases = frame["case"].unique(maintain_order=True).to_list()
    rows = [{**row, "way": row["strategy"]} for row in frame.to_dicts()]
    y = alt.Y("case:N", title=None, sort=cases)
    offset = alt.YOffset("way:N", sort=[*_NAMES])
    highest = max(max(row["ratio"], row["high"] or 0.0) for row in rows)
    ticks = [1, *(tick for tick in (2, 5, 10, 20, 50, 100) if tick < 1.3 * highest)]
    x_scale = alt.Scale(
        type="log", nice=False, domain=[0.95 * min(0.7, *(row["low"] or row["ratio"] for row in rows)), 1.1 * highest]
    )
    data = alt.Data(values=rows)
    bars = (
        alt.Chart(data)
        .transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(strokeWidth=1.5)
        .encode(alt.X("low:Q", scale=x_scale), alt.X2("high:Q"), y, offset, alt.Color("way:N", title="way", scale=colours))
    )
    marks = (
        alt.Chart(data)
        .mark_point(filled=True, size=55, opacity=1)
        .encode(
            alt.X(
                "ratio:Q",
                title="median time / best forced way",
                scale=x_scale,
                axis=alt.Axis(values=ticks, format="~g", grid=True),
            ),
            y,
            offset,
            alt.Color("way:N", title="way", scale=colours),
            alt.Shape("way:N", title="way", scale=shapes),
        )
    )
    return (bars + marks).properties(width=theme.WIDTH - 60, height=height)
