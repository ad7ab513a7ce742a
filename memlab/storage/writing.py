"""Applies what writing plans demand: many of them as one transaction, each answered or refused alone.

A plan runs to its first demand of the transaction before the writer is taken: what it wants embedded is embedded together,
what it wants read ahead is read. Inside the transaction it sees the database and what the members before it did; after a
rollback it begins again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec
import numpy as np

from memlab.errors import MemlabError, internal, validation
from memlab.measure import clock
from memlab.storage import demands as ask
from memlab.storage import records
from memlab.storage.calls import Call, Keyed
from memlab.storage.database import Database, Transaction
from memlab.storage.directory import NEVER, Entry, microseconds, timestamps, wall_us
from memlab.storage.indexes import Added, Closed, Dropped, Indexes, Opened
from memlab.storage.phases import Phases
from memlab.storage.reading import Reader
from memlab.storage.rows import Value
from memlab.values import DEFAULT_SESSION, Event, Fact, Record


class Writer:
    """The one writer of a database."""

    def __init__(self, database: Database, indexes: Indexes, reader: Reader) -> None:
        self._database = database
        self._indexes = indexes
        self._rows = indexes.rows
        self._reader = reader
        # Where what has no text lies: it must lie somewhere, and no search over its layer is by meaning.
        self._nowhere = np.full(database.dimension, database.dimension**-0.5, np.float32)

    def write(self, members: Prepared, phases: Phases) -> list[Any]:
        """Run prepared plans as one transaction, in order; one answer, or MemlabError as a value, for each.

        A call that scans (lists, searches) before it writes stands in a transaction of its own, because it must see what the
        calls before it did. When this returns, every answered write is committed, read back and visible to any search.
        """
        outcomes: list[Any] = [None] * len(members)
        group: list[_Member] = []
        with self._indexes.changing(), phases.time("write"):
            for member in members:
                if member.outcome is not None:
                    outcomes[member.index] = member.outcome
                elif member.scans:
                    self._commit(group, outcomes)
                    self._commit([member], outcomes)
                    group = []
                else:
                    group.append(member)
            self._commit(group, outcomes)
        self._indexes.maintain()
        return outcomes

    def prepare(self, calls: Sequence[Call], phases: Phases) -> Prepared:
        """Begin every plan and answer what it wants embedded or read ahead, all together, before the writer is taken."""
        members = [_Member(index, call) for index, call in enumerate(calls)]
        waiting = [member for member in members if member.begin()]
        while waiting:
            answers: list[Any] = [None] * len(waiting)
            embeds = [(place, one.demand) for place, one in enumerate(waiting) if isinstance(one.demand, ask.Embed)]
            if embeds:
                with phases.time("embed"):
                    self._reader.embed(embeds, answers)
            for place, member in enumerate(waiting):
                if isinstance(member.demand, ask.Ahead):
                    answers[place] = self._read_ahead(member, phases)
            waiting = [member for member, answer in zip(waiting, answers, strict=True) if member.prepared(answer)]
        return members

    def _read_ahead(self, member: _Member, phases: Phases) -> Any:
        try:
            (answer,) = self._reader.answer([(self._indexes.code(member.call.session), member.demand)], phases)
        except MemlabError as error:
            return error
        return answer

    def _commit(self, group: Sequence[_Member], outcomes: list[Any]) -> None:
        if not group:
            return
        promised = [member.call for member in group if member.call.keyed is not None]
        state = _Attempt(promised)

        def member_of(member: _Member) -> Callable[[Transaction], Any]:
            return lambda transaction: self._run_member(member, transaction, state)

        answers = self._database.transact([member_of(member) for member in group], self._indexes.publish)
        for member, answer in zip(group, answers, strict=True):
            outcomes[member.index] = answer

    def _run_member(self, member: _Member, transaction: Transaction, state: _Attempt) -> Any:
        state.enter(transaction)
        keyed = member.call.keyed
        promise = None if keyed is None else self._promise(member, keyed)
        if keyed is not None and promise is not None:
            kept = self._promised(transaction, state, promise, keyed)
            if kept is not None:
                return kept[0]
        session = self._indexes.code(member.call.session)
        plan, demand = member.resume()
        try:
            while True:
                try:
                    answer = self._change(transaction, state, session, demand)
                except MemlabError as error:
                    demand = plan.throw(error)
                else:
                    demand = plan.send(answer)
        except StopIteration as stop:
            result = stop.value
        if keyed is not None and promise is not None:
            state.promises[promise] = (keyed.digest, _kept(result))
            row = (*promise, *state.promises[promise], clock.now().replace(tzinfo=None))
            names = ("session", "operation", "key", "digest", "result", "created_at")
            transaction.insert("idempotency", {name: [value] for name, value in zip(names, row, strict=True)})
        return result

    def _promise(self, member: _Member, keyed: Keyed) -> tuple[int, str, str]:
        """Return what a key is kept under: the session that it belongs to, or for its deletion none, which outlives it."""
        if isinstance(member.demand, ask.DeleteSession):
            return _NO_SESSION, keyed.operation, f"{member.call.session}/{keyed.key}"
        return self._indexes.code(member.call.session), keyed.operation, keyed.key

    def _promised(
        self, transaction: Transaction, state: _Attempt, promise: tuple[int, str, str], keyed: Keyed
    ) -> tuple[Any] | None:
        """Return the answer that this key already has, in a tuple; one look-up serves every key of the group."""
        if not state.looked_up:
            state.looked_up = True
            many = len(state.keys) > 1
            rows = transaction.query(_KEYS if many else _KEY, [state.keys] if many else list(promise))
            state.promises.update({(row[0], row[1], row[2]): (row[3], row[4]) for row in rows})
        kept = state.promises.get(promise)
        if kept is None:
            return None
        digest, result = kept
        if digest != keyed.digest:
            raise validation(
                "idempotency_key",
                f"{keyed.operation}: this idempotency key was used with other parameters; use a new key for a new call",
            )
        layer = records.LAYER_OF.get(keyed.result_type)
        if layer is None:
            return (msgspec.json.decode(result, type=keyed.result_type),)
        return (self._as_it_was(transaction, state, promise[0], layer, msgspec.json.decode(result, type=_Kept)),)

    def _as_it_was(self, transaction: Transaction, state: _Attempt, session: int, layer: ask.Layer, kept: _Kept) -> Value:
        """Return the version of a memory that a key was answered with; NOT_FOUND where it was forgotten since."""
        _, value = self._present(transaction, state, session, layer, kept.id)
        if value is None:
            raise ask.no_memory(layer, kept.id)
        if isinstance(value, Event) or value.version == kept.version:
            return value
        rows = transaction.query(
            "SELECT record FROM versions WHERE origin = ? AND session = ?", [records.origin_of(layer, kept.id), session]
        )
        earlier = (records.decode(layer, record) for (record,) in rows)
        return next(value for value in earlier if not isinstance(value, Event) and value.version == kept.version)

    def forget_old_keys(self, days: int) -> None:
        """Delete the idempotency keys that are older than *days*."""
        before = clock.now().replace(tzinfo=None) - timedelta(days=days)
        ((old,),) = self._database.read("SELECT count(*) FROM idempotency WHERE created_at < ?", [before])
        if old:
            self._database.transact(
                [lambda transaction: transaction.execute("DELETE FROM idempotency WHERE created_at < ?", [before])],
                lambda done: None,
            )

    def _change(self, transaction: Transaction, state: _Attempt, session: int, demand: Any) -> Any:
        match demand:
            case ask.Insert():
                return self._insert(transaction, state, session, demand)
            case ask.Fetch():
                return self._fetch(state, session, demand)
            case ask.Carrying():
                return self._carrying(state, session, demand)
            case ask.Replace():
                return self._replace(transaction, state, session, demand)
            case ask.Remove():
                return self._remove(transaction, state, session, demand)
            case ask.CreateSession():
                return self._create_session(transaction)
            case ask.DeleteSession():
                return self._delete_session(transaction, state, session)
            case ask.Ahead():
                raise internal("bug", "a writing plan read ahead when it had begun to write")
            case ask.Embed():
                answers: list[Any] = [None]
                self._reader.embed([(0, demand)], answers)
                if isinstance(answers[0], MemlabError):
                    raise answers[0]
                return answers[0]
            case _:
                if state.overlay:
                    raise _ScansAfterChangesError
                (answer,) = self._reader.answer([(session, demand)], Phases())
                if isinstance(answer, MemlabError):
                    raise answer
                return answer

    def _insert(self, transaction: Transaction, state: _Attempt, session: int, demand: ask.Insert) -> ask.Inserted:
        held = {} if demand.on_duplicate == "keep" else self._held(state, session, demand)
        now = clock.now()
        digits = records.random_digits(len(demand.drafts))
        ids: list[str] = []
        rows: list[tuple[int, int, Value, ask.Draft]] = []
        for place, draft in enumerate(demand.drafts):
            if draft.content in held:
                if demand.on_duplicate == "error":
                    raise validation(
                        "duplicate",
                        f"item {place} repeats a content of this layer; leave it out, or pass on_duplicate='skip' or 'keep'",
                        item=place,
                    )
                ids.append(held[draft.content])
                continue
            seq = self._next_seq()
            value = records.value_of(
                demand.layer, records.new_id(demand.layer, seq, digits[place]), draft, now=now, created_at=now, version=1
            )
            rows.append((seq, seq, value, draft))
            ids.append(value.id)
            if demand.on_duplicate != "keep":
                held[draft.content] = value.id
        self._store(transaction, state, session, demand.layer, rows)
        return ask.Inserted(tuple(ids), tuple(value for _, _, value, _ in rows))

    def _fetch(self, state: _Attempt, session: int, demand: ask.Fetch) -> list[Value | None]:
        """Return values by id as this transaction sees them; those that it has not touched by one fetch."""
        layer = demand.layer
        untouched = tuple(id for id in demand.ids if records.origin_of(layer, id) not in state.overlay)
        (found,) = self._reader.answer([(session, ask.Fetch(layer, untouched))], Phases()) if untouched else ((),)
        if isinstance(found, MemlabError):
            raise found
        values = dict(zip(untouched, found, strict=True))
        for id in demand.ids:
            current = state.overlay.get(records.origin_of(layer, id))
            if current is not None and (current.session, current.layer, current.value.id) == (session, layer, id):
                values[id] = current.value
        return [values.get(id) for id in demand.ids]

    def _carrying(self, state: _Attempt, session: int, demand: ask.Carrying) -> list[Value]:
        """Return what carries the keys as this transaction sees it: what was there and was not touched, and what it stored."""
        layer = demand.layer
        wider = msgspec.structs.replace(demand, limit=demand.limit + len(state.overlay))
        (found,) = self._reader.answer([(session, wider)], Phases())
        if isinstance(found, MemlabError):
            raise found
        values = [value for value in found if records.origin_of(layer, value.id) not in state.overlay]
        wanted = set(demand.keys)
        carriers = [state.carriers.get((session, layer, key), set()) for key in wanted]
        touched = set[int]().union(*carriers) if demand.match == "any" else set.intersection(*carriers)
        for current in (state.overlay[origin] for origin in touched):
            if current is not None:
                common = wanted & set(current.value.keys)
                if common == wanted or (demand.match == "any" and common):
                    values.append(current.value)
        values.sort(key=lambda value: (value.moment, records.origin_of(layer, value.id)))
        return values[: demand.limit]

    def _held(self, state: _Attempt, session: int, demand: ask.Insert) -> dict[str, str]:
        """Return id by content of the session's memories that may equal a draft, this transaction's own included."""
        digests = np.array([records.content_digest(draft.content) for draft in demand.drafts], np.int64)
        with self._indexes.lock.reading():
            positions = self._reader.select(session, demand.layer, ask.EVERYTHING)
            equal = np.isin(self._indexes.directory.column("digest")[positions], digests)
            candidates = self._indexes.directory.column("seq")[positions[equal]].tolist()
        held: dict[str, str] = {}
        for row in self._rows.fetch(reversed(candidates), Phases()).values():
            if isinstance(row, MemlabError):
                raise row
            if records.origin_of(demand.layer, row[1].id) not in state.overlay:
                held[row[1].content] = row[1].id
        for current in state.overlay.values():
            if current is not None and (current.session, current.layer) == (session, demand.layer):
                held.setdefault(current.value.content, current.value.id)
        return held

    def _store(
        self,
        transaction: Transaction,
        state: _Attempt,
        session: int,
        layer: ask.Layer,
        rows: Sequence[tuple[int, int, Value, ask.Draft]],
    ) -> None:
        if not rows:
            return
        vectors = np.stack([self._nowhere if draft.vector is None else draft.vector for *_, draft in rows])
        entries = [
            Entry(
                seq=seq,
                origin=origin,
                session=session,
                layer=layer,
                kind=draft.kind,
                tags=value.keys,
                confidence=draft.confidence,
                occurred=microseconds(value.moment),
                expires=NEVER if draft.expires_at is None else microseconds(draft.expires_at),
                digest=records.content_digest(value.content),
            )
            for seq, origin, value, draft in rows
        ]
        columns = {
            "seq": [entry.seq for entry in entries],
            "origin": [entry.origin for entry in entries],
            "session": [session] * len(entries),
            "layer": [layer] * len(entries),
            "kind": [entry.kind for entry in entries],
            "tags": [list(entry.tags) for entry in entries],
            "confidence": [entry.confidence for entry in entries],
            "occurred_at": timestamps([entry.occurred for entry in entries]),
            "expires_at": timestamps([entry.expires for entry in entries]),
            "digest": [entry.digest for entry in entries],
            "record": [records.encode(value) for _, _, value, _ in rows],
            "vector": vectors,
        }
        for seq, origin, value, draft in rows:
            state.overlay[origin] = _Current(session, layer, seq, value, draft)
            for key in value.keys:
                state.carriers.setdefault((session, layer, key), set()).add(origin)
        transaction.insert("memories", columns)
        values = [value for _, _, value, _ in rows]
        texts = None
        if len(rows) >= _MANY:
            texts = self._indexes.text.ahead(
                [(entry.seq, session, layer, value.content) for entry, value in zip(entries, values, strict=True)]
            )
        transaction.notes.append(Added(entries, values, vectors, texts))

    def _present(
        self, transaction: Transaction, state: _Attempt, session: int, layer: ask.Layer, id: str
    ) -> tuple[int, Value | None]:
        """Return (seq, value) of a memory as this transaction sees it; (-1, None) where the session has no such memory."""
        origin = records.origin_of(layer, id)
        if origin in state.overlay:
            current = state.overlay[origin]
            if current is None or (current.session, current.layer) != (session, layer) or current.value.id != id:
                return -1, None
            return current.seq, current.value
        (values,) = self._reader.answer([(session, ask.Fetch(layer, (id,)))], Phases())
        if values[0] is None:
            return -1, None
        with self._indexes.lock.reading():
            return self._indexes.directory.current(session, layer, origin), values[0]

    def _replace(self, transaction: Transaction, state: _Attempt, session: int, demand: ask.Replace) -> Value:
        seq, value = self._present(transaction, state, session, demand.layer, demand.id)
        if value is None:
            raise ask.no_memory(demand.layer, demand.id)
        origin = records.origin_of(demand.layer, demand.id)
        current = state.overlay.get(origin)
        draft = current.draft if current is not None else self._draft_of(seq, value)
        changes = dict(demand.changes)
        if isinstance(value, Record):
            own = {name: changes.pop(name) for name in draft.attributes.keys() & changes.keys()}
            changes["attributes"] = {**draft.attributes, **own}
            if "expires_at" in own:
                changes["expires_at"] = own["expires_at"]
        draft = msgspec.structs.replace(draft, **changes)
        new_seq = self._next_seq()
        version = 1 if isinstance(value, Event) else value.version + 1
        new = records.value_of(demand.layer, value.id, draft, now=clock.now(), created_at=value.created_at, version=version)
        transaction.insert(
            "versions",
            {"seq": [seq], "origin": [origin], "session": [session], "layer": [demand.layer], "record": [records.encode(value)]},
        )
        transaction.remove([seq])
        transaction.notes.append(Dropped([seq]))
        self._store(transaction, state, session, demand.layer, [(new_seq, origin, new, draft)])
        return new

    def _draft_of(self, seq: int, value: Value) -> ask.Draft:
        vector = self._indexes.vector(seq)
        if vector is None:
            raise internal("bug", "a memory that is replaced has no vector")
        if isinstance(value, Record):
            own = records.own_fields(value)
            return ask.Draft(vector=vector, kind="record", attributes=own, expires_at=own.get("expires_at"))
        if isinstance(value, Event):
            return ask.Draft(
                content=value.content,
                vector=vector,
                tags=value.tags,
                attributes=value.context,
                source=value.source,
                confidence=value.confidence,
                occurred_at=value.occurred_at,
                expires_at=value.expires_at,
            )
        triple = {
            "subject": value.subject,
            "predicate": value.predicate,
            "object": value.object,
            "evidence": value.evidence or None,
        }
        return ask.Draft(
            content=value.content,
            vector=vector,
            kind=value.kind,
            tags=value.topics,
            attributes={name: part for name, part in triple.items() if part is not None},
            source=value.source,
            confidence=value.confidence,
            expires_at=value.expires_at,
        )

    def _remove(self, transaction: Transaction, state: _Attempt, session: int, demand: ask.Remove) -> list[str]:
        removed: list[str] = []
        seqs: list[int] = []
        origins: list[int] = []
        wanted = list(dict.fromkeys(demand.ids))
        unknown = [id for id in wanted if records.origin_of(demand.layer, id) not in state.overlay]
        (values,) = self._reader.answer([(session, ask.Fetch(demand.layer, tuple(unknown)))], Phases())
        present = {value.id: value for value in values if value is not None}
        for id in wanted:
            origin = records.origin_of(demand.layer, id)
            current = state.overlay.get(origin)
            if current is not None and (current.session, current.layer, current.value.id) == (session, demand.layer, id):
                seq = current.seq
            elif origin not in state.overlay and id in present:
                with self._indexes.lock.reading():
                    seq = self._indexes.directory.current(session, demand.layer, origin)
            else:
                continue
            removed.append(id)
            seqs.append(seq)
            origins.append(origin)
            state.overlay[origin] = None
        if seqs:
            transaction.remove(seqs)
            transaction.execute("DELETE FROM versions WHERE origin IN (SELECT unnest(?))", [origins])
            transaction.execute("UPDATE allocation SET last_seq = ?", [self._indexes.last_seq])
            transaction.notes.append(Dropped(seqs))
        return removed

    def _create_session(self, transaction: Transaction) -> str:
        name = "s-" + secrets.token_urlsafe(16)
        self._indexes.last_code += 1
        transaction.insert(
            "sessions",
            {"code": [self._indexes.last_code], "session": [name], "created_at": [clock.now().replace(tzinfo=None)]},
        )
        transaction.notes.append(Opened(name, self._indexes.last_code))
        return name

    def _delete_session(self, transaction: Transaction, state: _Attempt, session: int) -> int:
        if state.overlay:
            raise _ScansAfterChangesError
        name = next(name for name, code in self._indexes.codes.items() if code == session)
        with self._indexes.lock.reading():
            total = self._indexes.directory.counts(wall_us()).get(session, 0)
        transaction.execute("DELETE FROM memories WHERE session = ?", [session])
        transaction.execute("DELETE FROM versions WHERE session = ?", [session])
        transaction.execute("DELETE FROM idempotency WHERE session = ?", [session])
        transaction.execute(
            "UPDATE allocation SET last_seq = ?, last_code = ?", [self._indexes.last_seq, self._indexes.last_code]
        )
        if name != DEFAULT_SESSION:  # the session that is meant when none is named stays, empty
            transaction.execute("DELETE FROM sessions WHERE code = ?", [session])
        transaction.notes.append(Closed(name, session))
        return total

    def _next_seq(self) -> int:
        self._indexes.last_seq += 1
        return self._indexes.last_seq


class _ScansAfterChangesError(Exception):
    """A member must see what earlier members of its group did: roll back and run every member alone."""


class _Current(msgspec.Struct, frozen=True, gc=False):
    session: int
    layer: str
    seq: int
    value: Value
    draft: ask.Draft


class _Attempt:
    """What one transaction has done so far, for its later members; forgotten when it is rolled back."""

    def __init__(self, promised: Sequence[Call]) -> None:
        self.keys = [call.keyed.key for call in promised if call.keyed is not None]
        self._transaction: Transaction | None = None
        self._clear()

    def _clear(self) -> None:
        self.overlay: dict[int, _Current | None] = {}  # by origin; None where removed
        self.carriers: dict[tuple[int, str, str], set[int]] = {}  # origins that carried a key at some time
        self.promises: dict[tuple[int, str, str], tuple[str, str]] = {}
        self.looked_up = False

    def enter(self, transaction: Transaction) -> None:
        """Begin anew when *transaction* is another than before."""
        if transaction is not self._transaction:
            self._transaction = transaction
            self._clear()


class _Member:
    """One writing call between its beginning and its transaction."""

    def __init__(self, index: int, call: Call) -> None:
        self.index = index
        self.call = call
        self.outcome: Any = None
        self.demand: Any = None
        self._plan: Generator[Any, Any, Any] | None = None
        self._answers: list[Any] = []

    @property
    def scans(self) -> bool:
        """Whether it looks at many memories before it writes."""
        return isinstance(self.demand, (ask.Page, ask.Search, ask.Count, ask.NearDuplicates, ask.DeleteSession))

    def begin(self) -> bool:
        """Run the plan to its first demand; return whether that is answered before the writer is taken."""
        return self._advance(lambda: next(self._start()))

    def prepared(self, answer: Any) -> bool:
        """Hand the plan what it wanted; return whether it wants more before the writer is taken."""
        if isinstance(answer, MemlabError):
            return self._advance(lambda: self._going().throw(answer))
        self._answers.append(answer)
        return self._advance(lambda: self._going().send(answer))

    def resume(self) -> tuple[Generator[Any, Any, Any], Any]:
        """Return the plan and its first demand of storage; begun afresh, with the same vectors, after a rollback."""
        if self._plan is None:
            self._start()
            self.demand = next(self._going())
            for answer in self._answers:
                self.demand = self._going().send(answer)
        plan, self._plan = self._going(), None
        return plan, self.demand

    def _start(self) -> Generator[Any, Any, Any]:
        self._plan = self.call.start()
        return self._plan

    def _going(self) -> Generator[Any, Any, Any]:
        if self._plan is None:
            raise internal("bug", "a writing plan was resumed before it began")
        return self._plan

    def _advance(self, step: Callable[[], Any]) -> bool:
        try:
            self.demand = step()
        except StopIteration:
            self.outcome = internal("bug", "a writing plan ended before it wrote")
            return False
        except MemlabError as error:
            self.outcome = error
            return False
        return isinstance(self.demand, (ask.Embed, ask.Ahead))


Prepared: TypeAlias = Sequence[_Member]
"""Writing calls that wait for the writer alone."""

_KEY = "SELECT session, operation, key, digest, result FROM idempotency WHERE session = ? AND operation = ? AND key = ?"
_KEYS = "SELECT session, operation, key, digest, result FROM idempotency WHERE key IN (SELECT unnest(?))"


class _Kept(msgspec.Struct, frozen=True):
    """Which memory a key was answered with; its content is not kept a second time."""

    id: str
    version: int = 1


_NO_SESSION = -1
_MANY = 500  # texts from which it pays to have another thread make them ready


def _kept(result: Any) -> str:
    """Return what is kept of an answer under its key."""
    if isinstance(result, Event):
        result = _Kept(result.id)
    elif isinstance(result, (Fact, Record)):
        result = _Kept(result.id, result.version)
    return bytes(msgspec.json.encode(result)).decode()
