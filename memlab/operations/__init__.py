"""What can be asked: one declaration for each operation, one file for each memory layer."""

from memlab.operations import (
    consolidation,
    discovery,
    episodic,
    procedural,
    prospective,
    semantic,
    session,
)
from memlab.operations.registry import Examples, Operation, lookup, operation, operations

__all__ = [
    "Examples",
    "Operation",
    "consolidation",
    "discovery",
    "episodic",
    "lookup",
    "operation",
    "operations",
    "procedural",
    "prospective",
    "semantic",
    "session",
]
