"""Conversations with questions whose evidence is known; here from a seeded generator.

Every generated event tells what somebody did with something at some place, in one of several phrasings, or is small talk.
Inside a session no two events tell the same person, deed and thing until all combinations are used up, so a question about
one of them has an answer and known evidence.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import validation
from memlab.workload import words

EVENTS: dict[str, pl.DataType] = {
    "session": pl.String(),
    "content": pl.String(),
    "tags": pl.List(pl.String),
    "speaker": pl.String(),
    "occurred_at": pl.Datetime("us", "UTC"),
}
QUESTIONS: dict[str, pl.DataType] = {
    "session": pl.String(),
    "text": pl.String(),
    "answer": pl.String(),
    "evidence": pl.List(pl.Int64),
}
Vectors = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Conversations in sessions, and questions about them.

    Attributes:
        name: what they are: `generated`, or the folder they come from.
        embedder: `hashing`, or `precomputed:<dimension>` where vectors come with the data.
        events: rows of `EVENTS`, in order of time inside each session; loaded before a measurement.
        upcoming: rows of `EVENTS` that go on from there: what is remembered during a measurement, of all sessions in turn.
        questions: rows of `QUESTIONS`; evidence counts rows of *events*.
        vectors, upcoming_vectors, question_vectors: (rows, dimension) float32 of unit length, or None.
    """

    name: str
    embedder: str
    events: pl.DataFrame
    upcoming: pl.DataFrame
    questions: pl.DataFrame
    vectors: Vectors | None = None
    upcoming_vectors: Vectors | None = None
    question_vectors: Vectors | None = None

    @property
    def sessions(self) -> list[str]:
        """Return the names of the sessions, in order of appearance."""
        return self.events["session"].unique(maintain_order=True).to_list()

    def describe(self) -> dict[str, Any]:
        """Return name, events, sessions, questions, bytes (of UTF-8 text)."""
        return {
            "name": self.name,
            "events": len(self.events),
            "sessions": len(self.sessions),
            "questions": len(self.questions),
            "bytes": int(self.events["content"].str.len_bytes().sum()),
        }

    def digest(self) -> str:
        """Return a digest of all that it holds, the same in every process."""
        digest = hashlib.sha256(self.embedder.encode())
        for frame in (self.events, self.upcoming, self.questions):
            digest.update(frame.write_json().encode())
        for vectors in (self.vectors, self.upcoming_vectors, self.question_vectors):
            digest.update(b"" if vectors is None else np.ascontiguousarray(vectors).tobytes())
        return digest.hexdigest()


_TOPICS = list(words.THINGS)
_PER_TOPIC = 12
_SPEAKERS = 4  # in one session
_TALK_SHARE = 0.25
_START_US = int(datetime(2026, 1, 5, 8, tzinfo=UTC).timestamp()) * 1_000_000
_DAY_US = 86_400_000_000


def generate(
    events: int = 5_000, sessions: int = 8, questions: int = 400, *, upcoming: int | None = None, weeks: int = 26, seed: int = 1
) -> Corpus:
    """Return a corpus of made-up conversations; the same arguments give the same corpus.

    Args:
        events: in all sessions together; sessions are of unlike sizes.
        questions: each about one thing told by one speaker of one session; at most half the events.
        upcoming: further events, default a fifth of *events*.
        weeks: over which the conversations stretch.
    Raises:
        MemlabError: VALIDATION `workload`: counts that do not fit each other.
    """
    if sessions > events:
        raise validation("workload", f"corpus: {events:,} events cannot fill {sessions:,} sessions; give as many events or more")
    if questions > max(events // 2, 1):
        raise validation(
            "workload", f"corpus: {questions:,} questions need {2 * questions:,} events or more, not {events:,}; ask fewer"
        )
    further = max(events // 5, 1) if upcoming is None else upcoming
    chance = np.random.default_rng(seed)
    shares = chance.dirichlet(np.full(sessions, 4.0))
    sizes = 1 + chance.multinomial(events - sessions, shares)
    extra = chance.multinomial(further, shares)
    told = [_Session(f"session-{number:03d}", int(sizes[number] + extra[number]), weeks, chance) for number in range(sessions)]
    loaded = _frame([part.rows(0, int(size)) for part, size in zip(told, sizes, strict=True)])
    follows = _frame([part.rows(int(size), part.size) for part, size in zip(told, sizes, strict=True)])
    follows = follows[in_turn(follows["session"])]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    asked = [part.questions(int(size), int(start)) for part, size, start in zip(told, sizes, starts, strict=True)]
    pool = [question for part in asked for question in part]
    if len(pool) < questions:
        raise validation("workload", f"corpus: {events:,} events answer {len(pool):,} questions, not {questions:,}; ask fewer")
    chosen = np.sort(chance.choice(len(pool), size=questions, replace=False))
    return Corpus(
        "generated",
        "hashing",
        loaded,
        follows,
        pl.DataFrame([pool[index] for index in chosen], schema=QUESTIONS, orient="row"),
    )


def in_turn(sessions: pl.Series) -> npt.NDArray[np.int64]:
    """Return the order in which conversations go on beside each other, each evenly spread over the whole.

    Told one after the other, all writes of a measurement would meet one session, and spare the cached answers of the others.

    Args:
        sessions: of each event, (n,).
    """
    place = ((pl.int_range(pl.len()) + 0.5) / pl.len()).over("session")
    return np.argsort(pl.DataFrame({"session": sessions}).select(place).to_series().to_numpy(), kind="stable")


class _Session:
    """One conversation: what is told, by whom and when."""

    def __init__(self, name: str, size: int, weeks: int, chance: np.random.Generator) -> None:
        self.name = name
        self.size = size
        cast = chance.choice(len(words.NAMES), size=_SPEAKERS, replace=False)
        sitting = _sittings(size, chance)
        self._speaker = cast[chance.integers(_SPEAKERS, size=size)]
        self._topic = chance.integers(len(_TOPICS), size=int(sitting[-1]) + 1)[sitting]
        self._talks = chance.random(size) < _TALK_SHARE
        # The place among all (speaker, deed, look, thing); drawn without repetition as long as a topic's suffice.
        self._place = chance.integers(len(words.PLACES), size=size)
        self._when = chance.integers(len(words.WHEN), size=size)
        self._with = chance.integers(len(words.REMARKS), size=size)
        self._form = chance.integers(8, size=size)
        self._deed, self._look, self._thing = self._combinations(chance)
        self._at = _times(sitting, weeks, chance)

    def _combinations(self, chance: np.random.Generator) -> tuple[Any, Any, Any]:
        code = np.empty(self.size, dtype=np.int64)
        combinations = len(words.DEEDS) * len(words.LOOKS) * _PER_TOPIC
        for topic in range(len(_TOPICS)):
            for speaker in np.unique(self._speaker):
                rows = np.flatnonzero((self._topic == topic) & (self._speaker == speaker))
                rounds = -(-len(rows) // combinations)
                order = np.concatenate([chance.permutation(combinations) for _ in range(rounds)] or [np.empty(0, dtype=np.int64)])
                code[rows] = order[: len(rows)]
        return code % len(words.DEEDS), code // len(words.DEEDS) % len(words.LOOKS), code // (len(words.DEEDS) * len(words.LOOKS))

    def rows(self, start: int, end: int) -> dict[str, Sequence[Any]]:
        topics = [_TOPICS[topic] for topic in self._topic[start:end]]
        speakers = [words.NAMES[speaker] for speaker in self._speaker[start:end]]
        return {
            "session": [self.name] * (end - start),
            "content": [self._tell(row) for row in range(start, end)],
            "tags": [[topic, speaker.lower()] for topic, speaker in zip(topics, speakers, strict=True)],
            "speaker": speakers,
            "occurred_at": self._at[start:end].tolist(),
        }

    def _tell(self, row: int) -> str:
        speaker, place, when = words.NAMES[self._speaker[row]], words.PLACES[self._place[row]], words.WHEN[self._when[row]]
        if self._talks[row]:
            topic, remark = _TOPICS[self._topic[row]], words.REMARKS[self._with[row]]
            return f"{speaker}: {words.TALK[self._form[row]].format(when=when, place=place, topic=topic, remark=remark)}"
        past = words.DEEDS[self._deed[row]][0]
        thing = f"{words.LOOKS[self._look[row]]} {words.THINGS[_TOPICS[self._topic[row]]][self._thing[row]]}"
        remark = words.REMARKS[self._with[row]]
        match self._form[row] % 4:
            case 0:
                return f"{speaker}: {when[0].upper()}{when[1:]} I {past} the {thing} at {place}; {remark}."
            case 1:
                return f"{speaker}: You will not believe it: I {past} the {thing} {when}, at {place}."
            case 2:
                return f"{speaker}: So I {past} that {thing} at {place} {when}, and {remark}."
            case _:
                return f"{speaker}: About the {thing}: I {past} it at {place} {when}. By the way, {remark}."

    def questions(self, end: int, start: int) -> list[tuple[str, str, str, list[int]]]:
        """Return every question that the first *end* events answer; *start* is added to the rows of the evidence."""
        rows = np.flatnonzero(~self._talks[:end])
        code = ((self._speaker * len(_TOPICS) + self._topic) * len(words.DEEDS) + self._deed) * len(words.LOOKS) + self._look
        code = (code * _PER_TOPIC + self._thing)[rows]
        evidence: dict[int, list[int]] = {}
        for row, key in zip(rows.tolist(), code.tolist(), strict=True):
            evidence.setdefault(key, []).append(row)
        return [self._ask(told, start) for told in evidence.values()]

    def _ask(self, told: list[int], start: int) -> tuple[str, str, str, list[int]]:
        row = told[0]
        name, (past, verb) = words.NAMES[self._speaker[row]], words.DEEDS[self._deed[row]]
        thing = f"{words.LOOKS[self._look[row]]} {words.THINGS[_TOPICS[self._topic[row]]][self._thing[row]]}"
        asked = (
            f"Where did {name} {verb} the {thing}?",
            f"At which place was it that {name} {past} the {thing}?",
            f"{name} {past} a {thing}: where was that?",
        )[self._form[row] % 3]
        answer = "; ".join(dict.fromkeys(words.PLACES[self._place[other]] for other in told))
        return self.name, asked, answer, [start + other for other in told]


def _sittings(size: int, chance: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the number of the sitting of every event: people talk for 8 to 40 turns, then part."""
    lengths = chance.integers(8, 41, size=size // 8 + 1)
    return np.repeat(np.arange(len(lengths)), lengths)[:size]


def _times(sitting: npt.NDArray[np.int64], weeks: int, chance: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return ascending microseconds since 1970: sittings spread over *weeks*, a turn every 20 to 90 seconds."""
    count = int(sitting[-1]) + 1
    turns = chance.integers(20, 91, size=len(sitting)) * 1_000_000
    within = np.cumsum(turns)
    begins = np.searchsorted(sitting, np.arange(count))
    lasted = within - within[begins][sitting]
    gaps = np.sort(chance.integers(0, weeks * 7 * _DAY_US, size=count))
    ends = np.append(within[begins[1:] - 1], within[-1]) - within[begins]
    # A sitting never begins before the one before it is over.
    earliest = np.concatenate([[0], np.cumsum(ends[:-1] + 60_000_000)])
    starts = _START_US + earliest + gaps
    return np.asarray(starts[sitting] + lasted, dtype=np.int64)


def _frame(parts: Sequence[dict[str, Sequence[Any]]]) -> pl.DataFrame:
    columns = {name: [value for part in parts for value in part[name]] for name in EVENTS}
    times = pl.Series(columns.pop("occurred_at"), dtype=pl.Int64).cast(EVENTS["occurred_at"])
    schema = {name: kind for name, kind in EVENTS.items() if name != "occurred_at"}
    return pl.DataFrame(columns, schema=schema).with_columns(times.alias("occurred_at"))
