"""`memlab guide`: the Optimization Guide, from the runs of sweeps and of a trace of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def guide(
    results: Annotated[Path, typer.Option(help="Folder that keeps the runs.")] = Path("results"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the guide; default: guide inside the results.", show_default=False)
    ] = None,
    params: Annotated[Path, typer.Option(help="Folder of the params files.")] = Path("params"),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of real conversations as parquet, in place of made-up ones.", show_default=False),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Your own traffic: a recorded trace, or parquet with key or at_s; see memlab trace.", show_default=False
        ),
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Measure what is missing: the sweeps, and chapters of minutes.")] = False,
    every: Annotated[bool, typer.Option("--all", help="With --run: every chapter, an hour the first time.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Use the smoke sweeps: proves that it runs, finds nothing.")] = False,
) -> None:
    """Write what the sweeps found as Markdown, HTML and PDF, and the settings that follow.

    Chapters that were not run are named; a point of one that fails ends with exit code 1, after the guide was written.

    Example: memlab guide --run --trace trace.parquet
    """
    from memlab.errors import validation
    from memlab.guide import export

    if every and not run:
        raise validation("bounds", "--all says what to measure; give it with --run")
    written = export.build(params, results, out, data=data, trace=trace, run=run, every=every, smoke=smoke)
    for path in written.files:
        typer.echo(path)
    if not written.finding:
        typer.echo("A smoke run: it proves that it runs, and finds nothing.")
    if written.not_run:
        typer.echo(f"not run: {', '.join(written.not_run)}; {export.COMMAND} measures them", err=True)
    if written.failed:
        for line in written.failed:
            typer.echo(f"failed: {line}", err=True)
        raise typer.Exit(1)
