"""Prospective memory: tasks that are still to be done, goals that they serve, and triggers that bring things to mind.

A task is open (`pending`, `in_progress`) or closed (`completed`, `cancelled`). It is blocked while a task that it depends on
is open: it cannot be completed then, and is not among the pending ones. A task that is opened again blocks those behind it
again. Completing a task fires nothing: it makes the triggers after it due, and `prospective.check_triggers` fires them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from memlab.errors import validation
from memlab.measure import clock
from memlab.operations.parameters import (
    Cursor,
    Embedding,
    GoalId,
    ListLimit,
    Moment,
    Name,
    Similarity,
    Tags,
    TaskId,
    Text,
    filter_of,
    present,
    tags_of,
)
from memlab.operations.registry import operation
from memlab.storage.demands import (
    Ahead,
    Carrying,
    Count,
    Embed,
    Fetch,
    Filter,
    Following,
    Insert,
    Inserted,
    Page,
    Plan,
    Remove,
    Replace,
    no_memory,
    record,
)
from memlab.storage.records import origin_of
from memlab.values import Event, Goal, Table, Task, Trigger, Watch

Status = Annotated[
    Literal["pending", "in_progress", "completed", "cancelled"],
    Meta(description="How far it is; a cancelled task blocks nothing."),
]
Priority = Annotated[Literal["low", "normal", "high", "urgent"], Meta(description="How much depends on it.")]
GoalStatus = Annotated[Literal["active", "achieved", "abandoned"], Meta(description="Whether it is still aimed at.")]
Title = Annotated[Name, Meta(description="What is to be done, in a line.")]
Description = Annotated[Text, Meta(description="What else there is to say of it.")]
DueAt = Annotated[Moment, Meta(description="When it should be done.")]
DependsOn = Annotated[tuple[TaskId, ...], Meta(max_length=32, description="Ids of the tasks that come first.")]

MAX_BEHIND = 100  # tasks, and triggers, that may wait for one task: completing it changes each of them
MAX_CHAIN = 1_000  # tasks looked at to find out that a dependency closes no circle
MAX_DEPTH = 16  # goals from the topmost to the lowest
MAX_PARTS = 1_000  # sub-goals whose tasks count for a goal
MAX_WATCHING = 1_000  # triggers that may wait for an event: every new event is compared with each
RANKS: Mapping[str, int] = {"low": 0, "normal": 1, "high": 2, "urgent": 3}


class PendingTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that can be begun, and how urgent it is.

    Attributes:
        urgency: see `prospective.get_pending_tasks`; higher is more urgent, in [0, 6].
        overdue: its time has passed.
    """

    task: Task
    urgency: float
    overdue: bool


class GoalProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A goal and how far its tasks are, those of its sub-goals and theirs included.

    Attributes:
        sub_goals: how many goals are below it.
        tasks: how many tasks there are, without the cancelled ones; completed and cancelled: how many of those.
        progress: completed / tasks, in [0, 1]; None where there are no tasks.
        complete: all sub-goals were counted; at most 1,000 are.
    """

    goal: Goal
    sub_goals: int
    tasks: int
    completed: int
    cancelled: int
    progress: float | None
    complete: bool


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """What `prospective.check_triggers` brought to mind.

    Attributes:
        fired: the triggers that fired in this call: by time, then by event.
        events: new events that were compared with the triggers that wait for one.
        remaining_events: those that were not yet.
        complete: nothing that is due is left; otherwise call again.
    """

    fired: tuple[Trigger, ...]
    events: int
    remaining_events: int
    complete: bool


# --- tasks -----------------------------------------------------------------------------------------------------------


@operation(
    "prospective.create_task",
    writes=True,
    example=lambda chance, known: {
        "title": f"{known.question(chance)} {chance.randrange(1_000_000)}",
        "priority": chance.choice(["low", "normal", "high", "urgent"]),
        "due_at": f"20{chance.randint(20, 35)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T12:00:00Z",
        **known.embedding(chance),
    },
)
def create_task(
    title: Title,
    description: Description | None = None,
    priority: Priority = "normal",
    due_at: DueAt | None = None,
    depends_on: DependsOn = (),
    goal: Annotated[GoalId, Meta(description="Id of the goal that it serves.")] | None = None,
    embedding: Embedding | None = None,
) -> Plan[Task]:
    """Note something that is to be done and return it.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no task or goal of an id given; VALIDATION `bounds`: more than 100
            tasks would depend on one.
    """
    vector = (yield Embed((_joined(title, description),), (embedding,)))[0]
    if goal is not None:
        present("prospective.goal", goal, (yield Fetch("prospective.goal", (goal,))))
    depends_on = tags_of(depends_on)
    blocked_by = yield from _open_ones("prospective.create_task", depends_on, None)
    draft = record(
        vector,
        title=title,
        description=description,
        status="pending",
        priority=priority,
        due_at=due_at,
        depends_on=depends_on,
        blocked_by=blocked_by,
        goal=goal,
        completed_at=None,
    )
    done: Inserted = yield Insert("prospective.task", (draft,))
    return done.values[0]  # type: ignore[no-any-return]


@operation(
    "prospective.list_tasks",
    reads=True,
    example=lambda chance, known: {
        "status": chance.choice(["pending", "in_progress", "completed", "cancelled"]),
        "limit": chance.randint(1, 50),
    },
)
def list_tasks(
    status: Annotated[Status, Meta(description="Only tasks of this status.")] | None = None,
    goal: Annotated[GoalId, Meta(description="Only tasks that serve this goal itself.")] | None = None,
    limit: ListLimit = 50,
    cursor: Cursor | None = None,
) -> Plan[Table[Task]]:
    """Return tasks in the order of their due times, those without one at the end, page by page.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no goal of this id.
    """
    if goal is not None:
        present("prospective.goal", goal, (yield Fetch("prospective.goal", (goal,))))
    keys = () if status is None else (f"status:{status}",)
    if goal is not None:
        keys = (f"goal:{goal}" if status is None else f"{status}:{goal}",)
    values, following = yield Page("prospective.task", limit, Filter(tags=keys), newest_first=False, after=cursor)
    return Table(values, following)


@operation(
    "prospective.get_task", reads=True, resident=True, example=lambda chance, known: {"id": known.id(chance, "prospective.task")}
)
def get_task(id: TaskId) -> Plan[Task]:
    """Return one task by its id.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no task of this id.
    """
    return present("prospective.task", id, (yield Fetch("prospective.task", (id,))))  # type: ignore[no-any-return]


@operation(
    "prospective.update_task",
    writes=True,
    example=lambda chance, known: {
        "id": known.id(chance, "prospective.task"),
        "priority": chance.choice(["low", "normal", "high", "urgent"]),
    },
)
def update_task(
    id: TaskId,
    title: Title | UnsetType = UNSET,
    description: Description | UnsetType | None = UNSET,
    status: Status | UnsetType = UNSET,
    priority: Priority | UnsetType = UNSET,
    due_at: DueAt | UnsetType | None = UNSET,
    depends_on: DependsOn | UnsetType = UNSET,
    goal: Annotated[GoalId, Meta(description="Id of the goal that it serves.")] | UnsetType | None = UNSET,
    embedding: Embedding | None = None,
) -> Plan[Task]:
    """Change what is given of one task, keep the earlier version, and return the new one.

    What is left out stays as it is; None takes a description, a due time or a goal away. A closed task is opened again by
    its status.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no task or goal of an id given; VALIDATION `cycle`: a task would
            depend on itself; `blocked`: it cannot be completed before those that it depends on; `missing_parameter`:
            nothing to change; `bounds`: more than 100 tasks would depend on one.
    """
    name = "prospective.update_task"
    changes = _given(
        title=title,
        description=description,
        status=status,
        priority=priority,
        due_at=due_at,
        depends_on=depends_on if isinstance(depends_on, UnsetType) else tags_of(depends_on),
        goal=goal,
    )
    if not changes and embedding is None:
        raise validation("missing_parameter", f"{name} needs something to change: title, status, due_at, …")
    vector, of = yield from _vector_ahead("prospective.task", id, ("title", "description"), changes, embedding)
    task: Task = present("prospective.task", id, (yield Fetch("prospective.task", (id,))))
    if isinstance(goal, str):
        present("prospective.goal", goal, (yield Fetch("prospective.goal", (goal,))))
    if "depends_on" in changes:
        changes["blocked_by"] = yield from _open_ones(name, changes["depends_on"], task)
    yield from _vector_now(task, ("title", "description"), changes, vector, of, embedding)
    return (yield from _changed(name, task, changes))


@operation("prospective.complete_task", writes=True, example=lambda chance, known: {"id": known.id(chance, "prospective.task")})
def complete_task(id: TaskId) -> Plan[Task]:
    """Complete one task, free the tasks that waited for it, and return it.

    A task that is completed already is returned as it is. Nothing fires: triggers after it are due from now on. Each task
    and trigger that waits for it is changed, at most 100 of either, and takes the time of a write.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no task of this id; VALIDATION `blocked`: tasks that it depends on
            are open; `status`: it was cancelled.
    """
    task: Task = present("prospective.task", id, (yield Fetch("prospective.task", (id,))))
    if task.status == "completed":
        return task
    if task.status == "cancelled":
        raise validation(
            "status",
            f"prospective.complete_task: task {id} was cancelled; open it with prospective.update_task(status='pending')",
        )
    return (yield from _changed("prospective.complete_task", task, {"status": "completed"}))


@operation(
    "prospective.get_pending_tasks", reads=True, cacheable=False, example=lambda chance, known: {"limit": chance.randint(1, 50)}
)
def get_pending_tasks(
    limit: Annotated[int, Meta(ge=1, le=100, description="Tasks returned at most.")] = 10,
    until: Annotated[Moment, Meta(description="Only tasks that are due before this time.")] | None = None,
) -> Plan[Table[PendingTask]]:
    """Return the open tasks that wait for no other, the most urgent first.

    What to do next.

    urgency = rank of the priority (low 0, normal 1, high 2, urgent 3) + pressure of time, which is 0 where nothing is due,
    2 / (1 + d) where d days are left, and 2 + min(-d, 7) / 7 where the time passed -d days ago. So what is due now outweighs
    two ranks, what is due tomorrow one. Ties are in the order of due times, then of age.
    """
    # At equal priority what is due earlier is never less urgent: the first few of each priority hold the first few of all.
    now = clock.now()
    found: list[Task] = []
    for priority in RANKS:
        values, _ = yield Page("prospective.task", limit, filter_of(tags=(f"ready:{priority}",), until=until), newest_first=False)
        found += values
    ranked = [(urgency(task, now), task) for task in found]
    ranked.sort(key=lambda one: (-one[0], one[1].moment, origin_of("prospective.task", one[1].id)))
    return Table(
        PendingTask(task=task, urgency=value, overdue=task.due_at is not None and task.due_at < now)
        for value, task in ranked[:limit]
    )


def urgency(task: Task, now: datetime) -> float:
    """Return how urgent a task is, in [0, 6]; the formula stands at `prospective.get_pending_tasks`."""
    rank = RANKS[task.priority]
    if task.due_at is None:
        return float(rank)
    days = (task.due_at - now) / timedelta(days=1)
    return rank + (2.0 / (1.0 + days) if days >= 0 else 2.0 + min(-days, 7.0) / 7.0)


# --- goals -----------------------------------------------------------------------------------------------------------


@operation(
    "prospective.create_goal",
    writes=True,
    example=lambda chance, known: {"name": f"{known.question(chance)} {chance.randrange(1_000_000)}", **known.embedding(chance)},
)
def create_goal(
    name: Annotated[Name, Meta(description="What it is, in a line.")],
    description: Description | None = None,
    parent: Annotated[GoalId, Meta(description="Id of the goal that it is a part of.")] | None = None,
    embedding: Embedding | None = None,
) -> Plan[Goal]:
    """Set a goal and return it.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no goal of the parent's id; VALIDATION `bounds`: it would lie more
            than 16 levels deep.
    """
    vector = (yield Embed((_joined(name, description),), (embedding,)))[0]
    yield from _above("prospective.create_goal", parent, None, 1)
    draft = record(vector, name=name, description=description, parent=parent, status="active")
    done: Inserted = yield Insert("prospective.goal", (draft,))
    return done.values[0]  # type: ignore[no-any-return]


@operation(
    "prospective.list_goals",
    reads=True,
    example=lambda chance, known: {"status": chance.choice(["active", "achieved", None]), "limit": chance.randint(1, 50)},
)
def list_goals(
    status: Annotated[GoalStatus, Meta(description="Only goals of this status.")] | None = None,
    parent: Annotated[GoalId, Meta(description="Only goals that are a part of this one.")] | None = None,
    limit: ListLimit = 50,
    cursor: Cursor | None = None,
) -> Plan[Table[Goal]]:
    """Return goals, the oldest first, page by page.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no goal of the parent's id.
    """
    keys = [] if status is None else [f"status:{status}"]
    if parent is not None:
        present("prospective.goal", parent, (yield Fetch("prospective.goal", (parent,))))
        keys.append(f"parent:{parent}")
    filter = filter_of(tags=tuple(keys), match="all")
    values, following = yield Page("prospective.goal", limit, filter, newest_first=False, after=cursor)
    return Table(values, following)


@operation("prospective.get_goal", reads=True, example=lambda chance, known: {"id": known.id(chance, "prospective.goal")})
def get_goal(id: GoalId) -> Plan[GoalProgress]:
    """Return one goal and how far its tasks are, those of all goals below it included.

    progress = completed tasks / tasks that are not cancelled.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no goal of this id.
    """
    goal: Goal = present("prospective.goal", id, (yield Fetch("prospective.goal", (id,))))
    levels, complete = yield from _below(id)
    ids = [id, *(below for level in levels for below in level)]
    counts: dict[str, int] = {}
    for word in ("goal", "completed", "cancelled"):
        counts[word] = yield Count("prospective.task", Filter(tags=tuple(f"{word}:{one}" for one in ids)))
    tasks = counts["goal"] - counts["cancelled"]
    return GoalProgress(
        goal=goal,
        sub_goals=len(ids) - 1,
        tasks=tasks,
        completed=counts["completed"],
        cancelled=counts["cancelled"],
        progress=counts["completed"] / tasks if tasks else None,
        complete=complete,
    )


@operation(
    "prospective.update_goal",
    writes=True,
    example=lambda chance, known: {
        "id": known.id(chance, "prospective.goal"),
        "status": chance.choice(["active", "achieved", "abandoned"]),
    },
)
def update_goal(
    id: GoalId,
    name: Annotated[Name, Meta(description="What it is, in a line.")] | UnsetType = UNSET,
    description: Description | UnsetType | None = UNSET,
    parent: Annotated[GoalId, Meta(description="Id of the goal that it is a part of.")] | UnsetType | None = UNSET,
    status: GoalStatus | UnsetType = UNSET,
    embedding: Embedding | None = None,
) -> Plan[Goal]:
    """Change what is given of one goal, keep the earlier version, and return the new one.

    What is left out stays as it is; None takes a description or the parent away. Its tasks stay as they are.

    Raises:
        MemlabError: NOT_FOUND `memory`: the session has no goal of an id given; VALIDATION `cycle`: a goal would be a part
            of itself; `bounds`: a goal would lie more than 16 levels deep; `missing_parameter`: nothing to change.
    """
    changes = _given(name=name, description=description, parent=parent, status=status)
    if not changes and embedding is None:
        raise validation("missing_parameter", "prospective.update_goal needs something to change: name, status, parent, …")
    vector, of = yield from _vector_ahead("prospective.goal", id, ("name", "description"), changes, embedding)
    goal: Goal = present("prospective.goal", id, (yield Fetch("prospective.goal", (id,))))
    if isinstance(parent, str) and parent != goal.parent:
        levels, _ = yield from _below(id)
        yield from _above("prospective.update_goal", parent, id, 1 + len(levels))
    yield from _vector_now(goal, ("name", "description"), changes, vector, of, embedding)
    return (yield Replace("prospective.goal", id, changes))  # type: ignore[no-any-return]


# --- triggers --------------------------------------------------------------------------------------------------------


@operation(
    "prospective.register_trigger",
    writes=True,
    example=lambda chance, known: {
        "action": f"think of {known.question(chance)}",
        **chance.choice([{"at": f"20{chance.randint(20, 35)}-01-01T00:00:00Z"}, {"tags": known.some_tags(chance)}]),
    },
)
def register_trigger(
    action: Annotated[Text, Meta(description="What is to be done then.")],
    at: Annotated[Moment, Meta(description="Fire at this time.")] | None = None,
    event: Annotated[Text, Meta(description="Fire when an event like this is remembered.")] | None = None,
    tags: Annotated[Tags, Meta(description="Fire when an event with all of these tags is remembered.")] = (),
    similarity: Annotated[
        Similarity, Meta(description="The cosine similarity to *event* that the event must reach; 0.75 where left out.")
    ]
    | None = None,
    after_task: Annotated[TaskId, Meta(description="Fire when this task is completed.")] | None = None,
    embedding: Annotated[Embedding, Meta(description="The vector of *event*, where you bring your own.")] | None = None,
) -> Plan[Trigger]:
    """Have something brought to mind, once, by `prospective.check_triggers`: at a time, on an event, or after a task.

    Give one of *at*, *event* and *after_task*. With *event* or in its place *tags* may stand: an event must carry them all,
    and reach the similarity. Only events that are remembered after this call count.

    Raises:
        MemlabError: VALIDATION `missing_parameter`, `bounds`: none or several of them, or too many triggers that wait for
            events or for one task; NOT_FOUND `memory`: the session has no task of this id.
    """
    name = "prospective.register_trigger"
    on_event = event is not None or bool(tags)
    kinds = (at is not None) + on_event + (after_task is not None)
    if kinds != 1:
        raise validation(
            "missing_parameter" if not kinds else "bounds",
            f"{name} needs exactly one of at, event (or tags) and after_task; {kinds} were given",
        )
    if event is None and (similarity is not None or embedding is not None):
        raise validation("bounds", f"{name}: similarity and embedding belong to event, and there is none")
    fields = {
        "action": action,
        "at": at,
        "event": event,
        "tags": tags_of(tags),
        "similarity": None if event is None else 0.75 if similarity is None else similarity,
        "after_task": after_task,
        "due_since": at,
        "fired_at": None,
        "fired_by": None,
    }
    vector = None
    if event is not None:
        vector = (yield Embed((event,), (embedding,)))[0]
    if on_event and (yield Count("prospective.trigger", Filter(tags=("waiting:event",)))) >= MAX_WATCHING:
        raise validation("bounds", f"{name}: {MAX_WATCHING:,} triggers wait for events already; check_triggers fires them")
    if after_task is not None:
        task: Task = present("prospective.task", after_task, (yield Fetch("prospective.task", (after_task,))))
        if len((yield Carrying("prospective.trigger", (f"waiting:{after_task}",), MAX_BEHIND))) >= MAX_BEHIND:
            raise validation("bounds", f"{name}: {MAX_BEHIND} triggers wait for task {after_task} already")
        fields["due_since"] = task.completed_at
    done: Inserted = yield Insert("prospective.trigger", (record(vector, **fields),))
    return done.values[0]  # type: ignore[no-any-return]


@operation(
    "prospective.check_triggers",
    writes=True,
    cost="job",
    example=lambda chance, known: {"limit": chance.randint(1, 50), "events": chance.randint(1, 500)},
)
def check_triggers(
    now: Annotated[Moment, Meta(description="Fire what is due at this time; the present, where left out.")] | None = None,
    limit: Annotated[int, Meta(ge=1, le=1_000, description="Triggers fired at most.")] = 100,
    events: Annotated[int, Meta(ge=1, le=10_000, description="New events compared with the triggers at most.")] = 1_000,
) -> Plan[Fired]:
    """Fire every trigger that is due, once, and return those that fired.

    A trigger is due when its time has come, when its task has been completed, or when an event was remembered after it
    that carries its tags and reaches its similarity; the first such event fires it. The session remembers which event was
    looked at last. Several callers may check at the same time: each trigger fires for one of them.
    """
    moment = clock.now() if now is None else now
    timed = yield Ahead(Carrying("prospective.trigger", ("waiting:time",), limit + 1))
    due = [trigger for trigger in timed if trigger.moment <= moment]
    matches, through, compared, remaining = yield from _watched(max(0, limit - len(due)), events)
    # From here on inside the transaction: others may have fired some of them, or opened a task again.
    fired: list[Trigger] = []
    by: list[tuple[Trigger, str | None]] = [(trigger, trigger.after_task) for trigger in due[:limit]]
    wanted = tuple(trigger.id for trigger, _ in by + list(matches))
    current = dict(zip(wanted, (yield Fetch("prospective.trigger", wanted)), strict=True))
    for trigger, cause in by + list(matches):
        there = current[trigger.id]
        if there is None or there.fired_at is not None or (trigger.due_since is not None and there.moment > moment):
            continue
        fired.append((yield Replace("prospective.trigger", trigger.id, {"fired_at": moment, "fired_by": cause})))
    if through is not None:
        before = yield Carrying("prospective.watch", ("watch",), 10)
        if all(origin_of("episodic", watch.through) < origin_of("episodic", through) for watch in before):
            if before:
                yield Remove("prospective.watch", tuple(watch.id for watch in before))
            yield Insert("prospective.watch", (record(None, through=through),))
    return Fired(fired=tuple(fired), events=compared, remaining_events=remaining, complete=len(due) <= limit and not remaining)


def _watched(limit: int, events: int) -> Plan[tuple[Sequence[tuple[Trigger, str]], str | None, int, int]]:
    """Compare new events with the triggers that wait for one, in the order of remembering, before the writer is taken.

    Returns:
        At most *limit* (trigger, id of the event that fires it), the last event that was looked at through, how many that
        were, and how many are left.
    """
    waiting = Filter(tags=("waiting:event",))
    watch: Sequence[Watch] = yield Ahead(Carrying("prospective.watch", ("watch",), 10))
    triggers, _, _ = yield Ahead(Following("prospective.trigger", 1, filter=waiting))
    if not triggers:
        return (), None, 0, 0
    begin = max([origin_of("prospective.trigger", triggers[0].id), *(origin_of("episodic", one.through) for one in watch)])
    new, vectors, remaining = yield Ahead(Following("episodic", events, begin))
    if not new:
        return (), None, 0, remaining
    # After the events: a trigger that is missing here was registered after all of them.
    triggers, wanted, _ = yield Ahead(Following("prospective.trigger", MAX_WATCHING, filter=waiting))
    matches: list[tuple[Trigger, str]] = []
    taken: set[str] = set()
    for place, column in _candidates(new, vectors, triggers, wanted):
        event, trigger = new[place], triggers[column]
        if trigger.id in taken or not set(trigger.tags) <= set(event.tags):
            continue
        if len(matches) == limit:  # this event is looked at again
            return matches, new[place - 1].id if place else None, place, remaining + len(new) - place
        taken.add(trigger.id)
        matches.append((trigger, event.id))
    return matches, new[-1].id, len(new), remaining


def _candidates(
    events: Sequence[Event], vectors: np.ndarray, triggers: Sequence[Trigger], wanted: np.ndarray
) -> list[tuple[int, int]]:
    """Return (place of the event, place of the trigger) where the event is later and alike, in the order of the events."""
    if not triggers:
        return []
    # Vectors are float32, so equal ones may come out a hair below 1.
    least = np.array([-np.inf if one.similarity is None else one.similarity - 1e-6 for one in triggers], np.float32)
    stored = np.array([origin_of("episodic", one.id) for one in events], np.int64)
    registered = np.array([origin_of("prospective.trigger", one.id) for one in triggers], np.int64)
    alike = (vectors @ wanted.T >= least) & (stored[:, None] > registered)
    return [(place, column) for place, column in np.argwhere(alike).tolist()]


# --- what the operations share -----------------------------------------------------------------------------------------


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not UNSET}


def _joined(title: str, description: str | None) -> str:
    return title if description is None else f"{title}\n{description}"


def _text_of(value: Task | Goal, names: tuple[str, str], changes: Mapping[str, Any]) -> str:
    first, second = (changes.get(name, getattr(value, name)) for name in names)
    return _joined(first, second)


def _vector_ahead(
    layer: Literal["prospective.task", "prospective.goal"],
    id: str,
    names: tuple[str, str],
    changes: Mapping[str, Any],
    embedding: np.ndarray | None,
) -> Plan[tuple[np.ndarray | None, str | None]]:
    """Return the vector that the changed text will have and the text that it is of, made before the writer is taken."""
    if embedding is not None:
        return (yield Embed(("",), (embedding,)))[0], None
    if not changes.keys() & set(names):
        return None, None
    (value,) = yield Ahead(Fetch(layer, (id,)))
    if value is None:
        return None, None
    text = _text_of(value, names, changes)
    return (yield Embed((text,)))[0], text


def _vector_now(
    value: Task | Goal,
    names: tuple[str, str],
    changes: dict[str, Any],
    vector: np.ndarray | None,
    of: str | None,
    embedding: np.ndarray | None,
) -> Plan[None]:
    """Put the vector beside the changes; made anew where another changed the rest of the text meanwhile."""
    if embedding is not None:
        changes["vector"] = vector
    elif changes.keys() & set(names):
        text = _text_of(value, names, changes)
        changes["vector"] = vector if text == of else (yield Embed((text,)))[0]


def _open_ones(name: str, depends_on: Sequence[str], task: Task | None) -> Plan[tuple[str, ...]]:
    """Return which of the tasks to depend on are open, after checking that all are there and that none depends on *task*."""
    found: list[Task | None] = yield Fetch("prospective.task", tuple(depends_on))
    for id, one in zip(depends_on, found, strict=True):
        if one is None:
            raise no_memory("prospective.task", id)
    before = () if task is None else task.depends_on
    new = [id for id in depends_on if id not in before]
    for id in new:
        if task is not None and id == task.id:
            raise validation("cycle", f"{name}: a task cannot depend on itself")
        if len((yield Carrying("prospective.task", (f"after:{id}",), MAX_BEHIND))) >= MAX_BEHIND:
            raise validation("bounds", f"{name}: {MAX_BEHIND} tasks depend on task {id} already, and no more may")
    if task is not None and new and (yield Carrying("prospective.task", (f"after:{task.id}",), 1)):
        yield from _no_circle(name, task.id, new)
    return tuple(one.id for one in found if one is not None and one.is_open)


def _no_circle(name: str, id: str, depends_on: Sequence[str]) -> Plan[None]:
    """Raise VALIDATION `cycle` where one of the tasks depends on *id*, directly or through others."""
    seen: set[str] = set()
    waiting = list(depends_on)
    while waiting:
        seen.update(waiting)
        if len(seen) > MAX_CHAIN:
            raise validation("bounds", f"{name}: it would depend on more than {MAX_CHAIN:,} tasks, directly and through others")
        found: list[Task | None] = yield Fetch("prospective.task", tuple(waiting))
        waiting = list(tags_of(one for task in found if task is not None for one in task.depends_on if one not in seen))
        if id in waiting:
            raise validation("cycle", f"{name}: task {id} would depend on itself through others")


def _changed(name: str, task: Task, changes: dict[str, Any]) -> Plan[Task]:
    """Change a task and, where that opens or closes it, the tasks and triggers that wait for it."""
    status = changes.get("status", task.status)
    blocked_by = changes.get("blocked_by", task.blocked_by)
    if status == "completed" != task.status and blocked_by:
        raise validation(
            "blocked",
            f"{name}: task {task.id} depends on {len(blocked_by)} open tasks, first {blocked_by[0]}; complete or cancel them "
            "first, or take them out of depends_on",
            blocked_by=list(blocked_by),
        )
    completed_at = task.completed_at
    if (status == "completed") != (task.status == "completed"):
        completed_at = changes["completed_at"] = clock.now() if status == "completed" else None
    changed: Task = yield Replace("prospective.task", task.id, changes)
    if changed.is_open != task.is_open:
        for other in (yield Carrying("prospective.task", (f"after:{task.id}",), MAX_BEHIND)):
            open_ones = set(other.blocked_by) | {task.id} if changed.is_open else set(other.blocked_by) - {task.id}
            blocked_by = tuple(id for id in other.depends_on if id in open_ones)
            yield Replace("prospective.task", other.id, {"blocked_by": blocked_by})
    if completed_at != task.completed_at:
        for trigger in (yield Carrying("prospective.trigger", (f"waiting:{task.id}",), MAX_BEHIND)):
            yield Replace("prospective.trigger", trigger.id, {"due_since": completed_at})
    return changed


def _above(name: str, parent: str | None, id: str | None, height: int) -> Plan[None]:
    """Check that a goal with *height* levels, its own included, may lie under *parent*."""
    depth = height
    while parent is not None:
        if parent == id:
            raise validation("cycle", f"{name}: goal {id} would be a part of itself")
        depth += 1
        goal: Goal = present("prospective.goal", parent, (yield Fetch("prospective.goal", (parent,))))
        parent = goal.parent
    if depth > MAX_DEPTH:
        raise validation("bounds", f"{name}: a goal would lie more than {MAX_DEPTH} levels deep")


def _below(id: str) -> Plan[tuple[list[list[str]], bool]]:
    """Return the ids of the goals below one, level by level, and whether that is all of them."""
    levels: list[list[str]] = []
    level, left = [id], MAX_PARTS
    while level:
        found = yield Carrying("prospective.goal", tuple(f"parent:{one}" for one in level), left + 1, match="any")
        level = [goal.id for goal in found[:left]]
        if level:
            levels.append(level)
        if len(found) > left:
            return levels, False
        left -= len(level)
    return levels, True
