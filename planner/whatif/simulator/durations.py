"""How long things take: prompts, decodes, an iteration of both, a hand-off."""

from __future__ import annotations

from planner.whatif.simulator.compiled import kernel
from planner.whatif.simulator.state import Floats, Sim


@kernel
def linear_ms(s: Sim, engine: int, behind: int, tokens: float) -> float:
    """Prompt time without attention, by the tokens of the iteration, alone (0) or beside decodes (1)."""
    place = tokens / s.engines[engine].prefill_step
    last = s.prefill_ms.shape[2] - 2
    node = min(int(place), last)
    low = s.prefill_ms[engine, behind, node]
    return low + (s.prefill_ms[engine, behind, node + 1] - low) * min(place - node, 1.0)


@kernel
def decode_ms(s: Sim, w: int, engine: int, running: int) -> float:
    """An iteration of so many decodes alone, at the KV tokens that worker w's batch holds."""
    place = s.workers[w].kv / s.engines[engine].kv_step
    node = min(int(place), s.decode_ms.shape[2] - 2)
    low = s.decode_ms[engine, running, node]
    return low + (s.decode_ms[engine, running, node + 1] - low) * min(place - node, 1.0)


@kernel
def mixed_ms(s: Sim, engine: int, prompts: float, decode: float, running: int) -> float:
    """An iteration of prompts and decodes that take so long apart; never less than the decodes."""
    together = prompts + s.engines[engine].mixed_per_request * running + (decode - s.engines[engine].shared_ms)
    # Prompts take the floor at least, so that decodes alone can only be longer where more than the floor is saved.
    return max(together, decode) if s.engines[engine].shared_ms > s.engines[engine].floor_ms else together


@kernel
def hand_off_ms(s: Sim, table: Floats, tokens: int) -> float:
    """A time of a hand-off, by its tokens."""
    place = tokens / s.totals[0].transfer_step
    node = min(int(place), table.shape[0] - 2)
    low = table[node]
    return low + (table[node + 1] - low) * min(place - node, 1.0)
