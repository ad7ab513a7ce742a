"""Up to which share of writes a cache pays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from memlab import charts
from memlab.errors import not_found
from memlab.experiment.invalidation import frame, writes_percent
from memlab.experiment.results import Run
from memlab.guide.chapter import Chapter, at, by, chart, said
from memlab.guide.figures import Figure, name_run
from memlab.guide.findings import Verdict, judge
from memlab.guide.tables import derived, table


class Limit(NamedTuple):
    """Where a cache stops paying, by the mean response time.

    Attributes:
        verdict: better where it pays at some share of writes; else worse where it harms at some.
        verdicts: of each run with a cache and no time to live, by rising share of writes; all share the level, and a ratio within
            the noise floor is no difference.
        last: the run with the largest share up to which every one is better; None where there is none.
        first_not: the run at which that ends; None where it does not end.
        floor: the ratio that the reference reached against itself, as a factor.
    """

    verdict: Verdict
    verdicts: list[tuple[Run, Verdict]]
    last: Run | None
    first_not: Run | None
    floor: float

    def of(self, path: str) -> Figure:
        """Return a figure of the run that is last, or of the one with the fewest writes."""
        return Figure.of(self.last or self.verdicts[0][0], path)

    def worst_error(self) -> Figure:
        """Return how far the model was off at most, in points of the hit ratio."""
        worst = max((run for run, _ in self.verdicts), key=lambda run: float(run.summary["predicted"]["error_points"]))
        return Figure.of(worst, "summary.predicted.error_points")


def limit_of(runs: Sequence[Run]) -> Limit:
    """Return where the cache stops paying.

    Raises:
        MemlabError: NOT_FOUND, reason `run`: no run has a cache.
    """
    points = sorted((run for run in runs if not run.summary["null"] and _ttl_s(run) is None), key=writes_percent)
    if not points:
        raise not_found("run", "invalidation needs runs with a cache; make them with `memlab sweep params/07-invalidation.yaml`")
    floor = max((_factor(run) for run in runs if run.summary["null"]), default=1.0)
    verdicts = [(run, _verdict(run, len(points), floor)) for run in points]
    last = first_not = None
    for run, verdict in verdicts:
        if verdict != "better":
            first_not = run
            break
        last = run
    if last is not None and first_not is not None and writes_percent(last) == writes_percent(first_not):
        below = [run for run, _ in verdicts if writes_percent(run) < writes_percent(first_not)]
        last = below[-1] if below else None
    return Limit(_together({verdict for _, verdict in verdicts}, last), verdicts, last, first_not, floor)


def _together(verdicts: set[Verdict], last: Run | None) -> Verdict:
    if "smoke" in verdicts:
        return "smoke"
    if "too few" in verdicts:
        return "too few"
    return "better" if last is not None else "worse" if "worse" in verdicts else "no difference seen"


def _ttl_s(run: Run) -> float | None:
    cache = run.settings["candidate"]["cache"]
    return cache["ttl_s"] if cache else None


def _factor(run: Run) -> float:
    value = run.summary["ratio"]["mean"]["value"]
    return max(value, 1 / value) if value else 1.0


def _verdict(run: Run, among: int, floor: float) -> Verdict:
    verdict = judge(run.summary, "mean", among=among)
    return "no difference seen" if verdict in ("better", "worse") and _factor(run) <= floor else verdict


def chapter(runs: Sequence[Run]) -> Chapter:
    """What writes take from the cache, what the model says of it, and up to where a cache pays."""
    limit = limit_of(runs)
    verdicts = {run.id: verdict for run, verdict in limit.verdicts}
    ordered = sorted(runs, key=lambda run: (bool(run.summary["null"]), writes_percent(run)))
    shown = [
        [
            at(run, "writes.share", ".1%"),
            at(run, "writes.sessions", ","),
            at(run, "writes.questions_per_session", ",.0f"),
            at(run, "writes.reads_per_write", ".1f"),
            "none" if run.summary["null"] else said(run, _ttl_s(run) or "none", "" if _ttl_s(run) is None else "g"),
            at(run, "candidate.hit_ratio", ".2f±"),
            at(run, "ratio.mean", ".2f±"),
            at(run, "ratio.p95", ".2f±"),
            "A/A" if run.summary["null"] else verdicts.get(run.id, str(run.summary["verdict"]["mean"])),
            name_run(run.id),
        ]
        for run in ordered
    ]
    heads = [
        "writes", "sessions", "questions each", "reads a write", "ttl (s)", "hit ratio", "mean / no cache", "p95 / no cache",
        "says", "run",
    ]  # fmt: skip
    cached = [run for run in ordered if run.summary["predicted"]]
    told = [
        [
            at(run, "writes.share", ".1%"),
            at(run, "writes.sessions", ","),
            *(at(run, f"predicted.{path}", ".2f±") for path in ("hit_ratio", "measured", "without_writes")),
            *(at(run, f"predicted.{path}", spec) for path, spec in (("error_points", ".1f"), ("accesses", ","))),
            *(at(run, f"predicted.{path}", ",") for path in ("shared", "passed")),
            name_run(run.id),
        ]
        for run in cached
    ]
    model = [
        "writes",
        "sessions",
        "predicted",
        "measured",
        "without writes",
        "off by (points)",
        "reads",
        "joined",
        "passed",
        "run",
    ]
    text = "\n\n".join(
        [
            "A cache answers from what it kept until something is written that could change the answer. A new event ends every "
            "ranked answer of its own session, and none of another's. The cache ran beside none on the same traffic, at several "
            "shares of writes; recall@10 of the answers, kept ones among them, against exact search over the rows of that moment "
            f"is {_recall(cached)}.",
            table(heads, shown, left=0),
            chart("invalidation", "Mean response time with a cache over that without, by share of writes; the line is no cache."),
            "### What can be told beforehand",
            "One pass over the trace says the hit ratio, writes among it (`memlab predict cache`). It knows which write makes "
            "which answer stale, and not how long an answer takes: who asks for the same meanwhile joins in, and who asks beside "
            "a write passes by, and both count as misses. Warm-up is in these figures.",
            table(model, told, left=0),
            chart("invalidation-model", "Hit ratio as predicted and as measured, without a time to live."),
            *_of_sessions(limit),
            *_of_ttl(ordered),
        ]
    )
    return Chapter(_headline(limit), text, _drawings(runs), _rule(limit), _settings(limit, ordered))


def _headline(limit: Limit) -> str:
    fewest, most = limit.verdicts[0][0], limit.verdicts[-1][0]
    reach = (
        f"between {at(fewest, 'writes.share', '.0%')} and {at(most, 'writes.share', '.0%')} writes the hit ratio goes from "
        f"{at(fewest, 'candidate.hit_ratio', '.2f')} to {at(most, 'candidate.hit_ratio', '.2f')} and the mean response time from "
        f"{at(fewest, 'ratio.mean', '.2f±')} to {at(most, 'ratio.mean', '.2f±')} times that without a cache "
        f"({name_run(fewest.id)}, {name_run(most.id)})."
    )
    if limit.verdict in ("smoke", "too few"):
        return f"No finding: a run is a smoke run, or too short; {reach}"
    if limit.last is None:
        return f"No share of writes was seen at which a cache pays; {reach}"
    return f"A cache pays up to {at(limit.last, 'writes.share', '.0%')} writes{by(limit.last)}; {reach}"


def _rule(limit: Limit) -> str:
    if limit.verdict in ("smoke", "too few"):
        return ""
    measured = [run for run, _ in limit.verdicts]
    first, zipf = measured[0], measured[0].workload["popularity"]["zipf"]
    shares = " to ".join(at(run, "writes.share", ".0%") for run in (first, measured[-1]))
    sessions = sorted({run.summary["writes"]["sessions"] for run in measured})
    seen = (
        f"Seen for {shares} writes, {' and '.join(derived(measured, one) for one in sessions)} "
        f"sessions, {at(first, 'corpus.questions', ',')} questions asked again by Zipf's law with exponent "
        f"{said(first, zipf, 'g')}, at {at(first, 'offered_per_s', ',.0f')} calls a second on "
        f"{at(first, 'corpus.events', ',')} memories."
    )
    if limit.last is None:
        return f"Measure a cache on your own traffic before you rely on it: here it was not seen to pay. {seen}"
    until = f"Leave the cache on while at most {at(limit.last, 'writes.share', '.0%')} of a session's calls write{by(limit.last)}"
    if limit.first_not is None:
        return f"{until}, the most that was measured. {seen}"
    return f"{until}; at {at(limit.first_not, 'writes.share', '.0%')} it was not seen to pay{by(limit.first_not)}. {seen}"


def _of_sessions(limit: Limit) -> list[str]:
    """Return what the number of sessions changes at one share of writes, where two were measured."""
    measured = sorted((run for run, _ in limit.verdicts), key=lambda run: int(run.summary["writes"]["sessions"]))
    for fewer, more in itertools.combinations(measured, 2):
        if writes_percent(fewer) == writes_percent(more):
            return [
                "### What more sessions change",
                "What counts is how often the same is asked again before something is written to its session. At one share of "
                "writes a session sees as many reads between two of its writes however many sessions there are; but the fewer "
                "questions are asked of each, the more of these reads ask the same: "
                f"{'; '.join(_of_each(run) for run in (fewer, more))}, at the same share of writes.",
            ]
    return []


def _of_each(run: Run) -> str:
    return (
        f"in {at(run, 'writes.sessions', ',')} sessions of {at(run, 'writes.questions_per_session', ',.0f')} questions a hit "
        f"ratio of {at(run, 'candidate.hit_ratio', '.2f±')}{by(run)}"
    )


def _pair(runs: Sequence[Run]) -> tuple[Run, Run] | None:
    """Return the run with a time to live, and the one that differs from it in nothing else."""
    for run in runs:
        if _ttl_s(run) is not None:
            for other in runs:
                if not other.summary["null"] and _ttl_s(other) is None and other.workload == run.workload:
                    return run, other
    return None


def _of_ttl(runs: Sequence[Run]) -> list[str]:
    pair = _pair(runs)
    if pair is None:
        return []
    short, plain = pair
    return [
        "### What a time to live adds",
        "Nothing is fresher for it: writes end what they change. With "
        f"{said(short, _ttl_s(short), 'g')} s to live the hit ratio is {at(short, 'candidate.hit_ratio', '.2f±')}{by(short)}, "
        f"without {at(plain, 'candidate.hit_ratio', '.2f±')}{by(plain)}, at the same share of writes.",
    ]


def _settings(limit: Limit, runs: Sequence[Run]) -> dict[str, Any]:
    """Return what follows: no cache where it was seen to harm alone; no time to live where one was seen to cost hits."""
    if limit.verdict == "worse":
        return {"cache": None}
    pair = _pair(runs)
    if limit.verdict != "better" or pair is None:
        return {}
    short, plain = (run.summary["candidate"]["hit_ratio"] for run in pair)
    costs = short["high"] is not None and plain["low"] is not None and short["high"] < plain["low"]
    return {"cache.ttl_s": None} if costs else {}


def _recall(runs: Sequence[Run]) -> str:
    judged = [one["value"] for run in runs if (one := run.summary["candidate"]["recall_at_10"]) and one["value"] is not None]
    return derived(runs, min(judged), ".3f") if judged else "not judged"


def _drawings(runs: Sequence[Run]) -> dict[str, str]:
    drawn = frame([run for run in runs if not run.summary["null"]])
    share = charts.By("writes_percent", "writes (% of calls)")
    ratio = charts.ratio_curve(
        drawn,
        "mean",
        x=share,
        series=charts.By("kind", ""),
        y_title="mean, cache / no cache",
        title="Where a cache stops paying",
        subtitle="ratios inside each run; 95 % intervals over repeats",
    )
    plain = drawn.filter(~pl.col("kind").str.contains("to live"))
    plain = plain.with_columns(nothing=pl.lit(None, pl.Float64))
    series = {
        "predicted": ("predicted", "predicted_low", "predicted_high"),
        "measured": ("predicted_measured", "nothing", "nothing"),
    }
    model = pl.concat(
        [
            plain.select("writes_percent", "run", what=pl.format("{}, " + name, "kind"), hit=value, hit_low=low, hit_high=high)
            for name, (value, low, high) in series.items()
        ]
    )
    shares = charts.share_curve(
        model, "hit", x=share, series=charts.By("what", ""), y_title="hit ratio", title="The model beside the cache", height=200
    )
    return {"invalidation": str(charts.to_svg(ratio)), "invalidation-model": str(charts.to_svg(shares))}
