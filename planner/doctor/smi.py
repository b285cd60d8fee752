"""What nvidia-smi prints, as values. Pure: text in, values out; `[N/A]` and the like are None."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

#: Columns of `nvidia-smi --query-gpu`, in this order.
COLUMNS = (
    "index", "name", "uuid", "driver_version", "memory.total", "memory.used", "persistence_mode", "power.limit",
    "power.default_limit", "ecc.mode.current", "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.total", "mig.mode.current", "compute_mode",
)  # fmt: skip

#: Columns of `nvidia-smi --query-compute-apps`.
PROCESS_COLUMNS = ("gpu_uuid", "pid", "process_name", "used_memory")

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU: memory in MiB, power limits in W, uncorrected ECC errors since the driver was loaded and ever."""

    index: int
    name: str
    uuid: str
    driver: str
    memory_mib: float
    used_mib: float
    persistence: bool | None
    power_w: float | None
    default_power_w: float | None
    ecc: bool | None
    errors: int | None
    errors_ever: int | None
    mig: bool | None
    compute_mode: str


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that computes on a GPU; its memory in MiB, None in a container that may not see it."""

    uuid: str
    pid: int
    name: str
    used_mib: float | None


def parse_gpus(text: str) -> list[GpuState]:
    """Of `nvidia-smi --query-gpu=COLUMNS --format=csv,noheader,nounits`.

    Raises:
        ValueError: it is something else.
    """
    found = []
    for row in _rows(text, len(COLUMNS)):
        cells = dict(zip(COLUMNS, row, strict=True))
        found.append(
            GpuState(
                index=int(cells["index"]),
                name=cells["name"],
                uuid=cells["uuid"],
                driver=cells["driver_version"],
                memory_mib=_number(cells["memory.total"]) or 0.0,
                used_mib=_number(cells["memory.used"]) or 0.0,
                persistence=_switch(cells["persistence_mode"]),
                power_w=_number(cells["power.limit"]),
                default_power_w=_number(cells["power.default_limit"]),
                ecc=_switch(cells["ecc.mode.current"]),
                errors=_count(cells["ecc.errors.uncorrected.volatile.total"]),
                errors_ever=_count(cells["ecc.errors.uncorrected.aggregate.total"]),
                mig=_switch(cells["mig.mode.current"]),
                compute_mode=cells["compute_mode"],
            )
        )
    return found


def parse_processes(text: str) -> list[GpuProcess]:
    """Of `nvidia-smi --query-compute-apps=PROCESS_COLUMNS --format=csv,noheader,nounits`.

    Raises:
        ValueError: it is something else.
    """
    return [GpuProcess(uuid, int(pid), name, _number(used)) for uuid, pid, name, used in _rows(text, 4)]


def parse_cuda(text: str) -> tuple[int, int] | None:
    """The newest CUDA version that the driver serves, of the head of plain `nvidia-smi`."""
    found = re.search(r"CUDA(?: UMD)? Version:\s*(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def parse_remapped(text: str) -> list[tuple[str, bool, bool]]:
    """Of `--query-remapped-rows=gpu_uuid,remapped_rows.pending,remapped_rows.failure`: uuid, pending, failure.

    Raises:
        ValueError: it is something else.
    """
    return [(uuid, _raised(pending), _raised(failure)) for uuid, pending, failure in _rows(text, 3)]


def parse_topology(text: str) -> dict[tuple[int, int], str]:
    """How each pair of GPUs is connected (`NV18`, `PIX`, `SYS`, …), of `nvidia-smi topo -m`; each pair once."""
    lines = [_ANSI.sub("", line) for line in text.splitlines()]
    header = next((line for line in lines if re.match(r"\s*GPU0\b", line)), "")
    columns = [int(name[3:]) for name in header.split() if re.fullmatch(r"GPU\d+", name)]
    found: dict[tuple[int, int], str] = {}
    for line in lines:
        cells = line.split()
        if line == header or not cells or not re.fullmatch(r"GPU\d+", cells[0]):
            continue
        row = int(cells[0][3:])
        for column, link in zip(columns, cells[1:], strict=False):
            if row < column:
                found[row, column] = link
    return found


def _rows(text: str, width: int) -> Iterator[list[str]]:
    for row in csv.reader(io.StringIO(text)):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) != width:
            raise ValueError(f"nvidia-smi answered {', '.join(cells)[:120]}")
        yield cells


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _count(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _switch(text: str) -> bool | None:
    return {"enabled": True, "disabled": False}.get(text.lower())


def _raised(text: str) -> bool:
    return text.lower() in {"yes", "1"}
