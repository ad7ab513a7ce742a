"""Points on a real dask cluster of two workers: they come back as runs, a lost worker's point is measured again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
from distributed import Client

from memlab.errors import MemlabError
from memlab.experiment import sweep
from memlab.experiment.cluster import Cluster
from memlab.experiment.comparison import corpus_of
from memlab.experiment.sweep import Sweep
from memlab.measure import host
from tests.experiment.test_sweep import PARAMETERS, PRETEND, Told, params, write_notebook  # noqa: F401

pytestmark = [pytest.mark.serial, pytest.mark.timeout(240)]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Started:
    """A scheduler and workers, each a process group of its own."""

    def __init__(self, root, folder):
        self.environment = os.environ | {
            "PYTHONPATH": str(root),
            "DASK_DISTRIBUTED__DASHBOARD__LINK": "http://{host}:{port}/status",
        }
        self.folder = folder
        self.processes = {}
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.start("scheduler", "scheduler", "--host", self.address, "--dashboard-address", "127.0.0.1:0")

    def start(self, name, *arguments):
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def worker(self, name, *arguments, host="127.0.0.1"):
        given = (
            "--name",
            name,
            "--host",
            host,
            "--nthreads",
            "1",
            "--local-directory",
            str(self.folder / name),
            "--no-dashboard",
        )
        self.start(name, "worker", self.address, *given, *arguments)

    def kill(self, name):
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def started(root, tmp_path_factory):
    """Two workers on what stands for two hosts: two addresses of this one."""
    made = Started(root, tmp_path_factory.mktemp("cluster"))
    try:
        made.worker("one", "--resources", "bench=1")
        made.worker("two", "--resources", "bench=1", host="127.0.0.2")
        with Client(made.address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
        yield made
    finally:
        for name in list(made.processes):
            made.kill(name)


@pytest.fixture
def cluster(started):
    with Cluster(started.address) as there:
        yield there


def test_points_come_back_as_runs(cluster, params, tmp_path):  # noqa: F811
    """Each point's files are kept here with the host that measured; a failure is the point's own; nothing is measured twice."""
    made = Sweep.load(params(), ["cache.max_entries=10,13,100"])
    told = Told()
    outcome = sweep.run(made, tmp_path / "results", cluster=cluster, progress=told)
    assert sorted(run.summary["entries"] for run in outcome.done) == [10, 100]
    (failed,) = outcome.failed
    assert failed.error == "cache.max_entries=13: AssertionError: thirteen"
    assert "thirteen" in failed.notebook.read_text()
    for run in outcome.done:
        assert {path.name for path in run.folder.iterdir()} == {"run.json", "samples.parquet", "notebook.ipynb"}
        assert run.host == host.host()
    assert (told.lines[0], told.lines[-1]) == (("begin", 0, 3), "end")
    again = sweep.run(Sweep.load(params()), tmp_path / "results", cluster=cluster)
    assert (len(again.done), len(again.reused), len(again.failed)) == (0, 2, 0)


def test_a_lost_workers_point_is_measured_again(started, cluster, params, tmp_path):  # noqa: F811
    """A worker is killed while it measures: its point goes to the other one, and every point is there in the end."""
    code = PRETEND.replace("import json", "import os, time, json") + (
        f"\nopen(r'{tmp_path}/begun', 'a').write('begun\\n')\nwhile not os.path.exists(r'{tmp_path}/go'): time.sleep(0.05)"
    )
    write_notebook(tmp_path / "point.ipynb", code)
    killed = []

    class Killing(Told):
        def update(self, running_s):
            begun = tmp_path / "begun"
            if not killed and begun.exists() and begun.read_text().count("begun") == 2:
                started.kill("two")
                killed.append(time.monotonic())
                (tmp_path / "go").write_text("")

    try:
        outcome = sweep.run(Sweep.load(params()), tmp_path / "results", cluster=cluster, progress=Killing())
    finally:
        started.worker("two", "--resources", "bench=1", host="127.0.0.2")
    assert killed
    assert outcome.failed == []
    assert sorted(run.summary["entries"] for run in outcome.done) == [10, 100]
    assert (tmp_path / "begun").read_text().count("begun") == 3


def test_what_does_not_fit_is_refused_before_anything_runs(started, cluster, params, tmp_path):  # noqa: F811
    """Nobody at the address, no worker that measures, two on one host, conversations that are not there: one line, no run."""
    with pytest.raises(MemlabError, match="no dask scheduler answers") as refused:
        Cluster(f"tcp://127.0.0.1:{free_port()}", timeout_s=0.5)
    assert (refused.value.type, refused.value.reason) == ("NOT_FOUND", "cluster")
    started.worker("three", "--resources", "bench=1")
    with Client(started.address, timeout=60) as client:
        client.wait_for_workers(3, timeout=60)
        try:
            with pytest.raises(MemlabError, match=r"127\.0\.0\.1 has two workers that offer bench"):
                sweep.run(Sweep.load(params()), tmp_path / "results", cluster=cluster)
        finally:
            started.kill("three")
            while len(client.scheduler_info(n_workers=-1)["workers"]) > 2:
                time.sleep(0.1)
    assert not list((tmp_path / "results").glob("*/*/run.json"))


def test_an_interrupted_sweep_leaves_no_measurement_behind(started, cluster, params, tmp_path):  # noqa: F811
    """Ctrl-C gives up what runs: the workers end their notebooks and are free for the next sweep."""
    code = PRETEND.replace("import json", "import os, time, json") + (
        f"\nopen(r'{tmp_path}/kernels', 'a').write(f'{{os.getpid()}}\\n')"
        f"\nwhile not os.path.exists(r'{tmp_path}/go'): time.sleep(0.05)"
    )
    write_notebook(tmp_path / "point.ipynb", code)
    kernels = tmp_path / "kernels"

    class Interrupting(Told):
        def update(self, running_s):
            if kernels.exists() and kernels.read_text().count("\n") == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="0 of 2 points"):
        sweep.run(Sweep.load(params()), tmp_path / "results", cluster=cluster, progress=Interrupting())
    ended = time.monotonic() + 60
    for kernel in map(int, kernels.read_text().split()):
        while lives(kernel):
            assert time.monotonic() < ended
            time.sleep(0.1)
    (tmp_path / "go").write_text("")
    outcome = sweep.run(Sweep.load(params()), tmp_path / "results", cluster=cluster)
    assert len(outcome.done) == 2


def lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    return False


def test_further_workers_of_a_host_prepare_before_and_sum_up_after(params, tmp_path):  # noqa: F811
    """With two workers on this host one measures: the databases of all points are there before the first; a summary is made."""
    listed = '{"found": sorted(one.name for one in pathlib.Path(point["prepared"]).iterdir()), "entries"'
    write_notebook(tmp_path / "point.ipynb", PRETEND.replace('{"entries"', listed))
    path = params("", "grid:\n", "grid:\n  workload.corpus.events: [60, 80]\n")
    made = Sweep.load(path, ["cache.max_entries=10"])
    corpora = {corpus_of(point.workload, made.seed).digest()[:16] for point in made.points()}
    folder = tmp_path / "results"
    with Cluster(jobs=2) as cluster:
        outcome = sweep.run(made, folder, cluster=cluster)
        assert (len(outcome.done), len(outcome.failed)) == (2, 0)
        assert all(run.summary["found"] == sorted(corpora) for run in outcome.done)
        assert cluster.sum_up(made, path, folder) is None, "there is no such notebook"
        parameters = 'params = ""\nfolder = ""\ndata = None\n'
        counted = (
            "import pathlib\nruns = list(pathlib.Path(folder).glob('*/*/run.json'))"
            "\npathlib.Path(folder, 'counted').write_text(str(len(runs)))"
        )
        write_notebook(tmp_path / "point-summary.ipynb", counted, parameters)
        assert cluster.sum_up(made, path, folder) == folder / "size.smoke" / "summary.ipynb"
        assert (folder / "counted").read_text() == "2"
        write_notebook(tmp_path / "point-summary.ipynb", 'raise RuntimeError("no chart")', parameters)
        with pytest.raises(MemlabError, match="no chart") as failed:
            cluster.sum_up(made, path, folder)
        assert failed.value.reason == "notebook"
    assert len(made.runs(folder)) == 2, "a summary beside the runs is none of them"


def test_points_that_begin_with_no_corpus_prepare_none(params, tmp_path):  # noqa: F811
    """A notebook that takes no conversations shares no database."""
    write_notebook(tmp_path / "point.ipynb", parameters=PARAMETERS.replace("data = None\n", ""))
    assert not Sweep.load(params()).shares_database
    write_notebook(tmp_path / "point.ipynb")
    assert Sweep.load(params()).shares_database
