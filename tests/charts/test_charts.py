"""Charts draw what they are given: titles, units, intervals, one colour for a thing, text that PDF keeps as text."""

import re

import polars as pl
import pytest

from memlab import charts
from memlab.charts import theme

SIZE = charts.By("cache.max_entries", "cache size (entries)")
TTL = charts.By("cache.ttl_s", "time to live (s)", null="none")
RATE = charts.By("workload.arrivals.rate_per_s", "arrivals/s")


@pytest.fixture
def frame():
    rows = [
        {
            "run": f"01-cache-size/{size}-{ttl}-{rate}",
            "cache.max_entries": size,
            "cache.ttl_s": ttl,
            "workload.arrivals.rate_per_s": rate,
            "ratio_p95": ratio,
            "ratio_p95_low": ratio * 0.9,
            "ratio_p95_high": ratio * 1.1,
            "hit_ratio": 1 - ratio,
            "hit_ratio_low": 0.9 - ratio,
            "hit_ratio_high": 1.05 - ratio,
        }
        for rate in (100, 400)
        for ttl in (0.5, None)
        for size, ratio in ((64, 0.8), (1024, 0.4), (4096, 0.38))
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def times():
    rows = [
        {"group": group, "percentile": name, "setting": setting, "value_ms": value, "low_ms": value * 0.9, "high_ms": value * 1.2}
        for group in ("episodic.recall", "episodic.remember")
        for name, before in (("p50", 2.0), ("p95", 12.0))
        for setting, value in (("reference", before), ("candidate", before / 3))
    ]
    return pl.DataFrame(rows)


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_a_curve_carries_its_finding_units_and_every_value_of_the_axis(frame):
    """Title and subtitle, axis titles with units, sizes in rising order, null under its name: all stand in the SVG as text."""
    one_rate = frame.filter(pl.col("workload.arrivals.rate_per_s") == 100)
    chart = charts.ratio_curve(one_rate, "p95", x=SIZE, series=TTL, y_title="p95, cache / none", title="Found", subtitle="how")
    words = texts(charts.to_svg(chart))
    for word in ("Found", "how", "cache size (entries)", "time to live (s)", "p95, cache / none", "none", "0.5", "1 ×", "0.5 ×"):
        assert word in words, word
    assert [word for word in words if word in ("64", "1,024", "4,096")] == ["64", "1,024", "4,096"]


def test_intervals_and_the_reference_are_drawn(frame):
    """Every point has a rule from the low to the high end of its interval, and a dashed line lies at 1."""
    chart = charts.ratio_curve(frame.head(3), "p95", x=SIZE, series=TTL, y_title="ratio").to_dict()
    rules = [layer for layer in chart["layer"] if layer["mark"]["type"] == "rule"]
    assert {(rule["encoding"]["y"]["field"], rule["encoding"].get("y2", {}).get("field")) for rule in rules} == {
        ("one", None),
        ("low", "high"),
    }


def test_points_without_intervals_lie_inside_the_axis(frame):
    """A run of few repeats has no interval; its ratio is drawn where it belongs, however large."""
    ratios = frame.head(3).with_columns(pl.Series("ratio_p95", [0.1, 1.0, 3.0]), *_nothing("ratio_p95_low", "ratio_p95_high"))
    chart = charts.ratio_curve(ratios, "p95", x=SIZE, series=TTL, y_title="ratio").to_dict()
    low, high = chart["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert low < 0.1
    assert high > 3.0


def _nothing(*names):
    return [pl.lit(None, pl.Float64).alias(name) for name in names]


def test_the_recommended_point_is_ringed_and_named_once(frame):
    """The chosen run, and no other, carries the ring and the word."""
    chosen = frame["run"][1]
    svg = charts.to_svg(charts.ratio_curve(frame.head(3), "p95", x=SIZE, series=TTL, y_title="ratio", chosen=chosen))
    without = charts.to_svg(charts.ratio_curve(frame.head(3), "p95", x=SIZE, series=TTL, y_title="ratio"))
    assert "recommended" in texts(svg)
    assert "recommended" not in texts(without)


def test_panels_share_one_scale_and_say_what_they_are(frame):
    """One panel a rate, named with its rate; the same vertical scale in all."""
    chart = charts.ratio_curve(frame, "p95", x=SIZE, series=TTL, panel=RATE, y_title="ratio", title="Found")
    words = texts(charts.to_svg(chart))
    assert "arrivals/s: 100" in words
    assert "arrivals/s: 400" in words
    domains = [layer["encoding"]["y"]["scale"]["domain"] for part in chart.to_dict()["hconcat"] for layer in part["layer"]]
    assert all(domain == domains[0] for domain in domains)


def test_a_share_spans_zero_to_one(frame):
    """A hit ratio's axis runs from 0 to 1, whatever the values."""
    chart = charts.share_curve(frame.head(3), "hit_ratio", x=SIZE, series=TTL, y_title="hit ratio").to_dict()
    assert {tuple(layer["encoding"]["y"]["scale"]["domain"]) for layer in chart["layer"]} == {(0, 1)}


def test_points_without_a_value_are_left_out(frame):
    """A run with too few samples leaves a gap instead of an error, and so does a whole frame of them."""
    missing = frame.head(3).with_columns(pl.lit(None, dtype=pl.Float64).alias("ratio_p95"))
    chart = charts.ratio_curve(missing, "p95", x=SIZE, series=TTL, y_title="ratio", title="Nothing")
    assert "Nothing" in texts(charts.to_svg(chart))


def test_stacked_charts_have_one_title(frame):
    """The finding stands once, above both charts."""
    share = charts.share_curve(frame.head(3), "hit_ratio", x=SIZE, series=TTL, y_title="hit ratio")
    ratio = charts.ratio_curve(frame.head(3), "p95", x=SIZE, series=TTL, y_title="ratio")
    assert texts(charts.to_svg(charts.stack(share, ratio, title="Found", subtitle="how"))).count("Found") == 1


def test_response_times_stand_side_by_side_with_their_unit(times):
    """Both settings under their names, every percentile, every group, and milliseconds on the axis."""
    words = texts(charts.to_svg(charts.response_times(times, title="Found", labels=("everything off", "recommended"))))
    for word in ("Found", "everything off", "recommended", "p50", "p95", "episodic.recall", "episodic.remember"):
        assert word in words, word
    assert "response time from the intended start (ms)" in words


def test_a_percentile_of_too_few_samples_is_not_drawn(times):
    """A missing percentile is a missing mark."""
    fewer = times.with_columns(pl.when(pl.col("percentile") == "p95").then(None).otherwise("value_ms").alias("value_ms"))
    assert "p95" not in texts(charts.to_svg(charts.response_times(fewer)))
    assert charts.to_svg(charts.response_times(fewer.head(0))).startswith("<svg")


def test_an_operation_has_one_colour_everywhere():
    """The colour of an operation does not depend on what is drawn beside it; the usual ones differ from one another."""
    usual = ["episodic.recall", "episodic.remember", "semantic.search", "semantic.store_fact"]
    assert len({charts.operation_colour(name) for name in usual}) == len(usual)
    assert charts.operation_colour("discovery.search") == charts.operation_colour("discovery.search")
    assert charts.operation_colour("discovery.search") in theme.PALETTE


@pytest.mark.parametrize("colour", [*theme.PALETTE, *theme.SETTING_COLOURS.values(), theme.INK, theme.MUTED])
def test_colours_can_be_seen_on_white(colour):
    """Every colour that carries data has a contrast of 3 to 1 or more on white (WCAG 1.4.11)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    assert 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05) >= 3


def test_the_pdf_keeps_text_as_text_in_an_embedded_font(frame, tmp_path):
    """A chart's words can be found in its PDF, in a font that the PDF carries."""
    pypdf = pytest.importorskip("pypdf")
    chart = charts.ratio_curve(frame.head(3), "p95", x=SIZE, series=TTL, y_title="p95", title="Found in the file")
    charts.svg_to_pdf(charts.to_svg(chart), tmp_path / "chart.pdf")
    page = pypdf.PdfReader(tmp_path / "chart.pdf").pages[0]
    assert "Found in the file" in page.extract_text()
    fonts = page["/Resources"]["/Font"].values()
    assert fonts
    for font in fonts:
        descendant = font.get_object()["/DescendantFonts"][0].get_object()
        assert (
            "/FontFile2" in descendant["/FontDescriptor"].get_object()
            or "/FontFile3" in descendant["/FontDescriptor"].get_object()
        )


def test_the_svg_names_fonts_that_readers_have():
    """Every text names a list of fonts that ends in the reader's own sans-serif."""
    svg = charts.to_svg(
        charts.response_times(pl.DataFrame(schema=["group", "percentile", "setting", "value_ms", "low_ms", "high_ms"]))
    )
    assert set(re.findall(r'font-family="([^"]*)"', svg)) <= {theme.FONT}
    assert theme.FONT.endswith("sans-serif")


def test_ways_are_drawn_beside_the_best_and_beside_their_estimates():
    """Every case and way is there, with intervals where they are known; estimates stand against what happened."""
    rows = [
        {"case": case, "strategy": way, "ratio": ratio, "low": low, "high": None if low is None else 2 * ratio}
        for case, low in (("no filter", 0.9), ("topic of 1 %", None))
        for way, ratio in (("pre_filter", 3.0), ("push_down", 1.0), ("post_filter", 1.5), ("auto", 1.0))
    ]
    searches = pl.DataFrame({"estimated_us": [10.0, 200.0], "cost_us": [12.0, 150.0], "way": ["pre_filter", "push_down"]})
    svg = charts.to_svg(charts.stack(charts.regrets(pl.DataFrame(rows)), charts.estimates(searches), title="Chosen well"))
    for text in ("no filter", "topic of 1 %", "median time / best forced way", "estimated (µs)", "measured (µs)", "auto"):
        assert text in svg


def test_reach_is_drawn_with_its_intervals():
    """Every variant and figure is named, on one axis."""
    rows = [
        {"variant": variant, "figure": figure, "value": 0.5, "low": 0.4, "high": 0.6}
        for variant in ("default", "no dates")
        for figure in ("turn_recall_at_10", "session_mrr")
    ]
    svg = charts.to_svg(charts.stack(charts.reaches(pl.DataFrame(rows)), title="Found"))
    for text in ("default", "no dates", "turn recall@10", "session MRR", "mean over questions"):
        assert text in svg


def test_a_prediction_lies_on_the_line_where_it_agrees():
    """Both axes have one scale, the dashed line joins its corners; a row without one of the two figures is not drawn."""
    frame = pl.DataFrame({"seen": [1.0, 10.0, None], "told": [2.0, 9.0, 5.0], "rule": ["a", "b", "a"]})
    by = charts.By("seen", "measured (ms)"), charts.By("told", "predicted (ms)"), charts.By("rule", "rule")
    chart = charts.predictions(frame, *by)
    drawn = chart.to_dict()["layer"]
    assert len(drawn[1]["data"]["values"]) == 2
    assert drawn[1]["encoding"]["x"]["scale"] == drawn[1]["encoding"]["y"]["scale"]
    assert [list(end.values()) for end in drawn[0]["data"]["values"]] == [[0.8, 0.8], [12.5, 12.5]]
    assert {"measured (ms)", "predicted (ms)", "rule"} <= set(texts(charts.to_svg(chart)))


def test_a_front_joins_its_own_points_alone():
    """Lines go through the marked rows, marks show all."""
    frame = pl.DataFrame({"x": [1, 2, 3], "y": [0.5, 0.4, 0.9], "kind": ["a"] * 3, "best": [True, False, True]})
    by = charts.By("x", "p95 (ms)"), charts.By("y", "recall@10"), charts.By("kind", "kind")
    lines, marks = charts.trade(frame, *by, joined=charts.By("best", "")).to_dict()["layer"]
    assert (len(lines["data"]["values"]), len(marks["data"]["values"])) == (2, 3)
    assert len(charts.trade(frame, *by).to_dict()["layer"][0]["data"]["values"]) == 3


def test_intervals_are_drawn_with_what_they_are_held_against():
    """One row a label, a legend of the series, bars where there is an interval, ticks where there is a mark; no e+2 on the "
    "axis."""
    frame = pl.DataFrame(
        [
            {"label": "steady", "series": "defaults", "value": 363.0, "low": 360.0, "high": 366.0, "mark": 400.0},
            {"label": "steady", "series": "bounded", "value": 334.0, "low": None, "high": None, "mark": None},
            {"label": "nothing known", "series": "bounded", "value": None, "low": None, "high": None, "mark": None},
        ]
    )
    svg = charts.to_svg(charts.intervals(frame, x_title="held (MB)", mark="asked", line=100.0, logarithmic=False, title="Found"))
    words = texts(svg)
    for word in ("Found", "steady", "defaults", "bounded", "held (MB)   ( | asked)"):
        assert word in words, word
    assert "nothing known" not in words
    assert not [word for word in words if "e+" in word]
    assert "stroke-dasharray" in svg
    without = charts.to_svg(charts.intervals(frame.drop("mark"), x_title="held (MB)"))
    assert "asked" not in " ".join(texts(without))


def test_lines_follow_each_series():
    """A line and its points for each series, intervals where they are, both axes with their titles, a legend only of several."""
    rows = [
        {"x": size, "series": name, "y": size**power, "low": size**power * 0.9, "high": size**power * 1.1}
        for name, power in (("flat", 0.0), ("steep", 1.0))
        for size in (1_000, 10_000, 100_000)
    ]
    frame = pl.DataFrame(rows)
    drawing = charts.lines(frame, x_title="memories", y_title="p50 (ms)", logarithmic_x=True, logarithmic_y=True, title="Growth")
    svg = charts.to_svg(drawing)
    words = texts(svg)
    for word in ("Growth", "memories", "p50 (ms)", "flat", "steep"):
        assert word in words, word
    alone = charts.lines(
        frame.filter(pl.col("series") == "flat").drop("low", "high"), x_title="memories", y_title="p50 (ms)", points=False
    )
    assert "flat" not in texts(charts.to_svg(alone))
    assert len(charts.to_svg(alone)) < len(svg)
