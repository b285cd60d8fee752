"""What a run is asked for, and what can be refused before anything is started."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from profiler.errors import InputError
from profiler.models.layouts import Layout
from profiler.record.schedule import Schedule
from profiler.schema import TableName

#: What an engine is measured with where nobody says otherwise; recorded in every profile.
DEFAULT_MAX_NUM_SEQS, DEFAULT_MAX_NUM_BATCHED_TOKENS = 256, 8192
#: Of a GPU's memory, for each of two engines on it.
MOST_SHARED_MEMORY = 0.48
_TABLES: tuple[TableName, ...] = ("prefill", "decode", "mixed")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is asked for.

    Attributes:
        model: name or folder; with a URL None for the one that it serves.
        config: the model's config.json, where only its shape is known.
        stub: measure with random weights on a stub of the model.
        to: folder of the profiles.
        layouts: to measure; empty for all that fit.
        pair: layouts of a prefill and a decode worker over NIXL; None for workers by themselves.
        share_gpus: the two engines of a pair lie on the same GPUs, for want of more; only their hand-off is measured.
        url, prefill_url, decode_url: engines that run already.
        served_model: their name for the model.
        tp, dp: of the engine at `url`.
        gpu: name of the GPU; None for the driver's.
        gpus: which GPUs to use; None for all.
        max_gpu_minutes: of measuring, for each layout.
        max_error: relative leave-one-out error to reach.
        longest_isl, max_num_seqs, max_num_batched_tokens, block_size, max_model_len, gpu_memory_utilization: limits;
            None leaves them to the engine, but for the second and third, which then have a value of ours. With a URL
            they say what the engine was started with.
        dtype: number format of the weights; None for the model's own.
        vllm: command that `serve` is given to.
        engine_args: passed on to it.
        port: to listen on; None for a free one.
        startup_timeout_s, sample_timeout_s: an engine that takes longer failed.
        tables: of an engine by itself.
        resume, overwrite: what to do about what is there.
        name: of the run; None for one of model and GPU.
        part: of it that is measured here, where several runs share `to`; ends the name of its folder.
        status_file: one more place for the status.
        gpu_price_per_hour: for the cost.
        record: open-loop runs on each layout's engines once they are measured.
    """

    model: str | None = None
    config: Path | None = None
    stub: bool = False
    to: Path = Path("profiling_results")
    layouts: tuple[Layout, ...] = ()
    pair: tuple[Layout, Layout] | None = None
    share_gpus: bool = False
    url: str | None = None
    prefill_url: str | None = None
    decode_url: str | None = None
    served_model: str | None = None
    tp: int = 1
    dp: int = 1
    gpu: str | None = None
    gpus: tuple[int, ...] | None = None
    max_gpu_minutes: float = 6.0
    max_error: float = 0.05
    longest_isl: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    block_size: int | None = None
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    dtype: str | None = None
    vllm: tuple[str, ...] = ("vllm",)
    engine_args: tuple[str, ...] = ()
    port: int | None = None
    startup_timeout_s: float = 900.0
    sample_timeout_s: float = 300.0
    tables: tuple[TableName, ...] = field(default=_TABLES)
    resume: bool = False
    overwrite: bool = False
    name: str | None = None
    part: str | None = None
    status_file: Path | None = None
    gpu_price_per_hour: float | None = None
    record: tuple[Schedule, ...] = ()

    @property
    def launches(self) -> bool:
        """Whether engines are started here."""
        return self.url is None and self.prefill_url is None

    @property
    def is_pair(self) -> bool:
        """Whether a hand-off is measured."""
        return self.pair is not None or self.prefill_url is not None


def check(settings: Settings) -> None:
    """Refuse what contradicts itself, whatever the machine and the model.

    Raises:
        InputError: names the option.
    """
    _check_targets(settings)
    _check_limits(settings)
    check_writable(settings.to)
    if settings.status_file is not None:
        check_writable(settings.status_file.absolute().parent, "--status-file")


def _check_targets(settings: Settings) -> None:
    if (settings.prefill_url is None) != (settings.decode_url is None):
        missing = "--prefill-url" if settings.prefill_url is None else "--decode-url"
        raise InputError("is missing", expected="both addresses of a pair", field=missing)
    ways = {"--url": settings.url, "--prefill-url": settings.prefill_url, "--layout": settings.layouts or None}
    given = [option for option, value in ways.items() if value is not None]
    if settings.pair is not None and settings.prefill_url is None:
        given.append("--pair")
    if len(given) > 1:
        raise InputError(f"is given with {given[0]}", expected="one kind of target", field=given[1])
    if settings.launches and settings.model is None:
        raise InputError("is missing", expected="the model to measure", field="--model")
    if not settings.launches and settings.gpu is None:
        raise InputError("is missing", expected="what GPU the engine runs on, such as h100-sxm", field="--gpu")
    if settings.prefill_url is not None and settings.pair is None:
        raise InputError("is missing", expected="the layouts of the two engines, such as tp1:tp1", field="--pair")
    if settings.share_gpus and (settings.pair is None or not settings.launches):
        raise InputError("is given without engines to start", expected="--pair with it", field="--share-gpus")
    if settings.share_gpus and (settings.gpu_memory_utilization or 1.0) > MOST_SHARED_MEMORY:
        share = settings.gpu_memory_utilization
        problem = "is missing" if share is None else f"is {share:g}"
        right = f"at most {MOST_SHARED_MEMORY:g}: two engines lie on the same GPUs"
        raise InputError(problem, expected=right, field="--gpu-memory-utilization")
    if settings.share_gpus and settings.record:
        problem = "is given with --share-gpus: engines that share GPUs slow each other down"
        raise InputError(problem, expected="one of them", field="--record")
    if not settings.launches and settings.stub:
        raise InputError("is given with an engine that runs already", expected="one of them", field="--stub")
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        if not settings.launches and getattr(settings, name) is None:
            problem = "is missing: no interface of a running engine tells it"
            raise InputError(problem, expected="what the engine was started with", field=option(name))


def _check_limits(settings: Settings) -> None:
    positive = ("tp", "dp", "max_gpu_minutes", "max_error", "startup_timeout_s", "sample_timeout_s", "longest_isl",
                "max_num_seqs", "max_num_batched_tokens", "block_size", "max_model_len",
                "gpu_memory_utilization")  # fmt: skip
    for name in positive:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise InputError(f"is {value:g}", expected="a number above 0", field=option(name))
    if settings.max_error >= 1:
        raise InputError(f"is {settings.max_error:g}", expected="below 1", field="--max-error")
    if settings.gpu_price_per_hour is not None and not settings.gpu_price_per_hour >= 0:
        raise InputError(f"is {settings.gpu_price_per_hour:g}", expected="0 or more", field="--gpu-price-per-hour")
    if settings.gpu_memory_utilization is not None and settings.gpu_memory_utilization > 1:
        raise InputError(
            f"is {settings.gpu_memory_utilization:g}", expected="at most 1", field="--gpu-memory-utilization"
        )
    seqs = settings.max_num_seqs or DEFAULT_MAX_NUM_SEQS
    batched = settings.max_num_batched_tokens or DEFAULT_MAX_NUM_BATCHED_TOKENS
    if batched < seqs:
        right = f"at least --max-num-seqs, {seqs}: an iteration holds a token of each sequence"
        raise InputError(f"is {batched}", expected=right, field="--max-num-batched-tokens")
    if None not in {settings.longest_isl, settings.max_model_len}:
        check_isl(settings.longest_isl or 0, settings.max_model_len or 0)
    if not settings.tables or len(set(settings.tables)) != len(settings.tables):
        raise InputError("names a table twice, or none", expected=",".join(_TABLES), field="--tables")
    for table in settings.tables:
        if table not in _TABLES:
            raise InputError(f"names {table!r}", expected=f"some of {', '.join(_TABLES)}", field="--tables")
    if settings.name is not None and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", settings.name) is None:
        raise InputError(f"is {settings.name!r}", expected="letters, digits, dots and dashes", field="--name")


def check_isl(longest_isl: int, max_model_len: int) -> None:
    """Refuse prompts that leave no room for an answer.

    Raises:
        InputError: they are that long.
    """
    if longest_isl >= max_model_len:
        right = f"less than the longest sequence, {max_model_len:,} tokens"
        raise InputError(f"is {longest_isl:,}", expected=right, field="--longest-isl")


def check_writable(folder: Path, field_: str = "--to") -> None:
    """Refuse a folder that cannot be written to, without leaving anything in it.

    Raises:
        InputError: it, or the folder that it would be made in, cannot be written to.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    problem = None
    if not there.is_dir():
        problem = f"{there} is not a folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        problem = f"{there} cannot be written to"
    else:
        try:
            # Without a name in the folder: whoever looks sees nothing.
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            problem = f"{there} cannot be written to: {error.strerror or error}"
    if problem is not None:
        raise InputError(problem, expected="a folder that can be written to", source=folder, field=field_)


def option(name: str) -> str:
    """The option of a setting."""
    return "--" + name.replace("_", "-")


def slug(text: str) -> str:
    """A name as folders have it: the last part of a path or of a name on the hub, in lower case."""
    last = text.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^a-z0-9.+]+", "-", last.lower()).strip("-.") or "model"
