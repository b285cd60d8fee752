"""What the gateway adds to a request, and how many it carries: `python -m tests.bench.gateway`.

Aggregated and disaggregated graphs of simulated engines that answer at once (a thousand times as fast as the profile),
so that what is left is HTTP: client, gateway, engine. Direct and through the gateway alternate request by request.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from profiler.load import Load, Outcome, Result, ScheduledRequest
from worker_graph.local.client import Client
from worker_graph.local.up import running

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "profiling_results" / "llama-3.1-8b-instruct-fp8"
MODEL = "Qwen/Qwen3-0.6B"
PAIRS, SECONDS, CLIENTS = 150, 6.0, 16


def ready(run_dir: Path) -> Client:
    """The graph's client, once every worker serves."""
    while True:
        found = running(run_dir)
        if found is not None:
            client = Client(found["control_url"])
            if all(pool["ready"] == pool["desired"] for pool in client.status()["pools"].values()):
                return client
        time.sleep(0.1)


async def one(load: Load, isl: int) -> Result:
    """One request of one output token."""
    (result,) = await load.run_open([ScheduledRequest(0.0, isl, 1)])
    if result.outcome is not Outcome.COMPLETED:
        raise RuntimeError(result.error)
    return result


async def added(gateway: Load, direct: Load | None, isl: int) -> tuple[float, float]:
    """Median ms of a request through the gateway, and of one that goes straight to the engine."""
    through, straight = [], []
    for _ in range(PAIRS):
        through.append((await one(gateway, isl)).e2e_ms or 0.0)
        if direct is not None:
            straight.append((await one(direct, isl)).e2e_ms or 0.0)
    return statistics.median(through), statistics.median(straight) if straight else float("nan")


async def throughput(gateway: Load, isl: int) -> float:
    """Requests per second from a closed loop."""
    results = await gateway.run_closed(CLIENTS, lambda: ScheduledRequest(0.0, isl, 1), duration_s=SECONDS)
    return sum(one.outcome is Outcome.COMPLETED for one in results) / SECONDS


def main() -> None:
    """Print the figures of both manifests."""
    print("graph          prompt words   gateway ms   direct ms   added ms   requests/s (16 clients)")
    for manifest in ("agg", "disagg"):
        with tempfile.TemporaryDirectory() as folder:
            words = [
                "graph", "up", str(ROOT / "manifests" / f"{manifest}.yaml"), "--engine", "simulated",
                "--profile", str(PROFILES), "--speed-up", "1000", "--port", "0", "--run-dir", folder,
            ]  # fmt: skip
            process = subprocess.Popen([sys.executable, "-m", "planner", *words], stderr=subprocess.DEVNULL)
            try:
                status = ready(Path(folder)).status()
                gateway = Load(status["gateway"]["url"], MODEL)
                # A disaggregated graph has no single engine that answers a request on its own.
                direct = Load(f"http://{status['workers'][0]['address']}", MODEL) if manifest == "agg" else None
                for isl in (100, 4000):
                    through, straight = asyncio.run(added(gateway, direct, isl))
                    rate = asyncio.run(throughput(gateway, isl))
                    figures = f"{through:12.2f} {straight:11.2f} {through - straight:10.2f} {rate:14.0f}"
                    print(f"{manifest:14} {isl:12} {figures}")
            finally:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
