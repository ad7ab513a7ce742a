"""Declarations carry everything that follows from them, and nothing unbounded gets past them."""

import inspect
import json
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from memlab.errors import ErrorType, MemlabError
from memlab.operations import Examples, lookup, operation, operations, registry
from memlab.operations.parameters import MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_TEXT
from memlab.storage.demands import Count, Plan
from memlab.storage.records import NAMES as STORAGE_LAYERS

# As the design names them; what is a further layer's stands here before its operations do.
CATALOGUE = {
    "episodic": "recall recall_by_tags get_recent query_temporal list_events get_event remember! bulk_remember! forget! "
    "forget_where!",
    "semantic": "search semantic_search keyword_search hybrid_search search_by_topic search_related instant_search get list "
    "analyze_topics get_stats store! store_fact! bulk_store! update! delete! bulk_delete! deduplicate!",
    "procedural": "extract! create! list get search execute! record_outcome! get_effectiveness",
    "prospective": "create_task! list_tasks get_task update_task! complete_task! get_pending_tasks create_goal! list_goals "
    "get_goal update_goal! register_trigger! check_triggers!",
    "graph": "create_entity! create_relationship! delete_entity! search_entities get_entity get_relationships "
    "search_relationships find_path get_neighborhood get_communities analyze_entity",
    "meta": "memory_health get_expertise get_cognitive_load get_quality_metrics get_attention_metrics get_memory_stats find_gaps "
    "get_recommendations get_progress_metrics",
    "consolidation": "consolidate! get_metrics analyze_patterns get_status get_history configure_strategy! get_recommendations",
    "rag": "retrieve search hybrid_search semantic_search bm25_search reflective_search query_expansion "
    "retrieve_with_reranking get_synthesis_prompt get_stats",
    "discovery": "search get layers",
    "session": "create! list export delete!",
}
LAYERS = {one.layer for one in operations()}
NAMES = [one.name for one in operations()]


def refusal(name: str, **given: Any) -> MemlabError:
    """Return the error that parameters are refused with."""
    with pytest.raises(MemlabError) as caught:
        lookup(name).validate(given)
    assert caught.value.type is ErrorType.VALIDATION
    assert "\n" not in caught.value.text
    return caught.value


def test_the_catalogue_is_declared():
    """Every operation of every layer is there, in its kind (writes are marked), and no other."""
    declared = {
        f"{layer}.{name.rstrip('!')}": name.endswith("!")
        for layer in CATALOGUE
        if layer in LAYERS
        for name in CATALOGUE[layer].split()
    }
    assert {one.name: not one.reads for one in operations()} == declared
    assert [one.layer for one in operations()] == sorted((one.layer for one in operations()), key=list(CATALOGUE).index)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dimension", [0, 3])
def test_examples_are_valid(name, dimension):
    """Any example that an operation makes of what exists is accepted, and the same seed makes the same one."""
    declared = lookup(name)
    known = Examples(ids={layer: ["an_1", "an_2"] for layer in STORAGE_LAYERS}, dimension=dimension)
    for seed in range(30):
        given = declared.example(random.Random(seed), known)
        assert given == declared.example(random.Random(seed), known)
        declared.validate(given)
        declared.validate(json.loads(json.dumps(given)))


# --- bounds ----------------------------------------------------------------------------------------------------------


def unbounded(schema: Any, where: str = "") -> list[str]:
    """Return the places of a JSON schema whose values have no bound."""
    if not isinstance(schema, dict):
        return [f"{where}: not described"]
    if "anyOf" in schema:
        return [place for part in schema["anyOf"] for place in unbounded(part, where)]
    if "enum" in schema or "const" in schema or schema.get("type") in ("null", "boolean"):
        return []
    match schema.get("type"):
        case "string":
            fits = "maxLength" in schema or schema.get("format") == "date-time"
            return [] if fits else [f"{where}: text without maxLength"]
        case "integer" | "number":
            fits = schema.keys() & {"minimum", "exclusiveMinimum"} and schema.keys() & {"maximum", "exclusiveMaximum"}
            return [] if fits else [f"{where}: number without minimum and maximum"]
        case "array":
            own = [] if "maxItems" in schema else [f"{where}: list without maxItems"]
            # The numbers of a vector are bounded by its length in space, which JSON Schema cannot say.
            vector = schema.get("items") == {"type": "number"} and "maxItems" in schema
            return own if vector else own + unbounded(schema.get("items"), f"{where}[]")
        case "object" if "properties" in schema or schema.get("additionalProperties") is False:
            own = [] if schema.get("additionalProperties") is False else [f"{where}: table open to unknown fields"]
            inner = schema.get("properties", {}).items()
            return own + [place for name, part in inner for place in unbounded(part, f"{where}.{name}")]
        case "object":
            return [] if {"x-max-bytes", "x-max-depth"} <= schema.keys() else [f"{where}: table without bounds"]
    return [f"{where}: anything goes"]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_bounded(name):
    """No text, number, list or table that an operation takes is without a bound."""
    assert unbounded(registry.schema(lookup(name).parameters_type)) == []


@pytest.mark.parametrize(
    "hint",
    [
        str,
        int,
        float,
        Annotated[int, Meta(ge=1)],
        tuple[Annotated[str, Meta(max_length=3)], ...],
        Annotated[tuple[str, ...], Meta(max_length=3)],
        Annotated[dict[str, Any], Meta(max_length=3)],
        Any,
        str | None,
        msgspec.defstruct("Open", [("text", Annotated[str, Meta(max_length=3)])]),
        msgspec.defstruct("Inner", [("text", str)], forbid_unknown_fields=True),
    ],
)
def test_the_walk_finds_what_is_unbounded(hint):
    """The test above is no empty promise: it finds each kind of missing bound."""
    kind = msgspec.defstruct("Parameters", [("given", hint)], forbid_unknown_fields=True)
    assert unbounded(registry.schema(kind))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_explained(name):
    """Every parameter says what it means, in the schema too, and the operation what it does in one sentence."""
    declared = lookup(name)
    described = declared.describe()
    assert declared.summary.endswith(".")
    for field in declared.parameters_type.__struct_fields__:
        assert declared.help[field]
        assert declared.help[field] in json.dumps(described["parameters"]["properties"][field], ensure_ascii=False)


def test_what_programs_read():
    """The three levels of detail hold what the contract of `memlab operations --json` names."""
    declared = lookup("episodic.recall")
    assert declared.describe("name") == {"name": "episodic.recall"}
    assert set(declared.describe("description")) == {"name", "layer", "kind", "description"}
    assert {"name", "layer", "kind", "description", "parameters", "result", "target_p95_ms"} <= set(declared.describe())
    assert declared.describe()["result"] == "Table[Event]"
    assert declared.describe()["parameters"]["required"] == ("query",)
    assert json.loads(json.dumps(declared.describe()))["parameters"]["properties"]["limit"]["maximum"] == 200
    with pytest.raises(TypeError):
        declared.describe()["parameters"]["properties"]["limit"]["maximum"] = 1


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSED = [
    ("episodic.recall", {}, "missing_parameter", "needs query"),
    ("episodic.recall", {"query": "a", "limti": 3}, "unknown_parameter", "did you mean 'limit'"),
    ("episodic.recall", {"query": "a", 3: 3}, "unknown_parameter", "no parameter '3'"),
    ("episodic.recall", {"query": ""}, "bounds", "query"),
    ("episodic.recall", {"query": " \n\t "}, "bounds", "blank"),
    ("episodic.recall", {"query": "a" * (MAX_TEXT + 1)}, "bounds", "length <= 16384"),
    ("episodic.recall", {"query": b"tea"}, "type", "query: expected `str`"),
    ("episodic.recall", {"query": "a\ud800"}, "bounds", "lone surrogate"),
    ("episodic.recall", {"query": "a", "limit": 0}, "bounds", "limit = 0: expected `int` >= 1"),
    ("episodic.recall", {"query": "a", "limit": 201}, "bounds", "limit = 201"),
    ("episodic.recall", {"query": "a", "limit": 2**70}, "bounds", "limit: "),
    ("episodic.recall", {"query": "a", "limit": 10**5_000}, "bounds", "limit: "),
    ("episodic.recall", {"query": "a", "mode": "\ud800"}, "type", "not valid Unicode"),
    ("episodic.recall", {"query": "a", "\ud800": 1}, "unknown_parameter", "no parameter '\\ud800'"),
    ("episodic.recall", {"query": "a", "limit": True}, "type", "limit = True"),
    ("episodic.recall", {"query": "a", "limit": 2.0}, "type", "limit = 2.0"),
    ("episodic.recall", {"query": "a", "limit": "2"}, "type", "limit"),
    ("episodic.recall", {"query": "a", "mode": "vectr"}, "bounds", "hybrid, vector, text; 'vectr' is none"),
    ("episodic.recall", {"query": "a", "tags": "work"}, "type", "tags: expected `array`"),
    ("episodic.recall", {"query": "a", "tags": ["work", "a\nb"]}, "bounds", "tags[1]: give one line"),
    ("episodic.recall", {"query": "a", "tags": ["a\n"]}, "bounds", "tags[0]"),
    ("episodic.recall", {"query": "a", "tags": ["a"] * 65}, "bounds", "tags"),
    ("episodic.recall", {"query": "a", "tags": ["\udfff"]}, "bounds", "lone surrogate"),
    ("episodic.recall", {"query": "a", "min_confidence": float("nan")}, "bounds", "min_confidence = nan"),
    ("episodic.recall", {"query": "a", "min_confidence": float("inf")}, "bounds", "min_confidence = inf"),
    ("episodic.recall", {"query": "a", "since": "yesterday"}, "type", "since: invalid RFC3339"),
    ("episodic.recall", {"query": "a", "since": "2026-01-01T00:00:00"}, "type", "timezone"),
    ("episodic.recall", {"query": "a", "since": datetime(2026, 1, 1)}, "type", "timezone"),  # noqa: DTZ001
    ("episodic.recall", {"query": "a", "since": 5}, "type", "since = 5"),
    ("episodic.recall", {"query": "a", "until": datetime.min.replace(tzinfo=timezone(timedelta(hours=2)))}, "bounds", "years"),
    ("episodic.recall", {"query": "a", "query_embedding": "0.1"}, "vector", "query_embedding: a vector is a sequence"),
    ("episodic.recall", {"query": "a", "query_embedding": []}, "vector", "1 to 8,192 numbers"),
    ("episodic.recall", {"query": "a", "query_embedding": [0.0, 0.0]}, "vector", "between 1e-6 and 1e6 long, not 0"),
    ("episodic.recall", {"query": "a", "query_embedding": [float("nan"), 1.0]}, "vector", "not nan"),
    ("episodic.recall", {"query": "a", "query_embedding": [float("inf"), 1.0]}, "vector", "not inf"),
    ("episodic.recall", {"query": "a", "query_embedding": [1e200, 1.0]}, "vector", "not"),
    ("episodic.recall", {"query": "a", "query_embedding": [[1.0], [2.0]]}, "vector", "one flat sequence"),
    ("episodic.recall", {"query": "a", "query_embedding": [[1.0], 2.0]}, "vector", "one flat sequence"),
    ("episodic.recall", {"query": "a", "query_embedding": [1.0, "x"]}, "vector", "one flat sequence"),
    ("episodic.recall", {"query": "a", "query_embedding": [True, False]}, "vector", "one flat sequence"),
    ("episodic.recall", {"query": "a", "query_embedding": [1 + 2j]}, "vector", "one flat sequence"),
    ("episodic.recall", {"query": "a", "query_embedding": [10**400]}, "vector", "one flat sequence"),
    ("episodic.recall", {"query": "a", "query_embedding": np.ones(9000)}, "vector", "9,000"),
    ("episodic.recall", {"query": "a", "query_embedding": np.array(["a"])}, "vector", "one flat sequence"),
    ("episodic.get_event", {"id": ""}, "bounds", "id"),
    ("episodic.get_event", {"id": "a b"}, "bounds", "an id has 1 to 128 characters"),
    ("episodic.get_event", {"id": "ep_1\n"}, "bounds", "an id has"),
    ("episodic.get_event", {"id": "é"}, "bounds", "an id has"),
    ("episodic.get_event", {"id": "x" * 129}, "bounds", "length <= 128"),
    ("episodic.get_event", {"id": None}, "type", "id = None"),
    ("episodic.forget", {"ids": []}, "bounds", "ids"),
    ("episodic.forget", {"ids": ["a"] * 10_001}, "bounds", "10000"),
    ("episodic.forget", {"ids": ["a", "b c"]}, "bounds", "ids[1]: an id has"),
    ("episodic.remember", {"content": "a", "confidence": 1.01}, "bounds", "confidence = 1.01"),
    ("episodic.remember", {"content": "a", "confidence": -0.01}, "bounds", "confidence = -0.01"),
    ("episodic.remember", {"content": "a", "context": []}, "type", "context"),
    ("episodic.remember", {"content": "a", "context": {1: 2}}, "type", "context"),
    ("episodic.remember", {"content": "a", "context": {"a": {1: 2}}}, "bounds", "holds what is not JSON"),
    ("episodic.remember", {"content": "a", "context": {"a": {1, 2}}}, "bounds", "holds what is not JSON"),
    ("episodic.remember", {"content": "a", "context": {"a": float("nan")}}, "bounds", "holds what is not JSON"),
    ("episodic.remember", {"content": "a", "context": {"a": 2**80}}, "bounds", "holds what is not JSON"),
    ("episodic.remember", {"content": "a", "context": {"a": "\ud800"}}, "bounds", "holds what is not JSON"),
    ("episodic.remember", {"content": "a", "context": {"a": datetime.now(UTC)}}, "bounds", "holds what is not JSON"),
    ("episodic.remember", {"content": "a", "context": {"a": "x" * MAX_JSON_BYTES}}, "bounds", "at most 16,384 fit"),
    ("episodic.remember", {"content": "a", "context": {str(i): 1 for i in range(257)}}, "bounds", "context"),
    ("episodic.bulk_remember", {"events": []}, "bounds", "events"),
    ("episodic.bulk_remember", {"events": [{"content": "a"}, {}]}, "missing_parameter", "needs content in events[1]"),
    ("episodic.bulk_remember", {"events": [{"content": "a", "tgs": []}]}, "unknown_parameter", "events[0] has no field 'tgs'"),
    ("episodic.bulk_remember", {"events": [{"content": "a\ud800"}]}, "bounds", "events holds one whose content"),
    ("episodic.bulk_remember", {"events": [{"content": "a", "embedding": [0]}]}, "vector", "events[0].embedding: a vector"),
    (
        "semantic.bulk_store",
        {"facts": [{"content": "a", "kind": "x" * 9_000}]},
        "bounds",
        "give one of fact, principle, concept; 'xxx",
    ),
    ("episodic.bulk_remember", {"events": [np.datetime64("2026-01-01")]}, "missing_parameter", "in events[0]"),
    ("episodic.bulk_remember", {"events": [{"content": "a"}] * 10_001}, "bounds", "10000"),
    ("episodic.bulk_remember", {"events": [{"content": "a"}], "on_duplicate": "drop"}, "bounds", "keep, skip, error"),
]


@pytest.mark.parametrize(("name", "given", "reason", "says"), REFUSED)
def test_what_does_not_fit_is_refused(name, given, reason, says):
    """Each kind of unfit parameter gets one VALIDATION error that says which, what was given and what fits."""
    with pytest.raises(MemlabError) as caught:
        lookup(name).validate(given)
    assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, reason)
    assert says in caught.value.text
    assert caught.value.text.startswith(name)
    assert len(caught.value.text) < 400
    assert "\n" not in caught.value.text


@pytest.mark.parametrize("given", [None, [], "query", 5, [("query", "a")], np.datetime64("2026-01-01")])
def test_parameters_are_a_table(given):
    """Anything but a table of names and values is refused in one line."""
    with pytest.raises(MemlabError, match="parameters are a table") as caught:
        lookup("episodic.recall").validate(given)
    assert caught.value.reason == "type"


def test_given_text_does_not_leave_in_errors():
    """An error names the parameter; of what was given it shows numbers only, never a stored text, and nothing unprintable."""
    assert "secret" not in refusal("episodic.remember", content="secret " * 9_000).text
    assert "\x1b" not in refusal("episodic.recall", query="a", **{"\x1b[31m": 1}).text


@pytest.mark.parametrize("name", ["episodic.recal", "", "recall", "Episodic.recall", None, 5, "\x1b[31m", "x" * 10_000])
def test_an_unknown_operation_names_the_nearest(name):
    """What is not declared is refused with the nearest known name, in a line that stays short and printable."""
    with pytest.raises(MemlabError) as caught:
        lookup(name)
    assert caught.value.reason == "unknown_operation"
    assert len(caught.value.text) < 200
    assert caught.value.text.isprintable()
    if name == "episodic.recal":
        assert "did you mean 'episodic.recall'?" in caught.value.text


def test_an_unknown_layer_names_the_nearest():
    """A layer that is not there is refused likewise."""
    with pytest.raises(MemlabError, match="did you mean 'semantic'") as caught:
        operations("semantics")
    assert caught.value.reason == "unknown_layer"


# --- what comes out --------------------------------------------------------------------------------------------------


def test_times_come_out_in_utc():
    """A time of any zone, as a moment or as text, is the same moment in UTC; nested ones too."""
    moment = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    recall = lookup("episodic.recall").validate({"query": "a", "since": moment, "until": "2026-03-01T09:00:00+02:00"})
    assert (recall.since, recall.since.tzinfo) == (moment, UTC)
    assert (recall.until, recall.until.tzinfo) == (datetime(2026, 3, 1, 7, tzinfo=UTC), UTC)
    bulk = lookup("episodic.bulk_remember").validate({"events": [{"content": "a", "occurred_at": moment}]})
    assert bulk.events[0].occurred_at.tzinfo is UTC


@pytest.mark.parametrize(
    "make", [list, tuple, np.array, lambda numbers: np.array(numbers, np.float32), lambda n: np.array(n, np.float16)]
)
def test_vectors_come_out_as_unit_float32(make):
    """Any flat sequence of numbers becomes a unit vector of its own that nobody can change."""
    given = make([3.0, 4.0])
    vector = lookup("episodic.recall").validate({"query": "a", "query_embedding": given}).query_embedding
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, [0.6, 0.8], rtol=1e-6)
    assert not vector.flags.writeable
    assert not np.shares_memory(vector, np.asarray(given))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_a_unit_vector_keeps_its_bits(numbers):
    """What was normalised once is not changed by being normalised again, so equal questions stay equal."""
    validate = lookup("episodic.recall").validate
    if not 1e-6 < float(np.linalg.norm(numbers)) < 1e6:
        return
    once = validate({"query": "a", "query_embedding": numbers}).query_embedding
    again = validate({"query": "a", "query_embedding": once}).query_embedding
    assert once.tobytes() == again.tobytes()


def test_numbers_of_numpy_are_numbers():
    """Notebooks are full of NumPy scalars; they count as the numbers that they are."""
    known = lookup("episodic.recall").validate({"query": np.str_("a"), "limit": np.int64(3), "min_confidence": np.float32(0.5)})
    assert (known.query, known.limit, known.min_confidence) == ("a", 3, 0.5)
    assert (type(known.limit), type(known.query)) == (int, str)
    assert type(lookup("episodic.forget").validate({"ids": [np.str_("ep_1")]}).ids[0]) is str


def test_tables_come_out_as_copies():
    """A context is copied all the way down, so that changing what was given changes nothing that was accepted."""
    given = {"a": {"b": [1, {"c": 2}]}, "d": "é\x00\u2028"}
    context = lookup("episodic.remember").validate({"content": "a", "context": given}).context
    given["a"]["b"].append(3)
    given["a"]["b"][1]["c"] = 4
    assert context == {"a": {"b": (1, {"c": 2})}, "d": "é\x00\u2028"}
    with pytest.raises(TypeError):
        context["a"]["b"][1]["c"] = 5


@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: [inner]])
def test_tables_are_bounded_in_depth(wrap):
    """A context is nested as deep as is declared and no deeper, and one that holds itself ends likewise."""
    deep: Any = 1
    for _ in range(MAX_JSON_DEPTH - 1):
        deep = wrap(deep)
    lookup("episodic.remember").validate({"content": "a", "context": {"a": deep}})
    assert "nested deeper" in refusal("episodic.remember", content="a", context={"a": wrap(deep)}).text
    endless: dict[str, Any] = {}
    endless["a"] = endless
    assert refusal("episodic.remember", content="a", context=endless).reason == "bounds"


def test_a_plan_begins_with_its_parameters():
    """`start` gives a plan every parameter in its place: the first demand shows what was asked."""
    declared = lookup("episodic.query_temporal")
    demand = next(declared.start(declared.validate({"since": "2026-01-01T00:00:00Z", "limit": 7, "order": "oldest_first"})))
    assert (demand.limit, demand.newest_first, demand.filter.since) == (7, False, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("name", "given", "items"),
    [
        ("episodic.recall", {"query": "a"}, 1),
        ("episodic.bulk_remember", {"events": [{"content": "a"}] * 3}, 3),
        ("episodic.forget", {"ids": ["a", "b"]}, 2),
        ("episodic.forget_where", {"limit": 20}, 20),
    ],
)
def test_bulk_calls_say_how_many_items_they_have(name, given, items):
    """Targets of bulk operations hold for an item, so a call knows how many it has."""
    declared = lookup(name)
    assert declared.item_count(declared.validate(given)) == items


def test_signatures_are_for_people():
    """A signature shows parameters in order, with defaults, and the result."""
    signature = lookup("semantic.get").signature
    assert list(signature.parameters) == ["id", "version"]
    assert signature.parameters["version"].default is None
    assert signature.return_annotation == "Fact"


# --- declaring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("episodic.nothing", {}, "reads=True or writes=True"),
        ("episodic.nothing", {"reads": True, "writes": True}, "reads=True or writes=True"),
        ("episodc.nothing", {"reads": True}, "did you mean 'episodic'"),
        ("episodic.recall", {"reads": True}, "declared twice"),
        ("episodic.nothing", {"reads": True}, "does not explain colour"),
    ],
)
def test_a_wrong_declaration_is_refused(name, options, says):
    """A declaration that lacks something, or repeats one, is refused and declares nothing."""

    def plan(colour: Annotated[int, Meta(ge=0, le=1)] = 0) -> Plan[int]:
        """Count something."""
        return (yield Count("episodic"))

    before = operations()
    with pytest.raises(MemlabError, match=says) as caught:
        operation(name, example=lambda chance, known: {}, **options)(plan)
    assert caught.value.reason == "declaration"
    assert operations() == before


def test_help_comes_from_the_docstring():
    """What `Args:` say of a parameter is its help, over what its type says, on one line."""
    said = registry._arguments(
        inspect.cleandoc("""Do it.

        More of it.

        Args:
            first: one thing,
                told on two lines.
            second, third: the same for both.

        Returns:
            fourth: no parameter.
        """)
    )
    assert said == {"first": "one thing, told on two lines.", "second": "the same for both.", "third": "the same for both."}
