"""`memlab bench`: the speed table, or what operations cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memlab.cli.writing import write_json
from memlab.errors import internal, validation


def bench(
    layer: Annotated[
        str | None, typer.Option(help="Measure every operation of this layer, or `all`.", show_default=False)
    ] = None,
    operation: Annotated[str | None, typer.Option(help="Measure this operation alone.", show_default=False)] = None,
    memories: Annotated[
        str,
        typer.Option(help="Memories in the store; for operations several sizes may be given, such as 1000,10000,100000."),
    ] = "100000",
    calls: Annotated[int, typer.Option(min=1, max=100_000, help="Timed calls at most; 200 make a p95, 1,000 a p99.")] = 400,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="Length of one block under load; or of the calls of one operation.")
    ] = 2.0,
    seed: Annotated[int, typer.Option(help="Of the texts and vectors.")] = 0,
    results: Annotated[Path, typer.Option(help="In its folder `bench` the report is written.")] = Path("results"),
    json: Annotated[str | None, typer.Option(help="Write the report here as JSON; - is standard output.")] = None,
) -> None:
    """Measure the engine's speed beside bare DuckDB and FAISS, in one run; or what operations cost, by size of the store.

    Example: memlab bench --layer episodic --memories 1000,10000 --json -
    """
    from memlab.experiment.quiet import quiet

    sizes = _sizes(memories)
    if layer is None and operation is None:
        from memlab.experiment import speed

        if len(sizes) > 1:
            raise validation(
                "bounds", f"--memories {memories}: the speed table has one size; several go with --layer or --operation"
            )
        with quiet():
            report = speed.report(memories=sizes[0], calls=max(calls, 20), seconds=seconds, seed=seed, tell=_tell)
        name, text = "speed", speed.markdown(report)
        kept = speed.keep(report, results)
        typer.echo(f"kept as {kept.id} in {results}", err=True)
    else:
        from memlab.experiment import operation_costs

        chosen = None if layer == "all" else layer
        with quiet():
            report = operation_costs.report(
                sizes=sizes, layer=chosen, name=operation, calls=calls, seconds=seconds, seed=seed, tell=_tell
            )
        name, text = "operations", operation_costs.markdown(report)
    folder = results / "bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise internal(
            "disk", f"the report cannot be written to {folder}: {error.strerror}; make room or pass --results"
        ) from error
    write_json(report, str(folder / f"{name}.json"))
    if json is not None:
        write_json(report, json)
    if json != "-":
        typer.echo(text)
    typer.echo(f"written to {folder / f'{name}.md'} and {folder / f'{name}.json'}", err=True)


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part.replace("_", "")) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(1_000 <= size <= 1_000_000 for size in sizes):
        raise validation("bounds", f"--memories {text}: give numbers from 1,000 to 1,000,000, such as 1000,10000,100000")
    return sizes


def _tell(line: str) -> None:
    typer.echo(line, err=True)
