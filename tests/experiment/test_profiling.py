"""Profiles: both profilers watch the same work, and what they tell becomes tables that name no machine."""

import json
import re

import pytest

from memlab.errors import MemlabError
from memlab.experiment import profiling

TRAFFIC = {
    "corpus": {"events": 60, "sessions": 1, "questions": 8},
    "mix": {"episodic.recall": 0.6, "episodic.remember": 0.4},
}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    out = tmp_path_factory.mktemp("profile")
    settings = {"cache": None, "batch": None, "pool": None}
    return profiling.measure_point({"candidate": settings}, workload=TRAFFIC, operations=300, out=out), out


@pytest.mark.serial
def test_the_work_is_seen_by_both(profiled):
    """All calls were sent and none failed; lines of the package have samples, allocations have sizes, the largest first."""
    found, out = profiled
    summary = json.loads((out / "summary.json").read_text())
    assert summary == json.loads(json.dumps(found.summary))
    assert summary["operations"] == 300
    assert summary["failed"] == 0
    assert summary["memory"]["per_operation"] > 10
    assert summary["memory"]["peak_mb"] < 600, "a reserve of addresses is not memory that is held"
    shares = found.lines["share"].to_list()
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1.001
    assert all(re.fullmatch(r"memlab/[\w/]+\.py:\d+", where) for where in found.lines["where"])
    assert any(where.startswith("memlab/storage/") for where in found.lines["where"])
    assert found.lines.filter("waiting").height >= 1, "the line in which the event loop runs is there, and told for what it is"
    assert set(found.lines.filter("waiting")["where"].str.extract(r"/(\w+)\.py")) <= {"profiled_work", "workers"}
    sizes = found.allocations["mb"].to_list()
    assert sizes == sorted(sizes, reverse=True)
    assert not [where for where in summary["allocations"] if "(/" in where]


@pytest.mark.serial
def test_the_flame_graph_opens_without_a_network(profiled):
    """Nothing in it is loaded from elsewhere: no script, style, image or font with an address."""
    page = (profiled[1] / profiling.FLAME).read_text(encoding="utf-8")
    assert len(page) > 100_000
    assert not re.findall(r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*""", page)
    assert not re.findall(r"""url\(\s*["']?(?:https?:)?//""", page)


def test_shares_are_those_of_the_samples():
    """Python's, native and system shares of a line add up; lines without samples are left out; the loop is called what it is."""

    def line(number, text, *percent):
        names = ("n_cpu_percent_python", "n_cpu_percent_c", "n_sys_percent")
        return {"lineno": number, "line": text, **dict(zip(names, percent, strict=True))}

    here = str(profiling._PACKAGE / "storage" / "instance.py")
    profile = {
        "files": {
            here: {"lines": [line(1, " a()\n", 0, 0, 0), line(2, "  b()\n", 1.0, 20.0, 4.0)]},
            str(profiling._WORK): {"lines": [line(9, "done = asyncio.run(x)\n", 30.0, 10.0, 5.0)]},
        }
    }
    first, second = profiling.hot_lines(profile).rows(named=True)
    assert (first["waiting"], first["share"]) == (True, 0.45)
    assert "event loop" in first["code"]
    assert second == {
        "where": "memlab/storage/instance.py:2",
        "code": "b()",
        "waiting": False,
        "share": pytest.approx(0.25),
        "python": pytest.approx(0.01),
        "native": pytest.approx(0.2),
        "system": pytest.approx(0.04),
    }


def test_what_does_not_fit_is_refused(monkeypatch):
    """Nothing to send, or a profiler that is not there: one line that says what to do."""
    with pytest.raises(MemlabError, match="give 1 or more"):
        profiling.measure_point({}, workload=TRAFFIC, operations=0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "memray" else object())
    with pytest.raises(MemlabError, match=r"memray: not installed.*memlab\[profile\]"):
        profiling.measure_point({}, workload=TRAFFIC)
