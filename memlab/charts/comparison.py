"""Two settings side by side: response times with their intervals."""

from __future__ import annotations

import altair as alt
import polars

from memlab.charts import theme


def response_times(
    frame: polars.DataFrame, *, title: str = "", subtitle: str = "", labels: tuple[str, str] = ("reference", "candidate")
) -> theme.Drawing:
    """Return percentiles of response times of two settings, one row a percentile, on a logarithmic axis.

    Args:
        frame: `group` (an operation, whose name has its colour, or an empty text), `percentile`, `setting` (reference or
            candidate), `value_ms`, `low_ms`, `high_ms`; rows without a value are left out.
        labels: what the reference and the candidate are called.
    """
    names = dict(zip(("reference", "candidate"), labels, strict=True))
    records = [
        {"group": row["group"], "percentile": row["percentile"], "setting": names[row["setting"]]}
        | {"value": row["value_ms"], "low": row["low_ms"], "high": row["high_ms"]}
        for row in frame.iter_rows(named=True)
        if row["value_ms"] is not None
    ]
    groups = list(dict.fromkeys(row["group"] for row in records))
    percentiles = list(dict.fromkeys(row["percentile"] for row in records))
    colour = alt.Scale(domain=list(labels), range=[theme.SETTING_COLOURS["reference"], theme.SETTING_COLOURS["candidate"]])
    shape = alt.Scale(domain=list(labels), range=["square", "circle"])
    ends = [end for row in records for end in (row["low"] or row["value"], row["high"] or row["value"])]
    domain = [min(ends, default=0.1) * 0.9, max(ends, default=1.0) * 1.1]
    ticks = [step * 10.0**power for power in range(-3, 5) for step in (1, 2, 5)]
    ticks = [tick for tick in ticks if domain[0] <= tick <= domain[1]]
    charts = []
    for place, group in enumerate(groups):
        last = place == len(groups) - 1
        base = alt.Chart(alt.InlineData(values=[row for row in records if row["group"] == group])).encode(
            y=alt.Y(
                "percentile:N",
                title=group or None,
                sort=percentiles,
                scale=alt.Scale(domain=percentiles),
                axis=alt.Axis(titleColor=theme.operation_colour(group), titleFontWeight="bold"),
            ),
            yOffset=alt.YOffset("setting:N", sort=list(labels), scale=alt.Scale(domain=list(labels))),
            color=alt.Color("setting:N", title=None, scale=colour),
        )
        axis = alt.Axis(values=ticks, format="~g", grid=True, labels=last, ticks=last, domain=last)
        scale = alt.Scale(type="log", domain=domain, nice=False)
        heading = "response time from the intended start (ms)" if last else None
        interval = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=heading, axis=axis, scale=scale), x2="high:Q")
        point = base.mark_point(filled=True, size=80, opacity=1).encode(
            x=alt.X("value:Q", title=heading, axis=axis, scale=scale), shape=alt.Shape("setting:N", title=None, scale=shape)
        )
        figure = base.mark_text(dy=-10, fontSize=11).encode(
            x=alt.X("value:Q", title=heading, axis=axis, scale=scale), text=alt.Text("value:Q", format=".3~r")
        )
        charts.append(alt.layer(interval, point, figure).properties(width=theme.WIDTH, height=46 * len(percentiles)))
    whole = alt.vconcat(*charts, spacing=14).resolve_legend(color="shared", shape="shared")
    return whole.properties(title=theme.title(title, subtitle)) if title else whole
