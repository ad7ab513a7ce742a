"""Loads are drawn with their intervals, what was asked for, and what is missing left out."""

import re

import polars as pl
import pytest

from memlab import charts


@pytest.fixture
def loads():
    rows = [
        {
            "clients": clients,
            "way": way,
            **{
                f"{name}_ms{end}": None if name == "p99" and way == "trace" else factor * clients * scale
                for name, scale in (("p50", 1.0), ("p95", 3.0), ("p99", 5.0))
                for end, factor in (("", 1.0), ("_low", 0.9), ("_high", 1.1))
            },
            "reach_ms": 25.0 if clients == 10 else None,
            "ceiling_ms": 100.0 if clients == 10 else None,
        }
        for clients in (10, 5_000)
        for way in ("closed", "poisson", "trace")
    ]
    return pl.DataFrame(rows)


def texts(chart):
    return re.findall(r"<text[^>]*>([^<]*)</text>", charts.to_svg(chart))


def test_loads_stand_against_their_callers(loads):
    """Every number of callers on the axis, every way of arriving, reach and ceiling where they were asked for."""
    words = texts(charts.by_callers(loads))
    for word in (
        "10",
        "5,000",
        "callers that wait",
        "Poisson arrivals",
        "recorded arrivals",
        "reach",
        "ceiling",
        "callers at once",
    ):
        assert word in words, word
    assert words.count("reach") == words.count("ceiling") == 1


def test_one_load_shows_its_percentiles_by_way(loads):
    """A percentile of too few samples is a missing mark, not an error; intervals are drawn."""
    chart = charts.by_way(loads.filter(pl.col("clients") == 10))
    assert {"p50", "p95", "p99", "response time from the intended start (ms)"} <= set(texts(chart))
    drawn = next(layer["data"]["values"] if "data" in layer else None for layer in [chart.to_dict()])
    assert len([row for row in drawn if row["percentile"] == "p99"]) == 2
    assert "rule" in str(chart.to_dict())


@pytest.mark.parametrize(("low", "high"), [(700.0, 900.0), (None, None)])
def test_trials_stand_around_the_rate(low, high):
    """Passed and failed apart, with the target; the band only where the rate is known."""
    frame = pl.DataFrame({"rate_per_s": [500.0, 1_000.0, 9.0], "p99_ms": [20.0, 300.0, None], "passed": [True, False, True]})
    chart = charts.trials(frame, target_ms=100.0, low=low, high=high)
    assert {"passed", "failed", "calls sent a second"} <= set(texts(chart))
    assert ("rect" in str(chart.to_dict())) == (low is not None)


def test_a_stall_is_drawn_for_both_loops():
    """Percentiles by name, both loops in the legend."""
    frame = pl.DataFrame(
        {"loop": ["open", "open", "closed", "closed"], "percentile": [50.0, 99.0] * 2, "ms": [1.0, 200.0, 1.0, 2.0]}
    )
    words = texts(charts.stalls(frame, stall_ms=200.0))
    assert {"open", "closed", "p50", "p99", "p99.9", "response time (ms)"} <= set(words)
