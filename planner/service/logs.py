"""Logs: one line each on standard error, as key=value with time, level and stage."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("planner.service")


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        stage = getattr(record, "stage", record.name)
        # Quoted as JSON: a message from outside can neither break the line nor fake another one.
        return f"time={at} level={record.levelname.lower()} stage={stage} msg={json.dumps(text)}"


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Set logging up for the life of the process' service, and back afterwards."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    root, scheduler = logging.getLogger(), logging.getLogger("apscheduler")
    before = root.level, scheduler.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # Late and missed ticks are counted and logged by the loop's own words.
    scheduler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        scheduler.setLevel(before[1])
