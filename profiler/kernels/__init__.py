"""Torch micro-benchmarks that feed roofline extrapolation (extra: profiler)."""
