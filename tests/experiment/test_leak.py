"""Leaks: a planted one is found, noise is none, and a short run promises nothing."""

import json

import numpy as np
import polars as pl
import pytest

from memlab.experiment import leak, load_run
from memlab.settings import Settings
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


def test_a_real_run_looks_at_everything(root):
    """A second on the real engine: looks with all counts, figures for programs, no failure; its interval, whatever it is."""
    traffic = load_run.read_workload(
        root / "params" / "mixes" / "steady.yaml",
        {"arrivals": {"kind": "closed", "clients": 2}, **load_run.resized(80)},
    )
    whole = leak.run(traffic, Settings(), duration_s=2.0, every_s=0.1, clients=2)
    assert whole["summary"]["failed"] == 0
    assert whole["checks"]["holds"] is True
    first = whole["looks"][0]
    assert {"rss_bytes", "python_blocks", "threads"} <= set(first)
    assert [name for name in first if name.startswith("cache_")]
    assert [name for name in first if name.startswith("storage_")]
    assert [look["operations"] for look in whole["looks"]] == sorted(look["operations"] for look in whole["looks"])
    json.dumps(whole, allow_nan=False)
    assert whole["summary"]["verdict"] in leak.as_text(whole)


def test_a_leak_in_a_real_run_is_found(root):
    """Twenty objects and their list kept for each operation, on the real engine: Python's blocks grow by as many."""
    kept = []
    traffic = load_run.read_workload(
        root / "params" / "mixes" / "steady.yaml",
        {"arrivals": {"kind": "closed", "clients": 2}, **load_run.resized(80)},
    )
    whole = leak.run(
        traffic, Settings(), duration_s=4.0, every_s=0.1, clients=2, planted=lambda: kept.append([object() for _ in range(20)])
    )
    blocks = whole["summary"]["others_per_operation"]["python_blocks"]
    assert blocks["value"] == pytest.approx(21, rel=0.5)
