"""The study of indexes: what is searched, and what is made of it."""

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import indexing
from memlab.measure.bare_index import EFFORTS, FACTORY


@pytest.fixture(scope="module")
def measured():
    """Every kind, small: what is counted does not depend on the size."""
    return indexing.measure([400], queries=30, dimension=64, deleted=(0.0, 0.5), seed=2)


def test_every_kind_is_searched_in_every_case(measured):
    """At every effort, alone and by many; filters and deletes are not combined."""
    efforts = sum(len(EFFORTS[kind]) for kind in FACTORY)
    assert len(measured) == efforts * 4 * 2
    assert set(measured.select("session", "deleted").rows()) == {(1.0, 0.0), (0.1, 0.0), (0.01, 0.0), (1.0, 0.5)}
    assert measured["recall_at_10"].is_between(0, 1).all()
    assert measured.filter(pl.col("callers") == 1)["p95_ms"].is_null().all(), "too few queries for a p95"


def test_exact_search_finds_all_and_more_effort_finds_no_less(measured):
    """Flat is the truth under every filter; codes are close; recall grows with the lists that are looked into."""
    of = {kind: part for (kind,), part in measured.group_by(["kind"])}
    assert of["flat"]["recall_at_10"].min() == 1.0
    assert of["fp16"]["recall_at_10"].min() > 0.98 < of["sq8"]["recall_at_10"].mean() + 0.02
    whole = of["ivf"].filter((pl.col("session") == 1.0) & (pl.col("callers") == 1) & (pl.col("deleted") == 0)).sort("effort")
    assert whole["recall_at_10"].is_sorted()
    per = {kind: part["bytes_a_memory"][0] for kind, part in of.items()}
    assert per["sq8"] < per["fp16"] < per["flat"] < per["hnsw"]


def test_one_and_many_find_the_same(measured):
    """Queries in one call are answered as they are one by one."""
    both = measured.pivot("callers", index=["kind", "effort", "session", "deleted"], values="recall_at_10")
    assert (both["1"] - both["256"]).abs().max() < 0.02


def planted():
    rows = []
    for memories, flat_ms, ivf_ms in ((1_000, 0.1, 0.2), (10_000, 1.0, 0.3)):
        for gone, slower in ((0.0, 1.0), (0.5, 1.5)):
            place = {"memories": memories, "session": 1.0, "deleted": gone, "callers": 1, "effort": 0}
            rows.append(
                {**place, "kind": "flat", "recall_at_10": 1.0, "query_ms": flat_ms, "bytes_a_memory": 400.0, "build_s": 0.1}
            )
            ivf = {"kind": "ivf", "recall_at_10": 0.97 - gone / 10, "query_ms": ivf_ms * slower}
            rows.append({**place, **ivf, "bytes_a_memory": 420.0, "build_s": 3.0})
    return pl.DataFrame(rows)


def test_winners_change_where_they_were_planted_to():
    """Flat at a thousand, ivf at ten thousand; after half was forgotten ivf is not good enough any more."""
    found = indexing.crossovers(planted())
    assert found.rows() == [(1.0, 0.0, 1, 1_000, 10_000, "flat", "ivf")]
    assert indexing.with_fronts(planted())["on_front"].to_list() == [True, False, True, False, True, True, True, True]


def test_building_again_pays_after_as_many_questions_as_it_saves():
    """Half of 3 s over 0.15 ms a question; where nothing is slower it never does."""
    found = indexing.rebuild_rule(planted()).filter(pl.col("memories") == 10_000)
    assert found["kind"].to_list() == ["flat", "ivf"]
    assert found["questions_to_repay"].to_list() == [None, pytest.approx(10_000)]
    assert found["slower"].to_list() == [1.0, pytest.approx(1.5)]
    assert found["recall_lost"].to_list() == [0.0, pytest.approx(0.05)]


@pytest.mark.parametrize(
    ("given", "told"), [({"sizes": [50]}, "100 memories"), ({"sizes": [100], "kinds": ["lsh"]}, "known: flat")]
)
def test_what_cannot_be_measured_is_refused(given, told):
    """Too small, or a kind that nobody knows."""
    with pytest.raises(MemlabError, match=told):
        indexing.measure(**given)
