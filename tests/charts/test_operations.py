"""Costs of operations are drawn with their floors, ceilings and growth; what is missing leaves a gap."""

import re

import polars as pl
import pytest

from memlab import charts


@pytest.fixture
def costs():
    rows = [
        {
            "operation": name,
            "cost": cost,
            "memories": memories,
            "p50_ms": p50,
            "mean_ms": 2.0,
            "p95_ms": p95,
            "floor_ms": 0.05,
            "target_ms": target,
            "met": None if p95 is None else p95 <= target,
        }
        for memories in (1_000, 100_000)
        for name, cost, p50, p95, target in (
            ("episodic.recall", "read", 1.0, 3.0, 100.0),
            ("rag.search", "complex", 20.0, 1_500.0, 1_000.0),
            ("semantic.deduplicate", "job", None, None, 60_000.0),
        )
    ]
    return pl.DataFrame(rows)


def texts(chart):
    return re.findall(r"<text[^>]*>([^<]*)</text>", charts.to_svg(chart))


def test_every_operation_has_a_row_by_class(costs):
    """All names, the classes that are there and no others, a unit on the axis."""
    words = texts(charts.costs(costs.filter(pl.col("memories") == 1_000)))
    for word in ("episodic.recall", "rag.search", "semantic.deduplicate", "read", "complex", "job", "response time (ms)"):
        assert word in words, word
    assert "write" not in words


def test_what_is_over_its_ceiling_is_named(costs):
    """Panels of classes that have a p95; the one operation beyond is named, the one within is not."""
    words = texts(charts.by_size(costs))
    assert {"read", "complex", "p95 (ms)", "memories", "rag.search"} <= set(words)
    assert "episodic.recall" not in words
    assert "job" not in words, "nothing of it has a p95"
    assert texts(charts.by_size(costs.head(0))) == []


def test_exponents_are_drawn_with_their_intervals(costs):
    """One row each in the given order; an interval that is missing is no error."""
    growth = pl.DataFrame(
        {
            "operation": ["rag.search", "episodic.recall"],
            "cost": ["complex", "read"],
            "exponent": [0.9, 0.1],
            "low": [0.8, None],
            "high": [1.0, None],
        }
    )
    words = texts(charts.exponents(growth))
    assert words.index("rag.search") < words.index("episodic.recall")
    assert "exponent of the median over the size of the store" in words
