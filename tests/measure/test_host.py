"""Where a measurement was made."""

import getpass
import json
import socket
from pathlib import Path

from memlab.measure import host


def test_a_host_tells_itself_apart_and_names_nobody():
    """The facts are there and stable; no host name, no user name, no path is among them."""
    facts = host.host()
    assert set(facts) == {"id", "cpu", "cores", "memory_gib", "os", "python"}
    assert facts == host.host()
    assert facts["cores"] >= 1
    assert facts["memory_gib"] >= 1
    told = json.dumps(facts)
    for secret in (socket.gethostname(), str(Path.home())):
        assert secret not in told
    assert f"/{getpass.getuser()}" not in told


def test_an_answer_is_the_callers_own():
    """Changing what was told changes nothing for others."""
    host.host()["cpu"] = "another"
    assert host.host()["cpu"] != "another"


def test_the_id_follows_the_facts(monkeypatch):
    """Another number of cores is another host."""
    before = host.host()["id"]
    host._facts.cache_clear()
    monkeypatch.setattr(host, "_cpu", lambda: "another processor")
    try:
        assert host.host()["id"] != before
    finally:
        host._facts.cache_clear()


def test_the_libraries_under_it_are_named_with_their_versions():
    """What does the work is among them."""
    assert {"duckdb", "faiss-cpu", "tantivy", "numpy"} <= set(host.libraries())
    assert "never-heard-of" not in host.libraries()
