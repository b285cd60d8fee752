"""Iteration-level simulator of continuous batching, compiled by numba."""
