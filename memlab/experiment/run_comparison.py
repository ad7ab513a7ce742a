"""Two kept runs against each other: ratios with intervals, a test over repeats, a verdict, and a gate.

The runs were not interleaved, so whatever changed on the host between them is in the ratio, and repeats of one run share its
mood. What the repeats say is therefore half of a verdict; the other half is the noise floor, how far two runs of one setting lie
apart, which A/A runs tell. Several figures are tested at once, so both halves share the 5 % among them (Holm, Bonferroni).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import validation
from memlab.experiment import results
from memlab.experiment.results import Run
from memlab.measure import stats
from memlab.measure.stats import CONFIDENCE, Floats, Interval

Verdict: TypeAlias = Literal["better", "worse", "no difference", "inconclusive", "unlike hosts"]
FIGURES: Mapping[str, bool] = {"p50_ms": True, "p95_ms": True, "mean_ms": True, "throughput_per_s": False}
"""What is compared, and whether smaller is better."""

_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95}
_GATED = ("p50_ms", "p95_ms", "throughput_per_s")
_DRAWS = 4_000
_WIDEST = 1.5  # an interval that reaches further than this either way cannot say that nothing changed
_SIGNIFICANT = 1 - CONFIDENCE
FEWEST_FLOOR_RUNS = 3  # two of one setting leave one degree of freedom, whose floor no effect would pass
_EXACT_UP_TO = 8  # repeats of each side up to which the test over ties counts every order instead of trusting a normal curve


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of two runs.

    Attributes:
        ratio: second run over first, with its 95 % interval over repeats.
        p_value: of the two-sided Mann-Whitney test over repeats, by Holm for all figures; None below the fewest repeats.
        floor: smallest ratio that two runs on this host can show, 1 or more; None where no A/A runs say it.
        why: what makes it inconclusive.
    """

    figure: str
    first: float | None
    second: float | None
    ratio: Interval
    p_value: float | None
    floor: float | None
    verdict: Verdict
    why: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that two runs say of each other."""

    first: str
    second: str
    verdict: Verdict
    why: str
    figures: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return its fields as plain values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def find(results_folder: Path, given: str) -> Run:
    """Return the run of an id, `<experiment>/<key>`, or of a folder.

    Raises:
        MemlabError: NOT_FOUND `run`; VALIDATION `run`: it failed, or is damaged.
    """
    folder = Path(given)
    found = results.load(folder) if (folder / results.FILE).is_file() else results.find(results_folder, given)
    if found.status != "done":
        raise validation("run", f"run '{found.id}' failed ({found.error}); give runs that are done")
    return found


def compare_runs(first: Run, second: Run, floor_runs: Sequence[Run] = (), *, seed: int = 0) -> Comparison:
    """Return what *second* is beside *first*.

    Args:
        floor_runs: A/A runs, of one setting or of several, three or more of each: how far they lie apart is the noise floor.
            Runs of the same setting and workload are one group.
    """
    if first.host["id"] != second.host["id"]:
        told = "; ".join(f"{run.id}: {run.host['cpu']}, {run.host['cores']} cores" for run in (first, second))
        return Comparison(
            first=first.id, second=second.id, verdict="unlike hosts", why=f"their figures cannot be compared: {told}", figures=()
        )
    results.refuse_unlike_hosts([first, *floor_runs])
    groups: dict[str, list[_Repeats]] = {}
    for run in floor_runs:
        groups.setdefault(_what_ran(run), []).append(_Repeats(run))
    floors = {figure: noise_floor([[run.by_repeat(figure) for run in group] for group in groups.values()]) for figure in FIGURES}
    figures = judge(*(_Repeats(run) for run in (first, second)), floors=floors, seed=seed)
    verdict, why = _overall(figures)
    return Comparison(
        first=first.id, second=second.id, verdict=verdict, why=why, figures=tuple(figures), notes=tuple(_notes(first, second))
    )


def alike(results_folder: Path, run: Run) -> list[Run]:
    """Return the kept runs of what *run* ran, by the same code on the same host, itself among them: A/A runs."""
    kept = results.runs(results_folder, run.experiment, current=False, host_id=run.host["id"])
    return [one for one in kept if _what_ran(one) == _what_ran(run)]


def _what_ran(run: Run) -> str:
    facts = (run.settings["candidate"], run.workload, run.code_version, run.size, run.data)
    return msgspec.json.encode(facts, order="deterministic").decode()


def gate(compared: Comparison) -> tuple[Verdict, str]:
    """Return what a gate may say: never `worse` or `better` where no A/A runs tell what two runs of one setting differ by."""
    if compared.verdict in ("worse", "better") and any(one.floor is None for one in compared.figures if one.figure in _GATED):
        return "inconclusive", (
            f"the repeats say {compared.verdict}, but no noise floor is known; "
            f"keep {FEWEST_FLOOR_RUNS} or more runs of one of the two"
        )
    return compared.verdict, compared.why


def repeats_of(run: Run, figure: str) -> list[float]:
    """Return a figure of each repeat of a run."""
    return _Repeats(run).by_repeat(figure)


def figures_of(run: Run) -> dict[str, float | None]:
    """Return what is compared of a run, all repeats together; None where there are too few samples."""
    of = _Repeats(run)
    return {figure: of.whole(figure) for figure in FIGURES}


class _Repeats:
    """A run's measured calls, by repeat; of a comparison's two settings the candidate."""

    def __init__(self, run: Run) -> None:
        samples = run.samples().filter((pl.col("setting") == "candidate") & ~pl.col("warm_up"))
        ok = samples.filter(pl.col("outcome") == "ok").with_columns(ms=(pl.col("finished_ns") - pl.col("intended_ns")) / 1e6)
        self.repeats = sorted(samples["repeat"].unique().to_list())
        self.times: list[Floats] = [ok.filter(pl.col("repeat") == one)["ms"].to_numpy() for one in self.repeats]
        self.rates = self._rates(run)

    def _rates(self, run: Run) -> list[float]:
        """Return answers a second of each repeat, from the windows or parts that the run's summary keeps."""
        parts = run.summary.get("by_part")
        if parts is not None:
            return [float(part["throughput_per_s"]) for part in parts if part["part"] in self.repeats]
        windows = {one["repeat"]: one for one in run.summary["windows"] if one["setting"] == "candidate"}
        return [
            len(times) / ((windows[repeat]["end_ns"] - windows[repeat]["start_ns"]) / 1e9)
            for repeat, times in zip(self.repeats, self.times, strict=True)
            if repeat in windows
        ]

    def by_repeat(self, figure: str) -> list[float]:
        """Return a figure of each repeat; nothing where a repeat has too few samples to say."""
        if figure == "throughput_per_s":
            return self.rates
        if any(len(times) == 0 for times in self.times):
            return []
        if figure == "mean_ms":
            return [float(times.mean()) for times in self.times]
        # The rule of fewest samples holds for what is quoted, the percentile of all; a repeat's own only orders the repeats.
        return [float(np.quantile(times, _QUANTILES[figure], method="inverted_cdf")) for times in self.times]

    def whole(self, figure: str) -> float | None:
        """Return a figure of all repeats together."""
        if figure == "throughput_per_s":
            return float(np.mean(self.rates)) if self.rates else None
        pooled = np.concatenate(self.times) if self.times else np.empty(0)
        if figure == "mean_ms":
            return float(pooled.mean()) if len(pooled) else None
        return stats.percentile(pooled, _QUANTILES[figure]).value


class Repeated(Protocol):
    """What a run says of a figure: of each repeat, and of all together."""

    def by_repeat(self, figure: str) -> list[float]: ...
    def whole(self, figure: str) -> float | None: ...


def judge(first: Repeated, second: Repeated, *, floors: Mapping[str, float | None], seed: int = 0) -> list[Compared]:
    """Return what each figure says; all together call equals different in one comparison of twenty at most."""
    ratios: dict[str, Interval] = {}
    p_values: dict[str, float] = {}
    for figure in FIGURES:
        sides = (first.by_repeat(figure), second.by_repeat(figure))
        ratios[figure] = unpaired_ratio(*sides, seed=seed)
        if first.whole(figure) is None or second.whole(figure) is None:
            ratios[figure] = Interval(None, n=ratios[figure].n, note="too few samples")
        p_value = mann_whitney(*sides) if ratios[figure].value is not None else None
        if p_value is not None:
            p_values[figure] = p_value
    adjusted = dict(zip(p_values, stats.holm(list(p_values.values())), strict=True))
    made = []
    for figure, ratio in ratios.items():
        p_value, floor = adjusted.get(figure), floors.get(figure)
        verdict, why = _verdict(ratio, p_value, smaller_is_better=FIGURES[figure], floor=floor)
        made.append(
            Compared(
                figure=figure,
                first=first.whole(figure),
                second=second.whole(figure),
                ratio=ratio,
                p_value=p_value,
                floor=floor,
                verdict=verdict,
                why=why,
            )
        )
    return made


def unpaired_ratio(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the ratio of the repeats' geometric means, second over first, with a bootstrap interval that draws repeats of each.

    Widened for few repeats as `stats.over_repeats` is (Hesterberg 2015, doi 10.1080/00031305.2015.1089789).

    >>> unpaired_ratio([1.0, 1.0, 1.0, 1.0, 1.0], [2.0] * 5)
    Interval(value=2.0, low=2.0, high=2.0, n=5, note=None)
    """
    n = min(len(first), len(second))
    if n == 0 or min(*first, *second) <= 0:
        return Interval(None, n=n, note="too few: a repeat has no samples")
    logs = [np.log(np.asarray(values, dtype=np.float64)) for values in (first, second)]
    value = math.exp(logs[1].mean() - logs[0].mean())
    if n < stats.FEWEST_REPEATS:
        return Interval(value, n=n, note=f"too few repeats: {n} of {stats.FEWEST_REPEATS}")
    chance = np.random.default_rng(seed)
    means = [values[chance.integers(len(values), size=(_DRAWS, len(values)))].mean(axis=1) for values in logs]
    differences = np.sort(means[1] - means[0])
    tail = stats.widened_tail(n)
    low, high = (float(np.quantile(differences, q)) for q in (tail, 1 - tail))
    return Interval(value, min(math.exp(low), value), max(math.exp(high), value), n)


def mann_whitney(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Return the two-sided p-value of Mann and Whitney's test (1947, doi 10.1214/aoms/1177730491); None below five each."""
    from scipy.stats import mannwhitneyu

    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(len(one), len(other)) < stats.FEWEST_REPEATS:
        return None
    together = np.concatenate([one, other])
    if len(np.unique(together)) == 1:
        return 1.0
    tied = len(np.unique(together)) < len(together)
    if tied and max(len(one), len(other)) <= _EXACT_UP_TO:
        return _exact_with_ties(together, len(one))
    return float(mannwhitneyu(one, other, alternative="two-sided").pvalue)


def _exact_with_ties(together: Floats, first: int) -> float:
    """Return the share of all ways to deal the values whose rank sum lies as far from its mean: exact where values are tied."""
    from scipy.stats import rankdata

    ranks = rankdata(together)
    sums = np.array([sum(dealt) for dealt in itertools.combinations(ranks, first)])
    far = np.abs(sums - ranks.sum() * first / len(ranks))
    return float(np.mean(far >= far[0] - 1e-9))


def noise_floor(groups: Sequence[Sequence[Sequence[float]]]) -> float | None:
    """Return the ratio that two further runs of one setting stay within, in 95 of 100 comparisons of all figures together.

    Whatever a run's repeats share lies between runs, not between repeats. The runs' logarithms are taken for normal; the
    bound is that of a difference of two further ones, t * s * sqrt(2), s pooled over the groups.

    Args:
        groups: of each setting its A/A runs, of each run the figure by repeat.
    Returns:
        1 or more; None where no group has the fewest runs.
    """
    from scipy.stats import t

    means = [[float(np.log(run).mean()) for run in group if len(run) and min(run) > 0] for group in groups]
    means = [group for group in means if len(group) >= FEWEST_FLOOR_RUNS]
    degrees = sum(len(group) - 1 for group in means)
    if not degrees:
        return None
    variance = sum(float(np.var(group)) * len(group) for group in means) / degrees
    reach = float(t.ppf(1 - _SIGNIFICANT / len(FIGURES) / 2, degrees))
    return math.exp(min(reach * math.sqrt(2 * variance), 100.0))


def _verdict(ratio: Interval, p_value: float | None, *, smaller_is_better: bool, floor: float | None) -> tuple[Verdict, str]:
    if ratio.value is None or ratio.low is None or ratio.high is None or p_value is None:
        return "inconclusive", ratio.note or "too few repeats"
    differs = not ratio.holds(1.0)
    if differs and p_value < _SIGNIFICANT:
        if floor is not None and 1 / floor <= ratio.value <= floor:
            if floor > _WIDEST:
                return "inconclusive", f"two runs of one setting may differ by {floor:.3g}, too much to say that nothing changed"
            return "no difference", f"within the noise floor of {floor:.3g}, by which two runs of one setting may differ"
        return ("better" if (ratio.value < 1.0) == smaller_is_better else "worse"), ""
    if differs != (p_value < _SIGNIFICANT):
        return "inconclusive", f"interval and test (p = {p_value:.2g}) do not agree"
    if ratio.low < 1 / _WIDEST or ratio.high > _WIDEST:
        return "inconclusive", f"the interval, {ratio.low:.2f} to {ratio.high:.2f}, is too wide to say that nothing changed"
    return "no difference", ""


def _overall(figures: Sequence[Compared]) -> tuple[Verdict, str]:
    """Return one verdict: what got worse comes first, then what nobody knows, then what got better."""
    gated = [one for one in figures if one.figure in _GATED]
    for verdict in ("worse", "inconclusive", "better"):
        found = [one.figure for one in gated if one.verdict == verdict]
        if found:
            whys = {one.why for one in gated if one.verdict == verdict and one.why}
            return verdict, f"{', '.join(found)}{': ' + '; '.join(sorted(whys)) if whys else ''}"
    return "no difference", ""


def _notes(first: Run, second: Run) -> list[str]:
    notes = []
    if first.workload != second.workload:
        notes.append("the workloads differ: the ratio is of two different questions")
    if first.settings["candidate"] != second.settings["candidate"]:
        notes.append("the settings differ")
    if first.code_version != second.code_version:
        notes.append("the code differs")
    for run in (first, second):
        summary = run.summary.get("summary", run.summary)
        notes += [f"{run.id} is suspect: {reason}" for reason in summary.get("suspect", [])]
    return notes


def as_text(compared: Comparison) -> str:
    """Return a comparison for a terminal."""
    lines = [f"{compared.second} against {compared.first}: {compared.verdict}" + (f" ({compared.why})" if compared.why else "")]
    if compared.figures:
        lines += ["", f"{'figure':<18} {'first':>10} {'second':>10} {'ratio':>7} {'95 % interval':>16} {'p':>7}  verdict"]
    for one in compared.figures:
        cells = ["too few" if value is None else f"{value:,.4g}" for value in (one.first, one.second)]
        ratio = "-" if one.ratio.value is None else f"{one.ratio.value:.3f}"
        between = "-" if one.ratio.low is None else f"{one.ratio.low:.3f} to {one.ratio.high:.3f}"
        p_value = "-" if one.p_value is None else f"{one.p_value:.3f}"
        why = f": {one.why}" if one.why else ""
        lines.append(f"{one.figure:<18} {cells[0]:>10} {cells[1]:>10} {ratio:>7} {between:>16} {p_value:>7}  {one.verdict}{why}")
    floors = {one.figure: one.floor for one in compared.figures if one.floor is not None}
    if floors:
        lines.append("noise floor: " + ", ".join(f"{name} {floor:.3f}" for name, floor in floors.items()))
    elif compared.figures:
        lines.append(
            f"note: fewer than {FEWEST_FLOOR_RUNS} A/A runs are kept, so the noise floor is not known: the verdict is of these "
            "repeats, and whatever changed on the host between the two runs is in it"
        )
    lines += [f"note: {note}" for note in compared.notes]
    return "\n".join(lines)
