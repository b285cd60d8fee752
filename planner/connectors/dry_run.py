"""A connector that looks and never touches: for trying the planner beside whatever scales a graph now."""

from __future__ import annotations

from collections.abc import Mapping

from planner.connectors.base import Connector, LeaseState, Supply, WorkerLoad
from planner.core.layout_change import LayoutProposal, layout_word
from planner.core.types import Plan, PoolState


class DryRunConnector(Connector):
    """Reads a graph, or takes fixed counts, and changes nothing.

    Args:
        supply: the connector of the graph to read, or workers by pool that count as ready.
    """

    def __init__(self, supply: Connector | Mapping[str, int]) -> None:
        self._supply = supply

    def read(self) -> Supply:
        """The graph's supply, or the fixed one."""
        if isinstance(self._supply, Connector):
            return self._supply.read()
        return Supply({name: PoolState(desired=count, ready=count) for name, count in self._supply.items()}, ())

    def apply(
        self,
        plan: Plan,
        holder: str,  # noqa: ARG002 - nothing is changed, whoever asks
        loads: Mapping[str, WorkerLoad] | None = None,  # noqa: ARG002 - and no worker is ended
    ) -> Mapping[str, str]:
        """Says what would be asked for."""
        return {name: f"dry run: would ask for {count}" for name, count in plan.items()}

    def change_layout(self, proposal: LayoutProposal, holder: str) -> str:  # noqa: ARG002 - nothing is changed
        """Says what would be changed."""
        old, new = layout_word(*proposal.old), layout_word(*proposal.new)
        return f"dry run: would change {proposal.pool} from {old} to {new}"

    def lease(self, holder: str, duration_s: float) -> LeaseState:
        """Always held: the graph's own lease stays with the planner that acts on it."""
        return LeaseState(holder, held=True, expires_in_s=duration_s)

    def release(self, holder: str) -> None:
        """There is nothing to give back."""
