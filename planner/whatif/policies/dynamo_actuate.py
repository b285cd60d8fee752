"""What becomes of Dynamo 1.6's decisions on Kubernetes: held back while workers drain, and while others start.

From `connectors/kubernetes.py`, `core/state_machine.py` and `plugins/orchestrator/engine_adapter.py` of ai-dynamo
1.6.1. While any worker drains, nothing is carried out. While any starts, only a reduction to no more than the ready
workers is, and only when the same one was found twice, a load interval apart, with the supply unchanged in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.core.types import Pool, PoolState
from planner.whatif.policies.dynamo_load import Workers


@dataclass(frozen=True, slots=True)
class Supply:
    """Both pools, or the only one, as the peer reads them."""

    workers: tuple[Workers, ...]
    draining: bool

    @property
    def starting(self) -> bool:
        """Whether workers start and nothing else is under way."""
        return not self.draining and any(workers.pending for workers in self.workers)

    @property
    def ready(self) -> tuple[int, ...]:
        """Workers that serve."""
        return tuple(workers.ready for workers in self.workers)


def supply_of(pools: tuple[Pool, ...], states: Mapping[str, PoolState]) -> Supply:
    """The supply of these pools; what is asked for and not ready counts as starting, unless workers drain."""
    draining = any(states[pool.name].terminating > 0 for pool in pools)
    workers = tuple(
        Workers(state.ready, 0 if draining else max(0, state.desired - state.ready), pool.min_workers)
        for pool, state in ((pool, states[pool.name]) for pool in pools)
    )
    return Supply(workers, draining)


class Reductions:
    """Confirms what may be given up while workers start."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._found: tuple[tuple[int | None, ...], Supply] | None = None
        self._since_s = 0.0

    def forget(self) -> None:
        """Begin anew: nothing starts, or a fresh look found nothing to give up."""
        self._found = None

    def confirm(self, wanted: tuple[int | None, ...], supply: Supply, now_s: float) -> tuple[int, ...] | None:
        """The workers to ask for, pools that shall stay as they are included; None for not yet.

        Args:
            wanted: by pool; None, and whatever is no reduction, for no change.
            supply: now.
            now_s: now.
        """
        cuts = cuts_of(wanted, supply)
        if all(cut is None for cut in cuts):
            self.forget()
            return None
        if self._found != (cuts, supply):
            self._found, self._since_s = (cuts, supply), now_s
            return None
        if now_s - self._since_s < self._least_s:
            return None
        return tuple(
            workers.ready + workers.pending if cut is None else cut
            for cut, workers in zip(cuts, supply.workers, strict=True)
        )


def cuts_of(wanted: tuple[int | None, ...], supply: Supply) -> tuple[int | None, ...]:
    """The workers that reductions ask for, None for a pool that stays as it is.

    What is wanted is no reduction where it is more than the ready workers or not less than these and the starting ones
    together. Where a pool that stays is below its least, the others give up no more than what starts.
    """
    cuts = [_cut_of(count, workers) for count, workers in zip(wanted, supply.workers, strict=True)]
    short = any(
        cut is None and workers.ready + workers.pending < workers.least
        for cut, workers in zip(cuts, supply.workers, strict=True)
    )
    if not short:
        return tuple(cuts)
    return tuple(
        None if cut is None or not workers.pending else workers.ready
        for cut, workers in zip(cuts, supply.workers, strict=True)
    )


def _cut_of(wanted: int | None, workers: Workers) -> int | None:
    if wanted is None:
        return None
    floored = max(wanted, workers.least)
    return floored if floored <= workers.ready and floored < workers.ready + workers.pending else None
