"""Numbers that may stand in a guide: each knows the run that it comes from.

A template says `{cut:.2f}`; what fills it must be a `Figure`, read from a run. On the way to the reader:

    template ──write──▸ marked text ──check──▸ the same, or an error ──cite──▸ Markdown
                        every figure between                           every figure followed by
                        marks, with its runs                           a link to its run

`check` reads the finished text, not the template: a digit outside the marks that no declared exception explains, a run that
nobody knows, or one that is older than the code it speaks of, fails the build.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from memlab.errors import not_found, validation

if TYPE_CHECKING:
    from memlab.experiment.results import Run

Value: TypeAlias = int | float | str | None

# Private-use characters stand around every figure and every mention of a run, so that no text can imitate them.
_OPEN, _SOURCE, _CLOSE, _NAMED = "\ue000", "\ue001", "\ue002", "\ue003"
_FIGURE = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_SOURCE}([^{_OPEN}{_CLOSE}]+){_CLOSE}")
_RUN = re.compile(f"{_NAMED}(=?)([^{_NAMED}]*){_NAMED}")
_BESIDE = "\u202f"  # narrow no-break space between a number and its unit

EXCEPTIONS: Mapping[str, str] = {
    r"\b95 % (?:interval|confidence)": "the level of every interval: stats.CONFIDENCE, not a measurement",
    r"\bp(?:50|95|99)\b": "the name of a percentile",
    r"\brecall@10\b": "the name of a measure",
    r"\b(?:sq8|fp16|model2vec|w_tinylfu)\b": "the name of a setting's value",
    r"^#+ .*\{#[\w-]+\}$": "the address of a heading",
    r"\]\([\w./-]+\.svg\)": "the file of a chart",
    r"\b(?:0[1-9]|[12][0-9]|3[01])-[a-z-]+(?:/[0-9a-f]+)?": "the name of an experiment",
    r"<(?:https?|doi):[^>]+>": "an address",
}
"""What may hold digits in a guide without being a figure, and why."""


class Reading(msgspec.Struct, frozen=True, tag="reading"):
    """A number with its 95 % interval.

    `format` takes a number's format, with `±` at its end for the interval.

    >>> format(Reading(0.42, low=0.4, high=0.45), ".2f±")
    '0.42 (0.40 to 0.45)'
    """

    value: Value
    unit: str = ""
    low: float | None = None
    high: float | None = None

    def __format__(self, spec: str) -> str:
        return _formatted(self, spec)

    def __str__(self) -> str:
        return _formatted(self, "")


class Figure(msgspec.Struct, frozen=True, tag="figure"):
    """A number, or a fact, that was read from a run.

    Attributes:
        value: None where the run has too few samples to say.
        runs: identities of the runs that it comes from; one at least.
        unit: follows the number.
        low, high: its 95 % interval, where it has one.
        path: where it stands in the run's document; the build reads it there again. None where it was derived.

    >>> format(Figure(12.34, ("01-cache-size/3f",), "ms"), ".1f")
    '12.3\u202fms'
    """

    value: Value
    runs: tuple[str, ...]
    unit: str = ""
    low: float | None = None
    high: float | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if not self.runs or not all(self.runs):
            raise validation("no_run", f"figure {self.value!r} has no run; read it from one with Figure.of")

    @classmethod
    def of(cls, run: Run, path: str, unit: str = "") -> Figure:
        """Return what stands at *path* of the run's document, such as `summary.candidate.p95_ms`.

        Raises:
            MemlabError: NOT_FOUND, reason `figure`: nothing stands there.
        """
        value, low, high = read(run, path)
        return cls(value, (run.id,), unit, low, high, path)

    def __format__(self, spec: str) -> str:
        return _formatted(self, spec)

    def __str__(self) -> str:
        return _formatted(self, "")


def _formatted(figure: Figure | Reading, spec: str) -> str:
    interval = spec.endswith("±")
    spec = spec.removesuffix("±")
    if figure.value is None:
        return "too few samples"
    number = _number(figure.value, spec)
    text = f"{number}{_BESIDE}{figure.unit}" if figure.unit else number
    if interval and figure.low is not None and figure.high is not None:
        text += f" ({_number(figure.low, spec)} to {_number(figure.high, spec)})"
    return text


def _number(value: Value, spec: str) -> str:
    return format(value, "" if isinstance(value, str) else spec)


_REFUSE: Any = object()


def read(run: Run, path: str, *, missing: Any = _REFUSE) -> tuple[Value, float | None, float | None]:
    """Return what stands at *path* of the run's document: a value, and its interval where it has one.

    Args:
        missing: the value where nothing stands; default: an error.
    Raises:
        MemlabError: NOT_FOUND, reason `figure`.
    """
    here: Any = run.to_dict()
    rest = path
    while rest and isinstance(here, Mapping):
        # Keys may hold dots themselves (`parameters.cache.max_entries`): the longest key that fits is taken.
        key = next((key for key in sorted(here, key=len, reverse=True) if rest == key or rest.startswith(f"{key}.")), None)
        if key is None:
            break
        here, rest = here[key], rest[len(key) + 1 :]
    if isinstance(here, Mapping) and not rest and "value" in here:
        return here["value"], here.get("low"), here.get("high")
    if rest or isinstance(here, (Mapping, list, tuple)):
        if missing is _REFUSE:
            raise not_found("figure", f"run {run.id} holds no figure at '{path}'")
        return missing, None, None
    return here, None, None


def mark(figure: Figure, spec: str = "") -> str:
    """Return the figure as text between marks."""
    return f"{_OPEN}{format(figure, spec)}{_SOURCE}{' '.join(figure.runs)}{_CLOSE}"


def name_run(run: str, *, here: bool = False) -> str:
    """Return the mention of a run itself, marked: its short key, as a link, or with *here* what the links lead to.

    In a row of a table, a paragraph, or a line of code, that names its run, figures of that run need no citation of their own.
    """
    return f"{_NAMED}{'=' if here else ''}{run}{_NAMED}"


class _Writer(string.Formatter):
    """Fills a template; a bare number is refused on the way in."""

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if key not in kwargs:
            raise validation("template", f"the template asks for {{{key}}}, which it was not given")
        return kwargs[str(key)]

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Figure):
            return mark(value, format_spec)
        if isinstance(value, str) and not format_spec:
            return value
        raise validation("bare_number", f"{value!r} has no run and cannot stand in a guide; give a Figure read from a run")


def write(template: str, **values: Figure | str) -> str:
    """Return the template filled: figures between marks, other texts as they are.

    Raises:
        MemlabError: VALIDATION, reason `bare_number`: something other than a Figure or a text was given;
            reason `template`: a name is missing.
    """
    return _Writer().vformat(template, (), values)


def plain(marked: str) -> str:
    """Return marked text as a reader without links would see it."""
    return _RUN.sub(lambda found: found[2], _FIGURE.sub(lambda found: found[1], marked))


class Source(NamedTuple):
    """What the check needs to know of a run."""

    id: str
    is_current: bool


def check(marked: str, sources: Mapping[str, Source]) -> None:
    """Refuse a text with a number that has no run, or whose run is unknown or older than the code.

    Args:
        sources: runs by their identity.
    Raises:
        MemlabError: VALIDATION, reason `bare_number`, `unknown_run` or `stale_run`; all places are named.
    """
    cited = list(dict.fromkeys(_cited(marked)))
    unknown = [run for run in cited if run not in sources]
    if unknown:
        raise validation("unknown_run", f"the guide cites runs that are not in the results: {', '.join(unknown)}")
    stale = [run for run in cited if not sources[run].is_current]
    if stale:
        raise validation(
            "stale_run",
            f"the code has changed since these runs were made: {', '.join(stale)}; run the sweep again, then the guide",
            runs=stale,
        )
    bare = []
    for number, line in enumerate(marked.splitlines(), 1):
        rest = _RUN.sub("", _FIGURE.sub("", line))
        for pattern in EXCEPTIONS:
            rest = re.sub(pattern, "", rest)
        if re.search(r"\d", rest):
            bare.append(f"line {number}: {plain(line).strip()[:160]}")
    if bare:
        raise validation("bare_number", "the guide holds numbers without a run: " + "; ".join(bare))


def _cited(marked: str) -> Iterable[str]:
    for found in _FIGURE.finditer(marked):
        yield from found[2].split()
    for found in _RUN.finditer(marked):
        yield found[2]


def cited(marked: str) -> list[str]:
    """Return the runs that a text cites, in order of first mention."""
    return list(dict.fromkeys(_cited(marked)))


def short_keys(runs: Iterable[str]) -> dict[str, str]:
    """Return each run's key cut to as few characters as tell it apart from the others; four at least.

    >>> short_keys(["a/123456", "b/123499"])
    {'a/123456': '12345', 'b/123499': '12349'}
    """
    keys = {run: run.rpartition("/")[2] for run in runs}
    length = 4
    while len({key[:length] for key in keys.values()}) < len(set(keys.values())):
        length += 1
    return {run: key[:length] for run, key in keys.items()}


class Style(NamedTuple):
    """How a document names runs.

    Attributes:
        after: what follows a figure, given the identities of its runs.
        mention: how a run itself is named.
        define: what such names lead to.
        in_code: how a run is named inside a block of code.
    """

    after: Callable[[Sequence[str]], str]
    mention: Callable[[str], str]
    define: Callable[[str], str]
    in_code: Callable[[str], str]


def cite(marked: str, style: Style) -> str:
    """Return the text with its marks turned into citations; a row, paragraph or line of code that names its run says so for all.

    Raises:
        MemlabError: VALIDATION, reason `bare_number`: a line of code has a figure and does not name its run.
    """
    lines = []
    code = False
    for line in marked.splitlines():
        fence = line.startswith("```")
        code = code != fence
        named = {run for _, run in _RUN.findall(line)}

        def follow(found: re.Match[str], code: bool = code, named: set[str] = named) -> str:
            runs = [run for run in found[2].split() if run not in named]
            if runs and code:
                raise validation("bare_number", f"{found[1]} stands in code that does not name its run {runs[0]}")
            return found[1] + (style.after(runs) if runs else "")

        def call(found: re.Match[str], code: bool = code) -> str:
            return style.in_code(found[2]) if code else style.define(found[2]) if found[1] else style.mention(found[2])

        lines.append(_RUN.sub(call, _FIGURE.sub(follow, line)))
    return "\n".join(lines) + "\n"
