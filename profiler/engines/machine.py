"""What this machine is: its GPUs and their driver, as nvidia-smi tells it, and how hot and fast they ran."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from profiler.errors import DependencyError, InputError
from profiler.hardware import find_gpu

#: Seconds that nvidia-smi may take; it starts the driver where nothing else holds it.
_TIMEOUT_S = 60.0
#: Share of a GPU's memory that its driver may hold while nothing runs on it.
_FREE_SHARE = 0.02
#: Bits of `clocks_throttle_reasons.active` that slow a GPU down against its will (nvml.h): software power cap,
#: hardware slowdown, software and hardware thermal slowdown, hardware power brake.
_SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU of this machine.

    Attributes:
        index: by which CUDA_VISIBLE_DEVICES names it.
        name: the driver's.
        memory_mib: its memory.
    """

    index: int
    name: str
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Machine:
    """What is measured on; on a machine without GPUs, or when the engine runs elsewhere, there are no devices.

    Attributes:
        gpu: the short name that folders and profiles use.
        devices: that may be used, all of one kind.
        driver: its version; None when not known.
    """

    gpu: str
    devices: tuple[Device, ...] = ()
    driver: str | None = None

    @property
    def is_cpu(self) -> bool:
        """Whether engines run on the processor: then there is no memory arithmetic, and nothing is handed GPUs."""
        return self.gpu == "cpu"


def read_machine(gpu: str | None, indices: Sequence[int] | None) -> Machine:
    """The GPUs of this machine that may be used.

    Args:
        gpu: name to use in place of the driver's; `cpu` for engines that run on the processor.
        indices: GPUs to use; None for those of CUDA_VISIBLE_DEVICES where it names some by number, else all.

    Raises:
        InputError: there are no GPUs, one is not there, or they are of different kinds.
        DependencyError: nvidia-smi answers something else than asked.
    """
    if gpu == "cpu":
        if indices:
            raise InputError("is given with --gpu cpu", expected="one of them", field="--gpus")
        return Machine("cpu")
    rows = query("index,name,memory.total,driver_version")
    there = {int(row[0]): Device(int(row[0]), row[1], _number(row[2]) or 0.0) for row in rows}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if indices is None and re.fullmatch(r"[0-9]+(,[0-9]+)*", visible):
        indices = [int(index) for index in visible.split(",")]
    for index in indices or ():
        if index not in there:
            known = ", ".join(map(str, sorted(there)))
            raise InputError(f"names GPU {index}, which is not here", expected=f"some of {known}", field="--gpus")
    devices = tuple(there[index] for index in (indices or sorted(there)))
    kinds = sorted({device.name for device in devices})
    if len(kinds) > 1:
        raise InputError(f"are of several kinds: {', '.join(kinds)}", expected="GPUs of one kind", field="--gpus")
    return Machine(gpu or short_name(kinds[0]), devices, rows[0][3])


def short_name(driver_name: str) -> str:
    """The name of a GPU in folders: the known short one, else the driver's own."""
    known = find_gpu(driver_name)
    return driver_name if known is None else known.name


def query(fields: str, indices: Sequence[int] = ()) -> list[list[str]]:
    """Rows of `nvidia-smi --query-gpu`, one per GPU, their cells without units.

    Raises:
        InputError: nvidia-smi is not there, or it finds no GPU.
        DependencyError: it failed or took too long.
    """
    right = "a machine with NVIDIA GPUs; --gpu cpu for engines on the processor, --url for an engine elsewhere"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    command += ["-i", ",".join(map(str, indices))] if indices else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    except OSError as error:
        raise InputError(
            f"no GPU found: nvidia-smi: {error.strerror or error}", expected=right, field="--gpu"
        ) from None
    except subprocess.TimeoutExpired:
        raise DependencyError(f"nvidia-smi did not answer within {_TIMEOUT_S:g} s") from None
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0 or not done.stdout.strip():
        raise InputError(f"no GPU found: nvidia-smi: {said[:200]}", expected=right, field="--gpu")
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(done.stdout)) if row]
    if any(len(row) != len(fields.split(",")) for row in rows):
        raise DependencyError(f"nvidia-smi answered something else than {fields}: {said[:200]}")
    return rows


async def wait_until_free(indices: Sequence[int], timeout_s: float = 60.0) -> None:
    """Return once nothing holds these GPUs' memory: engines that were killed give it back a little later.

    When the time is over it returns, too: what is left is somebody else's, and the next engine says whether it minds.
    """
    end = time.monotonic() + timeout_s
    while indices and time.monotonic() < end:
        rows = await asyncio.to_thread(query, "memory.used,memory.total", indices)
        if all((_number(used) or 0.0) < _FREE_SHARE * (_number(total) or 1.0) for used, total in rows):
            return
        await asyncio.sleep(0.5)


@dataclass
class ClockWatch:
    """Clocks and temperatures of GPUs while a layout is measured, read every few seconds by a thread.

    Attributes:
        indices: GPUs that are watched; with none of them nothing is.
        interval_s: seconds between readings.
    """

    indices: Sequence[int]
    interval_s: float = 5.0
    _clocks: list[float] = field(default_factory=list)
    _temperatures: list[float] = field(default_factory=list)
    _slowed: int = 0
    _readings: int = 0
    _problem: str | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> ClockWatch:
        if self.indices:
            self._thread = threading.Thread(target=self._run, name="clocks", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.interval_s):
            try:
                rows = self._rows()
            except (DependencyError, InputError) as error:
                self._problem = str(error)
                return
            for clock, temperature, reasons in rows:
                self._add(_number(clock), _number(temperature), reasons)

    def _rows(self) -> list[list[str]]:
        """Readings; newer drivers have another word for what slows a GPU down."""
        try:
            return query("clocks.sm,temperature.gpu,clocks_event_reasons.active", self.indices)
        except InputError:
            return query("clocks.sm,temperature.gpu,clocks_throttle_reasons.active", self.indices)

    def _add(self, clock: float | None, temperature: float | None, reasons: str) -> None:
        self._readings += 1
        if clock is not None:
            self._clocks.append(clock)
        if temperature is not None:
            self._temperatures.append(temperature)
        if reasons.startswith("0x") and int(reasons, 16) & _SLOWED:
            self._slowed += 1

    def facts(self) -> dict[str, object]:
        """Minimum, median and maximum of what was read, MHz and degrees Celsius, for the run's record."""
        found: dict[str, object] = {"readings": self._readings, "slowed_readings": self._slowed}
        for name, values in (("sm_clock_mhz", self._clocks), ("temperature_c", self._temperatures)):
            if values:
                found[name] = {"min": min(values), "median": median(values), "max": max(values)}
        if self._problem is not None:
            found["problem"] = self._problem
        return found

    def warnings(self) -> tuple[str, ...]:
        """What whoever reads the tables should know."""
        if not self._slowed:
            return ()
        clocks = f", SM clock {min(self._clocks):g} to {max(self._clocks):g} MHz" if self._clocks else ""
        heat = f", up to {max(self._temperatures):g} C" if self._temperatures else ""
        share = f"{self._slowed} of {self._readings} readings"
        return (f"a GPU was slowed down for power or heat in {share}{clocks}{heat}",)


def _number(text: str) -> float | None:
    """A cell of nvidia-smi; `[N/A]` and the like are not known."""
    try:
        return float(text)
    except ValueError:
        return None
