"""Starts: fresh processes that answer the same calls, and differ in what was asked beforehand."""

import json

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import warm_up

TRAFFIC = {"corpus": {"events": 200, "sessions": 2, "questions": 20}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One repeat of no warm-up, of some questions, and of all."""
    out = tmp_path_factory.mktemp("warm-up")
    return warm_up.measure_point({}, workload=TRAFFIC, repeats=1, calls=45, first=15, asked=[0, 5, 20], out=out), out


@pytest.mark.serial
def test_what_was_asked_beforehand_is_a_hit(measured):
    """All questions beforehand: no call misses. None: the first calls to each question do, and nothing else."""
    calls = measured[0].calls
    misses = {asked: int((~part["cached"]).sum()) for (asked,), part in calls.group_by("asked")}
    assert misses[20] == 0
    assert misses[0] > misses[5] > 0
    assert calls.group_by("asked", "repeat").len()["len"].to_list() == [45] * 3


@pytest.mark.serial
def test_what_is_kept_is_what_was_returned(measured):
    """Raw rows and summary lie in the folder; a start without saved indexes stands among the starts."""
    found, out = measured
    assert pl.read_parquet(out / "calls.parquet").equals(found.calls)
    assert pl.read_parquet(out / "starts.parquet").equals(found.starts)
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(found.summary))
    assert found.starts["asked"].to_list().count(None) == 1
    assert found.starts["open_ns"].min() > 0
    assert found.summary["finding"] is False


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"repeats": 0}, "give 1 or more"),
        ({"asked": [5, 10]}, "give 0, which is no warm-up"),
        ({"asked": [0, 50]}, "the corpus has 20 questions"),
        ({"calls": 20}, "give 3 times first"),
    ],
)
def test_bad_input_is_refused(given, said):
    """Before anything is filled."""
    with pytest.raises(MemlabError, match=said):
        warm_up.measure_point({}, workload=TRAFFIC, **{"calls": 45, "first": 15, "asked": [0, 5], **given})
