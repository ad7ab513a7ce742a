"""The sync face of an engine, for notebooks and scripts: one generic bridge to a loop in a thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from memlab.embedders import Embedder
from memlab.engine import Engine
from memlab.errors import validation
from memlab.hooks import Hooks
from memlab.middleware.observe import Recorder
from memlab.operations.registry import Operation, layers, operations
from memlab.settings import Settings
from memlab.values import DEFAULT_SESSION, Response


class Layer:
    """The operations of one memory layer as methods, with signatures and help from their declarations."""

    def __init__(self, name: str, help: str, call: Callable[..., Any]) -> None:
        self.__doc__ = f"{name}: {help}"
        self._name = name
        for declared in operations(name):
            setattr(self, declared.name.partition(".")[2], _method(declared, call))

    def __repr__(self) -> str:
        return f"<{self.__doc__}; {', '.join(name for name in vars(self) if not name.startswith('_'))}>"


class Memory:
    """An open memory.

    >>> with Memory.open("lab.duckdb") as memory:                                        # doctest: +SKIP
    ...     memory.episodic.remember("The user prefers tea in the morning.", tags=["preference"])
    ...     memory.episodic.recall("what does the user drink?", limit=5)

    Every layer is an attribute, every operation a method of it; `session=`, `idempotency_key=` and `deadline_s=` go with
    any call. In async code use `await memory.execute(...)`, or an `Engine`.
    """

    episodic: Layer
    semantic: Layer
    procedural: Layer
    prospective: Layer
    graph: Layer
    meta: Layer
    consolidation: Layer
    rag: Layer
    discovery: Layer
    session: Layer

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="memlab-loop", daemon=True)
        self._thread.start()
        self._closed = False
        for name, help in layers():
            setattr(self, name, Layer(name, help, self.call))

    @classmethod
    def open(
        cls,
        path: str | Path,
        settings: Settings | Mapping[str, Any] | None = None,
        embedder: Embedder | None = None,
        *,
        create: bool = True,
        recorder: Recorder | None = None,
        hooks: Hooks | None = None,
    ) -> Memory:
        """Open or create the memory at *path*; arguments and errors as for `Engine.open`."""
        if settings is not None and not isinstance(settings, Settings):
            settings = Settings.of(settings)
        return cls(Engine.open(path, settings, embedder, create=create, recorder=recorder, hooks=hooks))

    def call(self, operation: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Execute one operation and return its value; *options* as for `Engine.execute`."""
        return self._bridge(operation, parameters, options).value

    async def execute(self, operation: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> Response:
        """Execute one operation from a running event loop and return its response; *options* as for `Engine.execute`."""
        self._check_open()
        future = asyncio.run_coroutine_threadsafe(self.engine.execute(operation, parameters, **options), self._loop)
        return await asyncio.wrap_future(future)

    def _bridge(self, operation: str, parameters: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Response:
        self._check_open()
        return asyncio.run_coroutine_threadsafe(self.engine.execute(operation, parameters, **options), self._loop).result()

    def _check_open(self) -> None:
        if self._closed:
            raise validation("closed", "this memory is closed; open it again with Memory.open")

    def statistics(self) -> dict[str, Any]:
        """Return the counts of every part that is on."""
        return self.engine.statistics()

    def close(self) -> None:
        """Finish what runs and close; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self.engine.drain(), self._loop).result()
        self.engine.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _method(declared: Operation, call: Callable[..., Any]) -> Callable[..., Any]:
    signature = declared.signature
    names = list(signature.parameters)
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter("session", keyword, default=DEFAULT_SESSION, annotation=str)]
    options.append(inspect.Parameter("deadline_s", keyword, default=None, annotation="float | None"))
    if not declared.reads:
        options.append(inspect.Parameter("idempotency_key", keyword, default=None, annotation="str | None"))
    allowed = {option.name for option in options}

    def method(*values: Any, **given: Any) -> Any:
        if len(values) > len(names):
            raise validation("type", f"{declared.name} takes at most {len(names)} parameters: {', '.join(names)}")
        chosen = {name: given.pop(name) for name in allowed & given.keys()}
        parameters = dict(zip(names, values, strict=False))
        for name in given.keys() & parameters.keys():
            raise validation("type", f"{declared.name}: {name} was given twice")
        return call(declared.name, parameters | given, **chosen)

    method.__name__ = declared.name.partition(".")[2]
    method.__qualname__ = declared.name
    method.__doc__ = declared.plan.__doc__
    method.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *options])  # type: ignore[attr-defined]
    return method
