"""`memlab quality`: how well retrieval finds what answers real questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def quality(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Conversations in LoCoMo's layout, as parquet.")],
    strategy: Annotated[
        Literal["contextual", "hybrid", "vector", "text"], typer.Option(help="How rag.retrieve looks for answers.")
    ] = "contextual",
    settings: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings of the memory, as TOML.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures as JSON; - is standard output.")] = None,
) -> None:
    """Ask every question that has evidence, and report how often the answer's turns and sessions are found.

    Example: memlab quality ../shared/data/locomo --json -
    """
    import msgspec

    from memlab.errors import validation
    from memlab.experiment import quality as measuring
    from memlab.experiment.quiet import quiet
    from memlab.settings import Settings

    chosen = Settings.load(settings)
    with quiet():
        rows = measuring.measure(folder, settings=chosen, strategy=strategy, tell=lambda line: typer.echo(line, err=True))
    figures = measuring.report(rows)
    text = msgspec.json.format(msgspec.json.encode(figures), indent=2).decode()
    if json == "-":
        typer.echo(text)
        return
    if json is not None:
        try:
            Path(json).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise validation("file", f"cannot write '{json}': {error.strerror}; give a file that can be written") from None
    typer.echo(measuring.as_text(figures))
