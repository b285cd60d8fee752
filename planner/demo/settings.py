"""What the demo runs: workload, SLA, speed, and the two files that a user would write for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from planner.core.types import Sla
from profiler.errors import InputError

#: Names of the pools in the graph.
PREFILL, DECODE = "prefill", "decode"

MODEL = "llama-3.1-8b-instruct-fp8"

#: Seconds of wall time that a worker's process takes to come up before its simulated start-up begins to count.
_PROCESS_START_S = 1.0


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """The demo's choices; times in seconds of the simulated engines unless they say otherwise.

    Attributes:
        trace: workload, as `--trace` takes it.
        sla: what is promised.
        speed_up: the engines' seconds per second of wall time.
        startup_s: from asking for a worker to its readiness.
        max_gpus: the budget.
        seed: of prompts.
    """

    trace: str = "generate:documents"
    sla: Sla = field(default_factory=lambda: Sla(ttft_ms=1500.0, itl_ms=15.0, attainment=0.95))
    speed_up: float = 5.0
    startup_s: float = 30.0
    max_gpus: int = 12
    seed: int = 0

    @property
    def engine_startup_s(self) -> float:
        """Start-up that each simulated engine is told, so that with its process's own it makes `startup_s`."""
        return max(0.0, self.startup_s - _PROCESS_START_S * self.speed_up)


def bundled_profiles() -> Path:
    """The measured profile that comes with the project.

    Raises:
        InputError: this installation has none.
    """
    for base in (Path(__file__).parents[2] / "profiling_results", Path(__file__).parent / "profiling_results"):
        if (base / MODEL).is_dir():
            return base / MODEL
    raise InputError("no profile comes with this installation", expected="a folder with one", field="--profile")


def graph_yaml() -> str:
    """One prefill and one decode worker behind a gateway."""

    def worker(role: str) -> dict[str, object]:
        return {
            "componentType": "worker",
            "subComponentType": role,
            "replicas": 1,
            "resources": {"limits": {"gpu": "1"}},
            "extraPodSpec": {
                "mainContainer": {
                    "image": "vllm/vllm-openai",
                    "command": ["python3", "-m", "dynamo.vllm"],
                    "args": ["--model", MODEL, f"--is-{role}-worker"],
                }
            },
        }

    graph = {
        "apiVersion": "nvidia.com/v1alpha1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": "demo"},
        "spec": {
            "services": {
                "Frontend": {"componentType": "frontend", "replicas": 1},
                PREFILL: worker("prefill"),
                DECODE: worker("decode"),
            }
        },
    }
    return yaml.safe_dump(graph, sort_keys=False)


def planner_yaml(demo: DemoSettings, profiles: Path, control_url: str, port: int) -> str:
    """The planner's configuration for the demo's graph."""
    config = {
        "graph": "demo",
        "model": MODEL,
        "connector": {"kind": "local", "local": {"control_url": control_url}},
        "metrics": {"source": "scrape", "engine": "vllm", "gateway": "smg", "scrape": {"period_s": 0.5}},
        "profiles": [str(profiles)],
        "sla": {"ttft_ms": demo.sla.ttft_ms, "itl_ms": demo.sla.itl_ms, "attainment": demo.sla.attainment},
        "budget": {"max_gpus": demo.max_gpus},
        "pools": {PREFILL: {"role": "prefill"}, DECODE: {"role": "decode"}},
        "lead_time_s": demo.startup_s,
        "speed_up": demo.speed_up,
        "service": {
            "port": port,
            "journal": "decisions.jsonl",
            "checkpoint": "checkpoint.json",
            "lease_s": 15.0,
            "identity": "demo-planner",
        },
    }
    return yaml.safe_dump(config, sort_keys=False)
