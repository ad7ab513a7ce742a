"""What the process holds."""

import gc

from memlab.measure.process import look


def test_a_look_sees_memory_that_is_held():
    """Forty megabytes held are seen, and seen to go; blocks, descriptors and threads are counted."""
    before = look()
    held = bytearray(b"x" * 40_000_000)
    during = look()
    assert during.rss_bytes - before.rss_bytes > 30_000_000
    del held
    gc.collect()
    assert look().rss_bytes - before.rss_bytes < 10_000_000
    assert before.python_blocks > 0
    assert before.threads >= 1


def test_an_open_file_is_a_descriptor(tmp_path):
    """One more while it is open."""
    before = look(settle=False).descriptors
    with (tmp_path / "file").open("w"):
        during = look(settle=False).descriptors
    assert before is None or during == before + 1
