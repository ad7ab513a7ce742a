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
        typer.Option(
            metavar="RUN",
            help="A/A runs, three or more of one setting: their distance is the noise floor. Default: those that are kept.",
            show_default=False,
        ),
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 where the second run is worse.")] = False,
    results: Annotated[Path, typer.Option(help="Folder that keeps the runs.")] = Path("results"),
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the comparison as JSON; - is standard output.")] = None,
) -> None:
    """Say whether the second run is better, worse or no different, or that this cannot be said.

    A gate never fires on what is inconclusive, and says that it is; without a noise floor everything is. The floor comes from
    the kept runs that ran the same as one of the two, three or more of them.

    Example: memlab compare load/0123456789abcdef load/fedcba9876543210 --gate
    """
    from memlab.cli import output
    from memlab.errors import validation
    from memlab.experiment import run_comparison

    output.check(json)
    if floor is not None and len(floor) < run_comparison.FEWEST_FLOOR_RUNS:
        raise validation("run", f"--floor wants runs of one setting; give it {run_comparison.FEWEST_FLOOR_RUNS} times or more")
    one, other = (run_comparison.find(results, given) for given in (first, second))
    if floor is None:
        kept = {run.id: run for side in (one, other) for run in run_comparison.alike(results, side)}
        floors = list(kept.values())
    else:
        floors = [run_comparison.find(results, given) for given in floor]
    compared = run_comparison.compare_runs(one, other, floors)
    verdict, why = run_comparison.gate(compared)
    whole = {**compared.to_dict(), "gate": {"verdict": verdict, "why": why}}
    output.write(json, whole, lambda: run_comparison.as_text(compared))
    if gate:
        typer.echo(f"gate: {verdict}" + (f" ({why})" if why else ""), err=True)
        if verdict == "worse":
            raise typer.Exit(1)
