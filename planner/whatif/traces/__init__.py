"""Request traces: readers, scaling, prefix hits and the seeded generator."""

from planner.whatif.traces.generate import GeneratedTrace
from planner.whatif.traces.scale import scaled
from planner.whatif.traces.source import open_trace
from planner.whatif.traces.spec import GeneratorSpec
from planner.whatif.traces.summary import LengthSummary, TraceSummary, summarize
from planner.whatif.traces.trace import Trace, TraceChunk, collect
from planner.whatif.traces.write import write_csv

__all__ = [
    "GeneratedTrace",
    "GeneratorSpec",
    "LengthSummary",
    "Trace",
    "TraceChunk",
    "TraceSummary",
    "collect",
    "open_trace",
    "scaled",
    "summarize",
    "write_csv",
]
