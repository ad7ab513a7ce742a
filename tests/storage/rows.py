"""Databases and rows for the tests of storage/database.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from memlab.settings import StorageSettings
from memlab.storage.database import Database, Transaction

SETTINGS = StorageSettings(min_free_bytes=0)
NOON = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - the columns hold UTC without saying so


def opened(path: Path, **changes: Any) -> Database:
    """Open or create a database of four-dimensional vectors."""
    arguments: dict[str, Any] = {"settings": SETTINGS, "embedder": "hashing", "dimension": 4} | changes
    return Database.open(path, **arguments)


def rows_of(seqs: Sequence[int], content: str = "{}") -> dict[str, Any]:
    """Return columns of `memories`, one row a seq."""
    count = len(seqs)
    return {
        "seq": list(seqs),
        "origin": list(seqs),
        "session": [0] * count,
        "layer": ["episodic"] * count,
        "kind": ["event"] * count,
        "tags": [["a", "b"]] * count,
        "confidence": [1.0] * count,
        "occurred_at": [NOON] * count,
        "digest": list(seqs),
        "record": [content] * count,
        "vector": [np.full(4, seq, np.float32).tobytes() for seq in seqs],
    }


def insert(*seqs: int) -> Callable[[Transaction], tuple[int, ...]]:
    """Return a member that stores rows and answers with their seqs."""

    def member(transaction: Transaction) -> tuple[int, ...]:
        transaction.insert("memories", rows_of(seqs))
        transaction.notes.extend(seqs)
        return seqs

    return member


def nothing(_: Transaction) -> None:
    """Publish nowhere."""


def stored(database: Database) -> list[int]:
    """Return the seqs that the database holds."""
    return [seq for (seq,) in database.read("SELECT seq FROM memories ORDER BY seq")]
