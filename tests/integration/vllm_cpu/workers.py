"""Real vLLM workers and the gateway in front of them, as processes that a test starts and certainly ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

MODEL_NAME = "tiny"

#: What every worker here is started with, beside its model and its port. Nothing of it is particular to this project:
#: compiling is skipped since it takes longer than the test, the CPU's attention takes blocks of multiples of 32 tokens,
#: and the rest is sized for a model of 0.8 million weights.
ARGUMENTS = [
    "--host", "127.0.0.1", "--served-model-name", MODEL_NAME, "--dtype", "bfloat16", "--enforce-eager",
    "--max-model-len", "4096", "--kv-cache-memory-bytes", "64M", "--max-num-seqs", "32", "--block-size", "32",
    "--disable-uvicorn-access-log",
]  # fmt: skip

#: What a worker on few cores needs to know.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine runs the model in its own process: one process less to start
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every worker binds its threads to the same first cores
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def nixl(role: str) -> list[str]:
    """The arguments of a worker that hands KV over (`kv_producer`) or takes it (`kv_consumer`), from host memory."""
    transfer = {"kv_connector": "NixlConnector", "kv_role": role, "kv_buffer_device": "cpu"}
    return ["--kv-transfer-config", json.dumps(transfer)]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """A program in a session of its own, so that all of it can be ended: vLLM's engine outlives its API server."""

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def wait_for(self, url: str, timeout_s: float) -> None:
        """Return once this address answers 200; fail with the end of the log if the program ends or takes too long."""

        def answers() -> None:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - an address of our own
                pass

        self._until(answers, url, timeout_s)

    def wait_for_line(self, part: str, timeout_s: float) -> None:
        """Return once its log has a line with this; fail as `wait_for` does."""

        def has() -> None:
            if part not in self.log.read_text(errors="replace"):
                raise OSError(part)

        self._until(has, f"{part!r} in the log", timeout_s)

    def _until(self, succeeds: Callable[[], None], what: str, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while True:
            try:
                succeeds()
            except (urllib.error.URLError, OSError):
                code = self._popen.poll()
                if code is not None or time.monotonic() > end:
                    why = f"no answer in {timeout_s:.0f} s" if code is None else f"ended with {code}"
                    raise AssertionError(f"{what}: {why}\n{self.tail()}") from None
                time.sleep(0.2)
            else:
                return

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def check(self) -> bool:
        """True; fails with the end of the log if it has ended."""
        assert self._popen.poll() is None, self.tail()
        return True

    def terminate(self, timeout_s: float) -> int:
        """Its exit code after SIGTERM."""
        self._popen.send_signal(signal.SIGTERM)
        return self._popen.wait(timeout_s)

    def stop(self, timeout_s: float = 20.0) -> None:
        """End it politely, and after so long, with all that it started, by force."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):  # the whole group goes below
                self._popen.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):  # nothing is left
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


@dataclass
class Worker:
    """A vLLM worker."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_ready(self, timeout_s: float = 240.0) -> None:
        self.process.wait_for(f"{self.url}/health", timeout_s)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 if there are none."""
        return metric_at(self.url, name, **labels)


def metric_at(url: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples at `url`/metrics that have these labels; 0 if there are none."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310
        families = text_string_to_metric_families(answer.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def start_worker(
    env: Path, model: Path, folder: Path, name: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Worker:
    """`vllm serve` by its plain command line; returns at once, for starts side by side.

    Args:
        env: virtual environment.
        model: folder of the model.
        folder: for its log and its caches.
        name: of its log.
        arguments: more of its command line.
        environment: more of its environment.
    """
    port = free_port()
    command = [str(env / "bin" / "vllm"), "serve", str(model), "--port", str(port), *ARGUMENTS, *arguments]
    settings = {
        **ENVIRONMENT,
        # The address at which NIXL's agents find each other; the port must be its own per worker on one host.
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port()),
        "VLLM_CACHE_ROOT": str(folder / "cache"),
        "VLLM_CONFIG_ROOT": str(folder / "config"),
        **(environment or {}),
    }
    return Worker(Process(command, folder / f"{name}.log", settings), port)
