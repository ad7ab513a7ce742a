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
    results: Annotated[
        str,
        typer.Option(metavar="DIR", help="Folder that keeps the runs, or an fsspec address of one, such as s3://bucket/results."),
    ] = "results",
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Workers of a dask cluster on this host: one measures, one point at a time; the others fill the databases that "
            "the points begin with, and sum up in the end.",
        ),
    ] = 1,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Measure on the workers of this dask scheduler that were started with --resources bench=1, one on a host.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of real conversations as parquet, in place of made-up ones."),
    ] = None,
) -> None:
    """Measure every point of a params file; points that are done already are not measured again.

    Example: memlab sweep params/01-cache-size.yaml -p cache.max_entries=100,1000
    """
    from memlab.errors import validation
    from memlab.experiment import sweep as sweeping
    from memlab.experiment.progress import Bar

    if dask is not None and jobs > 1:
        raise validation("jobs", "--jobs starts a cluster on this host, --dask names one that runs: give one of them")
    chosen = sweeping.Sweep.load(params, change or (), data=data)
    bar = Bar(chosen.experiment)
    summary = None
    if dask is None and jobs == 1:
        outcome = sweeping.run(chosen, results, progress=bar)
    else:
        try:
            from memlab.experiment.cluster import Cluster
        except ImportError:
            raise validation("cluster", "--dask and --jobs need dask: pip install 'memlab[cluster]'") from None
        with Cluster(dask, jobs=jobs) as cluster:
            typer.echo(f"{chosen.experiment}: watch it at {cluster.dashboard}", err=True)
            outcome = sweeping.run(chosen, results, cluster=cluster, progress=bar)
            if dask is None and not outcome.failed and not change and "://" not in results:
                summary = cluster.sum_up(chosen, params, Path(results))
    typer.echo(f"{chosen.experiment}: {outcome.summary()}")
    if summary is not None:
        typer.echo(f"summed up in {summary}")
    if outcome.failed:
        raise typer.Exit(1)
