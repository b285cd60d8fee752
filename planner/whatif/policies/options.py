"""Options of a policy on the command line: `name:word,key=value,…`."""

from __future__ import annotations

import math

from profiler.errors import InputError


def split_options(options: str) -> list[tuple[str, str | None]]:
    """Words and `key=value` pairs in their order; a bare word has the value None."""
    parts = (part.strip().partition("=") for part in options.split(",") if part.strip())
    return [(key.strip(), value.strip() if sign else None) for key, sign, value in parts]


def positive(policy: str, key: str, value: str | None) -> float:
    """A positive, finite number.

    Raises:
        InputError: it is none; names the option.
    """
    try:
        number = float(value or "")
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        found = "no value" if value is None else repr(value)
        raise InputError(f"{policy}: {key} has {found}", expected=f"a positive number, {key}=NUMBER", field="--policy")
    return number


def unknown(policy: str, key: str, value: str | None, expected: str) -> InputError:
    """The error for an option that the policy does not know."""
    option = key if value is None else f"{key}={value}"
    return InputError(f"{policy}: unknown option {option!r}", expected=expected, field="--policy")
