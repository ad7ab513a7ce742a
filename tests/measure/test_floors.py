"""The bare floors: nothing between the libraries and the caller, and an honest figure of what was done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memlab.embedders import HashingEmbedder
from memlab.measure.floors import BareStore
from memlab.memory import Memory


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_a_load_without_reads_has_no_time_of_reads(tmp_path: Path, seconds: float) -> None:
    """On a slow machine a short block may end before any read does: there is no percentile then, and no failure."""
    embedder = HashingEmbedder(64)
    path, folder = tmp_path / "lab.duckdb", tmp_path / "bare"
    folder.mkdir()
    with Memory.open(path, embedder=embedder) as memory:
        memory.episodic.remember("the kettle whistled")
    bare = BareStore(path, folder)
    try:
        bare.use(tmp_path / "lab.duckdb.index", 0)
        queries = np.asarray(embedder.embed(["a kettle", "a train"]))
        found = bare.mixed_load(queries, clients=2, share_of_writes=1.0, seconds=seconds, seed=1)
    finally:
        bare.close()
    assert found["reads"] == 0
    assert found["read_p95_ms"] is None
    assert (found["writes"] > 0) == (seconds > 0)
