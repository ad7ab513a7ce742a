"""`memlab trace`: what a service was asked, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memlab.cli.writing import write_json
from memlab.errors import validation

HELP = """Record what a service is asked, look at it, and send it again.

Example: memlab trace summary trace.parquet
"""


def summary(
    trace: Annotated[
        Path, typer.Argument(help="A parquet file with a column key or at_s, or a recorded trace.", show_default=False)
    ],
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw popularity and arrivals into FILE, as SVG.", show_default=False)
    ] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write JSON to FILE; - is standard output.")] = None,
) -> None:
    """Say what a trace is like: mix, popularity, re-use, arrivals.

    Example: memlab trace summary trace.parquet --chart trace.svg
    """
    from memlab.predict import traffic
    from memlab.workload.trace import load

    loaded = load(trace)
    told = traffic.summary(loaded.frame)
    if chart is not None:
        _draw(traffic.popularity(loaded.frame), traffic.arrivals(loaded.frame), as_lines(told)[-1], chart)
    if json is not None:
        write_json({"kind": loaded.kind, **told}, json)
    if json != "-":
        typer.echo("\n".join(as_lines(told)))


def record(
    out: Annotated[Path, typer.Argument(help="The trace to be made, a .parquet file.", show_default=False)],
    workload: Annotated[
        Path | None, typer.Option(help="The mix of operations; default: the everyday one.", show_default=False)
    ] = None,
    rate: Annotated[float, typer.Option(min=0.01, max=100_000, help="Calls a second, that wait for no answer.")] = 100.0,
    duration: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds, after the workload's warm-up.")] = 60.0,
    arrivals: Annotated[
        str, typer.Option(metavar="constant|poisson|FILE", help="FILE is a trace with a column at_s.")
    ] = "poisson",
    settings: Annotated[Path | None, typer.Option(help="TOML file of settings; default: the defaults.")] = None,
    memories: Annotated[
        int | None, typer.Option(min=16, max=1_000_000, help="Events in the store when it begins; default: the workload's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of texts, calls and arrivals.")] = 1,
) -> None:
    """Send a workload to a fresh engine and record it: operations, hashes, sizes and times, never content.

    A live service records itself: TraceRecorder of memlab.workload.recording is given to Memory.open or Engine.open as recorder.
    Hashes are keyed with a secret of each recording that is kept nowhere. A recording that was killed leaves OUT.parts, which the
    other commands read.

    Example: memlab trace record trace.parquet --workload params/mixes/everyday.yaml --rate 100 --duration 60
    """
    from memlab.cli.load import changes, mix_file
    from memlab.experiment import load_run
    from memlab.experiment.load_progress import Bar
    from memlab.settings import Settings
    from memlab.workload.recording import TraceRecorder

    file = mix_file(workload)
    traffic = load_run.read_workload(file, changes(rate, None, duration, arrivals, memories))
    chosen = Settings.load(settings)
    with TraceRecorder(out) as recorder:
        found = load_run.run(traffic, chosen, seed=seed, mix_name=file.stem, progress=Bar(), recorder=recorder)
    written = recorder.statistics()
    hit_ratio = found.summary["summary"]["hit_ratio"]
    hits = "" if hit_ratio is None else f", {hit_ratio:.1%} of the reads served by the cache"
    typer.echo(f"{written['flushed']:,} calls in {out}{hits}; {written['dropped']:,} dropped")


def replay(
    trace: Annotated[Path, typer.Argument(help="A recorded trace, or a parquet file with key and at_s.", show_default=False)],
    speed: Annotated[float, typer.Option(help="Seconds of the trace that pass in one.")] = 1.0,
    duration: Annotated[
        float | None, typer.Option(min=0.1, max=86_400, help="Seconds to send; default: all of it.", show_default=False)
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="TOML file of settings; default: the defaults.")] = None,
    memories: Annotated[
        int | None,
        typer.Option(min=16, max=1_000_000, help="Events in the store when it begins; default: two a key, 1,000 to 20,000."),
    ] = None,
    deadline: Annotated[float, typer.Option(min=0.001, max=3_600, help="Seconds after which an answer is late.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the content made up.")] = 1,
    results: Annotated[Path, typer.Option(help="Folder that keeps the run.")] = Path("results"),
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write JSON to FILE; - is standard output.")] = None,
) -> None:
    """Send a trace again, in an open loop with its own timing: equal calls stay equal, content is made up.

    Example: memlab trace replay trace.parquet --speed 2 --settings tuned.toml
    """
    from memlab.cli import output
    from memlab.experiment import load_summary
    from memlab.experiment.load_progress import Bar
    from memlab.experiment.replay import replay as send
    from memlab.settings import Settings
    from memlab.workload.trace import load

    output.check(json)
    found = send(
        load(trace),
        Settings.load(settings),
        speed=speed,
        duration_s=duration,
        deadline_s=deadline,
        memories=memories,
        seed=seed,
        keep_in=results,
        progress=Bar(),
    )
    summary = found.summary
    output.write(json, summary, lambda: "\n".join([load_summary.as_text(summary), *likeness_lines(summary["replay"])]))
    if summary["checks"]["holds"] is not True:
        raise typer.Exit(1)


def likeness_lines(of: dict[str, Any]) -> list[str]:
    """Return how like a trace its replay was, as lines."""
    lines = []
    for name, digits, what in (("hit_ratio", 3, "hit ratio"), ("dispersion", 2, "index of dispersion")):
        before, after = (of[side][name] for side in ("recorded", "replayed"))
        shown = ["unknown" if value is None else f"{value:.{digits}f}" for value in (before, after)]
        lines.append(f"{what}: {shown[0]} recorded, {shown[1]} replayed")
    if of["merged_keys"]:
        lines.append(f"{of['merged_keys']:,} keys share a call with another: hits may be too many; give more --memories")
    if of["left_out"]:
        lines.append(f"{of['left_out']:,} calls of session.delete were left out")
    return lines


def as_lines(told: dict[str, Any]) -> list[str]:
    """Return what `predict.traffic.summary` found as a line for each thing."""
    lines = [f"{told['calls']:,} calls" + (f", {told['read_ratio']:.0%} of them reads" if "read_ratio" in told else "")]
    lines += [f"  {share:6.1%}  {name}" for name, share in told.get("mix", {}).items()]
    if "popularity" in told:
        of, reuse = told["popularity"], told["reuse"]
        law = "" if of["zipf_exponent"] is None else f", Zipf's exponent {of['zipf_exponent']:.2f}"
        lines.append(f"popularity: {of['keys']:,} keys{law}; the hottest 1 % take {of['hottest_hundredth']:.0%} of the accesses")
        far = ""
        if reuse["p50_distance"] is not None:
            far = f", over {reuse['p50_distance']:,.0f} other keys at the median and {reuse['p90_distance']:,.0f} at p90"
        again = f"{reuse['repeat_ratio']:.0%} of the accesses repeat a key"
        lines.append(f"re-use: {again}{far}; {reuse['once_ratio']:.0%} of the keys come once")
    if "arrivals" in told:
        of = told["arrivals"]
        rate = "" if of["rate_per_s"] is None else f", {of['rate_per_s']:.3g} per second"
        peak = "" if of["peak_per_s"] is None else f", {of['peak_per_s']:,} in the fullest"
        uneven = "" if of["dispersion"] is None else f"; index of dispersion {of['dispersion']:.2f} (1 is Poisson)"
        lines.append(f"arrivals: over {of['duration_s']:,.0f} s{rate}{peak}{uneven}")
    return lines


def _draw(popularity: Any, arrivals: Any, title: str, path: Path) -> None:
    from memlab import charts

    if popularity is None and arrivals is None:
        raise validation(
            "trace", "the trace holds neither keys nor a span of time, so there is nothing to draw; leave --chart out"
        )
    try:
        path.write_text(charts.to_svg(charts.traffic(popularity, arrivals, title=title)), encoding="utf-8")
    except OSError as error:
        raise validation("file", f"cannot write '{path}': {error.strerror}; give a file that can be written") from None
