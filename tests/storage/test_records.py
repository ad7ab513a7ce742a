"""Records of the layers beyond episodic and semantic memory are kept, changed, looked up and forgotten as memories are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memlab.embedders import HashingEmbedder
from memlab.errors import MemlabError
from memlab.settings import Settings
from memlab.storage.calls import Call, Keyed
from memlab.storage.demands import (
    Ahead,
    Carrying,
    Count,
    CreateSession,
    Embed,
    Fetch,
    Filter,
    Following,
    Insert,
    Page,
    Remove,
    Replace,
    Search,
    Versions,
    record,
)
from memlab.storage.phases import Phases
from memlab.storage.records import LAYER_OF, NAMES, origin_of
from memlab.storage.store import Storage
from memlab.values import LAST, Record, Task

EMBEDDER = HashingEmbedder(64)
DUE = datetime(2026, 5, 1, tzinfo=UTC)


def opened(path: Path) -> Storage:
    return Storage.open(path, Settings.off(), EMBEDDER)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    storage = opened(tmp_path / "memory.duckdb")
    yield storage
    storage.close()


def read(storage: Storage, demand: Any, session: str = "default") -> Any:
    def plan():
        return (yield demand)

    (answer,) = storage.read([Call(session, plan)], Phases())
    if isinstance(answer, MemlabError):
        raise answer
    return answer


def write(storage: Storage, *plans: Callable[[], Any], keyed: Keyed | None = None) -> list[Any]:
    phases = Phases()
    return storage.write(storage.prepare([Call("default", plan, keyed) for plan in plans], phases), phases)


def task(title: str, **fields: Any) -> Callable[[], Any]:
    def plan():
        vectors = yield Embed((title,))
        done = yield Insert("prospective.task", (record(vectors[0], title=title, **fields),))
        return done.values[0]

    return plan


def stored(storage: Storage, title: str, **fields: Any) -> Task:
    (answer,) = write(storage, task(title, **fields))
    return answer


def test_every_layer_has_ids_and_values_of_its_own():
    """No two layers share a kind of value, and no id of one could be of another."""
    assert set(LAYER_OF.values()) == set(NAMES)
    for layer in NAMES:
        assert sum(origin_of(other, f"{_prefix(layer)}1f00000000") == 0x1F for other in NAMES) == 1
    assert len(NAMES) <= 16, "the directory codes a layer in four bits"


def _prefix(layer: str) -> str:
    return next(
        prefix
        for prefix in ("ep_", "sm_", "pr_", "rn_", "tk_", "go_", "tr_", "wa_", "en_", "re_", "co_", "cs_")
        if origin_of(layer, f"{prefix}1f00000000") >= 0
    )


def test_a_record_is_found_by_id_key_word_and_meaning_also_after_opening_again(tmp_path):
    """What was stored is there in every way, before and after a restart, also when the indexes are lost."""
    path = tmp_path / "memory.duckdb"
    storage = opened(path)
    one = stored(storage, "water the garden", due_at=DUE)
    stored(storage, "sail to the island", status="completed")
    for lost in (False, True):
        storage.close()
        if lost:
            for file in sorted(path.with_name("memory.duckdb.index").rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
        storage = opened(path)
        assert read(storage, Fetch("prospective.task", (one.id,))) == [one]
        assert read(storage, Carrying("prospective.task", ("status:pending",), 5)) == [one]
        assert read(storage, Count("prospective.task", Filter(tags=("status:completed",)))) == 1
        vector = EMBEDDER.embed(["garden"], query=True)[0]
        for search in (
            Search("prospective.task", "text", 1, text="garden"),
            Search("prospective.task", "vector", 1, vector=vector),
        ):
            assert [found.id for found in read(storage, search)] == [one.id]
        assert read(storage, Search("prospective.goal", "text", 5, text="garden")) == []
        assert read(storage, Search("episodic", "text", 5, text="garden")) == []
    storage.close()


def test_lists_are_in_the_order_that_the_record_says(storage):
    """Tasks stand in the order of their due times, those without one at the end."""
    late, never, soon = (
        stored(storage, title, due_at=due) for title, due in (("b", DUE), ("c", None), ("a", DUE - timedelta(1)))
    )
    values, _ = read(storage, Page("prospective.task", 10, newest_first=False))
    assert [value.id for value in values] == [soon.id, late.id, never.id]
    assert never.moment == LAST


def test_a_change_is_a_new_version_under_new_keys(storage):
    """A changed field is seen in value, keys and text; what was stays as a version; what is not named stays as it is."""
    first = stored(storage, "water the garden", due_at=DUE)

    def complete():
        return (yield Replace("prospective.task", first.id, {"status": "completed", "title": "feed the birds"}))

    (second,) = write(storage, complete)
    assert (second.version, second.status, second.due_at, second.created_at) == (2, "completed", DUE, first.created_at)
    assert read(storage, Carrying("prospective.task", ("status:pending",), 5)) == []
    assert read(storage, Carrying("prospective.task", ("status:completed",), 5)) == [second]
    assert [found.id for found in read(storage, Search("prospective.task", "text", 5, text="birds"))] == [first.id]
    assert read(storage, Versions("prospective.task", first.id)) == [first]


def test_a_write_looks_up_what_it_has_done_itself(storage):
    """Inside a transaction a look-up by key sees what was stored, changed and removed before it, by this member and others."""
    old, gone = stored(storage, "old"), stored(storage, "gone")
    seen: list[list[str]] = []

    def change():
        yield Replace("prospective.task", old.id, {"status": "cancelled"})
        yield Remove("prospective.task", (gone.id,))
        return (yield Insert("prospective.task", (record(None, title="new"),)))

    def look():
        for keys in (("status:pending",), ("status:cancelled",)):
            found = yield Carrying("prospective.task", keys, 10)
            seen.append([value.title for value in found])
        yield Insert("prospective.task", (record(None, title="last"),))

    write(storage, task("first"), change, look)
    assert seen == [["first", "new"], ["old"]]


@pytest.mark.parametrize(("match", "wanted"), [("all", ["both"]), ("any", ["both", "goal alone"])])
def test_a_look_up_takes_any_or_all_keys(storage, match, wanted):
    """Several keys are needed all, or one of them is enough; in a transaction too."""
    stored(storage, "both", goal="go_1", status="completed")
    stored(storage, "goal alone", goal="go_1")
    stored(storage, "neither")
    demand = Carrying("prospective.task", ("goal:go_1", "status:completed"), 10, match=match)
    assert [value.title for value in read(storage, demand)] == wanted

    def look():
        yield Remove("prospective.task", ())
        return tuple(value.title for value in (yield demand))

    assert write(storage, look) == [tuple(wanted)]


def test_a_record_without_a_text_has_no_vector_of_its_own(storage):
    """It is kept all the same, and found by its keys."""

    def plan():
        fields = {"procedure": "pr_1", "steps": ("a",), "inputs": {"n": [1, {"m": None}]}}
        return (yield Insert("procedural.run", (record(None, **fields),))).values[0]

    (run,) = write(storage, plan)
    (found,) = read(storage, Carrying("procedural.run", ("open:pr_1",), 5))
    assert found == run
    assert found.inputs == {"n": (1, {"m": None})}


def test_a_key_answers_with_the_version_that_it_was_answered_with(storage):
    """A repeated write returns what it returned, also when the record has changed since."""
    keyed = Keyed("prospective.create_task", "once", "digest", Task)
    (first,) = write(storage, task("water the garden"), keyed=keyed)

    def change():
        return (yield Replace("prospective.task", first.id, {"status": "completed"}))

    write(storage, change)
    assert write(storage, task("water the garden"), keyed=keyed) == [first]
    assert read(storage, Count("prospective.task")) == 1


def test_what_is_read_ahead_is_read_before_the_writer_is_taken(storage):
    """A plan reads ahead while the writer is free for others, and then sees what they did when it fetches again."""
    one = stored(storage, "water the garden")

    def plan():
        ((ahead,), _) = yield Ahead(Page("prospective.task", 10))
        (now,) = yield Fetch("prospective.task", (one.id,))
        yield Remove("prospective.task", (one.id,))
        return ahead.status, now.status

    phases = Phases()
    prepared = storage.prepare([Call("default", plan)], phases)

    def change():
        return (yield Replace("prospective.task", one.id, {"status": "completed"}))

    write(storage, change)
    assert storage.write(prepared, phases) == [("pending", "completed")]


def test_what_follows_comes_in_the_order_of_storing(storage):
    """After a seq, through a filter, with the vectors that it was stored with and how many more there are."""
    tasks = [stored(storage, title, due_at=DUE - timedelta(place)) for place, title in enumerate(("a", "b", "c", "d"))]

    def cancel():
        yield Replace("prospective.task", tasks[1].id, {"status": "cancelled"})

    write(storage, cancel)
    begin = origin_of("prospective.task", tasks[0].id)
    demand = Following("prospective.task", 1, begin, Filter(tags=("status:pending",)))
    values, vectors, more = read(storage, demand)
    assert (values, more) == ([tasks[2]], 1)
    assert np.array_equal(vectors, EMBEDDER.embed(["c"]))
    values, vectors, more = read(storage, Following("prospective.task", 5, origin_of("prospective.task", tasks[3].id)))
    assert [value.status for value in values] == ["cancelled"], "a change is stored anew"
    assert read(storage, Following("prospective.goal", 5))[0] == []


def test_reading_ahead_of_an_unknown_session_is_refused(storage):
    """The session predicate holds for what is read ahead too."""

    def plan():
        yield Ahead(Count("prospective.task"))

    phases = Phases()
    (error,) = storage.write(storage.prepare([Call("nobody", plan)], phases), phases)
    assert (error.type, error.reason) == ("NOT_FOUND", "session")


def test_reading_ahead_too_late_is_a_bug(storage):
    """Once a plan has begun to write there is no ahead."""

    def plan():
        yield Insert("prospective.task", (record(None, title="a"),))
        yield Ahead(Count("prospective.task"))

    (error,) = write(storage, plan)
    assert error.reason == "bug"
    assert read(storage, Count("prospective.task")) == 0


def test_records_of_other_sessions_are_not_there(storage):
    """Neither by id, by key, by page nor by search."""
    one = stored(storage, "water the garden")

    def create():
        return (yield CreateSession())

    (other,) = write(storage, create)
    vector = np.asarray(EMBEDDER.embed(["garden"], query=True)[0])
    assert read(storage, Fetch("prospective.task", (one.id,)), other) == [None]
    assert read(storage, Carrying("prospective.task", ("status:pending",), 5), other) == []
    assert read(storage, Page("prospective.task", 5), other) == ([], None)
    assert read(storage, Search("prospective.task", "hybrid", 5, vector=vector, text="garden"), other) == []
    assert isinstance(one, Record)
