"""A program of its own: reads one request from standard input, asks aiconfigurator-core, answers on standard output.

It runs in another process, with this interpreter or one of its own: the package loads a native library and tables of
a hundred megabytes, logs as it likes, and need not live beside our dependencies. So it imports nothing of ours.

The request holds `config` (a model's config.json), `system`, `version` (None is the package's current one), `tp`,
`dp`, `moe_tp`, `moe_ep`, `gemm`, `moe`, `kv` (number formats by the package's names; None is the config's own) and the
points of one data-parallel rank: `prefill` as [[new tokens, tokens before them], ...], `decode` as [[batch, context],
...], `mixed` as [[prompt tokens, batch, context], ...]. The answer holds `package`, `version`, `current` (of which
the package fills what a newer version lacks), for each kind of points the milliseconds in their order, and `sources`:
milliseconds of a prompt of 1,024 tokens and of a step of 32 requests at that context by where the package has them
from. Or it is `missing` (the package), or `refused` with `known`, what it has.
"""

import json
import os
import sys
import tempfile
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

PACKAGE = "aiconfigurator-core"
BACKEND = "vllm"

#: Where the share of measured operators is looked at.
SAMPLE_TOKENS, SAMPLE_BATCH = 1024, 32


class Refused(Exception):  # noqa: N818 - not a fault: the answer to a request for what is not there
    """The package does not have what was asked for."""

    def __init__(self, field: str, problem: str, known: list[str]) -> None:
        super().__init__(problem)
        self.answer = {"refused": problem, "field": field, "known": known}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What the request asks for, or why there is none."""
    try:
        sdk = import_module("aiconfigurator_core.sdk")
        databases = import_module("aiconfigurator_core.sdk.perf_database")
        errors = import_module("aiconfigurator_core.sdk.errors")
        package = metadata.version(PACKAGE)
    except (ModuleNotFoundError, metadata.PackageNotFoundError) as error:
        return {"missing": str(error)}
    try:
        version = _version(databases, request["system"], request["version"])
        engine = _engine(sdk, request, version)
        current = str(databases.get_latest_database_version(request["system"], BACKEND))
        facts = {"package": package, "version": version, "current": current, "sources": _sources(engine)}
        return {**facts, **_times(engine, request)}
    except Refused as refused:
        return refused.answer
    except (AssertionError, NotImplementedError, ValueError, RuntimeError) as error:
        # The package raises these for layouts, architectures and number formats that it does not have, by its own rule.
        if isinstance(error, AssertionError | NotImplementedError) or errors.is_expected_cli_error(error):
            return {"refused": " ".join(str(error).split()), "field": "", "known": []}
        raise


def _version(databases: Any, system: str, wanted: str | None) -> str:
    """The literal version of a system's tables. `compile_engine` would go on without tables that cannot be loaded."""
    supported = {
        name: list(backends.get(BACKEND, [])) for name, backends in databases.get_supported_databases().items()
    }
    versions = supported.get(system, [])
    if not versions:
        raise Refused("gpu", f"has no {BACKEND} tables", sorted(name for name, held in supported.items() if held))
    if wanted is not None and wanted not in versions:
        raise Refused("version", f"has no {BACKEND} {wanted} for {system}", versions)
    version = wanted or databases.get_latest_database_version(system, BACKEND)
    if version is None or databases.get_database(system, BACKEND, version) is None:
        raise Refused("version", f"cannot load {BACKEND} {version} for {system}", versions)
    return str(version)


def _engine(sdk: Any, request: dict[str, Any], version: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        # A folder, never a name: the package would look a name up on the network.
        Path(folder, "config.json").write_text(json.dumps(request["config"]), encoding="utf-8")
        return sdk.EngineHandle.compile(
            folder,
            request["system"],
            BACKEND,
            backend_version=version,
            tp_size=request["tp"],
            attention_dp_size=request["dp"],
            moe_tp_size=request["moe_tp"],
            moe_ep_size=request["moe_ep"],
            gemm_quant_mode=request["gemm"],
            moe_quant_mode=request["moe"],
            kvcache_quant_mode=request["kv"],
        )


def _times(engine: Any, request: dict[str, Any]) -> dict[str, list[float]]:
    return {
        # The package counts a prompt's length with what was computed before.
        "prefill": [engine.predict_prefill_latency(1, new + before, before) for new, before in request["prefill"]],
        # Its step comes after one that adds a token to the context.
        "decode": [
            engine.predict_decode_latency(batch, max(context - 1, 1), 2) for batch, context in request["decode"]
        ],
        "mixed": [_mixed(engine, *point) for point in request["mixed"]],
    }


def _mixed(engine: Any, tokens: int, batch: int, context: int) -> float:
    """One prompt's chunk in an iteration with decode steps.

    The package gives both halves one length. Its parts do not share one: what all tokens go through together, the
    attention of the prompt and that of the decode steps. So each half is asked for at its own length.
    """
    _, shared, prompt, _ = engine.mixed_step_breakdown(tokens, batch, tokens, 2)
    _, _, _, steps = engine.mixed_step_breakdown(tokens, batch, max(context - 1, 1), 2)
    return float(shared + prompt + steps)


def _sources(engine: Any) -> dict[str, dict[str, float]]:
    prompt, _ = engine.run_static_per_op(batch_size=1, isl=SAMPLE_TOKENS, osl=2, mode="static_ctx")
    _, step = engine.run_static_per_op(batch_size=SAMPLE_BATCH, isl=SAMPLE_TOKENS, osl=2, mode="static_gen")
    found: dict[str, dict[str, float]] = {"prefill": {}, "decode": {}}
    for kind, operators in (("prefill", prompt), ("decode", step)):
        for _, ms, _, source in operators:
            found[kind][source] = found[kind].get(source, 0.0) + ms
    return found


def main() -> None:
    """One request, one answer."""
    # Whatever the package and its native library print must not mix with the answer.
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with reply:
        json.dump(answer(json.load(sys.stdin)), reply, allow_nan=False)


if __name__ == "__main__":
    main()
