"""An engine under test: one that is started here, or one that runs already; whether it lives, and why it died."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp

from profiler.engines.symptoms import symptom, tail
from profiler.errors import DependencyError
from worker_graph.local.process import Process

#: Seconds between looks at an engine that starts.
_POLL_S = 0.25
#: Seconds that an engine gets to answer /health; one that computes answers late, one that hangs never.
HEALTH_TIMEOUT_S = 10.0
#: Seconds between SIGTERM and SIGKILL at the end: nobody waits for an answer any more.
_GRACE_S = 5.0
#: Seconds that a process may take from closing its port to its end.
_END_S = 2.0
#: Seconds that the first completion may take: kernels are compiled for it.
_FIRST_COMPLETION_S = 300.0


class EngineDiedError(DependencyError):
    """An engine failed as a whole: it never got healthy, ended, or answers no more.

    Args:
        reason: in a few words: `out of memory`, `ended with code 1`, `did not get healthy within 900 s`, ...
        log: its last lines; empty for an engine that runs elsewhere.
    """

    def __init__(self, reason: str, log: Sequence[str] = ()) -> None:
        self.reason = reason
        self.log = tuple(log)
        super().__init__(reason + (f"; its log ends: {self.log[-1].strip()}" if self.log else ""))


class Engine(Protocol):
    """What is measured."""

    @property
    def url(self) -> str:
        """Base address, without `/v1`."""
        ...

    @property
    def pid(self) -> int | None:
        """Id of its session; None where it was not started here, or not yet."""
        ...

    async def spawn(self) -> None:
        """Begin to start it, where it does not run already.

        Raises:
            DependencyError: its program cannot be run, or its log not be written.
        """
        ...

    async def start(self) -> float | None:
        """Return once it serves; seconds since it was spawned, None where it ran already.

        Raises:
            EngineDiedError: it does not.
        """
        ...

    async def death(self) -> EngineDiedError:
        """Return once it has ended, with why; never for one that runs elsewhere."""
        ...

    async def check(self) -> None:
        """Raise EngineDiedError if it does not answer."""
        ...

    def failed(self, what: str) -> EngineDiedError:
        """The error for an engine that lives but does not do its work."""
        ...

    async def stop(self) -> None:
        """End it, with all that it started, if it was started here."""
        ...


@dataclass
class Endpoint:
    """An engine that runs already; it is left running."""

    url: str
    pid: int | None = None

    async def spawn(self) -> None:
        """It runs already."""

    async def start(self) -> float | None:
        """It must answer now."""
        await self.check()
        return None

    async def death(self) -> EngineDiedError:
        """Nothing tells its end but that it answers no more."""
        await asyncio.Event().wait()
        raise AssertionError("an event that nobody sets")

    async def check(self) -> None:
        """Raise EngineDiedError if it does not answer."""
        problem = await _unhealthy(self.url)
        if problem is not None:
            raise EngineDiedError(f"{self.url} is not healthy: {problem}")

    def failed(self, what: str) -> EngineDiedError:
        """The error for an engine that answers but does not do its work; its log is elsewhere."""
        return EngineDiedError(what)

    async def stop(self) -> None:
        """It is somebody else's."""


class LaunchedEngine:
    """An engine that is started here, in a session of its own.

    Args:
        argv: the command.
        env: variables on top of this process's own.
        url: where it will listen.
        model: name that it serves.
        log: file for what it says; appended to.
        startup_timeout_s: it has so long to get healthy.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        url: str,
        model: str,
        log: Path,
        startup_timeout_s: float,
    ) -> None:
        self.argv = tuple(argv)
        self.env = dict(env)
        self.url = url
        self._model = model
        self._log = log
        self._timeout_s = startup_timeout_s
        self._process: Process | None = None
        self._spawned_s = 0.0

    @property
    def pid(self) -> int | None:
        """Id of its session; None before it is spawned."""
        return None if self._process is None else self._process.pid

    async def spawn(self) -> None:
        """Start the process.

        Raises:
            DependencyError: the program cannot be run, or its log not be written.
        """
        # What an earlier start said must not be taken for what this one says.
        self._log.unlink(missing_ok=True)
        self._spawned_s = time.monotonic()
        self._process = await Process.start(self.argv, self.env, self._log)

    async def start(self) -> float | None:
        """Seconds from spawning it until it answers /health and has completed a first request."""
        process, began = self._running, self._spawned_s
        while await _unhealthy(self.url) is not None:
            if process.exit_code is not None:
                raise self._dead(f"ended with code {process.exit_code} before it was healthy")
            if time.monotonic() - began > self._timeout_s:
                raise self._dead(f"did not get healthy within {self._timeout_s:g} s")
            await asyncio.sleep(_POLL_S)
        left = max(10.0, min(_FIRST_COMPLETION_S, self._timeout_s - (time.monotonic() - began)))
        problem = await _first_completion(self.url, self._model, left)
        if problem is not None:
            raise self._dead(f"is healthy but completes no request: {problem}")
        return time.monotonic() - began

    async def death(self) -> EngineDiedError:
        """Return once the process has ended."""
        code = await self._running.wait()
        # Its children may have more to say than itself, and say it a little later.
        await asyncio.sleep(0.2)
        return self._dead(f"ended with code {code}")

    async def check(self) -> None:
        """Raise EngineDiedError if it has ended or does not answer."""
        problem = await _unhealthy(self.url)
        if problem is None:
            return
        # A port closes a little before the process is seen to end, and the code says more than the port.
        with contextlib.suppress(TimeoutError):
            code = await asyncio.wait_for(self._running.wait(), _END_S)
            raise self._dead(f"ended with code {code}")
        raise self._dead(f"is not healthy any more: {problem}")

    async def stop(self) -> None:
        """End the whole session."""
        if self._process is not None:
            await self._process.stop(_GRACE_S)

    def failed(self, what: str) -> EngineDiedError:
        """The error for an engine that lives but does not do its work."""
        return self._dead(what)

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise AssertionError("asked about before it was started")
        return self._process

    def _dead(self, what: str) -> EngineDiedError:
        known = symptom(self._log)
        return EngineDiedError(what if known is None else f"{known} ({what})", tail(self._log))


async def _unhealthy(url: str) -> str | None:
    """What is wrong with an engine's health; None when it is healthy."""
    timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{url}/health") as answer:
            return None if answer.status == 200 else f"/health answers {answer.status}"
    except TimeoutError:
        return f"/health gives no answer within {HEALTH_TIMEOUT_S:g} s"
    except (aiohttp.ClientError, OSError) as error:
        return str(error) or type(error).__name__


async def _first_completion(url: str, model: str, timeout_s: float) -> str | None:
    """What is wrong with a completion of two tokens; None when it came."""
    body = {"model": model, "prompt": [11, 12, 13, 14], "max_tokens": 2, "temperature": 0, "ignore_eos": True}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{url}/v1/completions", json=body) as answer,
        ):
            return None if answer.status == 200 else f"{answer.status}: {(await answer.text())[:200]}"
    except TimeoutError:
        return f"no answer within {timeout_s:.0f} s"
    except (aiohttp.ClientError, OSError) as error:
        return str(error) or type(error).__name__
