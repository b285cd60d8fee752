"""Runs of public traces without the traces' rows: what was sent is derived from the trace when the run is read."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from planner.accuracy.slice import sliced
from planner.whatif.traces import collect, open_trace
from profiler.errors import InputError
from profiler.record import (
    ROW,
    SENT_COLUMNS,
    DerivedSchedule,
    Recording,
    RunMeta,
    cut_lengths,
    read_recording,
    write_files,
)
from profiler.schema import parse_model

#: Names the folder of public traces.
FOLDER_VARIABLE = "PLIMSOLL_TRACES"
#: Not kept of a stripped run: with the time to the first token and that between tokens, it tells the answer's length.
_TELLING = "e2e_ms"


class MissingTraceError(InputError):
    """The trace that a run's rows are derived from is not here."""


def read_run(path: Path) -> Recording:
    """Read a run by its CSV, with its rows from their trace where it has none of its own.

    Raises:
        MissingTraceError: PLIMSOLL_TRACES is not set, or its folder has no such trace.
        InputError: the run is wrong, or the trace gives other rows than those that were recorded.
    """
    return read_recording(path, _derive)


def strip(path: Path, to: Path, *, trace: str, start_s: float, duration_s: float, rate_scale: float, seed: int) -> int:
    """Write a run of a trace's slice without the slice's rows.

    Args:
        path: the run's CSV, whose rows are those of the slice, in its order.
        to: the folder for its two files, of the same names.
        trace: below the folder of PLIMSOLL_TRACES.
        start_s: as `planner slice-trace` had it, like those that follow.
        duration_s: of the slice.
        rate_scale: requests per request of the trace.
        seed: of the scaling.

    Returns:
        The number of rows.

    Raises:
        InputError: the run is wrong, the trace is not there, or its slice is not what was sent; names the line.
        DependencyError: the files cannot be written.
    """
    recording = read_recording(path)
    if (to / path.name).resolve() == path.resolve():
        raise InputError(f"is {to}", expected="another folder than the run's", field="--to")
    options = {
        "name": recording.meta.name,
        "trace": trace,
        "start_s": start_s,
        "duration_s": duration_s,
        "rate_scale": rate_scale,
        "seed": seed,
        "sha256": "0" * 64,
    }
    unsigned = parse_model(DerivedSchedule, options, "the slice")
    derived = _rows(unsigned, recording.meta, path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for line, (row, wanted) in enumerate(zip(rows, derived, strict=False), start=2):
        sent = tuple(row.get(name) for name in SENT_COLUMNS)
        if sent != wanted:
            right = f"{','.join(wanted)} of the slice"
            raise InputError(f"is {','.join(map(str, sent))}", expected=right, source=path, line=line)
    if len(rows) != len(derived):
        problem = f"holds {len(rows)} requests"
        raise InputError(problem, expected=f"{len(derived)}, as many as the slice", source=path)
    kept = [name for name in rows[0] if name not in (*SENT_COLUMNS, _TELLING)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([ROW, *kept])
    writer.writerows([place, *(row[name] for name in kept)] for place, row in enumerate(rows))
    schedule = unsigned.model_copy(update={"sha256": _digest(derived)})
    meta = recording.meta.model_copy(update={"schedule": schedule.model_dump(mode="json")})
    write_files(to / path.name, text.getvalue(), meta)
    return len(rows)


#: Cells of `SENT_COLUMNS`, as a run's CSV has them.
_Cells = tuple[str, str, str, str]


def _derive(meta: RunMeta, path: Path) -> pd.DataFrame:
    about = path.with_suffix(".json")
    schedule = parse_model(DerivedSchedule, meta.schedule, f"{about}, schedule")
    rows = _rows(schedule, meta, about)
    if _digest(rows) != schedule.sha256:
        problem = f"{schedule.trace} gives other rows than were recorded"
        raise InputError(problem, expected="the trace as it was published", source=about, field="schedule.sha256")
    return pd.DataFrame([[float(cell) for cell in row] for row in rows], columns=list(SENT_COLUMNS))


def _rows(schedule: DerivedSchedule, meta: RunMeta, source: Path) -> list[_Cells]:
    """What the client sent of a slice, as cells."""
    cut = sliced(
        open_trace(_file(schedule.trace, source), prefix_cache_tokens=0),
        start_s=schedule.start_s,
        duration_s=schedule.duration_s,
        rate_scale=schedule.rate_scale,
        seed=schedule.seed,
    )
    whole = collect(cut)
    limits = [worker.max_model_len for worker in meta.workers if worker.max_model_len is not None]
    lengths = cut_lengths(whole.isl.astype(np.int64), whole.osl.astype(np.int64), min(limits, default=None))
    sent = zip(whole.arrival_s.tolist(), *(part.tolist() for part in lengths), strict=True)
    return [(f"{at:.6f}", str(isl), str(osl), "0") for at, isl, osl in sent]


def _digest(rows: list[_Cells]) -> str:
    return hashlib.sha256("".join(f"{','.join(row)}\n" for row in rows).encode()).hexdigest()


def _file(trace: str, source: Path) -> Path:
    inside = PurePosixPath(trace)
    if inside.is_absolute() or ".." in inside.parts:
        raise InputError(f"is {trace!r}", expected=f"a path below {FOLDER_VARIABLE}", source=source, field="trace")
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        problem = f"its rows are those of {trace}, and {FOLDER_VARIABLE} is not set"
        raise MissingTraceError(problem, expected="the folder of public traces there", source=source)
    file = Path(folder) / inside
    if not file.is_file():
        raise MissingTraceError(
            f"its rows are those of {trace}, which is not in {FOLDER_VARIABLE} ({folder})", source=source
        )
    return file
