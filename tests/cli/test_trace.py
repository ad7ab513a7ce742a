"""`memlab trace summary`: lines for a person, JSON for a program, a chart, one line for what is wrong."""

import json

import numpy as np
import polars as pl
import pytest

from memlab.cli import main


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


def test_help_shows_an_example(capsys):
    """Of the command itself."""
    assert main(["trace", "summary", "--help"]) == 0
    assert "memlab trace summary trace.parquet" in " ".join(capsys.readouterr().out.split())
