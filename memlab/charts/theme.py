"""How every chart looks: one font, one set of sizes, one colour for a thing wherever it is drawn.

Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers and in print; each series also has a
shape of its own. Sizes are chosen so that a chart set 16 cm wide in the PDF reads at 8 points or more.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, TypeAlias

import altair as alt
import vl_convert

Drawing: TypeAlias = Any  # the chart classes of altair share no base that its methods accept

# vl-convert carries Liberation Sans; its widths are those of Arial and Helvetica, so text fits wherever the SVG is opened.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
INK = "#1f2430"
MUTED = "#5b6270"
GRID = "#e3e6eb"
WIDTH = 600

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b3589a", "#c98700", "#3a9bd0", "#6b4c9a", "#4d4d4d")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
SETTING_COLOURS = {"reference": "#767c88", "candidate": PALETTE[0]}
RECOMMENDED = "#1f2430"

# What the experiments send most comes first, so that it has the strongest colours; the order never changes, names are added.
_OPERATIONS = (
    "episodic.recall",
    "episodic.remember",
    "episodic.get",
    "semantic.search",
    "semantic.store_fact",
    "semantic.get",
    "episodic.remember_many",
    "episodic.forget",
)


def operation_colour(operation: str) -> str:
    """Return the colour of *operation*, the same in every chart.

    >>> operation_colour("episodic.recall")
    '#0072b2'
    """
    if operation in _OPERATIONS:
        return PALETTE[_OPERATIONS.index(operation)]
    return PALETTE[sum(operation.encode()) % len(PALETTE)]


def series_scale(names: list[str]) -> tuple[alt.Scale, alt.Scale]:
    """Return the colour scale and the shape scale of *names*, in their order."""
    colours = [PALETTE[place % len(PALETTE)] for place in range(len(names))]
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(names))]
    return alt.Scale(domain=names, range=colours), alt.Scale(domain=names, range=shapes)


def title(text: str, subtitle: str = "") -> alt.TitleParams:
    """Return a title whose lines fit the width of a chart; Vega does not break lines itself."""
    lines = textwrap.wrap(text, 74) or [""]
    return alt.TitleParams(lines, subtitle=textwrap.wrap(subtitle, 92)) if subtitle else alt.TitleParams(lines)


_AXIS = {
    "labelColor": INK,
    "labelFontSize": 12,
    "titleColor": INK,
    "titleFontSize": 13,
    "titleFontWeight": "normal",
    "titlePadding": 8,
    "gridColor": GRID,
    "domainColor": MUTED,
    "tickColor": MUTED,
    "labelFlush": False,
}
_LEGEND = {
    "labelFontSize": 12,
    "titleFontSize": 12,
    "titleFontWeight": "normal",
    "titleColor": MUTED,
    "labelColor": INK,
    "orient": "top",
    "offset": 6,
    "symbolSize": 80,
    "symbolOpacity": 1,
    "symbolStrokeWidth": 2,
}
_TITLE = {
    "anchor": "start",
    "fontSize": 16,
    "fontWeight": "bold",
    "color": INK,
    "subtitleFontSize": 13,
    "subtitleColor": MUTED,
    "subtitlePadding": 4,
    "offset": 12,
    "lineHeight": 20,
    "subtitleLineHeight": 17,
}


@alt.theme.register("memlab", enable=True)
def memlab_theme() -> Any:
    """Return the theme of every chart; enabled when `memlab.charts` is imported."""
    config = {
        "font": FONT,
        "background": "white",
        "view": {"stroke": None, "continuousWidth": WIDTH, "continuousHeight": 240},
        "axis": _AXIS,
        "axisX": {"grid": False, "labelAngle": 0},
        "legend": _LEGEND,
        "title": _TITLE,
    }
    return {"config": config}


# The other renderers emit a media type that nbformat rejects, and need a browser; SVG is read everywhere.
alt.renderers.enable("svg")


def to_svg(chart: Drawing) -> str:
    """Return the chart as SVG text."""
    return str(vl_convert.vegalite_to_svg(chart.to_json(), vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])))


def svg_to_pdf(svg: str, path: Path) -> None:
    """Write *svg* to *path* as a one-page PDF, its text kept as text in embedded fonts."""
    path.write_bytes(vl_convert.svg_to_pdf(svg))
