"""The guide is made of runs: complete, cited, and refused when a number does not stand in its run."""

import json
import re
import shutil
import tomllib

import msgspec
import pytest

from memlab.errors import MemlabError
from memlab.experiment.planted import plant
from memlab.experiment.sweep import Sweep
from memlab.guide import documents, export, figures, sections
from memlab.guide.chapter import Chapter
from memlab.guide.figures import Figure
from memlab.guide.findings import read_chart, read_finding
from memlab.guide.topics import State
from memlab.settings import Settings
from tests.notebooks.executing import Planted, execute


def faster(point):
    """Half the time for every point but those that compare the reference with itself."""
    return 1.0 if point.candidate == point.reference else 0.5


def gathered(root, folder, *, effect, smoke=False):
    """Evidence of planted runs, through the real sweeps and the real notebooks."""
    ending = ".smoke.yaml" if smoke else ".yaml"
    runs, found, drawings = {}, {}, {}
    for question in export.QUESTIONS:
        params = root / "params" / f"{question.experiment}{ending}"
        runs[question.experiment] = plant(Sweep.load(params), folder, effect=effect)
        path = keep(
            root / "notebooks" / f"{question.experiment}-summary.ipynb", folder, {"params": str(params), "folder": str(folder)}
        )
        found[question.experiment], drawings[question.experiment] = read_finding(path), read_chart(path)
    recommended = export.recommend(found.values())
    final = Sweep.load(root / "params" / f"{sections.AFTER}{ending}").with_settings(recommended)
    (after,) = plant(final, folder, effect=effect)
    path = keep(
        final.notebook, folder, {"point": {"values": {}, **after.settings}}, measured=Planted(after.samples(), after.summary)
    )
    found[sections.AFTER], drawings[sections.AFTER] = read_finding(path), read_chart(path)
    return sections.Evidence(runs, found, drawings, after, recommended)


def keep(notebook, folder, parameters, measured=None):
    _, executed = execute(notebook, parameters, measured=measured)
    path = folder / f"{notebook.stem}-executed.ipynb"
    path.write_text(json.dumps(executed))
    return path


@pytest.fixture(scope="module")
def evidence(root, tmp_path_factory):
    return gathered(root, tmp_path_factory.mktemp("results"), effect=faster)


@pytest.fixture(scope="module")
def guide(evidence, tmp_path_factory):
    return export.render(evidence, tmp_path_factory.mktemp("guide"))


def test_the_guide_is_complete(guide):
    """Markdown, HTML, PDF and settings are there, and every section of the guide."""
    assert guide.finding
    text = guide.markdown.read_text(encoding="utf-8")
    for heading in (
        "In short",
        "What was asked",
        "Which cache size and time to live?",
        "Which batch window and limit, at which arrival rate?",
        "Which pool limit, with how many threads?",
        "Before and after",
        "Recommended settings",
        "How it was measured",
        "Limits",
        "Host and versions",
        "Runs",
    ):
        assert f"\n## {heading}\n" in text, heading
    assert guide.pdf.read_bytes().startswith(b"%PDF")
    assert len(re.findall(r"<img[^>]* src=\"data:image/svg", guide.html.read_text(encoding="utf-8"))) == 4
    for name in re.findall(r"\]\((charts/[\w.-]+)\)", text):
        assert (guide.markdown.parent / name).read_text(encoding="utf-8").startswith("<svg")


def test_every_number_of_the_written_guide_carries_its_run(guide, evidence):
    """In the Markdown as written: a number is followed by a link to its run, or stands in a row or line that names one."""
    keys = set(figures.short_keys(run.id for run in sections.all_runs(evidence)).values())
    text = guide.markdown.read_text(encoding="utf-8")
    cited = re.compile(r"(?:[\d.,]+ to )?[^\s|*(]+(?:\u202f\S+?)?(?: \([^()]*\))?<sup>(?:\[[^\]]+\]\(#[\w-]+\) ?)+</sup>")
    for line in text.splitlines():
        if line.startswith("|") and (set(re.findall(r"\[([0-9a-f]+)\]\(#run-", line)) or 'id="run-' in line):
            continue
        if set(re.findall(r"# ([0-9a-f]+)$", line)) & keys:
            continue
        rest = cited.sub("", line)
        for pattern in figures.EXCEPTIONS:
            rest = re.sub(pattern, "", rest)
        assert not re.search(r"(?<![\w#-])\d+(?:[.,]\d+)?(?![\w-])", re.sub(r"\]\(#[\w-]+\)", "", rest)), line
    defined = set(re.findall(r'<a id="run-([0-9a-f]+)">', text))
    assert set(re.findall(r"\(#run-([0-9a-f]+)\)", text)) <= defined == keys


def test_the_recommended_settings_load_and_are_those_that_ran(guide, evidence):
    """recommended.toml loads as settings, equal to what the before-after run measured, each line with its run."""
    settings = Settings.load(guide.settings, environment={})
    assert settings == evidence.recommended
    assert settings.to_dict() == evidence.after.settings["candidate"]
    known = {run.id for run in sections.all_runs(evidence)}
    lines = [line for line in guide.settings.read_text().splitlines() if " = " in line]
    assert lines
    assert all(line.rpartition("  # ")[2] in known for line in lines)


def test_findings_and_settings_agree(guide, evidence):
    """What the notebooks found is what the guide says and what the settings hold."""
    text = guide.markdown.read_text(encoding="utf-8")
    for finding in evidence.findings.values():
        assert finding.verdict == "better"
    recommended = evidence.findings["01-cache-size"].recommended
    assert recommended["cache.max_entries"] == evidence.recommended.cache.max_entries
    assert f"| `cache.max_entries` | {recommended['cache.max_entries']:,} | better |" in text


def test_each_sweep_ends_with_its_rule_and_settings_to_copy(guide, evidence):
    """Set apart, with the range that it was measured in; the block is TOML of what the sweep recommends."""
    text = guide.markdown.read_text(encoding="utf-8")
    parts = text.split("\n## ")
    for title, question in (
        ("Which cache size and time to live?", export.QUESTIONS[0]),
        ("Which batch window and limit, at which arrival rate?", export.QUESTIONS[1]),
        ("Which pool limit, with how many threads?", export.QUESTIONS[2]),
    ):
        (part,) = [part for part in parts if part.startswith(title)]
        (rule,) = [line for line in part.splitlines() if line.startswith("> **Rule of thumb.**")]
        assert "Holds for " in rule
        assert "arrivals a second" in rule
        block = re.search(r"``` toml\n(.*?)```", part, re.DOTALL)[1]
        assert Settings.of(tomllib.loads(block)["settings"]) == Settings.of(evidence.findings[question.experiment].recommended)


def test_chapters_that_were_not_run_are_named(guide):
    """Each keeps its place, and says what would make it."""
    assert guide.not_run == tuple(topic.experiment for topic in export.TOPICS)
    text = guide.markdown.read_text(encoding="utf-8")
    for topic in export.TOPICS:
        assert f"\n## {topic.title}\n\n**Not run.**" in text
        assert f"`memlab sweep params/{topic.experiment}.yaml`" in text


def test_a_further_chapter_stands_in_its_place(evidence, tmp_path):
    """Headline, text, rule and settings of a chapter are told; its settings do not enter recommended.toml."""
    run = evidence.runs["03-pool-limit"][0]
    run = msgspec.structs.replace(run, key="0" * 16)
    told = Chapter("The headline.", "The text.", {}, "The rule.", {"index.kind": "flat"})
    topic = next(one for one in export.TOPICS if one.name == "memory")._replace(write=lambda runs: told)
    written = export.render(evidence._replace(states=[State(topic, [run], ())]), tmp_path)
    text = written.markdown.read_text(encoding="utf-8")
    assert f"\n## {topic.title}\n\n> **The headline.**\n\nThe text.\n\n> **Rule of thumb.** The rule.\n" in text
    assert 'kind = "flat"  # 0000' in text
    assert f"- **{topic.title}** The headline." in text, "a title that asks has its mark"
    assert f"### Runs of {topic.experiment}\n" in text
    assert Settings.load(written.settings, environment={}).index.kind == Settings().index.kind
    assert topic.experiment not in written.not_run


def test_a_failed_point_of_a_further_chapter_is_told(evidence, tmp_path):
    """The guide is written all the same, and names the experiment."""
    written = export.render(evidence._replace(states=[State(export.TOPICS[0], [], ["a point"], error="boom")]), tmp_path)
    assert written.failed == (f"{export.TOPICS[0].experiment}: boom",)
    assert "It was tried and failed" in written.markdown.read_text(encoding="utf-8")


def test_the_pdf_can_be_searched(guide):
    """Headings, findings and the words of the charts are text in the PDF."""
    pypdf = pytest.importorskip("pypdf")
    text = "\n".join(page.extract_text() for page in pypdf.PdfReader(guide.pdf).pages)
    for words in ("Optimization guide", "Which cache size", "cache size (entries)", "times that without", "Host and versions"):
        assert words in text, words


def test_null_data_recommends_nothing_new(root, tmp_path):
    """Where nothing differs every finding says so, and the settings are those of the references: everything off."""
    evidence = gathered(root, tmp_path / "results", effect=lambda point: 1.0)
    assert {finding.verdict for finding in evidence.findings.values()} == {"no difference seen"}
    assert evidence.recommended == Settings.off()
    written = export.render(evidence, tmp_path / "guide")
    assert "No difference seen" in written.markdown.read_text(encoding="utf-8")
    assert Settings.load(written.settings, environment={}) == Settings.off()


def test_a_guide_of_smoke_runs_says_that_it_finds_nothing(root, tmp_path):
    """It proves that it runs, in Markdown, HTML, PDF and settings; no finding, no recommendation, whatever was measured."""
    evidence = gathered(root, tmp_path / "results", effect=faster, smoke=True)
    assert evidence.recommended == Settings()
    written = export.render(evidence, tmp_path / "guide")
    assert not written.finding
    for document in (written.markdown, written.html):
        text = document.read_text(encoding="utf-8")
        assert "proves that it runs, and finds nothing" in text
        assert "recommended</strong>" not in text
        assert "better" not in text.partition("How it was measured")[0]
    assert "recommends nothing" in written.settings.read_text()


def changed(evidence, experiment, **changes):
    findings = {**evidence.findings, experiment: msgspec.structs.replace(evidence.findings[experiment], **changes)}
    return evidence._replace(findings=findings)


def reason(caught):
    return caught.value.reason


def test_a_bare_number_in_a_finding_fails_the_build(evidence, tmp_path):
    """A notebook whose sentence holds a number of its own cannot enter the guide; nothing is written."""
    with pytest.raises(MemlabError) as caught:
        export.render(changed(evidence, "01-cache-size", text="p95 is 0.42 times"), tmp_path)
    assert reason(caught) == "bare_number"
    assert not list(tmp_path.iterdir())


def test_a_bare_number_in_the_template_fails_the_build(evidence, tmp_path, monkeypatch):
    """A sentence written into the template with a number in it fails the build, and its line is named."""
    shutil.copytree(documents.TEMPLATES, tmp_path / "templates")
    template = tmp_path / "templates" / f"{export.NAME}.md"
    template.write_text(template.read_text() + "\nCaches are 3 times as fast.\n")
    monkeypatch.setattr(documents, "TEMPLATES", tmp_path / "templates")
    with pytest.raises(MemlabError, match="Caches are 3 times as fast") as caught:
        export.render(evidence, tmp_path / "guide")
    assert reason(caught) == "bare_number"


def test_a_run_older_than_the_code_fails_the_build(evidence, tmp_path):
    """A point measured by other code cannot be spoken of, whether in a finding or in a table."""
    for experiment in evidence.runs:
        runs = {**evidence.runs}
        runs[experiment] = [msgspec.structs.replace(runs[experiment][0], code_version="0" * 16), *runs[experiment][1:]]
        with pytest.raises(MemlabError, match="code has changed") as caught:
            export.render(evidence._replace(runs=runs), tmp_path)
        assert reason(caught) == "stale_run"
        assert caught.value.fields["runs"] == [runs[experiment][0].id]
    assert not list(tmp_path.iterdir())


def test_a_number_without_its_run_fails_the_build(evidence, tmp_path):
    """A finding that speaks of a run that is not in the results fails the build."""
    finding = evidence.findings["01-cache-size"]
    gone = {**finding.scalars, "entries": Figure(64, ("01-cache-size/ffff",), path="parameters.cache.max_entries")}
    with pytest.raises(MemlabError, match="01-cache-size/ffff") as caught:
        export.render(changed(evidence, "01-cache-size", scalars=gone), tmp_path)
    assert reason(caught) == "unknown_run"


def test_a_number_that_its_run_does_not_hold_fails_the_build(evidence, tmp_path):
    """A figure is read in its run again; a notebook that was edited afterwards is found out."""
    finding = evidence.findings["01-cache-size"]
    lied = {**finding.scalars, "hit": msgspec.structs.replace(finding.scalars["hit"], value=0.99)}
    with pytest.raises(MemlabError, match=r"0\.99") as caught:
        export.render(changed(evidence, "01-cache-size", scalars=lied), tmp_path)
    assert reason(caught) == "figure"


def test_missing_points_are_named(root, tmp_path):
    """Without runs, and without leave to measure, the guide says what to do."""
    with pytest.raises(MemlabError, match="01-cache-size") as caught:
        export.build(root / "params", tmp_path)
    assert caught.value.type == "NOT_FOUND"
    assert not (tmp_path / "guide").exists()


def test_a_params_folder_that_is_not_there_is_one_clear_error(tmp_path):
    """A wrong folder is named, and nothing is written."""
    with pytest.raises(MemlabError, match=r"01-cache-size\.yaml"):
        export.build(tmp_path / "nowhere", tmp_path / "results")
    assert not (tmp_path / "results").exists()
