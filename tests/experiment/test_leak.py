"""Leaks: a planted one is found, noise is none, and a short run promises nothing."""

import gc
import json
import sys

import numpy as np
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import leak
from tests.measure.test_trend import alike

LOOKS, EVERY_S, RATE = 160, 10.0, 500.0


def series(bytes_each, seed, *, looks=LOOKS, every_s=EVERY_S, spread=500_000, rho=0.6, warm_up=20_000_000):
    """Looks at a process whose every operation leaves so many bytes, above noise, after a warm-up that fills caches."""
    at_s = every_s * np.arange(1, looks + 1)
    operations = (RATE * at_s).astype(np.int64)
    filling = warm_up * (1 - np.exp(-np.arange(looks) / (looks / 40)))
    rss = 300_000_000 + filling + bytes_each * operations + alike(looks, rho, seed, spread)
    return pl.DataFrame({"at_s": at_s, "operations": operations, "rss_bytes": rss.astype(np.int64), "threads": [9] * looks})


def test_a_planted_leak_of_twenty_bytes_an_operation_is_found():
    """Under half a megabyte of noise whose neighbours are alike: ten of ten, with the size that was planted."""
    for seed in range(10):
        found = leak.summarise(series(20.0, seed))
        assert found["verdict"] == "leak"
        each = found["bytes_per_operation"]
        assert each["low"] <= 20.0 <= each["high"] or each["value"] == pytest.approx(20.0, rel=0.1)
        assert each["theil_sen"] == pytest.approx(20.0, rel=0.2)
        assert found["slope_mb_per_h"]["value"] == pytest.approx(36.0, rel=0.2)


def test_noise_is_no_leak():
    """Without a leak, and with caches that fill in the warm-up, at most one run of twenty says that there is one."""
    verdicts = [leak.summarise(series(0.0, seed))["verdict"] for seed in range(40)]
    assert verdicts.count("leak") <= 2


def test_what_settles_is_no_leak():
    """Growth that has ended before the last looks, as an allocator's does, is not called a leak; one that goes on is."""
    settled = series(0.0, 3, spread=250_000, rho=0.0, warm_up=0)
    grown = 700_000 * np.minimum(np.arange(LOOKS) / (LOOKS * 0.6), 1.0)
    settled = settled.with_columns((pl.col("rss_bytes") + pl.Series(grown.astype(np.int64))).alias("rss_bytes"))
    found = leak.summarise(settled)
    assert found["bytes_per_operation"]["low"] > 0, "the whole of it slopes"
    assert found["verdict"] == "inconclusive"
    assert leak.summarise(series(0.5, 3, spread=20_000, warm_up=0))["verdict"] == "leak"


def test_looking_takes_no_memory_of_its_own():
    """Looks stand in memory that was there before: a hundred more make Python hold no more blocks than its loop does."""
    looks = leak._Looks(200)
    one = {"at_s": 1.0, "operations": 2, "rss_bytes": 3, "pss_bytes": None}
    looks.add(one)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(100):
        looks.add(one)
    assert sys.getallocatedblocks() - before < 20
    for _ in range(150):
        looks.add(one)
    frame = looks.frame()
    assert frame.height == 251
    assert frame.row(250, named=True) == one


def test_a_short_run_promises_nothing():
    """Half an hour without growth is inconclusive, and says why; two quiet hours are enough."""
    short = leak.summarise(series(0.0, 1, spread=20_000))
    assert short["verdict"] == "inconclusive"
    assert "needs 2 h" in short["why"]
    long = leak.summarise(series(0.0, 1, looks=1_000, spread=100_000))
    assert long["verdict"] == "no leak"
    assert long["slope_mb_per_h"]["high"] < 1.0


def test_few_looks_say_too_few():
    """Below ten looks there is no slope."""
    found = leak.summarise(series(20.0, 1, looks=8))
    assert found["verdict"] == "inconclusive"
    assert "too few" in found["why"]
    assert found["slope_mb_per_h"]["value"] is None


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """A point of the sweep on the real engine, some seconds without and with twenty bytes left by each operation."""
    traffic = {
        "corpus": {"events": 100, "sessions": 2, "questions": 12},
        "mix": {"episodic.get_event": 0.8, "episodic.recall": 0.2},
        "arrivals": {"kind": "closed", "clients": 2},
        "duration_s": 3.0,
    }
    out = tmp_path_factory.mktemp("leak")
    return leak.measure_point({}, workload=traffic, every_s=0.05, size="quick", out=out), out


def test_a_leak_of_twenty_bytes_an_operation_is_found_on_the_real_engine(looked):
    """Through the path that looks at a real process; without the leak the same path sees less than a fifth of it."""
    summary = looked[0].summary
    planted = summary["planted"]["bytes_per_operation"]
    assert summary["planted"]["verdict"] == "leak", summary["planted"]
    assert planted["low"] > 10
    assert planted["value"] == pytest.approx(20, rel=0.25)
    assert summary["bytes_per_operation"]["theil_sen"] < 4
    assert summary["operations"] > 1_000


def test_a_point_keeps_its_looks_and_its_summary(looked):
    """looks.parquet holds every look of both halves; the figures are computed from it; DuckDB's own count is among them."""
    found, out = looked
    looks = pl.read_parquet(out / "looks.parquet")
    assert looks.equals(found.looks)
    kept = json.loads((out / "summary.json").read_text())
    assert kept == json.loads(json.dumps(found.summary))
    again = leak.summarise(looks.filter(~pl.col("planted")).drop("planted"))
    assert again["slope_mb_per_h"] == kept["slope_mb_per_h"]
    assert kept["others_per_operation"]["database_bytes"]["first"] > 0
    assert kept["finding"] is True
    assert kept["failed"] == kept["planted"]["failed"] == 0
    assert kept["checks"]["holds"] is kept["planted"]["checks"]["holds"] is True
    assert {"rss_bytes", "python_blocks", "threads", "descriptors"} <= set(looks.columns)
    assert [name for name in looks.columns if name.startswith("cache_")]
    assert [name for name in looks.columns if name.startswith("storage_")]
    assert kept["verdict"] in leak.as_text({"summary": kept})


def test_looking_for_a_leak_takes_a_closed_loop():
    """Arrivals that do not wait would count operations that were never done."""
    with pytest.raises(MemlabError, match="closed loop"):
        leak.measure_point({}, workload={"arrivals": {"kind": "poisson", "rate_per_s": 50}})
