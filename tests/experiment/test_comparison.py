"""Two settings on a real engine: the same traffic, interleaved, and samples that tell the whole of it."""

import asyncio
import json
from collections import Counter

import polars as pl
import pytest

from memlab.engine import Engine
from memlab.errors import MemlabError
from memlab.experiment.comparison import compare, load, measure_point
from memlab.measure.recorder import sample_schema
from memlab.settings import Settings
from memlab.workload import generate, workload

TRAFFIC = {
    "corpus": {"events": 120, "sessions": 2, "questions": 20},
    "mix": {"episodic.recall": 0.7, "episodic.remember": 0.3},
    "arrivals": {"kind": "poisson", "rate_per_s": 150},
    "duration_s": 0.2,
    "warm_up_s": 0.05,
    "recall_samples": 8,
    "beside": {"clients": 4, "duration_s": 0.05, "warm_up_s": 0.0},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    point = {"values": {"cache.max_entries": 50}, "reference": {"cache": None}, "candidate": {"cache.max_entries": 50}}
    return measure_point(point, workload=TRAFFIC, seed=3, repeats=2, size="smoke", out=out), out


def test_both_settings_get_the_same_traffic(measured):
    """In every repeat the same calls at the same distances, for reference and candidate."""
    samples = measured[0].samples
    for repeat in (0, 1):
        sides = []
        for name in ("reference", "candidate"):
            mine = (pl.col("setting") == name) & (pl.col("repeat") == repeat) & ~pl.col("warm_up")
            part = samples.filter(mine).sort("intended_ns")
            due = part["intended_ns"] - part["intended_ns"].min()
            sides.append((part["operation"].to_list(), part["session"].to_list(), due.to_list()))
        assert sides[0][:2] == sides[1][:2]
        assert sides[0][2] == pytest.approx(sides[1][2], abs=2_000)


def test_the_samples_are_kept_and_marked(measured):
    """Columns of the contract; warm-up kept and marked; times count from the beginning of the measurement; sessions by name."""
    samples = measured[0].samples
    known = sample_schema()
    assert samples.columns == list(known)
    assert {name: kind for name, kind in samples.schema.items() if name != "phases"} == {
        name: kind for name, kind in known.items() if name != "phases"
    }
    assert set(samples["warm_up"].unique()) == {True, False}
    assert 0 < samples["intended_ns"].min() < samples["finished_ns"].max() < 120e9
    assert (samples["intended_ns"] <= samples["started_ns"]).all()
    assert (samples["started_ns"] <= samples["finished_ns"]).all()
    assert set(samples["session"]) <= {"session-000", "session-001"}
    assert set(samples["outcome"]) == {"ok"}


def test_the_cache_answers_only_where_it_is_on(measured):
    """No hit in the reference; some in the candidate, which then took no batch and no phase."""
    samples = measured[0].samples
    assert not samples.filter(pl.col("setting") == "reference")["cached"].any()
    hits = samples.filter(pl.col("cached"))
    assert len(hits)
    assert hits["phases"].is_null().all()
    assert measured[0].summary["candidate"]["hit_ratio"]["value"] > 0


def test_answers_are_complete_in_the_lane(measured):
    """Flat search under writes finds what exact search finds; a few answers of every run were judged, none of the warm-up."""
    judged = measured[0].samples.filter(pl.col("recall_at_10").is_not_null())
    assert set(judged["operation"]) == {"episodic.recall"}
    assert not judged["warm_up"].any()
    assert judged.group_by("setting", "repeat").len()["len"].max() <= 8
    assert judged["recall_at_10"].mean() > 0.97


def test_what_was_asked_is_said(measured):
    """Calls, questions, reads and writes of the measured traffic; the corpus; the closed loop beside it."""
    summary, samples = measured[0].summary, measured[0].samples
    mine = samples.filter((pl.col("setting") == "reference") & ~pl.col("warm_up"))
    counted = Counter(mine["operation"].to_list())
    assert summary["asked"]["reads"] == counted["episodic.recall"]
    assert summary["asked"]["writes"] == counted["episodic.remember"]
    assert 0 < summary["asked"]["distinct_questions"] <= 20
    assert summary["corpus"]["events"] == 120
    assert summary["closed"]["clients"] == 4
    assert summary["candidate"]["statistics"]["cache"]["hits"] > 0
    assert summary["finding"] is False


def test_what_is_written_is_what_was_returned(measured):
    """samples.parquet, closed.parquet and summary.json stand in the folder, and nothing else: the databases are gone."""
    made, out = measured
    assert {path.name for path in out.iterdir()} == {"samples.parquet", "closed.parquet", "summary.json"}
    assert pl.read_parquet(out / "samples.parquet").equals(made.samples)
    assert pl.read_parquet(out / "closed.parquet").equals(made.closed)
    assert json.loads((out / "summary.json").read_text()) == made.summary


def test_equals_can_be_compared_on_real_vectors(shared_data):
    """An A/A run on real conversations: vectors come with the data, and flat search finds all of it."""
    traffic = TRAFFIC | {"beside": None, "duration_s": 0.15, "parameters": {"episodic.recall": {"mode": "vector"}}}
    made = measure_point({}, workload=traffic, repeats=1, data=shared_data / "locomo")
    assert made.summary["null"] is True
    assert made.summary["embedder"] == "precomputed:384"
    assert made.summary["reference"]["recall_at_10"]["value"] == pytest.approx(1.0, abs=0.02)


def test_a_closed_loop_can_be_the_only_one():
    """Clients that wait for their answers, without an open loop."""
    traffic = workload({**TRAFFIC, "arrivals": {"kind": "closed", "clients": 2}, "beside": None, "recall_samples": 0})
    corpus = generate(60, 1, 10, seed=1)
    told = []
    made = compare(corpus, traffic, Settings.off(), Settings(), repeats=1, progress=lambda done, of: told.append((done, of)))
    assert made.closed is None
    assert made.summary["candidate"]["samples"] > 10
    assert told == [(0, 1), (1, 1)]


def test_loading_keeps_order_and_sessions(tmp_path):
    """Every event of the corpus is in its session; ids stand in the order of the rows."""
    corpus = generate(90, 3, 10, seed=2)

    async def check(engine):
        loaded = await load(engine, corpus)
        assert len(loaded.ids) == len(set(loaded.ids)) == 90
        for row in (0, 45, 89):
            session = loaded.sessions[corpus.events["session"][row]]
            event = (await engine.execute("episodic.get_event", {"id": loaded.ids[row]}, session=session)).value
            assert event.content == corpus.events["content"][row]
            assert event.occurred_at == corpus.events["occurred_at"][row]

    with Engine.open(tmp_path / "m.duckdb", Settings.off()) as engine:
        asyncio.run(check(engine))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": "large"}, "give quick or smoke"),
        ({"repeats": 0}, "give 1 or more"),
        ({"workload": {"arrivals": {"kind": "poisson"}}}, "needs rate_per_s"),
        ({"point": {"candidate": {"cache.max_entrys": 3}}}, "did you mean 'max_entries'?"),
        ({"data": "no-such-folder"}, "no folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(tmp_path, changes, told):
    """One line, and nothing written."""
    arguments = {"point": {}, "workload": TRAFFIC, "out": tmp_path} | changes
    with pytest.raises(MemlabError) as caught:
        measure_point(arguments.pop("point"), **arguments)
    assert told in caught.value.text
    assert list(tmp_path.iterdir()) == []


def test_points_of_a_sweep_share_what_they_begin_with(tmp_path):
    """The first comparison fills a database, the next ones on the same corpus copy it; another corpus is another one."""
    (tmp_path / "prepared").mkdir()
    traffic = TRAFFIC | {"beside": None, "duration_s": 0.05, "recall_samples": 2}
    for seed, databases in ((1, 1), (1, 1), (2, 2)):
        made = measure_point({"prepared": str(tmp_path / "prepared")}, workload=traffic, seed=seed, repeats=1)
        assert made.summary["candidate"]["outcomes"].keys() == {"ok"}
        assert len(list((tmp_path / "prepared").iterdir())) == databases
