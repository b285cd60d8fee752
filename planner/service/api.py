"""The HTTP interface: health, metrics, state, decisions, and the page's files. It only ever answers questions."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from rich.console import Console, RenderableType

from planner.core.record import DecisionRecord, from_line
from planner.service.history import MOST_ENTRIES
from planner.service.loop import Loop
from planner.service.static import add_page
from planner.service.status import state_of
from planner.service.summary import strict_json
from profiler.errors import InputError

#: A decision for people, as the command line shows it.
Explainer = Callable[[DecisionRecord], RenderableType]

#: Columns of an explanation: the width that its tables need.
EXPLANATION_WIDTH = 110

#: Intervals without a tick after which the clockwork counts as stopped, and the seconds that pass in any case: one hung
#: server's time limit is no death.
DEAD_INTERVALS, DEAD_S = 3.0, 10.0

#: Summaries of one answer unless the question says otherwise.
DEFAULT_LIMIT = 500

HEADERS = {
    # Scripts come from files of this server alone. Styles may be set by scripts: the charts' library needs it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_LOOP = web.AppKey("loop", Loop)
_EXPLAINER: web.AppKey[Explainer] = web.AppKey("explainer")


def make_app(loop: Loop, explainer: Explainer) -> web.Application:
    """The application.

    Args:
        loop: the planner.
        explainer: renders a decision for people; handed in, since it lies above this package.
    """
    app = web.Application()
    app[_LOOP] = loop
    app[_EXPLAINER] = explainer
    app.on_response_prepare.append(_secure)
    app.add_routes([
        web.get("/healthz", _healthz),
        web.get("/readyz", _readyz),
        web.get("/metrics", _metrics),
        web.get("/api/state", _state),
        web.get("/api/decisions", _decisions),
        web.get(r"/api/decisions/{id:\d{1,18}}", _decision),
        web.get(r"/api/decisions/{id:\d{1,18}}/explanation", _explanation),
    ])  # fmt: skip
    add_page(app)
    return app


async def _secure(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001 - the signal's form
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


async def _healthz(request: web.Request) -> web.Response:
    loop = request.app[_LOOP]
    silent_s = loop.clock.steady() - loop.tick_began_s
    allowed_s = max(DEAD_INTERVALS * loop.config.wall_interval_s, DEAD_S)
    if silent_s > allowed_s:
        text = f"no tick began for {silent_s:.0f} s, {allowed_s:.0f} s allowed\n"
        return web.Response(status=503, text=text)
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    # The model is loaded before the server starts; what is left is the first tick.
    if request.app[_LOOP].snapshot is None:
        return web.Response(status=503, text="no tick has been made yet\n")
    return web.Response(text="ok\n")


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[_LOOP].metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _state(request: web.Request) -> web.Response:
    return _json(strict_json(state_of(request.app[_LOOP])))


async def _decisions(request: web.Request) -> web.Response:
    unknown = set(request.query) - {"since", "limit"}
    if unknown:
        raise _bad(f"{min(unknown)} is no parameter; there are since and limit")
    since = _whole(request, "since", None, 0, 10**18)
    limit = _whole(request, "limit", DEFAULT_LIMIT, 1, MOST_ENTRIES)
    history = request.app[_LOOP].history
    entries = history.page(since, limit if limit is not None else DEFAULT_LIMIT)
    last = entries[-1].number if entries else since
    head = json.dumps({"complete": history.complete, "last_id": last})
    response = _json(f'{head[:-1]}, "decisions": [{",".join(entry.json for entry in entries)}]}}')
    response.enable_compression()
    return response


async def _decision(request: web.Request) -> web.Response:
    # A record may hold numbers that JSON cannot, such as an infinite prediction: null here.
    line = await _line(request)
    return _json(await asyncio.to_thread(lambda: strict_json(json.loads(line))))


async def _explanation(request: web.Request) -> web.Response:
    line, explainer = await _line(request), request.app[_EXPLAINER]
    try:
        text = await asyncio.to_thread(_explained, line, explainer)
    except InputError as error:
        return web.Response(status=500, text=f"{error}\n")
    return web.Response(text=text)


async def _line(request: web.Request) -> str:
    journal = request.app[_LOOP].journal
    try:
        line = await asyncio.to_thread(journal.read, int(request.match_info["id"]))
    except OSError as error:
        raise web.HTTPServiceUnavailable(text=f"the journal cannot be read: {error.strerror}\n") from None
    if line is None:
        raise web.HTTPNotFound(text="no such decision, or its journal is gone\n")
    return line


def _explained(line: str, explainer: Explainer) -> str:
    made = io.StringIO()
    console = Console(file=made, width=EXPLANATION_WIDTH, no_color=True, force_terminal=False, highlight=False)
    console.print(explainer(from_line(line, source="journal", number=1)))
    # Tables are padded to the width.
    return "".join(f"{row.rstrip()}\n" for row in made.getvalue().splitlines())


def _whole(request: web.Request, name: str, default: int | None, least: int, most: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise _bad(f"{name} is {text[:40]!r}; expected a whole number from {least} to {most}")
    return int(text)


def _bad(text: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=f"{text}\n")


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")
