"""What consolidation and meta should say: rules for the state machine, and a reference in plain Python.

Consolidation is checked by what must hold of any clustering: every event is looked at once, the groups do not overlap, links
point at events of the session, nothing is written twice. Figures are worked out again from everything that is there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from memlab.storage.calls import Call
from memlab.storage.demands import VectorOf
from memlab.storage.phases import Phases
from tests.model.machine import TAGS, close, maybe_moments, picks, shown
from tests.model.reference import Item, Reference

strategies = st.none() | st.sampled_from(["speed", "balanced", "quality"])
similarities = st.none() | st.sampled_from([0.3, 0.6, 0.9, 1.0])


@dataclass
class State:
    """What consolidation has done in one session."""

    seen: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    runs: list[dict[str, Any]] = field(default_factory=list)
    strategy: dict[str, Any] | None = None


class Insight:
    """The two layers as they should be, over the reference of the memories."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.sessions: dict[str, State] = {}

    def of(self, session: str) -> State:
        """Return the state of a session."""
        return self.sessions.setdefault(session, State())

    def delete_session(self, session: str) -> None:
        """Forget a session."""
        self.sessions.pop(session, None)

    def holds(self, session: str) -> int:
        """Return how many records there are."""
        state = self.of(session)
        return len(state.runs) + (state.strategy is not None)

    def events(self, session: str) -> list[Item]:
        """Return the living events, in the order of storing."""
        return self.reference.living(session, "episodic")

    def facts(self, session: str) -> list[Item]:
        """Return the living facts, in the order of storing."""
        return self.reference.living(session, "semantic")

    # --- consolidation ----------------------------------------------------------------------------------------------------

    def waiting(self, session: str, since: datetime | None = None) -> list[Item]:
        """Return the events that no run has looked at, in the order of storing."""
        events = self.events(session)
        return [one for one in events if one.id not in self.of(session).seen and (since is None or one.occurred_at >= since)]

    def expected(self, session: str, since: datetime | None, limit: int) -> dict[str, Any]:
        """Return what a run looks at."""
        waiting = self.waiting(session, since)
        total = [one for one in self.events(session) if since is None or one.occurred_at >= since]
        new, left = waiting[:limit], waiting[limit:]
        return {
            "new": new,
            "remaining": len(left),
            "progress": (len(total) - len(left)) / len(total) if total else 1.0,
            "complete": not left,
        }

    def chosen(self, session: str) -> dict[str, Any]:
        """Return how a session consolidates."""
        return self.of(session).strategy or {"strategy": "balanced", "similarity": 0.6, "least_events": 2}

    def configured(self, session: str, given: dict[str, Any]) -> dict[str, Any]:
        """Return how a session consolidates after a change."""
        self.events(session)
        known = self.chosen(session) | {name: value for name, value in given.items() if value is not None}
        self.of(session).strategy = known
        return known

    def metrics(self, session: str) -> dict[str, Any]:
        """Return what `get_metrics` says."""
        events, runs = self.events(session), self.of(session).runs
        seen, stored = sum(run["events"] for run in runs), [id for run in runs for id in run["stored"]]
        clusters = sum(run["clusters"] for run in runs)
        there = {fact.id for fact in self.facts(session)}
        return {
            "runs": len(runs),
            "events": len(events),
            "coverage": 1 - len(self.waiting(session)) / len(events) if events else 1.0,
            "events_seen": seen,
            "memories_stored": len(stored),
            "compression": seen / len(stored) if stored else None,
            "mean_cluster_size": sum(run["clustered"] for run in runs) / clusters if clusters else None,
            "retained": sum(id in there for id in stored) / len(stored) if stored else None,
        }

    def status(self, session: str) -> dict[str, Any]:
        """Return what `get_status` says, the last run left out."""
        events, waiting = self.events(session), len(self.waiting(session))
        runs = self.of(session).runs
        return self.chosen(session) | {
            "waiting": waiting,
            "alone": runs[-1]["alone"] if runs else 0,
            "progress": 1 - waiting / len(events) if events else 1.0,
            "complete": not waiting,
        }

    def patterns(self, session: str) -> dict[tuple[str, str, str], tuple[int, float]]:
        """Return events and lift of every pair that meets more often than chance."""
        events = self.events(session)
        things: dict[str, list[set[str]]] = {
            "tags": [set(one.tags) for one in events],
            "words": [set(one.content.lower().split()) - {"the"} for one in events],
            "time": [{["night", "morning", "afternoon", "evening"][one.occurred_at.hour // 6]} for one in events],
        }
        found = {}
        for kind, ones, others in (("tags", "tags", "tags"), ("time", "tags", "time"), ("words", "words", "words")):
            pairs = Counter((a, b) for x, y in zip(things[ones], things[others], strict=True) for a in x for b in y)
            for (a, b), count in pairs.items():
                if (kind == "time" or a < b) and count >= 3:
                    lift = count * len(events) / (sum(a in x for x in things[ones]) * sum(b in y for y in things[others]))
                    if lift > 1 + 1e-6:
                        found[kind, a, b] = (count, lift)
        return found

    # --- meta -------------------------------------------------------------------------------------------------------------

    def totals(self, session: str) -> dict[str, tuple[int, int]]:
        """Return (memories, changed ones) by layer."""
        state = self.of(session)
        counts = {
            "episodic": (len(self.events(session)), 0),
            "semantic": (len(self.facts(session)), sum(fact.version > 1 for fact in self.facts(session))),
            "consolidation.run": (len(state.runs), 0),
        }
        return {layer: count for layer, count in counts.items() if count[0]}

    def on_time(self, session: str) -> float | None:
        """Return the share of open tasks that are not overdue; None where the references know of none."""
        tasks = [row for part in self.reference.parts if hasattr(part, "all") for row in part.all(session, "task")]
        still_open = [row for row in tasks if row.status in ("pending", "in_progress")]
        late = [row for row in still_open if row.status == "pending" and row.due_at and row.due_at < self.reference.now]
        return 1 - len(late) / len(still_open) if still_open else None

    def health(self, session: str) -> dict[str, Any]:
        """Return what `memory_health` says."""
        events, facts = self.events(session), self.facts(session)
        both = [*events, *facts]
        month = self.reference.now - timedelta(days=30)
        parts = {
            "confidence": mean(one.confidence for one in both),
            "uniqueness": len({one.content for one in facts}) / len(facts) if facts else None,
            "freshness": mean(self.reference.moment(one) >= month for one in both),
            "consolidated": 1 - len(self.waiting(session)) / len(events) if events else None,
            "on_time": self.on_time(session),
        }
        return parts | {"score": mean(part for part in parts.values() if part is not None)}

    def quality(self, items: Sequence[Item]) -> dict[str, Any]:
        """Return the quality of one layer."""
        return {
            "memories": len(items),
            "mean_confidence": mean(one.confidence for one in items),
            "low_confidence": mean(one.confidence < 0.5 for one in items) or 0.0,
            "duplicates": 1 - len({one.content for one in items}) / len(items) if items else 0.0,
            "revised": mean(one.version > 1 for one in items) or 0.0,
        }

    def expertise(self, session: str, topic: str) -> dict[str, Any]:
        """Return what is known of one topic."""
        facts = [fact for fact in self.facts(session) if topic in fact.tags]
        return {
            "facts": len(facts),
            "events": sum(topic in event.tags for event in self.events(session)),
            "mean_confidence": mean(fact.confidence for fact in facts),
            "expertise": sum(fact.confidence for fact in facts) / (len(facts) + 10),
        }

    def attention(self, session: str) -> dict[str, Any]:
        """Return entropy, focus and drift of the tags of the events."""
        events = self.reference.ordered(self.events(session))[:500]
        half = len(events) // 2
        new, old = (Counter(tag for event in part for tag in event.tags) for part in (events[:half], events[half:]))
        both = new + old
        mixed = {tag: share(new, tag) / 2 + share(old, tag) / 2 for tag in both}
        whole = entropy(share(both, tag) for tag in both)
        parts = [entropy(share(one, tag) for tag in one) for one in (new, old)]
        spread = len(both)
        return {
            "events": len(events),
            "tags": spread,
            "entropy": whole,
            "focus": None if not spread else 1.0 if spread == 1 else 1 - whole / math.log2(spread),
            "drift": entropy(mixed.values()) - sum(parts) / 2 if new and old else None,
        }

    def gaps(self, session: str) -> dict[tuple[str, str], float]:
        """Return every gap of tags and topics with its score."""
        events, facts = self.events(session), self.facts(session)
        found = {}
        for tag in {tag for one in (*events, *facts) for tag in one.tags}:
            count, known = sum(tag in one.tags for one in events), [one for one in facts if tag in one.tags]
            if count >= 3 and len(known) * 10 < count:
                found["unlearned", tag] = count / len(events) * (1 - len(known) / (len(known) + count))
            average = mean(one.confidence for one in known)
            if average is not None and average < 0.5:
                found["uncertain", tag] = len(known) / len(facts) * (1 - average)
        return found

    def progress(self, session: str, days: int) -> dict[str, Any]:
        """Return what has grown."""
        now, length = self.reference.now, timedelta(days=days)

        def within(items: Iterable[Item], begin: timedelta, end: timedelta) -> list[Item]:
            return [one for one in items if begin <= now - self.reference.moment(one) < end]

        events, facts = self.events(session), self.facts(session)
        one_day = timedelta(days=1)
        by_day = [len(within(events, day * one_day, (day + 1) * one_day)) for day in reversed(range(days))]
        return {
            "events": len(within(events, timedelta(), length)),
            "events_before": len(within(events, length, 2 * length)),
            "facts": len(within(facts, timedelta(), length)),
            "facts_before": len(within(facts, length, 2 * length)),
            "events_by_day": tuple(by_day),
            "active_days": sum(count > 0 for count in by_day),
            "consolidated": 1 - len(self.waiting(session)) / len(events) if events else None,
        }

    def advice(self, session: str) -> set[str]:
        """Return which of the operations of these layers the rules name; gaps left out."""
        facts = self.quality(self.facts(session))
        named = {
            "consolidation.consolidate": len(self.waiting(session)) >= 20,
            "semantic.deduplicate": facts["duplicates"] > 0.01,
            "semantic.bulk_delete": facts["memories"] >= 10 and facts["low_confidence"] > 0.2,
        }
        return {name for name, speaks in named.items() if speaks}


def mean(values: Iterable[float]) -> float | None:
    """Return the arithmetic mean, None of nothing."""
    known = [*values]
    return sum(known) / len(known) if known else None


def share(counts: Counter[str], name: str) -> float:
    """Return the share of one name."""
    return counts[name] / counts.total() if counts else 0.0


def entropy(shares: Iterable[float]) -> float:
    """Return the entropy of shares in bits."""
    return -sum(one * math.log2(one) for one in shares if one > 0)


class InsightRules:
    """Rules for `MemoryMachine`: every operation of the layers consolidation and meta."""

    insight_type: ClassVar[type[Insight]] = Insight

    @initialize()
    def begin_insight(self) -> None:
        """Begin with nothing consolidated."""
        self.insight = self.insight_type(self.reference)
        self.reference.parts.append(self.insight)

    def _read(self, operation: str, who: int, expected: Callable[[str], Any], **parameters: Any) -> Any:
        session = self.session(who)

        def wanted() -> Any:
            self.reference.living(session, "episodic")
            return expected(session)

        return self.ask(operation, session, wanted, **parameters)

    # --- consolidation ----------------------------------------------------------------------------------------------------

    @rule(
        who=picks,
        strategy=strategies,
        since=st.none() | maybe_moments,
        limit=st.integers(1, 20),
        similarity=similarities,
        again=st.booleans(),
    )
    def consolidate(
        self, who: int, strategy: str | None, since: datetime | None, limit: int, similarity: float | None, again: bool
    ) -> None:
        """Consolidate, maybe twice."""
        session = self.session(who)
        given = {"strategy": strategy, "since": since, "similarity": similarity}
        operation = "consolidation.consolidate"
        pair = self.ask(operation, session, lambda: self.insight.expected(session, since, limit), limit=limit, **given)
        if pair is None:
            return
        done, wanted = pair
        assert (done.events, done.remaining, done.complete) == (len(wanted["new"]), wanted["remaining"], wanted["complete"])
        assert abs(done.progress - wanted["progress"]) < 1e-9
        if wanted["new"]:
            self._consolidated(session, done, wanted["new"], strategy)
        else:
            assert (done.run, done.stored, done.reinforced) == (None, (), ())
        if again and done.complete:
            second, _ = self.ask(operation, session, lambda: None, limit=limit, **given)
            assert (second.run, second.events, second.stored, second.complete) == (None, 0, (), True)

    def _consolidated(self, session: str, done: Any, new: list[Item], strategy: str | None) -> None:
        """Check what a run did, and take it into the reference."""
        state = self.insight.of(session)
        living = {one.id: one for one in self.insight.events(session)}
        least = self.insight.chosen(session)["least_events"]
        looked = ({one.id for one in new} | state.alone) & set(living)
        run = self.loop.run_until_complete(self.call("consolidation.get_history", session, limit=1)).value[0]
        assert (run.id, run.number, run.events, run.stored) == (done.run, len(state.runs) + 1, len(new), done.stored)
        assert run.strategy == done.strategy == (strategy or self.insight.chosen(session)["strategy"])
        linked: list[str] = []
        for id in done.stored:
            fact = self.loop.run_until_complete(self.call("semantic.get", session, id=id)).value
            assert fact.evidence
            linked += fact.evidence
            self._is_made_of(fact, [living[event] for event in fact.evidence], least)
            draft = shown(fact) | {"tags": fact.topics, "vector": self._vector(session, id)}
            names = ("content", "tags", "vector", "kind", "source", "confidence", "expires_at", "evidence")
            (item,) = self.reference.add(session, "semantic", [id], [{name: draft[name] for name in names}])
            assert shown(fact) == item.value()
        for id in done.reinforced:
            item = self.reference.one(session, "semantic", id)
            fact = self.loop.run_until_complete(self.call("semantic.get", session, id=id)).value
            assert fact.evidence[: len(item.evidence)] == item.evidence
            linked += fact.evidence[len(item.evidence) :]
            self.reference.update(session, id, {"evidence": fact.evidence})
            assert shown(fact) == item.value()
        assert len(linked) == len(set(linked)) == run.clustered
        assert set(linked) | set(run.alone) == looked
        assert not set(linked) & set(run.alone)
        assert (done.alone, done.clusters) == (len(run.alone), run.clusters)
        state.seen |= {one.id for one in new}
        state.alone = set(run.alone)
        fields = ("events", "clustered", "clusters", "stored")
        state.runs.append({name: getattr(run, name) for name in fields} | {"alone": len(run.alone), "id": run.id})

    def _is_made_of(self, fact: Any, events: Sequence[Item], least: int) -> None:
        """Check what a memory says of the events behind it; two groups may share a sentence, then it has the links of both."""
        assert len(events) >= least
        assert (fact.kind, fact.source) == ("principle", "consolidation")
        assert all(part in " ".join(event.content for event in events) for part in fact.content.split())
        assert min(event.confidence for event in events) - 1e-9 <= fact.confidence
        assert fact.confidence <= max(event.confidence for event in events) + 1e-9
        assert {*fact.topics} <= {tag for event in events for tag in event.tags}
        assert fact.expires_at is None or fact.expires_at in [event.expires_at for event in events]

    def _vector(self, session: str, id: str) -> np.ndarray:
        """Return where a memory lies, which is memlab's to choose."""

        def plan() -> Any:
            return (yield VectorOf("semantic", id))

        (vector,) = self.engine.storage.read([Call(session, plan)], Phases())
        assert abs(float(np.linalg.norm(vector)) - 1.0) < 1e-4
        return np.asarray(vector, np.float64)

    @rule(who=picks, strategy=strategies, similarity=similarities, least_events=st.none() | st.integers(2, 4))
    def configure_strategy(self, who: int, **given: Any) -> None:
        """Say how to consolidate."""
        session = self.session(who)
        pair = self.ask("consolidation.configure_strategy", session, lambda: self.insight.configured(session, given), **given)
        if pair is not None:
            assert {name: getattr(pair[0], name) for name in pair[1]} == pair[1]

    @rule(who=picks)
    def consolidation_metrics(self, who: int) -> None:
        """Count what consolidation did."""
        pair = self._read("consolidation.get_metrics", who, self.insight.metrics)
        if pair is not None:
            close(msgspec.structs.asdict(pair[0]), pair[1])

    @rule(who=picks)
    def consolidation_status(self, who: int) -> None:
        """Ask where consolidation stands."""
        pair = self._read("consolidation.get_status", who, self.insight.status)
        if pair is not None:
            close({name: getattr(pair[0], name) for name in pair[1]}, pair[1])

    @rule(who=picks, limit=st.integers(1, 3))
    def consolidation_history(self, who: int, limit: int) -> None:
        """List the runs, all pages."""
        session = self.session(who)
        listed: list[Any] = []
        cursor = None
        while True:
            pair = self._read("consolidation.get_history", who, lambda session: None, limit=limit, cursor=cursor)
            if pair is None:
                return
            listed += [run.id for run in pair[0]]
            cursor = pair[0].cursor
            if cursor is None:
                break
        assert listed == [run["id"] for run in reversed(self.insight.of(session).runs)]

    @rule(who=picks)
    def analyze_patterns(self, who: int) -> None:
        """Ask what occurs together."""
        pair = self._read("consolidation.analyze_patterns", who, self.insight.patterns, limit=200)
        if pair is not None:
            found = {(one.kind, one.first, one.second): (one.events, one.lift) for one in pair[0]}
            assert found.keys() == pair[1].keys()
            for key, (count, lift) in pair[1].items():
                assert found[key][0] == count
                assert abs(found[key][1] - lift) < 1e-6

    @rule(who=picks)
    def consolidation_recommendations(self, who: int) -> None:
        """Ask what would make consolidation better."""
        pair = self._read("consolidation.get_recommendations", who, lambda session: len(self.insight.waiting(session)) >= 20)
        if pair is not None:
            assert ("consolidation.consolidate" in [one.operation for one in pair[0]]) == pair[1]

    # --- meta -------------------------------------------------------------------------------------------------------------

    @rule(who=picks)
    def memory_stats(self, who: int) -> None:
        """Count everything."""
        pair = self._read("meta.get_memory_stats", who, self.insight.totals)
        if pair is not None:
            known = {one.layer: (one.memories, one.changed) for one in pair[0].layers if one.layer != "consolidation.strategy"}
            others = {layer for layer in known if layer.startswith(("procedural", "prospective", "graph"))}  # of further rules
            assert {layer: told for layer, told in known.items() if layer not in others} == pair[1]
            assert pair[0].memories == sum(one.memories for one in pair[0].layers) == self.holds(self.session(who))

    @rule(who=picks)
    def memory_health(self, who: int) -> None:
        """Ask how the memory is."""
        pair = self._read("meta.memory_health", who, self.insight.health)
        if pair is not None:
            close({name: getattr(pair[0], name) for name in pair[1]}, pair[1])

    @rule(who=picks)
    def quality_metrics(self, who: int) -> None:
        """Ask how good the memories are."""
        layers = (self.insight.events, self.insight.facts)
        pair = self._read("meta.get_quality_metrics", who, lambda session: [self.insight.quality(one(session)) for one in layers])
        if pair is not None:
            for found, wanted in zip((pair[0].events, pair[0].facts), pair[1], strict=True):
                close(msgspec.structs.asdict(found), wanted)

    @rule(who=picks, topic=st.sampled_from(TAGS))
    def expertise(self, who: int, topic: str) -> None:
        """Ask what is known of one topic, and of all."""
        pair = self._read("meta.get_expertise", who, lambda session: self.insight.expertise(session, topic), domain=topic)
        if pair is None:
            return
        assert len(pair[0]) == bool(pair[1]["facts"] or pair[1]["events"])
        for found in pair[0]:
            close({name: getattr(found, name) for name in pair[1]}, pair[1])
        every, _ = self._read("meta.get_expertise", who, lambda session: None)
        assert [one.facts for one in every if one.domain == topic] == ([pair[1]["facts"]] if pair[1]["facts"] else [])
        assert [one.expertise for one in every] == sorted((one.expertise for one in every), reverse=True)

    @rule(who=picks)
    def cognitive_load(self, who: int) -> None:
        """Ask what is on the mind."""
        pair = self._read("meta.get_cognitive_load", who, lambda session: len(self.insight.waiting(session)))
        if pair is not None:
            assert pair[0].unread_events == pair[1]
            assert abs(pair[0].load - pair[0].items / (pair[0].items + 7)) < 1e-9

    @rule(who=picks)
    def attention_metrics(self, who: int) -> None:
        """Ask what the events are about."""
        pair = self._read("meta.get_attention_metrics", who, self.insight.attention)
        if pair is not None:
            close({name: getattr(pair[0], name) for name in pair[1]}, pair[1])

    @rule(who=picks)
    def gaps(self, who: int) -> None:
        """Ask what is not known."""
        pair = self._read("meta.find_gaps", who, self.insight.gaps, limit=200)
        if pair is not None:
            close({(one.kind, one.name): one.score for one in pair[0] if one.kind in ("unlearned", "uncertain")}, pair[1])

    @rule(who=picks, days=st.sampled_from([1, 7]))
    def progress(self, who: int, days: int) -> None:
        """Ask what has grown."""
        pair = self._read("meta.get_progress_metrics", who, lambda session: self.insight.progress(session, days), days=days)
        if pair is not None:
            close({name: getattr(pair[0], name) for name in pair[1]}, pair[1])

    @rule(who=picks)
    def recommendations(self, who: int) -> None:
        """Ask what should be done."""
        pair = self._read("meta.get_recommendations", who, self.insight.advice)
        if pair is not None:
            named = {"consolidation.consolidate", "semantic.deduplicate", "semantic.bulk_delete"}
            assert {one.operation for one in pair[0]} & named == pair[1]
