"""Checked answers are drawn by group, with what was cancelled and what differs."""

import re

import polars as pl

from memlab import charts


def test_every_group_says_how_many_answers_differ():
    """A bar a group, the kinds of calls in the legend, and the number of differences in words, nought included."""
    frame = pl.DataFrame(
        {"group": ["episodic", "rag"], "answers": [900, 50], "refused": [5, 0], "cancelled": [80, 9], "differences": [0, 2]}
    )
    words = re.findall(r"<text[^>]*>([^<]*)</text>", charts.to_svg(charts.checked(frame)))
    for word in ("episodic", "rag", "0 different", "2 different", "answers checked", "cancelled", "refused", "calls"):
        assert word in words, word
    assert charts.to_svg(charts.checked(frame.head(0))).startswith("<svg")
