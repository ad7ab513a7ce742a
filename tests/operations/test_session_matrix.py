"""What one session stores no other reads: every operation, every parameter that takes an id, every kind of wrong id.

The matrix is made from the declarations, so an operation that is added is in it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import polars
import pytest

from memlab.embedders import HashingEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.memory import Memory
from memlab.operations import Examples, lookup, operations
from memlab.storage.records import NAMES
from tests.operations.creators import CREATORS, fill, registered
from tests.operations.places import EACH, Place, found, may_be_left_out, places, put, takes_id, takes_text

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
CELLS = [(one.name, place) for one in operations() for place in places(one) if takes_id(place)]
IDS = [f"{name}({place})" for name, place in CELLS]
TRIES = 60


def layer_of(name: str, place: Place) -> str:
    """Return the storage layer of the ids that stand at a place: the one that its type names, else the operation's own."""
    return str(place.schema.get("x-layer", lookup(name).layer))


def test_the_matrix_knows_where_ids_are():
    """Every parameter that is named or described as an id is in the matrix, and each is of a layer that is stored."""
    named = {
        (one.name, path)
        for one in operations()
        for path, name, help in [(name, name, one.help[name]) for name in one.parameters_type.__struct_fields__]
        if re.search(r"(^|_)ids?$", name) or re.match(r"(The id|Ids) of ", help)
    }
    assert named <= {(name, place.path[0]) for name, place in CELLS}
    assert {("episodic.get_event", "id"), ("episodic.forget", "ids"), ("semantic.bulk_delete", "ids")} <= named
    assert {layer_of(name, place) for name, place in CELLS} <= set(NAMES)


def test_every_layer_has_a_creator():
    """No storage layer is left out of the matrix: each is made by an operation, as soon as its layer has any."""
    assert set(CREATORS) >= set(NAMES)
    layers = {one.layer for one in operations()}
    assert set(registered()) == {layer for layer in NAMES if layer.partition(".")[0] in layers}


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    settings = {"batch": None}
    with Memory.open(tmp_path_factory.mktemp("matrix") / "memory.duckdb", settings, HashingEmbedder(64)) as opened:
        yield opened


@pytest.fixture(scope="module")
def others(memory):
    """Two sessions with records of every layer, and the ids of them; no call of the matrix changes either."""
    sessions = [memory.session.create() for _ in range(2)]
    return sessions, [fill(memory, session, random.Random(1)) for session in sessions]


@pytest.fixture(scope="module")
def lost(memory):
    """Ids by layer of a session that is deleted, and of what a session forgot that is not."""
    session, forgetful = memory.session.create(), memory.session.create()
    ids = {layer: list(known) for layer, known in fill(memory, session, random.Random(2)).items()}
    memory.session.delete(session=session)
    for layer, known in fill(memory, forgetful, random.Random(2)).items():
        ids[layer] += known[: forget(memory, forgetful, layer, known)]
    return ids


def call(name: str, seed: int, whole: bool, ids: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the parameters of an example call, or those alone that cannot be left out."""
    given = lookup(name).example(random.Random(seed), Examples(ids=ids))
    needed = lookup(name).describe()["parameters"].get("required", ())
    return {parameter: value for parameter, value in given.items() if whole or parameter in needed}


def answer(memory: Memory, name: str, given: dict[str, Any], session: str, sent: str) -> tuple[Any, ...]:
    """Return what a caller gets, the id that it sent left out."""
    try:
        value = memory.call(name, given, session=session)
    except MemlabError as error:
        text, fields = (said.replace(sent, "<id>") for said in (error.text, repr(error.fields)))
        return (error.type, error.reason, error.retryable, text, fields)
    return ("answer", told(value).replace(sent, "<id>"))


def told(value: Any) -> str:
    """Return all that an answer tells, as text: every item of a list, and what a file holds once it is unpacked."""
    if isinstance(value, bytes):
        return repr(polars.read_parquet(io.BytesIO(value)).to_dicts()) if value.startswith(b"PAR1") else value.decode()
    return msgspec.json.encode(value, enc_hook=list).decode()


@functools.cache
def fitting(memory: Memory, name: str, place: Place) -> tuple[int, bool, Any]:
    """Return which example call takes an own id at the place, and the answer to it: what is asked differs by the id alone."""
    session = memory.session.create()
    ids = fill(memory, session, random.Random(1))
    own = ids[layer_of(name, place)][0]
    refusals = []
    for seed in range(TRIES):
        for whole in (False, True):
            reply = answer(memory, name, put(call(name, seed, whole, ids), place.path, own), session, own)
            if reply[0] is not ErrorType.VALIDATION:
                assert reply[0] == "answer", f"{name} does not find an own {layer_of(name, place)}: {reply}"
                return seed, whole, reply
            refusals.append(reply)
    raise AssertionError(f"no example of {name} takes an id at {place}: {refusals[:2]}")


def forget(memory: Memory, session: str, layer: str, ids: Sequence[str]) -> int:
    """Forget one record of a layer through each operation that forgets records by id; return how many those are."""
    forgetting = [
        (name, place)
        for name, place in CELLS
        if layer_of(name, place) == layer and re.match(r"(bulk_)?(delete|forget)", name.partition(".")[2])
    ]
    for (name, place), id in zip(forgetting, ids, strict=False):
        memory.call(name, put({}, place.path, id), session=session)
    return min(len(forgetting), len(ids))


@pytest.mark.parametrize(("name", "place"), CELLS, ids=IDS)
def test_foreign_and_absent_cannot_be_told_apart(memory, others, lost, name, place):
    """Another session's id, a deleted one, a guess and nonsense get the same answer, word for word, and change nothing."""
    layer = layer_of(name, place)
    seed, whole, own_answer = fitting(memory, name, place)
    (own, other), (ids, foreign) = others
    near = [f"{id[:-1]}{'0' if id[-1] != '0' else '1'}" for id in (ids[layer][0], foreign[layer][0])]
    wrong = [*foreign[layer], *lost[layer], *near, f"{near[0][:3]}ffffffffffff", "x", near[0][:3], near[0].upper()]
    wrong += [some[0] for known in others[1] for kind, some in known.items() if kind != layer and some]
    before = [memory.session.export(session=session) for session in (own, other)]
    answers = {answer(memory, name, put(call(name, seed, whole, ids), place.path, id), own, id) for id in wrong}
    assert len(answers) == 1
    (only,) = answers
    says_missing = only[0] == "answer" and '"missing":["<id>"]' in only[1]
    reads_nothing = lookup(name).reads and only[0] == "answer" and only != own_answer
    assert only[0] is ErrorType.NOT_FOUND or says_missing or reads_nothing
    assert [memory.session.export(session=session) for session in (own, other)] == before


@pytest.mark.parametrize(("name", "place"), CELLS, ids=IDS)
def test_malformed_ids_are_refused(memory, name, place):
    """What cannot be an id is VALIDATION, alone and inside a list, before anything is looked up: even the session."""
    seed, whole, _ = fitting(memory, name, place)
    given = call(name, seed, whole, {})
    paths = [place.path, place.path[:-1]] if place.path[-1] == EACH else [place.path]
    for wrong in MALFORMED:
        for path in paths:
            if wrong is None and may_be_left_out(lookup(name), path):
                continue
            with pytest.raises(MemlabError) as caught:
                memory.call(name, put(given, path, wrong), session="nobody")
            assert caught.value.type is ErrorType.VALIDATION, (wrong, caught.value)
            assert place.path[0] in caught.value.text


@pytest.mark.parametrize("name", [one.name for one in operations() if one.scope == "session"])
def test_foreign_and_absent_sessions_cannot_be_told_apart(memory, lost, name):
    """A deleted session, a guess near it and nonsense get the same answer from every operation."""
    given = call(name, 0, True, lost)
    gone = memory.session.create()
    memory.session.delete(session=gone)
    texts = {answer(memory, name, given, session, session) for session in (gone, gone[:-1], f"{gone}1", "nobody", "***")}
    assert len(texts) == 1
    ((kind, reason, *_),) = texts
    assert (kind, reason) == (ErrorType.NOT_FOUND, "session")


LISTS = [one.name for one in operations() if "cursor" in one.parameters_type.__struct_fields__ and one.scope == "session"]


@pytest.mark.parametrize("name", LISTS)
def test_a_cursor_is_of_one_session(memory, others, name):
    """The cursor of another session's list is refused as nonsense is, word for word."""
    sessions, ids = others
    for seed in range(TRIES):
        given = call(name, seed, seed % 2 == 0, ids[0]) | {"limit": 1}
        try:
            page = memory.call(name, given, session=sessions[0])
        except MemlabError:
            continue
        if page.cursor is not None:
            break
    else:
        raise AssertionError(f"{name} gave no cursor in {TRIES} examples")
    given = call(name, seed, seed % 2 == 0, ids[1]) | {"limit": 1}
    replies = {answer(memory, name, given | {"cursor": cursor}, sessions[1], cursor) for cursor in (page.cursor, "nonsense")}
    assert len(replies) == 1
    ((kind, reason, *_),) = replies
    assert (kind, reason) == (ErrorType.VALIDATION, "cursor")


# --- canaries --------------------------------------------------------------------------------------------------------

SESSIONS = 16
CANARY = re.compile(r"canary[0-9a-f]{16}")
WRITING = [one for one in operations() if not one.reads and any(takes_text(place) for place in places(one))]


def canary(chance: random.Random) -> str:
    """Return a word that stands nowhere else."""
    return f"canary{chance.getrandbits(64):016x}"


def marked(given: dict[str, Any], place: Place, mark: str) -> dict[str, Any]:
    """Return parameters with a mark in the text at one place: behind what stands there, or as one more item of a list."""
    there = found(given, place.path)
    if place.schema["type"] == "object":
        values = {
            key: f"{value} {mark}" if isinstance(value, str) else value for key, value in (there[0] if there else {}).items()
        }
        return put(given, place.path, values or {mark: [mark]})  # type: ignore[no-any-return]
    text = f"{there[0]} {mark}" if there else mark
    if place.path[-1] != EACH:
        return put(given, place.path, text)  # type: ignore[no-any-return]
    items = found(given, place.path[:-1])
    return put(given, place.path[:-1], [*(items[0] or () if items else ()), mark])  # type: ignore[no-any-return]


class Session:
    """A session, and what was written in it."""

    def __init__(self, memory: Memory, chance: random.Random) -> None:
        self.memory = memory
        self.chance = chance
        self.name = memory.session.create()
        self.ids = fill(memory, self.name, chance)
        self.marks: list[list[str]] = []  # of one call each
        self.tags: list[str] = []
        self.accepted: set[tuple[str, Place]] = set()

    def plant(self, name: str, chosen: Sequence[Place]) -> bool:
        """Make an example call with a new word at each place; return whether it was accepted."""
        given = lookup(name).example(self.chance, Examples(ids=self.ids))
        marks = [canary(self.chance) for _ in chosen]
        for place, mark in zip(chosen, marks, strict=True):
            given = marked(given, place, mark)
        try:
            self.memory.call(name, given, session=self.name)
        except MemlabError as error:
            if error.type not in (ErrorType.VALIDATION, ErrorType.NOT_FOUND):
                raise
            return False
        self.marks.append(marks)
        self.tags += [mark for place, mark in zip(chosen, marks, strict=True) if place.path[-1] == EACH]
        self.accepted.update((name, place) for place in chosen)
        return True

    def plant_everywhere(self) -> None:
        """Write a word at every text of every write operation: all of a call at once where they go together, else one by one."""
        for one in WRITING:
            texts = [place for place in places(one) if takes_text(place)]
            if not self.plant(one.name, texts):
                for place in texts:
                    self.plant(one.name, [place])

    def written(self) -> set[str]:
        """Return every word that was written."""
        return {mark for marks in self.marks for mark in marks}


def test_canaries_stay_in_their_session(tmp_path, capfd):
    """What is written into any text of any write operation is in no answer, error or export of another session, nor in a log."""
    chance = random.Random(7)
    with Memory.open(tmp_path / "memory.duckdb", {"batch": None}, HashingEmbedder(64)) as memory:
        sessions = [Session(memory, chance) for _ in range(SESSIONS)]
        for session in sessions:
            session.plant_everywhere()
        asked = 0
        for session in sessions:
            foreign = {mark for other in sessions if other is not session for mark in other.written()}
            for one in operations():
                if one.layer == "discovery" or one.name == "session.delete":
                    continue
                for _ in range(2):
                    # Another session's ids, words and tags are asked for as one's own, by writes its ids alone: their words
                    # would be stored. An answer may repeat what was asked, and must tell nothing that was written beside it.
                    other = chance.choice([other for other in sessions if other is not session])
                    words = tuple(chance.choice(marks) for marks in chance.sample(other.marks, 4) if marks)
                    known = Examples(ids=other.ids)
                    if one.reads:
                        known = Examples(ids=other.ids, contents=[" ".join(words)], tags=chance.sample(other.tags, 3))
                    given = one.example(chance, known)
                    try:
                        text = told(memory.call(one.name, given, session=session.name))
                    except MemlabError as error:
                        text = f"{error} {error.fields}"
                    asked += 1
                    assert not set(CANARY.findall(text)) & foreign - set(CANARY.findall(repr(given))), one.name
            for format in ("jsonl", "parquet"):
                exported = set(CANARY.findall(told(memory.session.export(format, session=session.name))))
                assert exported & session.written()
                assert not exported & foreign
        assert asked > SESSIONS * 50
        assert not CANARY.search(repr(memory.statistics()))
    assert not CANARY.search("".join(capfd.readouterr()))


def test_the_canaries_would_be_seen(tmp_path):
    """The search for foreign words finds own ones: every write that takes text is reached, and what creators store is seen."""
    with Memory.open(tmp_path / "memory.duckdb", {"batch": None}, HashingEmbedder(64)) as memory:
        session = Session(memory, random.Random(7))
        session.plant_everywhere()
        assert {name for name, _ in session.accepted} == {one.name for one in WRITING}
        exported = memory.session.export(session=session.name).decode()
        for layer, name in registered().items():
            texts = [place for place in places(lookup(name)) if takes_text(place)]
            accepted = [place for place in texts if (name, place) in session.accepted]
            assert not texts or accepted, name
            before = set(CANARY.findall(exported))
            if accepted and any(session.plant(name, [place]) for _ in range(TRIES) for place in accepted):
                exported = memory.session.export(session=session.name).decode()
                assert set(CANARY.findall(exported)) - before, layer
        known = Examples(ids=session.ids, contents=[" ".join(mark for marks in session.marks[-9:] for mark in marks)])
        answers = []
        for one in operations():
            if one.reads and one.layer != "discovery":
                with contextlib.suppress(MemlabError):
                    answers.append(told(memory.call(one.name, one.example(random.Random(1), known), session=session.name)))
        assert set(CANARY.findall("".join(answers))) & session.written()
