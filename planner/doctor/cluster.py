"""The API server: reachable, new enough, and of the same time; and who holds the graph's lease."""

from __future__ import annotations

import datetime as dt
import http.client
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from planner.connectors.kubernetes.errors import ClusterError, ForbiddenError
from planner.connectors.kubernetes.lease import lease_name
from planner.connectors.kubernetes.resources import LEASES
from planner.doctor.base import Check, SkipError, failed, passed, plural, skipped, warned
from planner.doctor.scene import Scene

#: What a cluster lacks before these versions, and what happens instead. The newest first.
FALLBACKS = (
    ((1, 29), "Jobs have no backoffLimitPerIndex: an index of the profiling Job that fails uses up the whole Job's"),
    ((1, 25), "rules (CEL) in CRDs are ignored: objects that break them are accepted"),
    ((1, 23), "no autoscaling/v2: competing autoscalers are looked for in autoscaling/v1"),
    ((1, 22), "pod-deletion-cost is ignored: scale-downs end the youngest pods, not the least loaded"),
    ((1, 21), "no policy/v1: PodDisruptionBudgets are looked for in policy/v1beta1"),
)

#: Seconds between two clocks from which leases and ages of samples begin to be wrong, and are.
SKEW_WARN_S, SKEW_FAIL_S = 2.0, 10.0

_NTP = "let chrony or systemd-timesyncd keep the time on both machines"


def reachable(scene: Scene) -> Iterator[Check]:
    """Whether the API server answers, and takes the credentials."""
    if scene.cluster is None:
        raise SkipError(scene.no_cluster, "give --kubeconfig, or run it in a pod with a service account")
    cluster = scene.cluster
    started = time.monotonic()
    try:
        cluster.version()
    except ForbiddenError as error:
        scene.cluster, scene.no_cluster = None, "the API server refuses the credentials"
        yield failed(
            "reachable", str(error), "renew the credentials in the kubeconfig (kubectl auth whoami)", blind=True
        )
        return
    except ClusterError as error:
        scene.cluster, scene.no_cluster = None, "the API server was not reached"
        fix = "check address, VPN, proxy and certificates: kubectl --kubeconfig FILE get --raw /version"
        yield failed("reachable", str(error), fix, blind=True)
        return
    took_ms = 1000 * (time.monotonic() - started)
    if took_ms > 1000:
        fix = "raise connector.kubernetes.timeout_s, and look at what slows the API server"
        yield warned("reachable", f"{cluster.server} takes {took_ms:.0f} ms", fix)
    else:
        yield passed("reachable", f"{cluster.server} in {took_ms:.0f} ms; namespace {cluster.namespace}")


def version(scene: Scene) -> Iterable[Check]:
    """The server's version, and what the product does without on an old one."""
    return [judge_version(scene.api().version())]


def judge_version(number: tuple[int, int]) -> Check:
    """A version of Kubernetes, major and minor."""
    shown = f"Kubernetes {number[0]}.{number[1]}"
    lacks = [text for since, text in FALLBACKS if number < since]
    if not lacks:
        return passed("version", shown)
    return warned("version", f"{shown}; {'; '.join(lacks)}", "upgrade the cluster, or live with it: the planner does")


def clock(scene: Scene) -> Iterable[Check]:
    """The API server's time beside this machine's."""
    server = scene.api().server
    try:
        skew_s, within_s = _skew(server)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return [skipped("clock", f"the API server's time could not be read: {error}")]
    return [judge_skew("clock", "the API server's", skew_s, within_s)]


def judge_skew(name: str, whose: str, skew_s: float, within_s: float) -> Check:
    """A difference between clocks.

    Args:
        name: of the check.
        whose: clock.
        skew_s: its time less this machine's, s.
        within_s: how far off that may be, s.
    """
    sure = max(0.0, abs(skew_s) - within_s)
    text = f"{whose} clock is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'} (within {within_s:.1f} s)"
    if sure > SKEW_FAIL_S:
        return failed(name, text, f"{_NTP}: leases lapse and samples look stale or of the future")
    if sure > SKEW_WARN_S:
        return warned(name, text, f"{_NTP}: ages of samples and leases are off by this")
    return passed(name, f"{whose} clock is that of this machine (within {max(within_s, abs(skew_s)):.1f} s)")


def _skew(server: str) -> tuple[float, float]:
    """The server's time less ours, and how far off that may be, s.

    Every answer has a Date, also one to who may do nothing. So nothing is sent that needs a trusted certificate: the
    request carries no credentials, and a false date would only be a false warning.
    """
    parts = urlsplit(server)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = parts.hostname or "", parts.port
    link: http.client.HTTPConnection
    if parts.scheme == "https":
        link = http.client.HTTPSConnection(host, port or 443, timeout=5.0, context=context)
    else:
        link = http.client.HTTPConnection(host, port or 80, timeout=5.0)
    try:
        link.connect()
        before = time.time()
        link.request("GET", f"{parts.path.rstrip('/')}/version")
        date = link.getresponse().getheader("Date")
        after = time.time()
    except socket.gaierror as error:
        raise OSError(f"{host}: {error.strerror}") from None
    finally:
        link.close()
    if date is None:
        raise ValueError("it sends no Date")
    # The header is cut to whole seconds: half a second later is the best guess.
    return parsedate_to_datetime(date).timestamp() + 0.5 - (before + after) / 2, 0.5 + (after - before) / 2


def lease(scene: Scene) -> Iterable[Check]:
    """Who holds the graph's lease, and whether its clock agrees."""
    if scene.config is None or not scene.on_kubernetes:
        return []
    name = lease_name(scene.config.graph)
    found = scene.api().find(LEASES, name)
    spec = (found or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder or not renewed:
        return [passed("lease", f"no planner holds {name}")]
    return [judge_lease(name, str(holder), age_s(str(renewed)), float(spec.get("leaseDurationSeconds") or 0))]


def judge_lease(name: str, holder: str, since_s: float, duration_s: float) -> Check:
    """A lease that was renewed `since_s` seconds ago, by this machine's clock."""
    if since_s < -SKEW_WARN_S:
        text = f"{holder} renewed {name} {-since_s:.0f} s in the future"
        return warned("lease", text, f"{_NTP}: its planner's host is ahead of this one, and holds the lease too long")
    if duration_s and since_s > duration_s:
        text = f"{name}: {holder} has not renewed it for {since_s:.0f} s; it holds for {duration_s:.0f} s"
        return warned("lease", text, "nothing, if no planner shall run; else look at its pod and its log")
    return passed("lease", f"{holder} holds {name}, renewed {plural(max(0, round(since_s)), 'second')} ago")


def age_s(timestamp: str) -> float:
    """Seconds since a time of the API server's, such as 2026-01-02T03:04:05.678900Z."""
    at = dt.datetime.fromisoformat(timestamp)
    return (dt.datetime.now(dt.UTC) - (at if at.tzinfo else at.replace(tzinfo=dt.UTC))).total_seconds()
