"""A writing process is killed with -9 at random moments: nothing that it was told is stored is ever lost."""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from tests.soak.ledger import Ledger
from tests.soak.phases import CHECKPOINTING, COMMITTING, OPENING, STARTING, WRITING

AIMS = {"any": None, "commit": COMMITTING, "checkpoint": CHECKPOINTING, "opening": OPENING}
SCHEDULE = "any commit checkpoint opening commit commit any commit any commit".split()
LONGEST_S = 60.0


def round_of(path: Path, root: Path, ledger: Ledger, number: int, chance: random.Random, bug: str = "") -> int:
    """Start the writer, kill it, take in what it said; return what it was doing when it died."""
    shared_path = path.with_name("phase")
    shared_path.write_bytes(bytes([STARTING]))
    aim = SCHEDULE[number % len(SCHEDULE)]
    words_before = 0 if aim == "opening" else chance.randrange(10, 120)
    reading, writing = os.pipe()
    arguments = [str(path), str(shared_path), str(writing), str(number), *([bug] if bug else [])]
    with (
        subprocess.Popen(
            [sys.executable, "-m", "tests.soak.writer", *arguments],
            cwd=root, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as child,
        os.fdopen(reading, "rb") as pipe,
        shared_path.open("r+b") as file,
        mmap.mmap(file.fileno(), 1) as shared,
    ):  # fmt: skip
        os.close(writing)
        deadline = time.monotonic() + LONGEST_S
        lines = [line for _ in range(words_before) if (line := pipe.readline())]
        while AIMS[aim] not in (None, shared[0]) and child.poll() is None and time.monotonic() < deadline:
            pass  # asking often is what makes kills land inside a commit
        os.kill(child.pid, signal.SIGKILL)
        lines += pipe.readlines()
        error = child.stderr.read().decode(errors="replace") if child.stderr else ""
        child.wait()
        died_in = shared[0]
    assert child.returncode == -signal.SIGKILL, error
    for line in lines:
        said = json.loads(line)
        if "opened" in said:
            assert not said["behind_mark"], "a kill raised a false alarm"
        else:
            ledger.note(line.decode())
    return died_in


def present(path: Path) -> dict[int, str]:
    """Return the rows that are there, as DuckDB alone sees them."""
    if not path.exists():  # killed while it was made
        return {}
    with duckdb.connect(str(path), read_only=True) as bare:
        return dict(bare.execute("SELECT seq, record FROM memories").fetchall())


def kills(path: Path, root: Path, rounds: int, seed: int, bug: str = "") -> tuple[list[str], Counter[int], Ledger]:
    """Kill *rounds* times, and on until a kill landed inside a commit; return the first faults, what died when, the ledger."""
    chance, ledger, died = random.Random(seed), Ledger(), Counter[int]()
    for number in range(4 * rounds):
        died[round_of(path, root, ledger, number, chance, bug)] += 1
        faults = ledger.faults(present(path))
        if faults or (number + 1 >= rounds and died[COMMITTING]):
            return faults, died, ledger
    return [], died, ledger


def judge(path: Path, root: Path, rounds: int, seed: int) -> None:
    faults, died, ledger = kills(path, root, rounds, seed)
    assert faults == [], f"seed {seed}"
    assert ledger.acknowledged > 10 * rounds  # something was at stake
    assert died[COMMITTING] > 0  # and some kills came at the worst moment
    print(f"{died.total()} kills, {died[COMMITTING]} inside a commit, {died[CHECKPOINTING]} inside a checkpoint, "
          f"{died[OPENING]} while opening, {died[WRITING]} elsewhere; {ledger.acknowledged} acknowledged, none lost; "
          f"a true rate above {3 / died.total():.1%} a kill would have shown (95 %)")  # fmt: skip


def test_a_handful_of_kills_loses_nothing(tmp_path, root):
    """Every acknowledged group is there after every kill, none is there by half, and none that was not sent."""
    judge(tmp_path / "lab.duckdb", root, rounds=5, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2])
def test_two_hundred_kills_lose_nothing(tmp_path, root, seed):
    """The same, 200 times on one file that grows and is folded all the while."""
    judge(tmp_path / "lab.duckdb", root, rounds=200, seed=seed)


def test_a_writer_that_acknowledges_too_early_is_found_out(tmp_path, root):
    """The harness sees the fault it is for: an acknowledgement before COMMIT."""
    faults, *_ = kills(tmp_path / "lab.duckdb", root, rounds=12, seed=3, bug="early")
    assert any("acknowledged and is not there" in fault for fault in faults)


@pytest.mark.soak
def test_a_writer_that_tears_groups_is_found_out(tmp_path, root):
    """And a group that was written as two transactions."""
    faults, *_ = kills(tmp_path / "lab.duckdb", root, rounds=50, seed=4, bug="torn")
    assert any("of group" in fault for fault in faults)


# --- the judge itself ------------------------------------------------------------------------------------------------


def ledger_of(*lines: dict[str, object]) -> Ledger:
    ledger = Ledger()
    for line in lines:
        ledger.note(json.dumps(line))
    return ledger


GROUP = {"sent": {"a": {1: "one", 2: "two"}, "b": {3: "three"}}, "whole": True}
ALL = {1: "one", 2: "two", 3: "three"}


@pytest.mark.parametrize(
    ("lines", "rows", "fault"),
    [
        ([GROUP], {}, None),
        ([GROUP], ALL, None),
        ([GROUP, {"acknowledged": ["a", "b"]}], ALL, None),
        ([GROUP, {"acknowledged": ["a", "b"]}], {}, "member a was acknowledged"),
        ([GROUP], {3: "three"}, "of group"),
        ([GROUP | {"whole": False}], {3: "three"}, None),
        ([GROUP | {"whole": False}], {1: "one", 3: "three"}, "of member a only [1]"),
        ([GROUP], ALL | {4: "four"}, "row 4 was never sent"),
        ([GROUP], ALL | {3: "tree"}, "row 3 is 'tree'"),
        ([GROUP, {"acknowledged": ["a", "b"]}, {"delete_sent": ["a"]}], {3: "three"}, None),
        ([GROUP, {"acknowledged": ["a", "b"]}, {"delete_sent": ["a"]}], ALL, None),
        ([GROUP, {"delete_sent": ["a"]}, {"delete_acknowledged": ["a"]}], ALL, "deletion of member a"),
    ],
)  # fmt: skip
def test_the_judge_sees_every_kind_of_fault(lines, rows, fault):
    """What was promised is told from what was not, case by case."""
    faults = ledger_of(*lines).faults(rows)
    assert (faults == []) if fault is None else any(fault in one for one in faults)
