"""Raw samples: kept as they came, in the columns of the contract."""

import threading

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from memlab.measure.recorder import OUTCOMES, PHASES, Recorder, Sample, sample_schema, write_samples

samples = st.builds(
    Sample,
    operation=st.sampled_from(["episodic.recall", "episodic.remember"]),
    session=st.text(max_size=8),
    intended_ns=st.integers(0, 2**62),
    started_ns=st.integers(0, 2**62),
    finished_ns=st.integers(0, 2**62),
    outcome=st.sampled_from(OUTCOMES),
    error=st.none() | st.sampled_from(["pool_full", "deadline"]),
    cached=st.booleans(),
    batch_size=st.integers(1, 10_000),
    setting=st.sampled_from(["reference", "candidate"]),
    repeat=st.integers(0, 100),
    warm_up=st.booleans(),
    recall_at_10=st.none() | st.floats(0, 1),
    phases=st.none() | st.dictionaries(st.sampled_from([*PHASES, "own"]), st.integers(0, 2**40), min_size=1),
)


@given(st.lists(samples, max_size=20))
def test_what_went_in_comes_out(given_samples):
    """Every sample is a row, in order, each field in the column of its name."""
    recorder = Recorder()
    for sample in given_samples:
        recorder.add(sample)
    rows = recorder.to_polars().to_dicts()
    assert len(rows) == len(recorder) == len(given_samples)
    for row, sample in zip(rows, given_samples, strict=True):
        phases = row.pop("phases")
        assert row == {name: getattr(sample, name) for name in row}
        assert {name: ns for name, ns in (phases or {}).items() if ns is not None} == dict(sample.phases or {})
        assert (phases is None) == (sample.phases is None)


def test_the_columns_are_those_of_the_contract(tmp_path):
    """samples.parquet has the columns and types that other programs rely on, also when nothing was recorded."""
    recorder = Recorder()
    assert recorder.to_polars().schema == sample_schema()
    recorder.add(Sample("episodic.recall", "s", 1, 2, 3))
    write_samples(recorder.to_polars(), tmp_path / "samples.parquet")
    read = pl.read_parquet(tmp_path / "samples.parquet")
    assert read.schema == sample_schema()
    assert read.columns == [
        "operation", "session", "setting", "repeat", "warm_up", "intended_ns", "started_ns", "finished_ns", "outcome", "error",
        "cached", "batch_size", "recall_at_10", "phases",
    ]  # fmt: skip
    assert read["phases"].to_list() == [None]


def test_many_threads_lose_nothing():
    """Rows of many threads stay whole."""
    recorder = Recorder()

    def work(number):
        for turn in range(500):
            recorder.add(Sample(f"operation-{number}", "s", turn, turn, number, setting=f"setting-{number}", repeat=number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frame = recorder.to_polars()
    assert len(frame) == 2_000
    for number in range(4):
        mine = frame.filter(pl.col("operation") == f"operation-{number}")
        assert mine["intended_ns"].to_list() == list(range(500))
        assert set(mine["setting"]) == {f"setting-{number}"}
        assert set(mine["finished_ns"]) == {number}
