"""Cases of an arena: one YAML says which traces, profiles, SLAs, start-up times, budgets and policies there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from planner.core.types import Sla
from profiler.errors import InputError
from profiler.yamlfile import load_settings

#: Sets that come with the package, by the name of their file.
SHIPPED = Path(__file__).parent / "cases"

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _listed(value: Any) -> Any:
    """One value where a list may stand."""
    return [value] if isinstance(value, str | int | float) else value


class SlaSpec(BaseModel):
    """What a request must keep, and how many must."""

    model_config = _STRICT

    ttft_ms: float = Field(gt=0)
    """Limit of a request's TTFT, ms."""
    itl_ms: float = Field(gt=0)
    """Limit of a request's mean ITL, ms."""
    attainment: float = Field(default=0.95, gt=0, le=1)
    """Share of requests that must keep both."""


class CaseSpec(BaseModel):
    """One entry of the file: a case for every start-up time that it lists."""

    model_config = _STRICT

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    """Lower-case letters, digits and hyphens."""
    about: str = ""
    """What the case is for, in a sentence; on the page."""
    trace: str = Field(min_length=1)
    """A file (absolute, or below the folder of public traces, or beside the YAML), or `generate:NAME[,key=value…]`."""
    substitute: str = ""
    """A generated workload for a place where the file is not; the result says which was used."""
    profile: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(min_length=1)
    """Folders with profiles in or below them, one profile per role; absolute, or below the folder of profiles."""
    graph: Literal["disaggregated", "aggregated"] = "disaggregated"
    """Prefill and decode workers, or workers that do both."""
    sla: SlaSpec
    """Limits and target."""
    rate_scale: float = Field(default=1.0, gt=0, le=1000)
    """So many times the requests in the same span."""
    time_scale: float = Field(default=1.0, gt=0, le=1e6)
    """Time is compressed by so much."""
    startup_s: Annotated[tuple[Annotated[float, Field(ge=0, le=86_400)], ...], BeforeValidator(_listed)] = (30.0,)
    """From asking for a worker to its readiness, s; each makes a case."""
    max_gpus: int = Field(default=64, ge=1, le=1_000_000)
    """GPUs that a policy may hold at any moment."""
    start: str = Field(default="auto", pattern=r"^(auto|\d{1,4}p\d{1,4}d|\d{1,4}a)$")
    """Workers at time 0, alike for every policy: `auto` is what the capacity model needs for the first two minutes."""
    routing: Literal["least_loaded", "round_robin"] = "least_loaded"
    """The gateway's choice."""
    without: tuple[str, ...] = ()
    """Names of policies that cannot run here, options aside: one that knows no aggregated workers."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], BeforeValidator(_listed)] = Field(
        default=(0, 1, 2), min_length=1
    )
    """Each makes another trace of the same kind; intervals are over them."""

    @model_validator(mode="after")
    def _consistent(self) -> CaseSpec:
        if len(set(self.seeds)) != len(self.seeds) or len(set(self.startup_s)) != len(self.startup_s):
            raise ValueError("a seed or start-up time is listed twice")
        if not self.startup_s:
            raise ValueError("a case needs a start-up time")
        if self.substitute and not self.substitute.startswith("generate:"):
            raise ValueError("a substitute is a generated workload, such as generate:conversation")
        if self.trace.startswith("generate:") and self.substitute:
            raise ValueError("a generated workload needs no substitute")
        return self


class ArenaSpec(BaseModel):
    """A whole file."""

    model_config = _STRICT

    about: str = ""
    """What the set is for, in a sentence."""
    policies: tuple[str, ...] = Field(min_length=1)
    """As on the command line of `planner whatif`."""
    reference: str = ""
    """The policy that the others are compared with, case by case; none without it."""
    defaults: dict[str, Any] = {}
    """Fields that every case has unless it says otherwise."""
    cases: tuple[CaseSpec, ...] = Field(min_length=1)
    """The cases."""

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, data: Any) -> Any:
        defaults, cases = (data.get("defaults", {}), data.get("cases")) if isinstance(data, dict) else (None, None)
        if not isinstance(defaults, dict) or not isinstance(cases, list):
            return data
        return {**data, "cases": [_filled(case, defaults) if isinstance(case, dict) else case for case in cases]}

    @model_validator(mode="after")
    def _distinct(self) -> ArenaSpec:
        names = [case.name for case in self.cases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if self.reference and self.reference not in self.policies:
            raise ValueError(f"a reference that is one of the policies; {self.reference!r} is none of them")
        if twice:
            raise ValueError(f"cases with names of their own; {twice[0]!r} is there twice")
        return self


def _filled(case: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A case's fields: its own, else the set's defaults, else those of the case that it is like."""
    like = case.get("like")
    if like is None:
        return {**defaults, **case}
    name, _, entry = str(like).partition("/")
    known = load_set(find_set(name)).cases if name in shipped_sets() else ()
    found = next((one for one in known if one.name == entry), None)
    if found is None:
        raise ValueError(f"a case of a shipped set, such as standard/week; {like!r} is none")
    own = {key: value for key, value in case.items() if key != "like"}
    return {**found.model_dump(exclude_unset=True), **defaults, **own}


@dataclass(frozen=True)
class Case:
    """An entry at one of its start-up times."""

    spec: CaseSpec
    startup_s: float

    @property
    def name(self) -> str:
        """The entry's, with the start-up time where it has several."""
        return self.spec.name if len(self.spec.startup_s) == 1 else f"{self.spec.name}@{self.startup_s:g}s"

    def policies(self, offered: Sequence[str]) -> list[str]:
        """Those of the offered policies that can run here."""
        return [policy for policy in offered if policy.partition(":")[0] not in self.spec.without]

    @property
    def sla(self) -> Sla:
        """Limits and target."""
        return Sla(self.spec.sla.ttft_ms, self.spec.sla.itl_ms, self.spec.sla.attainment)

    @property
    def aggregated(self) -> bool:
        """Whether workers do both phases."""
        return self.spec.graph == "aggregated"


def shipped_sets() -> list[str]:
    """Names of the sets that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find_set(name: str) -> Path:
    """The file of a set: one that comes with the package by its name, anything else by its path.

    Raises:
        InputError: there is none.
    """
    shipped = SHIPPED / f"{name}.yaml"
    if name in shipped_sets():
        return shipped
    path = Path(name)
    if not path.is_file():
        right = f"a YAML file, or one of {', '.join(shipped_sets())}"
        raise InputError(f"{name!r} is no set of cases", expected=right, field="CASES")
    return path


def load_set(path: Path) -> ArenaSpec:
    """A set of cases.

    Raises:
        InputError: it cannot be read, or a value is wrong; names file, line and field.
    """
    return load_settings(path, ArenaSpec, field="CASES")


def cases_of(spec: ArenaSpec, patterns: Sequence[str] = ()) -> list[Case]:
    """Every case of a set, or those whose name, or whose entry's name, matches one of the patterns (`azure-*`).

    Raises:
        InputError: a pattern matches none.
    """
    every = [Case(entry, startup_s) for entry in spec.cases for startup_s in entry.startup_s]
    if not patterns:
        return every
    kept: list[Case] = []
    for pattern in patterns:
        found = [case for case in every if fnmatchcase(case.name, pattern) or fnmatchcase(case.spec.name, pattern)]
        if not found:
            names = ", ".join(case.name for case in every)
            raise InputError(f"{pattern!r} is no case", expected=f"one of {names}", field="--case")
        kept += found
    return [case for case in every if case in kept]
