"""Many settings on one database, in turns, by open and closed loops.

Models are fitted on some of it and held against the rest; whatever the host does meanwhile meets all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memlab.embedders import embedder_of
from memlab.engine import Engine
from memlab.experiment.comparison import corpus_of, load
from memlab.experiment.load import Driven, Lane, drive
from memlab.experiment.load_run import collected
from memlab.measure.in_flight import InFlight, in_flight
from memlab.settings import Settings
from memlab.storage.store import Storage
from memlab.workload.arrivals import Offsets
from memlab.workload.mix import Mix
from memlab.workload.spec import Workload

_DEADLINE_S = 20.0  # a lane that is behind shows how far, and loses nobody
_CLOSED_CALLS = 20_000


class Lanes:
    """Engines that share one storage, by name.

    Args:
        engines: of which none has a cache: one hears only of its own engine's writes.
    """

    def __init__(self, engines: Mapping[str, Engine], mix: Mix, counter: InFlight) -> None:
        self._engines = engines
        self._mix = mix
        self._counter = counter

    async def open_loop(self, name: str, due_s: Offsets, seed: int) -> pl.DataFrame:
        """Send calls when they are due; return due_s, response_ms, batch_size and outcome of each, and `law` of all.

        `law` is the mean number in flight over what Little's law makes of the response times; null where it was missed.
        """
        lane = Lane(self._mix.calls(len(due_s), seed), due_s, duration_s=float(due_s[-1]) + 1e-3, deadline_s=_DEADLINE_S)
        return self._told(await drive(self._engines[name].execute, lane, self._counter))

    async def closed_loop(
        self, name: str, clients: int, duration_s: float, warm_up_s: float, seed: int, *, calls: int = _CLOSED_CALLS
    ) -> pl.DataFrame:
        """Let clients ask one after another; the same of every answer that came in the measured time.

        Args:
            calls: that are made up beforehand, which takes a while; at their end they begin again.
        """
        lane = Lane(
            self._mix.calls(calls, seed),
            None,
            clients=clients,
            warm_up_s=warm_up_s,
            duration_s=duration_s,
            deadline_s=_DEADLINE_S,
        )
        driven = await drive(self._engines[name].execute, lane, self._counter)
        told = self._told(driven)
        end_s = (driven.end_ns - driven.start_ns) / 1e9
        return told.filter((pl.col("due_s") + pl.col("response_ms") / 1e3).is_between(0.0, end_s))

    def statistics(self, name: str) -> dict[str, Any]:
        """Return the counts of an engine's parts."""
        return self._engines[name].statistics()

    def _told(self, driven: Driven) -> pl.DataFrame:
        mean = self._counter.mean()
        samples = [one.sample for one in driven.sent]
        frame = pl.DataFrame(
            {
                "due_s": [(one.intended_ns - driven.start_ns) / 1e9 for one in samples],
                "response_ms": [(one.finished_ns - one.intended_ns) / 1e6 for one in samples],
                "batch_size": [one.batch_size for one in samples],
                "outcome": [one.outcome for one in samples],
            }
        )
        window_s = (driven.end_ns - driven.start_ns) / 1e9
        inside = np.clip(frame["due_s"] + frame["response_ms"] / 1e3, 0, window_s) - np.clip(frame["due_s"], 0, window_s)
        expected = float(inside.sum()) / window_s
        law = None if math.isnan(mean) or not expected else mean / expected
        return frame.with_columns(law=pl.lit(law, pl.Float64)).sort("due_s")


@contextlib.asynccontextmanager
async def lanes(
    traffic: Workload, settings: Mapping[str, Settings], seed: int, data: str | Path | None = None
) -> AsyncIterator[Lanes]:
    """Fill one database and open an engine on it for every setting.

    Args:
        traffic: its corpus and mix count; arrivals are given to each lane.
        settings: by name; those of index and storage, and of the pool its threads, are taken from the first.
        data: folder of conversations in place of the generated corpus.
    """
    corpus = corpus_of(traffic, seed, data)
    first = next(iter(settings.values()))
    with tempfile.TemporaryDirectory(prefix="memlab-lanes-", ignore_cleanup_errors=True) as folder, in_flight() as counter:
        storage = await asyncio.to_thread(Storage.open, Path(folder) / "lanes.duckdb", first, embedder_of(corpus.embedder))
        engines: dict[str, Engine] = {}
        try:
            filling = Engine(storage, Settings.off())
            loaded = await load(filling, corpus)
            await filling.aclose()
            engines = {name: Engine(storage, one) for name, one in settings.items()}
            with collected():
                yield Lanes(engines, Mix(corpus, loaded, traffic, seed), counter)
        finally:
            for engine in engines.values():
                await engine.aclose()
            await asyncio.to_thread(storage.close)
