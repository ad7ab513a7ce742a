"""Several settings on one database, in turns."""

import pytest

from memlab.experiment.lanes import lanes
from memlab.experiment.load import run_in_own_loop
from memlab.settings import Settings
from memlab.workload import arrivals, spec

TRAFFIC = spec.workload({"corpus": {"events": 60, "sessions": 2, "questions": 20}, "arrivals": {"rate_per_s": 1}})
SETTINGS = {
    "alone": Settings.of({"cache": None, "batch": None}),
    "together": Settings.of({"cache": None, "batch.limit": 8, "batch.adaptive": False, "batch.window_ms": 20.0}),
}


@pytest.mark.serial
def test_engines_take_turns_on_the_same_memories():
    """An open loop answers every arrival at its moment; a closed one what ended in time; a window makes groups, none does not."""

    async def scenario():
        async with lanes(TRAFFIC, SETTINGS, seed=1) as bench:
            due_s = arrivals.constant(200.0, 0.2)
            opened = {name: await bench.open_loop(name, due_s, seed=2) for name in SETTINGS}
            return due_s, opened, await bench.closed_loop("alone", 3, 0.2, 0.05, seed=3)

    due_s, opened, closed = run_in_own_loop(scenario())
    for told in opened.values():
        assert told["due_s"].to_list() == pytest.approx(due_s.tolist(), abs=1e-6)
        assert set(told["outcome"]) == {"ok"}
    assert opened["alone"]["batch_size"].max() == 1 < opened["together"]["batch_size"].max() <= 8
    assert len(closed) > 0
    assert (closed["due_s"] + closed["response_ms"] / 1e3).is_between(0.0, 0.2).all()
    assert closed.schema == opened["alone"].schema
