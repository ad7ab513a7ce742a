"""What procedural and prospective memory should do, in plain Python, and the rules that ask both."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.model.machine import (
    START,
    close,
    embed,
    limits,
    maybe_moments,
    moments,
    parts,
    picks,
    shown,
    tags,
    texts,
    unit,
    vectors,
)
from tests.model.reference import Item, Reference, Refused, once

END = datetime(9999, 1, 1, tzinfo=UTC)
PROCEDURE, RUN, TASK, GOAL, TRIGGER = "procedure", "run", "task", "goal", "trigger"
NOTHING = {PROCEDURE: "pr_1ffffffff", RUN: "rn_1ffffffff", TASK: "tk_1ffffffff", GOAL: "go_1ffffffff"}

step_texts = st.sampled_from(["boil water", "greet {who}", "{who} meets {whom}", "keep {{who}}", "{who.name} {0} {"])
some_steps = st.lists(step_texts, min_size=1, max_size=3)
notes = st.none() | texts
priorities = st.sampled_from(["low", "normal", "high", "urgent"])
statuses = st.sampled_from(["pending", "in_progress", "completed", "cancelled"])
goal_statuses = st.sampled_from(["active", "achieved", "abandoned"])
few_picks = st.lists(picks, max_size=2)
actions = st.lists(st.sampled_from(["dig", "sow", "reap"]), min_size=1, max_size=4)


@dataclass
class Row:
    """One record."""

    id: str
    number: int
    session: str
    layer: str
    fields: dict[str, Any]
    vector: np.ndarray | None
    created_at: datetime
    updated_at: datetime
    version: int = 1
    born: int = 0  # how many memories had been stored before it

    def __getattr__(self, name: str) -> Any:
        """Return a field as an attribute."""
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(name) from None

    def value(self) -> dict[str, Any]:
        """Return what a caller sees, without the score."""
        common = {"id": self.id, "version": self.version, "created_at": self.created_at, "updated_at": self.updated_at}
        return common | self.fields

    @property
    def is_open(self) -> bool:
        """Whether a task is still to be done."""
        return self.fields["status"] in ("pending", "in_progress")


@dataclass
class Agenda:
    """Procedures, runs, tasks, goals and triggers of all sessions."""

    reference: Reference
    rows: list[Row] = field(default_factory=list)
    looked: dict[str, int] = field(default_factory=dict)  # by session, the number of the last event looked at
    stored: int = 0

    # --- what every layer does ----------------------------------------------------------------------------------------

    def delete_session(self, session: str) -> None:
        """Forget a session."""
        self.rows = [row for row in self.rows if row.session != session]
        self.looked.pop(session, None)

    def holds(self, session: str) -> int:
        """Return how many records a session holds; how far it looked is one."""
        return sum(row.session == session for row in self.rows) + (session in self.looked)

    def passages(self, session: str) -> list[tuple[str, str, str]]:
        """Return (layer, id, content) of what retrieval may find."""
        names = {PROCEDURE: ("name", "description"), TASK: ("title", "description"), GOAL: ("name", "description")}
        names[TRIGGER] = ("action",)
        found = []
        for layer, fields in names.items():
            for row in self.all(session, layer):
                lines = [*(row.fields.get(name) for name in fields), *(row.steps if layer == PROCEDURE else ())]
                place = "procedural" if layer == PROCEDURE else "prospective"
                found.append((f"{place}.{layer}", row.id, "\n".join(line for line in lines if line)))
        return found

    def all(self, session: str, layer: str) -> list[Row]:
        """Return the records of a layer, the oldest first."""
        if session not in self.reference.sessions:
            raise Refused("NOT_FOUND", "session")
        return [row for row in self.rows if (row.session, row.layer) == (session, layer)]

    def one(self, session: str, layer: str, id: str) -> Row:
        """Return one record."""
        for row in self.all(session, layer):
            if row.id == id:
                return row
        raise Refused("NOT_FOUND", "memory")

    def add(self, session: str, layer: str, id: str, fields: dict[str, Any], vector: np.ndarray | None = None) -> Row:
        """Store a record under the id that memlab gave it."""
        now = self.reference.now
        self.stored += 1
        row = Row(id, self.stored, session, layer, fields, vector, now, now, born=self.reference._number)
        self.rows.append(row)
        return row

    def change(self, row: Row, **changes: Any) -> Row:
        """Change a record."""
        row.fields = row.fields | changes
        row.version += 1
        row.updated_at = self.reference.now
        return row

    # --- procedures ---------------------------------------------------------------------------------------------------

    @staticmethod
    def names_in(steps: Iterable[str]) -> list[str]:
        """Return the parameters of steps."""
        return list(once(name for step in steps for name in re.findall(r"(?<!\{)\{(\w+)\}(?!\})", step) if not name[0].isdigit()))

    @staticmethod
    def fill(step: str, inputs: dict[str, Any]) -> str:
        """Return a step with its inputs: what is between double braces is kept apart meanwhile."""
        parts = re.split(r"(\{\{?\w+\}\}?)", step)
        return "".join(
            part[1:-1] if part.startswith("{{") else str(inputs[part[1:-1]]) if part[1:-1] in inputs else part for part in parts
        )

    def run(self, session: str, id: str, inputs: dict[str, Any]) -> list[str]:
        """Return the filled steps."""
        row = self.one(session, PROCEDURE, id)
        if set(row.parameters) - set(inputs):
            raise Refused("VALIDATION", "missing_parameter")
        if set(inputs) - set(row.parameters):
            raise Refused("VALIDATION", "unknown_parameter")
        return [self.fill(step, inputs) for step in row.steps]

    def outcome(self, session: str, id: str, success: bool, notes: str | None) -> Row:
        """Record an outcome."""
        row = self.one(session, RUN, id)
        if row.success is None:
            return self.change(row, success=success, notes=notes, finished_at=self.reference.now)
        if row.success != success or (notes is not None and notes != row.notes):
            raise Refused("VALIDATION", "recorded")
        return row

    def effectiveness(self, session: str, id: str) -> dict[str, Any]:
        """Return what is known of a procedure's success."""
        self.one(session, PROCEDURE, id)
        ends = [row.success for row in self.all(session, RUN) if row.procedure == id]
        won, lost = ends.count(True), ends.count(False)
        found: dict[str, Any] = {"successes": won, "failures": lost, "open": ends.count(None)}
        n, z2 = won + lost, 1.959963984540054**2
        if not n:
            return found | {"success_ratio": None, "low": None, "high": None}
        # The two solutions of (p - won / n)² = z² p (1 - p) / n.
        low, high = sorted(np.roots([1 + z2 / n, -(2 * won / n + z2 / n), (won / n) ** 2]).real.tolist())
        return found | {"success_ratio": won / n, "low": 0.0 if not won else low, "high": 1.0 if not lost else high}

    def patterns(self, session: str, least: int, longest: int, skip: int, limit: int) -> tuple[int, list[tuple[str, ...]], dict]:
        """Return how many sequences there are, the closed patterns as they are written, and all supports."""
        events = self.reference.ordered(self.reference.living(session, "episodic"))[:limit][::-1]
        sequences: dict[Any, list[str]] = {}
        last, cut = None, 0
        for event in events:
            if "episode" not in event.context:
                if last is not None and event.occurred_at - last > timedelta(hours=1):
                    cut += 1
                last = event.occurred_at
            action = event.context.get("action") or event.content.lower()
            sequences.setdefault(event.context.get("episode", cut), []).append(action)
        support: dict[tuple[str, ...], int] = {}
        for sequence in sequences.values():
            held = set()
            grow = [((action,), place) for place, action in enumerate(sequence)]
            while grow:
                pattern, end = grow.pop()
                held.add(pattern)
                if len(pattern) < longest:
                    grow += [((*pattern, sequence[to]), to) for to in range(end + 1, min(end + skip + 2, len(sequence)))]
            for pattern in held:
                support[pattern] = support.get(pattern, 0) + 1
        frequent = {pattern: count for pattern, count in support.items() if count >= least}
        kept = [pattern for pattern in frequent if len(pattern) > 1 and not self.is_covered(pattern, frequent)]
        kept.sort(key=lambda pattern: (-frequent[pattern], -len(pattern), pattern))
        return len(sequences), kept, frequent

    @staticmethod
    def is_covered(pattern: tuple[str, ...], support: dict[tuple[str, ...], int]) -> bool:
        """Return whether one step more makes a pattern that is as frequent."""
        return any(
            len(other) == len(pattern) + 1
            and count == support[pattern]
            and any(other[:place] + other[place + 1 :] == pattern for place in range(len(other)))
            for other, count in support.items()
        )

    # --- tasks and goals ----------------------------------------------------------------------------------------------

    def open_ones(self, session: str, ids: Sequence[str]) -> tuple[str, ...]:
        """Return which tasks are open."""
        return tuple(row.id for row in [self.one(session, TASK, id) for id in ids] if row.is_open)

    def settle(self, session: str) -> None:
        """Bring up to date what waits for tasks that were opened or closed."""
        for row in self.all(session, TASK):
            blocked_by = self.open_ones(session, row.depends_on)
            if blocked_by != row.blocked_by:
                self.change(row, blocked_by=blocked_by)
        for row in self.all(session, TRIGGER):
            if row.after_task is not None and row.fired_at is None:
                completed_at = self.one(session, TASK, row.after_task).completed_at
                if completed_at != row.due_since:
                    self.change(row, due_since=completed_at)

    def before(self, session: str, id: str) -> set[str]:
        """Return every task that comes before one."""
        direct = self.one(session, TASK, id).depends_on
        return set(direct).union(*(self.before(session, other) for other in direct))

    def update_task(self, session: str, id: str, changes: dict[str, Any]) -> Row:
        """Change a task."""
        row = self.one(session, TASK, id)
        if changes.get("goal") is not None:
            self.one(session, GOAL, changes["goal"])
        if "depends_on" in changes:
            blocked_by = self.open_ones(session, changes["depends_on"])
            if any(id == other or id in self.before(session, other) for other in changes["depends_on"]):
                raise Refused("VALIDATION", "cycle")
            changes = changes | {"blocked_by": blocked_by}
        completed = changes.get("status", row.status) == "completed"
        if completed and row.status != "completed" and changes.get("blocked_by", row.blocked_by):
            raise Refused("VALIDATION", "blocked")
        if completed != (row.status == "completed"):
            changes = changes | {"completed_at": self.reference.now if completed else None}
        self.change(row, **changes)
        self.settle(session)
        return row

    def complete(self, session: str, id: str) -> Row:
        """Complete a task."""
        row = self.one(session, TASK, id)
        if row.status == "cancelled":
            raise Refused("VALIDATION", "status")
        return row if row.status == "completed" else self.update_task(session, id, {"status": "completed"})

    @staticmethod
    def by_due_time(rows: Iterable[Row]) -> list[Row]:
        """Return tasks in the order of lists."""
        return sorted(rows, key=lambda row: (row.due_at or END, row.number))

    def urgency(self, row: Row) -> float:
        """Return how urgent a task is."""
        rank = ["low", "normal", "high", "urgent"].index(row.priority)
        if row.due_at is None:
            return rank
        days = (row.due_at - self.reference.now).total_seconds() / 86_400
        return rank + (2 / (1 + days) if days >= 0 else 2 + min(-days, 7) / 7)

    def pending(self, session: str, limit: int) -> list[Row]:
        """Return the most urgent tasks that can be begun."""
        ready = [row for row in self.all(session, TASK) if row.is_open and not self.open_ones(session, row.depends_on)]
        return sorted(self.by_due_time(ready), key=lambda row: -round(self.urgency(row), 9))[:limit]

    def below(self, session: str, id: str) -> set[str]:
        """Return a goal and all below it."""
        parts = [row.id for row in self.all(session, GOAL) if row.parent == id]
        return {id}.union(*(self.below(session, part) for part in parts))

    def progress(self, session: str, id: str) -> dict[str, Any]:
        """Return how far a goal's tasks are."""
        goal = self.one(session, GOAL, id)
        goals = self.below(session, id)
        statuses = [row.status for row in self.all(session, TASK) if row.goal in goals]
        tasks = len(statuses) - statuses.count("cancelled")
        return {
            "goal": goal.value(),
            "sub_goals": len(goals) - 1,
            "tasks": tasks,
            "completed": statuses.count("completed"),
            "cancelled": statuses.count("cancelled"),
            "progress": statuses.count("completed") / tasks if tasks else None,
            "complete": True,
        }

    def update_goal(self, session: str, id: str, changes: dict[str, Any]) -> Row:
        """Change a goal."""
        row = self.one(session, GOAL, id)
        parent = changes.get("parent")
        if parent is not None:
            self.one(session, GOAL, parent)
            if parent in self.below(session, id):
                raise Refused("VALIDATION", "cycle")
        return self.change(row, **changes)

    # --- triggers -----------------------------------------------------------------------------------------------------

    def check(self, session: str, limit: int, most: int) -> tuple[list[Row], int, int]:
        """Fire what is due; return that, how many events were looked at, and how many are left."""
        now = self.reference.now
        waiting = [row for row in self.all(session, TRIGGER) if row.fired_at is None]
        timed = sorted([row for row in waiting if (row.due_since or END) <= now], key=lambda row: (row.due_since, row.number))
        by: list[tuple[Row, str | None]] = [(row, row.after_task) for row in timed[:limit]]
        watching = [row for row in waiting if row.event is not None or row.tags]
        looked = remaining = 0
        if watching:
            begin = max(self.looked.get(session, 0), min(row.born for row in watching))
            new = [item for item in self.reference.living(session, "episodic") if item.number > begin]
            remaining = len(new)
            for item in new[:most]:
                matching = [row for row in watching if item.number > row.born and self.matches(row, item)]
                room = limit - len(by)
                by += [(row, item.id) for row in matching[:room]]
                watching = [row for row in watching if row not in matching[:room]]
                if len(matching) > room:
                    break
                self.looked[session] = item.number
                looked, remaining = looked + 1, remaining - 1
        for row, cause in by:
            self.change(row, fired_at=now, fired_by=cause)
        return [row for row, _ in by], looked, remaining + max(0, len(timed) - limit)

    @staticmethod
    def matches(row: Row, item: Item) -> bool:
        """Return whether an event fires a trigger."""
        return set(row.tags) <= set(item.tags) and (
            row.similarity is None or float(row.vector @ item.vector) >= row.similarity - 1e-6
        )


class AgendaRules:
    """Every operation of procedural and prospective memory; a mixin of `MemoryMachine`."""

    agenda_type: ClassVar[type[Agenda]] = Agenda

    def __init__(self) -> None:
        super().__init__()
        self.agenda = self.agenda_type(self.reference)
        self.reference.parts.append(self.agenda)

    @initialize(settings=parts)
    def open(self, settings: dict[str, Any]) -> None:
        """Begin with a little of everything: most steps would go by before anything waits for anything."""
        super().open(settings)
        rest = {"description": None, "embedding": None, "goal": 0}
        for who in range(0, 12 * len(self.reference.sessions), 12):
            self.create_goal(who, "House", None, 1)
            self.create_goal(who, "Garden", None, 0)
            self.create_task(who, "Tea", before=[], priority="normal", due_at=None, **rest)
            self.create_task(who, "Garden", before=[0], priority="low", due_at=START, **rest | {"goal": 24})
            self.create_task(who, "River", before=[8], priority="urgent", due_at=START + timedelta(days=9), **rest)
            nothing = {"title": "Tea", "description": None, "status": "pending", "priority": "normal", "due_at": None}
            self.update_task(who, 0, {"depends_on"}, nothing, [16], 1)
            self.create_procedure(who, "Greet", ["greet {who}", "keep {{who}}"], None, None)
            self.execute(who, 0, None)
            for kind in ("tags", "both", "task"):
                self.register_trigger(who, "Think", kind, START, "Tea", ["red", "blue"], 0.2, 0)
            for episode in range(2):
                self.live(who, episode, ["dig", "sow", "reap"], START)
            same = {"context": {}, "source": None, "confidence": 1.0, "occurred_at": None, "lifetime": None, "embedding": None}
            for some in (["red"], ["red", "blue"]):
                self.remember(who, same | {"content": "Tea", "tags": some})

    def record(self, pick: int, session: str, layer: str) -> str:
        """Return an id: usually of this session, sometimes of another, or of nothing."""
        own = [row.id for row in self.agenda.rows if (row.session, row.layer) == (session, layer)]
        rest = [row.id for row in self.agenda.rows if (row.session, row.layer) != (session, layer)]
        others = [*rest[-3:], NOTHING[layer]]
        return others[pick // 8 % len(others)] if pick % 8 == 7 or not own else own[pick // 8 % len(own)]

    def maybe(self, pick: int, session: str, layer: str) -> str | None:
        """Return such an id or none."""
        return None if pick % 3 else self.record(pick // 3, session, layer)

    def kept(self, pair: Any, session: str, layer: str, fields: dict[str, Any], vector: np.ndarray | None = None) -> None:
        """Take a new record into the reference and compare."""
        if pair is not None:
            row = self.agenda.add(session, layer, pair[0].id, fields, vector)
            assert shown(pair[0]) == row.value()

    def same_record(self, pair: Any) -> None:
        """Compare one record with the reference's."""
        if pair is not None:
            assert shown(pair[0]) == pair[1].value()

    def vector(self, text: str, embedding: list[int] | None) -> np.ndarray:
        """Return the vector of a text, or the one given."""
        return embed(text) if embedding is None else unit(embedding)

    # --- procedural ---------------------------------------------------------------------------------------------------

    @rule(who=picks, name=texts, steps=some_steps, description=notes, parameters=st.sampled_from([None, "right", "wrong"]))
    def create_procedure(self, who: int, name: str, steps: list[str], description: str | None, parameters: str | None) -> None:
        """Write a procedure."""
        session, names = self.session(who), self.agenda.names_in(steps)

        def expected() -> None:
            self.agenda.all(session, PROCEDURE)
            if parameters == "wrong":
                raise Refused("VALIDATION", "parameters")

        given = {None: None, "right": names, "wrong": [*names, "other"]}[parameters]
        pair = self.ask("procedural.create", session, expected, name=name, steps=steps, description=description, parameters=given)
        fields = {
            "name": name,
            "description": description,
            "steps": tuple(steps),
            "parameters": tuple(names),
            "occurrences": None,
        }
        self.kept(pair, session, PROCEDURE, fields, embed("\n".join(part for part in (name, description, *steps) if part)))

    @rule(who=picks, limit=st.integers(1, 4), order=st.sampled_from(["newest_first", "oldest_first"]))
    def list_procedures(self, who: int, limit: int, order: str) -> None:
        """List procedures."""
        session = self.session(who)
        step = -1 if order == "newest_first" else 1
        self.pages("procedural.list", session, limit, lambda: self.agenda.all(session, PROCEDURE)[::step], order=order)

    @rule(who=picks, pick=picks)
    def get_procedure(self, who: int, pick: int) -> None:
        """Get a procedure."""
        session = self.session(who)
        id = self.record(pick, session, PROCEDURE)
        self.same_record(self.ask("procedural.get", session, lambda: self.agenda.one(session, PROCEDURE, id), id=id))

    @rule(who=picks, query=texts, limit=limits)
    def search_procedures(self, who: int, query: str, limit: int) -> None:
        """Search procedures."""
        session = self.session(who)
        pair = self.ask("procedural.search", session, lambda: self.agenda.all(session, PROCEDURE), query=query, limit=limit)
        if pair is not None and len(pair[1]) <= 50:
            self.subset_of_records(pair, min(limit, len(pair[1])))

    def subset_of_records(self, pair: Any, count: int) -> None:
        """Compare a ranking of which only the members are known."""
        by_id = {row.id: row for row in pair[1]}
        assert len({value.id for value in pair[0]}) == len(pair[0]) == count
        assert all(shown(value) == by_id[value.id].value() for value in pair[0])

    @rule(who=picks, pick=picks, inputs=st.sampled_from([None, {}, {"who": "Ada"}, {"who": "{whom}", "whom": "{who}"}]))
    def execute(self, who: int, pick: int, inputs: dict[str, Any] | None) -> None:
        """Open a run; usually with the right inputs."""
        session = self.session(who)
        id = self.record(pick, session, PROCEDURE)
        if inputs is None:
            row = next((row for row in self.agenda.rows if row.id == id and row.layer == PROCEDURE), None)
            inputs = {name: f"the {name}" for name in (row.parameters if row is not None else ())}
        given = inputs
        pair = self.ask("procedural.execute", session, lambda: self.agenda.run(session, id, given), id=id, inputs=given)
        if pair is not None:
            fields = {"procedure": id, "inputs": given, "steps": tuple(pair[1])}
            self.kept(pair, session, RUN, fields | {"success": None, "notes": None, "finished_at": None})

    @rule(who=picks, pick=picks, success=st.booleans(), notes=notes)
    def record_outcome(self, who: int, pick: int, success: bool, notes: str | None) -> None:
        """Record how a run ended."""
        session = self.session(who)
        id = self.record(pick, session, RUN)
        expected = lambda: self.agenda.outcome(session, id, success, notes)  # noqa: E731
        self.same_record(self.ask("procedural.record_outcome", session, expected, run_id=id, success=success, notes=notes))

    @rule(who=picks, pick=picks)
    def get_effectiveness(self, who: int, pick: int) -> None:
        """Judge a procedure."""
        session = self.session(who)
        id = self.record(pick, session, PROCEDURE)
        pair = self.ask("procedural.get_effectiveness", session, lambda: self.agenda.effectiveness(session, id), id=id)
        if pair is not None:
            close({name: getattr(pair[0], name) for name in pair[1]}, pair[1])

    @rule(who=picks, episode=st.integers(0, 3), done=actions, at=moments)
    def live(self, who: int, episode: int, done: list[str], at: datetime) -> None:
        """Do something, step by step."""
        same = {"tags": [], "source": None, "confidence": 1.0, "lifetime": None, "embedding": None}
        given = [
            self.event(
                same
                | {
                    "content": action.capitalize(),
                    "context": {"episode": f"e{episode}", "action": action},
                    "occurred_at": at + timedelta(minutes=minute),
                }
            )
            for minute, action in enumerate(done)
        ]
        self.bulk("episodic.bulk_remember", "events", self.session(who), given, "keep")

    @rule(
        who=picks,
        least=st.integers(2, 3),
        longest=st.integers(2, 4),
        skip=st.integers(0, 2),
        limit=st.sampled_from([5, 1_000]),
        most=st.integers(1, 6),
    )
    def extract(self, who: int, least: int, longest: int, skip: int, limit: int, most: int) -> None:
        """Mine procedures."""
        session = self.session(who)
        bounds = {"min_occurrences": least, "max_length": longest, "max_skip": skip}
        expected = lambda: self.agenda.patterns(session, least, longest, skip, limit)  # noqa: E731
        pair = self.ask("procedural.extract", session, expected, limit=limit, procedures=most, **bounds)
        if pair is None:
            return
        answer, (sequences, patterns, support) = pair
        total = len(self.reference.living(session, "episodic"))
        assert (answer.events, answer.sequences, answer.patterns) == (min(limit, total), sequences, len(patterns))
        created, updated, unchanged, left = iter(answer.created), [], 0, most
        for pattern in patterns:
            row = next((row for row in self.agenda.all(session, PROCEDURE) if row.steps == pattern), None)
            if row is not None and row.occurrences == support[pattern]:
                unchanged += 1
                continue
            if not left:
                continue
            left -= 1
            if row is not None:
                updated.append(self.agenda.change(row, occurrences=support[pattern]).id)
                continue
            name = " → ".join(pattern)
            fields = {"name": name, "description": None, "steps": pattern, "parameters": (), "occurrences": support[pattern]}
            self.agenda.add(session, PROCEDURE, next(created), fields, embed("\n".join([name, *pattern])))
        assert next(created, None) is None
        assert list(answer.updated) == updated
        assert answer.complete == (total <= limit and len(answer.created) + len(updated) + unchanged == len(patterns))

    # --- tasks --------------------------------------------------------------------------------------------------------

    @rule(
        who=picks,
        title=texts,
        description=notes,
        priority=priorities,
        due_at=maybe_moments,
        before=few_picks,
        goal=picks,
        embedding=vectors,
    )
    def create_task(self, who: int, title: str, before: list[int], goal: int, embedding: Any, **rest: Any) -> None:
        """Note a task."""
        session = self.session(who)
        depends_on = [self.record(pick, session, TASK) for pick in before]
        of = self.maybe(goal, session, GOAL)

        def expected() -> tuple[str, ...]:
            self.agenda.all(session, TASK)
            if of is not None:
                self.agenda.one(session, GOAL, of)
            return self.agenda.open_ones(session, once(depends_on))

        pair = self.ask(
            "prospective.create_task",
            session,
            expected,
            title=title,
            depends_on=depends_on,
            goal=of,
            embedding=embedding,
            **rest,
        )
        if pair is not None:
            fields = {"title": title, "status": "pending", "depends_on": once(depends_on), "blocked_by": pair[1], "goal": of}
            self.kept(pair, session, TASK, rest | fields | {"completed_at": None})

    @rule(who=picks, status=st.none() | statuses, goal=picks, limit=st.integers(1, 4))
    def list_tasks(self, who: int, status: str | None, goal: int, limit: int) -> None:
        """List tasks."""
        session = self.session(who)
        of = self.maybe(goal, session, GOAL)

        def expected() -> list[Row]:
            rows = self.agenda.all(session, TASK)
            if of is not None:
                self.agenda.one(session, GOAL, of)
            return self.agenda.by_due_time(row for row in rows if status in (None, row.status) and (of is None or row.goal == of))

        self.pages("prospective.list_tasks", session, limit, expected, status=status, goal=of)

    @rule(who=picks, pick=picks)
    def get_task(self, who: int, pick: int) -> None:
        """Get a task."""
        session = self.session(who)
        id = self.record(pick, session, TASK)
        self.same_record(self.ask("prospective.get_task", session, lambda: self.agenda.one(session, TASK, id), id=id))

    @rule(
        who=picks,
        pick=picks,
        names=st.sets(st.sampled_from(["title", "description", "status", "priority", "due_at", "depends_on", "goal"])),
        given=st.fixed_dictionaries(
            {"title": texts, "description": notes, "status": statuses, "priority": priorities, "due_at": maybe_moments}
        ),
        before=few_picks,
        goal=picks,
    )
    def update_task(self, who: int, pick: int, names: set[str], given: dict[str, Any], before: list[int], goal: int) -> None:
        """Change a task."""
        session = self.session(who)
        id = self.record(pick, session, TASK)
        depends_on = [self.record(one, session, TASK) for one in before]
        values = given | {"depends_on": depends_on, "goal": self.maybe(goal, session, GOAL)}
        raw = {name: values[name] for name in names}
        changes = raw | ({"depends_on": once(depends_on)} if "depends_on" in names else {})
        expected = self.changing(session, TASK, changes, lambda: self.agenda.update_task(session, id, changes))
        self.same_record(self.ask("prospective.update_task", session, expected, id=id, raw=raw))

    def changing(self, session: str, layer: str, changes: dict[str, Any], change: Callable[[], Row]) -> Callable[[], Row]:
        """Return what changes a record, or refuses where there is nothing to change."""

        def expected() -> Row:
            self.agenda.all(session, layer)
            if not changes:
                raise Refused("VALIDATION", "missing_parameter")
            return change()

        return expected

    @rule(who=picks, pick=picks)
    def complete_task(self, who: int, pick: int) -> None:
        """Complete a task."""
        session = self.session(who)
        id = self.record(pick, session, TASK)
        self.same_record(self.ask("prospective.complete_task", session, lambda: self.agenda.complete(session, id), id=id))

    @rule(who=picks, limit=st.integers(1, 5))
    def get_pending_tasks(self, who: int, limit: int) -> None:
        """Ask what is to be done next."""
        session = self.session(who)
        pair = self.ask("prospective.get_pending_tasks", session, lambda: self.agenda.pending(session, limit), limit=limit)
        if pair is not None:
            assert len(pair[0]) == len(pair[1])
            for one, row in zip(*pair, strict=True):
                assert abs(one.urgency - self.agenda.urgency(row)) < 1e-9
                assert shown(one.task) == row.value()
                assert one.overdue == (row.due_at is not None and row.due_at < self.reference.now)

    # --- goals --------------------------------------------------------------------------------------------------------

    @rule(who=picks, name=texts, description=notes, parent=picks)
    def create_goal(self, who: int, name: str, description: str | None, parent: int) -> None:
        """Set a goal."""
        session = self.session(who)
        of = self.maybe(parent, session, GOAL)
        expected = lambda: self.agenda.all(session, GOAL) if of is None else self.agenda.one(session, GOAL, of)  # noqa: E731
        pair = self.ask("prospective.create_goal", session, expected, name=name, description=description, parent=of)
        self.kept(pair, session, GOAL, {"name": name, "description": description, "parent": of, "status": "active"})

    @rule(who=picks, status=st.none() | goal_statuses, parent=picks, limit=st.integers(1, 4))
    def list_goals(self, who: int, status: str | None, parent: int, limit: int) -> None:
        """List goals."""
        session = self.session(who)
        of = self.maybe(parent, session, GOAL)

        def expected() -> list[Row]:
            rows = self.agenda.all(session, GOAL)
            if of is not None:
                self.agenda.one(session, GOAL, of)
            return [row for row in rows if status in (None, row.status) and (of is None or row.parent == of)]

        self.pages("prospective.list_goals", session, limit, expected, status=status, parent=of)

    @rule(who=picks, pick=picks)
    def get_goal(self, who: int, pick: int) -> None:
        """Ask how far a goal is."""
        session = self.session(who)
        id = self.record(pick, session, GOAL)
        pair = self.ask("prospective.get_goal", session, lambda: self.agenda.progress(session, id), id=id)
        if pair is not None:
            answer = msgspec.structs.asdict(pair[0])
            close(answer | {"goal": shown(answer["goal"])}, pair[1])

    @rule(
        who=picks,
        pick=picks,
        names=st.sets(st.sampled_from(["name", "description", "status", "parent"])),
        given=st.fixed_dictionaries({"name": texts, "description": notes, "status": goal_statuses}),
        parent=picks,
    )
    def update_goal(self, who: int, pick: int, names: set[str], given: dict[str, Any], parent: int) -> None:
        """Change a goal."""
        session = self.session(who)
        id = self.record(pick, session, GOAL)
        values = given | {"parent": self.maybe(parent, session, GOAL)}
        raw = {name: values[name] for name in names}
        expected = self.changing(session, GOAL, raw, lambda: self.agenda.update_goal(session, id, raw))
        self.same_record(self.ask("prospective.update_goal", session, expected, id=id, raw=raw))

    # --- triggers -----------------------------------------------------------------------------------------------------

    @rule(
        who=picks,
        action=texts,
        kind=st.sampled_from(["at", "event", "tags", "both", "task", "none"]),
        at=moments,
        event=texts,
        some=tags.filter(bool),
        similarity=st.sampled_from([None, 0.2, 1.0]),
        task=picks,
    )
    def register_trigger(
        self, who: int, action: str, kind: str, at: datetime, event: str, some: list[str], similarity: float | None, task: int
    ) -> None:
        """Have something brought to mind."""
        session = self.session(who)
        given: dict[str, Any] = {"at": None, "event": None, "tags": (), "similarity": None, "after_task": None}
        given |= {"at": at} if kind == "at" else {}
        given |= {"event": event, "similarity": similarity} if kind in ("event", "both") else {}
        given |= {"tags": some} if kind in ("tags", "both") else {}
        given |= {"after_task": self.record(task, session, TASK)} if kind == "task" else {}

        def expected() -> datetime | None:
            self.agenda.all(session, TRIGGER)
            if kind == "none":
                raise Refused("VALIDATION", "missing_parameter")
            return self.agenda.one(session, TASK, given["after_task"]).completed_at if kind == "task" else given["at"]

        pair = self.ask("prospective.register_trigger", session, expected, action=action, **given)
        if pair is not None:
            used = 0.75 if similarity is None and given["event"] else given["similarity"]
            fields = given | {"action": action, "tags": once(given["tags"]), "similarity": used, "due_since": pair[1]}
            self.kept(pair, session, TRIGGER, fields | {"fired_at": None, "fired_by": None}, embed(event))

    @rule(who=picks, limit=st.sampled_from([1, 2, 100]), events=st.sampled_from([1, 3, 1_000]))
    def check_triggers(self, who: int, limit: int, events: int) -> None:
        """Fire what is due."""
        session = self.session(who)
        expected = lambda: (self.agenda.all(session, TRIGGER), self.agenda.check(session, limit, events))[1]  # noqa: E731
        pair = self.ask("prospective.check_triggers", session, expected, limit=limit, events=events)
        if pair is not None:
            answer, (fired, looked, left) = pair
            assert [shown(one) for one in answer.fired] == [row.value() for row in fired]
            assert (answer.events, answer.complete) == (looked, not left)

    @rule(who=picks)
    def export_agenda(self, who: int) -> None:
        """Export every record as it is now."""
        session = self.session(who)
        pair = self.ask("session.export", session, lambda: self.reference.living(session, "episodic"))
        if pair is not None:
            lines = [json.loads(line) for line in pair[0].splitlines()]
            layers = ("procedural.", "prospective.")
            current = [one for one in lines if one["current"] and one["layer"].startswith(layers)]
            assert len(current) == self.agenda.holds(session)
            rows = {row.id: row.version for row in self.agenda.rows if row.session == session}
            found = {one["memory"]["id"]: one["memory"]["version"] for one in current if not one["layer"].endswith(".watch")}
            assert found == rows
