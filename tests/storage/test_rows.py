"""Rows come from memory or from the database, whichever has them, and are the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memlab.errors import MemlabError
from memlab.storage import records, rows
from memlab.storage.database import Database
from memlab.storage.demands import Draft
from memlab.storage.phases import Phases
from memlab.storage.rows import Rows
from tests.storage.rows import nothing, opened, rows_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STORED = range(1, 301)


def value(seq: int):
    return records.value_of(
        "episodic",
        records.new_id("episodic", seq, "00000000"),
        Draft(content=f"memory {seq}", vector=None),
        now=NOW,
        created_at=NOW,
        version=1,
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    columns = rows_of(STORED) | {"record": [records.encode(value(seq)) for seq in STORED]}
    with opened(tmp_path / "lab.duckdb") as database:
        database.transact([lambda transaction: transaction.insert("memories", columns)], nothing)
        yield database


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 63, 64, 65, 200])
@pytest.mark.parametrize("hot", [0, 50])
def test_every_row_that_exists_is_fetched(database: Database, count: int, hot: int) -> None:
    """However many are wanted, each that is stored comes with its value, also the second time, and no other does."""
    wanted = [*range(280 - count, 280), 1_000, -1]
    kept = Rows(database, hot)
    for _ in range(2):
        found = kept.fetch(wanted, Phases())
        assert found == {seq: ("episodic", value(seq)) for seq in range(280 - count, 280)}


def test_a_row_that_does_not_decode_is_an_error_of_its_own(database: Database) -> None:
    """Damage in one row leaves the others of the fetch whole."""
    broken = rows_of([900]) | {"record": ["{"]}
    database.transact([lambda transaction: transaction.insert("memories", broken)], nothing)
    found = Rows(database, 10).fetch([5, 900], Phases())
    assert found[5] == ("episodic", value(5))
    assert isinstance(found[900], MemlabError)
    assert found[900].reason == "damaged"


@pytest.mark.parametrize("count", [1, 16, 64])
def test_few_rows_are_looked_up_in_the_primary_key(database: Database, count: int) -> None:
    """No statement for a few rows reads the whole table or makes a table of the list to join with."""
    ((_, plan),) = database.read(f"EXPLAIN ANALYZE {rows._listed(count)}", [*range(1, count + 1)])
    assert "Index Scan" in plan
    assert "Join" not in plan
