"""Where a case's trace comes from: the public file where it is, its generated substitute where it is not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from planner.whatif.arena.cases import CaseSpec
from planner.whatif.traces import GeneratedTrace, Trace, TraceChunk, collect, open_trace, scaled
from planner.whatif.traces.presets import PREFIX, parse_generator
from planner.whatif.traces.trace import rechunk
from profiler.errors import InputError


@dataclass(frozen=True)
class Source:
    """The trace that is replayed.

    Attributes:
        text: a path, or `generate:NAME…`.
        substitutes: name of the file that it stands in for; empty if it is what the case names.
        fingerprint: SHA-256 of the file, or of the workload's whole specification.
        rate_scale, time_scale: of the case.
    """

    text: str
    substitutes: str
    fingerprint: str
    rate_scale: float
    time_scale: float

    @property
    def words(self) -> str:
        """For people: what was replayed, without the folders of this machine."""
        name = self.text if self.text.startswith(PREFIX) else Path(self.text).name
        scales = [f"{word} x{x:g}" for word, x in (("rate", self.rate_scale), ("time", self.time_scale)) if x != 1]
        words = ", ".join([name, *scales])
        return f"{words} (generated in place of {self.substitutes})" if self.substitutes else words


def find_source(spec: CaseSpec, traces: Path | None, beside: Path, *, file: Path) -> Source:
    """The trace of a case.

    Args:
        spec: the case.
        traces: folder of the public traces; None if there is none here.
        beside: folder of the YAML.
        file: the YAML, for errors.

    Raises:
        InputError: the file is nowhere and has no substitute, a workload is wrong, or seeds would change nothing.
    """
    where = f"cases.{spec.name}"
    if spec.trace.startswith(PREFIX):
        return _generated(spec, spec.trace, "", file, f"{where}.trace")
    folders = [folder for folder in (traces, beside) if folder is not None]
    found = next((path for path in (folder / spec.trace for folder in folders) if path.is_file()), None)
    if found is None:
        if spec.substitute:
            return _generated(spec, spec.substitute, Path(spec.trace).name, file, f"{where}.substitute")
        right = "a file in the folder of traces (--traces, PLIMSOLL_TRACES) or beside the cases, or a substitute"
        raise InputError(f"no file {spec.trace!r}", expected=right, source=file, field=f"{where}.trace")
    if spec.rate_scale == 1 and len(spec.seeds) > 1:
        right = "one seed, or a rate_scale: a file that is replayed as it is is the same for every seed"
        raise InputError(f"lists {len(spec.seeds)} seeds", expected=right, source=file, field=f"{where}.seeds")
    with found.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    return Source(str(found), "", digest, spec.rate_scale, spec.time_scale)


def _generated(spec: CaseSpec, text: str, substitutes: str, file: Path, field: str) -> Source:
    try:
        whole = parse_generator(text)
    except InputError as error:
        raise InputError(error.problem, expected=error.expected, source=file, field=field) from None
    if "seed=" in text:
        raise InputError(f"{text!r} sets a seed", expected="the case's own seeds", source=file, field=field)
    digest = hashlib.sha256(whole.model_dump_json().encode()).hexdigest()
    return Source(text, substitutes, digest, spec.rate_scale, spec.time_scale)


class HeldTrace(Trace):
    """A trace in memory, for many replays of it in one process."""

    def __init__(self, trace: Trace) -> None:
        self._name, self.whole = trace.name, collect(trace)

    @property
    def name(self) -> str:
        """The original's."""
        return self._name

    def chunks(self) -> Iterator[TraceChunk]:
        """Yields the requests; see `Trace.chunks`."""
        return rechunk([self.whole] if len(self.whole) else [])


@lru_cache(maxsize=2)
def trace_of(source: Source, seed: int) -> HeldTrace:
    """The scaled trace of one seed; the last two stay in memory, 20 bytes a request.

    Raises:
        InputError: a line of the file is wrong, or nothing remains of the trace.
    """
    original: Trace
    if source.text.startswith(PREFIX):
        original = GeneratedTrace(parse_generator(source.text).model_copy(update={"seed": seed}))
    else:
        original = open_trace(source.text)
    held = HeldTrace(scaled(original, rate_scale=source.rate_scale, time_scale=source.time_scale, seed=seed))
    if not len(held.whole):
        raise InputError("holds no request", expected="a trace, scaled as asked, with requests", source=source.text)
    return held
