"""What all tests share: one thread for each library, no settings from outside, examples that repeat, the data beside."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before NumPy, FAISS and Polars are imported: two workers of pytest share two processors.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# The tester's own settings are no part of a test, nor of the processes that one starts.
for variable in [name for name in os.environ if name.startswith("MEMLAB_") and name != "MEMLAB_DATA"]:
    del os.environ[variable]

ROOT = Path(__file__).resolve().parent.parent

# No deadlines: a busy machine is not a mistake. Derandomised: what passes here passes in CI.
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", deadline=None, max_examples=2_000, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items):
    """Mark the cells of notebooks `serial`: nbval's own items carry no mark."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("serial")


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real conversations and traces beside the checkout, or MEMLAB_DATA; the project ships none of it."""
    folder = Path(os.environ.get("MEMLAB_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "locomo" / "turns.parquet").is_file():
        pytest.skip(f"NOT TESTED ON REAL DATA: no {folder}/locomo/turns.parquet; MEMLAB_DATA names another folder")
    return folder
