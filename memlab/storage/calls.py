"""A plan on its way into storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class Keyed(msgspec.Struct, frozen=True):
    """What a write promises once: its key, a digest of its parameters, and how to read its answer back."""

    operation: str
    key: str
    digest: str
    result_type: Any


class Call(msgspec.Struct, frozen=True):
    """One plan to run for one session.

    Attributes:
        start: begins the plan afresh; a write may be begun again after a rollback.
        keyed: None where no promise was asked for.
    """

    session: str
    start: Callable[[], Any]
    keyed: Keyed | None = None
