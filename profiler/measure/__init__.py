"""Measuring one engine: points of a table, samples taken of them, and the engine that they are taken from."""

from profiler.measure.base import Facts, Meter, Point, Sample, SampleError, rows_of

__all__ = ["Facts", "Meter", "Point", "Sample", "SampleError", "rows_of"]
