"""Recorded open-loop runs on real engines: what the simulator's replay is compared with."""

from profiler.record.files import (
    ROW,
    SENT_COLUMNS,
    Client,
    Recording,
    RunMeta,
    Worker,
    find_runs,
    read_recording,
    write_files,
    write_recording,
)
from profiler.record.run import record
from profiler.record.schedule import (
    DerivedSchedule,
    PoissonSchedule,
    Schedule,
    TraceSchedule,
    cut_lengths,
    parse_schedule,
)

__all__ = [
    "ROW",
    "SENT_COLUMNS",
    "Client",
    "DerivedSchedule",
    "PoissonSchedule",
    "Recording",
    "RunMeta",
    "Schedule",
    "TraceSchedule",
    "Worker",
    "cut_lengths",
    "find_runs",
    "parse_schedule",
    "read_recording",
    "record",
    "write_files",
    "write_recording",
]
