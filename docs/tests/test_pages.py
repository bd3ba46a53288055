"""Every built page in a browser, as wide as a desk's screen and as a phone; and every link."""

import base64
import functools
import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import DESKTOP, PHONE

NOT_PAGES = {"genindex", "py-modindex", "search"}


def pages(folder):
    """The pages themselves, without indexes and Sphinx's own files."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*.html")))
    return [page for page in found if page.parts[0][0] != "_" and page.stem not in NOT_PAGES]


def pytest_generate_tests(metafunc):
    if "page" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--html")
        found = pages(folder) if folder else [Path("index.html")]
        metafunc.parametrize("page", found, ids=str)


class Parsed(HTMLParser):
    """The targets of a page's links and images, and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors = [], {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.add(attributes.get("id"))
        for name in ("href", "src"):
            if attributes.get(name):
                self.targets.append(attributes[name])


parsed = functools.cache(Parsed)


def broken(path):
    """The targets in one page that are neither there nor elsewhere on the web."""
    wrong = []
    for target in parsed(path).targets:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        file = path.parent / unquote(parts.path) if parts.path else path
        there = file.is_file()
        if there and file.suffix == ".html":
            there = unquote(parts.fragment) in parsed(file.resolve()).anchors
        if not there:
            wrong.append(target)
    return wrong


def load(browser, path, size, scheme="light"):
    """Show a page in a window of that size, in that colour scheme."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(path.as_uri())


# The elements that stick out of the page, unless a parent scrolls or hides what sticks out.
STICKING_OUT = """
const wide = [];
for (const element of document.querySelectorAll("article *")) {
    if (element.getBoundingClientRect().right <= arguments[0] + 1) continue;
    let parent = element.parentElement;
    while (parent && getComputedStyle(parent).overflowX === "visible")
        parent = parent.parentElement;
    if (!parent || parent === document.body || parent === document.documentElement)
        wide.push(element.outerHTML.slice(0, 100));
}
return [document.documentElement.scrollWidth - arguments[0], wide];
"""
MISSING = """
return [...document.images].filter(image => !image.complete || !image.naturalWidth)
    .map(image => image.src);
"""


def test_links(html, page):
    assert broken(html / page) == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_page(html, page, size, browser, request):
    load(browser, html / page, size)
    excess, wide = browser.execute_script(STICKING_OUT, size[0])
    assert excess <= 0, f"{page} scrolls sideways by {excess} pixels at a width of {size[0]}"
    assert wide == []
    assert browser.execute_script(MISSING) == []
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert [message for message in messages if "ERR_FILE_NOT_FOUND" in message] == []

    folder = request.config.getoption("--screenshots")
    if folder is not None:
        picture(browser, folder / f"{size[0]}-{'-'.join(page.with_suffix('').parts)}.png")


def picture(browser, path):
    """Write a picture of the whole page, however long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))


def test_the_checks_see_what_is_wrong(tmp_path, browser):
    page = tmp_path / "page.html"
    page.write_text(
        '<meta name="viewport" content="width=device-width"><article id="here">'
        '<img src="gone.png"><a href="gone.html">gone</a><a href="#nowhere">nowhere</a>'
        '<a href="#here">here</a><pre>' + "wide " * 200 + "</pre></article>"
    )
    assert broken(page) == ["gone.png", "gone.html", "#nowhere"]
    load(browser, page, PHONE)
    excess, wide = browser.execute_script(STICKING_OUT, PHONE[0])
    assert excess > 0 or wide
    assert browser.execute_script(MISSING) == [(tmp_path / "gone.png").as_uri()]


@pytest.mark.parametrize(
    "word",
    ["autograd", "clip", "convolut", "cuda", "dropconnect", "embed", "gpu", "lstm", "window"],
)
def test_the_search_finds(html, word):
    """The index holds stems: "embed" for embedding, "window" for Windows."""
    text = (html / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    pages = index["terms"].get(word, [])
    pages = [index["docnames"][page] for page in ([pages] if isinstance(pages, int) else pages)]
    assert any(page.startswith("guide/") for page in pages)
