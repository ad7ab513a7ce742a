"""Every chain over the real engine answers as the bare one does.

Random programs of many callers in several sessions, some of whom are cancelled. While they run, what a read finds must hold
everything acknowledged before it was asked for and nothing forgotten before; when all is quiet, every read through the chain,
from the cache or not, must equal the same read through a bare engine over the same storage, scores and order included.
"""

import asyncio
import itertools
import random
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import MemlabError
from memlab.middleware import cache as cache_module
from memlab.settings import Settings
from memlab.values import Event, Fact, Table
from tests.middleware.keyvalue import hops

CHAINS: dict[str, dict[str, Any]] = {
    "bare": {"cache": None, "batch": None, "pool": None},
    "cache": {"batch": None, "pool": None},
    "cache, pool": {"batch": None, "pool.limit": 2},
    "batch": {"cache": None, "pool": None},
    "batch with window": {"cache": None, "pool": None, "batch.adaptive": False, "batch.window_ms": 1.0},
    "pool": {"cache": None, "batch": None, "pool.limit": 1},
    "cache, batch": {"pool": None},
    "all": {},
    "all, narrow": {"cache.max_entries": 4, "cache.policy": "w_tinylfu", "batch.limit": 3, "pool.limit": 1},
}
LAYERS = {
    "episodic": "episodic.remember tags episodic.forget episodic.list_events episodic.recall_by_tags episodic.recall".split(),
    "semantic": "semantic.store topics semantic.bulk_delete semantic.list semantic.search_by_topic semantic.search".split(),
}
WORDS = "harbour engine letter winter garden signal copper river".split()
TAGS = ["p", "q"]


class Note(msgspec.Struct, eq=False):
    """What is known of one memory by the moments at which calls were submitted and ended; None for not yet."""

    session: str
    layer: str
    content: str
    tags: tuple[str, ...]
    submitted: int
    acknowledged: int | None = None
    id: str | None = None
    forget_submitted: int | None = None
    forget_acknowledged: int | None = None


class Play:
    """One random program on one engine."""

    def __init__(self, engine: Engine, sessions: list[str], seed: int) -> None:
        self.engine = engine
        self.sessions = sessions
        self.seed = seed
        self.notes: list[Note] = []
        self.moments = itertools.count()

    async def run(self, callers: int, steps: int) -> None:
        chances = [random.Random(f"{self.seed} {len(self.notes)} {number}") for number in range(callers)]
        await asyncio.gather(*(self._caller(chance, steps) for chance in chances))

    async def _caller(self, chance: random.Random, steps: int) -> None:
        for step in range(steps):
            do = chance.choices([self._read, self._write, self._forget], [6, 3, 1])[0]
            task = asyncio.ensure_future(do(chance, f"{chance.getrandbits(40):x} {step}"))
            if chance.random() < 0.15:
                await hops(chance.randint(0, 30))
                task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                task.result()

    async def _write(self, chance: random.Random, name: str) -> None:
        layer = chance.choice(list(LAYERS))
        write, tags, *_ = LAYERS[layer]
        note = Note(
            chance.choice(self.sessions),
            layer,
            f"{chance.choice(WORDS)} {chance.choice(WORDS)} {name}",
            tuple(chance.sample(TAGS, chance.randint(0, 2))),
            next(self.moments),
        )
        self.notes.append(note)
        response = await self.engine.execute(write, {"content": note.content, tags: list(note.tags)}, session=note.session)
        note.id = response.value.id
        note.acknowledged = next(self.moments)

    async def _forget(self, chance: random.Random, name: str) -> None:
        known = [note for note in self.notes if note.id is not None and note.forget_submitted is None]
        if not known:
            return
        note = chance.choice(known)
        note.forget_submitted = next(self.moments)
        done = await self.engine.execute(LAYERS[note.layer][2], {"ids": [note.id]}, session=note.session)
        assert done.value.ids == (note.id,)
        note.forget_acknowledged = next(self.moments)

    async def _read(self, chance: random.Random, name: str) -> None:
        layer, session = chance.choice(list(LAYERS)), chance.choice(self.sessions)
        _, field, _, listing, by_tag, search = LAYERS[layer]
        tag = chance.choice(TAGS)
        submitted = next(self.moments)
        match chance.randint(0, 2):
            case 0:
                found = await self.engine.execute(listing, {"limit": 500}, session=session)
                self._judge(found.value, session, layer, None, submitted, complete=True)
            case 1:
                found = await self.engine.execute(by_tag, {field: [tag], "limit": 500}, session=session)
                self._judge(found.value, session, layer, tag, submitted, complete=True)
            case 2:
                found = await self.engine.execute(search, {"query": chance.choice(WORDS), "limit": 5}, session=session)
                self._judge(found.value, session, layer, None, submitted, complete=False)

    def _judge(
        self, found: Table[Event | Fact], session: str, layer: str, tag: str | None, submitted: int, *, complete: bool
    ) -> None:
        meant = [
            note for note in self.notes if (note.session, note.layer) == (session, layer) and (tag is None or tag in note.tags)
        ]
        may = {note.content for note in meant if note.forget_acknowledged is None or note.forget_acknowledged > submitted}
        must = {
            note.content
            for note in meant
            if note.acknowledged is not None and note.acknowledged < submitted and note.forget_submitted is None
        }
        contents = [memory.content for memory in found]
        assert len(contents) == len(set(contents))
        assert set(contents) <= may
        if complete:
            assert must <= set(contents)


def questions(notes: Iterable[Note], sessions: Iterable[str]) -> list[tuple[str, dict[str, Any], str]]:
    """Return reads of every kind, about what there is and what there is not."""
    asked: list[tuple[str, dict[str, Any], str]] = [("discovery.layers", {}, "default"), ("session.list", {}, "default")]
    for session in (*sessions, "nowhere"):
        for _, field, _, listing, by_tag, search in LAYERS.values():
            asked += [(listing, {"limit": 500}, session), (listing, {"limit": 3}, session), (listing, {"cursor": "no"}, session)]
            asked += [(by_tag, {field: tags, "limit": 500}, session) for tags in (["p"], ["q"], ["p", "q"], ["r"])]
            asked += [(search, {"query": word, "limit": 5}, session) for word in WORDS[:3]]
            asked.append((search, {"query": WORDS[0], field: ["p"], "limit": 5}, session))
        asked += [("semantic.get_stats", {}, session), ("semantic.analyze_topics", {}, session)]
        asked.append(("semantic.keyword_search", {"query": f"{WORDS[0]} {WORDS[1]}"}, session))
    for note in list(notes)[:40]:
        asked.append((f"{note.layer}.get{'_event' if note.layer == 'episodic' else ''}", {"id": note.id or "none"}, note.session))
    return asked


async def outcome(engine: Engine, question: tuple[str, dict[str, Any], str]) -> Any:
    name, parameters, session = question
    try:
        return (await engine.execute(name, parameters, session=session)).value
    except MemlabError as error:
        return error.type, error.reason, error.text


def conforms(path: Path, name: str, seed: int = 0) -> None:
    with Engine.open(path, Settings.of(CHAINS[name]), HashingEmbedder(32)) as engine:

        async def main() -> None:
            sessions = ["default", (await engine.execute("session.create")).value]
            play = Play(engine, sessions, seed)
            for _ in range(2):  # the second time over a cache that is filled
                await play.run(callers=12, steps=8)
                asked = questions(play.notes, sessions)
                with Engine(engine.storage, Settings.off()) as bare:
                    expected = [await outcome(bare, question) for question in asked]
                for _ in range(2):
                    found = await asyncio.gather(*(outcome(engine, question) for question in asked))
                    for question, one, other in zip(asked, found, expected, strict=True):
                        assert one == other, question
            await engine.execute("session.delete", session=sessions[1])
            for question in questions(play.notes, sessions[1:]):
                if question[2] == sessions[1]:
                    assert (await outcome(engine, question))[1] == "session"

        asyncio.run(main())
        if "cache" in engine.statistics():
            assert engine.statistics()["cache"]["hits"] > 0


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_over_the_real_engine_answers_as_the_bare_one(tmp_path: Path, name: str) -> None:
    """Nothing acknowledged is missed, nothing forgotten found, and in the quiet every answer and error is the bare engine's."""
    conforms(tmp_path / "lab.duckdb", name)


def test_a_cache_that_serves_stale_answers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of generations the suite goes red over the real engine too."""
    monkeypatch.setattr(cache_module, "_is_current", lambda labels: True)
    with pytest.raises(AssertionError):
        conforms(tmp_path / "lab.duckdb", "all")


@pytest.mark.parametrize("name", ["bare", "pool", "batch", "all"])
def test_a_cancelled_write_is_let_go_when_it_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """However the caller leaves, once it has begun a write has ended when he is gone; one that has not begun never will."""
    began, may_end = threading.Event(), threading.Event()
    with Engine.open(tmp_path / "lab.duckdb", Settings.of(CHAINS[name]), HashingEmbedder(32)) as engine:
        write = engine.storage.write

        def held(*given: Any) -> Any:
            began.set()
            assert may_end.wait(60)
            return write(*given)

        monkeypatch.setattr(engine.storage, "write", held)

        async def main() -> None:
            first = asyncio.ensure_future(engine.execute("episodic.remember", {"content": "tea"}))
            await asyncio.to_thread(began.wait, 60)
            second = asyncio.ensure_future(engine.execute("episodic.remember", {"content": "coffee"}))
            await hops(5)
            for _ in range(3):
                first.cancel()
                second.cancel()
                await hops(5)
            assert not first.done()
            assert second.cancelled()
            may_end.set()
            await asyncio.wait((first,))
            assert first.cancelled()
            assert [event.content for event in (await engine.execute("episodic.list_events")).value] == ["tea"]

        asyncio.run(main())
