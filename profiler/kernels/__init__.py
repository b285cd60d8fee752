"""Torch micro-benchmarks and the copy of KV blocks (extra: profiler).

`layout`, `micro`, `plan` and `handoff` need no torch; the rest imports it and is imported by its commands alone.
"""
