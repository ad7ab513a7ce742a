"""`memlab trace`: lines for a person, JSON for a program, a chart, one line for what is wrong."""

import json

import numpy as np
import polars as pl
import pytest

from memlab.cli import main
from memlab.cli.trace import likeness_lines
from memlab.workload.trace import load


@pytest.fixture
def calls(tmp_path):
    """A trace of keys with times."""
    path = tmp_path / "calls.parquet"
    pl.DataFrame({"key": np.arange(400) % 40, "at_s": np.arange(400) / 20, "reads": np.arange(400) % 4 > 0}).write_parquet(path)
    return path


def test_it_tells_a_person(calls, capsys):
    """One line for each thing that the trace holds."""
    assert main(["trace", "summary", str(calls)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("400 calls, 75% of them reads\npopularity: 30 keys")
    assert "re-use: 90% of the accesses repeat a key, over 29 other keys" in told
    assert "arrivals: over 20 s, 20 per second, 20 in the fullest; index of dispersion 0.00" in told


def test_it_tells_a_program(calls, capsys):
    """JSON alone on standard output."""
    assert main(["trace", "summary", str(calls), "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"kind", "calls", "read_ratio", "popularity", "reuse", "arrivals"} == set(told)
    assert told["arrivals"]["dispersion"] == 0


def test_it_draws(calls, tmp_path, capsys):
    """An SVG with both panels."""
    assert main(["trace", "summary", str(calls), "--chart", str(tmp_path / "calls.svg")]) == 0
    drawn = (tmp_path / "calls.svg").read_text()
    assert drawn.startswith("<svg") and "calls per second" in drawn and "share of the accesses" in drawn


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing command"),
        (["summary", "none.parquet"], "no such file"),
        (["summary", "CALLS", "--chart", "no/such/folder.svg"], "cannot write 'no/such/folder.svg'"),
        (["summary", "CALLS", "--json", "no/such/folder.json"], "cannot write 'no/such/folder.json'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, told, calls, capsys):
    """What was given, what fits."""
    assert main(["trace", *(str(calls) if one == "CALLS" else one for one in arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1 and told in shown.err


def test_what_was_recorded_can_be_sent_again(tmp_path, capsys):
    """A workload to a trace, the trace to an engine: as many calls, and how like they were."""
    trace, mix = str(tmp_path / "trace.parquet"), tmp_path / "mix.yaml"
    mix.write_text("{corpus: {events: 60, sessions: 2, questions: 20}, mix: {episodic.recall: 1}, warm_up_s: 0}")
    assert main(["trace", "record", trace, "--workload", str(mix), "--rate", "60", "--duration", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{len(load(trace))} calls in {trace}, ")
    assert main(["trace", "record", trace, "--workload", str(mix)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["trace", "replay", trace, "--speed", "2", "--results", str(tmp_path), "--json", "-"]) == 0
    likeness = json.loads(capsys.readouterr().out)["replay"]
    assert likeness["recorded"]["calls"] == likeness["replayed"]["calls"] == len(load(trace))


def test_a_replay_is_told_in_lines():
    """What is unknown says so; keys that share a call are a warning."""
    before, after = {"hit_ratio": 0.25, "dispersion": None}, {"hit_ratio": 0.2514, "dispersion": None}
    told = likeness_lines({"recorded": before, "replayed": after, "merged_keys": 3, "left_out": 1})
    assert told[:2] == ["hit ratio: 0.250 recorded, 0.251 replayed", "index of dispersion: unknown recorded, unknown replayed"]
    assert "3 keys share a call" in told[2] and "1 calls of session.delete" in told[3]


def test_help_shows_an_example(capsys):
    """Of the command itself."""
    assert main(["trace", "summary", "--help"]) == 0
    assert "memlab trace summary trace.parquet" in " ".join(capsys.readouterr().out.split())
