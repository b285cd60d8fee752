"""Real programs that tests run against: Prometheus and the smg gateway, started on free ports and stopped again.

Every starter is a context manager that waits until the program answers, and kills it and its children when left. A test
that needs one is marked `needs_prometheus` or `needs_smg` and skips with the reason where it is not installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


def program(name: str) -> str | None:
    """Where a program is: beside this interpreter, or on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


needs_prometheus = pytest.mark.skipif(program("prometheus") is None, reason="prometheus is not installed")
needs_smg = pytest.mark.skipif(program("smg") is None, reason="smg is not installed (the extra `local`)")


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, timeout_s: float = 5.0) -> str:
    """The body of an answer."""
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 (addresses are the tests' own)
        return str(answer.read().decode())


def post(url: str, body: Any, timeout_s: float = 30.0) -> str:
    """The body of the answer to JSON."""
    data, headers = json.dumps(body).encode(), {"content-type": "application/json"}
    request = urllib.request.Request(url, data, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
        return str(answer.read().decode())


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = 60.0, every_s: float = 0.1) -> None:
    """Until something holds; errors of a server that does not answer yet count as not."""
    end = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError, urllib.error.URLError):
            if true():
                return
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)


@dataclass
class Server:
    """A program that runs: where it answers, and its log."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def pause(self) -> None:
        """Stop it where it is: connections are accepted and nothing is answered."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self, grace_s: float = 30.0) -> None:
        """Ask it to end, as a service manager does, and kill what is left after the grace."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """End it and its children; once more does nothing."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def running(command: Sequence[str], url: str, log: Path, healthy: str) -> Iterator[Server]:
    """A program in a session of its own, from its first answer at `healthy` on."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent, start_new_session=True
        )
    server = Server(process, url, log)
    try:

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with {process.returncode}: {log.read_text()[-2000:]}")
            return get(healthy, 1.0) is not None

        wait_until(answers, f"{command[0]} answers at {healthy}")
        yield server
    finally:
        server.kill()


def write_targets(file: Path, jobs: Mapping[str, Sequence[str]]) -> None:
    """What Prometheus scrapes: addresses by the value of their label `pool`; replaced in one step."""
    groups = [{"targets": list(addresses), "labels": {"pool": pool}} for pool, addresses in jobs.items()]
    part = file.with_suffix(".part")
    part.write_text(json.dumps(groups), encoding="utf-8")
    part.replace(file)


@contextlib.contextmanager
def start_prometheus(folder: Path, targets_file: Path, *, scrape_s: float = 1.0, port: int = 0) -> Iterator[Server]:
    """Prometheus that scrapes the targets of a file (see `write_targets`), which may change while it runs.

    Args:
        folder: for its configuration, data and log.
        targets_file: read when it starts, when it changes, and every second.
        scrape_s: between scrapes.
        port: to listen on; a free one if 0.
    """
    port = port or free_port()
    config = folder / "prometheus.json"
    scrape = {"job_name": "graph", "file_sd_configs": [{"files": [str(targets_file)], "refresh_interval": "1s"}]}
    every = {"scrape_interval": f"{scrape_s * 1000:.0f}ms", "scrape_timeout": f"{scrape_s * 1000:.0f}ms"}
    # Prometheus reads YAML, of which JSON is a part.
    config.write_text(json.dumps({"global": every, "scrape_configs": [scrape]}), encoding="utf-8")
    command = [
        program("prometheus") or "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, url, folder / "prometheus.log", f"{url}/-/ready") as server:
        yield server


@dataclass
class Gateway:
    """An smg gateway."""

    server: Server
    metrics: str
    """host:port of its `/metrics`."""

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.server.url

    def add(self, url: str, role: str = "regular", timeout_s: float = 60.0) -> None:
        """Add a worker (`prefill`, `decode` or `regular`) and wait until requests may go there."""
        body = {"url": url, "worker_type": role, "runtime_type": "vllm"}
        if role != "regular":
            kv_role = "kv_producer" if role == "prefill" else "kv_consumer"
            body |= {"kv_connector": "NixlConnector", "kv_role": kv_role}
        post(f"{self.url}/workers", body)

        def ready() -> bool:
            workers = json.loads(get(f"{self.url}/workers"))["workers"]
            return any(one["url"] == url and one.get("status") == "ready" for one in workers)

        wait_until(ready, f"{url} is ready behind the gateway", timeout_s)


@contextlib.contextmanager
def start_smg(
    folder: Path, *, disaggregated: bool = True, buckets_s: Sequence[float] = (), options: Sequence[str] = ()
) -> Iterator[Gateway]:
    """The smg gateway without workers.

    Args:
        folder: for its log.
        disaggregated: whether it has prefill and decode workers.
        buckets_s: upper bounds of its latency histograms.
        options: more of its command line.
    """
    port, metrics = free_port(), free_port()
    command = [program("smg") or "smg", "launch", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics), "--policy", "round_robin"]
    if disaggregated:
        command.append("--pd-disaggregation")
    if buckets_s:
        command += ["--prometheus-duration-buckets", *(f"{bound:g}" for bound in buckets_s)]
    url = f"http://127.0.0.1:{port}"
    with running([*command, *options], url, folder / f"smg-{port}.log", f"http://127.0.0.1:{metrics}/metrics") as one:
        yield Gateway(one, f"127.0.0.1:{metrics}")
