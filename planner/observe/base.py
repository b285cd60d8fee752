"""The interface of a metrics source: raw samples of series, whoever collected them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.connectors.base import Supply
from profiler.errors import DependencyError


class SourceError(DependencyError):
    """The source could not be read at all; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Series:
    """Raw samples of one series, oldest first, by wall-clock time; shapes (n,) and (n,)."""

    name: str
    labels: Mapping[str, str]
    at_s: tuple[float, ...]
    values: tuple[float, ...]


class Source(ABC):
    """Collects raw samples of the metrics that an observation needs."""

    @abstractmethod
    def read(self, names: Sequence[str], supply: Supply, span_s: float, now_s: float) -> Sequence[Series]:
        """Samples of the last `span_s` seconds.

        Args:
            names: metric names as exported, histograms with their `_bucket`, `_sum` and `_count`.
            supply: workers and gateways whose metrics are wanted.
            span_s: seconds to look back, by the wall clock.
            now_s: unix time.

        Raises:
            SourceError: nothing could be read.
        """

    def close(self) -> None:  # noqa: B027 (a source without threads or connections has nothing to end)
        """End threads and connections."""
