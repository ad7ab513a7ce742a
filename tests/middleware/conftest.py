"""The small operations of `keyvalue`, for the tests of this folder."""

import pytest

from tests.middleware.keyvalue import declared


@pytest.fixture(autouse=True, scope="module")
def small_operations():
    """Declare the small operations for one file of tests and take them back."""
    with declared():
        yield
