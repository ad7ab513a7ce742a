"""A memory for each test, opened on a folder of its own."""

import pytest

from memlab.embedders import HashingEmbedder
from memlab.memory import Memory


@pytest.fixture
def memory(tmp_path):
    with Memory.open(tmp_path / "memory.duckdb", embedder=HashingEmbedder(64)) as opened:
        yield opened
