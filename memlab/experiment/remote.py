"""Runs at an fsspec address: object stores, other hosts, whatever fsspec has a package for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memlab.errors import MemlabError, permission, validation
from memlab.experiment.results import FILE, Run


class Remote:
    """The folder of runs at an address.

    Args:
        address: as fsspec writes them, such as `s3://bucket/results`.
    Raises:
        MemlabError: VALIDATION `results`: no such kind of address, or it needs a package that is not installed.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            import fsspec

            filesystem, self._root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            told = " ".join(str(error).split())
            raise validation(
                "results", f"'{address}' is no address of results: {told}; pip install 'memlab[cluster]' brings fsspec"
            ) from None
        self._filesystem: Any = filesystem

    def fetch(self, folder: Path, experiment: str | None = None) -> None:
        """Copy the runs of an experiment, or all, to *folder*; what has no run.json was not put whole and stays.

        Raises:
            MemlabError: PERMISSION `results`.
        """
        with self._answers("read"):
            for found in self._filesystem.glob(f"{self._root}/{experiment or '*'}/*/{FILE}"):
                place = found.rpartition("/")[0]
                target = folder.joinpath(*place.split("/")[-2:])
                target.mkdir(parents=True, exist_ok=True)
                for name in self._filesystem.ls(place, detail=False):
                    self._filesystem.get_file(name, str(target / name.rstrip("/").rpartition("/")[2]))

    def put(self, run: Run) -> Run:
        """Copy a run to the address, run.json last, and return it.

        Raises:
            MemlabError: PERMISSION `results`: it is kept on this host alone, and what was copied of it is no run.
        """
        place = f"{self._root}/{run.experiment}/{run.key}"
        with self._answers("written"):
            if self._filesystem.exists(f"{place}/{FILE}"):
                self._filesystem.rm_file(f"{place}/{FILE}")  # until the last step it is none
            self._filesystem.makedirs(place, exist_ok=True)
            for path in sorted(run.folder.iterdir(), key=lambda path: path.name == FILE):
                self._filesystem.put_file(str(path), f"{place}/{path.name}")
        return run

    @contextlib.contextmanager
    def _answers(self, how: str) -> Iterator[None]:
        try:
            yield
        except MemlabError:
            raise
        except Exception as error:  # each filesystem has errors of its own
            told = " ".join(str(error).split()) or type(error).__name__
            raise permission("results", f"results at '{self._address}' cannot be {how}: {told}") from error
