"""A recorded run on disk: `<run>.csv`, one row a request, and `<run>.json`, what was run."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from profiler.atomic import write_atomic
from profiler.errors import DependencyError, InputError
from profiler.load import Outcome, Result
from profiler.schema import Role, load_json, parse_model
from profiler.tables import OWN_PROFILES

#: Of `<run>.csv`. Times are of the schedule; an empty cell is something that there is not.
COLUMNS = (
    "arrival_s", "isl", "osl", "prefix_hit_tokens", "outcome", "ttft_ms", "itl_ms", "e2e_ms", "late_ms", "prefill_ms"
)  # fmt: skip
#: Of them, what was sent; a run that derives it from a trace has the column `ROW` in place of these.
SENT_COLUMNS = COLUMNS[:4]
ROW = "row"
_NEEDED = ("arrival_s", "isl", "osl", "outcome", "ttft_ms", "itl_ms")

Mode = Literal["aggregated", "disaggregated"]
_Count = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Worker(_Strict):
    """A worker that served the run; None is unknown.

    Attributes:
        role: what it did.
        tp, dp: its layout, by which its profile is found.
        kv_capacity_tokens, block_size, max_model_len, max_num_seqs, max_num_batched_tokens: of all its ranks.
        prefix_caching: whether it kept a prefix cache.
        counters: how far its own totals (`vllm:…`) moved during the run.
    """

    role: Role
    tp: _Count
    dp: _Count = 1
    kv_capacity_tokens: _Count | None = None
    block_size: _Count | None = None
    max_model_len: _Count | None = None
    max_num_seqs: _Count | None = None
    max_num_batched_tokens: _Count | None = None
    prefix_caching: bool = False
    counters: dict[str, float] = Field(default_factory=dict)


class Client(_Strict):
    """Whether the client kept up: one that is late or busy is measured itself.

    Attributes:
        cpu_share: CPU time of its process over the run's time; near 1 it was the bottleneck.
        late_p50_ms, late_p99_ms, late_max_ms: after a request was due until it was sent.
    """

    cpu_share: Annotated[float, Field(ge=0)]
    late_p50_ms: Annotated[float, Field(ge=0)]
    late_p99_ms: Annotated[float, Field(ge=0)]
    late_max_ms: Annotated[float, Field(ge=0)]


class RunMeta(_Strict):
    """`<run>.json`.

    Attributes:
        name: of the run, and of its files.
        mode: what served it.
        model, gpu: as in the profiles that describe the workers.
        served_model: the name that requests asked for.
        engine, engine_version: what served it.
        workers: each of them; requests went round robin within a role.
        schedule: what was sent, as the command line has it, or how to derive it (`DerivedSchedule`).
        prompt_seed: of the prompts' tokens.
        speed_up: of simulated engines; times are the schedule's.
        date: UTC.
        command: that recorded it.
        versions: of the client's libraries.
        duration_s: from the first due time to the last answer.
        rate_rps: requests over the span of their arrivals.
        outcomes: requests by outcome.
        client: whether it kept up.
    """

    schema_version: Literal[1] = 1
    name: str
    mode: Mode
    model: str
    gpu: str
    served_model: str
    engine: str = "vllm"
    engine_version: str | None = None
    workers: Annotated[tuple[Worker, ...], Field(min_length=1)]
    schedule: dict[str, Any]
    prompt_seed: int
    speed_up: Annotated[float, Field(gt=0)] = 1.0
    date: dt.datetime
    command: str
    versions: dict[str, str]
    duration_s: Annotated[float, Field(gt=0)]
    rate_rps: Annotated[float, Field(gt=0)]
    outcomes: dict[str, int]
    client: Client

    def of(self, role: Role) -> tuple[Worker, ...]:
        """The workers of a role."""
        return tuple(worker for worker in self.workers if worker.role == role)


@dataclass(frozen=True, eq=False)
class Recording:
    """A run as read back; arrays of shape (requests,), in order of arrival, NaN where there is no value.

    Attributes:
        path: of the CSV.
        meta: what was run.
        sent_s: when each was sent: due time and the client's lateness.
        isl, osl, hit: tokens of prompt, answer, and prefix found in the cache.
        completed: whether every token came.
        ttft_ms, itl_ms: as measured at the client.
        prefill_ms: of the prefill request, where it was one of its own.
    """

    path: Path
    meta: RunMeta
    sent_s: NDArray[np.float64]
    isl: NDArray[np.int64]
    osl: NDArray[np.int64]
    hit: NDArray[np.int64]
    completed: NDArray[np.bool_]
    ttft_ms: NDArray[np.float64]
    itl_ms: NDArray[np.float64]
    prefill_ms: NDArray[np.float64]


#: What a run sent, by its metadata and its CSV: a frame of `SENT_COLUMNS`, by row of the derived schedule.
Derive = Callable[[RunMeta, Path], pd.DataFrame]


def write_recording(path: Path, meta: RunMeta, results: Sequence[Result]) -> None:
    """Write `path` (`<run>.csv`) and the JSON beside it, making their folder; the JSON last, so that it vouches.

    Raises:
        DependencyError: they cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for one in results:
        late, prefill = _cell(one.late_ms), _cell(one.prefill_ms)
        times = (_cell(one.ttft_ms), _cell(one.itl_ms), _cell(one.e2e_ms), late, prefill)
        # Prompts are fresh, so nothing can be found in a prefix cache.
        rows.writerow((f"{one.arrival_s:.6f}", one.isl, one.osl, 0, one.outcome.value, *times))
    write_files(path, text.getvalue(), meta)


def write_files(path: Path, text: str, meta: RunMeta) -> None:
    """Write a run's two files, its CSV's text as given; see `write_recording`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text, durable=True)
        write_atomic(path.with_suffix(".json"), meta.model_dump_json(indent=2) + "\n", durable=True)
    except OSError as error:
        raise DependencyError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_recording(path: Path, derive: Derive | None = None) -> Recording:
    """Read a run by its CSV.

    Args:
        path: of the CSV.
        derive: for a run that holds rows of a trace only by their numbers, what these rows are.

    Raises:
        InputError: one of its two files cannot be read, or is wrong; names line and field. What `derive` raises.
    """
    about = path.with_suffix(".json")
    try:
        meta = parse_model(RunMeta, load_json(about.read_text(encoding="utf-8"), about), about)
        frame = pd.read_csv(path)
    except OSError as error:
        source = error.filename or path
        raise InputError(f"cannot be read: {error.strerror or error}", source=source, field="--run") from None
    except ValueError as error:  # pandas' ParserError and EmptyDataError, and bytes that are no text
        raise InputError(f"is not CSV: {error}", source=path, field="--run") from None
    if ROW in frame.columns:
        frame = _with_sent(path, meta, frame, derive)
    for name in _NEEDED:
        if name not in frame.columns:
            raise InputError("missing", expected=",".join(COLUMNS), source=path, line=1, field=name)
    known = {one.value for one in Outcome}
    strange = np.flatnonzero(~frame["outcome"].isin(known).to_numpy())
    if len(strange):
        line = int(strange[0]) + 2
        right = "one of " + ", ".join(sorted(known))
        raise InputError(f"is {frame['outcome'].iloc[line - 2]!r}", expected=right, source=path, line=line)
    columns = {name: _column(path, frame, name) for name in COLUMNS if name != "outcome"}
    completed = (frame["outcome"] == Outcome.COMPLETED.value).to_numpy()
    for name, least in (("arrival_s", 0.0), ("isl", 1.0), ("osl", 1.0)):
        bad = np.flatnonzero(~(columns[name] >= least))
        if len(bad):
            line = int(bad[0]) + 2
            raise InputError(
                f"is {columns[name][line - 2]:g}", expected=f"at least {least:g}", source=path, line=line, field=name
            )
    bad = np.flatnonzero(completed & ~(columns["ttft_ms"] > 0))
    if len(bad):
        raise InputError("has no TTFT, yet completed", source=path, line=int(bad[0]) + 2, field="ttft_ms")
    sent_s = columns["arrival_s"] + np.nan_to_num(columns["late_ms"]) / 1000.0
    # A late client may send two in another order than they were due.
    order = np.argsort(sent_s, kind="stable")
    return Recording(
        path=path,
        meta=meta,
        sent_s=sent_s[order],
        isl=columns["isl"][order].astype(np.int64),
        osl=columns["osl"][order].astype(np.int64),
        hit=np.nan_to_num(columns["prefix_hit_tokens"])[order].astype(np.int64),
        completed=completed[order],
        ttft_ms=columns["ttft_ms"][order],
        itl_ms=columns["itl_ms"][order],
        prefill_ms=columns["prefill_ms"][order],
    )


def _with_sent(path: Path, meta: RunMeta, frame: pd.DataFrame, derive: Derive | None) -> pd.DataFrame:
    """The rows of a run with what was sent in place of its numbers."""
    if derive is None:
        problem = "names rows of a trace"
        raise InputError(problem, expected="a reader of its trace", source=path, line=1, field=ROW)
    sent, rows = derive(meta, path), _column(path, frame, ROW)
    bad = np.flatnonzero(~((rows >= 0) & (rows < len(sent)) & (rows == np.floor(rows))))
    if len(bad):
        line = int(bad[0]) + 2
        right = f"a whole number below {len(sent)}"
        raise InputError(f"is {rows[line - 2]:g}", expected=right, source=path, line=line, field=ROW)
    mine = sent.iloc[rows.astype(np.int64)].reset_index(drop=True)
    return pd.concat([mine, frame.drop(columns=[ROW, *SENT_COLUMNS], errors="ignore")], axis=1)


def find_runs(root: Path, *, below: bool = True) -> list[Path]:
    """CSV files in `root`, and `below` it, that have a JSON beside them, sorted; none from profiles beside runs."""
    files = root.rglob("*.csv") if below else root.glob("*.csv")
    own = (file for file in files if OWN_PROFILES not in file.relative_to(root).parts)
    return sorted(file for file in own if file.with_suffix(".json").is_file())


def tally(results: Sequence[Result]) -> Mapping[str, int]:
    """Requests by outcome, the most frequent first."""
    counts = {outcome.value: sum(one.outcome is outcome for one in results) for outcome in Outcome}
    return dict(sorted(((name, count) for name, count in counts.items() if count), key=lambda pair: -pair[1]))


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _column(path: Path, frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    numbers = pd.to_numeric(frame[name], errors="coerce")
    bad = np.flatnonzero((numbers.isna() & frame[name].notna()).to_numpy())
    if len(bad):
        value = frame[name].iloc[int(bad[0])]
        raise InputError(f"is {value!r}", expected="a number", source=path, line=int(bad[0]) + 2, field=name)
    return numbers.to_numpy(dtype=np.float64)
