"""The study of indexes: what is searched, and what is made of it."""

import json
from types import SimpleNamespace

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import indexing
from memlab.measure.bare_index import EFFORTS, FACTORY

KNOWN = 0.05  # what planted times are known to within


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Every kind, small: what is counted does not depend on the size."""
    out = tmp_path_factory.mktemp("point")
    workload = {"corpus": {"events": 400}}
    made = indexing.measure_point({}, workload=workload, repeats=2, queries=15, dimension=64, deleted=(0.0, 0.5), seed=2, out=out)
    assert json.loads((out / "summary.json").read_text()) == made.summary
    assert pl.read_parquet(out / "index.parquet").equals(made.rows)
    return made


@pytest.fixture
def measured(searched):
    return searched.rows


def test_every_kind_is_searched_in_every_case(measured):
    """At every effort, alone and by many, in every pass; filters and deletes are not combined."""
    efforts = sum(len(EFFORTS[kind]) for kind in FACTORY)
    assert len(measured) == efforts * 4 * 2
    assert set(measured.select("session", "deleted").rows()) == {(1.0, 0.0), (0.1, 0.0), (0.01, 0.0), (1.0, 0.5)}
    assert measured["recall_at_10"].is_between(0, 1).all()
    assert set(measured["passes_ms"].list.len()) == set(measured["passes_recall"].list.len()) == {2}
    assert (measured["passes_recall"].list.mean() - measured["recall_at_10"]).abs().max() < 1e-9
    assert measured["p95_ms"].is_null().all(), "too few queries for a p95"
    assert measured["low"].is_null().all(), "too few passes for an interval"


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


def test_a_run_is_read_back_as_it_was_measured(searched):
    """The summary holds every row; what was too little to tell apart wins nothing for sure."""
    run = SimpleNamespace(summary=searched.summary, id="23-index/0")
    again = indexing.frame([run])
    assert again.select(searched.rows.columns).equals(searched.rows.select(searched.rows.columns))
    assert not searched.summary["finding"]
    winner = searched.summary["winners"]["all memories, one caller"]
    assert len(winner["tied"]) > 0 and winner["recall_at_10"] >= indexing.ENOUGH
    rebuilt = searched.summary["rebuild"]["flat 0, 50 % forgotten"]
    assert (rebuilt["verdict"], rebuilt["questions_to_repay"]) == ("too few", None)


def planted(spread=KNOWN):
    rows = []
    for memories, flat_ms, ivf_ms in ((1_000, 0.1, 0.2), (10_000, 1.0, 0.3)):
        for gone, slower in ((0.0, 1.0), (0.5, 1.5)):
            place = {"memories": memories, "session": 1.0, "deleted": gone, "callers": 1, "effort": 0}
            flat = {"kind": "flat", "recall_at_10": 1.0, "query_ms": flat_ms, "bytes_a_memory": 400.0, "build_s": 0.1}
            ivf = {"kind": "ivf", "recall_at_10": 0.97 - gone / 10, "query_ms": ivf_ms * slower}
            rows += [{**place, **flat}, {**place, **ivf, "bytes_a_memory": 420.0, "build_s": 3.0}]
    frame = pl.DataFrame(rows)
    return frame.with_columns(
        low=pl.col("query_ms") * (1 - spread),
        high=pl.col("query_ms") * (1 + spread),
        passes_ms=pl.concat_list(*(pl.col("query_ms") * (1 + spread * turn / 4) for turn in range(-2, 3))),
        passes_recall=pl.concat_list(*["recall_at_10"] * 5),
    )


def test_winners_change_where_they_were_planted_to():
    """Flat at a thousand, ivf at ten thousand; after half was forgotten ivf is not good enough any more."""
    found = indexing.crossovers(planted())
    assert found.rows() == [(1.0, 0.0, 1, 1_000, 10_000, "flat", "ivf")]
    assert indexing.with_fronts(planted())["on_front"].to_list() == [True, False, True, False, True, True, True, True]


def test_a_change_within_what_is_known_is_none():
    """Times that may lie anywhere change nothing, and nobody leaves the front."""
    assert indexing.crossovers(planted(spread=0.9)).is_empty()
    assert indexing.with_fronts(planted(spread=0.9))["on_front"].all()


def test_building_again_pays_after_as_many_questions_as_it_saves():
    """Half of 3 s over 0.15 ms a question; where nothing is surely slower it never does."""
    found = indexing.rebuild_rule(planted()).filter(pl.col("memories") == 10_000)
    assert found["kind"].to_list() == ["flat", "ivf"]
    assert found["verdict"].to_list() == ["no difference seen", "worse"]
    assert found["questions_to_repay"].to_list() == [None, pytest.approx(10_000)]
    assert found["slower"].to_list() == [1.0, pytest.approx(1.5)]
    assert found["recall_lost"].to_list() == [0.0, pytest.approx(0.05)]
    assert found["lost_low"].to_list() == [0.0, pytest.approx(0.05)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"memories": 50}, "100 memories"),
        ({"memories": 100, "repeats": 0}, "one pass"),
        ({"memories": 100, "kinds": ["lsh"]}, "known: flat"),
        ({"memories": 100, "kinds": []}, "one kind"),
        ({"memories": 100, "sessions": [0.0]}, "shares above 0"),
        ({"memories": 100, "deleted": [1.0]}, "below 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(given, told):
    """Too small, nobody's, or a kind that nobody knows."""
    with pytest.raises(MemlabError, match=told):
        indexing.measure(**given)


def test_settings_of_the_engine_are_refused():
    """They would change nothing, and the run would say otherwise."""
    with pytest.raises(MemlabError, match="bare indexes have none"):
        indexing.measure_point({"candidate": {"index.kind": "sq8"}}, workload={"corpus": {"events": 100}})
