"""The supervisor's HTTP interface on loopback: status, scaling, lease, scrape targets, end.

It has no authentication: whoever may start processes as this user may scale them, too. Changes need a JSON body, which
no page in a browser can send here unasked.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from profiler.errors import InputError
from worker_graph.local.lease import Lease
from worker_graph.local.status import status, targets
from worker_graph.local.supervisor import BudgetError, Supervisor

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(supervisor: Supervisor) -> web.Application:
    """The application of one supervisor."""
    lease = Lease()

    async def get_status(_: web.Request) -> web.Response:
        return web.json_response(status(supervisor, lease))

    async def get_targets(_: web.Request) -> web.Response:
        return web.json_response(targets(supervisor))

    async def scale(request: web.Request) -> web.Response:
        body = await _body(request)
        replicas, holder, max_gpus = body.get("replicas"), body.get("holder", ""), body.get("max_gpus")
        if not isinstance(replicas, dict) or not all(type(count) is int for count in replicas.values()):
            raise InputError(f"is {replicas!r}", expected="whole numbers by pool", field="replicas")
        if max_gpus is not None and not (type(max_gpus) is int and max_gpus >= 0):
            raise InputError(f"is {max_gpus!r}", expected="a whole number of GPUs", field="max_gpus")
        # A person without a lease may scale by hand; a planner that lost its own may not.
        if holder and lease.holder != holder:
            return _refused(409, f"the lease is held by {lease.holder or 'nobody'}, not by {holder}", "not_holder")
        return web.json_response({"outcome": supervisor.scale(replicas, max_gpus), "holder": lease.holder})

    async def take_lease(request: web.Request) -> web.Response:
        holder, duration_s = _lease_terms(await _body(request))
        return web.json_response({"held": lease.take(holder, duration_s)} | _lease(lease))

    async def drop_lease(request: web.Request) -> web.Response:
        holder, _ = _lease_terms({"duration_s": 0} | await _body(request))
        lease.release(holder)
        return web.json_response(_lease(lease))

    async def shut_down(request: web.Request) -> web.Response:
        await _body(request)
        supervisor.stop()
        return web.json_response({})

    app = web.Application(middlewares=[_errors], client_max_size=1 << 20)
    app.router.add_get("/status", get_status)
    app.router.add_get("/targets", get_targets)
    app.router.add_post("/scale", scale)
    app.router.add_post("/lease", take_lease)
    app.router.add_delete("/lease", drop_lease)
    app.router.add_post("/shutdown", shut_down)
    return app


def _lease(lease: Lease) -> dict[str, Any]:
    return {"holder": lease.holder, "expires_in_s": lease.expires_in_s}


def _lease_terms(body: dict[str, Any]) -> tuple[str, float]:
    holder, duration_s = body.get("holder"), body.get("duration_s")
    if not isinstance(holder, str) or not holder:
        raise InputError(f"is {holder!r}", expected="a planner's identity", field="holder")
    if not isinstance(duration_s, int | float) or not 0 <= duration_s <= 86_400:
        raise InputError(f"is {duration_s!r}", expected="seconds, at most a day", field="duration_s")
    return holder, float(duration_s)


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise InputError(f"is {request.content_type}", expected="application/json", field="Content-Type")
    try:
        body = json.loads(await request.text())
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", field="body") from None
    if not isinstance(body, dict):
        raise InputError(f"is a {type(body).__name__}", expected="an object", field="body")
    return body


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BudgetError as error:
        return _refused(409, str(error), "over_budget")
    except InputError as error:
        return _refused(400, str(error), "bad_request")


def _refused(status_code: int, message: str, code: str) -> web.Response:
    return web.json_response({"error": message, "code": code}, status=status_code)
