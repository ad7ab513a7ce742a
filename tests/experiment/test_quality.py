"""Quality is measured on any conversations in the layout, by figures that can be checked by hand."""

import json
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from memlab.cli import main
from memlab.errors import MemlabError
from memlab.experiment.quality import FIGURES, as_text, compare, intervals, judged, leave_one_out, measure, report

SITTINGS = ["a", "a", "b", "b", "c"]


@pytest.mark.parametrize(
    ("turns", "evidence", "figures"),
    [
        ([0], [0], (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
        ([2, 0], [0, 1], (0.5, 1.0, 0.5, 0.0, 1.0, 0.5)),
        ([2, 3, 4, 1], [0], (0.0, 0.0, 0.0, 0.0, 1.0, 1 / 3)),  # another turn of its session was found third
        ([2, 3], [0], (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ([], [0], (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_figures_by_hand(turns, evidence, figures):
    """Recall and hits of turns, and of sessions in the order in which their turns appear."""
    assert tuple(judged(turns, evidence, SITTINGS)[name] for name in FIGURES) == pytest.approx(figures)


def test_only_ten_turns_count_for_recall():
    """The eleventh turn found is no hit, but it counts for the reciprocal rank."""
    found = judged([*range(1, 11), 0], [0], ["s"] * 11)
    assert (found["turn_recall_at_10"], found["turn_hit_at_10"]) == (0.0, 0.0)
    assert found["turn_mrr"] == pytest.approx(1 / 11)


@pytest.fixture
def folder(tmp_path):
    """Two conversations of three turns, each turn a vector and a word of its own, and questions with known figures."""
    words = ["harbour", "lantern", "violin", "orchard", "compass", "thunder"]
    turns = pl.DataFrame(
        {
            "conversation": ["x"] * 3 + ["y"] * 3,
            "session": [1, 2, 3] * 2,
            "turn_id": ["D1:1", "D2:1", "D3:1"] * 2,
            "speaker": ["Ada", "Bo"] * 3,
            "text": [f"about the {word}" for word in words],
            "at": [datetime(2023, 5 + place % 3, 8) for place in range(6)],  # noqa: DTZ001  as the data has it
            "embedding": pl.Series(np.eye(6, 8, dtype=np.float32), dtype=pl.Array(pl.Float32, 8)),
        }
    )
    questions = pl.DataFrame(
        {
            "conversation": ["x", "x", "y", "y"],
            "question": ["the harbour?", "the lantern?", "the compass?", "nothing of it"],
            "answer": ["", "", "", ""],
            "category": [1, 4, 5, 4],
            "evidence": [["D1:1"], ["D2:1", "D3:1"], ["D2:1"], []],
            "embedding": pl.Series(np.eye(6, 8, dtype=np.float32)[[0, 1, 4, 5]], dtype=pl.Array(pl.Float32, 8)),
        }
    )
    turns.write_parquet(tmp_path / "turns.parquet")
    questions.write_parquet(tmp_path / "questions.parquet")
    return tmp_path


def test_a_small_set_by_hand(folder):
    """Every question with evidence is asked in its own conversation, and the means are those of the questions."""
    told = []
    rows = measure(folder, tell=told.append)
    assert rows["category"].to_list() == ["1", "4", "5"]
    figures = report(rows)
    assert figures["overall"]["questions"] == 3
    assert figures["overall"]["session_hit_at_1"] == 1.0
    assert figures["overall"]["turn_mrr"] == 1.0
    assert figures["categories_1_4"]["questions"] == 2
    assert set(figures["by_category"]) == {"1", "4", "5"}
    assert set(figures["overall"]) == {*FIGURES, "questions"}
    assert len(told) == 4
    assert "categories 1-4       2" in as_text(figures)
    assert measure(folder, strategy="vector")["turn_mrr"].to_list() == [1.0, 1.0, 1.0]


def test_the_command_writes_the_contract(folder, capsys, tmp_path):
    """JSON on standard output and nothing else there; progress goes to standard error; a file holds the same."""
    assert main(["quality", str(folder), "--json", "-"]) == 0
    said = capsys.readouterr()
    assert set(json.loads(said.out)) == {"overall", "categories_1_4", "by_category"}
    assert "x: 3 turns remembered" in said.err
    assert main(["quality", str(folder), "--json", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == json.loads(said.out)
    assert "overall" in capsys.readouterr().out


@pytest.mark.parametrize("break_it", ["gone", "empty folder", "text", "no column"])
def test_foreign_files_are_bad_input(folder, break_it, capsys):
    """What is missing or is something else is one line that says what, with exit code 2."""
    path = folder / "questions.parquet"
    if break_it == "gone":
        path.unlink()
    elif break_it == "empty folder":
        folder = folder / "nowhere"
    elif break_it == "text":
        path.write_text("not parquet")
    else:
        pl.read_parquet(path).drop("evidence").write_parquet(path)
    assert main(["quality", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("memlab: ")
    assert len(error.splitlines()) == 1


def test_a_set_without_evidence_is_refused(folder):
    """Nothing to measure is an error, not a row of zeros."""
    path = folder / "questions.parquet"
    empty = pl.Series([[]] * 4, dtype=pl.List(pl.String))
    pl.read_parquet(path).with_columns(evidence=empty).write_parquet(path)
    with pytest.raises(MemlabError, match="has evidence") as caught:
        measure(folder)
    assert caught.value.reason == "data"


@pytest.mark.serial
def test_the_reach_on_real_conversations(shared_data):
    """On the five conversations the default settings find what the project promises."""
    overall = report(measure(shared_data / "locomo"))["overall"]
    assert overall["questions"] == 997
    assert overall["turn_recall_at_10"] >= 0.78
    assert overall["session_hit_at_1"] >= 0.74
    assert overall["session_mrr"] >= 0.83


def rows_of(figures):
    """Rows of two questions in each conversation, from (variant, conversation): the figure of both."""
    return pl.DataFrame(
        [
            {"variant": variant, "conversation": name, "question": number} | dict.fromkeys(FIGURES, value)
            for (variant, name), value in figures.items()
            for number in range(2)
        ]
    )


def test_a_choice_does_not_see_the_conversation_left_out():
    """Each conversation is measured with what is best on the others, be it worse there."""
    rows = rows_of(
        {
            ("default", "x"): 0.5,
            ("default", "y"): 0.5,
            ("default", "z"): 0.5,
            ("other", "x"): 1.0,
            ("other", "y"): 0.2,
            ("other", "z"): 0.2,
        }
    )
    found = leave_one_out(rows).rows_by_key("left out", named=True, unique=True)
    assert {name: row["chosen"] for name, row in found.items()} == {
        "x": "default",
        "y": "other",
        "z": "other",
        "all": "default",
    }
    assert found["x"]["session_mrr"] == 0.5
    assert found["all"]["session_mrr"] == pytest.approx((0.5 + 0.2 + 0.2) / 3)
    with pytest.raises(MemlabError, match="needs two or more"):
        leave_one_out(rows.filter(pl.col("conversation") == "x"))


def test_intervals_hold_their_means():
    """Where all questions are alike the interval is a point; otherwise it is around the mean, the same for the same seed."""
    rows = rows_of({("default", "x"): 0.5, ("default", "y"): 0.5, ("other", "x"): 1.0, ("other", "y"): 0.0})
    found = intervals(rows)
    assert found.equals(intervals(rows))
    by = found.rows_by_key(["variant", "figure"], named=True, unique=True)
    assert [by["default", "session_mrr"][name] for name in ("value", "low", "high")] == [0.5, 0.5, 0.5]
    assert by["other", "session_mrr"]["low"] < 0.5 < by["other", "session_mrr"]["high"]


def test_variants_are_compared_on_generated_conversations():
    """Without a folder a small generated set is asked, each variant the same questions."""
    rows = compare(None, {"default": {}, "no neighbours": {"reach": 0}}, questions=4)
    counts = rows.group_by("variant").agg(pl.len(), pl.col("question").sort().implode())
    assert counts["len"].n_unique() == 1
    assert 0 < counts["len"][0] <= 12
    assert rows["turn_recall_at_10"].mean() > 0
