"""How a graph is run on this machine: what the YAML does not say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """Options of `planner graph up`.

    Attributes:
        run_dir: folder for logs, scrape targets and the state that `down` needs after a crash.
        engine: a name in `launchers.LAUNCHERS`.
        gateway: a name in `gateway.GATEWAYS`.
        routing: one of `gateway.ROUTINGS`, or None for what the graph's DYN_ROUTER_MODE says.
        host: address to listen on; the gateway and the control API have no authentication.
        port: of the gateway, 0 for any.
        metrics_port: of the gateway's metrics, 0 for any.
        control_port: of the control API, 0 for any.
        gpus: GPUs that workers may hold at any moment, draining ones included.
        startup_timeout_s: a worker that is not healthy by then is ended and tried again.
        drain_timeout_s: a draining worker is ended by then, requests in flight or not.
        stop_grace_s: from SIGTERM to SIGKILL.
        profiles: folders for the simulated engine.
        speed_up: of the simulated engine.
        simulated_startup_s: of the simulated engine, in its own (not sped-up) seconds.
        vllm_command: the program that serves, for `engine` vllm.
    """

    run_dir: Path
    engine: str = "vllm"
    gateway: str = "smg"
    routing: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int = 0
    control_port: int = 0
    gpus: int = 8
    startup_timeout_s: float = 1800.0
    drain_timeout_s: float = 600.0
    stop_grace_s: float = 10.0
    profiles: tuple[Path, ...] = ()
    speed_up: float = 1.0
    simulated_startup_s: float = 0.0
    vllm_command: tuple[str, ...] = ("vllm",)
