"""`planner validate`: whether a configuration is right, and whether what it names can be reached now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from planner.connectors.base import ConnectorError, Supply
from planner.observe.base import SourceError
from planner.observe.series import UP
from planner.service.config import ServiceConfig
from planner.service.load import load_config
from planner.service.model import Model, load_model
from planner.service.registry import make_connector, make_observer, make_source

#: Seconds that a check waits for an answer: a person waits, too.
PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: what, whether it is well, and what was found."""

    about: str
    ok: bool
    text: str


def validate(path: Path) -> list[Finding]:
    """Check a configuration file.

    Returns:
        What was found; a thing that cannot be reached now is a finding that is not ok, for it may be later.

    Raises:
        InputError: the configuration itself is wrong; names file, line and field.
    """
    config = load_config(path)
    model = load_model(config, path)
    # Only made, to find a gateway that there is not.
    make_observer(config, model.settings).close()
    return list(_findings(_hasty(config), model))


def _findings(config: ServiceConfig, model: Model) -> Iterator[Finding]:
    pools = ", ".join(
        f"{p.name} ({p.gpus_per_worker} GPUs, {p.min_workers}-{p.max_workers})" for p in model.settings.pools
    )
    yield Finding("configuration", ok=True, text=f"graph {config.graph}: {pools}; budget {config.budget.max_gpus} GPUs")
    for profile in model.profiles:
        yield Finding("profile", ok=True, text=profile.path)
    for name, file in (("journal", config.service.journal), ("checkpoint", config.service.checkpoint)):
        yield _folder(name, file)
    try:
        supply = make_connector(config, model.settings.pools).read()
    except ConnectorError as error:
        yield Finding("connector", ok=False, text=str(error))
        supply = Supply({}, ())
    else:
        yield _pools(supply, model)
    yield _source(config, supply)


def _hasty(config: ServiceConfig) -> ServiceConfig:
    """The same with time limits that a person waits for."""
    local, server = config.connector.local, config.metrics.prometheus
    if local is not None:
        local = local.model_copy(update={"timeout_s": min(local.timeout_s, PATIENCE_S)})
    if server is not None:
        server = server.model_copy(update={"timeout_s": min(server.timeout_s, PATIENCE_S)})
    return config.model_copy(
        update={
            "connector": config.connector.model_copy(update={"local": local}),
            "metrics": config.metrics.model_copy(update={"prometheus": server}),
        }
    )


def _folder(name: str, file: Path) -> Finding:
    """Whether a file could be made; nothing is written that stays."""
    folder = next(parent for parent in file.parents if parent.exists())
    probe = folder / f".{file.name}.probe"
    try:
        if file.is_dir():
            return Finding(name, ok=False, text=f"{file} is a folder")
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Finding(name, ok=False, text=f"{file} cannot be written: {error.strerror or error}")
    return Finding(name, ok=True, text=str(file))


def _pools(supply: Supply, model: Model) -> Finding:
    wrong = supply.contradiction(model.settings.pools_by_name)
    if wrong is not None:
        return Finding("connector", ok=False, text=wrong)
    counts = ", ".join(f"{name} {pool.ready} of {pool.desired} ready" for name, pool in sorted(supply.pools.items()))
    return Finding("connector", ok=True, text=counts)


def _source(config: ServiceConfig, supply: Supply) -> Finding:
    about = config.metrics.source
    targets = len(supply.workers) + len(supply.gateways)
    if targets == 0:
        return Finding(about, ok=False, text="not tried: no worker and no gateway is known to ask for")
    source = make_source(config)
    try:
        series = source.read((UP,), supply, 300.0, time.time())
    except SourceError as error:
        return Finding(about, ok=False, text=str(error))
    finally:
        source.close()
    answering = {one.labels.get("instance") for one in series if one.values and one.values[-1] == 1.0}
    text = f"{len(answering)} of {targets} targets answer"
    return Finding(about, ok=len(answering) > 0, text=text)
