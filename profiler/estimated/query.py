"""One request to aiconfigurator-core in a process of its own, and its answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from profiler.errors import DependencyError, InputError

#: The optional dependency that brings the package.
EXTRA = "estimate"

#: Loading its tables takes seconds, a grid less than one.
LONGEST_S = 300.0

_WORKER = Path(__file__).with_name("worker.py")
_FLAGS = {"gpu": "--gpu", "version": "--engine-version"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `profiler/estimated/worker.py` is asked; points are of one data-parallel rank.

    Attributes:
        config: the model's config.json.
        system: the GPU by the package's name.
        version: of the engine; None is the package's current one.
        tp, dp: of attention.
        moe_tp, moe_ep: how TP x DP GPUs divide the experts; 1 and 1 without any.
        gemm, moe, kv: number formats by the package's names; None is the config's own.
        prefill: (new tokens, tokens before them).
        decode: (batch, context).
        mixed: (prompt tokens, batch, context).
    """

    config: Mapping[str, Any]
    system: str
    version: str | None
    tp: int
    dp: int
    moe_tp: int
    moe_ep: int
    gemm: str | None
    moe: str | None
    kv: str | None
    prefill: tuple[tuple[int, int], ...]
    decode: tuple[tuple[int, int], ...]
    mixed: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Answer:
    """Milliseconds of the request's points, in their order.

    Attributes:
        package: version of aiconfigurator-core.
        version: of the engine whose operators were timed.
        current: the version whose tables the package keeps whole; a newer one borrows from it what it lacks.
        prefill, decode, mixed: milliseconds.
        sources: milliseconds of one sample of prefill and of decode, by where the package has them from: `silicon`
            (timed on the GPU), `empirical` (a formula) or `mixed` (both).
    """

    package: str
    version: str
    current: str
    prefill: tuple[float, ...]
    decode: tuple[float, ...]
    mixed: tuple[float, ...]
    sources: Mapping[str, Mapping[str, float]]


def ask(request: Request, python: Path | None = None) -> Answer:
    """Run the request.

    Args:
        request: what is asked.
        python: interpreter that has aiconfigurator-core; None is this one.

    Raises:
        InputError: the interpreter cannot be run, or the package does not have what is asked for.
        DependencyError: the package is not installed, fails, takes too long or answers what cannot be read.
    """
    program = str(python) if python is not None else sys.executable
    # -E, -P: another interpreter must see neither our environment nor this folder as modules of its own.
    command = [program, "-E", "-P", str(_WORKER)]
    try:
        done = subprocess.run(  # noqa: S603
            command,
            input=json.dumps(asdict(request)),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=LONGEST_S,
            check=False,
        )
    except OSError as error:
        problem = f"{program} cannot be run: {error.strerror or error}"
        raise InputError(problem, expected="a Python interpreter", field="--aiconfigurator") from None
    except subprocess.TimeoutExpired:
        raise DependencyError(f"aiconfigurator-core did not answer within {LONGEST_S:g} s") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        last = said[-1] if said else "it says nothing"
        raise DependencyError(f"aiconfigurator-core failed with exit code {done.returncode}: {last}")
    return read_answer(done.stdout, request, program)


def read_answer(text: str, request: Request, program: str) -> Answer:
    """The worker's answer, checked.

    Raises:
        InputError: the package does not have what was asked for.
        DependencyError: it is not installed in `program`, or the answer is not one to the request.
    """
    try:
        data = json.loads(text)
        if "missing" in data:
            raise DependencyError(
                f"{program} has no aiconfigurator-core ({data['missing']}): "
                f"pip install 'plimsoll[{EXTRA}]', or name a Python that has it by --aiconfigurator"
            )
        if "refused" in data:
            known = ", ".join(data["known"])
            problem = f"aiconfigurator {data['refused']}" if data["field"] else f"aiconfigurator: {data['refused']}"
            raise InputError(problem, expected=f"one of {known}" if known else "", field=_FLAGS.get(data["field"]))
        prefill, decode, mixed = (tuple(float(ms) for ms in data[kind]) for kind in ("prefill", "decode", "mixed"))
        package, version, current = (str(data[key]) for key in ("package", "version", "current"))
        found = Answer(package, version, current, prefill, decode, mixed, data["sources"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DependencyError(f"aiconfigurator-core gave an answer that cannot be read: {error}") from None
    for kind in ("prefill", "decode", "mixed"):
        points, values = getattr(request, kind), getattr(found, kind)
        if len(values) != len(points) or not all(0 < ms < float("inf") for ms in values):
            raise DependencyError(f"aiconfigurator-core gave no time above 0 for every {kind} point")
    return found
