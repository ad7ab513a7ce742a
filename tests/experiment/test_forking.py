"""Fresh processes: one for each job, and an end without an answer is told."""

import sys

import pytest

from memlab.errors import MemlabError
from memlab.experiment import forking

ANSWERING = """
import os
from memlab.experiment import forking

told = []

def answer(line):
    told.append(line)
    if line.strip() == b"break":
        raise ValueError("broken on purpose")
    return f"{line.decode().strip()} {len(told)} {os.getpid()} ".encode() + b"x" * (1 << 17)

forking.serve(answer)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that answers each job with its text, how many its process has seen, its process and much else."""
    (tmp_path / "answering.py").write_text(ANSWERING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    return "answering"


def test_every_job_has_a_process_of_its_own(module):
    """Nothing of one job is left in the next, and a long answer arrives whole."""
    given = [answer.decode().split() for answer in forking.answers(module, [b"a", b"b"])]
    assert [(text, seen, len(rest)) for text, seen, _, rest in given] == [("a", "1", 1 << 17), ("b", "1", 1 << 17)]
    assert given[0][2] != given[1][2]


def test_a_process_that_breaks_is_told(module, capfd):
    """One typed error for the caller, and what went wrong on standard error."""
    made = forking.answers(module, [b"a", b"break"])
    next(made)
    with pytest.raises(MemlabError, match="ended without an answer"):
        next(made)
    assert "broken on purpose" in capfd.readouterr().err
