"""The Performance Report for real, in smoke size: measured once, written again, and refused where it would lie."""

import json
import os
import re
import subprocess
import sys

import msgspec
import pytest

from memlab.errors import MemlabError
from memlab.experiment import results as kept
from memlab.guide import figures, report
from memlab.guide.chapter import Chapter
from memlab.guide.tables import derived

pytestmark = [pytest.mark.serial, pytest.mark.timeout(1_200)]
QUICKEST = ("12-driver", "14-leaks", "17-compare")


def memlab(root, *arguments):
    """Run the command as a user would, from the top folder."""
    return subprocess.run(
        [sys.executable, "-m", "memlab.cli", *map(str, arguments)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=1_100,
        check=False,
    )


@pytest.fixture(
    scope="module",
    params=["a few", pytest.param("all", marks=pytest.mark.soak)],  # all take minutes, and each notebook runs elsewhere too
)
def topics(request):
    """The experiments that are reported: three that take seconds, or all."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "a few":
            patch.setattr(report, "TOPICS", tuple(one for one in report.TOPICS if one.experiment in QUICKEST))
        yield report.TOPICS


@pytest.fixture(scope="module")
def made(root, topics, tmp_path_factory):
    """A folder of smoke runs, and the report of them."""
    results = tmp_path_factory.mktemp("room") / "results"
    return results, report.build(root / "params", results, run=True, size="smoke", progress=False)


@pytest.fixture(scope="module")
def states(made, root):
    """What those runs are, read again."""
    return report.gather(root / "params", made[0], run=False, size="smoke", progress=False)


def test_every_experiment_is_measured_and_told(made, states):
    """A chapter for each topic with its headline, no failed point, and a banner that says that smoke runs find nothing."""
    results, written = made
    runs = [json.loads(path.read_text()) for path in results.glob("*/[!.]*/run.json")]
    assert {run["status"] for run in runs} == {"done"}
    assert {run["experiment"].partition(".")[0] for run in runs} == {topic.experiment for topic in report.TOPICS}
    assert all(state.runs and not state.missing for state in states)
    text = (results / "report.smoke" / "performance-report.md").read_text(encoding="utf-8")
    for topic in report.TOPICS:
        assert f"\n## {topic.title}\n" in text
        assert f"- **{topic.title}.** " in text
    for heading in ("In short", "How it was measured", "Limits", "Host and versions", "Runs"):
        assert f"\n## {heading}\n" in text
    assert "Not run" not in text
    assert "finds nothing" in text
    assert not written.finding
    assert not written.not_run
    assert not written.failed
    for name in ("html", "pdf"):
        assert (results / "report.smoke" / f"performance-report.{name}").stat().st_size > 10_000


def test_every_run_that_is_cited_stands_in_the_table_of_runs(made, states):
    """Each link to a run leads to its row, and each run that was read has one."""
    text = (made[0] / "report.smoke" / "performance-report.md").read_text(encoding="utf-8")
    cited = set(re.findall(r"\(#run-(\w+)\)", text))
    defined = set(re.findall(r'<a id="run-(\w+)">', text))
    assert cited <= defined
    keys = figures.short_keys(run.id for state in states for run in state.runs)
    assert {key[:4] for key in keys.values()} == {key[:4] for key in defined}


def test_a_second_time_nothing_is_measured(made, root):
    """The same call finds everything done, and measures nothing again."""
    before = {path: path.stat().st_mtime_ns for path in made[0].glob("*/[!.]*/run.json")}
    report.build(root / "params", made[0], run=True, size="smoke", progress=False)
    assert {path: path.stat().st_mtime_ns for path in made[0].glob("*/[!.]*/run.json")} == before


def test_what_was_not_run_is_named(states, tmp_path):
    """An experiment without runs keeps its chapter, which says so and how to make it; so does its line in short."""
    first, *rest = states
    written = report.render([first, *(state._replace(runs=[], missing=["all"]) for state in rest)], tmp_path)
    text = written.markdown.read_text(encoding="utf-8")
    assert written.not_run == tuple(state.topic.experiment for state in rest)
    for state in rest:
        assert f"- **{state.topic.title}.** Not run." in text
        assert state.topic.experiment == "bench" or f"`memlab sweep params/{state.topic.experiment}.yaml`" in text
    assert not written.failed


def test_a_failed_point_is_told(states, tmp_path):
    """The report is written all the same, says that it is not whole, and names the experiment."""
    *rest, last = states
    written = report.render([*rest, last._replace(missing=["a point"], error="boom")], tmp_path)
    assert written.failed == (f"{last.topic.experiment}: boom",)
    assert "**Not whole.**" in written.markdown.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"code_version": "0" * 16}, "stale_run"), ({"key": "f" * 16}, "unknown_run")],
)
def test_a_number_of_older_code_or_of_no_run_fails_the_build(states, tmp_path, monkeypatch, change, reason):
    """Nothing is written when a run that is cited is old, or is not among the runs."""
    for state in states:
        altered = [msgspec.structs.replace(run, **change) for run in state.runs]
        told = state.topic.write(altered if reason == "stale_run" else state.runs)
        topic = state.topic._replace(write=lambda runs, told=told: told)
        with pytest.raises(MemlabError) as caught:
            report.render([state._replace(topic=topic, runs=altered)], tmp_path / state.topic.name)
        assert caught.value.reason == reason
        assert not (tmp_path / state.topic.name).exists()


def test_a_number_without_a_run_fails_the_build(states, tmp_path):
    """A chapter that writes a bare number is refused, in its text and in its headline."""
    for chapter in (Chapter("fine", "It took 42 ms."), Chapter("It took 42 ms.", "fine")):
        topic = states[0].topic._replace(write=lambda runs, chapter=chapter: chapter)
        with pytest.raises(MemlabError) as caught:
            report.render([states[0]._replace(topic=topic)], tmp_path / "out")
        assert caught.value.reason == "bare_number"
        assert not (tmp_path / "out").exists()


def test_a_figure_of_many_runs_leads_to_their_table(states, tmp_path):
    """Three runs are not cited one by one: the figure leads to a heading that is there, in every document."""
    state = states[0]
    runs = [msgspec.structs.replace(state.runs[0], key=key * 16) for key in "abc"]
    topic = state.topic._replace(write=lambda runs: Chapter(f"The least is {derived(runs, 7)}.", "Nothing else."))
    written = report.render([state._replace(topic=topic, runs=runs)], tmp_path)
    text = written.markdown.read_text(encoding="utf-8")
    assert f"7<sup>[{state.topic.experiment}](#runs-of-{state.topic.experiment})</sup>" in text
    assert f"### Runs of {state.topic.experiment}\n" in text
    assert f'id="runs-of-{state.topic.experiment}"' in written.html.read_text(encoding="utf-8")


def test_runs_of_other_code_are_not_read(made, root, monkeypatch, tmp_path):
    """When the code changes, what was measured before is not there any more: nothing of it is written."""
    monkeypatch.setattr(kept, "_version_at_first", lambda experiment: "another")
    states = report.gather(root / "params", made[0], run=False, size="smoke", progress=False)
    assert not [state for state in states if state.runs]
    assert all(state.older for state in states)
    with pytest.raises(MemlabError, match="memlab report --run"):
        report.build(root / "params", made[0], tmp_path / "out", size="smoke")


def test_runs_of_unlike_hosts_do_not_stand_in_one_report(states, made, root, monkeypatch):
    """One run of another machine, and the report is refused."""
    real = kept.load

    def elsewhere(folder):
        run = real(folder)
        return msgspec.structs.replace(run, host={**run.host, "id": "other"}) if run.experiment == "14-leaks.smoke" else run

    monkeypatch.setattr(kept, "load", elsewhere)
    with pytest.raises(MemlabError) as caught:
        report.gather(root / "params", made[0], run=False, size="smoke", progress=False)
    assert caught.value.reason == "hosts"


def test_a_report_of_nothing_is_refused(root, tmp_path):
    """No runs, no leave to measure: one line, exit code 2, nothing written."""
    said = memlab(root, "report", "--results", tmp_path / "results")
    assert said.returncode == 2
    assert re.fullmatch(r"memlab: no run in .*\n", said.stderr)
    assert not (tmp_path / "results").exists()
    assert memlab(root, "report", "--smoke", "--full").returncode == 2


def test_the_command_writes_what_there_is(made, topics, root, tmp_path):
    """`memlab report --smoke` without leave to measure: documents, exit code 0, and what was not run on standard error."""
    said = memlab(root, "report", "--smoke", "--results", made[0], "--out", tmp_path)
    assert said.returncode == 0, said.stderr
    assert {path.name for path in tmp_path.glob("*.*")} == {f"performance-report.{name}" for name in ("md", "html", "pdf")}
    assert "finds nothing" in said.stdout
    assert ("not run" in said.stderr) == (len(topics) == len(QUICKEST))
