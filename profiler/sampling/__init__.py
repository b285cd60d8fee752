"""Adaptive sampling: which point of which table to measure next, and when to stop. Pure: no I/O and no clock."""

from profiler.sampling.domain import Domain
from profiler.sampling.sampler import Choice, Progress, Sampling, TableProgress, Target
from profiler.sampling.words import Reason, Verdict

__all__ = ["Choice", "Domain", "Progress", "Reason", "Sampling", "TableProgress", "Target", "Verdict"]
