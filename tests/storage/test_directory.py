"""The directory selects what a plain loop over the same memories would."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memlab.storage.demands import EVERYTHING, Filter
from memlab.storage.directory import EPOCH, NEVER, Directory, Entry, microseconds

ENTRIES = st.lists(
    st.tuples(
        st.integers(0, 2),  # session
        st.sampled_from(["episodic", "semantic"]),
        st.sampled_from(["event", "fact"]),
        st.lists(st.sampled_from(["red", "green", "blue"]), unique=True, max_size=3),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.integers(0, 20),  # occurred
        st.one_of(st.none(), st.integers(0, 20)),  # expires
        st.booleans(),  # forgotten later
    ),
    max_size=60,
)
FILTERS = st.builds(
    Filter,
    tags=st.lists(st.sampled_from(["red", "green", "blue", "none"]), unique=True, max_size=2).map(tuple),
    match=st.sampled_from(["any", "all"]),
    since=st.one_of(st.none(), st.integers(0, 20).map(lambda s: EPOCH + timedelta(microseconds=s))),
    until=st.one_of(st.none(), st.integers(0, 20).map(lambda s: EPOCH + timedelta(microseconds=s))),
    min_confidence=st.sampled_from([None, 0.5]),
    below_confidence=st.sampled_from([None, 1.0]),
    kind=st.sampled_from([None, "event", "fact"]),
)


def made(rows) -> list[Entry]:
    return [
        Entry(
            seq=3 * place + 1,
            origin=3 * place + 1,
            session=session,
            layer=layer,
            kind=kind,
            tags=tuple(tags),
            confidence=confidence,
            occurred=occurred,
            expires=NEVER if expires is None else expires,
            digest=place,
        )
        for place, (session, layer, kind, tags, confidence, occurred, expires, _) in enumerate(rows)
    ]


def no_tags(session: int, layer: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    return np.zeros(0, np.int64), np.zeros(0, np.int32), []


def plain(entry: Entry, session: int, layer: str, now: int, filter: Filter) -> bool:
    tags = set(filter.tags)
    return (
        (entry.session, entry.layer) == (session, layer)
        and entry.expires > now
        and (not tags or (tags <= set(entry.tags) if filter.match == "all" else bool(tags & set(entry.tags))))
        and (filter.since is None or entry.occurred >= microseconds(filter.since))
        and (filter.until is None or entry.occurred < microseconds(filter.until))
        and (filter.min_confidence is None or entry.confidence >= filter.min_confidence)
        and (filter.below_confidence is None or entry.confidence < filter.below_confidence)
        and (filter.kind is None or entry.kind == filter.kind)
    )


@given(rows=ENTRIES, filter=FILTERS, now=st.integers(-1, 20), steps=st.integers(1, 5), early=st.booleans())
def test_a_filter_selects_what_a_loop_would(rows, filter, now, steps, early) -> None:
    """Selections, bitmaps and the last gate agree with a plain loop, whatever was added or forgotten before or after."""
    entries = made(rows)

    def load_tags(session: int, layer: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
        mine = [entry for entry in entries if (entry.session, entry.layer) == (session, layer)]
        pairs = [(tag, entry.seq) for entry in mine for tag in (*entry.tags, *entry.tags[:1])]  # the first of them twice
        names = sorted({tag for tag, _ in pairs}, reverse=True)
        return np.array([seq for _, seq in pairs], np.int64), np.array([names.index(tag) for tag, _ in pairs], np.int32), names

    loaded = len(entries) // 2
    directory = Directory(load_tags)
    for start in range(0, loaded, steps):
        directory.add(entries[start : min(start + steps, loaded)])
    if early:
        directory.select(0, "episodic", now, Filter(tags=("red",)))  # builds the postings before the rest arrives
    directory.add(entries[loaded:])
    forgotten = {entry.seq for entry, row in zip(entries, rows, strict=True) if row[-1]}
    directory.drop(forgotten)
    directory.drop(forgotten)  # a second time changes nothing
    for session in (0, 1, 5):
        for layer in ("episodic", "semantic"):
            expected = [
                entry.seq for entry in entries if entry.seq not in forgotten and plain(entry, session, layer, now, filter)
            ]
            positions = directory.select(session, layer, now, filter)
            assert directory.column("seq")[positions].tolist() == expected
            totals = {one["tag"]: one for one in directory.tag_totals(session, layer, now, 10)}
            for tag in ("red", "green", "blue"):
                carrying = Filter(tags=(tag,))
                mine = [one for one in entries if one.seq not in forgotten and plain(one, session, layer, now, carrying)]
                assert (tag in totals) == bool(mine)
                if mine:
                    assert totals[tag]["memories"] == len(mine)
                    assert abs(totals[tag]["mean_confidence"] - sum(one.confidence for one in mine) / len(mine)) < 1e-9
            chosen = directory.selection(session, layer, now, filter)
            if chosen is None:
                assert len(expected) == len(entries)
            else:
                bits = np.unpackbits(chosen.bits, bitorder="little")[: len(directory)]
                assert np.flatnonzero(bits).tolist() == positions.tolist()
                assert chosen.count == len(expected)
            all_seqs = np.array([entry.seq for entry in entries] + [10_000], np.int64)
            seen = all_seqs[directory.visible(all_seqs, session, layer, now)].tolist()
            assert seen == [
                entry.seq for entry in entries if entry.seq not in forgotten and plain(entry, session, layer, now, EVERYTHING)
            ]


def test_a_loaded_directory_equals_a_grown_one() -> None:
    """Columns read at opening give the same selections as additions, dead entries included."""
    rows = [
        (place % 3, "episodic" if place % 2 else "semantic", "event", [], 1.0, place, None, place % 5 == 0) for place in range(40)
    ]
    entries = made(rows)
    grown = Directory(no_tags)
    grown.add(entries)
    grown.drop(entry.seq for entry, row in zip(entries, rows, strict=True) if row[-1])
    loaded = Directory(no_tags)
    loaded.load({name: grown.column(name) for name in grown._columns})
    assert loaded.dead == grown.dead == 8
    for session in range(3):
        for layer in ("episodic", "semantic"):
            assert loaded.select(session, layer, 0).tolist() == grown.select(session, layer, 0).tolist()
    assert loaded.counts(0) == grown.counts(0)


def test_an_id_follows_its_updates() -> None:
    """The seq that a memory lives under now is found from the one it was first stored under, in its own session alone."""
    first = made([(1, "semantic", "fact", [], 1.0, 0, None, False)] * 2)
    directory = Directory(no_tags)
    directory.add(first)
    second = Entry(**{name: getattr(first[0], name) for name in first[0].__struct_fields__} | {"seq": 99})
    directory.add([second])
    directory.drop([first[0].seq])
    assert directory.current(1, "semantic", first[0].seq) == 99
    assert directory.current(2, "semantic", first[0].seq) == -1
    assert directory.current(1, "episodic", first[0].seq) == -1
    assert directory.current(1, "semantic", 99) == -1  # not an origin
    directory.drop([99])
    assert directory.current(1, "semantic", first[0].seq) == -1
