"""What a load's chapter says of what was to be reached."""

import pytest

from memlab.experiment.results import Run
from memlab.guide import load_chapters
from memlab.guide.figures import plain


def a_run(clients, met, **summary):
    return Run(
        experiment="12-load",
        key=f"{clients:016d}",
        parameters={},
        settings={},
        seed=1,
        repeats=1,
        size="quick",
        workload={},
        code_version="v",
        libraries={},
        host={},
        started="2026-01-01T00:00:00",
        finished="2026-01-01T00:01:00",
        status="done",
        summary={"clients": clients, "met": met, **summary},
    )


@pytest.mark.parametrize(
    ("met", "word"),
    [
        ({"failure_ratio": True, "p95_ms": True}, "kept"),
        ({"failure_ratio": True, "p95_ms": False}, "missed"),
        ({"failure_ratio": True, "p95_ms": None}, "not to be told"),
        ({"failure_ratio": False, "p95_ms": None}, "missed"),
    ],
)
def test_one_miss_is_a_miss_and_too_few_samples_are_none(met, word):
    """Both the share of failures and p95 must be kept; where one has too few samples and the other is kept, nothing is "
    "claimed."""
    said = plain(load_chapters._reached([a_run(10, met)]))
    assert said.startswith(f"What was to be reached is {word} at 10 (")


def test_loads_are_told_together():
    """One sentence for all of them; of callers that nothing was asked of, none."""
    kept, missed = ({"failure_ratio": True, "p95_ms": value} for value in (True, False))
    runs = [a_run(10, kept), a_run(100, kept), a_run(1_000, missed)]
    said = plain(load_chapters._reached(runs))
    assert said.index("kept at 10 ") < said.index("100 ") < said.index("missed at 1,000 ")
    assert "nothing was asked" in load_chapters._reached([])


@pytest.mark.parametrize(
    ("opened", "closed", "told"),
    [
        (190.0, 2.0, "shows what the closed one hides"),
        (190.0, 180.0, "**not** seen"),
        (3.0, 2.0, "**not** seen"),
        (None, 2.0, "cannot be said"),
    ],
)
def test_the_contrast_of_the_loops_is_read_and_not_believed(opened, closed, told):
    """A planted stall of 200 ms must stand in the open loop's p99 alone; anything else is told as it is."""
    p99 = {"open": {"p99_ms": {"value": opened}}, "closed": {"p99_ms": {"value": closed}}}
    assert told in load_chapters._contrast(a_run(1, None, stall={"stall_ms": 200.0, **p99}))
