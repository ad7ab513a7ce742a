"""Finding the right operation."""

import msgspec
import pytest

from memlab.errors import MemlabError
from memlab.operations import discovery, operations, registry
from tests.operations.judged import JUDGED

KNOWN = {one.name for one in operations()}
TASKS = {task: fitting for task, names in JUDGED.items() if (fitting := KNOWN & set(names.split()))}
LAYERS_OF_TASKS = {name.partition(".")[0] for names in JUDGED.values() for name in names.split()}


def test_tasks_find_their_operations():
    """Of sixty tasks told in plain words nine in ten find a fitting operation among the first three, over all layers."""
    lost = {
        task: [card.name for card in discovery.search(task, detail="name", limit=3)]
        for task, fitting in TASKS.items()
        if not fitting & {card.name for card in discovery.search(task, detail="name", limit=3)}
    }
    assert len(lost) <= 0.1 * len(TASKS), lost


def test_the_judged_tasks_are_of_every_layer():
    """Sixty tasks, of every layer at least one, and none of an operation that does not exist where its layer does."""
    assert len(JUDGED) == 60
    assert set(registry.LAYERS) >= LAYERS_OF_TASKS >= {one.layer for one in operations()}
    layers = {one.layer for one in operations()}
    judged = {name for names in JUDGED.values() for name in names.split()}
    assert {name for name in judged if name.partition(".")[0] in layers} <= KNOWN


@pytest.mark.parametrize(("said", "meant"), [("reminder", "trigger"), ("node", "entity"), ("todo", "task"), ("erase", "forget")])
def test_another_word_for_the_same_thing_finds_it(said, meant):
    """A word that no name holds finds what goes by another; the word itself comes before its synonyms."""
    (first, *_) = discovery.ranked(said, operations())
    found = [one.name for one in discovery.ranked(meant, operations())]
    assert first.name in found[: len(found) // 2]
    assert meant in found[0] or meant in discovery.card(found[0], "description").description.lower()


def test_without_a_task_everything_is_listed():
    """No query lists every operation, or those of one layer, in the order of declaration."""
    assert [card.name for card in discovery.search()] == [one.name for one in operations()]
    assert [card.name for card in discovery.search(layer="session")] == [one.name for one in operations("session")]
    assert len(discovery.search(limit=2)) == 2


def test_words_that_say_nothing_find_nothing():
    """A query without a word that stands in a declaration finds nothing rather than anything."""
    assert len(discovery.search("the of in zyzzyva")) == 0


def test_details_grow():
    """Each level of detail adds to the one before, and stays small."""
    sizes = {}
    for detail in ("name", "description", "schema"):
        sizes[detail] = len(msgspec.json.encode(list(discovery.search(detail=detail))))
    assert sizes["name"] <= 3_000 < sizes["description"] <= 15_000 < sizes["schema"] <= 100_000
    card = discovery.search(layer="episodic", detail="name", limit=1)[0]
    assert msgspec.json.encode(card) == b'{"name":"episodic.recall"}'


def test_one_operation_is_told_in_full(memory):
    """`get` tells everything that is declared; an unknown name, or layer, names the nearest."""
    card = memory.discovery.get("semantic.store")
    assert (card.layer, card.kind, card.result) == ("semantic", "write", "Fact")
    assert card.parameters["required"] == ("content",)
    assert (card.target_p95_ms, card.target_p99_ms) == (300, 500)
    with pytest.raises(MemlabError, match=r"did you mean 'semantic\.store'"):
        memory.discovery.get("semantic.stor")
    with pytest.raises(MemlabError, match="did you mean 'semantic'"):
        memory.discovery.search(layer="semantics")


def test_layers_say_what_they_hold(memory):
    """Every layer comes with what it holds and how many operations it has."""
    cards = {card.layer: card for card in memory.discovery.layers()}
    assert cards["semantic"].operations == 18
    assert sum(card.operations for card in cards.values()) == len(operations())
