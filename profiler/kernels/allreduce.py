"""All-reduce by size, one process a rank: NCCL over GPUs, gloo over processors for rehearsals.

Engines have kernels of their own for small messages (vLLM's custom all-reduce), which NCCL does not reach: at small
sizes these times are an upper bound.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from profiler.errors import DependencyError, InputError
from profiler.kernels.micro import ReducePoint, Timed

_WARM_UP, _LEAST, _MOST = 5, 5, 40


def all_reduce(
    ranks: int, sizes: Sequence[int], device: str, *, timeout_s: float = 60.0, point_s: float = 0.1
) -> list[ReducePoint]:
    """Time all-reduces of `sizes` bytes of bf16 between `ranks` processes of this machine.

    Args:
        ranks: processes; on `cuda` each has a GPU of its own.
        sizes: bytes on each rank.
        device: `cuda` or `cpu`.
        timeout_s: for all of it, start of the processes included.
        point_s: that one size may take.

    Raises:
        InputError: fewer GPUs than ranks, or fewer than two ranks.
        DependencyError: a process failed, or they took too long.
    """
    if ranks < 2:
        raise InputError(f"{ranks} ranks have nothing to reduce", expected="2 or more", field="ranks")
    if device == "cuda" and torch.cuda.device_count() < ranks:
        problem = f"{torch.cuda.device_count()} GPUs for {ranks} ranks"
        raise InputError(problem, expected="a GPU for each rank", field="tp")
    with tempfile.TemporaryDirectory(prefix="all-reduce-") as folder:
        workers = mp.spawn(
            _rank, args=(ranks, tuple(sizes), device, folder, timeout_s, point_s), nprocs=ranks, join=False
        )
        try:
            deadline = time.monotonic() + timeout_s
            while not workers.join(timeout=0.2):
                if time.monotonic() > deadline:
                    raise DependencyError(f"all-reduce between {ranks} ranks took longer than {timeout_s:g} s")
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            raise DependencyError(f"all-reduce: {str(error).strip().splitlines()[-1]}") from None
        finally:
            for process in workers.processes:
                if process.is_alive():
                    process.kill()
                process.join()
        found = json.loads((Path(folder) / "times.json").read_text(encoding="utf-8"))
    backend = "nccl" if device == "cuda" else "gloo"
    return [ReducePoint(ranks=ranks, bytes=size, backend=backend, time=Timed(**one)) for size, one in found]


def _rank(
    rank: int, ranks: int, sizes: Sequence[int], device: str, folder: str, timeout_s: float, point_s: float
) -> None:
    """One process; must be importable by name, as processes are spawned."""
    import datetime as dt  # noqa: PLC0415 - only the spawned process needs it

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the machine's name may resolve to nothing
    where = torch.device(device, rank) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(where)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=ranks,
        timeout=dt.timedelta(seconds=timeout_s),
        device_id=where if device == "cuda" else None,
    )
    try:
        found = [(size, _measure(size, where, point_s)) for size in sizes]
        if rank == 0:
            (Path(folder) / "times.json").write_text(json.dumps(found), encoding="utf-8")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _measure(size: int, where: torch.device, point_s: float) -> dict[str, float]:
    """Quartiles of one size; every rank must take the same number of repeats, so rank 0 says how many."""
    data = torch.randn(max(1, size // 2), dtype=torch.bfloat16, device=where) * 1e-3
    calls = 10 if size <= 1 << 20 else 2
    first = 0.0
    for _ in range(_WARM_UP):
        first = _once(data, calls, where)
    wanted = torch.tensor([max(_LEAST, min(_MOST, int(point_s * 1e3 / max(first, 1e-4))))], device=where)
    dist.broadcast(wanted, src=0)
    times = [_once(data, calls, where) / calls for _ in range(int(wanted.item()))]
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return {"median_ms": median, "low_ms": low, "high_ms": high, "repeats": len(times), "calls": calls}


def _once(data: torch.Tensor, calls: int, where: torch.device) -> float:
    # Sums grow with every call: fresh small values keep them finite.
    data.normal_(std=1e-3)
    if where.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            dist.all_reduce(data)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))
    began = time.perf_counter_ns()
    for _ in range(calls):
        dist.all_reduce(data)
    return (time.perf_counter_ns() - began) / 1e6
