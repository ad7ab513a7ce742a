"""`memlab bench`: the speed table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    memories: Annotated[
        int, typer.Option(min=1_000, max=1_000_000, help="Memories in the store; the reaches are meant for 100,000.")
    ] = 100_000,
    calls: Annotated[int, typer.Option(min=20, max=100_000, help="Timed calls of a median.")] = 400,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Length of one block under load.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Of the texts and vectors.")] = 0,
    results: Annotated[Path, typer.Option(help="Where bench/speed.json and bench/speed.md are written.")] = Path("results"),
    json: Annotated[str | None, typer.Option(help="Write the table here as JSON; - is standard output.")] = None,
) -> None:
    """Measure the engine's speed beside bare DuckDB and FAISS, in one run.

    Example: memlab bench --memories 20000 --json -
    """
    from memlab.experiment import speed

    quiet = json == "-"
    report = speed.report(
        memories=memories,
        calls=calls,
        seconds=seconds,
        seed=seed,
        tell=lambda line: typer.echo(line, err=True),
    )
    folder = results / "bench"
    speed.write(report, folder)
    if json is not None and not quiet:
        Path(json).write_bytes(speed.encoded(report))
    typer.echo(speed.encoded(report).decode() if quiet else speed.markdown(report))
    typer.echo(f"written to {folder / 'speed.md'} and {folder / 'speed.json'}", err=True)
