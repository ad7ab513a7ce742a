"""Retrieval over all layers: what the whole memory holds for a question, ranked together.

Every search gathers candidates of each layer by words (BM25) and by meaning (cosine), scales both by the best found in any
layer, and adds them up with weights. `contextual` retrieval adds what a candidate's surroundings say of it: neighbours in
time, the source, the time; how much each counts stands under `retrieval` in the settings.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

from memlab.errors import validation
from memlab.operations.cues import periods_of, source_named
from memlab.operations.parameters import Limit, Query, QueryEmbedding, Share, Similarity
from memlab.operations.registry import operation
from memlab.settings import RetrievalSettings
from memlab.storage.analysis import split, stem
from memlab.storage.demands import Consult, Count, Demand, Embed, Gather, Gathered, Layer, Period, Plan, Tuning
from memlab.storage.fusion import reciprocal_rank
from memlab.values import Passage, Table

# The kinds of memory that hold text, by memory layer; a further one is an entry here, and in `LayerName` and `LayerWeights`.
TEXT_LAYERS: Mapping[str, tuple[Layer, ...]] = {
    "episodic": ("episodic",),
    "semantic": ("semantic",),
    "procedural": ("procedural.procedure",),
    "prospective": ("prospective.task", "prospective.goal", "prospective.trigger"),
    "graph": ("graph.entity", "graph.relationship"),
}
LayerName: TypeAlias = Literal["episodic", "semantic", "procedural", "prospective", "graph"]
Layers = Annotated[
    tuple[LayerName, ...], Meta(max_length=8, description="Only these layers; all that hold text, where left out.")
]
RetrievalStrategy = Annotated[
    Literal["contextual", "hybrid", "vector", "text"],
    Meta(
        description="By words and meaning with what neighbours in time, source and dates say; by words and meaning alone; by "
        "meaning; by words."
    ),
]
Weight = Annotated[float, Meta(ge=0.0, le=100.0)]
ROOM = 4  # candidates for each passage that is wanted, among which cues, fusion and rerankers choose
LEAST = 50
FEEDBACK = 10  # first passages that are taken for relevant
MU = 0.1  # share of the whole feedback in each text's language model


class LayerWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much each layer counts; 1 where left out, 0 leaves it out."""

    episodic: Weight = 1.0
    semantic: Weight = 1.0
    procedural: Weight = 1.0
    prospective: Weight = 1.0
    graph: Weight = 1.0


class ExpansionTerm(msgspec.Struct, frozen=True, kw_only=True):
    """A word of the expanded query.

    Attributes:
        word: as it stands in the query or, most often, in the passages.
        stem: as it is searched.
        weight: its probability in the query's relevance model; those of all words add up to 1.
        is_new: the query itself does not hold it.
    """

    word: str
    stem: str
    weight: float
    is_new: bool


class Expansion(msgspec.Struct, frozen=True, kw_only=True):
    """An expanded query and what it finds.

    Attributes:
        terms: of the expanded query, the heaviest first.
        hypothetical: the text that the hook `expand` wrote, whose vector searched beside the query's; None without it.
        passages: what the expanded query finds, best first.
    """

    terms: tuple[ExpansionTerm, ...]
    hypothetical: str | None
    passages: tuple[Passage, ...]


class Reflection(msgspec.Struct, frozen=True, kw_only=True):
    """What a search with feedback found.

    Attributes:
        passages: best first.
        iterations: searches that were made after the first one.
        is_stable: the last of them found the same passages as the one before it.
    """

    passages: tuple[Passage, ...]
    iterations: int
    is_stable: bool


class SynthesisPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt for a language model, with its sources.

    Attributes:
        prompt: instructions, numbered sources and the question.
        sources: the passages in it, number 1 first.
        tokens: estimate of its length: a token for every four characters.
        left_out: passages found that did not fit the budget.
    """

    prompt: str
    sources: tuple[Passage, ...]
    tokens: int
    left_out: int


class RetrievalStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What retrieval has to search, and how it does.

    Attributes:
        memories: of all layers that hold text.
        by_layer: how many each of them holds.
        strategies: those of `rag.retrieve`, the default first.
        settings: the numbers under `retrieval` in the settings.
    """

    memories: int
    by_layer: dict[str, int]
    strategies: tuple[str, ...]
    settings: dict[str, float]


# --- ranking -------------------------------------------------------------------------------------------------------


def scaled(scores: np.ndarray) -> np.ndarray:
    """Return scores so that the best is 1; as they are where none is above 0."""
    best = float(scores.max()) if len(scores) else 0.0
    return scores / best if best > 0.0 else scores


def parts_of(
    found: Gathered, query: str, settings: RetrievalSettings, *, words: float, meaning: float, cues: bool
) -> dict[str, np.ndarray]:
    """Return the weighted parts of every candidate's score, by name."""
    parts = {}
    if words:
        parts["words"] = words * scaled(found.words)
    if meaning:
        parts["meaning"] = meaning * scaled(found.meaning)
    if cues:
        sources = [getattr(value, "source", None) for value in found.values]
        named = source_named(query, sources)
        if named is not None:
            parts["source"] = settings.source_weight * np.array([source == named for source in sources], np.float64)
        if found.timely.any():
            parts["time"] = settings.time_weight * found.timely
    return parts


def passages_of(found: Gathered, parts: Mapping[str, np.ndarray], limit: int) -> list[Passage]:
    """Return the best candidates by the sum of their parts, ties in the order of gathering."""
    scores = total(found, parts)
    best = np.argsort(-scores, kind="stable")[:limit].tolist()
    return [passage(found, place, float(scores[place]), {name: part[place] for name, part in parts.items()}) for place in best]


def total(found: Gathered, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the sum of the parts."""
    scores: np.ndarray = sum(parts.values(), np.zeros(len(found.values)))
    return scores


def passage(found: Gathered, place: int, score: float, why: Mapping[str, float]) -> Passage:
    """Return one candidate as it is shown."""
    value = found.values[place]
    return Passage(
        layer=found.layers[place],
        id=value.id,
        content=value.content,
        score=score,
        why={name: float(part) for name, part in why.items() if part},
        source=getattr(value, "source", None) if not found.layers[place].startswith("graph") else None,
        tags=value.keys if found.layers[place] in ("episodic", "semantic") else (),
        occurred_at=value.occurred_at if found.layers[place] == "episodic" else value.created_at,
        expires_at=value.expires_at,
    )


def chosen_layers(layers: Sequence[str]) -> tuple[Layer, ...]:
    """Return what is searched for these memory layers, each once; for none, all that hold text."""
    return tuple(one for name, kinds in TEXT_LAYERS.items() if not layers or name in layers for one in kinds)


def diverse(relevance: np.ndarray, alike: np.ndarray, limit: int, balance: float) -> list[int]:
    """Return places by maximal marginal relevance, best first.

    Args:
        relevance: (n,) of each candidate, the best near 1.
        alike: (n, n) cosines between candidates.
        limit: how many are chosen.
        balance: 1 ranks by relevance alone, 0 by unlikeness to those chosen before.
    Source: Carbonell, Goldstein 1998, doi 10.1145/290941.291025.

    >>> diverse(np.array([1.0, 0.9, 0.5]), np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), 2, 0.5)
    [0, 2]
    """
    chosen: list[int] = []
    nearest = np.zeros(len(relevance))
    left = np.ones(len(relevance), np.bool_)
    while len(chosen) < limit and left.any():
        merit = np.where(left, balance * relevance - (1.0 - balance) * nearest, -np.inf)
        best = int(merit.argmax())
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, alike[best]) if len(chosen) > 1 else alike[best].copy()
    return chosen


def relevance_model(
    query: str, contents: Sequence[str], scores: Sequence[float], *, terms: int, mix: float
) -> tuple[ExpansionTerm, ...]:
    """Return the words of the query and of the feedback by weight: RM3.

    A word's probability is mix × its share of the query + (1 - mix) × its share of the feedback: of each content's words,
    smoothed by those of all, weighted by the content's score; of the feedback the *terms* most probable words are kept.

    Args:
        contents: the first passages, taken for relevant.
        scores: of them, above 0; how much each counts.
        terms: words of the feedback that are kept.
        mix: share of the query itself, 0 to 1.
    Source: Abdul-Jaleel et al. 2004, UMass at TREC 2004 (RM3); Lavrenko, Croft 2001, doi 10.1145/383952.383972.
    """
    surface: dict[str, Counter[str]] = {}

    def stems(text: str) -> list[str]:
        known = []
        for word in split(text):
            token = stem(word)
            if token:
                surface.setdefault(token, Counter())[word] += 1
                known.append(token)
        return known

    asked = Counter(stems(query))
    models = [Counter(stems(content)) for content in contents]
    everything = sum(models, Counter())
    all_words = max(everything.total(), 1)
    weights = np.maximum(np.asarray(scores, np.float64), 0.0)
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(models), 1.0 / max(len(models), 1))
    feedback: dict[str, float] = {}
    for token, count in everything.items():
        share = count / all_words
        feedback[token] = sum(
            weight * ((1.0 - MU) * model[token] / max(model.total(), 1) + MU * share)
            for weight, model in zip(weights.tolist(), models, strict=True)
        )
    kept = sorted(feedback, key=lambda token: (-feedback[token], token))[:terms]
    whole = sum(feedback[token] for token in kept) or 1.0
    mine = max(asked.total(), 1)
    share_of_query = mix if kept else 1.0
    made = {
        token: share_of_query * asked[token] / mine + ((1.0 - share_of_query) * feedback[token] / whole if token in kept else 0.0)
        for token in dict.fromkeys([*asked, *kept])
    }
    ordered = sorted(made, key=lambda token: (-made[token], token))
    return tuple(
        ExpansionTerm(word=surface[token].most_common(1)[0][0], stem=token, weight=made[token], is_new=token not in asked)
        for token in ordered
    )


def moved(query: np.ndarray, relevant: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the query's vector moved to the mean of the relevant and away from the mean of the others, of unit length.

    Source: Rocchio 1971, with the weights 1, 0.75 and 0.15 of Manning, Raghavan, Schütze 2008, doi 10.1017/CBO9780511809071.
    """
    vector = query.astype(np.float64)
    if len(relevant):
        vector = vector + 0.75 * relevant.mean(axis=0)
    if len(other):
        vector = vector - 0.15 * other.mean(axis=0)
    norm = float(np.linalg.norm(vector))
    result: np.ndarray = (vector / norm if norm > 1e-6 else query).astype(np.float32)
    return result


def _vector(query: str, given: np.ndarray | None) -> Generator[Demand, Any, np.ndarray]:
    vectors = yield Embed((query,), (given,), query=True)
    return vectors[0]  # type: ignore[no-any-return]


def _retrieved(
    query: str,
    limit: int,
    strategy: str,
    layers: tuple[Layer, ...],
    query_embedding: np.ndarray | None,
    *,
    with_vectors: bool = False,
    way: Literal["auto", "pre_filter", "push_down"] | None = None,
    explain: bool = False,
) -> Generator[Demand, Any, tuple[Gathered, dict[str, np.ndarray]]]:
    """Return candidates and the parts of their scores, by a strategy of `rag.retrieve`."""
    settings: RetrievalSettings = yield Tuning()
    vector = None
    if strategy != "text":
        vector = yield from _vector(query, query_embedding)
    contextual = strategy == "contextual"
    periods: tuple[Period, ...] = periods_of(query) if contextual else ()
    found: Gathered = yield Gather(
        layers,
        max(ROOM * limit, LEAST),
        text=None if strategy == "vector" else query,
        vector=vector,
        context=contextual,
        periods=periods,
        with_vectors=with_vectors,
        way=way,
        explain=explain,
    )
    words = 0.0 if strategy == "vector" else 1.0
    meaning = {"vector": 1.0, "text": 0.0}.get(strategy, settings.meaning_weight)
    return found, parts_of(found, query, settings, words=words, meaning=meaning, cues=contextual)


# --- operations ----------------------------------------------------------------------------------------------------


# Searches over all layers are complex: each layer is searched by itself, and its candidates are scored with what their
# neighbours in time say. At 100,000 memories that took 20 to 60 ms on two slow cores.
@operation(
    "rag.retrieve",
    reads=True,
    cost="complex",
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        "strategy": chance.choice(["contextual", "hybrid", "vector", "text"]),
        **known.query_embedding(chance),
    },
)
def retrieve(
    query: Query,
    limit: Limit = 10,
    strategy: RetrievalStrategy = "contextual",
    layers: Layers = (),
    way: Annotated[
        Literal["auto", "pre_filter", "push_down"],
        Meta(description="Compare all vectors of the session, or ask the index for it; auto takes the cheaper by estimate."),
    ] = "auto",
    explain: Annotated[bool, Meta(description="Say with the answer, in `explanation`, why it was searched that way.")] = False,
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Passage]]:
    """Return the passages of all layers that best answer *query*, best first.

    `contextual` lets neighbours in time lend an event the words that they say and it does not (Shakery, Zhai 2006,
    doi 10.1145/1183614.1183673), and favours the source and the days or months that the query names. Words count by BM25,
    meaning by cosine; both are scaled so that the best is 1, and added (Fox, Shaw 1994).
    """
    found, parts = yield from _retrieved(query, limit, strategy, chosen_layers(layers), query_embedding, way=way, explain=explain)
    return Table(passages_of(found, parts, limit), explanation=found.explanation)


@operation(
    "rag.search",
    reads=True,
    cost="complex",
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        "rerank": chance.choice(["none", "diverse"]),
        **known.query_embedding(chance),
    },
)
def search(
    query: Query,
    limit: Limit = 10,
    rerank: Annotated[
        Literal["none", "diverse", "hook"],
        Meta(description="Leave the order, avoid passages that say the same (MMR), or ask your own reranker, a hook."),
    ] = "none",
    layers: Layers = (),
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Passage]]:
    """Return what all layers know of *query*, best first, and reranked where that is asked for.

    The first ranking is that of `rag.retrieve`, `contextual`; the rerankers are those of `rag.retrieve_with_reranking`.
    Complex: a reranker ranks once more, with the vectors of every candidate.
    """
    return (yield from _reranked(query, limit, rerank, 0.7, chosen_layers(layers), query_embedding))


def _reranked(
    query: str, limit: int, rerank: str, balance: float, layers: tuple[Layer, ...], query_embedding: np.ndarray | None
) -> Generator[Demand, Any, Table[Passage]]:
    found, parts = yield from _retrieved(query, limit, "contextual", layers, query_embedding, with_vectors=rerank == "diverse")
    if rerank == "none" or not found.values:
        return Table(passages_of(found, parts, limit))
    scores = total(found, parts)
    pool = np.argsort(-scores, kind="stable")[: max(ROOM * limit, LEAST)]
    if rerank == "hook":
        judged = yield Consult("rerank", (query, tuple(found.values[place].content for place in pool.tolist())))
        order = np.argsort(-np.asarray(judged), kind="stable")[:limit].tolist()
        return Table(passage(found, int(pool[one]), judged[one], {"rerank": judged[one]}) for one in order)
    vectors = found.vectors[pool] if found.vectors is not None else np.zeros((len(pool), 1))
    relevance = scaled(scores[pool])
    order = diverse(relevance, vectors @ vectors.T, limit, balance)
    return Table(
        passage(found, int(pool[one]), float(relevance[one]), {name: part[pool[one]] for name, part in parts.items()})
        for one in order
    )


@operation(
    "rag.hybrid_search",
    reads=True,
    cost="complex",
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        "fusion": chance.choice(["weighted", "reciprocal_rank"]),
        "weights": {"episodic": round(chance.random(), 2), "semantic": 1.0},
        **known.query_embedding(chance),
    },
)
def hybrid_search(
    query: Query,
    limit: Limit = 10,
    weights: Annotated[LayerWeights, Meta(description="How much each layer counts; 1 where left out, 0 leaves it out.")]
    | None = None,
    words: Annotated[Weight, Meta(description="How much the ranking by words counts.")] = 1.0,
    meaning: Annotated[Weight, Meta(description="How much the ranking by meaning counts.")] = 1.0,
    fusion: Annotated[
        Literal["weighted", "reciprocal_rank"],
        Meta(description="Add the scores up, scaled so that the best is 1, or reciprocal ranks."),
    ] = "weighted",
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Passage]]:
    """Return the passages that best match *query* by words and by meaning, with a weight for each layer, best first.

    `weighted` adds scaled scores (CombSUM, Fox, Shaw 1994), `reciprocal_rank` the reciprocals of 60 + rank (Cormack, Clarke,
    Büttcher 2009, doi 10.1145/1571941.1572114), of the rankings by words and by meaning over all layers.
    """
    by_layer = msgspec.structs.asdict(weights or LayerWeights())
    layers = tuple(one for name, kinds in TEXT_LAYERS.items() if by_layer[name] for one in kinds)
    vector = yield from _vector(query, query_embedding)
    if not layers or not (words or meaning):
        return Table()
    found: Gathered = yield Gather(layers, max(ROOM * limit, LEAST), text=query, vector=vector)
    share = np.array([by_layer[layer.partition(".")[0]] for layer in found.layers])
    parts = {}
    for name, weight, scores in (("words", words, found.words), ("meaning", meaning, found.meaning)):
        if weight:
            made = scaled(np.maximum(scores, 0.0)) if fusion == "weighted" else reciprocal_ranks(scores)
            parts[name] = weight * share * made
    return Table(passages_of(found, parts, limit))


def reciprocal_ranks(scores: np.ndarray) -> np.ndarray:
    """Return 1 / (60 + rank) for every score above 0, the best of rank 1, and 0 for the others.

    >>> (60 * reciprocal_ranks(np.array([2.0, 0.0, 5.0]))).round(3).tolist()
    [0.968, 0.0, 0.984]
    """
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > 0]
    made = np.zeros(len(scores))
    if len(order):
        ids, known = reciprocal_rank([order], [1.0])
        made[ids] = known
    return made


@operation(
    "rag.semantic_search",
    reads=True,
    cost="complex",
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        **known.query_embedding(chance),
    },
)
def semantic_search(
    query: Query,
    limit: Limit = 10,
    layers: Layers = (),
    min_similarity: Annotated[Similarity, Meta(description="Only passages of at least this cosine.")] = -1.0,
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Passage]]:
    """Return the passages of all layers that are closest to *query* in meaning, by cosine, best first."""
    vector = yield from _vector(query, query_embedding)
    found: Gathered = yield Gather(chosen_layers(layers), limit, vector=vector)
    best = np.argsort(-found.meaning, kind="stable")[:limit].tolist()
    cosines = found.meaning.tolist()
    return Table(passage(found, one, cosines[one], {"meaning": cosines[one]}) for one in best if cosines[one] >= min_similarity)


@operation(
    "rag.bm25_search",
    reads=True,
    cost="complex",
    example=lambda chance, known: {"query": known.question(chance), "limit": chance.randint(1, 20)},
)
def bm25_search(query: Query, limit: Limit = 10, layers: Layers = ()) -> Plan[Table[Passage]]:
    """Return the passages of all layers that hold words of *query*, best first by BM25.

    How rare a word is counts inside its layer (Robertson, Zaragoza 2009, doi 10.1561/1500000019).
    """
    found: Gathered = yield Gather(chosen_layers(layers), limit, text=query)
    return Table(passages_of(found, {"words": found.words}, limit))


@operation(
    "rag.reflective_search",
    reads=True,
    cost="complex",
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        "iterations": chance.randint(1, 5),
        **known.query_embedding(chance),
    },
)
def reflective_search(
    query: Query,
    iterations: Annotated[int, Meta(ge=1, le=10, description="Searches with feedback at most.")] = 3,
    limit: Limit = 10,
    layers: Layers = (),
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Reflection]:
    """Search, learn from the first passages what is meant, and search again until the same passages come back.

    The query's vector moves to the mean of the first ten passages and away from the last ten candidates (Rocchio 1971); words
    stay as they were asked. Complex: every iteration is a search of its own.
    """
    settings: RetrievalSettings = yield Tuning()
    asked = yield from _vector(query, query_embedding)
    chosen = chosen_layers(layers)
    vector, before, passages = asked, frozenset(), []  # type: np.ndarray, frozenset[str], list[Passage]
    for iteration in range(iterations + 1):
        found: Gathered = yield Gather(
            chosen,
            max(ROOM * limit, LEAST),
            text=query,
            vector=vector,
            context=True,
            periods=periods_of(query),
            with_vectors=True,
        )
        parts = parts_of(found, query, settings, words=1.0, meaning=settings.meaning_weight, cues=True)
        passages = passages_of(found, parts, limit)
        there = frozenset(one.id for one in passages)
        if (iteration and there == before) or not passages:
            return Reflection(passages=tuple(passages), iterations=iteration, is_stable=True)
        before = there
        order = np.argsort(-total(found, parts), kind="stable")
        vectors = found.vectors if found.vectors is not None else np.zeros((len(order), len(asked)), np.float32)
        others = order[max(FEEDBACK, len(order) - FEEDBACK) :]
        vector = moved(asked, vectors[order[:FEEDBACK]], vectors[others])
    return Reflection(passages=tuple(passages), iterations=iterations, is_stable=False)


@operation(
    "rag.query_expansion",
    reads=True,
    cost="complex",
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        "terms": chance.randint(1, 20),
        **known.query_embedding(chance),
    },
)
def query_expansion(
    query: Query,
    limit: Limit = 10,
    terms: Annotated[int, Meta(ge=1, le=50, description="Words taken from the first passages at most.")] = 10,
    mix: Annotated[Share, Meta(description="Share of the query itself in the expanded query.")] = 0.5,
    hypothetical: Annotated[
        bool, Meta(description="Let the hook `expand` write an answer, and search near its vector too (HyDE).")
    ] = False,
    layers: Layers = (),
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Expansion]:
    """Widen *query* by words of the first passages that it finds, and search again.

    The words come from a relevance model (RM3: Abdul-Jaleel et al. 2004; Lavrenko, Croft 2001, doi 10.1145/383952.383972).
    With the hook, the mean of the query's vector and that of a hypothetical answer searches by meaning (HyDE: Gao et al.
    2023, doi 10.18653/v1/2023.acl-long.99). Complex: two searches, and the words of the first passages.
    """
    chosen = chosen_layers(layers)
    found, parts = yield from _retrieved(query, FEEDBACK, "hybrid", chosen, query_embedding)
    first = passages_of(found, parts, FEEDBACK)
    model = relevance_model(query, [one.content for one in first], [one.score for one in first], terms=terms, mix=mix)
    vector = yield from _vector(query, query_embedding)
    answer: str | None = None
    if hypothetical:
        answer = yield Consult("expand", (query,))
        vectors = yield Embed((answer,))
        vector = _middle(vector, vectors[0])
    settings: RetrievalSettings = yield Tuning()
    # BM25 adds up over words, so only the proportions of the weights matter; the plain query is left out, it is among them.
    again: Gathered = yield Gather(
        chosen,
        max(ROOM * limit, LEAST),
        text="",
        vector=vector,
        weights=tuple((one.stem, one.weight) for one in model),
    )
    parts = parts_of(again, query, settings, words=1.0, meaning=settings.meaning_weight, cues=False)
    return Expansion(terms=model, hypothetical=answer, passages=tuple(passages_of(again, parts, limit)))


def _middle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the direction between two unit vectors; the first where they are opposite."""
    both = one.astype(np.float64) + other
    norm = float(np.linalg.norm(both))
    result: np.ndarray = (both / norm).astype(np.float32) if norm > 1e-6 else one
    return result


@operation(
    "rag.retrieve_with_reranking",
    reads=True,
    cost="complex",
    example=lambda chance, known: {
        "query": known.question(chance),
        "limit": chance.randint(1, 20),
        "balance": round(chance.random(), 2),
        **known.query_embedding(chance),
    },
)
def retrieve_with_reranking(
    query: Query,
    limit: Limit = 10,
    method: Annotated[
        Literal["diverse", "hook"], Meta(description="Maximal marginal relevance, or your own reranker, the hook `rerank`.")
    ] = "diverse",
    balance: Annotated[Share, Meta(description="Of MMR: 1 ranks by relevance alone, 0 by unlikeness to what is chosen.")] = 0.7,
    layers: Layers = (),
    query_embedding: QueryEmbedding | None = None,
) -> Plan[Table[Passage]]:
    """Return passages in a second order, made of several times as many candidates.

    `diverse` is maximal marginal relevance (Carbonell, Goldstein 1998, doi 10.1145/290941.291025); `hook` asks your own
    function, such as a cross-encoder, to score every candidate against the query. Complex: every candidate is compared with
    every other, or the hook takes its time.
    """
    return (yield from _reranked(query, limit, method, balance, chosen_layers(layers), query_embedding))


@operation(
    "rag.get_synthesis_prompt",
    reads=True,
    cost="complex",
    example=lambda chance, known: {
        "query": known.question(chance),
        "budget_tokens": chance.randint(100, 2_000),
        **known.query_embedding(chance),
    },
)
def get_synthesis_prompt(
    query: Query,
    budget_tokens: Annotated[int, Meta(ge=50, le=100_000, description="Tokens that the prompt may have, by estimate.")] = 2_000,
    limit: Annotated[int, Meta(ge=1, le=100, description="Sources at most.")] = 20,
    layers: Layers = (),
    query_embedding: QueryEmbedding | None = None,
) -> Plan[SynthesisPrompt]:
    """Return a prompt that asks a language model to answer *query* from numbered sources, within a budget.

    Sources are the passages of `rag.retrieve`, the best first, as many as fit whole; one that does not fit is passed over for
    shorter ones. A token is taken to be four characters. Complex: it ranks and fetches more than the others.
    """
    found, parts = yield from _retrieved(query, limit, "contextual", chosen_layers(layers), query_embedding)
    passages = passages_of(found, parts, limit)
    return prompt_of(query, passages, budget_tokens)


_ORDER = "Answer the question from the numbered sources alone. Cite them like [1]. Say so where they do not tell."


def tokens_of(text: str) -> int:
    """Return about how many tokens a text is: one for every four characters begun."""
    return -(-len(text) // 4)


def prompt_of(query: str, passages: Sequence[Passage], budget_tokens: int) -> SynthesisPrompt:
    """Return the prompt of as many passages, in their order, as fit a budget.

    Raises:
        MemlabError: VALIDATION `bounds`: the question alone does not fit.
    """
    frame = f"{_ORDER}\n\nSources:\n\nQuestion: {query}\nAnswer:"
    if tokens_of(frame) > budget_tokens:
        raise validation("bounds", f"budget_tokens = {budget_tokens}; the question alone takes {tokens_of(frame)}")
    lines: list[str] = []
    chosen: list[Passage] = []
    characters = len(frame)
    for one in passages:
        source = f" {one.source}," if one.source else ""
        line = f"[{len(chosen) + 1}] ({one.layer},{source} {one.occurred_at:%Y-%m-%d}) {' '.join(one.content.split())}\n"
        if -(-(characters + len(line)) // 4) > budget_tokens:
            continue
        characters += len(line)
        lines.append(line)
        chosen.append(one)
    prompt = f"{_ORDER}\n\nSources:\n{''.join(lines)}\nQuestion: {query}\nAnswer:"
    return SynthesisPrompt(prompt=prompt, sources=tuple(chosen), tokens=tokens_of(prompt), left_out=len(passages) - len(chosen))


@operation("rag.get_stats", reads=True, example=lambda chance, known: {})
def get_stats() -> Plan[RetrievalStatistics]:
    """Return how many memories each layer offers to retrieval, and by which settings they are ranked."""
    settings: RetrievalSettings = yield Tuning()
    by_layer: dict[str, int] = {}
    for name, kinds in TEXT_LAYERS.items():
        by_layer[name] = 0
        for one in kinds:
            by_layer[name] += yield Count(one)
    return RetrievalStatistics(
        memories=sum(by_layer.values()),
        by_layer=by_layer,
        strategies=("contextual", "hybrid", "vector", "text"),
        settings={name: float(value) for name, value in dataclasses.asdict(settings).items()},
    )
