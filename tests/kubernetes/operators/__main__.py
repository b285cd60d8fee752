"""`python -m tests.kubernetes.operators KUBECONFIG NAME…`: until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

from tests.kubernetes.api import Api, connect
from tests.kubernetes.operators.base import Operator, run
from tests.kubernetes.operators.dynamo import DynamoGraphs
from tests.kubernetes.operators.grove import PodCliques, PodCliqueScalingGroups, PodCliqueSets
from tests.kubernetes.operators.lws import LeaderWorkerSets

OPERATORS: dict[str, Callable[[Api], list[Operator]]] = {
    "leaderworkerset": lambda api: [LeaderWorkerSets(api)],
    "grove": lambda api: [PodCliqueSets(api), PodCliqueScalingGroups(api), PodCliques(api)],
    "dynamo-v1alpha1": lambda api: [DynamoGraphs(api, "v1alpha1")],
    "dynamo-v1beta1": lambda api: [DynamoGraphs(api, "v1beta1")],
}


async def _main(options: argparse.Namespace) -> None:
    async with connect(options.kubeconfig) as api:
        task = asyncio.create_task(run(api, [one for name in options.name for one in OPERATORS[name](api)]))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.operators")
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("name", nargs="+", choices=sorted(OPERATORS))
    asyncio.run(_main(parser.parse_args()))
