"""`python -m worker_graph.simulated`: one simulated vLLM engine on a port."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from profiler.errors import DependencyError, InputError, PlimsollError
from worker_graph.simulated.timing import WorkerTiming

ROLES = ("prefill", "decode", "aggregated")
#: vLLM's variable: how long a prefill engine keeps blocks that nobody fetches, s.
HOLD_VARIABLE = "VLLM_NIXL_ABORT_REQUEST_TIMEOUT"
#: vLLM's variable: where decode engines reach this one.
HOST_VARIABLE = "VLLM_NIXL_SIDE_CHANNEL_HOST"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT. Exit codes: 0 ended, 2 wrong usage, 3 something outside failed."""
    started = time.monotonic()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    try:
        timing = _timing(options)
        if options.write_timing is not None:
            timing.save(options.write_timing)
            return
        if options.port is None:
            raise InputError("missing", expected="the port to listen on", field="--port")
        with _bound(options.host, options.port) as listener:
            asyncio.run(_serve(options, timing, listener, started))
    except PlimsollError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m worker_graph.simulated",
        description="A simulated vLLM engine: vLLM's HTTP API and metrics, latencies from a profile. Durations are of"
        " the simulated engine, and pass faster with --speed-up; --flush-ms alone is real time.",
    )
    add = parser.add_argument
    add("--role", choices=ROLES, required=True, help="what the worker does in its graph")
    add("--profile", type=Path, action="append", default=[], metavar="DIR", help="profiles, in or below this folder")
    add("--timing", type=Path, metavar="FILE", help="timing written by --write-timing, instead of profiles")
    add("--write-timing", type=Path, metavar="FILE", help="write the role's timing and exit; workers start faster")
    add("--port", type=_port, help="port to listen on; 0 takes a free one")
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--model", default="simulated", help="served model name (default %(default)s)")
    add("--speed-up", type=_positive, default=1.0, metavar="X", help="simulated seconds in a real one (default 1)")
    add("--startup-s", type=_duration, default=0.0, metavar="S", help="listen only after so long (default 0)")
    add("--flush-ms", type=_positive, default=20.0, metavar="MS", help="real time between chunks (default 20)")
    add("--shutdown-timeout", type=_duration, default=0.0, metavar="S", help="on SIGTERM, let streams end (default 0)")
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected a port, 0 to 65535")
    return int(text)


def _duration(text: str) -> float:
    return _number(text, "a number, 0 or more", lambda value: value >= 0.0)


def _positive(text: str) -> float:
    return _number(text, "a number above 0", lambda value: value > 0.0)


def _number(text: str, right: str, good: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not good(value):
        raise argparse.ArgumentTypeError(f"is {text!r}, expected {right}")
    return value


def _timing(options: argparse.Namespace) -> WorkerTiming:
    if bool(options.profile) == (options.timing is not None):
        raise InputError("both or neither given", expected="one of them", field="--profile, --timing")
    if options.timing is None:
        # scipy and the tables behind it take most of a second to import.
        from worker_graph.simulated.profiles import worker_timing  # noqa: PLC0415

        return worker_timing(options.role, options.profile)
    timing = WorkerTiming.load(options.timing)
    if timing.limits.role != options.role:
        problem = f"is of a {timing.limits.role} worker"
        raise InputError(problem, expected=options.role, source=options.timing, field="--role")
    return timing


def _hold_ms() -> float:
    try:
        return 1000.0 * _positive(os.environ.get(HOLD_VARIABLE, "480"))
    except argparse.ArgumentTypeError as error:
        raise InputError(str(error), field=HOLD_VARIABLE) from None


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound but does not listen: as with vLLM, the port refuses connections until the engine is up."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise InputError(f"{host}: {error.strerror or error}", expected="an address", field="--host") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _taken(host, port, error) from None
    return listener


def _taken(host: str, port: int, error: OSError) -> DependencyError:
    why = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return DependencyError(f"cannot listen on {host}:{port}: {why}")


async def _serve(options: argparse.Namespace, timing: WorkerTiming, listener: socket.socket, started: float) -> None:
    # Imported here, so that --write-timing and wrong usage do not wait for it.
    from aiohttp import web  # noqa: PLC0415

    from worker_graph.simulated.engine import Engine  # noqa: PLC0415
    from worker_graph.simulated.server import Server, drain  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine = Engine(timing, options.model, speed_up=options.speed_up, flush_ms=options.flush_ms, hold_ms=_hold_ms())
    port = listener.getsockname()[1]
    server = Server(engine, os.environ.get(HOST_VARIABLE) or options.host, port)
    if await _set_within(stop, started + options.startup_s / options.speed_up - time.monotonic()):
        return
    # Streams that are still open at the end are cut at once.
    runner = web.AppRunner(server.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
    except OSError as error:
        await runner.cleanup()
        raise _taken(options.host, port, error) from None
    sys.stderr.write(f"{options.role} worker of {options.model} on {options.host}:{port} ({timing.limits.source})\n")
    await stop.wait()
    if options.shutdown_timeout > 0.0:
        await drain(server, options.shutdown_timeout / options.speed_up)
    await runner.cleanup()


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True


if __name__ == "__main__":
    main()
