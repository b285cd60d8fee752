"""The timing of one simulated worker: tables that are read one value at a time, and their file.

`profiler.timing` computes the tables; it needs scipy and a profile. A worker reads them from a file instead, so that
many start at once on a small machine. Lookups are in plain Python: one value costs less than a call into numpy.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from profiler.errors import DependencyError, InputError

if TYPE_CHECKING:
    from profiler.timing import EngineTiming, TransferTiming

#: Version of the file's contents.
FORMAT = 4


@dataclass(frozen=True)
class Limits:
    """What one worker may hold, and what its figures come from.

    Attributes:
        role: "prefill", "decode" or "aggregated".
        block_size: tokens of a KV block.
        capacity_blocks: KV blocks of the worker.
        max_num_seqs: requests that hold blocks at one time.
        max_num_batched_tokens: tokens of one iteration.
        max_model_len: prompt and output tokens of one request.
        prefill_step_tokens: tokens between nodes of the prefill table.
        kv_step_tokens: KV tokens between nodes of the decode table.
        transfer_step_tokens: tokens between nodes of the hand-off table.
        attention_ms_per_token2: quadratic part of the prompt time.
        floor_ms: decode iteration at batch 1 without KV; no iteration is shorter.
        shared_ms: what an iteration of prompts and decodes saves against the two apart.
        mixed_ms_per_request: what it takes beyond them for each request that decodes.
        front_ms, front_ms_per_token: TTFT outside the engine's loop, by prompt tokens.
        stream_ms: TTFT for each request that decodes in the iteration of the first token.
        ahead: 1 where an iteration is decided when the one before it begins, else 0.
        exposed: 1 where `behind` leaves out what of a launch is not hidden, else 0.
        kv_bytes_per_token: of the model, 0 where its shape is not known.
        gpus: GPUs of one worker.
        source: the model, GPU and profile behind the tables, for people.
    """

    role: str
    block_size: int
    capacity_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    prefill_step_tokens: float
    kv_step_tokens: float
    transfer_step_tokens: float
    attention_ms_per_token2: float
    floor_ms: float
    shared_ms: float
    mixed_ms_per_request: float
    front_ms: float
    front_ms_per_token: float
    stream_ms: float
    ahead: int
    exposed: int
    kv_bytes_per_token: float
    gpus: int
    source: str


@dataclass(eq=False)
class WorkerTiming:
    """Iteration times of one worker, ms.

    Attributes:
        limits: the worker's limits and the tables' steps.
        prefill: prompt time without attention at 0, step, … tokens; shape (N,).
        behind: the same for prompts whose iteration was launched while the one before it ran; shape (N,).
        decode: iteration time by running batch and KV node; shape (max_num_seqs + 1, K).
        transfer: hand-off time at 0, step, … tokens; shape (M,).
        post: by how much the decode iteration with which it begins is longer, at the same steps; shape (P,).
    """

    limits: Limits
    prefill: NDArray[np.float64]
    behind: NDArray[np.float64]
    decode: NDArray[np.float64]
    transfer: NDArray[np.float64]
    post: NDArray[np.float64]
    _prefill: list[float] = field(init=False, repr=False)
    _behind: list[float] = field(init=False, repr=False)
    _transfer: list[float] = field(init=False, repr=False)
    _post: list[float] = field(init=False, repr=False)
    _rows: dict[int, list[float]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._prefill, self._transfer = self.prefill.tolist(), self.transfer.tolist()
        self._behind, self._post = self.behind.tolist(), self.post.tolist()
        self._nodes: int = self.decode.shape[1]

    @classmethod
    def of(
        cls,
        engine: EngineTiming,
        transfer: TransferTiming,
        *,
        role: str,
        max_model_len: int | None = None,
        kv_bytes_per_token: float = 0.0,
        source: str = "",
    ) -> WorkerTiming:
        """The timing of a worker from the tables that the offline simulator uses.

        A request must fit the KV cache alone, so `max_model_len` is at most the cache; as vLLM has it at start-up.
        """
        blocks = engine.kv_capacity_tokens // engine.block_size
        limits = Limits(
            role=role,
            block_size=engine.block_size,
            capacity_blocks=blocks,
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_model_len=min(max_model_len or blocks * engine.block_size, blocks * engine.block_size),
            prefill_step_tokens=float(engine.prefill_step_tokens),
            kv_step_tokens=float(engine.kv_step_tokens),
            transfer_step_tokens=float(transfer.step_tokens),
            attention_ms_per_token2=float(engine.attention_ms_per_token2),
            floor_ms=float(engine.floor_ms),
            shared_ms=float(engine.shared_ms),
            mixed_ms_per_request=float(engine.mixed_ms_per_request),
            front_ms=float(engine.front_ms),
            front_ms_per_token=float(engine.front_ms_per_token),
            stream_ms=float(engine.stream_ms),
            ahead=int(engine.ahead),
            exposed=int(engine.exposed),
            kv_bytes_per_token=float(kv_bytes_per_token),
            gpus=engine.gpus,
            source=source,
        )
        return cls(
            limits, engine.prefill_ms, engine.behind_ms, engine.decode_ms, transfer.transfer_ms, transfer.post_ms
        )

    def linear_ms(self, tokens: float, before: float = 0.0) -> float:
        """Time of an iteration's prompt tokens without attention; the first prompt goes on at `before`."""
        return self._along(self._prefill, tokens, before)

    def linear_behind_ms(self, tokens: float, before: float, last_ms: float) -> float:
        """The same right behind an iteration of `last_ms`, during which it was launched."""
        hidden = self._along(self._behind, tokens, before)
        return max(hidden, self.linear_ms(tokens, before) - last_ms) if self.limits.exposed else hidden

    def _along(self, table: list[float], tokens: float, before: float) -> float:
        step = self.limits.prefill_step_tokens
        end = _between(table, (before + tokens) / step)
        return end - _between(table, before / step) if before > 0 else end

    def mixed_ms(self, prompts_ms: float, decode_ms: float, batch: int) -> float:
        """An iteration of prompts and a batch of decodes that take so long apart; never less than the decodes."""
        added = prompts_ms + self.limits.mixed_ms_per_request * batch
        return max(added + (decode_ms - self.limits.shared_ms), decode_ms)

    def front_end_ms(self, isl: int) -> float:
        """What a prompt's TTFT holds beside the engine's loop."""
        return self.limits.front_ms + self.limits.front_ms_per_token * isl

    def transfer_ms(self, tokens: int) -> float:
        """Hand-off time of a prompt's KV."""
        return _between(self._transfer, tokens / self.limits.transfer_step_tokens)

    def post_ms(self, tokens: int) -> float:
        """By how much the iteration with which a hand-off begins is longer."""
        return _between(self._post, tokens / self.limits.transfer_step_tokens)

    def decode_ms(self, batch: int, kv_tokens: int) -> float:
        """A pure decode iteration of `batch` requests that hold `kv_tokens` together."""
        return _between(self._row(batch), kv_tokens / self.limits.kv_step_tokens)

    def decode_rise_ms(self, batch: int, kv_tokens: int) -> float:
        """How much longer each further token in the cache makes that iteration, up to the table's next node."""
        row = self._row(batch)
        node = min(int(kv_tokens / self.limits.kv_step_tokens), self._nodes - 2)
        return (row[node + 1] - row[node]) / self.limits.kv_step_tokens

    def tokens_to_node(self, kv_tokens: int) -> float:
        """KV tokens up to the table's next node, where the rise changes; infinite behind the last."""
        step = self.limits.kv_step_tokens
        node = int(kv_tokens / step) + 1
        return node * step - kv_tokens if node < self._nodes - 1 else float("inf")

    def _row(self, batch: int) -> list[float]:
        row = self._rows.get(batch)
        if row is None:
            row = [float(value) for value in self.decode[batch]]
            self._rows[batch] = row
        return row

    def save(self, file: Path) -> None:
        """Write the file that `load` reads.

        Raises:
            DependencyError: the file system refused.
        """
        about = json.dumps({"format": FORMAT, **asdict(self.limits)})
        try:
            with file.open("wb") as out:
                tables = {name: getattr(self, name) for name in _TABLES}
                np.savez(out, about=np.array(about), **tables)
        except OSError as error:
            raise DependencyError(f"{file}: cannot be written: {error.strerror or error}") from None

    @classmethod
    def load(cls, file: Path) -> WorkerTiming:
        """Read a file that `save` wrote.

        Raises:
            InputError: it is not such a file.
        """
        try:
            # Opened here: numpy leaves a file that it cannot read open.
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
                about = json.loads(str(data["about"]))
                tables = [np.ascontiguousarray(data[name], np.float64) for name in _TABLES]
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", source=file) from None
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"is not a timing file ({error})", expected=_RIGHT, source=file) from None
        return cls(_limits(about, file), *_checked(tables, about, file))


_TABLES = ("prefill", "behind", "decode", "transfer", "post")
_RIGHT = "a file written with --write-timing"


def _between(table: list[float], place: float) -> float:
    """Linear between nodes, held behind the last."""
    node = min(int(place), len(table) - 2)
    low = table[node]
    return low + (table[node + 1] - low) * min(place - node, 1.0)


def _limits(about: Any, file: Path) -> Limits:
    if not isinstance(about, dict) or about.pop("format", None) != FORMAT:
        raise InputError("is of another version", expected=f"{_RIGHT} by this version", source=file)
    names = {item.name for item in fields(Limits)}
    if set(about) != names:
        odd = ", ".join(sorted(set(about) ^ names))
        raise InputError(f"fields missing or unknown: {odd}", expected=_RIGHT, source=file)
    for item in fields(Limits):
        value = about[item.name]
        right = isinstance(value, str) if item.type == "str" else isinstance(value, int | float) and value >= 0
        if not right or (item.type == "int" and not isinstance(value, int)):
            raise InputError(f"is {value!r}", expected=_RIGHT, source=file, field=item.name)
    return Limits(**about)


def _checked(tables: list[NDArray[np.float64]], about: dict[str, Any], file: Path) -> list[NDArray[np.float64]]:
    prefill, behind, decode, transfer, post = tables
    lines = all(table.ndim == 1 and len(table) > 1 for table in (prefill, transfer, post))
    shapes = lines and behind.shape == prefill.shape
    if not shapes or decode.ndim != 2 or decode.shape[0] <= about["max_num_seqs"] or decode.shape[1] < 2:
        raise InputError("tables of the wrong shape", expected=_RIGHT, source=file)
    if not all(np.isfinite(table).all() and (table >= 0).all() for table in tables):
        raise InputError("times that are negative or not finite", expected=_RIGHT, source=file)
    return tables
