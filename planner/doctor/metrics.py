"""What the observer reads, target by target: which is missing, and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import requests

from planner.connectors.base import Supply, WorkerStatus
from planner.doctor.base import Check, SkipError, failed, passed, plural, skipped, some, warned
from planner.doctor.missing import reasons
from planner.doctor.scene import Scene
from planner.observe.base import Series
from planner.observe.dialects import engine_dialect, gateway_dialect
from planner.observe.dialects.base import EngineDialect, GatewayDialect, Selector
from planner.observe.scrape import parse
from planner.observe.series import UP
from planner.service.config import ScrapeSettings, ServiceConfig
from planner.service.registry import make_source

#: Targets that are named one by one.
MOST_NAMED = 5

#: Requests at a time, when the planner's own scraping is tried.
AT_ONCE = 16


@dataclass(frozen=True)
class Target:
    """A worker or a gateway whose metrics are wanted."""

    address: str
    what: str
    pool: str = ""

    @property
    def gateway(self) -> bool:
        """Whether it is one: it is in no pool."""
        return not self.pool


@dataclass
class Seen:
    """What was read of one target.

    Attributes:
        up: whether its newest scrape worked; None where it was never scraped.
        labels: by metric name, the labels of each of its series.
        scrapes_s: when it was scraped, rising.
        why: that it could not be read, in words.
    """

    up: bool | None = None
    labels: dict[str, list[Mapping[str, str]]] = field(default_factory=dict)
    scrapes_s: list[float] = field(default_factory=list)
    why: str = ""


def targets_of(supply: Supply) -> list[Target]:
    """Workers that serve, and gateways."""
    workers = [
        Target(one.address, f"{one.pool} worker {one.name}", one.pool)
        for one in supply.workers
        if one.status is WorkerStatus.READY and one.address
    ]
    return [*workers, *(Target(address, "gateway") for address in supply.gateways)]


def targets(scene: Scene) -> Iterator[Check]:
    """Whether each target is scraped."""
    wanted, seen = _read(scene)
    up = [one for one in wanted if seen[one.address].up]
    down = [one for one in wanted if not seen[one.address].up]
    if not down:
        yield passed("targets", f"all {plural(len(wanted), 'target')} answer")
        return
    # Of a pool with some left the planner still knows enough to hold or to grow; of one with none it is blind.
    judge = failed if {one.pool for one in down} - {one.pool for one in up} else warned
    why = reasons(scene.configuration(), {one.address: seen[one.address].why for one in down})
    for one in down[:MOST_NAMED]:
        found, fix = why[one.address]
        yield judge("target", f"{one.what} at {one.address}: {found}", fix)
    if len(down) > MOST_NAMED:
        kinds = Counter(why[one.address][1] for one in down[MOST_NAMED:])
        yield judge("targets", f"{len(down) - MOST_NAMED} more are missing", kinds.most_common(1)[0][0])


def series(scene: Scene) -> Iterator[Check]:
    """Whether the targets that answer export what the observer reads, with the labels that it selects by."""
    wanted, seen = _read(scene)
    config = scene.configuration()
    engine, gateway = engine_dialect(config.metrics.engine), gateway_dialect(config.metrics.gateway)
    answering = [one for one in wanted if seen[one.address].up]
    if not answering:
        raise SkipError("no target answers")
    yield from judge_engines(engine, {one.address: seen[one.address] for one in answering if not one.gateway})
    yield from judge_gateways(gateway, {one.address: seen[one.address] for one in answering if one.gateway})


def interval(scene: Scene) -> Iterable[Check]:
    """How often targets are scraped, beside the planner's ticks."""
    config = scene.configuration()
    if config.metrics.prometheus is None:
        return [
            passed("interval", f"scraped every {config.scrape_period_s:g} s; ticks of {config.wall_interval_s:g} s")
        ]
    _, seen = _read(scene)
    gaps = [b - a for one in seen.values() for a, b in pairwise(one.scrapes_s)]
    if not gaps:
        return [skipped("interval", "no target was scraped twice in what a tick reads")]
    return [judge_interval(median(gaps), config.wall_interval_s, config.tuning.stale_after_s / config.speed_up)]


def judge_interval(scrape_s: float, tick_s: float, stale_s: float) -> Check:
    """Seconds of wall time between scrapes, between ticks, and until a sample is stale."""
    text = f"scraped every {scrape_s:.3g} s; ticks of {tick_s:g} s"
    if scrape_s >= stale_s:
        fix = f"scrape at least every {tick_s:g} s (PodMonitor interval), or raise tuning.stale_after_s"
        return failed("interval", f"{text}, and a sample is stale after {stale_s:g} s", fix)
    if scrape_s > tick_s:
        fix = f"scrape at least every {tick_s:g} s: ticks in between see nothing new"
        return warned("interval", text, fix)
    return passed("interval", text)


def required(engine: EngineDialect) -> tuple[str, ...]:
    """Series that a worker must export for the planner to see its load and its latencies."""
    gauges = (engine.waiting, engine.running, engine.kv_usage)
    return (*gauges, *(f"{one}_bucket" for one in (engine.isl, engine.osl, engine.ttft, engine.request_itl)))


def judge_engines(engine: EngineDialect, seen: Mapping[str, Seen]) -> Iterator[Check]:
    """Series of the workers that answer, by address."""
    if not seen:
        yield skipped("worker series", "no worker answers")
        return
    missing = {name: [address for address, one in seen.items() if name not in one.labels] for name in required(engine)}
    missing = {name: where for name, where in missing.items() if where}
    for name, where in missing.items():
        text = f"{name} is not exported by {some(where)}"
        fix = f"is it {engine.name}? see metrics.engine; with Prometheus, is the series dropped by a relabelling rule?"
        yield failed("worker series", text, fix)
    if not missing:
        yield passed("worker series", f"{plural(len(seen), 'worker')} export all of {len(required(engine))}")
    for name, lost in (
        (engine.started, "a restart then costs what was counted since the last scrape"),
        (engine.prefix_queries, "prompts then count in full, whatever the prefix cache holds"),
    ):
        where = [address for address, one in seen.items() if name not in one.labels]
        if where:
            yield warned("worker series", f"{name} is not exported by {some(where)}", f"nothing; {lost}")


def judge_gateways(gateway: GatewayDialect, seen: Mapping[str, Seen]) -> Iterator[Check]:
    """Series of the gateways that answer, by address."""
    if not seen:
        text = "no gateway answers: the offered load cannot be seen"
        yield failed("gateway series", text, "see its target above, and connector.kubernetes.gateway_selector")
        return
    for address, one in seen.items():
        counters = [counter for counter in gateway.arrivals if one.labels.get(counter.name)]
        if not counters and not any(one.labels.get(name) for name in gateway.signs):
            names = " nor ".join(counter.name for counter in gateway.arrivals)
            text = f"{address} exports no {names}: it is no {gateway.name}"
            yield failed("gateway series", text, "set metrics.gateway, or connector.kubernetes.gateway_metrics_port")
        elif not counters:
            text = f"{address} is {gateway.name} and has counted no request yet"
            yield warned("gateway series", text, "send one, and look again")
        elif not any(counters[0].matches(labels) for labels in one.labels[counters[0].name]):
            text = f"{address}: no series of {counters[0].name} has {_conditions(counters[0])}"
            yield warned("gateway series", text, "send a completion, and look again: only these count as load")
        else:
            yield passed("gateway series", f"{address} counts arrivals in {counters[0].name}")


def _conditions(one: Selector) -> str:
    return ", ".join(f"{label} in {{{some(sorted(values), 2)}}}" for label, values in one.where.items())


# -- reading ---------------------------------------------------------------------------------------------------------


def _read(scene: Scene) -> tuple[list[Target], dict[str, Seen]]:
    """The targets and what can be read of each, as the planner reads it; asked once for all checks."""
    if scene.metrics is None:
        wanted = targets_of(scene.supply())
        if not wanted:
            fix = "start the graph, or look at the graph checks"
            raise SkipError("the graph has no worker that serves and no gateway", fix)
        config = scene.configuration()
        read = _directly if config.metrics.prometheus is None else _from_prometheus
        scene.metrics = wanted, read(config, wanted, scene.supply())
    return scene.metrics


def _names(config: ServiceConfig) -> tuple[str, ...]:
    engine, gateway = engine_dialect(config.metrics.engine), gateway_dialect(config.metrics.gateway)
    return tuple(dict.fromkeys((UP, *engine.names(), *gateway.names())))


def _from_prometheus(config: ServiceConfig, wanted: Sequence[Target], supply: Supply) -> dict[str, Seen]:
    span_s = (2 * config.tuning.interval_s + config.tuning.stale_after_s) / config.speed_up
    source = make_source(config)
    try:
        found = source.read(_names(config), supply, span_s, time.time())
    finally:
        source.close()
    return sort_series(found, [one.address for one in wanted])


def sort_series(found: Sequence[Series], addresses: Sequence[str]) -> dict[str, Seen]:
    """By instance."""
    seen = {address: Seen() for address in addresses}
    for one in found:
        target = seen.get(one.labels.get("instance", ""))
        if target is None or not one.values:
            continue
        if one.name == UP:
            target.up = one.values[-1] == 1.0
            target.scrapes_s = sorted({*target.scrapes_s, *one.at_s})
        else:
            target.labels.setdefault(one.name, []).append(one.labels)
    return seen


def _directly(config: ServiceConfig, wanted: Sequence[Target], supply: Supply) -> dict[str, Seen]:  # noqa: ARG001
    names = frozenset(_names(config))
    timeout_s = (config.metrics.scrape or ScrapeSettings()).timeout_s

    def scrape(target: Target) -> Seen:
        try:
            answer = requests.get(f"http://{target.address}/metrics", timeout=timeout_s)
        except requests.exceptions.Timeout:
            return Seen(False, why=f"no answer within {timeout_s:g} s")
        except requests.exceptions.RequestException as error:
            return Seen(False, why=f"cannot be reached: {_last_words(error)}")
        if answer.status_code != 200:
            return Seen(False, why=f"answered {answer.status_code}")
        try:
            samples = parse(answer.text, names)
        except ValueError as error:
            return Seen(False, why=f"not in Prometheus' text format: {error}")
        seen = Seen(True)
        for name, labels in samples:
            seen.labels.setdefault(name, []).append(dict(labels))
        return seen

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip([one.address for one in wanted], pool.map(scrape, wanted), strict=True))


def _last_words(error: Exception) -> str:
    """The cause at the end of what requests and urllib3 wrap around it."""
    return str(error).rsplit(": ", 1)[-1].strip("'\")>")
