"""What the memory knows about itself.

Every figure is counted when it is asked for, over all layers of the session; its formula stands where it is declared. A *layer*
here is one kind of record that storage keeps: `episodic`, `semantic`, `prospective.task`, …
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from memlab.measure import clock
from memlab.operations.consolidation import WAITING, Recommendation
from memlab.operations.parameters import Limit, Tag
from memlab.operations.registry import operation
from memlab.storage.demands import Columns, Count, Filter, Page, Plan, TagTotals, Unseen
from memlab.storage.records import NAMES
from memlab.values import Goal, Table

FRESH_DAYS = 30
LOW_CONFIDENCE = 0.5
HALF_EXPERT = 10  # facts of a topic that are half of what could be known
ITEMS_IN_MIND = 7  # Miller 1956
ATTENDED = 500  # events that attention is measured on
MOST_TOPICS = 500  # topics that are looked at, the most frequent
LEAST_EVENTS = 3  # of a tag that is worth a fact
LOOKED_AT = 100  # entities and goals that gaps are looked for in, the latest
DUPLICATES, UNSURE = 0.01, 0.2  # shares from which something should be done

_OPEN = ("status:pending", "status:in_progress")


class LayerTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of one layer.

    Attributes:
        memories: how many there are.
        share: memories / memories of all layers.
        changed: memories that are not as they were stored first.
        mean_confidence: sum of confidences / memories; None for layers whose records carry none.
        oldest, newest: first and last time of occurring (events) or storing (facts); None for other layers.
    """

    layer: str
    memories: int
    share: float
    changed: int
    mean_confidence: float | None = None
    oldest: datetime | None = None
    newest: datetime | None = None


class MemoryStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of a session.

    Attributes:
        memories: of all layers together.
        layers: totals of each; layers without a memory are left out.
    """

    memories: int
    layers: tuple[LayerTotals, ...]


class MemoryHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How well a memory is kept; every part in [0, 1], None where there is nothing to judge.

    Attributes:
        status: `good` from 0.7 on, `fair` from 0.4 on, else `poor`; `empty` where there is nothing to judge.
        score: mean of the parts that are there.
        confidence: mean confidence of events and facts.
        uniqueness: different contents of facts / facts.
        freshness: events and facts of the last 30 days / events and facts.
        consolidated: events that consolidation has looked at / events.
        on_time: 1 - overdue tasks / open tasks.
    """

    status: Literal["good", "fair", "poor", "empty"]
    score: float | None
    confidence: float | None
    uniqueness: float | None
    freshness: float | None
    consolidated: float | None
    on_time: float | None


class Expertise(msgspec.Struct, frozen=True, kw_only=True):
    """How much is known of one domain.

    Attributes:
        domain: a topic of facts, or a tag of events.
        facts, events: how many belong to it.
        mean_confidence: of the facts; None where there are none.
        expertise: mean_confidence x facts / (facts + 10), in [0, 1).
        level: `expert` from 0.6 on, `proficient` from 0.3 on, `familiar` with any fact, else `none`.
    """

    domain: str
    facts: int
    events: int
    mean_confidence: float | None
    expertise: float
    level: Literal["expert", "proficient", "familiar", "none"]


class CognitiveLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What is on the mind.

    Attributes:
        open_tasks: pending and in progress.
        in_progress: tasks that were begun.
        overdue: pending tasks whose time has passed.
        active_goals, waiting_triggers: how many there are.
        unread_events: events that consolidation has not looked at.
        items: in_progress + overdue + unread_events / 100.
        load: items / (items + 7), in [0, 1).
        level: `high` from 2/3 on (14 items), `medium` from 1/3 on (3.5 items), else `low`.
    """

    open_tasks: int
    in_progress: int
    overdue: int
    active_goals: int
    waiting_triggers: int
    unread_events: int
    items: float
    load: float
    level: Literal["low", "medium", "high"]


class LayerQuality(msgspec.Struct, frozen=True, kw_only=True):
    """How good the memories of one layer are.

    Attributes:
        memories: how many there are.
        mean_confidence: sum of confidences / memories; None where there are none.
        low_confidence: memories of a confidence below 0.5 / memories; 0 where there are none.
        duplicates: 1 - different contents / memories; 0 where there are none.
        revised: memories that were changed since they were stored / memories; 0 where there are none.
    """

    memories: int
    mean_confidence: float | None
    low_confidence: float
    duplicates: float
    revised: float


class QualityMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """How good the memories are.

    Attributes:
        events, facts: the figures of either layer.
        score: mean confidence of the facts x (1 - duplicates of the facts); None where there are no facts.
    """

    events: LayerQuality
    facts: LayerQuality
    score: float | None


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """How much attention one tag gets.

    Attributes:
        events: that carry it, of those looked at.
        share: events / carried tags, all tags together; shares add up to 1.
        change: its share in the newer half of the events - its share in the older half.
    """

    tag: str
    events: int
    share: float
    change: float


class AttentionMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What the last events are about.

    Attributes:
        events: looked at.
        tags: different tags in them.
        entropy: of the shares, -sum p log2 p, bits.
        focus: 1 - entropy / log2 tags: 1 for one tag alone, 0 for many of equal share; None where there are no tags.
        drift: Jensen-Shannon divergence between the shares in the newer and in the older half, bits, in [0, 1]; None where a
            half has no tags.
        most: the tags that get the most.
    """

    events: int
    tags: int
    entropy: float
    focus: float | None
    drift: float | None
    most: tuple[Attention, ...]


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the memory should know better.

    Attributes:
        kind: `unlearned` (much happened, little is known), `uncertain` (what is known is not sure), `isolated` (an entity
            without a relationship) or `idle` (an active goal without a task).
        name: tag, topic, entity or goal.
        id: of the entity or goal; None for tags and topics.
        score: how wide the gap is, in [0, 1].
        reason: with the figures that say so.
    """

    kind: Literal["unlearned", "uncertain", "isolated", "idle"]
    name: str
    id: str | None = None
    score: float
    reason: str


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What has grown.

    Attributes:
        days: length of the period that ends now.
        events, facts: that occurred or were stored in it.
        events_before, facts_before: in the period of the same length before it.
        event_growth, fact_growth: this period / the one before - 1; None where there was nothing before.
        active_days: days of the period with an event; a day has 24 hours and ends at the hour of now.
        events_by_day: for each day, the oldest first.
        tasks_completed: completed tasks / completed and open ones; None where there are none.
        goals_achieved: achieved goals / achieved and active ones; None where there are none.
        consolidated: events that consolidation has looked at / events; None where there are none.
    """

    days: int
    events: int
    facts: int
    events_before: int
    facts_before: int
    event_growth: float | None
    fact_growth: float | None
    active_days: int
    events_by_day: tuple[int, ...]
    tasks_completed: float | None
    goals_achieved: float | None
    consolidated: float | None


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


_EPOCH = clock.moment(0)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


def _different(values: np.ndarray) -> int:
    ordered = np.sort(values)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + 1 if len(ordered) else 0


def _unread() -> Plan[int]:
    """Return how many events consolidation has not looked at."""
    runs, _ = yield Page("consolidation.run", 1)
    _, _, waiting = yield Unseen("episodic", runs[0].marks if runs else (), 0)
    return waiting  # type: ignore[no-any-return]


def _overdue() -> Plan[int]:
    """Return how many pending tasks should have been done by now."""
    return (yield Count("prospective.task", Filter(tags=("status:pending",), until=clock.now())))  # type: ignore[no-any-return]


# The answers of this layer depend on every other, and on the time: none is kept.
@operation("meta.memory_health", reads=True, cacheable=False, example=lambda chance, known: {})
def memory_health() -> Plan[MemoryHealth]:
    """Return how well the memory is kept: one score and the parts that it is the mean of.

    confidence = mean confidence of events and facts; uniqueness = different contents of facts / facts; freshness = events and
    facts of the last 30 days / events and facts; consolidated = events that consolidation has looked at / events; on_time =
    1 - overdue tasks / open tasks, a pending task being overdue when its time has passed. Parts with nothing to judge are left
    out of the mean.
    """
    events, facts = (yield Columns("episodic")), (yield Columns("semantic"))
    unread = yield from _unread()
    open_tasks: int = yield Count("prospective.task", Filter(tags=_OPEN))
    overdue = yield from _overdue()
    both = len(events["seq"]) + len(facts["seq"])
    since = _microseconds(clock.now() - timedelta(days=FRESH_DAYS))
    fresh = int((events["occurred"] >= since).sum() + (facts["occurred"] >= since).sum())
    parts = {
        "confidence": _ratio(events["confidence"].sum() + facts["confidence"].sum(), both),
        "uniqueness": _ratio(_different(facts["digest"]), len(facts["seq"])),
        "freshness": _ratio(fresh, both),
        "consolidated": _ratio(len(events["seq"]) - unread, len(events["seq"])),
        "on_time": _ratio(open_tasks - overdue, open_tasks),
    }
    known = [part for part in parts.values() if part is not None]
    if not known:
        return MemoryHealth(status="empty", score=None, **parts)
    score = sum(known) / len(known)
    return MemoryHealth(status="good" if score >= 0.7 else "fair" if score >= 0.4 else "poor", score=score, **parts)


# Counts the tags of every fact.
@operation(
    "meta.get_expertise",
    reads=True,
    cost="complex",
    cacheable=False,
    example=lambda chance, known: {"domain": chance.choice([*known.tags, None]), "limit": chance.randint(1, 20)},
)
def get_expertise(
    domain: Annotated[Tag, Meta(description="A topic or tag; every topic of the facts, where left out.")] | None = None,
    limit: Annotated[int, Meta(ge=1, le=100, description="Domains returned at most.")] = 20,
) -> Plan[Table[Expertise]]:
    """Return how much is known of a domain, or of every topic, the best known first.

    expertise = mean confidence of its facts x facts / (facts + 10). Of the 500 topics with the most facts; nothing
    is said of a domain that no fact and no event belongs to.
    """
    if domain is not None:
        columns = yield Columns("semantic", Filter(tags=(domain,)))
        known = [(domain, len(columns["seq"]), _ratio(columns["confidence"].sum(), len(columns["seq"])))]
    else:
        rows = yield TagTotals("semantic", MOST_TOPICS)
        known = [(row["tag"], row["memories"], row["mean_confidence"]) for row in rows]
    known.sort(key=lambda one: (-_expertise(one[1], one[2]), one[0]))
    found = []
    for name, facts, mean in known[:limit]:
        value = _expertise(facts, mean)
        found.append(
            Expertise(
                domain=name,
                facts=facts,
                events=(yield Count("episodic", Filter(tags=(name,)))),
                mean_confidence=mean,
                expertise=value,
                level="expert" if value >= 0.6 else "proficient" if value >= 0.3 else "familiar" if facts else "none",
            )
        )
    return Table(one for one in found if one.facts or one.events)


def _expertise(facts: int, mean: float | None) -> float:
    return (mean or 0.0) * facts / (facts + HALF_EXPERT)


@operation("meta.get_cognitive_load", reads=True, cacheable=False, example=lambda chance, known: {})
def get_cognitive_load() -> Plan[CognitiveLoad]:
    """Return what is on the mind: tasks, goals, triggers, and events that were not looked at yet.

    items = tasks in progress + overdue pending tasks + events not looked at / 100; load = items / (items + 7): seven items are
    half of what one can bear.
    Source: Miller 1956, doi 10.1037/h0043158.
    """
    pending: int = yield Count("prospective.task", Filter(tags=("status:pending",)))
    begun: int = yield Count("prospective.task", Filter(tags=("status:in_progress",)))
    overdue = yield from _overdue()
    goals: int = yield Count("prospective.goal", Filter(tags=("status:active",)))
    triggers: int = yield Count("prospective.trigger", Filter(tags=("waiting",)))
    unread = yield from _unread()
    items = begun + overdue + unread / 100
    load = items / (items + ITEMS_IN_MIND)
    return CognitiveLoad(
        open_tasks=pending + begun,
        in_progress=begun,
        overdue=overdue,
        active_goals=goals,
        waiting_triggers=triggers,
        unread_events=unread,
        items=items,
        load=load,
        level="high" if load >= 2 / 3 else "medium" if load >= 1 / 3 else "low",
    )


@operation("meta.get_quality_metrics", reads=True, cacheable=False, example=lambda chance, known: {})
def get_quality_metrics() -> Plan[QualityMetrics]:
    """Return how sure, unique and up to date events and facts are.

    mean_confidence = sum of confidences / memories; low_confidence = memories below 0.5 / memories; duplicates = 1 - different
    contents / memories; revised = changed memories / memories; score = mean confidence x (1 - duplicates) of the facts.
    """
    events = _quality((yield Columns("episodic")))
    facts = _quality((yield Columns("semantic")))
    score = None if facts.mean_confidence is None else facts.mean_confidence * (1.0 - facts.duplicates)
    return QualityMetrics(events=events, facts=facts, score=score)


def _quality(columns: dict[str, np.ndarray]) -> LayerQuality:
    memories = len(columns["seq"])
    return LayerQuality(
        memories=memories,
        mean_confidence=_ratio(columns["confidence"].sum(), memories),
        low_confidence=_ratio((columns["confidence"] < LOW_CONFIDENCE).sum(), memories) or 0.0,
        duplicates=1.0 - _different(columns["digest"]) / memories if memories else 0.0,
        revised=_ratio((columns["seq"] != columns["origin"]).sum(), memories) or 0.0,
    )


# Five hundred events that are not in memory take some 30 ms to read.
@operation(
    "meta.get_attention_metrics",
    reads=True,
    cost="complex",
    cacheable=False,
    example=lambda chance, known: {"limit": chance.randint(1, 20)},
)
def get_attention_metrics(
    limit: Annotated[int, Meta(ge=1, le=100, description="Tags returned at most.")] = 10,
) -> Plan[AttentionMetrics]:
    """Return what the last 500 events are about, how focused they are, and how that changes.

    share = events with the tag / carried tags; entropy = -sum share x log2 share; focus = 1 - entropy / log2 tags; drift =
    Jensen-Shannon divergence between the shares in the newer half of the events and in the older half.
    Source: Shannon 1948, doi 10.1002/j.1538-7305.1948.tb01338.x; Lin 1991, doi 10.1109/18.61115.
    """
    events, _ = yield Page("episodic", ATTENDED)
    half = len(events) // 2
    newer, older = (Counter(tag for event in part for tag in event.tags) for part in (events[:half], events[half:]))
    counts = newer + older
    names = sorted(counts, key=lambda tag: (-counts[tag], tag))
    shares, new, old = (_shares(count, names) for count in (counts, newer, older))
    entropy = _entropy(shares)
    drift = None
    if newer and older:
        drift = min(1.0, max(0.0, _entropy((new + old) / 2) - (_entropy(new) + _entropy(old)) / 2))
    most = tuple(
        Attention(tag=tag, events=counts[tag], share=float(shares[place]), change=float(new[place] - old[place]))
        for place, tag in enumerate(names[:limit])
    )
    focus = None
    if names:
        focus = 1.0 if len(names) == 1 else max(0.0, 1.0 - entropy / float(np.log2(len(names))))
    return AttentionMetrics(events=len(events), tags=len(names), entropy=entropy, focus=focus, drift=drift, most=most)


def _shares(counts: Counter[str], names: Sequence[str]) -> np.ndarray:
    values = np.array([counts[name] for name in names], np.float64)
    return values / max(1.0, float(values.sum()))


def _entropy(shares: np.ndarray) -> float:
    there = shares[shares > 0.0]
    return float(-(there * np.log2(there)).sum()) + 0.0


@operation("meta.get_memory_stats", reads=True, cacheable=False, example=lambda chance, known: {})
def get_memory_stats() -> Plan[MemoryStatistics]:
    """Return totals of every layer that holds something.

    share = memories of the layer / memories of all; changed = memories that are not as they were stored first; mean_confidence
    = sum of confidences / memories; oldest and newest are of occurring for events, of storing for facts.
    """
    found: list[LayerTotals] = []
    every = {}
    for layer in NAMES:
        every[layer] = yield Columns(layer)
    memories = sum(len(columns["seq"]) for columns in every.values())
    for layer, columns in every.items():
        count = len(columns["seq"])
        told = layer in ("episodic", "semantic")
        if count:
            found.append(
                LayerTotals(
                    layer=layer,
                    memories=count,
                    share=count / memories,
                    changed=int((columns["seq"] != columns["origin"]).sum()),
                    mean_confidence=_ratio(columns["confidence"].sum(), count) if told else None,
                    oldest=_moment(int(columns["occurred"].min())) if told else None,
                    newest=_moment(int(columns["occurred"].max())) if told else None,
                )
            )
    return MemoryStatistics(memories=memories, layers=tuple(found))


# Counts the tags of every event and fact.
@operation(
    "meta.find_gaps",
    reads=True,
    cost="complex",
    cacheable=False,
    example=lambda chance, known: {"limit": chance.randint(1, 50)},
)
def find_gaps(limit: Limit = 20) -> Plan[Table[Gap]]:
    """Return what the memory should know better, the widest gap first.

    unlearned: a tag of at least 3 events with less than a tenth as many facts; score = events with it / events x
    (1 - facts / (facts + events with it)). uncertain: a topic whose facts have a mean confidence below 0.5; score = facts of it
    / facts x (1 - mean confidence). isolated: an entity without a relationship, score = 1 / entities. idle: an active goal
    without a task, score = 1 / active goals. Of the 500 most frequent tags and topics, the 100 latest entities and goals.
    """
    events, facts = (yield Count("episodic")), (yield Count("semantic"))
    tags = yield TagTotals("episodic", MOST_TOPICS)
    topics = {row["tag"]: row for row in (yield TagTotals("semantic", MOST_TOPICS))}
    found: list[Gap] = []
    for row in tags:
        name, count = row["tag"], row["memories"]
        known = topics[name]["memories"] if name in topics else 0
        if name not in topics and len(topics) == MOST_TOPICS:  # it may be one of the rarer topics
            known = yield Count("semantic", Filter(tags=(name,)))
        if count >= LEAST_EVENTS and 10 * known < count:
            score = count / events * (1.0 - known / (known + count))
            found.append(Gap(kind="unlearned", name=name, score=score, reason=f"{count:,} events, {known:,} facts"))
    for name, row in topics.items():
        mean, count = row["mean_confidence"], row["memories"]
        if mean < LOW_CONFIDENCE:
            reason = f"{count:,} facts of a mean confidence of {mean:.2f}"
            found.append(Gap(kind="uncertain", name=name, score=count / facts * (1.0 - mean), reason=reason))
    found += yield from _lonely()
    found.sort(key=lambda gap: (-gap.score, gap.kind, gap.name))
    return Table(found[:limit])


def _lonely() -> Plan[list[Gap]]:
    """Return entities without a relationship, and active goals without a task."""
    found: list[Gap] = []
    entities, _ = yield Page("graph.entity", LOOKED_AT)
    total: int = yield Count("graph.entity")
    for entity in entities:
        if not (yield Count("graph.relationship", Filter(tags=(f"of:{entity.id}",)))):
            found.append(Gap(kind="isolated", name=entity.name, id=entity.id, score=1 / total, reason="it has no relationship"))
    active = Filter(tags=("status:active",))
    goals, _ = yield Page("prospective.goal", LOOKED_AT, active)
    total = yield Count("prospective.goal", active)
    for goal in goals:
        if not (yield Count("prospective.task", Filter(tags=(f"goal:{goal.id}",)))):
            found.append(_idle(goal, total))
    return found


def _idle(goal: Goal, total: int) -> Gap:
    return Gap(kind="idle", name=goal.name, id=goal.id, score=1 / total, reason="no task serves it")


# Looks for gaps, which counts the tags of every event and fact.
@operation("meta.get_recommendations", reads=True, cost="complex", cacheable=False, example=lambda chance, known: {})
def get_recommendations() -> Plan[Table[Recommendation]]:
    """Return what should be done for the memory, the most pressing first.

    The rules: a pending task whose time has passed -> see the pending tasks (high); a trigger whose time has come -> check the
    triggers (high); at least 20 events that consolidation has not looked at -> consolidate; more than 0.01 of the facts repeat
    a content -> deduplicate; more than 0.2 of at least 10 facts have a confidence below 0.5 -> delete or confirm them (low);
    a gap of `meta.find_gaps` of a score from 0.1 on -> the widest (low).
    """
    found: list[Recommendation] = []

    def advise(priority: Literal["high", "normal", "low"], operation: str, reason: str) -> None:
        found.append(Recommendation(priority=priority, operation=operation, reason=reason))

    overdue = yield from _overdue()
    if overdue:
        advise("high", "prospective.get_pending_tasks", f"{overdue:,} pending tasks are past their time")
    due: int = yield Count("prospective.trigger", Filter(tags=("waiting:time",), until=clock.now()))
    if due:
        advise("high", "prospective.check_triggers", f"the time of {due:,} triggers has come")
    unread = yield from _unread()
    if unread >= WAITING:
        advise("normal", "consolidation.consolidate", f"{unread:,} events were not looked at yet")
    facts = _quality((yield Columns("semantic")))
    if facts.duplicates > DUPLICATES:
        advise("normal", "semantic.deduplicate", f"{facts.duplicates:.1%} of {facts.memories:,} facts repeat another's content")
    if facts.memories >= 10 and facts.low_confidence > UNSURE:
        reason = f"{facts.low_confidence:.0%} of {facts.memories:,} facts have a confidence below {LOW_CONFIDENCE}"
        advise("low", "semantic.bulk_delete", reason)
    gaps: Table[Gap] = yield from find_gaps(1)
    if gaps and gaps[0].score >= 0.1:
        remedy = {
            "unlearned": "semantic.store",
            "uncertain": "semantic.search_by_topic",
            "isolated": "graph.create_relationship",
            "idle": "prospective.create_task",
        }
        advise("low", remedy[gaps[0].kind], f"{gaps[0].name} is {gaps[0].kind}: {gaps[0].reason}")
    return Table(found)


@operation(
    "meta.get_progress_metrics",
    reads=True,
    cacheable=False,
    example=lambda chance, known: {"days": chance.randint(1, 60)},
)
def get_progress_metrics(
    days: Annotated[int, Meta(ge=1, le=366, description="Length of the period that ends now.")] = 7,
) -> Plan[Progress]:
    """Return what has grown in the last days, against the same number of days before, and how much is done.

    growth = memories of the period / memories of the period before - 1; tasks_completed = completed / (completed + open);
    goals_achieved = achieved / (achieved + active); consolidated = events looked at / events. Events count when they occurred,
    facts when they were stored.
    """
    now = clock.now()
    end = _microseconds(now)
    day = 86_400_000_000
    events = (yield Columns("episodic"))["occurred"]
    facts = (yield Columns("semantic"))["occurred"]
    # A memory of this very moment belongs to the period, so days end with their last microsecond.
    ages, fact_ages = (end - events) // day, (end - facts) // day
    by_day = np.bincount(ages[(ages >= 0) & (ages < days)], minlength=days)[::-1]
    before = int(((ages >= days) & (ages < 2 * days)).sum())
    new_facts = int(((fact_ages >= 0) & (fact_ages < days)).sum())
    old_facts = int(((fact_ages >= days) & (fact_ages < 2 * days)).sum())
    counts: dict[str, int] = {}
    for status in ("pending", "in_progress", "completed"):
        counts[status] = yield Count("prospective.task", Filter(tags=(f"status:{status}",)))
    for status in ("active", "achieved"):
        counts[status] = yield Count("prospective.goal", Filter(tags=(f"status:{status}",)))
    unread = yield from _unread()
    recent = int(by_day.sum())
    return Progress(
        days=days,
        events=recent,
        facts=new_facts,
        events_before=before,
        facts_before=old_facts,
        event_growth=recent / before - 1.0 if before else None,
        fact_growth=new_facts / old_facts - 1.0 if old_facts else None,
        active_days=int((by_day > 0).sum()),
        events_by_day=tuple(by_day.tolist()),
        tasks_completed=_ratio(counts["completed"], counts["completed"] + counts["pending"] + counts["in_progress"]),
        goals_achieved=_ratio(counts["achieved"], counts["achieved"] + counts["active"]),
        consolidated=_ratio(len(events) - unread, len(events)),
    )
