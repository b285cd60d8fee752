"""`--requests-out`: the simulated requests as CSV, written as they complete."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from planner.core.types import Sla
from planner.whatif.simulator.simulation import Finished
from profiler.errors import InputError

HEADER = ("arrival_s", "isl", "osl", "ttft_ms", "itl_ms", "attained")


class RequestWriter:
    """Writes to a file beside the wanted one and gives it its name at the end, so that an error leaves nothing."""

    def __init__(self, path: Path, sla: Sla) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._sla = sla
        self._file: IO[str] | None = None

    def __enter__(self) -> RequestWriter:
        """Open the file.

        Raises:
            InputError: it cannot be written.
        """
        try:
            self._file = self._part.open("w", newline="", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"cannot be written: {reason}", source=self._path, field="--requests-out") from None
        self._rows = csv.writer(self._file)
        self._rows.writerow(HEADER)
        return self

    def add(self, batch: Finished) -> None:
        """Write finished requests, in order of completion; an ITL that there is not stays empty."""
        none = np.isnan(batch.itl_ms)
        attained = (batch.ttft_ms <= self._sla.ttft_ms) & (none | (batch.itl_ms <= self._sla.itl_ms))
        for row in zip(batch.arrival_ms, batch.isl, batch.osl, batch.ttft_ms, batch.itl_ms, attained, strict=True):
            arrival, isl, osl, ttft, itl, good = row
            gap = "" if np.isnan(itl) else f"{itl:.4f}"
            self._rows.writerow((f"{arrival / 1000.0:.6f}", isl, osl, f"{ttft:.3f}", gap, int(good)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name, or take it away after an error."""
        if self._file is not None:
            self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
