"""A client of the supervisor's interface, for the command line and for the planner's connector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from profiler.errors import DependencyError, InputError


class RefusedError(DependencyError):
    """The supervisor understood and refused; `code` says why: not_holder, over_budget."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Client:
    """Talks to one supervisor.

    Args:
        url: of its control interface.
        timeout_s: of one call.
    """

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        # A proxy of the environment has no business between two processes of one machine.
        self._session.trust_env = False

    def status(self) -> dict[str, Any]:
        """The graph as `status.status` describes it."""
        return self._call("GET", "/status")

    def scale(self, replicas: Mapping[str, int], holder: str = "", max_gpus: int | None = None) -> dict[str, str]:
        """What was done, by pool.

        Args:
            replicas: workers by pool.
            holder: of the lease; empty for a person.
            max_gpus: GPUs that the graph may hold at any moment; None for all that it was started with.

        Raises:
            RefusedError: over budget, or the lease is another's.
            InputError: an unknown pool or a wrong count.
            DependencyError: there is no answer.
        """
        body = {"replicas": dict(replicas), "holder": holder, "max_gpus": max_gpus}
        answer: dict[str, str] = self._call("POST", "/scale", body)["outcome"]
        return answer

    def lease(self, holder: str, duration_s: float) -> dict[str, Any]:
        """Take or renew the lease: `held`, `holder`, `expires_in_s`."""
        return self._call("POST", "/lease", {"holder": holder, "duration_s": duration_s})

    def release(self, holder: str) -> None:
        """Give the lease back."""
        self._call("DELETE", "/lease", {"holder": holder})

    def shut_down(self) -> None:
        """End the graph."""
        self._call("POST", "/shutdown", {})

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            answer = self._session.request(method, self.url + path, json=body, timeout=self._timeout_s)
            data = answer.json()
        except requests.Timeout:
            raise DependencyError(f"{self.url} did not answer within {self._timeout_s:g} s") from None
        except requests.ConnectionError:
            raise DependencyError(f"{self.url} does not answer; is the graph up?") from None
        except (requests.RequestException, ValueError) as error:
            raise DependencyError(f"{self.url}{path}: {error}") from None
        if not isinstance(data, dict):
            raise DependencyError(f"{self.url}{path} answered with a {type(data).__name__}")
        if answer.status_code == 400:
            raise InputError(str(data.get("error")))
        if answer.status_code >= 400:
            raise RefusedError(str(data.get("error")), str(data.get("code")))
        return data
