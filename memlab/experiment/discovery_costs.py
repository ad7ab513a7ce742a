"""What it costs to be told of every operation, at each level of detail: time, bytes, tokens, memory."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from memlab.experiment.load import Execute
from memlab.measure import clock
from memlab.measure.recorder import Recorder, Sample
from memlab.operations import discovery, registry
from memlab.values import DEFAULT_SESSION

LEVELS: tuple[str, ...] = get_args(registry.Detail)
_ALL = 200  # operations asked for: more than there are

# As GPT-2's tokenizer divides text before it looks into its vocabulary: words, numbers and runs of signs, each with the blank
# before it. Every such piece is one token or more, in its vocabulary and in those that came after it.
_PIECES = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+")


def tokens(text: str) -> int:
    """Return of how many tokens a text is at least: a language model's own tokenizer divides long words further.

    >>> tokens('{"name":"episodic.recall"}')
    7
    """
    return len(_PIECES.findall(text))


async def measure(execute: Execute, recorder: Recorder, *, parts: int, calls: int) -> dict[str, dict[str, Any]]:
    """Ask for every operation at each level of detail, in turn, and record the calls with the level as their setting.

    Args:
        calls: of each level in a part.
    Returns:
        By level: operations, json_bytes and tokens of the answer; kept_bytes, what Python keeps after the first call, since the
        cards are made once; peak_bytes, what it takes meanwhile in a later call, and gives back.
    """
    found = {level: await _weigh(execute, level) for level in LEVELS}
    for part in range(parts):
        for _ in range(calls):
            for level in LEVELS:
                started = clock.monotonic_ns()
                await execute("discovery.search", _asked(level), session=DEFAULT_SESSION)
                took = clock.monotonic_ns() - started
                recorder.add(Sample("discovery.search", "", started, started, started + took, setting=level, repeat=part))
    return found


async def _weigh(execute: Execute, level: str) -> dict[str, Any]:
    discovery.card.cache_clear()
    registry.schema.cache_clear()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        value = (await execute("discovery.search", _asked(level), session=DEFAULT_SESSION)).value
        answer = msgspec.json.encode(value, enc_hook=list)
        count = len(value)
        del value
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        again = await execute("discovery.search", _asked(level), session=DEFAULT_SESSION)
        del again
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return {
        "operations": count,
        "json_bytes": len(answer),
        "tokens": tokens(answer.decode()),
        "kept_bytes": max(kept - before - len(answer), 0),
        "peak_bytes": max(peak - kept, 0),
    }


def _asked(level: str) -> Mapping[str, Any]:
    return {"detail": level, "limit": _ALL}
