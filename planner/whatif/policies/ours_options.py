"""Options of our planner in a replay: any of its settings by its path, such as `surge.most=1.5`."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from planner.core.settings import PlannerSettings, Tuning
from planner.whatif.policies.options import finite, unknown
from profiler.errors import InputError

Settings = TypeVar("Settings", bound=BaseModel)

#: Shorter names of settings that lie deep.
SHORT = {"up_window_s": "behaviour.up.window_s", "down_window_s": "behaviour.down.window_s"}

#: What a graph or a case fixes, beside `Tuning`, that a variant may still change.
_BESIDE = ("lead_time_s",)

EXPECTED = (
    "confidence=…, interval_s=…, lead_time_s=…, up_window_s=…, down_window_s=…, capacity=…, without=…, "
    "or any field of tuning by its path, such as surge.most=…"
)


def with_option(settings: PlannerSettings, key: str, value: str | None) -> PlannerSettings:
    """The settings with one of them changed.

    Args:
        settings: before.
        key: the setting's path.
        value: as it was given.

    Raises:
        InputError: there is no such setting, or it cannot have this value.
    """
    path = SHORT.get(key, key)
    names = path.split(".")
    if not _is_number(PlannerSettings, names) or names[0] not in {*Tuning.model_fields, *_BESIDE}:
        raise unknown("planner", key, value, EXPECTED)
    number = finite("planner", key, value)
    if key == "confidence" and not 0.5 <= number < 1:
        raise InputError(f"planner: confidence is {number:g}", expected="from 0.5 to below 1", field="--policy")
    return set_to(settings, path, number, key)


def set_to(settings: Settings, path: str, number: float, key: str | None = None) -> Settings:
    """The settings with one of them at another value.

    Args:
        settings: before; its class has a field of the path's first name.
        path: of the setting.
        number: the value.
        key: what a person called it; the path without it.

    Raises:
        InputError: the setting cannot have this value.
    """
    name, _, rest = path.partition(".")
    inner: object = set_to(getattr(settings, name), rest, number, key or path) if rest else number
    try:
        # Not `model_copy`, which checks nothing.
        return type(settings).model_validate({**dict(settings), name: inner})
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        raise InputError(f"planner: {key or path} is {number:g}", expected=said, field="--policy") from None


def _is_number(settings: type[BaseModel], names: list[str]) -> bool:
    """Whether a path leads to a number."""
    field = settings.model_fields.get(names[0])
    if field is None:
        return False
    if len(names) == 1:
        return field.annotation in (int, float)
    inner = field.annotation
    return isinstance(inner, type) and issubclass(inner, BaseModel) and _is_number(inner, names[1:])
