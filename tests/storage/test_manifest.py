"""A manifest tells whether the files of an index are those that were saved, and whose they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memlab.storage.manifest import (
    NAME,
    Manifest,
    Stale,
    check_files,
    digest,
    publish,
    read_manifest,
    remove_unlisted,
    write_manifest,
)


def save(folder: Path, files: dict[str, bytes], database_id: str = "here") -> Manifest:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    manifest = Manifest(
        index="vectors",
        database_id=database_id,
        generation=3,
        commit_seq=41,
        count=7,
        details={"kind": "ivf", "margins": {"10": 0.125}},
        files={name: digest(folder / name) for name in files},
    )
    write_manifest(folder, manifest)
    return manifest


def check(folder: Path, database_id: str = "here", index: str = "vectors") -> Manifest:
    manifest = read_manifest(folder, index=index, database_id=database_id)
    check_files(folder, manifest)
    return manifest


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """A manifest comes back as it was, with files of any size."""
    files = {"empty": b"", "small": b"abc", "pieces": bytes(range(256)) * (70 << 10)}  # 17.5 MiB: three pieces
    saved = save(tmp_path, files)
    assert check(tmp_path) == saved
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), file=st.sampled_from(["a", "b", NAME]))
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, place: float, bit: int, file: str) -> None:
    """No single bit of any file, the manifest's own included, can change unseen."""
    save(tmp_path, {"a": b"some bytes of an index", "b": bytes(1000)})
    path = tmp_path / file
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(Stale):
        check(tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), file=st.sampled_from(["a", NAME]))
def test_a_file_cut_short_is_found(tmp_path: Path, share: float, file: str) -> None:
    """No length but the whole passes."""
    save(tmp_path, {"a": bytes(5000)})
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(Stale) as caught:
        check(tmp_path)
    assert caught.value.reason == "damaged"


def test_bytes_that_were_added_are_found(tmp_path: Path) -> None:
    """A longer file is another file."""
    save(tmp_path, {"a": b"x"})
    with (tmp_path / "a").open("ab") as file:
        file.write(b"y")
    with pytest.raises(Stale, match="does not match"):
        check(tmp_path)


def test_files_that_changed_places_are_found(tmp_path: Path) -> None:
    """A digest belongs to its name."""
    save(tmp_path, {"a": b"one", "b": b"two"})
    shutil.move(tmp_path / "a", tmp_path / "c")
    shutil.move(tmp_path / "b", tmp_path / "a")
    shutil.move(tmp_path / "c", tmp_path / "b")
    with pytest.raises(Stale, match="does not match"):
        check(tmp_path)


@pytest.mark.parametrize("gone", ["a", NAME])
def test_a_missing_file_is_found(tmp_path: Path, gone: str) -> None:
    """Neither a file nor the manifest may be absent."""
    save(tmp_path, {"a": b"x"})
    (tmp_path / gone).unlink()
    with pytest.raises(Stale) as caught:
        check(tmp_path)
    assert caught.value.reason == "missing"


def test_an_index_of_another_database_is_foreign(tmp_path: Path) -> None:
    """The database's id decides whose index it is."""
    save(tmp_path, {"a": b"x"}, database_id="elsewhere")
    with pytest.raises(Stale) as caught:
        check(tmp_path, database_id="here")
    assert caught.value.reason == "foreign"


def test_an_index_of_another_sort_does_not_pass(tmp_path: Path) -> None:
    """A manifest of vectors is none of a text index."""
    save(tmp_path, {"a": b"x"})
    with pytest.raises(Stale) as caught:
        check(tmp_path, index="text")
    assert caught.value.reason == "format"


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"[" * 100_000, b"\xff\xfe", b'{"manifest": 1, "sha256": "x"}'])
def test_what_is_no_manifest_is_damaged(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in its place, reading it is one of the expected answers."""
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(Stale) as caught:
        check(tmp_path)
    assert caught.value.reason == "damaged"


def test_a_write_that_was_interrupted_leaves_the_earlier_manifest(tmp_path: Path) -> None:
    """Half of a new manifest beside a whole old one changes nothing."""
    saved = save(tmp_path, {"a": b"x"})
    (tmp_path / f"{NAME}.writing").write_bytes(b'{"manifest": {"ind')
    assert check(tmp_path) == saved
    write_manifest(tmp_path, saved)
    assert check(tmp_path) == saved


def test_files_get_their_names_when_finished_and_leftovers_go(tmp_path: Path) -> None:
    """Only files with the given endings that nothing lists are removed."""
    (tmp_path / "a.faiss.writing").write_bytes(b"x")
    publish(tmp_path / "a.faiss.writing", tmp_path / "a.faiss")
    for name in ("b.faiss", "b.faiss.writing", "keep.duckdb"):
        (tmp_path / name).write_bytes(b"")
    remove_unlisted(tmp_path, {"a.faiss": None}, (".faiss", ".writing"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.faiss", "keep.duckdb"]
