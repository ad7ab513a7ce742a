"""Every operation is timed through its declaration, on every store, beside a floor that does nothing."""

import asyncio

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import operation_costs
from memlab.experiment.operation_store import Filled
from memlab.operations import lookup, operations
from memlab.settings import Settings


@pytest.fixture(scope="module")
def report():
    return operation_costs.report(sizes=(400,), calls=5, seconds=0.05)


def test_every_operation_is_measured(report):
    """All that is declared is called for real, succeeds, and says where its time went."""
    (store,) = report["stores"]
    rows = store["operations"]
    assert set(rows) == {one.name for one in operations()}
    assert store["failing"] == []
    assert all(row["warm"]["calls"] >= 5 and row["warm"]["mean_ms"]["value"] > 0 for row in rows.values())
    assert rows["episodic.recall"]["phases_ms"].keys() >= {"embed", "vector", "text", "fetch", "build"}
    assert rows["episodic.remember"]["phases_ms"]["write"] > 0


def test_what_reads_is_asked_twice_and_what_writes_once(report):
    """A read has its repetition beside, a write has none; both have a floor of as many calls."""
    for name, row in report["stores"][0]["operations"].items():
        assert (row["repeated"] is not None) == lookup(name).reads
        assert row["floor"]["calls"] == row["warm"]["calls"]


def test_too_few_calls_make_no_percentile(report):
    """Five calls are no p95, and the table says so; what cannot be judged is named."""
    store = report["stores"][0]
    assert all(row["warm"]["p95_ms"]["value"] is None and row["met"] is None for row in store["operations"].values())
    assert len(store["unjudged"]) == len(operations())
    text = operation_costs.markdown(report)
    assert "too few" in text
    assert text.count("\n| `") == len(operations())


def test_a_bulk_operation_is_counted_by_item(report):
    """A call of many items is told by its item; a call of one has no such figure."""
    rows = report["stores"][0]["operations"]
    bulk = rows["episodic.bulk_remember"]
    assert bulk["per_item"]["mean_ms"] < bulk["warm"]["mean_ms"]["value"]
    assert bulk["per_item"]["items"] > 1
    assert rows["episodic.remember"]["per_item"] is None


def test_discovery_tells_more_at_each_level_and_says_what_that_costs(report):
    """Names, descriptions, schemas: the same operations in more bytes and tokens each time."""
    names, descriptions, schemas = report["stores"][0]["discovery"].values()
    assert names["operations"] == descriptions["operations"] == schemas["operations"] == len(operations())
    assert names["json_bytes"] < descriptions["json_bytes"] < schemas["json_bytes"]
    assert names["tokens"] < descriptions["tokens"] < schemas["tokens"]
    assert schemas["kept_bytes"] > names["kept_bytes"]
    assert all(level["calls"] == 5 and level["mean_ms"]["value"] > 0 for level in (names, descriptions, schemas))


def test_one_operation_may_be_measured_alone_and_its_growth_is_told():
    """A layer and a name choose; two stores make an exponent with an interval over five parts."""
    report = operation_costs.report(sizes=(400, 800), layer="discovery", name="discovery.get", calls=5, seconds=0.05)
    assert [store["memories"] for store in report["stores"]] == [400, 800]
    assert [list(store["operations"]) for store in report["stores"]] == [["discovery.get"]] * 2
    assert report["stores"][0]["discovery"] == {}
    assert report["growth"]["discovery.get"]["exponent"]["n"] == 5


def test_a_point_asks_in_fresh_processes_too(tmp_path):
    """Each part has a cold call of its own; raw samples and summary are kept."""
    measured = operation_costs.measure_point(
        {"candidate": operation_costs.ALONE},
        workload={"corpus": {"events": 300, "questions": 30}},
        repeats=2,
        seconds=0.05,
        calls=2,
        layer="session",
        cold=["episodic.recall"],
        out=tmp_path,
    )
    cold = measured.samples.filter(pl.col("setting") == "cold")
    assert cold["repeat"].to_list() == [0, 1]
    assert set(cold["outcome"]) == {"ok"}
    assert cold["phases"].struct.field("fetch").min() > 0
    assert measured.samples.filter(pl.col("setting") == "open").height == 2
    kept = measured.summary["page_cache"]["kept_ratio"]
    assert kept is None or 0.0 <= kept <= 1.0
    assert {path.name for path in tmp_path.iterdir()} == {"samples.parquet", "summary.json"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"point": {"candidate": {"batch": None}}}, "a cache is never on"),
        ({"cold": ["episodic.remember"]}, "writes"),
        ({"cold": ["episodic.recal"]}, "did you mean"),
        ({"layer": "epsodic"}, "did you mean"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(given, told):
    """Before anything is filled."""
    given = {"point": {"candidate": operation_costs.ALONE}, "workload": {}, **given}
    with pytest.raises(MemlabError, match=told):
        operation_costs.measure_point(given.pop("point"), **given)


@pytest.mark.parametrize(
    ("took_ms", "pilots", "each_part"),
    [
        (1, 1, 500),  # cheap: as many as were asked for
        (4, 1, 125),  # as long as the time lasts
        (10, 1, 100),  # slow: on until both parts have the calls of a p95
        (50, 1, 60),  # but not without end
        (50, 0, 10),  # a job is no call to wait for
        (2_000, 0, 1),
    ],
)
def test_what_is_slow_goes_on_until_it_has_a_p95(tmp_path, took_ms, pilots, each_part):
    """Two parts of half a second; calls are counted, no clock is read."""
    costs = operation_costs._Costs(Filled(tmp_path, 400, 1), Settings.of(operation_costs.ALONE), 2, 1.0, 1_000)
    done = [0, 0]

    async def turn(part, warm_up):
        costs._spent_ns += took_ms * 1_000_000
        done[part] += not warm_up

    assert asyncio.run(costs._turns(turn, pilots)) == each_part
    assert done == [each_part] * 2
