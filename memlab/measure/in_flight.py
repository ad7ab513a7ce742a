"""How many calls are in flight, seen by a process of its own: Little's law needs a counter that the driver does not sample.

A thread of the driver's process would be let in, by the interpreter's lock, just when no call is being worked on, and would count
too few. The driver writes two counters and the times at which calls are due into shared memory; a second process looks at
random moments, with a clock of its own.
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from memlab.errors import internal
from memlab.measure import clock

_HEADER = 4  # sent, finished, due, cut short
_MEAN_GAP_S = 0.000_7
_CAPACITY = 1 << 20
_LOOK_NS = 100_000_000  # between two looks at what seldom changes


class InFlight:
    """The driver's side: counts, and asks for the mean of a window."""

    def __init__(self, shared: mmap.mmap, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._cells = memoryview(shared).cast("q")
        self._sent = self._finished = 0

    def expect(self, due_ns: npt.NDArray[np.int64] | None, start_ns: int, end_ns: int) -> None:
        """Begin a lane: samples are taken from *start_ns* to *end_ns*.

        Args:
            due_ns: when calls are due, ascending: those count as in flight from then on, sent or not; None in a closed loop.
        """
        due = np.empty(0, dtype=np.int64) if due_ns is None else due_ns[:_CAPACITY]
        self._sent = self._finished = 0
        self._cells[0] = self._cells[1] = self._cells[3] = 0
        self._cells[2] = len(due)
        self._cells[_HEADER : _HEADER + len(due)] = memoryview(due.astype(np.int64).tobytes()).cast("q")
        self._write(f"{start_ns} {end_ns}")

    def sent(self) -> None:
        """Count a call of a closed loop."""
        self._sent += 1
        self._cells[0] = self._sent

    def finished(self) -> None:
        """Count an answer, of whatever kind."""
        self._finished += 1
        self._cells[1] = self._finished

    def cut(self) -> None:
        """End the window now."""
        self._cells[3] = 1

    def mean(self) -> float:
        """Return the mean number in flight over the window; nan where it was missed. Waits for the window to end."""
        integral, covered_ns = map(int, self._read().split())
        return integral / covered_ns if covered_ns else float("nan")

    def _write(self, line: str) -> None:
        try:
            _stream(self._process.stdin).write(line + "\n")
            _stream(self._process.stdin).flush()
        except OSError as error:
            raise internal("sampler", f"the process that samples calls in flight ended: {error}") from error

    def _read(self) -> str:
        line = _stream(self._process.stdout).readline()
        if not line:
            raise internal("sampler", "the process that samples calls in flight ended early")
        return line

    def ready(self) -> None:
        """Wait until the sampling process runs."""
        self._read()

    def release(self) -> None:
        """Give the shared memory back."""
        self._cells.release()


@contextlib.contextmanager
def in_flight() -> Iterator[InFlight]:
    """Start the sampling process, and end it afterwards."""
    size = 8 * (_HEADER + _CAPACITY)
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as shared:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([_package_root(), os.environ.get("PYTHONPATH", "")])}
            process = subprocess.Popen(
                [sys.executable, "-m", "memlab.measure.in_flight", file.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is the driver's to answer
            )
            counter = InFlight(shared, process)
            try:
                counter.ready()
                yield counter
            finally:
                counter.release()
                with contextlib.suppress(OSError):
                    _stream(process.stdin).close()  # the end of its input ends it
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                _stream(process.stdout).close()


def _stream(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise internal("bug", "the sampling process has no pipe")
    return stream


def _package_root() -> str:
    return str(Path(__file__).resolve().parents[2])


def _sample(cells: memoryview, start_ns: int, end_ns: int, chance: random.Random) -> tuple[int, int]:
    """Return the integral of the calls in flight over a window, in call-nanoseconds, and the time that it covers.

    Looks are taken at random moments. One that comes late, since the processors were busy, comes when there is less in flight;
    so each stands for the time around it (trapezium rule), not for one vote.
    """
    due = cells[_HEADER : _HEADER + cells[2]]
    while clock.monotonic_ns() < start_ns and not cells[3]:
        _wait_until(min(start_ns, clock.monotonic_ns() + _LOOK_NS))
    integral = 0
    began = last = clock.monotonic_ns()
    last_count = _count(cells, due, began)
    last_asked, parent = began, os.getppid()
    while last < end_ns and not cells[3]:
        _wait_until(last + round(chance.expovariate(1 / _MEAN_GAP_S) * 1e9))
        now = clock.monotonic_ns()
        if now - last_asked > _LOOK_NS:
            if os.getppid() != parent:  # whoever counted was killed, and nobody waits for the mean
                break
            last_asked = now
        count = _count(cells, due, now)
        integral += (count + last_count) * (now - last) // 2
        last, last_count = now, count
    due.release()
    return integral, last - began


def _wait_until(moment_ns: int) -> None:
    wait = moment_ns - clock.monotonic_ns()
    if wait > 0:
        time.sleep(wait / 1e9)


def _count(cells: memoryview, due: memoryview, now: int) -> int:
    """Return the calls due, or sent, and not finished."""
    finished = cells[1]  # first: a call that ends in between is then still counted, never minus one
    return int(max(cells[0], bisect.bisect_right(due, now)) - finished)


def main() -> None:
    """Answer each line `start end` on standard input with `integral covered`, until the input ends."""
    chance = random.Random(20_250_101)
    path = Path(sys.argv[1])
    with path.open("r+b") as file, mmap.mmap(file.fileno(), path.stat().st_size) as shared, memoryview(shared) as raw:
        cells = raw.cast("q")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in sys.stdin:
            start_ns, end_ns = map(int, line.split())
            integral, covered_ns = _sample(cells, start_ns, end_ns, chance)
            sys.stdout.write(f"{integral} {covered_ns}\n")
            sys.stdout.flush()
        cells.release()


if __name__ == "__main__":
    main()
