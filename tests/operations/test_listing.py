"""The command `memlab operations`."""

import json

import pytest
import typer
from typer.testing import CliRunner

from memlab.errors import MemlabError
from memlab.operations import operations
from memlab.operations.listing import WIDTH, operations_command, type_text

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
    lines = run().splitlines()
    assert lines == run("--detail", "description").splitlines()
    for line, one in zip(lines, operations(), strict=True):
        assert line.split()[:2] == [one.name, one.kind]
        assert line.endswith(one.summary)
    told = run("--layer", "episodic", "--detail", "schema")
    assert "limit: integer 1..200 = 10. Matches returned at most." in told
    assert "returns Table[Event]" in told
    assert "semantic." not in told
    whole = run("--detail", "schema").split("\n\n")
    assert [card.split()[0] for card in whole] == [one.name for one in operations()]
    for card, one in zip(whole, operations(), strict=True):
        assert max(map(len, card.splitlines())) <= WIDTH, one.name
        assert all(f"    {name}: " in card for name in one.parameters_type.__struct_fields__), one.name


def test_programs_get_the_whole_declaration(tmp_path):
    """JSON holds what the contract names, in its types, on standard output or in a file, at each level of detail."""
    file = tmp_path / "operations.json"
    run("--json", str(file))
    listed = json.loads(file.read_text())
    assert listed == json.loads(run("--json", "-"))
    assert listed == json.loads(run("--json", "-", "--detail", "schema"))
    for one, declared in zip(listed, operations(), strict=True):
        assert {"name", "layer", "kind", "description", "parameters", "result", "target_p95_ms"} <= one.keys()
        assert one["name"] == declared.name
        assert one["name"].startswith(f"{one['layer']}.")
        assert one["kind"] in ("read", "write")
        assert one["description"].endswith(".")
        assert one["parameters"]["type"] == "object"
        assert set(one["parameters"]["properties"]) == set(declared.parameters_type.__struct_fields__)
        assert isinstance(one["result"], str)
        assert one["target_p95_ms"] > 0
    described = json.loads(run("--json", "-", "--detail", "description"))
    assert [one.keys() for one in described] == [{"name", "layer", "kind", "description"}] * len(listed)
    assert json.loads(run("--json", "-", "--detail", "name")) == [{"name": one.name} for one in operations()]
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
