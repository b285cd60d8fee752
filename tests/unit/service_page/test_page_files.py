"""The page's files as they are: nothing inline, nothing from elsewhere, no way for text to become markup."""

from __future__ import annotations

import asyncio
import re
from graphlib import TopologicalSorter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from planner.service import static
from planner.service.static import add_page, page_files

FILES = page_files()
HTML, STYLE = (FILES[name].read_text(encoding="utf-8") for name in ("/", "/page.css"))
MODULES = {
    url.removeprefix("/"): path.read_text(encoding="utf-8")
    for url, path in FILES.items()
    if url.endswith(".js") and url != "/plotly.min.js"
}
SCRIPT = "\n".join(MODULES.values())


def imports(module: str) -> dict[str, set[str]]:
    """Names that a module imports, by the address that it imports them from."""
    found = re.findall(r"^import (?:\{([^}]*)\} from )?[\"']([^\"']+)[\"'];$", MODULES[module], re.MULTILINE)
    assert len(found) == len(re.findall(r"\bimport\b", MODULES[module])), "an import in a form that is not read here"
    return {address: set(re.findall(r"\w+|\$", names)) for names, address in found}


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
    loaded = {link for link in links if link and not link.startswith("data:")}
    assert loaded == {"page.js", "page.css", "plotly.min.js"}
    new = {"page.js"}
    while new:
        new = {address.removeprefix("./") for module in new for address in imports(module)} - loaded
        loaded |= new
    assert {f"/{name}" for name in loaded} == set(FILES) - {"/"}
    here = Path(FILES["/"]).parent
    assert {path.name for path in here.iterdir()} == loaded - {"plotly.min.js"} | {"index.html"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_its_neighbours_export(module: str) -> None:
    for address, names in imports(module).items():
        assert address.startswith("./"), "behind a path prefix only a relative address works"
        exported = re.findall(
            r"^export (?:const|let|(?:async )?function) ([\w$]+)", MODULES[address.removeprefix("./")], re.MULTILINE
        )
        assert names <= set(exported), address


def test_modules_import_one_way() -> None:
    order = {module: {address.removeprefix("./") for address in imports(module)} for module in MODULES}
    assert [*TopologicalSorter(order).static_order()][-1] == "page.js"


async def _statuses(folder: Path) -> dict[str, int]:
    app = web.Application()
    add_page(app)
    async with TestClient(TestServer(app)) as client:
        (folder / "later.js").write_text("later")
        urls = ("/", "/page.js", "/words.js", "/page.css", "/later.js", "/notes.txt", "/old/words.js", "/old.js")
        return {url: (await client.get(url)).status for url in urls}


def test_modules_that_are_there_at_the_start_are_served_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("index.html", "page.js", "words.js", "notes.txt", "old/words.js", "old.js/index.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(static, "FOLDER", tmp_path)
    statuses = asyncio.run(_statuses(tmp_path))
    assert {url for url, status in statuses.items() if status == 200} == {"/", "/page.js", "/words.js"}
    assert {status for status in statuses.values() if status != 200} == {404}


@pytest.mark.parametrize("text", [HTML, STYLE, *MODULES.values()], ids=["html", "css", *MODULES])
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
