"""Size of the image's tree, and seconds from the planner's start to its port and to its first tick in it.

python -m tests.bench.image
"""

from __future__ import annotations

import statistics
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import yaml

from tests.integration.kubernetes import image
from tests.manifests import ROOT
from tests.servers import free_port, get

PROFILES = ROOT / "profiling_results" / "llama-3.1-8b-instruct-fp8"
RUNS = 5


def start_s(target: Path, folder: Path) -> tuple[float, float]:
    """Seconds until `/healthz` answers, and until a request for state shows the loaded model."""
    port = free_port()
    config, state = folder / f"config-{port}", folder / f"state-{port}"
    config.mkdir()
    state.mkdir()
    settings = {
        "graph": "chat", "model": "llama",
        "connector": {"kind": "dry_run", "dry_run": {"workers": {"prefill": 1, "decode": 1}}},
        "profiles": ["/srv/plimsoll/profiling_results"],
        "sla": {"ttft_ms": 200, "itl_ms": 10}, "budget": {"max_gpus": 16},
        "pools": {"prefill": {"role": "prefill"}, "decode": {"role": "decode"}},
        "tuning": {"interval_s": 1},
        "service": {"port": port, "journal": "/var/lib/plimsoll/j.jsonl", "checkpoint": "/var/lib/plimsoll/c.json"},
    }  # fmt: skip
    (config / "planner.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [image.PYTHON, "-m", "planner", "run", "--config", "/etc/plimsoll/planner.yaml"]
    began = time.monotonic()
    words = image.inside(target, config, PROFILES, state, command)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = []
        for path in ("healthz", "readyz"):
            while not _answers(f"http://127.0.0.1:{port}/{path}"):
                if process.poll() is not None:
                    raise RuntimeError("the planner ended")
                time.sleep(0.01)
            found.append(time.monotonic() - began)
        return found[0], found[1]
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return get(url, 1.0) == "ok\n"
    except OSError:
        return False


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        target = image.build(folder)
        packed = folder / "tree.tar.gz"
        with tarfile.open(packed, "w:gz") as tar:
            tar.add(target, "plimsoll")
        sizes = {one.name: image.size_mib(one) for one in target.iterdir() if one.is_dir()}
        largest = ", ".join(f"{one} {size:.0f}" for one, size in sorted(sizes.items(), key=lambda x: -x[1])[:6])
        print(f"tree: {image.size_mib(target):.0f} MiB ({largest}), {packed.stat().st_size / 2**20:.0f} MiB packed")
        if not image.can_isolate():
            print("start-up: not measured; mounts of one's own need root and unshare")
            return
        starts = [start_s(target, folder) for _ in range(RUNS)]
        ports, ticks = zip(*starts, strict=True)
        print(f"start to port: median {statistics.median(ports):.2f} s, worst {max(ports):.2f} s, of {RUNS}")
        print(f"start to first tick, at an interval of 1 s: median {statistics.median(ticks):.2f} s")


if __name__ == "__main__":
    main()
