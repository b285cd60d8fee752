"""Several runs on one target, each kept as soon as it is over."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from profiler.errors import DependencyError, InputError
from profiler.hardware import find_gpu
from profiler.load import Counting, Kind, Load, PairLoad, Result
from profiler.measure.base import Facts
from profiler.measure.facts import read_facts
from profiler.record.files import Mode, RunMeta, Worker, tally, write_recording
from profiler.record.run import Observed, observe
from profiler.record.schedule import Schedule, requests_of
from profiler.schema import Role


@dataclass(frozen=True, slots=True)
class Target:
    """What is under load.

    Attributes:
        aggregated: address of an aggregated worker, without `/v1`; or none, and
        prefill, decode: addresses of prefill and decode workers, served round robin.
        model, gpu: as in the profiles.
        served_model: the name that requests ask for.
        tp: of each role's workers.
        max_num_seqs, max_num_batched_tokens: as the workers were started, where that is known.
    """

    aggregated: tuple[str, ...]
    prefill: tuple[str, ...]
    decode: tuple[str, ...]
    model: str
    served_model: str
    gpu: str
    tp: Mapping[str, int]
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None

    def __post_init__(self) -> None:
        """Check that it is one worker, or a pair.

        Raises:
            InputError: it is neither.
        """
        if self.aggregated and (self.prefill or self.decode):
            raise InputError("goes without --prefill-url and --decode-url", field="--url")
        if not self.aggregated and not (self.prefill and self.decode):
            missing = "--decode-url" if self.prefill else "--prefill-url" if self.decode else "--url"
            right = "--url, or --prefill-url and --decode-url"
            raise InputError("missing", expected=right, field=missing)
        if len(self.aggregated) > 1:
            raise InputError(f"{len(self.aggregated)} addresses", expected="one aggregated worker", field="--url")

    @property
    def mode(self) -> Mode:
        """What serves."""
        return "aggregated" if self.aggregated else "disaggregated"

    @property
    def urls(self) -> dict[str, Role]:
        """Every worker's address and role."""
        of: dict[Role, tuple[str, ...]] = {
            "aggregated": self.aggregated,
            "prefill": self.prefill,
            "decode": self.decode,
        }
        return {url.rstrip("/"): role for role in get_args(Role) for url in of[role]}


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How the client sends and counts; as in `Load`."""

    prompt: Kind = Kind.IDS
    counting: Counting = Counting.IDS
    speed_up: float = 1.0
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Done:
    """A run that is over and on disk."""

    path: Path
    meta: RunMeta
    results: Sequence[Result]


async def run_all(
    target: Target,
    schedules: Sequence[Schedule],
    to: Path,
    *,
    options: ClientOptions = ClientOptions(),
    command: str = "",
    before: Callable[[str, int, float], None] | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> list[Done]:
    """Record runs one after the other, each from an idle engine.

    Args:
        target: what is under load.
        schedules: the runs; those without a name are r1, r2, … by their place.
        to: their folder; or, for a single run, its CSV file.
        options: of the client.
        command: for the record.
        before: called before each run with its name, requests and the span of its arrivals, s.
        on_result: called with each result as it comes.

    Returns:
        The runs, in order.

    Raises:
        InputError: two runs of one name, a file that is there already, a wrong schedule, or a model that is not served.
        DependencyError: an engine does not answer or stays busy, or a file cannot be written. Runs that are over, and
            the one during which an engine died, are on disk.
    """
    paths = _paths(schedules, to)
    facts = {
        url: await read_facts(
            url,
            target.served_model,
            max_num_seqs=target.max_num_seqs,
            max_num_batched_tokens=target.max_num_batched_tokens,
        )
        for url in target.urls
    }
    lengths = [one.max_model_len for one in facts.values() if one.max_model_len is not None]
    # All before the first is sent: a wrong one must not cost the GPU time of those before it.
    requests = [requests_of(one, min(lengths, default=None)) for one in schedules]
    prompt_seed = random.SystemRandom().getrandbits(48)  # else a second run would find the first one's prompts cached
    load = _load(target, options, prompt_seed)
    done: list[Done] = []
    for path, schedule, sends in zip(paths, schedules, requests, strict=True):
        if before is not None:
            before(path.stem, len(sends), sends[-1].at_s)
        observed = await observe(load, sends, list(target.urls), speed_up=options.speed_up, on_result=on_result)
        meta = RunMeta(
            name=path.stem,
            mode=target.mode,
            model=target.model,
            gpu=_gpu_name(target.gpu),
            served_model=target.served_model,
            engine_version=next(iter(facts.values())).version,
            workers=tuple(
                _worker(role, facts[url], target.tp.get(role, 1), observed, url) for url, role in target.urls.items()
            ),
            schedule=schedule.model_dump(mode="json", exclude_none=True),
            prompt_seed=prompt_seed,
            speed_up=options.speed_up,
            date=dt.datetime.now(dt.UTC).replace(microsecond=0),
            command=command,
            versions=_versions(),
            duration_s=round(observed.duration_s, 3),
            rate_rps=round(len(sends) / max(sends[-1].at_s, 1e-3), 4),
            outcomes=dict(tally(observed.results)),
            client=observed.client,
        )
        write_recording(path, meta, observed.results)
        if observed.problem:
            raise DependencyError(f"{path} is kept, but its engine is in trouble: {observed.problem}")
        done.append(Done(path, meta, observed.results))
    return done


def _paths(schedules: Sequence[Schedule], to: Path) -> list[Path]:
    if to.suffix == ".csv":
        if len(schedules) != 1:
            raise InputError(f"names one file for {len(schedules)} runs", expected="a folder", field="--to")
        paths = [to]
    else:
        names = [schedule.name or f"r{place}" for place, schedule in enumerate(schedules, start=1)]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"two runs are called {twice[0]!r}", expected="a name=… for each", field="--schedule")
        paths = [to / f"{name}.csv" for name in names]
    for path in paths:
        if path.exists() or path.with_suffix(".json").exists():
            raise InputError("exists", expected="another name, or the file taken away", source=path, field="--to")
    return paths


def _load(target: Target, options: ClientOptions, seed: int) -> Load:
    if target.aggregated:
        return Load(
            target.aggregated[0],
            target.served_model,
            speed_up=options.speed_up,
            timeout_s=options.timeout_s,
            prompt=options.prompt,
            counting=options.counting,
            seed=seed,
        )
    return PairLoad(
        target.prefill,
        target.decode,
        target.served_model,
        speed_up=options.speed_up,
        timeout_s=options.timeout_s,
        prompt=options.prompt,
        counting=options.counting,
        seed=seed,
    )


def _worker(role: Role, facts: Facts, tp: int, observed: Observed, url: str) -> Worker:
    return Worker(
        role=role,
        tp=tp,
        dp=facts.dp,
        kv_capacity_tokens=facts.kv_capacity_tokens,
        block_size=facts.block_size,
        max_model_len=facts.max_model_len,
        max_num_seqs=facts.max_num_seqs,
        max_num_batched_tokens=facts.max_num_batched_tokens,
        prefix_caching=facts.prefix_caching,
        counters=dict(observed.counters[url]),
    )


def _gpu_name(name: str) -> str:
    """The short name of a GPU that is known; else as given."""
    gpu = find_gpu(name)
    return name if gpu is None else gpu.name


def _versions() -> dict[str, str]:
    names = ("plimsoll", "aiohttp", "numpy")
    found = {dist.metadata["Name"].lower(): dist.version for dist in importlib.metadata.distributions(name="plimsoll")}
    for name in names[1:]:
        found[name] = importlib.metadata.version(name)
    return {"python": platform.python_version(), **found}
