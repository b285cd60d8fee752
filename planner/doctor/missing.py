"""Why a target has no samples: down, not discovered, dropped, or under other labels than the planner asks for."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from planner.doctor.prometheus import Server
from planner.observe.base import SourceError
from planner.observe.prometheus import selector
from planner.observe.series import UP
from planner.service.config import ServiceConfig


def reasons(config: ServiceConfig, down: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Why targets are missing.

    Args:
        config: whose metrics are read.
        down: what their own answer says, by address; empty where it was not asked for.

    Returns:
        What was found and what to do, by address.
    """
    reach = "can the planner reach it? a network policy, or this machine is not in the cluster"
    if config.metrics.prometheus is None:
        return {address: (told or "not scraped", reach) for address, told in down.items()}
    asked = Server(config.metrics.prometheus)
    try:
        known = asked.get("targets", state="any")
    except SourceError:
        known = {}
    if not known.get("activeTargets"):
        # Thanos, Mimir and VictoriaMetrics have no targets of their own to ask for.
        fix = "look at the targets of the Prometheus that scrapes"
        return dict.fromkeys(down, ("no sample of it", fix))
    found = {}
    for address in down:
        found[address] = why_missing(address, known, config.metrics.prometheus.match)
        if not found[address][0]:
            found[address] = _other_labels(asked, address, config.metrics.prometheus.match)
    return found


def why_missing(address: str, known: Mapping[str, object], match: Mapping[str, str]) -> tuple[str, str]:
    """Why a target has no sample, from the answer of `/api/v1/targets`.

    Returns:
        What was found and what to do; two empty texts where it is scraped and well.
    """
    active, dropped = known.get("activeTargets"), known.get("droppedTargets")
    for one in active if isinstance(active, list) else ():
        labels, discovered = one.get("labels") or {}, one.get("discoveredLabels") or {}
        if address not in {
            labels.get("instance"),
            discovered.get("__address__"),
            urlsplit(one.get("scrapeUrl", "")).netloc,
        }:
            continue
        if one.get("health") != "up":
            reason = one.get("lastError") or "not scraped yet"
            return f"down: {reason}", "mend what the error says: port, path, network policy, or an engine that hangs"
        if labels.get("instance") != address:
            text = f"its label instance is {labels.get('instance')!r}"
            return text, f"leave instance as host:port; the planner asks for {address} (no relabelling to pod names)"
        wrong = [f"{name}={labels.get(name)!r}" for name, value in match.items() if labels.get(name) != value]
        if wrong:
            wanted = ", ".join(f"{name}={value!r}" for name, value in match.items())
            text = f"its series have {', '.join(wrong)}, and metrics.prometheus.match asks for {wanted}"
            return text, "change match, or the labels that the target gets"
        return "", ""
    for one in dropped if isinstance(dropped, list) else ():
        if (one.get("discoveredLabels") or {}).get("__address__") == address:
            return "discovered, and dropped by relabelling", "look at the relabel_configs, or the PodMonitor's selector"
    fix = "add a PodMonitor (or a scrape config) that selects its pod; is its namespace watched, its port named?"
    return "not discovered: no target has this address", fix


def _other_labels(asked: Server, address: str, match: Mapping[str, str]) -> tuple[str, str]:
    """Of a target that is scraped and well, and yet without a sample."""
    query = selector((UP,), match, [address], 300.0)
    try:
        there = bool(asked.get("query", query=query).get("result"))
    except SourceError as error:
        return str(error), "look at the server's log"
    if there:
        return "scraped, but not in what a tick reads", "scrape more often: see interval"
    return "scraped, and no sample yet", "wait for two scrapes"
