"""Workflows are drawn step by step and as whole runs; what has too few samples is left out."""

import re

import polars as pl

from memlab import charts

ROWS = [
    {
        "workflow": name,
        "step": step,
        "operation": operation,
        "memories": memories,
        "mean_ms": 2.0,
        **{
            f"{figure}_ms{end}": None if figure == "p95" and name == "slow" else 3.0
            for figure in ("p50", "p95")
            for end in ("", "_low", "_high")
        },
    }
    for memories in (1_000, 10_000)
    for name in ("quick_look", "slow")
    for step, operation in ((None, None), ("recall", "episodic.recall"), ("keep", "episodic.remember"))
]


def texts(chart):
    return re.findall(r"<text[^>]*>([^<]*)</text>", charts.to_svg(chart))


def test_steps_stand_in_the_order_in_which_they_are_taken():
    """A panel a workflow with its name, a bar a step with its operation; whole runs are not among them."""
    words = texts(charts.steps(pl.DataFrame(ROWS[:6])))
    assert {"quick look", "slow", "mean (ms)"} <= set(words)
    assert words.index("recall: episodic.recall") < words.index("keep: episodic.remember")


def test_whole_runs_stand_against_the_store():
    """Both percentiles, every workflow in the legend, sizes on the axis; a missing p95 is a missing mark."""
    chart = charts.whole_runs(pl.DataFrame(ROWS))
    assert {"quick look", "slow", "p50", "p95", "1k", "10k", "whole run (ms)"} <= set(texts(chart))
    right = chart.to_dict()["hconcat"][1]
    assert {row["workflow"] for row in right["data"]["values"]} == {"quick look"}
