"""What the tests of middleware stand on: time that passes at once, a few small operations, and an engine over plain dicts.

The engine is real, only small: groups of reads see one state, groups of writes are applied in order, and how many turns of
the event loop each takes is drawn from a seed.
"""

import asyncio
import contextlib
import random
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from memlab.errors import MemlabError, not_found, validation
from memlab.measure.clock import ManualClock
from memlab.middleware.chain import Outcome, settle
from memlab.operations import registry
from memlab.operations.registry import lookup, operation
from memlab.storage.demands import Plan
from memlab.values import Request, Response

T = TypeVar("T")


# --- time ----------------------------------------------------------------------------------------------------------


class _Instant(selectors.SelectSelector):
    """Does not wait for a timer: it moves the clock there."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("stuck: nothing goes on and nothing is due")
        if timeout > 0:
            self._clock.advance(seconds=timeout)
            self._clock.advance(ns=1)  # no rounding may leave the timer a nanosecond ahead
        return super().select(0)


class TickingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a clock's, and which is never idle: it jumps to the next timer, or fails when there is none."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        super().__init__(_Instant(self.clock))

    def time(self) -> float:
        return self.clock.monotonic_ns() / 1e9


def run(main: Coroutine[Any, Any, T], clock: ManualClock | None = None) -> T:
    """Run *main* to its end in no time."""
    with asyncio.Runner(loop_factory=lambda: TickingLoop(clock)) as runner:
        return runner.run(main)


async def hops(count: int) -> None:
    """Let the event loop turn *count* times."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- operations ------------------------------------------------------------------------------------------------------

Key = Annotated[str, Meta(description="Which note.")]
Notes = Annotated[int, Meta(description="What it says.")]
Tags = Annotated[tuple[str, ...], Meta(description="Tags.")]
Session = Mapping[str, Any]
State = Mapping[str, Session]
"""By session: a note is at `layer/key` as (value, tags), and how often something was touched at `touched`."""
Change = tuple[State, Any]

_EMPTY: Session = MappingProxyType({})


def _with(state: State, session: str, changes: Mapping[str, Any]) -> State:
    merged = {**state.get(session, _EMPTY), **changes}
    return {**state, session: {place: value for place, value in merged.items() if value is not None}}


def _get(state: State, request: Request, layer: str) -> Change:
    note = state.get(request.session, _EMPTY).get(f"{layer}/{request.parameters.key}")
    if note is None:
        raise not_found("memory", "no such note in this session")
    return state, note


def _list(state: State, request: Request, layer: str) -> Change:
    wanted = set(request.parameters.tags)
    found = sorted(
        (place, note)
        for place, note in state.get(request.session, _EMPTY).items()
        if place.startswith(f"{layer}/") and (not wanted or wanted & set(note[1]))
    )
    return state, tuple(found)


def _add(state: State, request: Request, layer: str) -> Change:
    place = f"{layer}/{request.parameters.key}"
    if request.parameters.value < 0:
        raise validation("bounds", "a note says 0 or more")
    if place in state.get(request.session, _EMPTY):
        return state, False
    return _with(state, request.session, {place: (request.parameters.value, request.parameters.tags)}), True


def _put(state: State, request: Request, layer: str) -> Change:
    if request.parameters.value < 0:
        raise validation("bounds", "a note says 0 or more")
    place = f"{layer}/{request.parameters.key}"
    before = state.get(request.session, _EMPTY).get(place)
    return _with(state, request.session, {place: (request.parameters.value, request.parameters.tags)}), before


def _remove(state: State, request: Request, layer: str) -> Change:
    _get(state, request, layer)
    return _with(state, request.session, {f"{layer}/{request.parameters.key}": None}), True


def _move(state: State, request: Request, layer: str) -> Change:
    """Take a note from the other layer."""
    other = "semantic" if layer == "episodic" else "episodic"
    _, note = _get(state, request, other)
    key = request.parameters.key
    return _with(state, request.session, {f"{other}/{key}": None, f"{layer}/{key}": note}), note


def _touch(state: State, request: Request, layer: str) -> Change:
    count = state.get(request.session, _EMPTY).get("touched", 0) + 1
    return _with(state, request.session, {"touched": count}), count


def _touched(state: State, request: Request, layer: str) -> Change:
    return state, state.get(request.session, _EMPTY).get("touched", 0)


def _dump(state: State, request: Request, layer: str) -> Change:
    return state, tuple(sorted(state.get(request.session, _EMPTY).items()))


def _census(state: State, request: Request, layer: str) -> Change:
    return state, tuple(sorted((session, len(notes)) for session, notes in state.items() if notes))


def _wipe(state: State, request: Request, layer: str) -> Change:
    return {session: notes for session, notes in state.items() if session != request.session}, True


_MEANINGS: dict[str, Callable[[State, Request, str], Change]] = {
    "note_get": _get,
    "note_list": _list,
    "note_add": _add,
    "note_put": _put,
    "note_remove": _remove,
    "note_move": _move,
    "note_touch": _touch,
    "note_touched": _touched,
    "note_dump": _dump,
    "note_census": _census,
    "note_wipe": _wipe,
}


def apply(state: State, request: Request) -> tuple[State, Any]:
    """Return the next state and the answer of one call, or raise its error. What a bare engine is, in one function."""
    layer, _, name = request.operation.partition(".")
    return _MEANINGS[name](state, request, layer)


@contextlib.contextmanager
def declared() -> Iterator[None]:
    """The small operations, for as long as it lasts: other tests walk the registry.

    Their plans are generators because whatever asks nothing of storage counts as resident.
    """
    before = set(registry._REGISTRY)
    none = {"example": lambda chance, known: {}}
    for layer in ("episodic", "semantic"):
        other = "semantic" if layer == "episodic" else "episodic"

        @operation(f"{layer}.note_get", reads=True, resident=True, **none)
        def note_get(key: Key) -> Plan[tuple]:
            """Get one."""
            return (yield None)

        @operation(f"{layer}.note_list", reads=True, **none)
        def note_list(tags: Tags = ()) -> Plan[tuple]:
            """List those with one of the tags, or all."""
            return (yield None)

        @operation(f"{layer}.note_touched", reads=True, **none)
        def note_touched() -> Plan[int]:
            """Count."""
            return (yield None)

        @operation(f"{layer}.note_add", writes=True, invalidates=["tag:tags"], **none)
        def note_add(key: Key, value: Notes, tags: Tags = ()) -> Plan[bool]:
            """Add one unless it is there."""
            return (yield None)

        @operation(f"{layer}.note_put", writes=True, **none)
        def note_put(key: Key, value: Notes, tags: Tags = ()) -> Plan[tuple]:
            """Add or replace one."""
            return (yield None)

        @operation(f"{layer}.note_remove", writes=True, **none)
        def note_remove(key: Key) -> Plan[bool]:
            """Remove one."""
            return (yield None)

        @operation(f"{layer}.note_move", writes=True, invalidates=[layer, other], **none)
        def note_move(key: Key) -> Plan[tuple]:
            """Move one here."""
            return (yield None)

        @operation(f"{layer}.note_touch", writes=True, invalidates=["episodic.note_touched", "semantic.note_touched"], **none)
        def note_touch() -> Plan[int]:
            """Count up."""
            return (yield None)

    @operation("session.note_dump", reads=True, **none)
    def note_dump() -> Plan[tuple]:
        """Show everything of a session."""
        return (yield None)

    @operation("session.note_census", reads=True, scope="all", **none)
    def note_census() -> Plan[tuple]:
        """Count the notes of all sessions."""
        return (yield None)

    @operation("session.note_wipe", writes=True, **none)
    def note_wipe() -> Plan[bool]:
        """Forget a session."""
        return (yield None)

    try:
        yield
    finally:
        for name in set(registry._REGISTRY) - before:
            del registry._REGISTRY[name]


def ask(name: str, session: str = "default", *, deadline_ns: int | None = None, **parameters: Any) -> Request:
    """Return the request of one call."""
    return Request(name, lookup(name).validate(parameters), session, None, deadline_ns)


# --- the engine ------------------------------------------------------------------------------------------------------


class KeyValueEngine:
    """Executes groups; each takes none, one or *patience* turns before it looks or changes, and as many after.

    Attributes:
        states: every state there was; the last is now.
        changes: by `id` of a write that was executed: which state it found.
        groups: every group executed, in the order of their beginning.
    """

    def __init__(self, seed: int = 0, patience: int = 3) -> None:
        self.states: list[State] = [{}]
        self.changes: dict[int, int] = {}
        self.executed: Counter[int] = Counter()
        self.groups: list[Sequence[Request]] = []
        self.running = 0
        self.most_running = 0
        self._chance = random.Random(seed)
        self._patience = patience
        self._kept: list[Request] = []  # so that no id is used twice

    async def run(self, requests: Sequence[Request]) -> list[Outcome]:
        """The group function; like the real one it ends only when its work has."""
        work = asyncio.ensure_future(self._work(requests))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await settle(work)
            raise

    def peek(self, request: Request) -> Response | None:
        """Answer from memory now and then."""
        if self._chance.random() < 0.3:
            return None
        outcome = self._answer(request)
        return outcome if isinstance(outcome, Response) else None

    async def _work(self, requests: Sequence[Request]) -> list[Outcome]:
        self.groups.append(requests)
        self._kept.extend(requests)
        self.executed.update(map(id, requests))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await hops(self._chance.choice((0, 1, self._patience)))
        outcomes = [self._answer(request) for request in requests]
        await hops(self._chance.choice((0, 1, self._patience)))
        self.running -= 1
        return outcomes

    def _answer(self, request: Request) -> Outcome:
        reads = lookup(request.operation).reads
        try:
            state, answer = apply(self.states[-1], request)
        except MemlabError as error:
            return error
        if not reads:
            self.changes[id(request)] = len(self.states) - 1
            self.states.append(state)
        return Response(answer)
