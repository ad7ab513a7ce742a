"""Sessions: whose memory it is.

A session is one memory of its own: what it stores, no other session reads. The session that an operation speaks of is the
one that the request names; where it names none, that is `default`, which always exists.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from memlab.operations.parameters import Cursor, ListLimit
from memlab.operations.registry import LAYERS, operation
from memlab.storage.demands import CreateSession, DeleteSession, Export, Plan, Sessions
from memlab.values import Table


class SessionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One session.

    Attributes:
        created_at: with time zone, UTC.
        memories: how many it holds, in all layers.
    """

    session: str
    created_at: datetime
    memories: int


class SessionDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """What went with a session.

    Attributes:
        forgotten: how many memories, in all layers; their earlier versions went too.
    """

    forgotten: int


@operation("session.create", writes=True, scope="all", invalidates=("session.list",), example=lambda chance, known: {})
def create() -> Plan[str]:
    """Open a new, empty session and return its id, which nobody can guess."""
    return (yield CreateSession())  # type: ignore[no-any-return]


# Its answer changes with every write of every session, so no cache may keep it.
@operation(
    "session.list",
    reads=True,
    scope="all",
    cacheable=False,
    example=lambda chance, known: {"limit": chance.randint(1, 50)},
)
def list_sessions(limit: ListLimit = 50, cursor: Cursor | None = None) -> Plan[Table[SessionEntry]]:
    """Return all sessions in the order of their ids, page by page."""
    rows, following = yield Sessions(limit, cursor)
    return Table((SessionEntry(**row) for row in rows), following)


@operation(
    "session.export",
    reads=True,
    cacheable=False,
    cost="job",
    example=lambda chance, known: {"format": chance.choice(["jsonl", "parquet"])},
)
def export(
    format: Annotated[
        Literal["jsonl", "parquet"], Meta(description="One JSON document a line, or one Parquet file with a row a memory.")
    ] = "jsonl",
) -> Plan[bytes]:
    """Return everything that the session remembers, earlier versions included, oldest first, as the bytes of a file."""
    return (yield Export(format))  # type: ignore[no-any-return]


@operation(
    "session.delete",
    writes=True,
    invalidates=tuple(LAYERS),
    example=lambda chance, known: {},
)
def delete() -> Plan[SessionDeleted]:
    """Forget the session that the request names, and everything in it, for good.

    Rows, earlier versions, index entries and cached answers go at once; the write-ahead log keeps their bytes until its next
    checkpoint, and a backup that was made before still holds them. `default` is emptied and goes on to exist.
    """
    return SessionDeleted(forgotten=(yield DeleteSession()))
