"""The page's files as they are: nothing inline, nothing from elsewhere, no way for text to become markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from planner.service.static import page_files

FILES = page_files()
HTML = FILES["/"].read_text(encoding="utf-8")
STYLE, SCRIPT = (FILES[name].read_text(encoding="utf-8") for name in ("/page.css", "/page.js"))


class Reader(HTMLParser):
    """Collects elements with their attributes, and what scripts and styles hold."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in {"script", "style"}:
            self.inline += data.strip()


@pytest.fixture(scope="module")
def html() -> Reader:
    reader = Reader()
    reader.feed(HTML)
    return reader


def test_nothing_is_inline(html: Reader) -> None:
    assert html.inline == ""
    names = {name for _, attributes in html.elements for name in attributes}
    assert "style" not in names
    assert not {name for name in names if name.startswith("on")}


def test_every_file_that_the_page_loads_is_served(html: Reader) -> None:
    links = [a.get("src") or a.get("href") for tag, a in html.elements if tag in {"script", "link"}]
    files = {f"/{link}" for link in links if link and not link.startswith("data:")}
    assert files == set(FILES) - {"/"} == {"/page.js", "/page.css", "/plotly.min.js"}
    here = Path(FILES["/"]).parent
    assert {path.name for path in here.iterdir()} == {"index.html", "page.css", "page.js"}


@pytest.mark.parametrize("text", [HTML, STYLE, SCRIPT], ids=["html", "css", "js"])
def test_no_other_host_is_named(text: str) -> None:
    found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s'\"]*", text)
    assert [url for url in found if url != "http://www.w3.org/2000/svg"] == []
    assert "@import" not in text
    assert re.findall(r"url\(", text) == []


def test_text_never_becomes_markup_or_code() -> None:
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setAttribute\(.on|DOMParser"
    assert re.findall(banned, SCRIPT) == []


def test_the_script_finds_every_element_that_it_names(html: Reader) -> None:
    ids = [attributes["id"] for _, attributes in html.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = set(re.findall(r"\$\(\"([a-z-]+)\"\)", SCRIPT))
    assert named
    assert named <= set(ids)
    pictures = set(re.findall(r"^  (\w+)\(c(?:, shown)?\) \{$", SCRIPT, re.MULTILINE))
    assert {f"chart-{name}" for name in pictures} == {name for name in ids if name and name.startswith("chart-")}
    tiles = set(re.findall(r"(?:tile|unknownTile)\(\"([a-z]+)\"", SCRIPT)) | {"ttft", "itl"}
    assert {f"tile-{name}" for name in tiles} == {name for name in ids if name and name.startswith("tile-")}


def test_every_colour_that_is_used_has_a_light_and_a_dark_value() -> None:
    used = set(re.findall(r"var\(--([a-z-]+)\)", STYLE)) | set(re.findall(r"colour\(\"([a-z-]+)\"\)", SCRIPT))
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    of = {part: set(re.findall(r"--([a-z-]+):", text)) for part, text in (("light", light), ("dark", dark))}
    assert used <= of["light"]
    assert of["light"] == of["dark"]
