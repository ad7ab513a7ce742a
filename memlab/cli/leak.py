"""`memlab leak`: whether memory grows while the engine works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MIX = Path("params/mixes/steady.yaml")


def leak(
    duration: Annotated[
        float, typer.Option(min=1.0, max=604_800, help="Seconds; 7200 and more can promise that there is no leak.")
    ] = 7_200.0,
    every: Annotated[
        float | None, typer.Option(min=0.1, max=3_600, help="Seconds between two looks; default: 10, less in a short run.")
    ] = None,
    clients: Annotated[int, typer.Option(min=1, max=10_000, help="Callers that wait for their answers.")] = 8,
    workload: Annotated[Path | None, typer.Option(help=f"The mix of operations; default: {_MIX}.", show_default=False)] = None,
    settings: Annotated[Path | None, typer.Option(help="TOML file of settings; default: the defaults.")] = None,
    memories: Annotated[
        int | None, typer.Option(min=16, max=1_000_000, help="Events in the store when it begins; default: the workload's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of texts and calls.")] = 1,
    database: Annotated[Path | None, typer.Option(help="Database file to be made; default: a temporary one.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures as JSON; - is standard output.")] = None,
) -> None:
    """Send steady traffic and fit the slope of resident memory, with its 95 % interval, after a warm-up.

    Exit code 1 where memory grows for sure. A short run gives the interval that it can.

    Example: memlab leak --duration 120 --json -
    """
    from memlab.cli import output
    from memlab.cli.load import mix_file
    from memlab.experiment import leak as leaking
    from memlab.experiment.load_progress import Bar
    from memlab.experiment.load_run import read_workload, resized
    from memlab.settings import Settings

    traffic = read_workload(mix_file(workload, _MIX), {"arrivals": {"kind": "closed", "clients": clients}, **resized(memories)})
    output.check(json)
    found = leaking.run(
        traffic,
        Settings.load(settings),
        duration_s=duration,
        every_s=every or min(10.0, duration / 40),
        clients=clients,
        seed=seed,
        database=database,
        mix_name=(workload or _MIX).stem,
        progress=Bar(),
    )
    output.write(json, found, lambda: leaking.as_text(found))
    if found["summary"]["verdict"] == "leak":
        raise typer.Exit(1)
