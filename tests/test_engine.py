"""One path for every request: validated, executed, answered or refused with one clear error."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import ErrorType, MemlabError
from memlab.settings import Settings

EMBEDDER = HashingEmbedder(64)
CHAINS = {
    "bare": {"cache": None, "batch": None, "pool": None},
    "all": {},
    "cache": {"batch": None, "pool": None},
    "batch": {"cache": None, "pool": None},
    "pool": {"cache": None, "batch": None},
}


@pytest.fixture(params=CHAINS)
def engine(tmp_path: Path, request: pytest.FixtureRequest):
    with Engine.open(tmp_path / "lab.duckdb", Settings.of(CHAINS[request.param]), EMBEDDER) as engine:
        yield engine


def test_a_remembered_event_is_recalled_at_once(engine: Engine) -> None:
    """What a write acknowledged, the next search finds, by meaning and by words, through every chain."""

    async def play() -> None:
        for place in range(20):
            event = (await engine.execute("episodic.remember", {"content": f"the kettle number{place} whistled"})).value
            for mode in ("vector", "text", "hybrid"):
                found = (await engine.execute("episodic.recall", {"query": f"kettle number{place}", "mode": mode})).value
                assert found[0].id == event.id

    asyncio.run(play())


def test_many_callers_get_their_own_answers(engine: Engine) -> None:
    """Hundreds of calls at once, reads and writes and failures mixed: each caller gets the answer to its own call."""

    async def play() -> None:
        events = await asyncio.gather(
            *(engine.execute("episodic.remember", {"content": f"lantern word{place}"}) for place in range(60))
        )
        ids = [response.value.id for response in events]
        assert len(set(ids)) == 60

        async def ask(place: int) -> None:
            got = (await engine.execute("episodic.get_event", {"id": ids[place]})).value
            assert got.content == f"lantern word{place}"
            found = (await engine.execute("episodic.recall", {"query": f"word{place}", "mode": "text", "limit": 1})).value
            assert found[0].id == ids[place]
            with pytest.raises(MemlabError) as error:
                await engine.execute("episodic.get_event", {"id": f"ep_{place:x}ffffffff"})
            assert error.value.type is ErrorType.NOT_FOUND and f"ep_{place:x}ffffffff" in error.value.text

        await asyncio.gather(*(ask(place) for place in range(60)))

    asyncio.run(play())


def test_a_bad_member_harms_no_other(engine: Engine) -> None:
    """Writes that fail inside a group fail alone; every other write of the group is stored."""

    async def play() -> None:
        calls = []
        for place in range(40):
            if place % 5 == 4:
                calls.append(engine.execute("semantic.update", {"id": f"sm_{place:x}00000000", "content": "never"}))
            else:
                calls.append(engine.execute("semantic.store", {"content": f"fact{place} holds"}))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for place, outcome in enumerate(outcomes):
            if place % 5 == 4:
                assert isinstance(outcome, MemlabError) and outcome.type is ErrorType.NOT_FOUND
        listed = (await engine.execute("semantic.list", {"limit": 100})).value
        assert {fact.content for fact in listed} == {f"fact{place} holds" for place in range(40) if place % 5 != 4}

    asyncio.run(play())


@pytest.mark.parametrize(
    ("operation", "parameters", "says"),
    [
        ("episodic.recal", {}, "did you mean 'episodic.recall'"),
        ("episodic.recall", {"query": "x", "limt": 3}, "did you mean 'limit'"),
        ("episodic.recall", {}, "needs query"),
        ("episodic.recall", {"query": "x", "limit": "3"}, "limit"),
        ("episodic.recall", {"query": "x", "limit": -1}, "limit"),
        ("episodic.recall", {"query": "x", "limit": True}, "limit"),
        ("episodic.recall", {"query": "x", "query_embedding": [1.0, 2.0]}, "64"),
        ("episodic.recall", {"query": "x", "query_embedding": [float("nan")] * 64}, "finite"),
        ("episodic.remember", {"content": "x" * 70_000}, "content"),
        ("episodic.remember", {"content": "\ud800"}, "Unicode"),
        ("episodic.remember", {"content": ""}, "content"),
    ],
)
def test_bad_input_gets_one_clear_line_and_changes_nothing(engine: Engine, operation: str, parameters: dict, says: str) -> None:
    """VALIDATION, one line that names what was given and what fits; the store is as it was."""
    before = engine.storage.database.commit_seq
    with pytest.raises(MemlabError) as error:
        asyncio.run(engine.execute(operation, parameters))
    assert error.value.type is ErrorType.VALIDATION
    assert says in error.value.text and "\n" not in error.value.text
    assert engine.storage.database.commit_seq == before


def test_an_unknown_session_is_not_found(engine: Engine) -> None:
    """A session that nobody created is NOT_FOUND for reads and writes, and is not created on the way."""
    for operation, parameters in (("episodic.get_recent", {}), ("episodic.remember", {"content": "x"})):
        with pytest.raises(MemlabError) as error:
            asyncio.run(engine.execute(operation, parameters, session="nobody"))
        assert (error.value.type, error.value.reason) == (ErrorType.NOT_FOUND, "session")


def test_a_closed_engine_says_so(tmp_path: Path) -> None:
    """A call after close gets VALIDATION `closed`; closing twice is fine."""
    engine = Engine.open(tmp_path / "lab.duckdb", Settings.off(), EMBEDDER)
    engine.close()
    engine.close()
    with pytest.raises(MemlabError) as error:
        asyncio.run(engine.execute("episodic.get_recent"))
    assert error.value.reason == "closed"


def test_a_deadline_that_has_passed_does_no_work(engine: Engine) -> None:
    """A call that waited past its deadline is refused with TIMEOUT and wrote nothing."""

    async def play() -> None:
        with pytest.raises(MemlabError) as error:
            await engine.execute("episodic.remember", {"content": "too late"}, deadline_s=1e-9)
        assert (error.value.type, error.value.reason, error.value.retryable) == (ErrorType.TIMEOUT, "deadline", True)
        assert len((await engine.execute("episodic.list_events")).value) == 0

    asyncio.run(play())


def test_another_embedder_is_refused(tmp_path: Path) -> None:
    """The database remembers which embedder filled it."""
    Engine.open(tmp_path / "lab.duckdb", Settings.off(), EMBEDDER).close()
    with pytest.raises(MemlabError) as error:
        Engine.open(tmp_path / "lab.duckdb", Settings.off(), HashingEmbedder(128))
    assert (error.value.type, error.value.reason) == (ErrorType.VALIDATION, "embedder")


def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    """One file has one owner."""
    with Engine.open(tmp_path / "lab.duckdb", Settings.off(), EMBEDDER):
        with pytest.raises(MemlabError) as error:
            Engine.open(tmp_path / "lab.duckdb", Settings.off(), EMBEDDER)
        assert (error.value.type, error.value.reason) == (ErrorType.PERMISSION, "locked")


def test_answers_come_with_how_they_came_about(tmp_path: Path) -> None:
    """Responses say whether they were cached, how many calls ran together, and what each phase took."""
    with Engine.open(tmp_path / "lab.duckdb", Settings(), EMBEDDER) as engine:

        async def play() -> None:
            await engine.execute("episodic.remember", {"content": "the harbour at night"})
            first = await engine.execute("episodic.recall", {"query": "harbour"})
            second = await engine.execute("episodic.recall", {"query": "harbour"})
            assert not first.cached and second.cached and first.value == second.value
            assert first.phases is not None and {"embed", "vector", "text", "fuse"} <= first.phases.keys()
            assert second.phases is None

        asyncio.run(play())
        counts = engine.statistics()
        assert counts["cache"]["hits"] == 1 and {"observe", "batch", "pool", "storage"} <= counts.keys()


def test_vectors_of_any_length_are_taken_by_direction(engine: Engine) -> None:
    """An embedding is scaled to unit length: twice the vector is the same memory."""
    vector = np.random.default_rng(1).standard_normal(64)

    async def play() -> None:
        await engine.execute("episodic.remember", {"content": "by vector", "embedding": (7 * vector).tolist()})
        found = (
            await engine.execute("episodic.recall", {"query": "anything", "query_embedding": vector, "mode": "vector"})
        ).value
        assert found[0].score == pytest.approx(1.0, abs=1e-5)

    asyncio.run(play())


def test_closing_answers_or_refuses_every_caller(tmp_path: Path) -> None:
    """`aclose` lets calls on their way finish; `close` refuses those that still wait, each with one clear error."""

    async def play(close) -> list[object]:
        engine = Engine.open(
            tmp_path / f"{close}.duckdb", Settings.of({"batch": {"window_ms": 200, "adaptive": False}}), EMBEDDER
        )
        calls = [asyncio.ensure_future(engine.execute("episodic.remember", {"content": f"note {place}"})) for place in range(20)]
        await asyncio.sleep(0)
        await engine.aclose() if close == "aclose" else engine.close()
        return await asyncio.gather(*calls, return_exceptions=True)

    assert not [outcome for outcome in asyncio.run(play("aclose")) if isinstance(outcome, BaseException)]
    refused = asyncio.run(play("close"))
    assert {getattr(outcome, "reason", None) for outcome in refused} == {"closed"}


def test_discovery_asks_for_a_session_too(engine: Engine) -> None:
    """An unknown session is NOT_FOUND for operations that touch no memory as well."""
    with pytest.raises(MemlabError) as error:
        asyncio.run(engine.execute("discovery.layers", session="nobody"))
    assert error.value.type is ErrorType.NOT_FOUND
