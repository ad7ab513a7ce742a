"""The commands: help at once, one line for whatever goes wrong, exit codes that scripts can rely on."""

import inspect
import json
import os
import signal
import subprocess
import sys

import pytest
from typer.main import get_command

from memlab import cli, errors
from memlab.cli import app, main, sweep
from memlab.experiment.run_comparison import Comparison
from memlab.operations import operations

COMMANDS = sorted(get_command(app).commands)


def one_line(text):
    return text.count("\n") == 1 and text.startswith("memlab: ")


def test_without_a_command_it_shows_its_help(capsys):
    """`memlab` alone says what there is, on standard error, with the exit code of bad input."""
    assert main([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    for name in COMMANDS:
        assert name in told.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    """`--help` says what a command does and shows one call of it."""
    assert main([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"Usage: memlab {name}" in told
    assert f"memlab {name}" in told.partition("Example")[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["swep"], "No such command 'swep'"),
        (["sweep"], "Missing argument"),
        (["sweep", "x.yaml", "--job", "2"], "--job"),
        (["sweep", "x.yaml", "--jobs", "0"], "--jobs"),
        (["sweep", "x.yaml", "--jobs", "2", "--dask", "tcp://127.0.0.1:1"], "give one of them"),
        (["sweep", "no/such.yaml"], "no params file 'no/such.yaml'"),
        (["sweep", "x.yaml", "-p"], "-p"),
        (["compare", "x/1"], "Missing argument"),
        (["compare", "x/1", "x/2"], "no run 'x/1'"),
        (["compare", "x/1", "x/2", "--floor", "x/3"], "3 times or more"),
        (["leak", "--duration", "0"], "--duration"),
        (["leak", "--workload", "no/such.yaml"], "no workload file 'no/such.yaml'"),
        (["load"], "--rate for an open loop, or --clients"),
        (["load", "--rate", "9", "--clients", "9"], "not both"),
        (["load", "--rate", "0"], "--rate"),
        (["load", "--find-rate"], "give --p99-ms"),
        (["load", "--rate", "9", "--p99-ms", "9"], "give both"),
        (["load", "--find-rate", "--p99-ms", "9", "--clients", "9"], "leave --clients"),
        (["load", "--clients", "9", "--arrivals", "constant"], "--arrivals is for an open loop"),
        (["load", "--rate", "9", "--arrivals", "sometimes"], "constant, poisson, or a trace"),
        (["load", "--rate", "9", "--workload", "no/such.yaml"], "no workload file 'no/such.yaml'"),
        (["load", "--rate", "9", "--json", "no/such/folder.json"], "a folder that is there"),
        (["load", "--arrivals", "no/such.parquet", "--duration", "1"], "trace 'no/such.parquet': no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, told):
    """Unknown commands and options, missing arguments and files."""
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert one_line(shown.err)
    assert told in shown.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.validation("x", "wrong\nthing"), 2),
        (errors.not_found("run", "wrong thing"), 2),
        (errors.permission("locked", "wrong thing"), 1),
        (errors.internal("disk_full", "wrong thing"), 1),
        (errors.timeout("pool_full", "wrong thing"), 1),
    ],
)
def test_errors_are_one_line_with_their_code(monkeypatch, capsys, error, code):
    """Bad input ends with 2, failure with 1; the text stands in one line."""

    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr("memlab.experiment.sweep.Sweep.load", fail)
    assert main(["sweep", "x.yaml"]) == code
    assert capsys.readouterr().err == "memlab: wrong thing\n"


@pytest.mark.parametrize(("said", "told"), [("2 of 3 are done", "2 of 3 are done"), ("", "interrupted; what was done is kept")])
def test_ctrl_c_is_one_line_and_exit_code_130(monkeypatch, capsys, said, told):
    """An interrupted command says what it left."""

    def interrupt(*arguments, **named):
        raise KeyboardInterrupt(said)

    monkeypatch.setattr("memlab.experiment.sweep.Sweep.load", interrupt)
    assert main(["sweep", "x.yaml"]) == 130
    assert capsys.readouterr().err == f"memlab: {told}\n"


@pytest.mark.parametrize(
    ("verdict", "code"), [("worse", 1), ("better", 0), ("no difference", 0), ("inconclusive", 0), ("unlike hosts", 0)]
)
def test_a_gate_fires_on_worse_alone(monkeypatch, capsys, verdict, code):
    """What is inconclusive is said, and does not fail a build; without --gate nothing does."""
    compared = Comparison(first="a/1", second="a/2", verdict=verdict, why="", figures=())
    monkeypatch.setattr("memlab.experiment.run_comparison.find", lambda results, given: None)
    monkeypatch.setattr("memlab.experiment.run_comparison.alike", lambda results, run: [])
    monkeypatch.setattr("memlab.experiment.run_comparison.compare_runs", lambda *runs: compared)
    assert main(["compare", "a/1", "a/2", "--gate", "--json", "-"]) == code
    told = capsys.readouterr()
    assert told.err == f"gate: {verdict}\n"
    assert json.loads(told.out)["verdict"] == verdict
    assert main(["compare", "a/1", "a/2"]) == 0


def test_load_answers_in_json_alone(root, tmp_path, monkeypatch, capsys):
    """`--json -` leaves standard output to programs: the figures under their agreed names."""
    monkeypatch.chdir(tmp_path)
    given = ["load", "--clients", "4", "--duration", "0.5", "--warm-up", "0.1", "--memories", "120", "--json", "-"]
    assert main(given) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"throughput_per_s", "failure_ratio", "p50_ms", "p95_ms", "p99_ms"} <= set(told["summary"])
    assert told["summary"]["p99_ms"] is None or told["summary"]["samples"] >= 1_000
    assert set(told["by_operation"]) <= {one.name for one in operations()}
    assert told["checks"]["holds"] is True
    assert (tmp_path / "results" / told["run"] / "samples.parquet").is_file()


@pytest.mark.parametrize(("verdict", "code"), [("leak", 1), ("no leak", 0), ("inconclusive", 0)])
def test_a_leak_is_a_failure(monkeypatch, tmp_path, verdict, code):
    """Growth for sure ends with 1; a short run that promises nothing does not."""
    found = {"summary": {"verdict": verdict, "why": "so it was planted"}}
    monkeypatch.setattr("memlab.experiment.leak.run", lambda *given, **named: found)
    file = tmp_path / "leak.json"
    assert main(["leak", "--duration", "5", "--json", str(file)]) == code
    assert json.loads(file.read_text()) == found


def test_load_finds_a_rate(tmp_path, capsys):
    """`--find-rate` answers with a rate, its interval and the trials, and checks the memory afterwards as every load does."""
    given = ["load", "--find-rate", "--p99-ms", "40", "--duration", "0.3", "--trials", "5", "--memories", "120", "--json", "-"]
    assert main(given) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["summary"]["p99_target_ms"] == 40
    assert {"rate_per_s", "low", "high", "converged"} <= set(told["summary"])
    assert 1 <= len(told["trials"]) == told["summary"]["trials"] <= 5
    assert told["checks"]["holds"] is True


def test_load_stops_at_ctrl_c_and_reports(root, tmp_path):
    """A load of an hour that is interrupted ends with its figures, marked as cut short, and what it acknowledged is there."""
    command = [sys.executable, "-m", "memlab.cli", "load", "--clients", "2", "--duration", "3600", "--memories", "120"]
    running = subprocess.Popen(
        [*command, "--json", "-"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=beside(root)
    )
    try:
        for line in running.stderr:
            if line.startswith("sending"):
                break
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=120)
    finally:
        running.kill()
    told = json.loads(out)
    assert running.returncode == 0
    assert told["summary"]["cut_short"] is True
    assert told["checks"]["holds"] is True


def beside(root):
    return os.environ | {"PYTHONPATH": str(root)}


def test_a_command_keeps_its_signature():
    """What answers Ctrl-C does not hide what a command takes."""
    wrapped = cli._answering_ctrl_c(sweep.sweep)
    assert wrapped.__doc__ == sweep.sweep.__doc__
    assert inspect.signature(wrapped) == inspect.signature(sweep.sweep)


def test_help_loads_no_engine():
    """Help comes at once: nothing that opens databases or draws is imported for it."""
    heavy = ("duckdb", "faiss", "tantivy", "altair", "papermill", "polars")
    code = f"import sys\nfrom memlab.cli import main\nmain(['--help'])\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_it_runs_as_a_module(capfd):
    """`python -m memlab.cli` is the same program."""
    done = subprocess.run([sys.executable, "-m", "memlab.cli", "sweep", "none.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert one_line(done.stderr)
