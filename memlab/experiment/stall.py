"""What a stall looks like to an open loop and to a closed one: the reason why the open loop decides.

A closed loop asks nothing while the engine stands still, and so meets each stall once for each client; an open loop charges it to
everyone who would have come meanwhile (coordinated omission: Tene 2015, "How NOT to Measure Latency").
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import polars as pl

from memlab.experiment.load import Counter, Lane, drive
from memlab.measure.clock import SYSTEM, Clock
from memlab.measure.recorder import Recorder, Sample
from memlab.values import Response
from memlab.workload import arrivals
from memlab.workload.mix import Call


class Stalling:
    """Stands where an engine is: one server that answers evenly, and stands still now and then.

    Args:
        service_s: of one answer.
        every_s: from one stall to the next.
        stall_s: how long it stands still.
    """

    def __init__(self, *, service_s: float = 0.001, every_s: float = 2.0, stall_s: float = 0.2, clock: Clock = SYSTEM) -> None:
        self._service_s = service_s
        self._every_ns = round(every_s * 1e9)
        self._stall_s = stall_s
        self._clock = clock
        self._next_ns = clock.monotonic_ns() + self._every_ns // 2
        self._server = asyncio.Lock()

    async def execute(
        self, operation: str, parameters: Mapping[str, Any] | None = None, *, session: str, deadline_s: float | None = None
    ) -> Response:
        """Answer nothing, in turn."""
        async with self._server:
            if self._clock.monotonic_ns() >= self._next_ns:
                self._next_ns += self._every_ns
                await asyncio.sleep(self._stall_s)
            await asyncio.sleep(self._service_s)
        return Response(None)


async def contrast(
    counter: Counter,
    *,
    rate_per_s: float = 200.0,
    duration_s: float = 6.0,
    every_s: float = 2.0,
    stall_s: float = 0.2,
    seed: int = 1,
    clock: Clock = SYSTEM,
) -> pl.DataFrame:
    """Return what an open loop and a closed one of one client saw of the same planted stalls.

    Returns:
        The columns of samples.parquet; `setting` is `open` or `closed`, times count from each lane's beginning.
    """
    call = Call("episodic.get_recent", {}, "default", "default")
    recorder = Recorder()
    for setting, due_s in (("open", arrivals.poisson(rate_per_s, duration_s, seed)), ("closed", None)):
        engine = Stalling(every_s=every_s, stall_s=stall_s, clock=clock)
        driven = await drive(engine.execute, Lane([call], due_s, duration_s=duration_s), counter, setting=setting, clock=clock)
        for one in driven.sent:
            recorder.add(_from(one.sample, driven.start_ns))
    return recorder.to_polars()


def _from(sample: Sample, start_ns: int) -> Sample:
    return msgspec.structs.replace(
        sample,
        intended_ns=sample.intended_ns - start_ns,
        started_ns=sample.started_ns - start_ns,
        finished_ns=sample.finished_ns - start_ns,
    )
