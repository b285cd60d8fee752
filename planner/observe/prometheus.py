"""Samples from a Prometheus server, or from whatever answers its query API (Thanos, Mimir, VictoriaMetrics)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.exceptions import ReadTimeoutError
from urllib3.util.retry import Retry

from planner.connectors.base import Supply
from planner.observe.base import Series, Source, SourceError

#: Characters of a server's own words that an error repeats.
MOST_WORDS = 200


class PrometheusSource(Source):
    """One query a tick: raw samples with the times at which Prometheus scraped them.

    Asking for raw samples (an instant query of a range selector) and not for `rate()` leaves resets, workers that come
    and go, and missing scrapes to be judged here, and never extrapolates.
    """

    def __init__(
        self,
        url: str,
        *,
        matchers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        token_file: Path | None = None,
        verify: bool = True,
        ca_file: Path | None = None,
    ) -> None:
        """Set up; nothing is asked yet.

        Args:
            url: of the server, with any path that its API lies below.
            matchers: labels that every series must have, such as a namespace or a cluster: needed where one server
                sees several clusters that use the same addresses.
            timeout_s: to connect, and for every wait for more of the answer.
            token_file: holds a bearer token; read for every query, because tokens are renewed in place.
            verify: check the server's certificate.
            ca_file: certificates that may sign it, instead of the system's.
        """
        self._url = url.rstrip("/")
        self._matchers = dict(matchers or {})
        self._token_file = token_file
        self._lately: dict[str, float] = {}
        self._body = b""
        session = requests.Session()
        session.verify = str(ca_file) if ca_file is not None and verify else verify
        session.hooks["response"].append(self._keep)
        # Not tried again within a tick: the next tick does, and the samples will still be there.
        self._client = PrometheusConnect(
            url=self._url, session=session, timeout=timeout_s, retry=Retry(total=0, read=False)
        )
        self._timeout_s = timeout_s

    def read(self, names: Sequence[str], supply: Supply, span_s: float, now_s: float) -> Sequence[Series]:
        """As `Source.read`; targets that left the graph within the span are still asked for."""
        addresses = [worker.address for worker in supply.workers] + list(supply.gateways)
        self._lately.update(dict.fromkeys(addresses, now_s))
        self._lately = {address: last for address, last in self._lately.items() if last >= now_s - span_s}
        if not self._lately:
            return ()
        matrix = self._ask(selector(names, self._matchers, sorted(self._lately), span_s), now_s)
        return [self._series(row) for row in matrix if row.get("values")]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _keep(self, response: requests.Response, *args: object, **kwargs: object) -> None:  # noqa: ARG002 (a hook)
        # The client hands out the result only, and drops the warnings that tell a partial answer from a whole one.
        self._body = response.content

    def _ask(self, query: str, now_s: float) -> list[dict[str, Any]]:
        where = f"Prometheus at {self._url}"
        self._client.headers = self._headers()
        try:
            matrix = self._client.custom_query(query, params={"time": f"{now_s:.3f}"})
        except requests.exceptions.SSLError as error:
            raise SourceError(f"{where}: its certificate is not trusted: {_root(error)}") from None
        except requests.exceptions.Timeout:
            raise SourceError(f"{where} did not answer within {self._timeout_s:g} s") from None
        except requests.exceptions.JSONDecodeError:
            raise SourceError(f"{where} answered something that is not JSON: {self._words()}") from None
        except requests.exceptions.ConnectionError as error:
            if isinstance(_root(error), TimeoutError | ReadTimeoutError):
                raise SourceError(f"{where} did not answer in full within {self._timeout_s:g} s") from None
            raise SourceError(f"{where} cannot be reached: {_root(error)}") from None
        except requests.exceptions.RequestException as error:
            raise SourceError(f"{where} cannot be asked: {error}") from None
        except PrometheusApiClientException as error:
            status = re.match(r"HTTP Status Code (\d+)", str(error))
            code = status.group(1) if status else "an error"
            raise SourceError(f"{where} answered {code}: {self._words()}") from None
        except (KeyError, TypeError):
            raise SourceError(f"{where} answered JSON that is no query result: {self._words()}") from None
        if not isinstance(matrix, list) or not all(isinstance(row, dict) and "metric" in row for row in matrix):
            raise SourceError(f"{where} answered something that is no matrix: {self._words()}")
        warnings = self._warnings()
        if warnings:
            raise SourceError(f"{where} gave a partial answer: {'; '.join(warnings)[:MOST_WORDS]}")
        return matrix

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"the token for Prometheus cannot be read from {self._token_file}: {error}") from None
        return {"Authorization": f"Bearer {token}"}

    def _words(self) -> str:
        """What the server said: the error in its JSON, or the beginning of the body."""
        text = self._body.decode("utf-8", errors="replace").strip()
        try:
            said = json.loads(text).get("error", text)
        except (ValueError, AttributeError):
            said = text
        return (str(said) or "an empty body")[:MOST_WORDS]

    def _warnings(self) -> list[str]:
        # Bodies are large, and only a partial one is worth reading twice.
        if b'"warnings"' not in self._body:
            return []
        return [str(one) for one in json.loads(self._body).get("warnings") or ()]

    def _series(self, row: Mapping[str, Any]) -> Series:
        name = ""
        try:
            labels = dict(row["metric"])
            name = labels.pop("__name__", "")
            at_s = tuple(float(at) for at, _ in row["values"])
            values = tuple(float(value) for _, value in row["values"])
        except (TypeError, ValueError):
            raise SourceError(f"Prometheus at {self._url} answered samples of {name} that are not numbers") from None
        return Series(name, labels, at_s, values)


def selector(names: Sequence[str], matchers: Mapping[str, str], addresses: Sequence[str], span_s: float) -> str:
    """The range selector of these names at these instances, for so many seconds."""
    conditions = [f"__name__=~{_quoted(_any_of(names))}", f"instance=~{_quoted(_any_of(addresses))}"]
    conditions += [f"{label}={_quoted(value)}" for label, value in sorted(matchers.items())]
    return f"{{{','.join(conditions)}}}[{math.ceil(span_s * 1000)}ms]"


def _any_of(words: Sequence[str]) -> str:
    return "|".join(re.escape(word) for word in words)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _root(error: BaseException) -> BaseException:
    """The innermost reason of an error that wraps others."""
    while True:
        nested = getattr(error, "reason", None)
        inner = [one for one in (nested, *error.args) if isinstance(one, BaseException)]
        if not inner:
            return error
        error = inner[0]
