"""The sync face: every operation as a method, with help, on a loop of its own."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
from pathlib import Path

import polars
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.terminal.interactiveshell import TerminalInteractiveShell

from memlab.embedders import HashingEmbedder
from memlab.errors import MemlabError
from memlab.memory import Memory
from memlab.operations import registry
from memlab.operations.registry import operations

EMBEDDER = HashingEmbedder(64)


@pytest.fixture
def memory(tmp_path: Path):
    with Memory.open(tmp_path / "lab.duckdb", embedder=EMBEDDER) as memory:
        yield memory


def test_every_operation_is_a_method_with_signature_and_help(memory: Memory) -> None:
    """Its signature is the declaration's with the options of any call; `help()` and `?` show it and the whole docstring."""
    for declared in operations():
        layer, _, name = declared.name.partition(".")
        method = getattr(getattr(memory, layer), name)
        shown = inspect.signature(method)
        options = ["session", "deadline_s"] + ([] if declared.reads else ["idempotency_key"])
        assert list(shown.parameters) == [*declared.parameters_type.__struct_fields__, *options]
        assert shown.return_annotation == registry.result_name(declared.result_type)
        for parameter, told in declared.signature.parameters.items():
            assert shown.parameters[parameter].default == told.default
        assert inspect.getdoc(method) == inspect.getdoc(declared.plan)
        text = pydoc.plain(pydoc.render_doc(method))
        assert f"{name}(" in text
        assert declared.summary.split()[0] in text


def test_layers_are_annotated() -> None:
    """A type checker and an editor know every layer of a memory."""
    assert list(inspect.get_annotations(Memory)) == [name for name, _ in registry.layers()]


def test_tab_completes_every_operation(memory: Memory) -> None:
    """In JupyterLab, which asks IPython's completer, every layer and operation is completed, and every parameter by its own."""
    shell = TerminalInteractiveShell()
    shell.user_ns["memory"] = memory

    def completed(typed: str) -> set[str]:
        with provisionalcompleter():
            return {one.text.lstrip(".") for one in shell.Completer.completions(typed, len(typed))}

    assert {one.layer for one in operations()} <= completed("memory.")
    for layer in {one.layer for one in operations()}:
        assert {one.name.partition(".")[2] for one in operations(layer)} <= completed(f"memory.{layer}.")
    shell.Completer.use_jedi = False  # jedi reads the source of one method for all of them; IPython asks for the signature
    for declared in operations():
        given = completed(f"memory.{declared.name}(")
        assert {f"{name}=" for name in declared.parameters_type.__struct_fields__} <= given, declared.name


def test_a_notebook_s_first_minute(memory: Memory) -> None:
    """Remember, recall, show as a table, turn into a frame."""
    memory.episodic.remember("The user prefers tea in the morning.", tags=["preference"])
    memory.episodic.remember("The user takes the train to work.")
    found = memory.episodic.recall("what does the user drink? tea", limit=1)
    assert found[0].tags == ("preference",)
    assert isinstance(found.to_polars(), polars.DataFrame)
    assert "<table>" in found._repr_html_()


def test_hostile_text_is_escaped_where_it_is_shown(memory: Memory) -> None:
    """A memory that is HTML appears as text."""
    memory.episodic.remember("<script>alert(1)</script>")
    shown = memory.episodic.get_recent()._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown


def test_answers_cannot_be_changed(memory: Memory) -> None:
    """A value that the cache shares with other callers refuses every change, all the way down."""
    memory.episodic.remember("frozen", context={"a": {"b": [1]}})
    (event,) = memory.episodic.get_recent()
    with pytest.raises(AttributeError):
        event.content = "thawed"
    with pytest.raises(TypeError):
        event.context["a"]["c"] = 1
    assert event.context == {"a": {"b": (1,)}}


def test_async_code_uses_the_same_memory(memory: Memory) -> None:
    """`await memory.execute` works from another loop."""
    memory.episodic.remember("from the sync side")
    response = asyncio.run(memory.execute("episodic.get_recent", {"limit": 1}))
    assert response.value[0].content == "from the sync side"


def test_wrong_calls_say_what_fits(memory: Memory) -> None:
    """Too many, doubled and unknown arguments, and a closed memory, each get one clear line."""
    with pytest.raises(MemlabError, match="given twice"):
        memory.episodic.recall("x", query="y")
    with pytest.raises(MemlabError, match="did you mean 'limit'"):
        memory.episodic.recall("x", limits=3)
    with pytest.raises(MemlabError, match="takes at most"):
        memory.session.create(1)
    memory.close()
    memory.close()
    with pytest.raises(MemlabError, match="closed"):
        memory.episodic.get_recent()


def test_contexts_of_unlike_shape_make_one_frame(memory: Memory) -> None:
    """A frame of events holds each context as JSON text, whatever the types in it."""
    memory.episodic.remember("a", context={"n": 1})
    memory.episodic.remember("b", context={"n": "one"})
    assert sorted(memory.episodic.get_recent().to_polars()["context"]) == ['{"n":"one"}', '{"n":1}']
