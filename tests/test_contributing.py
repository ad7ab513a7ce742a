"""What CONTRIBUTING.md promises of a new operation: the example there is run as it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

# In a process of its own, so that the operation stays out of the catalogue of the other tests.
PROGRAM = """
import inspect, json, random, sys
from pathlib import Path
from typer.testing import CliRunner
import typer
from memlab.embedders import HashingEmbedder
from memlab.errors import MemlabError
from memlab.memory import Memory
from memlab.operations import Examples, discovery, lookup, table
from memlab.operations.listing import operations_command
from memlab.operations.semantic import *
from memlab.operations.semantic import Count, LeastConfidence, OnlyKind, Plan, filter_of, operation

before = table.markdown()
source = sys.stdin.read()
exec(compile("from __future__ import annotations\\n" + source, "example", "exec"), globals())
name = "semantic.count_kind"
app = typer.Typer()
app.command()(operations_command)
listed = json.loads(CliRunner().invoke(app, ["--json", "-"]).output)
with Memory.open(Path(sys.argv[1]) / "memory.duckdb", embedder=HashingEmbedder(64)) as memory:
    ask = memory.semantic.count_kind
    counts = [ask("fact")]
    memory.semantic.store("tea is a drink")
    counts += [ask("fact"), ask("fact"), ask(kind="concept"), ask("fact", session=memory.session.create())]
    hits = memory.statistics()["cache"]["hits"]
    try:
        ask("opinion")
    except MemlabError as error:
        refused = error.text
    print(json.dumps({
        "counts": counts,
        "hits": hits,
        "refused": refused,
        "signature": str(inspect.signature(ask)),
        "help": inspect.getdoc(ask),
        "command": [one for one in listed if one["name"] == name],
        "found": [card.name for card in memory.discovery.search("how many memories of one kind", detail="name", limit=3)],
        "table": sorted(set(table.markdown().splitlines()) - set(before.splitlines())),
        "cacheable": lookup(name).cacheable,
        "example": bool(lookup(name).validate(lookup(name).example(random.Random(1), Examples()))),
    }))
"""


@pytest.fixture(scope="module")
def source(root) -> str:
    (found,) = re.findall(r"```python\n(.*?)```", (root / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    return found


@pytest.fixture(scope="module")
def shown(root, source, tmp_path_factory):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("example"))],
        input=source,
        capture_output=True,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return next(json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))  # the others are of the log


def test_the_example_is_short(source):
    """Ten lines at the most declare an operation."""
    assert len(source.splitlines()) <= 10


def test_the_example_is_an_operation_of_the_python_api(shown):
    """It is a method with signature and help, answers from the session's own data, and refuses what does not fit."""
    assert shown["counts"] == [0, 1, 1, 0, 0]
    assert shown["signature"].startswith("(kind")
    assert "session" in shown["signature"]
    assert shown["help"] == "Return how many memories of one kind there are."
    assert "give one of fact, principle, concept" in shown["refused"]
    assert shown["example"]


def test_the_example_is_listed_and_found(shown):
    """The command lists it, discovery finds it, the README's table gains its row."""
    ((one,), (row,)) = shown["command"], shown["table"]
    assert {"name", "layer", "kind", "description", "parameters", "result", "target_p95_ms"} <= one.keys()
    assert (one["layer"], one["kind"], one["result"]) == ("semantic", "read", "int")
    assert "semantic.count_kind" in shown["found"]
    assert row == "| `semantic.count_kind` | read | `int` | Return how many memories of one kind there are. |"


def test_the_example_is_kept_in_the_cache_until_a_write(shown):
    """Its answer is kept, and a write of its layer makes it stale."""
    assert shown["cacheable"]
    assert shown["hits"] == 1
