"""Its own records of what an engine acknowledged, and whether it is all there afterwards, in its own session alone.

It trusts no index and no cache: after a load it reads whole sessions and compares them with what the driver was told. A memory
that nobody was told of is no mistake: a call whose outcome is unknown may have stored it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from memlab.experiment.load import Execute
from memlab.measure.recorder import Outcome
from memlab.operations.registry import lookup
from memlab.values import Event, Fact, Forgotten, Stored
from memlab.workload.mix import Call

_LETTERS = "bcdfghjklmnpqrstvwxz"  # no vowels: a canary is no word of any text
_TAG = "canary"
_SHOWN = 5


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the memory found.

    Attributes:
        sessions: looked at.
        acknowledged: memories whose storing was acknowledged and whose forgetting was not.
        missing: of those, not there.
        altered: there with another content than was acknowledged last.
        not_forgotten: there although their forgetting was acknowledged.
        foreign: ids or canaries of one session that were found in another.
        canaries, canaries_found: planted, and found by a search of their session.
        doubtful: memories that a call with an unknown outcome may have changed; their content is not judged.
        examples: some of what is wrong, in words.
    """

    sessions: int
    acknowledged: int
    missing: int
    altered: int
    not_forgotten: int
    foreign: int
    canaries: int
    canaries_found: int
    doubtful: int
    examples: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing or self.altered or self.not_forgotten or self.foreign) and self.canaries_found == self.canaries

    def to_dict(self) -> dict[str, Any]:
        """Return its fields and `holds` as plain values."""
        return {"holds": self.holds, **msgspec.to_builtins(self)}


class _Records:
    """Of one session."""

    def __init__(self, canary: str) -> None:
        self.canary = canary
        self.contents: dict[str, tuple[int, str | None]] = {}  # by id: version and content
        self.forgotten: set[str] = set()
        self.doubtful: set[str] = set()
        self.anything_may_be_gone = False


class Oracle:
    """Told of every write and its answer while a load runs.

    Args:
        sessions: by label, the engine's ids.
        seed: of the canaries.
    """

    def __init__(self, sessions: Mapping[str, str], seed: int) -> None:
        chance = random.Random(seed)
        self._label = {session: label for label, session in sessions.items()}
        self._of = {session: _Records("".join(chance.choices(_LETTERS, k=16))) for session in sessions.values()}

    def loaded(self, session: str, ids: Iterable[str], contents: Iterable[str | None]) -> None:
        """Write down what was stored before."""
        for id, content in zip(ids, contents, strict=True):
            self._of[session].contents[id] = 1, content

    async def plant(self, execute: Execute) -> None:
        """Store every session's canary: a word that stands nowhere else."""
        for session, records in self._of.items():
            parameters = {"content": f"canary {records.canary}", "tags": [_TAG]}
            value = (await execute("episodic.remember", parameters, session=session)).value
            self.note(Call("episodic.remember", parameters, session, ""), "ok", value)

    def note(self, call: Call, outcome: Outcome, value: Any) -> None:
        """Write down what one call changed, or may have."""
        declared = lookup(call.operation)
        records = self._of.get(call.session)
        if declared.reads or records is None or outcome in ("refused", "error", "timeout"):
            return
        named = _names(call.parameters)
        if outcome == "unknown":
            records.doubtful |= named
            # What forgets by a condition names no ids.
            stores = declared.result_type in (Event, Fact, Stored)
            records.anything_may_be_gone |= not stores and not call.parameters.keys() & {"id", "ids"}
            return
        if isinstance(value, (Event, Fact)):
            version = value.version if isinstance(value, Fact) else 1
            if version >= records.contents.get(value.id, (0, None))[0]:
                records.contents[value.id] = version, value.content
        elif isinstance(value, Stored):
            given = next((list(part) for part in call.parameters.values() if isinstance(part, (list, tuple))), [])
            for id, item in zip(value.ids, given, strict=False):
                records.contents.setdefault(id, (1, item.get("content") if isinstance(item, Mapping) else None))
        elif isinstance(value, Forgotten):
            if not value.dry_run:
                records.forgotten.update(value.ids)
        else:
            _note_other(records, value)

    async def check(self, execute: Execute) -> Checked:
        """Read every session and compare it with the records."""
        wrong: list[str] = []
        counts = dict.fromkeys(("acknowledged", "missing", "altered", "not_forgotten", "foreign", "found", "doubtful"), 0)
        home = {id: session for session, records in self._of.items() for id in records.contents}
        canaries = {records.canary: session for session, records in self._of.items()}
        for session, records in self._of.items():
            there = dict(_memories((await execute("session.export", {"format": "jsonl"}, session=session)).value))
            found = await execute("episodic.recall", {"query": records.canary, "mode": "text", "limit": 5}, session=session)
            counts["found"] += any(records.canary in event.content for event in found.value)
            counts["doubtful"] += len(records.doubtful)
            for kind, id in self._judge(session, records, there, home, canaries):
                counts[kind] += 1
                if len(wrong) < _SHOWN:
                    wrong.append(f"{kind.replace('_', ' ')}: {id} in {self._label[session]}")
            counts["acknowledged"] += len(records.contents.keys() - records.forgotten)
        return Checked(
            sessions=len(self._of),
            acknowledged=counts["acknowledged"],
            missing=counts["missing"],
            altered=counts["altered"],
            not_forgotten=counts["not_forgotten"],
            foreign=counts["foreign"],
            canaries=len(canaries),
            canaries_found=counts["found"],
            doubtful=counts["doubtful"],
            examples=tuple(wrong),
        )

    def _judge(
        self,
        session: str,
        records: _Records,
        there: Mapping[str, str],
        home: Mapping[str, str],
        canaries: Mapping[str, str],
    ) -> Iterator[tuple[str, str]]:
        for id, (_, content) in records.contents.items():
            if id in records.forgotten or id in records.doubtful:
                continue
            if id not in there:
                if not records.anything_may_be_gone:
                    yield "missing", id
            elif content is not None and there[id] != content:
                yield "altered", id
        for id in records.forgotten & there.keys():
            yield "not_forgotten", id
        for id, content in there.items():
            if home.get(id, session) != session or any(canaries.get(word, session) != session for word in content.split()):
                yield "foreign", id


def _note_other(records: _Records, value: Any) -> None:
    """Write down the answer of an operation that this oracle has no rule for: what it names may be as it was, or not."""
    records.doubtful |= _names(msgspec.to_builtins(value)) if isinstance(value, msgspec.Struct) else set()


def _names(value: Any) -> set[str]:
    """Return every short text in a table of parameters: ids are among them."""
    if isinstance(value, str):
        return {value} if len(value) <= 64 else set()
    parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return set().union(*map(_names, parts))


def _memories(exported: bytes) -> Iterator[tuple[str, str]]:
    """Yield id and content of what a session holds now."""
    for line in exported.splitlines():
        row = msgspec.json.decode(line)
        if row["current"]:
            yield row["memory"]["id"], str(row["memory"].get("content", ""))
