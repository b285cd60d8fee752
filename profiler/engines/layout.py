"""Layouts as people write them on a command line: tp2, tp1-dp4, tp2-dp2-ep, and pairs of them."""

from __future__ import annotations

import re

from profiler.errors import InputError
from profiler.models.layouts import Layout

_FORM = re.compile(r"tp([1-9][0-9]{0,2})(?:-dp([1-9][0-9]{0,2}))?(-ep)?")


def parse_layout(text: str, field: str = "--layout") -> Layout:
    """A layout by its name.

    Raises:
        InputError: it is none.
    """
    match = _FORM.fullmatch(text.strip().lower())
    if match is None:
        raise InputError(f"is {text!r}", expected="a layout such as tp1, tp2, tp1-dp2 or tp2-dp2-ep", field=field)
    return Layout(int(match[1]), int(match[2] or 1), match[3] is not None)


def parse_pair(text: str) -> tuple[Layout, Layout]:
    """Layouts of a prefill and a decode worker, `tp1:tp2`.

    Raises:
        InputError: it is no such pair.
    """
    parts = text.split(":")
    if len(parts) != 2:
        raise InputError(f"is {text!r}", expected="prefill:decode, such as tp1:tp2", field="--pair")
    return parse_layout(parts[0], "--pair"), parse_layout(parts[1], "--pair")
