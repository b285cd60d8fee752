"""From what was asked for to a plan: which model, which machine, which layouts fit; nothing is written or started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from profiler.engines.machine import Machine, read_machine, short_name
from profiler.errors import InputError
from profiler.job import handoff
from profiler.job.journal import Journal
from profiler.job.plan import Plan, Unit, check_folder, limits_of, run_folder, serve_of, units_of
from profiler.job.settings import Settings, check, check_isl, slug
from profiler.measure import read_facts
from profiler.models import catalog
from profiler.models.config import ModelConfig, read_config
from profiler.models.layouts import Layout, candidates
from profiler.models.memory import DEFAULT_UTILIZATION
from profiler.models.stub import is_stub
from profiler.schema import ModelInfo
from worker_graph.local.ports import PortTakenError, check_free

#: Number formats that are in no name: any other one is part of a model's.
_PLAIN = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Prepared:
    """A plan, and the config of its model; None where only its name is known."""

    plan: Plan
    config: ModelConfig | None


async def prepare(
    settings: Settings, machine_of: Callable[[str | None, Sequence[int] | None], Machine] = read_machine
) -> Prepared:
    """Find out and check everything that can be without starting an engine.

    Args:
        settings: as asked for.
        machine_of: reads the machine's GPUs; called for engines that are started here.

    Raises:
        InputError: something asked for is wrong, is not here, or cannot be; names the option.
        DependencyError: an engine that should run already does not answer.
    """
    check(settings)
    config = _config(settings)
    name, source = await _names(settings, config)
    machine = machine_of(settings.gpu, settings.gpus) if settings.launches else Machine(short_name(settings.gpu or ""))
    layouts, skipped = _layouts(settings, config, machine)
    if config is None:
        model = ModelInfo(name=name, dtype=settings.dtype or "unknown")
    else:
        model = ModelInfo(name=name, dtype=config.dtype, shape=config.shape)
    serve = None
    if settings.launches:
        own = config is not None and config.dtype == _own_dtype(settings)
        serve = serve_of(settings, source, name, quantized=own)
        if Path(source).is_dir() and is_stub(Path(source)):
            serve = replace(serve, dummy=True)
        _check_port(settings)
    plan = Plan(
        settings=settings,
        machine=machine,
        model=model,
        serve=serve,
        units=tuple(units_of(settings, machine, layouts)),
        skipped=tuple(skipped),
        folder=run_folder(settings, name, machine.gpu),
    )
    check_folder(plan)
    if settings.share_gpus:
        handoff.profile_of(settings.to, model, machine.gpu, plan.units[0].workers[1].layout)
    if settings.resume:
        for unit in plan.units:
            Journal(journal_path(plan, unit)).check(plan.fingerprint(unit))
    return Prepared(plan, config)


def journal_path(plan: Plan, unit: Unit) -> Path:
    """Where the samples of a unit are kept."""
    return plan.folder / f"samples-{unit.name}.jsonl"


def _config(settings: Settings) -> ModelConfig | None:
    """The model's config: from the file that was named, the model's folder, or the catalogue."""
    kv_dtype = _kv_dtype(settings.engine_args)
    if settings.config is not None:
        return read_config(settings.config, dtype=settings.dtype, kv_dtype=kv_dtype)
    if settings.model is None:
        return None
    folder = Path(settings.model)
    if folder.is_dir():
        return read_config(folder, dtype=settings.dtype, kv_dtype=kv_dtype)
    try:
        return catalog.find_model(settings.model, dtype=settings.dtype, kv_dtype=kv_dtype)
    except InputError as error:
        if error.field != "NAME":
            raise
        if not settings.launches:
            return None
        right = f"{error.expected}; or a folder that holds the model"
        raise InputError(error.problem, expected=right, field="--model") from None


def _own_dtype(settings: Settings) -> str | None:
    """Number format of the model's own weights."""
    return getattr(_config(replace(settings, dtype=None)), "dtype", None)


def _kv_dtype(arguments: Sequence[str]) -> str | None:
    """Number format of the KV cache, where the engine is told one; None for that of the activations."""
    for index, argument in enumerate(arguments):
        name, _, value = argument.replace("_", "-").partition("=")
        if name == "--kv-cache-dtype":
            value = value or (arguments[index + 1] if index + 1 < len(arguments) else "")
            return None if value == "auto" else "fp8" if value.startswith("fp8") else value
    return None


async def _names(settings: Settings, config: ModelConfig | None) -> tuple[str, str]:
    """The model's name in folders and requests, and what an engine that is started here loads."""
    if settings.model is None:
        url = settings.url or settings.prefill_url
        if url is None:
            raise AssertionError("neither a model nor an engine")
        return slug((await read_facts(url, settings.served_model)).model), ""
    source = settings.model
    if Path(source).is_dir():
        source = str(Path(source).resolve())
    elif settings.config is None and config is not None:
        source = config.name
    name = slug(source)
    if config is not None and config.dtype not in _PLAIN and config.dtype not in name:
        name = f"{name}-{slug(config.dtype)}"
    return name, source


def _layouts(
    settings: Settings, config: ModelConfig | None, machine: Machine
) -> tuple[list[Layout], list[tuple[str, str]]]:
    """Layouts to measure, with what memory arithmetic says of them, and those that were ruled out.

    Raises:
        InputError: one that was asked for cannot be, with why; or none can.
    """
    asked = list(settings.layouts or settings.pair or ())
    if not settings.launches and not asked:
        asked = [Layout(settings.tp, settings.dp)]
    if config is None:
        return asked, []
    longest = settings.max_model_len or config.max_positions
    if settings.longest_isl is not None:
        check_isl(settings.longest_isl, longest)
    here = max(1, len(machine.devices))
    most = max([here, *(layout.gpus for layout in asked)])
    limits = limits_of(settings)
    try:
        known = candidates(
            config,
            machine.gpu,
            most,
            max_model_len=settings.max_model_len,
            utilization=limits.gpu_memory_utilization or DEFAULT_UTILIZATION,
            max_num_batched_tokens=limits.max_num_batched_tokens,
        )
    except InputError as error:
        field = f"--{error.field}" if error.field and not error.field.startswith("-") else error.field
        raise InputError(error.problem, expected=error.expected, source=error.source, field=field) from None
    by_name = {layout.name: layout for layout in known}
    if not asked:
        found = [layout for layout in known if layout.rejected is None and layout.gpus <= here]
        skipped = [(layout.name, layout.rejected) for layout in known if layout.rejected is not None]
        if not found:
            why = "; ".join(f"{name}: {reason}" for name, reason in skipped)
            raise InputError(
                f"no layout fits the GPUs here: {why}", expected="more GPUs, or other limits", field="--layout"
            )
        return found, skipped
    option = "--pair" if settings.pair is not None else "--layout" if settings.launches else "--tp"
    chosen = []
    for layout in asked:
        there = by_name.get(layout.name)
        if there is None:
            problem = f"{layout.name} is no layout of {config.name}"
            raise InputError(problem, expected=", ".join(by_name), field=option)
        if there.rejected is not None and settings.launches:
            raise InputError(f"{layout.name} cannot be: {there.rejected}", expected="a layout that fits", field=option)
        chosen.append(there)
    return chosen, []


def _check_port(settings: Settings) -> None:
    if settings.port is None:
        return
    for port in range(settings.port, settings.port + (2 if settings.is_pair else 1)):
        try:
            check_free("127.0.0.1", port, "port")
        except PortTakenError as error:
            raise InputError(str(error), expected="a port that is free, or none for any", field="--port") from None
