"""What a run sends and when: Poisson arrivals with spread lengths, or a slice of a trace."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from profiler.errors import InputError
from profiler.load import ScheduledRequest
from profiler.schema import parse_model

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Spread = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
_Tokens = Annotated[float, Field(ge=1, le=1e7, allow_inf_nan=False)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

#: Shorter prompts could begin alike, and an engine with a prefix cache would not compute them.
SHORTEST_PROMPT = 8
#: Requests that one run may hold; more is a slip of the pen, not an hour of GPU time.
MOST_REQUESTS = 1_000_000


class _Schedule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Name | None = None


class PoissonSchedule(_Schedule):
    """Poisson arrivals with lognormal lengths.

    Attributes:
        rate: requests per second.
        duration_s: arrivals come in this span.
        isl, osl: mean tokens, before they are cut to what the engine holds.
        isl_cv, osl_cv: coefficients of variation; 0 is always the mean.
        seed: of arrivals and lengths.
    """

    kind: Literal["poisson"] = "poisson"
    rate: _Positive
    duration_s: _Positive
    isl: _Tokens
    isl_cv: _Spread = 0.0
    osl: _Tokens
    osl_cv: _Spread = 0.0
    seed: Annotated[int, Field(ge=0)] = 0


class TraceSchedule(_Schedule):
    """A slice of a trace in plain CSV (`arrival_s,isl,osl`), its beginning moved to 0 s.

    Attributes:
        file: the trace.
        start_s, duration_s: the slice, in the trace's own time; without a duration, to its end.
        rate_scale: at most 1: each request is kept with this probability. More requests than the trace has are made
            when it is sliced (`planner slice-trace`).
        seed: of what is kept.
    """

    kind: Literal["trace"] = "trace"
    file: Path
    start_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    duration_s: _Positive | None = None
    rate_scale: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0


class DerivedSchedule(_Schedule):
    """What a run sent, where its rows are derived from a public trace each time that they are needed.

    Attributes:
        trace: path below the folder of traces.
        start_s, duration_s, rate_scale, seed: the slice, as `planner slice-trace` makes it.
        sha256: of the derived rows, in hex; other rows were not what was recorded.
    """

    kind: Literal["derived"] = "derived"
    trace: Annotated[str, Field(min_length=1)]
    start_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    duration_s: _Positive
    rate_scale: _Positive
    seed: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Schedule = PoissonSchedule | TraceSchedule
_KINDS: dict[str, type[PoissonSchedule] | type[TraceSchedule]] = {"poisson": PoissonSchedule, "trace": TraceSchedule}


def parse_schedule(text: str, *, field: str = "--schedule") -> Schedule:
    """`poisson:rate=4,duration_s=60,isl=1000,osl=150` or `trace:file=FILE,start_s=0,duration_s=60`.

    Raises:
        InputError: the kind or a key is unknown, a value is wrong, or one is missing.
    """
    kind, _, rest = text.partition(":")
    if kind not in _KINDS:
        close = difflib.get_close_matches(kind, _KINDS, n=1)
        expected = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(_KINDS)}"
        raise InputError(f"is {kind!r}", expected=expected, field=field)
    values: dict[str, str] = {}
    for part in rest.split(",") if rest else []:
        key, sign, value = part.partition("=")
        if not sign:
            raise InputError(f"holds {part!r}", expected="key=value", field=field)
        if key in values:
            raise InputError(f"names {key!r} twice", field=field)
        values[key] = value
    if "kind" in values:
        raise InputError("names 'kind'", expected="it before the colon", field=field)
    return parse_model(_KINDS[kind], values, f"{field} {text}")


def requests_of(schedule: Schedule, max_model_len: int | None) -> list[ScheduledRequest]:
    """The requests of a schedule, in order of arrival.

    Lengths that the engine could not hold are cut: an answer to half of its context at most, a prompt to what is left.

    Args:
        schedule: what to send.
        max_model_len: tokens of prompt and answer that the engine takes; None cuts nothing.

    Raises:
        InputError: the schedule holds no request, or too many, or its trace is wrong; names the line.
    """
    arrival_s, isl, osl = _poisson(schedule) if isinstance(schedule, PoissonSchedule) else _slice(schedule)
    if len(arrival_s) == 0:
        raise InputError("holds no request", expected="a higher rate, or a longer span", field="--schedule")
    isl, osl = cut_lengths(isl, osl, max_model_len)
    rows = zip(arrival_s.tolist(), isl.tolist(), osl.tolist(), strict=True)
    return [ScheduledRequest(at, prompt, answer) for at, prompt, answer in rows]


def cut_lengths(
    isl: NDArray[np.int64], osl: NDArray[np.int64], max_model_len: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Prompts and answers as `requests_of` sends them, in tokens; shapes (requests,)."""
    if max_model_len is not None:
        osl = np.minimum(osl, max(1, max_model_len // 2))
        isl = np.minimum(isl, max_model_len - osl)
    return np.maximum(isl, SHORTEST_PROMPT), osl


_Rows = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


def _poisson(schedule: PoissonSchedule) -> _Rows:
    _few_enough(schedule.rate * schedule.duration_s)
    arrivals, isls, osls = (np.random.default_rng((schedule.seed, part)) for part in range(3))
    # Drawn for longer than needed, so that the same seed at a longer span begins the same way.
    count = int(schedule.rate * schedule.duration_s * 1.1 + 100)
    at = arrivals.exponential(1.0 / schedule.rate, count).cumsum()
    while at[-1] < schedule.duration_s:
        at = np.concatenate([at, at[-1] + arrivals.exponential(1.0 / schedule.rate, count).cumsum()])
    at = at[at < schedule.duration_s]
    return (
        at,
        _lengths(isls, schedule.isl, schedule.isl_cv, len(at)),
        _lengths(osls, schedule.osl, schedule.osl_cv, len(at)),
    )


def _lengths(rng: np.random.Generator, mean: float, cv: float, count: int) -> NDArray[np.int64]:
    """Lognormal lengths of a mean and a coefficient of variation, at least 1; shape (count,)."""
    sigma = np.sqrt(np.log1p(cv**2))
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, count)
    return np.maximum(1, np.rint(drawn)).astype(np.int64)


def _slice(schedule: TraceSchedule) -> _Rows:
    path = schedule.file
    frame = _read(path)
    for name, least in (("arrival_s", 0.0), ("isl", 1.0), ("osl", 1.0)):
        _check(path, frame, name, lambda column, least=least: column < least, f"at least {least:g}")  # type: ignore[misc]
    _check(path, frame, "arrival_s", lambda column: column.diff() < 0, "no earlier than the line before")
    at = frame["arrival_s"].to_numpy(dtype=np.float64)
    end = np.inf if schedule.duration_s is None else schedule.start_s + schedule.duration_s
    kept = (at >= schedule.start_s) & (at < end)
    # Drawn for the whole trace, so that a request's fate does not depend on where the slice begins.
    kept &= np.random.default_rng(schedule.seed).random(len(at)) < schedule.rate_scale
    _few_enough(float(kept.sum()))
    isl, osl = (np.rint(frame[name].to_numpy(dtype=np.float64)[kept]).astype(np.int64) for name in ("isl", "osl"))
    return at[kept] - schedule.start_s, isl, osl


def _read(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, comment="#", skip_blank_lines=False)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=path, field="file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"is not CSV: {error}", source=path, field="file") from None
    for name in ("arrival_s", "isl", "osl"):
        if name not in frame.columns:
            raise InputError("missing", expected="plain CSV with arrival_s,isl,osl", source=path, line=1, field=name)
    return frame


def _check(path: Path, frame: pd.DataFrame, name: str, wrong: Callable[[pd.Series], pd.Series], expected: str) -> None:
    numbers = pd.to_numeric(frame[name], errors="coerce")
    bad = np.flatnonzero((~np.isfinite(numbers.to_numpy(dtype=np.float64))) | wrong(numbers).to_numpy())
    if len(bad):
        value = frame[name].iloc[int(bad[0])]
        raise InputError(f"is {value}", expected=expected, source=path, line=int(bad[0]) + 2, field=name)


def _few_enough(requests: float) -> None:
    if requests > MOST_REQUESTS:
        raise InputError(f"holds {requests:,.0f} requests", expected=f"at most {MOST_REQUESTS:,}", field="--schedule")
