"""What filters need of every memory, in arrays: which positions a session, a layer and a filter select.

Derived from the database at opening (a tenth of a second for 100,000 memories). A memory's *position* is its place in
ascending order of `seq`; the vector index is aligned with it. Forgotten memories keep their positions, dead, until the
directory and the index are built again together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from memlab.measure import clock
from memlab.storage.demands import EVERYTHING, Filter
from memlab.storage.records import NAMES
from memlab.storage.vectors import Selection

NEVER = np.iinfo(np.int64).max
_NOT_A_TIME = np.iinfo(np.int64).min  # as NumPy has it
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAYER_CODES: Mapping[str, int] = {name: code for code, name in enumerate(NAMES)}  # below 16
KINDS = ("event", "fact", "principle", "concept", "record")
KIND_CODES = {name: code for code, name in enumerate(KINDS)}
_MICROSECOND = timedelta(microseconds=1)
_SAMPLE = 2_048  # memories from which a filter's selectivity is estimated: within 2.2 points of the truth, 19 times of 20


def microseconds(moment: datetime) -> int:
    """Return microseconds since 1970 UTC; a moment without time zone is taken as UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """Return microseconds since 1970 as a moment in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def naive(microseconds: int) -> datetime:
    """Return microseconds since 1970 as DuckDB's TIMESTAMP takes them: UTC, without saying so."""
    return moment(microseconds).replace(tzinfo=None)


def timestamps(microseconds: Sequence[int]) -> np.ndarray:
    """Return microseconds since 1970 as a column of DuckDB's TIMESTAMP, NEVER as its NULL."""
    values = np.array(microseconds, np.int64)
    values[values == NEVER] = _NOT_A_TIME
    return values.view("datetime64[us]")


def wall_us() -> int:
    """Return the present in microseconds since 1970."""
    return clock.wall_ns() // 1000


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What the directory holds of one memory; times in microseconds since 1970 UTC, `expires` NEVER for never."""

    seq: int
    origin: int
    session: int
    layer: str
    kind: str
    tags: tuple[str, ...]
    confidence: float
    occurred: int
    expires: int
    digest: int


_COLUMNS: Mapping[str, Any] = {
    "seq": np.int64,
    "origin": np.int64,
    "session": np.int32,
    "layer": np.int8,
    "kind": np.int8,
    "confidence": np.float64,
    "occurred": np.int64,
    "expires": np.int64,
    "digest": np.int64,
    "alive": np.bool_,
}


class Grown:
    """An array with room to grow; `view` is what is filled."""

    __slots__ = ("_room", "size")

    def __init__(self, values: np.ndarray) -> None:
        self._room = values
        self.size = len(values)

    @property
    def view(self) -> np.ndarray:
        """The filled part."""
        return self._room[: self.size]

    def extend(self, values: Sequence[Any] | np.ndarray) -> None:
        """Append *values*, doubling the room when it runs out."""
        needed = self.size + len(values)
        if needed > len(self._room):
            room = np.zeros(max(needed, 2 * len(self._room), 8), self._room.dtype)
            room[: self.size] = self.view
            self._room = room
        self._room[self.size : needed] = values
        self.size = needed


class Partition:
    """The positions of one session's memories in one layer, as ascending array and as bitmap; dead ones are taken out."""

    def __init__(self) -> None:
        self._positions = Grown(np.zeros(0, np.int64))
        self._bits = np.zeros(0, np.uint8)
        self.count = 0  # how many are alive
        self.first_expiry = NEVER
        self.postings: dict[str, Grown] | None = None  # by tag; built when a tag is first asked for

    def add(self, positions: np.ndarray, expires: np.ndarray) -> None:
        """Take in ascending *positions* beyond all that are here."""
        self._positions.extend(positions)
        self.count += len(positions)
        needed = (int(positions[-1]) >> 3) + 1
        if needed > len(self._bits):
            grown = np.zeros(max(needed, 2 * len(self._bits)), np.uint8)
            grown[: len(self._bits)] = self._bits
            self._bits = grown
        np.bitwise_or.at(self._bits, positions >> 3, np.left_shift(1, positions & 7).astype(np.uint8))
        self.first_expiry = min(self.first_expiry, int(expires.min()))

    def drop(self, position: int) -> None:
        """Take out one position that is here."""
        self._bits[position >> 3] &= ~np.uint8(1 << (position & 7))
        self.count -= 1

    def positions(self, alive: np.ndarray) -> np.ndarray:
        """Return the living positions, ascending."""
        members = self._positions.view
        if len(members) != self.count:
            members = members[alive[members]]
            self._positions = Grown(members)
        return members

    def bits(self, size: int) -> np.ndarray:
        """Return a bitmap over positions 0..size-1, little-endian."""
        needed = (size + 7) >> 3
        if needed > len(self._bits):
            grown = np.zeros(max(needed, 2 * len(self._bits)), np.uint8)
            grown[: len(self._bits)] = self._bits
            self._bits = grown
        return self._bits[:needed]


class Directory:
    """Arrays by position, and partitions by session and layer. The caller holds the lock.

    Args:
        load_tags: reads seqs and tags of one session and layer from the database, a pair for each tag of a memory: seqs, places
            of the tags among the names, and the names; called once for a partition, when a tag is first asked for.
    """

    def __init__(self, load_tags: Callable[[int, str], tuple[np.ndarray, np.ndarray, Sequence[str]]]) -> None:
        self._load_tags = load_tags
        self._columns = {name: Grown(np.zeros(0, kind)) for name, kind in _COLUMNS.items()}
        self._partitions: dict[tuple[int, int], Partition] = {}
        self._moved: dict[int, int] = {}
        self.dead = 0
        self.first_expiry = NEVER  # of any memory; an earlier moment than the first where that one is forgotten

    def __len__(self) -> int:
        return self._columns["seq"].size

    def column(self, name: str) -> np.ndarray:
        """Return one column over all positions; dead ones too."""
        return self._columns[name].view

    @property
    def alive(self) -> int:
        """How many memories there are."""
        return len(self) - self.dead

    def load(self, columns: Mapping[str, np.ndarray]) -> None:
        """Fill an empty directory with columns in ascending seq; `alive` false where the database has no such row."""
        for name, values in columns.items():
            self._columns[name] = Grown(np.ascontiguousarray(values, dtype=_COLUMNS[name]))
        self.look_for_expiry()
        alive = self.column("alive")
        living = np.flatnonzero(alive)
        self.dead = len(alive) - len(living)
        key = self.column("session")[living].astype(np.int64) * 16 + self.column("layer")[living]
        order = np.argsort(key, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            if len(members):
                code = int(key[members[0]])
                self._partition(code >> 4, code & 15).add(living[members], self.column("expires")[living[members]])
        moved = living[self.column("origin")[living] != self.column("seq")[living]]
        self._moved = dict(zip(self.column("origin")[moved].tolist(), self.column("seq")[moved].tolist(), strict=True))

    def add(self, entries: Sequence[Entry]) -> None:
        """Append memories with ascending seq beyond all that are here."""
        start = len(self)
        layers = [LAYER_CODES[entry.layer] for entry in entries]
        self._columns["origin"].extend([entry.origin for entry in entries])
        self._columns["session"].extend([entry.session for entry in entries])
        self._columns["layer"].extend(layers)
        self._columns["kind"].extend([KIND_CODES[entry.kind] for entry in entries])
        self._columns["confidence"].extend([entry.confidence for entry in entries])
        self._columns["occurred"].extend([entry.occurred for entry in entries])
        self._columns["expires"].extend([entry.expires for entry in entries])
        self._columns["digest"].extend([entry.digest for entry in entries])
        self._columns["alive"].extend([True] * len(entries))
        # Last: a look-up without the lock that finds a seq finds every other column filled.
        self._columns["seq"].extend([entry.seq for entry in entries])
        groups: dict[tuple[int, int], list[int]] = {}
        for offset, entry in enumerate(entries):
            groups.setdefault((entry.session, layers[offset]), []).append(start + offset)
            if entry.origin != entry.seq:
                self._moved[entry.origin] = entry.seq
        expires = self.column("expires")
        self.first_expiry = min([self.first_expiry, *(entry.expires for entry in entries)])
        for (session, layer), members in groups.items():
            positions = np.array(members, np.int64)
            partition = self._partition(session, layer)
            partition.add(positions, expires[positions])
            if partition.postings is not None:
                for position in members:
                    for tag in entries[position - start].tags:
                        _post(partition.postings, tag, [position])

    def look_for_expiry(self) -> None:
        """Find out when the next memory expires."""
        living = self.column("expires")[self.column("alive")]
        self.first_expiry = int(living.min()) if len(living) else NEVER

    def drop(self, seqs: Iterable[int]) -> None:
        """Mark memories as forgotten; unknown and already forgotten seqs are passed over."""
        for seq in seqs:
            position = self.position(seq)
            if position < 0:
                continue
            self.column("alive")[position] = False
            self.dead += 1
            self._partitions[int(self.column("session")[position]), int(self.column("layer")[position])].drop(position)
            origin = int(self.column("origin")[position])
            if self._moved.get(origin) == seq:
                del self._moved[origin]

    def position(self, seq: int) -> int:
        """Return the position of a living memory, -1 where there is none."""
        seqs = self.column("seq")
        place = int(np.searchsorted(seqs, seq))
        return place if place < len(seqs) and seqs[place] == seq and self.column("alive")[place] else -1

    def origin(self, seq: int) -> int:
        """Return the origin of a memory, living or not; -1 where the directory has let go of it."""
        seqs = self.column("seq")
        place = int(np.searchsorted(seqs, seq))
        return int(self.column("origin")[place]) if place < len(seqs) and seqs[place] == seq else -1

    def current(self, session: int, layer: str, origin: int) -> int:
        """Return the seq under which the memory first stored as *origin* lives now, -1 where this session has none."""
        seq = self._moved.get(origin, origin)
        position = self.position(seq)
        if (
            position < 0
            or self.column("session")[position] != session
            or self.column("layer")[position] != LAYER_CODES[layer]
            or self.column("origin")[position] != origin
        ):
            return -1
        return seq

    def visible(self, seqs: np.ndarray, session: int, layer: str, now: int) -> np.ndarray:
        """Return which of *seqs* this session may see in this layer at *now*; every row that leaves storage passes here."""
        known = self.column("seq")
        if not len(known):
            return np.zeros(len(seqs), np.bool_)
        places = np.searchsorted(known, seqs)
        np.minimum(places, len(known) - 1, out=places)  # beyond the last stands nobody, and the last one is another
        seen: np.ndarray = known[places] == seqs
        seen &= self.column("alive")[places]
        seen &= self.column("session")[places] == session
        seen &= self.column("layer")[places] == LAYER_CODES[layer]
        if self.first_expiry <= now:
            seen &= self.column("expires")[places] > now
        return seen

    def select(self, session: int, layer: str, now: int, filter: Filter = EVERYTHING) -> np.ndarray:
        """Return the ascending positions that a session sees through a filter at *now*."""
        partition = self._partitions.get((session, LAYER_CODES[layer]))
        if partition is None:
            return np.zeros(0, np.int64)
        alive = self.column("alive")
        if filter.tags:
            positions = self._tagged(partition, session, layer, filter)
            positions = positions[alive[positions]]
        else:
            positions = partition.positions(alive)
        keep: np.ndarray | None = None
        for condition in self._conditions(filter, now if partition.first_expiry <= now else None):
            column, accepts = condition
            values = self._values(column, positions)
            keep = accepts(values) if keep is None else keep & accepts(values)
        return positions if keep is None else positions.take(np.flatnonzero(keep))

    def estimate(self, session: int, layer: str, now: int, filter: Filter = EVERYTHING) -> tuple[int, float, int]:
        """Return how many memories a session has, how many of them pass a filter by estimate, and how many parts it has.

        Tags are counted in their postings, the rest in a sample of those that the tags leave or of all, evenly spaced.
        """
        partition = self._partitions.get((session, LAYER_CODES[layer]))
        if partition is None or not partition.count:
            return 0, 0.0, 0
        alive = self.column("alive")
        positions = self._tagged(partition, session, layer, filter) if filter.tags else partition.positions(alive)
        conditions = [*self._conditions(filter, now if partition.first_expiry <= now else None)]
        parts = len(conditions) + bool(filter.tags)
        passing = float(len(positions))
        if conditions and len(positions):
            step = max(1, len(positions) // _SAMPLE)
            sample = positions[step // 2 :: step]
            keep = alive[sample]
            for column, accepts in conditions:
                keep &= accepts(self.column(column)[sample])
            passing *= float(keep.mean())
        return partition.count, min(passing, float(partition.count)), parts

    def passes(self, positions: np.ndarray, session: int, layer: str, now: int, filter: Filter) -> np.ndarray:
        """Return which of a session's *positions* pass a filter at *now*."""
        partition = self._partitions.get((session, LAYER_CODES[layer]))
        if partition is None:
            return np.zeros(len(positions), np.bool_)
        keep: np.ndarray = self.column("alive")[positions]
        if filter.tags:
            keep &= np.isin(positions, self._tagged(partition, session, layer, filter))
        for column, accepts in self._conditions(filter, now if partition.first_expiry <= now else None):
            keep &= accepts(self.column(column)[positions])
        return keep

    def selection(self, session: int, layer: str, now: int, filter: Filter = EVERYTHING) -> Selection | None:
        """Return the same as a selection for the vector index; None where it is every position there is."""
        partition = self._partitions.get((session, LAYER_CODES[layer]))
        if partition is not None and filter == EVERYTHING and partition.first_expiry > now:
            if partition.count == len(self):
                return None
            return Selection(
                bits=partition.bits(len(self)), count=partition.count, positions=partition.positions(self.column("alive"))
            )
        positions = self.select(session, layer, now, filter)
        mask = np.zeros(len(self), np.bool_)
        mask[positions] = True
        return Selection(bits=np.packbits(mask, bitorder="little"), count=len(positions), positions=positions)

    def _values(self, column: str, positions: np.ndarray) -> np.ndarray:
        values = self.column(column)
        return values if len(positions) == len(values) else values.take(positions)

    @staticmethod
    def _conditions(filter: Filter, now: int | None) -> Iterable[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
        if now is not None:
            yield "expires", lambda values: values > now
        if filter.since is not None or filter.until is not None:
            since = None if filter.since is None else microseconds(filter.since)
            until = None if filter.until is None else microseconds(filter.until)
            yield "occurred", lambda values: _within(values, since, until)
        if filter.min_confidence is not None or filter.below_confidence is not None:
            yield "confidence", lambda values: _within(values, filter.min_confidence, filter.below_confidence)
        if filter.kind is not None:
            kind = KIND_CODES[filter.kind]
            yield "kind", lambda values: values == kind

    def tag_totals(self, session: int, layer: str, now: int, limit: int) -> list[dict[str, Any]]:
        """Return tag, memories and mean_confidence of the tags that a session uses, the most frequent first, then by name."""
        partition = self._partitions.get((session, LAYER_CODES[layer]))
        if partition is None:
            return []
        postings = self._postings(partition, session, layer)
        if not postings:
            return []
        names = list(postings)
        lists = [postings[name].view for name in names]
        places = np.concatenate(lists)
        owners = np.repeat(np.arange(len(names)), [len(one) for one in lists])
        there = self.column("alive")[places] & (self.column("expires")[places] > now)
        places, owners = places[there], owners[there]
        counts = np.bincount(owners, minlength=len(names))
        sums = np.bincount(owners, weights=self.column("confidence")[places], minlength=len(names))
        first = sorted(np.flatnonzero(counts).tolist(), key=lambda place: (-counts[place], names[place]))[:limit]
        return [
            {"tag": names[place], "memories": int(counts[place]), "mean_confidence": float(sums[place] / counts[place])}
            for place in first
        ]

    def _tagged(self, partition: Partition, session: int, layer: str, filter: Filter) -> np.ndarray:
        postings = self._postings(partition, session, layer)
        empty = np.zeros(0, np.int64)
        lists = [postings[tag].view if tag in postings else empty for tag in dict.fromkeys(filter.tags)]
        if filter.match == "any":
            return np.unique(np.concatenate(lists)) if len(lists) > 1 else lists[0]
        found: np.ndarray = lists[0]
        for other in lists[1:]:
            found = np.intersect1d(found, other, assume_unique=True)
        return found

    def _postings(self, partition: Partition, session: int, layer: str) -> dict[str, Grown]:
        """Return the positions of every tag, dead ones too; read from the database once."""
        if partition.postings is None:
            seqs, codes, names = self._load_tags(session, layer)
            known = self.column("seq")
            places = np.minimum(np.searchsorted(known, seqs), max(len(known) - 1, 0))
            # A row that was committed and is not in the directory yet comes with its own `add`.
            here = known[places] == seqs if len(known) else np.zeros(len(seqs), np.bool_)
            # NumPy sorts numbers of 16 bits and fewer several times as fast.
            places, codes = places[here], codes[here].astype(np.min_scalar_type(len(names)))
            order = np.lexsort((places, codes))
            places, codes = places[order], codes[order]
            once = np.ones(len(places), np.bool_)
            once[1:] = (places[1:] != places[:-1]) | (codes[1:] != codes[:-1])  # a memory may carry a tag twice
            places, codes = places[once], codes[once]
            lists = np.split(places, np.cumsum(np.bincount(codes, minlength=len(names)))[:-1])
            partition.postings = {name: Grown(found) for name, found in zip(names, lists, strict=False) if len(found)}
        return partition.postings

    def _partition(self, session: int, layer: int) -> Partition:
        key = (session, layer)
        if key not in self._partitions:
            self._partitions[key] = Partition()
        return self._partitions[key]

    def counts(self, now: int) -> dict[int, int]:
        """Return how many memories each session holds at *now*, by session code."""
        names = {code: name for name, code in LAYER_CODES.items()}
        totals: dict[int, int] = {}
        for (session, layer), partition in self._partitions.items():
            count = partition.count if partition.first_expiry > now else len(self.select(session, names[layer], now))
            totals[session] = totals.get(session, 0) + count
        return totals


def _within(values: np.ndarray, least: float | None, below: float | None) -> np.ndarray:
    """Return which values are in a half-open range, of which one end may be left out."""
    if least is None or below is None:
        inside: np.ndarray = values < below if least is None else values >= least
        return inside
    inside = values >= least
    inside &= values < below
    return inside


def _post(postings: dict[str, Grown], tag: str, positions: list[int]) -> None:
    if tag not in postings:
        postings[tag] = Grown(np.zeros(0, np.int64))
    postings[tag].extend(positions)
