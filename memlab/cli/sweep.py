"""`memlab sweep`: measure every point of a params file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    params: Annotated[Path, typer.Argument(help="The params file.", show_default=False)],
    set: Annotated[
        list[str] | None,
        typer.Option("-p", "--set", metavar="KEY=VALUE[,VALUE…]", help="Replace a value of the file, or the values of its grid."),
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder that keeps the runs.")] = Path("results"),
    jobs: Annotated[
        int, typer.Option(min=1, help="Points measured at once; more than one disturb each other on a small machine.")
    ] = 1,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of real conversations (turns.parquet, questions.parquet) in place of made-up ones."),
    ] = None,
) -> None:
    """Measure every point of a params file; points that are done already are not measured again.

    Example: memlab sweep params/01-cache-size.yaml -p cache.max_entries=100,1000
    """
    from memlab.experiment import sweep as sweeping

    outcome = sweeping.run(sweeping.Sweep.load(params, set or (), data=data), results, jobs=jobs)
    typer.echo(outcome.summary())
    if outcome.failed:
        raise typer.Exit(1)
