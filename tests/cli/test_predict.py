"""`memlab predict cache`: a curve and an answer for a person, the same for a program, one line for what is wrong."""

import json

import numpy as np
import polars as pl
import pytest

from memlab.cli import main


@pytest.fixture
def pages(tmp_path):
    """A trace of keys, with times and sizes."""
    keys = np.random.default_rng(2).zipf(1.2, 5_000) % 800
    path = tmp_path / "pages.parquet"
    pl.DataFrame({"key": keys, "at_s": np.arange(5_000) / 10, "answer_bytes": np.full(5_000, 9_400)}).write_parquet(path)
    return path


def predicted(capsys, *arguments):
    assert main(["predict", "cache", *map(str, arguments), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_answers_a_person(pages, capsys):
    """A line a size, then the smallest size within a point of the knee, what doubling and one more MB buy."""
    assert main(["predict", "cache", str(pages), "--sizes", "10,100"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "lru: 5,000 accesses to 448 keys, exact" or told[0].startswith("lru: 5,000 accesses to ")
    assert [line.split()[0] for line in told[2:4]] == ["10", "100"]
    assert "within one point of the knee" in told[-3]
    assert told[-2].startswith("Twice as many reach ")
    assert told[-1].startswith("One more MB keeps 100 entries more and adds ")


def test_it_answers_a_program(pages, capsys):
    """The contract: curve, policy, accesses; ratios ascend with sizes and lie inside their bounds."""
    found = predicted(capsys, pages)
    assert (found["policy"], found["accesses"], found["sample"], found["entry_bytes"]) == ("lru", 5_000, None, 10_000.0)
    assert len(found["curve"]) == 12
    assert [set(row) for row in found["curve"]] == [{"max_entries", "hit_ratio", "low", "high"}] * 12
    ratios = [row["hit_ratio"] for row in found["curve"]]
    assert ratios == sorted(ratios)
    assert all(0 <= row["low"] <= row["hit_ratio"] <= row["high"] <= 1 for row in found["curve"])
    assert found["curve"][-1]["max_entries"] == found["distinct_keys"]
    assert found["megabyte_gain"] >= 0


def test_its_options_reach_the_model(pages, capsys):
    """Policy, sample, seed and time to live change the answer, each as it says."""
    plain = predicted(capsys, pages, "--sizes", "50")
    assert predicted(capsys, pages, "--sizes", "50", "--policy", "fifo")["curve"] != plain["curve"]
    assert predicted(capsys, pages, "--sizes", "50", "--ttl", "1")["curve"][0]["hit_ratio"] < plain["curve"][0]["hit_ratio"]
    sampled = predicted(capsys, pages, "--sizes", "50", "--sample", "0.2", "--seed", "4")
    assert (sampled["sample"], sampled["seed"]) == (0.2, 4)


def test_json_goes_to_a_file_beside_the_table(pages, tmp_path, capsys):
    """A file holds the JSON, standard output the table."""
    out = tmp_path / "curve.json"
    assert main(["predict", "cache", str(pages), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["accesses"] == 5_000
    assert "hit ratio" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing command"),
        (["cache"], "Missing argument"),
        (["cache", "none.parquet"], "no such file"),
        (["cache", "PAGES", "--sizes", "10,x"], "--sizes 10,x"),
        (["cache", "PAGES", "--sizes", "0"], "size 0"),
        (["cache", "PAGES", "--policy", "lfu"], "no policy 'lfu'"),
        (["cache", "PAGES", "--sample", "2"], "sample = 2.0"),
        (["cache", "PAGES", "--json", "no/such/folder.json"], "cannot write 'no/such/folder.json'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, told, pages, capsys):
    """What was given, what fits."""
    assert main(["predict", *(str(pages) if one == "PAGES" else one for one in arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1 and shown.err.startswith("memlab: ")
    assert told in shown.err


def test_help_shows_an_example(capsys):
    """Of the command itself."""
    assert main(["predict", "cache", "--help"]) == 0
    assert "memlab predict cache trace.parquet" in " ".join(capsys.readouterr().out.split())
