"""Consolidation: each figure follows the data, nothing is looked at twice, and nothing is written by halves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from memlab.embedders import HashingEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.hooks import Hooks
from memlab.memory import Memory
from memlab.operations import lookup
from memlab.operations.consolidation import MAX_MARKS, marked
from memlab.storage.calls import Call
from memlab.storage.phases import Phases
from memlab.values import Mark

TEA = ["Ada drinks green tea in the garden", "Ada drinks tea in the garden", "In the garden Ada drinks tea"]
BOAT = ["Bo sails a wooden boat to the island", "Bo sails the wooden boat to an island"]
LONE = "the projector in room four broke on Friday"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def remembered(memory, *contents, **fields):
    """Remember events and return their ids."""
    return memory.episodic.bulk_remember([{"content": content, **fields} for content in contents]).ids


def behind(memory):
    """Return the sets of events behind the semantic memories."""
    return {frozenset(fact.evidence) for fact in memory.semantic.list()}


@pytest.mark.parametrize("strategy", ["speed", "balanced", "quality"])
def test_alike_events_become_a_memory_with_links(memory, strategy):
    """Every strategy finds the groups, writes one memory each from sentences of theirs, and links it to all of the group."""
    tea, boat = remembered(memory, *TEA, tags=["tea", "home"], confidence=0.5), remembered(memory, *BOAT, tags=["boat"])
    (lone,) = remembered(memory, LONE)
    done = memory.consolidation.consolidate(strategy, similarity=0.6)
    assert (done.events, done.clusters, done.alone, done.remaining, done.complete, done.progress) == (6, 2, 1, 0, True, 1.0)
    facts = [memory.semantic.get(id) for id in done.stored]
    assert {frozenset(fact.evidence) for fact in facts} == {frozenset(tea), frozenset(boat)}
    first = next(fact for fact in facts if set(fact.evidence) == set(tea))
    assert first.content in TEA
    assert (first.kind, first.source, first.confidence, set(first.topics)) == ("principle", "consolidation", 0.5, {"tea", "home"})
    assert all(memory.episodic.get_event(id) for fact in facts for id in fact.evidence)
    assert {one.id for one in memory.semantic.search("green tea in the garden", limit=1)} == {first.id}
    (run,) = memory.consolidation.get_history()
    assert (run.id, run.stored, run.alone, run.strategy) == (done.run, done.stored, (lone,), strategy)


def test_running_again_adds_nothing(memory):
    """A second call looks at no event and leaves everything as it is, the history too."""
    remembered(memory, *TEA, LONE)
    memory.consolidation.consolidate()
    before = memory.session.export()
    again = memory.consolidation.consolidate("quality", similarity=0.1)
    assert (again.run, again.events, again.stored, again.complete, again.progress) == (None, 0, (), True, 1.0)
    assert memory.session.export() == before


def test_a_cut_run_goes_on_where_it_ended(memory):
    """Calls with a limit look at every event once, tell their progress, and find what one call finds."""
    remembered(memory, *TEA, LONE, *BOAT)
    seen, progress = [], []
    while True:
        done = memory.consolidation.consolidate(limit=2, similarity=0.6)
        seen.append(done.events)
        progress.append(done.progress)
        if done.complete:
            break
    assert (seen, progress) == ([2, 2, 2], [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0])
    assert {len(evidence) for evidence in behind(memory)} == {2}
    assert memory.consolidation.get_metrics().events_seen == 6


def test_what_was_alone_is_looked_at_again(memory):
    """An event that had no like becomes part of a group with a later one, and only then."""
    (first,) = remembered(memory, TEA[0])
    assert memory.consolidation.consolidate().alone == 1
    assert memory.consolidation.consolidate().run is None
    (second,) = remembered(memory, TEA[0])
    done = memory.consolidation.consolidate()
    assert (done.events, done.clusters, done.alone) == (1, 1, 0)
    assert behind(memory) == {frozenset({first, second})}


def test_what_is_known_gets_further_evidence(memory):
    """Events that say again what a memory says are linked to that memory, and no second one is written."""
    first = remembered(memory, TEA[0], TEA[0])
    (id,) = memory.consolidation.consolidate("speed").stored
    second = remembered(memory, TEA[0], TEA[0])
    done = memory.consolidation.consolidate("speed")
    assert (done.stored, done.reinforced) == ((), (id,))
    fact = memory.semantic.get(id)
    assert (fact.evidence, fact.version) == ((*first, *second), 2)
    assert len(memory.semantic.list()) == 1


def test_evidence_stays_with_its_sentence(memory):
    """A change of the topics keeps the links, a new sentence does not; merging unites them."""
    remembered(memory, TEA[0], TEA[0])
    (id,) = memory.consolidation.consolidate("speed").stored
    links = memory.semantic.get(id).evidence
    assert memory.semantic.update(id, topics=["drinks"]).evidence == links
    other = memory.semantic.store(TEA[0], kind="principle")
    assert memory.semantic.deduplicate().merges[0].kept == id
    remembered(memory, BOAT[0], BOAT[0])
    (boat,) = memory.consolidation.consolidate("speed").stored
    sure = memory.semantic.store(BOAT[0], kind="principle")
    memory.semantic.update(boat, confidence=0.5)
    assert memory.semantic.deduplicate().merges[0].kept == sure.id
    assert len(memory.semantic.get(sure.id).evidence) == 2
    assert memory.semantic.update(id, content="Ada drinks coffee").evidence == ()
    assert other.evidence == ()


def test_since_looks_at_later_events_alone(memory):
    """With `since` earlier events wait; a later call without it looks at those, and at none twice."""
    old = remembered(memory, *BOAT, occurred_at=NOON - timedelta(days=9))
    new = remembered(memory, *TEA, occurred_at=NOON)
    assert memory.consolidation.consolidate(since=NOON - timedelta(days=1)).events == 3
    assert behind(memory) == {frozenset(new)}
    assert memory.consolidation.get_status().waiting == 2
    assert memory.consolidation.consolidate().events == 2
    assert behind(memory) == {frozenset(new), frozenset(old)}


def test_marks_cover_what_was_seen():
    """A mark that another covers goes; where there are too many, the closest in time become one that covers both."""
    early, late = Mark(since=NOON, through="ep_5"), Mark(since=NOON + timedelta(days=1), through="ep_9")
    assert marked((early,), late) == (early, late)
    assert marked((early, late), Mark(since=NOON, through="ep_9")) == (Mark(since=NOON, through="ep_9"),)
    assert marked((early, late), Mark(through="ep_10")) == (Mark(through="ep_10"),)
    marks: tuple[Mark, ...] = ()
    for place in range(MAX_MARKS + 1):
        marks = marked(marks, Mark(since=NOON + timedelta(hours=place * place), through=f"ep_{place:04}"))
    assert len(marks) == MAX_MARKS
    assert marks[1] == Mark(since=NOON + timedelta(hours=1), through="ep_0002")


def test_a_memory_expires_with_what_it_quotes(memory):
    """What is to be forgotten does not live on in what was made of it."""
    until = datetime.now(UTC) + timedelta(days=3)
    remembered(memory, TEA[0], TEA[0], expires_at=until)
    (id,) = memory.consolidation.consolidate("speed").stored
    assert memory.semantic.get(id).expires_at == until


def prepared(memory, **given):
    """Let a call read ahead, and return what is left of it: the part that writes."""
    declared = lookup("consolidation.consolidate")
    storage = memory.engine.storage
    waiting = storage.prepare([Call("default", lambda: declared.start(declared.validate(given)))], Phases())
    return lambda: storage.write(waiting, Phases())[0]


def test_other_writes_go_on_while_events_are_compared(memory):
    """Events and vectors are read before the writer is taken: what is stored meanwhile waits for the next run."""
    remembered(memory, *TEA)
    finish = prepared(memory)
    remembered(memory, LONE)
    assert finish().events == 3
    assert memory.consolidation.consolidate().events == 1


@pytest.mark.parametrize("between", ["forget", "consolidate"])
def test_what_changed_meanwhile_is_not_written(memory, between):
    """Where an event was forgotten, or another run looked at it, the call writes nothing and says that it is not complete."""
    ids = remembered(memory, *TEA)
    finish = prepared(memory)
    if between == "forget":
        memory.episodic.forget([ids[0]])
    else:
        memory.consolidation.consolidate()
    before = memory.session.export()
    done = finish()
    assert (done.run, done.events, done.complete) == (None, 0, False)
    assert memory.session.export() == before
    memory.consolidation.consolidate()
    assert all(id in {event.id for event in memory.episodic.list_events()} for links in behind(memory) for id in links)


def test_a_run_is_one_transaction(memory, monkeypatch):
    """Where the record of the run cannot be stored, neither are its memories, and the next call finds everything."""
    from memlab.storage import records

    remembered(memory, *TEA)
    before = memory.session.export()
    make = records.value_of

    def fails(layer, *rest, **named):
        if layer == "consolidation.run":
            raise MemlabError(ErrorType.INTERNAL, "planted", "planted", retryable=False)
        return make(layer, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(records, "value_of", fails)
        with pytest.raises(MemlabError, match="planted"):
            memory.consolidation.consolidate()
    assert memory.session.export() == before
    assert memory.consolidation.consolidate().clusters == 1


def summarised(texts):
    """Return how many texts there are, and their shortest."""
    return f"{len(texts)} times: {min(texts, key=lambda text: (len(text), text))}"


def test_the_users_summariser_writes_the_memory(tmp_path):
    """A summariser given to `Memory.open` is told each group and writes the content; nothing else changes."""
    with Memory.open(tmp_path / "memory.duckdb", embedder=HashingEmbedder(64), hooks=Hooks(summarise=summarised)) as memory:
        tea = remembered(memory, *TEA)
        (id,) = memory.consolidation.consolidate().stored
        fact = memory.semantic.get(id)
        assert (fact.content, fact.evidence) == (f"3 times: {min(TEA, key=lambda text: (len(text), text))}", tea)


@pytest.mark.parametrize("given", [" ", "x" * 16_385, "\ud800", None, 5])
def test_a_wrong_summary_is_refused(tmp_path, given):
    """What is not a text that fits is one clear error, and changes nothing."""
    with Memory.open(tmp_path / "memory.duckdb", embedder=HashingEmbedder(64), hooks=Hooks(summarise=lambda _: given)) as memory:
        remembered(memory, *TEA)
        before = memory.session.export()
        with pytest.raises(MemlabError, match="the hook summarise returned") as caught:
            memory.consolidation.consolidate()
        assert (caught.value.type, caught.value.reason) == (ErrorType.INTERNAL, "hook")
        assert memory.session.export() == before


def test_a_failing_summariser_changes_nothing(tmp_path):
    """Its failure is one clear error without what it said; the same call works when it does."""
    broken = [True]

    def summarise(texts):
        if broken:
            raise RuntimeError("the key is hunter2")
        return summarised(texts)

    with Memory.open(tmp_path / "memory.duckdb", embedder=HashingEmbedder(64), hooks=Hooks(summarise=summarise)) as memory:
        remembered(memory, *TEA)
        before = memory.session.export()
        with pytest.raises(MemlabError, match="the hook summarise failed: RuntimeError") as caught:
            memory.consolidation.consolidate()
        assert "hunter2" not in str(caught.value)
        assert memory.session.export() == before
        broken.clear()
        assert memory.consolidation.consolidate().clusters == 1


def test_sessions_are_consolidated_apart(memory):
    """One session's events are not in another's memories, and its runs not in another's history."""
    other = memory.session.create()
    remembered(memory, TEA[0])
    memory.episodic.bulk_remember([{"content": TEA[0]}, {"content": TEA[0]}], session=other)
    assert memory.consolidation.consolidate().clusters == 0
    done = memory.consolidation.consolidate(session=other)
    assert done.clusters == 1
    assert behind(memory) == set()
    assert len(memory.consolidation.get_history(session=other)) == 1
    assert memory.consolidation.get_history(session=other)[0].number == 1


def test_a_session_keeps_how_it_consolidates(memory):
    """What was configured is used where a call says nothing, and changed one field at a time."""
    remembered(memory, *TEA)
    assert memory.consolidation.get_status().strategy == "balanced"
    memory.consolidation.configure_strategy("speed", least_events=4)
    second = memory.consolidation.configure_strategy(similarity=0.5)
    assert (second.strategy, second.similarity, second.least_events, second.version) == ("speed", 0.5, 4, 2)
    done = memory.consolidation.consolidate()
    assert (done.strategy, done.clusters, done.alone) == ("speed", 0, 3)
    assert memory.consolidation.get_status(session=memory.session.create()).strategy == "balanced"


def test_the_status_follows_the_data(memory):
    """What waits, what is alone and how far it is change with events and runs."""
    nothing = memory.consolidation.get_status()
    assert (nothing.waiting, nothing.progress, nothing.complete, nothing.last_run) == (0, 1.0, True, None)
    remembered(memory, *TEA, LONE)
    assert (memory.consolidation.get_status().waiting, memory.consolidation.get_status().progress) == (4, 0.0)
    memory.consolidation.consolidate(limit=3)
    status = memory.consolidation.get_status()
    assert (status.waiting, status.progress, status.complete, status.last_run.events) == (1, 0.75, False, 3)
    memory.consolidation.consolidate()
    assert (memory.consolidation.get_status().alone, memory.consolidation.get_status().complete) == (1, True)


def test_the_metrics_follow_the_data(memory):
    """Coverage, compression, mean size and what was retained are what was stored, looked at and deleted."""
    nothing = memory.consolidation.get_metrics()
    assert (nothing.runs, nothing.coverage, nothing.compression, nothing.retained) == (0, 1.0, None, None)
    remembered(memory, *TEA, LONE)
    assert memory.consolidation.get_metrics().coverage == 0.0
    (id,) = memory.consolidation.consolidate().stored
    metrics = memory.consolidation.get_metrics()
    assert (metrics.runs, metrics.events, metrics.coverage, metrics.events_seen, metrics.memories_stored) == (1, 4, 1.0, 4, 1)
    assert (metrics.compression, metrics.mean_cluster_size, metrics.retained) == (4.0, 3.0, 1.0)
    memory.semantic.delete(id)
    remembered(memory, LONE)
    metrics = memory.consolidation.get_metrics()
    assert (metrics.retained, metrics.coverage, metrics.memories_stored) == (0.0, 0.8, 1)


def test_the_history_has_pages(memory):
    """Runs are listed from the latest on, and every one is on one page."""
    for content in (*TEA, LONE):
        remembered(memory, content)
        memory.consolidation.consolidate()
    first = memory.consolidation.get_history(limit=3)
    second = memory.consolidation.get_history(limit=3, cursor=first.cursor)
    assert [run.number for run in (*first, *second)] == [4, 3, 2, 1]
    assert second.cursor is None


def test_patterns_are_what_meets_more_often_than_chance(memory):
    """Pairs of tags, tags at a time of day and pairs of words come with counts, support and lift worked out by hand."""
    assert len(memory.consolidation.analyze_patterns()) == 0
    remembered(memory, *["tea morning"] * 3, tags=["tea", "garden"], occurred_at=NOON.replace(hour=8))
    remembered(memory, *["boat evening"] * 5, tags=["boat"], occurred_at=NOON.replace(hour=20))
    found = {(one.kind, one.first, one.second): one for one in memory.consolidation.analyze_patterns(limit=50)}
    pair = found["tags", "garden", "tea"]
    assert (pair.events, pair.support, pair.lift) == (3, 3 / 8, pytest.approx(8 / 3))
    assert pair.pmi == pytest.approx(1.4150374992788437)
    assert found["time", "boat", "evening"].lift == pytest.approx(8 / 5)
    assert found["words", "morning", "tea"].events == 3
    assert ("time", "boat", "morning") not in found
    remembered(memory, "tea morning", tags=["tea"], occurred_at=NOON.replace(hour=8))
    found = {(one.kind, one.first, one.second): one for one in memory.consolidation.analyze_patterns(limit=50)}
    assert found["tags", "garden", "tea"].lift == pytest.approx(9 * 3 / (3 * 4))
    assert len(memory.consolidation.analyze_patterns(limit=1)) == 1


def test_recommendations_follow_their_rules(memory):
    """Each rule speaks when its figure is reached, and is silent before and after."""

    def advised():
        return [(one.operation, one.priority) for one in memory.consolidation.get_recommendations()]

    remembered(memory, *(f"word{place}" for place in range(19)))
    assert advised() == []
    remembered(memory, "word19")
    assert advised() == [("consolidation.consolidate", "normal")]
    memory.consolidation.consolidate(similarity=1.0)
    (one,) = memory.consolidation.get_recommendations()
    assert one.operation == "consolidation.configure_strategy"
    assert "try a similarity of 0.90" in one.reason
    remembered(memory, *["tea"] * 60)
    (done,) = memory.consolidation.consolidate("speed", similarity=1.0).stored
    (one,) = memory.consolidation.get_recommendations()
    assert "hold 60 events each" in one.reason
    memory.semantic.delete(done)
    assert [one.priority for one in memory.consolidation.get_recommendations()] == ["normal", "low"]


def test_an_export_holds_the_links(memory):
    """The links are part of what a session can take along."""
    tea = remembered(memory, *TEA)
    memory.consolidation.consolidate()
    lines = [json.loads(line) for line in memory.session.export().splitlines()]
    assert [line["memory"]["evidence"] for line in lines if line["layer"] == "semantic"] == [list(tea)]
    assert sum(line["layer"] == "consolidation.run" for line in lines) == 1
