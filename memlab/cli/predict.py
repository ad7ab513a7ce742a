"""`memlab predict`: what a setting would do, by a model, from a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memlab.cli.writing import write_json
from memlab.errors import validation

if TYPE_CHECKING:
    from memlab.predict.miss_ratio import Curve

HELP = """Predict what a setting would do, from a trace.

Example: memlab predict cache trace.parquet
"""


def cache(
    trace: Annotated[Path, typer.Argument(help="A parquet file with a column key, or a recorded trace.", show_default=False)],
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,…", help="Entries kept; default: twelve sizes from 1 % of the keys to all.", show_default=False
        ),
    ] = None,
    policy: Annotated[str, typer.Option(help="lru, fifo, s3_fifo, sieve or w_tinylfu.")] = "lru",
    sample: Annotated[
        float | None, typer.Option(help="Share of the accesses to look at, such as 0.01; default: all.", show_default=False)
    ] = None,
    ttl: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds that an answer is served; of a trace with times.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write JSON to FILE; - is standard output.")] = None,
) -> None:
    """Predict the hit ratio of a cache, for many sizes, from one trace; writes in the trace make answers stale.

    Example: memlab predict cache trace.parquet --sizes 100,1000,10000 --sample 0.01
    """
    from memlab.middleware.cache import ENTRY_BYTES
    from memlab.predict.miss_ratio import Accesses, miss_ratio_curve
    from memlab.workload.trace import load

    wanted = None if sizes is None else _whole_numbers(sizes)
    kept = load(trace).kept()
    accesses = Accesses(kept.keys, kept.at_ns, kept.stale_at, kept.ttl_ns)
    curve = miss_ratio_curve(accesses, wanted, policy=policy, sample=sample, ttl_s=ttl, seed=seed)
    entry_bytes = None if kept.answer_bytes is None else kept.answer_bytes + ENTRY_BYTES
    if json is not None:
        gain = None if entry_bytes is None else curve.megabyte_gain(entry_bytes)
        write_json({**curve.to_dict(), "seed": seed, "entry_bytes": entry_bytes, "megabyte_gain": gain}, json)
    if json != "-":
        typer.echo(as_text(curve, entry_bytes))


def as_text(curve: Curve, entry_bytes: float | None) -> str:
    """Return a curve as a table and what it means."""
    how = "exact" if curve.sample is None else f"from {curve.sample:.3g} of the accesses"
    ttl = "" if curve.ttl_s is None else f", answers served for {curve.ttl_s:g} s"
    lines = [
        f"{curve.policy}{ttl}: {curve.accesses:,} accesses to {curve.distinct_keys:,} keys, {how}",
        f"{'entries':>12}  hit ratio  low to high",
    ]
    for size, ratio, low, high in zip(curve.max_entries, curve.hit_ratio, curve.low, curve.high, strict=True):
        lines.append(f"{size:>12,}  {ratio:>9.3f}  {low:.3f} to {high:.3f}")
    knee = curve.knee()
    more = 100 * (knee.doubled_hit_ratio - knee.hit_ratio)
    lines += [
        f"low to high: {curve.interval}",
        f"{knee.max_entries:,} entries reach a hit ratio of {knee.hit_ratio:.3f}: the smallest size within one point of the knee "
        f"(Kneedle: {knee.knee_entries:,} entries).",
        f"Twice as many reach {knee.doubled_hit_ratio:.3f}, {more:.1f} points more.",
    ]
    if entry_bytes is not None:
        gain = 100 * curve.megabyte_gain(entry_bytes)
        lines.append(f"One more MB keeps {1e6 / entry_bytes:,.0f} entries more and adds {gain:.2g} points.")
    return "\n".join(lines)


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise validation("sizes", f"--sizes {text}: give whole numbers of entries, such as 100,1000") from None
