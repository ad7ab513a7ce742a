"""Sessions side by side at full concurrency, with cancellations, and an oracle that knows what each of them stored.

All sessions hold the same kinds of memories and ask the same questions, so that a cache or an index that mixes sessions up has
every chance to. What differs is a mark, a word of its own in every text that a session stores, and the ids that it was given.
Every answer is read whole: a mark or an id of another session, a memory with another content than was acknowledged, a text of
nobody's, or an answer to a question for another session's id is a *difference*. Afterwards every acknowledged write is looked
for.
"""

from __future__ import annotations

import asyncio
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from memlab.embedders import HashingEmbedder
from memlab.engine import Engine
from memlab.errors import ErrorType, MemlabError
from memlab.experiment.comparison import Measurement
from memlab.experiment.load import outcome_of, run_in_own_loop
from memlab.experiment.load_run import collected
from memlab.experiment.oracle import Checked, Oracle
from memlab.experiment.quiet import quiet
from memlab.measure import clock, stats
from memlab.measure.recorder import Outcome, Recorder, Sample
from memlab.operations.registry import Examples, Operation, lookup, operations
from memlab.settings import Settings
from memlab.storage.records import LAYER_OF
from memlab.values import Response, Stored
from memlab.workload import spec
from memlab.workload.corpus import generate
from memlab.workload.mix import Call

DIFFERENCES = ("foreign_mark", "foreign_id", "altered", "unknown_text", "probe_answered", "internal_error", "lost")
_LETTERS = "bcdfghjklmnpqrstvwxz"  # no vowels: a mark is no word of any text
_MARK = re.compile(r"\bqq[bcdfghjklmnpqrstvwxz]{10}\b")
_ID = re.compile(r"\b[a-z]{2}_[0-9a-f]{6,}\b")
_SENTENCE_END = re.compile(r"[.!?…;\n]+")
_PROBE_SHARE = 0.05  # of calls ask for a memory of another session by its id
_JOB_SHARE = 0.05  # of jobs that are drawn are sent: each looks through a whole session
_QUESTIONS = 20  # different ones of an operation
_PATIENCE_MS = 4.0  # until which a call that is to be cancelled is
_SHOWN = 5
_LEFT_OUT = ("session.delete", "session.create", "session.list")  # the list speaks of all sessions, as it should


class Difference(msgspec.Struct, frozen=True):
    """An answer that is not what it should be.

    Attributes:
        kind: one of `DIFFERENCES`.
        told: what was seen, without the text of any memory.
    """

    kind: str
    operation: str
    told: str


class Witness:
    """Knows what every session stored, and reads answers.

    Args:
        sessions: the engine's ids.
    """

    def __init__(self, sessions: Sequence[str], seed: int) -> None:
        chance = random.Random(f"marks {seed}")
        self.mark = {session: "qq" + "".join(chance.choices(_LETTERS, k=10)) for session in sessions}
        self.differences: list[Difference] = []
        self.items = 0  # memories that were compared with what was acknowledged
        self._of_id: dict[str, str] = {}
        self._content: dict[str, str] = {}

    def read(self, call: Call, value: Any, *, wrote: bool) -> None:
        """Read one answer of a session; what a write tells of new memories is remembered."""
        plain = None if isinstance(value, bytes) else msgspec.to_builtins(value, enc_hook=list)
        text = value.decode(errors="replace") if isinstance(value, bytes) else repr(plain)
        mine = self.mark[call.session]
        for mark in set(_MARK.findall(text)) - {mine}:
            self._differs("foreign_mark", call, f"the mark {mark[:4]}… of another session")
        for id in set(_ID.findall(text)):
            if self._of_id.setdefault(id, call.session) != call.session:
                self._differs("foreign_id", call, f"{id} of another session")
        for id, content in _memories(plain):
            self.items += 1
            if wrote:
                self._content[id] = content
            elif id in self._content:
                if self._content[id] != content:
                    self._differs("altered", call, f"{id} says something else than was acknowledged")
            elif mine not in content:
                self._differs("unknown_text", call, f"{id} bears no mark of its session")

    def answered(self, call: Call) -> None:
        """Note that a question for another session's memory was answered."""
        self._differs("probe_answered", call, "a memory of another session, asked for by its id")

    def failed(self, call: Call, reason: str) -> None:
        """Note that a call failed inside memlab."""
        self._differs("internal_error", call, reason)

    def found(self, checked: Checked) -> None:
        """Note what was missing or wrong when all was read afterwards."""
        for name in ("missing", "altered", "not_forgotten", "foreign"):
            self.differences += [Difference("lost", "session.export", name.replace("_", " "))] * getattr(checked, name)
        self.differences += [Difference("lost", "episodic.recall", "canary")] * (checked.canaries - checked.canaries_found)

    def _differs(self, kind: str, call: Call, told: str) -> None:
        self.differences.append(Difference(kind, call.operation, told))


def _marked(text: str, mark: str) -> str:
    """Return a text as one sentence that bears the mark: consolidation takes up single sentences."""
    return f"{_SENTENCE_END.sub(',', text)} {mark}"


def _memories(plain: Any) -> Iterator[tuple[str, str]]:
    """Yield id and content of every event and fact in an answer."""
    if isinstance(plain, Mapping):
        id, content = plain.get("id"), plain.get("content")
        if isinstance(id, str) and isinstance(content, str) and id.startswith(("ep_", "sm_")):
            yield id, content
        for inner in plain.values():
            yield from _memories(inner)
    elif isinstance(plain, (list, tuple)):
        for inner in plain:
            yield from _memories(inner)


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    size: str = "smoke",
    out: str | Path | None = None,
    calls: int = 400,
    cancel_share: float = 0.15,
) -> Measurement:
    """Put sessions under stress and check every answer; what the notebook of a point calls.

    Args:
        point: `candidate`, settings over the defaults: cache, batch and pool are meant to be on.
        workload: `corpus.sessions` and `corpus.events` (of all sessions together), and closed arrivals with their clients.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        out: existing folder for samples.parquet and summary.json; None keeps nothing.
        calls: in all.
        cancel_share: of calls that are cancelled a moment after they were sent.
    Returns:
        Every call as a sample, and a summary for run.json:
            size, finding (not a smoke run, and afterwards everything was looked for); sessions, callers, calls, seconds;
            answers: checked; items: memories in them; probes: questions for another session's memory; cancelled; refusals, by
            reason; differences: by kind, all of `DIFFERENCES`; total, and ratio (a table: value, low, high) of answers; examples;
            by_layer: answers, cancelled, refused, differences; hit_ratio of the cache, mean_batch_size; checks, see `Checked`.
    """
    traffic = spec.workload(workload)
    stress = _Stress(Settings.of(point.get("candidate") or {}), traffic, seed, calls, cancel_share)
    with tempfile.TemporaryDirectory(prefix="databases-", dir=out, ignore_cleanup_errors=True) as folder, quiet():
        run_in_own_loop(stress.run(Path(folder) / "isolation.duckdb"))
    samples = stress.samples()
    summary = stress.summary(samples, size)
    return Measurement(samples, summary).kept_in(out)


class _Stress:
    def __init__(self, settings: Settings, traffic: spec.Workload, seed: int, calls: int, cancel_share: float) -> None:
        self._settings = settings
        self._traffic = traffic
        self._seed = seed
        self._left = calls
        self._cancel_share = cancel_share
        self._chance = random.Random(seed)
        self._recorder = Recorder()
        self._ids: dict[str, dict[str, list[str]]] = {}
        self._reading: Examples = Examples()
        self._writing: dict[str, Examples] = {}
        self._probes = 0
        self._statistics: dict[str, Any] = {}
        self._checked: Checked | None = None
        self._origin = clock.monotonic_ns()
        self._took_ns = 0

    def samples(self) -> pl.DataFrame:
        """Return every call in the columns of samples.parquet."""
        return self._recorder.to_polars()

    async def run(self, path: Path) -> None:
        """Fill the sessions, ask, and look for everything afterwards."""
        engine = Engine.open(path, self._settings, HashingEmbedder())
        try:
            sessions = [str((await engine.execute("session.create")).value) for _ in range(self._traffic.corpus.sessions)]
            self._witness = Witness(sessions, self._seed)
            self._oracle = Oracle({f"s{place}": session for place, session in enumerate(sessions)}, self._seed)
            self._label = {session: f"s{place}" for place, session in enumerate(sessions)}
            await self._fill(engine, sessions)
            kinds = [one for one in operations() if one.name not in _LEFT_OUT]
            callers = self._traffic.arrivals.clients or 64
            started = clock.monotonic_ns()
            with collected():
                await asyncio.gather(*(self._call_in_turn(engine, sessions, kinds) for _ in range(callers)))
            self._took_ns = clock.monotonic_ns() - started
            self._statistics = engine.statistics()
        finally:
            await engine.aclose()
        again = Engine.open(path, Settings.off(), HashingEmbedder())
        try:
            self._checked = await self._oracle.check(again.execute)
        finally:
            await again.aclose()
        self._witness.found(self._checked)

    async def _fill(self, engine: Engine, sessions: Sequence[str]) -> None:
        """Give every session the same texts, each with its mark, and some memories of every layer."""
        each = max(self._traffic.corpus.events // len(sessions), 8)
        corpus = generate(each, 1, 5, seed=self._seed)
        texts, tags = corpus.events["content"].to_list(), corpus.events["tags"].explode().unique().drop_nulls().sort().to_list()
        self._reading = Examples(contents=texts, tags=tags)
        makers = [one for one in operations() if _makes_one(one) and one.name != "session.create"]
        for session in sessions:
            marked = [_marked(text, self._witness.mark[session]) for text in texts]
            self._ids[session] = {}
            self._writing[session] = Examples(ids=self._ids[session], contents=marked, tags=tags)
            dealt = zip(marked, corpus.events["tags"].to_list(), strict=True)
            events = {"events": [{"content": text, "tags": some} for text, some in dealt]}
            await self._ask(engine, Call("episodic.bulk_remember", events, session, self._label[session]))
            for _ in range(3):
                for one in makers:
                    given = self._written(one, session)
                    await self._ask(engine, Call(one.name, given, session, self._label[session]))

        async def plant(operation: str, parameters: Mapping[str, Any] | None = None, *, session: str, **given: Any) -> Response:
            response = await engine.execute(operation, parameters, session=session)
            self._witness.read(Call(operation, dict(parameters or {}), session, ""), response.value, wrote=True)
            return response

        await self._oracle.plant(plant)

    async def _call_in_turn(self, engine: Engine, sessions: Sequence[str], kinds: Sequence[Operation]) -> None:
        while self._left > 0:
            self._left -= 1
            call, is_probe = self._next(sessions, kinds)
            if is_probe:
                self._probes += 1
            asking = asyncio.ensure_future(self._ask(engine, call, is_probe=is_probe))
            if not is_probe and self._chance.random() < self._cancel_share:
                await asyncio.sleep(self._chance.random() * _PATIENCE_MS / 1e3)
                asking.cancel()
            await asyncio.wait((asking,))
            if not asking.cancelled():
                asking.result()
            await asyncio.sleep(0)

    def _next(self, sessions: Sequence[str], kinds: Sequence[Operation]) -> tuple[Call, bool]:
        session = self._chance.choice(sessions)
        if self._chance.random() < _PROBE_SHARE:
            other = self._chance.choice([one for one in sessions if one != session] or sessions)
            operation, layer = self._chance.choice([("episodic.get_event", "episodic"), ("semantic.get", "semantic")])
            theirs = self._ids[other].get(layer)
            if theirs and other != session:
                return Call(operation, {"id": self._chance.choice(theirs)}, session, self._label[session]), True
        while True:
            one = self._chance.choice(kinds)
            if one.cost != "job" or self._chance.random() < _JOB_SHARE:
                break
        if one.reads:  # the same few questions in every session: what is cached of one must not be another's
            asked = Examples(ids=self._ids[session], contents=self._reading.contents, tags=self._reading.tags)
            given = one.example(random.Random(self._chance.randrange(_QUESTIONS)), asked)
        else:
            given = self._written(one, session)
        if one.name == "session.export":
            given = {"format": "jsonl"}
        return Call(one.name, given, session, self._label[session]), False

    def _written(self, one: Operation, session: str) -> dict[str, Any]:
        """Return the parameters of a write whose texts bear the session's mark."""
        given = one.example(self._chance, self._writing[session])
        if "subject" in given:  # a fact of three parts is made of them alone
            given["subject"] = f"{given['subject']} {self._witness.mark[session]}"
        return given

    async def _ask(self, engine: Engine, call: Call, *, is_probe: bool = False) -> None:
        declared = lookup(call.operation)
        started = clock.monotonic_ns()
        outcome: Outcome = "ok"
        reason: str | None = None
        cached = False
        size = 1
        try:
            response = await engine.execute(call.operation, call.parameters, session=call.session)
        except asyncio.CancelledError:
            outcome, reason = "unknown", "cancelled"
            self._oracle.note(call, "unknown", None)
            raise
        except MemlabError as error:
            outcome, reason = outcome_of(error), error.reason
            if error.type is ErrorType.INTERNAL:  # nothing that was asked is a reason for that
                self._witness.failed(call, error.reason)
        else:
            cached, size = response.cached, response.batch_size
            if is_probe:
                self._witness.answered(call)
            else:
                self._witness.read(call, response.value, wrote=not declared.reads)
                if not declared.reads:
                    self._learn(call, response.value)
        finally:
            self._write_down(call, started, outcome, reason, cached, size)

    def _learn(self, call: Call, value: Any) -> None:
        """Tell the oracle of a write, and keep the ids of what is new for the calls to come."""
        self._oracle.note(call, "ok", value)
        known = self._ids[call.session]
        if isinstance(value, Stored):
            known.setdefault(call.operation.partition(".")[0], []).extend(value.ids)
        elif type(value) in LAYER_OF and value.id not in (ids := known.setdefault(LAYER_OF[type(value)], []))[-200:]:
            ids.append(value.id)

    def _write_down(self, call: Call, started: int, outcome: Outcome, reason: str | None, cached: bool, size: int) -> None:
        started -= self._origin
        finished = clock.monotonic_ns() - self._origin
        self._recorder.add(Sample(call.operation, call.label, started, started, finished, outcome, reason, cached, size))

    def summary(self, samples: pl.DataFrame, size: str) -> dict[str, Any]:
        """Return the summary that `measure_point` describes."""
        differences = self._witness.differences
        kinds = Counter(one.kind for one in differences)
        answers = samples.filter(pl.col("outcome") == "ok")
        ratio = stats.share(min(len(differences), answers.height), answers.height)
        batched = 1 / np.maximum(answers["batch_size"].to_numpy(), 1)
        reads = answers.filter(pl.col("operation").is_in([one.name for one in operations() if one.reads]))
        checked = self._checked
        return {
            "size": size,
            "finding": size != "smoke" and checked is not None,
            "sessions": self._traffic.corpus.sessions,
            "callers": self._traffic.arrivals.clients or 64,
            "calls": samples.height,
            "seconds": self._took_ns / 1e9,
            "answers": answers.height,
            "items": self._witness.items,
            "probes": self._probes,
            "cancelled": samples.filter(pl.col("error") == "cancelled").height,
            "refusals": dict(
                samples.filter(pl.col("error") != "cancelled")["error"].drop_nulls().value_counts().sort("error").iter_rows()
            ),
            "differences": {kind: kinds.get(kind, 0) for kind in DIFFERENCES},
            "total": len(differences),
            "ratio": ratio.to_dict(),
            "examples": [f"{one.operation}: {one.kind.replace('_', ' ')}: {one.told}" for one in differences[:_SHOWN]],
            "by_layer": _by_layer(samples, differences),
            "hit_ratio": float(reads["cached"].cast(pl.Float64).to_numpy().mean()) if reads.height else None,
            "mean_batch_size": float(len(batched) / batched.sum()) if len(batched) else None,
            "checks": None if checked is None else checked.to_dict(),
        }


def _by_layer(samples: pl.DataFrame, differences: Sequence[Difference]) -> dict[str, dict[str, int]]:
    layers = samples.with_columns(layer=pl.col("operation").str.split(".").list.first())
    wrong = Counter(one.operation.partition(".")[0] for one in differences)
    return {
        str(layer): {
            "answers": rows.filter(pl.col("outcome") == "ok").height,
            "cancelled": rows.filter(pl.col("error") == "cancelled").height,
            "refused": rows.filter((pl.col("outcome") != "ok") & (pl.col("error") != "cancelled")).height,
            "differences": wrong.get(str(layer), 0),
        }
        for (layer,), rows in layers.group_by("layer", maintain_order=True)
    }


def _makes_one(declared: Operation) -> bool:
    answers = getattr(declared.result_type, "__struct_fields__", ())
    return not declared.reads and "id" in answers and "id" not in declared.parameters_type.__struct_fields__
