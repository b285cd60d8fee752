"""The life of one pod on the fake kubelet, from being bound to a node to its removal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohttp

from tests.kubernetes.annotations import Probe, Wishes, probe_of
from tests.kubernetes.api import STRATEGIC, Api, ApiError, Object
from tests.kubernetes.commands import Commands
from tests.kubernetes.runners import Runner
from tests.kubernetes.statuses import Status, now, running, terminated, waiting

#: Between readiness probes, s: of a pod that is not ready yet, and of one that is; its own period if that is longer.
_STARTING_PERIOD_S, _READY_PERIOD_S = 0.3, 2.0
#: Least timeout of a probe, s: a machine that runs all of a test's pods is slower than a node.
_PROBE_TIMEOUT_S = 2.0

MakeRunner = Callable[[Object, str], Runner]
MakeCommands = Callable[[Object, str], Commands]


class PodLife:
    """One pod.

    Args:
        pod: as it was seen first, with a node.
        api: of the cluster.
        probes: the session in which probes are sent.
        delay_s: from here to running, where the pod does not say.
        ip: its address.
        make_runner: makes what runs in it.
        make_commands: makes what runs commands as in its containers.
    """

    def __init__(
        self,
        pod: Object,
        api: Api,
        probes: aiohttp.ClientSession,
        delay_s: float,
        ip: str,
        make_runner: MakeRunner,
        make_commands: MakeCommands,
    ) -> None:
        self.pod = pod
        self._api, self._probes, self._delay_s = api, probes, delay_s
        self._make_runner, self._make_commands = make_runner, make_commands
        self._ip = ip
        self._runner: Runner | None = None
        self._changed = asyncio.Event()
        self._ending = False
        about = pod["metadata"]
        self._path = f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}"
        self._status = Status(started=pod.get("status", {}).get("startTime") or now())
        self._task = self._spawn(self._live())

    def seen(self, pod: Object) -> None:
        """A newer version of it."""
        self.pod = pod
        self._changed.set()
        if "deletionTimestamp" in pod["metadata"] and not self._ending:
            self._ending = True
            living = self._task
            living.cancel()
            self._task = self._spawn(self._end(living))

    async def gone(self) -> None:
        """The object is no more: nothing of it may stay."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self._runner is not None:
            await self._runner.kill()

    # From start to end.

    async def _live(self) -> None:
        status = self._status
        await self._report()
        while self._wishes.true("image-pull-fails"):
            await self._image_pull_backs_off()
        await asyncio.sleep(self._wishes.seconds("start-delay-s", self._delay_s))
        while True:
            self._runner = self._make_runner(self.pod, self._ip)
            await self._runner.start()
            status.phase, status.state, status.ip = "Running", running(), self._ip
            started = status.state["running"]["startedAt"]
            await self._report()
            code, message = await self._serve(self._runner)
            await self._runner.kill()
            end = terminated(code, started, message)
            status.ready = False
            policy = self.pod["spec"].get("restartPolicy", "Always")
            if policy == "Never" or (policy == "OnFailure" and code == 0):
                status.phase, status.state = ("Succeeded" if code == 0 else "Failed"), end
                await self._report()
                return
            status.restarts += 1
            status.last_state = end
            message = f"back-off restarting failed container {self.pod['spec']['containers'][0]['name']}"
            status.state = waiting("CrashLoopBackOff", message)
            await self._report()
            await self._event("Warning", "BackOff", "Back-off restarting failed container")
            await self._wait_changed(self._wishes.seconds("crash-backoff-s", 1.0), until=lambda: False)

    async def _image_pull_backs_off(self) -> None:
        image = self.pod["spec"]["containers"][0]["image"]
        self._status.state = waiting("ErrImagePull", f'failed to pull image "{image}": not found')
        await self._report()
        await self._event("Warning", "Failed", f'Failed to pull image "{image}": not found')
        self._status.state = waiting("ImagePullBackOff", f'Back-off pulling image "{image}"')
        await self._report()
        await self._wait_changed(None, until=lambda: not self._wishes.true("image-pull-fails"))
        self._status.state = waiting("ContainerCreating")
        await self._report()

    async def _serve(self, runner: Runner) -> tuple[int, str]:
        """Report readiness until it ends or is to crash."""
        tasks = [
            asyncio.create_task(runner.ended()),
            asyncio.create_task(self._crash()),
            asyncio.create_task(self._watch_readiness(runner)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(result for task in tasks if task in done and (result := task.result()) is not None)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _crash(self) -> tuple[int, str]:
        await self._wait_changed(None, until=lambda: self._wishes.crashes(self._status.restarts))
        await asyncio.sleep(self._wishes.seconds("crash-after-s"))
        return 1, "crashed as the test asked for it"

    async def _watch_readiness(self, runner: Runner) -> None:
        own = probe_of(self.pod) if runner.probe is not None or isinstance(runner, Commands) else None
        if own is None and runner.probe is None:
            await asyncio.sleep(self._wishes.seconds("ready-delay-s"))
            await self._set_ready(value=True)
            await asyncio.Event().wait()
        probe = own or Probe(*runner.probe, period_s=0.0)  # type: ignore[misc]
        failed = 0
        while True:
            failed = 0 if await self._answers(probe) else failed + 1
            if failed in {0, probe.failures}:
                await self._set_ready(value=not failed)
            await asyncio.sleep(max(probe.period_s, _READY_PERIOD_S) if self._status.ready else _STARTING_PERIOD_S)

    async def _answers(self, probe: Probe) -> bool:
        timeout = aiohttp.ClientTimeout(total=max(probe.timeout_s, _PROBE_TIMEOUT_S))
        try:
            async with self._probes.get(f"http://{self._ip}:{probe.port}{probe.path}", timeout=timeout) as answer:
                return 200 <= answer.status < 400
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _set_ready(self, *, value: bool) -> None:
        if value != self._status.ready:
            self._status.ready = value
            await self._report()

    async def _end(self, living: asyncio.Task[None]) -> None:
        with suppress(asyncio.CancelledError):
            await living
        grace_s = float(self.pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        code = 0
        if self._runner is not None and "running" in self._status.state:
            code = await self._stop_within(self._runner, grace_s)
            self._status.ready = False
            self._status.state = terminated(code, self._status.state["running"]["startedAt"])
            await self._report()
        uid = self.pod["metadata"]["uid"]
        with suppress(ApiError):
            await self._api.delete(self._path, {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})

    async def _stop_within(self, runner: Runner, grace_s: float) -> int:
        """Stop it while its readiness goes on being told."""
        watching = asyncio.create_task(self._watch_readiness(runner))
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._pre_stop()
            return await runner.stop(max(0.0, end - loop.time()))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _pre_stop(self) -> None:
        hook = self.pod["spec"]["containers"][0].get("lifecycle", {}).get("preStop", {})
        if not hook or not self._wishes.true("pre-stop"):
            return
        if "exec" in hook:
            code = await self._make_commands(self.pod, self._ip).run_hook(hook["exec"]["command"])
            failed = f"preStop command ended with {code}" if code else ""
        else:
            port, path = hook["httpGet"]["port"], hook["httpGet"].get("path", "/")
            async with self._probes.get(f"http://{self._ip}:{port}{path}") as answer:
                failed = f"preStop request was answered {answer.status}" if answer.status >= 400 else ""
        if failed:
            await self._event("Warning", "FailedPreStopHook", failed)

    # Small things.

    @property
    def _wishes(self) -> Wishes:
        return Wishes.of(self.pod)

    async def _wait_changed(self, seconds: float | None, until: Callable[[], bool]) -> None:
        """Until something holds of the pod, or time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not until():
                    self._changed.clear()
                    await self._changed.wait()

    async def _report(self) -> None:
        # 404 and 409: it was deleted, or is another of the same name; the watch says so.
        with suppress(ApiError):
            await self._api.patch(f"{self._path}/status", self._status.body(self.pod), STRATEGIC)

    async def _event(self, kind: str, reason: str, message: str) -> None:
        about = self.pod["metadata"]
        at = now()
        body = {
            "metadata": {"generateName": f"{about['name']}."},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "namespace": about["namespace"], "name": about["name"],
                "uid": about["uid"],
            },
            "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": at, "lastTimestamp": at,
            "source": {"component": "kubelet", "host": self.pod["spec"]["nodeName"]},
        }  # fmt: skip
        with suppress(ApiError):
            await self._api.create(f"/api/v1/namespaces/{about['namespace']}/events", body)

    def _spawn(self, life: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        name = f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"
        task = asyncio.create_task(life, name=name)
        task.add_done_callback(_tell)
        return task


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"the life of pod {task.get_name()} broke off", "exception": error, "task": task}
        )
