"""The report of a run, or of profiles alone: one self-contained HTML page."""

from profiler.report.subject import Layout, Run, Subject, read_subject

__all__ = ["Layout", "Run", "Subject", "read_subject"]
