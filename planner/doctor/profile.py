"""Each profile against the engine that it stands for: GPU, model, version, layout, arguments, KV cache.

What changes an engine's timing, or what its scheduler does with it, makes the profile another engine's: a failure.
What may change it, or changes it by little, is a warning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from planner.connectors.base import WorkerStatus
from planner.core.types import Role
from planner.doctor.base import Check, Verdict, failed, passed, plural, skipped, some, warned
from planner.doctor.engine import Running, ask, flags_of, words_of
from planner.doctor.scene import Scene
from profiler.folders import layout_words
from profiler.hardware import find_gpu
from profiler.schema import ProfileMeta
from profiler.tables import Profile

#: Flags whose difference makes another engine, and those that change less.
DECISIVE = (
    "--dtype", "--quantization", "--kv-cache-dtype", "--enforce-eager", "--pipeline-parallel-size",
    "--speculative-config", "--enable-expert-parallel", "--max-num-batched-tokens", "--max-num-seqs",
)  # fmt: skip
MINOR = (
    "--block-size", "--max-model-len", "--gpu-memory-utilization", "--async-scheduling", "--no-async-scheduling",
    "--attention-backend", "--compilation-config", "--max-cudagraph-capture-size", "--no-enable-chunked-prefill",
    "--enable-lora",
)  # fmt: skip

#: Flags without a value: being there is what counts.
SWITCHES = frozenset({"--enforce-eager", "--enable-expert-parallel", "--async-scheduling", "--no-async-scheduling",
                      "--no-enable-chunked-prefill", "--enable-lora"})  # fmt: skip

#: Relative difference of the KV capacity from which on the profile's concurrency is another.
KV_WARN, KV_FAIL = 0.05, 0.2

_MEASURE = "measure this engine (profiler run), or start the workers as they were measured"
_AT_ONCE, _MOST_ASKED = 16, 64


def loaded(scene: Scene) -> Iterator[Check]:
    """The profiles themselves."""
    roles = [pool.role for pool in scene.configuration().pools.values()]
    for one in (one for role in roles for one in profiles_for(scene.profiles, role)):
        meta = one.meta
        version = meta.engine.version or "of an unknown version"
        text = f"{meta.model.name} on {meta.gpu.count_per_worker} {meta.gpu.name}, {meta.engine.name} {version}"
        name = f"{meta.role} {layout_words(meta)}"
        if meta.source.form == "estimated":
            yield warned(
                name, f"{text}: estimated, not measured", "measure it before a promise rests on it: profiler run"
            )
        elif meta.warnings:
            yield warned(name, f"{text}: {meta.warnings[0]}", f"profiler show {one.path}")
        else:
            yield passed(name, text)
    # What the profiles make with the configuration: wrong counts, minimums above the budget.
    budget = scene.settings.max_gpus
    pools = ", ".join(f"{pool.name} {pool.min_workers}-{pool.max_workers}" for pool in scene.settings.pools)
    yield passed("configuration", f"{pools} workers in {plural(budget, 'GPU')}")


def profiles_for(profiles: Sequence[Profile], role: Role) -> list[Profile]:
    """Those that describe the workers of a role; an aggregated worker may have a prefill and a decode one."""
    own = [one for one in profiles if one.meta.role == role.value]
    if not own and role is Role.AGGREGATED:
        return [one for one in profiles if one.meta.role in {"prefill", "decode"}]
    return own


def gpus(scene: Scene) -> Iterator[Check]:
    """The GPU that the label of each pod's node names, and the profile's."""
    # The API server's client takes a second to import, and graphs on one machine need none.
    from planner.connectors.kubernetes.errors import ForbiddenError  # noqa: PLC0415
    from planner.connectors.kubernetes.resources import NODES  # noqa: PLC0415
    from planner.doctor.quantities import product_of  # noqa: PLC0415

    products: dict[str, str] = {}
    for one in scene.pools:
        names = {str((pod.get("spec") or {}).get("nodeName") or "") for pod in one.pods} - {""}
        if not names:
            yield skipped(f"GPU {one.pool}", "none of its pods has a node")
            continue
        try:
            for name in names - products.keys():
                products[name] = product_of(
                    (scene.api().find(NODES, name) or {"metadata": {}})["metadata"].get("labels")
                )
        except ForbiddenError as error:
            yield skipped(f"GPU {one.pool}", f"not looked at: {error}", "ask as somebody who may read nodes")
            continue
        for profile in profiles_for(scene.profiles, one.role)[:1]:
            yield judge_gpu(one.pool, Counter(products[name] for name in names), profile.meta)


def judge_gpu(pool: str, products: Mapping[str, int], meta: ProfileMeta) -> Check:
    """GPU products of the nodes of a pool's pods, with how many nodes have each."""
    name = f"GPU {pool}"
    known = {product: find_gpu(product) for product in products if product}
    other = sorted(
        product
        for product, gpu in known.items()
        if (gpu.name if gpu is not None else plain(product)) not in {meta.gpu.name, plain(meta.gpu.name)}
    )
    if not known:
        return skipped(name, "no label of its nodes names their GPU", "install GPU feature discovery")
    if other:
        fix = f"{_MEASURE}; or keep the pods on {meta.gpu.name} (nodeSelector nvidia.com/gpu.product)"
        return failed(name, f"workers run on {some(other)}; the profile is of {meta.gpu.name}", fix)
    return passed(name, f"{some(sorted(known))}, as in the profile")


def plain(name: str) -> str:
    """A name without its maker, case and punctuation, for comparing."""
    return re.sub(r"[^a-z0-9]+", "-", name.rsplit("/", 1)[-1].lower()).strip("-").removeprefix("nvidia-")


def arguments(scene: Scene) -> Iterator[Check]:
    """Engine arguments of the pod templates."""
    from planner.doctor.quantities import main_container  # noqa: PLC0415 - as above

    for one in scene.pools:
        words = words_of(main_container(one.spec))
        if not words:
            yield skipped(f"arguments {one.pool}", f"{one.about} shows none: its image's own entrypoint decides")
            continue
        for profile in profiles_for(scene.profiles, one.role):
            yield from judge_arguments(one.pool, flags_of(words), profile.meta)


def judge_arguments(pool: str, running: Mapping[str, str], meta: ProfileMeta) -> Iterator[Check]:
    """A worker's flags against a profile's layout, limits and arguments."""
    name = f"arguments {pool}"
    measured = measured_flags(meta)
    bad: list[str] = []
    minor: list[str] = []
    for flag, size in (("--tensor-parallel-size", meta.tp), ("--data-parallel-size", meta.dp)):
        found = running.get(flag, "1")
        if found != str(size):
            bad.append(f"{flag} is {found}, measured with {size}")
    for flag in (*DECISIVE, *MINOR):
        if running.get(flag) == measured.get(flag):
            continue
        if flag in SWITCHES:
            if meta.engine.arguments is None and flag not in measured:
                continue
            told = f"{flag} is {'on' if flag in running else 'off'}, measured {'on' if flag in measured else 'off'}"
            (bad if flag in DECISIVE else minor).append(told)
        elif flag in running and flag in measured:
            (bad if flag in DECISIVE else minor).append(f"{flag} is {running[flag]}, measured with {measured[flag]}")
        elif flag in measured:
            minor.append(f"{flag} is not given, measured with {measured[flag]}")
        elif meta.engine.arguments is not None:
            minor.append(f"{flag} is {running[flag]}, measured with the engine's default")
    about = f"profile {meta.role} {layout_words(meta)}"
    if bad:
        yield failed(name, f"{'; '.join(bad)} ({about})", _MEASURE)
    if minor:
        yield warned(
            name, f"{'; '.join(minor)} ({about})", "nothing, if that is the engine's default anyway; else measure"
        )
    if not bad and not minor:
        yield passed(name, f"as {about} was measured")


def measured_flags(meta: ProfileMeta) -> dict[str, str]:
    """The flags of a measured engine: its arguments, and its limits where these do not say."""
    found = flags_of(meta.engine.arguments or ())
    for flag, value in (
        ("--max-num-seqs", meta.limits.max_num_seqs),
        ("--max-num-batched-tokens", meta.limits.max_num_batched_tokens),
        ("--block-size", meta.limits.block_size),
    ):
        if value is not None:
            found.setdefault(flag, str(value))
    if meta.spreads_experts:
        found.setdefault("--enable-expert-parallel", "")
    return found


def engines(scene: Scene) -> Iterator[Check]:
    """The engines' own answers."""
    config = scene.configuration()
    for pool, settings in config.pools.items():
        ready = [one for one in scene.supply().workers if one.pool == pool and one.status is WorkerStatus.READY]
        if not ready:
            yield skipped(f"engine {pool}", "no worker serves")
            continue
        with ThreadPoolExecutor(_AT_ONCE) as pool_of_threads:
            told = list(pool_of_threads.map(ask, [one.address for one in ready[:_MOST_ASKED]]))
        mute = [one for one in told if one.why]
        if mute:
            text = f"{mute[0].address}: {mute[0].why}" + (f" (and {len(mute) - 1} more)" if len(mute) > 1 else "")
            fix = "run it where the engines can be reached: in the planner's pod"
            yield skipped(f"engine {pool}", text, fix)
        answered = [one for one in told if not one.why]
        profiles = profiles_for(scene.profiles, settings.role)
        for profile in profiles if answered else ():
            yield from judge_engines(pool, answered, profile.meta, config.model)


def judge_engines(pool: str, told: Sequence[Running], meta: ProfileMeta, model: str) -> Iterator[Check]:
    """What a pool's engines answer, against a profile and the configured model's name."""
    yield from _versions(pool, told, meta)
    yield _models(pool, told, meta, model)
    yield from _caches(pool, told, meta)


def _versions(pool: str, told: Sequence[Running], meta: ProfileMeta) -> Iterable[Check]:
    name = f"version {pool}"
    counts = Counter(one.version for one in told if one.version)
    if not counts:
        return [skipped(name, "the engines do not say their version")]
    shown = ", ".join(f"{version} ({count})" for version, count in sorted(counts.items()))
    if len(counts) > 1:
        return [warned(name, f"workers of one pool differ: {shown}", "let the rollout end, or roll it back")]
    [running] = counts
    if meta.engine.version is None:
        return [skipped(name, f"{running}; the profile does not say what it was measured with")]
    if running.split("+")[0] != meta.engine.version.split("+")[0]:
        text = f"{running}; measured with {meta.engine.version}"
        return [warned(name, text, "compare a new profile: profiler run, profiler compare; releases change timing")]
    return [passed(name, f"{running}, as measured")]


def _models(pool: str, told: Sequence[Running], meta: ProfileMeta, model: str) -> Check:
    name = f"model {pool}"
    served = sorted({one for each in told for one in each.models})
    if not served:
        return skipped(name, "the engines name no model")
    wanted = plain(meta.model.name)
    same = [one for one in served if wanted in plain(one) or plain(one) in wanted]
    if not same and all(one.startswith("/") for one in served):
        fix = "nothing, if that folder holds it: its name does not tell"
        return warned(name, f"{some(served)} is served; the profile is of {meta.model.name}", fix)
    if not same:
        return failed(name, f"{some(served)} is served; the profile is of {meta.model.name}", _MEASURE)
    if model not in served:
        fix = "set model to the served name; it is used for labels alone"
        return warned(name, f"{some(served)} is served, and the configuration says {model}", fix)
    return passed(name, f"{some(served)}, as measured")


def _caches(pool: str, told: Sequence[Running], meta: ProfileMeta) -> Iterator[Check]:
    name = f"KV cache {pool}"
    sizes = sorted({size for one in told if (size := one.kv_tokens) is not None})
    if not sizes:
        yield skipped(name, "the engines do not say its size (vllm:cache_config_info)")
        return
    if meta.kv_capacity_tokens is None:
        yield skipped(name, f"{sizes[0]:,} tokens; the profile does not say")
    else:
        measured = meta.kv_capacity_tokens
        worst = max(sizes, key=lambda size: abs(size / measured - 1))
        off = worst / measured - 1
        text = f"{worst:,} tokens; the profile has {measured:,} ({off:+.0%})"
        fix = "compare --gpu-memory-utilization, --max-model-len, the GPU's memory and what else uses it"
        verdict = Verdict.FAIL if abs(off) > KV_FAIL else Verdict.WARN if abs(off) > KV_WARN else Verdict.PASS
        yield Check(name, verdict, text, "" if verdict is Verdict.PASS else fix)
    blocks = {one.block_size for one in told} - {None}
    if meta.limits.block_size is not None and blocks and blocks != {meta.limits.block_size}:
        text = f"blocks of {some(sorted(map(str, blocks)))} tokens; measured with {meta.limits.block_size}"
        yield warned(name, text, "start the workers with the measured --block-size")
