"""The process that is killed: several threads write groups and say what they send and what they are told.

    python -m tests.soak.writer DATABASE SHARED PIPE ROUND [BUG]

SHARED is a file whose first byte says what the database is doing; PIPE is a descriptor that lines of JSON go to. BUG is one that
the harness must find: `early` acknowledges before it writes, `torn` writes a group as two.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from memlab.errors import MemlabError
from memlab.settings import StorageSettings
from memlab.storage.database import Database, Transaction
from memlab.storage.instance import Cursor, Instance
from tests.soak.phases import CHECKPOINTING, COMMITTING, OPENING, WRITING
from tests.storage.rows import nothing, rows_of

THREADS = 6
SMALL = StorageSettings(min_free_bytes=0, checkpoint_bytes=1 << 16)


class Writer:
    """One round of writing, until somebody ends it."""

    def __init__(self, database: Database, pipe: int, round: int, bug: str) -> None:
        self.database = database
        self.pipe = pipe
        self.round = round
        self.bug = bug

    def say(self, **words: object) -> None:
        line = json.dumps(words).encode() + b"\n"
        if len(line) > 4096:
            raise ValueError("a line must fit the pipe in one piece: it may be the last")
        os.write(self.pipe, line)

    def write_for_ever(self, thread: int) -> None:
        """Write groups of one to five members of one to three rows, delete some again, and spoil some groups."""
        chance = random.Random(f"{self.round} {thread}")
        next_seq = self.round * 10_000_000 + thread * 1_000_000
        deletable: list[tuple[str, list[int]]] = []
        group = 0
        while True:
            group += 1
            if deletable and chance.random() < 0.2:
                self.delete(*deletable.pop(chance.randrange(len(deletable))))
                continue
            rows: dict[str, dict[int, str]] = {}
            for member in range(chance.randrange(1, 6)):
                seqs = range(next_seq, next_seq + chance.randrange(1, 4))
                next_seq = seqs.stop
                rows[f"{self.round}.{thread}.{group}.{member}"] = {seq: f"{seq} of {thread}" for seq in seqs}
            is_spoiled = chance.random() < 0.1
            told = self.send(rows, is_spoiled)
            deletable += [(id, list(rows[id])) for id in told]

    def send(self, rows: dict[str, dict[int, str]], is_spoiled: bool) -> list[str]:
        """Write one group; return the ids of the members that were acknowledged."""
        self.say(sent=rows, whole=not is_spoiled)
        if self.bug == "early":
            self.say(acknowledged=list(rows))
        members: list[Callable[[Transaction], object]] = [_inserting(one) for one in rows.values()]
        if is_spoiled:
            members.append(_refused)
        half = len(members) // 2 if self.bug == "torn" else 0
        answers = self.database.transact(members[:half], nothing) + self.database.transact(members[half:], nothing)
        told = [id for id, answer in zip(rows, answers, strict=False) if not isinstance(answer, MemlabError)]
        self.say(acknowledged=told)
        return told

    def delete(self, id: str, seqs: list[int]) -> None:
        self.say(delete_sent=[id])
        (answer,) = self.database.transact([_deleting(seqs)], nothing)
        if not isinstance(answer, MemlabError):
            self.say(delete_acknowledged=[id])


def _inserting(rows: dict[int, str]) -> Callable[[Transaction], object]:
    return lambda transaction: transaction.insert("memories", rows_of(list(rows)) | {"record": list(rows.values())})


def _deleting(seqs: list[int]) -> Callable[[Transaction], object]:
    return lambda transaction: transaction.execute("DELETE FROM memories WHERE seq IN (SELECT unnest(?))", [seqs])


def _refused(transaction: Transaction) -> None:
    transaction.insert("sessions", {"code": [0], "session": ["default"], "created_at": [None]})


def main() -> None:
    """Open the database, say so, and write until killed."""
    path, shared_path, pipe, round, bug = (
        Path(sys.argv[1]),
        sys.argv[2],
        int(sys.argv[3]),
        int(sys.argv[4]),
        "".join(sys.argv[5:]),
    )
    with open(shared_path, "r+b") as file:  # noqa: PTH123
        shared = mmap.mmap(file.fileno(), 1)

    def watched(phase: int, work: Callable[[object], None]) -> Callable[[object], None]:
        def does(owner: object) -> None:
            shared[0] = phase
            work(owner)
            shared[0] = WRITING

        return does

    shared[0] = OPENING
    Cursor.commit = watched(COMMITTING, Cursor.commit)
    Instance.checkpoint = watched(CHECKPOINTING, Instance.checkpoint)
    database = Database.open(path, settings=SMALL, embedder="hashing", dimension=4)
    writer = Writer(database, pipe, round, bug)
    writer.say(opened=database.commit_seq, behind_mark=database.is_behind_mark)
    shared[0] = WRITING
    for thread in range(THREADS):
        threading.Thread(target=writer.write_for_ever, args=[thread]).start()


if __name__ == "__main__":
    main()
