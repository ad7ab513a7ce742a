"""The user's own models, where memlab uses none: functions given when a memory is opened.

A hook runs in the thread of a read and may take as long as it likes; it must not call the memory that asks it. Its answers
are kept by the cache like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from memlab.errors import MemlabError, internal, validation

log = structlog.get_logger(__name__)

MAX_HYPOTHETICAL = 65_536  # characters of what `expand` returns
MAX_SUMMARY = 16_384  # of what `summarise` returns: it becomes a memory


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Functions that stand in where a named algorithm would; each may be left out.

    Attributes:
        expand: from a question to a text that could answer it (HyDE); its vector then searches beside the question's.
        rerank: from a question and texts to one finite score for each, higher is better; a cross-encoder.
        summarise: from texts to one shorter text.

    >>> Hooks(expand=str.upper).ask("expand", ("tea",))
    'TEA'
    """

    expand: Callable[[str], str] | None = None
    rerank: Callable[[str, Sequence[str]], Sequence[float]] | None = None
    summarise: Callable[[Sequence[str]], str] | None = None

    def __post_init__(self) -> None:
        for name in _CHECKS:
            given = getattr(self, name)
            if given is not None and not callable(given):
                raise validation("hook", f"the hook {name} is {type(given).__name__}; give a function")

    def has(self, name: str) -> bool:
        """Return whether a hook was given."""
        return getattr(self, name) is not None

    def ask(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Return what a hook answers, checked.

        Raises:
            MemlabError: VALIDATION `hook`: none was given; INTERNAL `hook`: it failed, or its answer does not fit.
        """
        hook = getattr(self, name)
        if hook is None:
            raise validation("hook", f"no hook '{name}' was given; open the memory with hooks=Hooks({name}=...)", hook=name)
        try:
            answer = hook(*arguments)
            complaint = _CHECKS[name](answer, arguments)
        except MemlabError as error:
            raise internal("hook", f"the hook {name} failed: {error.text.splitlines()[0]}", hook=name) from error
        except Exception as error:
            log.exception("hook_failed", hook=name)
            raise internal(
                "hook", f"the hook {name} failed: {type(error).__name__}; the log holds the trace", hook=name
            ) from error
        if complaint is not None:
            raise internal("hook", f"the hook {name} {complaint}", hook=name)
        return [float(score) for score in answer] if name == "rerank" else answer


def _text(answer: Any, _: tuple[Any, ...], *, most: int) -> str | None:
    if not isinstance(answer, str):
        return f"returned {type(answer).__name__}; it must return text"
    if not answer.strip() or len(answer) > most:
        return f"returned {len(answer):,} characters; 1 to {most:,} fit, not all blank"
    try:
        answer.encode()
    except UnicodeEncodeError:
        return "returned what is not valid Unicode: it holds a lone surrogate"
    return None


def _scores(answer: Any, arguments: tuple[Any, ...]) -> str | None:
    wanted = len(arguments[1])
    if isinstance(answer, (str, bytes)) or not hasattr(answer, "__len__"):
        return f"returned {type(answer).__name__}; it must return one number for each text"
    if len(answer) != wanted:
        return f"returned {len(answer)} scores for {wanted} texts; it must return one for each"
    if not all(math.isfinite(float(score)) for score in answer):
        return "returned a score that is not a finite number"
    return None


_CHECKS: dict[str, Callable[[Any, tuple[Any, ...]], str | None]] = {
    "expand": partial(_text, most=MAX_HYPOTHETICAL),
    "rerank": _scores,
    "summarise": partial(_text, most=MAX_SUMMARY),
}
