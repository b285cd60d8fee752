"""How a worker hands KV over: Dynamo's `--connector` as vLLM's `--kv-transfer-config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker_graph.spec import Role
from worker_graph.spec.node import suggestion
from worker_graph.vllm.arguments import Arguments, Flag

CONNECTORS = ("nixl", "lmcache", "kvbm", "null", "none")

#: A gateway pairs a producer with a consumer; a worker that does both is neither.
_NIXL_ROLES = {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer", Role.AGGREGATED: "kv_both"}


@dataclass(frozen=True)
class Transfer:
    """What a worker's KV transfer is.

    Attributes:
        config: of vLLM; None where it hands nothing over.
        given: whether the arguments hold it as it is; else it must be added.
        nixl: whether NIXL is part of it, which needs a side channel of its own.
    """

    config: Mapping[str, Any] | None
    given: bool
    nixl: bool

    @property
    def words(self) -> tuple[str, ...]:
        """What must be added to the arguments."""
        if self.config is None or self.given:
            return ()
        return ("--kv-transfer-config", json.dumps(self.config, separators=(",", ":")))


def transfer_of(arguments: Arguments, role: Role) -> Transfer:
    """KV transfer of a worker.

    What `--kv-transfer-config` says counts as it is. Without it `--connector` does, and without that a prefill or
    decode worker uses NIXL and an aggregated one nothing.

    Raises:
        InputError: a connector is unknown or not in stock vLLM, `none` is mixed with others, or both flags are given.
    """
    connector = arguments.find("--connector")
    config = arguments.json("--kv-transfer-config")
    dotted = [flag for flag in arguments.flags if flag.name.startswith("--kv-transfer-config.")]
    if config is not None or dotted:
        if connector is not None and _names(arguments, connector):
            problem = "is given together with --kv-transfer-config"
            raise arguments.error(connector, problem, "one of them; --connector none goes with either")
        values = str(config) + "".join(str(flag.values) for flag in dotted)
        return Transfer(config or {}, given=True, nixl="Nixl" in values)
    names = [] if role is Role.AGGREGATED else ["nixl"]
    if connector is not None:
        names = _names(arguments, connector)
    configs = [_config(name, role) for name in names]
    if not configs:
        return Transfer(None, given=False, nixl=False)
    if len(configs) == 1:
        return Transfer(configs[0], given=False, nixl=names == ["nixl"])
    several = {
        "kv_connector": "MultiConnector",
        "kv_role": _NIXL_ROLES[role] if "nixl" in names else "kv_both",
        "kv_connector_extra_config": {"connectors": configs},
    }
    return Transfer(several, given=False, nixl="nixl" in names)


def _names(arguments: Arguments, flag: Flag) -> list[str]:
    """Connectors by name, without duplicates; empty for none."""
    names = list(dict.fromkeys(name.lower() for value in flag.values for name in value.replace(",", " ").split()))
    for name in names:
        if name not in CONNECTORS:
            raise arguments.error(flag, f"names {name!r}{suggestion(name, CONNECTORS)}", ", ".join(CONNECTORS))
    nothing = [name for name in names if name in {"null", "none"}]
    if nothing and len(names) > 1:
        raise arguments.error(flag, f"mixes {nothing[0]} with others: {' '.join(names)}", "none alone")
    if "kvbm" in names:
        problem = "names kvbm, whose DynamoConnector is not in stock vLLM"
        raise arguments.error(flag, problem, "nixl, lmcache or none; or --kv-transfer-config for another connector")
    return [] if nothing else names


def _config(name: str, role: Role) -> dict[str, Any]:
    if name == "nixl":
        return {"kv_connector": "NixlConnector", "kv_role": _NIXL_ROLES[role]}
    return {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
