"""What the memory says of itself is worked out by hand here, and every figure changes with the data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from memlab.measure import clock
from memlab.storage.calls import Call
from memlab.storage.demands import Insert, record
from memlab.storage.phases import Phases
from memlab.values import Trigger

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PAST, LATER = NOW - timedelta(hours=1), NOW + timedelta(days=365 * 50)


@pytest.fixture(autouse=True)
def now(monkeypatch):
    """The time stands still."""
    monkeypatch.setattr(clock, "now", lambda: NOW)
    monkeypatch.setattr(clock, "wall_ns", lambda: int(NOW.timestamp() * 1e9))


def kept(memory, layer, **fields):
    """Store a record of a layer and return it; `session` says whose it is."""
    session = fields.pop("session", "default")

    def plan():
        return (yield Insert(layer, (record(None, **fields),))).values[0]

    storage = memory.engine.storage
    (value,) = storage.write(storage.prepare([Call(session, plan)], Phases()), Phases())
    return value


def test_an_empty_memory_has_answers(memory):
    """Nothing is divided by nothing: what cannot be judged is None, what can be counted is 0."""
    assert memory.meta.memory_health().status == "empty"
    assert memory.meta.get_memory_stats().memories == 0
    assert len(memory.meta.get_expertise()) == 0
    assert len(memory.meta.get_expertise("tea")) == 0
    assert memory.meta.get_cognitive_load().load == 0.0
    assert memory.meta.get_quality_metrics().score is None
    attention = memory.meta.get_attention_metrics()
    assert (attention.events, attention.focus, attention.drift, attention.most) == (0, None, None, ())
    assert len(memory.meta.find_gaps()) == 0
    assert len(memory.meta.get_recommendations()) == 0
    progress = memory.meta.get_progress_metrics()
    assert (progress.events, progress.event_growth, progress.tasks_completed) == (0, None, None)


def test_health_is_the_mean_of_its_parts(memory):
    """Confidence, uniqueness, freshness, consolidation and punctuality each move the score as their formulas say."""
    memory.semantic.store("tea", confidence=0.5)
    health = memory.meta.memory_health()
    assert (health.confidence, health.uniqueness, health.freshness, health.consolidated, health.on_time) == (
        0.5,
        1,
        1,
        None,
        None,
    )
    assert (health.score, health.status) == (pytest.approx(2.5 / 3), "good")
    memory.semantic.store("tea", confidence=0.1)
    memory.episodic.remember("rain", confidence=0.3, occurred_at=NOW - timedelta(days=31))
    health = memory.meta.memory_health()
    assert (health.confidence, health.uniqueness, health.consolidated) == (pytest.approx(0.3), 0.5, 0.0)
    assert health.freshness == pytest.approx(2 / 3)
    assert (health.score, health.status) == (pytest.approx((0.3 + 0.5 + 2 / 3 + 0) / 4), "poor")
    memory.consolidation.consolidate()
    kept(memory, "prospective.task", title="a", due_at=PAST)
    kept(memory, "prospective.task", title="b", due_at=LATER)
    kept(memory, "prospective.task", title="c", status="completed", due_at=PAST)
    health = memory.meta.memory_health()
    assert (health.consolidated, health.on_time, health.status) == (1.0, 0.5, "fair")
    assert health.score == pytest.approx((0.3 + 0.5 + 2 / 3 + 1.0 + 0.5) / 5)


def test_expertise_grows_with_facts_and_confidence(memory):
    """expertise = mean confidence x facts / (facts + 10), the best known first; events of the domain are counted."""
    memory.semantic.bulk_store([{"content": f"tea {n}", "topics": ["tea"], "confidence": 1.0} for n in range(10)])
    memory.semantic.store("boat", topics=["boats"], confidence=0.5)
    memory.episodic.remember("tea", tags=["tea"])
    tea, boats = memory.meta.get_expertise()
    assert (tea.domain, tea.facts, tea.events, tea.expertise, tea.level) == ("tea", 10, 1, 0.5, "proficient")
    assert (boats.expertise, boats.level) == (pytest.approx(0.5 / 11), "familiar")
    assert [one.domain for one in memory.meta.get_expertise(limit=1)] == ["tea"]
    memory.semantic.bulk_store([{"content": f"tea {n}", "topics": ["tea"], "confidence": 0.7} for n in range(10, 31)])
    (tea,) = memory.meta.get_expertise("tea")
    assert (tea.expertise, tea.level) == (pytest.approx(24.7 / 41), "expert")
    memory.episodic.remember("sail", tags=["sails"])
    (sails,) = memory.meta.get_expertise("sails")
    assert (sails.events, sails.level) == (1, "none")


def test_load_is_what_presses(memory):
    """Begun and overdue tasks count whole, events not looked at a hundredth; seven of them are half."""
    for place in range(6):
        kept(memory, "prospective.task", title=str(place), status="in_progress", due_at=PAST)
    kept(memory, "prospective.task", title="late", due_at=PAST)
    kept(memory, "prospective.task", title="soon", due_at=LATER)
    kept(memory, "prospective.task", title="done", status="completed")
    kept(memory, "prospective.goal", name="sail")
    kept(memory, "prospective.goal", name="sailed", status="achieved")
    kept(memory, "prospective.trigger", action="call", event="rain")
    load = memory.meta.get_cognitive_load()
    assert (load.open_tasks, load.in_progress, load.overdue, load.active_goals, load.waiting_triggers) == (8, 6, 1, 1, 1)
    assert (load.items, load.load, load.level) == (7.0, 0.5, "medium")
    memory.episodic.bulk_remember([{"content": str(place)} for place in range(700)])
    load = memory.meta.get_cognitive_load()
    assert (load.unread_events, load.items, load.level) == (700, 14.0, "high")


def test_quality_follows_the_memories(memory):
    """Mean and low confidence, repeated contents and changes are shares of each layer."""
    for content, confidence in (("tea", 0.2), ("tea", 0.4), ("boat", 0.9), ("rain", 0.5)):
        memory.semantic.store(content, confidence=confidence)
    memory.episodic.remember("tea", confidence=0.25)
    quality = memory.meta.get_quality_metrics()
    facts = quality.facts
    assert (facts.memories, facts.mean_confidence, facts.low_confidence, facts.duplicates) == (4, 0.5, 0.5, 0.25)
    assert (facts.revised, quality.score, quality.events.mean_confidence) == (0.0, 0.375, 0.25)
    memory.semantic.update(memory.semantic.keyword_search("boat")[0].id, confidence=0.1)
    facts = memory.meta.get_quality_metrics().facts
    assert (facts.revised, facts.low_confidence, facts.mean_confidence) == (0.25, 0.75, pytest.approx(0.3))


def test_attention_is_where_the_last_events_are(memory):
    """Shares, entropy, focus and drift are those of the tags of the last events."""

    def at(hour, *tags):
        memory.episodic.remember("something", tags=list(tags), occurred_at=NOW + timedelta(hours=hour))

    at(0, "tea")
    at(1, "tea")
    seen = memory.meta.get_attention_metrics()
    assert (seen.events, seen.tags, seen.entropy, seen.focus, seen.drift) == (2, 1, 0.0, 1.0, 0.0)
    at(2, "boats")
    at(3, "boats")
    seen = memory.meta.get_attention_metrics()
    assert (seen.entropy, seen.focus, seen.drift) == (1.0, 0.0, 1.0)
    assert [(one.tag, one.share, one.change) for one in seen.most] == [("boats", 0.5, 1.0), ("tea", 0.5, -1.0)]
    at(4, "boats", "rain")
    seen = memory.meta.get_attention_metrics(limit=1)
    assert [(one.tag, one.events, one.share) for one in seen.most] == [("boats", 3, 0.5)]
    assert seen.entropy == pytest.approx(1.459147917027245)  # of 1/2, 1/3, 1/6
    assert seen.focus == pytest.approx(1 - 1.459147917027245 / 1.584962500721156)


def test_totals_are_of_every_layer(memory):
    """Each layer that holds something is there with its count, share, changes and times."""
    first = memory.semantic.store("tea", confidence=0.5)
    memory.episodic.remember("rain", occurred_at=PAST)
    memory.episodic.remember("snow", occurred_at=NOW)
    kept(memory, "graph.entity", name="Ada", type="person")
    totals = memory.meta.get_memory_stats()
    layers = {one.layer: one for one in totals.layers}
    assert (totals.memories, set(layers)) == (4, {"episodic", "semantic", "graph.entity"})
    assert (layers["episodic"].memories, layers["episodic"].share) == (2, 0.5)
    assert (layers["episodic"].oldest, layers["episodic"].newest) == (PAST, NOW)
    assert (layers["semantic"].mean_confidence, layers["semantic"].changed) == (0.5, 0)
    assert (layers["graph.entity"].mean_confidence, layers["graph.entity"].oldest) == (None, None)
    memory.semantic.update(first.id, confidence=1.0)
    changed = {one.layer: one for one in memory.meta.get_memory_stats().layers}["semantic"]
    assert (changed.changed, changed.mean_confidence) == (1, 1.0)


def test_gaps_are_found_and_filled(memory):
    """Each kind of gap is there with its score, and gone when it is filled."""
    memory.episodic.bulk_remember([{"content": f"tea {n}", "tags": ["tea"]} for n in range(3)] + [{"content": "rain"}])
    fact = memory.semantic.store("boats float", topics=["boats"], confidence=0.25)
    ada = kept(memory, "graph.entity", name="Ada", type="person")
    goal = kept(memory, "prospective.goal", name="sail")
    gaps = {gap.kind: gap for gap in memory.meta.find_gaps()}
    assert (gaps["unlearned"].name, gaps["unlearned"].score) == ("tea", 0.75)
    assert (gaps["uncertain"].name, gaps["uncertain"].score) == ("boats", 0.75)
    assert (gaps["isolated"].id, gaps["isolated"].score) == (ada.id, 1.0)
    assert (gaps["idle"].id, gaps["idle"].score) == (goal.id, 1.0)
    assert [gap.score for gap in memory.meta.find_gaps(2)] == [1.0, 1.0]
    memory.semantic.update(fact.id, confidence=0.75)
    memory.semantic.store("tea is hot", topics=["tea"])
    bo = kept(memory, "graph.entity", name="Bo", type="person")
    ends = {"source": ada.id, "target": bo.id, "source_name": "Ada", "target_name": "Bo"}
    kept(memory, "graph.relationship", type="knows", **ends)
    kept(memory, "prospective.task", title="buy a boat", goal=goal.id)
    assert len(memory.meta.find_gaps()) == 0


def test_recommendations_follow_their_rules(memory):
    """Each rule speaks when its figure is reached; the pressing ones come first."""

    def advised():
        return [(one.operation, one.priority) for one in memory.meta.get_recommendations()]

    memory.episodic.bulk_remember([{"content": str(place)} for place in range(20)])
    assert advised() == [("consolidation.consolidate", "normal")]
    kept(memory, "prospective.task", title="a", due_at=PAST)
    due = {"due_since": PAST} if "due_since" in Trigger.__struct_fields__ else {}
    kept(memory, "prospective.trigger", action="call", at=PAST, **due)
    assert advised()[:2] == [("prospective.get_pending_tasks", "high"), ("prospective.check_triggers", "high")]
    memory.semantic.bulk_store([{"content": "tea", "confidence": 0.1}] * 10)
    assert [name for name, _ in advised()] == [
        "prospective.get_pending_tasks",
        "prospective.check_triggers",
        "consolidation.consolidate",
        "semantic.deduplicate",
        "semantic.bulk_delete",
    ]
    memory.semantic.deduplicate(1.0)
    memory.consolidation.consolidate()
    kept(memory, "graph.entity", name="Ada", type="person")
    assert [name for name, _ in advised()][2:] == ["graph.create_relationship"]
    (last,) = memory.meta.get_recommendations()[2:]
    assert last.reason == "Ada is isolated: it has no relationship"


def test_progress_compares_two_periods(memory):
    """Events and facts of the last days stand against those of the days before; what is done is a share."""
    for days in (0, 1, 1, 8, 15):
        memory.episodic.remember("rain", occurred_at=NOW - timedelta(days=days))
    memory.episodic.remember("rain", occurred_at=NOW + timedelta(days=1))
    memory.semantic.store("tea")
    progress = memory.meta.get_progress_metrics()
    assert (progress.events, progress.events_before, progress.event_growth) == (3, 1, 2.0)
    assert (progress.facts, progress.facts_before, progress.fact_growth) == (1, 0, None)
    assert (progress.active_days, progress.events_by_day) == (2, (0, 0, 0, 0, 0, 2, 1))
    assert (progress.tasks_completed, progress.goals_achieved, progress.consolidated) == (None, None, 0.0)
    assert memory.meta.get_progress_metrics(1).events == 1
    kept(memory, "prospective.task", title="a", status="completed")
    kept(memory, "prospective.task", title="b", status="in_progress")
    kept(memory, "prospective.task", title="c", status="cancelled")
    kept(memory, "prospective.goal", name="d", status="achieved")
    memory.consolidation.consolidate()
    progress = memory.meta.get_progress_metrics()
    assert (progress.tasks_completed, progress.goals_achieved, progress.consolidated) == (0.5, 1.0, 1.0)


def test_another_session_is_not_counted(memory):
    """No figure of a session knows of another's memories."""
    before = everything(memory)
    other = memory.session.create()
    memory.episodic.bulk_remember([{"content": "tea", "tags": ["tea"]}] * 30, session=other)
    memory.semantic.store("tea", topics=["tea"], confidence=0.1, session=other)
    kept(memory, "prospective.task", title="a", due_at=PAST, session=other)
    kept(memory, "graph.entity", name="Ada", type="person", session=other)
    assert everything(memory) == before
    assert everything(memory, session=other) != before


def everything(memory, **session):
    """Return what every operation of the layer answers."""
    calls = (
        memory.meta.memory_health,
        memory.meta.get_expertise,
        memory.meta.get_cognitive_load,
        memory.meta.get_quality_metrics,
        memory.meta.get_attention_metrics,
        memory.meta.get_memory_stats,
        memory.meta.find_gaps,
        memory.meta.get_recommendations,
        memory.meta.get_progress_metrics,
    )
    return [call(**session) for call in calls]
