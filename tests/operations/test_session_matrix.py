"""What one session stores no other reads: every operation, every parameter that takes an id, every kind of wrong id.

The matrix is made from the declarations, so an operation that is added is in it.
"""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
import pytest

from memlab.embedders import HashingEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.memory import Memory
from memlab.operations import Examples, lookup, operations, registry
from memlab.operations.parameters import ID_PATTERN

MALFORMED = [
    "",
    " ",
    "a b",
    "x" * 129,
    "é",
    "id\n",
    "id\x00",
    "../memory",
    "' OR 1=1 --",
    "{}",
    None,
    5,
    True,
    ["a b"],
    {"id": 1},
]


def takes_ids(schema: Any) -> bool:
    """Return whether a parameter takes ids, in a list or alone."""
    if isinstance(schema, dict):
        return schema.get("pattern") == ID_PATTERN or any(takes_ids(part) for part in schema.values())
    return isinstance(schema, (list, tuple)) and any(takes_ids(part) for part in schema)


CELLS = [
    (one.name, name)
    for one in operations()
    for name, schema in one.describe()["parameters"].get("properties", {}).items()
    if takes_ids(schema)
]


def test_the_matrix_knows_where_ids_are():
    """The parameters that take ids are found by what they take; here they are by name."""
    assert set(CELLS) == {
        ("episodic.get_event", "id"),
        ("episodic.forget", "ids"),
        ("semantic.search_related", "id"),
        ("semantic.get", "id"),
        ("semantic.update", "id"),
        ("semantic.delete", "id"),
        ("semantic.bulk_delete", "ids"),
    }


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    with Memory.open(tmp_path_factory.mktemp("matrix") / "memory.duckdb", embedder=HashingEmbedder(64)) as opened:
        yield opened


@pytest.fixture
def others(memory):
    """A session, and ids by layer that are not its own: another's, a deleted one, guesses near both, and of no memory at all."""
    own, other = memory.session.create(), memory.session.create()
    ids: dict[str, list[str]] = {}
    for layer, store in (("episodic", memory.episodic.remember), ("semantic", memory.semantic.store)):
        mine, deleted, foreign = store("mine", session=own), store("deleted", session=own), store("foreign", session=other)
        if layer == "episodic":
            memory.episodic.forget([deleted.id], session=own)
        else:
            memory.semantic.delete(deleted.id, session=own)
        guesses = [f"{one.id[:-1]}{'0' if one.id[-1] != '0' else '1'}" for one in (mine, foreign)]
        ids[layer] = [foreign.id, deleted.id, *guesses, f"{mine.id[:3]}ffffffffffff", "nothing", "ep_", "sm_"]
    ids["episodic"].append(ids["semantic"][0])
    ids["semantic"].append(ids["episodic"][0])
    return own, other, ids


def call(name: str, parameter: str, value: Any) -> dict[str, Any]:
    """Return the parameters of a call that is right but for its id."""
    given = {parameter: value}
    if name == "semantic.update":
        given["confidence"] = 0.5
    return given


def answer(memory: Memory, name: str, given: dict[str, Any], session: str) -> tuple[Any, ...]:
    """Return what a caller gets, the id that it sent left out."""
    (sent,) = {
        text for value in given.values() for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)
    }
    try:
        value = memory.call(name, given, session=session)
    except MemlabError as error:
        return (
            error.type,
            error.reason,
            error.retryable,
            error.text.replace(sent, "<id>"),
            repr(error.fields).replace(sent, "<id>"),
        )
    return ("answer", msgspec.json.encode(value).decode().replace(sent, "<id>"))


@pytest.mark.parametrize(("name", "parameter"), CELLS)
def test_foreign_and_absent_cannot_be_told_apart(memory, others, name, parameter):
    """Another session's id, a deleted one, a guess and nonsense get the same answer, word for word, and change nothing."""
    own, other, ids = others
    before = {session: memory.session.export(session=session) for session in (own, other)}
    is_list = lookup(name).describe()["parameters"]["properties"][parameter].get("type") != "string"
    answers = {answer(memory, name, call(name, parameter, [id] if is_list else id), own) for id in ids[name.partition(".")[0]]}
    assert len(answers) == 1
    (only,) = answers
    assert only[0] is ErrorType.NOT_FOUND or (only[0] == "answer" and '"missing":["<id>"]' in only[1])
    assert {session: memory.session.export(session=session) for session in (own, other)} == before


@pytest.mark.parametrize(("name", "parameter"), CELLS)
@pytest.mark.parametrize("wrong", MALFORMED, ids=repr)
def test_malformed_ids_are_refused(memory, name, parameter, wrong):
    """What cannot be an id is VALIDATION, alone and inside a list, before anything is looked up."""
    optional = wrong is None and parameter == "ids" and name == "semantic.bulk_delete"
    for value in [wrong, [wrong]] if parameter == "ids" else [wrong]:
        if optional and value is None:
            continue  # left out, and then a condition is asked for
        with pytest.raises(MemlabError) as caught:
            memory.call(name, call(name, parameter, value))
        assert caught.value.type is ErrorType.VALIDATION


# --- canaries --------------------------------------------------------------------------------------------------------

SESSIONS = 6
CANARY = re.compile(r"canary[0-9a-f]{16}")


def canary(chance: random.Random) -> str:
    """Return a word that stands nowhere else."""
    return f"canary{chance.getrandbits(64):016x}"


def planted(declared: registry.Operation, chance: random.Random, known: Examples) -> tuple[dict[str, Any], list[str]]:
    """Return an example call with a new word in every text of its own that is stored, and those words."""
    marks: list[str] = []

    def mark(value: Any, name: str) -> Any:
        if isinstance(value, dict):
            return {inner: mark(one, inner) for inner, one in value.items()}
        if isinstance(value, list) and name in ("events", "facts"):
            return [mark(one, "") for one in value]
        if name in ("content", "subject", "object"):
            marks.append(canary(chance))
            return f"{value} {marks[-1]}"
        if name in ("tags", "topics"):
            marks.append(canary(chance))
            return [*value, marks[-1]]
        return value

    given = mark(declared.example(chance, known), "")
    for name in {"source", "context"} & set(declared.parameters_type.__struct_fields__):
        marks.append(canary(chance))
        given[name] = marks[-1] if name == "source" else {marks[-1]: [marks[-1]]}
    return given, marks


STORING = {"episodic.remember", "episodic.bulk_remember", "semantic.store", "semantic.store_fact", "semantic.bulk_store"}


def test_canaries_stay_in_their_session(tmp_path, capfd):
    """What is written through the operations that store is in no answer, error or export of another session, nor in a log."""
    chance = random.Random(7)
    with Memory.open(tmp_path / "memory.duckdb", embedder=HashingEmbedder(64)) as memory:
        sessions = [memory.session.create() for _ in range(SESSIONS)]
        marks: dict[str, set[str]] = {session: set() for session in sessions}
        ids: dict[str, dict[str, list[str]]] = {session: {"episodic": [], "semantic": []} for session in sessions}
        for _ in range(3):
            for session in sessions:
                for name in sorted(STORING):
                    given, new = planted(lookup(name), chance, Examples())
                    done = memory.call(name, given, session=session)
                    marks[session].update(new)
                    layer = name.partition(".")[0]
                    ids[session][layer] += [done.id] if hasattr(done, "id") else list(done.ids)
        asked = 0
        for session in sessions:
            foreign = {mark for other in sessions if other != session for mark in marks[other]}
            everyone = [mark for other in sessions for mark in sorted(marks[other])[:10]]
            theirs = {layer: [id for other in sessions for id in ids[other][layer][:4]] for layer in ("episodic", "semantic")}
            for one in operations():
                if one.layer == "discovery" or one.name in STORING or one.name == "session.delete":
                    continue
                for _ in range(6):
                    # Other sessions' ids, words and tags are asked for as one's own.
                    known = Examples(ids=theirs, contents=[" ".join(chance.sample(everyone, 4))], tags=chance.sample(everyone, 3))
                    try:
                        text = repr(memory.call(one.name, one.example(chance, known), session=session))
                    except MemlabError as error:
                        text = f"{error} {error.fields}"
                    asked += 1
                    assert not set(CANARY.findall(text)) & foreign, one.name
            for format in ("jsonl", "parquet"):
                exported = memory.session.export(format, session=session)
                assert not {mark for mark in foreign if mark.encode() in exported}
        assert asked > 500
    assert not CANARY.search("".join(capfd.readouterr()))


def test_the_canaries_would_be_seen(tmp_path):
    """The search for foreign words finds own ones: answers and exports do carry what was written."""
    with Memory.open(tmp_path / "memory.duckdb", embedder=HashingEmbedder(64)) as memory:
        chance = random.Random(7)
        for name in sorted(STORING):
            session = memory.session.create()
            given, marks = planted(lookup(name), chance, Examples())
            memory.call(name, given, session=session)
            exported = memory.session.export(session=session).decode()
            layer = name.partition(".")[0]
            listed = repr(list(memory.call(f"{layer}.list_events" if layer == "episodic" else "semantic.list", session=session)))
            assert marks
            for mark in marks:
                assert mark in exported, name
                assert mark in listed, name
