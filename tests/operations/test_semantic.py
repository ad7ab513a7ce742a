"""Facts: what the model check does not say by name."""

import pytest

from memlab.errors import ErrorType, MemlabError
from memlab.measure import clock
from memlab.operations import lookup
from memlab.operations.semantic import ranking_weights
from memlab.storage.calls import Call
from memlab.storage.demands import Page, Replace
from memlab.storage.phases import Phases


def contents(found):
    """Return what was found, in order."""
    return [fact.content for fact in found]


@pytest.mark.parametrize("name", ["search", "semantic_search", "keyword_search", "hybrid_search"])
def test_what_was_stored_is_found(memory, name):
    """Every way of searching finds a stored fact by its words, and only among the kinds and topics asked for."""
    memory.semantic.store("Ada drinks tea", topics=["people"], kind="fact")
    memory.semantic.store("Tea is made with hot water", topics=["kitchen"], kind="principle")
    search = getattr(memory.semantic, name)
    assert contents(search("Ada drinks tea", limit=1)) == ["Ada drinks tea"]
    assert contents(search("Ada drinks tea", kind="principle")) == ["Tea is made with hot water"]
    assert contents(search("Ada drinks tea", topics=["kitchen"])) == ["Tea is made with hot water"]


@pytest.mark.parametrize(
    ("query", "weights"),
    [
        ("tea", (0.5, 1.0)),
        ("Ada Lovelace", (0.5, 1.0)),
        ('the words "hot water" somewhere in all of the many notes', (0.5, 1.0)),
        ("errors of type HTTP-404", (0.5, 1.0)),
        ("set max_entries to four", (0.5, 1.0)),
        ("the maxEntries setting again", (0.5, 1.0)),
        ("is it tea?", (1.0, 0.5)),
        ("how people made hot drinks on boats", (1.0, 0.5)),
        ("tea in the morning", (1.0, 1.0)),
    ],
)
def test_the_form_of_a_query_decides_what_counts(query, weights):
    """Words count more for codes, quotations and a word or two, meaning more for questions and sentences."""
    assert ranking_weights(query) == weights


def test_a_least_similarity_cuts_the_list(memory):
    """`min_similarity` leaves out what is further away, and says the cosine of what it finds."""
    memory.semantic.store("Ada drinks tea")
    memory.semantic.store("the engine was repaired on Sunday")
    (found,) = memory.semantic.semantic_search("Ada drinks tea", min_similarity=0.9)
    assert found.score == pytest.approx(1.0, abs=1e-5)


def test_a_search_without_weights_is_refused(memory):
    """Two weights of nothing rank nothing."""
    with pytest.raises(MemlabError, match="above 0") as caught:
        memory.semantic.hybrid_search("tea", vector_weight=0.0, text_weight=0.0)
    assert caught.value.reason == "bounds"


def test_related_memories_leave_the_memory_itself_out(memory):
    """The nearest other memories come back, as many as asked for, never the one that was asked about."""
    one = memory.semantic.store("Ada drinks tea")
    for content in ("Ada drinks green tea", "Bo drives a train", "Ada drinks tea"):
        memory.semantic.store(content)
    assert contents(memory.semantic.search_related(one.id, limit=2)) == ["Ada drinks tea", "Ada drinks green tea"]


def test_instant_search_takes_unfinished_words(memory):
    """While a word is being typed, what begins with it is found; a blank prefix is refused."""
    memory.semantic.store("Ada grows strawberries")
    for typed in ("s", "straw", "ada str", "strawberries"):
        assert contents(memory.semantic.instant_search(typed)) == ["Ada grows strawberries"]
    with pytest.raises(MemlabError, match="blank"):
        memory.semantic.instant_search(" ")


def test_earlier_versions_can_be_read(memory):
    """An update keeps what was; every version can be read by its number, and there is no other."""
    first = memory.semantic.store("Ada drinks tea", topics=["a"], source="chat")
    second = memory.semantic.update(first.id, content="Ada drinks coffee", confidence=0.5)
    third = memory.semantic.update(first.id, topics=["b"], source=None)
    assert [memory.semantic.get(first.id, version) for version in (1, 2, 3)] == [first, second, third]
    assert memory.semantic.get(first.id) == third
    assert (third.version, third.content, third.topics, third.source) == (3, "Ada drinks coffee", ("b",), None)
    assert (third.created_at, second.confidence) == (first.created_at, 0.5)
    with pytest.raises(MemlabError, match="versions 1 to 3, not 4") as caught:
        memory.semantic.get(first.id, 4)
    assert (caught.value.type, caught.value.reason) == (ErrorType.NOT_FOUND, "version")
    assert memory.semantic.get_stats().versions == 2


def test_an_updated_memory_is_searched_as_it_is(memory):
    """After an update the old words and the old meaning find nothing any more."""
    fact = memory.semantic.store("Ada drinks tea")
    memory.semantic.update(fact.id, content="Bo drives a train")
    assert contents(memory.semantic.keyword_search("tea")) == []
    assert contents(memory.semantic.keyword_search("train")) == ["Bo drives a train"]
    assert memory.semantic.semantic_search("Bo drives a train")[0].score == pytest.approx(1.0, abs=1e-5)


def test_an_update_asks_only_for_what_changes():
    """Without a new content nothing is embedded; None takes away, what is left out stays."""
    declared = lookup("semantic.update")
    demand = next(declared.start(declared.validate({"id": "sm_1", "source": None, "confidence": 0.5})))
    assert demand == Replace("semantic", "sm_1", {"source": None, "confidence": 0.5})


def test_an_update_without_change_is_refused(memory):
    """An update says what is to change."""
    fact = memory.semantic.store("Ada drinks tea")
    with pytest.raises(MemlabError, match="something to change") as caught:
        memory.semantic.update(fact.id)
    assert caught.value.reason == "missing_parameter"


def test_a_new_vector_alone_is_an_update(memory):
    """A better vector for the same text can be given."""
    fact = memory.semantic.store("Ada drinks tea")
    vector = [1.0] + [0.0] * 63
    assert memory.semantic.update(fact.id, embedding=vector).version == 2
    assert memory.semantic.semantic_search("x", query_embedding=vector)[0].score == pytest.approx(1.0, abs=1e-5)


def test_a_triple_is_a_sentence(memory):
    """A fact of three parts is found by its sentence and keeps its parts until it becomes another sentence."""
    fact = memory.semantic.store_fact("Ada", "works_at", "the harbour")
    assert (fact.content, fact.kind) == ("Ada works at the harbour", "fact")
    assert (fact.subject, fact.predicate, fact.object) == ("Ada", "works_at", "the harbour")
    assert memory.semantic.keyword_search("harbour")[0].predicate == "works_at"
    assert memory.semantic.update(fact.id, confidence=0.5).subject == "Ada"
    assert memory.semantic.update(fact.id, content="Ada retired").subject is None


def test_the_longest_triple_fits():
    """Three parts of the greatest length make a content that fits."""
    declared = lookup("semantic.store_fact")
    longest = "x" * 1_024
    embed = next(declared.start(declared.validate({"subject": longest, "predicate": longest, "object": longest})))
    lookup("semantic.store").validate({"content": embed.texts[0]})


def test_deleting_one_memory(memory):
    """Deleting one says what went; what is not there is NOT_FOUND."""
    fact = memory.semantic.store("Ada drinks tea")
    assert memory.semantic.delete(fact.id).ids == (fact.id,)
    with pytest.raises(MemlabError) as caught:
        memory.semantic.delete(fact.id)
    assert (caught.value.type, caught.value.reason) == (ErrorType.NOT_FOUND, "memory")


@pytest.mark.parametrize("given", [{}, {"ids": ["sm_1"], "topics": ["a"]}, {"ids": ["sm_1"], "below_confidence": 0.5}])
def test_bulk_delete_takes_ids_or_conditions(memory, given):
    """Ids and conditions do not go together, and nothing said does not mean everything."""
    with pytest.raises(MemlabError, match="either ids or conditions") as caught:
        memory.semantic.bulk_delete(**given)
    assert caught.value.type is ErrorType.VALIDATION


def test_what_was_updated_is_not_old(memory):
    """`older_than` spares a memory that was stored before that time and updated since."""
    old = memory.semantic.store("Ada drinks tea")
    kept = memory.semantic.store("Bo drives a train")
    between = memory.semantic.update(kept.id, confidence=0.5).updated_at
    done = memory.semantic.bulk_delete(older_than=between)
    assert done.ids == (old.id,)
    assert memory.semantic.get(kept.id).version == 2


def test_bulk_delete_reads_every_page():
    """Memories beyond the first page that was looked at are found too, and are counted."""
    declared = lookup("semantic.bulk_delete")
    plan = declared.start(declared.validate({"topics": ["a"], "limit": 1, "dry_run": True}))
    first = next(plan)
    assert isinstance(first, Page)
    found = [type("Found", (), {"id": name})() for name in ("sm_1", "sm_2")]
    second = plan.send((found[:1], "cursor"))
    assert second.after == "cursor"
    with pytest.raises(StopIteration) as stop:
        plan.send((found[1:], None))
    assert (stop.value.value.ids, stop.value.value.remaining) == (("sm_1",), 2)


def test_near_duplicates_become_one(memory):
    """The most confident stays, with the topics of all and a source; what it took in is gone; a second run finds nothing."""
    low = memory.semantic.store("Ada drinks tea", topics=["a"], confidence=0.5, source="chat")
    high = memory.semantic.store("Ada drinks tea", topics=["b"], confidence=0.9)
    other = memory.semantic.store("Bo drives a train")
    dry = memory.semantic.deduplicate(0.95, dry_run=True)
    assert (dry.merged, dry.merges[0].kept, len(memory.semantic.list())) == (0, high.id, 3)
    done = memory.semantic.deduplicate(0.95)
    assert (done.merged, done.complete) == (1, True)
    assert (done.merges[0].kept, done.merges[0].absorbed, done.merges[0].topics) == (high.id, (low.id,), ("b", "a"))
    kept = memory.semantic.get(high.id)
    assert (kept.topics, kept.source, kept.version) == (("b", "a"), "chat", 2)
    assert memory.semantic.get(high.id, 1).topics == ("b",)
    assert {fact.id for fact in memory.semantic.list()} == {high.id, other.id}
    assert memory.semantic.deduplicate(0.95).merges == ()


def test_no_chain_of_likes_is_merged(memory):
    """A memory that is like the second but not like the first stays, and what stays is pairwise unlike."""
    vectors = [[1.0, 0.0], [0.9, 0.436], [0.62, 0.785]]  # cosines: 0.90 next to each other, 0.62 from end to end
    for place, vector in enumerate(vectors):
        memory.semantic.store(f"number {place}", embedding=[*vector, *[0.0] * 62])
    done = memory.semantic.deduplicate(0.85)
    assert done.merged == 1
    assert contents(memory.semantic.list(order="oldest_first")) == ["number 0", "number 2"]


def test_equal_sentences_of_other_facts_stay(memory):
    """Facts that say different things with the same words are not merged, however alike they look."""
    memory.semantic.store_fact("Ada", "likes", "Bo", embedding=[1.0] + [0.0] * 63)
    memory.semantic.store_fact("Bo", "likes", "Ada", embedding=[1.0] + [0.0] * 63)
    memory.semantic.store("Ada likes Bo", kind="principle", embedding=[1.0] + [0.0] * 63)
    assert memory.semantic.deduplicate(1.0).merged == 0


def test_a_cut_deduplication_says_so(memory):
    """Where the limit left pairs out the answer is not complete, and calling again goes on."""
    memory.semantic.bulk_store([{"content": f"tea {place % 3}"} for place in range(9)])
    first = memory.semantic.deduplicate(1.0, limit=2)
    assert not first.complete
    while not memory.semantic.deduplicate(1.0, limit=2).complete:
        pass
    assert sorted(contents(memory.semantic.list())) == ["tea 0", "tea 1", "tea 2"]


def test_topics_are_counted(memory):
    """Each topic comes with its count, share and mean confidence, the most frequent first; changing the data changes them."""
    assert len(memory.semantic.analyze_topics()) == 0
    memory.semantic.store("a", topics=["tea", "home"], confidence=0.5)
    memory.semantic.store("b", topics=["tea"], confidence=1.0)
    memory.semantic.store("c")
    tea, home = memory.semantic.analyze_topics()
    assert (tea.topic, tea.memories, tea.share, tea.mean_confidence) == ("tea", 2, pytest.approx(2 / 3), 0.75)
    assert (home.topic, home.memories) == ("home", 1)
    assert [topic.topic for topic in memory.semantic.analyze_topics(limit=1)] == ["tea"]
    memory.semantic.store("d", topics=["home", "tea"])
    assert memory.semantic.analyze_topics()[0].share == pytest.approx(3 / 4)


def test_totals_are_counted(memory):
    """Totals follow the data, from nothing on."""
    nothing = memory.semantic.get_stats()
    assert (nothing.memories, nothing.mean_confidence, nothing.mean_content_bytes, nothing.oldest) == (0, None, None, None)
    first = memory.semantic.store("tea", confidence=0.5)
    memory.semantic.store("thé", kind="concept", confidence=1.0)
    totals = memory.semantic.get_stats()
    assert (totals.memories, totals.by_kind, totals.mean_confidence) == (2, {"fact": 1, "concept": 1}, 0.75)
    assert (totals.content_bytes, totals.mean_content_bytes) == (7, 3.5)
    assert totals.oldest == first.created_at
    memory.semantic.delete(first.id)
    assert memory.semantic.get_stats().memories == 1


def test_a_list_keeps_its_order_under_updates(memory):
    """An update between two pages moves nothing: every memory is read once."""
    ids = memory.semantic.bulk_store([{"content": str(place)} for place in range(6)]).ids
    first = memory.semantic.list(3)
    memory.semantic.update(ids[0], confidence=0.5)
    memory.semantic.update(ids[5], confidence=0.5)
    second = memory.semantic.list(3, cursor=first.cursor)
    assert [fact.id for fact in (*first, *second)] == list(reversed(ids))
    assert [fact.content for fact in memory.semantic.list(kind="concept")] == []


def test_a_page_ends_at_an_updated_memory(memory, monkeypatch):
    """The page after one that ended at an updated memory goes on behind it, among memories of the same time too."""
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    first, second, third = (memory.semantic.store(word) for word in ("one", "two", "three"))
    memory.semantic.update(second.id, confidence=0.5)
    for order, wanted in (("newest_first", [third, second, first]), ("oldest_first", [first, second, third])):
        found, cursor = [], None
        while True:
            page = memory.semantic.list(1, order=order, **({} if cursor is None else {"cursor": cursor}))
            found += [fact.id for fact in page]
            cursor = page.cursor
            if cursor is None or len(found) > 3:
                break
        assert found == [one.id for one in wanted]


def deduplicating(memory, **given):
    """Let a call compare, and return what is left of it: the part that writes."""
    declared = lookup("semantic.deduplicate")
    storage = memory.engine.storage
    waiting = storage.prepare([Call("default", lambda: declared.start(declared.validate(given)))], Phases())
    return lambda: storage.write(waiting, Phases())[0]


def test_writes_go_on_while_memories_are_compared(memory):
    """The comparison holds no writer: what is stored meanwhile is there at once, and is merged by the next call."""
    low = memory.semantic.store("Ada drinks tea", confidence=0.5)
    high = memory.semantic.store("Ada drinks tea")
    finish = deduplicating(memory)
    late = memory.semantic.store("Ada drinks tea", confidence=0.1)
    assert memory.semantic.get(late.id) == late
    assert finish().merges[0].absorbed == (low.id,)
    assert memory.semantic.deduplicate().merges[0].absorbed == (late.id,)
    assert [fact.id for fact in memory.semantic.list()] == [high.id]


def test_what_changed_while_memories_were_compared_is_left(memory):
    """A memory that was changed after it was compared is not merged, and the answer is not complete; the next call goes on."""
    low, high = memory.semantic.store("Ada drinks tea", confidence=0.5), memory.semantic.store("Ada drinks tea")
    for changed in (low, high):
        finish = deduplicating(memory)
        memory.semantic.update(changed.id, topics=[f"new {changed.id}"])
        done = finish()
        assert (done.merged, done.complete) == (0, False)
    assert memory.semantic.deduplicate().merges[0].topics == (f"new {high.id}", f"new {low.id}")


def test_what_was_forgotten_while_memories_were_compared_stays_so(memory):
    """A memory that was forgotten meanwhile takes nothing in and is not merged."""
    one, two, three = (memory.semantic.store("Ada drinks tea") for _ in range(3))
    finish = deduplicating(memory)
    memory.semantic.delete(one.id)
    done = finish()
    assert (done.merged, done.complete) == (0, False)
    done = memory.semantic.deduplicate()
    assert (done.merges[0].kept, done.merges[0].absorbed, done.complete) == (two.id, (three.id,), True)
