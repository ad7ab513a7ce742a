"""What runs say: which setting to choose, how surely, and in which words.

The rule of choice is the same for every sweep. A point is *better* when its ratio to the reference is below 1 even at the
level that all points of the sweep share (each gets 5 % / number of points, so that a sweep of nothing finds nothing), and
beyond the noise floor, the ratio that the sweep's A/A points reached. Among the points whose 95 % interval meets that of
the best one, the cheapest is recommended: more cache, longer waits or more threads must be seen to help.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import polars
from scipy import special

from memlab.errors import not_found
from memlab.experiment.results import Run
from memlab.guide.figures import Figure, Reading

Verdict: TypeAlias = Literal["better", "worse", "no difference seen", "too few", "smoke"]
FINDING = "application/vnd.memlab.finding+json"
_LEVEL = 0.05
_SIDES = ("reference", "candidate")

SMOKE = "This proves that it runs. It makes no finding: the run is a smoke run, too short to tell settings apart."
TOO_FEW = "No finding: too few samples or repeats, or a run that is marked suspect."
NO_DIFFERENCE = "No difference seen: the settings and their reference cannot be told apart here."
_TITLES = {"smoke": "A smoke run: it proves that it runs", "too few": "No finding", "no difference seen": "No difference seen"}


class Finding(msgspec.Struct, frozen=True):
    """A sentence computed from runs, with the numbers in it.

    Attributes:
        verdict: what the runs allow to say.
        text: a template; the numbers enter by name.
        title: a shorter one, for a chart.
        scalars: numbers by name, with their runs where they are kept already.
        recommended: settings that follow, dotted keys; empty where none do.
        evidence: the run that shows them; None where none does.
        rule: how they were chosen.
    """

    verdict: Verdict
    text: str
    title: str = ""
    scalars: dict[str, Figure | Reading] = {}
    recommended: dict[str, Any] = {}
    evidence: str | None = None
    rule: str = ""

    def __str__(self) -> str:
        return self.text.format(**self.scalars)

    @property
    def headline(self) -> str:
        """The title with its numbers."""
        return self.title.format(**self.scalars)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Show the sentence; keep the numbers beside it, where tests and the guide read them."""
        return {"text/plain": str(self), "text/markdown": f"**{self}**", FINDING: msgspec.to_builtins(self)}


def finding(
    text: str, verdict: Verdict, *, title: str = "", none: str = NO_DIFFERENCE, choice: Choice | None = None, **scalars: Any
) -> Finding:
    """Return what may be said: *text* where a difference was seen, else the sentence that says that there was none.

    Args:
        text: a template over *scalars*; used for `better` and `worse`.
        verdict: of `judge` or `choose`.
        title: the same in short, for the chart.
        none: the sentence for `no difference seen`.
        choice: of `choose`, for its recommendation.
        scalars: Figures, intervals as a summary holds them, plain numbers and words.
    """
    sentence = {"smoke": SMOKE, "too few": TOO_FEW, "no difference seen": none}.get(verdict, text)
    title = _TITLES.get(verdict, title)
    used = {name: _scalar(value) for name, value in scalars.items() if f"{{{name}" in sentence + title}
    if choice is None:
        return Finding(verdict, sentence, title, used)
    return Finding(verdict, sentence, title, used, choice.recommended, choice.evidence, choice.rule)


def _scalar(value: Any) -> Figure | Reading:
    if isinstance(value, (Figure, Reading)):
        return value
    return Reading(value["value"], "", value["low"], value["high"]) if isinstance(value, Mapping) else Reading(value)


def judge(summary: Mapping[str, Any], *figures: str, among: int = 1) -> Verdict:
    """Return what one run says of its candidate by *figures* together: worse where any is, else better where any is.

    Several figures share the level: each interval is stretched to its Bonferroni share, so that a run of nothing finds nothing.

    Args:
        figures: `p50`, `p95` or `mean` of the response time, or `throughput`; default: `p95`.
        among: how many runs are judged together, and share the level too.
    """
    figures = figures or ("p95",)
    if summary["size"] == "smoke":
        return "smoke"
    if not summary["finding"]:
        return "too few"
    said = {
        _side(summary["ratio"][figure], summary["repeats"], len(figures) * among, figure != "throughput") for figure in figures
    }
    return "worse" if "worse" in said else "better" if "better" in said else "no difference seen"


def _side(ratio: Mapping[str, Any], repeats: int, shared_by: int, smaller_is_better: bool) -> Verdict:
    value, low, high = ratio["value"], ratio["low"], ratio["high"]
    if low is None or high is None or low <= 0:
        return "no difference seen"
    stretch = _stretch(repeats, shared_by)
    low, high = value * (low / value) ** stretch, value * (high / value) ** stretch
    if low <= 1 <= high:
        return "no difference seen"
    return "better" if (high < 1) == smaller_is_better else "worse"


def _stretch(repeats: int, shared_by: int) -> float:
    """Return how much wider than the 95 % interval one is at the level's Bonferroni share, as the t distribution has it."""
    return float(special.stdtrit(repeats - 1, 1 - _LEVEL / shared_by / 2) / special.stdtrit(repeats - 1, 1 - _LEVEL / 2))


def percentiles(summary: Mapping[str, Any], *, by_operation: bool = False) -> polars.DataFrame:
    """Return a run's percentiles as `charts.response_times` draws them: of all calls, or for each operation."""
    groups = {"": {setting: summary[setting] for setting in _SIDES}}
    names = ["p50", "p95", "p99"]
    if by_operation:
        operations = summary["reference"]["by_operation"]
        groups = {name: {setting: summary[setting]["by_operation"][name] for setting in _SIDES} for name in operations}
        names.remove("p99")
    rows = [
        {"group": group, "percentile": name, "setting": setting}
        | {f"{end}_ms": sides[setting][f"{name}_ms"][end] for end in ("value", "low", "high")}
        for group, sides in groups.items()
        for name in names
        for setting in _SIDES
    ]
    return polars.DataFrame(rows, schema_overrides=dict.fromkeys(("value_ms", "low_ms", "high_ms"), polars.Float64))


def table(summary: Mapping[str, Any]) -> polars.DataFrame:
    """Return what one run measured, a row a figure: reference, candidate, and their ratio with its interval."""
    columns = ("reference", "candidate", "ratio", "low", "high")
    rows = []
    for figure, key in (
        ("p50 (ms)", "p50_ms"), ("p95 (ms)", "p95_ms"), ("p99 (ms)", "p99_ms"), ("mean (ms)", "mean_ms"),
        ("answered per second", "throughput_per_s"), ("failed, share", "failure_ratio"), ("hit ratio", "hit_ratio"),
        ("calls together", "mean_batch_size"), ("recall@10", "recall_at_10"),
    ):  # fmt: skip
        sides = {side: (summary[side][key] or {}).get("value") for side in _SIDES}
        ratio = summary["ratio"].get(key.partition("_")[0], {})
        interval = {"ratio": ratio.get("value"), "low": ratio.get("low"), "high": ratio.get("high")}
        rows.append({"figure": figure, **sides, **interval})
    return polars.DataFrame(rows, schema_overrides=dict.fromkeys(columns, polars.Float64))


class Panel(NamedTuple):
    """One kind of traffic in a sweep, such as an arrival rate, and what its points say.

    Attributes:
        floor: the largest ratio, either way, that the reference reached against itself.
        tied: the points that cannot be told from the best one.
    """

    value: Any
    verdict: Verdict
    best: Run
    floor: float
    tied: list[Run]


class Choice(NamedTuple):
    """The setting that a sweep recommends.

    Attributes:
        verdict: `better` where at least one point is.
        chosen: the recommended point; None where the reference stays.
        best: the point with the lowest ratio, whether or not it can be told from others.
        panels: one for each kind of traffic, in rising order; a single one where the sweep has one kind.
        runs: the points that were compared, A/A points and suspect ones left out.
        recommended: settings under dotted keys; the reference's own where no difference is seen; none where nothing may be said.
        rule: how it was chosen.
        panel: what the traffic was swept by.
    """

    verdict: Verdict
    chosen: Run | None
    best: Run
    panels: list[Panel]
    runs: list[Run]
    recommended: dict[str, Any]
    rule: str
    panel: str | None

    @property
    def chosen_id(self) -> str | None:
        """Identity of the recommended point; None where the reference stays."""
        return self.chosen.id if self.chosen else None

    @property
    def evidence(self) -> str:
        """Identity of the run that shows it: the recommended point, or the best of those that could not be told apart."""
        return (self.chosen or self.best).id

    def of(self, path: str, unit: str = "", null: str | None = None) -> Figure:
        """Return a figure of that run; see `Figure.of`.

        Args:
            null: how a missing value reads, such as `none`.
        """
        return _of(self.chosen or self.best, path, unit, null)

    def lightest(self, path: str, unit: str = "", null: str | None = None) -> Figure:
        """Return the figure of the same setting in the lightest traffic."""
        settings = {name: value for name, value in (self.chosen or self.best).parameters.items() if name != self.panel}
        first = self.panels[0].value
        same = [run for run in self.runs if run.parameters == settings | ({self.panel: first} if self.panel else {})]
        return _of(same[0] if same else self.panels[0].best, path, unit, null)


def _of(run: Run, path: str, unit: str, null: str | None) -> Figure:
    figure = Figure.of(run, path, unit)
    return Figure(null, (run.id,)) if figure.value is None and null is not None else figure


def choose(runs: Sequence[Run], figure: str = "p95", *, cheapest: Sequence[str], panel: str | None = None) -> Choice:
    """Return the cheapest setting that cannot be told from the best one.

    Args:
        runs: all points of one sweep.
        figure: `p50`, `p95` or `mean` of the response time, or `throughput`; `closed.` before it for the closed-loop lane.
        cheapest: swept settings, the most costly first; less of it is cheaper, and null is the end of the scale.
        panel: what the traffic is swept by. The setting is chosen in the last panel, the heaviest traffic, among those
            that are not seen to harm in any other.
    Raises:
        MemlabError: NOT_FOUND, reason `run`: there is no run.
    """
    points = [run for run in runs if not run.summary["null"] and not run.summary["suspect"]]
    points = points or [run for run in runs if not run.summary["null"]]
    if not points:
        raise not_found("run", "a finding needs the runs of a sweep; make them with `memlab sweep params/<experiment>.yaml`")

    def cost(run: Run) -> tuple[tuple[bool, float], ...]:
        values = [run.parameters.get(name) for name in cheapest]
        return tuple((value is None, 0.0 if value is None else float(value)) for value in values)

    def setting(run: Run) -> tuple[Any, ...]:
        return tuple(run.parameters.get(name) for name in cheapest)

    kinds = sorted({run.parameters[panel] for run in points}) if panel else [None]
    of_kind = [[run for run in runs if not panel or run.parameters.get(panel) == kind] for kind in kinds]
    panels = [_panel(kind, inside, points, figure) for kind, inside in zip(kinds, of_kind, strict=True)]
    last = panels[-1]
    harmful = {setting(run) for run in points if _direction(run, figure) == "worse"}
    harmless = [run for run in last.tied if setting(run) not in harmful]
    chosen = min(harmless or last.tied, key=cost) if last.verdict == "better" else None
    names = [name for name in points[0].parameters if not name.startswith("workload.") and name != panel]
    recommended = {name: chosen.parameters[name] for name in names} if chosen else {}
    if last.verdict == "no difference seen":
        recommended = _reference(points[0], names)
    of = "throughput" if figure.endswith("throughput") else f"{figure.rpartition('.')[2]} response time"
    rule = (
        f"the least {_listed([f'`{name}`' for name in cheapest])} whose 95 % interval of the {of} meets that of the best point"
        + (", in the heaviest traffic, among settings that harm in none" if panel else "")
    )
    return Choice(last.verdict, chosen, last.best, panels, points, recommended, rule, panel)


def _reference(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Return the reference's own values of swept settings; None for a section that it has switched off."""
    reference = run.settings["reference"]
    values: dict[str, Any] = {}
    for section, _, key in (name.partition(".") for name in names):
        if reference[section] is None:
            values[section] = None
        else:
            values[f"{section}.{key}"] = reference[section][key]
    return values


def _panel(kind: Any, runs: Sequence[Run], points: Sequence[Run], figure: str) -> Panel:
    inside = [run for run in points if run in runs]
    floor = max((_distance(_ratio(run, figure)) for run in runs if run.summary["null"]), default=1.0)
    known = [run for run in inside if _ratio(run, figure)["value"] is not None]
    if any(run.summary["size"] == "smoke" for run in inside):
        return Panel(kind, "smoke", (known or inside)[0], floor, [])
    if not known or not all(run.summary["finding"] for run in inside):
        return Panel(kind, "too few", (known or inside)[0], floor, [])
    best = min(known, key=lambda run: _interval(run, figure)[1])
    proved = [run for run in known if _proved(run, figure, known, floor)]
    if not proved:
        return Panel(kind, "no difference seen", best, floor, [])
    best = min(proved, key=lambda run: _interval(run, figure)[1])
    tied = [run for run in proved if _interval(run, figure)[0] <= _interval(best, figure)[2]]
    return Panel(kind, "better", best, floor, tied)


def _lane(run: Run, figure: str) -> tuple[Mapping[str, Any], str]:
    lane, _, name = figure.rpartition(".")
    summary: Mapping[str, Any] = run.summary[lane] if lane else run.summary
    return summary, name


def _ratio(run: Run, figure: str) -> Mapping[str, Any]:
    lane, name = _lane(run, figure)
    ratio: Mapping[str, Any] = lane["ratio"][name]
    return ratio


def _direction(run: Run, figure: str) -> str:
    lane, name = _lane(run, figure)
    return str(lane["verdict"][name])


def _interval(run: Run, figure: str) -> tuple[float, float, float]:
    """Return low, value, high so that smaller is better; the reach of a missing interval is everything."""
    ratio = _ratio(run, figure)
    value, low, high = ratio["value"], ratio["low"] or 0.0, ratio["high"] or math.inf
    if figure.endswith("throughput"):
        return 1 / high, 1 / value, 1 / low if low else math.inf
    return low, value, high


def _distance(ratio: Mapping[str, Any]) -> float:
    """Return how far an A/A ratio lies from 1, as a factor: twice as fast and half as fast are both 2."""
    return max(ratio["value"], 1 / ratio["value"]) if ratio["value"] else 1.0


def _width(run: Run, figure: str) -> float:
    """Return the wider side of a point's interval, as a logarithm; infinite where it has none."""
    low, value, high = _interval(run, figure)
    return math.inf if low <= 0 or high == math.inf else max(math.log(high / value), math.log(value / low))


def _proved(run: Run, figure: str, points: Sequence[Run], floor: float) -> bool:
    """Return whether the point is better at the level that all *points* share, and beyond the noise floor.

    Its interval, or the median one of its kind of traffic where that is wider, is stretched as the t distribution stretches
    from 95 % to a Bonferroni share of it. Without the stretch every twentieth point of nothing would win; without the median,
    a point whose few repeats agree by chance.
    """
    repeats = run.summary["repeats"]
    if repeats < 2:
        return False
    width = max(_width(run, figure), statistics.median(_width(point, figure) for point in points))
    stretch = _stretch(repeats, len(points))
    _, value, _ = _interval(run, figure)
    return math.log(value) + stretch * width < 0 and value < 1 / floor


def _listed(words: Sequence[str]) -> str:
    return " and then ".join(words)


def read_finding(notebook: Path) -> Finding:
    """Return the finding that an executed notebook recorded.

    Raises:
        MemlabError: NOT_FOUND, reason `finding`: it recorded none, or its last cell did not run.
    """
    for output in _outputs(notebook):
        data = output.get("data", {})
        if FINDING in data:
            return msgspec.convert(data[FINDING], Finding)
    raise not_found("finding", f"notebook '{notebook.name}' recorded no finding; run it again")


def read_chart(notebook: Path) -> str:
    """Return the first chart of an executed notebook as SVG text.

    Raises:
        MemlabError: NOT_FOUND, reason `chart`.
    """
    for output in _outputs(notebook):
        if "image/svg+xml" in output.get("data", {}):
            lines = output["data"]["image/svg+xml"]
            return lines if isinstance(lines, str) else "".join(lines)
    raise not_found("chart", f"notebook '{notebook.name}' holds no chart; run it again")


def _outputs(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]
