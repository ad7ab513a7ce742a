"""The panel looks up what was predicted, asks for one run at a time, and works in a page without a kernel."""

import json
import re

import polars as pl
import pytest

from memlab.errors import MemlabError, internal
from memlab.widgets.what_if import FIGURES, LABELS, WhatIf
from tests.notebooks.test_browser import browser_path  # noqa: F401


def predictions(scale=1.0):
    rows = []
    for place, (entries, window, index) in enumerate((e, w, i) for e in (None, 64) for w in (None, 2.0) for i in ("flat", "ivf")):
        row = {"max_entries": entries, "window_ms": window, "pool_limit": 4, "index": index}
        for number, name in enumerate(FIGURES):
            value = scale * (place + 1) * (number + 1)
            row |= {name: value, f"{name}_low": value / 2, f"{name}_high": value * 2}
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def measured(*places):
    return predictions()[list(places)].with_columns(run=pl.lit("30-what-if/abc"))


def test_every_place_of_the_sliders_has_its_prediction():
    """The table may come in any order; a place that is missing or twice there is refused."""
    panel = WhatIf(predictions().reverse(), measured(0), at={"max_entries": 64, "index": "ivf"})
    axes, rows = panel.state["axes"], panel.state["rows"]
    assert [axis["label"] for axis in axes] == list(LABELS.values())
    assert [axis["values"][axis["at"]] for axis in axes] == [64, 2.0, 4, "ivf"]
    order = [(e, w, i) for e in axes[0]["values"] for w in axes[1]["values"] for i in axes[3]["values"]]
    for (entries, window, index), row in zip(order, rows, strict=True):
        wanted = predictions().filter(
            pl.col("max_entries").eq_missing(entries), pl.col("window_ms").eq_missing(window), pl.col("index") == index
        )
        assert row["p95_ms"] == {"value": wanted["p95_ms"][0], "low": wanted["p95_ms_low"][0], "high": wanted["p95_ms_high"][0]}
    with pytest.raises(MemlabError, match="each must be there once"):
        WhatIf(predictions()[:-1], measured(0))


def test_a_run_changes_all_predictions():
    """The button's run returns new runs and, because more is known of the model's error, new predictions."""
    asked = []

    def run(setting):
        asked.append(setting)
        return predictions(2.0), measured(0, 3)

    panel = WhatIf(predictions(), measured(0), run)
    panel.run_point({"max_entries": 64, "window_ms": None, "pool_limit": 4, "index": "ivf"})
    assert asked == [{"max_entries": 64, "window_ms": None, "pool_limit": 4, "index": "ivf"}]
    assert len(panel.state["runs"]) == 2
    assert panel.state["rows"][0]["p50_ms"]["value"] == 2 * 1.0 * 2
    assert panel.state["busy"] == ""


def test_a_run_that_fails_is_said_and_changes_nothing():
    """One line in the panel; the predictions stay."""

    def run(setting):
        raise internal("point", "the kernel died")

    panel = WhatIf(predictions(), measured(0), run)
    before = panel.state["rows"]
    panel.run_point({})
    assert panel.state["busy"] == "failed: the kernel died"
    assert panel.state["rows"] == before


def test_messages_that_make_no_sense_are_ignored():
    """A page may send anything."""
    panel = WhatIf(predictions(), measured(0), lambda setting: pytest.fail("it ran"))
    for content in ({}, {"place": "x"}, {"place": [1]}, {"place": None}):
        panel._asked(panel, content, [])


def test_both_faces_are_in_the_output():
    """The live widget for a kernel, HTML for a page without one; the state cannot end the script it stands in."""
    panel = WhatIf(predictions().with_columns(index=pl.col("index").replace("ivf", "</script>")), measured()[:0])
    bundle = panel._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert {"application/vnd.jupyter.widget-view+json", "text/html"} <= set(data)
    assert data["text/html"].count("</script>") == 1
    assert not re.search(r"https?://(?!www\.w3\.org)", data["text/html"])
    json.dumps(panel.state, allow_nan=False)


@pytest.mark.serial
def test_the_page_works_without_kernel_and_network(browser_path, tmp_path):  # noqa: F811
    """Moving a slider by the keyboard shows the other prediction; the button is off; nothing is asked of any address."""
    playwright = pytest.importorskip("playwright.sync_api", reason="NOT TESTED IN A BROWSER: playwright is not installed")
    panel = WhatIf(predictions(), measured(0), lambda setting: None)
    panel.save(tmp_path / "what-if.html", title="What if <it> & that?")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        try:
            page = browser.new_page()
            asked, said = [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto((tmp_path / "what-if.html").as_uri())
            assert page.locator("td.predicted.p95_ms").inner_text() == "3.00 (1.50 to 6.00)"
            assert page.locator("td.measured.p95_ms").inner_text() == "3.00 (1.50 to 6.00)"
            slider = page.get_by_role("slider", name=LABELS["index"])
            slider.focus()
            slider.press("ArrowRight")
            assert page.locator("td.predicted.p95_ms").inner_text() == "6.00 (3.00 to 12.0)"
            assert page.locator("td.measured.p95_ms").inner_text() == "–"
            assert page.get_by_role("button", name="Run this point").is_disabled()
        finally:
            browser.close()
    assert [address for address in asked if not address.startswith("file:")] == []
    assert said == []
