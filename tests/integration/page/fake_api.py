"""A server that speaks the planner's API from a list of decisions, for developing and testing the page.

`python -m tests.integration.page.fake_api [--journal FILE] [--port N]` serves a made-up day that goes on, or the
decisions of a replay's journal as if they had been made until now.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import io
import json
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from planner.service.api import HEADERS
from planner.service.static import page_files
from planner.service.summary import summary
from tests.integration.page import histories


class FakeApi:
    """What it answers may be changed while it runs: from the server's own thread alone.

    Attributes:
        rows: summaries, oldest first.
        speed_up: planner seconds per second.
        replaced: fields of the state that are not as `histories.state` makes them.
        explanations: text by decision; another is made up where there is none.
        broken: whether the API answers 503 to everything but the page's files.
        asked: paths of the API's requests, in order.
    """

    def __init__(self, rows: list[histories.Json], *, speed_up: float = 1.0) -> None:
        self.rows = rows
        self.speed_up = speed_up
        self.replaced: dict[str, object] = {}
        self.explanations: dict[int, str] = {}
        self.broken = False
        self.asked: list[str] = []

    def app(self) -> web.Application:
        """The server, with the headers and the files of the real one."""
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(self._secure)
        app.add_routes([
            web.get("/api/state", self._state),
            web.get("/api/decisions", self._decisions),
            web.get("/api/decisions/{id}", self._decision),
            web.get("/api/decisions/{id}/explanation", self._explanation),
        ])  # fmt: skip
        for url, path in page_files().items():
            app.router.add_get(url, self._file(path))
        return app

    @staticmethod
    def _file(path: Path) -> Any:
        async def serve(request: web.Request) -> web.FileResponse:
            return web.FileResponse(path, headers={"Cache-Control": "no-cache"})

        return serve

    async def _secure(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith("/api/"):
            self.asked.append(request.path_qs)
            if self.broken:
                return web.Response(status=503, text="stopped for the test")
        return await handler(request)

    async def _state(self, _request: web.Request) -> web.Response:
        made = histories.state(self.rows, time.time(), speed_up=self.speed_up)
        return web.json_response(made | self.replaced)

    async def _decisions(self, request: web.Request) -> web.Response:
        since, limit = int(request.query.get("since", -1)), int(request.query.get("limit", 500))
        found = [row for row in self.rows if row["id"] > since][:limit]
        return web.json_response({"complete": True, "last_id": found[-1]["id"] if found else since, "decisions": found})

    def _row(self, request: web.Request) -> histories.Json:
        row = next((row for row in self.rows if row["id"] == int(request.match_info["id"])), None)
        if row is None:
            raise web.HTTPNotFound(text="no such decision")
        return row

    async def _decision(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(request))

    async def _explanation(self, request: web.Request) -> web.Response:
        row = self._row(request)
        made = f"when     {row['time']}\nplan     {row['plan']}\nbecause  {', '.join(row['reasons'])}\n"
        return web.Response(text=self.explanations.get(row["id"], made))


def from_journal(path: Path, end_unix_s: float) -> FakeApi:
    """The decisions of a replay's journal, moved so that the last was made at `end_unix_s`."""
    from rich.console import Console  # noqa: PLC0415 - only for developing

    from planner.core.record import from_line  # noqa: PLC0415
    from planner.explain import explained  # noqa: PLC0415

    lines = path.read_text(encoding="utf-8").splitlines()
    last_s = json.loads(lines[-1])["decision"]["at_s"]
    fake = FakeApi([])
    for number, line in enumerate(lines, start=1):
        record = json.loads(line)
        shift_s = end_unix_s - last_s
        wall_s = record["decision"]["at_s"] + shift_s
        record["decision"]["at_s"] = wall_s
        record["time"] = dt.datetime.fromtimestamp(wall_s, dt.UTC).isoformat(timespec="milliseconds")
        fake.rows.append(summary(record))
        text = io.StringIO()
        console = Console(width=110, no_color=True, force_terminal=False, file=text)
        console.print(explained(from_line(line, source=str(path), number=number)))
        fake.explanations[fake.rows[-1]["id"]] = text.getvalue()
        fake.replaced["settings"] = record["settings"]
    return fake


async def _serve(journal: Path | None, port: int, speed_up: float) -> None:
    now = time.time()
    fake = FakeApi(list(histories.decisions(5760, now, speed_up=speed_up)), speed_up=speed_up)
    future = histories.decisions(100_000, now + 99_999 * histories.INTERVAL_S / speed_up, seed=2, speed_up=speed_up)
    if journal is not None:
        fake = from_journal(journal, now)
    runner = web.AppRunner(fake.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"http://127.0.0.1:{port}/")
    next(future)
    for row in future:
        await asyncio.sleep(max(0.0, row["at_s"] / speed_up - time.time()))
        fake.rows.append(row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--port", type=int, default=8011)
    parser.add_argument("--speed-up", type=float, default=1.0)
    given = parser.parse_args()
    asyncio.run(_serve(given.journal, given.port, given.speed_up))
