"""The vector index finds the nearest among those that may be found, and never anything else."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memlab.errors import ErrorType, MemlabError
from memlab.settings import IndexSettings
from memlab.storage.manifest import NAME, Stale
from memlab.storage.vectors import Selection, VectorIndex

KINDS = ("flat", "sq8", "fp16", "ivf", "hnsw")
DIMENSION = 24


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int, dimension: int = DIMENSION, seed: int = 0, clusters: int = 40, spread: float = 0.6) -> np.ndarray:
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((clusters, dimension))
    return unit(centres[chance.integers(0, clusters, count)] + spread * chance.standard_normal((count, dimension)))


def options(kind: str, **given: object) -> IndexSettings:
    return IndexSettings(kind=kind, train_at=256, **given)  # type: ignore[arg-type]


def select(positions: np.ndarray, count: int, *, listed: bool = True) -> Selection:
    mask = np.zeros(count, np.bool_)
    mask[positions] = True
    return Selection(np.packbits(mask, bitorder="little"), int(mask.sum()), np.flatnonzero(mask) if listed else None)


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int, among: np.ndarray | None = None) -> np.ndarray:
    among = np.arange(len(vectors)) if among is None else among
    scores = queries @ vectors[among].T
    return among[np.argsort(-scores, axis=1, kind="stable")[:, :k]]


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())


STORED = clustered(3_000)
ASKED = unit(STORED[::75] + 0.15 * np.random.default_rng(1).standard_normal((40, DIMENSION)))
BUILT = {kind: VectorIndex.build(STORED, options(kind, exact_below=100)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_are_found(kind: str) -> None:
    """Every kind finds 0.99 of the true ten (sq8, whose codes order roughly, has them among forty), best first."""
    index = BUILT[kind]
    assert (index.kind_now, index.count) == (kind, len(STORED))
    truth = nearest(STORED, ASKED, 10)
    scores, positions = index.search(ASKED, 40 if kind == "sq8" else 10)
    assert recall(positions, truth) >= 0.99
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    exact = np.einsum("qd,qkd->qk", ASKED, STORED[positions])
    assert np.allclose(scores, exact, atol=0.03 if kind == "sq8" else 2e-3 if kind == "fp16" else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("listed", [True, False])
@settings(max_examples=25)
@given(seed=st.integers(0, 2**20), share=st.sampled_from([0.0005, 0.01, 0.05, 0.2, 0.5, 1.0]), k=st.sampled_from([1, 10, 60]))
def test_nothing_outside_the_selection_is_found(kind: str, listed: bool, seed: int, share: float, k: int) -> None:
    """Whatever is selected, answers are of it, each once, as many as there are, and nearly all the true ones."""
    chance = np.random.default_rng(seed)
    among = np.flatnonzero(chance.random(len(STORED)) < share)
    queries = ASKED[: chance.integers(1, 3)] if seed % 2 else ASKED
    scores, positions = BUILT[kind].search(queries, k, selection=select(among, len(STORED), listed=listed))
    there = positions >= 0
    assert np.isin(positions[there], among).all()
    assert (there.sum(axis=1) == min(k, len(among))).all()
    assert (there[:, :-1] >= there[:, 1:]).all(), "padding stands at the end"
    assert np.isneginf(scores[~there]).all()
    assert all(len(np.unique(row[row >= 0])) == (row >= 0).sum() for row in positions)
    if len(among) and len(queries) == len(ASKED):
        assert recall(positions, nearest(STORED, queries, k, among)) >= (0.85 if kind == "sq8" else 0.97)


@pytest.mark.parametrize("kind", KINDS)
def test_a_selection_about_something_else_is_still_searched_well(kind: str) -> None:
    """Selected vectors that all lie far from the question, where no close list holds any, are found like others."""
    among = np.sort(nearest(STORED, -ASKED[:1], 300)[0])
    _, positions = BUILT[kind].search(ASKED[:1], 10, selection=select(among, len(STORED)))
    assert recall(positions, nearest(STORED, ASKED[:1], 10, among)) >= (0.7 if kind == "sq8" else 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_for_many_questions_answers_as_many_calls_do(kind: str) -> None:
    """A batch finds for each of its questions what the question alone finds."""
    selection = select(np.arange(0, len(STORED), 4), len(STORED))
    for chosen in (None, selection):
        _, together = BUILT[kind].search(ASKED, 10, selection=chosen, threads=2)
        alone = np.vstack([BUILT[kind].search(query[None], 10, selection=chosen)[1] for query in ASKED])
        assert (together == alone).mean() > 0.998  # equal scores may change places when sums round otherwise


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_added_is_found(kind: str) -> None:
    """Vectors added later, one or many, take the next positions and are searched as the others."""
    index = VectorIndex.build(STORED[:2_000], options(kind))
    for start, stop in ((2_000, 2_001), (2_001, 3_000)):
        index.add(STORED[start:stop])
    assert index.count == 3_000
    _, positions = index.search(STORED[1_990:2_010], 1)
    assert positions[:, 0].tolist() == list(range(1_990, 2_010))
    assert recall(index.search(ASKED, 10)[1], nearest(STORED, ASKED, 10)) >= (0.9 if kind == "sq8" else 0.985)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_index_answers_and_grows(kind: str) -> None:
    """From no vector on, searches answer with what there is."""
    index = VectorIndex(DIMENSION, options(kind))
    scores, positions = index.search(ASKED[:2], 3)
    assert (positions == -1).all()
    assert np.isneginf(scores).all()
    index.add(STORED[:2])
    scores, positions = index.search(STORED[:1], 4)
    assert positions.tolist() == [[0, 1, -1, -1]]
    assert scores[0, 0] == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3, 257])
def test_few_vectors_are_no_special_case(kind: str, count: int) -> None:
    """Any number of vectors can be built, also just enough to train on and fewer than are asked for."""
    index = VectorIndex.build(STORED[:count], options(kind))
    _, positions = index.search(STORED[:count], count + 5)
    assert positions[:, 0].tolist() == list(range(count))
    assert (np.sort(positions[:, :count], axis=1) == np.arange(count)).all()
    assert (positions[:, count:] == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_are_no_special_case(kind: str) -> None:
    """Many copies of one vector train, calibrate and are found."""
    index = VectorIndex.build(np.repeat(STORED[:1], 600, axis=0), options(kind))
    _, positions = index.search(STORED[:1], 10)
    assert len(set(positions[0].tolist())) == 10


def test_positions_beyond_the_end_are_out() -> None:
    """A selection of memories that the index does not hold yet finds the others only."""
    for kind in KINDS:
        for listed in (True, False):
            wide = select(np.arange(2_990, 3_040), 3_064, listed=listed)
            _, positions = BUILT[kind].search(ASKED[:3], 20, selection=wide)
            assert (np.sort(positions, axis=1)[:, 10:] == np.arange(2_990, 3_000)).all()
            assert (np.sort(positions, axis=1)[:, :10] == -1).all()


@pytest.mark.parametrize(
    ("queries", "k", "reason"),
    [
        (np.ones((1, DIMENSION + 1), np.float32), 5, "shape"),
        (np.ones(DIMENSION, np.float32), 5, "shape"),
        (np.full((1, DIMENSION), np.nan, np.float32), 5, "vector"),
        (np.full((1, DIMENSION), np.inf, np.float32), 5, "vector"),
        (np.ones((1, DIMENSION), np.float32), 0, "bounds"),
        (np.ones((1, DIMENSION), np.float32), -3, "bounds"),
    ],
)
def test_what_does_not_fit_is_refused_before_faiss_sees_it(queries: np.ndarray, k: int, reason: str) -> None:
    """A wrong dimension, a component that is no number and k below 1 are VALIDATION errors."""
    for kind in KINDS:
        with pytest.raises(MemlabError) as caught:
            BUILT[kind].search(queries, k)
        assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, reason)


def test_what_does_not_fit_is_not_added() -> None:
    """After a refusal the index is as it was."""
    index = VectorIndex.build(STORED[:10], options("flat"))
    bad = STORED[:3].copy()
    bad[1, 4] = np.nan
    for vectors in (bad, STORED[:3, :5]):
        with pytest.raises(MemlabError, match=r"shape|finite"):
            index.add(vectors)
    assert index.count == 10
    with pytest.raises(MemlabError, match="0 to 9 fit"):
        index.vectors(np.array([10]))


def test_a_failure_inside_faiss_is_internal() -> None:
    """What FAISS throws is one typed error that keeps its cause."""
    index = VectorIndex(DIMENSION, options("sq8"))
    index._index = faiss.IndexScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    with pytest.raises(MemlabError) as caught:
        index.add(STORED[:3])  # not trained
    assert (caught.value.type, caught.value.reason) == (ErrorType.INTERNAL, "index")
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_come_back(kind: str) -> None:
    """Held vectors are what was added: exactly where the index says so, nearly where it keeps codes."""
    index, places = BUILT[kind], np.array([5, 0, 2_999, 5])
    assert index.exact == (kind not in ("sq8", "fp16"))
    assert np.allclose(index.vectors(places), STORED[places], atol=0 if index.exact else 0.01)
    assert index.vectors(np.empty(0, np.int64)).shape == (0, DIMENSION)


def test_codes_take_a_quarter() -> None:
    """sq8 takes 25 % and fp16 50 % of the bytes of flat vectors."""
    flat = BUILT["flat"].bytes
    assert flat == STORED.nbytes
    assert BUILT["sq8"].bytes == flat / 4
    assert BUILT["fp16"].bytes == flat / 2
    assert all(BUILT[kind].bytes > flat for kind in ("ivf", "hnsw"))


# --- effort ------------------------------------------------------------------------------------------------------------


def test_clustered_vectors_take_few_lists() -> None:
    """Where vectors form clusters, calibration finds an effort far below all lists that keeps its promise."""
    stored = clustered(12_000, 32, clusters=200, spread=0.5)
    index = VectorIndex.build(stored, options("ivf"))
    asked = unit(stored[::120] + 0.3 * np.random.default_rng(5).standard_normal((100, 32)))
    assert index.kind_now == "ivf"
    assert 1 <= index.effort["nprobe"] <= 64
    assert index.effort["recall_at_10"] >= 0.98
    assert recall(index.search(asked, 10)[1], nearest(stored, asked, 10)) >= 0.985  # of a thousand; the target is 0.995


def test_a_question_unlike_anything_stored_is_answered_all_the_same() -> None:
    """Questions off the stored vectors, for which a calibrated number of lists would be far too few, get their answers."""
    stored = clustered(6_000, 128, clusters=100, spread=0.8)
    index = VectorIndex.build(stored, options("ivf"))
    asked = unit(np.random.default_rng(8).standard_normal((60, 128)))
    truth = nearest(stored, asked, 10)
    fixed = faiss.SearchParametersIVF(nprobe=int(index.effort["nprobe"]))
    assert recall(index._index.search(asked, 10, params=fixed)[1], truth) < 0.9, "a fixed number would have done: a weak test"
    assert recall(index.search(asked, 10)[1], truth) >= 0.99
    assert recall(np.vstack([index.search(query[None], 10)[1] for query in asked]), truth) >= 0.99


def test_scattered_vectors_are_searched_exactly() -> None:
    """Where no number of lists spares much, every list is probed, and the effort says so."""
    stored = unit(np.random.default_rng(3).standard_normal((3_000, 64)))
    index = VectorIndex.build(stored, options("ivf"))
    asked = unit(np.random.default_rng(4).standard_normal((20, 64)))
    assert index.effort == {"nprobe": 256, "recall_at_10": 1.0}
    for queries in (asked, asked[:3]):
        for among in (None, np.arange(0, 3_000, 1)[1:]):
            selection = None if among is None else select(among, 3_000)
            assert recall(index.search(queries, 10, selection=selection)[1], nearest(stored, queries, 10, among)) == 1.0


def test_a_target_of_one_is_exact() -> None:
    """recall_target = 1 probes every list."""
    index = VectorIndex.build(STORED, options("ivf", recall_target=1.0))
    asked = unit(np.random.default_rng(8).standard_normal((60, DIMENSION)))
    assert recall(index.search(asked, 10)[1], nearest(STORED, asked, 10)) == 1.0


def test_deep_searches_probe_more() -> None:
    """A hundred or a thousand are found as well as ten."""
    for k in (100, 1_000):
        assert recall(BUILT["ivf"].search(ASKED, k)[1], nearest(STORED, ASKED, k)) >= 0.985


def test_the_graph_is_calibrated() -> None:
    """hnsw searches as widely as its target asks for, and more for a higher one."""
    low = VectorIndex.build(STORED, options("hnsw", recall_target=0.7, hnsw_links=4))
    high = VectorIndex.build(STORED, options("hnsw", recall_target=0.99, hnsw_links=4))
    assert low.effort["ef"] < high.effort["ef"]
    assert recall(high.search(ASKED, 10)[1], nearest(STORED, ASKED, 10)) >= 0.98


def test_the_same_vectors_give_the_same_index() -> None:
    """Building is a function of vectors, settings and seed."""
    again = VectorIndex.build(STORED, options("ivf", exact_below=100))
    assert again.effort == BUILT["ivf"].effort
    assert (again.search(ASKED, 10)[1] == BUILT["ivf"].search(ASKED, 10)[1]).all()


@pytest.mark.parametrize(
    ("kind", "count", "dead", "reason"),
    [
        ("flat", 3_000, 0, None),
        ("flat", 3_000, 600, None),
        ("flat", 3_000, 601, "dead"),
        ("hnsw", 300, 0, None),
        ("ivf", 200, 0, None),
        ("sq8", 200, 0, None),
        ("ivf", 3_000, 0, None),
    ],
)
def test_an_index_says_when_to_build_it_again(kind: str, count: int, dead: int, reason: str | None) -> None:
    """Too many forgotten is a reason, on top of what training asks for."""
    assert VectorIndex.build(STORED[:count], options(kind)).stale(dead) == reason


@pytest.mark.parametrize(("kind", "enough"), [("ivf", 256), ("sq8", 1_000)])
def test_an_index_asks_to_be_trained_and_trained_again(kind: str, enough: int) -> None:
    """It does when it has grown to what training needs, and when it holds several times what it was trained on."""
    index = VectorIndex(DIMENSION, options(kind, retrain_growth=3.0))
    index.add(STORED[: enough - 1])
    assert (index.kind_now, index.stale(0)) == ("flat", None)
    index.add(STORED[:1])
    assert index.stale(0) == "train"
    index = VectorIndex.build(index.vectors(np.arange(enough)), index.settings)
    assert (index.kind_now, index.stale(0)) == (kind, None)
    index.add(clustered(2 * enough, seed=7))
    assert index.stale(0) == "retrain"


# --- on disk -----------------------------------------------------------------------------------------------------------

SEQS = np.arange(10, 10 + 2 * len(STORED), 2)


def save(folder: Path, index: VectorIndex, generation: int = 1) -> None:
    index.save(folder, database_id="here", generation=generation, seqs=SEQS[: index.count], commit_seq=100 + generation)


def load(folder: Path, kind: str, **given: object) -> tuple[VectorIndex, np.ndarray]:
    return VectorIndex.load(folder, database_id="here", dimension=DIMENSION, settings=options(kind, **given))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_index_is_the_saved_one(tmp_path: Path, kind: str) -> None:
    """It answers the same, with and without a selection, knows its effort and its seqs, and grows."""
    save(tmp_path, BUILT[kind])
    index, seqs = load(tmp_path, kind, exact_below=100)
    assert seqs.tolist() == SEQS.tolist()
    assert (index.kind_now, index.effort, index.bytes) == (kind, BUILT[kind].effort, BUILT[kind].bytes)
    assert index.trained_on == BUILT[kind].trained_on
    for selection in (None, select(np.arange(0, 3_000, 3), 3_000), select(np.arange(50), 3_000)):
        for found, expected in zip(
            index.search(ASKED, 10, selection=selection), BUILT[kind].search(ASKED, 10, selection=selection), strict=True
        ):
            assert np.array_equal(found, expected)
    index.add(ASKED)
    _, positions = index.search(ASKED, 1)
    assert positions[:, 0].tolist() == list(range(len(STORED), len(STORED) + len(ASKED)))


def test_a_later_save_replaces_the_earlier(tmp_path: Path) -> None:
    """One generation of files stays, readable by their owner alone."""
    index = VectorIndex.build(STORED[:300], options("flat"))
    save(tmp_path / "index", index)
    index.add(STORED[300:400])
    save(tmp_path / "index", index, generation=2)
    assert load(tmp_path / "index", "flat")[0].count == 400
    names = sorted(path.name for path in (tmp_path / "index").iterdir())
    assert names == [NAME, "vectors-2-102.faiss", "vectors-2-102.seqs"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "index").iterdir())
    assert (tmp_path / "index").stat().st_mode & 0o077 == 0


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    """Saving a loaded index under a later commit renews the manifest and the seqs, not the vectors."""
    save(tmp_path, BUILT["ivf"])
    (file,) = tmp_path.glob("*.faiss")
    before = file.stat().st_ino, file.stat().st_mtime_ns
    index, seqs = load(tmp_path, "ivf")
    index.save(tmp_path, database_id="here", generation=9, seqs=seqs + 1, commit_seq=500)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == before
    assert load(tmp_path, "ivf")[1].tolist() == (SEQS + 1).tolist()
    index.add(ASKED[:1])
    index.save(tmp_path, database_id="here", generation=10, seqs=np.append(seqs, 10**6), commit_seq=501)
    assert not file.exists()
    assert load(tmp_path, "ivf")[0].count == len(STORED) + 1


def test_an_interrupted_save_leaves_the_earlier_one(tmp_path: Path) -> None:
    """Files without the manifest that names them are nothing, and go with the next save."""
    index = VectorIndex.build(STORED[:300], options("flat"))
    save(tmp_path, index)
    for name in ("vectors-2-102.faiss", "vectors-2-102.seqs.writing"):
        (tmp_path / name).write_bytes(b"half of")
    assert load(tmp_path, "flat")[0].count == 300
    index.add(STORED[:1])
    save(tmp_path, index, generation=3)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"database_id": "elsewhere"}, "foreign"),
        ({"dimension": DIMENSION + 1}, "foreign"),
        ({"settings": options("hnsw")}, "settings"),
        ({"settings": options("ivf", recall_target=0.9)}, "settings"),
    ],
)
def test_an_index_that_is_not_wanted_is_not_loaded(tmp_path: Path, given: dict[str, object], reason: str) -> None:
    """Another database's, another dimension's, another kind's or another target's index is stale, and says why."""
    save(tmp_path, BUILT["ivf"])
    wanted = {"database_id": "here", "dimension": DIMENSION, "settings": options("ivf"), **given}
    with pytest.raises(Stale) as caught:
        VectorIndex.load(tmp_path, **wanted)  # type: ignore[arg-type]
    assert caught.value.reason == reason


def test_nothing_saved_is_missing(tmp_path: Path) -> None:
    """A folder that does not exist, or is empty, is no index."""
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(Stale) as caught:
            load(folder, "flat")
        assert caught.value.reason == "missing"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(folder, VectorIndex.build(STORED[:400], options("ivf")))
    return folder


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damaged_file_is_loaded(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    """A flipped bit, a cut, a swap or a loss anywhere in the files makes the index stale; FAISS never reads it."""
    folder = tmp_path / "mutant"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "loss", "zeroes"]))
    if damage == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:place])
    elif damage == "zeroes":
        path.write_bytes(bytes(len(content)))
    else:
        path.unlink()
    with pytest.raises(Stale):
        load(folder, "ivf")


def test_loading_leaves_the_limits_of_faiss_as_they_were(tmp_path: Path) -> None:
    """What bounds the reading of one file bounds no other."""
    usual = faiss.get_deserialization_vector_byte_limit()
    save(tmp_path, VectorIndex.build(STORED[:100], options("flat")))
    load(tmp_path, "flat")
    assert faiss.get_deserialization_vector_byte_limit() == usual


# --- many threads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_searches_run_beside_each_other(kind: str) -> None:
    """Many threads that search one index, with unlike selections, get what each gets alone."""
    selections = [None, *(select(np.arange(start, 3_000, 7), 3_000) for start in range(3))]
    expected = [BUILT[kind].search(ASKED, 10, selection=chosen) for chosen in selections]
    together = threading.Barrier(4)

    def ask(turn: int) -> bool:
        together.wait()
        return all(
            np.array_equal(BUILT[kind].search(ASKED, 10, selection=selections[turn])[part], expected[turn][part])
            for _ in range(10)
            for part in (0, 1)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))


@pytest.mark.parametrize("kind", KINDS)
def test_searches_leave_no_memory_behind(kind: str) -> None:
    """Thousands of searches with selections of their own do not grow the process (faiss issue 2996)."""
    process = psutil.Process()

    def ask(times: int) -> int:
        for turn in range(times):
            selection = select(np.arange(turn % 7, 3_000, 2 + turn % 5), 3_000, listed=turn % 2 == 0)
            BUILT[kind].search(ASKED[turn % 30 : turn % 30 + 1 + turn % 3], 10, selection=selection)
        return process.memory_info().rss

    before = ask(300)
    assert ask(1_500) - before < 8 << 20
