"""The measurement of batch windows: every group and lane for real, and what is refused."""

import asyncio
import json

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import batching
from memlab.experiment.batching_summary import NONE
from memlab.predict.group_commit import Rule
from memlab.settings import Settings
from memlab.workload import spec

RULES = {NONE: Rule(0.0, 1), "adaptive, 0 ms, 64": Rule(0.0, 64), "fixed, 4 ms, 64": Rule(4.0, 64, adaptive=False)}


def traffic(operation="episodic.recall", events=200):
    return spec.workload(
        {
            "mix": {operation: 1},
            "corpus": {"events": events, "sessions": 4, "questions": 20},
            "arrivals": {"rate_per_s": 1},
        }
    )


@pytest.mark.serial
def test_the_engine_is_measured_for_real():
    """Groups of several sizes, every lane that can keep up, nothing failed, and nobody travels in more company than allowed."""
    measured = batching.measure(traffic(), shares=(0.4,), rules=RULES, repeats=1, duration_s=0.1, fewest=20)
    assert {1, 4} <= set(measured.groups["size"]) <= set(batching.SIZES), "the largest may not fit into a burst on a busy host"
    assert set(measured.calls["rule"]) == {*RULES, batching.AIMD}
    assert set(measured.calls["outcome"]) == {"ok"}
    assert measured.calls.filter(pl.col("rule") == NONE)["batch_size"].max() == 1
    assert measured.rules[batching.AIMD].objective_ms == measured.objective_ms
    assert measured.rules[NONE].in_flight == Settings().pool.limit


class Slow:
    """Lanes that take 30 ms for a group, one at a time, so that what is due meanwhile waits for its turn."""

    async def open_loop(self, name, due_s, seed):
        free_s, response_ms = 0.0, []
        for at_s in due_s:
            if not response_ms or at_s != due_s[len(response_ms) - 1]:
                free_s = max(free_s, at_s) + 0.03
            response_ms.append((free_s - at_s) * 1e3)
        size = int(name.rpartition(" ")[2])
        return pl.DataFrame({"response_ms": response_ms, "batch_size": [size] * len(due_s)})


def test_the_wait_for_a_slow_group_is_not_taken_for_work():
    """Groups after a pause come one after the other, however long one takes: all say 30 ms."""
    turns = batching._Turns(Slow(), "episodic.remember", RULES, (0.4,), 1, 0.1, 20, 15.0, 1)
    for size in batching._RESTED:
        asyncio.run(turns._group(size, 0, 0.012))
    took = pl.concat(turns._groups)
    assert took["ms"].to_list() == pytest.approx([30.0] * sum(batching._RESTED.values()))


@pytest.mark.serial
def test_a_point_of_writes_keeps_what_it_measured(tmp_path):
    """One group at a time; the summary is plain, says smoke and finds nothing, and the frames lie beside it."""
    workload = traffic("episodic.remember").to_dict()
    point = batching.measure_point({}, workload=workload, repeats=1, shares=(0.6,), duration_s=0.1, out=tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["operation"] == "episodic.remember"
    assert point.summary["verdict"] == "smoke" and not point.summary["finding"]
    assert point.summary["failed"] == 0
    assert {rule.in_flight for rule in point.measured.rules.values()} == {1}
    assert not len(point.measured.alone)
    assert "adaptive, 4 ms, 64" not in set(point.compared["rule"]), "one group at a time: as without a window"
    assert point.summary["error"]["p95"]["lanes"] == 0, "too few calls for a p95"
    assert len(pl.read_parquet(tmp_path / "lanes.parquet")) == len(point.compared)
    assert len(pl.read_parquet(tmp_path / "groups.parquet")) == len(point.measured.groups)


@pytest.mark.parametrize("given", [{"repeats": 0}, {"duration_s": 0.0}, {"shares": ()}, {"rules": {}}, {"fewest": 1}])
def test_too_little_is_refused(given):
    """A study of nothing is no study."""
    with pytest.raises(MemlabError, match="are the least"):
        batching.measure(traffic(), **given)


def test_what_cannot_be_told_is_refused():
    """A mix of operations has no service time of its own; without a pool there is no number of groups at once."""
    both = spec.workload({"mix": {"episodic.recall": 1, "episodic.remember": 1}, "arrivals": {"rate_per_s": 1}})
    with pytest.raises(MemlabError, match="a mix of 2 operations"):
        batching.measure(both)
    with pytest.raises(MemlabError, match="without a pool"):
        batching.measure(traffic(), Settings.of({"pool": None}))
