"""Procedural memory: how things are done, written by hand or mined from what was done.

A step is a text in which `{name}` stands for a parameter, a letter or `_` and letters, digits and `_`; `{{name}}` is the text
`{name}`. Any other brace is a brace: nothing of a step is ever evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from memlab.errors import nearest, validation
from memlab.measure import clock
from memlab.measure.stats import share
from memlab.operations.parameters import (
    ID_PATTERN,
    NOT_BLANK,
    Context,
    Cursor,
    Embedding,
    Limit,
    ListLimit,
    Name,
    Order,
    ProcedureId,
    Query,
    QueryEmbedding,
    RunId,
    Since,
    Tags,
    Text,
    filter_of,
    present,
    tags_of,
)
from memlab.operations.prefix_span import Pattern, closed, prefix_span
from memlab.operations.registry import operation
from memlab.storage.demands import (
    Ahead,
    Carrying,
    Count,
    Embed,
    Fetch,
    Filter,
    Insert,
    Inserted,
    Page,
    Plan,
    Replace,
    Search,
    record,
)
from memlab.values import LAST, Event, Procedure, Run, Table, steps_key

MAX_STEPS = 64
MAX_FILLED = 65_536  # characters of a run's steps
MAX_ACTION = 256  # characters of an action that are compared
SCAN = 1_000  # events read at a time
MAX_PATTERNS = 20_000  # patterns that one call of `procedural.extract` grows

_PLACE = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]*)\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAMED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

Step = Annotated[str, Meta(min_length=1, max_length=1_024, pattern=NOT_BLANK)]
Parameter = Annotated[str, Meta(min_length=1, max_length=64, pattern=ID_PATTERN)]


class Extracted(msgspec.Struct, frozen=True, kw_only=True):
    """What `procedural.extract` found and wrote.

    Attributes:
        events: how many it looked at.
        sequences: into how many sequences of actions they fell.
        patterns: how many closed frequent sequences of two actions or more they hold.
        created, updated: ids of the procedures that were written, and of those whose support was another before.
        unchanged: how many were there already.
        remaining_events: further events that match and were not looked at: raise *limit*, or narrow by *since* and *tags*.
        complete: every event was looked at and every pattern is kept; otherwise call again, or raise a limit.
    """

    events: int
    sequences: int
    patterns: int
    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: int = 0
    remaining_events: int = 0
    complete: bool


class Effectiveness(msgspec.Struct, frozen=True, kw_only=True):
    """How well a procedure has worked.

    Attributes:
        successes, failures, open: runs by how they ended; open ones have not.
        success_ratio: successes / (successes + failures); None where no run has ended.
        low, high: its 95 % interval after Wilson (1927); None where no run has ended.
    """

    procedure: str
    successes: int
    failures: int
    open: int
    success_ratio: float | None
    low: float | None
    high: float | None


# --- steps and their parameters --------------------------------------------------------------------------------------


def parameters_of(steps: Iterable[str]) -> tuple[str, ...]:
    """Return the names that steps use, in the order in which they first occur.

    >>> parameters_of(["open {file} in {editor}", "say {{hello}} to {file.__class__}"])
    ('file', 'editor')
    """
    return tags_of(match[2] for step in steps for match in _PLACE.finditer(step) if match[2])


def filled(step: str, inputs: Mapping[str, Any]) -> str:
    """Return a step with its inputs in their places; what an input holds is not looked into again.

    Text stands as it is, anything else as JSON.

    >>> filled("call {who} at {{who}}", {"who": "{who}"})
    'call {who} at {who}'
    """

    def replaced(match: re.Match[str]) -> str:
        if match[1]:
            return f"{{{match[1]}}}"
        value = inputs[match[2]]
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    return _PLACE.sub(replaced, step)


def literal(text: str) -> str:
    """Return the step that is filled to *text*, whatever braces it holds.

    >>> literal("press {enter}")
    'press {{enter}}'
    """
    return _NAMED.sub(r"{{\1}}", text)


# --- reading -------------------------------------------------------------------------------------------------------


@operation(
    "procedural.list",
    reads=True,
    example=lambda chance, known: {"limit": chance.randint(1, 50), "order": chance.choice(["newest_first", "oldest_first"])},
)
def list_procedures(limit: ListLimit = 50, cursor: Cursor | None = None, order: Order = "newest_first") -> Plan[Table[Procedure]]:
    """Return all procedures in the order in which they were made, page by page."""
    values, following = yield Page("procedural.procedure", limit, newest_first=order == "newest_first", after=cursor)
    return Table(values, following)


@operation(
    "procedural.get",
    reads=True,
    resident=True,
    example=lambda chance, known: {"id": known.id(chance, "procedural.procedure")},
)
def get(id: ProcedureId) -> Plan[Procedure]:
    """Return one procedure by its id.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no procedure of this id.
    """
    return present("procedural.procedure", id, (yield Fetch("procedural.procedure", (id,))))  # type: ignore[no-any-return]


@operation(
    "procedural.search",
    reads=True,
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        **known.query_embedding(chance),
    },
)
def search(query: Query, limit: Limit = 10, query_embedding: QueryEmbedding | None = None) -> Plan[Table[Procedure]]:
    """Return the procedures that best match *query*, by meaning and by words of name, description and steps, best first."""
    vector = (yield Embed((query,), (query_embedding,), query=True))[0]
    return Table((yield Search("procedural.procedure", "hybrid", limit, vector=vector, text=query)))


@operation(
    "procedural.get_effectiveness",
    reads=True,
    example=lambda chance, known: {"id": known.id(chance, "procedural.procedure")},
)
def get_effectiveness(id: ProcedureId) -> Plan[Effectiveness]:
    """Return how often the runs of a procedure succeeded, with an interval for what that says of the next one.

    success_ratio = successes / (successes + failures); the interval is the score interval of Wilson (1927,
    doi 10.1080/01621459.1927.10502953) at 95 %, which stays within [0, 1] and holds for a few runs too.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no procedure of this id.
    """
    present("procedural.procedure", id, (yield Fetch("procedural.procedure", (id,))))
    counts: dict[str, int] = {}
    for outcome in ("success", "failure", "open"):
        counts[outcome] = yield Count("procedural.run", Filter(tags=(f"{outcome}:{id}",)))
    ratio = share(counts["success"], counts["success"] + counts["failure"])
    return Effectiveness(
        procedure=id,
        successes=counts["success"],
        failures=counts["failure"],
        open=counts["open"],
        success_ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
    )


# --- writing -------------------------------------------------------------------------------------------------------


@operation(
    "procedural.create",
    writes=True,
    example=lambda chance, known: {
        "name": f"greet {chance.randrange(1_000_000)}",
        "steps": ["look up {name}", "say hello to {name}"],
        "parameters": ["name"],
        **known.embedding(chance),
    },
)
def create(
    name: Annotated[Name, Meta(description="What it is called; several procedures may have one name.")],
    steps: Annotated[
        tuple[Step, ...],
        Meta(
            min_length=1,
            max_length=MAX_STEPS,
            description="What is done, in order; `{name}` stands for a parameter, `{{name}}` for the text `{name}`.",
        ),
    ],
    parameters: Annotated[
        tuple[Parameter, ...],
        Meta(max_length=64, description="The names that the steps use; taken from the steps, where left out."),
    ]
    | None = None,
    description: Annotated[Text, Meta(description="What it is good for.")] | None = None,
    embedding: Embedding | None = None,
) -> Plan[Procedure]:
    """Write a procedure and return it.

    Raises:
        MemlabError: VALIDATION `parameters`: the names given are not those that the steps use.
    """
    used = parameters_of(steps)
    if parameters is not None:
        wrong = set(parameters) ^ set(used)
        if wrong:
            one = min(wrong)
            says = "is used by a step and not among the parameters" if one in used else "is a parameter that no step uses"
            raise validation(
                "parameters", f"procedural.create: '{one}' {says}; write {{name}} for a parameter, {{{{name}}}} for text"
            )
        used = tags_of(parameters)
    draft = {"name": name, "description": description, "steps": steps, "parameters": used, "occurrences": None}
    content = _content(draft)
    vector = (yield Embed((content,), (embedding,)))[0]
    done: Inserted = yield Insert("procedural.procedure", (record(vector, **draft),))
    return done.values[0]  # type: ignore[no-any-return]


@operation(
    "procedural.execute",
    writes=True,
    example=lambda chance, known: {"id": known.id(chance, "procedural.procedure"), "inputs": {"name": "Ada"}},
)
def execute(
    id: ProcedureId,
    inputs: Annotated[Context, Meta(description="What each parameter stands for: text as it is, anything else as JSON.")] = {},  # noqa: B006  msgspec copies it
) -> Plan[Run]:
    """Fill in the steps of a procedure and open a run of it; `procedural.record_outcome` says how it ended.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no procedure of this id; VALIDATION `missing_parameter` or
            `unknown_parameter`: the inputs are not those that the procedure takes; `bounds`: the filled steps are too long.
    """
    procedure: Procedure = present("procedural.procedure", id, (yield Fetch("procedural.procedure", (id,))))
    missing = [name for name in procedure.parameters if name not in inputs]
    if missing:
        raise validation("missing_parameter", f"procedural.execute needs inputs for {', '.join(missing)}")
    for name in inputs:
        if name not in procedure.parameters:
            shown = ascii(name[:64])[1:-1]
            raise validation(
                "unknown_parameter",
                f"procedural.execute: this procedure has no parameter '{shown}'{nearest(name[:64], procedure.parameters)}",
            )
    steps: list[str] = []
    size = 0
    for step in procedure.steps:
        steps.append(filled(step, inputs))
        size += len(steps[-1])
        if size > MAX_FILLED:
            raise validation("bounds", f"procedural.execute: the filled steps take more than {MAX_FILLED:,} characters")
    draft = {"procedure": id, "inputs": inputs, "steps": tuple(steps), "success": None, "notes": None, "finished_at": None}
    done: Inserted = yield Insert("procedural.run", (record(None, **draft),))
    return done.values[0]  # type: ignore[no-any-return]


@operation(
    "procedural.record_outcome",
    writes=True,
    example=lambda chance, known: {"run_id": known.id(chance, "procedural.run"), "success": chance.random() < 0.5},
)
def record_outcome(
    run_id: RunId,
    success: Annotated[bool, Meta(description="Whether it did what it was for.")],
    notes: Annotated[Text, Meta(description="What there is to say of it.")] | None = None,
) -> Plan[Run]:
    """Record how a run ended, once, and return the run.

    The same outcome again changes nothing and returns the run as it is; another one is refused.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no run of this id; VALIDATION `recorded`: it ended otherwise.
    """
    run: Run = present("procedural.run", run_id, (yield Fetch("procedural.run", (run_id,))))
    if run.success is None:
        changes = {"success": success, "notes": notes, "finished_at": clock.now()}
        return (yield Replace("procedural.run", run_id, changes))  # type: ignore[no-any-return]
    if run.success is not success or notes not in (None, run.notes):
        ended = "success" if run.success else "failure"
        raise validation("recorded", f"run {run_id} was recorded as a {ended} already; an outcome is recorded once")
    return run


@operation(
    "procedural.extract",
    writes=True,
    cost="job",
    example=lambda chance, known: {"min_occurrences": chance.randint(2, 5), "max_length": chance.randint(2, 6), "limit": 1_000},
)
def extract(
    min_occurrences: Annotated[int, Meta(ge=2, le=100_000, description="In how many sequences of events it must occur.")] = 3,
    max_length: Annotated[int, Meta(ge=2, le=20, description="Steps of a procedure at most.")] = 6,
    max_skip: Annotated[
        int, Meta(ge=0, le=100, description="Other actions that may lie between two steps of a procedure at most.")
    ] = 2,
    gap_s: Annotated[
        float, Meta(gt=0, le=31_536_000, description="A pause of more seconds than this begins another sequence.")
    ] = 3_600.0,
    since: Since | None = None,
    tags: Tags = (),
    limit: Annotated[int, Meta(ge=1, le=100_000, description="Events looked at at most, the latest.")] = 10_000,
    procedures: Annotated[int, Meta(ge=1, le=500, description="Procedures written at most, the most frequent first.")] = 100,
) -> Plan[Extracted]:
    """Find actions that were done in the same order again and again, and keep each such sequence as a procedure.

    An *action* is the text under `action` in an event's context, else the event's content in lower case, with single blanks
    and without the stop at its end, at most 256 characters of it. A *sequence* is what happened, in order of time, under one
    `episode` (or else `task`) in the context, a text or a whole number; events without either fall into sequences wherever
    nothing happened for longer than *gap_s*. PrefixSpan finds which orders of actions occur in at least *min_occurrences*
    sequences; of those that one step more would not make rarer the longer one alone is kept. A procedure of exactly the
    same steps is not written twice: its `occurrences` are brought up to date.

    Source: Pei et al. (2001), doi 10.1109/ICDE.2001.914830; see `prefix_span`.
    """
    filter = filter_of(tags=tags, match="all", since=since)
    total: int = yield Ahead(Count("episodic", filter))
    events: list[Event] = []
    cursor: str | None = None
    while len(events) < limit:
        values, cursor = yield Ahead(Page("episodic", min(SCAN, limit - len(events)), filter, after=cursor))
        events += values
        if cursor is None:
            break
    sequences = sequences_of(reversed(events), timedelta(seconds=gap_s))
    grown, is_all = prefix_span(sequences, min_occurrences, max_length, max_gap=max_skip, max_patterns=MAX_PATTERNS)
    patterns = [(pattern, count) for pattern, count in closed(grown) if len(pattern) > 1]
    patterns.sort(key=lambda one: (-one[1], -len(one[0]), one[0]))
    wanted, kept = yield from _unlike_what_is_kept(patterns, procedures)
    new = [(pattern, count) for pattern, count, known in wanted if known is None]
    vectors = (yield Embed(tuple(_content(_draft(*one)) for one in new))) if new else ()
    created: list[str] = []
    updated: list[str] = []
    places = iter(vectors)
    yield Fetch("procedural.procedure", ())
    for pattern, count, known in wanted:
        draft = _draft(pattern, count)
        vector = next(places) if known is None else None
        # Somebody may have written it since it was looked for.
        there = yield Carrying("procedural.procedure", (steps_key(draft["steps"]),), 1)
        if not there:
            if vector is None:
                vector = (yield Embed((_content(draft),)))[0]
            done: Inserted = yield Insert("procedural.procedure", (record(vector, **draft),))
            created += done.ids
        elif there[0].occurrences != count:
            updated.append((yield Replace("procedural.procedure", there[0].id, {"occurrences": count})).id)
        else:
            kept += 1
    left = len(patterns) - kept - len(created) - len(updated)
    return Extracted(
        events=len(events),
        sequences=len(sequences),
        patterns=len(patterns),
        created=tuple(created),
        updated=tuple(updated),
        unchanged=kept,
        remaining_events=max(0, total - len(events)),
        complete=is_all and total <= len(events) and not left,
    )


def _unlike_what_is_kept(
    patterns: Sequence[tuple[Pattern, int]], most: int
) -> Plan[tuple[list[tuple[Pattern, int, Procedure | None]], int]]:
    """Return the first *most* patterns that are not kept with this support, each with its procedure; and how many are."""
    wanted: list[tuple[Pattern, int, Procedure | None]] = []
    kept = 0
    for start in range(0, len(patterns), SCAN):
        block = patterns[start : start + SCAN]
        keys = {steps_key(_draft(*one)["steps"]): one for one in block}
        known: dict[str, Procedure] = {}
        for procedure in (yield Ahead(Carrying("procedural.procedure", tuple(keys), 2 * SCAN, match="any"))):
            known.setdefault(steps_key(procedure.steps), procedure)
        for key, (pattern, count) in keys.items():
            found = known.get(key)
            if found is not None and found.occurrences == count:
                kept += 1
            elif len(wanted) < most:
                wanted.append((pattern, count, found))
        if len(wanted) == most:
            break
    return wanted, kept


def action_of(event: Event) -> str:
    """Return what was done in an event."""
    given = event.context.get("action")
    if isinstance(given, str) and given.strip():
        return " ".join(given.split())[:MAX_ACTION]
    return " ".join(event.content.casefold().split()).rstrip(".!")[:MAX_ACTION] or event.content[:MAX_ACTION]


def sequences_of(events: Iterable[Event], gap: timedelta) -> list[list[str]]:
    """Return the actions of events, which come in order of time, as sequences: by episode or task, else cut at pauses."""
    episodes: dict[tuple[str, Any], list[str]] = {}
    last: datetime | None = None
    cut = 0
    for event in events:
        word = next((word for word in ("episode", "task") if isinstance(event.context.get(word), (str, int))), None)
        if word is None:
            cut += last is not None and event.occurred_at - last > gap
            last = event.occurred_at
        # The name and its text: True, 1 and "1" are three.
        key = ("", cut) if word is None else (word, repr(event.context[word]))
        episodes.setdefault(key, []).append(action_of(event))
    return list(episodes.values())


def _draft(pattern: Pattern, count: int) -> dict[str, Any]:
    """Return the fields of the procedure that a pattern makes."""
    name = " → ".join(pattern)
    return {
        "name": name if len(name) <= 200 else f"{name[:199]}…",
        "description": None,
        "steps": tuple(literal(action) for action in pattern),
        "parameters": (),
        "occurrences": count,
    }


def _content(fields: Mapping[str, Any]) -> str:
    return Procedure(id="", created_at=LAST, updated_at=LAST, **fields).content
