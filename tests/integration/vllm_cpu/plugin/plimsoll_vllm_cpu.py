# ruff: noqa: PLC0415 - vLLM imports its plugins early; what they change is imported when they are asked to
"""A vLLM plugin with which several real workers share a few CPU cores in tests.

vLLM loads it in every one of its processes, through the entry point group `vllm.general_plugins`. It changes nothing of
what is under test (scheduler, KV cache, KV transfer, API, metrics), only three things that make a small machine useless
for more than one worker. Each is checked when vLLM starts: should a later version have renamed what is replaced here,
start-up fails with the name, and the test environment's version pin tells which version fitted.

1. NIXL's Python API sets `pthrDelay = 0`: its progress thread then polls without a pause and takes a whole core from
   each idle worker. On a GPU host that core is free; here it is what the others compute with. Polling every
   millisecond instead costs 0.03 core and adds at most that millisecond to a hand-off.
2. On the CPU platform, NixlConnector moves its process to the last cores of its NUMA node, to leave the first ones to
   the model. With two cores that is one core, the same one for every worker, while the other is idle.
3. Pacing, only if VLLM_PACE="base_ms,us_per_prefill_token,us_per_decode_request" is set: an engine step sleeps until it
   has lasted that long. A sleep takes no core, so workers on one machine have capacity of their own, as GPUs have, and
   a second worker really shortens the queue. Latencies under pacing are a model's, not hardware's.
"""

from __future__ import annotations

import os
import time

#: Time between two polls of NIXL's progress thread, us.
NIXL_POLL_US = 1000


def register() -> None:
    """Entry point: apply what this process needs, once."""
    leave_affinity_alone()
    poll_nixl_with_pauses()
    if os.environ.get("VLLM_PACE"):
        pace(os.environ["VLLM_PACE"])


def leave_affinity_alone() -> None:
    """Let the CPU platform report no NUMA nodes: NixlConnector then pins nothing."""
    from vllm.platforms.cpu import CpuPlatform

    if not hasattr(CpuPlatform, "discover_numa_topology"):
        raise RuntimeError("CpuPlatform.discover_numa_topology is gone: does NixlConnector still pin its process?")
    CpuPlatform.discover_numa_topology = classmethod(lambda _: [])


def poll_nixl_with_pauses() -> None:
    """Replace the class of the agent's settings by one that turns `pthrDelay = 0` into a pause."""
    try:
        import nixl_cu12._api as nixl  # the wheel that `nixl` falls back to where there is no CUDA
    except ImportError:
        return  # an environment without NIXL: nothing polls
    plain = nixl.nixlBind.nixlAgentConfig
    if not hasattr(plain, "pthrDelay"):
        raise RuntimeError("nixlAgentConfig.pthrDelay is gone: how does NIXL's progress thread poll now?")
    if getattr(plain, "paused", False):
        return

    class PausedAgentConfig(plain):
        paused = True

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, NIXL_POLL_US if name == "pthrDelay" else value)

    nixl.nixlBind.nixlAgentConfig = PausedAgentConfig


def pace(setting: str) -> None:
    """Let every engine step last at least base + prefill tokens + decoding requests, by the three numbers given."""
    from vllm.v1.worker.gpu_worker import Worker

    base_ms, us_per_prefill_token, us_per_decode_request = (float(part) for part in setting.split(","))
    run = Worker.execute_model
    if getattr(run, "paced", False):
        return

    def execute_model(self, scheduler_output, *args, **kwargs):
        start_s = time.perf_counter()
        output = run(self, scheduler_output, *args, **kwargs)
        scheduled = scheduler_output.num_scheduled_tokens.values()
        if not scheduled:
            return output  # a step that only moves KV has no forward pass to imitate
        prefill_tokens = sum(tokens for tokens in scheduled if tokens > 1)
        decoding = sum(1 for tokens in scheduled if tokens == 1)
        target_s = base_ms / 1e3 + (us_per_prefill_token * prefill_tokens + us_per_decode_request * decoding) / 1e6
        time.sleep(max(0.0, target_s - (time.perf_counter() - start_s)))
        return output

    execute_model.paced = True
    Worker.execute_model = execute_model
