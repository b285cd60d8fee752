"""How a worker's pod ends: time for its longest answer, and a hook that waits until nothing is left to lose."""

from __future__ import annotations

import math
import re
from importlib import resources
from typing import Any, Final

from worker_graph.kubernetes.labels import HTTP_PORT
from worker_graph.kubernetes.options import RenderOptions
from worker_graph.spec import Role
from worker_graph.vllm.arguments import Arguments

#: Seconds for the gateway's watch to see the deletion, and for what it had sent before to arrive.
SETTLE_S: Final = 5
#: Seconds between the end of the hook and the kill: vLLM's own stop.
STOP_S: Final = 30
#: Seconds for a prompt, queue included, until its prefill is done.
PREFILL_S: Final = 60
#: Tokens of the longest answer where neither an option nor `--max-model-len` says.
DEFAULT_OUTPUT_TOKENS: Final = 16_384

#: vLLM frees the KV blocks of a finished prefill that nobody has fetched after so many seconds.
HOLD_VARIABLE: Final = "VLLM_NIXL_ABORT_REQUEST_TIMEOUT"
HOLD_S: Final = 480

_LENGTH: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKmMgG]?)")
_FACTORS: Final = {
    "": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30,
}  # fmt: skip


def longest_decode_s(arguments: Arguments, options: RenderOptions) -> float:
    """Seconds that the longest answer of a worker takes.

    `options.longest_decode_s` where it is given, else output tokens x inter-token latency, with the tokens of
    `options.max_output_tokens`, else of `--max-model-len` (no answer is longer than the context), else
    DEFAULT_OUTPUT_TOKENS. The hook ends when the worker is empty, so a long time costs nothing while nothing hangs.
    """
    if options.longest_decode_s is not None:
        return options.longest_decode_s
    tokens = options.max_output_tokens
    if tokens is None:
        match = _LENGTH.fullmatch(arguments.text("--max-model-len") or "")
        tokens = int(float(match[1]) * _FACTORS[match[2]]) if match else DEFAULT_OUTPUT_TOKENS
    return tokens * options.itl_ms / 1000.0


def drain_limit_s(arguments: Arguments, role: Role, options: RenderOptions, *, nixl: bool) -> int:
    """Seconds after which the hook gives up.

    SETTLE_S, and the longest answer; of a prefill worker instead PREFILL_S, and with NIXL the time that vLLM holds
    blocks for a decode worker that does not fetch them.
    """
    if role is not Role.PREFILL:
        return math.ceil(SETTLE_S + longest_decode_s(arguments, options))
    hold = 0
    if nixl:
        text = arguments.component.env.get(HOLD_VARIABLE, str(HOLD_S))
        if not (text.isascii() and text.isdigit()):
            raise arguments.component.error(f"{HOLD_VARIABLE} is {text!r}", expected="a whole number of seconds")
        hold = int(text)
    return SETTLE_S + PREFILL_S + hold


def hook(limit_s: int, host: str = "127.0.0.1") -> dict[str, Any]:
    """A container's `preStop`.

    Args:
        limit_s: as `drain_limit_s`.
        host: whose metrics are asked; a pod without a server of its own waits for its leader's. `${NAME}` is a
            variable of the container.
    """
    url = f"http://{host}:{HTTP_PORT}/metrics"
    return {"exec": {"command": ["python3", "-c", script(), url, str(SETTLE_S), str(limit_s)]}}


def script() -> str:
    """The hook's program without its introduction: the worker's image need not have this package."""
    text = resources.files("worker_graph.kubernetes").joinpath("drain_hook.py").read_text(encoding="utf-8")
    return text.split('"""\n\n', 1)[1]
