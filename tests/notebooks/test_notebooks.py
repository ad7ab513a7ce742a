"""Each notebook asks one question, is kept as it ran, and says no more than its run does."""

import json
import re

import pytest

from memlab.experiment.planted import plant
from memlab.experiment.sweep import Sweep
from memlab.guide import findings
from tests.notebooks.executing import Planted, execute

POINTS = ("01-cache-size", "02-batch-window", "03-pool-limit", "04-before-after")
SUMMARIES = ("01-cache-size-summary", "02-batch-window-summary", "03-pool-limit-summary")
STUDIES = (
    "05-query-optimizer",
    "06-answer-quality",
    "14-leaks",
    "15-memory",
    "16-profile",
    "17-compare",
    "21-batch-window",
    "30-what-if",
)
BENCHES = (
    "07-invalidation",
    "07-invalidation-summary",
    "08-warm-up",
    "09-paging",
    "10-operations",
    "10-operations-summary",
    "11-workflows",
    "11-workflows-summary",
    "12-driver",
    "12-load",
    "12-load-summary",
    "12-rate",
    "13-isolation",
    "13-isolation-summary",
    "20-miss-ratio",
    "22-pool-limit",
    "23-index",
    "23-index-summary",
    "24-tune",
)
TOURS = (
    "00-tour",
    "31-many-hosts",
)  # they show how something goes, and find nothing
EVERY = (*TOURS, *POINTS, *SUMMARIES, *STUDIES, *BENCHES)


@pytest.fixture(params=EVERY)
def stored(request, root):
    """A notebook as it is kept."""
    return json.loads((root / "notebooks" / f"{request.param}.ipynb").read_text(encoding="utf-8"))


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def is_tour(notebook):
    return any(notebook["cells"][0]["id"].startswith(name[:2]) for name in TOURS)


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell["outputs"]]


def test_every_notebook_is_known(root):
    """No notebook lies in the folder that these tests do not see."""
    assert sorted(path.stem for path in (root / "notebooks").glob("*.ipynb")) == sorted(EVERY)


def test_it_was_executed_in_order(stored):
    """Outputs are stored, every cell ran, one after the other, and none failed: nbval alone would pass an empty notebook."""
    counts = [cell["execution_count"] for cell in code(stored)]
    assert counts == list(range(1, len(counts) + 1))
    kinds = [output["output_type"] for output in outputs(stored)]
    assert kinds
    assert set(kinds) <= {"execute_result", "display_data"}, "an error, or something printed"


def test_it_shows_one_chart_and_one_finding(stored, root):
    """One SVG, one finding recorded with its numbers; where the stored run is a smoke run, it says so."""
    shown = [kind for output in outputs(stored) for kind in output["data"]]
    assert shown.count("image/svg+xml") == 1
    assert shown.count(findings.FINDING) == (0 if is_tour(stored) else 1)
    if is_tour(stored):
        return
    (recorded,) = [output["data"][findings.FINDING] for output in outputs(stored) if findings.FINDING in output["data"]]
    assert recorded["recommended"] == {}
    assert recorded["verdict"] == "smoke"
    assert recorded["text"] == findings.SMOKE


def test_its_outputs_name_no_machine_and_no_registry(stored, root):
    """No path of the machine that ran it, no user, no address that something was fetched from."""
    text = json.dumps([outputs(stored), stored["metadata"]])
    assert str(root) not in text
    for pattern in (
        r"/(?:home|root|Users|tmp|work|var|opt)/",
        r"\.venv",
        r"site-packages",
        r"[A-Z]:\\\\",
        r"pypi|conda|index-url",
    ):
        assert not re.search(pattern, text), pattern
    addresses = set(re.findall(r"https?://[^\s\"'\\<>]+", text))
    addresses = {one for one in addresses if not one.startswith("http://127.0.0.1:")}  # a dashboard of this host's own
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_it_is_short_and_plain(stored):
    """Under thirty cells, a title, one cell tagged parameters, and no loop over settings: that is a sweep."""
    assert len(stored["cells"]) < 30
    assert "".join(stored["cells"][0]["source"]).startswith("# ")
    tagged = [cell for cell in code(stored) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert not [
        cell for cell in code(stored) if re.search(r"^\s*(?:for|while|def|class) ", "".join(cell["source"]), re.MULTILINE)
    ]
    headings = re.findall(r"^## (.+)$", "\n".join("".join(cell["source"]) for cell in stored["cells"]), re.MULTILINE)
    assert headings[0] == "Parameters"
    last = ["What it shows", "Versions"] if is_tour(stored) else ["What it shows", "Finding", "Versions"]
    assert headings[-len(last) :] == last


def planted(root, folder, name, effect):
    """Runs of a question's quick sweep whose candidates take *effect* times as long."""
    params = root / "params" / f"{name}.yaml"
    return params, plant(
        Sweep.load(params), folder, effect=lambda point: 1.0 if point.candidate == point.reference else effect, samples=120
    )


@pytest.mark.parametrize("name", SUMMARIES)
@pytest.mark.parametrize(("effect", "verdict"), [(1.0, "no difference seen"), (0.4, "better")])
def test_a_summary_sees_what_was_planted(name, effect, verdict, root, tmp_path):
    """Null data gives "no difference seen", in the finding and over the chart; a planted effect is found."""
    params, runs = planted(root, tmp_path, name.removesuffix("-summary"), effect)
    names, _ = execute(root / "notebooks" / f"{name}.ipynb", {"params": str(params), "folder": str(tmp_path)})
    found = names["found"]
    assert found.verdict == verdict
    assert ("No difference seen" in str(found)) == (verdict == "no difference seen") == (found.headline == "No difference seen")
    assert found.evidence in {run.id for run in runs}
    assert found.recommended
    assert (None in found.recommended.values()) == (verdict == "no difference seen") or "cache.ttl_s" in found.recommended


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize(("effect", "verdict"), [(1.0, "no difference seen"), (0.4, "better"), (2.5, "worse")])
def test_a_point_sees_what_was_planted(name, effect, verdict, root, tmp_path):
    """One run of nothing says "no difference seen"; faster and slower are told."""
    _, runs = planted(root, tmp_path, name, effect)
    run = next(run for run in runs if not run.summary["null"])
    point = {"values": run.parameters, **run.settings}
    names, _ = execute(
        root / "notebooks" / f"{name}.ipynb",
        {"point": point, "workload": run.workload, "size": "quick"},
        measured=Planted(run.samples(), run.summary),
    )
    assert names["found"].verdict == verdict
    assert ("No difference seen" in str(names["found"])) == (verdict == "no difference seen")
