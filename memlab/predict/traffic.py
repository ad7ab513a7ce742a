"""What traffic is like, in a few numbers: what is asked, how unevenly, how soon again, and how unevenly in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.predict.stack_distance import NEVER, Floats, Ints, stack_distances

_STEEPEST = 10.0  # exponents above say nothing: one key has all
_WINDOW_NS = 1_000_000_000
_FEWEST_WINDOWS = 10
_BINS = 200
_RANKS = 200


def zipf_exponent(counts: npt.NDArray[np.integer]) -> float:
    """Return the exponent s of Zipf's law, p(rank) ~ rank^-s, that makes these counts likeliest.

    The likeliest exponent is where the mean of ln rank under the law equals that of the counts (for a law of exponential family
    the likelihood has one maximum), found by bisection. Ranks come from the same counts, which makes it a little too steep where
    counts are small.

    Args:
        counts: how often each key was used; (keys,), in any order.

    >>> bool(abs(zipf_exponent(np.round(1e6 / np.arange(1, 1001) ** 0.8).astype(int)) - 0.8) < 0.001)
    True
    """
    log_rank = np.log(np.arange(1, len(counts) + 1))
    ordered = np.sort(counts)[::-1]
    seen = float(ordered @ log_rank / ordered.sum())
    low, high = 0.0, _STEEPEST
    for _ in range(50):
        middle = (low + high) / 2
        weights = np.exp(-middle * log_rank)
        low, high = (middle, high) if float(weights @ log_rank / weights.sum()) > seen else (low, middle)
    return (low + high) / 2


def dispersion(at_ns: Ints) -> float | None:
    """Return the index of dispersion of arrivals: variance over mean of the counts in whole seconds; 1 for a Poisson process.

    Returns:
        None where the trace has fewer than ten whole seconds.
    """
    counts = _per_second(at_ns)
    return float(counts.var() / counts.mean()) if len(counts) >= _FEWEST_WINDOWS else None


def summary(frame: pl.DataFrame) -> dict[str, Any]:
    """Return the figures of a trace, those that its columns allow.

    Args:
        frame: as `workload.trace.Trace` has it.
    Returns:
        `calls`, and what the trace has of: `mix` (share by operation), `read_ratio`, `popularity` (keys, zipf_exponent,
        hottest_hundredth: the share of the accesses that a hundredth of the keys takes), `reuse` (repeat_ratio; once_ratio, of
        keys used once; p50_distance and p90_distance, other keys used in between), `arrivals` (duration_s, rate_per_s,
        peak_per_s in the fullest second, dispersion), `answer_bytes` (mean).
    """
    told: dict[str, Any] = {"calls": len(frame)}
    if "operation" in frame.columns:
        counted = frame["operation"].value_counts(sort=True)
        told["mix"] = {name: count / len(frame) for name, count in counted.iter_rows()}
    if "reads" in frame.columns:
        told["read_ratio"] = float(np.mean(frame["reads"].to_numpy()))
    keys = _keys(frame)
    if keys is not None and len(keys):
        told |= _of_keys(keys)
    if "at_ns" in frame.columns:
        at_ns = frame["at_ns"].to_numpy()
        duration_s = float(at_ns[-1] - at_ns[0]) / 1e9
        told["arrivals"] = {
            "duration_s": duration_s,
            "rate_per_s": (len(frame) - 1) / duration_s if duration_s else None,
            "peak_per_s": int(_per_second(at_ns).max()) if duration_s >= 1 else None,
            "dispersion": dispersion(at_ns),
        }
    if "answer_bytes" in frame.columns:
        told["answer_bytes"] = float(np.mean(frame["answer_bytes"].to_numpy()))
    return told


def popularity(frame: pl.DataFrame) -> pl.DataFrame | None:
    """Return `share` of the accesses by `rank` of their key, at up to 200 ranks; None where the trace has no keys."""
    keys = _keys(frame)
    if keys is None or not len(keys):
        return None
    counts = np.sort(np.unique(keys, return_counts=True)[1])[::-1]
    ranks = np.unique(np.geomspace(1, len(counts), _RANKS).round().astype(np.int64))
    return pl.DataFrame({"rank": ranks, "share": counts[ranks - 1] / len(keys)})


def arrivals(frame: pl.DataFrame) -> pl.DataFrame | None:
    """Return `rate_per_s` of up to 200 even parts of the trace at `at_s`, their middles; None where it has no times."""
    if "at_ns" not in frame.columns:
        return None
    at_s = (frame["at_ns"].to_numpy() - frame["at_ns"][0]) / 1e9
    if at_s[-1] <= 0:
        return None
    counts, edges = np.histogram(at_s, bins=min(_BINS, len(at_s)))
    return pl.DataFrame({"at_s": (edges[1:] + edges[:-1]) / 2, "rate_per_s": counts / np.diff(edges)})


def _keys(frame: pl.DataFrame) -> npt.NDArray[np.integer] | None:
    if "key" not in frame.columns:
        return None
    keys = frame.filter("reads")["key"] if "reads" in frame.columns else frame["key"]
    return keys.to_numpy() if keys.dtype.is_integer() else keys.rank("dense").to_numpy().astype(np.int64)


def _of_keys(keys: npt.NDArray[np.integer]) -> dict[str, Any]:
    counts = np.sort(np.unique(keys, return_counts=True)[1])[::-1]
    distances = stack_distances(keys)
    again = distances[distances < NEVER]
    hottest = max(1, len(counts) // 100)
    return {
        "popularity": {
            "keys": len(counts),
            "zipf_exponent": zipf_exponent(counts) if len(counts) > 1 else None,
            "hottest_hundredth": float(counts[:hottest].sum() / len(keys)),
        },
        "reuse": {
            "repeat_ratio": len(again) / len(keys),
            "once_ratio": float(np.mean(counts == 1)),
            "p50_distance": float(np.quantile(again, 0.5)) if len(again) else None,
            "p90_distance": float(np.quantile(again, 0.9)) if len(again) else None,
        },
    }


def _per_second(at_ns: Ints) -> Floats:
    """Return the arrivals in each whole second; the last, which the trace does not fill, is left out."""
    second = (at_ns - at_ns[0]) // _WINDOW_NS
    return np.bincount(second, minlength=1)[: max(int(second[-1]), 1)].astype(np.float64)
