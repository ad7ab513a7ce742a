"""What a params file says of the traffic."""

from pathlib import Path

import pytest

from memlab.errors import MemlabError
from memlab.workload.spec import Workload, workload

PLAIN = {"arrivals": {"kind": "poisson", "rate_per_s": 100}}


def test_defaults_and_dotted_keys():
    """What is not said has a default; dotted keys reach into tables; whole numbers are fine where fractions fit."""
    made = workload({"arrivals.rate_per_s": 200, "duration_s": 2})
    assert made.arrivals.kind == "poisson"
    assert made.arrivals.rate_per_s == 200.0
    assert made.mix == {"episodic.recall": 1.0}
    assert workload(made.to_dict()) == made


def test_it_knows_whether_it_writes_and_whether_it_is_open():
    """Writes hold back upcoming events; a closed loop has no due times."""
    assert workload({**PLAIN, "mix": {"episodic.recall": 9, "episodic.remember": 1}}).writes
    assert not workload({**PLAIN, "mix": {"episodic.recall": 9, "episodic.remember": 0}}).writes
    assert workload(PLAIN).is_open
    assert not workload({"arrivals": {"kind": "closed", "clients": 4}}).is_open


def test_paths_count_from_the_params_file():
    """A trace's path is taken from the folder that the params file is in; absolute ones stay."""
    made = workload({"arrivals": {"kind": "trace", "path": "t.parquet"}, "popularity": {"trace": "/k.parquet"}})
    assert made.files == {"popularity.trace": "/k.parquet", "arrivals.path": "t.parquet"}
    assert made.resolved(Path("/params")).files == {"popularity.trace": "/k.parquet", "arrivals.path": "/params/t.parquet"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({**PLAIN, "duraton_s": 1}, "workload has no 'duraton_s'; did you mean 'duration_s'?"),
        ({"arrivals": {"kind": "poisson", "rate_s": 1}}, "workload.arrivals has no 'rate_s'; did you mean 'rate_per_s'?"),
        ({**PLAIN, "corpus": {"event": 5}}, "workload.corpus has no 'event'; did you mean 'events'?"),
        ({**PLAIN, "beside": {"client": 5}}, "workload.beside has no 'client'; did you mean 'clients'?"),
        ({**PLAIN, "duration_s": "long"}, "workload.duration_s = 'long': expected `float`, got `str`"),
        ({**PLAIN, "duration_s": -1}, "workload.duration_s = -1: expected `float` > 0.0"),
        ({**PLAIN, "corpus": {"events": -5}}, "workload.corpus.events = -5: expected `int` >= 1"),
        ({**PLAIN, "corpus": 5}, "workload.corpus = 5: give a table"),
        ({**PLAIN, "duration_s": float("nan")}, "workload.duration_s = nan: give a finite number"),
        ({"arrivals": {"kind": "poison", "rate_per_s": 1}}, "workload.arrivals.kind = 'poison': invalid enum value 'poison'"),
        ({"arrivals": {"kind": "poisson"}}, "kind poisson needs rate_per_s"),
        ({"arrivals": {"kind": "closed"}}, "a closed loop needs clients"),
        ({"arrivals": {"kind": "closed", "clients": 1}, "beside": {}}, "arrivals are closed already"),
        ({"arrivals": {"kind": "poisson", "rate_per_s": 1, "clients": 2}}, "clients belong to kind closed"),
        ({"arrivals": {"kind": "trace"}}, "kind trace needs a path"),
        ({"arrivals": {"kind": "constant", "rate_per_s": 1, "path": "x"}}, "path goes with kind trace"),
        ({"arrivals": {"kind": "constant", "rate_per_s": 90_000}, "duration_s": 60}, "more than 1,000,000 arrivals"),
        ({**PLAIN, "mix": {"episodic.recal": 1}}, "no operation 'episodic.recal'; did you mean 'episodic.recall'?"),
        ({**PLAIN, "mix": {"episodic.recall": 0}}, "give an operation a weight above 0"),
        ({**PLAIN, "mix": {"episodic.recall": -1}}, "expected `float` >= 0.0"),
        ({**PLAIN, "parameters": {"episodic.remember": {}}}, "'episodic.remember' is not in the mix"),
        ({**PLAIN, "parameters": {"episodic.recall": {"limits": 3}}}, "no parameter 'limits'; did you mean 'limit'?"),
    ],
)
def test_what_does_not_fit_is_one_line(values, told):
    """Unknown keys come with the nearest known one, wrong types and bounds with what fits; always in one line."""
    with pytest.raises(MemlabError) as caught:
        workload(values)
    assert told in caught.value.text
    assert "\n" not in caught.value.text


def test_every_field_survives_the_way_through_a_file():
    """A workload as plain values is the same workload again."""
    made = workload({**PLAIN, "beside": {"clients": 3}, "popularity": {"zipf": 0.5}, "recall_samples": 0})
    assert isinstance(made, Workload)
    assert workload(made.to_dict()) == made
