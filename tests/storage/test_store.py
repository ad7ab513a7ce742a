"""Storage answers for one session at a time, from indexes that agree with the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import ErrorType, MemlabError
from memlab.settings import Settings
from memlab.storage import demands as ask
from memlab.storage.calls import Call
from memlab.storage.directory import Directory
from memlab.storage.phases import Phases
from memlab.values import Table

EMBEDDER = HashingEmbedder(64)
WORDS = "tea coffee train garden piano river doctor summer window market bicycle letter island mirror".split()
START = datetime(2026, 1, 1, tzinfo=UTC)


def opened(path: Path, **settings: object) -> Engine:
    return Engine.open(path, Settings.of({"cache": None, "batch": None, **settings}), EMBEDDER)


def run(engine: Engine, operation: str, *, session: str = "default", key: str | None = None, **parameters: object):
    return asyncio.run(engine.execute(operation, parameters, session=session, idempotency_key=key)).value


def fill(engine: Engine, count: int, session: str = "default", seed: int = 0) -> list[str]:
    chance = np.random.default_rng(seed)
    events = [
        {
            "content": f"{session} note {place}: " + " ".join(chance.choice(WORDS, 6)),
            "tags": [str(chance.choice(["red", "green", "blue"]))],
            "confidence": float(chance.choice([0.25, 0.5, 1.0])),
            "occurred_at": START + timedelta(hours=place),
        }
        for place in range(count)
    ]
    return list(run(engine, "episodic.bulk_remember", session=session, events=events).ids)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with opened(tmp_path / "lab.duckdb") as engine:
        yield engine


def exact(engine: Engine, ids: list[str], query: str, limit: int) -> list[str]:
    """The answer by brute force over what the session lists."""
    contents = {event.id: event.content for event in run(engine, "episodic.list_events", limit=500)}
    vectors = EMBEDDER.embed([contents[id] for id in ids])
    scores = vectors @ EMBEDDER.embed([query], query=True)[0]
    return [ids[place] for place in np.argsort(-scores, kind="stable")[:limit]]


@pytest.mark.parametrize("kind", ["flat", "sq8", "fp16", "ivf", "hnsw"])
def test_a_filtered_search_equals_brute_force(tmp_path: Path, kind: str) -> None:
    """Vector search under any filter returns what scanning the session's matching memories would."""
    with opened(tmp_path / "lab.duckdb", index={"kind": kind}) as engine:
        ids = fill(engine, 400)
        fill(engine, 50, session=run(engine, "session.create"), seed=1)
        events = {event.id: event for event in run(engine, "episodic.list_events", limit=500)}
        since = START + timedelta(hours=100)
        wanted = [
            id for id in ids if "red" in events[id].tags and events[id].occurred_at >= since and events[id].confidence >= 0.5
        ]
        found = run(
            engine, "episodic.recall", query="tea garden", limit=8, mode="vector", tags=["red"], since=since, min_confidence=0.5
        )
        vectors = {id: EMBEDDER.embed([events[id].content])[0] for id in wanted}
        query = EMBEDDER.embed(["tea garden"], query=True)[0]
        best = sorted((float(vectors[id] @ query) for id in wanted), reverse=True)[:8]
        assert [event.id in wanted for event in found] == [True] * 8
        assert [round(event.score, 3) for event in found] == pytest.approx([round(score, 3) for score in best], abs=2e-3)


def test_one_session_never_sees_another(engine: Engine) -> None:
    """Searches by meaning and by words, lists and look-ups return the session's own memories alone."""
    mine, other = run(engine, "session.create"), run(engine, "session.create")
    ids = fill(engine, 40, session=mine)
    fill(engine, 40, session=other, seed=2)
    for mode in ("vector", "text", "hybrid"):
        found = run(engine, "episodic.recall", session=other, query=f"{mine} note tea", limit=50, mode=mode)
        assert found and all(event.content.startswith(other) for event in found)
    assert all(event.content.startswith(other) for event in run(engine, "episodic.list_events", session=other, limit=200))
    with pytest.raises(MemlabError) as foreign:
        run(engine, "episodic.get_event", session=other, id=ids[0])
    with pytest.raises(MemlabError) as absent:
        run(engine, "episodic.get_event", session=other, id=ids[0][:-1] + ("0" if ids[0][-1] != "0" else "1"))
    assert foreign.value.type is absent.value.type is ErrorType.NOT_FOUND


def test_the_isolation_tests_can_fail(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the session predicate taken out, a foreign memory is seen: the tests above are not hollow."""
    mine = run(engine, "session.create")
    (id,) = fill(engine, 1, session=mine)
    monkeypatch.setattr(Directory, "visible", lambda self, seqs, session, layer, now: np.ones(len(seqs), bool))
    monkeypatch.setattr(Directory, "current", lambda self, session, layer, origin: origin)
    assert run(engine, "episodic.get_event", id=id).content.startswith(mine)


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Closing and opening changes no answer, whether the indexes were saved or are caught up."""
    path = tmp_path / "lab.duckdb"
    with opened(path) as engine:
        ids = fill(engine, 60)
        run(engine, "episodic.forget", ids=ids[:5])
        before = run(engine, "episodic.recall", query="piano river", limit=20)
    with capture_logs() as logs, opened(path) as engine:
        assert run(engine, "episodic.recall", query="piano river", limit=20) == before
        more = fill(engine, 10, seed=9)
        engine.storage.indexes.save = lambda: None  # as if it had been killed: the indexes on disk lag behind
        before = run(engine, "episodic.recall", query="piano river", limit=20)
    assert not [entry for entry in logs if entry["event"] == "index_rebuilt"]
    with capture_logs() as logs, opened(path) as engine:
        assert run(engine, "episodic.recall", query="piano river", limit=20) == before
        assert run(engine, "episodic.get_event", id=more[-1]).id == more[-1]
    assert {entry["index"] for entry in logs if entry["event"] == "index_caught_up"} == {"vectors", "text"}


@pytest.mark.parametrize("how", ["flipped", "missing", "foreign"])
def test_a_bad_index_is_rebuilt_and_says_so(tmp_path: Path, how: str) -> None:
    """A damaged, missing or foreign index file costs a log line and no answer."""
    path = tmp_path / "lab.duckdb"
    with opened(path) as engine:
        fill(engine, 60)
        before = run(engine, "episodic.recall", query="piano river", limit=20)
    folder = path.with_name(path.name + ".index")
    if how == "foreign":
        with opened(tmp_path / "other.duckdb") as engine:
            fill(engine, 60, seed=5)
        other = tmp_path / "other.duckdb.index"
        folder.rename(tmp_path / "put-away")
        other.rename(folder)
    else:
        for file in [file for file in folder.rglob("*") if file.is_file()]:
            if how == "missing":
                file.unlink()
            elif file.stat().st_size:
                content = bytearray(file.read_bytes())
                content[len(content) // 2] ^= 0x10
                file.write_bytes(content)
    with capture_logs() as logs, opened(path) as engine:
        assert run(engine, "episodic.recall", query="piano river", limit=20) == before
    assert {entry["index"] for entry in logs if entry["event"] == "index_rebuilt"} == {"vectors", "text"}


def test_forgotten_memories_stay_forgotten_through_a_rebuild(engine: Engine) -> None:
    """After half is forgotten and the index is built anew, answers equal brute force over what is left."""
    ids = fill(engine, 120)
    run(engine, "episodic.forget", ids=ids[::2])
    engine.storage.rebuild()
    assert engine.storage.directory.dead == 0
    found = [event.id for event in run(engine, "episodic.recall", query="summer market", limit=10, mode="vector")]
    assert found == exact(engine, ids[1::2], "summer market", 10)
    run(engine, "episodic.remember", content="summer market summer market")
    assert run(engine, "episodic.recall", query="summer market", limit=1)[0].content == "summer market summer market"


def test_a_repeated_key_takes_effect_once(engine: Engine) -> None:
    """The same key and parameters give the first answer; the same key with others is refused; another session is another key."""
    first = run(engine, "episodic.remember", key="k1", content="once", context={"deep": [1, {"a": "b"}]})
    assert run(engine, "episodic.remember", key="k1", content="once", context={"deep": [1, {"a": "b"}]}) == first
    with pytest.raises(MemlabError, match="used with other parameters"):
        run(engine, "episodic.remember", key="k1", content="twice")
    assert len(run(engine, "episodic.list_events")) == 1
    other = run(engine, "session.create")
    assert run(engine, "episodic.remember", key="k1", session=other, content="once").id != first.id


def test_keys_survive_a_restart(tmp_path: Path) -> None:
    """A write acknowledged before a restart is not done again after it."""
    with opened(tmp_path / "lab.duckdb") as engine:
        first = run(engine, "episodic.remember", key="k1", content="once")
    with opened(tmp_path / "lab.duckdb") as engine:
        assert run(engine, "episodic.remember", key="k1", content="once") == first
        assert len(run(engine, "episodic.list_events")) == 1


def test_no_seq_is_given_twice(tmp_path: Path) -> None:
    """Ids of forgotten memories are not used again, even when the newest was forgotten before a restart."""
    with opened(tmp_path / "lab.duckdb") as engine:
        gone = fill(engine, 3)
        run(engine, "episodic.forget", ids=gone)
    with opened(tmp_path / "lab.duckdb") as engine:
        new = run(engine, "episodic.remember", content="new")
        assert new.id[:-8] not in {id[:-8] for id in gone}
        assert [event.content for event in run(engine, "episodic.recall", query="new tea note", limit=5)] == ["new"]


def test_a_deleted_session_leaves_no_trace_in_log_and_indexes(tmp_path: Path) -> None:
    """After closing, no table, log or index file holds a word of it; freed pages of the database file are DuckDB's."""
    canary = "zyzzyva73canary"
    path = tmp_path / "lab.duckdb"
    with opened(path) as engine:
        fill(engine, 30)
        session = run(engine, "session.create")
        run(engine, "episodic.remember", session=session, content=f"the {canary} event", tags=[canary])
        fact = run(engine, "semantic.store", session=session, content=f"the {canary} fact")
        run(engine, "semantic.update", session=session, id=fact.id, content="another fact")
        run(engine, "session.delete", session=session)
        with pytest.raises(MemlabError) as error:
            run(engine, "episodic.get_recent", session=session)
        assert error.value.type is ErrorType.NOT_FOUND
        assert len(run(engine, "episodic.list_events", limit=100)) == 30
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.parent.name == "text" for file in files)
    for file in files:
        if file != path:
            assert canary.encode() not in file.read_bytes(), file.name


def test_a_cursor_belongs_to_its_list(engine: Engine) -> None:
    """Pages follow each other without gap or repeat; a cursor of another list or session is refused."""
    ids = fill(engine, 25)
    seen, cursor = [], None
    while True:
        page: Table = run(engine, "episodic.list_events", limit=10, **({"cursor": cursor} if cursor else {}))
        seen += [event.id for event in page]
        cursor = page.cursor
        if cursor is None:
            break
        kept = cursor
    assert sorted(seen) == sorted(ids) and len(set(seen)) == 25
    other = run(engine, "session.create")
    for parameters in ({"session": other}, {"order": "oldest_first"}):
        with pytest.raises(MemlabError) as error:
            run(engine, "episodic.list_events", limit=10, cursor=kept, **parameters)
        assert error.value.reason == "cursor"


def test_an_expired_memory_is_gone_from_every_read(engine: Engine) -> None:
    """A memory past its `expires_at` is found by no search, list or look-up."""
    event = run(engine, "episodic.remember", content="short lived tea", expires_at=datetime.now(UTC) + timedelta(milliseconds=1))
    run(engine, "episodic.remember", content="long lived tea", expires_at=datetime.now(UTC) + timedelta(days=1))
    while datetime.now(UTC) < event.expires_at:
        pass
    assert [found.content for found in run(engine, "episodic.recall", query="tea")] == ["long lived tea"]
    assert [found.content for found in run(engine, "episodic.list_events")] == ["long lived tea"]
    with pytest.raises(MemlabError):
        run(engine, "episodic.get_event", id=event.id)


def test_an_export_holds_everything_of_the_session(engine: Engine) -> None:
    """Every memory and earlier version is in the export, and nothing of another session."""
    session = run(engine, "session.create")
    fill(engine, 5)
    fill(engine, 5, session=session)
    fact = run(engine, "semantic.store", session=session, content="the first version")
    run(engine, "semantic.update", session=session, id=fact.id, content="the second version")
    lines = [json.loads(line) for line in run(engine, "session.export", session=session, format="jsonl").splitlines()]
    assert [line["memory"]["content"] for line in lines if line["layer"] == "semantic"] == [
        "the first version",
        "the second version",
    ]
    assert [line["current"] for line in lines] == [True] * 5 + [False, True]
    assert all(line["memory"]["content"].startswith(session) for line in lines[:5])


def test_writes_go_on_while_the_index_is_built(tmp_path: Path) -> None:
    """What is stored during a rebuild is in the new index."""
    with opened(tmp_path / "lab.duckdb", index={"kind": "ivf", "train_at": 256}) as engine:
        ids: list[str] = []
        for seed in range(12):
            ids += fill(engine, 40, seed=seed)
        engine.storage.rebuild()
        assert engine.storage.vectors.kind_now == "ivf"
        assert engine.storage.vectors.count == len(engine.storage.directory) == len(ids)
        held = engine.storage.vectors.vectors(np.arange(len(ids)))
        stored = {
            row[0]: np.frombuffer(row[1], np.float32) for row in engine.storage.database.read("SELECT seq, vector FROM memories")
        }
        for seq, vector in zip(engine.storage.directory.column("seq"), held, strict=True):
            assert np.allclose(stored[int(seq)], vector, atol=1e-6)


def test_a_rebuild_waits_for_the_end_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a write lasts, it is no pause in writing; after it, what is due is done without being asked for."""
    monkeypatch.setattr("memlab.storage.indexes._IDLE_NS", 0)
    with opened(tmp_path / "lab.duckdb", index={"kind": "ivf", "train_at": 256}) as engine:
        indexes = engine.storage.indexes
        with indexes.changing():
            fill(engine, 300)
            rebuilding = indexes._rebuilding
            assert rebuilding is not None and not rebuilding.done()
            assert not indexes._is_idle()
            assert engine.storage.vectors.kind_now == "flat"
        rebuilding.result()
        assert engine.storage.vectors.kind_now == "ivf"


class Poisoned:
    """An embedder that fails on one word, as a user's own may."""

    name, dimension = "poisoned:64", 64

    def embed(self, texts: list[str], *, query: bool = False) -> np.ndarray:
        if any("explode" in text for text in texts):
            raise RuntimeError("boom")
        vectors = EMBEDDER.embed(texts, query=query)
        vectors[[place for place, text in enumerate(texts) if "poison" in text]] = np.nan
        return vectors


def test_a_vector_that_is_none_is_refused_alone(tmp_path: Path) -> None:
    """What an embedder gets wrong for one text costs that text's caller an error, nobody else anything, and stores nothing."""
    with Engine.open(tmp_path / "lab.duckdb", Settings.of({"batch": {"window_ms": 50, "adaptive": False}}), Poisoned()) as engine:

        async def play() -> list[object]:
            contents = ["engine repair", "poison tea", "explode now", "meeting moved"]
            calls = [engine.execute("episodic.remember", {"content": content}) for content in contents]
            return await asyncio.gather(*calls, return_exceptions=True)

        outcomes = asyncio.run(play())
        assert [getattr(outcome, "reason", "stored") for outcome in outcomes] == ["stored", "embedder", "embedder", "stored"]
        assert run(engine, "episodic.recall", query="engine repair", limit=1)[0].content == "engine repair"
    with Engine.open(tmp_path / "lab.duckdb", Settings.off(), Poisoned()) as engine:
        assert len(run(engine, "episodic.list_events")) == 2


def test_an_index_of_another_timeline_is_not_trusted(tmp_path: Path) -> None:
    """An older copy of the file beside a newer index: the index is rebuilt, and no seq is given to two memories."""
    path = tmp_path / "lab.duckdb"
    with opened(path) as engine:
        fill(engine, 50)
    kept = path.read_bytes()
    with opened(path) as engine:
        fill(engine, 5, seed=1)
    path.write_bytes(kept)
    path.with_name(path.name + ".mark").unlink()
    with capture_logs() as logs, opened(path) as engine:
        ids = fill(engine, 4, seed=2)
        assert np.all(np.diff(engine.storage.directory.column("seq")) > 0)
        assert [run(engine, "episodic.get_event", id=id).id for id in ids] == ids
        assert len(run(engine, "episodic.list_events", limit=100)) == 54
    assert {entry["index"] for entry in logs if entry["event"] == "index_rebuilt"} == {"vectors", "text"}


def test_an_answer_does_not_depend_on_its_company(tmp_path: Path) -> None:
    """A hybrid search gives the same answer alone and in a batch with one that looks far deeper."""
    with opened(tmp_path / "lab.duckdb", batch={"window_ms": 50, "adaptive": False}) as engine:
        fill(engine, 300)

        async def play() -> None:
            for query in ("tea garden", "piano river doctor", "window market"):
                mine = {"query": query, "limit": 5}
                alone = (await engine.execute("episodic.recall", mine)).value
                deep = {"query": query, "limit": 200}
                both = await asyncio.gather(engine.execute("episodic.recall", mine), engine.execute("episodic.recall", deep))
                assert both[0].value == alone

        asyncio.run(play())


def test_a_forgotten_memory_is_not_kept_under_its_key(engine: Engine) -> None:
    """After forgetting, no table holds the content, and repeating the key does not bring it back."""
    event = run(engine, "episodic.remember", key="k", content="my secret is hunter2")
    run(engine, "episodic.forget", ids=[event.id])
    assert not any("hunter2" in str(row) for row in engine.storage.database.read("SELECT * FROM idempotency"))
    with pytest.raises(MemlabError) as error:
        run(engine, "episodic.remember", key="k", content="my secret is hunter2")
    assert error.value.type is ErrorType.NOT_FOUND


def test_a_key_answers_with_the_version_it_wrote(engine: Engine) -> None:
    """A repeated write gets its first answer, also when the memory has been updated since."""
    first = run(engine, "semantic.store", key="k", content="the first version")
    run(engine, "semantic.update", id=first.id, content="the second version")
    assert run(engine, "semantic.store", key="k", content="the first version") == first


def test_deleting_a_session_twice_under_one_key_is_one_deletion(engine: Engine) -> None:
    """The promise outlives the session; without the key, the second deletion finds no session."""
    session = run(engine, "session.create")
    fill(engine, 3, session=session)
    first = run(engine, "session.delete", session=session, key="k")
    assert run(engine, "session.delete", session=session, key="k") == first
    with pytest.raises(MemlabError) as error:
        run(engine, "session.delete", session=session)
    assert error.value.type is ErrorType.NOT_FOUND


def test_skipping_duplicates_sees_what_its_group_forgot(engine: Engine) -> None:
    """Of two equal memories one was forgotten: the other still counts as a duplicate."""
    first = run(engine, "episodic.remember", content="equal")
    run(engine, "episodic.remember", content="equal")
    run(engine, "episodic.forget", ids=[first.id])
    stored = run(engine, "episodic.bulk_remember", events=[{"content": "equal"}, {"content": "new"}], on_duplicate="skip")
    assert (stored.stored, stored.skipped) == (1, 1)


def test_expired_rows_leave_the_database(tmp_path: Path) -> None:
    """What has expired is deleted when storage next has a reason to look."""
    with opened(tmp_path / "lab.duckdb") as engine:
        event = run(engine, "episodic.remember", content="short", expires_at=datetime.now(UTC) + timedelta(milliseconds=1))
        while datetime.now(UTC) < event.expires_at:
            pass
        run(engine, "episodic.remember", content="stays")
    with opened(tmp_path / "lab.duckdb") as engine:
        engine.storage.indexes._upkeep.submit(int).result()
        assert engine.storage.database.read("SELECT count(*) FROM memories") == [(1,)]


def test_a_large_write_is_found_when_it_returns(tmp_path: Path) -> None:
    """Texts that are analysed while their transaction commits are found by word at once, and after a failed call none of them."""
    with opened(tmp_path / "lab.duckdb") as engine:
        events = [{"content": f"letter number{place} about tea", "expires_at": START.replace(year=2090)} for place in range(700)]
        ids = run(engine, "episodic.bulk_remember", events=events).ids
        for place in (0, 350, 699):
            (found,) = run(engine, "episodic.recall", query=f"number{place}", mode="text")
            assert (found.id, found.content, found.expires_at) == (ids[place], *events[place].values())
        with pytest.raises(MemlabError, match="repeats a content"):
            run(engine, "episodic.bulk_remember", events=[{"content": "unheard"}, *events], on_duplicate="error")
        assert not run(engine, "episodic.recall", query="unheard", mode="text")


def test_texts_missing_from_the_index_are_found_again(tmp_path: Path) -> None:
    """When the text index lost some texts in the middle, opening notices the count and builds it again."""
    path = tmp_path / "lab.duckdb"
    with opened(path) as engine:
        fill(engine, 20)
        engine.storage.indexes.text.remove([5])  # behind the database's back
    with capture_logs() as logs, opened(path) as engine:
        assert len(run(engine, "episodic.recall", query="default note", limit=50, mode="text")) == 20
    assert [entry["index"] for entry in logs if entry["event"] == "index_rebuilt"] == ["text"]


def test_a_memory_that_is_replaced_meanwhile_is_there(engine, monkeypatch):
    """Between a commit and its publishing a read gets what was committed: by id, in a list, and in a search; never nothing."""
    fact = run(engine, "semantic.store", content="the piano is in the garden", topics=["piano"])
    gone = run(engine, "semantic.store", content="the train leaves at nine")
    seen = {}
    publish = engine.storage.indexes.publish

    def look_and_publish(transaction):
        engine.storage.indexes.rows.clear()
        seen["get"] = [run(engine, "semantic.get", id=fact.id).content]
        seen["list"] = [one.content for one in run(engine, "semantic.list")]
        seen["search"] = [one.content for one in run(engine, "semantic.search", query="the piano", limit=5)]
        assert run(engine, "semantic.search_related", id=fact.id) is not None, "its vector is there too"
        publish(transaction)

    monkeypatch.setattr(engine.storage.indexes, "publish", look_and_publish)
    run(engine, "semantic.update", id=fact.id, content="the piano is in the garden house")
    for way, contents in seen.items():
        assert "the piano is in the garden house" in contents, way
    assert len(seen["list"]) == 2
    seen.clear()
    monkeypatch.setattr(
        engine.storage.indexes,
        "publish",
        lambda transaction: (
            engine.storage.indexes.rows.clear(),
            seen.update(list=[one.content for one in run(engine, "semantic.list")]),
            publish(transaction),
        ),
    )
    run(engine, "semantic.delete", id=gone.id)
    assert seen["list"] == ["the piano is in the garden house"], "what is forgotten is gone at once"


def test_scans_meet_a_memory_that_is_replaced_meanwhile(engine, monkeypatch):
    """What looks through rows and vectors finds what was committed, with the vector that belongs to it; never nothing."""
    fact = run(engine, "semantic.store", content="the piano is in the garden")
    run(engine, "semantic.store", content="the piano is in the garden house")
    demands = {
        "following": ask.Following("semantic", 10),
        "unseen": ask.Unseen("semantic", (), 10),
        "vectors": ask.Vectors("semantic", (fact.id,)),
        "near": ask.NearDuplicates("semantic", 0.99, 10),
    }
    seen = {}
    publish = engine.storage.indexes.publish

    def plan_of(demand):
        def plan():
            return (yield demand)

        return plan

    def look_and_publish(transaction):
        engine.storage.indexes.rows.clear()
        calls = [Call("default", plan_of(demand)) for demand in demands.values()]
        seen.update(zip(demands, engine.storage.read(calls, Phases()), strict=True))
        publish(transaction)

    monkeypatch.setattr(engine.storage.indexes, "publish", look_and_publish)
    changed = run(engine, "semantic.update", id=fact.id, content="the piano is in the garden house")
    vector = EMBEDDER.embed([changed.content])[0]
    for name in ("following", "unseen", "vectors"):
        values, vectors, *_ = seen[name]
        assert changed in values, name
        assert np.allclose(vectors[values.index(changed)], vector), name
    (pair,), complete = seen["near"]
    assert changed in pair
    assert complete
