"""The arguments that a worker was measured with, as a component of a graph serves with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath

from planner.core.types import Role
from profiler.tables import Profile
from profiler.yamlfile import Document
from worker_graph.spec import Component, Kind
from worker_graph.spec import Role as SpecRole
from worker_graph.vllm.arguments import Arguments, read_arguments

#: What a graph says itself, what belongs to one machine, and what only a measurement wants: dummy weights serve no one,
#: and prefix caching is off only so that no sample is served from an earlier one.
_DROPPED = frozenset(
    {
        "--model", "--served-model-name", "--host", "--port", "--tensor-parallel-size", "--data-parallel-size",
        "--kv-transfer-config", "--kv-events-config", "--load-format", "--is-prefill-worker", "--is-decode-worker",
        "--disaggregation-mode", "--api-key", "--root-path", "--uds", "--no-enable-prefix-caching",
        # Of vLLM's own API server, which Dynamo's worker does not have.
        "--uvicorn-log-level", "--disable-uvicorn-access-log", "--disable-log-requests", "--enable-log-requests",
        "--disable-log-stats", "--api-server-count", "--ssl-keyfile", "--ssl-certfile", "--middleware",
    }
)  # fmt: skip

#: Flags of the recorded limits, for profiles that record no arguments; the first two are of one data-parallel rank.
_LIMITS: Mapping[str, tuple[str, bool]] = {
    "--max-num-seqs": ("max_num_seqs", True),
    "--max-num-batched-tokens": ("max_num_batched_tokens", True),
    "--block-size": ("block_size", False),
    "--max-model-len": ("max_model_len", False),
}

_KV_ROLES = {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer"}


def serving_arguments(profile: Profile, role: Role, model: str) -> list[str]:
    """Arguments of `dynamo.vllm` for a worker like the measured one.

    Args:
        profile: of the layout.
        role: of the worker.
        model: that it loads.

    Raises:
        InputError: the recorded arguments cannot be read.
    """
    meta = profile.meta
    written = _measured(profile)
    kept = written.without(_DROPPED) if written is not None else ()
    words = ["--model", model, "--tensor-parallel-size", str(meta.tp)]
    if meta.dp > 1:
        words += ["--data-parallel-size", str(meta.dp)]
    words += [word.text for flag in kept for word in flag.words]
    have = {flag.name for flag in kept}
    if meta.expert_parallel and "--enable-expert-parallel" not in have:
        words.append("--enable-expert-parallel")
    for flag, (field, by_rank) in _LIMITS.items():
        value = getattr(meta.limits, field)
        if value is not None and flag not in have:
            words += [flag, str(max(1, value // meta.dp) if by_rank else value)]
    if role in _KV_ROLES:
        transfer = {"kv_connector": "NixlConnector", "kv_role": _KV_ROLES[role]}
        words += ["--disaggregation-mode", role.value]
        words += ["--kv-transfer-config", json.dumps(transfer, separators=(",", ":"))]
    return words


def measured_model(profile: Profile) -> str:
    """The model as the measured engine loaded it; the profile's name for one from a folder of that machine."""
    written = _measured(profile)
    model = written.text("--model") if written is not None and written.find("--model") is not None else None
    if model is None or PurePath(model).is_absolute() or model.startswith((".", "~")):
        return profile.meta.model.name
    return model


def _measured(profile: Profile) -> Arguments | None:
    """The recorded arguments, split into flags; None where none are recorded."""
    words = profile.meta.engine.arguments
    if not words:
        return None
    # The program may be anything that takes `serve`: a path, or an interpreter with a module.
    flags = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    if "serve" in words[:flags]:
        words = words[words.index("serve") + 1 :]
    if not words:
        return None
    document = Document(Path(profile.path) / "profile.json", {}, lambda _: None)
    component = Component(
        name="worker",
        kind=Kind.WORKER,
        role=SpecRole.AGGREGATED,
        replicas=1,
        gpus_per_worker=0,
        command=("vllm", "serve"),
        args=tuple(words),
        document=document,
    )
    return read_arguments(component)
