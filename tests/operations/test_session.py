"""Whose memory it is."""

import io
import json
import random

import duckdb
import polars
import pytest

from memlab.embedders import HashingEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.memory import Memory
from tests.operations.creators import fill, registered


def test_ids_of_sessions_cannot_be_guessed(memory):
    """Every new session has an id of its own with 128 random bits."""
    ids = {memory.session.create() for _ in range(20)}
    assert len(ids) == 20
    assert min(map(len, ids)) >= 22


def test_sessions_do_not_see_each_other(memory):
    """What one session stores no other reads, and the one that is meant when none is named is one of them."""
    one, other = memory.session.create(), memory.session.create()
    memory.episodic.remember("tea", session=one)
    assert len(memory.episodic.recall("tea", session=one)) == 1
    assert len(memory.episodic.recall("tea", session=other)) == 0
    assert len(memory.episodic.recall("tea")) == 0


@pytest.mark.parametrize("session", ["nobody", "s-none", "", "x" * 10_000, "a\nb", "*", "%", "default "])
def test_an_unknown_session_is_not_found(memory, session):
    """A session that is not there has nothing and takes nothing, read or write."""
    texts = set()
    for call in (
        lambda: memory.episodic.get_recent(session=session),
        lambda: memory.episodic.remember("tea", session=session),
        lambda: memory.session.export(session=session),
        lambda: memory.session.delete(session=session),
    ):
        with pytest.raises(MemlabError) as caught:
            call()
        assert (caught.value.type, caught.value.reason) == (ErrorType.NOT_FOUND, "session")
        assert len(caught.value.text) < 300
        texts.add(caught.value.text)
    assert len(texts) == 1


def test_sessions_are_listed_page_by_page(memory):
    """All sessions come once, with how much they hold."""
    ids = [memory.session.create() for _ in range(5)]
    memory.episodic.remember("tea", session=ids[0])
    memory.semantic.store("tea", session=ids[0])
    listed, cursor = [], None
    while True:
        page = memory.session.list(2, cursor)
        listed += page
        cursor = page.cursor
        if cursor is None:
            break
    assert [entry.session for entry in listed] == sorted(["default", *ids])
    assert {entry.session: entry.memories for entry in listed}[ids[0]] == 2


def test_a_session_is_exported(memory):
    """An export holds every memory and every earlier version, as JSON lines or as Parquet, and nothing of other sessions."""
    session = memory.session.create()
    memory.episodic.remember("elsewhere")
    memory.episodic.remember("tea", tags=["a"], context={"who": "Ada"}, session=session)
    fact = memory.semantic.store("coffee", session=session)
    memory.semantic.update(fact.id, content="water", session=session)
    lines = [json.loads(line) for line in memory.session.export(session=session).splitlines()]
    assert [(line["layer"], line["current"], line["memory"]["content"]) for line in lines] == [
        ("episodic", True, "tea"),
        ("semantic", False, "coffee"),
        ("semantic", True, "water"),
    ]
    assert lines[0]["memory"]["context"] == {"who": "Ada"}
    frame = polars.read_parquet(io.BytesIO(memory.session.export("parquet", session=session)))
    assert [json.loads(text) for text in frame["memory"]] == [line["memory"] for line in lines]


def test_a_deleted_session_is_gone(memory):
    """Deleting forgets rows, versions, index entries and kept answers; the session is then as if it never was."""
    session = memory.session.create()
    memory.episodic.remember("tea", session=session)
    fact = memory.semantic.store("tea", session=session)
    memory.semantic.update(fact.id, content="water", session=session)
    assert len(memory.episodic.recall("tea", session=session)) == 1
    assert memory.session.delete(session=session).forgotten == 2
    with pytest.raises(MemlabError) as caught:
        memory.episodic.recall("tea", session=session)
    assert (caught.value.type, caught.value.reason) == (ErrorType.NOT_FOUND, "session")
    assert session not in [entry.session for entry in memory.session.list()]


def test_the_default_session_is_emptied(memory):
    """The session that is meant when none is named cannot go: deleting it forgets what it holds."""
    memory.episodic.remember("tea")
    assert memory.session.delete().forgotten == 1
    assert len(memory.episodic.recall("tea")) == 0
    memory.episodic.remember("coffee")
    assert [event.content for event in memory.episodic.get_recent()] == ["coffee"]


def test_nothing_of_any_layer_is_left_of_a_deleted_session(tmp_path):
    """Rows, earlier versions, keys and index entries of every layer are gone from the files, and those of others are there."""
    path = tmp_path / "memory.duckdb"
    with Memory.open(path, embedder=HashingEmbedder(64)) as memory:
        names = {word: memory.session.create() for word in ("quagga", "wombat")}
        for word, session in names.items():
            ids = fill(memory, session, random.Random(1))
            assert set(ids) == set(registered())
            memory.episodic.remember(word, session=session, idempotency_key=word)
            fact = memory.semantic.store(word, session=session)
            memory.semantic.update(fact.id, content=f"no {word}", session=session)
        codes = {word: memory.engine.storage.indexes.codes[session] for word, session in names.items()}
        held = memory.session.list()
        memory.session.delete(session=names["quagga"])
        assert [entry for entry in held if entry.session != names["quagga"]] == list(memory.session.list())
    with duckdb.connect(str(path), read_only=True) as database:
        tables = database.execute("SELECT table_name FROM information_schema.columns WHERE column_name = 'session'").fetchall()
        assert {"memories", "versions", "idempotency"} < {table for (table,) in tables}
        column = {table: "code" if table == "sessions" else "session" for (table,) in tables}
        for word, is_there in (("quagga", False), ("wombat", True)):
            for table, name in column.items():
                ((rows,),) = database.execute(f"SELECT count(*) FROM {table} WHERE {name} = ?", [codes[word]]).fetchall()
                assert bool(rows) == is_there, (word, table)
        layers = database.execute("SELECT DISTINCT layer FROM memories WHERE session = ?", [codes["wombat"]]).fetchall()
        assert {layer for (layer,) in layers} >= set(registered())
    files = b"".join(file.read_bytes() for file in path.with_name("memory.duckdb.index").rglob("*") if file.is_file())
    assert b"wombat" in files
    assert b"quagga" not in files
