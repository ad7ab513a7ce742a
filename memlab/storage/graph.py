"""The graphs of sessions: who is related to whom, in arrays, derived from the rows of entities and relationships.

A session's graph is read when it is first asked for and then follows every committed transaction before that is acknowledged.
What is asked sees a `GraphView`: the graph at one moment, which never changes, so that any thread may walk it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from memlab.errors import internal
from memlab.storage.database import Database
from memlab.storage.directory import NEVER, Entry, Grown, naive
from memlab.storage.graph_view import GraphView
from memlab.storage.rows import Value
from memlab.values import Entity, Relationship

KEPT = 2_000_000  # entities and relationships in memory, of all graphs together; about 300 bytes each


class _Node(msgspec.Struct, frozen=True, gc=False):
    """What a graph needs of an entity's row."""

    id: str


class _Edge(msgspec.Struct, frozen=True, gc=False):
    """What a graph needs of a relationship's row."""

    id: str
    source: str
    target: str
    strength: float


_NODES = msgspec.json.Decoder(_Node)
_EDGES = msgspec.json.Decoder(_Edge)


class _Growing:
    """The graph of one session as it changes. Places are given in order of seq and never again."""

    def __init__(self) -> None:
        self.entity_ids: list[str] = []
        self.places: dict[str, int] = {}
        self._entity_seqs: list[int] = []  # of the current version of each
        self._entities: dict[int, int] = {}  # places by seq
        self._alive = Grown(np.zeros(0, np.bool_))
        self.relationship_ids: list[str] = []
        self._relationships: dict[int, int] = {}
        self._source = Grown(np.zeros(0, np.int64))
        self._target = Grown(np.zeros(0, np.int64))
        self._strength = Grown(np.zeros(0, np.float64))
        self._expires = Grown(np.zeros(0, np.int64))  # 0 where it is forgotten
        self._view: GraphView | None = None
        self._until = NEVER

    def __len__(self) -> int:
        return len(self.entity_ids) + len(self.relationship_ids)

    @property
    def is_sparse(self) -> bool:
        """Whether most of what it holds is forgotten."""
        return len(self) > 1_000 and len(self._entities) + len(self._relationships) < len(self) / 2

    def add_entities(self, seqs: Sequence[int], ids: Sequence[str]) -> None:
        """Take in entities in ascending seq; one that is there has a new version."""
        for seq, id in zip(seqs, ids, strict=True):
            place = self.places.get(id)
            if place is None:
                place = self.places[id] = len(self.entity_ids)
                self.entity_ids.append(id)
                self._entity_seqs.append(seq)
            self._entity_seqs[place] = max(seq, self._entity_seqs[place])
            self._entities[seq] = place
        self._alive.extend([True] * (len(self.entity_ids) - self._alive.size))
        self._view = None

    def add_relationships(self, seqs: Sequence[int], edges: Sequence[Any], expires: Sequence[int]) -> None:
        """Take in relationships in ascending seq."""
        if not self._relationships.keys().isdisjoint(seqs):  # read already when the graph was
            new = [place for place, seq in enumerate(seqs) if seq not in self._relationships]
            seqs, edges, expires = ([given[place] for place in new] for given in (seqs, edges, expires))
        start = len(self.relationship_ids)
        try:
            self._source.extend([self.places[edge.source] for edge in edges])
            self._target.extend([self.places[edge.target] for edge in edges])
        except KeyError as error:
            raise internal("damaged", "a stored relationship leads to no entity: the database file is damaged") from error
        self._strength.extend([edge.strength for edge in edges])
        self._expires.extend(expires)
        self.relationship_ids.extend([edge.id for edge in edges])
        self._relationships.update(zip(seqs, range(start, start + len(seqs)), strict=True))
        self._view = None

    def drop(self, seqs: Iterable[int]) -> None:
        """Forget rows; those of other sessions and layers are passed over."""
        for seq in seqs:
            place = self._relationships.pop(seq, None)
            if place is not None:
                self._expires.view[place] = 0
                self._view = None
            place = self._entities.pop(seq, None)
            if place is not None and self._entity_seqs[place] == seq:
                self._alive.view[place] = False
                self._view = None

    def view(self, now: int) -> GraphView:
        """Return the graph at *now*, microseconds since 1970."""
        if self._view is None or self._until <= now:
            expires = self._expires.view
            kept = np.flatnonzero(expires > now)
            self._until = int(expires[kept].min()) if len(kept) else NEVER
            self._view = GraphView(
                self.entity_ids,
                self.places,
                self._alive.view.copy(),
                self.relationship_ids,
                kept,
                self._source.view[kept],
                self._target.view[kept],
                self._strength.view[kept],
            )
        return self._view


class Graphs:
    """The graphs in memory, by session; the least recently asked for leaves when there is too much.

    Args:
        kept: entities and relationships of all graphs at most, save that of the session that is asked for.
    """

    def __init__(self, database: Database, kept: int = KEPT) -> None:
        self._database = database
        self._kept = kept
        # Held while a graph is read: what is committed meanwhile waits, and is then taken in, or is found to be there.
        self._lock = threading.Lock()
        self._graphs: OrderedDict[int, _Growing] = OrderedDict()

    def __len__(self) -> int:
        return len(self._graphs)

    def of(self, session: int, now: int) -> GraphView:
        """Return the graph of a session at *now*, microseconds since 1970."""
        with self._lock:
            graph = self._graphs.get(session)
            if graph is None or graph.is_sparse:
                graph = self._graphs[session] = self._read(session, now)
            self._graphs.move_to_end(session)
            while len(self._graphs) > 1 and sum(map(len, self._graphs.values())) > self._kept:
                self._graphs.popitem(last=False)
            return graph.view(now)

    def change(self, added: Iterable[tuple[Entry, Value]], dropped: Sequence[int]) -> None:
        """Follow a committed transaction: what it stored, in ascending seq, and the seqs that it forgot."""
        with self._lock:
            for entry, value in added:
                graph = self._graphs.get(entry.session)
                if graph is not None and isinstance(value, Entity):
                    graph.add_entities([entry.seq], [value.id])
                elif graph is not None and isinstance(value, Relationship):
                    graph.add_relationships([entry.seq], [value], [entry.expires])
            if dropped:
                for graph in self._graphs.values():
                    graph.drop(dropped)

    def forget(self, session: int) -> None:
        """Let go of the graph of a session."""
        with self._lock:
            self._graphs.pop(session, None)

    def clear(self) -> None:
        """Let go of every graph."""
        with self._lock:
            self._graphs.clear()

    def _read(self, session: int, now: int) -> _Growing:
        graph = _Growing()
        try:
            table = self._database.read_arrow(_ROWS, [session, naive(now)])
            entities = int(table.column("is_entity").to_numpy().sum())
            seqs, expires = table.column("seq").to_numpy(), table.column("expires").to_numpy()
            records = table.column("record").to_pylist()
            nodes = _NODES.decode_lines("\n".join(records[:entities]))
            graph.add_entities(seqs[:entities].tolist(), [node.id for node in nodes])
            edges = _EDGES.decode_lines("\n".join(records[entities:]))
            graph.add_relationships(seqs[entities:].tolist(), edges, expires[entities:])
        except msgspec.MsgspecError as error:
            raise internal("damaged", "a stored graph memory does not decode: the database file is damaged") from error
        return graph


_ROWS = """
SELECT seq, layer = 'graph.entity' AS is_entity, record, coalesce(epoch_us(expires_at), 9223372036854775807) AS expires
FROM memories WHERE session = ? AND layer IN ('graph.entity', 'graph.relationship')
AND (expires_at IS NULL OR expires_at > ?)  -- the ends of what has expired may be gone
ORDER BY is_entity DESC, seq
"""
