"""What can be tuned: one frozen, validated object with a section for every part.

Loaded from defaults, then a TOML file, then the environment (`MEMLAB_CACHE__MAX_ENTRIES=1000`), then arguments; the later
wins. A middleware's section is None when that middleware is switched off: it is then absent from the chain.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import tomli_w
from msgspec import Meta

from memlab.errors import nearest, validation

Positive = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind, include_extras=True)
    return _HINTS[kind]


def _members(hint: Any) -> set[Any]:
    """Return the plain types that an annotation admits."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*(_members(part) for part in get_args(hint)))
    return {hint}


@dataclasses.dataclass(frozen=True)
class _Section:
    """Checks every field against its annotation, once, when built."""

    def __post_init__(self) -> None:
        section = type(self).__name__.removesuffix("Settings").lower() or "settings"
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, int) and not isinstance(value, bool) and float in _members(hint):
                value = float(value)  # 1 is a fine float in a params file
                object.__setattr__(self, name, value)
            try:
                msgspec.convert(value, hint, strict=True)
            except msgspec.ValidationError as error:
                raise validation(
                    "settings", f"setting {section}.{name} = {value!r}: {str(error)[:1].lower()}{str(error)[1:]}"
                ) from None


@dataclasses.dataclass(frozen=True)
class CacheSettings(_Section):
    """The answer cache: which answers stay, how many, how long.

    Attributes:
        policy: which entry leaves when it is full: `lru`, or `w_tinylfu` (Einziger, Friedman, Manes 2017).
        max_entries: answers kept at most.
        max_bytes: estimated bytes of the answers kept at most; None for no bound.
        ttl_s: seconds until an answer is too old to serve; None for never.
    """

    policy: Literal["lru", "w_tinylfu"] = "lru"
    max_entries: Positive = 4096
    max_bytes: Annotated[int, Meta(ge=1024)] | None = 64 * 1024 * 1024
    ttl_s: Annotated[float, Meta(gt=0.0, le=1e9)] | None = None


@dataclasses.dataclass(frozen=True)
class BatchSettings(_Section):
    """Coalescing of waiting calls.

    Attributes:
        window_ms: longest time that a call waits for company, in milliseconds; 0 waits for nothing but the batch in flight.
        limit: calls in one batch at most.
        adaptive: an idle lane sends at once and the window counts only while a batch is in flight.
        objective_ms: the window follows what calls take, up to `window_ms`: as long as 95 of 100 are answered within so many
            milliseconds it grows, else it is cut (AIMD); None for a window that stays.
    """

    window_ms: Annotated[float, Meta(ge=0.0, le=10_000.0)] = 2.0
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 256
    adaptive: bool = True
    objective_ms: Annotated[float, Meta(gt=0.0, le=60_000.0)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective_ms is not None and not self.window_ms:
            raise validation("settings", "setting batch.objective_ms sets a window of at most batch.window_ms: give one above 0")


@dataclasses.dataclass(frozen=True)
class PoolSettings(_Section):
    """How much database and vector work runs at once.

    Attributes:
        limit: operations, or whole batches, that run at once. Two keep Python's lock busy; on two cores more only stood in each
            other's way: notebooks 12 and 22 say what is best elsewhere.
        acquire_timeout_s: seconds that a call waits for a place before it is refused with TIMEOUT `pool_full`.
        database_threads: threads that DuckDB uses inside one query.
        vector_threads: OpenMP threads of one vector search over several queries; a single query uses one.
        adaptive: the limit follows what groups take (Gradient2), up to `limit`.
    """

    limit: Annotated[int, Meta(ge=1, le=256)] = 2
    acquire_timeout_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 5.0
    database_threads: Annotated[int, Meta(ge=1, le=256)] = 1
    vector_threads: Annotated[int, Meta(ge=1, le=256)] = 1
    adaptive: bool = False


@dataclasses.dataclass(frozen=True)
class IndexSettings(_Section):
    """The vector index, and when it is built again.

    Attributes:
        kind: `flat` (exact), `sq8` (8-bit codes, re-ranked from the database), `fp16`, `ivf` (inverted lists over exact
            vectors) or `hnsw`.
        train_at: memories from which `ivf` trains its lists; below, it searches exactly.
        recall_target: recall@10 that building `ivf` and `hnsw` calibrates the search effort to, on held-out stored vectors.
        hnsw_links: links of a node (M) in `hnsw`.
        exact_below: sessions of at most this many memories are searched exactly, whatever the kind.
        rebuild_dead_ratio: share of forgotten entries from which the index is built again.
        retrain_growth: `ivf` is trained again when it holds this many times the memories that it was trained on.
    """

    kind: Literal["flat", "sq8", "fp16", "ivf", "hnsw"] = "ivf"
    train_at: Annotated[int, Meta(ge=256, le=1_000_000_000)] = 20_000
    recall_target: Annotated[float, Meta(gt=0.5, le=1.0)] = 0.995
    hnsw_links: Annotated[int, Meta(ge=4, le=128)] = 32
    exact_below: Annotated[int, Meta(ge=0, le=1_000_000)] = 2_000
    rebuild_dead_ratio: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.2
    retrain_growth: Annotated[float, Meta(gt=1.0, le=1000.0)] = 4.0


@dataclasses.dataclass(frozen=True)
class StorageSettings(_Section):
    """The database file and what is held in memory of it.

    Attributes:
        hot_rows: memories whose rows stay in memory after they were read.
        text_tail: memories searched in memory until the text index takes them in.
        checkpoint_bytes: size of the write-ahead log from which it is folded into the database file.
        memory_limit_bytes: DuckDB's bound on its buffers.
        keys_kept_days: idempotency keys older than this are forgotten when the database is opened.
        min_free_bytes: free disk space below which writes are refused and reads go on.
    """

    hot_rows: Annotated[int, Meta(ge=0, le=100_000_000)] = 16_384
    text_tail: Annotated[int, Meta(ge=0, le=100_000)] = 2_000
    checkpoint_bytes: Annotated[int, Meta(ge=1 << 16)] = 256 << 20
    memory_limit_bytes: Annotated[int, Meta(ge=128 << 20)] = 1 << 30
    keys_kept_days: Annotated[int, Meta(ge=1, le=36_500)] = 30
    min_free_bytes: Annotated[int, Meta(ge=0)] = 64 << 20


@dataclasses.dataclass(frozen=True)
class RetrievalSettings(_Section):
    """How `rag` ranks what it finds. The defaults were chosen by leave-one-conversation-out in notebook 06.

    A word that an event's neighbours in time say counts for the event too: a question and its answer rarely share all words.

    Attributes:
        reach: neighbours on either side of an event that count; 0 for none.
        before, after: share of a word's score that the nearest earlier and later neighbour give to an event.
        decay: share of the nearest neighbour's weight that the next one has, and so on.
        saturation: how soon more of the same word counts no more, on the scale of BM25's own part for a word, 0 to 2.2.
        gap_s: a pause of more seconds than this between two events ends an episode; neighbours are of one episode.
        meaning_weight: of the best cosine, where the best score of words counts 1.
        meaning_before, meaning_after: share of its cosine that the nearest earlier and later neighbour give to an event.
        source_weight: bonus for memories whose source, such as a speaker, is the only one that the question names.
        time_weight: bonus for events of a day or month that the question names.
        pool: best matches by each word, and by meaning, that are looked at.
    """

    reach: Annotated[int, Meta(ge=0, le=10)] = 3
    before: Ratio = 0.6
    after: Ratio = 0.6
    decay: Ratio = 0.7
    saturation: Annotated[float, Meta(gt=0.0, le=100.0)] = 1.0
    gap_s: Annotated[float, Meta(ge=0.0, le=1e9)] = 3600.0
    meaning_weight: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.7
    meaning_before: Ratio = 0.0
    meaning_after: Ratio = 0.4
    source_weight: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.05
    time_weight: Annotated[float, Meta(ge=0.0, le=100.0)] = 1.0
    pool: Annotated[int, Meta(ge=10, le=10_000)] = 500


@dataclasses.dataclass(frozen=True)
class Settings(_Section):
    """Every setting of an engine; a middleware whose section is None is absent.

    >>> Settings.of({"cache.max_entries": 100, "batch": None}).cache.max_entries
    100
    """

    cache: CacheSettings | None = CacheSettings()
    batch: BatchSettings | None = BatchSettings()
    pool: PoolSettings | None = PoolSettings()
    index: IndexSettings = IndexSettings()
    storage: StorageSettings = StorageSettings()
    retrieval: RetrievalSettings = RetrievalSettings()

    @classmethod
    def off(cls) -> Settings:
        """Return the baseline: no cache, no batching, no pool."""
        return cls(cache=None, batch=None, pool=None)

    @classmethod
    def of(cls, values: Mapping[str, Any], base: Settings | None = None) -> Settings:
        """Return *base* (default: the defaults) with *values* in place.

        Args:
            values: nested sections, dotted keys (`cache.ttl_s`), or both; None switches a middleware off.
        Raises:
            MemlabError: VALIDATION, reason `settings`: unknown key, wrong type, out of bounds.
        """
        nested = _nest(values)
        sections: dict[str, Any] = {}
        known = {field.name for field in dataclasses.fields(cls)}
        for name, given in nested.items():
            if name not in known:
                raise validation("settings", f"no setting section '{name}'{nearest(name, known)}")
            section = _SECTIONS[name]
            if given is None:
                if name not in _OPTIONAL:
                    raise validation("settings", f"setting {name} cannot be switched off; give it a table of settings")
                sections[name] = None
                continue
            if not isinstance(given, Mapping):
                raise validation("settings", f"setting {name} = {given!r}: give a table of settings, or null for off")
            fields = {field.name for field in dataclasses.fields(section)}
            for key in given:
                if key not in fields:
                    raise validation("settings", f"no setting '{name}.{key}'{nearest(str(key), fields)}")
            current = getattr(base, name) if base is not None else section()
            sections[name] = dataclasses.replace(current if current is not None else section(), **given)
        return dataclasses.replace(base if base is not None else cls(), **sections)

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Return the defaults, overlaid by a TOML file, the environment, then *values*.

        Args:
            path: a TOML file as `memlab guide` writes it; its keys stand under `[settings]` or at the top.
            environment: default: the process's; keys `MEMLAB_<SECTION>__<KEY>`, values read as TOML.
        Raises:
            MemlabError: VALIDATION `settings`: unknown key, wrong type; NOT_FOUND `file`.
        """
        settings = cls()
        if path is not None:
            settings = cls.of(_read_toml(Path(path)), settings)
        settings = cls.of(_from_environment(os.environ if environment is None else environment), settings)
        return cls.of(values or {}, settings)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, None where a middleware is off."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """Return the settings as TOML; None has no TOML form, so sections and keys that are off are `"off"`."""
        return tomli_w.dumps({"settings": _none_to_off(self.to_dict())})


_SECTIONS: dict[str, type[_Section]] = {
    "cache": CacheSettings,
    "batch": BatchSettings,
    "pool": PoolSettings,
    "index": IndexSettings,
    "storage": StorageSettings,
    "retrieval": RetrievalSettings,
}
_OPTIONAL = {"cache", "batch", "pool"}


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = str(key).partition(".")
        if not name:
            nested[section] = {**nested[section], **value} if isinstance(value, Mapping) and nested.get(section) else value
        else:
            inner = nested.get(section)
            nested[section] = {**inner, name: value} if isinstance(inner, Mapping) else {name: value}
    return nested


def _none_to_off(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _none_to_off(inner) for key, inner in value.items()}
    return "off" if value is None else value


def _off_to_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _off_to_none(inner) for key, inner in value.items()}
    return None if value == "off" else value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        raise validation("settings", f"no settings file '{path}'; give a TOML file with a [settings] table") from None
    except OSError as error:
        raise validation("settings", f"settings file '{path}' cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise validation("settings", f"settings file '{path}' is not TOML: {error}") from None
    inner = values.get("settings", values)
    if not isinstance(inner, dict):
        raise validation("settings", f"settings file '{path}': [settings] must be a table")
    return dict(_off_to_none(inner))


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, text in environment.items():
        if not key.startswith("MEMLAB_"):
            continue
        section, separator, name = key.removeprefix("MEMLAB_").lower().partition("__")
        if not separator and section not in _OPTIONAL:
            first, _, rest = section.partition("_")
            if first in _SECTIONS and rest:
                raise validation("settings", f"no setting in {key}; did you mean 'MEMLAB_{first.upper()}__{rest.upper()}'?")
            continue
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        values[f"{section}.{name}" if separator else section] = _off_to_none(value)
    return values
