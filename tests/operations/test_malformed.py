"""Thousands of inputs that no caller should send: each gets an answer or one clear refusal, and a refusal changes nothing."""

from __future__ import annotations

import contextlib
import decimal
import functools
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from memlab.embedders import HashingEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.memory import Memory
from memlab.operations import Examples, Operation, operations
from memlab.operations.parameters import MAX_JSON_BYTES, MAX_TEXT
from memlab.storage.records import NAMES
from tests.operations.creators import fill
from tests.operations.places import places, put

DIMENSION = 32


def nested(depth: int, wrap: Any) -> Any:
    """Return something nested *depth* times."""
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


def endless() -> dict[str, Any]:
    """Return a table that holds itself."""
    table: dict[str, Any] = {}
    table["a"] = table
    return table


class Surprise:
    """A thing that raises where it is looked into."""

    def __repr__(self) -> str:
        return "surprise"

    def __len__(self) -> int:
        raise RuntimeError("surprise")

    def __iter__(self) -> Any:
        raise RuntimeError("surprise")


TEXTS = [
    "",
    " ",
    "\n\t",
    "a",
    "a" * (MAX_TEXT - 1),
    "a" * MAX_TEXT,
    "a" * (MAX_TEXT + 1),
    "😀" * MAX_TEXT,
    "x " * 5_000,
    "\ud800",
    "a\udfff",
    "\x00",
    "tea\x00coffee",
    "\u202etxt.exe",
    "é",
    "e\u0301",
    "\ufeff",
    "\u2028",
    "'; DROP TABLE memories; --",
    "' OR '1'='1",
    '" OR session <> "',
    "%' ESCAPE '_",
    "$1",
    "?",
    "{}",
    "<script>alert(1)</script>",
    '=cmd|"/c calc"!A1',
    'x\r\n{"level": "error"}',
    "\x1b[31mred",
    "content:tea AND session:0",
    "tea*",
    '"unclosed',
    "(((",
    "tea^1000000000",
    "[a TO z]",
    "AND OR NOT",
    "../../etc/passwd",
    "ep_1",
    "ep_ffffffffffffffffffffffff00000000",
    "ep_-1",
    "ep_0x1_00000000",
    "sm_00000000",
    "default",
    "2026-13-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-01-01",
    "2026-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999999Z",
    "NaN",
    "-1",
    "null",
    "true",
    np.str_("tea"),
]
NUMBERS = [0, -1, 1, 2, 200, 201, 500, 501, 10_000, 10_001, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**60, 10**5_000, True, False]
FLOATS = [
    0.0,
    -0.0,
    1.0,
    1.0000001,
    -1e-300,
    5e-324,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    np.float64("nan"),
    np.int8(-1),
]
TIMES = [
    datetime(2026, 1, 1),  # noqa: DTZ001
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=UTC),
    date(2026, 1, 1),
    timedelta(days=1),
    np.datetime64("2026-01-01"),
    np.datetime64("NaT"),
]
VECTORS = [
    np.ones(DIMENSION),
    np.ones(DIMENSION + 1),
    np.ones(DIMENSION - 1, np.float32),
    np.zeros(DIMENSION),
    np.full(DIMENSION, np.nan),
    np.full(DIMENSION, np.inf),
    np.full(DIMENSION, 1e300),
    np.full(DIMENSION, 1e-300),
    np.ones((2, DIMENSION)),
    np.ones(()),
    np.array([], np.float32),
    np.array([None] * DIMENSION),
    np.array(["a"] * DIMENSION),
    np.ones(DIMENSION, complex),
    np.ones(DIMENSION, bool),
    np.ones(DIMENSION, np.int8),
    np.ones(DIMENSION, [("a", float)]),
    np.ones(100_000),
    [0.5] * DIMENSION,
    [10**400] * DIMENSION,
    [[1.0], 2.0],
    ["1.0"] * DIMENSION,
]
THINGS = [
    None,
    b"tea",
    bytearray(b"tea"),
    [],
    (),
    {},
    set(),
    frozenset({"a"}),
    [None],
    [[]],
    ["a"] * 65,
    ["a"] * 10_001,
    [""],
    ["a\nb"],
    ["\ud800"],
    [1],
    "a,b",
    {"a": 1},
    {1: 2},
    {None: 1},
    {"a": float("nan")},
    {"a": {1, 2}},
    {"a": b"x"},
    {"a": "\ud800"},
    {"\ud800": 1},
    {"a": 2**70},
    {"a": "x" * MAX_JSON_BYTES},
    {"a": ["x"] * 9_000},
    {str(place): place for place in range(300)},
    {"a": nested(7, lambda inner: [inner])},
    {"a": nested(9, lambda inner: {"a": inner})},
    {"a": nested(100_000, lambda inner: [inner])},
    endless(),
    object(),
    object,
    print,
    iter("ab"),
    Surprise(),
    decimal.Decimal(1),
    uuid.UUID(int=1),
    range(3),
    memoryview(b"a"),
    Exception("a"),
    ...,
]
HOSTILE = [*TEXTS, *NUMBERS, *FLOATS, *TIMES, *VECTORS, *THINGS]


def malformed(chance: random.Random, given: dict[Any, Any]) -> Any:
    """Return parameters that differ from right ones in one or two places."""
    for _ in range(chance.choice([1, 1, 1, 2])):
        names = list(given)
        match chance.randrange(8):
            case 0:
                given[chance.choice([*TEXTS, 1, None, ("a",), 2.5])] = chance.choice(HOSTILE)
            case 1 if names:
                del given[chance.choice(names)]
            case 2 if chance.random() < 0.2:
                return chance.choice(HOSTILE)
            case 3:
                lists = [name for name in names if isinstance(given[name], list) and given[name]]
                if lists:
                    items = given[chance.choice(lists)]
                    place = chance.randrange(len(items))
                    items[place] = malformed(chance, items[place]) if isinstance(items[place], dict) else chance.choice(HOSTILE)
            case _ if names:
                given[chance.choice(names)] = chance.choice(HOSTILE)
    return given


def near_right(chance: random.Random, one: Operation, ids: Mapping[str, Sequence[str]]) -> tuple[Any, dict[str, Any]]:
    """Return parameters and options of a call that is wrong somewhere, or hostile and still right."""
    known = Examples(ids=ids, contents=["tea in the garden"], dimension=chance.choice([0, DIMENSION]))
    given = one.example(chance, known)
    optional = [name for name in one.parameters_type.__struct_fields__ if name not in given]
    if optional and chance.random() < 0.5:
        given[chance.choice(optional)] = chance.choice(HOSTILE)
    everywhere = places(one)
    if everywhere and chance.random() < 0.3:  # inside tables and lists as well
        path = chance.choice(everywhere).path
        with contextlib.suppress(AttributeError, TypeError, ValueError, RuntimeError):  # of what stands there already
            given = put(given, path[: chance.randint(1, len(path))], chance.choice(HOSTILE))
    options: dict[str, Any] = {}
    if chance.random() < 0.05:
        options[chance.choice(["session", "idempotency_key", "deadline_s"])] = chance.choice(HOSTILE)
    return malformed(chance, given), options


def refused(call: Callable[[], Any]) -> MemlabError | None:
    """Return what a call is refused with, or None where it is answered."""
    try:
        call()
    except MemlabError as error:
        return error
    return None


def clear(error: MemlabError, shown: str) -> None:
    """Check that an error is one short printable line."""
    assert len(error.text.splitlines()) == 1, shown
    assert len(error.text) < 1_000, shown
    assert error.text.isprintable(), shown
    assert "Traceback" not in error.text, shown


def remembered(memory: Memory) -> list[Any]:
    """Return what the default session remembers; memories that have expired are forgotten at any time, and are left out."""
    now = datetime.now(UTC).isoformat()
    lines = [json.loads(line) for line in memory.session.export().splitlines()]
    expired = {one["memory"]["id"] for one in lines if one["current"] and (one["memory"].get("expires_at") or "~") <= now}
    return [one for one in lines if one["memory"]["id"] not in expired]


def check(folder: Any, seed: int, count: int) -> Counter[str]:
    """Send *count* calls to an engine; return how many ended in which way, and how many were sent to each operation."""
    ended: Counter[str] = Counter()
    chance = random.Random(seed)
    declared = [one for one in operations() if one.name != "session.delete"]
    settings = {"cache": None, "batch": None}
    with Memory.open(folder / "memory.duckdb", settings, embedder=HashingEmbedder(DIMENSION)) as memory:
        ids = fill(memory, "default", chance)
        memory.episodic.remember("tea in the garden")
        state: list[Any] | None = None
        for number in range(count):
            one = declared[number % len(declared)]
            given, options = near_right(chance, one, ids)
            state = state or remembered(memory)
            error = refused(functools.partial(memory.call, one.name, given, **options))
            ended["answered" if error is None else error.type] += 1
            if error is None:
                state = state if one.reads else None
                continue
            shown = f"input {number} of seed {seed} to {one.name}: {error!r}"
            late = error.type is ErrorType.TIMEOUT and "deadline_s" in options  # a very small number of seconds is one
            assert error.type in (ErrorType.VALIDATION, ErrorType.NOT_FOUND) or late, shown
            clear(error, shown)
            assert str(folder) not in error.text, shown
            assert one.reads or remembered(memory) == state, f"changed something: {shown}"
        assert memory.episodic.recall("tea in the garden", limit=1)  # and it still answers
    return ended


def test_malformed_inputs_are_refused(tmp_path):
    """1,500 generated inputs to an engine: only VALIDATION and NOT_FOUND, one line each, and no refused write leaves a trace."""
    ended = check(tmp_path, seed=1, count=1_500)
    assert ended[ErrorType.VALIDATION] > 700
    assert ended[ErrorType.NOT_FOUND] > 5
    assert ended["answered"] > 50


def test_malformed_parameters_are_refused():
    """20,000 generated parameters, as many for each operation: accepted, or VALIDATION in one line that names the operation."""
    chance = random.Random(2)
    ids = {layer: ["an_1", "an_2"] for layer in NAMES}
    ended: Counter[str] = Counter()
    declared = operations()
    for number in range(20_000):
        one = declared[number % len(declared)]
        given, _ = near_right(chance, one, ids)
        error = refused(functools.partial(one.validate, given))
        ended[one.name] += error is not None
        if error is not None:
            shown = f"input {number} to {one.name}: {error!r}"
            assert error.type is ErrorType.VALIDATION, shown
            assert error.text.startswith(one.name), shown
            clear(error, shown)
    assert sum(ended.values()) > 10_000
    assert all(ended[one.name] for one in declared)


@pytest.mark.soak
def test_many_malformed_inputs_are_refused(tmp_path):
    """20,000 more to an engine, from another seed each time."""
    for turn in range(10):
        folder = tmp_path / str(turn)
        folder.mkdir()
        check(folder, seed=random.SystemRandom().randrange(2**32), count=2_000)
