"""Tasks are ordered, freed and judged urgent; goals count them; triggers fire once."""

import threading
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest

from memlab.embedders import PrecomputedEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.measure import clock
from memlab.memory import Memory
from memlab.operations import prospective
from memlab.operations.prospective import urgency
from memlab.values import Task

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def refused(call, *values, **given) -> MemlabError:
    """Return the error of a call."""
    with pytest.raises(MemlabError) as caught:
        call(*values, **given)
    return caught.value


@pytest.fixture
def agenda(memory, monkeypatch):
    """The operations, at a time that stands still."""
    monkeypatch.setattr(clock, "now", lambda: NOW)
    return memory.prospective


def titles(tasks):
    """Return what is to be done."""
    return [getattr(one, "task", one).title for one in tasks]


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_is_kept_as_it_was_given(agenda):
    """With every field; a repeated dependency counts once."""
    first = agenda.create_task("water the garden")
    goal = agenda.create_goal("a green garden")
    task = agenda.create_task("cut the grass", "before noon", "high", NOW + DAY, [first.id, first.id], goal.id)
    assert agenda.get_task(task.id) == task
    assert (task.status, task.depends_on, task.blocked_by, task.goal) == ("pending", (first.id,), (first.id,), goal.id)
    assert (first.priority, first.due_at, first.completed_at) == ("normal", None, None)


def test_tasks_are_listed_by_due_time(agenda):
    """Those without one at the end; by status, by goal, by both, page by page."""
    goal = agenda.create_goal("a green garden")
    for title, due_at, of in (("c", None, goal.id), ("b", NOW + DAY, goal.id), ("a", NOW, None)):
        agenda.create_task(title, due_at=due_at, goal=of)
    done = agenda.create_task("d", goal=goal.id)
    agenda.complete_task(done.id)
    assert titles(agenda.list_tasks()) == ["a", "b", "c", "d"]
    assert titles(agenda.list_tasks("pending")) == ["a", "b", "c"]
    assert titles(agenda.list_tasks(goal=goal.id)) == ["b", "c", "d"]
    assert titles(agenda.list_tasks("completed", goal.id)) == ["d"]
    first = agenda.list_tasks(limit=2)
    assert titles(first) == ["a", "b"]
    assert titles(agenda.list_tasks(limit=2, cursor=first.cursor)) == ["c", "d"]
    assert refused(agenda.list_tasks, goal="go_1ffffffff").type is ErrorType.NOT_FOUND


@pytest.mark.parametrize("given", [{"depends_on": ["tk_1ffffffff"]}, {"goal": "go_1ffffffff"}])
def test_what_a_task_names_must_be_there(agenda, given):
    """A task to come first and a goal, when made and when changed; nothing is stored else."""
    task = agenda.create_task("a")
    assert refused(agenda.create_task, "b", **given).reason == "memory"
    assert refused(agenda.update_task, task.id, title="b", **given).reason == "memory"
    assert titles(agenda.list_tasks()) == ["a"]


def test_a_change_leaves_the_rest(agenda):
    """What is left out stays, None takes away; nothing given is refused."""
    task = agenda.create_task("a", "b", "high", NOW)
    changed = agenda.update_task(task.id, description=None, status="in_progress")
    assert (changed.title, changed.description, changed.priority, changed.due_at) == ("a", None, "high", NOW)
    assert (changed.status, changed.version) == ("in_progress", 2)
    assert agenda.update_task(task.id, due_at=None).due_at is None
    assert refused(agenda.update_task, task.id).reason == "missing_parameter"
    assert refused(agenda.update_task, "tk_1ffffffff", title="c").reason == "memory"


def test_no_task_comes_before_itself(agenda):
    """Neither directly nor through others; nothing changes then."""
    first = agenda.create_task("a")
    second = agenda.create_task("b", depends_on=[first.id])
    third = agenda.create_task("c", depends_on=[second.id])
    for depends_on in ([first.id], [third.id], [second.id]):
        assert refused(agenda.update_task, first.id, depends_on=depends_on).reason == "cycle"
    assert agenda.get_task(first.id) == first
    assert agenda.update_task(third.id, depends_on=[first.id]).blocked_by == (first.id,)
    assert agenda.update_task(first.id, depends_on=[]).depends_on == ()


def test_a_task_waits_for_those_before_it(agenda):
    """It cannot be completed before them; completed and cancelled ones free it; one opened again blocks it again."""
    first, second = agenda.create_task("a"), agenda.create_task("b")
    last = agenda.create_task("c", depends_on=[first.id, second.id])
    for call in (lambda: agenda.complete_task(last.id), lambda: agenda.update_task(last.id, status="completed")):
        assert refused(call).reason == "blocked"
    done = agenda.complete_task(first.id)
    assert (done.status, done.completed_at) == ("completed", NOW)
    assert agenda.complete_task(first.id) == done
    assert agenda.get_task(last.id).blocked_by == (second.id,)
    agenda.update_task(second.id, status="cancelled")
    assert agenda.get_task(last.id).blocked_by == ()
    assert refused(agenda.complete_task, second.id).reason == "status"
    again = agenda.update_task(first.id, status="pending")
    assert (again.completed_at, agenda.get_task(last.id).blocked_by) == (None, (first.id,))
    agenda.complete_task(first.id)
    agenda.complete_task(last.id)
    agenda.update_task(first.id, status="pending")
    assert agenda.update_task(last.id, title="d").status == "completed"


def test_few_may_wait_for_one(agenda, monkeypatch):
    """Completing changes each that waits, so that there is a bound on them."""
    monkeypatch.setattr(prospective, "MAX_BEHIND", 2)
    first = agenda.create_task("a")
    for title in "bc":
        agenda.create_task(title, depends_on=[first.id])
        agenda.register_trigger(title, after_task=first.id)
    assert refused(agenda.create_task, "d", depends_on=[first.id]).reason == "bounds"
    assert refused(agenda.register_trigger, "d", after_task=first.id).reason == "bounds"


# --- urgency ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priority", "days", "expected"),
    [
        ("low", None, 0),
        ("urgent", None, 3),
        ("normal", 0, 3),
        ("normal", 1, 2),
        ("high", 3, 2.5),
        ("low", -7, 3),
        ("urgent", -99, 6),
    ],
)
def test_urgency_by_hand(priority, days, expected):
    """Rank and pressure of time, worked out by hand."""
    due_at = None if days is None else NOW + days * DAY
    task = Task(id="tk_1", created_at=NOW, updated_at=NOW, title="a", priority=priority, due_at=due_at)
    assert urgency(task, NOW) == pytest.approx(expected)


def test_pending_tasks_come_by_urgency(agenda):
    """Blocked and closed ones are left out; what is overdue says so."""
    first = agenda.create_task("overdue", due_at=NOW - DAY)
    agenda.create_task("urgent some day", priority="urgent")
    agenda.create_task("tomorrow", due_at=NOW + DAY)
    agenda.create_task("low", priority="low")
    behind = agenda.create_task("behind", priority="urgent", due_at=NOW, depends_on=[first.id])
    agenda.update_task(agenda.create_task("dropped").id, status="cancelled")
    agenda.update_task(first.id, status="in_progress")
    pending = agenda.get_pending_tasks()
    assert titles(pending) == ["overdue", "urgent some day", "tomorrow", "low"]
    assert [one.overdue for one in pending] == [True, False, False, False]
    assert pending[0].urgency == pytest.approx(3 + 1 / 7)
    assert titles(agenda.get_pending_tasks(limit=1)) == ["overdue"]
    assert titles(agenda.get_pending_tasks(until=NOW + 2 * DAY)) == ["overdue", "tomorrow"]
    agenda.complete_task(first.id)
    assert titles(agenda.get_pending_tasks())[0] == behind.title


def test_pending_tasks_are_judged_by_the_present(memory):
    """The answer is not kept: what becomes due becomes more urgent."""
    memory.prospective.create_task("urgent some day", priority="urgent")
    memory.prospective.create_task("due", due_at=NOW)
    for days, first in ((-9, "urgent some day"), (5, "due")):
        with mock.patch.object(clock, "now", lambda days=days: NOW + days * DAY):
            assert titles(memory.prospective.get_pending_tasks())[0] == first


# --- goals -----------------------------------------------------------------------------------------------------------


def test_a_goal_counts_the_tasks_below_it(agenda):
    """Of its sub-goals and theirs too; cancelled ones do not count."""
    top = agenda.create_goal("a house", "by the sea")
    below = agenda.create_goal("a roof", parent=top.id)
    lowest = agenda.create_goal("tiles", parent=below.id)
    agenda.create_goal("a boat")
    assert agenda.get_goal(top.id).progress is None
    done, dropped, _, _ = (agenda.create_task("a", goal=goal.id) for goal in (lowest, below, top, lowest))
    agenda.complete_task(done.id)
    agenda.update_task(dropped.id, status="cancelled")
    found = agenda.get_goal(top.id)
    assert found.goal == top
    assert (found.sub_goals, found.tasks, found.completed, found.cancelled, found.complete) == (2, 3, 1, 1, True)
    assert found.progress == pytest.approx(1 / 3)
    assert agenda.get_goal(lowest.id).progress == 0.5
    agenda.update_goal(lowest.id, parent=None)
    assert agenda.get_goal(top.id).completed == 0


def test_goals_are_listed_and_changed(agenda):
    """By status and parent, the oldest first."""
    top = agenda.create_goal("a house")
    below = agenda.create_goal("a roof", parent=top.id)
    assert list(agenda.list_goals(parent=top.id)) == [below]
    achieved = agenda.update_goal(below.id, status="achieved", name="the roof")
    assert (achieved.name, achieved.parent, achieved.version) == ("the roof", top.id, 2)
    assert list(agenda.list_goals("achieved")) == [achieved]
    first = agenda.list_goals(limit=1)
    assert list(first) == [top]
    assert list(agenda.list_goals(limit=1, cursor=first.cursor)) == [achieved]
    assert refused(agenda.update_goal, top.id).reason == "missing_parameter"
    assert refused(agenda.create_goal, "x", parent="go_1ffffffff").reason == "memory"


def test_no_goal_is_a_part_of_itself(agenda):
    """Neither directly nor through others, and there is a lowest level."""
    goals = [agenda.create_goal("0")]
    for level in range(1, 16):
        goals.append(agenda.create_goal(str(level), parent=goals[-1].id))
    assert refused(agenda.create_goal, "16", parent=goals[-1].id).reason == "bounds"
    for parent in (goals[0], goals[1], goals[15]):
        assert refused(agenda.update_goal, goals[0].id, parent=parent.id).reason == "cycle"
    other = agenda.create_goal("other")
    assert refused(agenda.update_goal, goals[0].id, parent=other.id).reason == "bounds"
    assert agenda.update_goal(goals[15].id, parent=other.id).parent == other.id


def test_goals_beyond_the_bound_are_said_to_be_missing(agenda, monkeypatch):
    """The answer is not silently too small."""
    monkeypatch.setattr(prospective, "MAX_PARTS", 2)
    top = agenda.create_goal("top")
    for _ in range(3):
        agenda.create_goal("part", parent=top.id)
    found = agenda.get_goal(top.id)
    assert (found.sub_goals, found.complete) == (2, False)


# --- triggers --------------------------------------------------------------------------------------------------------


def fired(agenda, **given):
    """Return (action, cause) of what fires."""
    return [(one.action, one.fired_by) for one in agenda.check_triggers(**given).fired]


def test_a_trigger_fires_at_its_time_once(agenda):
    """Not before, and not again; the earliest first."""
    agenda.register_trigger("later", at=NOW + 2 * DAY)
    agenda.register_trigger("soon", at=NOW + DAY)
    assert fired(agenda) == []
    found = agenda.check_triggers(now=NOW + 2 * DAY)
    assert [(one.action, one.fired_at, one.fired_by) for one in found.fired] == [
        ("soon", NOW + 2 * DAY, None),
        ("later", NOW + 2 * DAY, None),
    ]
    assert found.complete
    assert fired(agenda, now=NOW + 9 * DAY) == []


def test_a_trigger_fires_after_its_task(agenda):
    """Whether it was completed before or after; one that was opened again meanwhile does not count."""
    task = agenda.create_task("a")
    agenda.register_trigger("then", after_task=task.id)
    assert fired(agenda) == []
    agenda.complete_task(task.id)
    agenda.update_task(task.id, status="pending")
    assert fired(agenda) == []
    agenda.complete_task(task.id)
    agenda.register_trigger("too", after_task=task.id)
    assert fired(agenda) == [("then", task.id), ("too", task.id)]
    assert fired(agenda) == []


def test_a_trigger_fires_on_an_event_like_it(memory):
    """By similarity, by tags, by both; only on what is remembered later, and by the first that matches."""
    agenda = memory.prospective
    memory.episodic.remember("Ada drinks tea", tags=["tea"])
    agenda.register_trigger("by text", event="Ada drinks tea", similarity=1.0)
    agenda.register_trigger("by tags", tags=["tea", "home"])
    agenda.register_trigger("by both", event="Ada drinks tea", tags=["home"])
    assert fired(agenda) == []
    memory.episodic.remember("Bo sails", tags=["home"])
    text = memory.episodic.remember("Ada drinks tea", tags=["tea"])
    assert fired(agenda) == [("by text", text.id)]
    tags = memory.episodic.remember("Bo sails", tags=["tea", "home"])
    both = memory.episodic.remember("Ada drinks tea", tags=["home", "tea"])
    assert fired(agenda) == [("by tags", tags.id), ("by both", both.id)]
    assert fired(agenda) == []


def test_a_bounded_check_goes_on_where_it_is_called_again(memory):
    """It remembers how far it looked, says what is left, and loses nothing at its bounds."""
    agenda = memory.prospective
    for name in "abc":
        agenda.register_trigger(name, tags=[name])
    ids = [memory.episodic.remember("x", tags=tags).id for tags in (["b"], [], ["a", "c"], [])]
    first = agenda.check_triggers(events=1)
    assert ([one.action for one in first.fired], first.events, first.remaining_events, first.complete) == (["b"], 1, 3, False)
    second = agenda.check_triggers(limit=1)
    assert ([one.fired_by for one in second.fired], second.events, second.complete) == ([ids[2]], 1, False)
    third = agenda.check_triggers()
    assert ([one.action for one in third.fired], third.events, third.remaining_events, third.complete) == (["c"], 2, 0, True)
    agenda.register_trigger("d", tags=["d"])
    assert agenda.check_triggers().events == 0


def test_timed_triggers_beyond_the_limit_fire_in_the_next_call(agenda):
    """The answer says that there are more."""
    for name in "abc":
        agenda.register_trigger(name, at=NOW)
    first = agenda.check_triggers(limit=2)
    assert ([one.action for one in first.fired], first.complete) == (["a", "b"], False)
    second = agenda.check_triggers(limit=2)
    assert ([one.action for one in second.fired], second.complete) == (["c"], True)


def test_many_callers_fire_each_trigger_once(memory):
    """Whoever checks at the same time, together they get every trigger, and none twice."""
    for number in range(20):
        memory.prospective.register_trigger(f"t{number}", at=NOW)
        memory.prospective.register_trigger(f"e{number}", tags=[f"e{number}"])
    for number in range(20):
        memory.episodic.remember("x", tags=[f"e{number}"])
    answers: list = []
    barrier = threading.Barrier(6)

    def check():
        barrier.wait()
        for _ in range(3):
            answers.extend(memory.prospective.check_triggers(limit=15, events=10).fired)

    threads = [threading.Thread(target=check) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while not (last := memory.prospective.check_triggers()).complete or last.fired:
        answers.extend(last.fired)
    actions = [one.action for one in answers]
    assert sorted(actions) == sorted([f"t{number}" for number in range(20)] + [f"e{number}" for number in range(20)])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "missing_parameter"),
        ({"at": NOW, "tags": ["a"]}, "bounds"),
        ({"at": NOW, "similarity": 0.5}, "bounds"),
        ({"tags": ["a"], "embedding": [1.0] * 64}, "bounds"),
    ],
)
def test_a_trigger_waits_for_one_thing(agenda, given, reason):
    """None, several, or what belongs to another is refused."""
    error = refused(agenda.register_trigger, "x", **given)
    assert (error.type, error.reason) == (ErrorType.VALIDATION, reason)
    assert refused(agenda.register_trigger, "x", after_task="tk_1ffffffff").reason == "memory"


def test_few_triggers_wait_for_events(agenda, monkeypatch):
    """Every event is compared with each, so that there is a bound on them."""
    monkeypatch.setattr(prospective, "MAX_WATCHING", 1)
    agenda.register_trigger("a", tags=["a"])
    assert refused(agenda.register_trigger, "b", tags=["b"]).reason == "bounds"


def test_what_waits_survives_a_restart(tmp_path):
    """Triggers, the mark of what was looked at, and what is blocked."""
    path = tmp_path / "memory.duckdb"
    with Memory.open(path) as memory:
        memory.prospective.register_trigger("a", tags=["a"])
        memory.prospective.register_trigger("z", tags=["z"])
        memory.episodic.remember("x", tags=["a"])
        memory.prospective.check_triggers()
        first = memory.prospective.create_task("first")
        memory.prospective.create_task("second", depends_on=[first.id])
    with Memory.open(path) as memory:
        assert memory.prospective.check_triggers().events == 0
        memory.episodic.remember("x", tags=["z"])
        assert [one.action for one in memory.prospective.check_triggers().fired] == ["z"]
        assert titles(memory.prospective.get_pending_tasks()) == ["first"]


def test_vectors_come_with_the_texts_where_none_are_made(tmp_path):
    """With precomputed vectors a text without its own is refused; with it everything works."""
    with Memory.open(tmp_path / "memory.duckdb", embedder=PrecomputedEmbedder(2)) as memory:
        agenda = memory.prospective
        assert refused(agenda.create_task, "a").reason == "embedder"
        assert refused(agenda.register_trigger, "a", event="b").reason == "embedder"
        task = agenda.create_task("a", embedding=[1.0, 0.0])
        assert refused(agenda.update_task, task.id, title="b").reason == "embedder"
        assert agenda.update_task(task.id, title="b", embedding=[0.0, 1.0]).title == "b"
        assert agenda.update_task(task.id, priority="high").priority == "high"
        goal = agenda.create_goal("g", embedding=[1.0, 0.0])
        assert agenda.update_goal(goal.id, status="achieved").status == "achieved"
        agenda.register_trigger("then", event="b", embedding=[1.0, 0.0], similarity=0.9)
        event = memory.episodic.remember("c", embedding=[0.95, 0.05])
        assert fired(agenda) == [("then", event.id)]


def test_other_sessions_see_none_of_it(memory):
    """Neither by id nor in lists, and their triggers do not fire on events of this one."""
    agenda, other = memory.prospective, memory.session.create()
    other = getattr(other, "id", None) or getattr(other, "session", other)
    task, goal = agenda.create_task("a"), agenda.create_goal("g")
    agenda.register_trigger("mine", tags=["a"], session=other)
    memory.episodic.remember("x", tags=["a"])
    assert agenda.check_triggers(session=other).fired == ()
    assert list(agenda.list_tasks(session=other)) == list(agenda.get_pending_tasks(session=other)) == []
    for call in (
        lambda: agenda.get_task(task.id, session=other),
        lambda: agenda.complete_task(task.id, session=other),
        lambda: agenda.create_task("b", depends_on=[task.id], session=other),
        lambda: agenda.create_task("b", goal=goal.id, session=other),
        lambda: agenda.get_goal(goal.id, session=other),
        lambda: agenda.create_goal("h", parent=goal.id, session=other),
        lambda: agenda.register_trigger("t", after_task=task.id, session=other),
    ):
        assert refused(call).type is ErrorType.NOT_FOUND
