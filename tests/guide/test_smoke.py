"""The whole road for real, in smoke size: sweeps, summaries, chapters, a trace, guide; once more without measuring; and with real
conversations."""

import json
import os
import re
import subprocess
import sys

import polars as pl
import pytest

from memlab.guide import export
from memlab.settings import Settings

pytestmark = [pytest.mark.serial, pytest.mark.timeout(420)]


def memlab(root, *arguments):
    """Run the command as a user would, from the top folder."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "memlab.cli", *map(str, arguments)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture(scope="module")
def made(root, tmp_path_factory):
    """A guide of smoke runs, and what the command said."""
    results = tmp_path_factory.mktemp("road") / "results"
    trace = results.parent / "mine.parquet"
    pl.DataFrame({"key": [1, 2, 1, 3, 1, 2] * 20, "at_s": [number / 50 for number in range(120)]}).write_parquet(trace)
    said = memlab(root, "guide", "--run", "--smoke", "--trace", trace, "--results", results)
    assert said.returncode == 0, said.stderr
    return results, said


def written(results):
    return {path: path.stat().st_mtime_ns for path in results.rglob("run.json")}


def test_the_road_leads_to_a_guide(made):
    """`memlab guide --run --smoke` measures sweeps and cheap chapters, looks at the trace, writes it all, finds nothing."""
    results, said = made
    runs = [json.loads(path.read_text()) for path in written(results)]
    assert {run["experiment"] for run in runs} == {
        "01-cache-size.smoke",
        "02-batch-window.smoke",
        "03-pool-limit.smoke",
        "04-before-after.smoke",
        *(f"{topic.experiment}.smoke" for topic in export.TOPICS if topic.name in export.CHEAP),
        "trace",
    }
    assert {run["status"] for run in runs} == {"done"}
    folder = results / "guide.smoke"
    for name in ("optimization-guide.md", "optimization-guide.html", "optimization-guide.pdf", "recommended.toml"):
        assert (folder / name).stat().st_size > 0
        assert name in said.stdout
    assert "proves that it runs" in said.stdout
    text = (folder / "optimization-guide.md").read_text(encoding="utf-8")
    assert "\n## Your trace\n" in text
    named = said.stderr.splitlines()[-1]
    for topic in export.TOPICS:
        assert f"\n## {topic.title}\n" in text
        assert (topic.experiment in named) == (topic.name not in export.CHEAP), "what was not run is named, and only that"
    assert Settings.load(folder / "recommended.toml", environment={}) == Settings()
    assert not list(results.rglob("*.partial"))
    assert not list(results.rglob("*.duckdb"))


def test_a_second_time_nothing_is_measured(made, root):
    """Nothing changed: no run is written again, the summaries are those that were executed."""
    results, _ = made
    before = written(results)
    notebooks = {path: path.stat().st_mtime_ns for path in (results / "guide.smoke" / "notebooks").iterdir()}
    trace = results.parent / "mine.parquet"
    said = memlab(root, "guide", "--run", "--smoke", "--trace", trace, "--results", results)
    assert said.returncode == 0, said.stderr
    assert written(results) == before
    assert {path: path.stat().st_mtime_ns for path in notebooks} == notebooks


def test_a_guide_without_its_runs_says_what_is_missing(root, tmp_path):
    """No runs, no leave to measure: one line, exit code 2, nothing written."""
    said = memlab(root, "guide", "--results", tmp_path / "results")
    assert said.returncode == 2
    assert re.fullmatch(r"memlab: 01-cache-size: .*\n", said.stderr)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"when": [1.0]}, "its columns are when"),
        ({"at_s": [2.0, 1.0]}, "must ascend"),
        ({"key": [1], "answer_bytes": [-1]}, "negative"),
        ({"key": pl.Series([], dtype=pl.Int64)}, "no rows"),
    ],
)
def test_a_bad_trace_is_refused_before_anything_is_measured(root, tmp_path, columns, words):
    """One line that says what is wrong, exit code 2, nothing written."""
    pl.DataFrame(columns).write_parquet(tmp_path / "bad.parquet")
    said = memlab(root, "guide", "--run", "--smoke", "--trace", tmp_path / "bad.parquet", "--results", tmp_path / "results")
    assert said.returncode == 2
    assert words in said.stderr
    assert said.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_all_is_of_what_is_run(root, tmp_path):
    """`--all` without `--run` is one clear line."""
    said = memlab(root, "guide", "--all", "--results", tmp_path / "results")
    assert said.returncode == 2
    assert re.fullmatch(r"memlab: --all .*\n", said.stderr)


def test_conversations_do_not_leave_their_folder(root, shared_data, tmp_path):
    """Real conversations are measured, and no sentence of theirs stands in the run: not in figures, samples or notebook."""
    data = shared_data / "locomo"
    said = memlab(root, "sweep", root / "params" / "04-before-after.smoke.yaml", "--data", data, "--results", tmp_path)
    assert said.returncode == 0, said.stderr
    (run,) = written(tmp_path)
    assert json.loads(run.read_text())["summary"]["corpus"]["events"] > 1_000
    kept = "\n".join(path.read_text(encoding="utf-8") for path in run.parent.iterdir() if path.suffix in (".json", ".ipynb"))
    kept += pl.read_parquet(run.parent / "samples.parquet").write_ndjson()
    texts = [*pl.read_parquet(data / "turns.parquet")["text"], *pl.read_parquet(data / "questions.parquet")["question"]]
    assert len(texts) > 3_000
    assert not [text for text in texts if len(text) > 20 and text in kept]
