"""A notebook in a real JupyterLab, opened and run as a person would, by a browser."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import polars
import pytest

from memlab import charts
from memlab.guide import documents

pytestmark = pytest.mark.serial

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TOKEN = "a-token-of-this-test"
NOTEBOOK = "01-cache-size.ipynb"
PANEL = "30-what-if.ipynb"
POINT = "04-before-after.ipynb"  # which the panel's button runs


@pytest.fixture(scope="module")
def browser_path():
    path = os.environ.get("MEMLAB_BROWSER") or next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"NOT TESTED IN A BROWSER: none of {', '.join(BROWSERS)} is installed; on Debian: apt-get install chromium")
    return path


@pytest.fixture
def lab(root, tmp_path):
    """JupyterLab on copies of notebooks without their outputs; yields the address of one that is put at the end."""
    (tmp_path / "work" / "notebooks").mkdir(parents=True)
    for name in (NOTEBOOK, PANEL, POINT):
        notebook = json.loads((root / "notebooks" / name).read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
        (tmp_path / "work" / "notebooks" / name).write_text(json.dumps(notebook), encoding="utf-8")
    shutil.copytree(root / "params", tmp_path / "work" / "params")
    quiet = tmp_path / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={tmp_path / 'work'}"),
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    log = tmp_path / "lab.log"
    with log.open("wb") as told:
        server = subprocess.Popen(command, stdout=told, stderr=told, env=environment, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", server, log)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{}}?token={TOKEN}"
    finally:
        end(server)


def wait_for(address, server, log, patience_s=90):
    give_up = time.monotonic() + patience_s
    while server.poll() is None and time.monotonic() < give_up:
        try:
            urllib.request.urlopen(address, timeout=5)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"JupyterLab does not answer:\n{log.read_text(errors='replace')[-2000:]}")


def end(server):
    """End the server, which ends its kernels; its whole group where it does not."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.timeout(240)
def test_a_person_can_run_a_notebook(lab, browser_path):
    """Opened in JupyterLab, Run All Cells: every cell runs, the chart and the finding are there, nothing failed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="NOT TESTED IN A BROWSER: playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 4000})
            page.set_default_timeout(90_000)
            page.goto(lab.format(NOTEBOOK))
            # The notebook's own indicator says idle before there is a kernel; the status bar does not.
            page.get_by_text(re.compile(r"^Python 3 .*\| Idle$")).wait_for()
            assert page.locator(".jp-OutputArea-output").count() == 0
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            page.wait_for_selector(".jp-RenderedMarkdown.jp-OutputArea-output", state="attached")  # the finding, near the end
            page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
            chart = page.locator(".jp-RenderedSVG")
            chart.scroll_into_view_if_needed()
            assert chart.count() == 1
            box = chart.bounding_box()
            assert box["width"] > 300
            assert box["height"] > 100
            assert "proves that it runs" in page.locator(".jp-RenderedMarkdown.jp-OutputArea-output").inner_text()
            assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
            assert page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
        finally:
            browser.close()


@pytest.mark.timeout(300)
def test_a_person_can_ask_what_if(lab, browser_path):
    """Notebook 30 in JupyterLab: a slider changes the prediction at once, the button runs the missing point, its run appears."""
    playwright = pytest.importorskip("playwright.sync_api", reason="NOT TESTED IN A BROWSER: playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 4000})
            page.set_default_timeout(120_000)
            page.goto(lab.format(PANEL))
            page.get_by_text(re.compile(r"^Python 3 .*\| Idle$")).wait_for()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            panel = page.locator(".memlab-what-if")
            panel.wait_for()
            page.wait_for_selector(".jp-RenderedMarkdown.jp-OutputArea-output", state="attached")
            run_of = panel.locator("th").nth(2)
            first = run_of.inner_text()
            assert first.startswith("run 30-what-if.smoke/")
            before = panel.locator("td.predicted.hit_ratio").inner_text()
            slider = panel.get_by_role("slider", name="cache (entries)")
            slider.focus()
            slider.press("ArrowLeft")
            assert panel.locator("td.predicted.hit_ratio").inner_text() != before
            assert run_of.inner_text() == "not run"
            panel.get_by_role("button", name="Run this point").click()
            panel.get_by_text("This point was run.").wait_for()
            assert run_of.inner_text().startswith("run 30-what-if.smoke/")
            assert run_of.inner_text() != first
            assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
        finally:
            browser.close()


def test_a_guide_opens_without_a_network(root, browser_path, tmp_path):
    """A guide's page in a browser: charts drawn, nothing asked of any address, nothing that its policy had to refuse."""
    playwright = pytest.importorskip("playwright.sync_api", reason="NOT TESTED IN A BROWSER: playwright is not installed")
    (tmp_path / "charts").mkdir()
    chart = charts.ratio_curve(
        polars.DataFrame(
            {"run": ["x/1"], "a": [1], "b": [2], "ratio_p95": [0.5], "ratio_p95_low": [0.4], "ratio_p95_high": [0.6]}
        ),
        "p95",
        x=charts.By("a", "a"),
        series=charts.By("b", "b"),
        y_title="p95",
    )
    (tmp_path / "charts" / "one.svg").write_text(charts.to_svg(chart), encoding="utf-8")
    page_file = tmp_path / "guide.html"
    text = "## Runs\n\n![A chart.](charts/one.svg)\n\n| run | figure |\n| :--- | ---: |\n| a | b |\n"
    documents.to_html(text, page_file, title="A guide", subtitle="of nothing", charts_in=tmp_path)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        try:
            page = browser.new_page()
            asked, said = [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.goto(page_file.as_uri())
            assert page.locator("img").evaluate("image => image.complete && image.naturalWidth > 300")
            assert page.title() == "A guide"
        finally:
            browser.close()
    assert [address for address in asked if not address.startswith(("data:", page_file.as_uri()))] == []
    assert said == []
