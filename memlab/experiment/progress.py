"""A sweep as a bar with the time that is left; plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Columns

from memlab.experiment.results import Run
from memlab.experiment.sweep import Point, Progress


class Bar(Progress):
    """Shows a sweep on standard error.

    The bar goes on while a point is measured, by the time that such a point should take; the forecast learns from those done.

    Args:
        title: of the sweep.
        console: default: standard error.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._console = console or Console(stderr=True, highlight=False)
        self._columns = Columns(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[points]}"),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = TaskID(0)
        self._expected: list[float] = []
        self._finished = 0
        self._took_s = 0.0

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, soft_wrap=True)

    def begin(self, reused: Sequence[Run], expected_s: Sequence[float]) -> None:
        """Start the bar; say how much is done and about how long the rest takes."""
        self._expected = list(expected_s)
        if not self._expected:
            return
        before = f", {len(reused)} done before" if reused else ""
        total = sum(self._expected)
        self._console.print(f"{self._title}: {len(self._expected)} to measure{before}, about {shown(total)}")
        self._task = self._columns.add_task(self._title, total=total, points=f"0/{len(self._expected)}", left="")
        self._columns.start()

    def update(self, running_s: Sequence[float]) -> None:
        """Move the bar."""
        if not self._expected:
            return
        # A point's own share is never filled before it is done.
        partly = sum(
            min(spent, 0.95 * expected) for spent, expected in zip(running_s, self._expected[self._finished :], strict=False)
        )
        completed = sum(self._expected[: self._finished]) + partly
        pace = self._took_s / sum(self._expected[: self._finished]) if self._finished else 1.0
        left = max(sum(self._expected) - completed, 0.0) * pace / max(len(running_s), 1)
        points = f"{self._finished}/{len(self._expected)}"
        self._columns.update(self._task, completed=completed, points=points, left=f"{shown(left)} left")

    def finish(self, point: Point, run: Run, took_s: float) -> None:
        """Say that a point is done, or failed."""
        self._finished += 1
        self._took_s += took_s
        state = "done" if run.status == "done" else f"failed ({run.notebook})"
        self._console.print(f"  {self._finished}/{len(self._expected)} {point.label}: {state}, {took_s:.0f} s", soft_wrap=True)

    def end(self) -> None:
        """Take the bar away."""
        self._columns.stop()


def shown(seconds: float) -> str:
    """Return a time in words short enough for a bar.

    >>> shown(42.4), shown(200)
    ('42 s', '3 min 20 s')
    """
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
