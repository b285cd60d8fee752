"""Real vLLM on the CPU, if its environment has been made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.vllm_cpu import setup
from tests.integration.vllm_cpu.workers import Process, Worker, start_worker


@pytest.fixture(scope="session")
def vllm_env() -> Path:
    """The virtual environment with vLLM; tests never install it by themselves."""
    env = setup.folder()
    if not setup.is_complete(env):
        pytest.skip(f"no vLLM for the CPU in {env}; make it with: python tests/integration/vllm_cpu/setup.py")
    return env


@pytest.fixture(scope="session")
def tiny_model(vllm_env: Path) -> Path:
    """A random Llama of 0.8 million weights."""
    return setup.model_folder(vllm_env)


@pytest.fixture(scope="module")
def start_vllm(
    vllm_env: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Worker]]:
    """Start a worker by name, more arguments and `environment`; all end with the module."""
    folder = tmp_path_factory.mktemp("vllm")
    started: list[Worker] = []

    def start(name: str, *arguments: str, **keywords: dict[str, str]) -> Worker:
        started.append(start_worker(vllm_env, tiny_model, folder, name, *arguments, **keywords))
        return started[-1]

    yield start
    for worker in started:
        worker.process.stop(3.0)  # nobody waits for an answer any more, and one with gRPC takes longer than 20 s


@pytest.fixture(scope="module")
def start_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Process]]:
    """Start any program by name and command; all end with the module."""
    folder = tmp_path_factory.mktemp("processes")
    started: list[Process] = []

    def start(name: str, command: list[str]) -> Process:
        started.append(Process(command, folder / f"{name}.log"))
        return started[-1]

    yield start
    for process in started:
        process.stop()
