"""Between the values that callers see and the rows that the database holds."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from memlab.errors import internal
from memlab.storage.demands import Draft
from memlab.values import Event, Fact

_PREFIXES = {"episodic": "ep_", "semantic": "sm_"}
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "episodic": msgspec.json.Decoder(Event),
    "semantic": msgspec.json.Decoder(Fact),
}
_TAG_BYTES = 4


def new_id(layer: str, seq: int) -> str:
    """Return an id: the layer, the seq that finds its row by primary key, and random digits so that none can be guessed."""
    return f"{_PREFIXES[layer]}{seq:x}{secrets.token_hex(_TAG_BYTES)}"


def origin_of(layer: str, id: str) -> int:
    """Return the seq that an id begins with, -1 where the text cannot be an id of this layer."""
    if not id.startswith(_PREFIXES[layer]):
        return -1
    try:
        return int(id[len(_PREFIXES[layer]) : -2 * _TAG_BYTES], 16)
    except ValueError:
        return -1


def content_digest(content: str) -> int:
    """Return 64 bits of a content's BLAKE2 digest as a signed integer, as DuckDB's BIGINT holds it."""
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "little", signed=True)


def value_of(layer: str, id: str, draft: Draft, *, now: datetime, created_at: datetime, version: int) -> Event | Fact:
    """Return the value that callers see of a draft."""
    if layer == "episodic":
        return Event(
            id=id,
            content=draft.content,
            tags=draft.tags,
            context=dict(draft.attributes),
            source=draft.source,
            confidence=draft.confidence,
            occurred_at=draft.occurred_at or now,
            created_at=created_at,
            expires_at=draft.expires_at,
        )
    triple: Mapping[str, Any] = draft.attributes
    return Fact(
        id=id,
        content=draft.content,
        kind=draft.kind,
        topics=draft.tags,
        subject=triple.get("subject"),
        predicate=triple.get("predicate"),
        object=triple.get("object"),
        source=draft.source,
        confidence=draft.confidence,
        version=version,
        created_at=created_at,
        updated_at=now,
        expires_at=draft.expires_at,
    )


def encode(value: Event | Fact) -> str:
    """Return the JSON document of a value."""
    return bytes(msgspec.json.encode(value)).decode()


def decode(layer: str, record: str) -> Event | Fact:
    """Return the value of a stored JSON document."""
    try:
        value: Event | Fact = _DECODERS[layer].decode(record)
        return value
    except msgspec.MsgspecError as error:
        raise internal("damaged", f"a stored {layer} memory does not decode: the database file is damaged") from error
