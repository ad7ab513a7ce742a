"""`memlab report`: the Performance Report, from the runs of the measuring room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[bool, typer.Option("--run", help="Measure what is missing; what is done is not measured again.")] = False,
    results: Annotated[Path, typer.Option(help="Folder that keeps the runs.")] = Path("results"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default: report inside the results.", show_default=False)
    ] = None,
    params: Annotated[Path, typer.Option(help="Folder of the params files.")] = Path("params"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Use the smoke sizes: proves that it runs, finds nothing.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Use the full sizes, which take hours.")] = False,
) -> None:
    """Write what was measured of the engine as Markdown, HTML and PDF: every number with its run.

    What was not run is named; a point that fails ends with exit code 1, after the report was written. Ctrl-C keeps what is done.

    Example: memlab report --run
    """
    from memlab.errors import validation
    from memlab.guide import report as reporting

    if smoke and full:
        raise validation("bounds", "--smoke and --full are two sizes; give one")
    written = reporting.build(params, results, out, run=run, size="smoke" if smoke else "full" if full else "quick")
    for path in written.files:
        typer.echo(path)
    if not written.finding:
        typer.echo("A smoke run: it proves that it runs, and finds nothing.")
    if written.not_run:
        typer.echo(f"not run: {', '.join(written.not_run)}", err=True)
    if written.failed:
        for line in written.failed:
            typer.echo(f"failed: {line}", err=True)
        raise typer.Exit(1)
