"""Real long-term conversations: a folder in the layout of LoCoMo as parquet.

Maharana et al. 2024, Evaluating Very Long-Term Conversational Memory of LLM Agents, doi 10.48550/arXiv.2402.17753.

The data is CC BY-NC 4.0 and no part of memlab; a user gives the path of a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from memlab.errors import validation
from memlab.workload.corpus import QUESTIONS, Corpus, Vectors, in_turn

_TURNS: dict[str, type[pl.DataType] | None] = {
    "conversation": pl.String,
    "session": pl.Int64,
    "turn_id": pl.String,
    "speaker": pl.String,
    "text": pl.String,
    "at": pl.Datetime,
    "embedding": None,
}
_QUESTIONS: dict[str, type[pl.DataType] | None] = {
    "conversation": pl.String,
    "question": pl.String,
    "evidence": pl.List,
    "embedding": None,
}


def load_locomo(folder: str | Path, *, upcoming_share: float = 0.1) -> Corpus:
    """Return the conversations of a folder: one memory session each, vectors as they come.

    Args:
        folder: holds turns.parquet (conversation, session, turn_id, speaker, text, at, embedding) and questions.parquet
            (conversation, question, evidence, embedding, and answer where it is known).
        upcoming_share: of each conversation, the last turns, which a measurement remembers while it runs. Questions whose
            evidence lies there keep the part of it that is loaded.
    Raises:
        MemlabError: VALIDATION `data`: a file or column is missing, of another type, empty, or does not fit the other file.
    """
    path = Path(folder)
    if not path.is_dir():
        raise validation("data", f"no folder '{folder}'; give one that holds turns.parquet and questions.parquet")
    turns = _read(path / "turns.parquet", _TURNS)
    asked = _read(path / "questions.parquet", _QUESTIONS)
    turns = turns.sort("conversation", "at", maintain_order=True)
    vectors, question_vectors = _vectors(turns, path / "turns.parquet"), _vectors(asked, path / "questions.parquet")
    if vectors.shape[1] != question_vectors.shape[1]:
        raise validation(
            "data",
            f"'{folder}': turns have vectors of {vectors.shape[1]} numbers, questions of {question_vectors.shape[1]}; "
            "both must come from one model",
        )
    known = set(turns["conversation"].unique())
    strangers = sorted(set(asked["conversation"].unique()) - known)
    if strangers:
        raise validation("data", f"'{path / 'questions.parquet'}' asks about conversation '{strangers[0]}', which has no turns")
    later = _is_later(turns, upcoming_share)
    rows = turns.with_columns(later=pl.Series(later)).with_columns(
        row=pl.when(~pl.col("later")).then((~pl.col("later")).cast(pl.Int64).cum_sum() - 1)
    )
    events = rows.select(
        pl.col("conversation").alias("session"),
        pl.col("text").alias("content"),
        pl.concat_list(pl.col("speaker").str.to_lowercase(), pl.format("sitting-{}", "session")).alias("tags"),
        "speaker",
        pl.col("at").dt.cast_time_unit("us").dt.replace_time_zone("UTC").alias("occurred_at"),
    )
    upcoming = np.flatnonzero(later)
    upcoming = upcoming[in_turn(events["session"][upcoming])]
    return Corpus(
        path.resolve().name,
        f"precomputed:{vectors.shape[1]}",
        events.filter(~later),
        events[upcoming],
        _questions(asked, rows),
        vectors[~later],
        vectors[upcoming],
        question_vectors,
    )


def load_categories(folder: str | Path) -> list[str]:
    """Return the category of every question of a folder, in the order of its file; "" where it has none."""
    path = Path(folder) / "questions.parquet"
    asked = _read(path, _QUESTIONS)
    if "category" not in asked.columns:
        return [""] * len(asked)
    return asked["category"].cast(pl.String).fill_null("").to_list()


def _read(path: Path, columns: Mapping[str, type[pl.DataType] | None]) -> pl.DataFrame:
    if not path.is_file():
        raise validation("data", f"no file '{path}'; a LoCoMo folder holds turns.parquet and questions.parquet")
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise validation("data", f"'{path}' is not a parquet file: {str(error).splitlines()[0]}") from None
    for name, kind in columns.items():
        if name not in frame.columns:
            raise validation("data", f"'{path}' has no column '{name}'; it has {', '.join(frame.columns)}")
        if kind is not None and frame.schema[name].base_type() is not kind:
            raise validation("data", f"'{path}': column '{name}' holds {frame.schema[name]}, not {kind.__name__}")
        if frame[name].null_count():
            raise validation(
                "data", f"'{path}': column '{name}' has {frame[name].null_count()} empty places; fill or drop those rows"
            )
    if frame.is_empty():
        raise validation("data", f"'{path}' has no rows")
    return frame


def _vectors(frame: pl.DataFrame, path: Path) -> Vectors:
    column = frame["embedding"]
    if not isinstance(column.dtype, (pl.Array, pl.List)):
        raise validation("data", f"'{path}': column 'embedding' holds {column.dtype}, not vectors")
    lengths = column.arr.len() if isinstance(column.dtype, pl.Array) else column.list.len()
    if lengths.n_unique() != 1:
        raise validation("data", f"'{path}': column 'embedding' holds vectors of unlike lengths")
    try:
        flat = column.explode().cast(pl.Float32).to_numpy().reshape(len(frame), -1)
    except pl.exceptions.PolarsError:
        raise validation("data", f"'{path}': column 'embedding' holds {column.dtype}, not vectors of numbers") from None
    norms = np.linalg.norm(flat.astype(np.float64), axis=1)
    bad = ~np.isfinite(norms) | (norms < 1e-6)
    if bad.any():
        raise validation("data", f"'{path}': row {int(bad.argmax())} of column 'embedding' is zero or not finite")
    vectors: Vectors = (flat / norms[:, None]).astype(np.float32)
    return vectors


def _is_later(turns: pl.DataFrame, share: float) -> np.ndarray:
    """Return which turns are the last *share* of their conversation; the first of each is never one."""
    place = turns.select(
        (pl.int_range(pl.len()).over("conversation") >= (pl.len().over("conversation") * (1 - share)).ceil().clip(1)).alias(
            "later"
        )
    )
    return place["later"].to_numpy()


def _questions(asked: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Join the names of turns to their rows; names that no loaded turn bears are left out."""
    answer = pl.col("answer").cast(pl.String) if "answer" in asked.columns else pl.lit("")
    numbered = asked.rename({"question": "question_text"}).with_row_index("question")
    evidence = (
        numbered.select("question", "conversation", pl.col("evidence").cast(pl.List(pl.String)).alias("turn_id"))
        .explode("turn_id")
        .join(rows.select("conversation", "turn_id", "row"), on=["conversation", "turn_id"], how="inner", maintain_order="left")
        .group_by("question", maintain_order=True)
        .agg(pl.col("row").drop_nulls())
    )
    return (
        numbered.join(evidence, on="question", how="left")
        .sort("question")
        .select(
            pl.col("conversation").alias("session"),
            pl.col("question_text").alias("text"),
            answer.fill_null("").alias("answer"),
            pl.col("row").fill_null([]).alias("evidence"),
        )
        .cast(pl.Schema(QUESTIONS))
    )
