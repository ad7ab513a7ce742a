"""The page opens anywhere with nothing loaded, and the PDF can be read and searched."""

import html
import re
from html.parser import HTMLParser

import pytest

from memlab.errors import MemlabError
from memlab.guide import documents

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="200" height="60" viewBox="0 0 200 60">
<rect width="200" height="60" fill="#eee"/>
<text x="10" y="30" font-family="Liberation Sans, Arial, Helvetica, sans-serif" font-size="14">words in a chart</text></svg>"""
TEXT = """
## First

A cache of 1,024 entries<sup>[a3f1](#run-a3f1)</sup> is enough.

![A drawn thing.](charts/one.svg)

## Runs

| run | point |
| :--- | ---: |
| [a3f1]{#run-a3f1} | 1,024 |

``` toml
max_entries = 1024  # a3f1
```
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "one.svg").write_text(SVG)
    return tmp_path


@pytest.fixture
def page(folder):
    documents.to_html(TEXT, folder / "guide.html", title="Guide & more", subtitle="of <things>", charts_in=folder)
    return (folder / "guide.html").read_text()


class Elements(HTMLParser):
    """Collects elements and their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing_and_runs_nothing(page):
    """No script, no style sheet, no address outside; a policy that forbids all of it; charts as data."""
    elements = Elements(page).found
    assert not [tag for tag, _ in elements if tag in ("script", "link", "iframe", "object", "embed")]
    policy = [
        given["content"] for tag, given in elements if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    images = [given for tag, given in elements if tag == "img"]
    assert [image["src"].partition(";")[0] for image in images] == ["data:image/svg+xml"]
    assert images[0]["alt"] == "A drawn thing."
    addresses = [value for _, given in elements for name, value in given.items() if name in ("src", "href", "action", "data")]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"url\(\s*['\"]?(?!data:)|@import", page)


def test_every_link_inside_leads_somewhere(page):
    """Citations and contents point at anchors that are there."""
    elements = Elements(page).found
    anchors = {given["id"] for _, given in elements if "id" in given}
    targets = {given["href"][1:] for tag, given in elements if tag == "a" and "href" in given}
    assert "run-a3f1" in targets
    assert targets <= anchors


def test_title_and_subtitle_are_escaped(page):
    """Names from outside cannot become markup."""
    assert html.escape("Guide & more") in page
    assert "of &lt;things&gt;" in page


def test_a_chart_that_is_not_there_is_an_error(tmp_path):
    """A page with a missing chart is not written."""
    with pytest.raises((MemlabError, RuntimeError)):
        documents.to_html(TEXT, tmp_path / "guide.html", title="t", subtitle="", charts_in=tmp_path)
    assert not (tmp_path / "guide.html").exists()


def test_the_pdf_holds_text_chart_and_links(folder):
    """Words of text and chart can be found, fonts are embedded, citations are links inside the document."""
    pypdf = pytest.importorskip("pypdf")
    documents.to_pdf(TEXT, folder / "guide.pdf", title="Guide & more", subtitle="of things", charts_in=folder)
    reader = pypdf.PdfReader(folder / "guide.pdf")
    text = "\n".join(page.extract_text() for page in reader.pages)
    for words in ("Guide & more", "of things", "1,024 entries", "words in a chart", "A drawn thing.", "max_entries = 1024"):
        assert words in text, words
    assert reader.metadata.title == "Guide & more"
    notes = [note.get_object() for page in reader.pages for note in page.get("/Annots", [])]
    assert notes
    assert all(note["/Subtype"] == "/Link" and "/URI" not in note.get("/A", {}) for note in notes)


def test_a_text_that_cannot_be_set_is_one_clear_error(folder):
    """Typst's complaint arrives as an INTERNAL error that names the file."""
    with pytest.raises(MemlabError, match=r"guide\.pdf") as caught:
        documents.to_pdf("[gone](#nowhere)\n", folder / "guide.pdf", title="t", subtitle="", charts_in=folder)
    assert caught.value.type == "INTERNAL"
    assert not (folder / "guide.pdf").exists()
