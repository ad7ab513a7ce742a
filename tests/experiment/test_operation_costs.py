"""Every operation is timed through its declaration, and growth is the exponent that was planted."""

import pytest

from memlab.experiment import operation_costs
from memlab.experiment.operation_costs import Cost, growth
from memlab.measure.stats import Interval
from memlab.operations import operations


def cost(memories, p50):
    nothing = Interval(None)
    return Cost(
        name="episodic.recall",
        cost="read",
        memories=memories,
        calls=200,
        error_ratio=0.0,
        mean_ms=p50,
        p50=Interval(p50),
        p95=nothing,
        p99=nothing,
        per_item_ms=None,
        throughput_per_s=None,
        target_p95_ms=100.0,
        met=None,
        phases_ms={},
    )


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_growth_is_the_exponent_of_the_median(exponent):
    """A median that is c n^e on three stores gives e; one store alone gives none."""
    rows = [cost(size, 0.3 * size**exponent) for size in (1_000, 10_000, 100_000)]
    assert growth("episodic.recall", rows).exponent == pytest.approx(exponent, abs=1e-9)
    assert growth("episodic.recall", rows[:1]).exponent is None
    assert growth("semantic.get", rows).exponent is None


@pytest.fixture(scope="module")
def report():
    return operation_costs.measure(sizes=(400, 800), calls=3, tell=lambda line: None)


def test_every_operation_is_measured_on_every_store(report):
    """All that is declared is called for real, succeeds, and says where its time went."""
    expected = {one.name for one in operations()}
    for size in (400, 800):
        rows = {row["name"]: row for row in report["rows"] if row["memories"] == size}
        assert set(rows) == expected
        failing = {name for name, row in rows.items() if not row["calls"]}
        assert not failing
        assert all(row["mean_ms"] > 0 for row in rows.values())
        assert rows["episodic.recall"]["phases_ms"].keys() >= {"embed", "vector", "text", "fetch"}
        assert rows["episodic.remember"]["phases_ms"]["write"] > 0


def test_too_few_calls_make_no_percentile(report):
    """Three calls are no p95, and the table says so."""
    assert all(row["p95"]["value"] is None and row["met"] is None for row in report["rows"])
    text = operation_costs.markdown(report)
    assert "too few" in text
    assert text.count("\n| `") == len(operations())


def test_a_bulk_operation_is_counted_by_item(report):
    """A call of many items is told by its item; a call of one has no such figure."""
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["episodic.bulk_remember"]["per_item_ms"] < rows["episodic.bulk_remember"]["mean_ms"]
    assert rows["episodic.remember"]["per_item_ms"] is None


def test_one_operation_may_be_measured_alone():
    """A layer and a name choose."""
    report = operation_costs.measure(sizes=(400,), layer="discovery", name="discovery.get", calls=2)
    assert [row["name"] for row in report["rows"]] == ["discovery.get"]
