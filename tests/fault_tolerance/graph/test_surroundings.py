"""`planner graph` where something is wrong around it: it says what, with the right exit code, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.local.graphs import (
    DECODE,
    MANIFESTS,
    PREFILL,
    WORKER,
    Said,
    cleaned,
    command,
    eventually,
    graph,
    left,
    pools,
    simulated,
)
from tests.servers import needs_smg

AGG, DISAGG = MANIFESTS / "agg.yaml", MANIFESTS / "disagg.yaml"


def refused(tmp_path: Path, *options: str) -> Said:
    """`up` that does not come up, and leaves nothing running."""
    with graph(AGG, tmp_path, *options) as one:
        code = one.process.wait(60.0)
        assert one.left() == {}
        assert "Traceback" not in one.said()
        return Said(code, "", one.said())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "sglang"), "field --engine: is 'sglang'; expected vllm, simulated"),
        (("--gateway", "nginx"), "field --gateway: is 'nginx'; expected smg"),
        (("--routing", "fastest"), "field --routing: is 'fastest'; expected least-loaded, round-robin, random, kv"),
        (("--engine", "simulated"), "field --profile: is missing"),
        (("--engine", "simulated", "--profile", "no-such-folder"), "no-such-folder"),
        (("--gpus", "-1"), "field --gpus"),
        (("--speed-up", "0"), "field --speed-up"),
        (("--port", "70000"), "field --port"),
        (("--startup-timeout-s", "nan"), "field --startup-timeout-s"),
        (("--vllm-command", " "), "field --vllm-command: is empty"),
        (("--engine", "simulated", "--gpus", "0"), "field --gpus: 1 VllmWorker take 1 GPUs; expected at most 0"),
    ],
)
def test_wrong_options_are_named_and_start_nothing(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    answer = refused(tmp_path, *options)
    assert answer.code == 2, answer.err
    assert said in answer.err


@needs_smg
@pytest.mark.parametrize(
    ("option", "what"),
    [("--port", "gateway"), ("--metrics-port", "gateway metrics"), ("--control-port", "control interface")],
)
def test_a_port_that_is_taken_is_named(tmp_path: Path, option: str, what: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = refused(tmp_path, *simulated(), option, str(port))
    assert answer.code == 3, answer.err
    assert f"{what}: 127.0.0.1:{port} cannot be listened on: Address already in use" in answer.err


@needs_smg
def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    answer = refused(tmp_path, *simulated(), "--host", "192.0.2.1")
    assert answer.code == 3, answer.err
    assert "192.0.2.1" in answer.err


def test_without_the_gateway_it_says_how_to_install_it(tmp_path: Path) -> None:
    """An interpreter in a folder of its own has no smg beside it, and the path has none either."""
    wrapper = tmp_path / "start.py"
    wrapper.write_text(
        f"import sys\nsys.executable = {str(tmp_path / 'python')!r}\nfrom planner.cli import main\nmain()\n"
    )
    (tmp_path / "python").symlink_to(sys.executable)
    words = ["graph", "up", AGG, "--run-dir", tmp_path / "run", "--port", "0"]
    done = subprocess.run(
        [sys.executable, wrapper, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": "/nonexistent", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 3, done.stderr
    assert "smg is not installed; install it with: pip install smg" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: [\n", "line"),
        ("apiVersion: v1\nkind: ConfigMap\n", "line 2"),
        ("", "graph.yaml"),
        (AGG.read_text().replace("componentType: frontend", "componentType: frontent"), "line"),
        (AGG.read_text().replace("      replicas: 1\n      envFrom", "      replicas: many\n      envFrom"), "line"),
    ],
)
def test_a_wrong_yaml_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(text)
    for words in (
        ("up", file, "--run-dir", tmp_path / "run"),
        ("status", file),
        ("scale", file, "X=1"),
        ("down", file),
    ):
        answer = command("graph", *words)
        assert answer.code == 2, answer.err
        assert str(file) in answer.err
        assert said in answer.err


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    answer = command("graph", "up", tmp_path / "none.yaml")
    assert answer.code == 2
    assert "none.yaml" in answer.err


@pytest.mark.parametrize("detach", [False, True])
def test_a_run_dir_that_cannot_be_written_is_named(tmp_path: Path, detach: bool) -> None:
    (tmp_path / "file").write_text("")
    # /proc takes no files, whoever asks; a plain file takes no folder.
    for folder in (tmp_path / "file" / "run", Path("/proc/self")):
        answer = command("graph", "up", AGG, "--run-dir", folder, *simulated(), *(["--detach"] if detach else []))
        assert answer.code == 2, answer.err
        assert "field --run-dir" in answer.err
        assert str(folder) in answer.err
        assert "Traceback" not in answer.err


def test_nothing_runs(tmp_path: Path) -> None:
    at = ("--run-dir", tmp_path / "run")
    for words in (("status", AGG), ("scale", AGG, f"{WORKER}=2")):
        answer = command("graph", *words, *at)
        assert answer.code == 3
        assert f"graph vllm-agg is not running from {tmp_path / 'run'}; start it with: planner graph up" in answer.err
    answer = command("graph", "down", AGG, *at)
    assert answer.code == 0
    assert "nothing was running" in answer.err


@needs_smg
def test_a_detached_graph_from_up_to_down(tmp_path: Path) -> None:
    at = ("--run-dir", str(tmp_path / "run"))
    with cleaned() as place:
        answer = command("graph", "up", DISAGG, *at, *simulated(startup_s=40.0, gpus=4), "--detach", place=place)
        assert answer.code == 0, answer.err
        assert answer.out.startswith("up: http://127.0.0.1:")
        eventually(lambda: command("graph", "status", DISAGG, *at).code == 0, "both workers serve")

        again = command("graph", "up", DISAGG, *at, *simulated())
        assert again.code == 3
        assert f"is running already from {tmp_path / 'run'}; end it with: down" in again.err
        again = command("graph", "up", DISAGG, *at, *simulated(), "--detach")
        assert again.code == 3
        assert "is running already" in again.err

        answer = command("graph", "scale", DISAGG, f"{DECODE}=2", f"{PREFILL}=1", *at, "--output", "json")
        assert answer.code == 0, answer.err
        assert json.loads(answer.out) == {DECODE: "1 to 2", PREFILL: "unchanged"}
        # Asked for and not there yet is no success.
        assert command("graph", "status", DISAGG, *at).code == 1
        eventually(lambda: command("graph", "status", DISAGG, *at).code == 0, "three workers serve")
        for words, code, said in (
            (
                ("VllmDecodeWorkers=2",),
                2,
                "there is no pool 'VllmDecodeWorkers'; expected VllmPrefillWorker, VllmDecodeWorker",
            ),
            ((f"{DECODE}=x",), 2, f"is '{DECODE}=x'; expected POOL=N"),
            ((f"{DECODE}=-1",), 2, "expected POOL=N"),
            ((f"{DECODE}=4",), 2, "1 VllmPrefillWorker, 4 VllmDecodeWorker take 5 GPUs; expected at most 4"),
        ):
            answer = command("graph", "scale", DISAGG, *words, *at)
            assert (answer.code, said in answer.err) == (code, True), answer.err
        found = json.loads(command("graph", "status", DISAGG, *at, "--output", "json").out)
        assert pools(found, "desired") == {PREFILL: 1, DECODE: 2}  # what was refused has changed nothing

        answer = command("graph", "down", DISAGG, *at)
        assert answer.code == 0, answer.err
        assert left(place) == {}
        assert "nothing was running" in command("graph", "down", DISAGG, *at).err


@pytest.fixture
def hanging_vllm(tmp_path: Path) -> Path:
    """A program that starts, says something, and never serves; it has a child, as vLLM has, and both ignore SIGTERM."""
    program = tmp_path / "hanging-vllm"
    program.write_text(
        f"#!{sys.executable}\n"
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('waiting for the other nodes', flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    )
    program.chmod(0o755)
    return program


@needs_smg
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_never_serves_is_named_and_tried_again_and_a_signal_ends_all(
    tmp_path: Path, hanging_vllm: Path, number: signal.Signals
) -> None:
    options = ("--port", "0", "--vllm-command", str(hanging_vllm), "--startup-timeout-s", "1")
    with graph(AGG, tmp_path, *options) as one:
        client = one.client
        if number is signal.SIGINT:
            found = eventually(
                lambda: (s := client.status())["pools"][WORKER]["failures"] >= 2 and s, "two failures", 90.0
            )
            failure = found["pools"][WORKER]["last_failure"]
            assert "not healthy after 1 s; waiting for the other nodes (" in failure
            assert str(one.run_dir / "logs") in failure
            assert found["pools"][WORKER]["desired"] == 1
            assert found["gpus"]["held"] <= 1
            eventually(
                lambda: [w for w in client.status()["workers"] if "next try in" in w["reason"]], "it waits longer", 60.0
            )
            shown = command("graph", "status", AGG, "--run-dir", one.run_dir)
            assert shown.code == 1
            assert "not healthy after 1 s" in shown.out
        else:
            eventually(lambda: len(one.left(0.0)) >= 4, "the worker and its child run")
        assert one.end(number) == 0
        assert one.left() == {}


@needs_smg
def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    with graph(AGG, tmp_path, "--port", "0", "--vllm-command", "no-such-vllm") as one:
        client = one.client
        failure = eventually(lambda: client.status()["pools"][WORKER]["last_failure"], "a failure")
        assert "no-such-vllm cannot be run: No such file or directory" in failure
        assert one.end() == 0
        assert one.left() == {}


@needs_smg
@pytest.mark.parametrize("after_s", [0.3, 1.5, 3.0])
def test_ctrl_c_on_the_way_up_leaves_nothing(tmp_path: Path, after_s: float) -> None:
    """Whatever it is at when the signal comes; before its handlers are in place Python ends it by itself."""
    with graph(DISAGG, tmp_path, *simulated()) as one:
        time.sleep(after_s)
        assert one.end(signal.SIGINT) in (0, 130, -signal.SIGINT, 1)
        assert one.left() == {}


@needs_smg
def test_a_disk_that_takes_no_logs_is_said_and_does_not_spin(tmp_path: Path) -> None:
    """The folder of the logs is gone: no worker can be started, the graph says so, and goes on once it is back."""
    with graph(DISAGG, tmp_path, *simulated()) as one:
        client = one.client
        one.settled()
        logs = one.run_dir / "logs"
        logs.rename(one.run_dir / "elsewhere")
        client.scale({DECODE: 2})
        found = eventually(lambda: (s := client.status())["pools"][DECODE]["failures"] >= 2 and s, "failures")
        assert "cannot be written" in found["pools"][DECODE]["last_failure"]
        time.sleep(5.0)
        assert client.status()["pools"][DECODE]["failures"] <= 8
        assert client.status()["gpus"]["held"] == 2
        (one.run_dir / "elsewhere").rename(logs)
        assert pools(one.settled(), "ready") == {PREFILL: 1, DECODE: 2}
