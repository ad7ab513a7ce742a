"""Footprints: fresh processes, equal work, and figures that follow from what the processes told."""

import json

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import footprint, footprint_process
from memlab.measure import peak
from memlab.measure.process import look

TRAFFIC = {"corpus": {"events": 2_600, "sessions": 1, "questions": 12}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One repeat on a store just large enough that the kinds of index differ."""
    out = tmp_path_factory.mktemp("footprint")
    point = {"reference": {"index.kind": "flat"}, "candidate": {"index.kind": "sq8", "storage.hot_rows": 16}}
    return footprint.measure_point(point, workload=TRAFFIC, repeats=1, rounds=1, out=out), out


@pytest.mark.serial
def test_both_settings_do_the_same_work(measured):
    """Every event of the store is walked by both, and the digests agree; exact search finds all, eight bits nearly all."""
    summary = measured[0].summary
    assert summary["same_work"] is True
    assert summary["reference"]["recall_at_10"]["value"] == 1.0
    assert summary["candidate"]["recall_at_10"]["value"] > 0.9
    assert summary["finding"] is False


@pytest.mark.serial
def test_what_is_counted_follows_from_the_processes(measured):
    """Eight bits take a quarter of the vectors' bytes; own is full less empty; what is kept is what was returned."""
    found, out = measured
    processes = pl.read_parquet(out / "processes.parquet")
    assert processes.equals(found.processes)
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(found.summary))
    by_setting = {row["setting"]: row for row in processes.iter_rows(named=True)}
    assert by_setting["reference"]["vectors"] == 2_600 * 384 * 4
    assert by_setting["candidate"]["vectors"] < by_setting["reference"]["vectors"] / 3
    for name, row in by_setting.items():
        assert row["own_steady"] == row["steady"] - row["nothing_steady"]
        assert found.summary[name]["bytes_per_memory"]["value"] == pytest.approx(row["own_steady"] / 2_600)
        assert row["peak"] is None or row["peak"] >= row["steady"] - (8 << 20)


def test_unequal_work_is_said():
    """A setting that walked fewer events is not compared as if it had done the same."""
    rows = [
        {
            "setting": name,
            "repeat": 0,
            "walked": walked,
            "digest": name,
            **dict.fromkeys(("steady", "peak", "after", "own_steady", "own_peak", "vectors", "database"), 5),
        }
        for name, walked in (("reference", 3), ("candidate", 2))
    ]
    answer = footprint_process.Answer(
        imported=1, steady=1, peak=1, after=1, vectors=1, database=1, walked=2, digest="", found=[]
    )  # fmt: skip
    corpus = footprint.generate(3, 1, 1)
    made = footprint._summarise(
        pl.DataFrame(rows),
        {"reference": answer, "candidate": answer},
        [],
        size="quick",
        settings={name: footprint.Settings() for name in ("reference", "candidate")},
        corpus=corpus,
        repeats=1,
    )
    assert made["same_work"] is False


def test_a_peak_is_seen_after_it_is_over():
    """Forty megabytes that were held and given back are in the peak, and after a reset they are not."""
    if not peak.reset() or peak.peak_bytes() is None:
        pytest.skip("this system does not tell a process's peak")
    before = look().rss_bytes
    held = bytearray(b"\x01" * (40 << 20))
    del held
    assert peak.peak_bytes() >= before + (30 << 20)
    peak.reset()
    assert peak.peak_bytes() < before + (30 << 20)


def test_bad_input_is_refused(tmp_path):
    """Before anything is filled."""
    with pytest.raises(MemlabError, match="give 1 or more"):
        footprint.measure_point({}, workload=TRAFFIC, repeats=0)
    with pytest.raises(MemlabError, match="did you mean"):
        footprint.measure_point({"candidate": {"index.knd": "sq8"}}, workload=TRAFFIC)
