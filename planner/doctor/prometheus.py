"""The Prometheus server itself: reachable, which, of the same time, and keeping what the planner reads."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import requests

from planner.doctor.base import Check, SkipError, failed, passed, skipped, warned
from planner.doctor.cluster import judge_skew
from planner.doctor.scene import Scene
from planner.observe.base import SourceError
from planner.service.config import PrometheusSettings

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0}


class Server:
    """What a Prometheus server says of itself, asked with the planner's own address, certificates and token.

    Args:
        settings: of the configuration.
    """

    def __init__(self, settings: PrometheusSettings) -> None:
        self.url = settings.url.rstrip("/")
        self._settings = settings
        self._session = requests.Session()
        verify: bool | str = not settings.insecure_skip_verify
        if verify and settings.ca_file is not None:
            verify = str(settings.ca_file)
        self._session.verify = verify

    def get(self, path: str, **query: str) -> Mapping[str, Any]:
        """The data of an answer of `/api/v1`.

        Raises:
            SourceError: there is none; the message says why.
        """
        where = f"Prometheus at {self.url}"
        headers = {}
        if self._settings.token_file is not None:
            try:
                token = self._settings.token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SourceError(f"the token cannot be read from {self._settings.token_file}: {error}") from None
            headers["Authorization"] = f"Bearer {token}"
        try:
            answer = self._session.get(
                f"{self.url}/api/v1/{path}", params=query, headers=headers, timeout=self._settings.timeout_s
            )
        except requests.exceptions.RequestException as error:
            reason = str(error.args[0] if error.args else error).rsplit(": ", 1)[-1].strip("'\")>")
            raise SourceError(f"{where} cannot be asked: {reason}") from None
        try:
            body = answer.json()
        except ValueError:
            raise SourceError(f"{where} answered {answer.status_code}, and no JSON: is it a Prometheus?") from None
        if answer.status_code != 200 or not isinstance(body, dict) or body.get("status") != "success":
            said = body.get("error", "") if isinstance(body, dict) else ""
            raise SourceError(f"{where} answered {answer.status_code} to /api/v1/{path}: {said}")
        data = body.get("data")
        return data if isinstance(data, dict) else {"result": data}


def server_of(scene: Scene) -> Server:
    """The configured server; SkipError where the planner scrapes by itself."""
    settings = scene.configuration().metrics.prometheus
    if settings is None:
        raise SkipError("the planner scrapes its targets itself (metrics.source: scrape)")
    return Server(settings)


def server(scene: Scene) -> Iterator[Check]:
    """Reachable, and which version."""
    asked = server_of(scene)
    try:
        asked.get("query", query="vector(1)")
    except SourceError as error:
        fix = "check metrics.prometheus.url from where the planner runs: a Service's name works in the cluster alone"
        yield failed("Prometheus", str(error), fix)
        return
    try:
        about = asked.get("status/buildinfo")
    except SourceError:
        yield passed("Prometheus", f"{asked.url} answers queries; it does not say what it is")
        return
    yield passed("Prometheus", f"{asked.url} is {about.get('version', 'of an unknown version')}")


def clock(scene: Scene) -> Iterable[Check]:
    """Its time: samples carry it."""
    asked = server_of(scene)
    before = time.time()
    told = asked.get("query", query="time()").get("result")
    after = time.time()
    try:
        at = float(told[1] if isinstance(told, list) else "")
    except (IndexError, TypeError, ValueError):
        return [skipped("clock", f"{asked.url} did not tell its time")]
    return [judge_skew("clock", "Prometheus'", at - (before + after) / 2, (after - before) / 2 + 0.001)]


def retention(scene: Scene) -> Iterable[Check]:
    """How long it keeps samples, beside the span that a tick reads."""
    asked, config = server_of(scene), scene.configuration()
    try:
        told = str(asked.get("status/runtimeinfo").get("storageRetention", ""))
    except SourceError:
        return [skipped("retention", "the server does not say how long it keeps samples")]
    return [judge_retention(told, (2 * config.tuning.interval_s + config.tuning.stale_after_s) / config.speed_up)]


def judge_retention(told: str, needed_s: float) -> Check:
    """A retention as Prometheus writes it: `15d`, `15d or 50GiB`."""
    kept_s = duration_s(told.partition(" or ")[0])
    if kept_s is None:
        return skipped("retention", f"the server says {told!r}" if told else "the server does not say")
    if kept_s < needed_s:
        fix = f"keep at least {needed_s:.0f} s: --storage.tsdb.retention.time"
        return failed("retention", f"{told}; a tick reads {needed_s:.0f} s", fix)
    if kept_s < 3600.0:
        fix = "keep a day, to see afterwards why something was decided"
        return warned("retention", f"{told}; a tick reads {needed_s:.0f} s", fix)
    return passed("retention", f"{told}; a tick reads {needed_s:.0f} s")


def duration_s(text: str) -> float | None:
    """Seconds of a Prometheus duration such as `1h30m`; None if it is none."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdwy])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
