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
    number = _parsed(value)
    if not number > 0:
        raise _no_number(policy, key, value, "a positive number")
    return number


def finite(policy: str, key: str, value: str | None) -> float:
    """Any finite number.

    Raises:
        InputError: it is none; names the option.
    """
    number = _parsed(value)
    if math.isnan(number):
        raise _no_number(policy, key, value, "a number")
    return number


def _parsed(value: str | None) -> float:
    """The finite number of a text; not a number where it is none."""
    try:
        number = float(value or "")
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _no_number(policy: str, key: str, value: str | None, expected: str) -> InputError:
    found = "no value" if value is None else repr(value)
    return InputError(f"{policy}: {key} has {found}", expected=f"{expected}, {key}=NUMBER", field="--policy")


def unknown(policy: str, key: str, value: str | None, expected: str) -> InputError:
    """The error for an option that the policy does not know."""
    option = key if value is None else f"{key}={value}"
    return InputError(f"{policy}: unknown option {option!r}", expected=expected, field="--policy")
