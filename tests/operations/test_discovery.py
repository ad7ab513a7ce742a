"""Finding the right operation."""

import msgspec
import pytest

from memlab.errors import MemlabError
from memlab.operations import discovery, operations

TASKS = {
    "remember what the user said": "episodic.remember",
    "what happened between two dates": "episodic.query_temporal",
    "the last events": "episodic.get_recent",
    "forget old events": "episodic.forget_where",
    "import many events at once": "episodic.bulk_remember",
    "events with a tag": "episodic.recall_by_tags",
    "store a subject predicate object triple": "semantic.store_fact",
    "merge duplicates": "semantic.deduplicate",
    "suggestions while typing a prefix": "semantic.instant_search",
    "similar memories": "semantic.search_related",
    "search by keywords with BM25": "semantic.keyword_search",
    "change a fact": "semantic.update",
    "how many facts are there per topic": "semantic.analyze_topics",
    "open a new session": "session.create",
    "export everything of a session": "session.export",
    "delete a session": "session.delete",
    "which sessions are there": "session.list",
    "which layers are there": "discovery.layers",
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_finds_its_operation(task):
    """Told in plain words, the operation for a task is among the first three."""
    assert TASKS[task] in [card.name for card in discovery.search(task, detail="name", limit=3)]


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
