"""Traces are loaded whole or refused in one line."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.errors import ErrorType, MemlabError
from memlab.workload import trace
from memlab.workload.trace import RECORDED, load


def written(folder, columns, schema=None):
    path = folder / "trace.parquet"
    pl.DataFrame(columns, schema=schema).write_parquet(path)
    return path


def recorded(rows):
    """Rows of the recorded form; what is not given is a search that was answered."""
    usual = {
        "took_ns": 10,
        "operation": "episodic.recall",
        "reads": True,
        "cacheable": True,
        "session": 1,
        "labels": [7],
        "ttl_s": None,
        "request_bytes": 20,
        "answer_bytes": 300,
        "outcome": "ok",
        "cached": False,
    }
    return pl.DataFrame([{"at_ns": place, **usual, **row} for place, row in enumerate(rows)], schema=RECORDED)


def test_plain_keys_load(tmp_path):
    """Keys in the order of access, and nothing of times or writes."""
    loaded = load(written(tmp_path, {"key": [5, 3, 5], "colour": ["red", "green", "blue"]}))
    kept = loaded.kept()
    assert (loaded.kind, len(loaded), loaded.frame.columns) == ("keys", 3, ["key"])
    assert kept.keys.tolist() == [5, 3, 5]
    assert kept.at_ns is kept.stale_at is kept.ttl_ns is kept.answer_bytes is None


def test_keys_may_be_text(tmp_path):
    """Numbered, equal where they are equal."""
    keys = load(written(tmp_path, {"key": ["b", "a", "b"]})).kept().keys
    assert keys[0] == keys[2] != keys[1]


def test_keys_with_times_writes_and_sizes(tmp_path):
    """Seconds become nanoseconds from the first; a write makes what it writes stale for the next read."""
    columns = {
        "key": [1, 2, 1, 1],
        "at_s": [5.0, 5.5, 6.0, 7.25],
        "reads": [True, True, False, True],
        "answer_bytes": [10, 20, 0, 30],
    }
    kept = load(written(tmp_path, columns)).kept()
    assert kept.keys.tolist() == [1, 2, 1]
    assert kept.at_ns.tolist() == [0, 500_000_000, 2_250_000_000]
    assert kept.stale_at.tolist() == [2, 3, 3]
    assert kept.answer_bytes == 20.0


def test_offsets_begin_at_the_first_call(tmp_path):
    """Seconds from the first; a trace without times, or of one moment, has none."""
    assert load(written(tmp_path, {"at_s": [5.0, 6.0, 8.0]})).offsets().tolist() == [0.0, 1.0, 3.0]
    assert load(written(tmp_path, {"key": [1, 1], "at_ns": [7, 1_000_000_007]})).offsets().tolist() == [0.0, 1.0]
    for columns, told in (({"at_s": [1.0]}, "two moments"), ({"at_s": [1.0, 1.0]}, "two moments"), ({"key": [1]}, "no times")):
        with pytest.raises(MemlabError, match=told):
            load(written(tmp_path, columns)).offsets()


def test_keys_are_those_of_reads(tmp_path):
    """What was written is not asked for; arrivals, and writes alone, hold no keys."""
    assert load(written(tmp_path, {"key": [1, 2, 2], "reads": [True, False, True]})).keys().tolist() == [1, 2]
    for columns, told in (({"at_s": [1.0]}, "not what they asked"), ({"key": [1], "reads": [False]}, "no read")):
        with pytest.raises(MemlabError, match=told):
            load(written(tmp_path, columns)).keys()


def test_arrivals_load_and_hold_no_keys(tmp_path):
    """When calls came, whatever else stands beside it; what they asked is not known."""
    loaded = load(written(tmp_path, {"at_s": [0.0, 0.5], "tokens": [-1, 4]}))
    assert (loaded.kind, loaded.frame["at_ns"].to_list()) == ("arrivals", [0, 500_000_000])
    with pytest.raises(MemlabError, match="not what they asked"):
        loaded.kept()


def test_a_recorded_trace_by_hand(tmp_path):
    """Of reads only those that a cache may keep and that were answered; a write reaches what shares a label with it."""
    rows = [
        {"key": 1, "labels": [7, 8]},
        {"key": 2, "labels": [9]},
        {"key": 3, "reads": False, "labels": [8]},
        {"key": 1, "labels": [7, 8]},
        {"key": 4, "cacheable": False},
        {"key": 5, "outcome": "TIMEOUT"},
        {"key": 2, "labels": [9], "ttl_s": 2.5},
    ]
    loaded = load(written(tmp_path, recorded(rows)))
    kept = loaded.kept()
    assert loaded.kind == "recorded"
    assert kept.keys.tolist() == [1, 2, 1, 2]
    assert kept.at_ns.tolist() == [0, 1, 3, 6]
    assert kept.stale_at.tolist() == [2, 4, 4, 4]
    assert kept.ttl_ns.tolist() == [1 << 61, 1 << 61, 1 << 61, 2_500_000_000]


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 5), max_size=3, unique=True)), min_size=1, max_size=40))
def test_what_a_write_reaches_is_what_looking_for_it_finds(tmp_path_factory, calls):
    """For every read the first later write with one of its labels, however many labels each has."""
    rows = [{"key": place, "reads": reads, "labels": labels} for place, (reads, labels) in enumerate(calls)]
    reads = [place for place, (is_read, _) in enumerate(calls) if is_read]
    path = written(tmp_path_factory.mktemp("trace"), recorded(rows))
    if not reads:
        with pytest.raises(MemlabError, match="no read"):
            load(path).kept()
        return
    expected = []
    for read in reads:
        ends = next(
            (later for later in range(read, len(calls)) if not calls[later][0] and set(calls[later][1]) & set(calls[read][1])),
            len(calls),
        )
        expected.append(sum(one < ends for one in reads))
    kept = load(path).kept()
    assert (kept.stale_at.tolist() if kept.stale_at is not None else [len(reads)] * len(reads)) == expected


BAD = {
    "other columns": ({"page": [1]}, "its columns are page"),
    "no rows": ({"key": pl.Series([], dtype=pl.Int64)}, "no rows"),
    "keys that are no keys": ({"key": [0.5]}, "column key holds Float64"),
    "a missing key": ({"key": [1, None]}, "1 rows without a value"),
    "unsorted times": ({"at_s": [0.0, 2.0, 1.0]}, "at_s must ascend, and falls at row 2"),
    "unsorted times of keys": ({"key": [1, 1], "at_ns": [5, 4]}, "at_ns must ascend"),
    "times that are none": ({"at_s": [0.0, float("nan")]}, "finite"),
    "times as text": ({"at_s": ["now"]}, "column at_s holds String"),
    "negative sizes": ({"key": [1, 2], "answer_bytes": [4, -1]}, "answer_bytes is negative in 1 rows"),
    "reads that are no claim": ({"key": [1], "reads": ["yes"]}, "column reads holds String, not Boolean"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_traces_are_one_line(case, tmp_path):
    """What is wrong, where, and what fits."""
    columns, told = BAD[case]
    with pytest.raises(MemlabError, match=told) as caught:
        load(written(tmp_path, columns))
    assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, "trace")
    assert "\n" not in caught.value.text and "trace.parquet" in caught.value.text


@pytest.mark.parametrize(
    ("name", "told"), [("none.parquet", "no such file"), (".", "a folder, and not one"), ("text", "cannot be read as parquet")]
)
def test_what_is_no_trace_is_one_line(name, told, tmp_path):
    """A missing file, a folder, something else."""
    (tmp_path / "text").write_text("key\n1\n2\n")
    with pytest.raises(MemlabError, match=told) as caught:
        load(tmp_path / name)
    assert "\n" not in caught.value.text


def test_a_folder_of_other_files_is_one_line(tmp_path):
    """Traces of unlike forms, or a file that is none, are no parts of a recording."""
    for files in ({"a": {"key": [1]}, "b": {"at_s": [1.0]}}, {"a": {"key": [1]}}):
        for name, columns in files.items():
            pl.DataFrame(columns).write_parquet(tmp_path / f"{name}.parquet")
        with pytest.raises(MemlabError, match="a folder, and not one") as caught:
            load(tmp_path)
        assert "\n" not in caught.value.text and len(caught.value.text) < 250
    (tmp_path / "a.parquet").write_text("none")
    with pytest.raises(MemlabError, match="a folder, and not one"):
        load(tmp_path)


@pytest.mark.serial
def test_ten_million_rows_load(tmp_path):
    """All of them, with times and writes."""
    count = 10_000_000
    keys = np.arange(count) % 1_000_003
    path = written(tmp_path, {"key": keys.astype(np.uint32), "at_ns": np.arange(count), "reads": keys % 100 != 7})
    kept = load(path).kept()
    assert len(kept.keys) == len(kept.at_ns) == len(kept.stale_at) == int((keys % 100 != 7).sum())


def test_the_documented_form_is_the_form():
    """The table in the module names every column of the recorded form."""
    assert all(f"`{name}`" in trace.__doc__ for name in RECORDED)
