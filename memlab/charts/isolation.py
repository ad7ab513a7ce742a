"""How many answers were checked, how many calls cancelled, and how many answers were not what they should be."""

from __future__ import annotations

import altair as alt
import polars

from memlab.charts import theme

_KINDS = ("answers checked", "refused", "cancelled", "differences")


def checked(frame: polars.DataFrame, height: int = 26) -> theme.Drawing:
    """Return a bar for each group, of answers, refusals and cancelled calls, with the number of differences at its end.

    Args:
        frame: `group`, `answers`, `refused`, `cancelled`, `differences`; drawn in the order of the rows.
    """
    rows = frame.to_dicts()
    parts = [
        {"group": row["group"], "kind": kind, "place": place, "count": row[name]}
        for row in rows
        for place, (kind, name) in enumerate(zip(_KINDS, ("answers", "refused", "cancelled"), strict=False))
    ]
    ends = [
        {
            "group": row["group"],
            "end": row["answers"] + row["refused"] + row["cancelled"],
            "said": f"{row['differences']:,} different",
            "wrong": row["differences"] > 0,
        }
        for row in rows
    ]
    groups = [row["group"] for row in rows]
    y = alt.Y("group:N", sort=groups, title=None)
    colours = alt.Scale(domain=list(_KINDS[:3]), range=[theme.PALETTE[0], theme.MUTED, theme.PALETTE[4]])
    scale = alt.Scale(domain=[0, 1.25 * max([row["end"] for row in ends], default=1)], nice=False)
    bars = (
        alt.Chart(alt.Data(values=parts))
        .mark_bar(height={"band": 0.7})
        .encode(
            alt.X("count:Q", title="calls", scale=scale, stack="zero", axis=alt.Axis(format=",d", grid=True)),
            y,
            alt.Color("kind:N", title=None, scale=colours),
            alt.Order("place:Q"),
        )
    )
    words = (
        alt.Chart(alt.Data(values=ends))
        .mark_text(align="left", dx=5, fontSize=11)
        .encode(
            alt.X("end:Q", scale=scale),
            y,
            alt.Text("said:N"),
            color=alt.condition("datum.wrong", alt.value(theme.PALETTE[1]), alt.value(theme.INK)),
        )
    )
    return (bars + words).properties(width=theme.WIDTH - 80, height=height * max(len(rows), 1))
