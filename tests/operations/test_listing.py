"""The command `memlab operations`."""

import json

import pytest
import typer
from typer.testing import CliRunner

from memlab.errors import MemlabError
from memlab.operations import operations
from memlab.operations.listing import operations_command, type_text

app = typer.Typer()
app.command()(operations_command)


def run(*arguments):
    """Return what the command prints."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_three_levels_of_detail():
    """Names alone, names with what they do, or everything that is declared."""
    assert run("--detail", "name").split() == [one.name for one in operations()]
    assert run().splitlines() == run("--detail", "description").splitlines()
    told = run("--layer", "episodic", "--detail", "schema")
    assert "limit: integer 1..200 = 10. Matches returned at most." in told
    assert "returns Table[Event]" in told
    assert "semantic." not in told


def test_programs_get_the_whole_declaration(tmp_path):
    """JSON holds what the contract names, on standard output or in a file."""
    file = tmp_path / "operations.json"
    run("--json", str(file))
    listed = json.loads(file.read_text())
    assert listed == json.loads(run("--json", "-"))
    assert [one["name"] for one in listed] == [one.name for one in operations()]
    for one in listed:
        assert {"name", "layer", "kind", "description", "parameters", "result", "target_p95_ms"} <= one.keys()
    assert json.loads(run("--json", "-", "--detail", "name", "--layer", "session"))[0] == {"name": "session.create"}


def test_bad_input_is_one_clear_error(tmp_path):
    """An unknown layer and a file that cannot be written are refused."""
    with pytest.raises(MemlabError, match="did you mean 'semantic'"):
        run("--layer", "semantics")
    with pytest.raises(MemlabError, match="cannot write"):
        run("--json", str(tmp_path / "missing" / "file.json"))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string", "maxLength": 9}, "string of 0..9 characters"),
        (
            {"type": "array", "items": {"type": "string", "maxLength": 9}, "maxItems": 3},
            "list of string of 0..9 characters, 0..3 of them",
        ),
        ({"type": "string", "format": "date-time"}, "time"),
        ({"type": "object"}, "table"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "number", "minimum": 0.0}, "number 0.."),
    ],
)
def test_types_are_told_in_a_few_words(schema, text):
    """A schema's type and bounds are told as a person would."""
    assert type_text(schema) == text
