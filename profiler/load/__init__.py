"""Load on an endpoint that speaks the OpenAI API: open loop from a trace, or closed loop, every token counted."""

from profiler.load.client import Load, ScheduledRequest
from profiler.load.pair import PairLoad
from profiler.load.prompts import Kind
from profiler.load.results import Outcome, Result, Summary, summarize
from profiler.load.stream import Counting

__all__ = ["Counting", "Kind", "Load", "Outcome", "PairLoad", "Result", "ScheduledRequest", "Summary", "summarize"]
