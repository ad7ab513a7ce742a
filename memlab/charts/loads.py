"""Response times under load: against the number of callers, by way of arriving, and with a planted stall."""

from __future__ import annotations

import altair as alt
import polars

from memlab.charts import theme

_WAYS = ("closed", "poisson", "trace")
_SAID = {"closed": "callers that wait", "poisson": "Poisson arrivals", "trace": "recorded arrivals"}
_STEPS = [step * 10.0**power for power in range(-3, 6) for step in (1, 2, 5)]


def by_callers(frame: polars.DataFrame, height: int = 260) -> theme.Drawing:
    """Return the 95th percentile against the number of callers, a series a way of arriving, with reach and ceiling.

    Args:
        frame: `clients`, `way`, `p95_ms` with `_low` and `_high`, `reach_ms`, `ceiling_ms`; any but the first two may be null.
    """
    rows = [
        {
            "clients": row["clients"],
            "way": _SAID[row["way"]],
            "value": row["p95_ms"],
            "low": row["p95_ms_low"],
            "high": row["p95_ms_high"],
        }
        for row in frame.to_dicts()
        if row["p95_ms"] is not None
    ]
    bounds = [
        {"clients": row["clients"], "value": row[f"{name}_ms"], "bound": name}
        for row in frame.unique("clients", maintain_order=True).to_dicts()
        for name in ("reach", "ceiling")
        if row[f"{name}_ms"] is not None
    ]
    ends = [value for row in rows for value in (row["value"], row["low"], row["high"]) if value]
    ends += [row["value"] for row in bounds]
    domain = [0.8 * min(ends, default=1.0), 1.25 * max(ends, default=10.0)]
    clients = sorted(set(frame["clients"]))
    x = alt.X(
        "clients:Q",
        title="callers at once",
        scale=alt.Scale(type="log", nice=False, domain=[0.7 * clients[0], 1.4 * clients[-1]] if clients else [1, 10]),
        axis=alt.Axis(values=clients, format=",d"),
    )
    title = "p95 from the intended start (ms)"
    scale = alt.Scale(type="log", nice=False, domain=domain)
    axis = alt.Axis(values=[step for step in _STEPS if domain[0] <= step <= domain[1]], format="~g", grid=True)
    colours, shapes = theme.series_scale([_SAID[way] for way in _WAYS])
    base = alt.Chart(alt.Data(values=rows)).encode(x, alt.Color("way:N", title=None, scale=colours))
    lines = base.mark_line(strokeWidth=1.5).encode(alt.Y("value:Q", title=title, scale=scale, axis=axis))
    bars = base.mark_rule(strokeWidth=2).encode(alt.Y("low:Q", title=title, scale=scale, axis=axis), alt.Y2("high:Q"))
    marks = base.mark_point(filled=True, size=70, opacity=1).encode(
        alt.Y("value:Q", title=title, scale=scale, axis=axis), alt.Shape("way:N", title=None, scale=shapes)
    )
    asked = alt.Chart(alt.Data(values=bounds)).encode(x, alt.Y("value:Q", title=title, scale=scale, axis=axis))
    ticks = asked.mark_tick(orient="horizontal", thickness=2, size=26, color=theme.INK)
    words = asked.mark_text(align="left", dx=16, fontSize=10, color=theme.MUTED).encode(alt.Text("bound:N"))
    return (ticks + words + lines + bars + marks).properties(width=theme.WIDTH - 40, height=height)


def by_way(frame: polars.DataFrame, height: int = 54) -> theme.Drawing:
    """Return the percentiles of one load, a row a percentile, a mark a way of arriving.

    Args:
        frame: `way`, and `p50_ms`, `p95_ms`, `p99_ms`, each with `_low` and `_high`, perhaps null.
    """
    rows = [
        {
            "way": _SAID[row["way"]],
            "percentile": name,
            "value": row[f"{name}_ms"],
            "low": row[f"{name}_ms_low"],
            "high": row[f"{name}_ms_high"],
        }
        for row in frame.to_dicts()
        for name in ("p50", "p95", "p99")
        if row[f"{name}_ms"] is not None
    ]
    names = [_SAID[way] for way in _WAYS]
    colours, shapes = theme.series_scale(names)
    ends = [row[end] for row in rows for end in ("value", "low", "high") if row[end]]
    domain = [0.8 * min(ends, default=0.1), 1.3 * max(ends, default=1.0)]
    axis = alt.Axis(values=[step for step in _STEPS if domain[0] <= step <= domain[1]], format="~g", grid=True)
    scale = alt.Scale(type="log", nice=False, domain=domain)
    title = "response time from the intended start (ms)"
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("percentile:N", title=None, sort=["p50", "p95", "p99"]),
        yOffset=alt.YOffset("way:N", sort=names, scale=alt.Scale(domain=names)),
        color=alt.Color("way:N", title=None, scale=colours),
    )
    bars = base.mark_rule(strokeWidth=2).encode(alt.X("low:Q", title=title, scale=scale, axis=axis), alt.X2("high:Q"))
    marks = base.mark_point(filled=True, size=70, opacity=1).encode(
        alt.X("value:Q", title=title, scale=scale, axis=axis), alt.Shape("way:N", title=None, scale=shapes)
    )
    figures = base.mark_text(dx=8, dy=-7, align="left", fontSize=10).encode(
        alt.X("value:Q", title=title, scale=scale, axis=axis), alt.Text("value:Q", format=".3~r")
    )
    return (bars + marks + figures).properties(width=theme.WIDTH - 40, height=height * len({row["percentile"] for row in rows}))


def trials(
    frame: polars.DataFrame, *, target_ms: float, low: float | None, high: float | None, height: int = 240
) -> theme.Drawing:
    """Return what the trials of a search for a rate showed: rate against p99, passed or failed, and the interval that was found.

    Args:
        frame: `rate_per_s`, `p99_ms`, perhaps null, and `passed`.
        target_ms: which p99 was asked for.
        low, high: interval of the rate; None where it is not known.
    """
    rows = [
        {"rate": row["rate_per_s"], "p99": row["p99_ms"], "outcome": "passed" if row["passed"] else "failed"}
        for row in frame.to_dicts()
        if row["p99_ms"] is not None
    ]
    x_scale, y_scale = alt.Scale(type="log", nice=True), alt.Scale(type="log", nice=True)
    colours = alt.Scale(domain=["passed", "failed"], range=[theme.PALETTE[0], theme.PALETTE[1]])
    shapes = alt.Scale(domain=["passed", "failed"], range=["circle", "cross"])
    x = alt.X("rate:Q", title="calls sent a second", scale=x_scale, axis=alt.Axis(format="~s", tickCount=6))
    y = alt.Y("p99:Q", title="p99 from the intended start (ms)", scale=y_scale, axis=alt.Axis(format="~g", tickCount=5))
    marks = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=70, opacity=0.9)
        .encode(x, y, alt.Color("outcome:N", title=None, scale=colours), alt.Shape("outcome:N", title=None, scale=shapes))
    )
    target = (
        alt.Chart(alt.Data(values=[{"p99": target_ms}]))
        .mark_rule(strokeDash=[5, 4], color=theme.INK)
        .encode(alt.Y("p99:Q", scale=y_scale))
    )
    if low is None or high is None:
        return (target + marks).properties(width=theme.WIDTH - 40, height=height)
    band = (
        alt.Chart(alt.Data(values=[{"low": low, "high": high}]))
        .mark_rect(opacity=0.15, color=theme.INK)
        .encode(alt.X("low:Q", scale=x_scale), alt.X2("high:Q"))
    )
    return (band + target + marks).properties(width=theme.WIDTH - 40, height=height)


def stalls(frame: polars.DataFrame, *, stall_ms: float, height: int = 240) -> theme.Drawing:
    """Return response times by percentile of an open and a closed loop that met the same stalls.

    Args:
        frame: `loop` (open or closed), `percentile` in (0, 100), `ms`.
        stall_ms: how long the stalls were; drawn as a line.
    """
    rows = [{**row, "beyond": 1 - row["percentile"] / 100} for row in frame.to_dicts()]
    colours, shapes = theme.series_scale(["open", "closed"])
    low = min((row["ms"] for row in rows), default=1.0)
    high = max([*(row["ms"] for row in rows), stall_ms])
    y_scale = alt.Scale(type="log", nice=False, domain=[0.8 * low, 1.5 * high])
    axis = alt.Axis(values=[step for step in _STEPS if 0.8 * low <= step <= 1.5 * high], format="~g", grid=True)
    x = alt.X(
        "beyond:Q",
        title="percentile",
        scale=alt.Scale(type="log", reverse=True, nice=False, domain=[0.0009, 0.5]),
        axis=alt.Axis(values=[0.5, 0.1, 0.05, 0.01, 0.001], labelExpr="'p' + format(100 * (1 - datum.value), '.3~g')"),
    )
    base = alt.Chart(alt.Data(values=rows)).encode(
        x, alt.Y("ms:Q", title="response time (ms)", scale=y_scale, axis=axis), alt.Color("loop:N", title="loop", scale=colours)
    )
    line = (
        alt.Chart(alt.Data(values=[{"ms": stall_ms}]))
        .mark_rule(strokeDash=[5, 4], color=theme.INK)
        .encode(alt.Y("ms:Q", scale=y_scale))
    )
    marks = base.mark_point(filled=True, size=50, opacity=1).encode(alt.Shape("loop:N", title="loop", scale=shapes))
    return (line + base.mark_line(strokeWidth=1.5) + marks).properties(width=theme.WIDTH - 40, height=height)
