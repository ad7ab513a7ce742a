"""The reader's own traffic: what it is like, which cache it wants, what settings do for it, and which chapters cover it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from memlab import charts
from memlab.experiment.results import Run
from memlab.guide.chapter import Chapter, at, by, chart, number, said
from memlab.guide.figures import Figure, mark, name_run
from memlab.guide.tables import table
from memlab.operations.registry import lookup
from memlab.predict.miss_ratio import OF_ONE

_MEGABYTE = 1e6
_RANGES = (("rate_per_s", "arrivals/s", ",.0f"), ("read_ratio", "share of reads", ".2f"), ("zipf", "Zipf exponent", ".2g"))
_OPERATIONS = 8
_NEAR = 0.1


def chapter(runs: Sequence[Run], others: Mapping[str, Sequence[Run]] | None = None) -> Chapter:
    """The chapter of a trace's run.

    Args:
        others: runs of the other chapters, by title, whose traffic it is held against.
    """
    run = runs[-1]
    parts = [_traffic(run)]
    drawings = {}
    popularity, arrivals = (_kept(run, name) for name in ("popularity", "arrivals"))
    if popularity is not None or arrivals is not None:
        drawings["trace-traffic"] = str(charts.to_svg(charts.traffic(popularity, arrivals, title="What the traffic is like")))
        parts.append(chart("trace-traffic", "The trace: use of its keys and calls per second, as far as it holds them."))
    cache = _cache(run)
    parts += ["### Which cache it wants", cache.text]
    drawings |= cache.drawings
    parts += ["### The settings on it", _replay(run)]
    if others:
        parts += ["### Which chapters cover it", _covered(run, others)]
    return Chapter(_headline(run), "\n\n".join(parts), drawings, cache.rule, cache.settings)


def _headline(run: Run) -> str:
    told = [f"The trace holds {at(run, 'traffic.calls', ',')} calls"]
    if "knee" in run.summary["cache"]:
        told.append(
            f"a cache of {at(run, 'cache.knee.max_entries', ',')} entries would serve "
            f"{_ratio(run, run.summary['cache']['at_knee'])} of its reads"
        )
    if "ratio" in run.summary["replay"]:
        told.append(_effect(run))
    return f"{'; '.join(told)}{by(run)}."


def _effect(run: Run) -> str:
    if run.summary["size"] == "smoke" or run.summary["replay"]["ratio"]["mean"]["value"] is None:
        return "it was replayed too briefly to tell settings apart"
    if run.summary["replay"]["verdict"]["mean"] == "no difference seen":
        return "replayed, no difference is seen between the recommended settings and the defaults"
    ratio = at(run, "replay.ratio.mean", ".2f±")
    return f"replayed, the recommended settings take {ratio} times the mean response time of the defaults"


def _kept(run: Run, name: str) -> pl.DataFrame | None:
    path = run.folder / f"{name}.parquet"
    return pl.read_parquet(path) if path.is_file() else None


# --- traffic ---------------------------------------------------------------------------------------------------------


def _traffic(run: Run) -> str:
    found = run.summary["traffic"]
    rows = [("calls", "calls", ","), ("share of reads", "read_ratio", ".2%")]
    if "popularity" in found:
        rows += [
            ("keys", "popularity.keys", ","),
            ("Zipf exponent", "popularity.zipf_exponent", ".2f"),
            ("share of the hottest hundredth of the keys", "popularity.hottest_hundredth", ".1%"),
            ("accesses that repeat a key", "reuse.repeat_ratio", ".1%"),
            ("keys that come once", "reuse.once_ratio", ".1%"),
            ("other keys until a key comes again, median", "reuse.p50_distance", ",.0f"),
        ]
    if "arrivals" in found:
        rows += [
            ("seconds", "arrivals.duration_s", ",.0f"),
            ("calls a second", "arrivals.rate_per_s", ",.3g"),
            ("in the fullest second", "arrivals.peak_per_s", ","),
            ("index of dispersion of the counts in a second (a Poisson process has one)", "arrivals.dispersion", ",.3g"),
        ]
    told = [[words, at(run, f"traffic.{path}", spec), name_run(run.id)] for words, path, spec in rows]
    parts = [
        f"A trace of {_kind(run)}, `{said(run, run.parameters['trace'])}`. It holds no content; nothing of it stands here but "
        f"figures{by(run)}.",
        table(["the trace", "", "run"], told),
    ]
    if "mix" in found:
        most = list(found["mix"])[:_OPERATIONS]
        shares = [[f"`{said(run, name)}`", said(run, found["mix"][name], ".1%"), name_run(run.id)] for name in most]
        parts.append(table(["operation", "share", "run"], shares))
    return "\n\n".join(parts)


def _kind(run: Run) -> str:
    words = {"recorded": "calls, recorded by memlab", "keys": "keys, in the order of access", "arrivals": "arrivals"}
    return words[str(run.summary["kind"])]


# --- cache -----------------------------------------------------------------------------------------------------------


def _cache(run: Run) -> Chapter:
    found = run.summary["cache"]
    if "knee" not in found:
        return Chapter("", f"The trace does not say which cache it wants: {_note(run, found)}{by(run)}.")
    rows = [
        [
            said(run, point["max_entries"], ","),
            _ratio(run, point["hit_ratio"]),
            name_run(run.id),
        ]
        for point in found["curve"]
    ]
    looked = "all accesses" if found["sample"] is None else f"{said(run, found['sample'], '.1%')} of the accesses"
    frame = pl.DataFrame(
        [{"x": point["max_entries"], "series": "hit ratio", **_ends(run, point["hit_ratio"])} for point in found["curve"]],
        schema_overrides=dict.fromkeys(("low", "high"), pl.Float64),
    )
    drawing = charts.lines(
        frame,
        x_title="entries kept",
        y_title="hit ratio",
        title="Hit ratio of this trace by size of the cache",
        logarithmic_x=True,
        from_zero=True,
    )
    more = (
        f"Twice as many reach {at(run, 'cache.knee.doubled_hit_ratio', '.1%')}. "
        if found["megabyte_gain"] is None
        else f"One more MB, {said(run, number(_MEGABYTE / found['entry_bytes']))} entries of this trace's size, adds "
        f"{said(run, 100 * found['megabyte_gain'], '.2g')} points. "
    )
    own = (
        ""
        if found["own_entries"] is None
        else f"The `cache.max_entries` of {at(run, 'cache.own_entries', ',')} that the guide recommends for its own traffic "
        f"reaches {at(run, 'cache.own_hit_ratio', '.1%')} on this one."
    )
    text = "\n\n".join(
        [
            "The hit ratio that a cache (least recently used leaves first) would have had on the trace, from an empty start, by "
            f"stack distances over {looked}; writes in the trace make answers stale. {_sureness(run)}",
            table(["entries", "hit ratio", "run"], rows, left=0),
            chart("trace-cache", "Hit ratio by size of the cache, with intervals."),
            f"The smallest size within one point of the curve's knee is {at(run, 'cache.knee.max_entries', ',')} entries, which "
            f"reach {_ratio(run, found['at_knee'])}. {more}{own}{by(run)}",
        ]
    )
    drawings = {"trace-cache": str(charts.to_svg(drawing))}
    if not run.summary["finding"] or not _is_known(run) or found["at_knee"]["low"] <= 0:  # or nothing is surely asked again
        return Chapter("", text, drawings)
    own_entries, knee = found["own_entries"], found["knee"]["max_entries"]
    is_short = own_entries is None or own_entries < knee
    entries = at(run, "cache.knee.max_entries", ",")
    keep = (
        f"Keep {entries} answers for this traffic at least; twice as many serve {at(run, 'cache.knee.doubled_hit_ratio', '.1%')}."
        if is_short
        else f"The {at(run, 'cache.own_entries', ',')} answers that are recommended lie beyond the knee of this trace: keep "
        f"them, or go down to {entries} where memory is short."
    )
    rule = (
        f"{keep} Holds for {at(run, 'cache.distinct_keys', ',')} keys used as in this trace: record another after the "
        f"traffic has changed{by(run)}."
    )
    settings = {"cache.max_entries": knee} if is_short else {}
    return Chapter("", text, drawings, rule, settings)


def _is_known(run: Run) -> bool:
    """Return whether the trace has accesses enough for its hit ratios to have an interval."""
    return bool(run.summary["cache"]["interval"] != OF_ONE)


def _sureness(run: Run) -> str:
    """Return what the ratios may be trusted for; they are counted and no times, so that a smoke run has them whole too."""
    if not _is_known(run):
        return "There are too few accesses for an interval, and so none is sure enough for a size to follow."
    return (
        "The interval says how much it owes to single parts of the trace. It is counted from the trace and no clock was read, so "
        "it holds whatever the size of the run; only the replay below is briefer in a smoke run."
    )


def _ratio(run: Run, found: Mapping[str, Any]) -> str:
    """Return a hit ratio, marked, with its interval where it has one."""
    bounds = _bounds(run, found)
    return mark(Figure(found["value"], (run.id,), low=bounds["low"], high=bounds["high"]), ".1%±")


def _ends(run: Run, found: Mapping[str, Any]) -> dict[str, float | None]:
    return {"y": found["value"], **_bounds(run, found)}


def _bounds(run: Run, found: Mapping[str, Any]) -> dict[str, float | None]:
    return {end: found[end] if _is_known(run) else None for end in ("low", "high")}


def _note(run: Run, found: Mapping[str, Any]) -> str:
    return said(run, str(found["note"]))


# --- replay ----------------------------------------------------------------------------------------------------------


def _replay(run: Run) -> str:
    found = run.summary["replay"]
    if "ratio" not in found:
        return f"The trace cannot be replayed: {_note(run, found)}{by(run)}."
    figures = (("p50 (ms)", "p50_ms", "p50"), ("p95 (ms)", "p95_ms", "p95"), ("mean (ms)", "mean_ms", "mean"))
    rows = [
        [
            words,
            *(at(run, f"replay.{side}.{path}", ".3g±") for side in ("reference", "candidate")),
            at(run, f"replay.ratio.{ratio}", ".2f±"),
            said(run, found["verdict"][ratio]),
            name_run(run.id),
        ]
        for words, path, ratio in figures
    ]
    rows += [
        [words, *(at(run, f"replay.{side}.{path}", spec) for side in ("reference", "candidate")), "", "", name_run(run.id)]
        for words, path, spec in (("hit ratio", "hit_ratio", ".2f±"), ("failed, share", "failure_ratio", ".2%±"))
    ]
    left = f" {at(run, 'replay.left_out', ',')} calls of `session.delete` were left out." if found["left_out"] else ""
    merged = (
        f" {at(run, 'replay.merged_keys', ',')} keys share a call with another, so that hits may be too many."
        if found["merged_keys"]
        else ""
    )
    wrong = (
        ""
        if found["checks_hold"]
        else "**Not all that was acknowledged was found again as it was written, or it could not be looked for: these figures "
        f"are not to be trusted**{by(run)}.\n\n"
    )
    return (
        f"The first {at(run, 'replay.duration_s', '.3g')} seconds of the trace, {at(run, 'replay.calls', ',')} calls at their "
        f"own moments, were sent {said(run, run.repeats)} times to the defaults and to the recommended settings, in random "
        "order, each time to a fresh database with made-up content and an empty cache; equal calls stay equal."
        f"{left}{merged}{by(run)}\n\n{wrong}"
        + table(["", "defaults", "recommended", "recommended / defaults", "says", "run"], rows)
    )


# --- ranges ----------------------------------------------------------------------------------------------------------


def _covered(run: Run, others: Mapping[str, Sequence[Run]]) -> str:
    mine = _mine(run)
    rows = []
    for title, runs in others.items():
        sent = [one for one in runs if "offered_per_s" in one.summary]
        if not sent:
            continue
        ids = tuple(one.id for one in sent)
        cells = []
        for name, _, spec in _RANGES:
            known = [value for one in sent if (value := _sent(one)[name]) is not None]
            if not known:
                cells += ["–", "–"]
                continue
            low, high = min(known), max(known)
            span = format(low, spec) if format(low, spec) == format(high, spec) else f"{low:{spec}} to {high:{spec}}"
            cells += [mark(Figure(span, ids)), _place(mine[name], low, high)]
        rows.append([title, *cells])
    if not rows:
        return "No other chapter was measured with traffic of this kind."
    heads = [head for _, words, _ in _RANGES for head in (words, "yours")]
    yours = ", ".join(f"{words} {said(run, mine[name], spec)}" for name, words, spec in _RANGES if mine[name] is not None)
    return (
        f"A rule of thumb holds in the range that it was measured in. Of this trace: {yours}{by(run)}. *Inside*, or a "
        "tenth beyond, says that a chapter speaks of such traffic; elsewhere its rule is a guess, and `memlab sweep` "
        "with the trace's own rate and mix makes it one no more. Chapters that send no such traffic are not in the "
        "table.\n\n" + table(["chapter", *heads], rows)
    )


def _mine(run: Run) -> dict[str, float | None]:
    found = run.summary["traffic"]
    return {
        "rate_per_s": (found.get("arrivals") or {}).get("rate_per_s"),
        "read_ratio": found.get("read_ratio"),
        "zipf": (found.get("popularity") or {}).get("zipf_exponent"),
    }


def _sent(run: Run) -> dict[str, float | None]:
    """Return what traffic a run was made with."""
    mix = run.workload.get("mix") or {}
    whole = sum(mix.values())
    popularity = run.workload.get("popularity") or {}
    return {
        "rate_per_s": run.summary["offered_per_s"],
        "read_ratio": sum(weight for name, weight in mix.items() if lookup(name).reads) / whole if whole else None,
        "zipf": popularity.get("zipf") if popularity.get("trace") is None else None,
    }


def _place(value: float | None, low: float, high: float) -> str:
    """Return where a value lies to a range; a tenth beyond it is still inside."""
    if value is None:
        return "–"
    return "below" if value < low * (1 - _NEAR) else "above" if value > high * (1 + _NEAR) else "inside"
