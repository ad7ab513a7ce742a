"""The speed table: every line that was asked for, with its floor, in a form that programs and people read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from memlab.experiment import results, speed

ASKED = {
    "bulk load, vector and text index": "≥ 20,000",
    "bulk load without indexes": "≥ 50,000",
    "open with valid indexes": "≤ 0.3",
    "recall by vector, rows cold": "≤ 1.2 × floor, recall@10 ≥ 0.99",
    "recall by vector, rows hot": "≤ 0.3 ms",
    "hybrid recall, rows cold": "≤ 2 ms",
    "get by id, row cold": "≤ 1.3 × floor",
    "get by id, row hot": "≤ 10 µs beyond dispatch",
    "recall in a session of 20": "≤ 0.4 ms beyond the row fetch, recall@10 ≥ 1",
    "recall in 10 % of the time": "≤ 1.0 ms beyond the row fetch, recall@10 ≥ 0.99",
    "repeated recall, cache on": "≥ 20 × cache off",
    "durable remember, one caller": "≥ 0.8 × floor",
    "durable remember, 256 callers": "≥ 10 × the bare one-row rate",
    "90/10 mix, 64 callers": "≥ 0.7 × floor",
    "90/10 mix, 256 callers": "≥ 0.7 × floor",
    "resident memory of the index, sq8": "−50 % or better, recall@10 ≥ 0.97",
}


@pytest.fixture(scope="module")
def report() -> Mapping[str, Any]:
    return speed.report(memories=2_000, calls=20, seconds=0.1, seed=0)


def test_every_line_that_was_asked_for_is_measured(report: Mapping[str, Any]) -> None:
    """Each has its reach and a figure, whether it was met, and a floor but for the opening; recall is good where it is told."""
    assert {row["what"]: row["reach"] for row in report["rows"]} == ASKED
    for row in report["rows"]:
        assert math.isfinite(row["measured"]) and row["measured"] > 0
        assert row["met"] in (True, False)
        if row["what"] != "open with valid indexes":
            assert row["floor"] > 0 and row["ratio"]["value"] > 0
    notes = {row["what"]: row["note"] for row in report["rows"]}
    assert notes["recall in a session of 20"].startswith("recall@10 1.000")


def test_programs_and_people_read_the_same(report: Mapping[str, Any]) -> None:
    """The report is plain JSON; its Markdown has a line for each of the rows, with reach and met."""
    assert json.loads(json.dumps(report))["rows"]
    lines = speed.markdown(report).splitlines()
    for row in report["rows"]:
        (line,) = [line for line in lines if line.startswith(f"| {row['what']} |")]
        assert f"| {row['reach']} | {'yes' if row['met'] else '**no**'} |" in line


def test_a_report_is_a_run_with_a_key(report: Mapping[str, Any], tmp_path: Path) -> None:
    """What a document cites: found by its id, current, the same key for the same question, every row under its name."""
    run = speed.keep(report, tmp_path)
    again = speed.keep(report, tmp_path)
    assert run.id == again.id == f"bench/{speed.key_of(memories=2_000, calls=20, seconds=0.1, seed=0)}"
    found = results.find(tmp_path, run.id)
    assert found.is_current
    assert found.size == "smoke"
    assert set(found.summary["rows"]) == set(ASKED)
    assert speed.key_of(memories=2_000, calls=20, seconds=0.1, seed=1) != run.key
