"""Consolidation: from events to knowledge.

Groups of alike events become semantic memories that name the events behind them (`evidence`). Every event is looked at once;
what was like no other is looked at again beside the events that come later. One call is one transaction: its memories and the
record of its run are stored together or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from memlab.operations.clusters import ALGORITHMS, Vectors, central_sentences, medoid
from memlab.operations.parameters import MAX_TEXT, Cursor, Limit, ListLimit, Since, filter_of
from memlab.operations.registry import operation
from memlab.storage import demands as ask
from memlab.storage.analysis import split, stem
from memlab.storage.demands import Ahead, Carrying, Count, Draft, Fetch, Insert, Inserted, Page, Plan, Replace, Unseen, record
from memlab.values import Consolidation, ConsolidationStrategy, Event, Fact, Mark, Table

StrategyName = Annotated[
    Literal["speed", "balanced", "quality"],
    Meta(
        description="Leader clustering and the text of each medoid (speed), spherical k-means and two central sentences "
        "(balanced), or average linkage and three central sentences (quality)."
    ),
]
Alikeness = Annotated[float, Meta(ge=0.0, le=1.0, description="Cosine similarity from which two events count as alike.")]
Least = Annotated[int, Meta(ge=2, le=1_000, description="Events that a group needs to become a memory.")]

STRATEGY, SIMILARITY, LEAST_EVENTS = "balanced", 0.6, 2  # where neither the call nor the session says otherwise
SENTENCES = {"balanced": 2, "quality": 3}
SOURCE = "consolidation"
MAX_ALONE = 500  # events without a like that the next run looks at again; the latest
MAX_MARKS = 64
RECENT_RUNS = 100
WAITING = 20  # new events that are worth a run
PATTERN_EVENTS = 2_000
PATTERN_ITEMS = 200  # of tags, and of words
LEAST_TOGETHER = 3
PARTS_OF_DAY = ("night", "morning", "afternoon", "evening")  # of six hours each, from midnight UTC


class Consolidated(msgspec.Struct, frozen=True, kw_only=True):
    """What `consolidation.consolidate` made of events, and what is left to do.

    Attributes:
        run: id of the run; None where there was nothing to do.
        events: new events looked at.
        clusters: groups of alike events among them and those that were alone before.
        stored: ids of the semantic memories written.
        reinforced: ids of semantic memories that said so already and got further evidence.
        alone: events without a like, kept in mind for the next run.
        remaining: new events that are left for the next call.
        progress: events looked at / events, since *since*; 1 where there are none.
        complete: nothing is left; otherwise call again.
    """

    run: str | None
    strategy: str
    events: int = 0
    clusters: int = 0
    stored: tuple[str, ...] = ()
    reinforced: tuple[str, ...] = ()
    alone: int = 0
    remaining: int = 0
    progress: float = 1.0
    complete: bool = True


class ConsolidationMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What consolidation has done for a session.

    Attributes:
        runs: how many there were.
        events: events that the session remembers.
        coverage: events looked at / events, of those that are remembered now; 1 where there are none.
        events_seen: events looked at by all runs, forgotten ones too.
        memories_stored: semantic memories written by all runs.
        compression: events_seen / memories_stored; None where none was written.
        mean_cluster_size: events in clusters / clusters, of the last 100 runs; None where there were none.
        retained: memories still there / memories written, of the last 100 runs; None where none was written.
    """

    runs: int
    events: int
    coverage: float
    events_seen: int
    memories_stored: int
    compression: float | None
    mean_cluster_size: float | None
    retained: float | None


class ConsolidationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where consolidation stands.

    Attributes:
        strategy, similarity, least_events: what a call that says nothing else uses.
        waiting: events that no run has looked at.
        alone: events without a like that the next run looks at again.
        progress: events looked at / events; 1 where there are none.
        complete: nothing is waiting.
        last_run: the latest run; None before the first.
    """

    strategy: str
    similarity: float
    least_events: int
    waiting: int
    alone: int
    progress: float
    complete: bool
    last_run: Consolidation | None


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """Two things that occur together more often than chance would have it.

    Attributes:
        kind: `tags` (two tags), `time` (a tag and a part of the day) or `words` (two words).
        events: how many events have both.
        support: events with both / events looked at, P(a, b).
        lift: P(a, b) / (P(a) P(b)); above 1.
        pmi: log2 of the lift, bits.
    """

    kind: Literal["tags", "time", "words"]
    first: str
    second: str
    events: int
    support: float
    lift: float
    pmi: float


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """Something worth doing.

    Attributes:
        priority: `high`, `normal` or `low`.
        operation: which does it.
        reason: why, with the figure that says so.
    """

    priority: Literal["high", "normal", "low"]
    operation: str
    reason: str


# --- writing -------------------------------------------------------------------------------------------------------


@operation(
    "consolidation.consolidate",
    writes=True,
    cost="job",
    invalidates=("semantic", "consolidation"),
    example=lambda chance, known: {
        "strategy": chance.choice(["speed", "balanced", "quality"]),
        "limit": chance.randint(1, 50),
    },
)
def consolidate(
    strategy: StrategyName | None = None,
    since: Since | None = None,
    limit: Annotated[
        int, Meta(ge=1, le=5_000, description="New events looked at in one call at most; the first stored first.")
    ] = 1_000,
    similarity: Alikeness | None = None,
) -> Plan[Consolidated]:
    """Make semantic memories of groups of alike events, each with links to the events behind it.

    Events become knowledge.

    Looks at the events that no call has looked at, beside those that were alone before, while other writes go on. Every group
    of at least `least_events` becomes one `principle`: its content are the group's central sentences (or what the summariser
    given to `Memory.open` makes of the group), its `evidence` the events, its topics the tags that at least half of them
    carry, its confidence the mean of theirs; it expires with the first event that it quotes. Where a memory with that content
    is there already, it gets the new evidence instead. A second call finds nothing more; where *limit* left events out, it
    goes on with them. What is left out is as `consolidation.configure_strategy` said.

    Raises:
        MemlabError: INTERNAL `hook`: the summariser failed; nothing was changed.
    Source: Erkan, Radev 2004 (LexRank), doi 10.1613/jair.1523; the algorithms by name in `operations/clusters.py`.
    """
    settings = _default((yield Ahead(_OWN_STRATEGY)))
    way = strategy or settings[0]
    least_alike = settings[1] if similarity is None else similarity
    previous = _first((yield Ahead(_LAST_RUN)))
    filter = filter_of(since=since)
    total: int = yield Ahead(Count("episodic", filter))
    marks = () if previous is None else previous.marks
    events, vectors, remaining = yield Ahead(Unseen("episodic", marks, limit, filter))
    fresh = len(events)
    if fresh and previous is not None and previous.alone:
        before, old = yield Ahead(ask.Vectors("episodic", previous.alone))
        events, vectors = [*before, *events], np.concatenate([old, vectors])
    groups = ALGORITHMS[way](vectors, least_alike) if fresh else []
    clusters = [group for group in groups if len(group) >= settings[2]]
    drafts = []
    for group in clusters:
        members = [events[place] for place in group]
        summary = yield Ahead(ask.Consult("summarise", (tuple(event.content for event in members),), needed=False))
        drafts.append(_draft(members, vectors[group], way, summary))
    latest = _first((yield _LAST_RUN))
    there = yield Fetch("episodic", tuple(events[place].id for group in clusters for place in group))
    is_late = (latest and latest.id) != (previous and previous.id) or None in there
    if is_late:  # another run, or a forgetting, came between: what was read ahead must not be written
        return Consolidated(run=None, strategy=way, remaining=remaining + fresh, progress=0.0, complete=False)
    progress = (total - remaining) / total if total else 1.0
    if not fresh:
        return Consolidated(run=None, strategy=way, remaining=remaining, progress=progress, complete=not remaining)
    stored, reinforced = yield from _store(drafts)
    alone = tuple(events[place].id for place in sorted(place for group in groups if len(group) < settings[2] for place in group))
    through = events[-1].id
    run = record(
        None,
        number=1 if previous is None else previous.number + 1,
        strategy=way,
        similarity=least_alike,
        events=fresh,
        clustered=sum(map(len, clusters)),
        clusters=len(clusters),
        stored=stored,
        reinforced=reinforced,
        alone=alone[-MAX_ALONE:],
        through=through,
        marks=marked(marks, Mark(since=since, through=through)),
        total_events=fresh + (0 if previous is None else previous.total_events),
        total_stored=len(stored) + (0 if previous is None else previous.total_stored),
    )
    done: Inserted = yield Insert("consolidation.run", (run,))
    return Consolidated(
        run=done.ids[0],
        strategy=way,
        events=fresh,
        clusters=len(clusters),
        stored=stored,
        reinforced=reinforced,
        alone=len(alone[-MAX_ALONE:]),
        remaining=remaining,
        progress=progress,
        complete=not remaining,
    )


_LAST_RUN = Page("consolidation.run", 1)
_OWN_STRATEGY = Carrying("consolidation.strategy", ("strategy",), 1)


def _first(page: tuple[list[Consolidation], str | None]) -> Consolidation | None:
    return page[0][0] if page[0] else None


def _default(found: Sequence[ConsolidationStrategy]) -> tuple[str, float, int]:
    return (found[0].strategy, found[0].similarity, found[0].least_events) if found else (STRATEGY, SIMILARITY, LEAST_EVENTS)


def _draft(events: Sequence[Event], vectors: Vectors, strategy: str, summary: str | None) -> Draft:
    """Return the memory that a group of events becomes."""
    if summary is not None:
        content, quoted = summary, [*range(len(events))]
    elif strategy == "speed":
        quoted = [medoid(vectors)]
        content = events[quoted[0]].content
    else:
        content, quoted = "", []
        for sentence in central_sentences([event.content for event in events], SENTENCES[strategy]):
            longer = f"{content} {sentence.text}" if content else sentence.text
            if len(longer) <= MAX_TEXT:
                content, quoted = longer, [*quoted, sentence.place]
    vector = vectors[quoted].sum(axis=0)
    length = float(np.linalg.norm(vector))
    carried = Counter(tag for event in events for tag in event.tags)
    expiries = [moment for place in quoted if (moment := events[place].expires_at) is not None]
    return Draft(
        content=content,
        # The mean of unit vectors that are alike is never nothing, unless the caller's similarity admits opposites.
        vector=vector / length if length > 1e-6 else vectors[quoted[0]],
        kind="principle",
        tags=tuple(tag for tag, count in carried.most_common(64) if 2 * count >= len(events)),
        attributes={"evidence": tuple(event.id for event in events)},
        source=SOURCE,
        confidence=sum(event.confidence for event in events) / len(events),
        expires_at=min(expiries, default=None),
    )


def _store(drafts: Sequence[Draft]) -> Plan[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Store drafts, or give their evidence to the memory that has their content; return the ids of both kinds."""
    if not drafts:
        return (), ()
    done: Inserted = yield Insert("semantic", drafts, "skip")
    new = {value.id: value for value in done.values}
    further: dict[str, list[str]] = {}
    taken: set[str] = set()
    for id, draft in zip(done.ids, drafts, strict=True):
        if id in new and id not in taken:
            taken.add(id)  # two groups may come to the same sentence: the second is further evidence
        else:
            further.setdefault(id, []).extend(draft.attributes["evidence"])
    for id, evidence in further.items():
        (fact,) = yield Fetch("semantic", (id,))
        yield Replace("semantic", id, {"attributes": _with_evidence(fact, evidence)})
    return tuple(new), tuple(id for id in further if id not in new)


def _with_evidence(fact: Fact, further: Sequence[str]) -> dict[str, Any]:
    triple = {"subject": fact.subject, "predicate": fact.predicate, "object": fact.object}
    united = tuple(dict.fromkeys((*fact.evidence, *further)))
    return {name: part for name, part in triple.items() if part is not None} | {"evidence": united}


def marked(marks: Sequence[Mark], new: Mark) -> tuple[Mark, ...]:
    """Return marks with a new one, without those that others cover; of more than 64 the two closest in time become one.

    >>> marked((Mark(through="ep_1"),), Mark(through="ep_2"))
    (Mark(through='ep_2', since=None),)
    """
    kept = sorted((mark for mark in (*marks, new) if not any(_covers(other, mark) for other in (*marks, new))), key=_begin)
    if len(kept) > MAX_MARKS:
        place = min(range(1, len(kept) - 1), key=lambda at: _begin(kept[at + 1])[1] - _begin(kept[at])[1])
        kept[place : place + 2] = [Mark(since=kept[place].since, through=kept[place + 1].through)]
    return tuple(kept)


def _covers(one: Mark, other: Mark) -> bool:
    # Ids ascend, by length and then by text, in the order of storing.
    return (
        one != other and _begin(one) <= _begin(other) and (len(one.through), one.through) >= (len(other.through), other.through)
    )


def _begin(mark: Mark) -> tuple[bool, float]:
    return (False, 0.0) if mark.since is None else (True, mark.since.timestamp())


@operation(
    "consolidation.configure_strategy",
    writes=True,
    example=lambda chance, known: {
        "strategy": chance.choice(["speed", "balanced", "quality"]),
        "similarity": round(chance.uniform(0.4, 0.9), 2),
    },
)
def configure_strategy(
    strategy: StrategyName | None = None, similarity: Alikeness | None = None, least_events: Least | None = None
) -> Plan[ConsolidationStrategy]:
    """Say how this session consolidates where a call says nothing else, and return it; what is left out stays as it is.

    A session that was told nothing uses `balanced`, a similarity of 0.6 and groups of two events.
    """
    found = yield _OWN_STRATEGY
    known = _default(found)
    fields = {
        "strategy": strategy or known[0],
        "similarity": known[1] if similarity is None else similarity,
        "least_events": least_events or known[2],
    }
    if found:
        return (yield Replace("consolidation.strategy", found[0].id, fields))  # type: ignore[no-any-return]
    done: Inserted = yield Insert("consolidation.strategy", (record(None, **fields),))
    return done.values[0]  # type: ignore[no-any-return]


# --- reading -------------------------------------------------------------------------------------------------------


# Fetches what the last hundred runs wrote. The figures speak of events too, and a kept answer would not know of those.
@operation("consolidation.get_metrics", reads=True, cost="complex", cacheable=False, example=lambda chance, known: {})
def get_metrics() -> Plan[ConsolidationMetrics]:
    """Return what consolidation has done so far, and how well it held.

    coverage = events looked at / events; compression = events looked at / memories written; mean_cluster_size = events in
    clusters / clusters and retained = memories still there / memories written, both of the last 100 runs.
    """
    events: int = yield Count("episodic")
    runs, _ = yield Page("consolidation.run", RECENT_RUNS)
    last = runs[0] if runs else None
    _, _, waiting = yield Unseen("episodic", () if last is None else last.marks, 0)
    stored = tuple(id for run in runs for id in run.stored)
    there = (yield Fetch("semantic", stored)) if stored else []
    clusters = sum(run.clusters for run in runs)
    total_stored = 0 if last is None else last.total_stored
    return ConsolidationMetrics(
        runs=0 if last is None else last.number,
        events=events,
        coverage=(events - waiting) / events if events else 1.0,
        events_seen=0 if last is None else last.total_events,
        memories_stored=total_stored,
        compression=last.total_events / total_stored if last is not None and total_stored else None,
        mean_cluster_size=sum(run.clustered for run in runs) / clusters if clusters else None,
        retained=sum(fact is not None for fact in there) / len(stored) if stored else None,
    )


# Reads and counts in two thousand events.
@operation(
    "consolidation.analyze_patterns",
    reads=True,
    cost="complex",
    cacheable=False,
    example=lambda chance, known: {"limit": chance.randint(1, 50)},
)
def analyze_patterns(limit: Limit = 20) -> Plan[Table[Pattern]]:
    """Return what occurs together in the last 2,000 events: two tags, a tag and a part of the day, two words.

    lift = P(a, b) / (P(a) P(b)), P(x) being the share of the events with x; pmi = log2 lift. Of the 200 most frequent tags and
    words, pairs in at least 3 events and with a lift above 1 are listed, ordered by P(a, b) x pmi. Parts of the day have six
    hours each and begin at midnight UTC: night, morning, afternoon, evening.
    Source: Brin et al. 1997 (lift), doi 10.1145/253260.253325; Church, Hanks 1990 (pointwise mutual information).
    """
    events, _ = yield Page("episodic", PATTERN_EVENTS)
    tags = [set(event.tags) for event in events]
    words = [{word for word in split(event.content) if len(word) > 2 and stem(word)} for event in events]
    parts = [{PARTS_OF_DAY[event.occurred_at.hour // 6]} for event in events]
    found = [
        *_together("tags", tags, tags, limit),
        *_together("time", tags, parts, limit),
        *_together("words", words, words, limit),
    ]
    found.sort(key=lambda pattern: (-round(pattern.support * pattern.pmi, 12), pattern.kind, pattern.first, pattern.second))
    return Table(found[:limit])


def _together(
    kind: Literal["tags", "time", "words"], ones: Sequence[set[str]], others: Sequence[set[str]], limit: int
) -> list[Pattern]:
    """Return the first pairs of a thing in *ones* and a thing in *others* that meet in an event more often than chance has it."""
    first, rows = _incidence(ones)
    second, columns = (first, rows) if others is ones else _incidence(others)
    meeting = (rows.T @ columns).astype(np.float64)
    by_first, by_second = rows.sum(axis=0, dtype=np.float64), columns.sum(axis=0, dtype=np.float64)
    if others is ones:
        meeting = np.triu(meeting, k=1)
    if not meeting.size:
        return []
    lifts = meeting * len(ones) / np.outer(by_first, by_second)
    places = np.argwhere((meeting >= LEAST_TOGETHER) & (lifts > 1.0 + 1e-9))
    chosen = lifts[places[:, 0], places[:, 1]]
    # Names are in the order of the alphabet and so are their places: ties need no more.
    weights = np.round(meeting[places[:, 0], places[:, 1]] / len(ones) * np.log2(chosen), 12)
    order = np.lexsort((places[:, 1], places[:, 0], -weights))[:limit]
    return [
        Pattern(
            kind=kind,
            first=first[place],
            second=second[other],
            events=int(meeting[place, other]),
            support=float(meeting[place, other]) / len(ones),
            lift=float(lifts[place, other]),
            pmi=float(np.log2(lifts[place, other])),
        )
        for place, other in places[order].tolist()
    ]


def _incidence(sets: Sequence[set[str]]) -> tuple[list[str], np.ndarray]:
    """Return the most frequent things in the order of the alphabet, and which event has which, (events, things)."""
    counts = Counter(thing for things in sets for thing in things)
    often = [thing for thing, count in counts.items() if count >= LEAST_TOGETHER]
    names = sorted(sorted(often, key=lambda thing: (-counts[thing], thing))[:PATTERN_ITEMS])
    places = {name: place for place, name in enumerate(names)}
    matrix = np.zeros((len(sets), len(names)), np.float32)  # float32 counts exactly up to 16 million
    for row, things in enumerate(sets):
        matrix[row, [places[thing] for thing in things if thing in places]] = 1.0
    return names, matrix


@operation("consolidation.get_status", reads=True, cacheable=False, example=lambda chance, known: {})
def get_status() -> Plan[ConsolidationStatus]:
    """Return where consolidation stands: what waits, how the session consolidates, and the last run.

    progress = events that a run has looked at / events.
    """
    strategy, similarity, least = _default((yield _OWN_STRATEGY))
    last = _first((yield _LAST_RUN))
    events: int = yield Count("episodic")
    _, _, waiting = yield Unseen("episodic", () if last is None else last.marks, 0)
    return ConsolidationStatus(
        strategy=strategy,
        similarity=similarity,
        least_events=least,
        waiting=waiting,
        alone=0 if last is None else len(last.alone),
        progress=(events - waiting) / events if events else 1.0,
        complete=not waiting,
        last_run=last,
    )


@operation("consolidation.get_history", reads=True, example=lambda chance, known: {"limit": chance.randint(1, 50)})
def get_history(limit: ListLimit = 20, cursor: Cursor | None = None) -> Plan[Table[Consolidation]]:
    """Return the runs of consolidation, the latest first, page by page."""
    values, following = yield Page("consolidation.run", limit, after=cursor)
    return Table(values, following)


# Asks for the metrics, which fetch what the last hundred runs wrote.
@operation("consolidation.get_recommendations", reads=True, cost="complex", cacheable=False, example=lambda chance, known: {})
def get_recommendations() -> Plan[Table[Recommendation]]:
    """Return what would make consolidation better, the most pressing first.

    The rules: at least 20 events wait -> consolidate (high from 1,000 on); the last run left more than 0.8 of at least 20
    events alone -> a lower similarity; its clusters hold more than 50 events on average -> a higher one; less than half of
    what the last 100 runs wrote is still there -> more events a group.
    """
    status: ConsolidationStatus = yield from get_status()
    metrics: ConsolidationMetrics = yield from get_metrics()
    found: list[Recommendation] = []
    if status.waiting >= WAITING:
        found.append(
            Recommendation(
                priority="high" if status.waiting >= 1_000 else "normal",
                operation="consolidation.consolidate",
                reason=f"{status.waiting:,} events were not looked at yet",
            )
        )
    last = status.last_run
    configure = "consolidation.configure_strategy"
    if last is not None and last.events >= WAITING and len(last.alone) > 0.8 * (len(last.alone) + last.clustered):
        share = len(last.alone) / (len(last.alone) + last.clustered)
        reason = f"the last run left {share:.0%} of its events alone; try a similarity of {max(0.0, last.similarity - 0.1):.2f}"
        found.append(Recommendation(priority="normal", operation=configure, reason=reason))
    if last is not None and last.clusters and last.clustered > 50 * last.clusters:
        mean = last.clustered / last.clusters
        reason = f"the last run's clusters hold {mean:.0f} events each; try a similarity of {min(1.0, last.similarity + 0.1):.2f}"
        found.append(Recommendation(priority="normal", operation=configure, reason=reason))
    if metrics.retained is not None and metrics.retained < 0.5:
        least = status.least_events
        reason = f"only {metrics.retained:.0%} of the memories written are still there; ask for more than {least} events"
        found.append(Recommendation(priority="low", operation=configure, reason=reason))
    order = {"high": 0, "normal": 1, "low": 2}
    return Table(sorted(found, key=lambda one: order[one.priority]))
