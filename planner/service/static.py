"""The page's files: a fixed list, from this package and, for the charts, from plotly's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "page"


def _plotly() -> Path | None:
    # Found, not imported: importing it takes longer than starting the planner.
    spec = find_spec("plotly")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) / "package_data" / "plotly.min.js" if places else None


def page_files() -> dict[str, Path]:
    """Files by their path in the URL: the page, its style and its modules; those alone that are there now."""
    files = {"/": FOLDER / "index.html", "/page.css": FOLDER / "page.css"}
    files |= {f"/{path.name}": path for path in sorted(FOLDER.glob("*.js"))}
    plotly = _plotly()
    if plotly is not None:
        files["/plotly.min.js"] = plotly
    return {url: path for url, path in files.items() if path.is_file()}


def add_page(app: web.Application) -> None:
    """Serve the files that are there at the start and no others, revalidated at each use: an upgrade shows at once."""
    for url, path in page_files().items():
        app.router.add_get(url, _server_of(path))


def _server_of(path: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:  # noqa: ARG001 - the handler's form
        return web.FileResponse(path, headers={"Cache-Control": "no-cache"})

    return serve
