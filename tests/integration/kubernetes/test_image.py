"""The image without a container: its steps, and the planner in what they make: read-only, another user, no rights."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.kubernetes import image
from tests.manifests import ROOT
from tests.servers import free_port, get, wait_until

PROFILES = ROOT / "profiling_results" / "llama-3.1-8b-instruct-fp8"
isolated = pytest.mark.skipif(
    not image.can_isolate(), reason="not allowed here: mounts of one's own (root and unshare)"
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o755)  # as in an image: others may read
    return image.build(folder)


@pytest.fixture
def config(tmp_path: Path) -> tuple[Path, int]:
    port = free_port()
    folder = tmp_path / "config"
    folder.mkdir()
    settings = {
        "graph": "chat", "model": "llama",
        "connector": {"kind": "dry_run", "dry_run": {"workers": {"prefill": 1, "decode": 1}}},
        "profiles": ["/srv/plimsoll/profiling_results"],
        "sla": {"ttft_ms": 200, "itl_ms": 10}, "budget": {"max_gpus": 16},
        "pools": {"prefill": {"role": "prefill"}, "decode": {"role": "decode"}},
        "tuning": {"interval_s": 1},
        "service": {
            "host": "0.0.0.0", "port": port,  # noqa: S104
            "journal": "/var/lib/plimsoll/journal.jsonl", "checkpoint": "/var/lib/plimsoll/checkpoint.json",
        },
    }  # fmt: skip
    (folder / "planner.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder, port


def test_what_is_not_run_in_a_pod_is_not_in_it(target: Path) -> None:
    there = {path.name for path in target.iterdir()}
    assert {"planner", "profiler", "worker_graph", "numpy", "scipy", "kubernetes"} <= there
    assert not {"torch", "numba", "llvmlite", "plotly", "pytest", "smg"} & there
    assert not [path for path in target.rglob("tests") if path.is_dir()]


@isolated
def test_nothing_can_be_written_and_nobody_is_root(target: Path, config: tuple[Path, int], tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    ask = """
import os
assert (os.getuid(), os.getgid(), os.getgroups()) == (65532, 65532, []), os.getuid()
for place in ("/", "/opt/plimsoll", "/etc/plimsoll", "/usr", "/srv/plimsoll/profiling_results"):
    try:
        open(f"{place}/new", "w")
    except OSError as error:
        assert error.strerror in ("Read-only file system", "Permission denied"), error
    else:
        raise AssertionError(place)
for place in ("/tmp", "/var/lib/plimsoll"):
    open(f"{place}/new", "w").close()
"""
    words = image.inside(target, config[0], PROFILES, state, [image.PYTHON, "-c", ask])
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def planner(target: Path, config: Path, state: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [image.PYTHON, "-m", "planner", "run", "--config", "/etc/plimsoll/planner.yaml"]
    with log.open("wb") as out:
        process = subprocess.Popen(image.inside(target, config, PROFILES, state, command), stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@isolated
def test_the_planner_plans_in_it_and_ends_gracefully(target: Path, config: tuple[Path, int], tmp_path: Path) -> None:
    folder, port = config
    state, log = tmp_path / "state", tmp_path / "log"
    state.mkdir()
    with planner(target, folder, state, log) as process:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return get(f"http://127.0.0.1:{port}/readyz") == "ok\n"

        wait_until(ready, "ready")
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "Uid:\t65532\t65532\t65532\t65532" in status
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "sla_planner_ticks_total" in get(f"http://127.0.0.1:{port}/metrics")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    assert "ended" in log.read_text().splitlines()[-1]
    assert (state / "checkpoint.json").is_file()
    assert (state / "journal.jsonl").read_text().count("\n") >= 1
