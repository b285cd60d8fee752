"""What a check says, and what checks share about an unexpected end."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

_SECRETS = (
    (re.compile(r"(://)[^/@\s]+@"), r"\1***@"),
    (re.compile(r"\b(hf_)[A-Za-z0-9]{16,}"), r"\1***"),
    (re.compile(r"(?i)\b(bearer\s+)[^\s'\"]+"), r"\1***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), "***"),
    (re.compile(r"(?i)\b((?:access_)?token|password|api_key|apikey|secret)=[^\s&'\"]+"), r"\1=***"),
)


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "PASS"  # noqa: S105 - no password
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


class Group(StrEnum):
    """What belongs together, in the order in which it is looked at."""

    CLUSTER = "cluster"
    CRDS = "crds"
    RIGHTS = "rights"
    GRAPH = "graph"
    METRICS = "metrics"
    PROFILE = "profile"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what, in a word or two.
        verdict: how it ended; SKIP where it could not be looked at, which is no failure of what is looked at.
        found: what was there.
        fix: what to do about it; empty where there is nothing to do.
        group: where it belongs.
        blind: nothing was seen: the thing that was to be looked at did not answer.
    """

    name: str
    verdict: Verdict
    found: str
    fix: str = ""
    group: Group = Group.CLUSTER
    blind: bool = False

    def clean(self) -> Check:
        """The same without what must not be shown, wherever the words came from."""
        return replace(self, found=redacted(self.found), fix=redacted(self.fix))


def passed(name: str, found: str) -> Check:
    """As it should be."""
    return Check(name, Verdict.PASS, found)


def warned(name: str, found: str, fix: str) -> Check:
    """The planner works, but not as well as it could, or not for long."""
    return Check(name, Verdict.WARN, found, fix)


def failed(name: str, found: str, fix: str, *, blind: bool = False) -> Check:
    """The planner does not work, or decides wrongly."""
    return Check(name, Verdict.FAIL, found, fix, blind=blind)


def skipped(name: str, found: str, fix: str = "") -> Check:
    """Could not be looked at, or does not apply."""
    return Check(name, Verdict.SKIP, found, fix)


class SkipError(Exception):
    """Raised by a probe that cannot look; the message says why, `fix` what would let it.

    Args:
        found: why.
        fix: what to do to have it looked at.
    """

    def __init__(self, found: str, fix: str = "") -> None:
        super().__init__(found)
        self.fix = fix


def redacted(text: str) -> str:
    """The text without credentials: in addresses, bearer tokens, those of the model hub, JSON web tokens."""
    for pattern, by in _SECRETS:
        text = pattern.sub(by, text)
    return text


def some(words: list[str], most: int = 3) -> str:
    """The first few of many, and how many more there are."""
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
