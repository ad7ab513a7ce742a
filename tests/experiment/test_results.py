"""Runs are kept whole or not at all, and found again."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import results
from memlab.experiment.results import Run
from memlab.measure import host


def a_run(**changes):
    given = {
        "experiment": "exp",
        "key": "abc",
        "parameters": {"cache.max_entries": 5},
        "settings": {},
        "seed": 1,
        "repeats": 5,
        "size": "quick",
        "workload": {},
        "code_version": results.code_version(),
        "libraries": {},
        "host": host.host(),
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
        "status": "done",
    }
    return Run(**(given | changes))


def test_a_point_leaves_its_frames_and_its_summary_where_a_folder_is_given(tmp_path):
    """Nothing without one; and no summary that is no JSON, such as one that holds a figure that is no number."""
    frame = pl.DataFrame({"a": [1.5, None]})
    results.write_point(None, {"size": "smoke"}, {"told": frame})
    results.write_point(tmp_path, {"size": "smoke"}, {"told": frame})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.json", "told.parquet"]
    assert pl.read_parquet(tmp_path / "told.parquet").equals(frame)
    assert json.loads((tmp_path / results.SUMMARY).read_text()) == {"size": "smoke"}
    with pytest.raises(ValueError, match="JSON"):
        results.write_point(tmp_path, {"mean": float("nan")})


def keep(folder, run=None, text="made"):
    run = run or a_run()
    with results.draft(folder, run.experiment, run.key) as made:
        (made / "notebook.ipynb").write_text(text)
        pl.DataFrame({"operation": ["x"]}).write_parquet(made / "samples.parquet")
        return results.keep(made, run, folder)


def everything(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_kept_run_is_found_again(tmp_path):
    """By its folder, by its id, by its experiment; with its samples and its notebook."""
    kept = keep(tmp_path)
    assert results.load(kept.folder) == kept
    assert results.find(tmp_path, "exp/abc") == kept
    assert results.runs(tmp_path, "exp") == [kept]
    assert kept.samples()["operation"].to_list() == ["x"]
    assert kept.closed_samples() is None
    assert kept.notebook.read_text() == "made"
    assert kept.is_current
    assert everything(tmp_path) == {f"exp/abc/{name}" for name in ("run.json", "samples.parquet", "notebook.ipynb")}


def test_run_json_holds_what_the_contract_says(tmp_path):
    """Other programs read these fields."""
    told = json.loads((keep(tmp_path).folder / "run.json").read_text())
    assert told["id"] == "exp/abc"
    assert {
        "parameters", "settings", "seed", "code_version", "libraries", "host", "started", "finished", "status", "summary",
    } <= set(told)  # fmt: skip
    assert "folder" not in told


def test_a_failed_run_makes_room_for_the_next(tmp_path):
    """A second run under the same key stands in the first one's place, whole."""
    keep(tmp_path, a_run(status="failed", error="x"), text="old")
    assert results.runs(tmp_path, "exp") == []
    assert [run.error for run in results.runs(tmp_path, "exp", status=None)] == ["x"]
    keep(tmp_path, text="new")
    (run,) = results.runs(tmp_path, "exp", status=None)
    assert run.status == "done"
    assert run.notebook.read_text() == "new"
    assert len(everything(tmp_path)) == 3


def test_a_draft_that_is_not_kept_is_gone(tmp_path):
    """Whatever ends the making of a run leaves nothing of it."""

    def interrupted():
        with results.draft(tmp_path, "exp", "abc") as made:
            (made / "notebook.ipynb").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert everything(tmp_path) == set()
    assert results.runs(tmp_path, "exp", status=None) == []


@pytest.mark.parametrize(
    ("number", "reason", "told"),
    [
        (errno.ENOSPC, "disk_full", "no space left for results"),
        (errno.EROFS, "results", "read-only file system"),
        (errno.EACCES, "results", "permission denied"),
    ],
)
@pytest.mark.parametrize("when", ["write", "sync", "rename"])
def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch, number, reason, told, when):
    """A full disk or a locked folder, at whatever step: one line that names the folder; an earlier run is untouched."""
    earlier = keep(tmp_path, a_run(key="earlier"))

    def fail(*arguments, **named):
        raise OSError(number, os.strerror(number))

    with results.draft(tmp_path, "exp", "abc") as made:
        (made / "notebook.ipynb").write_text("x")
        target = {"write": (Path, "write_text"), "sync": (os, "fsync"), "rename": (Path, "rename")}[when]
        monkeypatch.setattr(*target, fail)
        with pytest.raises(MemlabError) as caught:
            results.keep(made, a_run(), tmp_path)
        monkeypatch.undo()
    assert caught.value.reason == reason
    assert told in caught.value.text
    assert str(tmp_path) in caught.value.text
    assert [run.key for run in results.runs(tmp_path, "exp")] == [earlier.key]
    assert not any(path.startswith(("exp/abc", "exp/.")) for path in everything(tmp_path))


def test_a_results_folder_that_is_a_file_is_refused(tmp_path):
    """A folder cannot be made where a file is."""
    (tmp_path / "results").write_text("")
    with pytest.raises(MemlabError, match="cannot be written") as caught, results.locked(tmp_path / "results", "exp"):
        pass
    assert caught.value.reason == "results"


def test_one_sweep_at_a_time(tmp_path):
    """A second sweep of an experiment is refused, in this process or another; afterwards the folder is free."""
    with (
        results.locked(tmp_path, "exp"),
        pytest.raises(MemlabError, match="another sweep writes") as caught,
        results.locked(tmp_path, "exp"),
    ):
        pass
    assert caught.value.reason == "locked"
    with results.locked(tmp_path, "exp"):
        code = "import pathlib\nfrom memlab.experiment import results\n"
        code += f"with results.locked(pathlib.Path({str(tmp_path)!r}), 'exp'): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path.cwd())
        assert "another sweep writes" in other.stderr
        with results.locked(tmp_path, "another"):
            pass  # two experiments do not meet
    with results.locked(tmp_path, "exp"):
        pass


def test_what_a_killed_sweep_left_is_removed(tmp_path):
    """Drafts and replaced runs of a killed sweep go when the next one begins; runs stay."""
    keep(tmp_path)
    for left in (".abc.partial", ".xyz.old"):
        (tmp_path / "exp" / left).mkdir()
        (tmp_path / "exp" / left / "notebook.ipynb").write_text("half")
    with results.locked(tmp_path, "exp"):
        assert {path.name for path in (tmp_path / "exp").iterdir()} == {"abc"}


def test_hosts_are_not_mixed(tmp_path):
    """Runs of unlike hosts are refused in one line that tells them apart."""
    keep(tmp_path)
    keep(tmp_path, a_run(key="other", host=host.host() | {"id": "else", "cpu": "a faster one"}))
    with pytest.raises(MemlabError, match="2 unlike hosts") as caught:
        results.runs(tmp_path, "exp")
    assert caught.value.reason == "hosts"
    assert "a faster one" in caught.value.text


def test_runs_of_other_code_are_left_out(tmp_path):
    """By default only what the code as it is measured is found."""
    keep(tmp_path, a_run(code_version="older"))
    assert results.runs(tmp_path, "exp") == []
    (old,) = results.runs(tmp_path, "exp", current=False)
    assert not old.is_current


def test_runs_are_found_by_size(tmp_path):
    """A guide takes quick runs alone."""
    keep(tmp_path, a_run(size="smoke"))
    assert results.runs(tmp_path, "exp", size="quick") == []
    assert len(results.runs(tmp_path, "exp", size="smoke")) == 1


def test_what_is_not_there_is_named(tmp_path):
    """An unknown run comes with the nearest known one; a damaged one says what to do."""
    kept = keep(tmp_path)
    with pytest.raises(MemlabError, match="did you mean 'exp/abc'") as caught:
        results.find(tmp_path, "exp/abd")
    assert caught.value.reason == "run"
    with pytest.raises(MemlabError, match="no run"):
        results.find(tmp_path, "exp")
    with pytest.raises(MemlabError, match="no run in"):
        results.load(tmp_path)
    (kept.folder / "run.json").write_text("{")
    with pytest.raises(MemlabError, match="remove its folder"):
        results.load(kept.folder)
    (kept.folder / "run.json").write_text('{"experiment": 5}')
    with pytest.raises(MemlabError, match="not a run of this version"):
        results.load(kept.folder)
    (kept.folder / "samples.parquet").unlink()
    with pytest.raises(MemlabError, match="no samples"):
        kept.samples()
    (kept.folder / "samples.parquet").write_text("x")
    with pytest.raises(MemlabError, match="cannot be read"):
        kept.samples()


def test_keys_follow_everything_that_decides():
    """Equal facts in another order are one key; any other fact is another."""
    assert results.key_of({"a": 1, "b": {"c": 2, "d": 3}}) == results.key_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert results.key_of({"a": 1}) != results.key_of({"a": 2})


def test_the_code_version_follows_what_measures_and_nothing_else(tmp_path, monkeypatch):
    """A change of storage or of an operation is another version; a change of a chart or of the guide is not."""
    package = tmp_path / "memlab"
    for name in (*(f"{folder}/part.py" for folder in (*results._DECIDING, "charts", "guide")), *results._DECIDING_FILES):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("first")
    monkeypatch.setattr(results, "_PACKAGE", package)
    versions = [results._code_version()]
    for name in ("charts/part.py", "guide/part.py"):
        (package / name).write_text("second")
        assert results._code_version() == versions[0]
    for name in ("storage/part.py", "operations/part.py", "engine.py", "experiment/load.py"):
        (package / name).write_text("second")
        versions.append(results._code_version())
    (package / "storage" / "schema.sql").write_text("CREATE")
    versions.append(results._code_version())
    monkeypatch.setattr(host, "libraries", lambda: {"duckdb": "9"})
    versions.append(results._code_version())
    assert len(set(versions)) == len(versions)
    for name in {name for names in results._DECIDING_OF.values() for name in names}:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("first")
    leaks, load = results._code_version("14-leaks"), results._code_version("load")
    (package / "experiment/leak.py").write_text("second")
    assert results._code_version() == versions[-1], "an instrument of one experiment makes no other run old"
    assert results._code_version("load") == load
    assert results._code_version("14-leaks") != leaks


def test_the_instruments_of_an_experiment_are_there():
    """What is listed as deciding its runs exists, and its smoke size is the same experiment."""
    for experiment, names in results._DECIDING_OF.items():
        assert all((results._PACKAGE / name).is_file() for name in names), experiment
        assert results.code_version(f"{experiment}.smoke") == results.code_version(experiment)


def test_a_run_is_frozen():
    """A run never changes; `replace` makes a new one."""
    run = a_run()
    with pytest.raises(AttributeError):
        run.key = "x"
    assert msgspec.structs.replace(run, key="x").id == "exp/x"
