"""Timing on a device: CUDA events over replays of a graph, or the processor's clock; medians with quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from profiler.kernels.micro import Timed

Call = Callable[[], object]

#: Data beyond so many L2 caches is read from memory again when it is next touched.
_CACHES = 3
#: What stands for L2 on a device that does not say (a processor): little, since there only the code is rehearsed.
_SMALL_CACHE = 1 << 20
#: What takes longer than this is repeated three times only, whatever was asked for.
_SLOW_MS = 100.0


@dataclass(slots=True)
class Clock:
    """Times calls on one device.

    Attributes:
        device: where the calls run.
        point_s: seconds that one measurement may take, warm-up left out; at least `least` repeats are taken.
        least, most: repeats.
        notes: what did not go as planned, such as calls that no graph could capture.
    """

    device: torch.device
    point_s: float = 0.05
    least: int = 5
    most: int = 50
    notes: list[str] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        """Whether CUDA events do the timing."""
        return bool(self.device.type == "cuda")

    @property
    def cold_bytes(self) -> int:
        """Bytes over which calls must rotate so that each finds its data in memory, not in the cache."""
        if not self.on_gpu:
            return _CACHES * _SMALL_CACHE
        return _CACHES * int(torch.cuda.get_device_properties(self.device).L2_cache_size)

    def copies(self, bytes_each: float, most: int = 64) -> int:
        """How many sets of data of `bytes_each` to rotate among."""
        return max(1, min(most, -(-self.cold_bytes // max(1, int(bytes_each)))))

    def measure(self, calls: Sequence[Call], what: str = "", *, graph: bool = True) -> Timed:
        """Time of one of `calls`, which run back to back in every repeat.

        Args:
            calls: each on data of its own; all of them warm up first.
            what: name for notes.
            graph: replay them from a CUDA graph where there is one, which takes the gaps between launches out.
        """
        for call in calls:
            call()
        if not self.on_gpu:
            return self._timed(self._wall, self._all(calls), len(calls), False)
        torch.cuda.synchronize(self.device)
        if graph:
            try:
                replay = self._captured(calls)
            except RuntimeError as error:  # an operation that synchronises or allocates outside the graph's pool
                torch.cuda.synchronize(self.device)
                self.notes.append(f"{what}: no graph ({str(error).splitlines()[0]})")
            else:
                return self._timed(self._events, replay, len(calls), True)
        return self._timed(self._events, self._all(calls), len(calls), False)

    def _captured(self, calls: Sequence[Call]) -> Call:
        # Capture wants a warm-up on a side stream, so that handles and workspaces exist before it.
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for call in calls:
                call()
        torch.cuda.current_stream(self.device).wait_stream(side)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        graph.replay()
        torch.cuda.synchronize(self.device)

        def replay() -> None:
            graph.replay()

        return replay

    def _timed(self, once: Callable[[Call], float], run: Call, calls: int, graph: bool) -> Timed:
        times = [once(run)]
        # The first one says how many fit in the time allowed.
        wanted = int(self.point_s * 1e3 / max(times[0], 1e-4))
        least = self.least if times[0] < _SLOW_MS else 3
        times += [once(run) for _ in range(max(least, min(self.most, wanted)))]
        kept = times[1:]
        low, median, high = statistics.quantiles(kept, n=4, method="inclusive")
        return Timed(
            median_ms=max(median / calls, 1e-9),
            low_ms=max(low / calls, 1e-9),
            high_ms=max(high / calls, 1e-9),
            repeats=len(kept),
            calls=calls,
            graph=graph,
        )

    def _events(self, run: Call) -> float:
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def _wall(self, run: Call) -> float:
        start = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - start) / 1e6

    @staticmethod
    def _all(calls: Sequence[Call]) -> Call:
        def run() -> None:
            for call in calls:
                call()

        return run


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a GPU; 256 MiB on a processor, where only the code is rehearsed."""
    if device.type != "cuda":
        return 256 << 20
    return int(torch.cuda.mem_get_info(device)[0])


def random_bytes(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of random bits of any number format, NaNs among them: for copies, which must not look at values."""
    last = shape[-1] * dtype.itemsize
    raw = torch.randint(0, 256, (*shape[:-1], last), dtype=torch.uint8, device=device)
    return raw.view(dtype)
