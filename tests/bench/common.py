"""What the benchmarks share: the shipped profile's graph and a generated load."""

from __future__ import annotations

from pathlib import Path

from planner.core.settings import PlannerSettings
from planner.core.types import Sla
from planner.whatif.graph import build_graph, load_profiles
from planner.whatif.policies import Setting, parse_layout
from planner.whatif.traces import Trace, open_trace, scaled

PROFILES = Path(__file__).parents[2] / "profiling_results" / "llama-3.1-8b-instruct-fp8"


def setting_for(trace: Trace, *, start: str = "1p1d", startup_s: float = 30.0, max_gpus: int = 64) -> Setting:
    """The H200 profile under TTFT 200 ms and ITL 10 ms."""
    profiles = load_profiles([PROFILES])
    graph = build_graph(profiles, aggregated=start.endswith("a"), max_gpus=max_gpus)
    settings = PlannerSettings(
        sla=Sla(200.0, 10.0), pools=tuple(graph.pools.values()), max_gpus=max_gpus, lead_time_s=startup_s
    )
    plan = parse_layout(start, graph.pools, "start")
    return Setting(
        graph.engines, graph.profiles, graph.pools, settings, plan, startup_s, "least_loaded", trace, tuple(profiles)
    )


def conversation(duration_s: int, rate_scale: float = 10.0) -> Trace:
    """Generated conversation traffic at ten times its rate, about 55 requests a second."""
    source = open_trace(f"generate:conversation,duration_s={duration_s},seed=7")
    return scaled(source, rate_scale=rate_scale, seed=7)
