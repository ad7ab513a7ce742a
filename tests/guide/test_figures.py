"""Numbers enter a guide through runs, and no other way."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlab.errors import MemlabError
from memlab.guide import documents, figures
from memlab.guide.figures import Figure, Source, cite, mark, name_run, plain, write

RUN, OTHER = "01-cache-size/a3f1c2", "02-batch-window/b7d9e0"
FRESH = {run: Source(run, True) for run in (RUN, OTHER)}


@dataclass
class Document:
    """What a figure reads of a run."""

    id: str = RUN
    content: dict[str, Any] = field(
        default_factory=lambda: {
            "repeats": 5,
            "parameters": {"cache.max_entries": 1024, "cache.ttl_s": None},
            "summary": {
                "ratio": {"p95": {"value": 0.42, "low": 0.4, "high": 0.45}},
                "by_operation": {"episodic.recall": {"n": 3}},
            },
        }
    )

    def to_dict(self):
        return self.content


def reason(caught):
    return caught.value.reason


def test_a_figure_is_read_where_it_stands():
    """Values, intervals, and keys that hold dots themselves are found; the figure knows its run and its place."""
    assert Figure.of(Document(), "repeats") == Figure(5, (RUN,), path="repeats")
    assert Figure.of(Document(), "parameters.cache.max_entries").value == 1024
    assert Figure.of(Document(), "parameters.cache.ttl_s").value is None
    assert Figure.of(Document(), "summary.by_operation.episodic.recall.n").value == 3
    ratio = Figure.of(Document(), "summary.ratio.p95")
    assert (ratio.value, ratio.low, ratio.high) == (0.42, 0.4, 0.45)


@pytest.mark.parametrize("path", ["summary.ratio.p99", "summary.ratio", "nothing", "repeats.more", "parameters.cache"])
def test_what_is_not_there_is_not_invented(path):
    """A path that leads to no figure is an error that names run and path, unless a value for it is given."""
    with pytest.raises(MemlabError, match=path) as caught:
        Figure.of(Document(), path)
    assert reason(caught) == "figure"
    assert figures.read(Document(), path, missing=None) == (None, None, None)


def test_a_figure_without_a_run_cannot_be_made():
    """No run, no figure."""
    for runs in ((), ("",)):
        with pytest.raises(MemlabError) as caught:
            Figure(3, runs)
        assert reason(caught) == "no_run"


def test_a_figure_reads_well():
    """Number format, unit, interval, and words where the samples are too few."""
    assert f"{Figure(12.345, (RUN,), 'ms'):.1f}" == "12.3\u202fms"
    assert f"{Figure(0.42, (RUN,), low=0.4, high=0.45):.2f±}" == "0.42 (0.40 to 0.45)"
    assert f"{Figure(0.42, (RUN,)):.2f±}" == "0.42"
    assert f"{Figure(4096, (RUN,)):,}" == "4,096"
    assert f"{Figure('none', (RUN,)):,}" == "none"
    assert f"{Figure(None, (RUN,)):.2f}" == "too few samples"


@pytest.mark.parametrize("value", [3, 0.42, None, True, [1]])
def test_a_bare_number_cannot_fill_a_template(value):
    """What is neither a figure nor a text is refused on the way in."""
    with pytest.raises(MemlabError, match="no run") as caught:
        write("p95 is {p95} ms", p95=value)
    assert reason(caught) == "bare_number"


def test_a_missing_place_is_named():
    """A template that asks for what it was not given says so."""
    with pytest.raises(MemlabError, match=r"\{p99\}"):
        write("{p95} and {p99}", p95="x")


@pytest.mark.parametrize(
    "text",
    [
        "p95 fell to 12 ms.",
        "| cache | 0.42 |",
        "A ttl of 2s",
        "half of 1,000",
        "```\nmax_entries = 1024\n```",
        "the year 2026",
        "recall@100",
        "[12](#runs)",
    ],
)
def test_a_bare_number_in_the_finished_text_fails(text):
    """Prose, table, code or link: a digit that no run stands behind fails the build, with the line it stands in."""
    with pytest.raises(MemlabError, match="line 2") as caught:
        figures.check(f"fine\n{text}" if "\n" not in text else text, FRESH)
    assert reason(caught) == "bare_number"


@pytest.mark.parametrize(
    "text",
    ["Bars are 95 % intervals.", "p50, p95 and p99", "recall@10 against exact search", "`sq8`", "![x](charts/01-cache-size.svg)",
     "### Runs of 01-cache-size", "<https://doi.org/10.1016/j.is.2019.02.006>"],
)  # fmt: skip
def test_declared_exceptions_pass(text):
    """Names that hold digits are declared, each with its reason."""
    figures.check(text, FRESH)
    assert all(figures.EXCEPTIONS.values())


@given(st.integers(), st.sampled_from(["x {} y", "| {} |", "**{}**", "{}. "]))
def test_a_number_passes_between_marks_and_nowhere_else(number, frame):
    """Whatever the number: as a figure it passes, bare it does not."""
    figures.check(frame.format(mark(Figure(number, (RUN,)))), FRESH)
    with pytest.raises(MemlabError):
        figures.check(frame.format(number), FRESH)


def test_marks_cannot_be_imitated():
    """A text that brings marks of its own, or half of them, does not smuggle a number in."""
    for smuggled in ("\ue00012", "12\ue002", "\ue00012\ue002", "\ue00012\ue001\ue002"):
        with pytest.raises(MemlabError):
            figures.check(smuggled, FRESH)


def test_an_unknown_run_fails():
    """A figure whose run is not in the results fails the build, and the run is named."""
    with pytest.raises(MemlabError, match="03-pool-limit/ffff") as caught:
        figures.check(mark(Figure(3, ("03-pool-limit/ffff",))), FRESH)
    assert reason(caught) == "unknown_run"


def test_a_run_older_than_the_code_fails():
    """A figure whose run was made by other code fails the build; so does the mere mention of such a run."""
    stale = {**FRESH, RUN: Source(RUN, False)}
    figures.check(mark(Figure(3, (OTHER,))), stale)
    for text in (mark(Figure(3, (RUN,))), mark(Figure(3, (OTHER, RUN))), name_run(RUN)):
        with pytest.raises(MemlabError, match="code has changed") as caught:
            figures.check(text, stale)
        assert reason(caught) == "stale_run"
        assert caught.value.fields["runs"] == [RUN]


def test_every_figure_is_followed_by_its_run():
    """Readers see the number and a link to its run; two runs are named, more lead to the table that lists them."""
    style = documents.readable({RUN: "a3f1", OTHER: "b7d9"})
    text = cite(write("p95 {p95:.1f} ms, {hit:.2f}", p95=Figure(12.0, (RUN,)), hit=Figure(0.5, (RUN, OTHER))), style)
    assert text == "p95 12.0<sup>[a3f1](#run-a3f1)</sup> ms, 0.50<sup>[a3f1](#run-a3f1) [b7d9](#run-b7d9)</sup>\n"
    many = tuple(f"01-cache-size/{place:x}" for place in range(3))
    assert cite(mark(Figure(4, many)), style) == "4<sup>[01-cache-size](#runs-of-01-cache-size)</sup>\n"
    assert cite(mark(Figure(4, (*many, OTHER))), style) == "4<sup>[all](#runs)</sup>\n"


def test_a_row_that_names_its_run_says_so_once():
    """In a table's row, a paragraph or a line of code, the run's own figures need no citation; another run's do."""
    style = documents.readable({RUN: "a3f1", OTHER: "b7d9"})
    row = f"| {mark(Figure(12, (RUN,)))} | {mark(Figure(13, (OTHER,)))} | {name_run(RUN)} |"
    assert cite(row, style) == "| 12 | 13<sup>[b7d9](#run-b7d9)</sup> | [a3f1](#run-a3f1) |\n"
    paragraph = f"It took {mark(Figure(12, (RUN,)))} and {mark(Figure(13, (OTHER,)))} ({name_run(RUN)})."
    assert cite(paragraph, style) == "It took 12 and 13<sup>[b7d9](#run-b7d9)</sup> ([a3f1](#run-a3f1)).\n"
    code = f"``` toml\nsize = {mark(Figure(12, (RUN,)))}  # {name_run(RUN)}\n```\nafter {mark(Figure(12, (RUN,)))}"
    assert cite(code, style) == "``` toml\nsize = 12  # a3f1\n```\nafter 12<sup>[a3f1](#run-a3f1)</sup>\n"
    with pytest.raises(MemlabError) as caught:
        cite(f"```\nsize = {mark(Figure(12, (RUN,)))}\n```", style)
    assert reason(caught) == "bare_number"


def test_definitions_are_what_links_lead_to():
    """The table of runs holds the anchor that citations name, in Markdown and for pandoc."""
    keys = {RUN: "a3f1"}
    assert cite(name_run(RUN, here=True), documents.readable(keys)) == '<a id="run-a3f1"></a>a3f1\n'
    assert cite(name_run(RUN, here=True), documents.linked(keys)) == "[a3f1]{#run-a3f1}\n"


def test_plain_text_has_no_marks():
    """Where there are no links, a figure is its text and a run its identity."""
    assert plain(f"{mark(Figure(12, (RUN,)))} # {name_run(RUN)}") == f"12 # {RUN}"


@given(st.sets(st.text("0123456789abcdef", min_size=8, max_size=8), min_size=1, max_size=30))
def test_short_keys_tell_runs_apart(keys):
    """Shortened keys are as many as the runs, four characters at least, and begin the key."""
    runs = [f"x/{key}" for key in keys]
    short = figures.short_keys(runs)
    assert len(set(short.values())) == len(runs)
    assert all(len(short[run]) >= 4 and run.partition("/")[2].startswith(short[run]) for run in runs)
