"""How many calls may run at once: the law beside what was measured, what calls then wait, and whether threads help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from memlab import charts
from memlab.experiment.pooling import MODEL, STEPS
from memlab.experiment.results import Run
from memlab.guide.chapter import Chapter, at, by, cells, chart, p95_of, said
from memlab.guide.figures import name_run
from memlab.guide.findings import Verdict, judge
from memlab.guide.tables import table

_SEEN, _UNSEEN, _LAW = "measured, fitted on", "measured, not seen", "the law"


def chapter(runs: Sequence[Run]) -> Chapter:
    """The law and the limits, waits, the adaptive limit, and the surface of threads."""
    run = runs[-1]
    text = "\n\n".join(
        [
            f"With {at(run, 'clients', ',')} callers who ask again as soon as they are answered, without batching, every limit "
            f"took turns{by(run)}. A law with three constants was fitted on some of the limits and held against the others: what "
            f"goes one at a time (contention, {at(run, 'law.contention', '.2g')}), and what calls cost each other for being "
            f"there together (coherency, {at(run, 'law.coherency', '.2g')}){by(run)}.",
            table(["limit", "answers/s", "the law", "off by", "fitted", "p95 (ms)", "run"], _limits(run), left=0),
            chart("pool-limit", "Throughput by pool limit, measured and by the law."),
            "### What calls wait",
            "In an open loop calls come at random, whatever became of the earlier ones. The queue before the places knows the "
            "law, the arrivals, how uneven calls are, and what a call takes longer that ends a rest:",
            table(
                ["limit", "of its throughput", "mean (ms)", "predicted", "off by", "p95 (ms)", "predicted", "off by", "run"],
                _waits(run),
                left=0,
            ),
            _made_of(run),
            table(["the queue is told", "median error of the mean", "run"], _steps(run)),
            "### A limit that adapts",
            _race(run),
            "### Threads",
            "More threads of the database or of the vector index, beside one of both at the same limit; here calls travel in "
            "groups, because only a group's search uses more than one thread.",
            table(
                ["database threads", "vector threads", "limit", "answers/s", "over one of both", "says", "run"],
                _surface(run),
                left=0,
            ),
        ]
    )
    return Chapter(_headline(run), text, {"pool-limit": _drawing(run)}, _rule(run), _settings(run))


def _limits(run: Run) -> list[list[str]]:
    return [
        [
            said(run, name),
            at(run, f"limits.{name}.throughput_per_s", ",.0f±"),
            at(run, f"limits.{name}.predicted_per_s", ",.0f"),
            at(run, f"limits.{name}.error", ".1%"),
            "yes" if one["fitted"] else "no",
            at(run, f"limits.{name}.p95_ms", ".3g±"),
            name_run(run.id),
        ]
        for name, one in run.summary["limits"].items()
    ]


def _waits(run: Run) -> list[list[str]]:
    before = (("limit", ","), ("share", ".0%"), ("mean_ms", ".3g"), ("predicted_ms", ".3g"), ("error", ".0%"))
    after = (("predicted_p95_ms", ".3g"), ("error_p95", ".0%"))
    return [
        [*cells(run, f"waits.{name}", before), p95_of(run, row), *cells(run, f"waits.{name}", after), name_run(run.id)]
        for name, row in run.summary["waits"].items()
    ]


def _made_of(run: Run) -> str:
    woken = run.summary["service"]["woken_ms"]
    rests = "; ".join(
        f"after {said(run, rest)} ms of rest {at(run, f'service.woken_ms.{rest}', '.2g')} ms more" for rest in woken
    )
    return (
        f"A lone call takes {at(run, 'service.mean_ms', '.2g')} ms in the flow of calls{f', {rests}' if rests else ''}{by(run)}: "
        "caches are cold then, and processors sleep. What each thing that the queue is told takes off its error, on limits that "
        "the law has not seen:"
    )


def _steps(run: Run) -> list[list[str]]:
    return [
        [told + (" (the model)" if step == MODEL else ""), at(run, f"wait_error.{step}", ".0%"), name_run(run.id)]
        for step, told in STEPS.items()
    ]


def _race(run: Run) -> str:
    return (
        f"Told nothing but what calls take, it stood between {at(run, 'race.lowest')} and {at(run, 'race.highest')} places and "
        f"answered {at(run, 'race.adaptive_over_nearest', '.2f±')} times what {at(run, 'race.nearest')} places did, the limit "
        f"that the law recommends, and {at(run, 'race.adaptive_over_best', '.2f±')} times the luckiest of all, "
        f"{at(run, 'race.best')}{by(run)}."
    )


def _surface(run: Run) -> list[list[str]]:
    rows = []
    for name, one in sorted(
        run.summary["surface"]["corners"].items(), key=lambda item: -float(item[1]["throughput_per_s"]["value"])
    ):
        prefix = f"surface.corners.{name}"
        rows.append(
            [
                *(at(run, f"{prefix}.{path}") for path in ("database_threads", "vector_threads", "limit")),
                at(run, f"{prefix}.throughput_per_s", ",.0f±"),
                at(run, f"{prefix}.over_plain", ".2f±") if one["over_plain"] else "–",
                said(run, _of_corner(run, one)) if one["over_plain"] else "–",
                name_run(run.id),
            ]
        )
    return rows


def _of_corner(run: Run, one: Mapping[str, Any]) -> Verdict:
    """Return what more threads do at one corner; all corners share the level."""
    among = sum(corner["over_plain"] is not None for corner in run.summary["surface"]["corners"].values())
    return judge({**run.summary, "ratio": {"throughput": one["over_plain"]}}, "throughput", among=among)


def _of_limit(run: Run) -> Verdict:
    """Return what the recommended limit does beside the reference's."""
    if run.summary["race"]["nearest"] == run.summary["reference_limit"]:
        return "smoke" if run.summary["size"] == "smoke" else "no difference seen"
    return judge({**run.summary, "ratio": {"throughput": run.summary["over_reference"]["nearest"]}}, "throughput")


def _headline(run: Run) -> str:
    found = (
        f"{at(run, 'law.enough')} places reach {at(run, 'law.enough_share', '.0%')} of the highest throughput, at "
        f"{at(run, 'law.peak')}; the law is {at(run, 'error.median', '.1%')} off at the median of limits that it was not fitted "
        f"on, and the queue {at(run, 'wait_error.model', '.0%')} for the mean response time{by(run)}."
    )
    return found if run.summary["finding"] else f"No finding: the run is a smoke run, or too short; {found}"


def _rule(run: Run) -> str:
    if not run.summary["finding"]:
        return ""
    host = run.host
    seen = (
        f"Seen from {at(run, 'law.from')} to {at(run, 'law.to')} places on {said(run, host['cores'])} cores, with "
        f"{at(run, 'clients', ',')} callers of one operation on {at(run, 'memories', ',')} memories{by(run)}."
    )
    if not run.summary["kept"]:
        return (
            f"Measure the limits that you mean to use: the law was {at(run, 'error.median', '.1%')} off at the median of those "
            f"that it had not seen{by(run)}, which is more than the {at(run, 'asked_error', '.0%')} that was asked for. {seen}"
        )
    verdict = _of_limit(run)
    beside = {"better": "higher than", "worse": "lower than"}.get(verdict, "not seen to differ from")
    return (
        f"Measure the throughput of {at(run, 'law.fitted')} limits and let the law tell the others; {at(run, 'law.enough')} "
        f"places are enough here, their throughput {beside} that of the {at(run, 'reference_limit')} that are the default"
        f"{by(run)}. More only let calls wait inside in place of outside. {seen}"
    )


def _settings(run: Run) -> dict[str, Any]:
    """Return a limit, and threads, where each was seen to do more than the defaults."""
    if not run.summary["finding"]:
        return {}
    found: dict[str, Any] = {}
    if _of_limit(run) == "better":
        found["pool.limit"] = run.summary["race"]["nearest"]
    threads = _threads(run)
    if threads is not None:
        found |= dict(zip(("pool.database_threads", "pool.vector_threads"), threads, strict=True))
    return found


def _threads(run: Run) -> tuple[int, int] | None:
    """Return the fewest threads that were seen to help at some limit and to harm at none, and that may be as good as the best."""
    corners: dict[tuple[int, int], list[tuple[Verdict, Mapping[str, Any]]]] = {}
    for one in run.summary["surface"]["corners"].values():
        if one["over_plain"]:
            place = one["database_threads"], one["vector_threads"]
            corners.setdefault(place, []).append((_of_corner(run, one), one["over_plain"]))
    helping = {
        place: max((ratio for verdict, ratio in found if verdict == "better"), key=lambda ratio: float(ratio["value"]))
        for place, found in corners.items()
        if {verdict for verdict, _ in found} >= {"better"} and all(verdict != "worse" for verdict, _ in found)
    }
    if not helping:
        return None
    best = max(helping.values(), key=lambda ratio: float(ratio["value"]))
    return min((place for place, ratio in helping.items() if ratio["high"] >= best["low"]), key=lambda place: (sum(place), place))


def _drawing(run: Run) -> str:
    rows = [
        {"limit": int(name), "per_s": value, "what": what}
        for name, one in run.summary["limits"].items()
        for what, value in (
            (_SEEN if one["fitted"] else _UNSEEN, one["throughput_per_s"]["value"]),
            (_LAW, one["predicted_per_s"]),
        )
    ]
    axes = charts.By("limit", "pool limit (places)"), charts.By("per_s", "answers/s"), charts.By("what", "throughput")
    frame = pl.DataFrame(rows).with_columns(law=pl.col("what") == _LAW)
    return str(charts.to_svg(charts.trade(frame, *axes, joined=charts.By("law", ""))))
