"""memlab: a real memory engine for agents, and a laboratory that measures it.

with memlab.Memory.open("lab.duckdb") as memory:
    memory.episodic.remember("The demo moved to Friday", tags=["demo"])
    memory.episodic.recall("when is the demo?", limit=5)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memlab.engine import Engine
    from memlab.errors import ErrorType, MemlabError
    from memlab.hooks import Hooks
    from memlab.memory import Memory
    from memlab.settings import Settings
    from memlab.values import Event, Fact, Request, Response, Table

__all__ = ["Engine", "ErrorType", "Event", "Fact", "Hooks", "MemlabError", "Memory", "Request", "Response", "Settings", "Table"]

# Loaded when first asked for: a command that only shows its help should not wait for the engine's libraries.
_HOMES = {
    "Engine": "engine",
    "ErrorType": "errors",
    "Event": "values",
    "Fact": "values",
    "Hooks": "hooks",
    "Memory": "memory",
    "MemlabError": "errors",
    "Request": "values",
    "Response": "values",
    "Settings": "settings",
    "Table": "values",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'memlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"memlab.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
