"""What can be asked: one declaration for each operation, one file for each memory layer."""

from memlab.operations import (
    consolidation,
    discovery,
    episodic,
    graph,
    meta,
    procedural,
    prospective,
    rag,
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
    "graph",
    "lookup",
    "meta",
    "operation",
    "operations",
    "procedural",
    "prospective",
    "rag",
    "semantic",
    "session",
]
