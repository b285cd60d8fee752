"""Configuration files: YAML, every field known, every error with its line."""

from __future__ import annotations

from pathlib import Path

from planner.core.settings import Tuning
from profiler.yamlfile import load_settings


def load_tuning(path: Path) -> Tuning:
    """The planner's tuning from a YAML file; what it does not name keeps its default.

    Raises:
        InputError: the file cannot be read, is not YAML, names a field twice, or holds an unknown field or a wrong
            value; names line and field, and for an unknown field the closest known one.
    """
    return load_settings(path, Tuning, field="--config")
