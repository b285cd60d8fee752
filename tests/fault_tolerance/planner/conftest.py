"""One graph, one Prometheus and one stream of requests for the whole folder; every test starts its own planners."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fault_tolerance.planner.installation import PATIENCE_S, Graph, Prometheus, left_running
from tests.fault_tolerance.planner.proxy import Proxy
from tests.fault_tolerance.planner.stages import Installation
from tests.fault_tolerance.planner.traffic import LOW_RPS, Traffic
from tests.fault_tolerance.planner.watch import Watch
from tests.servers import wait_until

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    mark = f"planner-under-test-{uuid.uuid4().hex}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PLIMSOLL_TEST", mark)
        environment.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
        folder = tmp_path_factory.mktemp("installation")
        with ExitStack() as stack:
            graph = Graph(folder)
            graph.start(stack)
            prometheus = Prometheus(folder, graph.targets)
            prometheus.start(stack)
            proxy = Proxy(prometheus.url, slow_s=4.0)
            traffic, watch = Traffic(graph.gateway_url), Watch(graph)
            for one in (proxy, watch, traffic):
                one.start()
                stack.callback(one.stop)
            yield Installation(graph, prometheus, proxy, traffic, watch, stack)
        wait_until(lambda: not left_running(mark), f"everything has ended: {left_running(mark)}", PATIENCE_S)


@pytest.fixture
def installation(shared: Installation) -> Iterator[Installation]:
    """The shared one; little load again afterwards."""
    yield shared
    shared.traffic.rps = LOW_RPS
