"""What the operating system gives engines on this host: shared memory, limits, memory, cores, disk."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from planner.doctor.base import Check, failed, passed, skipped, warned
from planner.doctor.scene import Scene

GIB = 1024.0**3

SHM = "/dev/shm"  # noqa: S108 - it is what is asked about

#: Shared memory, GiB: NCCL and the processes of tensor parallelism exchange tensors through it; Docker gives 64 MiB.
SHM_FAIL_GIB, SHM_WARN_GIB = 0.5, 4.0

#: Least soft limits. Locked memory is what RDMA registers; files are sockets of clients and shards of the model.
LEAST_FILES, LEAST_PROCESSES, LEAST_LOCKED_BYTES = 4096, 4096, 8 * GIB

#: Cores for each GPU: the API server, tokenizer, scheduler and a process for each rank.
LEAST_CORES_PER_GPU = 4.0

#: Share of the memory in use from which on a load of a model's weights may be killed.
MEMORY_WARN = 0.9

#: GiB that a model of 8B with 16-bit weights takes in the cache.
DISK_WARN_GIB, DISK_FAIL_GIB = 50.0, 5.0


def shared_memory(scene: Scene) -> Iterable[Check]:  # noqa: ARG001 - every probe takes the scene
    """Size of /dev/shm."""
    try:
        found = os.statvfs(SHM)
    except OSError as error:
        return [failed("shared memory", f"{SHM}: {error.strerror}", "mount a tmpfs there")]
    return [judge_shared_memory(found.f_blocks * found.f_frsize / GIB, found.f_bavail * found.f_frsize / GIB)]


def judge_shared_memory(size_gib: float, free_gib: float) -> Check:
    """A shared memory of this size with so much free."""
    text = f"{SHM} has {size_gib:.3g} GiB, {free_gib:.3g} free"
    fix = "docker run --shm-size 16g; on Kubernetes an emptyDir with medium: Memory, mounted there"
    if size_gib < SHM_FAIL_GIB:
        return failed("shared memory", text, fix)
    if free_gib < SHM_WARN_GIB:
        return warned("shared memory", text, fix)
    return passed("shared memory", text)


def ulimits(scene: Scene) -> Iterable[Check]:  # noqa: ARG001 - as above
    """Soft and hard limits of this process, which engines that are started from here inherit."""
    infinite = resource.RLIM_INFINITY

    def of(which: int) -> tuple[float, float]:
        soft, hard = resource.getrlimit(which)
        return (float("inf") if soft == infinite else soft, float("inf") if hard == infinite else hard)

    return list(
        judge_ulimits(
            {
                "memlock": of(resource.RLIMIT_MEMLOCK),
                "nofile": of(resource.RLIMIT_NOFILE),
                "nproc": of(resource.RLIMIT_NPROC),
            }
        )
    )


def judge_ulimits(found: Mapping[str, tuple[float, float]]) -> Iterator[Check]:
    """(soft, hard) by `memlock` in bytes, `nofile` and `nproc`."""
    wanted = {
        "memlock": (LEAST_LOCKED_BYTES, "ulimit -l unlimited", "NIXL and NCCL cannot register memory with RDMA"),
        "nofile": (LEAST_FILES, "ulimit -n 65536", "a busy API server runs out of sockets"),
        "nproc": (LEAST_PROCESSES, "ulimit -u 65536", "engines start hundreds of threads"),
    }
    low = []
    for name, (least, command, why) in wanted.items():
        soft, hard = found[name]
        if soft < least:
            how = (
                command
                if hard >= least
                else f"{command} (the hard limit is {_amount(name, hard)}: limits.conf, LimitMEMLOCK)"
            )
            low.append(warned(f"ulimit {name}", f"{_amount(name, soft)}: {why}", how))
    yield from low
    if not low:
        yield passed("ulimits", ", ".join(f"{name} {_amount(name, soft)}" for name, (soft, _) in found.items()))


def _amount(name: str, value: float) -> str:
    if value == float("inf"):
        return "unlimited"
    return f"{value / 1024:.0f} KiB" if name == "memlock" else f"{value:.0f}"


def memory(scene: Scene) -> Iterable[Check]:  # noqa: ARG001 - as above
    """Free memory, and the container's own limit."""
    try:
        total, available = parse_meminfo(Path("/proc/meminfo").read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        return [skipped("memory", f"/proc/meminfo cannot be read: {error}")]
    return [judge_memory(total, available, *_container())]


def parse_meminfo(text: str) -> tuple[float, float]:
    """Total and available memory of /proc/meminfo, GiB.

    Raises:
        ValueError: it names neither.
    """
    found = {
        name: int(kib) / 1024**2
        for name, kib in re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, re.MULTILINE)
    }
    if len(found) != 2:
        raise ValueError("no MemTotal and MemAvailable")
    return found["MemTotal"], found["MemAvailable"]


def parse_cgroup(limit: str, used: str) -> tuple[float | None, float]:
    """Limit (None for none) and use of a control group's memory, GiB; version 1 writes no limit as a huge number."""
    value = None if limit.strip() == "max" or int(limit) >= 2**60 else int(limit) / GIB
    return value, int(used) / GIB


def _container() -> tuple[float | None, float]:
    """Of this process' control group, version 2 or 1; no limit where there is neither."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return parse_cgroup(Path(limit).read_text(encoding="ascii"), Path(used).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue  # the other version, or no container
    return None, 0.0


def judge_memory(total_gib: float, available_gib: float, limit_gib: float | None, used_gib: float) -> Check:
    """Memory of the host, and the limit and use of this container."""
    text = f"{available_gib:.0f} of {total_gib:.0f} GiB available"
    share = 1.0 - available_gib / total_gib
    if limit_gib is not None and limit_gib < total_gib:
        text += f"; this container may use {limit_gib:.0f} GiB and uses {used_gib:.0f}"
        share = max(share, used_gib / limit_gib)
    if share > MEMORY_WARN:
        return warned("memory", text, "free some, or raise the limit: loading weights passes through this memory")
    return passed("memory", text)


def cpus(scene: Scene) -> Iterator[Check]:  # noqa: ARG001 - as above
    """Cores for the GPUs here, and their frequency governor."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota = parse_quota(Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        quota = None
    count = sum(re.fullmatch(r"nvidia\d+", one.name) is not None for one in Path("/dev").iterdir())
    yield judge_cores(min(cores, quota or cores), count)
    governors = set()
    for file in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"):
        try:
            governors.add(file.read_text(encoding="ascii").strip())
        except OSError:
            continue  # a core that was taken offline
    if governors:
        yield judge_governors(governors)


def parse_quota(text: str) -> float | None:
    """Cores of a control group's cpu.max (`400000 100000` is 4); None where there is no limit."""
    quota, _, period = text.strip().partition(" ")
    return None if quota == "max" else int(quota) / int(period or 100_000)


def judge_cores(cores: float, gpus: int) -> Check:
    """Cores that this process may use, beside the GPUs here."""
    text = f"{cores:g} cores" + (f" for {gpus} GPUs" if gpus > 1 else " for 1 GPU" if gpus else "")
    if gpus and cores / gpus < LEAST_CORES_PER_GPU:
        fix = f"give {LEAST_CORES_PER_GPU:g} cores for each GPU: schedulers and tokenizers that wait slow every token"
        return warned("cores", text, fix)
    return passed("cores", text)


def judge_governors(governors: set[str]) -> Check:
    """Frequency governors of the cores."""
    text = f"governor {', '.join(sorted(governors))}"
    if governors <= {"performance", "schedutil"}:
        return passed("governor", text)
    return warned("governor", text, "cpupower frequency-set -g performance: launching kernels is bound by one core")


def disk(scene: Scene) -> Iterable[Check]:  # noqa: ARG001 - as above
    """Room for the model where the hub's cache lies."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HF_HOME")
    folder = Path(named).expanduser() if named else Path.home() / ".cache" / "huggingface"
    there = next(one for one in (folder, *folder.parents) if one.exists())
    free_gib = shutil.disk_usage(there).free / GIB
    return [judge_disk(folder, free_gib, writable=os.access(there, os.W_OK))]


def judge_disk(folder: Path, free_gib: float, *, writable: bool) -> Check:
    """Free space of the model cache's file system."""
    text = f"{free_gib:.0f} GiB free for {folder}"
    fix = "set HF_HOME to a larger disk, or mount a volume there"
    if not writable:
        return failed("model cache", f"{folder} cannot be written", "set HF_HOME to a folder that can")
    if free_gib < DISK_FAIL_GIB:
        return failed("model cache", text, fix)
    if free_gib < DISK_WARN_GIB:
        return warned("model cache", text, fix)
    return passed("model cache", text)
