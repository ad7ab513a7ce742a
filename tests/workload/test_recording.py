"""A live engine is recorded without its content, in little memory, and so that a kill loses no more than was not flushed."""

import os
import signal
import subprocess
import sys
import threading

import polars as pl
import pytest

from memlab.engine import Engine
from memlab.errors import MemlabError, timeout
from memlab.measure.clock import ManualClock
from memlab.memory import Memory
from memlab.operations.registry import lookup
from memlab.predict import traffic
from memlab.settings import Settings
from memlab.values import Request, Response
from memlab.workload import recording
from memlab.workload.recording import TraceRecorder
from memlab.workload.trace import PARTS, RECORDED, load


def asked(operation="episodic.recall", session="default", **parameters):
    return Request(operation, lookup(operation).validate(parameters or {"query": "tea"}), session)


def told(recorder, request, started=0, took=10, value=(), cached=False, error=None):
    recorder(request, started, started + took, None if error else Response(value, cached=cached), error)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trace.parquet"


@pytest.fixture
def recorder(path):
    made = TraceRecorder(path, clock=ManualClock())
    yield made
    made.close()


def test_what_is_written_has_the_recorded_form(path):
    """Exactly its columns and types, and it loads."""
    with TraceRecorder(path, clock=ManualClock()) as recorder:
        told(recorder, asked(), 5, 20, value=("a", "b"), cached=True)
        told(recorder, asked("episodic.remember", content="tea", tags=["drink"]), 9, 1)
    loaded = load(path)
    assert loaded.kind == "recorded"
    assert loaded.frame.schema == RECORDED
    rows = loaded.frame.to_dicts()
    assert [(row["at_ns"], row["took_ns"], row["operation"], row["reads"], row["cacheable"], row["cached"]) for row in rows] == [
        (5, 20, "episodic.recall", True, True, True),
        (9, 1, "episodic.remember", False, False, False),
    ]
    assert rows[0]["request_bytes"] > 0 and rows[0]["answer_bytes"] > 0
    assert not path.with_name(path.name + PARTS).exists()


def test_rows_are_by_the_time_they_began(path):
    """Calls are told when they end; a long one stands before those that began after it, across parts as well."""
    with TraceRecorder(path, flush_rows=2, clock=ManualClock()) as recorder:
        for began, ended in ((10, 11), (12, 13), (14, 15), (3, 20), (16, 21), (1, 30)):
            told(recorder, asked(), began, ended - began)
    assert load(path).frame["at_ns"].to_list() == [1, 3, 10, 12, 14, 16]


def test_equal_calls_have_equal_keys(recorder, path):
    """By operation, session and parameters; defaults count as given."""
    for request in (
        asked(query="tea"),
        asked(query="tea", limit=10),
        asked(query="tea", limit=3),
        asked(query="tea", session="other"),
        asked("semantic.search", query="tea"),
    ):
        told(recorder, request)
    recorder.close()
    keys = load(path).frame["key"].to_list()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_a_write_makes_stale_what_depends_on_it(path):
    """By the labels of the cache: a tag touches its own readers, a search of the same session, and nobody else's."""
    reads = [
        asked("episodic.recall_by_tags", tags=["tea"]),
        asked("episodic.recall_by_tags", tags=["work"]),
        asked(query="tea"),
        asked(query="tea", session="other"),
    ]
    with TraceRecorder(path, clock=ManualClock()) as recorder:
        for at, request in enumerate([*reads, asked("episodic.remember", content="x", tags=["tea"]), *reads]):
            told(recorder, request, at)
    assert load(path).kept().stale_at.tolist() == [4, 8, 4, 8, 8, 8, 8, 8]


def test_failures_are_told_by_type(recorder, path):
    """Of the five types, or that the caller left."""
    for error in (timeout("pool_full", "no room"), ValueError("bug"), KeyboardInterrupt()):
        told(recorder, asked(), error=error)
    recorder.close()
    assert load(path).frame["outcome"].to_list() == ["TIMEOUT", "INTERNAL", "cancelled"]
    assert load(path).frame["answer_bytes"].to_list() == [0, 0, 0]


def test_parameters_without_a_form_are_not_cacheable(recorder, path, monkeypatch):
    """The cache could not recognise them either."""
    monkeypatch.setattr(recording, "canonical", lambda parameters: (_ for _ in ()).throw(TypeError()))
    told(recorder, asked())
    told(recorder, asked())
    recorder.close()
    frame = load(path).frame
    assert frame["cacheable"].to_list() == [False, False]
    assert frame["key"].n_unique() == 2


def test_a_long_answer_is_weighed_by_its_first_memories(path, tmp_path):
    """Fifty alike: within a tenth of what the cache would say."""
    with TraceRecorder(path) as recorder, Memory.open(tmp_path / "m.duckdb", recorder=recorder) as memory:
        memory.episodic.bulk_remember([{"content": f"tea at {number}", "tags": ["a"]} for number in range(50)])
        answer = memory.episodic.list_events(limit=50)
    assert len(answer) == 50
    assert load(path).frame["answer_bytes"].to_list()[-1] == pytest.approx(recording.weigh(answer)[0], rel=0.1)


def test_a_fault_of_the_recorder_is_no_failure_of_the_call(recorder, path, monkeypatch):
    """The caller gets the answer; the call is counted as dropped, the next one is recorded."""
    weigh = recording.weigh
    monkeypatch.setattr(recording, "weigh", lambda value: (_ for _ in ()).throw(RuntimeError("bug")))
    told(recorder, asked(), 1)
    monkeypatch.setattr(recording, "weigh", weigh)
    told(recorder, asked(), 2)
    assert recorder.statistics()["dropped"] == 1
    recorder.close()
    assert load(path).frame["at_ns"].to_list() == [2]


def test_nothing_of_the_content_is_in_the_file(tmp_path, path):
    """No word, tag or session id; and hashes of two recordings have nothing in common."""
    paths = [path, tmp_path / "again.parquet"]
    for one in paths:
        with TraceRecorder(one) as recorder, Memory.open(tmp_path / f"{one.stem}.duckdb", recorder=recorder) as memory:
            memory.episodic.remember("Wilhelmina prefers zeppelins", tags=["marzipan"])
            memory.episodic.recall("zeppelins of Wilhelmina", limit=5)
            memory.episodic.recall_by_tags(["marzipan"])
    data = b"".join(one.read_bytes() for one in paths).lower()
    assert b"episodic.recall" in data
    for word in (b"wilhelmina", b"zeppelin", b"marzipan", b"default"):
        assert word not in data
    first, again = ({*load(one).frame["key"], *load(one).frame["session"], *load(one).frame["labels"].explode()} for one in paths)
    assert not first & again


def test_pausing_keeps_calls_out(recorder, path):
    """Between pause and resume nothing is taken."""
    told(recorder, asked(), 1)
    recorder.pause()
    told(recorder, asked(), 2)
    recorder.resume()
    told(recorder, asked(), 3)
    assert recorder.close() == 2
    assert load(path).frame["at_ns"].to_list() == [1, 3]


def test_a_slow_disk_drops_calls_and_keeps_memory_bounded(path, monkeypatch):
    """While one part is being written, no more than so many rows wait; those that did not fit are counted."""
    monkeypatch.setattr(recording, "MOST_WAITING", 6)
    free, begun = threading.Event(), threading.Event()
    write_table = recording.pyarrow.parquet.write_table

    def slow(*given):
        begun.set()
        free.wait()
        write_table(*given)

    monkeypatch.setattr(recording.pyarrow.parquet, "write_table", slow)
    recorder = TraceRecorder(path, flush_rows=2, clock=ManualClock())
    told(recorder, asked())
    told(recorder, asked())
    begun.wait()
    for _ in range(10):
        told(recorder, asked())
    assert recorder.statistics() == {"recorded": 8, "flushed": 0, "dropped": 4}
    free.set()
    assert recorder.close() == 8


def test_a_full_disk_does_not_disturb_the_engine(path, monkeypatch):
    """The service goes on; whoever closes the recorder learns of it, and where the parts are."""

    def full(*given):
        raise OSError(28, "No space left on device")

    recorder = TraceRecorder(path, flush_rows=1, clock=ManualClock())
    monkeypatch.setattr(recording.pyarrow.parquet, "write_table", full)
    told(recorder, asked())
    recorder._thread.join()
    told(recorder, asked())
    assert recorder.statistics()["dropped"] == 1
    with pytest.raises(MemlabError, match=r"No space left on device.*trace\.parquet\.parts"):
        recorder.close()


def test_no_call_leaves_no_file(path, recorder):
    """Closing twice is no mistake."""
    assert (recorder.close(), recorder.close()) == (0, 0)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("there", ["trace.parquet", "trace.parquet.parts"])
def test_nothing_is_written_over(there, path):
    """A trace, or what a killed recording left, stays."""
    (path.parent / there).mkdir()
    with pytest.raises(MemlabError, match="exists already"):
        TraceRecorder(path)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    """Named, with what to do."""
    with pytest.raises(MemlabError, match="give a file in a folder that is there"):
        TraceRecorder(tmp_path / "none" / "trace.parquet")


KILLED = """
import os, signal, sys
from memlab.operations.registry import lookup
import memlab.operations
from memlab.measure.clock import ManualClock
from memlab.values import Request, Response
from memlab.workload.recording import TraceRecorder
recorder = TraceRecorder(sys.argv[1], flush_rows=50, clock=ManualClock())
request = Request("episodic.recall", lookup("episodic.recall").validate({"query": "tea"}))
for at in range(70):
    recorder(request, at, at + 1, Response(()), None)
    while at == 49 and recorder.statistics()["flushed"] < 50:
        pass
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT CHECKED: this system has no SIGKILL")
def test_what_was_flushed_survives_a_kill(path, root):
    """The parts load as a trace, and whoever asks for the file is told where they are."""
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=root, check=False)
    assert ended.returncode == -signal.SIGKILL
    left = path.with_name(path.name + PARTS)
    loaded = load(left)
    assert loaded.kind == "recorded"
    assert loaded.frame["at_ns"].to_list() == list(range(50))
    with pytest.raises(MemlabError, match="did not end left"):
        load(path)


def test_many_threads_may_tell_it(path):
    """No row is lost, none comes twice."""
    recorder = TraceRecorder(path, flush_rows=16, clock=ManualClock())

    def tell(first):
        for at in range(first, first + 200):
            told(recorder, asked(), at)

    threads = [threading.Thread(target=tell, args=(first,)) for first in range(0, 800, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.close() == 800
    assert load(path).frame["at_ns"].to_list() == list(range(800))


def test_a_recorded_engine_sums_up(path, tmp_path):
    """What the cache served is in the trace, and the summary reads it."""
    with TraceRecorder(path) as recorder, Memory(Engine.open(tmp_path / "m.duckdb", Settings(), recorder=recorder)) as memory:
        memory.episodic.remember("tea at four")
        for _ in range(4):
            memory.episodic.recall("tea")
        hit_ratio = memory.statistics()["cache"]["hit_ratio"]
    frame = load(path).frame
    assert frame.filter(pl.col("reads"))["cached"].mean() == hit_ratio == 0.75
    assert frame.filter(pl.col("reads"))["answer_bytes"].n_unique() == 1
    assert traffic.summary(frame)["mix"] == {"episodic.recall": 0.8, "episodic.remember": 0.2}
