"""`memlab sweep`: measure every point of a params file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    params: Annotated[Path, typer.Argument(help="The params file.", show_default=False)],
    change: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            metavar="KEY=VALUE[,VALUE…]",
            help="Replace a field of the file, or the values of a setting in its grid; may be given more than once.",
        ),
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder that keeps the runs.")] = Path("results"),
    jobs: Annotated[int, typer.Option(min=1, help="Points measured at once; on a small machine they disturb each other.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of real conversations as parquet, in place of made-up ones."),
    ] = None,
) -> None:
    """Measure every point of a params file; points that are done already are not measured again.

    Example: memlab sweep params/01-cache-size.yaml -p cache.max_entries=100,1000
    """
    from memlab.experiment import sweep as sweeping
    from memlab.experiment.progress import Bar

    chosen = sweeping.Sweep.load(params, change or (), data=data)
    outcome = sweeping.run(chosen, results, jobs=jobs, progress=Bar(chosen.experiment))
    typer.echo(f"{chosen.experiment}: {outcome.summary()}")
    if outcome.failed:
        raise typer.Exit(1)
