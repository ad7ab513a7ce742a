"""`memlab guide`: the Optimization Guide, from the runs of the quick sweeps."""

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
    run: Annotated[bool, typer.Option("--run", help="Measure the points that are missing.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Use the smoke sweeps: proves that it runs, finds nothing.")] = False,
) -> None:
    """Write what the sweeps found as Markdown, HTML and PDF, and the settings that follow.

    Example: memlab guide --run
    """
    from memlab.guide import export

    written = export.build(params, results, out, data=data, run=run, smoke=smoke)
    for path in written.files:
        typer.echo(path)
    if not written.finding:
        typer.echo("A smoke run: it proves that it runs, and finds nothing.")
