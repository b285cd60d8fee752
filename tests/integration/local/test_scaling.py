"""A graph of real processes is scaled up and down while requests come: none is lost, and no GPU is held twice."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

from tests.integration.local.graphs import (
    DECODE,
    MANIFESTS,
    PREFILL,
    WORKER,
    Graph,
    Stream,
    Watch,
    backends,
    eventually,
    graph,
    pools,
    simulated,
)
from tests.servers import needs_smg

pytestmark = needs_smg

BUDGET = 6


def _other(rng: random.Random, before: dict[str, int], most: int) -> dict[str, int]:
    """Another count for every pool."""
    return {name: rng.choice([n for n in range(1, most + 1) if n != count]) for name, count in before.items()}


def _cycles(one: Graph, names_of_pools: Sequence[str], cycles: int, most: int, rate: float) -> None:
    rng, client = random.Random(7), one.client  # noqa: S311
    one.settled()
    counts = dict.fromkeys(names_of_pools, 1)
    with Watch(one) as watch, Stream(one.url(), rate, osl=(300, 1500)) as stream:
        eventually(lambda: len(stream.results) > 10, "the first requests have ended")
        for _ in range(cycles):
            counts = _other(rng, counts, most)
            client.scale(counts)
            found = one.settled()
            assert pools(found, "ready") == counts
        last = time.monotonic()
        eventually(lambda: stream.completed_after(last) > 10, "requests after the last change have ended")
    assert stream.lost() == []
    assert len(stream.results) > 100
    watch.check_gpus()
    if WORKER not in counts:
        watch.check_kv()
    assert one.lost_kv() == []
    assert not any(pools(one.status(), "failures").values())
    drained = sum(text.endswith(" drained") for text in one.said().splitlines())
    print(f"{len(stream.results)} requests, none lost; {drained} workers drained; {len(watch.samples)} looks")
    assert drained >= cycles // 2


def test_prefill_and_decode_workers_come_and_go_under_load(tmp_path: Path) -> None:
    with graph(MANIFESTS / "disagg.yaml", tmp_path, *simulated(gpus=BUDGET)) as one:
        _cycles(one, (PREFILL, DECODE), cycles=20, most=3, rate=12.0)


def test_aggregated_workers_come_and_go_under_load(tmp_path: Path) -> None:
    with graph(MANIFESTS / "agg.yaml", tmp_path, *simulated(gpus=3)) as one:
        _cycles(one, (WORKER,), cycles=6, most=3, rate=8.0)


def test_the_least_loaded_worker_leaves_and_those_with_requests_stay(tmp_path: Path) -> None:
    """Two long requests, in turn on two of three workers: the third leaves, at once idle; then one of the two."""
    options = (*simulated(speed_up=1.0, gpus=3), "--routing", "round-robin")
    with graph(MANIFESTS / "agg.yaml", tmp_path, *options) as one:
        client, url = one.client, one.url()
        one.settled()
        client.scale({WORKER: 3})
        all_three = {f"http://{worker['address']}" for worker in one.settled()["workers"]}
        eventually(lambda: len(backends(url)) == 3, "the gateway sends requests to all three")
        with Stream(url, rate=20.0, isl=(50, 60), osl=(6000, 6000), count=2) as stream:
            busy = eventually(lambda: len(found := _busy(url)) == 2 and found, "two workers have a request")
            client.scale({WORKER: 2})
            found = eventually(lambda: (s := client.status())["pools"][WORKER]["draining"] and s, "one leaves")
            assert {f"http://{w['address']}" for w in found["workers"] if w["state"] == "draining"} == all_three - busy
            assert len(one.settled()["workers"]) == 2
            client.scale({WORKER: 1})
            eventually(lambda: client.status()["pools"][WORKER]["draining"], "another leaves")
            assert stream.results == []  # it has its request still
        assert stream.lost() == []
        assert len(one.settled()["workers"]) == 1


def _busy(gateway: str) -> set[str]:
    return {address for address, load in backends(gateway).items() if load}
