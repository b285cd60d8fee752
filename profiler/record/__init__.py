"""Recorded open-loop runs on real engines: what the simulator's replay is compared with."""

from profiler.record.files import (
    OWN_PROFILES,
    Client,
    Recording,
    RunMeta,
    Worker,
    find_runs,
    read_recording,
    write_recording,
)
from profiler.record.run import record
from profiler.record.schedule import PoissonSchedule, Schedule, TraceSchedule, parse_schedule

__all__ = [
    "OWN_PROFILES",
    "Client",
    "PoissonSchedule",
    "Recording",
    "RunMeta",
    "Schedule",
    "TraceSchedule",
    "Worker",
    "find_runs",
    "parse_schedule",
    "read_recording",
    "record",
    "write_recording",
]
