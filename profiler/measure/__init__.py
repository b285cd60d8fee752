"""Measuring one engine: points of a table, samples taken of them, and the engine that they are taken from."""

from profiler.measure.base import Facts, Meter, Point, Sample, SampleError, rows_of
from profiler.measure.engine import EngineMeter
from profiler.measure.facts import read_facts
from profiler.measure.pair import PairMeter

__all__ = ["EngineMeter", "Facts", "Meter", "PairMeter", "Point", "Sample", "SampleError", "read_facts", "rows_of"]
