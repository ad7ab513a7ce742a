"""`memlab trace`: what a service was asked, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memlab.cli.writing import write_json
from memlab.errors import validation

HELP = """Look at what a service was asked, kept as a trace.

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
