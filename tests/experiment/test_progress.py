"""A sweep as lines, and as a bar with the time that is left."""

import io
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from memlab.experiment.progress import Bar


def point(label):
    return SimpleNamespace(label=label)


def run(status):
    return SimpleNamespace(status=status, notebook=Path("results/x/notebook.ipynb"))


def walk(console):
    bar = Bar("sizes", console)
    bar.begin([run("done")], [10.0, 10.0])
    bar.update([5.0])
    bar.finish(point("size=1"), run("done"), 20.0)
    bar.update([0.0])
    halfway = dict(bar._columns.tasks[0].fields)
    bar.finish(point("size=2"), run("failed"), 20.0)
    bar.update([])
    bar.end()
    return halfway


def test_without_a_terminal_every_point_is_a_line():
    """Logs get plain lines: what is to come, and each point with how it ended and how long it took."""
    file = io.StringIO()
    walk(Console(file=file, force_terminal=False, width=200))
    assert file.getvalue().splitlines() == [
        "sizes: 2 to measure, 1 done before, about 20 s",
        "  1/2 size=1: done, 20 s",
        "  2/2 size=2: failed (results/x/notebook.ipynb), 20 s",
    ]


def test_on_a_terminal_a_bar_tells_the_time_left():
    """The bar moves while a point is measured, and the forecast learns: points that took twice as long leave twice as much."""
    file = io.StringIO()
    halfway = walk(Console(file=file, force_terminal=True, width=120))
    assert halfway == {"points": "1/2", "left": "20 s left"}
    assert "sizes" in file.getvalue()


def test_nothing_to_do_says_nothing():
    """A sweep whose points are all done is silent; its result is said by the command."""
    file = io.StringIO()
    bar = Bar("sizes", Console(file=file, force_terminal=True))
    bar.begin([run("done")], [])
    bar.update([])
    bar.end()
    assert "sizes" not in file.getvalue()
