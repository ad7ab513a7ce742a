"""Fronts, winners and where they change."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.errors import MemlabError
from memlab.predict.pareto import cheapest, crossovers, front

tables = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25)


def test_a_front_by_hand():
    """Dominated in both, equal to another, and best in one column alone."""
    assert front([[1, 5], [2, 6], [1, 5], [9, 0]]).tolist() == [True, False, True, True]
    assert front([[3.0, 1.0]]).tolist() == [True]
    for costs in ([1, 2], [[1.0, float("nan")]]):
        with pytest.raises(MemlabError, match="costs of shape"):
            front(costs)


@given(tables)
def test_a_front_is_what_its_definition_says(rows):
    """Checked pair by pair; and never empty."""
    stays = front(rows)
    for place, mine in enumerate(rows):
        beaten = any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in rows)
        assert stays[place] == (not beaten)
    assert stays.any()


ENDS = ("low", "high")


def known(rows):
    """Choices whose costs are known to within a tenth, or not at all where none is given."""
    plain = [(*row[:4], row[3] * 0.9, row[3] * 1.1) if len(row) == 4 else row for row in rows]
    return pl.DataFrame(plain, schema=["kind", "memories", "recall", "ms", *ENDS], orient="row")


def won(rows, least=0.95):
    return cheapest(known(rows), "ms", by=["memories"], name="kind", least=("recall", least), ends=ENDS)


def test_winners_and_where_they_change():
    """At 10 both are good enough and b is quicker, at 20 only a is; at 30 nobody."""
    rows = [("a", 10, 0.99, 4.0), ("b", 10, 0.95, 1.0), ("a", 20, 0.98, 8.0), ("b", 20, 0.90, 1.0), ("a", 30, 0.5, 9.0)]
    found = won(rows)
    assert found.select("memories", "kind", "second", "ahead", "tied").rows() == [
        (10, "b", "a", 4.0, []),
        (20, "a", None, None, []),
    ]
    assert crossovers(found, "memories", name="kind") == [(10, 20, "b", "a")]
    assert won(rows, least=2.0).is_empty()
    assert crossovers(found.head(1), "memories", name="kind") == []


def test_a_winner_counts_where_its_interval_lies_apart():
    """Close ones tie, and a change between two that tie is none; so it is where nothing is known."""
    rows = [("a", 10, 1.0, 1.0), ("b", 10, 1.0, 1.1), ("c", 10, 1.0, 3.0), ("a", 20, 1.0, 9.0), ("b", 20, 1.0, 2.0)]
    found = won(rows)
    assert found["tied"].to_list() == [["b"], []]
    assert crossovers(found, "memories", name="kind") == []
    assert won([("a", 10, 1.0, 1.0, None, None), ("b", 10, 1.0, 9.0, None, None)])["tied"].to_list() == [["b"]]


def test_a_front_of_intervals_loses_nobody_who_may_belong_to_it():
    """Overlapping times decide nothing, whatever the bytes; those that lie apart do."""
    low, high = [[1.0, 9], [1.2, 8], [4.0, 9]], [[1.5, 9], [1.6, 8], [5.0, 9]]
    assert front(low, high).tolist() == [True, True, False]
    with pytest.raises(MemlabError, match="costs of shape"):
        front(high, low)


def test_large_tables_are_no_trouble():
    """A thousand choices in three criteria."""
    assert front(np.random.default_rng(0).random((1_000, 3))).sum() > 10
