"""`memlab tune`: search settings for a workload, prove them on traffic that the search did not see, and write them down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from memlab.experiment.tune import Tuned


def tune(
    target: Annotated[
        Path,
        typer.Argument(
            help="A YAML file with the workload (a params file will do), or a trace as parquet: arrivals (at_s) or keys (key).",
            show_default=False,
        ),
    ],
    objective: Annotated[
        list[str] | None,
        typer.Option(help="p50, p95, mean, throughput or memory; several with the first deciding ties.", show_default="p95"),
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help="A bound to keep, such as recall_at_10>=0.95 or p99_ms<=50; several may be given.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, max=100_000, help="Settings tried in the search.")] = 40,
    repeats: Annotated[int, typer.Option(min=1, max=1_000, help="Of each; the best are measured again with more.")] = 3,
    seed: Annotated[int, typer.Option(help="Of traffic and search.")] = 1,
    data: Annotated[
        Path | None, typer.Option(help="Folder of real conversations as parquet, in place of made-up ones.", show_default=False)
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder that keeps the study; a search that was stopped goes on.")] = Path(
        "results"
    ),
    out: Annotated[Path, typer.Option(help="The settings file to write.")] = Path("tuned.toml"),
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes that search side by side.")] = 1,
    smoke: Annotated[bool, typer.Option("--smoke", help="Only prove that it runs: no finding.")] = False,
    json: Annotated[str | None, typer.Option(help="Write what was found here as JSON; - is standard output.")] = None,
) -> None:
    """Find settings for a workload, let them meet the defaults on held-out traffic, and write what is better.

    Example: memlab tune params/04-before-after.yaml --objective p95 --constraint "recall_at_10>=0.95" --budget 40
    """
    from memlab.experiment import tune as tuning

    task = tuning.Task(
        workload=tuning.workload_of(target),
        objectives=tuple(objective or ("p95",)),
        constraints=tuple(tuning.Constraint.parse(text) for text in constraint or ()),
        budget=budget,
        repeats=repeats,
        seed=seed,
        size="smoke" if smoke else "quick",
        data=None if data is None else str(data),
    )
    found = tuning.tune(task, results, jobs=jobs, tell=lambda line: typer.echo(line, err=True))
    tuning.write(found, out, json_file=None if json in (None, "-") else Path(json or ""))
    typer.echo(tuning.encoded(found) if json == "-" else said(found, out))


def said(found: Tuned, out: Path) -> str:
    """Return what was found, for a terminal."""
    first = found.objectives[0]
    ratio = found.duel[first]
    interval = f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.low is not None else ""
    shown = "unknown" if ratio.value is None else f"{ratio.value:.2f}{interval}"
    lines = [
        f"{found.verdict}: {found.of['duel']} is {shown} times that of the defaults on held-out traffic, after "
        f"{found.searched} evaluations"
    ]
    lines += [f"  {name} = {'off' if value is None else value}" for name, value in found.values.items()] or [
        "  the defaults stay"
    ]
    lines += [f"  {line}" for line in found.models_said()]
    return "\n".join([*lines, f"written to {out}"])
