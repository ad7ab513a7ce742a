"""Rows of memories: from memory where they were read before, from the database otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple, TypeAlias

import cachebox
import numpy as np

from memlab.errors import MemlabError
from memlab.storage import records
from memlab.storage.database import Database
from memlab.storage.phases import Phases
from memlab.values import Event, Fact, Record

Value: TypeAlias = Event | Fact | Record
Row: TypeAlias = tuple[str, Value]
"""Layer and value."""


class Replacing(NamedTuple):
    """A memory that stands in the place of one that was found: its session, its row, and its vector, (dimension,) float32."""

    session: int
    row: Row | MemlabError
    vector: np.ndarray


class Rows:
    """Fetches rows and keeps the hot ones; a row never changes, so what is kept is never stale.

    Args:
        hot: rows kept at most; 0 keeps none.
    """

    def __init__(self, database: Database, hot: int) -> None:
        self._database = database
        self._hot: cachebox.LRUCache[int, Row] | None = cachebox.LRUCache(hot) if hot else None

    def __len__(self) -> int:
        return 0 if self._hot is None else len(self._hot)

    def resident(self, seq: int) -> Row | None:
        """Return a row that is in memory, or None."""
        return None if self._hot is None else self._hot.get(seq)

    def fetch(self, seqs: Iterable[int], phases: Phases) -> dict[int, Row | MemlabError]:
        """Return the rows that exist, by seq; an error in place of one that does not decode."""
        rows: dict[int, Row | MemlabError] = {}
        missing: list[int] = []
        resident = self.resident if self._hot is None else self._hot.get  # every row of every answer comes by here
        for seq in seqs:
            row = resident(seq)
            if row is not None:
                rows[seq] = row
            elif seq >= 0:
                missing.append(seq)
        if missing:
            with phases.time("fetch"):
                if len(missing) <= _FEW:
                    room = 1 << (len(missing) - 1).bit_length()  # a handful of statements, each parsed once
                    fetched = self._database.read(_listed(room), missing + missing[-1:] * (room - len(missing)))
                else:
                    fetched = self._database.read(_JOINED, [missing])
            with phases.time("decode"):
                for seq, layer, record in fetched:
                    try:
                        rows[seq] = row = (layer, records.decode(layer, record))
                    except MemlabError as error:
                        rows[seq] = error
                    else:
                        if self._hot is not None:
                            self._hot[seq] = row
        return rows

    def replacing(self, origins: Mapping[int, int]) -> dict[int, Replacing]:
        """Return memories as they are committed now, by the seq that *origins* names them under.

        Args:
            origins: the origin of each memory, by the seq that it lived under when it was found.
        """
        found: dict[int, Replacing] = {}
        committed = self._database.read(_OF_ORIGINS, [list(set(origins.values()))])
        living = {origin: rest for origin, *rest in committed}
        for seq, origin in origins.items():
            if origin in living:
                session, layer, record, vector = living[origin]
                row: Row | MemlabError
                try:
                    row = (layer, records.decode(layer, record))
                except MemlabError as error:
                    row = error
                found[seq] = Replacing(session, row, np.frombuffer(vector, np.float32))
        return found

    def keep(self, rows: Mapping[int, Row]) -> None:
        """Hold rows in memory until hotter ones take their place."""
        if self._hot is not None:
            self._hot.update(rows)

    def drop(self, seqs: Iterable[int]) -> None:
        """Let go of rows that are forgotten."""
        if self._hot is not None:
            for seq in seqs:
                self._hot.pop(seq, None)

    def clear(self) -> None:
        """Let go of every row."""
        if self._hot is not None:
            self._hot.clear()


_FEW = 64  # from which number of rows a join with a list of their seqs beats looking up seqs that are written out
_OF_ORIGINS = (
    "SELECT origin, session, layer, record, vector FROM memories WHERE origin IN (SELECT unnest(?))"  # a scan, and seldom
)
_JOINED = "SELECT seq, layer, record FROM memories WHERE seq IN (SELECT unnest(?))"


@cache
def _listed(count: int) -> str:
    """Return the look-up of *count* rows: ten take 0.35 ms where the join takes 0.6 ms."""
    return f"SELECT seq, layer, record FROM memories WHERE seq IN ({', '.join('?' * count)})"  # noqa: S608 - no values
