"""What a live service was asked, as a file: loaded and checked once, whatever its form.

Three forms, all parquet, told apart by their columns:

- **keys**: `key` (whole numbers or text), in the order of access; as public traces come. Times (`at_s` or `at_ns`) and columns
  of the recorded form may stand beside it: times allow a time to live, `reads` false marks writes, which make what they write
  stale, sizes say what an entry takes.
- **arrivals**: `at_s` (seconds, ascending), and whatever else; when calls came, and nothing of what they asked.
- **recorded**: memlab's own form. Never content: hashes are keyed with a secret that is drawn for each trace and kept nowhere, so
  that two traces cannot be joined and no text can be tried out against one.

| column of the recorded form | type | what it holds |
|---|---|---|
| `at_ns` | int64 | when the call began, from the beginning of the trace, ascending |
| `took_ns` | int64 | until it was answered |
| `operation` | text | such as `episodic.recall` |
| `reads` | bool | false for writes |
| `cacheable` | bool | whether a cache may keep the answer |
| `session` | uint64 | keyed hash of the session |
| `key` | uint64 | keyed hash of operation, session and parameters: equal for calls that one kept answer serves |
| `labels` | list of uint64 | keyed hashes of what a read's answer depends on, or of what a write makes stale |
| `ttl_s` | float64 | how long the operation lets an answer be kept; null for ever |
| `request_bytes`, `answer_bytes` | int64 | encoded sizes, as the cache weighs them |
| `outcome` | text | `ok`, or the type of the error |
| `cached` | bool | whether the cache of the service served it |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from memlab.errors import MemlabError, validation
from memlab.workload.arrivals import Offsets

Ints: TypeAlias = npt.NDArray[np.int64]
PARTS = ".parts"
"""Ending of the folder that a recording is written to, part by part, until it is closed."""
Kind: TypeAlias = Literal["keys", "arrivals", "recorded"]

_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "at_ns": pl.Int64,
    "took_ns": pl.Int64,
    "operation": pl.String,
    "reads": pl.Boolean,
    "cacheable": pl.Boolean,
    "session": pl.UInt64,
    "key": pl.UInt64,
    "labels": pl.List(pl.UInt64),
    "ttl_s": pl.Float64,
    "request_bytes": pl.Int64,
    "answer_bytes": pl.Int64,
    "outcome": pl.String,
    "cached": pl.Boolean,
}
RECORDED = pl.Schema(_COLUMNS)
"""Columns of the recorded form."""

_MAY_BE_NULL = {"ttl_s"}
_NONNEGATIVE = ("took_ns", "request_bytes", "answer_bytes", "ttl_s")
_FITS = "give a parquet file with a column key, a column at_s, or all columns of a recorded trace"


@dataclasses.dataclass(frozen=True)
class Kept:
    """The reads of a trace that a cache could serve, in order.

    Attributes:
        keys: whole numbers; (n,).
        at_ns: when; None where the trace has no times.
        stale_at: for each, the position among them of the first after the write that makes its answer stale, n where none does;
            None where the trace holds no writes.
        ttl_ns: how long each may be kept, the largest int64 for ever; None where no operation bounds it.
        answer_bytes: mean size of an answer; None where unknown.
    """

    keys: npt.NDArray[np.integer]
    at_ns: Ints | None
    stale_at: Ints | None
    ttl_ns: Ints | None
    answer_bytes: float | None


@dataclasses.dataclass(frozen=True)
class Trace:
    """A checked trace.

    Attributes:
        frame: the columns of the recorded form that the file has, and no others; `at_s` has become `at_ns`, counted from the
            first row. Writes among plain keys have `reads` false.
    """

    path: Path
    kind: Kind
    frame: pl.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    def offsets(self) -> Offsets:
        """Return when calls came.

        Returns:
            seconds from the first, ascending; (rows,).
        Raises:
            MemlabError: VALIDATION `trace`: it has no times, or they take no time.
        """
        if "at_ns" not in self.frame.columns:
            raise _wrong(self.path, "it has no times; arrivals need a column at_s")
        at_ns = self.frame["at_ns"].to_numpy()
        if at_ns[-1] == at_ns[0]:
            raise _wrong(self.path, "all calls came at once; arrivals need two moments or more")
        return np.asarray((at_ns - at_ns[0]) / 1e9, dtype=np.float64)

    def keys(self) -> npt.NDArray[np.integer]:
        """Return what reads asked for, in order; (reads,) whole numbers.

        Raises:
            MemlabError: VALIDATION `trace`: it holds arrivals alone, or writes alone.
        """
        if self.kind == "arrivals":
            raise _keyless(self.path)
        reads = self.frame.filter("reads") if "reads" in self.frame.columns else self.frame
        if reads.is_empty():
            raise _wrong(self.path, "it holds no read")
        return _whole(reads["key"])

    def mix(self) -> dict[str, float]:
        """Return the share of every operation of a recorded trace."""
        counted = self.frame["operation"].value_counts(sort=True)
        return {name: count / len(self) for name, count in counted.iter_rows()}

    def kept(self) -> Kept:
        """Return the reads that a cache could serve.

        Raises:
            MemlabError: VALIDATION `trace`: the trace holds arrivals alone, or no such read.
        """
        if self.kind == "arrivals":
            raise _keyless(self.path)
        frame = self.frame.with_row_index("row")
        reads = frame
        for column in ("reads", "cacheable"):
            if column in frame.columns:
                reads = reads.filter(pl.col(column))
        if "outcome" in frame.columns:
            reads = reads.filter(pl.col("outcome") == "ok")
        if reads.is_empty():
            raise validation("trace", f"trace '{self.path}' holds no read that a cache could serve; give one with reads")
        writes = frame.filter(~pl.col("reads")) if "reads" in frame.columns else frame.clear()
        ttl_ns = None
        if "ttl_s" in frame.columns and reads["ttl_s"].null_count() < len(reads):
            ttl_ns = (reads["ttl_s"] * 1e9).clip(upper_bound=2.0**61).cast(pl.Int64).fill_null(1 << 61).to_numpy()
        return Kept(
            _whole(reads["key"]),
            reads["at_ns"].to_numpy() if "at_ns" in frame.columns else None,
            _stale_at(reads, writes) if len(writes) else None,
            ttl_ns,
            float(np.mean(reads["answer_bytes"].to_numpy())) if "answer_bytes" in frame.columns else None,
        )


def load(path: str | Path) -> Trace:
    """Return the trace in a parquet file, of any of the three forms; or in the folder that a recording which was killed left.

    Raises:
        MemlabError: VALIDATION `trace`: no such file, not parquet, empty, or with columns, times or sizes that do not fit.
    """
    path = Path(path)
    if not path.exists():
        left = path.with_name(path.name + PARTS)
        raise _wrong(path, f"no such file; a recording that did not end left '{left}'" if left.is_dir() else "no such file")
    if path.is_dir() and not _holds_parts(path):
        raise _wrong(path, "a folder, and not one that a recording left")
    read = path / "*.parquet" if path.is_dir() else path
    try:
        columns = pl.scan_parquet(read, glob=path.is_dir()).collect_schema()
        kind = _kind(path, columns)
        wanted = [name for name in columns if name in RECORDED or name == "at_s"]
        frame = pl.read_parquet(read, columns=wanted, glob=path.is_dir())
        if path.is_dir() and "at_ns" in wanted:
            frame = frame.sort("at_ns", maintain_order=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _wrong(path, f"it cannot be read as parquet: {str(error).splitlines()[0]}") from None
    if frame.is_empty():
        raise _wrong(path, "it holds no rows")
    return Trace(path, kind, _checked(path, kind, frame))


def _holds_parts(folder: Path) -> bool:
    """Return whether a folder holds parts of one recording and no other parquet files."""
    try:
        schemas = [pl.read_parquet_schema(part) for part in folder.glob("*.parquet")]
    except (pl.exceptions.PolarsError, OSError):
        return False
    return bool(schemas) and all(RECORDED.keys() <= schema.keys() for schema in schemas)


def _kind(path: Path, columns: Mapping[str, pl.DataType]) -> Kind:
    if all(name in columns for name in RECORDED):
        return "recorded"
    if "key" in columns:
        return "keys"
    if "at_s" in columns:
        return "arrivals"
    raise _wrong(path, f"its columns are {', '.join(list(columns)[:12]) or 'none'}")


def _checked(path: Path, kind: Kind, frame: pl.DataFrame) -> pl.DataFrame:
    if kind == "arrivals":
        frame = frame.select("at_s")
    for name in frame.columns:
        found = frame[name]
        if name not in _MAY_BE_NULL and found.null_count():
            raise _wrong(path, f"column {name} has {found.null_count():,} rows without a value")
        if kind != "recorded" and name == "key":
            fits = found.dtype.is_integer() or found.dtype in (pl.String, pl.Categorical)
        elif name == "at_s" or RECORDED[name].is_numeric():
            fits = found.dtype.is_numeric()
        else:
            fits = found.dtype == RECORDED[name]
        if not fits:
            raise _wrong(path, f"column {name} holds {found.dtype}, not {RECORDED.get(name, pl.Float64())}")
        if found.dtype.is_float() and not found.drop_nulls().is_finite().all():
            raise _wrong(path, f"column {name} must hold finite numbers")
        if name in _NONNEGATIVE and found.min() is not None and float(found.min()) < 0:  # type: ignore[arg-type]
            raise _wrong(path, f"column {name} is negative in {int((found < 0).sum()):,} rows; sizes and durations are 0 or more")
    for name in ("at_s", "at_ns"):
        if name in frame.columns:
            falls = frame[name].diff() < 0
            if falls.any():
                row = int(falls.arg_true()[0])
                raise _wrong(path, f"column {name} must ascend, and falls at row {row:,}; sort the trace by time")
    if "at_s" in frame.columns:
        at_ns = ((frame["at_s"].cast(pl.Float64) - frame["at_s"][0]) * 1e9).round().cast(pl.Int64)
        frame = frame.drop("at_s").with_columns(at_ns=at_ns) if "at_ns" not in frame.columns else frame.drop("at_s")
    return frame


def _wrong(path: Path, what: str) -> MemlabError:
    return validation("trace", f"trace '{path}': {what}; {_FITS}")


def _keyless(path: Path) -> MemlabError:
    return validation("trace", f"trace '{path}' says when calls came, not what they asked; give one with a column key")


def _whole(keys: pl.Series) -> npt.NDArray[np.integer]:
    return keys.to_numpy() if keys.dtype.is_integer() else _numbered(keys)


def _numbered(keys: pl.Series) -> Ints:
    if keys.dtype.is_integer():
        return np.unique(keys.to_numpy(), return_inverse=True)[1].astype(np.int64)
    return keys.rank("dense").cast(pl.Int64).to_numpy() - 1


def _stale_at(reads: pl.DataFrame, writes: pl.DataFrame) -> Ints:
    """Return for every read the position of the first read after the write that makes its answer stale."""
    rows, written = reads["row"].to_numpy().astype(np.int64), writes["row"].to_numpy().astype(np.int64)
    touched = "labels" if "labels" in reads.columns else "key"  # a plain write makes stale what it writes
    told = pl.concat([reads[touched], writes[touched]])
    if touched == "labels":
        lengths = told.list.len().to_numpy().astype(np.int64)
        label = _numbered(told.explode().drop_nulls())
    else:
        lengths, label = np.ones(len(told), dtype=np.int64), _numbered(told)
    row = np.repeat(np.concatenate([rows, written]), lengths)
    mine = int(lengths[: len(rows)].sum())  # of reads; those of writes come after
    span = int(max(rows[-1], written[-1])) + 2
    events = np.sort(label[mine:] * span + row[mine:])
    asked = label[:mine] * span + row[:mine]
    place = np.searchsorted(events, asked)
    following = np.append(events, np.iinfo(np.int64).max)[place]
    same = following // span == label[:mine]
    ends = np.where(same, following % span, span)
    first = np.full(len(rows), span, dtype=np.int64)
    np.minimum.at(first, np.repeat(np.arange(len(rows)), lengths[: len(rows)]), ends)
    return np.searchsorted(rows, first)
