"""Sessions stay apart under stress, and the check of it is not hollow: with their separation taken away it goes red."""

import inspect
import types

import numpy as np
import pytest

from memlab import engine
from memlab.experiment import isolation
from memlab.experiment.isolation import Witness
from memlab.middleware import cache
from memlab.operations.clusters import central_sentences
from memlab.storage.directory import Directory
from memlab.storage.vectors import Selection
from memlab.workload.mix import Call

STRESS = {"corpus": {"events": 60, "sessions": 3, "questions": 5}, "arrivals": {"kind": "closed", "clients": 24}}


def stress(calls=600, **given):
    return isolation.measure_point({}, workload=STRESS, calls=calls, **given).summary


def test_sessions_stay_apart(tmp_path):
    """Every kind of operation, many at once, some cancelled: each answer is its session's own, and all is there afterwards."""
    summary = stress(out=tmp_path)
    assert summary["total"] == 0, summary["examples"]
    assert set(summary["differences"]) == set(isolation.DIFFERENCES)
    assert summary["checks"]["holds"] is True
    assert summary["answers"] > 300
    assert summary["items"] > 300
    assert summary["cancelled"] > 20
    assert summary["probes"] > 5
    assert summary["hit_ratio"] > 0
    assert summary["finding"] is False
    assert sum(layer["answers"] for layer in summary["by_layer"].values()) == summary["answers"]
    assert {path.name for path in tmp_path.iterdir()} == {"samples.parquet", "summary.json"}


def sessions_of(directory):
    return sorted({session for session, _ in directory._partitions})


def test_without_the_session_predicate_in_storage_it_goes_red(monkeypatch):
    """With the directory blind to whose a memory is, answers hold what others stored, in many of them and of several kinds."""
    select, visible, current = Directory.select, Directory.visible, Directory.current

    def blind_select(self, session, *rest):
        return np.unique(np.concatenate([np.zeros(0, np.int64), *(select(self, one, *rest) for one in sessions_of(self))]))

    def blind_selection(self, session, *rest):
        positions = blind_select(self, session, *rest)
        mask = np.zeros(len(self), np.bool_)
        mask[positions] = True
        return Selection(bits=np.packbits(mask, bitorder="little"), count=len(positions), positions=positions)

    def blind_visible(self, seqs, session, *rest):
        return np.any([np.zeros(len(seqs), np.bool_), *(visible(self, seqs, one, *rest) for one in sessions_of(self))], axis=0)

    def blind_current(self, session, *rest):
        return max([-1, *(current(self, one, *rest) for one in sessions_of(self))])

    monkeypatch.setattr(Directory, "select", blind_select)
    monkeypatch.setattr(Directory, "selection", blind_selection)
    monkeypatch.setattr(Directory, "visible", blind_visible)
    monkeypatch.setattr(Directory, "current", blind_current)
    differences = stress(calls=200)["differences"]
    assert differences["foreign_mark"] > 10
    assert differences["foreign_id"] > 10
    assert differences["probe_answered"] > 0


def test_without_the_session_in_the_cache_key_it_goes_red(monkeypatch):
    """With answers kept under operation and parameters alone, a session is given what another asked for."""
    keyed = "key = (request.operation, request.session, canonical(request.parameters))"
    source = inspect.getsource(cache)
    assert source.count(keyed) == 1, "the cache makes its key elsewhere now: take the session out of it there"
    changed = types.ModuleType("cache_without_sessions")
    monkeypatch.setitem(__import__("sys").modules, changed.__name__, changed)
    exec(source.replace(keyed, keyed.replace("request.session", "''")), changed.__dict__)
    monkeypatch.setattr(engine, "cache", changed.cache)
    summary = stress()
    assert summary["differences"]["foreign_mark"] + summary["differences"]["foreign_id"] > 3
    assert summary["differences"]["probe_answered"] == 0, "storage itself keeps sessions apart"


def test_a_mark_survives_consolidation():
    """Whatever sentence of a session's texts is taken up, it bears the mark."""
    texts = [
        isolation._marked(text, "qqmark")
        for text in ("The tea is cold. Bo left! Why?", "Ada came…\nThe engine broke; it rained.")
    ]
    sentences = central_sentences([f"{text} 17" for text in texts], 10)
    assert sentences
    assert all("qqmark" in sentence.text for sentence in sentences)


@pytest.fixture
def witness():
    witness = Witness(["a", "b"], seed=1)
    for session in "ab":
        answer = {"id": f"ep_00{session}0000000", "content": f"tea {witness.mark[session]}"}
        witness.read(Call("episodic.remember", {}, session, session), answer, wrote=True)
    return witness


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        ({"id": "ep_00a0000000", "content": "tea {a}"}, []),
        ([{"id": "ep_00a0000000", "content": "tea {a}"}, {"id": "ep_0011111111", "content": "milk {a}"}], []),
        ({"id": "ep_0011111111", "content": "tea {b}"}, ["foreign_mark", "unknown_text"]),
        ({"source": "ep_00b0000000"}, ["foreign_id"]),
        ({"id": "ep_00a0000000", "content": "coffee {a}"}, ["altered"]),
        ([{"id": "sm_0022222222", "content": "of nobody"}], ["unknown_text"]),
        (b'{"content": "%b"}', ["foreign_mark"]),
    ],
)
def test_each_kind_of_difference_is_told(witness, answer, kinds):
    """What session a is answered: its own, its own unacknowledged, and every way in which an answer can be wrong."""

    def marked(value):
        if isinstance(value, bytes):
            return value % witness.mark["b"].encode()
        if isinstance(value, list):
            return [marked(one) for one in value]
        return {name: text.format(**witness.mark) for name, text in value.items()}

    witness.read(Call("episodic.recall", {}, "a", "a"), marked(answer), wrote=False)
    assert [one.kind for one in witness.differences] == kinds
