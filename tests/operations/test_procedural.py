"""Procedures are written, mined, found, run and judged."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.embedders import PrecomputedEmbedder
from memlab.errors import ErrorType, MemlabError
from memlab.memory import Memory
from memlab.operations.procedural import filled, literal, parameters_of, sequences_of
from memlab.values import Event

START = datetime(2026, 1, 1, tzinfo=UTC)
MORNING = ["boil water", "warm the pot", "pour the tea"]


def refused(call, *values, **given) -> MemlabError:
    """Return the error of a call."""
    with pytest.raises(MemlabError) as caught:
        call(*values, **given)
    return caught.value


def live(memory, episodes, **more):
    """Remember actions, a minute apart, episode by episode."""
    events = [
        {
            "content": f"{action} once more",
            "context": {"episode": str(number), "action": action},
            "occurred_at": START + timedelta(days=number, minutes=minute),
        }
        | more
        for number, actions in enumerate(episodes)
        for minute, action in enumerate(actions)
    ]
    memory.episodic.bulk_remember(events)


# --- steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("greet {name}", "greet Ada"),
        ("greet {name} and {name}", "greet Ada and Ada"),
        ("write {{name}}", "write {name}"),
        ("{name.__class__} {name[0]} {name!r} {0} {}", "{name.__class__} {name[0]} {name!r} {0} {}"),
        ('send {"who": "{name}", "n": {"m": 1}}', 'send {"who": "Ada", "n": {"m": 1}}'),
    ],
)
def test_a_step_is_filled_and_nothing_of_it_evaluated(step, text):
    """Only a plain name in braces is a parameter, double braces are text, other braces are braces."""
    assert filled(step, {"name": "Ada"}) == text


def test_an_input_is_not_filled_again():
    """A parameter inside an input stays text."""
    assert filled("{a} {b}", {"a": "{b}", "b": "{{a}}"}) == "{b} {{a}}"


def test_inputs_that_are_not_text_stand_as_json():
    """Numbers, truth, nothing, lists and tables."""
    assert filled("{a} {b} {c} {d}", {"a": 1.5, "b": True, "c": None, "d": {"x": [1]}}) == '1.5 true null {"x":[1]}'


@given(st.text("{}ab_ ."))
def test_a_literal_step_is_filled_to_its_text(text):
    """Whatever braces a mined action holds, the run shows it, and no parameter is made of it."""
    assert parameters_of([literal(text)]) == ()
    assert filled(literal(text), {}) == text


# --- create, get, list, search -------------------------------------------------------------------------------------


def test_a_procedure_is_found_in_every_way(memory):
    """By id, in the list, and by the words of a step."""
    tea = memory.procedural.create("Make tea", MORNING, description="for guests")
    boat = memory.procedural.create("Sail", ["set {sail}", "cast off"], ["sail"])
    assert memory.procedural.get(tea.id) == tea
    assert boat.parameters == ("sail",)
    assert list(memory.procedural.list()) == [boat, tea]
    first = memory.procedural.list(limit=1, order="oldest_first")
    assert list(first) == [tea]
    assert list(memory.procedural.list(limit=1, order="oldest_first", cursor=first.cursor)) == [boat]
    assert memory.procedural.search("warm the pot", limit=1)[0].id == tea.id


def test_parameters_come_from_the_steps(memory):
    """Left out, they are the names that the steps use; given, they must be those."""
    assert memory.procedural.create("a", ["{b} {a}", "{{c}} {a}"]).parameters == ("b", "a")
    assert memory.procedural.create("a", ["{b} {a}"], ["a", "b"]).parameters == ("a", "b")
    for wrong in (["a"], ["a", "b", "c"], []):
        error = refused(memory.procedural.create, "a", ["{b} {a}"], wrong)
        assert (error.type, error.reason) == (ErrorType.VALIDATION, "parameters")
    assert len(memory.procedural.list()) == 2


# --- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_holds_the_filled_steps(memory):
    """And opens."""
    greet = memory.procedural.create("greet", ["find {who}", "wave {n} times"])
    run = memory.procedural.execute(greet.id, {"who": "Ada", "n": 2})
    assert run.steps == ("find Ada", "wave 2 times")
    assert (run.success, run.procedure, run.inputs) == (None, greet.id, {"who": "Ada", "n": 2})


@pytest.mark.parametrize(("inputs", "reason"), [({}, "missing_parameter"), ({"who": "Ada", "when": "now"}, "unknown_parameter")])
def test_wrong_inputs_open_no_run(memory, inputs, reason):
    """One that is missing, one that is unknown."""
    greet = memory.procedural.create("greet", ["find {who}"])
    error = refused(memory.procedural.execute, greet.id, inputs)
    assert (error.type, error.reason) == (ErrorType.VALIDATION, reason)
    assert memory.procedural.get_effectiveness(greet.id).open == 0


def test_a_run_too_long_is_refused(memory):
    """Many places for one long input are not filled."""
    shout = memory.procedural.create("shout", ["{a}" * 300])
    assert refused(memory.procedural.execute, shout.id, {"a": "a" * 16_000}).reason == "bounds"


def test_an_outcome_is_recorded_once(memory):
    """The same again is fine and changes nothing; another is refused."""
    tea = memory.procedural.create("tea", MORNING)
    run = memory.procedural.execute(tea.id)
    ended = memory.procedural.record_outcome(run.id, True, "hot")
    assert (ended.success, ended.notes, ended.version) == (True, "hot", 2)
    assert ended.finished_at is not None
    assert memory.procedural.record_outcome(run.id, True, "hot") == ended
    assert memory.procedural.record_outcome(run.id, True) == ended
    for success, notes in ((False, None), (True, "cold")):
        assert refused(memory.procedural.record_outcome, run.id, success, notes).reason == "recorded"
    assert refused(memory.procedural.record_outcome, "rn_1ffffffff", True).reason == "memory"


def test_effectiveness_is_counted_with_its_interval(memory):
    """Seven of ten: 0.7, Wilson's interval at 95 % 0.397 to 0.892; runs of others do not count."""
    tea, other = memory.procedural.create("tea", MORNING), memory.procedural.create("other", MORNING)
    unknown = memory.procedural.get_effectiveness(tea.id)
    assert (unknown.success_ratio, unknown.low, unknown.high) == (None, None, None)
    for number in range(12):
        run = memory.procedural.execute(tea.id)
        if number < 10:
            memory.procedural.record_outcome(run.id, number < 7)
    memory.procedural.record_outcome(memory.procedural.execute(other.id).id, False)
    found = memory.procedural.get_effectiveness(tea.id)
    assert (found.successes, found.failures, found.open, found.success_ratio) == (7, 3, 2, 0.7)
    assert (found.low, found.high) == pytest.approx((0.3968, 0.8922), abs=1e-4)


# --- extract -------------------------------------------------------------------------------------------------------


def test_what_is_done_again_and_again_becomes_a_procedure(memory):
    """With its support; shorter pieces that are no more frequent are left out."""
    live(memory, [MORNING, ["boil water", "look out", "warm the pot", "pour the tea"], MORNING, ["look out", "boil water"]])
    found = memory.procedural.extract(min_occurrences=3)
    assert (found.events, found.sequences, found.patterns, found.complete) == (12, 4, 1, True)
    (procedure,) = memory.procedural.list()
    assert (found.created, found.updated) == ((procedure.id,), ())
    assert (procedure.steps, procedure.occurrences, procedure.parameters) == (tuple(MORNING), 3, ())
    assert memory.procedural.execute(procedure.id).steps == tuple(MORNING)


def test_extracting_again_changes_what_has_changed_alone(memory):
    """The same events write nothing; one more occurrence brings the support up to date, also of one written by hand."""
    by_hand = memory.procedural.create("My tea", MORNING)
    live(memory, [MORNING] * 3)
    assert memory.procedural.extract().updated == (by_hand.id,)
    again = memory.procedural.extract()
    assert (again.created, again.updated, again.unchanged) == ((), (), 1)
    live(memory, [MORNING], context={"episode": "new", "action": "x"})
    live(memory, [[]] * 9 + [MORNING])
    assert memory.procedural.extract().updated == (by_hand.id,)
    (procedure,) = memory.procedural.list()
    assert (procedure.name, procedure.occurrences, procedure.version) == ("My tea", 4, 3)


def test_a_bounded_extract_goes_on_where_it_is_called_again(memory):
    """Each call writes the most frequent that are not kept yet, until all are."""
    live(memory, [["a", "b"]] * 5 + [["c", "d"]] * 4 + [["e", "f"]] * 3)
    first = memory.procedural.extract(procedures=2)
    assert not first.complete
    assert sorted(one.occurrences for one in memory.procedural.list()) == [4, 5]
    second = memory.procedural.extract(procedures=2)
    assert (len(second.created), second.unchanged, second.complete) == (1, 2, True)
    last = memory.procedural.extract(limit=6)
    assert (last.events, last.remaining_events, last.complete) == (6, 18, False)


def test_braces_in_an_action_are_text(memory):
    """A mined step is no template."""
    live(memory, [["press {enter}", "type {{x}}"]] * 3)
    memory.procedural.extract()
    (procedure,) = memory.procedural.list()
    assert procedure.parameters == ()
    assert memory.procedural.execute(procedure.id).steps == ("press {enter}", "type {{x}}")


def event(content, minute, **context):
    at = START + timedelta(minutes=minute)
    return Event(id="ep_1", content=content, context=context, occurred_at=at, created_at=at)


def test_events_fall_into_sequences(memory):
    """By episode, else by task, else at pauses; an action is the context's, else the content without case and stop."""
    events = [
        event("Boil  Water.", 0),
        event("x", 1, episode=1, action="stir"),
        event("warm the pot", 50),
        event("x", 60, episode="1"),
        event("y", 200, episode=1, action=" stir  well "),
        event("pour", 200),
        event("z", 300, task="t"),
    ]
    assert sequences_of(events, timedelta(hours=1)) == [
        ["boil water", "warm the pot"],
        ["stir", "stir well"],
        ["x"],
        ["pour"],
        ["z"],
    ]


def test_the_gap_between_steps_is_bounded(memory):
    """What lies further apart than *max_skip* is no sequence."""
    live(memory, [["a", "1", "2", "b"], ["a", "3", "4", "b"]])
    assert memory.procedural.extract(min_occurrences=2, max_skip=1).patterns == 0
    assert memory.procedural.extract(min_occurrences=2, max_skip=2).patterns == 1


def test_only_the_events_that_are_meant_count(memory):
    """Since a time, with all tags."""
    live(memory, [MORNING] * 3, tags=["tea", "home"])
    assert memory.procedural.extract(tags=["tea", "work"]).events == 0
    assert memory.procedural.extract(tags=["tea", "home"]).events == 9
    assert memory.procedural.extract(since=START + timedelta(days=1)).sequences == 2


def test_vectors_come_with_the_texts_where_none_are_made(tmp_path):
    """With precomputed vectors a text without its own is refused, with what to pass."""
    with Memory.open(tmp_path / "memory.duckdb", embedder=PrecomputedEmbedder(4)) as memory:
        assert refused(memory.procedural.create, "tea", MORNING).reason == "embedder"
        tea = memory.procedural.create("tea", MORNING, embedding=[1.0, 0, 0, 0])
        memory.procedural.create("boat", ["sail"], embedding=np.array([0, 1.0, 0, 0]))
        assert memory.procedural.search("x", query_embedding=[0.9, 0.1, 0, 0], limit=1)[0].id == tea.id
        assert memory.procedural.execute(tea.id).success is None


def test_an_idempotency_key_opens_one_run(memory):
    """A repeated call returns the run that it opened."""
    tea = memory.procedural.create("tea", MORNING)
    first = memory.procedural.execute(tea.id, idempotency_key="k")
    assert memory.procedural.execute(tea.id, idempotency_key="k") == first
    assert memory.procedural.get_effectiveness(tea.id).open == 1
    assert msgspec.json.encode(first)
