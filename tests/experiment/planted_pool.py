"""Throughputs and waits of a law that is known, on a machine that takes two milliseconds to wake from any rest."""

import numpy as np
import polars as pl

from memlab.experiment import pooling
from memlab.predict.queueing import SharedPlaces
from memlab.workload import arrivals

WOKEN_MS = 2.0
REPEATS = 5


def answered(limit):
    """Answers a second of so many places: most at ten."""
    return 1_000 * limit / (1 + 0.3 * (limit - 1) + 0.01 * limit * (limit - 1))


def waited(limit, share, repeat, woken_s):
    """What a queue of that law and a time to wake makes of arrivals."""
    rate = share * answered(limit)
    due_s = arrivals.poisson(rate, 600 / rate, seed=repeat)
    told = SharedPlaces(answered, np.array([0.9, 1.1]), woken_s).play(due_s, limit, seed=repeat) * 1e3
    place = {"limit": limit, "share": share, "rate_per_s": rate, "repeat": repeat, "due_s": due_s.tolist()}
    return {**place, "mean_ms": told.mean(), "response_ms": told.tolist()}


def measured(pace=answered, *, threads_help=3.0):
    """All that a study measures.

    Args:
        pace: answers a second of so many places; the waits keep to `answered`.
        threads_help: how many times as much two threads of the database answer at four places.
    """
    closed = [
        {
            "limit": limit,
            "repeat": repeat,
            "throughput_per_s": pace(limit or 8) * (1 + 0.001 * repeat),
            "mean_ms": 1.0,
            "response_ms": [1.0] * 38 + [2.0 + repeat] * 4,
            "limit_after": limit or 7 + repeat,
        }
        for limit in (0, *pooling.LIMITS)
        for repeat in range(REPEATS)
    ]
    woken_s = {0.001: WOKEN_MS / 1e3}
    waits = [waited(limit, share, repeat, woken_s) for limit in (3, 16) for share in (0.3, 0.7) for repeat in range(REPEATS)]
    lone = [
        {"rest_s": rest_s, "repeat": repeat, "response_ms": [0.9 + longer, 1.1 + longer]}
        for rest_s, longer in ((0.0, 0.0), (0.004, WOKEN_MS), (0.016, WOKEN_MS))
        for repeat in range(REPEATS)
    ]
    surface = [
        {"database_threads": database, "vector_threads": 1, "limit": limit, "repeat": repeat, "throughput_per_s": rate + repeat}
        for database, limit, rate in ((1, 1, 10.0), (1, 4, 30.0), (2, 4, 30.0 * threads_help))
        for repeat in range(REPEATS)
    ]
    return pooling.Measured(*(pl.DataFrame(rows) for rows in (closed, waits, lone, surface)))
