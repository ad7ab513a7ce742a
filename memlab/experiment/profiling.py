"""Where time and memory go: the same work under scalene and under memray, each in a process of its own.

A profiler slows what it watches, so a profile says where to look and never how fast it is. Scalene samples the sending alone;
memray counts every allocation of the whole process and draws what was held at the peak as a flame graph that needs no network.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from memlab.errors import internal, validation
from memlab.experiment import results
from memlab.experiment.profiled_work import Done, Job
from memlab.settings import Settings
from memlab.workload import spec

FLAME = "flame.html"
_PACKAGE = Path(__file__).resolve().parents[1]
_WORK = _PACKAGE / "experiment" / "profiled_work.py"
_TIMEOUT_S = 900.0
# Arrow's own allocator reserves a gigabyte of addresses at once, which memray would count as held; the system's does not.
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
_MOST_LINES = 25
# Lines in which a thread waits, by file and what stands in them: samples there are no work.
_WAITS = {
    ("experiment/profiled_work.py", "asyncio.run("): "the event loop, its waiting for storage's threads included",
    ("middleware/workers.py", "_steps.get()"): "a storage thread's waiting for work",
}
_SCHEMA = {
    "where": pl.String,
    "code": pl.String,
    "waiting": pl.Boolean,
    "share": pl.Float64,
    "python": pl.Float64,
    "native": pl.Float64,
    "system": pl.Float64,
}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a point of a sweep brought.

    Attributes:
        summary: the hottest lines with the shares of the samples, what memory was held and allocated, and by what.
        lines: where, code, waiting, share, python, native, system; the hottest first. Shares are of all samples, in [0, 1].
        allocations: where, bytes, of the allocations of the whole process, the largest first.
        flame: the flame graph; None where nothing is kept.
    """

    summary: dict[str, Any]
    lines: pl.DataFrame
    allocations: pl.DataFrame
    flame: Path | None = None


def measure_point(
    point: Mapping[str, Any],
    *,
    workload: Mapping[str, Any],
    seed: int = 1,
    size: str = "smoke",
    operations: int = 500,
    out: str | Path | None = None,
) -> Profile:
    """Profile a mix of operations, one after the other; what a point's notebook calls.

    Args:
        point: its candidate are the engine's settings.
        workload: as a params file has it; of it the corpus and the mix count.
        operations: calls that are sent.
        size: `quick`, or `smoke` for a run that only proves that it runs.
        out: existing folder for the flame graph and summary.json; None keeps nothing.
    Raises:
        MemlabError: VALIDATION: anything that does not fit, or a profiler is not installed; INTERNAL `process`: one failed.
    """
    missing = [name for name in ("scalene", "memray") if importlib.util.find_spec(name) is None]
    if missing:
        raise validation("profiler", f"{' and '.join(missing)}: not installed; install memlab with its extra, memlab[profile]")
    if operations < 1:
        raise validation("bounds", f"operations = {operations}; give 1 or more")
    traffic = spec.workload(workload)
    settings = Settings.of(point.get("candidate") or {})
    with tempfile.TemporaryDirectory(prefix="memlab-profiling-") as name:
        folder = Path(name)
        job = Job(
            settings=settings.to_dict(),
            workload=traffic.to_dict(),
            seed=seed,
            operations=operations,
            sampled=True,
            out=str(folder / "done.json"),
        )
        sampled, lines = _sample(job, folder)
        traced, held, allocations = _trace(job, folder, None if out is None else Path(out) / FLAME)
    summary = {
        "size": size,
        "finding": size != "smoke",
        "operations": sampled.operations,
        "failed": sampled.failed + traced.failed,
        "sampled": msgspec.to_builtins(sampled),
        "traced": msgspec.to_builtins(traced),
        "lines": {row["where"]: row for row in lines.iter_rows(named=True)},
        "memory": held,
        "allocations": {row["where"]: row for row in allocations.iter_rows(named=True)},
        "flame": FLAME,
    }
    results.write_point(out, summary)
    return Profile(summary=summary, lines=lines, allocations=allocations, flame=None if out is None else Path(out) / FLAME)


def _sample(job: Job, folder: Path) -> tuple[Done, pl.DataFrame]:
    """Run the work under scalene; return what was done and the lines with the most samples."""
    given, found = folder / "job.json", folder / "scalene.json"
    given.write_bytes(msgspec.json.encode(job))
    watch = ["--off", "--cpu-only", "--program-path", str(_PACKAGE), "--no-async", "--no-stacks", "-o", str(found)]
    _run(["scalene", "run", *watch, str(_WORK), "---", str(given)], folder)
    if not found.is_file():
        raise internal("process", "scalene wrote no profile: the work was too short to be sampled; send more operations")
    return _done(job), hot_lines(json.loads(found.read_text(encoding="utf-8")))


def hot_lines(profile: Mapping[str, Any]) -> pl.DataFrame:
    """Return the lines of a profile of scalene's, the hottest first, as `Profile.lines` has them."""
    rows = []
    for name, file in profile["files"].items():
        path = Path(name)
        where = path.relative_to(_PACKAGE.parent).as_posix() if path.is_relative_to(_PACKAGE) else path.name
        for line in file["lines"]:
            parts = [line[f"n_{part}"] / 100 for part in ("cpu_percent_python", "cpu_percent_c", "sys_percent")]
            if sum(parts) > 0:
                waits = [said for (file, code), said in _WAITS.items() if where == f"memlab/{file}" and code in line["line"]]
                code = waits[0] if waits else line["line"].strip()
                rows.append((f"{where}:{line['lineno']}", code, bool(waits), sum(parts), *parts))
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    return frame.sort("share", descending=True).head(_MOST_LINES)


def _trace(job: Job, folder: Path, flame: Path | None) -> tuple[Done, dict[str, Any], pl.DataFrame]:
    """Run the work under memray; return what was done, what was held, and the largest sources of allocations."""
    given, recorded, told = folder / "job.json", folder / "memray.bin", folder / "memray.json"
    given.write_bytes(msgspec.json.encode(msgspec.structs.replace(job, sampled=False)))
    _run(["memray", "run", "-q", "-o", str(recorded), "-m", "memlab.experiment.profiled_work", str(given)], folder)
    _run(["memray", "stats", "--json", "-o", str(told), str(recorded)], folder)
    if flame is not None:
        # Its own scripts and styles instead of a server's: it opens without a network.
        _run(["memray", "flamegraph", "--no-web", "-f", "-o", str(flame), str(recorded)], folder)
    stats = json.loads(told.read_text(encoding="utf-8"))
    held = {
        "peak_mb": stats["metadata"]["peak_memory"] / 1e6,
        "allocated_mb": stats["total_bytes_allocated"] / 1e6,
        "allocations": stats["total_num_allocations"],
        "per_operation": stats["total_num_allocations"] / job.operations,
    }
    rows = [(_shortened(one["location"]), one["size"] / 1e6) for one in stats["top_allocations_by_size"]]
    return _done(job), held, pl.DataFrame(rows, schema={"where": pl.String, "mb": pl.Float64}, orient="row")


def _shortened(location: str) -> str:
    """Return `function:file:line` with the file as seen from the package, so that a run names no machine."""
    function, _, rest = location.partition(":")
    file, _, line = rest.rpartition(":")
    path = Path(file)
    if path.is_relative_to(_PACKAGE):
        file = path.relative_to(_PACKAGE.parent).as_posix()
    elif path.is_absolute():
        file = "/".join(path.parts[-2:])
    return f"{function} ({file}:{line})" if line else function


def _done(job: Job) -> Done:
    return msgspec.json.decode(Path(job.out).read_bytes(), type=Done)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=os.environ | _ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise internal("process", f"{command[0]} did not end within {_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise internal("process", f"{command[0]} ended with {done.returncode}: {said}")
