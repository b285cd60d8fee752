"""What became of requests: one result each, and their summary against an SLA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Outcome(StrEnum):
    """How a request ended. All but COMPLETED are lost requests, a `200 OK` without its tokens among them."""

    COMPLETED = "completed"
    REFUSED = "refused"
    """No connection came about."""
    TIMEOUT = "timeout"
    STATUS = "status"
    """An HTTP status other than 200."""
    ERROR = "error"
    """The stream carried an error, or something that is not what the API sends."""
    CUT = "cut"
    """The connection broke, or the stream ended without `[DONE]`."""
    EMPTY = "empty"
    """A whole stream without a token; vLLM answers so while it drains."""
    ABORTED = "aborted"
    """Finish reason `abort`: the engine gave the request up."""
    SHORT = "short"
    """Fewer tokens than were asked for, by the engine's own count or by what arrived."""


@dataclass(frozen=True, slots=True)
class Result:
    """One request.

    Attributes:
        arrival_s: when it was due, from the start of the run; in a closed loop, when it was sent.
        isl: prompt tokens asked for (words, if prompts are text; see `prompt_tokens`).
        osl: output tokens asked for.
        outcome: how it ended.
        ttft_ms: from sending to the first token; None without one.
        itl_ms: (last token - first token) / (tokens - 1); None with fewer than two tokens.
        e2e_ms: from sending to the end of the stream.
        late_ms: how late the client itself sent it; a client that is too busy, not the server.
        prompt_tokens: as the engine counted them; None when it did not say.
        completion_tokens: as the engine counted them; None when it did not say.
        counted_tokens: tokens that arrived, counted in the stream; see `Counting`.
        error: what went wrong, for people.
        text: what was generated, if the run keeps texts.
        prefill_ms: from sending the prefill request to the end of its answer, where prefill is a request of its own.
    """

    arrival_s: float
    isl: int
    osl: int
    outcome: Outcome
    ttft_ms: float | None = None
    itl_ms: float | None = None
    e2e_ms: float | None = None
    late_ms: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    counted_tokens: int = 0
    error: str = ""
    text: str = ""
    prefill_ms: float | None = None

    def attains(self, ttft_ms: float, itl_ms: float) -> bool:
        """Whether it completed within both limits; an answer of one token has no ITL to miss."""
        if self.outcome is not Outcome.COMPLETED or self.ttft_ms is None:
            return False
        return self.ttft_ms <= ttft_ms and (self.itl_ms is None or self.itl_ms <= itl_ms)


@dataclass(frozen=True, slots=True)
class Summary:
    """Results against an SLA.

    Attributes:
        offered: requests that were due.
        completed: of these, with every token.
        lost: the others, by outcome.
        attained: completed within the SLA.
        attainment: attained / offered; 0 when nothing was offered.
        ttft_ms, itl_ms: mean, p50, p90, p99 over completed requests; empty when there are none.
        late_ms: p50, p99 and max of the client's own lateness, over all requests; empty when there are none.
        prompt_tokens, completion_tokens: as engines counted them, over all requests.
        counted_tokens: that arrived, over all requests.
    """

    offered: int
    completed: int
    lost: Mapping[str, int]
    attained: int
    attainment: float
    ttft_ms: Mapping[str, float]
    itl_ms: Mapping[str, float]
    late_ms: Mapping[str, float]
    prompt_tokens: int
    completion_tokens: int
    counted_tokens: int


def summarize(results: Sequence[Result], ttft_ms: float, itl_ms: float) -> Summary:
    """Results against an SLA; percentiles interpolate linearly between order statistics."""
    completed = [one for one in results if one.outcome is Outcome.COMPLETED]
    lost = Counter(one.outcome.value for one in results if one.outcome is not Outcome.COMPLETED)
    attained = sum(one.attains(ttft_ms, itl_ms) for one in results)
    late = [one.late_ms for one in results]
    return Summary(
        offered=len(results),
        completed=len(completed),
        lost=dict(sorted(lost.items())),
        attained=attained,
        attainment=attained / len(results) if results else 0.0,
        ttft_ms=_spread([one.ttft_ms for one in completed if one.ttft_ms is not None]),
        itl_ms=_spread([one.itl_ms for one in completed if one.itl_ms is not None]),
        late_ms={"p50": _at(late, 50), "p99": _at(late, 99), "max": max(late)} if late else {},
        prompt_tokens=sum(one.prompt_tokens or 0 for one in results),
        completion_tokens=sum(one.completion_tokens or 0 for one in results),
        counted_tokens=sum(one.counted_tokens for one in results),
    )


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"mean": float(np.mean(values)), **{f"p{p}": _at(values, p) for p in (50, 90, 99)}}


def _at(values: Sequence[float], percentile: float) -> float:
    return float(np.percentile(values, percentile))
