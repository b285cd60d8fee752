"""Containers whose commands run on this machine, as the annotation `plimsoll.test/exec` asks for it.

A container gets the pod's environment (values, the downward API, ConfigMaps and Secrets, $(NAME) expanded), a working
directory of its own, and KUBECONFIG of the pod's service account, since nothing can be mounted where an in-cluster
client looks. PATH begins with this interpreter's folder, so that `planner`, `profiler` and `python` are the project's.

There are no mounts: each volume is a folder on this machine, and every path in command, arguments, environment and
working directory that begins with a volume's mountPath is rewritten to begin with that folder. It is in
PLIMSOLL_TEST_VOLUME_<NAME> too (in capitals, - as _). The folder is `plimsoll.test/volume-NAME` where the pod has that,
else the path of a hostPath, one per claim for a PersistentVolumeClaim, one per pod with the files of a ConfigMap,
Secret or projected volume, or an empty one. Files of ConfigMaps are written when the pod starts and not updated.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.kubernetes.annotations import Wishes
from tests.kubernetes.api import Api, Object
from tests.kubernetes.pki import write_kubeconfig
from tests.kubernetes.runners import Runner


class Commands(Runner):
    """The containers of a pod as processes, each in a session of its own; logs are `FOLDER/CONTAINER.log`.

    Args:
        pod: the pod.
        api: of the cluster.
        ip: the pod's address.
        folder: the pod's, on this machine.
        claims: where the folders of claims are.
        access: URL and authority of the API server, for the pod's kubeconfig.
    """

    def __init__(self, pod: Object, api: Api, ip: str, folder: Path, claims: Path, access: tuple[str, Path]) -> None:
        self._pod, self._api, self._ip, self._folder, self._claims, self._access = pod, api, ip, folder, claims, access
        self._wishes = Wishes.of(pod)
        self._namespace = pod["metadata"]["namespace"]
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._mounts: dict[str, dict[str, Path]] = {}
        named = self._wishes.get("exec")
        self._chosen = None if named == "true" else set(named.split(","))

    async def start(self) -> None:
        """Init containers one after the other, then all others at once."""
        self._begun = asyncio.create_task(self._begin())

    async def ended(self) -> tuple[int, str]:
        """When all have ended, or one has failed: the worst exit code and that container's last line."""
        failed = await self._begun
        if failed is not None:
            return failed
        waits = {name: asyncio.create_task(one.wait()) for name, one in self._processes.items()}
        await asyncio.gather(*waits.values())
        codes = {name: _exit_code(task.result()) for name, task in waits.items()}
        worst = max(codes, key=lambda name: codes[name])
        return codes[worst], self._last_line(worst) if codes[worst] else ""

    async def stop(self, grace_s: float) -> int:
        """SIGTERM, and SIGKILL at the end of the grace."""
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                self._signal(signal.SIGTERM)
                for process in self._processes.values():
                    await process.wait()
        late = loop.time() >= end
        await self.kill()
        return 137 if late else 0

    async def kill(self) -> None:
        """SIGKILL to all and their children."""
        self._begun.cancel()
        self._signal(signal.SIGKILL)
        for process in self._processes.values():
            await process.wait()

    async def run_hook(self, command: list[str]) -> int:
        """Run a command as in the first container, whether or not that runs here; log in `pre-stop.log`."""
        await self._prepare()
        first = self._pod["spec"]["containers"][0]
        process = await self._launch({**first, "command": command, "args": []}, "pre-stop")
        try:
            return _exit_code(await process.wait())
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)

    # Start.

    async def _prepare(self) -> None:
        """Volumes and the service account's kubeconfig."""
        self._folder.mkdir(parents=True, exist_ok=True)
        spec = self._pod["spec"]
        folders = {volume["name"]: await self._volume(volume) for volume in spec.get("volumes", [])}
        everything = [*spec.get("initContainers", []), *spec["containers"]]
        for container in everything:
            mounts = container.get("volumeMounts", [])
            # A volume that the server adds itself (service account) has nothing here.
            self._mounts[container["name"]] = {
                one["mountPath"].rstrip("/"): folders[one["name"]] / one.get("subPath", "") for one in mounts
            }
        self._kubeconfig = await self._service_account()
        self._folders = folders

    async def _begin(self) -> tuple[int, str] | None:
        await self._prepare()
        spec = self._pod["spec"]
        for container in spec.get("initContainers", []):
            if self._runs(container):
                code = _exit_code(await (await self._launch(container)).wait())
                if code:
                    return code, self._last_line(container["name"])
        for container in spec["containers"]:
            if self._runs(container):
                self._processes[container["name"]] = await self._launch(container)
        return None

    def _runs(self, container: Object) -> bool:
        return self._chosen is None or container["name"] in self._chosen

    async def _launch(self, container: Object, name: str = "") -> asyncio.subprocess.Process:
        own = await self._environment(container)
        words = [*container.get("command", []), *container.get("args", [])]
        if not words:
            raise RuntimeError(f"container {container['name']} has no command, and images cannot be run here")
        words = [self._rewritten(_expanded(word, own), container) for word in words]
        work = Path(self._rewritten(container.get("workingDir", ""), container) or self._folder)
        if not work.is_dir():
            work = self._folder
        env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}", **own}
        with (self._folder / f"{name or container['name']}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *words, cwd=work, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    async def _volume(self, volume: Object) -> Path:
        name = volume["name"]
        if named := self._wishes.get(f"volume-{name}"):
            return Path(named)
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        folder = self._folder / "volumes" / name
        if "persistentVolumeClaim" in volume:
            folder = self._claims / self._namespace / volume["persistentVolumeClaim"]["claimName"]
        folder.mkdir(parents=True, exist_ok=True)
        for source in [volume, *volume.get("projected", {}).get("sources", [])]:
            for kind in ("configMap", "secret"):
                if kind in source:
                    await self._write(folder, kind, source[kind])
        return folder

    async def _write(self, folder: Path, kind: str, source: Object) -> None:
        data = await self._data(
            kind, source.get("name") or source["secretName"], optional=source.get("optional", False)
        )
        items = {one["key"]: one["path"] for one in source.get("items", [])} or {key: key for key in data}
        for key, path in items.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data[key])

    async def _data(self, kind: str, name: str, *, optional: bool) -> dict[str, bytes]:
        path = f"/api/v1/namespaces/{self._namespace}/{kind.lower()}s/{name}"
        found = await self._api.find(path)
        if found is None:
            if optional:
                return {}
            raise RuntimeError(f'{kind.lower()} "{name}" not found')
        if kind == "secret":
            return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        return {key: value.encode() for key, value in (found.get("data") or {}).items()} | binary

    async def _service_account(self) -> Path | None:
        spec = self._pod["spec"]
        if spec.get("automountServiceAccountToken") is False:
            return None
        name = spec.get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{name}/token"
        about = self._pod["metadata"]
        # Bound to the pod, as a kubelet's are: the audit log then says whose request it was.
        bound = {"apiVersion": "v1", "kind": "Pod", "name": about["name"], "uid": about["uid"]}
        asked = {"expirationSeconds": 3600, "audiences": [], "boundObjectRef": bound}
        made = await self._api.create(path, {"spec": asked})
        url, authority = self._wishes.get("api-server", self._access[0]), self._access[1]
        user = {"token": made["status"]["token"]}
        return write_kubeconfig(self._folder / "kubeconfig", url, authority, user, self._namespace)

    # Environment.

    async def _environment(self, container: Object) -> dict[str, str]:
        values: dict[str, str] = {}
        if self._kubeconfig is not None:
            values["KUBECONFIG"] = str(self._kubeconfig)
        for name, folder in self._folders.items():
            values[f"PLIMSOLL_TEST_VOLUME_{name.upper().replace('-', '_')}"] = str(folder)
        index = self._pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index")
        if index is not None:
            values["JOB_COMPLETION_INDEX"] = index
        for source in container.get("envFrom", []):
            for kind in ("configMap", "secret"):
                reference = source.get(f"{kind}Ref")
                if reference:
                    data = await self._data(kind, reference["name"], optional=reference.get("optional", False))
                    values |= {source.get("prefix", "") + key: value.decode() for key, value in data.items()}
        for one in container.get("env", []):
            value = await self._value(one)
            if value is not None:
                values[one["name"]] = self._rewritten(_expanded(value, values), container)
        return values

    async def _value(self, variable: Object) -> str | None:
        source = variable.get("valueFrom")
        if not source:
            return str(variable.get("value", ""))
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        for kind in ("configMap", "secret"):
            reference = source.get(f"{kind}KeyRef")
            if reference:
                data = await self._data(kind, reference["name"], optional=reference.get("optional", False))
                found = data.get(reference["key"])
                return None if found is None else found.decode()
        raise RuntimeError(f"env {variable['name']}: {', '.join(source)} is not known here")

    def _field(self, path: str) -> str:
        about, spec = self._pod["metadata"], self._pod["spec"]
        within = re.fullmatch(r"metadata\.(annotations|labels)\['(.+)'\]", path)
        if within:
            return str(about.get(within[1], {}).get(within[2], ""))
        return str(
            {
                "metadata.name": about["name"],
                "metadata.namespace": about["namespace"],
                "metadata.uid": about["uid"],
                "spec.nodeName": spec.get("nodeName", ""),
                "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
                "status.podIP": self._ip,
                "status.hostIP": "127.0.0.1",
            }[path]
        )

    def _rewritten(self, text: str, container: Object) -> str:
        mounts = self._mounts[container["name"]]
        if not mounts:
            return text
        # In one pass: a folder of this machine may begin as another mount does.
        paths = "|".join(map(re.escape, sorted(mounts, key=len, reverse=True)))
        return re.sub(rf"(?<![\w.-/])({paths})(?![\w.-])", lambda found: str(mounts[found[1]]), text)

    # End.

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

    def _last_line(self, name: str) -> str:
        lines = (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][-1000:] if lines else ""


def _exit_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """$(NAME) by its value, $$(NAME) by $(NAME), and what is not known left as it is; as Kubernetes has it."""
    return re.sub(
        r"\$(\$\([\w.-]+\))|\$\(([\w.-]+)\)",
        lambda found: found[1] or values.get(found[2], found[0]),
        text,
    )
