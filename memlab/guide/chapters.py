"""Chapters of the Performance Report: from the runs of one experiment to text, tables and charts, each number marked.

A chapter reads what the runs hold and says no more: what was asked for stands beside what was reached, intervals stand where
there are any, and a figure of too few samples says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from memlab import charts
from memlab.experiment.footprint import ASKED_SHARE
from memlab.experiment.results import Run
from memlab.guide.chapter import ENDS, Chapter, at, by, cells, chart, ends, number, said
from memlab.guide.figures import Figure, mark, name_run
from memlab.guide.tables import derived, table

_SLOWEST = 12
_KEPT = {True: "yes", False: "**no**", None: "too few"}
_HOT_LINES = 15
_CODE = 60  # characters of a line of code that are shown
_STEEPEST = 12


# --- bench -----------------------------------------------------------------------------------------------------------


def bench(runs: Sequence[Run]) -> Chapter:
    """The speed table: the engine beside the bare libraries."""
    run = runs[-1]
    rows = run.summary["rows"]
    met = sum(row["met"] for row in rows.values())
    told = [
        [
            said(run, what),
            said(run, f"{number(row['measured'])} {row['unit']}"),
            "–" if row["floor"] is None else said(run, number(row["floor"])),
            at(run, f"rows.{what}.ratio", ".2f±"),
            said(run, row["reach"]),
            "yes" if row["met"] else "**no**",
            name_run(run.id),
        ]
        for what, row in rows.items()
    ]
    frame = pl.DataFrame(
        [{"label": what, "series": _better(row["unit"]), **ends(row["ratio"])} for what, row in rows.items() if row["ratio"]],
        schema_overrides=ENDS,
    )
    drawing = charts.intervals(
        frame,
        x_title="engine over bare libraries (95 % interval over blocks)",
        line=1.0,
        title="The engine beside bare libraries",
    )
    missed = [said(run, what) for what, row in rows.items() if not row["met"]]
    headline = (
        f"{said(run, met)} of {said(run, len(rows))} reaches of the speed table are met at "
        f"{at(run, 'memories', ',')} memories" + (f"; missed: {'; '.join(missed)}" if missed else "") + f"{by(run)}."
    )
    heads = ["what", "measured", "floor", "times the floor", "reach", "met", "run"]
    notes = [[said(run, what), said(run, row["note"]), name_run(run.id)] for what, row in rows.items() if row["note"]]
    text = "\n\n".join(
        [
            "Engine and bare libraries take turns inside one run, so that a slow moment of the host meets both. A ratio of times "
            "below one, or of rates above one, is faster than the bare library. *Met* goes by the figure itself: where an "
            "interval reaches across what was to be reached, another run may say otherwise.",
            table(heads, told),
            chart("bench", "Engine over bare libraries, with intervals over blocks that took turns."),
            "What belongs to the figures, recall@10 among it:",
            table(["what", "note", "run"], notes, left=2),
        ]
    )
    return Chapter(headline, text, {"bench": charts.to_svg(drawing)})


def _better(unit: str) -> str:
    return "rates: more is better" if unit.endswith("/s") else "times and sizes: less is better"


# --- operations ------------------------------------------------------------------------------------------------------


def operations(runs: Sequence[Run]) -> Chapter:
    """Every operation against target and floor, what is slow and why, growth, and what discovery costs."""
    runs = sorted(runs, key=lambda run: run.summary["memories"])
    largest = runs[-1]
    every = largest.summary["operations"]
    kept = sum(one["met"] is True for one in every.values())
    over, unjudged = largest.summary["over_target"], largest.summary["unjudged"]
    headline = (
        f"{said(largest, kept)} of {said(largest, len(every))} operations keep their p95 target on "
        f"{at(largest, 'memories', ',')} memories"
        + (f"; over it: {_names(largest, over)}" if over else "")
        + (f"; too few samples to judge: {said(largest, len(unjudged))}" if unjudged else "")
        + f"{by(largest)}."
    )
    slow = sorted((name for name in every if _share(every[name]) is not None), key=lambda name: -(_share(every[name]) or 0.0))
    parts = [
        f"One caller, no cache, one call after the other, on stores of {_sizes(runs)} memories. *Warm* calls ask something new "
        "of a process that has been working; *repeated* ones ask the same again; *cold* is the first call of a fresh process "
        "whose files were dropped from the page cache. The floor is a call through the same path that does nothing. A bulk "
        "operation is judged by the time of one of its items.",
        _index(largest),
        chart("operations", "p95 over target of the slowest operations; the line is the target itself."),
        "### What is slow, and why",
        _why(largest, slow[:_SLOWEST]),
        "### All operations",
        _operations_table(largest),
    ]
    failing = largest.summary["failing"]
    parts.append(f"Calls failed in: {_names(largest, failing)}." if failing else "No call failed on the largest store.")
    drawings = {"operations": _target_chart(largest, slow[:_SLOWEST])}
    if len(runs) > 1:
        growth = _growth(runs)
        parts += ["### How cost grows with the store", growth.text]
        drawings |= growth.drawings
    if largest.summary["discovery"]:
        parts += ["### What discovery costs", _discovery(largest)]
    return Chapter(headline, "\n\n".join(parts), drawings)


def _index(run: Run) -> str:
    """Return how vectors were searched: approximate search is never told without its recall."""
    kind, train_at, target = (
        Figure.of(run, f"settings.candidate.index.{name}") for name in ("kind", "train_at", "recall_target")
    )
    return (
        f"Vectors are searched by the index of kind {mark(kind)}, exactly below {mark(train_at, ',')} memories and above it "
        f"with an effort that is calibrated to a recall@10 of {mark(target, 'g')}{by(run)}; the recall that was reached "
        "against exact search stands with the speed table."
    )


def _share(one: Mapping[str, Any]) -> float | None:
    """Return how much of its target an operation's p95 takes; None where there is no p95."""
    judged = (one["per_item"] or one["warm"])["p95_ms"]["value"]
    return None if judged is None else float(judged / one["target_p95_ms"])


def _names(run: Run, names: Sequence[str]) -> str:
    return ", ".join(f"`{said(run, name)}`" for name in names)


def _sizes(runs: Sequence[Run]) -> str:
    return ", ".join(at(run, "memories", ",") for run in runs)


def _judged(one: Mapping[str, Any]) -> str:
    return "per_item" if one["per_item"] else "warm"


def _why(run: Run, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        one = run.summary["operations"][name]
        spent = sorted({**one["phases_ms"], "outside storage": one["other_ms"] or 0.0}.items(), key=lambda item: -item[1])
        mean = one["warm"]["mean_ms"]["value"] or 1.0
        where = ", ".join(f"{phase} {said(run, ms / mean, '.0%')}" for phase, ms in spent[:2])
        prefix = f"operations.{name}.{_judged(one)}"
        rows.append(
            [
                f"`{said(run, name)}`",
                *cells(run, prefix, (("p95_ms", ".3g±"),)),
                at(run, f"operations.{name}.target_p95_ms", ",g"),
                said(run, _share(one), ".2%"),
                where,
                name_run(run.id),
            ]
        )
    heads = ["operation", "p95 (ms)", "target", "share of it", "where a call's time goes", "run"]
    return table(heads, rows)


def _operations_table(run: Run) -> str:
    """Return a table for each layer: whole names would leave no room for figures."""
    layers: dict[str, list[str]] = {}
    for name, one in run.summary["operations"].items():
        layers.setdefault(one["layer"], []).append(name)
    return "\n\n".join(f"**{layer}**\n\n{_layer_table(run, names)}" for layer, names in layers.items())


def _layer_table(run: Run, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        one = run.summary["operations"][name]
        prefix = f"operations.{name}"
        judged = f"{prefix}.{_judged(one)}"
        rows.append(
            [
                f"`{said(run, name.partition('.')[2])}`" + (", an item" if one["per_item"] else ""),
                *cells(run, judged, (("p50_ms", ".3g"), ("p95_ms", ".3g±"))),
                *cells(run, f"{prefix}.warm", (("p99_ms", ".3g"),)),
                at(run, f"{prefix}.target_p95_ms", ",g"),
                _KEPT[one["met"]],
                *cells(run, prefix, (("over_floor", ".3g"), ("repeated.p50_ms", ".3g"), ("cold.mean_ms", ".3g"))),
                *cells(run, f"{prefix}.warm", (("throughput_per_s", ",.0f"), ("failed", ","))),
                name_run(run.id),
            ]
        )
    heads = ["operation", "p50", "p95 (ms)", "p99", "target", "kept", "× floor", "repeated", "cold", "per s", "failed", "run"]
    return table(heads, rows)


def _target_chart(run: Run, names: Sequence[str]) -> str:
    rows = [
        {"label": name, "series": "p95", **_over(found, one["target_p95_ms"])}
        for name in names
        for one in [run.summary["operations"][name]]
        for found in [one[_judged(one)]["p95_ms"]]
    ]
    drawing = charts.intervals(
        pl.DataFrame(rows, schema_overrides=ENDS),
        x_title="p95 over its target (95 % interval by order statistics)",
        line=1.0,
        title="The operations nearest to their targets, or beyond",
    )
    return str(charts.to_svg(drawing))


def _over(found: Mapping[str, Any], target: float) -> dict[str, float | None]:
    return {end: None if found[end] is None else found[end] / target for end in ("value", "low", "high")}


def _growth(runs: Sequence[Run]) -> Chapter:
    from memlab.experiment.operation_summary import growth

    laws = {name: law for name, law in growth(runs).items() if law.exponent.value is not None}
    steepest = sorted(laws, key=lambda name: -(laws[name].exponent.value or 0.0))[:_STEEPEST]
    ids = tuple(run.id for run in runs)
    rows = [
        [
            f"`{mark(Figure(name, ids))}`",
            mark(Figure(law.exponent.value, ids, low=law.exponent.low, high=law.exponent.high), ".2f±"),
            "–" if law.misfit is None else mark(Figure(law.misfit, ids), ".2f"),
            "–" if law.held_out is None else mark(Figure(law.held_out, ids), ".2f"),
            *(at(run, f"operations.{name}.warm.p50_ms", ".3g") for run in runs),
            " ".join(name_run(run) for run in ids),
        ]
        for name in steepest
        for law in [laws[name]]
    ]
    sizes = [f"p50 at {at(run, 'memories', ',')} (ms)" for run in runs]
    frame = pl.DataFrame(
        [
            {"x": run.summary["memories"], "series": name, "y": found["value"], "low": found["low"], "high": found["high"]}
            for name in steepest[:6]
            for run in runs
            if name in run.summary["operations"]
            for found in [run.summary["operations"][name]["warm"]["p50_ms"]]
        ],
        schema_overrides=dict.fromkeys(("y", "low", "high"), pl.Float64),
    )
    drawing = charts.lines(
        frame,
        x_title="memories in the store",
        y_title="p50 (ms)",
        title="The steepest operations",
        logarithmic_x=True,
        logarithmic_y=True,
    )
    text = "\n\n".join(
        [
            "An exponent of nought is a cost that does not grow, of one a cost that grows as the store does; its interval is "
            "that of the repeats. *Misfit* is the largest factor between a measured cost and the fitted line, *held out* what "
            "the smaller stores predict for the largest over what was measured there: where they are far from one, the "
            "exponent is a summary and not a law. The steepest:",
            table(["operation", "exponent", "misfit", "held out", *sizes, "runs"], rows),
            chart("growth", "Median time by size of the store, the steepest operations."),
        ]
    )
    return Chapter("", text, {"growth": str(charts.to_svg(drawing))})


def _discovery(run: Run) -> str:
    columns = (
        ("operations", ","),
        ("json_bytes", ","),
        ("tokens", ","),
        ("p50_ms", ".3g±"),
        ("p95_ms", ".3g±"),
        ("kept_bytes", ",.0f"),
        ("peak_bytes", ",.0f"),
    )
    rows = [[level, *cells(run, f"discovery.{level}", columns), name_run(run.id)] for level in run.summary["discovery"]]
    heads = [
        "level of detail",
        "operations",
        "bytes",
        "tokens, at least",
        "p50 (ms)",
        "p95 (ms)",
        "kept (bytes)",
        "peak (bytes)",
        "run",
    ]
    return (
        "The answer to a question for every operation, at each level of detail: what an agent must read before it can act.\n\n"
        + table(heads, rows)
    )


# --- leaks, memory, comparison ---------------------------------------------------------------------------------------


def leaks(runs: Sequence[Run]) -> Chapter:
    """Slope of resident memory, what else was counted, and the planted leak."""
    run = max(runs, key=lambda one: one.summary["seconds"])
    summary = run.summary
    columns = (
        ("verdict", ""),
        ("slope_mb_per_h", ",.3g±"),
        ("bytes_per_operation", ".3g±"),
        ("operations", ","),
        ("seconds", ",.0f"),
        ("looks", ","),
        ("rss_mb", ",.0f"),
    )
    rows = [
        ["as it is", *(at(run, path, spec) for path, spec in columns), name_run(run.id)],
        [
            f"{at(run, 'planted.planted_bytes')} bytes an operation planted",
            *(at(run, f"planted.{path}", spec) for path, spec in columns),
            name_run(run.id),
        ],
    ]
    heads = ["", "verdict", "MB/h", "bytes/operation", "operations", "seconds", "looks", "resident (MB)", "run"]
    others = [
        [
            f"`{name}`",
            *(said(run, number(row[end])) for end in ("first", "last")),
            at(run, f"others_per_operation.{name}", ".2g±"),
            name_run(run.id),
        ]
        for name, row in summary["others_per_operation"].items()
    ]
    headline = (
        f"Resident memory changes by {at(run, 'slope_mb_per_h', ',.3g±')} MB an hour over {at(run, 'seconds', ',.0f', 's')} of "
        f"steady traffic: {at(run, 'verdict')}{_because(run, summary['why'])}. A planted leak of "
        f"{at(run, 'planted.planted_bytes')} bytes an operation is called: {at(run, 'planted.verdict')}{by(run)}."
    )
    looks = pl.read_parquet(run.folder / "looks.parquet")
    planted = pl.when("planted").then(pl.lit("leak planted")).otherwise(pl.lit("as it is"))
    above = (pl.col("rss_bytes") - pl.col("rss_bytes").first().over("planted")) / 1e6
    frame = looks.select(pl.col("operations").alias("x"), above.alias("y"), planted.alias("series"))
    drawing = charts.lines(
        frame,
        x_title="operations done",
        y_title="MB above the first look",
        title="Resident memory under steady traffic",
        points=False,
    )
    text = "\n\n".join(
        [
            "Callers that wait for their answers send a mix that leaves the store as large as it was; again and again they "
            "rest, garbage is collected, free memory given back, and the process is looked at. The first quarter of the looks "
            "is warm-up. The interval counts neighbouring looks as alike as they are. A leak is told by the slope over the "
            "operations, since a busy host stretches the time; that there is none, by the slope over the time and over two "
            "hours alone.",
            table(heads, rows),
            chart("leaks", "Resident memory over the operations, without and with a planted leak; the warm-up is among it."),
            "What else could grow, at the first and last look after the warm-up, and its slope:",
            table(["count", "first", "last", "per operation", "run"], others),
        ]
    )
    return Chapter(headline, text, {"leaks": str(charts.to_svg(drawing))})


def _because(run: Run, why: str) -> str:
    return f" ({said(run, why)})" if why else ""


MEMORY = "What settings save of resident memory."
"""What the chapter on memory is about, in every document that has it."""


def memory(runs: Sequence[Run]) -> Chapter:
    """What settings save of resident memory, at the same work and recall."""
    run = max(runs, key=lambda one: one.summary["reduction"]["own_steady"]["value"] or -1.0)
    sides = ("reference", "candidate")
    whole = (("steady", "whole process, steady"), ("peak", "whole process, peak"))
    own = (("own_steady", "the store's own, steady"), ("own_peak", "the store's own, peak"))
    rows = [
        [
            f"{label} (MB)",
            *(at(run, f"{side}.{figure}_mb", ",.1f±") for side in sides),
            at(run, f"reduction.{figure}", ".1%±"),
            said(run, run.summary["verdict"][figure]),
            name_run(run.id),
        ]
        for figure, label in (*whole, *own)
    ]
    rows += [
        [label, *(at(run, f"{side}.{path}", spec) for side in sides), "", "", name_run(run.id)]
        for label, path, spec in (
            ("vector index (MB)", "vectors_mb", ",.1f"),
            ("DuckDB by its own count (MB)", "database_mb", ",.1f"),
            ("bytes per memory", "bytes_per_memory", ",.0f±"),
            ("recall@10", "recall_at_10", ".3f±"),
            ("kind of index", "kind", ""),
            ("a walk through everything", "walk", ""),
        )
    ]
    headline = (
        f"With bounded settings, vectors as {at(run, 'candidate.kind')} among them, {at(run, 'memories', ',')} memories add "
        f"{at(run, 'ratio.own_steady', '.2f±')} times as much to a process as with the defaults, and "
        f"{at(run, 'ratio.own_peak', '.2f±')} times at the peak; the whole process holds {at(run, 'ratio.steady', '.2f±')} "
        f"times as much, at a recall@10 of {at(run, 'candidate.recall_at_10', '.3f')} against "
        f"{at(run, 'reference.recall_at_10', '.3f')}{by(run)}."
    )
    kinds = [
        [
            at(one, "candidate.kind"),
            *(at(one, f"reduction.{figure}", ".1%±") for figure in ("own_steady", "own_peak", "steady")),
            *(at(one, f"candidate.{path}", spec) for path, spec in (("vectors_mb", ",.1f"), ("database_mb", ",.1f"))),
            at(one, "candidate.recall_at_10", ".3f"),
            name_run(one.id),
        ]
        for one in runs
    ]
    kind_heads = ["vectors as", "own, steady", "own, peak", "whole, steady", "index (MB)", "DuckDB (MB)", "recall@10", "run"]
    frame = pl.DataFrame(
        [
            {"label": label, "series": name, **ends(run.summary[side][f"{figure}_mb"])}
            for figure, label in (*whole, *own)
            for side, name in zip(sides, ("defaults", "bounded"), strict=True)
        ],
        schema_overrides=ENDS,
    )
    drawing = charts.intervals(
        frame, x_title="resident memory (MB; 95 % interval over processes)", logarithmic=False, title="What a process holds"
    )
    text = "\n\n".join(
        [
            "Each measurement is a fresh process: it opens a store whose indexes are saved, asks questions, looks up memories, "
            "is looked at after garbage collection (steady), then walks through every event, and tells its largest size "
            "(peak). The same on a store of next to nothing is taken away for the store's own share. Both settings did the "
            f"same work: {'yes' if run.summary['same_work'] else '**no**'}, by the digests of their walks.",
            table(["", "defaults", "bounded", "less by", "says", "run"], rows),
            chart("memory", "Resident memory of whole processes, and of the store alone."),
            *(["Less than with defaults, by kind of index:", table(kind_heads, kinds)] if len(runs) > 1 else []),
            _asked_for(run),
        ]
    )
    return Chapter(headline, text, {"memory": str(charts.to_svg(drawing))})


def profile(runs: Sequence[Run]) -> Chapter:
    """Hot lines, what allocates, and where the flame graph stands."""
    run = runs[-1]
    lines, held = run.summary["lines"], run.summary["memory"]
    inside = next((where for where, row in lines.items() if not row["waiting"]), None)
    rows = [
        [
            f"`{said(run, where)}`",
            f"`{said(run, _code(row['code']))}`",
            *(said(run, row[part], ".1%") for part in ("share", "python", "native", "system")),
            name_run(run.id),
        ]
        for where, row in list(lines.items())[:_HOT_LINES]
    ]
    sources = [
        [f"`{said(run, where)}`", said(run, row["mb"], ",.0f"), name_run(run.id)]
        for where, row in list(run.summary["allocations"].items())[:_HOT_LINES]
    ]
    hottest = f"the hottest line inside the engine is `{said(run, inside)}`" if inside else "no line inside the engine stands out"
    share = f" with {said(run, lines[inside]['share'], '.0%')} of the samples" if inside else ""
    headline = (
        f"Of the mix as it is sent, one call after the other, {hottest}{share}; an operation allocates "
        f"{said(run, held['per_operation'], ',.0f')} times{by(run)}."
    )
    text = "\n\n".join(
        [
            "Scalene samples the lines that run while the mix is sent; a line that calls DuckDB or FAISS holds their time, as "
            "native and system shares. The event loop and storage's threads wait for each other most of the time. A profiler "
            "slows what it watches, so nothing here says how fast anything is.",
            table(["line", "code", "samples", "python", "native", "system", "run"], rows, left=2),
            "Memray counts every allocation of the whole process, imports and filling included: "
            f"{said(run, held['allocations'], ',')} of them, {said(run, held['allocated_mb'], ',.0f')} MB in all, "
            f"{said(run, held['peak_mb'], ',.0f')} MB held at the peak{by(run)}. The flame graph of that peak stands beside "
            f"the run and opens without a network: `results/{said(run, run.id)}/{said(run, run.summary['flame'])}`.",
            table(["allocated by", "MB", "run"], sources),
        ]
    )
    return Chapter(headline, text)


def _code(text: str) -> str:
    """Return a line of code short enough for a table, with nothing that Markdown would take for its own."""
    short = text if len(text) <= _CODE else text[: _CODE - 1] + "…"
    return short.replace("|", "¦").replace("`", "'")


def _asked_for(run: Run) -> str:
    """Return whether the reduction that was asked for was reached, once for the store and once for the whole process."""
    share = mark(Figure(f"{ASKED_SHARE[0]:.0%} to {ASKED_SHARE[1]:.0%}", (run.id,)))
    told = [
        f"{'reached' if (run.summary['reduction'][figure]['low'] or 0) >= ASKED_SHARE[0] else 'not shown'} for {whose} "
        f"({at(run, f'reduction.{figure}', '.0%±')} less)"
        for figure, whose in (("own_steady", "what the store adds"), ("steady", "the whole process"))
    ]
    return (
        f"A reduction by {share} was asked for. By the lower end of the interval it is {', and '.join(told)}{by(run)}. "
        "Libraries take most of a small service's memory, and no setting gives that back."
    )


def comparison(runs: Sequence[Run]) -> Chapter:
    """The noise floor, and what pairs of runs are called."""
    run = runs[-1]
    names = {"p50_ms": "p50", "p95_ms": "p95", "mean_ms": "mean", "throughput_per_s": "throughput"}
    pairs = ("reference against itself", "candidate against reference")
    rows = [
        [
            pair,
            names[figure],
            at(run, f"comparisons.{pair}.figures.{figure}.ratio", ".3f±"),
            at(run, f"floor.{figure}", ".3f"),
            at(run, f"comparisons.{pair}.figures.{figure}.p_value", ".3f"),
            said(run, run.summary["comparisons"][pair]["figures"][figure]["verdict"]),
            name_run(run.id),
        ]
        for pair in pairs
        for figure in names
    ]
    cases = [
        [name, said(run, one["verdict"]), said(run, one["gate"]["verdict"]), name_run(run.id)]
        for name, one in run.summary["comparisons"].items()
    ]
    headline = (
        f"Two runs of one setting may differ by a factor of {at(run, 'floor.p50_ms', '.2f')} in p50 and "
        f"{at(run, 'floor.throughput_per_s', '.2f')} in throughput on this host; a smaller difference between two runs says "
        f"nothing{by(run)}."
    )
    frame = pl.DataFrame(
        [
            {"label": names[figure], "series": pair, **ends(one["ratio"]), "mark": run.summary["floor"][figure]}
            for pair in pairs
            for figure, one in run.summary["comparisons"][pair]["figures"].items()
        ],
        schema_overrides=ENDS,
    )
    drawing = charts.intervals(
        frame, x_title="second run over first (95 % interval over repeats)", mark="noise floor", line=1.0, title="Two runs apart"
    )
    text = "\n\n".join(
        [
            f"The same load, sent {derived([run], len(run.summary['runs']))} times to the reference and once to a candidate "
            "without cache, batching and pool, each with a database of its own, in random order. Repeats of one run share what "
            "the host was doing, so the floor comes from between the runs: the reach of two further ones, for all four figures "
            "together. P-values are those of Mann and Whitney's test over repeats, by Holm.",
            table(["pair", "figure", "ratio", "floor", "p", "says", "run"], rows, left=2),
            chart("comparison", "Ratios of two runs; ticks are the noise floor."),
            "What each kind of pair is called, and what a gate in a build may answer:",
            table(["second against first", "verdict", "gate", "run"], cases, left=3),
        ]
    )
    return Chapter(headline, text, {"comparison": str(charts.to_svg(drawing))})
