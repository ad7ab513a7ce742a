"""Files leave the page cache when asked to, and how much of them stayed is told."""

import os

import pytest

from memlab.measure import page_cache

SIZE = 4 << 20


@pytest.fixture
def files(tmp_path):
    """A folder with two files in memory, one in a folder below, and an empty one."""
    (tmp_path / "below").mkdir()
    (tmp_path / "empty").touch()
    for path in (tmp_path / "one", tmp_path / "below" / "two"):
        path.write_bytes(os.urandom(SIZE))
        path.read_bytes()
    return tmp_path


def test_what_was_just_read_is_in_memory(files):
    """Both files count, page for page."""
    assert page_cache.resident_ratio(files) in (None, 1.0)


def test_what_was_dropped_is_not(files):
    """Unless the file system keeps everything in memory, as tmpfs does: then the ratio says so. The bytes stay what they were."""
    before = (files / "one").read_bytes()
    kept = page_cache.drop(files)
    assert kept is None or 0.0 <= kept <= 1.0
    assert kept == page_cache.resident_ratio(files)
    assert (files / "one").read_bytes() == before


def test_a_folder_without_files_keeps_nothing(tmp_path):
    """Nothing to drop, nothing that stayed."""
    assert page_cache.drop(tmp_path) in (None, 0.0)
