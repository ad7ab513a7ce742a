"""What a params file says of the traffic, checked once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, field

import memlab.operations  # noqa: F401  declares every operation
from memlab.errors import nearest, validation
from memlab.operations.registry import lookup, operations
from memlab.workload import arrivals
from memlab.workload.arrivals import Offsets
from memlab.workload.trace import load as load_trace

S = TypeVar("S", bound=msgspec.Struct)
Seconds = Annotated[float, Meta(gt=0.0, le=86_400.0)]
Rate = Annotated[float, Meta(gt=0.0, le=100_000.0)]
Clients = Annotated[int, Meta(ge=1, le=10_000)]
_MOST_ARRIVALS = 1_000_000


class CorpusSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of the generated corpus; real conversations stand in its place where their folder is given."""

    events: Annotated[int, Meta(ge=1, le=1_000_000)] = 5_000
    sessions: Annotated[int, Meta(ge=1, le=10_000)] = 8
    questions: Annotated[int, Meta(ge=1, le=100_000)] = 400


class PopularitySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How questions are asked again.

    Attributes:
        zipf: exponent of Zipf's law.
        trace: in its place, the order of a recorded access trace (parquet, column `key`).
    """

    zipf: Annotated[float, Meta(ge=0.0, le=5.0)] = 1.0
    trace: str | None = None


class ArrivalsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When calls are due.

    Attributes:
        kind: open loops `constant`, `poisson`, `trace`; or `closed`.
        rate_per_s: of an open loop; a trace is stretched to it, or keeps its own without.
        clients: of a closed loop.
        path: of a trace (parquet, column `at_s`).
    """

    kind: Literal["constant", "poisson", "trace", "closed"] = "poisson"
    rate_per_s: Rate | None = None
    clients: Clients | None = None
    path: str | None = None


class BesideSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A closed loop measured after each open one: what the setting can do at most."""

    clients: Clients = 32
    duration_s: Seconds = 0.5
    warm_up_s: Annotated[float, Meta(ge=0.0, le=3_600.0)] = 0.1


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The traffic of one measurement.

    Attributes:
        corpus: what is in memory when it begins.
        mix: weights of operations.
        parameters: fixed parameters by operation; the rest is made up from the corpus.
        popularity: which question is asked next.
        arrivals: when calls are due.
        duration_s: measured time of one repeat.
        warm_up_s: time before it, in every repeat; its samples are kept and marked.
        deadline_s: seconds from when a call is due after which its answer is of no use.
        beside: a closed loop after each open one.
        recall_samples: searches of one run whose answers are compared with those of exact search; 0 for none.

    >>> workload({"mix": {"episodic.recall": 1}, "arrivals": {"rate_per_s": 200}}).arrivals.kind
    'poisson'
    """

    corpus: CorpusSpec = CorpusSpec()
    mix: dict[str, Annotated[float, Meta(ge=0.0, le=1e9)]] = field(default_factory=lambda: {"episodic.recall": 1.0})
    parameters: dict[str, dict[str, Any]] = {}
    popularity: PopularitySpec = PopularitySpec()
    arrivals: ArrivalsSpec = ArrivalsSpec(rate_per_s=100.0)
    duration_s: Seconds = 1.0
    warm_up_s: Annotated[float, Meta(ge=0.0, le=3_600.0)] = 0.3
    deadline_s: Seconds = 5.0
    beside: BesideSpec | None = None
    recall_samples: Annotated[int, Meta(ge=0, le=10_000)] = 40

    @property
    def is_open(self) -> bool:
        """Whether arrivals do not wait for answers."""
        return self.arrivals.kind != "closed"

    @property
    def writes(self) -> bool:
        """Whether anything is changed while it is measured."""
        return any(weight > 0 and not lookup(name).reads for name, weight in self.mix.items())

    @property
    def files(self) -> dict[str, str]:
        """The files that it names, by dotted key."""
        named = {"popularity.trace": self.popularity.trace, "arrivals.path": self.arrivals.path}
        return {key: path for key, path in named.items() if path is not None}

    def resolved(self, folder: Path) -> Workload:
        """Return it with the paths of its files taken from *folder* on."""
        popularity, arrivals = self.popularity, self.arrivals
        if popularity.trace is not None:
            popularity = msgspec.structs.replace(popularity, trace=str(folder / popularity.trace))
        if arrivals.path is not None:
            arrivals = msgspec.structs.replace(arrivals, path=str(folder / arrivals.path))
        return msgspec.structs.replace(self, popularity=popularity, arrivals=arrivals)

    def due(self, seed: int) -> Offsets | None:
        """Return when each call is due, from the beginning of the warm-up; None for a closed loop.

        Raises:
            MemlabError: VALIDATION `trace`: of arrivals that are recorded.
        """
        total_s = self.warm_up_s + self.duration_s
        made = self.arrivals
        match made.kind:
            case "constant":
                return arrivals.constant(made.rate_per_s or 1.0, total_s)
            case "poisson":
                return arrivals.poisson(made.rate_per_s or 1.0, total_s, seed)
            case "trace":
                return arrivals.replay(load_trace(made.path or "").offsets(), total_s, seed, rate_per_s=made.rate_per_s)
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def workload(values: Mapping[str, Any]) -> Workload:
    """Return the workload that *values* describe.

    Args:
        values: as in a params file; dotted keys (`arrivals.rate_per_s`) are welcome at the top.
    Raises:
        MemlabError: VALIDATION, reason `workload`, `unknown_operation` or `unknown_parameter`: what does not fit, and what would.
    """
    made = decode(Workload, nest(values), "workload")
    _check_mix(made)
    arrivals = made.arrivals
    if arrivals.kind == "closed":
        if arrivals.clients is None:
            raise validation("workload", "workload.arrivals: a closed loop needs clients, such as {kind: closed, clients: 32}")
        if made.beside is not None:
            raise validation("workload", "workload.beside: the closed loop beside an open one; arrivals are closed already")
        return made
    if arrivals.clients is not None:
        raise validation("workload", f"workload.arrivals: clients belong to kind closed, not {arrivals.kind}")
    if (arrivals.path is None) == (arrivals.kind == "trace"):
        raise validation("workload", "workload.arrivals: path goes with kind trace, and kind trace needs a path")
    if arrivals.rate_per_s is None:
        if arrivals.kind != "trace":
            raise validation("workload", f"workload.arrivals: kind {arrivals.kind} needs rate_per_s")
    elif arrivals.rate_per_s * (made.duration_s + made.warm_up_s) > _MOST_ARRIVALS:
        raise validation(
            "workload", f"workload: more than {_MOST_ARRIVALS:,} arrivals in one repeat; lower rate_per_s or duration_s"
        )
    return made


def _check_mix(made: Workload) -> None:
    known = [one.name for one in operations()]
    for name in made.mix:
        if name not in known:
            raise validation("unknown_operation", f"workload.mix: no operation '{name}'{nearest(name, known)}")
    if not any(made.mix.values()):
        raise validation("workload", "workload.mix: give an operation a weight above 0, such as {episodic.recall: 1}")
    for name, given in made.parameters.items():
        if name not in made.mix:
            raise validation("workload", f"workload.parameters: '{name}' is not in the mix{nearest(name, made.mix)}")
        fields = lookup(name).parameters_type.__struct_fields__
        for parameter in given:
            if parameter not in fields:
                raise validation(
                    "unknown_parameter", f"workload.parameters.{name}: no parameter '{parameter}'{nearest(parameter, fields)}"
                )


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return *values* with dotted keys at the top made tables, later keys over earlier ones.

    Operations have dots in their names, so only the first dot of a key divides, and only where the part before it is a field.

    >>> nest({"arrivals": {"kind": "poisson"}, "arrivals.rate_per_s": 9})
    {'arrivals': {'kind': 'poisson', 'rate_per_s': 9}}
    """
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = str(key).partition(".")
        if name:
            inner = nested.get(section)
            nested[section] = {**inner, name: value} if isinstance(inner, Mapping) else {name: value}
        else:
            nested[key] = value
    return nested


def decode(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Return *values* as a *kind*; an unknown key, a wrong type or bound is one line that names the key and what fits.

    Raises:
        MemlabError: VALIDATION, reason *where*'s first word.
    """
    reason = where.partition(".")[0]
    _check_keys(kind, values, where, reason)
    try:
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        path = re.sub(r"[`$]", "", place).removeprefix(".").replace("[...]", "")
        what = what[:1].lower() + what[1:]
        given = _at(values, path)
        shown = f" = {given!r}" if isinstance(given, (str, int, float, bool)) else ""
        raise validation(reason, f"{where}.{path}{shown}: {what}" if path else f"{where}: {what}") from None


def _check_keys(kind: type[msgspec.Struct], values: Any, where: str, reason: str) -> None:
    if not isinstance(values, Mapping):
        raise validation(reason, f"{where} = {values!r}: give a table")
    fields = {one.name: one.type for one in msgspec.structs.fields(kind)}
    for key, value in values.items():
        if key not in fields:
            raise validation(reason, f"{where} has no '{key}'{nearest(str(key), fields)}")
        inner = _struct_of(fields[key])
        if inner is not None and value is not None:
            _check_keys(inner, value, f"{where}.{key}", reason)
        if isinstance(value, float) and not math.isfinite(value):
            raise validation(reason, f"{where}.{key} = {value}: give a finite number")


def _struct_of(hint: Any) -> type[msgspec.Struct] | None:
    for part in (hint, *getattr(hint, "__args__", ())):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _at(values: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(values, Mapping) or key not in values:
            return None
        values = values[key]
    return values
