"""The README says what is there."""

import re

import pytest
import typer

from memlab.cli import app
from memlab.errors import MemlabError
from memlab.operations import operations, table


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def test_the_table_of_operations_is_the_one_declared(readme):
    """The README's table, made again from the declarations, is the one that stands there (`make readme`)."""
    assert table.renewed(readme) == readme
    assert readme.count("\n| `") >= len(operations())


def test_the_table_is_made_once_and_stays(readme, tmp_path):
    """Making it twice changes nothing, and what stands around it is kept."""
    document = tmp_path / "README.md"
    document.write_text(f"above\n{table.BEGIN}\nformer table\n{table.END}\nbelow\n", encoding="utf-8")
    table.renew(document)
    once = document.read_text(encoding="utf-8")
    table.renew(document)
    assert document.read_text(encoding="utf-8") == once
    assert once.startswith("above\n")
    assert once.endswith("\nbelow\n")
    assert "former table" not in once


@pytest.mark.parametrize("document", ["no marks", table.BEGIN, f"{table.END}\n{table.BEGIN}"])
def test_a_document_without_marks_is_refused(document):
    """A missing or misplaced mark is one clear line."""
    with pytest.raises(MemlabError, match="needs a line"):
        table.renewed(document)


def test_the_first_screen_says_how_to_start(readme):
    """What it answers, the two commands, JupyterLab, own data and conda stand within the first thirty lines."""
    screen = "\n".join(readme.splitlines()[:30])
    for said in (
        "make guide",
        "make test",
        "make lab",
        "DATA=",
        "environment.yml",
        "Which cache size, batch window and pool limit",
    ):
        assert said in screen


def test_every_make_command_is_a_target(root, readme):
    """No `make …` in the README that the Makefile does not know."""
    targets = set(re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), re.MULTILINE)[1].split())
    assert set(re.findall(r"(?:^|`)make (\w+)", readme, re.MULTILINE)) <= targets


def test_every_command_is_there(root, readme, monkeypatch):
    """Each `memlab …` of the README is a command whose --help knows the options that the README passes."""
    monkeypatch.chdir(root)
    commands = typer.main.get_command(app).commands
    shown = re.findall(r"`memlab (\w+)([^`]*)`", readme)
    assert len(shown) >= 4
    for name, arguments in shown:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", arguments)) <= known, name


def test_every_path_is_there(root, readme):
    """Folders and files that the map and the links name exist, save what runs make."""
    made = {"results/"}
    block = re.search(r"## Where things are\n+```\n(.*?)```", readme, re.DOTALL)[1]
    inside = ""
    for line in block.splitlines():
        name = line.split()[0]
        inside = "" if not line.startswith(" ") else "memlab/"
        assert name in made or (root / inside / name).exists(), f"{inside}{name}"
    for path in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (root / path).exists(), path


def test_the_map_shows_every_part(root, readme):
    """No part of the package is missing from the map."""
    for folder in (root / "memlab").iterdir():
        if folder.is_dir() and (folder / "__init__.py").exists():
            assert f"\n  {folder.name}/ " in readme, folder.name


def test_the_example_runs_as_it_stands(readme, tmp_path, monkeypatch, capsys):
    """The engine in five lines: copied from the README, it answers what it asks for."""
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "The demo moved to Friday" in printed
    assert "room 4" in printed
