"""Sweeps: checked before anything is measured, one process a point, whole runs, going on where they were interrupted."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from memlab.errors import MemlabError
from memlab.experiment import results, sweep
from memlab.experiment.planted import plant
from memlab.experiment.sweep import Progress, Sweep
from memlab.measure import host
from memlab.settings import Settings

PARAMETERS = """point = {"values": {}, "reference": {}, "candidate": {}}
workload = {}
seed = 1
repeats = 2
size = "smoke"
data = None
out = None
"""
MEASURE = """from memlab.experiment import measure_point
run = measure_point(point, workload=workload, seed=seed, repeats=repeats, size=size, data=data, out=out)"""
# A notebook that measures nothing: for what sweeps do around it.
PRETEND = """import json, pathlib, sys
assert point["values"].get("cache.max_entries") != 13, "thirteen"
pathlib.Path(out, "summary.json").write_text(json.dumps({"entries": point["candidate"]["cache"]["max_entries"]}))
pathlib.Path(out, "samples.parquet").write_text("")"""
PARAMS = """
question: Which size?
notebook: {notebook}
size: smoke
repeats: 2
reference: {{cache: null}}
grid:
  cache.max_entries: [10, 100]
workload:
  corpus: {{events: 60, sessions: 2, questions: 10}}
  arrivals: {{kind: poisson, rate_per_s: 100}}
  duration_s: 0.15
  warm_up_s: 0.05
  recall_samples: 3
"""


def write_notebook(path, code=PRETEND, parameters=PARAMETERS, tags=("parameters",)):
    cell = new_code_cell(parameters)
    cell.metadata["tags"] = list(tags)
    notebook = new_notebook(cells=[new_markdown_cell("# A question"), cell, new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@pytest.fixture
def params(tmp_path):
    """A params file beside a notebook that only pretends; `params(**changes)` changes the text."""
    write_notebook(tmp_path / "point.ipynb")

    def make(more="", old="", new=""):
        path = tmp_path / "size.smoke.yaml"
        path.write_text(PARAMS.format(notebook="point.ipynb").replace(old, new) + more)
        return path

    return make


class Told(Progress):
    def __init__(self):
        self.lines = []

    def begin(self, reused, expected_s):
        self.lines.append(("begin", len(reused), len(expected_s)))

    def finish(self, point, run, took_s):
        self.lines.append((point.label, run.status))

    def end(self):
        self.lines.append("end")


# --- checking ------------------------------------------------------------------------------------------------------


def test_a_params_file_is_points(params):
    """Every place of the grid is a point with settings in full, over the defaults."""
    made = Sweep.load(params())
    assert (made.experiment, made.size, made.repeats) == ("size.smoke", "smoke", 2)
    one, other = made.points()
    assert one.values == {"cache.max_entries": 10}
    assert one.reference.cache is None
    assert (one.candidate.cache.max_entries, other.candidate.cache.max_entries) == (10, 100)
    assert one.label == "cache.max_entries=10"
    assert made.key(one) != made.key(other)


def test_grids_are_products_and_lists_of_products(params):
    """A list of tables is one product each; a place that two of them name is measured once."""
    text = "grid:\n  cache.max_entries: [10, 100]"
    made = Sweep.load(params("", text, "grid:\n  cache.max_entries: [10, 100]\n  cache.ttl_s: [null, 1.5, 2]"))
    assert len(made.points()) == 6
    listed = "grid:\n  - cache.max_entries: [10, 100]\n  - cache.max_entries: [100, 1000]\n  - cache: [null]"
    made = Sweep.load(params("", text, listed))
    assert [point.label for point in made.points()] == [
        "cache.max_entries=10", "cache.max_entries=100", "cache.max_entries=1000", "cache=off",
    ]  # fmt: skip
    assert made.points()[-1].candidate.cache is None
    assert len(Sweep.load(params("", text, "grid: {}")).points()) == 1


def test_the_workload_can_be_swept_too(params):
    """A key under workload changes the traffic of the point, not the settings."""
    made = Sweep.load(params("", "cache.max_entries: [10, 100]", "workload.arrivals.rate_per_s: [50, 70]"))
    assert [point.workload.arrivals.rate_per_s for point in made.points()] == [50.0, 70.0]
    assert made.points()[0].candidate == Settings()
    made = Sweep.load(params("", "cache.max_entries: [10, 100]", "workload.mix.episodic.recall: [1, 3]"))
    assert [point.workload.mix for point in made.points()] == [{"episodic.recall": 1}, {"episodic.recall": 3}]


@pytest.mark.parametrize(
    ("override", "check"),
    [
        ("cache.max_entries=7", lambda made: [point.values for point in made.points()] == [{"cache.max_entries": 7}]),
        ("cache.max_entries=7,8,9", lambda made: len(made.points()) == 3),
        ("pool.limit=1,2", lambda made: len(made.points()) == 4),
        ("cache.ttl_s=null", lambda made: made.points()[0].values["cache.ttl_s"] is None),
        ("seed=9", lambda made: made.seed == 9),
        ("repeats=3", lambda made: made.repeats == 3),
        ("workload.duration_s=2", lambda made: made.points()[0].workload.duration_s == 2.0),
        ("workload.arrivals.rate_per_s=5,6", lambda made: len(made.points()) == 4),
        ("workload.mix.episodic.remember=0.5", lambda made: made.points()[0].workload.mix["episodic.remember"] == 0.5),
        (
            "workload.parameters.episodic.recall.limit=3",
            lambda made: made.points()[0].workload.parameters == {"episodic.recall": {"limit": 3}},
        ),
        ("reference.cache.max_entries=3", lambda made: made.points()[0].reference.cache.max_entries == 3),
        ("settings.batch=null", lambda made: made.points()[0].candidate.batch is None),
        ("question=Why", lambda made: made.question == "Why"),
    ],
)  # fmt: skip
def test_the_command_line_changes_a_file(params, override, check):
    """`-p` replaces a field, or the values of the grid; what it changes changes the keys."""
    path = params("", "reference: {cache: null}", "reference: {}")
    made = Sweep.load(path, [override])
    assert check(made)
    before = Sweep.load(path)
    keys = {before.key(point) for point in before.points()}
    if not override.startswith("question"):
        assert not keys & {made.key(point) for point in made.points()}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("cache.max_entries: [10", "cache.max_entrys: [10", "no setting or field 'cache.max_entrys'; did you mean"),
        ("question:", "qestion:", "params has no 'qestion'; did you mean 'question'?"),
        ("duration_s:", "durations:", "workload has no 'durations'; did you mean 'duration_s'?"),
        ("[10, 100]", "[10, -5]", "setting cache.max_entries = -5: expected `int` >= 1"),
        ("[10, 100]", "[10, many]", "setting cache.max_entries = 'many': expected `int`"),
        ("[10, 100]", "[]", "params.grid"),
        ("[10, 100]", "10", "params.grid"),
        ("repeats: 2", "repeats: two", "params.repeats = 'two': expected `int`"),
        ("repeats: 2", "repeats: 0", "params.repeats = 0: expected `int` >= 1"),
        ("size: smoke", "size: quick", "repeats = 2: a quick sweep makes findings and needs 5 or more"),
        ("size: smoke", "size: big", "params.size = 'big'"),
        ("{cache: null}", "{cash: null}", "params.reference: no setting section 'cash'; did you mean 'cache'?"),
        ("point.ipynb", "none.ipynb", "no notebook"),
        ("question: Which size?", "experiment: ../up", "params.experiment = '../up'"),
        ("question: Which size?", "parameters: {colour: red}", "'point.ipynb' has no parameter 'colour'"),
        ("question: Which size?", "parameters: {seed: 4}", "'seed' is what the sweep itself gives"),
        ("events: 60", "events: -60", "workload.corpus.events = -60: expected `int` >= 1"),
        ("question: Which size?", "question: [", "is not YAML"),
        ("[10, 100]", "[" + ", ".join(map(str, range(1, 1200))) + "]", "1,199 points; at most 1,000"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(params, tmp_path, old, new, told):
    """Unknown keys with the nearest known one, wrong types, negative sizes, missing notebooks: before anything is measured."""
    with pytest.raises(MemlabError) as caught:
        Sweep.load(params("", old, new))
    assert told in caught.value.text
    assert "\n" not in caught.value.text
    assert caught.value.type == "VALIDATION"
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("cache.max_entrys=5", "no setting or field 'cache.max_entrys'; did you mean 'cache.max_entries'?"),
        ("cache.max_entries", "say key=value"),
        ("cache.max_entries=", "say key=value"),
        ("cache.max_entries=[", "no list of YAML values"),
        ("cache.max_entries=-1", "expected `int` >= 1"),
        ("seed=1,2", "takes one value, not 2"),
        ("sead=1", "no setting or field 'sead'; did you mean 'seed'?"),
        ("workload.duraton_s=1", "workload has no 'duraton_s'; did you mean 'duration_s'?"),
        ("seed.x=1", "params.seed: expected `int`"),
    ],
)
def test_bad_overrides_are_refused(params, override, told):
    """The same of the command line."""
    with pytest.raises(MemlabError) as caught:
        Sweep.load(params(), [override])
    assert told in caught.value.text


def test_files_that_are_no_params_are_refused(params, tmp_path):
    """A missing file comes with the nearest there is; a list is no table."""
    params()
    with pytest.raises(MemlabError, match=r"did you mean '.*size.smoke.yaml'"):
        Sweep.load(tmp_path / "size.smok.yaml")
    with pytest.raises(MemlabError, match="no params file"):
        Sweep.load(tmp_path / "nowhere" / "x.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(MemlabError, match="holds no table"):
        Sweep.load(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    ("notebook", "told"),
    [
        ({"tags": ()}, "no cell tagged parameters"),
        ({"parameters": PARAMETERS.replace("out = None", "")}, "has no parameter out"),
    ],
)
def test_notebooks_without_the_parameters_are_refused(params, tmp_path, notebook, told):
    """A point's notebook takes what a sweep gives."""
    path = params()
    write_notebook(tmp_path / "point.ipynb", **notebook)
    with pytest.raises(MemlabError, match=told) as caught:
        Sweep.load(path)
    assert caught.value.reason == "notebook"
    (tmp_path / "point.ipynb").write_text("{}")
    with pytest.raises(MemlabError, match="is no notebook"):
        Sweep.load(path)


def test_a_notebook_that_repeats_nothing_needs_no_repeats(params, tmp_path):
    """One long look counts looks: a quick sweep of it may have no repeats, and says how long a point takes."""
    path = params("point_s: 300\n", "size: smoke", "size: quick")
    with pytest.raises(MemlabError, match="needs 5 or more"):
        Sweep.load(path)
    write_notebook(tmp_path / "point.ipynb", parameters=PARAMETERS.replace("repeats = ", "spans = "))
    made = Sweep.load(path)
    assert not made.repeated
    assert made.expected_s(made.points()[0]) == pytest.approx(300, abs=20)
    write_notebook(tmp_path / "point.ipynb", parameters=PARAMETERS.replace("data = None", ""))
    with pytest.raises(MemlabError, match="takes no conversations"):
        Sweep.load(params(), data=tmp_path)


def test_keys_follow_the_code_of_the_notebook_and_the_content_of_files(params, tmp_path):
    """Prose and outputs change no key; code does. A trace counts by what it holds, wherever it lies."""
    path = params()
    made = Sweep.load(path)
    (before, _) = (made.key(point) for point in made.points())
    notebook = nbformat.read(tmp_path / "point.ipynb", 4)
    notebook.cells[0].source = "# Other words"
    nbformat.write(notebook, tmp_path / "point.ipynb")
    assert made.key(made.points()[0]) == before
    notebook.cells[2].source += "\n1 + 1"
    nbformat.write(notebook, tmp_path / "point.ipynb")
    assert made.key(made.points()[0]) != before
    keys = []
    for name, content in (("a", "x"), ("b", "x"), ("b", "y")):
        (tmp_path / f"{name}.parquet").write_text(content)
        traced = dataclasses.replace(
            made, workload={**made.workload, "arrivals": {"kind": "trace", "path": f"{name}.parquet", "rate_per_s": 100}}
        )
        keys.append(traced.key(traced.points()[0]))
    assert keys[0] == keys[1] != keys[2]


def test_keys_follow_the_data(params, shared_data, tmp_path):
    """Real conversations make other runs than made-up ones; data that is none is refused at once."""
    plain, real = Sweep.load(params()), Sweep.load(params(), data=shared_data / "locomo")
    assert plain.key(plain.points()[0]) != real.key(real.points()[0])
    with pytest.raises(MemlabError, match="no folder"):
        Sweep.load(params(), data=tmp_path / "none")


# --- running -------------------------------------------------------------------------------------------------------


@pytest.mark.serial
def test_a_sweep_measures_for_real(params, tmp_path):
    """Each point is executed with this interpreter, leaves samples, a summary and its notebook; a second sweep does nothing."""
    write_notebook(tmp_path / "point.ipynb", MEASURE + "\nimport sys\nprint(sys.executable)")
    made = Sweep.load(params(), ["cache.max_entries=20"])
    outcome = sweep.run(made, tmp_path / "results")
    (run,) = outcome.done
    assert outcome.failed == []
    assert run.summary["candidate"]["samples"] > 0
    assert run.samples()["setting"].n_unique() == 2
    assert {path.name for path in run.folder.iterdir()} == {"run.json", "samples.parquet", "notebook.ipynb"}
    notebook = nbformat.read(run.notebook, 4)
    assert sys.executable in notebook.cells[-1].outputs[0]["text"]
    assert run.host == host.host()
    again = sweep.run(made, tmp_path / "results")
    assert (again.done, [one.id for one in again.reused]) == ([], [run.id])
    assert made.runs(tmp_path / "results") == [run]
    assert results.frame([run])["cache.max_entries"].to_list() == [20]


@pytest.mark.serial
def test_failed_points_keep_their_notebook_and_are_tried_again(params, tmp_path):
    """One bad point does not stop the others; it is named with its notebook, and alone measured the next time."""
    made = Sweep.load(params(), ["cache.max_entries=10,13,100"])
    told = Told()
    outcome = sweep.run(made, tmp_path / "results", progress=told)
    (failed,) = outcome.failed
    assert [run.summary["entries"] for run in outcome.done] == [10, 100]
    assert failed.error == "cache.max_entries=13: AssertionError: thirteen"
    assert "thirteen" in failed.notebook.read_text()
    assert failed.status == "failed"
    assert str(failed.notebook) in outcome.summary()
    states = [("cache.max_entries=10", "done"), ("cache.max_entries=13", "failed"), ("cache.max_entries=100", "done")]
    assert told.lines == [("begin", 0, 3), *states, "end"]
    with pytest.raises(MemlabError, match=r"1 of 3 points are not measured .* cache\.max_entries=13"):
        made.runs(tmp_path / "results")
    again = sweep.run(made, tmp_path / "results")
    assert (len(again.done), len(again.reused), len(again.failed)) == (0, 2, 1)


@pytest.mark.serial
def test_a_point_whose_process_dies_is_a_failed_point(params, tmp_path):
    """A kernel that is killed fails its own point; the next one is measured."""
    code = PRETEND.replace("import json", "import os, signal, json") + (
        "\nif point['values']['cache.max_entries'] == 10: os.kill(os.getpid(), signal.SIGKILL)"
    )
    write_notebook(tmp_path / "point.ipynb", code)
    outcome = sweep.run(Sweep.load(params()), tmp_path / "results")
    assert [run.parameters for run in outcome.done] == [{"cache.max_entries": 100}]
    assert "died" in outcome.failed[0].error.lower()


@pytest.mark.serial
def test_a_notebook_that_leaves_no_summary_has_failed(params, tmp_path):
    """What it should leave is named."""
    write_notebook(tmp_path / "point.ipynb", "1 + 1")
    outcome = sweep.run(Sweep.load(params(), ["cache.max_entries=10"]), tmp_path / "results")
    assert "no summary.json" in outcome.failed[0].error


def nothing_is_kept(folder):
    return not [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_point_is_not_begun_without_room(params, tmp_path, monkeypatch):
    """Where little space is left a sweep ends before it measures, in one line."""
    monkeypatch.setattr(sweep, "_FREE_BYTES", 1 << 62)
    with pytest.raises(MemlabError, match="no space left for results") as caught:
        sweep.run(Sweep.load(params()), tmp_path / "results")
    assert caught.value.reason == "disk_full"
    assert nothing_is_kept(tmp_path / "results")


@pytest.mark.serial
@pytest.mark.parametrize(
    "error",
    [
        "raise OSError(28, 'No space left on device')",
        "from memlab.errors import internal\nraise internal('disk_full', 'the disk is full: free some space')",
    ],
)
def test_a_disk_that_fills_up_ends_a_sweep_in_one_line(params, tmp_path, error):
    """A point that ran out of space is no failed point: every later one would fail too. Nothing half-written stays."""
    write_notebook(tmp_path / "point.ipynb", error)
    with pytest.raises(MemlabError, match="no space left for results"):
        sweep.run(Sweep.load(params()), tmp_path / "results")
    assert nothing_is_kept(tmp_path / "results")


@pytest.mark.serial
def test_a_run_is_of_one_version_of_the_code(params, tmp_path, monkeypatch):
    """Where memlab's sources were edited while a point was measured, nobody can say which code it measured: it is not kept."""
    monkeypatch.setattr(results, "code_changed", lambda experiment: True)
    with pytest.raises(MemlabError, match=r"sources were edited while cache\.max_entries=10 was measured") as caught:
        sweep.run(Sweep.load(params()), tmp_path / "results")
    assert caught.value.reason == "code_changed"
    assert nothing_is_kept(tmp_path / "results")


def test_runs_of_another_host_are_not_added_to(params, tmp_path, monkeypatch):
    """A curve comes from one host: a sweep into another host's results is refused."""
    made = Sweep.load(params("", "size: smoke\nrepeats: 2", "size: quick\nrepeats: 5"))
    plant(made, tmp_path / "results")
    monkeypatch.setattr(sweep.host, "host", lambda: {"id": "else"})
    with pytest.raises(MemlabError, match="another host") as caught:
        sweep.run(made, tmp_path / "results")
    assert caught.value.reason == "hosts"


@pytest.mark.serial
def test_ctrl_c_keeps_what_is_done(params, tmp_path):
    """Interrupted in the second point: exit 130, one line that says what is kept, no process and no half-done run left; then it
    goes on."""
    code = (
        "import json, pathlib, time\n"
        "pathlib.Path(out, 'summary.json').write_text('{}'); pathlib.Path(out, 'samples.parquet').write_text('')\n"
        f"if point['values']['cache.max_entries'] == 100 and not pathlib.Path({str(tmp_path / 'go')!r}).exists():\n"
        f"    pathlib.Path({str(tmp_path / 'waiting')!r}).write_text(str(__import__('os').getpid())); time.sleep(600)"
    )
    write_notebook(tmp_path / "point.ipynb", code)
    command = [sys.executable, "-m", "memlab.cli", "sweep", str(params()), "--results", str(tmp_path / "results")]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "waiting").exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.strip().splitlines()[-1] == (
        "memlab: interrupted; 1 of 2 points of size.smoke are done and kept; the same command goes on from there"
    )
    kept = results.runs(tmp_path / "results", "size.smoke", status=None)
    assert [run.status for run in kept] == ["done"]
    assert [path.name for path in (tmp_path / "results" / "size.smoke").iterdir()] == [kept[0].key]
    kernel = int((tmp_path / "waiting").read_text())
    for _ in range(100):
        if not _lives(kernel):
            break
        time.sleep(0.1)
    assert not _lives(kernel)
    (tmp_path / "go").write_text("")
    outcome = sweep.run(Sweep.load(params()), tmp_path / "results")
    assert [run.error for run in outcome.failed] == []
    assert (len(outcome.done), len(outcome.reused)) == (1, 1)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{process}/status").read_text()


# --- planted truth -------------------------------------------------------------------------------------------------


def test_planted_null_data_shows_no_difference(params, tmp_path):
    """Where reference and candidate are drawn from one distribution, nearly every verdict is "no difference seen"."""
    made = Sweep.load(params("", "size: smoke\nrepeats: 2", "size: quick\nrepeats: 8"), ["pool.limit=1,2,3"])
    runs = plant(made, tmp_path)
    assert made.runs(tmp_path) == runs
    verdicts = [verdict for run in runs for verdict in run.summary["verdict"].values()]
    assert verdicts.count("no difference seen") >= len(verdicts) - 2
    assert all(run.summary["finding"] for run in runs)


def test_a_planted_effect_is_seen(params, tmp_path):
    """A point whose candidate takes 40 % less is better, and it alone."""
    made = Sweep.load(params("", "size: smoke\nrepeats: 2", "size: quick\nrepeats: 8"))
    one, other = plant(made, tmp_path, effect=lambda point: 0.6 if point.values["cache.max_entries"] == 100 else 1.0)
    assert one.summary["verdict"]["p50"] == "no difference seen"
    assert other.summary["verdict"]["p50"] == "better"
    assert other.summary["ratio"]["p50"]["value"] == pytest.approx(0.6, abs=0.06)
    assert json.loads((other.folder / "run.json").read_text())["summary"] == other.summary
