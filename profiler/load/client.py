"""The client: requests by a schedule that waits for nobody (open loop), or from N clients that do (closed loop)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from profiler.errors import InputError
from profiler.load.prompts import Kind, Prompts, render
from profiler.load.results import Outcome, Result
from profiler.load.stream import Counting, Reading, Transcript

#: A closed-loop client that lost a request waits so long before its next: else it would spin on a server that is gone.
PAUSE_AFTER_LOSS_S = 0.1


class RequestLostError(Exception):
    """A request that came to nothing in a way that the HTTP library does not know.

    Args:
        outcome: how.
        error: what went wrong, for people.
    """

    def __init__(self, outcome: Outcome, error: str) -> None:
        super().__init__(error)
        self.outcome = outcome
        self.error = error


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """A request to send.

    Attributes:
        at_s: when it is due, from the start of the run; a closed loop ignores it.
        isl: length of its prompt, in words or token ids.
        osl: output tokens asked for.
        prompt: its prompt, where the content matters; else a fresh one of `isl`.
    """

    at_s: float
    isl: int
    osl: int
    prompt: str | list[int] | None = None


class Load:
    """Load on one endpoint that speaks the OpenAI API.

    Args:
        url: base address, without `/v1`.
        model: name that the endpoint serves.
        speed_up: the schedule runs so many times faster on the wall clock, and latencies are reported times this: for
            engines that are simulated at the same factor. All times given to and reported by this class are the
            schedule's.
        timeout_s: a request that has not ended after so long is lost.
        prompt: text or token ids; gateways that route by text take text only.
        counting: how tokens are counted in streams.
        seed: of the prompts; another one for each run on engines that keep a prefix cache.
        keep_text: keep what was generated.
        extra: more fields of the request body.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        speed_up: float = 1.0,
        timeout_s: float = 600.0,
        prompt: Kind = Kind.WORDS,
        counting: Counting = Counting.CHUNKS,
        seed: int = 0,
        keep_text: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if not speed_up > 0:
            raise InputError(f"is {speed_up:g}", expected="a positive factor", field="speed_up")
        self._url = url.rstrip("/") + "/v1/completions"
        self._speed_up = speed_up
        self._timeout = aiohttp.ClientTimeout(total=timeout_s / speed_up)
        self._prompts = Prompts(prompt, seed)
        self._counting = counting
        self._keep_text = keep_text
        fields = {
            "model": model,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"return_token_ids": True} if counting is Counting.IDS else {}),
            **(extra or {}),
        }
        self._fields = dict(fields)
        self._tail = json.dumps(fields)[1:]
        self._sent = 0

    async def run_open(
        self, schedule: Iterable[ScheduledRequest], on_result: Callable[[Result], None] | None = None
    ) -> list[Result]:
        """Send each request when it is due, whatever became of the ones before.

        Args:
            schedule: read as time goes on; `at_s` must not decrease.
            on_result: called with each result as it comes.

        Returns:
            Results in the order of the schedule.

        Raises:
            InputError: `at_s` decreases.
        """
        results: dict[int, Result] = {}

        async def one(index: int, request: ScheduledRequest, bodies: tuple[bytes, ...], due: float) -> None:
            results[index] = result = await self._send(session, request, bodies, request.at_s, due)
            if on_result is not None:
                on_result(result)

        loop = asyncio.get_running_loop()
        async with self._session() as session, asyncio.TaskGroup() as tasks:
            start, before_s = loop.time(), 0.0
            for index, request in enumerate(schedule):
                if request.at_s < before_s:
                    raise InputError(f"is {request.at_s:g} after {before_s:g}", expected="no earlier", field="at_s")
                before_s = request.at_s
                bodies = self._bodies(request)  # before it is due, so that building it does not make it late
                due = start + request.at_s / self._speed_up
                # Also when it is late already: the streams that run get their turn between two requests.
                await asyncio.sleep(max(0.0, due - loop.time()))
                tasks.create_task(one(index, request, bodies, due))
        return [results[index] for index in sorted(results)]

    async def run_closed(
        self,
        concurrency: int,
        next_request: Callable[[], ScheduledRequest | None],
        *,
        duration_s: float | None = None,
        total: int | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """Clients that send their next request when their last one has ended.

        Args:
            concurrency: clients.
            next_request: gives the next request of any client; None ends the run.
            duration_s: no request starts after so long; those that run are awaited.
            total: no more requests than this.
            on_result: called with each result as it comes.

        Returns:
            Results in the order in which they ended.

        Raises:
            InputError: neither `duration_s` nor `total` is given: a run needs an end.
        """
        if duration_s is None and total is None:
            raise InputError("has no end", expected="duration_s or total", field="run_closed")
        results: list[Result] = []
        loop = asyncio.get_running_loop()
        start, begun = loop.time(), 0

        async def client() -> None:
            nonlocal begun
            while total is None or begun < total:
                at_s = (loop.time() - start) * self._speed_up
                if duration_s is not None and at_s >= duration_s:
                    return
                request = next_request()
                if request is None:
                    return
                begun += 1
                result = await self._send(session, request, self._bodies(request), at_s, loop.time())
                results.append(result)
                if on_result is not None:
                    on_result(result)
                if result.outcome is not Outcome.COMPLETED:
                    await asyncio.sleep(PAUSE_AFTER_LOSS_S)

        async with self._session() as session, asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(client())
        return results

    def _session(self) -> aiohttp.ClientSession:
        # No limit, since a connection that waits for another is a closed loop; and an idle one is not used again
        # shortly before the server closes it (uvicorn after 5 s), which would lose a request that no server dropped.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
        headers = {"Content-Type": "application/json"}
        return aiohttp.ClientSession(connector=connector, timeout=self._timeout, headers=headers)

    def _prompt(self, request: ScheduledRequest) -> str:
        """The JSON text of the request's prompt."""
        number = self._sent
        self._sent += 1
        return render(request.prompt) if request.prompt is not None else self._prompts.as_json(number, request.isl)

    def _bodies(self, request: ScheduledRequest) -> tuple[bytes, ...]:
        """What `_exchange` sends; made before the request is due."""
        return (f'{{"prompt": {self._prompt(request)}, "max_tokens": {request.osl}, {self._tail}'.encode(),)

    async def _exchange(
        self, session: aiohttp.ClientSession, bodies: tuple[bytes, ...], transcript: Transcript
    ) -> float | None:
        """Send one request and write its stream into the transcript.

        Returns:
            Wall seconds that a prefill request of its own took; None without one.

        Raises:
            RequestLostError: a status other than 200.
            aiohttp.ClientError, OSError, TimeoutError: as aiohttp has it.
        """
        await self._stream(session, self._url, bodies[0], transcript)
        return None

    @staticmethod
    async def _stream(
        session: aiohttp.ClientSession,
        url: str,
        body: bytes,
        transcript: Transcript,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        async with session.post(url, data=body, headers=headers) as answer:
            if answer.status != 200:
                raise RequestLostError(Outcome.STATUS, f"{answer.status}: {(await answer.text())[:200]}")
            async for piece in answer.content.iter_any():
                transcript.add(piece, loop.time())

    async def _send(
        self,
        session: aiohttp.ClientSession,
        request: ScheduledRequest,
        bodies: tuple[bytes, ...],
        arrival_s: float,
        due: float,
    ) -> Result:
        """Send one request and read its stream to the end; every way in which that can fail is an outcome."""
        loop = asyncio.get_running_loop()
        transcript = Transcript()
        outcome, error = Outcome.COMPLETED, ""
        prefill_s: float | None = None
        sent = loop.time()
        try:
            prefill_s = await self._exchange(session, bodies, transcript)
        except RequestLostError as lost:
            outcome, error = lost.outcome, lost.error
        except aiohttp.ClientConnectorError as problem:
            outcome, error = Outcome.REFUSED, str(problem)
        except TimeoutError:
            outcome, error = Outcome.TIMEOUT, f"no end after {(loop.time() - sent) * self._speed_up:.1f} s"
        except (aiohttp.ClientError, OSError) as problem:
            outcome, error = Outcome.CUT, str(problem) or type(problem).__name__
        end = loop.time()
        reading = transcript.read(self._counting)
        if outcome is Outcome.COMPLETED:
            outcome, error = self._judge(reading, request.osl)

        factor = 1000.0 * self._speed_up
        tokens = reading.counted_tokens if reading.completion_tokens is None else reading.completion_tokens
        ttft_ms = itl_ms = None
        if tokens > 0 and reading.first_s is not None and reading.last_s is not None:
            ttft_ms = (reading.first_s - sent) * factor
            itl_ms = (reading.last_s - reading.first_s) / (tokens - 1) * factor if tokens > 1 else None
        return Result(
            arrival_s=arrival_s,
            isl=request.isl,
            osl=request.osl,
            outcome=outcome,
            ttft_ms=ttft_ms,
            itl_ms=itl_ms,
            e2e_ms=(end - sent) * factor,
            late_ms=max(0.0, sent - due) * factor,
            prefill_ms=None if prefill_s is None else prefill_s * factor,
            prompt_tokens=reading.prompt_tokens,
            completion_tokens=reading.completion_tokens,
            counted_tokens=reading.counted_tokens,
            error=error,
            text=reading.text if self._keep_text else "",
        )

    def _judge(self, reading: Reading, osl: int) -> tuple[Outcome, str]:
        """How a stream ended that the connection carried to its end."""
        tokens = reading.counted_tokens if reading.completion_tokens is None else reading.completion_tokens
        if reading.error:
            return Outcome.ERROR, reading.error
        if reading.finish_reason == "abort":
            return Outcome.ABORTED, f"after {tokens} tokens"
        if not reading.done:
            return Outcome.CUT, f"no [DONE] after {tokens} tokens"
        if tokens == 0:
            return Outcome.EMPTY, "status 200 without a token"
        if tokens < osl:
            return Outcome.SHORT, f"{tokens} of {osl} tokens"
        if self._counting is not Counting.CHUNKS and reading.counted_tokens < osl:
            return Outcome.SHORT, f"{reading.counted_tokens} of {osl} tokens arrived, though the engine made {tokens}"
        return Outcome.COMPLETED, ""
