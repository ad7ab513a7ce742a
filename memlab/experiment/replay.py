"""Sends a trace again: the same operations in the same sessions at the same moments, with made-up content.

A trace holds no content, so every key becomes a call of its operation that no other key of the session makes, and every tag that
an answer depended on becomes a tag. Equal calls stay equal and writes make the same answers stale: so a cache meets what it met.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memlab.errors import nearest, validation
from memlab.experiment.load_run import LoadRun, Measured, Progress, measured
from memlab.middleware.cache import canonical
from memlab.operations.registry import Operation, lookup, operations
from memlab.predict.traffic import dispersion
from memlab.settings import Settings
from memlab.workload import spec
from memlab.workload.arrivals import Offsets
from memlab.workload.corpus import Corpus
from memlab.workload.mix import Call, Loaded, Mix, examples_of
from memlab.workload.trace import Trace

_TRIES = 64  # of an example that no other key has yet
_MOST_SESSIONS = 1_000
_MOST_CALLS = 1_000_000
_EVENTS_A_KEY = 2
_FEWEST_EVENTS, _MOST_EVENTS = 1_000, 20_000
_LEFT_OUT = "session.delete"  # it would take away what the other calls are about
_READ, _WRITE = "episodic.recall_by_tags", "episodic.remember"


@dataclasses.dataclass(frozen=True)
class Likeness:
    """What a trace was like and what its replay was.

    Attributes:
        calls: sent, or to be sent.
        hit_ratio: of the reads that a cache may serve and that were answered; None where the trace does not know.
        dispersion: of the arrivals, see `predict.traffic.dispersion`; None below ten seconds.
    """

    calls: int
    hit_ratio: float | None
    dispersion: float | None


def replay(
    trace: Trace,
    settings: Settings,
    *,
    speed: float = 1.0,
    duration_s: float | None = None,
    deadline_s: float = 5.0,
    memories: int | None = None,
    seed: int = 1,
    keep_in: Path | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Fill a fresh database, send the calls of a trace in an open loop, and compare what came of it.

    Args:
        trace: recorded, or keys with times: each then is a tag, looked for by reads and given to what writes remember.
        settings: of the engine that answers.
        speed: how many seconds of the trace pass in one.
        duration_s: how much of it is sent; default: all.
        deadline_s: after which an answer is of no use.
        memories: in the database before; default: two for every key, 1,000 to 20,000.
    Returns:
        as `load_run.run`, with `replay` in the summary: recorded and replayed (`Likeness`), merged_keys, which had no call
        of their own any more, and left_out, calls that cannot be sent again.
    Raises:
        MemlabError: VALIDATION `trace`, `workload`, `unknown_operation`: what does not fit.
    """
    sending = _ReplayRun(trace, settings, speed, duration_s, deadline_s, memories, seed, progress)
    return measured(sending, None, keep_in, trace.path.name)


class _ReplayRun(LoadRun):
    def __init__(
        self,
        trace: Trace,
        settings: Settings,
        speed: float,
        duration_s: float | None,
        deadline_s: float,
        memories: int | None,
        seed: int,
        progress: Progress | None,
    ) -> None:
        if trace.kind == "arrivals":
            raise validation(
                "trace", f"trace '{trace.path}' says when calls came, not what they asked; memlab load --arrivals sends such"
            )
        if not 0.001 <= speed <= 1_000:
            raise validation("speed", f"speed = {speed:g}: give how many seconds of the trace pass in one, 0.001 to 1,000")
        due_s = trace.offsets() / speed
        length = len(due_s) if duration_s is None else int(np.searchsorted(due_s, duration_s))
        if length > _MOST_CALLS:
            raise validation(
                "trace", f"trace '{trace.path}': {length:,} calls are due; give --duration, for at most {_MOST_CALLS:,}"
            )
        rows = _as_calls(trace).head(length)
        check(rows, trace.path)
        self._rows = rows.filter(pl.col("operation") != _LEFT_OUT)
        self._moments = due_s[:length][(rows["operation"] != _LEFT_OUT).to_numpy()]
        if not len(self._moments):
            raise validation("trace", f"trace '{trace.path}' holds no call that can be sent in that time")
        self._left_out = length - len(self._rows)
        self._merged = 0
        keys = self._rows["key"].n_unique()
        sessions = min(self._rows["session"].n_unique(), _MOST_SESSIONS)
        events = memories or max(_FEWEST_EVENTS, min(_EVENTS_A_KEY * keys, _MOST_EVENTS))
        mix = dict(self._rows["operation"].value_counts().iter_rows())
        traffic = spec.workload(
            {
                "corpus": {"events": max(events, sessions), "sessions": sessions, "questions": max(min(keys, events // 4), 1)},
                "mix": {name: float(count) for name, count in mix.items()},
                "arrivals": {"kind": "trace", "path": str(trace.path)},
                "duration_s": max(float(self._moments[-1]) + 0.001, duration_s or 0.0),
                "warm_up_s": 0.0,
                "deadline_s": deadline_s,
            }
        )
        super().__init__(traffic, settings, seed, progress)

    def due(self) -> Offsets | None:
        """Return when each call of the trace is due."""
        return np.asarray(self._moments, dtype=np.float64)

    def calls(self, mix: Mix) -> Sequence[Call]:
        """Return the calls of the trace."""
        made = _Asker(self.corpus, mix.loaded, self.seed, _tags(self._rows))
        every = [made.call(row) for row in self._rows.iter_rows(named=True)]
        self._merged = made.merged
        return every

    def whole(self, database: Path | None, mix_name: str) -> dict[str, Any]:
        """Do all of it, and say how like the trace it was."""
        found = super().whole(database, mix_name)
        sent = self.samples.sort("started_ns")
        could = sent.filter((pl.col("outcome") == "ok") & pl.col("operation").is_in(_cacheable()))
        recorded = Likeness(len(self._rows), _hit_ratio(self._rows), dispersion(np.round(self._moments * 1e9).astype(np.int64)))
        replayed = Likeness(len(sent), _share(could["cached"]), dispersion(sent["started_ns"].to_numpy()))
        return found | {
            "replay": {
                "recorded": dataclasses.asdict(recorded),
                "replayed": dataclasses.asdict(replayed),
                "merged_keys": self._merged,
                "left_out": self._left_out,
            }
        }


class _Asker:
    """Makes calls of the rows of a trace.

    Args:
        tags: labels that stand for tags.
    Attributes:
        merged: keys for which no call was found that another key does not make.
    """

    def __init__(self, corpus: Corpus, loaded: Loaded, seed: int, tags: frozenset[int]) -> None:
        self.merged = 0
        self._tags = tags
        self._sessions = corpus.sessions
        self._corpus = corpus
        self._loaded = loaded
        self._chance = random.Random(seed)
        self._questions: list[str] = corpus.questions["text"].to_list()
        self._labels: dict[int, str] = {}
        self._known: dict[int, Call] = {}
        self._made: dict[tuple[str, str], set[bytes]] = {}
        self._examples: dict[str, Any] = {}

    def call(self, row: Mapping[str, Any]) -> Call:
        """Return the call of a row: equal for equal keys of what a cache may keep."""
        declared = lookup(row["operation"])
        if not (row["reads"] and row["cacheable"]):
            return self._call(declared, row, None)
        found = self._known.get(row["key"])
        if found is None:
            found = self._known[row["key"]] = self._of_its_own(declared, row)
        return found

    def _of_its_own(self, declared: Operation, row: Mapping[str, Any]) -> Call:
        made = self._made.setdefault((declared.name, self._label(row["session"])), set())
        for _ in range(_TRIES):
            call = self._call(declared, row, len(made))
            form = canonical(declared.validate(call.parameters))
            if form not in made:
                made.add(form)
                return call
        self.merged += 1
        return call

    def _call(self, declared: Operation, row: Mapping[str, Any], number: int | None) -> Call:
        label = self._label(row["session"])
        if label not in self._examples:
            self._examples[label] = examples_of(self._corpus, self._loaded, label)
        parameters = declared.example(self._chance, self._examples[label])
        fields = declared.parameters_type.__struct_fields__
        if "query" in fields and number is not None:
            parameters["query"] = self._question(number)
        for place, inner in _tag_fields(declared):
            tags = [f"t{label:x}" for label in row["labels"] if label in self._tags]
            if not inner:
                parameters.pop(place, None)
                parameters |= {place: tags} if tags else {}
            elif parameters.get(place):
                parameters[place] = [{**item, inner: tags} for item in parameters[place]]
        return Call(declared.name, parameters, self._loaded.sessions[label], label)

    def _label(self, session: int) -> str:
        if session not in self._labels:
            self._labels[session] = self._sessions[len(self._labels) % len(self._sessions)]
        return self._labels[session]

    def _question(self, number: int) -> str:
        """Return the n-th question; beyond the last one, two together."""
        rounds, place = divmod(number, len(self._questions))
        further = f" {self._questions[rounds % len(self._questions)]}" if rounds else ""
        return self._questions[place] + further


def _tags(rows: pl.DataFrame) -> frozenset[int]:
    """Return the labels that stand for tags: a read names its own between that of its layer and that of its operation."""
    tagged = [one.name for one in operations() if one.reads and any(_tag_fields(one))]
    asked = rows.filter(pl.col("reads") & pl.col("cacheable") & pl.col("operation").is_in(tagged))
    between = pl.col("labels").list.slice(1, (pl.col("labels").list.len().cast(pl.Int64) - 2).clip(0))
    return frozenset(asked.select(between)["labels"].explode().drop_nulls().to_list())


def _tag_fields(declared: Operation) -> Iterator[tuple[str, str]]:
    """Yield the parameters that hold tags on which the cache goes by, with the field inside where there is one."""
    fields = declared.parameters_type.__struct_fields__
    if declared.reads and "query" not in fields:
        yield from ((name, "") for name in ("tags", "topics") if name in fields)
    for word in declared.invalidates:
        place, _, inner = word.removeprefix("tag:").partition(".")
        if word.startswith("tag:") and place in fields:
            yield place, inner


def _as_calls(trace: Trace) -> pl.DataFrame:
    """Return operation, session, key, reads, cacheable, labels and what else is known of every call."""
    if trace.kind == "recorded":
        return trace.frame
    frame = trace.frame
    key = frame["key"].hash() if not frame["key"].dtype.is_integer() else frame["key"].cast(pl.Int64).reinterpret(signed=False)
    reads = frame["reads"] if "reads" in frame.columns else pl.Series([True] * len(frame))
    made = pl.DataFrame({"key": key, "reads": reads})
    return made.with_columns(
        operation=pl.when("reads").then(pl.lit(_READ)).otherwise(pl.lit(_WRITE)),
        session=pl.lit(0, pl.UInt64),
        cacheable="reads",
        # As recorded: a read's tags stand between two other labels.
        labels=pl.when("reads")
        .then(pl.concat_list(pl.lit(0, pl.UInt64), "key", pl.lit(0, pl.UInt64)))
        .otherwise(pl.concat_list("key")),
    )


def check(rows: pl.DataFrame, path: Path) -> None:
    """Raise VALIDATION `unknown_operation` where a trace names an operation that memlab does not have."""
    known = [one.name for one in operations()]
    for name in rows["operation"].unique().sort().to_list():
        if name not in known:
            raise validation("unknown_operation", f"trace '{path}': no operation '{name}'{nearest(name, known)}")


def _hit_ratio(rows: pl.DataFrame) -> float | None:
    if "cached" not in rows.columns:
        return None
    return _share(rows.filter(pl.col("reads") & pl.col("cacheable") & (pl.col("outcome") == "ok"))["cached"])


def _share(flags: pl.Series) -> float | None:
    return float(np.mean(flags.to_numpy())) if len(flags) else None


def _cacheable() -> list[str]:
    return [one.name for one in operations() if one.reads and one.cacheable]
