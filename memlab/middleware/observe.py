"""What the caller feels: how often, how long, and how it ended, counted by operation and told to a recorder."""

from __future__ import annotations

import secrets
from collections import Counter
from typing import Protocol

import structlog

from memlab.errors import ErrorType, MemlabError
from memlab.measure.clock import SYSTEM, Clock
from memlab.middleware.chain import Handler
from memlab.values import Request, Response

_log = structlog.get_logger(__name__)

# Times fall into buckets with eight steps to every doubling, so a percentile is at most 1/8 too high. 2**44 ns are 4.9 hours.
_STEPS = 8
_BITS = 3
_LONGEST_NS = (1 << 44) - 1


class Recorder(Protocol):
    """Takes one finished call: exactly one of *response* and *error* is given; times are of the monotonic clock."""

    def __call__(
        self, request: Request, started_ns: int, finished_ns: int, response: Response | None, error: BaseException | None
    ) -> None: ...


class Observe:
    """Times every call, counts it by operation, and tells *recorder* where there is one.

    A failure of memlab itself (INTERNAL) is logged at debug level with an opaque `error_id`, which also stands in the error's
    fields. The line says which operation and why, never a memory, a query or a session.
    """

    def __init__(self, recorder: Recorder | None = None, clock: Clock = SYSTEM) -> None:
        self._recorder = recorder
        self._clock = clock
        self._tallies: dict[str, _Tally] = {}

    def __call__(self, inner: Handler) -> Handler:
        """Return *inner*, observed."""
        tallies, recorder, monotonic_ns = self._tallies, self._recorder, self._clock.monotonic_ns

        async def handle(request: Request) -> Response:
            started = monotonic_ns()
            try:
                response = await inner(request)
            except BaseException as error:
                finished = monotonic_ns()
                self._failed(request, error, finished - started)
                if recorder is not None:
                    recorder(request, started, finished, None, error)
                raise
            finished = monotonic_ns()
            tally = tallies.get(request.operation) or self._tally(request.operation)
            if response.cached:
                tally.cached += 1
            tally.batched += response.batch_size
            tally.buckets[_bucket(finished - started)] += 1
            if recorder is not None:
                recorder(request, started, finished, response, None)
            return response

        return handle

    def statistics(self) -> dict[str, float | int]:
        """Return the totals: calls, failed, cached."""
        tallies = list(self._tallies.values())
        return {
            "calls": sum(sum(tally.buckets) for tally in tallies),
            "failed": sum(sum(tally.failures.values()) for tally in tallies),
            "cached": sum(tally.cached for tally in tallies),
        }

    def by_operation(self) -> dict[str, dict[str, float | int]]:
        """Return by operation: calls, cached, mean_batch_size, p50_ms, p95_ms, p99_ms, and `failed_<type>` where any failed.

        Failed calls count in `calls` and in the times; the times are upper ends of buckets, at most an eighth too high.
        """
        return {name: tally.summary() for name, tally in sorted(self._tallies.items())}

    def _tally(self, operation: str) -> _Tally:
        return self._tallies.setdefault(operation, _Tally())

    def _failed(self, request: Request, error: BaseException, took_ns: int) -> None:
        tally = self._tally(request.operation)
        tally.buckets[_bucket(took_ns)] += 1
        if isinstance(error, MemlabError):
            tally.failures[error.type.value] += 1
        else:
            tally.failures[ErrorType.INTERNAL.value if isinstance(error, Exception) else "cancelled"] += 1
        if isinstance(error, Exception) and (not isinstance(error, MemlabError) or error.type is ErrorType.INTERNAL):
            error_id = secrets.token_hex(8)
            reason = type(error).__name__
            if isinstance(error, MemlabError):
                reason = error.reason
                error_id = str(error.fields.setdefault("error_id", error_id))
            _log.debug("call failed", operation=request.operation, reason=reason, error_id=error_id)


class _Tally:
    """The counters of one operation."""

    __slots__ = ("batched", "buckets", "cached", "failures")

    def __init__(self) -> None:
        self.cached = 0
        self.batched = 0
        self.failures: Counter[str] = Counter()
        self.buckets = [0] * (_bucket(_LONGEST_NS) + 1)

    def summary(self) -> dict[str, float | int]:
        calls, failed = sum(self.buckets), sum(self.failures.values())
        return {
            "calls": calls,
            "cached": self.cached,
            "mean_batch_size": self.batched / (calls - failed) if calls > failed else 0.0,
            **{f"p{share}_ms": self._percentile_ms(share / 100, calls) for share in (50, 95, 99)},
            **{f"failed_{kind}": count for kind, count in sorted(self.failures.items())},
        }

    def _percentile_ms(self, share: float, calls: int) -> float:
        rank = share * calls
        seen = 0
        for index, count in enumerate(self.buckets):
            seen += count
            if seen >= rank and seen:
                return _upper_ns(index) / 1e6
        return 0.0


def _bucket(ns: int) -> int:
    """Return the bucket of a time.

    >>> _bucket(7), _bucket(16), _bucket(17), _bucket(18)
    (7, 16, 16, 17)
    """
    if ns > _LONGEST_NS:
        ns = _LONGEST_NS
    shift = ns.bit_length() - _BITS - 1
    return ns if shift <= 0 else shift * _STEPS + (ns >> shift)


def _upper_ns(index: int) -> int:
    """Return the longest time that falls into a bucket.

    >>> _upper_ns(_bucket(1_000_000)) / 1e6
    1.048575
    """
    shift = index // _STEPS - 1
    return index if shift <= 0 else ((index % _STEPS + _STEPS + 1) << shift) - 1


def observe(recorder: Recorder | None = None, clock: Clock = SYSTEM) -> Observe:
    """Return the outermost middleware: it times what the caller feels."""
    return Observe(recorder, clock)
