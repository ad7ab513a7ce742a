"""`memlab bench` measures what it is asked for, writes it whole, and refuses what does not fit."""

import json

import pytest

from memlab.cli import main


def test_one_operation_is_measured_and_written(tmp_path, capsys):
    """The report stands in the results, as a table and as JSON, and the same JSON where it was asked for."""
    code = main(
        [
            "bench", "--operation", "discovery.get", "--memories", "1000,1200", "--calls", "3",
            "--results", str(tmp_path), "--json", str(tmp_path / "out.json"),
        ]
    )  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report == json.loads((tmp_path / "bench" / "operations.json").read_text())
    assert [(store["memories"], list(store["operations"])) for store in report["stores"]] == [
        (1000, ["discovery.get"]),
        (1200, ["discovery.get"]),
    ]
    assert "`discovery.get`" in capsys.readouterr().out
    assert "`discovery.get`" in (tmp_path / "bench" / "operations.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--operation", "discovery.gett"], "did you mean 'discovery.get'"),
        (["--layer", "discovry"], "did you mean 'discovery'"),
        (["--memories", "ten"], "give numbers from 1,000"),
        (["--memories", "10"], "give numbers from 1,000"),
        (["--memories", "1000,2000"], "the speed table has one size"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, said, tmp_path, capsys):
    """Exit code 2, one line, nothing written."""
    assert main(["bench", *arguments, "--results", str(tmp_path / "results")]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert said in told[0]
    assert not (tmp_path / "results").exists()
