"""The site: it builds without a warning and without the network, its links lead somewhere, and a browser shows it.

Nightly. The browser is Chromium, where there is one (`chromium`, `chromium-browser`, `google-chrome`, or the variable
CHROMIUM names it).
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Request

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.nightly


class Links(HTMLParser):
    """What a page refers to, what it loads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        loaded = given.get("src") or (tag == "link" and given.get("href"))
        if loaded:
            self.loads.append(loaded)
        elif "href" in given:
            self.links.append(given["href"])


def broken(site: Path) -> list[str]:
    """The links of a site that lead nowhere, and what it loads from elsewhere or does not have."""
    read = {path: Links(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in read.items():
        for link in [*page.links, *page.loads]:
            parts = urllib.parse.urlsplit(link)
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                wrong = link in page.loads
            else:
                place = urllib.parse.unquote(parts.fragment)
                wrong = not target.is_file() or (target in read and place not in read[target].places)
            if wrong:
                found.append(f"{path.relative_to(site)}: {link}")
    return found


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", str(source), str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    result = build(ROOT / "docs", folder)
    assert result.returncode == 0, result.stderr
    return folder


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert len(list(site.rglob("*.html"))) > 50
    assert broken(site) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">1</a><a href="b.html#there">2</a><a href="c.html">3</a><img src="d.png">'
        '<script src="https://example.org/x.js"></script><a href="https://example.org">4</a><a href="#x">5</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here">')
    names = ("b.html#there", "c.html", "#x", "d.png", "https://example.org/x.js")
    assert broken(tmp_path) == [f"a.html: {name}" for name in names]


def test_a_formula_that_cannot_be_read_stops_the_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", source, ignore=lambda folder, names: names if folder != str(ROOT / "docs") else [])
    (source / "_ext").rmdir()
    (source / "_ext").symlink_to(ROOT / "docs" / "_ext")
    conf = (ROOT / "docs" / "conf.py").read_text()
    (source / "conf.py").write_text(conf.replace('"api_pages",', "").replace('"gallery_pages",', ""))
    (source / "index.md").write_text("# Title\n\n$$\\frac{1$$\n")
    result = build(source, tmp_path / "site")
    assert result.returncode != 0
    assert "cannot set" in result.stderr


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("there is no browser here: install Chromium, or name it in the variable CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Of the site, served on this machine alone."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


LOOK = """() => {
    const lost = [];
    if (!document.querySelector("h1, h2")?.textContent.trim()) lost.push("no heading");
    for (const picture of document.querySelectorAll("article img"))
        if (!(picture.complete && picture.naturalWidth)) lost.push("no picture " + picture.src);
    for (const formula of document.querySelectorAll("math"))
        if (!(formula.getBoundingClientRect().width > 0)) lost.push("no formula " + formula.textContent);
    if (document.documentElement.scrollWidth > window.innerWidth) lost.push("wider than the window");
    return lost;
}"""


def is_left(request: Request) -> bool:
    """Whether the browser had not read the site's icon yet when it went on to the next page."""
    return request.url.endswith("/icon.svg") and request.failure == "net::ERR_ABORTED"


def complaints(browser: Browser, address: str, names: list[str]) -> list[str]:
    """What a browser has against pages: errors on its console, what does not load, what is asked of other machines,
    pages without a heading, pictures and formulas without a size, pages wider than the window."""
    page, found = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("console", lambda said: found.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: None if is_left(request) else found.append(f"cannot load {request.url}"))
    page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else found.append(asked.url))
    all_found = []
    for name in names:
        page.goto(f"{address}/{name}", wait_until="load")
        found += page.evaluate(LOOK)
        all_found += [f"{name}: {complaint}" for complaint in found]
        found.clear()
    page.close()
    return all_found


def test_every_page_opens_with_its_pictures_and_formulas_and_no_complaint(
    browser: Browser, address: str, site: Path
) -> None:
    names = sorted({path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"search.html"})
    assert complaints(browser, address, names) == []


def test_the_search_finds_a_word(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=palindrome")
    page.wait_for_function("document.querySelectorAll('ul.search li').length > 0")
    assert "palindrome" in page.locator("ul.search").inner_text().lower()
    page.goto(f"{address}/search.html?q=zyzzyva")
    page.wait_for_selector("text=did not match any documents")
    page.close()


def test_a_page_with_faults_is_complained_of(browser: Browser, address: str, site: Path) -> None:
    (site / "faulty.html").write_text(
        "<h1> </h1><article><img src='none.png'></article><math></math><div style='width: 5000px'>wide</div>"
        "<script>throw Error('oops')</script><script src='http://127.0.0.1:9/x.js'></script>"
    )
    try:
        said = "\n".join(complaints(browser, address, ["faulty.html"]))
    finally:
        (site / "faulty.html").unlink()
    for fault in ("no heading", "no picture", "no formula", "wider than", "oops", "127.0.0.1:9/x.js", "404"):
        assert fault in said
