"""A load as a bar with the time that is left; plain lines where there is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Columns

from memlab.experiment.progress import shown

_LINES = 10  # of one load, where there is no terminal


class Bar:
    """Shows a load on standard error; drawn when it is told something, never by a thread of its own.

    Args:
        console: default: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._columns: Columns | None = None
        self._task = TaskID(0)
        self._what = ""
        self._total_s: float | None = None
        self._lines = 0

    def begin(self, what: str, total_s: float | None) -> None:
        """Start a part of the work; *total_s* where it is known how long it takes."""
        self.end()
        self._what, self._total_s, self._lines = what, total_s, 0
        if not self._console.is_terminal:
            self._console.print(what if total_s is None else f"{what}: {shown(total_s)}")
            return
        self._columns = Columns(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            console=self._console,
            transient=True,
            auto_refresh=False,
        )
        self._task = self._columns.add_task(what, total=total_s, told="")
        self._columns.start()
        self._columns.refresh()

    def update(self, spent_s: float, answered: int, failed: int) -> None:
        """Say how far it is."""
        if self._total_s is None:
            return
        told = f"{answered:,} answers, {failed:,} failed, {shown(max(self._total_s - spent_s, 0.0))} left"
        if self._columns is not None:
            self._columns.update(self._task, completed=spent_s, told=told)
            self._columns.refresh()
        elif int(spent_s / self._total_s * _LINES) > self._lines and self._total_s > _LINES:
            self._lines = int(spent_s / self._total_s * _LINES)
            self._console.print(f"  {self._what}: {told}", soft_wrap=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._columns is not None:
            self._columns.stop()
            self._columns = None
