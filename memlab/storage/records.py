"""Between the values that callers see and the rows that the database holds."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast, get_args

import msgspec

from memlab.errors import internal
from memlab.storage.demands import Draft, Layer
from memlab.values import (
    Consolidation,
    ConsolidationStrategy,
    Entity,
    Event,
    Fact,
    Goal,
    Procedure,
    Record,
    Relationship,
    Run,
    Task,
    Trigger,
    Watch,
)


class _Form(msgspec.Struct, frozen=True):
    """How the ids of a layer begin, and what its values are."""

    prefix: str
    type: type[Any]


_FORMS: Mapping[Layer, _Form] = {
    "episodic": _Form("ep_", Event),
    "semantic": _Form("sm_", Fact),
    "procedural.procedure": _Form("pr_", Procedure),
    "procedural.run": _Form("rn_", Run),
    "prospective.task": _Form("tk_", Task),
    "prospective.goal": _Form("go_", Goal),
    "prospective.trigger": _Form("tr_", Trigger),
    "prospective.watch": _Form("wa_", Watch),
    "graph.entity": _Form("en_", Entity),
    "graph.relationship": _Form("re_", Relationship),
    "consolidation.run": _Form("co_", Consolidation),
    "consolidation.strategy": _Form("cs_", ConsolidationStrategy),
}
NAMES: tuple[Layer, ...] = get_args(Layer)
LAYER_OF: Mapping[type[Any], Layer] = {form.type: layer for layer, form in _FORMS.items()}
_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {layer: msgspec.json.Decoder(form.type) for layer, form in _FORMS.items()}
_COMMON = frozenset(Record.__struct_fields__)
_ENCODE: Callable[[Any], bytes] = msgspec.json.Encoder().encode
_TAG_BYTES = 4


def new_id(layer: Layer, seq: int, digits: str) -> str:
    """Return an id: the layer, the seq that finds its row by primary key, and random digits so that none can be guessed."""
    return f"{_FORMS[layer].prefix}{seq:x}{digits}"


def random_digits(count: int) -> list[str]:
    """Return the random digits of *count* ids; drawn together, they cost a tenth."""
    width = 2 * _TAG_BYTES
    drawn = secrets.token_hex(_TAG_BYTES * count)
    return [drawn[start : start + width] for start in range(0, len(drawn), width)]


def origin_of(layer: Layer, id: str) -> int:
    """Return the seq that an id begins with, -1 where the text cannot be an id of this layer."""
    prefix = _FORMS[layer].prefix
    if not id.startswith(prefix):
        return -1
    try:
        return int(id[len(prefix) : -2 * _TAG_BYTES], 16)
    except ValueError:
        return -1


def content_digest(content: str) -> int:
    """Return 64 bits of a content's BLAKE2 digest as a signed integer, as DuckDB's BIGINT holds it."""
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "little", signed=True)


def value_of(layer: Layer, id: str, draft: Draft, *, now: datetime, created_at: datetime, version: int) -> Event | Fact | Record:
    """Return the value that callers see of a draft."""
    if layer == "episodic":
        return Event(
            id=id,
            content=draft.content,
            tags=draft.tags,
            context=cast(dict[str, Any], draft.attributes),  # the event freezes it, where it is not frozen already
            source=draft.source,
            confidence=draft.confidence,
            occurred_at=draft.occurred_at or now,
            created_at=created_at,
            expires_at=draft.expires_at,
        )
    if layer != "semantic":
        made: Record = _FORMS[layer].type(id=id, version=version, created_at=created_at, updated_at=now, **draft.attributes)
        return made
    triple: Mapping[str, Any] = draft.attributes
    return Fact(
        id=id,
        content=draft.content,
        kind=draft.kind,
        topics=draft.tags,
        subject=triple.get("subject"),
        predicate=triple.get("predicate"),
        object=triple.get("object"),
        evidence=tuple(triple.get("evidence", ())),
        source=draft.source,
        confidence=draft.confidence,
        version=version,
        created_at=created_at,
        updated_at=now,
        expires_at=draft.expires_at,
    )


def own_fields(value: Record) -> dict[str, Any]:
    """Return the fields that a kind of record adds to what all have."""
    return {name: getattr(value, name) for name in value.__struct_fields__ if name not in _COMMON}


def encode(value: Event | Fact | Record) -> str:
    """Return the JSON document of a value."""
    return _ENCODE(value).decode()


def decode(layer: str, record: str) -> Event | Fact | Record:
    """Return the value of a stored JSON document."""
    try:
        value: Event | Fact | Record = _DECODERS[layer].decode(record)
        return value
    except (msgspec.MsgspecError, KeyError) as error:
        raise internal("damaged", f"a stored {layer} memory does not decode: the database file is damaged") from error
