"""When calls are due. In an open loop they do not wait for answers; in a closed loop every client waits for its own."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Offsets: TypeAlias = npt.NDArray[np.float64]
"""Seconds from the beginning, ascending."""


def constant(rate_per_s: float, duration_s: float) -> Offsets:
    """Return arrivals at even distances.

    >>> constant(4, 1.0).tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    return np.arange(round(rate_per_s * duration_s)) / rate_per_s


def poisson(rate_per_s: float, duration_s: float, seed: int) -> Offsets:
    """Return arrivals of a Poisson process: independent of each other, exponential gaps."""
    chance = np.random.default_rng(seed)
    count = chance.poisson(rate_per_s * duration_s)
    return np.sort(chance.random(count) * duration_s)  # given their number, arrivals are uniform


def replay(trace: Offsets, duration_s: float, seed: int, *, rate_per_s: float | None = None) -> Offsets:
    """Return *duration_s* of a trace from a random moment on, round its end where it is short.

    Args:
        trace: of `workload.trace.Trace.offsets`.
        rate_per_s: stretches or squeezes time so that the whole trace has this mean rate; its bursts stay what they are.
    """
    pace = 1.0 if rate_per_s is None else (len(trace) - 1) / trace[-1] / rate_per_s
    at = trace * pace
    period = at[-1] * len(at) / (len(at) - 1)  # after the last arrival comes a mean gap, then the first again
    start = np.random.default_rng(seed).random() * period
    rounds = int(np.ceil((start + duration_s) / period))
    unrolled = (at[None, :] + period * np.arange(rounds)[:, None]).ravel()
    part: Offsets = unrolled[(unrolled >= start) & (unrolled < start + duration_s)] - start
    return part
