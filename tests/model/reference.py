"""What episodic and semantic memory should do, in plain Python.

It shares nothing with memlab but the embedder: no index, no database, no plan, no cache; every question is answered by
looking at everything. It is told the time and the ids that memlab gave out, and knows the rest.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

STOP_WORDS = {"the", "a", "in"}


class Refused(Exception):  # noqa: N818  it is an outcome as much as a failure
    """What memlab should refuse a call with: type and reason."""


@dataclass
class Item:
    """One memory."""

    id: str
    number: int
    session: str
    layer: str
    content: str
    vector: np.ndarray
    kind: str = "event"
    tags: tuple[str, ...] = ()
    context: dict[str, Any] = field(default_factory=dict)
    triple: tuple[str | None, str | None, str | None] = (None, None, None)
    evidence: tuple[str, ...] = ()
    source: str | None = None
    confidence: float = 1.0
    occurred_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    version: int = 1
    history: list[dict[str, Any]] = field(default_factory=list)

    def value(self) -> dict[str, Any]:
        """Return the fields that a caller sees, without the score."""
        common = {
            "id": self.id,
            "content": self.content,
            "source": self.source,
            "confidence": self.confidence,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
        }
        if self.layer == "episodic":
            return common | {"tags": self.tags, "context": self.context, "occurred_at": self.occurred_at}
        subject, predicate, object_ = self.triple
        return common | {
            "kind": self.kind,
            "topics": self.tags,
            "subject": subject,
            "predicate": predicate,
            "object": object_,
            "evidence": self.evidence,
            "version": self.version,
            "updated_at": self.updated_at,
        }


def once(given: Iterable[str]) -> tuple[str, ...]:
    """Return every text once, in the order given."""
    return tuple(dict.fromkeys(given))


def words(text: str) -> set[str]:
    """Return the words of a text that a search by words knows."""
    return {word for word in text.lower().split() if word not in STOP_WORDS}


class Passage(NamedTuple):
    """A memory of any layer as retrieval over layers shows it."""

    layer: str
    id: str
    content: str


class Reference:
    """All sessions, and what their operations should do.

    Args:
        embed: the vector of a text.
    """

    def __init__(self, embed: Callable[[str], np.ndarray], now: datetime) -> None:
        from tests.model.graph import GraphReference  # which needs what stands above

        self.embed = embed
        self.now = now
        self.sessions: dict[str, None] = {"default": None}
        self.items: list[Item] = []
        self.seen: set[str] = set()
        self.parts: list[Any] = []  # references of further layers; told of every session that is deleted
        self.graph = GraphReference(self)  # facts of three parts are in it
        self.parts.append(self.graph)
        self._number = 0

    # --- what is there ------------------------------------------------------------------------------------------------

    def living(self, session: str, layer: str) -> list[Item]:
        """Return what a session remembers now, in the order of storing."""
        if session not in self.sessions:
            raise Refused("NOT_FOUND", "session")
        return [
            item
            for item in self.items
            if item.session == session and item.layer == layer and (item.expires_at is None or item.expires_at > self.now)
        ]

    def one(self, session: str, layer: str, id: str) -> Item:
        """Return one memory of a session."""
        for item in self.living(session, layer):
            if item.id == id:
                return item
        raise Refused("NOT_FOUND", "memory")

    def chosen(
        self,
        session: str,
        layer: str,
        *,
        tags: Sequence[str] = (),
        match: str = "any",
        since: datetime | None = None,
        until: datetime | None = None,
        min_confidence: float | None = None,
        below_confidence: float | None = None,
        kind: str | None = None,
    ) -> list[Item]:
        """Return the memories that meet every condition."""
        living = self.living(session, layer)
        if since is not None and until is not None and since >= until:
            raise Refused("VALIDATION", "bounds")
        enough = any if match == "any" else all
        return [
            item
            for item in living
            if (not tags or enough(tag in item.tags for tag in tags))
            and (since is None or self.moment(item) >= since)
            and (until is None or self.moment(item) < until)
            and (min_confidence is None or item.confidence >= min_confidence)
            and (below_confidence is None or item.confidence < below_confidence)
            and (kind is None or item.kind == kind)
        ]

    @staticmethod
    def moment(item: Item) -> datetime:
        """Return the time that lists are in the order of."""
        found = item.occurred_at if item.layer == "episodic" else item.created_at
        assert found is not None
        return found

    def ordered(self, items: Iterable[Item], newest_first: bool = True) -> list[Item]:
        """Return items in the order of time, ties in the order of storing."""
        return sorted(items, key=lambda item: (self.moment(item), item.number), reverse=newest_first)

    @staticmethod
    def holding(items: Iterable[Item], query: str) -> list[Item]:
        """Return the items that share a word with a query."""
        return [item for item in items if words(item.content) & words(query)]

    def passages(self, session: str, layers: Sequence[str]) -> list[Passage]:
        """Return what retrieval over layers may find, of every layer or of these."""
        found = [
            Passage(item.layer, item.id, item.content)
            for layer in ("episodic", "semantic")
            for item in self.living(session, layer)
        ]
        for part in self.parts:
            if hasattr(part, "passages"):
                found += [Passage(*one) for one in part.passages(session)]
        return [one for one in found if not layers or one.layer.partition(".")[0] in layers]

    @staticmethod
    def beginning(items: Iterable[Item], typed: str) -> list[Item]:
        """Return the items that share a word with what was typed, or have one that begins with its last word."""
        *whole, last = typed.lower().split()
        return [
            item
            for item in items
            if words(item.content) & set(whole) or any(word.startswith(last) for word in words(item.content))
        ]

    # --- writing --------------------------------------------------------------------------------------------------------

    def add(self, session: str, layer: str, ids: Sequence[str], drafts: Sequence[dict[str, Any]]) -> list[Item]:
        """Store drafts under the ids that memlab gave them."""
        added = []
        for id, draft in zip(ids, drafts, strict=True):
            assert id not in self.seen, "an id was given twice"
            self.seen.add(id)
            self._number += 1
            item = Item(id=id, number=self._number, session=session, layer=layer, **draft)
            item.created_at = item.updated_at = self.now
            item.occurred_at = item.occurred_at or self.now
            self.items.append(item)
            added.append(item)
        return added

    def bulk(self, session: str, layer: str, drafts: Sequence[dict[str, Any]], on_duplicate: str) -> list[str | int]:
        """Return, for each draft, the id that is there already, or the place of the draft that is stored for it."""
        held: dict[str, str | int] = {}
        for item in self.living(session, layer):
            held.setdefault(item.content, item.id)
        result: list[str | int] = []
        for place, draft in enumerate(drafts):
            if on_duplicate != "keep" and draft["content"] in held:
                if on_duplicate == "error":
                    raise Refused("VALIDATION", "duplicate")
                result.append(held[draft["content"]])
            else:
                held.setdefault(draft["content"], place)
                result.append(place)
        return result

    def forget(self, session: str, layer: str, ids: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Forget ids; return those that were there and those that were not."""
        there = {item.id for item in self.living(session, layer)}
        wanted = once(ids)
        self.graph.forgot(there & set(wanted))
        self.items = [item for item in self.items if item.id not in there & set(wanted)]
        return tuple(id for id in wanted if id in there), tuple(id for id in wanted if id not in there)

    def update(self, session: str, id: str, changes: dict[str, Any]) -> Item:
        """Change a fact and keep the earlier version."""
        item = self.one(session, "semantic", id)
        item.history.append(copy.deepcopy(item.value()))
        for name, value in changes.items():
            setattr(item, name, value)
        item.version += 1
        item.updated_at = self.now
        self.graph.updated(item, set(changes))
        return item

    def version(self, session: str, id: str, version: int | None) -> dict[str, Any]:
        """Return a fact as it is or was."""
        item = self.one(session, "semantic", id)
        for value in (item.value(), *item.history):
            if version is None or value["version"] == version:
                return value
        raise Refused("NOT_FOUND", "version")

    def stale(self, session: str, older_than: datetime | None, **conditions: Any) -> list[Item]:
        """Return the facts that `bulk_delete` means, oldest first."""
        found = self.chosen(session, "semantic", **conditions)
        return self.ordered([item for item in found if older_than is None or item.updated_at < older_than], newest_first=False)

    def duplicates(self, session: str, similarity: float) -> list[tuple[Item, list[Item]]] | None:
        """Return (kept, absorbed) groups of near-duplicate facts; None where rounding decides."""
        facts = sorted(self.living(session, "semantic"), key=lambda item: (-item.confidence, item.created_at, item.number))
        groups: list[tuple[Item, list[Item]]] = []
        gone: set[str] = set()
        for place, item in enumerate(facts):
            if item.id in gone:
                continue
            absorbed = []
            for other in facts[place + 1 :]:
                cosine = float(item.vector @ other.vector)
                if abs(cosine - (similarity - 1e-6)) < 5e-7:
                    return None
                if other.id not in gone and cosine >= similarity - 1e-6 and self.alike(item, other):
                    absorbed.append(other)
            if absorbed:
                gone.update(other.id for other in absorbed)
                groups.append((item, absorbed))
        return groups

    @staticmethod
    def alike(one: Item, other: Item) -> bool:
        """Return whether two facts may be merged where their sentences are alike."""
        return one.kind == other.kind and one.triple == other.triple

    def merge(self, session: str, groups: Sequence[tuple[Item, list[Item]]]) -> None:
        """Merge groups of near-duplicates."""
        for kept, absorbed in groups:
            changes: dict[str, Any] = {}
            topics = once(topic for item in (kept, *absorbed) for topic in item.tags)
            if topics != kept.tags:
                changes["tags"] = topics
            source = next((item.source for item in absorbed if item.source is not None), None)
            if kept.source is None and source is not None:
                changes["source"] = source
            evidence = once(id for item in (kept, *absorbed) for id in item.evidence)
            if evidence != kept.evidence:
                changes["evidence"] = evidence
            if changes:
                self.update(session, kept.id, changes)
            self.forget(session, "semantic", [item.id for item in absorbed])

    def delete_session(self, session: str) -> None:
        """Forget a session; the default one stays, empty."""
        self.items = [item for item in self.items if item.session != session]
        for part in self.parts:
            part.delete_session(session)
        if session != "default":
            del self.sessions[session]

    # --- totals ---------------------------------------------------------------------------------------------------------

    def topics(self, session: str, limit: int) -> list[dict[str, Any]]:
        """Return what `analyze_topics` says."""
        living = self.living(session, "semantic")
        counts = Counter(topic for item in living for topic in item.tags)
        found = []
        for topic, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]:
            items = [item for item in living if topic in item.tags]
            found.append(
                {
                    "topic": topic,
                    "memories": count,
                    "share": count / len(living),
                    "mean_confidence": sum(item.confidence for item in items) / count,
                    "oldest": min(item.created_at for item in items),
                    "newest": max(item.created_at for item in items),
                }
            )
        return found

    def totals(self, session: str) -> dict[str, Any]:
        """Return what `get_stats` says, earlier versions left out."""
        living = self.living(session, "semantic")
        size = sum(len(item.content.encode()) for item in living)
        return {
            "memories": len(living),
            "by_kind": dict(Counter(item.kind for item in living)),
            "mean_confidence": sum(item.confidence for item in living) / len(living) if living else None,
            "content_bytes": size,
            "mean_content_bytes": size / len(living) if living else None,
            "oldest": min((item.created_at for item in living), default=None),
            "newest": max((item.created_at for item in living), default=None),
        }
