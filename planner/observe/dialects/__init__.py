"""Dialects by name. A new engine or gateway is one file here and one line below."""

from __future__ import annotations

from planner.observe.dialects.base import EngineDialect, GatewayDialect
from planner.observe.dialects.dynamo import DYNAMO
from planner.observe.dialects.smg import SMG
from planner.observe.dialects.vllm import VLLM
from planner.observe.dialects.vllm_router import VLLM_ROUTER
from profiler.errors import InputError

ENGINES = {dialect.name: dialect for dialect in (VLLM,)}
GATEWAYS = {dialect.name: dialect for dialect in (SMG, VLLM_ROUTER, DYNAMO)}


def engine_dialect(name: str, *, field: str = "engine") -> EngineDialect:
    """The dialect of that name.

    Raises:
        InputError: there is none; names the setting `field` and those that exist.
    """
    if name not in ENGINES:
        raise InputError(f"{name!r} is not known", expected=" or ".join(ENGINES), field=field)
    return ENGINES[name]


def gateway_dialect(name: str, *, field: str = "gateway") -> GatewayDialect:
    """The dialect of that name; raises InputError as `engine_dialect` does."""
    if name not in GATEWAYS:
        raise InputError(f"{name!r} is not known", expected=" or ".join(GATEWAYS), field=field)
    return GATEWAYS[name]
