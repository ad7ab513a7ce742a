"""What traffic is like: how unevenly keys are used, and how unevenly calls come."""

from __future__ import annotations

import altair as alt
import polars

from memlab.charts import theme


def traffic(
    popularity: polars.DataFrame | None, arrivals: polars.DataFrame | None, *, title: str, subtitle: str = ""
) -> theme.Drawing:
    """Return share against rank, both axes logarithmic, over calls per second against time; each where it is given.

    Args:
        popularity, arrivals: as `predict.traffic` makes them; one of them at least.
    """
    panels = []
    if popularity is not None:
        ranks = alt.Chart(alt.InlineData(values=popularity.to_dicts())).mark_line(color=theme.PALETTE[0], strokeWidth=2)
        panels.append(
            ranks.encode(
                x=alt.X("rank:Q", title="key, by how often it is used", scale=alt.Scale(type="log"), axis=alt.Axis(format=",")),
                y=alt.Y("share:Q", title="share of the accesses", scale=alt.Scale(type="log"), axis=alt.Axis(format=".1~e")),
            ).properties(width=theme.WIDTH, height=200)
        )
    if arrivals is not None:
        rate = alt.Chart(alt.InlineData(values=arrivals.to_dicts())).mark_line(color=theme.PALETTE[1], strokeWidth=1.5)
        panels.append(
            rate.encode(
                x=alt.X("at_s:Q", title="time (s)"), y=alt.Y("rate_per_s:Q", title="calls per second", scale=alt.Scale(zero=True))
            ).properties(width=theme.WIDTH, height=160)
        )
    return alt.vconcat(*panels, spacing=18).properties(title=theme.title(title, subtitle))
