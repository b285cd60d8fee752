"""Real vLLM workers, as the tests of the gateway start them."""

from tests.integration.vllm_cpu.conftest import start_process, start_vllm, tiny_model, vllm_env

__all__ = ["start_process", "start_vllm", "tiny_model", "vllm_env"]
