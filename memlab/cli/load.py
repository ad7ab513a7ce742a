"""`memlab load`: what the engine does under a load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_MIX = Path("params/mixes/everyday.yaml")
_START_PER_S = 50.0


def load(
    rate: Annotated[
        float | None, typer.Option(min=0.01, max=100_000, help="Open loop: calls a second that wait for no answer.")
    ] = None,
    clients: Annotated[int | None, typer.Option(min=1, max=10_000, help="Closed loop: callers that wait for answers.")] = None,
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Search for the highest rate that keeps --p99-ms; --rate is where it begins.")
    ] = False,
    p99_ms: Annotated[
        float | None, typer.Option(min=0.1, max=60_000, help="Of --find-rate: response time that 99 of 100 calls must keep.")
    ] = None,
    trials: Annotated[int, typer.Option(min=2, max=200, help="Of --find-rate: rates tried at most.")] = 40,
    duration: Annotated[
        float | None, typer.Option(min=0.1, max=86_400, help="Measured seconds: 60, or 5 of each trial.", show_default=False)
    ] = None,
    arrivals: Annotated[
        str, typer.Option(metavar="constant|poisson|FILE", help="Of the open loop; FILE is a trace with a column at_s.")
    ] = "poisson",
    workload: Annotated[Path | None, typer.Option(help=f"The mix of operations; default: {_MIX}.", show_default=False)] = None,
    settings: Annotated[
        Path | None, typer.Option(help="TOML file of settings, as memlab guide writes it; default: the defaults.")
    ] = None,
    memories: Annotated[
        int | None, typer.Option(min=16, max=1_000_000, help="Events in the store when it begins; default: the workload's.")
    ] = None,
    warm_up: Annotated[
        float | None, typer.Option(min=0.0, max=3_600, help="Seconds before the measured time; default: the workload's.")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(min=0.001, max=3_600, help="Seconds after which an answer is late, and a failure.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of texts, calls and arrivals.")] = 1,
    database: Annotated[Path | None, typer.Option(help="Database file to be made; default: a temporary one.")] = None,
    results: Annotated[Path, typer.Option(help="Folder that keeps the run.")] = Path("results"),
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures as JSON; - is standard output.")] = None,
) -> None:
    """Fill a fresh database, send a mix of operations, and check that what was acknowledged is there.

    Response time counts from when a call was due. Refused, late, timed-out and unknown outcomes are failures. Ctrl-C stops the
    sending; what was measured until then is reported.

    Example: memlab load --rate 300 --duration 60 --json -
    Or: memlab load --find-rate --p99-ms 50
    """
    from memlab.cli import output
    from memlab.errors import validation
    from memlab.experiment import load_run, load_summary, rate_trial
    from memlab.experiment.load_progress import Bar
    from memlab.settings import Settings

    if find_rate and p99_ms is None:
        raise validation("workload", "--find-rate needs a target: give --p99-ms, such as --p99-ms 50")
    if find_rate and (clients is not None or arrivals not in ("constant", "poisson")):
        raise validation("workload", "--find-rate sends open loops, poisson or constant; leave --clients and a trace out")
    if p99_ms is not None and not find_rate:
        raise validation("workload", "--p99-ms is the target of --find-rate; give both")
    if find_rate:
        wanted = changes(rate or _START_PER_S, None, duration or 5.0, arrivals, memories, warm_up, deadline)
    else:
        wanted = changes(rate, clients, duration or 60.0, arrivals, memories, warm_up, deadline)
    traffic = load_run.read_workload(mix_file(workload), wanted)
    output.check(json)
    mix_name = (workload or _MIX).stem
    if find_rate and p99_ms is not None:
        found = rate_trial.find_rate(
            traffic,
            Settings.load(settings),
            p99_ms=p99_ms,
            start_per_s=rate or _START_PER_S,
            trials=trials,
            seed=seed,
            database=database,
            mix_name=mix_name,
            progress=Bar(),
        )
        output.write(json, found, lambda: rate_trial.as_text(found))
        if found["checks"]["holds"] is not True:
            raise typer.Exit(1)
        return
    measured = load_run.run(
        traffic,
        Settings.load(settings),
        seed=seed,
        database=database,
        keep_in=results,
        mix_name=mix_name,
        progress=Bar(),
    )
    output.write(json, measured.summary, lambda: load_summary.as_text(measured.summary))
    if measured.run is not None:
        typer.echo(f"kept as {measured.run.id} in {results}", err=True)
    if measured.summary["checks"]["holds"] is not True:
        raise typer.Exit(1)


def mix_file(given: Path | None, default: Path = _MIX) -> Path:
    """Return the workload's file: the default one is the repository's, wherever the command is called."""
    if given is not None or default.is_file():
        return given or default
    return Path(__file__).resolve().parents[2] / default


def changes(
    rate: float | None,
    clients: int | None,
    duration: float,
    arrivals: str,
    memories: int | None,
    warm_up: float | None = None,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Return what the options say of a workload."""
    from memlab.errors import validation
    from memlab.experiment.load_run import resized

    is_trace = arrivals not in ("constant", "poisson")
    if (rate is None) == (clients is None) and not (is_trace and rate is None and clients is None):
        raise validation("workload", "give --rate for an open loop, or --clients for a closed one, and not both")
    if clients is not None:
        if arrivals != "poisson":
            raise validation("workload", "--arrivals is for an open loop; with --clients every caller waits for its answer")
        came: dict[str, Any] = {"kind": "closed", "clients": clients}
    elif is_trace:
        if not arrivals.endswith(".parquet"):
            raise validation("workload", f"--arrivals {arrivals}: give constant, poisson, or a trace as a .parquet file")
        came = {"kind": "trace", "path": arrivals, "rate_per_s": rate}
    else:
        came = {"kind": arrivals, "rate_per_s": rate}
    wanted: dict[str, Any] = {"arrivals": came, "duration_s": duration, "beside": None, **resized(memories)}
    if warm_up is not None:
        wanted["warm_up_s"] = warm_up
    if deadline is not None:
        wanted["deadline_s"] = deadline
    return wanted
