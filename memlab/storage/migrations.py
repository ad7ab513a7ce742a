"""The only place where tables are made or changed: an ordered list of steps, each followed by a checkpoint.

Replaying schema changes from DuckDB's log has been a source of databases that would not open, so no schema change ever
stays in the log, and none happens while memlab serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Migration:
    """One step from schema *version* - 1 to *version*."""

    version: int
    sql: str


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, resources.files("memlab.storage").joinpath("schema.sql").read_text(encoding="utf-8")),
)
