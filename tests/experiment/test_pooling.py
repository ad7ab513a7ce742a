"""The study of pool limits: what is measured, and what is made of it."""

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import pooling
from memlab.predict.queueing import sharing_response_s


def answered(limit):
    return 1_000 * limit / (1 + 0.3 * (limit - 1) + 0.01 * limit * (limit - 1))


def planted():
    """Throughputs and waits of a law that is known."""
    closed = [
        {"limit": limit, "repeat": repeat, "throughput_per_s": answered(limit or 8) * (1 + 0.01 * repeat)}
        for limit in (0, *pooling.LIMITS)
        for repeat in range(5)
    ]
    waited = [
        {"limit": 4, "share": share, "rate_per_s": share * 2_000, "repeat": 0, "mean_ms": mean_ms}
        for share, mean_ms in ((0.5, 1e3 * sharing_response_s(1_000, 4, answered)), (1.5, 90.0))
    ]
    surface = [
        {"database_threads": 1, "vector_threads": 1, "limit": limit, "repeat": repeat, "throughput_per_s": rate + repeat}
        for limit, rate in ((1, 10.0), (4, 30.0))
        for repeat in range(3)
    ]
    return pooling.Measured(pl.DataFrame(closed), pl.DataFrame(waited), pl.DataFrame(surface))


def test_the_law_of_what_was_planted_is_right_on_limits_it_was_not_fitted_on():
    """By the median of the repeats; what the places cannot keep up with has no wait."""
    measured = planted()
    law = measured.law()
    compared = pooling.beside_measured(measured, law)
    assert compared.filter(pl.col("fitted"))["limit"].to_list() == list(pooling.SEEN)
    assert compared["error"].max() < 1e-6
    told = pooling.waits(measured, law)
    assert told["error"].to_list() == [pytest.approx(0.02, abs=0.02), None]
    assert pooling.surface(measured)["throughput_per_s"].to_list() == [31.0, 11.0]


def test_the_race_compares_inside_of_repeats():
    """The adaptive limit answers as eight do: the ratio to the best is that of the law, its interval has no width."""
    measured = planted()
    raced = pooling.race(measured, measured.law())
    assert raced["best"] == max(pooling.LIMITS, key=answered)
    assert raced["adaptive_over_best"].value == pytest.approx(answered(8) / answered(raced["best"]))
    assert raced["recommended"] <= raced["best"]


@pytest.mark.serial
def test_the_engine_is_measured_for_real():
    """Every limit and the adaptive one, the waits, and every corner of the surface."""
    measured = pooling.measure(limits=(1, 2, 4), memories=100, repeats=1, duration_s=0.06, threads=((1, 1), (1, 2)))
    assert sorted(measured.closed["limit"]) == [0, 1, 2, 4]
    assert (measured.closed["throughput_per_s"] > 0).all()
    assert len(measured.waits) == 6
    assert len(measured.surface) == 6
    assert pooling.waits(measured, measured.law((1, 2, 4)))["mean_ms"].min() > 0


@pytest.mark.parametrize("given", [{"repeats": 0}, {"memories": 3}, {"duration_s": 0.0}, {"limits": (1, 2)}, {"threads": ()}])
def test_too_little_is_refused(given):
    """A study of nothing is no study."""
    with pytest.raises(MemlabError, match="are the least"):
        pooling.measure(**given)
