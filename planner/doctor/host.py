"""The GPUs of this host: number, health, use, power, links and driver. nvidia-smi is asked, torch is not loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import PurePosixPath

from planner.doctor.base import Check, SkipError, failed, passed, plural, skipped, some, warned
from planner.doctor.scene import Scene
from planner.doctor.smi import (
    COLUMNS,
    PROCESS_COLUMNS,
    GpuProcess,
    GpuState,
    parse_cuda,
    parse_gpus,
    parse_processes,
    parse_remapped,
    parse_topology,
)

#: A machine with many GPUs and no persistence mode takes its time.
_TIMEOUT_S = 15.0

#: Oldest driver for a CUDA major version, by minor-version compatibility (CUDA compatibility guide, table 1).
OLDEST_DRIVER = {11: (450, 80), 12: (525, 60), 13: (580, 65)}

#: MiB that a GPU without any process may show as used.
IDLE_MIB = 1024.0


def smi(*arguments: str) -> str:
    """What nvidia-smi prints; SkipError where there is none, ValueError where it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words only
            ["nvidia-smi", *arguments],  # noqa: S607 - where it is differs by driver
            capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except OSError as error:
        fix = "install the NVIDIA driver, or run it in a container with GPUs"
        raise SkipError(f"no nvidia-smi here: {error.strerror or error}", fix) from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"nvidia-smi did not answer within {_TIMEOUT_S:g} s: a GPU or the driver hangs") from None
    if done.returncode != 0:
        raise ValueError(f"nvidia-smi failed: {' '.join((done.stdout + done.stderr).split())[:200]}")
    return done.stdout


def _there() -> bool:
    """Whether there is anything to ask; the check of the GPUs says so once if not."""
    return shutil.which("nvidia-smi") is not None


def _states() -> list[GpuState]:
    return parse_gpus(smi(f"--query-gpu={','.join(COLUMNS)}", "--format=csv,noheader,nounits"))


def gpus(scene: Scene) -> Iterator[Check]:
    """How many, of which kind, and whether they are well."""
    try:
        found = _states()
    except ValueError as error:
        yield failed("GPUs", str(error), "look at dmesg for NVRM and Xid lines; reload the driver or reboot")
        return
    wanted = max((one.meta.gpu.count_per_worker for one in scene.profiles), default=0) if scene.config else 0
    yield from judge_gpus(found, wanted, os.environ.get("CUDA_VISIBLE_DEVICES"))
    try:
        rows = parse_remapped(
            smi(
                "--query-remapped-rows=gpu_uuid,remapped_rows.pending,remapped_rows.failure",
                "--format=csv,noheader",
            )
        )
    except ValueError:
        return  # GPUs before Ampere have no row remapping
    index = {one.uuid: one.index for one in found}
    broken = [f"GPU {index.get(uuid, uuid)}" for uuid, pending, failure in rows if pending or failure]
    if broken:
        fix = "reset the GPU (nvidia-smi -r) or reboot for pending ones; have a failed one replaced"
        yield failed("memory rows", f"rows of {some(broken)} wait to be remapped, or could not be", fix)


def judge_gpus(found: Sequence[GpuState], wanted: int, visible: str | None = None) -> Iterator[Check]:
    """The GPUs of a host.

    Args:
        found: all.
        wanted: GPUs of the largest profile's worker; 0 where none is known.
        visible: CUDA_VISIBLE_DEVICES; None where it is not set.
    """
    if not found:
        yield failed("GPUs", "nvidia-smi lists none", "check the container's GPU request, or the driver")
        return
    kinds = Counter(f"{one.name} ({one.memory_mib / 1024:.0f} GiB)" for one in found)
    text = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    if len(kinds) > 1:
        yield warned("GPUs", text, "keep workers of one pool on one kind: a profile is of one (CUDA_VISIBLE_DEVICES)")
    elif wanted > len(found):
        fix = "take a profile of a smaller layout, or a worker over several nodes"
        yield failed("GPUs", f"{text}; one worker of the profile takes {wanted}", fix)
    else:
        yield passed("GPUs", text)
    if visible is not None:
        yield warned("visible GPUs", f"CUDA_VISIBLE_DEVICES={visible}", "nothing, if engines shall use these alone")
    bad = [f"GPU {one.index}: {one.errors}" for one in found if one.errors]
    ever = [f"GPU {one.index}: {one.errors_ever}" for one in found if one.errors_ever]
    if bad:
        fix = "drain the host and reset the GPU (nvidia-smi -r); have it replaced if they come back"
        yield failed("ECC errors", f"uncorrected since the driver was loaded: {some(bad)}", fix)
    elif ever:
        yield warned("ECC errors", f"uncorrected in the past: {some(ever)}", "watch them: nvidia-smi -q -d ECC")
    elif any(one.ecc is False for one in found):
        yield warned("ECC errors", "ECC is off: errors go unseen", "nvidia-smi -e 1, then reset")
    else:
        yield passed("ECC errors", "no uncorrected error")
    off = [f"GPU {one.index}" for one in found if one.persistence is False]
    if off:
        fix = "nvidia-smi -pm 1, or run nvidia-persistenced"
        yield warned("persistence", f"off on {some(off)}: every start waits for the driver", fix)
    capped = [
        f"GPU {one.index} at {one.power_w:.0f} of {one.default_power_w:.0f} W"
        for one in found
        if one.power_w is not None and one.default_power_w is not None and one.power_w < one.default_power_w - 1
    ]
    if capped:
        fix = "nvidia-smi -pl DEFAULT, or measure profiles under the same limit"
        yield warned("power limit", f"below the default: {some(capped)}", fix)
    elif any(one.power_w is not None for one in found):
        yield passed("power limit", f"the default, {found[0].power_w or 0:.0f} W")
    split = [f"GPU {one.index}" for one in found if one.mig]
    if split:
        fix = "nvidia-smi -mig 0; profiles are of whole GPUs"
        yield warned("MIG", f"{some(split)} is split into instances", fix)
    alone = [f"GPU {one.index}" for one in found if one.compute_mode == "Prohibited"]
    if alone:
        yield failed("compute mode", f"{some(alone)} prohibits computing", "nvidia-smi -c DEFAULT")


def processes(scene: Scene) -> Iterable[Check]:  # noqa: ARG001 - every probe takes the scene
    """Whether something else computes on the GPUs, or holds their memory."""
    query = f"--query-compute-apps={','.join(PROCESS_COLUMNS)}"
    if not _there():
        return []
    found = parse_processes(smi(query, "--format=csv,noheader,nounits"))
    return [judge_processes(_states(), found)]


def judge_processes(states: Sequence[GpuState], found: Sequence[GpuProcess]) -> Check:
    """Processes by GPU, and memory that no process accounts for."""
    if found:
        index = {one.uuid: one.index for one in states}
        words = [f"GPU {index.get(one.uuid, '?')}: {PurePosixPath(one.name).name} ({one.pid})" for one in found]
        fix = "nothing, if these are the workers; else end them before measuring or starting engines"
        return warned("processes", f"{plural(len(found), 'process', 'processes')}: {some(words)}", fix)
    held = [f"GPU {one.index}: {one.used_mib:.0f} MiB" for one in states if one.used_mib > IDLE_MIB]
    if held:
        fix = "look on the host, or in other containers: fuser -v /dev/nvidia*"
        return warned("processes", f"memory is held by processes that cannot be seen from here: {some(held)}", fix)
    return passed("processes", "none on the GPUs")


def topology(scene: Scene) -> Iterable[Check]:  # noqa: ARG001 - as above
    """How the GPUs are connected: tensor parallelism waits for it in every layer."""
    if not _there():
        return []
    links = parse_topology(smi("topo", "-m"))
    return [judge_topology(links)] if links else [skipped("links", "one GPU alone")]


def judge_topology(links: Mapping[tuple[int, int], str]) -> Check:
    """Links between pairs of GPUs."""
    kinds = Counter(links.values())
    shown = ", ".join(f"{kind} ({plural(count, 'pair')})" for kind, count in sorted(kinds.items()))
    slow = [f"{a}-{b} {link}" for (a, b), link in sorted(links.items()) if not link.startswith("NV")]
    if not slow:
        return passed("links", f"NVLink between all: {shown}")
    if len(slow) == len(links):
        fix = (
            "tensor parallelism over PCIe is slow: prefer small TP, and measure it so; on SXM boards see fabric manager"
        )
        return warned("links", f"no NVLink: {shown}", fix)
    fix = "keep each worker's GPUs among those that NVLink connects (CUDA_VISIBLE_DEVICES, topology-aware scheduling)"
    return warned("links", f"not all by NVLink: {shown}; {some(slow)}", fix)


def driver(scene: Scene) -> Iterable[Check]:  # noqa: ARG001 - as above
    """The driver beside the CUDA of the installed wheels."""
    if not _there():
        return []
    states = _states()
    number = states[0].driver if states else "unknown"
    return [judge_driver(number, parse_cuda(smi()), wheel_cuda(installed()))]


def installed() -> dict[str, str]:
    """Versions of the installed distributions that say which CUDA is used, by name."""
    wanted = ("torch", "vllm", "nvidia-cuda-runtime", "nvidia-cuda-runtime-cu11", "nvidia-cuda-runtime-cu12")
    found: dict[str, str] = {}
    for one in distributions():
        name = str(one.metadata["Name"] or "").lower().replace("_", "-")
        if name in wanted:
            found.setdefault(name, one.version)
    return found


def wheel_cuda(versions: Mapping[str, str]) -> tuple[int, int] | None:
    """CUDA of the wheels: of torch's own version (`2.9.0+cu128`), else of the runtime's wheel; None without either."""
    local = versions.get("torch", "").partition("+cu")[2]
    if local.isdigit() and len(local) >= 3:
        return int(local[:-1]), int(local[-1])
    for name in sorted(versions):
        if name.startswith("nvidia-cuda-runtime"):
            major, minor = [*versions[name].split("."), "0"][:2]
            if major.isdigit() and minor.isdigit():
                return int(major), int(minor)
    return None


def judge_driver(number: str, serves: tuple[int, int] | None, wheels: tuple[int, int] | None) -> Check:
    """A driver's version, the newest CUDA that it serves, and the CUDA of the wheels."""
    text = f"{number}" + (f", for CUDA up to {serves[0]}.{serves[1]}" if serves else "")
    if wheels is None:
        return passed("driver", f"{text}; no wheel here says its CUDA")
    text += f"; the wheels here are of {wheels[0]}.{wheels[1]}"
    oldest = OLDEST_DRIVER.get(wheels[0])
    parts = [int(part) for part in number.split(".")[:2] if part.isdigit()]
    if oldest is not None and len(parts) == 2 and tuple(parts) < oldest:
        fix = f"a driver from {oldest[0]}.{oldest[1]} on, wheels of an older CUDA, or the cuda-compat package"
        return failed("driver", text, fix)
    if serves is not None and wheels[0] > serves[0]:
        return failed("driver", text, "a newer driver, or wheels of an older CUDA")
    if serves is not None and wheels > serves:
        fix = "a newer driver; kernels that are compiled when first used may fail with this one"
        return warned("driver", text, fix)
    return passed("driver", text)
