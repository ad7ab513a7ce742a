"""Runs at an address: put whole or not at all, found again, and one line where the address does not answer."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from memlab.errors import MemlabError
from memlab.experiment import results, sweep
from memlab.experiment.planted import plant
from memlab.experiment.sweep import Sweep
from tests.experiment.test_sweep import params  # noqa: F401

ADDRESS = "memory://bucket/results"


@pytest.fixture(autouse=True)
def empty():
    """Nothing stands at the address."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def planted(params, tmp_path):  # noqa: F811
    made = Sweep.load(params())
    return made, plant(made, tmp_path / "planted")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_comes_back_as_it_was_put(planted):
    """Every file of it, under the same id; runs of other experiments are fetched only where they are wanted."""
    made, runs = planted
    with results.at(ADDRESS) as kept:
        for run in runs:
            assert kept.put(run) is run
    with results.at(ADDRESS, made.experiment) as kept:
        for run in runs:
            assert files(kept.folder / run.experiment / run.key) == files(run.folder)
        assert len(made.runs(kept.folder)) == len(runs)
    with results.at(ADDRESS, "another") as kept:
        assert not list(kept.folder.rglob("run.json"))


def test_what_is_done_at_the_address_is_not_measured_again(planted):
    """A sweep into an address takes what stands there; nothing of it stays on this host."""
    made, runs = planted
    with results.at(ADDRESS) as kept:
        for run in runs:
            kept.put(run)
    outcome = sweep.run(made, ADDRESS)
    assert (len(outcome.reused), outcome.done, outcome.failed) == (len(runs), [], [])


@pytest.mark.serial
def test_what_is_measured_is_put_there(params):  # noqa: F811
    """The next sweep, on any host, finds it."""
    made = Sweep.load(params())
    first = sweep.run(made, ADDRESS)
    assert len(first.done) == 2
    again = sweep.run(made, ADDRESS)
    assert (len(again.reused), again.done) == (2, [])


def test_a_run_that_was_not_put_whole_is_not_there(planted, monkeypatch):
    """The address fails in the middle: one line, and no run.json, so that nothing half stands for a run."""
    _, (run, *_) = planted
    real = MemoryFileSystem.put_file

    def failing(self, source, target, **given):
        if target.endswith("samples.parquet"):
            raise OSError("the bucket is gone")
        return real(self, source, target, **given)

    monkeypatch.setattr(MemoryFileSystem, "put_file", failing)
    with results.at(ADDRESS) as kept, pytest.raises(MemlabError, match="cannot be written: the bucket is gone") as refused:
        kept.put(run)
    assert (refused.value.type, refused.value.reason) == ("PERMISSION", "results")
    assert not fsspec.filesystem("memory").glob("/bucket/results/*/*/run.json")
    monkeypatch.undo()
    with results.at(ADDRESS) as kept:
        assert not list(kept.folder.rglob("*.json"))
        kept.put(run)
    with results.at(ADDRESS) as kept:
        assert len(list(kept.folder.rglob("run.json"))) == 1


@pytest.mark.parametrize("address", ["nothing://there", "s4://bucket"])
def test_no_such_address(address):
    """A kind of address that does not exist is named."""
    with pytest.raises(MemlabError, match="is no address of results") as refused, results.at(address):
        pass
    assert (refused.value.type, refused.value.reason) == ("VALIDATION", "results")
