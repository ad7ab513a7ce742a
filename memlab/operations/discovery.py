"""Discovery: find the right operation, with as much detail as is needed and no more."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from memlab.operations import registry
from memlab.operations.parameters import Name, Text
from memlab.operations.registry import Operation, operation
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

    Ranked by BM25F (Robertson, Zaragoza 2009) over name, description and parameters of the declarations.
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

FIELD_WEIGHTS = {"name": 4.0, "summary": 2.0, "details": 1.0, "parameters": 0.5}
SATURATION = 1.2  # BM25's k1
LENGTH_NORM = 0.6  # BM25's b
STOP_WORDS = frozenset(
    "a an and are as at be but by can do for from had has have how i if in into is it its me my not of on or our so that the "
    "their them then there these they this to up us was we were what when where which who will with you your".split()
)


def ranked(query: str, among: Iterable[Operation]) -> list[Operation]:
    """Return the operations of *among* that share a word with *query*, best first; equals in the order of declaration."""
    statistics = _statistics(tuple(one.name for one in registry.operations()))
    wanted = set(words(query))
    scores = {one.name: _score(wanted, one.name, statistics) for one in among}
    fitting = [registry.lookup(name) for name, score in scores.items() if score > 0]
    return sorted(fitting, key=lambda one: -scores[one.name])


def words(text: str) -> list[str]:
    """Return the stems of the words of *text* that carry meaning.

    >>> words("Remembering the user's old events")
    ['remember', 'user', 'old', 'event']
    """
    found = re.findall(r"[a-z]+|\d+", re.sub(r"'s\b", "", text.lower()))
    return [_stem(word) for word in found if word not in STOP_WORDS]


def _stem(word: str) -> str:
    """Return *word* without the ending that number and tense give it; coarse, but alike for queries and declarations."""
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", "e"), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)] + instead
            break
    return word.removesuffix("e") if len(word) > 3 else word


class _Statistics(msgspec.Struct, frozen=True):
    """How often words stand in the declarations: weighted counts by operation, and how rare each word is."""

    counts: dict[str, dict[str, float]]
    rarity: dict[str, float]


@lru_cache(maxsize=4)
def _statistics(names: tuple[str, ...]) -> _Statistics:
    fields = {name: {field: words(text) for field, text in _fields(registry.lookup(name)).items()} for name in names}
    usual = {field: sum(len(one[field]) for one in fields.values()) / len(names) for field in FIELD_WEIGHTS}
    counts: dict[str, dict[str, float]] = {}
    for name, texts in fields.items():
        weighed: dict[str, float] = {}
        for field, found in texts.items():
            length = 1 - LENGTH_NORM + LENGTH_NORM * len(found) / (usual[field] or 1)
            for word, times in Counter(found).items():
                weighed[word] = weighed.get(word, 0.0) + FIELD_WEIGHTS[field] * times / length
        counts[name] = weighed
    carriers = Counter(word for weighed in counts.values() for word in weighed)
    rarity = {word: math.log(1 + (len(names) - times + 0.5) / (times + 0.5)) for word, times in carriers.items()}
    return _Statistics(counts, rarity)


def _fields(one: Operation) -> dict[str, str]:
    summary, _, details = (one.plan.__doc__ or "").partition("\n\n")
    return {
        "name": one.name.replace(".", " ").replace("_", " "),
        "summary": summary,
        "details": details.partition("Args:")[0].partition("Raises:")[0],
        "parameters": " ".join(f"{name.replace('_', ' ')} {help}" for name, help in one.help.items()),
    }


def _score(wanted: set[str], name: str, statistics: _Statistics) -> float:
    weighed = statistics.counts[name]
    return sum(
        statistics.rarity[word] * weighed[word] / (weighed[word] + SATURATION) for word in sorted(wanted) if word in weighed
    )
