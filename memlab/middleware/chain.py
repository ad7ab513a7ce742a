"""How the pieces around an engine fit together.

Two shapes of handler meet at `batch`: outside it travels one request at a time, inside it a group that is executed together.

    observe ▸ cache ▸ resident ▸ │ batch or alone │ ▸ pool ▸ run
    Handler: one request          └ the seam ┘      GroupHandler: a group of them

The order is a decision: `observe` times what the caller feels; a cache hit takes no place in a batch or the pool; so does
an answer whose rows are in memory; a whole batch takes one place in the pool.

A handler returns or raises only when its call can have no further effect. A write that was sent and whose caller is then
cancelled is waited for (`settle`) before the cancellation goes on: otherwise it could land after the cache has looked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from memlab.errors import MemlabError, timeout
from memlab.values import Request, Response

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
Middleware: TypeAlias = Callable[[Handler], Handler]
Outcome: TypeAlias = Response | MemlabError
GroupHandler: TypeAlias = Callable[[Sequence[Request]], Awaitable[list[Outcome]]]
GroupMiddleware: TypeAlias = Callable[[GroupHandler], GroupHandler]
Seam: TypeAlias = Callable[[GroupHandler], Handler]


def chain(
    engine: GroupHandler, *, outside: Sequence[Middleware] = (), seam: Seam, inside: Sequence[GroupMiddleware] = ()
) -> Handler:
    """Wrap *engine*; the first middleware listed is the outermost of its side.

    Args:
        engine: executes a group: all reads or all writes; one outcome for each request, errors as values.
        outside: middleware that sees one request at a time.
        seam: `batch(...)`, or `alone` where nothing is coalesced.
        inside: middleware that sees whole groups.
    """
    for wrap_group in reversed(inside):
        engine = wrap_group(engine)
    handler = seam(engine)
    for wrap in reversed(outside):
        handler = wrap(handler)
    return handler


def alone(engine: GroupHandler) -> Handler:
    """Execute every request as a group of one."""

    async def handle(request: Request) -> Response:
        (outcome,) = await engine((request,))
        if isinstance(outcome, MemlabError):
            raise outcome
        return outcome

    return handle


async def settle(work: asyncio.Future[Any]) -> None:
    """Wait until *work* has ended, well or badly, however often the caller is cancelled meanwhile."""
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError:
            continue
    if not work.cancelled():
        work.exception()  # now it counts as seen, and the event loop does not warn of it


def too_late(request: Request) -> MemlabError:
    """Return the error of a call whose deadline passed before it was executed."""
    return timeout("deadline", f"{request.operation}: its deadline passed while it waited; allow more time, or send less")


def too_little_time(request: Request) -> MemlabError:
    """Return the error of a call whose deadline would pass while it was executed."""
    return timeout(
        "deadline", f"{request.operation}: too little time is left to answer before its deadline; allow more time, or send less"
    )
