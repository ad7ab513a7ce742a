"""One load from beginning to end, on the real engine, in seconds."""

import asyncio
import json

import polars as pl
import pytest
import yaml

from memlab.engine import Engine
from memlab.errors import MemlabError
from memlab.experiment import load_run, results
from memlab.operations import operations
from memlab.operations.registry import lookup
from memlab.settings import Settings
from memlab.workload.corpus import generate

SMALL = {"corpus": {"events": 160, "sessions": 4, "questions": 40}, "warm_up_s": 0.1}


@pytest.fixture
def mixes(root):
    return root / "params" / "mixes"


def small(path, **arrivals):
    return load_run.read_workload(path, {**SMALL, "arrivals": arrivals, "duration_s": 0.5})


def test_the_everyday_mix_is_what_was_asked_for(mixes):
    """About 15 % writes, mostly recall, search, get and list; bulk and job operations stand in a mix of their own."""
    everyday = yaml.safe_load((mixes / "everyday.yaml").read_text())["mix"]
    assert sum(everyday.values()) == pytest.approx(1.0)
    assert sum(weight for name, weight in everyday.items() if not lookup(name).reads) == pytest.approx(0.15)
    assert {lookup(name).cost for name in everyday} <= {"read", "write", "discovery", "complex"}
    bulk = yaml.safe_load((mixes / "bulk.yaml").read_text())["mix"]
    assert {"bulk", "job"} <= {lookup(name).cost for name in bulk}


@pytest.mark.parametrize("mix", ["everyday", "bulk"])
def test_a_committed_mix_runs_on_the_real_engine(mixes, mix, tmp_path):
    """Nothing fails, every operation of the mix is there, what was acknowledged is found again, and the run is kept."""
    traffic = small(mixes / f"{mix}.yaml", kind="closed", clients=6)
    measured = load_run.run(traffic, Settings(), seed=3, keep_in=tmp_path, mix_name=mix)
    summary = measured.summary["summary"]
    assert summary["samples"] > 0
    assert summary["failure_ratio"] == 0, summary["errors"]
    assert measured.summary["checks"]["holds"] is True
    assert measured.summary["checks"]["acknowledged"] > 160
    assert set(measured.summary["by_operation"]) <= set(traffic.mix)
    kept = results.find(tmp_path, measured.run.id)
    assert kept.samples().height == measured.samples.height
    assert kept.summary["summary"] == summary
    json.dumps(measured.summary, allow_nan=False)


def test_an_open_loop_sends_what_is_due(mixes):
    """As many calls as arrivals, each with its due time; the same seed makes the same arrivals."""
    traffic = small(mixes / "everyday.yaml", kind="constant", rate_per_s=100.0)
    measured = load_run.run(traffic, Settings(), seed=3)
    assert measured.samples.height == 60
    assert measured.samples.filter(~pl.col("warm_up"))["intended_ns"].min() >= 0
    assert measured.run is None
    assert measured.summary["summary"]["loop"] == "open"


def test_every_operation_can_stand_in_a_mix(tmp_path):
    """The mechanism asks the declarations alone: what is filled makes every registered operation's example a valid call."""
    corpus = generate(events=80, sessions=2, questions=10)
    names = [one.name for one in operations() if one.name != "session.delete"]

    async def fill():
        engine = Engine.open(tmp_path / "all.duckdb", Settings())
        try:
            loaded = await load_run.load(engine, corpus)
            return await load_run.fill_layers(engine, corpus, loaded, dict.fromkeys(names, 1.0), 1)
        finally:
            await engine.aclose()

    loaded = asyncio.run(fill())
    for layers in loaded.further.values():
        assert len(layers["semantic"]) >= 4
        assert {"procedural.procedure", "prospective.task", "graph.entity"} <= set(layers)
        assert not set(layers) & {"episodic"}


def test_a_stop_ends_the_sending_and_keeps_the_figures(mixes):
    """Told to stop, as Ctrl-C does: the rest is not sent, what was is summed up and checked, and marked as cut short."""
    traffic = load_run.read_workload(
        mixes / "everyday.yaml", {**SMALL, "arrivals": {"kind": "closed", "clients": 3}, "duration_s": 3_600.0}
    )

    class Stopping(load_run.Silent):
        def update(self, spent_s, answered, failed):
            sending.stopping.set()

    sending = load_run.LoadRun(traffic, Settings(), 1, Stopping())
    whole = sending.whole(None, "everyday")
    assert whole["summary"]["cut_short"] is True
    assert 0 < whole["summary"]["seconds"] < 600
    assert whole["summary"]["samples"] > 0
    assert whole["checks"]["holds"] is True


def test_an_existing_database_is_not_filled(tmp_path, mixes):
    """A file that is there stays as it is."""
    there = tmp_path / "mine.duckdb"
    there.write_bytes(b"mine")
    with pytest.raises(MemlabError, match="exists already"):
        load_run.run(small(mixes / "everyday.yaml", kind="closed", clients=1), Settings(), database=there)
    assert there.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mix: {episodic.recal: 1}", "did you mean 'episodic.recall'"),
        ("mix: {session.delete: 1}", "leave it out"),
        ("- a list", "give a table"),
        ("mix: {episodic.recall: 1\n", "not YAML"),
        ("mixx: {episodic.recall: 1}", "did you mean 'mix'"),
    ],
)
def test_a_workload_that_does_not_fit_is_one_clear_line(tmp_path, text, told):
    """Unknown operations and keys, and what is no table."""
    path = tmp_path / "mix.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MemlabError, match=told) as caught:
        load_run.read_workload(path, {"arrivals": {"kind": "closed", "clients": 1}})
    assert "\n" not in caught.value.text


def test_a_missing_workload_is_one_clear_line(tmp_path):
    with pytest.raises(MemlabError, match="no workload file"):
        load_run.read_workload(tmp_path / "none.yaml", {})
