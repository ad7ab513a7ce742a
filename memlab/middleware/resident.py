"""Answers whose rows are in memory already: given at once, without a thread, a batch or a place in the pool."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from memlab.middleware.chain import Handler
from memlab.operations.registry import lookup
from memlab.values import Request, Response

Peek: TypeAlias = Callable[[Request], Response | None]


class Resident:
    """Asks *peek* first for operations that are declared `resident`; it answers from memory alone, or with None.

    While a write of the session is on its way nothing is peeked at: a read that was submitted after a write must see it. What
    asks nothing of storage, as discovery does, has nothing to see, and waits for no write.
    """

    def __init__(self, peek: Peek) -> None:
        self._peek = peek
        self._kinds: dict[str, tuple[bool, bool, bool]] = {}
        self._writes: Counter[str] = Counter()
        self._answered = 0
        self._passed = 0

    def __call__(self, inner: Handler) -> Handler:
        """Return *inner*, asked only for what is not in memory."""
        peek, kinds, writes = self._peek, self._kinds, self._writes

        async def handle(request: Request) -> Response:
            reads, is_resident, asks = kinds.get(request.operation) or self._learn(request.operation)
            if not reads:
                return await self._write(inner, request)
            if is_resident and not (asks and request.session in writes):
                response = peek(request)
                if response is not None:
                    self._answered += 1
                    return response
                self._passed += 1
            return await inner(request)

        return handle

    def statistics(self) -> dict[str, float | int]:
        """Return how many calls were answered from memory, and how many were tried and passed on."""
        return {"answered": self._answered, "passed": self._passed}

    def _learn(self, name: str) -> tuple[bool, bool, bool]:
        operation = lookup(name)
        asks = inspect.isgeneratorfunction(operation.plan)
        return self._kinds.setdefault(name, (operation.reads, operation.resident, asks))

    async def _write(self, inner: Handler, request: Request) -> Response:
        self._writes[request.session] += 1
        try:
            return await inner(request)
        finally:
            self._writes[request.session] -= 1
            if not self._writes[request.session]:
                del self._writes[request.session]


def resident(peek: Peek) -> Resident:
    """Return the middleware that tries *peek* before it goes on."""
    return Resident(peek)
