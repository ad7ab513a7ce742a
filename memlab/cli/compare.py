"""`memlab compare`: two kept runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="Id or folder of a run.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="RUN", help="Id or folder of the run judged.", show_default=False)],
    floor: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Give two or more runs of one setting: their differences are the noise floor."),
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 where the second run is worse.")] = False,
    results: Annotated[Path, typer.Option(help="Folder that keeps the runs.")] = Path("results"),
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the comparison as JSON; - is standard output.")] = None,
) -> None:
    """Say whether the second run is better, worse or no different, or that this cannot be said.

    A gate never fires on what is inconclusive, and says that it is.

    Example: memlab compare load/0123456789abcdef load/fedcba9876543210 --gate
    """
    from memlab.cli import output
    from memlab.errors import validation
    from memlab.experiment import run_comparison

    output.check(json)
    if floor is not None and len(floor) < 2:
        raise validation("run", "--floor compares runs of one setting with each other; give it twice or more")
    one, other = (run_comparison.find(results, given) for given in (first, second))
    floors = sorted((run_comparison.find(results, given) for given in floor or ()), key=lambda run: run.started)
    compared = run_comparison.compare_runs(one, other, floors)
    output.write(json, compared.to_dict(), lambda: run_comparison.as_text(compared))
    if gate:
        typer.echo(f"gate: {compared.verdict}", err=True)
        if compared.verdict == "worse":
            raise typer.Exit(1)
