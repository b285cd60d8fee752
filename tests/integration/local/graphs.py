"""`planner graph up` as a program of its own with all that it starts, load on it, and eyes on it while that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests

from planner.demo.settings import bundled_profiles
from profiler.errors import DependencyError
from profiler.load import Counting, Load, Outcome, Result, ScheduledRequest
from tests.servers import get
from worker_graph.local.client import Client
from worker_graph.local.up import running

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "manifests"
#: The model that the graphs there serve, and their pools.
MODEL = "Qwen/Qwen3-0.6B"
PREFILL, DECODE, WORKER = "VllmPrefillWorker", "VllmDecodeWorker", "VllmWorker"

#: Engines say so when a hand-off went wrong; both count in the metrics below, too.
_LOST_KV = re.compile(r"cannot be fetched|left to expire")
LOST_KV_METRICS = ("vllm:nixl_num_failed_transfers_total", "vllm:nixl_num_kv_expired_reqs_total")


def simulated(speed_up: float = 5.0, startup_s: float = 0.0, gpus: int = 8) -> tuple[str, ...]:
    """Options of `up` for simulated engines on any free port."""
    return (
        "--engine", "simulated", "--profile", str(bundled_profiles()), "--speed-up", f"{speed_up:g}",
        "--startup-s", f"{startup_s:g}", "--gpus", str(gpus), "--port", "0",
    )  # fmt: skip


def alive(place: Path) -> dict[int, str]:
    """Processes that were started in a folder, with their command lines; zombies do not count.

    A working folder is inherited by whatever is started, so that all of it is found without the book-keeping that is
    tested. (The environment would not do: the gateway overwrites its own.)
    """
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if (folder / "cwd").readlink() == place:
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


def eventually(find: Callable[[], T], what: str, timeout_s: float = 60.0) -> T:
    """The first true thing that is found; a server that does not answer is not it."""
    end = time.monotonic() + timeout_s
    while True:
        found: Any = None
        with contextlib.suppress(DependencyError, requests.RequestException):
            found = find()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout_s:g} s; last seen: {found!r}")
        time.sleep(0.1)


class Graph:
    """A graph that runs, or one that ran and whose traces are looked at."""

    def __init__(self, file: Path, run_dir: Path, process: subprocess.Popen[bytes], place: Path) -> None:
        self.file, self.run_dir, self.process, self.place = file, run_dir, process, place
        self.log = run_dir.parent / f"{run_dir.name}.out"

    @property
    def client(self) -> Client:
        """A client of its control interface; one for each thread."""
        found = eventually(lambda: running(self.run_dir), f"the graph is up; {self.said()}")
        return Client(found["control_url"])

    def said(self) -> str:
        """Everything that `up` said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def status(self) -> dict[str, Any]:
        """Its status now."""
        return self.client.status()

    def url(self) -> str:
        """Where requests go."""
        return str(self.status()["gateway"]["url"])

    def settled(self, timeout_s: float = 90.0) -> dict[str, Any]:
        """Its status once all that is asked for serves and nothing else is left."""
        client = self.client

        def reached() -> dict[str, Any] | None:
            found = client.status()
            pools = found["pools"].values()
            whole = all(pool["ready"] == pool["desired"] and not pool["draining"] for pool in pools)
            return found if whole and found["gateway"]["ready"] else None

        return eventually(reached, "the graph is as it is asked to be", timeout_s)

    def worker(self, pool: str) -> dict[str, Any]:
        """One ready worker of a pool."""
        return next(one for one in self.status()["workers"] if one["pool"] == pool and one["state"] == "ready")

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        """A signal to `up`, and its exit code once it has ended."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def left(self, timeout_s: float = 10.0) -> dict[int, str]:
        """What still runs of it; SIGKILL takes a moment to be carried out."""
        return left(self.place, timeout_s)

    def lost_kv(self) -> list[str]:
        """Lines of workers' logs that tell of a hand-off that went wrong."""
        logs = sorted((self.run_dir / "logs").glob("*worker*.log"))
        return [line for log in logs for line in log.read_text().splitlines() if _LOST_KV.search(line)]


def left(place: Path, timeout_s: float = 10.0) -> dict[int, str]:
    """What still runs there after so long."""
    end = time.monotonic() + timeout_s
    while (found := alive(place)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def cleaned() -> Iterator[Path]:
    """A folder to start programs in; whatever was started there is killed at the end, whatever happened."""
    place = Path(tempfile.mkdtemp()).resolve()
    try:
        yield place
    finally:
        while running_there := alive(place):
            for pid in running_there:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        shutil.rmtree(place)


def planner(*words: str | Path) -> list[str]:
    """A command line of the program."""
    return [sys.executable, "-m", "planner", *map(str, words)]


def environment() -> dict[str, str]:
    """For programs of this checkout that are started elsewhere; wide output, so that no message is wrapped."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def graph(file: Path, folder: Path, *options: str) -> Iterator[Graph]:
    """`planner graph up` in the foreground of a session of its own; all of it is gone at the end."""
    run_dir = folder / "run"
    with cleaned() as place:
        with (folder / "run.out").open("ab") as log:
            process = subprocess.Popen(
                planner("graph", "up", file, "--run-dir", run_dir, *options),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), cwd=place, start_new_session=True,
            )  # fmt: skip
        one = Graph(file, run_dir, process, place)
        try:
            yield one
            if process.poll() is None:
                one.end()
        except BaseException:
            sys.stdout.write(f"--- what `up` said\n{one.said()[-6000:]}\n")
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Said:
    """A command that has ended."""

    code: int
    out: str
    err: str


def command(*words: str | Path, place: Path | None = None, timeout_s: float = 120.0) -> Said:
    """`planner …` to its end; what it has left running by then is ended, unless `place` says where it was started."""
    with cleaned() as folder:
        done = subprocess.run(
            planner(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(),
            cwd=place or folder, timeout=timeout_s, check=False,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)


class Stream:
    """Open-loop load until it is told to stop; then waits for what is in flight.

    Args:
        url: of the gateway.
        rate: requests per second of wall time, Poisson.
        isl, osl: prompt and output lengths, uniform between these.
        seed: of all of it.
        count: requests, unless it is told to stop before.
    """

    def __init__(
        self,
        url: str,
        rate: float,
        isl: tuple[int, int] = (100, 1500),
        osl: tuple[int, int] = (200, 1200),
        seed: int = 1,
        count: int | None = None,
    ) -> None:
        self._load = Load(url, MODEL, counting=Counting.WORDS, seed=seed, timeout_s=120.0)
        self._rng = random.Random(seed)  # noqa: S311 (arrivals and lengths, no secrets)
        self._rate, self._isl, self._osl, self._count = rate, isl, osl, count
        self._over = threading.Event()
        self.results: list[tuple[float, Result]] = []
        """With the moment of their end, by the monotonic clock; in the order of their ends."""
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="load")

    def _schedule(self) -> Iterator[ScheduledRequest]:
        at_s = 0.0
        for _ in itertools.count() if self._count is None else range(self._count):
            if self._over.is_set():
                return
            at_s += self._rng.expovariate(self._rate)
            yield ScheduledRequest(at_s, self._rng.randint(*self._isl), self._rng.randint(*self._osl))

    def _run(self) -> None:
        try:
            asyncio.run(self._load.run_open(self._schedule(), lambda one: self.results.append((time.monotonic(), one))))
        except BaseException as error:  # noqa: BLE001 (raised again where the load is joined)
            self._failed.append(error)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def send_no_more(self) -> None:
        """What is in flight goes on."""
        self._over.set()

    def finish(self) -> None:
        """No more requests; returns when the last has ended."""
        self.send_no_more()
        self._thread.join(180.0)
        assert not self._thread.is_alive(), "requests are still open three minutes after the load's end"
        if self._failed:
            raise self._failed[0]

    def lost(self) -> list[str]:
        """Requests that did not complete with every token."""
        return [
            f"{one.outcome}: {one.error} ({one.counted_tokens} of {one.osl} tokens)"
            for _, one in self.results
            if one.outcome is not Outcome.COMPLETED or one.counted_tokens != one.osl
        ]

    def completed_after(self, moment: float) -> int:
        """Requests that completed later than that."""
        return sum(ended > moment and one.outcome is Outcome.COMPLETED for ended, one in self.results)


class Watch:
    """Status several times a second, and each engine's counts of lost KV every second."""

    def __init__(self, one: Graph) -> None:
        self.samples: list[dict[str, Any]] = []
        self.lost_kv: Counter[str] = Counter()
        """By worker and metric, the highest that was seen."""
        self.silent = 0
        """Looks that got no answer."""
        self._graph, self._over = one, threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        client = self._graph.client
        looks = 0
        while not self._over.wait(0.2):
            try:
                self.samples.append(client.status())
            except DependencyError:
                self.silent += 1
                continue
            looks += 1
            if looks % 5 == 0:
                for worker in self.samples[-1]["workers"]:
                    if worker["state"] in ("ready", "draining"):
                        self._scrape(worker)

    def _scrape(self, worker: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it may have ended since
            for line in get(f"http://{worker['address']}/metrics").splitlines():
                name = line.partition("{")[0]
                if name in LOST_KV_METRICS:
                    key, value = f"{worker['name']} {name}", int(float(line.rsplit(" ", 1)[1]))
                    self.lost_kv[key] = max(self.lost_kv[key], value)

    def check_gpus(self) -> None:
        """In every sample: no more GPUs held than there are, and as many as the workers that hold one."""
        assert self.samples
        for sample in self.samples:
            held = sample["gpus"]["held"]
            assert held <= sample["gpus"]["budget"], sample
            ids = [gpu for worker in sample["workers"] for gpu in worker["gpus"]]
            assert len(ids) == len(set(ids)) == held, sample

    def check_kv(self) -> None:
        """No engine lost KV, and each was asked."""
        assert self.lost_kv
        assert not any(self.lost_kv.values()), +self.lost_kv


def pools(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    """One field of every pool of a status."""
    return {name: pool[key] for name, pool in found["pools"].items()}


def backends(gateway: str) -> dict[str, int]:
    """Workers that the gateway sends requests to, by address: requests in flight, as it counts them."""
    answer = requests.get(f"{gateway}/workers", timeout=5.0, proxies={"http": ""}).json()
    return {one["url"]: int(one["load"]) for one in answer["workers"] if one["status"] == "ready"}


def names(found: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of workers."""
    return {str(one["name"]) for one in found}
