"""Processes of a graph are killed while requests come: found out, said, replaced, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.integration.local.graphs import (
    DECODE,
    MANIFESTS,
    PREFILL,
    Stream,
    Watch,
    alive,
    backends,
    command,
    eventually,
    graph,
    names,
    pools,
    simulated,
)
from tests.servers import needs_smg

pytestmark = needs_smg


@pytest.mark.parametrize("pool", [PREFILL, DECODE])
def test_a_worker_that_is_killed_is_replaced_and_only_its_requests_are_lost(tmp_path: Path, pool: str) -> None:
    # The replacement takes two seconds to start, so that it can be seen to start.
    with graph(MANIFESTS / "disagg.yaml", tmp_path, *simulated(speed_up=2.0, startup_s=4.0, gpus=5)) as one:
        client = one.client
        one.settled()
        client.scale({PREFILL: 2, DECODE: 2})
        one.settled()
        url, victim = one.url(), one.worker(pool)
        with Watch(one) as watch, Stream(url, rate=5.0, isl=(4000, 12_000)) as stream:
            eventually(lambda: len(stream.results) > 20, "requests end")
            assert stream.lost() == []
            on_it = eventually(lambda: backends(url)[f"http://{victim['address']}"], "it has a request")
            os.kill(victim["pid"], signal.SIGKILL)
            killed = time.monotonic()
            found = eventually(lambda: (s := client.status())["pools"][pool]["failures"] and s, "it is noticed")
            noticed_s = time.monotonic() - killed
            assert victim["name"] not in names(found["workers"])
            assert victim["name"] in found["pools"][pool]["last_failure"]
            assert "exit code -9" in found["pools"][pool]["last_failure"]
            assert pools(found, "desired") == {PREFILL: 2, DECODE: 2}
            assert found["pools"][pool]["ready"] + found["pools"][pool]["starting"] == 2
            one.settled()
            replaced = time.monotonic()
            eventually(lambda: stream.completed_after(replaced) > 20, "requests end after the replacement")
        lost = [(ended, one) for ended, one in stream.results if one.outcome != "completed"]
        late = [one for ended, one in lost if ended > replaced]
        print(
            f"{pool}: noticed after {noticed_s:.1f} s, replaced after {replaced - killed:.1f} s; {on_it} requests on it"
            f" by the gateway's count, {len(lost)} of {len(stream.results)} lost: {stream.lost()[:3]}"
        )
        assert late == []
        # Those that it had, and those that the gateway sent there before the supervisor had taken it out.
        assert len(lost) <= on_it + 5.0 * (noticed_s + 1.0)
        watch.check_gpus()
        for sample in watch.samples:
            held = sum(p["gpus_per_worker"] * (p["ready"] + p["starting"]) for p in sample["pools"].values())
            assert sample["gpus"]["held"] <= held + sum(p["draining"] for p in sample["pools"].values())
        assert any(s["pools"][pool]["starting"] and s["pools"][pool]["failures"] for s in watch.samples)


def test_a_pool_whose_command_ends_at_once_backs_off_and_says_why(tmp_path: Path) -> None:
    """Decode workers crash from a certain moment on; the prefill pool serves and scales all the same."""
    with graph(MANIFESTS / "disagg.yaml", tmp_path, *simulated(gpus=6)) as one:
        client = one.client
        one.settled()
        timing = one.run_dir / f"timing-{DECODE}.npz"
        whole = timing.read_bytes()
        timing.write_bytes(b"damaged")
        client.scale({DECODE: 3})
        began = time.monotonic()
        found = eventually(lambda: (s := client.status())["pools"][DECODE]["failures"] >= 6 and s, "six failures", 90.0)
        took_s = time.monotonic() - began
        failure = found["pools"][DECODE]["last_failure"]
        print(f"six failures of two workers in {took_s:.1f} s; {failure}")
        assert "exit code" in failure
        log = Path(failure.rsplit("(", 1)[1].rstrip(")"))
        assert log.read_text().strip().splitlines()[-1].strip() in failure
        waiting = eventually(
            lambda: [w for w in client.status()["workers"] if w["state"] == "pending" and "next try in" in w["reason"]],
            "a worker waits and says for what",
        )
        assert failure.split(" ", 1)[0].rsplit("-", 1)[0] in waiting[0]["reason"]
        # Pauses of 0, 1, 2, 4, 8 … s: the next failures come no sooner than that, however long starting takes.
        before = client.status()["pools"][DECODE]["failures"]
        time.sleep(8.0)
        assert client.status()["pools"][DECODE]["failures"] - before <= 4
        # The other pool is as it was, and scales; so does this one as soon as its command is right.
        assert client.status()["pools"][PREFILL] | {"startup_s": []} == found["pools"][PREFILL] | {"startup_s": []}
        client.scale({PREFILL: 2})
        eventually(lambda: client.status()["pools"][PREFILL]["ready"] == 2, "the other pool scales")
        shown = command("graph", "status", one.file, "--run-dir", one.run_dir)
        assert shown.code == 1
        assert "failures, the last:" in shown.out
        assert str(log.parent) in shown.out
        timing.write_bytes(whole)
        found = one.settled(120.0)
        assert pools(found, "ready") == {PREFILL: 2, DECODE: 3}
        with Stream(one.url(), rate=5.0) as stream:
            eventually(lambda: len(stream.results) > 20, "requests end")
        assert stream.lost() == []


def test_a_gateway_that_is_killed_comes_back_and_knows_its_workers(tmp_path: Path) -> None:
    with graph(MANIFESTS / "disagg.yaml", tmp_path, *simulated(gpus=6)) as one:
        client = one.client
        one.settled()
        client.scale({PREFILL: 2, DECODE: 2})
        before = one.settled()
        url = one.url()
        with Stream(url, rate=5.0) as stream:
            eventually(lambda: len(stream.results) > 10, "requests end")
            assert stream.lost() == []
            os.kill(client.status()["gateway"]["pid"], signal.SIGKILL)
            killed = time.monotonic()
            eventually(lambda: client.status()["gateway"]["restarts"], "it is started again")
            eventually(lambda: len(backends(url)) == 4, "it sends requests to all workers")
            back = time.monotonic()
            eventually(lambda: stream.completed_after(back) > 20, "requests end again")
        late = [one for ended, one in stream.results if ended > back and one.outcome != "completed"]
        print(f"serves again after {back - killed:.1f} s; {len(stream.lost())} of {len(stream.results)} lost")
        assert late == []
        found = one.settled()
        assert names(found["workers"]) == names(before["workers"])
        assert found["gateway"]["ready"]
        assert not any(pools(found, "failures").values())
        # And it can still be scaled: a worker that leaves is drained by the new gateway.
        client.scale({PREFILL: 1, DECODE: 1})
        assert pools(one.settled(), "ready") == {PREFILL: 1, DECODE: 1}


def test_workers_that_leave_or_die_while_the_gateway_is_away_do_not_hold_it_up(tmp_path: Path) -> None:
    """Gateway and a worker die at the same moment, and another is asked to leave: the rest is registered, again too."""
    with graph(MANIFESTS / "disagg.yaml", tmp_path, *simulated(gpus=6)) as one:
        client = one.client
        one.settled()
        client.scale({PREFILL: 3, DECODE: 2})
        one.settled()
        url, victim = one.url(), one.worker(PREFILL)
        os.kill(client.status()["gateway"]["pid"], signal.SIGKILL)
        os.kill(victim["pid"], signal.SIGKILL)
        client.scale({PREFILL: 2, DECODE: 1})
        one.settled()
        eventually(lambda: len(backends(url)) == 3, "the gateway knows those that stay")
        os.kill(client.status()["gateway"]["pid"], signal.SIGKILL)
        eventually(lambda: client.status()["gateway"]["restarts"] == 2, "its second end is noticed")
        one.settled()
        eventually(lambda: len(backends(url)) == 3, "the gateway knows them again")
        with Stream(url, rate=5.0) as stream:
            eventually(lambda: len(stream.results) > 20, "requests end")
        assert stream.lost() == []


@pytest.mark.parametrize("verb", ["down", "up"])
def test_what_a_killed_supervisor_left_is_ended_by_the_next_command(tmp_path: Path, verb: str) -> None:
    with graph(MANIFESTS / "disagg.yaml", tmp_path, *simulated()) as one:
        one.settled()
        url = one.url()
        one.process.kill()
        one.process.wait()
        left = alive(one.place)
        assert len(left) >= 3, left  # the gateway and two workers outlive it
        said = command("graph", "status", one.file, "--run-dir", one.run_dir)
        assert said.code == 3
        assert "is not running" in said.err
        if verb == "down":
            said = command("graph", "down", one.file, "--run-dir", one.run_dir)
            assert said.code == 0
            assert f"ended {len(left)} processes" in said.err
            assert one.left() == {}
        else:
            # The same port, too: what was left had it.
            options = [*simulated(), "--port", url.rsplit(":", 1)[1]]
            with graph(MANIFESTS / "disagg.yaml", tmp_path, *options) as again:
                again.settled()
                assert one.left() == {}
                assert again.url() == url
                with Stream(url, rate=5.0) as stream:
                    eventually(lambda: len(stream.results) > 5, "requests end")
                assert stream.lost() == []
                assert again.end() == 0
                assert again.left() == {}
