"""Ways to search are compared case by case, and the sums are those worked out by hand."""

import polars
import pytest

from memlab.errors import MemlabError
from memlab.experiment import ways

REPEATS = 5


def planted(times):
    """Return searches of two questions whose times are known, by case and strategy."""
    rows = [
        {"case": case, "strategy": strategy, "repeat": repeat, "question": question, "ms": ms * (1 + 0.01 * repeat)}
        for case in (*ways.FILTERS, ways.SMALL_SESSION)
        for strategy, ms in times(case).items()
        for repeat in range(REPEATS)
        for question in range(2)
    ]
    return polars.DataFrame(rows)


def two_sided(case):
    """Filtering first is right once, pushing down always else; the optimizer is right but once."""
    if case == "topic of 1 %":
        return {"pre_filter": 1.0, "push_down": 4.0, "post_filter": 9.0, "auto": 4.0}
    return {"pre_filter": 8.0, "push_down": 2.0, "post_filter": 3.0, "auto": 2.0}


def test_regret_is_the_time_over_the_best_forced_way():
    """1 where the choice was right, 4 where it took four times the best; the best is named."""
    found = ways.regret(planted(two_sided))
    auto = dict(found.filter(polars.col("strategy") == "auto").select("case", "ratio").iter_rows())
    assert auto.pop("topic of 1 %") == pytest.approx(4.0)
    assert set(auto.values()) == {1.0}
    best = dict(found.select("case", "best").unique().iter_rows())
    assert best.pop("topic of 1 %") == "pre_filter"
    assert set(best.values()) == {"push_down"}


def test_overall_adds_up_the_cases():
    """(7 cases x 2 ms + 4 ms) / (7 x 2 ms + 1 ms) for the optimizer, and so on for what is forced everywhere."""
    found = ways.overall(planted(two_sided))
    assert found["auto"].value == pytest.approx(18 / 15)
    assert found["push_down"].value == pytest.approx(18 / 15)
    assert found["pre_filter"].value == pytest.approx(57 / 15)
    assert found["auto"].low == pytest.approx(18 / 15)


def test_a_small_store_is_measured_for_real():
    """Every case is searched in every way; the answers agree, and what is exact compares what passes."""
    searches = ways.measure(memories=1_000, questions=1, repeats=1, seed=3)
    assert set(searches["case"]) == {*ways.FILTERS, ways.SMALL_SESSION}
    assert set(searches["strategy"]) == set(ways.STRATEGIES)
    assert searches["same"].mean() > 0.95
    assert (searches["cost_us"] > 0).all()
    tenth = searches.filter((polars.col("case") == "topic of 10 %") & (polars.col("way") == "pre_filter"))
    assert set(tenth["rows"]) == {100}
    assert ways.regret(searches)["low"].is_null().all(), "one repeat has no interval"


@pytest.mark.parametrize("given", [{"memories": 10}, {"questions": 0}, {"repeats": 0}])
def test_too_little_is_refused(given):
    """A study of nothing is no study."""
    with pytest.raises(MemlabError) as caught:
        ways.measure(**{"memories": 1_000, "questions": 1, "repeats": 1, **given})
    assert caught.value.reason == "bounds"
