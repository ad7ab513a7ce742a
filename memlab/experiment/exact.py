"""Recall@10 in the lane that is timed: what searches answered, against exact search over the same rows.

The rows are a copy of the database with a flat index and no middleware. After a lane its writes are repeated there in the
order of their acknowledgement, and between them the judged searches in the order of their sending, so each is compared with
the rows that it was bound to see.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from typing import Any, get_origin

from memlab.errors import MemlabError
from memlab.experiment.load import Execute, Sent
from memlab.measure.recorder import Sample
from memlab.operations.registry import Operation, lookup
from memlab.values import Table
from memlab.workload.mix import Call

K = 10
_MARGIN = 10  # further exact answers, for those that tie with the last
_SAME = 1e-5  # scores of the same row differ by rounding between kinds of index


def can_be_judged(operation: Operation) -> bool:
    """Return whether its answers are a list of best matches for a query."""
    lists = get_origin(operation.result_type) is Table
    return operation.reads and lists and {"query", "limit"} <= set(operation.parameters_type.__struct_fields__)


async def recall_of(execute: Execute, calls: Sequence[Call], sent: Sequence[Sent]) -> dict[int, float]:
    """Repeat a lane's writes on the exact copy, and return the recall@10 of each judged search by position.

    Rows whose writing overlapped a search in time count for neither side. Where fewer than ten rows exist, those count; a
    search for fewer than ten is not judged.

    Args:
        execute: of the exact copy.
        calls, sent: of the lane.
    """
    writes = [one for one in sent if not lookup(calls[one.position].operation).reads and one.sample.outcome in ("ok", "unknown")]
    steps = sorted([*writes, *(one for one in sent if one.value is not None)], key=lambda one: _moment(one, calls))
    recalls: dict[int, float] = {}
    # Neighbours of one kind go together: one transaction, or one search for many, where the copy batches.
    for reads, group in itertools.groupby(steps, key=lambda one: lookup(calls[one.position].operation).reads):
        if not reads:
            await _write(execute, [calls[one.position] for one in group])
            continue
        asked = list(group)
        judged = await asyncio.gather(
            *(_judge(execute, calls[one.position], one.value, _overlapping(one, writes, calls)) for one in asked)
        )
        recalls |= {one.position: recall for one, recall in zip(asked, judged, strict=True) if recall is not None}
    return recalls


def _overlapping(read: Sent, writes: Sequence[Sent], calls: Sequence[Call]) -> set[Any]:
    """Return the contents whose writing overlapped a search in time, or may still come."""
    return {
        calls[write.position].parameters.get("content")
        for write in writes
        if write.sample.outcome == "unknown" or _overlap(write.sample, read.sample)
    }


def _moment(one: Sent, calls: Sequence[Call]) -> int:
    return one.sample.started_ns if lookup(calls[one.position].operation).reads else one.sample.finished_ns


def _overlap(write: Sample, read: Sample) -> bool:
    return write.started_ns < read.finished_ns and write.finished_ns > read.started_ns


async def _write(execute: Execute, group: Sequence[Call]) -> None:
    """Repeat writes, all at once."""
    outcomes = await asyncio.gather(
        *(execute(call.operation, call.parameters, session=call.session) for call in group), return_exceptions=True
    )
    for outcome in outcomes:
        # Ids of what the lane itself stored are others here; what it then did to them cannot be repeated.
        if isinstance(outcome, BaseException) and not isinstance(outcome, MemlabError):
            raise outcome


async def _judge(execute: Execute, call: Call, found: Any, overlapping: set[Any]) -> float | None:
    limit = call.parameters.get("limit", K)
    if limit < K:
        return None
    answers = [(item.id, item.content) for item in found]
    exact = await _ask(execute, call, limit)
    recall = recall_by_score(answers, exact, overlapping)
    if recall is None or recall == 1.0:
        return recall
    # Perhaps only another choice among ties: look beyond the last, where that does not change what is before it. (A hybrid
    # search looks deeper into both its lists when more is asked of it.)
    longer = await _ask(execute, call, limit + _MARGIN)
    if [content for content, _ in longer[: len(exact)]] == [content for content, _ in exact]:
        return recall_by_score(answers, longer, overlapping)
    return recall


async def _ask(execute: Execute, call: Call, limit: int) -> list[tuple[str, float]]:
    response = await execute(call.operation, call.parameters | {"limit": limit}, session=call.session)
    return [(item.content, -math.inf if item.score is None else item.score) for item in response.value]


def recall_by_score(
    found: Sequence[tuple[str, str]], exact: Sequence[tuple[str, float]], left_out: set[Any] | frozenset[Any] = frozenset()
) -> float | None:
    """Return the share of the ten best answers that were found; None where there are none.

    An answer counts by its exact score: whatever scores as the tenth best does is as good as it. Answers are told by their
    content, since ids of later rows differ between copies; equal contents are equally good.

    Args:
        found: id and content, best first.
        exact: content and score of exact search, best first, and some beyond the tenth.
        left_out: contents that count for neither.

    >>> recall_by_score([("1", "a"), ("2", "x")], [("a", 0.9), ("b", 0.8)])
    0.5
    """
    distinct = list(dict(found).items())[:K]
    answers = [content for _, content in distinct if content not in left_out]
    truth = [(content, score) for content, score in exact if content not in left_out]
    wanted = min(K - (len(distinct) - len(answers)), len(truth))
    if wanted <= 0:
        return None
    last = truth[wanted - 1][1]
    good = {content for content, score in truth if score >= last - _SAME * max(abs(last), 1e-9)}
    return min(sum(content in good for content in answers), wanted) / wanted
