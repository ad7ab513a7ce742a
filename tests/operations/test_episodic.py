"""Events: what the model check does not say by name."""

from datetime import UTC, datetime, timedelta

import pytest

from memlab.embedders import PrecomputedEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.memory import Memory
from memlab.operations import lookup
from memlab.storage.demands import Embed, Insert, Inserted, Page, Search

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def contents(found):
    """Return what was found, in order."""
    return [event.content for event in found]


def test_what_was_remembered_is_recalled(memory):
    """An event is found by the next search, with everything that was said of it."""
    kept = memory.episodic.remember(
        "Ada drinks tea in the garden",
        tags=["habit", "habit", "tea"],
        context={"speaker": "Ada", "turns": [1, 2]},
        source="chat",
        confidence=0.75,
        occurred_at=DAY,
    )
    memory.episodic.remember("Bo repaired the engine")
    (found,) = memory.episodic.recall("who drinks tea?", limit=1)
    assert found.id == kept.id
    assert memory.episodic.get_event(kept.id) == kept
    assert (kept.tags, kept.context, kept.source) == (("habit", "tea"), {"speaker": "Ada", "turns": (1, 2)}, "chat")
    assert (kept.confidence, kept.occurred_at) == (0.75, DAY)
    assert kept.created_at.tzinfo is not None


def test_recall_asks_only_for_what_its_mode_needs():
    """A search by words embeds nothing, a search by meaning sends no words, the default sends both."""
    declared = lookup("episodic.recall")
    by_words = next(declared.start(declared.validate({"query": "tea", "mode": "text"})))
    assert (by_words.mode, by_words.text, by_words.vector) == ("text", "tea", None)
    plan = declared.start(declared.validate({"query": "tea", "mode": "vector"}))
    assert next(plan) == Embed(("tea",), (None,), query=True)
    by_meaning = plan.send(["vector"])
    assert (by_meaning.mode, by_meaning.text, by_meaning.vector) == ("vector", None, "vector")
    plan = declared.start(declared.validate({"query": "tea"}))
    next(plan)
    both = plan.send(["vector"])
    assert isinstance(both, Search)
    assert (both.mode, both.text, both.vector, both.fusion) == ("hybrid", "tea", "vector", "reciprocal_rank")


def test_equal_filters_are_equal():
    """Tags in another order, or repeated, are the same question, so that waiting calls and pages share it."""
    declared = lookup("episodic.recall_by_tags")
    first, second = (
        next(declared.start(declared.validate({"tags": tags, "match": "all"}))) for tags in (["b", "a", "b"], ["a", "b"])
    )
    assert first == second
    assert isinstance(first, Page)


def test_remember_stores_one_draft():
    """A plan of `remember` embeds its text, or takes the vector given, and inserts one draft."""
    declared = lookup("episodic.remember")
    parameters = declared.validate({"content": "tea", "embedding": [0.0, 2.0]})
    plan = declared.start(parameters)
    embed = next(plan)
    assert embed.texts == ("tea",)
    assert embed.given[0].tolist() == [0.0, 1.0]
    insert = plan.send(embed.given)
    assert isinstance(insert, Insert)
    (draft,) = insert.drafts
    assert (draft.content, draft.kind, draft.vector.tolist()) == ("tea", "event", [0.0, 1.0])
    with pytest.raises(StopIteration) as stop:
        plan.send(Inserted(("ep_1",), ("the event",)))
    assert stop.value.value == "the event"


def test_own_vectors_need_no_embedder(tmp_path):
    """Where vectors come with the data, text alone is refused with what to pass, and words are searched without any."""
    with Memory.open(tmp_path / "memory.duckdb", embedder=PrecomputedEmbedder(3)) as memory:
        with pytest.raises(MemlabError, match="embedding=") as caught:
            memory.episodic.remember("tea")
        assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, "embedder")
        memory.episodic.remember("tea", embedding=[1, 0, 0])
        memory.episodic.bulk_remember([{"content": "coffee", "embedding": [0, 1, 0]}])
        assert contents(memory.episodic.recall("drinks", mode="vector", query_embedding=[0.1, 1, 0])) == ["coffee", "tea"]
        assert contents(memory.episodic.recall("tea", mode="text")) == ["tea"]
        with pytest.raises(MemlabError, match="query_embedding="):
            memory.episodic.recall("tea")
        with pytest.raises(MemlabError, match="3"):
            memory.episodic.recall("tea", query_embedding=[1, 0])


def test_a_filter_narrows_what_is_searched(memory):
    """As many matches as asked for come back wherever that many pass the filter, however bad they are."""
    memory.episodic.bulk_remember([{"content": f"tea number {place}", "confidence": 1.0} for place in range(30)])
    memory.episodic.bulk_remember([{"content": f"engine {place}", "confidence": 0.1, "tags": ["work"]} for place in range(5)])
    assert len(memory.episodic.recall("tea", limit=5, tags=["work"])) == 5
    assert len(memory.episodic.recall("tea", limit=50, min_confidence=0.5)) == 30


def test_a_range_is_half_open_and_must_not_be_empty(memory):
    """The start of a range belongs to it, its end does not, and a range that ends before it starts is refused."""
    for hours in range(3):
        memory.episodic.remember(f"hour {hours}", occurred_at=DAY + timedelta(hours=hours))
    found = memory.episodic.query_temporal(DAY, DAY + timedelta(hours=2), order="oldest_first")
    assert contents(found) == ["hour 0", "hour 1"]
    for wrong in ({"since": DAY, "until": DAY}, {"since": DAY, "until": DAY - timedelta(hours=1)}):
        with pytest.raises(MemlabError, match="must lie before") as caught:
            memory.episodic.query_temporal(**wrong)
        assert caught.value.reason == "bounds"


def test_pages_are_bound_to_their_list(memory):
    """A cursor goes on where its page ended, also beside new events; in another list, order or session it is refused."""
    memory.episodic.bulk_remember([{"content": str(place), "occurred_at": DAY, "tags": ["a"]} for place in range(5)])
    first = memory.episodic.list_events(2)
    memory.episodic.remember("later", tags=["a"])
    assert contents(memory.episodic.list_events(3, cursor=first.cursor)) == ["2", "1", "0"]
    other = memory.session.create()
    texts = set()
    for call in (
        lambda: memory.episodic.list_events(2, cursor=first.cursor, order="oldest_first"),
        lambda: memory.episodic.recall_by_tags(["a"], cursor=first.cursor),
        lambda: memory.semantic.list(2, cursor=first.cursor),
        lambda: memory.episodic.list_events(2, cursor=first.cursor, session=other),
        lambda: memory.episodic.list_events(2, cursor="nonsense"),
        lambda: memory.episodic.list_events(2, cursor=first.cursor[:-2] + "00"),
    ):
        with pytest.raises(MemlabError) as caught:
            call()
        assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, "cursor")
        texts.add(caught.value.text)
    assert len(texts) == 1


def test_an_event_expires(memory):
    """From its expiry on nothing finds an event."""
    gone = memory.episodic.remember("tea", expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert len(memory.episodic.recall("tea")) == 0
    assert len(memory.episodic.get_recent()) == 0
    with pytest.raises(MemlabError, match="no episodic memory"):
        memory.episodic.get_event(gone.id)


@pytest.mark.parametrize(("on_duplicate", "stored", "skipped"), [("keep", 3, 0), ("skip", 1, 2)])
def test_duplicates_are_kept_or_left_out(memory, on_duplicate, stored, skipped):
    """A text that is there, or came earlier in the same call, is stored once more or left out, as asked."""
    there = memory.episodic.remember("tea")
    done = memory.episodic.bulk_remember(
        [{"content": "tea"}, {"content": "milk"}, {"content": "milk"}], on_duplicate=on_duplicate
    )
    assert (done.stored, done.skipped, len(done.ids)) == (stored, skipped, 3)
    assert len(memory.episodic.list_events()) == 1 + stored
    if on_duplicate == "skip":
        assert done.ids[0] == there.id
        assert done.ids[1] == done.ids[2]


def test_a_refused_bulk_stores_nothing(memory):
    """One duplicate, or one vector of the wrong length, and none of the call's events is there."""
    memory.episodic.remember("tea")
    with pytest.raises(MemlabError) as caught:
        memory.episodic.bulk_remember([{"content": "milk"}, {"content": "tea"}], on_duplicate="error")
    assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, "duplicate")
    with pytest.raises(MemlabError) as caught:
        memory.episodic.bulk_remember([{"content": "milk"}, {"content": "water", "embedding": [1, 2, 3]}])
    assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, "vector")
    assert contents(memory.episodic.list_events()) == ["tea"]


def test_forgetting_can_be_repeated(memory):
    """Forgetting says what was there and what was not, in the order given, and a second time that nothing is there."""
    ids = memory.episodic.bulk_remember([{"content": "a"}, {"content": "b"}]).ids
    done = memory.episodic.forget([ids[1], "ep_none", ids[0], ids[1]])
    assert (done.forgotten, done.ids, done.missing) == (2, (ids[1], ids[0]), ("ep_none",))
    again = memory.episodic.forget(ids)
    assert (again.forgotten, again.missing) == (0, ids)


def test_forgetting_by_condition_needs_one(memory):
    """Nothing said does not mean everything."""
    memory.episodic.remember("tea")
    with pytest.raises(MemlabError, match="needs older_than, tags or below_confidence") as caught:
        memory.episodic.forget_where()
    assert caught.value.reason == "missing_parameter"
    assert len(memory.episodic.list_events()) == 1


def test_a_dry_run_touches_nothing(memory):
    """A dry run names what would be forgotten, the real run forgets it, the oldest first, up to the limit."""
    for hours in range(4):
        memory.episodic.remember(f"hour {hours}", occurred_at=DAY + timedelta(hours=hours), confidence=0.2)
    dry = memory.episodic.forget_where(below_confidence=0.5, limit=3, dry_run=True)
    assert (dry.forgotten, len(dry.ids), dry.remaining, dry.dry_run) == (0, 3, 4, True)
    assert len(memory.episodic.list_events()) == 4
    real = memory.episodic.forget_where(below_confidence=0.5, limit=3)
    assert (real.forgotten, real.ids, real.remaining) == (3, dry.ids, 1)
    assert contents(memory.episodic.list_events()) == ["hour 3"]
