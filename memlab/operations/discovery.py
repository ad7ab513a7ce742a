"""Discovery: find the right operation, with as much detail as is needed and no more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from memlab.operations import registry
from memlab.operations.parameters import Name, Text
from memlab.operations.registry import Operation, operation
from memlab.operations.synonyms import GROUPS
from memlab.storage.analysis import split, stem
from memlab.values import Table

Layer = Annotated[Name, Meta(description="Only operations of this memory layer.")]
Detail = Annotated[
    Literal["name", "description", "schema"],
    Meta(description="The name alone; with layer, kind and description; or with parameters, result and target times as well."),
]


class Card(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is told of one operation; what the level of detail leaves out is None.

    Attributes:
        kind: `read` or `write`.
        parameters: JSON schema.
        result: the type of the answer.
        target_p95_ms, target_p99_ms: ceilings of the response time; per item where `cost` is `bulk`.
    """

    name: str
    layer: str | None = None
    kind: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    result: str | None = None
    cost: str | None = None
    target_p95_ms: float | None = None
    target_p99_ms: float | None = None


class LayerCard(msgspec.Struct, frozen=True, kw_only=True):
    """One memory layer: what it holds, and how many operations it has."""

    layer: str
    description: str
    operations: int


@operation(
    "discovery.search",
    reads=True,
    scope="all",
    cost="discovery",
    example=lambda chance, known: {
        "query": chance.choice(["remember what was said", "find facts by topic", "forget old events"]),
        "detail": chance.choice(["name", "description", "schema"]),
    },
)
def search(
    query: Annotated[Text, Meta(description="The task in your own words; none lists every operation.")] | None = None,
    layer: Layer | None = None,
    detail: Detail = "description",
    limit: Annotated[int, Meta(ge=1, le=200, description="Operations returned at most.")] = 100,
) -> Table[Card]:
    """Return operations that fit a task, best first, or all of them.

    Ranked by BM25F (Robertson, Zaragoza 2009) over name, description and parameters of the declarations; words that people
    use for the same thing count half.
    """
    known = registry.operations(layer)
    if query is not None:
        known = ranked(query, known)
    return Table(card(one.name, detail) for one in known[:limit])


@operation(
    "discovery.get",
    reads=True,
    scope="all",
    cost="discovery",
    example=lambda chance, known: {"name": chance.choice(["episodic.recall", "semantic.store", "session.create"])},
)
def get(name: Annotated[Name, Meta(description="`layer.operation`.")]) -> Card:
    """Return everything that is declared of one operation."""
    return card(registry.lookup(name).name, "schema")


@operation("discovery.layers", reads=True, scope="all", cost="discovery", example=lambda chance, known: {})
def layers() -> Table[LayerCard]:
    """Return the memory layers and what each holds."""
    return Table(
        LayerCard(layer=name, description=text, operations=len(registry.operations(name))) for name, text in registry.layers()
    )


@lru_cache(maxsize=1_024)
def card(name: str, detail: Literal["name", "description", "schema"]) -> Card:
    """Return what is told of one operation at a level of detail."""
    return Card(**registry.lookup(name).describe(detail))


# --- ranking ---------------------------------------------------------------------------------------------------------

FIELD_WEIGHTS = {"name": 4.0, "summary": 2.0, "details": 1.0, "parameters": 0.5, "layer": 0.5}
SYNONYM = 0.5  # how much a word of the same group counts beside the word itself
SATURATION = 1.2  # BM25's k1
LENGTH_NORM = 0.6  # BM25's b


def ranked(query: str, among: Iterable[Operation]) -> list[Operation]:
    """Return the operations of *among* that share a word with *query*, best first; equals in the order of declaration.

    Each word of the query adds what it tells of an operation itself, or half of what the best of its synonyms tells where
    that is more.
    """
    telling = _telling(tuple(one.name for one in registry.operations()))
    scores: Counter[str] = Counter()
    for word in dict.fromkeys(words(query)):
        best = dict(telling.get(word, {}))
        for other in _synonyms().get(word, ()):
            for name, told in telling.get(other, {}).items():
                best[name] = max(best.get(name, 0.0), SYNONYM * told)
        scores.update(best)
    return sorted((one for one in among if one.name in scores), key=lambda one: -scores[one.name])


@lru_cache(maxsize=1)
def _synonyms() -> dict[str, tuple[str, ...]]:
    """Return, for each stem, the stems of its groups in the order of the alphabet."""
    beside: dict[str, set[str]] = {}
    for group in GROUPS:
        stems = {stem for word in group for stem in words(word)}
        for one in stems:
            beside.setdefault(one, set()).update(stems - {one})
    return {one: tuple(sorted(others)) for one, others in beside.items()}


def words(text: str) -> list[str]:
    """Return the stems of the words of *text* that carry meaning.

    >>> words("Remembering the user's old events")
    ['rememb', 'user', 'old', 'event']
    """
    return [found for word in split(text) if (found := stem(word))]


@lru_cache(maxsize=4)
def _telling(names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return what each word of the declarations tells of each operation: how often it stands there, times how rare it is."""
    fields = {name: {field: words(text) for field, text in _fields(registry.lookup(name)).items()} for name in names}
    usual = {field: sum(len(one[field]) for one in fields.values()) / len(names) for field in FIELD_WEIGHTS}
    counts: dict[str, dict[str, float]] = {}
    for name, texts in fields.items():
        for field, found in texts.items():
            length = 1 - LENGTH_NORM + LENGTH_NORM * len(found) / (usual[field] or 1)
            for word, times in Counter(found).items():
                weighed = counts.setdefault(word, {})
                weighed[name] = weighed.get(name, 0.0) + FIELD_WEIGHTS[field] * times / length
    for weighed in counts.values():
        rarity = math.log(1 + (len(names) - len(weighed) + 0.5) / (len(weighed) + 0.5))
        for name, there in weighed.items():
            weighed[name] = rarity * there / (there + SATURATION)
    return counts


def _fields(one: Operation) -> dict[str, str]:
    summary, _, details = (one.plan.__doc__ or "").partition("\n\n")
    return {
        "name": one.name.replace(".", " ").replace("_", " "),
        "summary": summary,
        "details": details.partition("Args:")[0].partition("Raises:")[0],
        "layer": registry.LAYERS[one.layer],
        "parameters": " ".join(f"{name.replace('_', ' ')} {help}" for name, help in one.help.items()),
    }
